//! The writer's loop: what it is asked, and what it does meanwhile.

use super::*;
use crate::totals::delivery::send::BATCHES_AT_A_TIME;
use crate::totals::store::contract::{Claim, Run, WriterId};
use crate::totals::store::model::{Ends, Fault, Model};
use crate::totals::writer::mailbox::{Inbox, Order};

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
    let (mailbox, inbox) = Mailbox::new(lives);
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
    let (mailbox, inbox) = Mailbox::new(lives);
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
    let (mailbox, inbox) = Mailbox::new(lives);
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
