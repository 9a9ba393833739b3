//! The writer's loop: what it is asked, and what it does meanwhile.

use super::*;
use crate::totals::delivery::send::BATCHES_AT_A_TIME;
use crate::totals::store::contract::{Claim, Run, WriterId};
use crate::totals::store::model::{Ends, Fault, Model};
use crate::totals::writer::mailbox::{Inbox, Order, OrderRequest};

/// A process on a store in memory.
async fn process(model: &Model, dir: &Path) -> Process {
    process_with(model, settings(dir, 1000, Sync::Memory)).await
}

/// The same with settings of its own.
pub async fn process_with(model: &Model, mut config: Config) -> Process {
    // After the first one no turn comes between what is asked.
    config.store.flush_interval = Duration::from_secs(3600);
    let (clock, _) = Clock::by_hand(START_MS);
    let sites = Arc::new(Registry::from_pointee(Sites::new((0..SITES).map(site).collect())));
    let metrics = Arc::new(Metrics::new(&sites.load(), 1000).unwrap());
    let store = async || TestStore::Model(model.clone());
    let dir = DataDir::open(&config.data_dir).unwrap();
    Process::start_on(store, Duration::from_secs(60), &config, dir, &clock, sites, metrics, 1000)
        .await
        .unwrap()
}

/// As the writer's thread does.
async fn run_to_its_end(writer: Writer<TestStore>, inbox: Inbox, life: watch::Sender<()>) {
    writer.run(inbox).await;
    drop(life);
}

#[tokio::test]
async fn one_trip_reads_a_page_for_all_who_wait() {
    let (model, dir) = (Model::default(), tempfile::tempdir().unwrap());
    let Process { mut writer, totals, .. } = process(&model, dir.path()).await;
    writer.turn().await;
    let (life, lives) = watch::channel(());
    let (mailbox, inbox) = Mailbox::new(lives, &totals.shared.sites.load());
    let page = |n| Page::trusted(SiteId(0), &format!("/{n}"));
    let ask = |n| mailbox.fetch(SiteId(0), Wanted::Pages(vec![page(n), page(7)])).unwrap();
    let asks = async {
        let mut trips = Vec::new();
        // Of unknown pages, of the same once more, and of others.
        for first in [0, 0, 3] {
            let before = model.calls();
            for answer in (0..40).map(|n| ask(first + n % 3)).collect::<Vec<_>>() {
                answer.await.unwrap();
            }
            trips.push(model.calls() - before);
        }
        let recent = (0..40).map(|_| mailbox.fetch(SiteId(1), Wanted::Recent).unwrap());
        let before = model.calls();
        for answer in recent.collect::<Vec<_>>() {
            answer.await.unwrap();
        }
        trips.push(model.calls() - before);
        mailbox.stop(Duration::ZERO).await;
        trips
    };
    let ((), trips) = tokio::join!(run_to_its_end(writer, inbox, life), asks);
    // The recent past takes one more, for the pages that are read most.
    assert_eq!(trips, [1, 0, 1, 2]);
    assert!(totals.look(SiteId(0), totals.shared.clock.now()).page(&page(2)).is_some());
}

/// What takes long is under way, and never ends: others are answered, and a stop ends the writer all the same.
async fn goes_on_beside(begin: impl AsyncFn(&Mailbox)) {
    let (model, dir) = (Model::default(), tempfile::tempdir().unwrap());
    let another = Claim { runs: vec![Run { id: "r".into(), base: 0 }], ..Claim::default() };
    for n in 0..SITES {
        let day = crate::totals::store::tests::day("2026-11-29");
        model.attach(&site(n).key, "", &WriterId("gone".into()), day, &another).await.unwrap();
    }
    let Process { mut writer, totals, .. } = process(&model, dir.path()).await;
    writer.turn().await;
    let (life, lives) = watch::channel(());
    let (mailbox, inbox) = Mailbox::new(lives, &totals.shared.sites.load());
    let page = |n| Page::trusted(SiteId(0), &format!("/{n}"));
    let asks = async {
        // The writer has begun its work.
        mailbox.fetch(SiteId(0), Wanted::Figures).unwrap().await.unwrap();
        model.plan(Some(Fault { calls: 0, parts: 0, ends: Ends::Silent }));
        let others = async {
            assert_eq!(model.befallen().await, Ends::Silent);
            for n in 0..3 {
                mailbox.fetch(SiteId(0), Wanted::Pages(vec![page(n)])).unwrap().await.unwrap();
                assert!(totals.look(SiteId(0), totals.shared.clock.now()).page(&page(n)).is_some());
            }
            mailbox.stop(Duration::ZERO).await;
        };
        tokio::select! {
            biased;
            () = begin(&mailbox) => panic!("it has no end"),
            () = others => {}
        }
    };
    tokio::join!(run_to_its_end(writer, inbox, life), asks);
}

#[tokio::test]
async fn while_a_writer_is_retired_others_are_answered() {
    let retire = Order::Retire { writer: "gone".to_owned(), force: true };
    goes_on_beside(async |mailbox| _ = mailbox.order(retire.clone()).await).await;
}

#[tokio::test]
async fn while_the_pages_of_a_day_are_walked_through_others_are_answered() {
    goes_on_beside(async |mailbox| {
        // Let go of at the end.
        _ = mailbox.fetch(SiteId(1), Wanted::Recent).unwrap().await;
        std::future::pending().await
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_figures_that_cannot_be_read_has_no_site_read_again_and_again() {
    let (model, dir) = (Model::default(), tempfile::tempdir().unwrap());
    let Process { mut writer, .. } = process(&model, dir.path()).await;
    let ask = |site| {
        let (done, _answered) = oneshot::channel();
        ReadRequest { site: SiteId(site), wanted: Wanted::Figures, done, place: None }
    };
    writer.turn().await;
    model.spoil(&site(0).key, true);
    writer.refreshed_at = None;
    for (of, reads) in [(0, true), (0, false), (0, false), (1, true)] {
        let before = model.calls();
        writer.answer(vec![ask(of)]).await;
        assert_eq!(model.calls() > before, reads);
    }
}

#[tokio::test]
async fn after_a_refill_the_past_is_read_anew() {
    let (model, dir) = (Model::default(), tempfile::tempdir().unwrap());
    let Process { mut writer, totals, .. } = process(&model, dir.path()).await;
    let now = totals.shared.clock.now();
    totals.take(beacon(1, 0, 1, None, now)).unwrap().await.unwrap();
    writer.turn().await;
    let (done, _answered) = oneshot::channel();
    writer.answer(vec![ReadRequest { site: SiteId(0), wanted: Wanted::Recent, done, place: None }]).await;
    let walk = writer.walks.next().await;
    writer.end_walk(walk).await;
    let is_known = || totals.shared.tally().recent(SiteId(0), now).is_some();
    assert!(is_known());
    model.vanish();
    let (done, answer) = oneshot::channel();
    writer.obey(OrderRequest { order: Order::Refill { dry_run: false }, done }).await;
    let said = answer.await.unwrap().unwrap();
    assert!(said.contains("the store is up to date") && !is_known(), "{said}");
}

#[tokio::test]
async fn while_it_catches_up_the_writer_answers_and_a_stop_leaves_a_checkpoint() {
    const BATCHES: usize = 320;
    let (model, dir) = (Model::default(), tempfile::tempdir().unwrap());
    let Process { mut writer, totals, .. } = process(&model, dir.path()).await;
    writer.turn().await;
    model.set_down(true);
    for n in 0..BATCHES {
        let now = totals.shared.clock.now();
        totals.take(beacon(1, 0, (n % 5) as u8, None, now)).unwrap().await.unwrap();
        writer.freeze().await;
    }
    assert_eq!(writer.delivery.outbox.waiting(), BATCHES as u64);
    model.set_down(false);
    let (life, lives) = watch::channel(());
    let (mailbox, inbox) = Mailbox::new(lives, &totals.shared.sites.load());
    let asks = async {
        let mut applied = vec![model.past()];
        for _ in 0..3 {
            mailbox.fetch(SiteId(0), Wanted::Figures).unwrap().await.unwrap();
            applied.push(model.past());
            mailbox.order(Order::Retire { writer: "nobody".to_owned(), force: false }).await.unwrap_err();
            applied.push(model.past());
        }
        mailbox.register((*totals.shared.sites.load_full()).clone()).await.unwrap();
        applied.push(model.past());
        mailbox.stop(Duration::ZERO).await;
        applied
    };
    let ((), mut applied) = tokio::join!(run_to_its_end(writer, inbox, life), asks);
    applied.push(model.past());
    // One go of its own, and one of a turn that came between.
    let most = 3 * BATCHES_AT_A_TIME as usize;
    assert!(applied.windows(2).all(|pair| pair[1] - pair[0] <= most), "{applied:?}");
    let done = *applied.last().unwrap();
    assert!(done < BATCHES, "{applied:?}");
    let checkpoint = fs::read(dir.path().join(checkpoint::FILE)).unwrap();
    assert_eq!(Checkpoint::decode(&checkpoint).unwrap().applied, done as u64);

    // The next one goes on there, and comes to an end.
    let Process { mut writer, .. } = process(&model, dir.path()).await;
    writer.send_all().await;
    assert_eq!((writer.delivery.outbox.waiting(), model.past()), (0, BATCHES));
    assert!(model.data().doubled.is_none());
}

/// What the process says of a bound.
fn reached(totals: &Totals, bound: &str) -> f64 {
    let text = String::from_utf8(totals.shared.metrics.text().unwrap()).unwrap();
    let series = format!("footfall_bounds_reached_total{{bound=\"{bound}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_flood_of_reads_at_one_site_leaves_those_of_another_answered() {
    let (model, dir) = (Model::default(), tempfile::tempdir().unwrap());
    let Process { mut writer, totals, .. } = process(&model, dir.path()).await;
    writer.turn().await;
    let (life, lives) = watch::channel(());
    let (mailbox, inbox) = Mailbox::new(lives, &totals.shared.sites.load());
    let ask = |site: u16, page: u32| {
        let page = Page::trusted(SiteId(site), &format!("/{page}"));
        mailbox.fetch(SiteId(site), Wanted::Pages(vec![page]))
    };
    let flood = || (0..10_000).map_while(|page| ask(0, page)).collect::<Vec<_>>();
    let asks = async {
        // They wait for the writer, or for the store, which is slow.
        let first = flood();
        let second = ask(1, 0).unwrap();
        model.plan(Some(Fault { calls: 0, parts: 0, ends: Ends::Slow }));
        model.befallen().await;
        assert!(flood().is_empty() && ask(0, 0).is_none());
        let third = ask(1, 1).unwrap();
        second.await.unwrap();
        third.await.unwrap();
        for answer in first {
            answer.await.unwrap();
        }
        assert!(flood().len() > 256, "their places are free again");
        mailbox.stop(Duration::ZERO).await;
    };
    // In this order: what befalls the writer is seen before the writer goes on.
    tokio::join!(biased; asks, run_to_its_end(writer, inbox, life));
    let known = |page: &str| {
        totals.look(SiteId(1), totals.shared.clock.now()).page(&Page::trusted(SiteId(1), page)).is_some()
    };
    assert!(known("/0") && known("/1"));
}

#[tokio::test]
async fn whoever_waited_knows_what_is_not_there_however_many_asked() {
    let (model, dir) = (Model::default(), tempfile::tempdir().unwrap());
    let Process { mut writer, totals, .. } = process(&model, dir.path()).await;
    writer.turn().await;
    let (life, lives) = watch::channel(());
    let (mailbox, inbox) = Mailbox::new(lives, &totals.shared.sites.load());
    let pages = |asker: usize| {
        let page = |n| Page::trusted(SiteId(0), &format!("/never/{}/{n}", asker % 20));
        (0..100).map(page).collect::<Vec<_>>()
    };
    let ask = |asker| mailbox.fetch(SiteId(0), Wanted::Pages(pages(asker))).unwrap();
    let shown = |asker: usize, absent: &[u64]| {
        let mut look = totals.look(SiteId(0), totals.shared.clock.now()).without(absent);
        pages(asker).iter().filter_map(|page| look.page(page)).map(|views| views.all).collect::<Vec<_>>()
    };
    let asks = async {
        for askers in [0..40, 20..60] {
            for (asker, answer) in askers.map(|asker| (asker, ask(asker))).collect::<Vec<_>>() {
                let absent = answer.await.unwrap();
                assert_eq!(shown(asker, &absent), [0; 100]);
            }
        }
        // One that is viewed meanwhile is not shown without its view.
        let absent = ask(0).await.unwrap();
        let now = totals.shared.clock.now();
        let view = Beacon { page: pages(0).remove(0), ..beacon(1, 0, 0, None, now) };
        totals.take(view).unwrap().await.unwrap();
        assert_eq!(shown(0, &absent), [0; 99]);
        mailbox.stop(Duration::ZERO).await;
    };
    tokio::join!(run_to_its_end(writer, inbox, life), asks);
}

#[tokio::test(start_paused = true)]
async fn reads_that_are_turned_away_or_not_answered_in_time_are_counted() {
    let (model, dir) = (Model::default(), tempfile::tempdir().unwrap());
    let Process { mut writer, totals, .. } = process(&model, dir.path()).await;
    writer.turn().await;
    let (mailbox, inbox) = Mailbox::new(watch::channel(()).1, &totals.shared.sites.load());
    let shared = totals.shared.clone();
    let totals = Totals { shared, sessions: totals.sessions.clone(), writer: mailbox, reloads: false };
    let fetch = || totals.fetch_pages(SiteId(0), vec![Page::trusted(SiteId(0), "/a")]);
    _ = fetch().await;
    assert_eq!(reached(&totals, "loads"), 1.0, "the writer does not answer");
    while totals.writer.fetch(SiteId(0), Wanted::Recent).is_some() {}
    _ = fetch().await;
    assert_eq!(reached(&totals, "loads"), 2.0, "too many wait");
    drop(inbox);
}
