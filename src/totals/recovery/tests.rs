//! The whole of the totals without HTTP and without the writer's thread: the test takes the writer's steps
//! itself, so that the process can be killed between any two of them.
//!
//! A kill is a copy of `data_dir`. Everything here runs on one thread and between two steps nothing is
//! being written (the thread that syncs the journal alters no file), so what is copied is what the page
//! cache holds at one instant: exactly what is left after kill -9.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};

use super::*;
use crate::calendar::{Calendar, CivilHour, PerPeriod, Period, Zone};
use crate::clock::Hand;
use crate::ingest::{Beacon, Kind, Reason};
use crate::sessions;
use crate::sites::{Site, SiteKey};
use crate::totals::batch::part::{HashKind, HashName};
use crate::totals::delivery::Delivery;
use crate::totals::disk::faults::{Faults, Operation};
use crate::totals::disk::files::Folder;
use crate::totals::store::contract::{Query, Store, StoreConfig};
use crate::totals::store::tests::TestStore;
use crate::totals::store::url::StoreUrl;
use crate::totals::writer::mailbox::{Mailbox, ReadRequest, Wanted};
use crate::totals::writer::turn::Writer;
use crate::totals::{Figures, JournalConfig, OutboxConfig, Totals, Written, cases};

mod asked;
mod at_rest;
mod held;
mod power;
mod replay;
mod simulation;

const MINUTE: u64 = 60;
/// 2026-11-29T23:30+07:00, a Sunday: in half an hour a week begins, a day later a month.
const START_MS: i64 = 1_795_969_800_000;
const SITES: u16 = 2;

fn calendar() -> Calendar {
    Calendar { zone: Zone::named("Asia/Ho_Chi_Minh").unwrap(), week_start: chrono::Weekday::Mon }
}

fn site(id: u16) -> Site {
    Site {
        id: SiteId(id),
        key: SiteKey::new(&format!("s{id}")).unwrap(),
        hosts: vec![format!("s{id}.example")],
        origins: vec![],
        calendar: calendar(),
        locale: "vi".to_owned(),
        identity: Default::default(),
        pages: Default::default(),
        origin_check: Default::default(),
        honour: Vec::new(),
        filter: Default::default(),
        require_consent: false,
        readers: Default::default(),
        limits: Default::default(),
        newsroom_token: None,
    }
}

fn settings(dir: &Path, max_pages: usize, sync: Sync) -> Config {
    let seconds = Duration::from_secs;
    Config {
        data_dir: dir.to_owned(),
        journal: JournalConfig { sync, max_unsynced: seconds(3600 * 1000), max_bytes: 1 << 30 },
        outbox: OutboxConfig { retention: seconds(72 * 3600), max_bytes: 1 << 30 },
        store: StoreConfig {
            url: StoreUrl::Embedded,
            tls_ca_file: None,
            flush_interval: seconds(1),
            timeout: seconds(5),
        },
        max_pages,
        page_days: 62,
        fold_below: 0,
        max_ids: 1000,
        checkpoint_interval: seconds(3600),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to)
        } else {
            _ = fs::copy(entry.path(), to).unwrap()
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    View {
        who: u8,
        site: u16,
        page: u8,
        id: Option<u8>,
        waits: bool,
    },
    LeaveOut {
        site: u16,
    },
    Minutes(u16),
    Freeze,
    Send,
    Turn,
    Checkpoint,
    AskPage {
        site: u16,
        page: u8,
    },
    /// The retention of all batches is over.
    Trim,
    /// Ends as a process does that is killed, or told to stop; or whose store goes back to what it was
    /// at an earlier kill.
    Kill {
        back: Option<u8>,
    },
    /// The power is cut when the journal has been synced: what the disk holds otherwise is left to chance.
    CutPower {
        seed: u32,
    },
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    let id = prop_oneof![3 => Just(None), 1 => (0..3u8).prop_map(Some)];
    let minutes = prop_oneof![4 => Just(1u16), 3 => Just(7), 1 => Just(29), 1 => Just(31), 1 => Just(700), 1 => Just(1500)];
    let back = prop_oneof![2 => Just(None), 1 => any::<u8>().prop_map(Some)];
    prop_oneof![
        24 => (0..4u8, 0..SITES, 0..12u8, id, any::<bool>())
            .prop_map(|(who, site, page, id, waits)| Step::View { who, site, page, id, waits }),
        5 => (0..SITES).prop_map(|site| Step::LeaveOut { site }),
        6 => minutes.prop_map(Step::Minutes),
        3 => Just(Step::Freeze),
        2 => Just(Step::Send),
        3 => Just(Step::Turn),
        3 => Just(Step::Checkpoint),
        3 => (0..SITES, 0..12u8).prop_map(|(site, page)| Step::AskPage { site, page }),
        3 => back.prop_map(|back| Step::Kill { back }),
        2 => any::<u32>().prop_map(|seed| Step::CutPower { seed }),
        1 => Just(Step::Stop),
    ]
}

/// A running process.
struct Process {
    totals: Arc<Totals>,
    sessions: Arc<Sessions>,
    metrics: Arc<Metrics>,
    writer: Writer<TestStore>,
    committing: tokio::task::JoinHandle<()>,
    /// What was shown before the store was asked.
    at_start: Vec<Figures>,
}

impl Process {
    async fn start(config: &Config, dir: DataDir, clock: &Clock) -> Process {
        let sites = Arc::new(Registry::from_pointee(Sites::new((0..SITES).map(site).collect())));
        let metrics = Arc::new(Metrics::new(&sites.load(), 1000).unwrap());
        let store = async || TestStore::open(&config.store, &config.data_dir).await.unwrap();
        // However busy the machine is: what is known after the start is compared.
        let patience = Duration::from_secs(60);
        Process::start_on(store, patience, config, dir, clock, sites, metrics, 1000).await.unwrap()
    }

    #[expect(clippy::too_many_arguments, reason = "tests choose each of them")]
    async fn start_on(
        store: impl AsyncFnOnce() -> TestStore,
        patience: Duration,
        config: &Config,
        dir: DataDir,
        clock: &Clock,
        sites: Arc<Registry>,
        metrics: Arc<Metrics>,
        max_sessions: usize,
    ) -> io::Result<Process> {
        let table = sessions::Config {
            online_window: Duration::from_secs(5 * MINUTE),
            visit_timeout: Duration::from_secs(30 * MINUTE),
            max_sessions,
            max_pages: 1000,
        };
        let places = sites.load().iter().map(|site| site.id).collect::<Vec<_>>();
        let sessions = Arc::new(Sessions::new(table, sites.load().room(), metrics.clone(), clock.now()));
        let (config, table) = (config.clone(), sessions.clone());
        let start = read_back(config, dir, clock.clone(), sites, table, metrics.clone())?;
        let Start { config, shared, sessions, parts, frozen_to, moves } = start;
        let (mailbox, _) = Mailbox::new(watch::channel(()).1, &shared.sites.load());
        let totals = Arc::new(Totals {
            shared: shared.clone(),
            sessions: sessions.clone(),
            writer: mailbox,
            reloads: false,
        });
        let at_start = places.iter().map(|site| totals.look(*site, clock.now()).figures()).collect();
        let dir = parts.dir.clone();
        let delivery = Delivery::new(parts, store().await)?;
        let mut writer = Writer::new(shared, sessions.clone(), dir, config, delivery, frozen_to, moves);
        writer.begin(patience).await;
        let committing = tokio::spawn({
            let totals = totals.clone();
            async move { totals.commit_groups().await }
        });
        Ok(Process { totals, sessions, metrics, writer, committing, at_start })
    }

    /// Views that were counted and that were repeated, as the operators are told.
    fn outcomes(&self) -> (u64, u64) {
        let text = String::from_utf8(self.metrics.text().unwrap()).unwrap();
        let of = |outcome| {
            let series = format!("footfall_beacons_total{{outcome=\"{outcome}\",site=");
            let of_sites = text.lines().filter(|line| line.starts_with(&series));
            of_sites.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
        };
        (of("counted") + of("folded"), of("repeated"))
    }

    async fn end(self) {
        self.committing.abort();
        self.committing.await.ok();
    }
}

/// A view as it is decided.
fn beacon(who: u8, site: u16, page: u8, id: Option<u8>, at: Moment) -> Beacon {
    beacon_in(&calendar(), who, site, page, id, at)
}

fn beacon_in(calendar: &Calendar, who: u8, site: u16, page: u8, id: Option<u8>, at: Moment) -> Beacon {
    let hour = calendar.span(at.unix_ms).hour;
    let visitor = |day: chrono::NaiveDate| {
        let day: u64 = day.to_string().replace('-', "").parse().unwrap();
        VisitorId((day * 100 + u64::from(who)) * 10 + u64::from(site))
    };
    let yesterday = hour.day.pred_opt().unwrap();
    Beacon {
        kind: Kind::View,
        site: SiteId(site),
        page: Page::trusted(SiteId(site), &format!("/{page}")),
        visitor: Some(Visitor {
            today: visitor(hour.day),
            beside: (hour.hour < 3).then(|| visitor(yesterday)),
        }),
        id: id.map(|id| u64::from(id) * 10 + u64::from(site)),
        at,
        hour,
        is_shadow: false,
    }
}

/// A counted view, as the model remembers it.
struct Counted {
    site: u16,
    page: u8,
    hour: CivilHour,
    visit: bool,
}

struct Run {
    dirs: Vec<tempfile::TempDir>,
    faults: Faults,
    max_pages: usize,
    sync: Sync,
    process: Option<Process>,
    clock: Clock,
    hand: Hand,
    views: Vec<Counted>,
    /// Robots' views, and how many of the last are in no batch.
    left_out: Vec<(u16, CivilHour)>,
    loose: usize,
    /// When each visitor of a site was last seen, and the ids and when they were counted.
    seen: BTreeMap<(u16, u8), i64>,
    ids: BTreeMap<(u16, u8), i64>,
    waiting: Vec<Written>,
    /// When the process began, and how many views it counted and knew to be repeated.
    began_ms: i64,
    outcomes: (u64, u64),
}

impl Run {
    async fn new(max_pages: usize, sync: Sync) -> Run {
        let (clock, hand) = Clock::by_hand(START_MS);
        let dirs = vec![tempfile::tempdir().unwrap()];
        let (views, left_out, seen, ids, waiting, outcomes) = Default::default();
        let (process, began_ms) = (None, START_MS);
        let mut run = Run {
            dirs,
            faults: Faults::default(),
            max_pages,
            sync,
            process,
            clock,
            hand,
            views,
            left_out,
            loose: 0,
            seen,
            ids,
            waiting,
            began_ms,
            outcomes,
        };
        run.start().await;
        run
    }

    fn dir(&self) -> &Path {
        self.dirs.last().unwrap().path()
    }

    async fn start(&mut self) {
        let config = settings(self.dir(), self.max_pages, self.sync);
        self.process = Some(Process::start(&config, lock(self.dir(), &self.faults), &self.clock).await);
        (self.began_ms, self.outcomes) = (self.clock.now().unix_ms, (0, 0));
        self.check(true);
        let hour = calendar().span(self.clock.now().unix_ms).hour;
        for (site, figures) in (0..SITES).zip(&self.process.as_ref().unwrap().at_start) {
            self.check_site(site, figures, &hour);
        }
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::View { who, site, page, id, waits } => self.view(who, site, page, id, waits).await,
            Step::Minutes(minutes) => {
                self.written().await;
                for _ in 0..minutes {
                    self.hand.advance(Duration::from_secs(MINUTE));
                    let now = self.clock.now();
                    self.process().totals.tick(now);
                }
            }
            Step::LeaveOut { site } => {
                let Beacon { at, hour, .. } = self.beacon(0, site, 0, None);
                self.process().totals.leave_out(SiteId(site), &hour, Reason::Robot, at);
                self.left_out.push((site, hour));
                self.loose += 1;
            }
            Step::Freeze => {
                self.process().writer.freeze().await;
                self.loose = 0;
            }
            Step::Send => self.process().writer.send().await,
            Step::Turn => {
                self.process().writer.turn().await;
                self.loose = 0;
            }
            Step::Checkpoint => {
                self.written().await;
                self.process().writer.checkpoint().await;
            }
            Step::AskPage { site, page } => {
                let site = SiteId(site);
                let page = Page::trusted(site, &format!("/{page}"));
                let (done, _answered) = oneshot::channel();
                self.process()
                    .writer
                    .answer(vec![ReadRequest { site, wanted: Wanted::Pages(vec![page]), done, place: None }])
                    .await;
            }
            Step::Trim => {
                let outbox = &mut self.process().writer.delivery.outbox;
                outbox.trim(0, true).unwrap();
                outbox.trim(u64::MAX / 4, true).unwrap();
            }
            Step::Kill { back } => self.kill(back).await,
            Step::CutPower { seed } => {
                self.written().await;
                let journal = self.process().totals.shared.intake.journal.clone().unwrap();
                journal.synced_to(journal.ask_sync()).await;
                self.cut_power(seed).await;
            }
            Step::Stop => self.stop().await,
        }
        self.check(false);
    }

    /// Everything that was taken is written and answered, and was counted or not as the model has it.
    async fn written(&mut self) {
        self.answered().await;
        assert_eq!(self.process().outcomes(), self.outcomes, "views counted and repeated");
    }

    async fn answered(&mut self) {
        for written in std::mem::take(&mut self.waiting) {
            tokio::time::timeout(Duration::from_secs(30), written).await.unwrap().unwrap();
        }
    }

    fn beacon(&self, who: u8, site: u16, page: u8, id: Option<u8>) -> Beacon {
        let at = self.clock.now();
        beacon(who, site, page, id, at)
    }

    async fn view(&mut self, who: u8, site: u16, page: u8, id: Option<u8>, waits: bool) {
        let beacon = self.beacon(who, site, page, id);
        let (at, hour) = (beacon.at, beacon.hour);
        if self.count(beacon, id).await {
            let visit = self.seen.get(&(site, who)).is_none_or(|seen| at.unix_ms - seen > 30 * 60_000);
            self.seen.insert((site, who), at.unix_ms);
            self.views.push(Counted { site, page, hour, visit });
            if let Some(id) = id {
                self.ids.insert((site, id), at.unix_ms);
            }
        }
        if waits {
            self.written().await;
        }
    }

    /// Takes a view; whether it counts.
    async fn count(&mut self, view: Beacon, id: Option<u8>) -> bool {
        let now_ms = view.at.unix_ms;
        let then = id.and_then(|id| self.ids.get(&(view.site.0, id))).copied();
        let counts = match then {
            None => Some(true),
            Some(then) if now_ms - then < 10 * 60_000 => Some(false),
            // A start remembers anew what it finds.
            Some(then) if now_ms - then.max(self.began_ms) >= 20 * 60_000 => Some(true),
            Some(_) => None,
        };
        if counts.is_none() {
            // It may be known or not: it comes alone and is seen by what is told.
            self.written().await;
        }
        let written = self.process().totals.take(view).unwrap();
        self.waiting.push(written);
        let counts = match counts {
            Some(counts) => counts,
            None => {
                self.answered().await;
                self.process().outcomes().0 > self.outcomes.0
            }
        };
        let (counted, repeated) = &mut self.outcomes;
        *if counts { counted } else { repeated } += 1;
        counts
    }

    /// Writes a checkpoint, or as much of it as the disk lets the process write before it ends.
    async fn end_of_checkpoint(&mut self) {
        let journal = self.process().totals.shared.intake.journal.clone().unwrap();
        tokio::select! {
            () = self.process().writer.checkpoint() => {}
            () = journal.sync_ended() => {}
        }
    }

    async fn kill(&mut self, back: Option<u8>) {
        self.written().await;
        let fresh = tempfile::tempdir().unwrap();
        copy(self.dir(), fresh.path());
        if let Some(back) = back {
            let earlier = self.dirs[usize::from(back) % self.dirs.len()].path();
            fs::copy(earlier.join("totals.redb"), fresh.path().join("totals.redb")).unwrap();
        }
        self.restart_in(fresh).await;
    }

    async fn cut_power(&mut self, seed: u32) {
        let fresh = tempfile::tempdir().unwrap();
        let mut dice = seed;
        self.faults.cut_power(self.dir(), fresh.path(), |n| {
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (dice >> 16) as usize % n
        });
        // The embedded store syncs for itself: what it said it holds it holds.
        fs::copy(self.dir().join("totals.redb"), fresh.path().join("totals.redb")).unwrap();
        self.restart_in(fresh).await;
    }

    async fn stop(&mut self) {
        self.written().await;
        let process = self.process();
        process.writer.freeze().await;
        process.writer.send_all().await;
        process.writer.checkpoint().await;
        self.loose = 0;
        self.process.take().unwrap().end().await;
        self.start().await;
    }

    async fn restart_in(&mut self, dir: tempfile::TempDir) {
        // What is in no batch is in no journal either.
        self.left_out.truncate(self.left_out.len() - std::mem::take(&mut self.loose));
        self.process.take().unwrap().end().await;
        self.dirs.push(dir);
        self.faults = Faults::default();
        // Another process: its monotonic clock begins anew.
        (self.clock, self.hand) = Clock::by_hand(self.clock.now().unix_ms);
        self.start().await;
    }

    fn left_out(&self, site: u16, period: Period, hour: &CivilHour) -> u64 {
        let is_within =
            |(of, at): &&(u16, CivilHour)| *of == site && at.bucket(period) == hour.bucket(period);
        self.left_out.iter().filter(is_within).count() as u64
    }

    fn sums(&self, site: u16, page: Option<u8>, period: Period, hour: &CivilHour) -> (u64, u64) {
        let within = |view: &&Counted| {
            view.site == site
                && page.is_none_or(|page| view.page == page)
                && view.hour.bucket(period) == hour.bucket(period)
        };
        let of = |visit: bool| self.views.iter().filter(within).filter(|v| v.visit || !visit).count() as u64;
        (of(false), of(true))
    }

    /// Compares what is shown with what was counted. Between steps some views may not be written yet.
    fn check(&self, known: bool) {
        if !self.waiting.is_empty() {
            return;
        }
        let (now, process) = (self.clock.now(), self.process.as_ref().unwrap());
        let hour = calendar().span(now.unix_ms).hour;
        for site in 0..SITES {
            let figures = process.totals.look(SiteId(site), now).figures();
            assert!(!known || figures.views.day.is_some(), "the figures are known after a start");
            self.check_site(site, &figures, &hour);
            for period in Period::SHOWN {
                for page in (0..12).filter(|_| self.max_pages >= 12) {
                    let text = Page::trusted(SiteId(site), &format!("/{page}"));
                    let shown = process.totals.look(SiteId(site), now).page(&text);
                    let (views, _) = self.sums(site, Some(page), period, &hour);
                    assert!(
                        shown.is_none_or(|shown| shown.get(period) == Some(&views)),
                        "page {page}, {period:?}: {shown:?} and not {views}"
                    );
                }
            }
            let online =
                self.seen.iter().filter(|((of, _), seen)| *of == site && now.unix_ms - **seen < 300_000);
            assert_eq!(process.sessions.online(SiteId(site), now), online.count() as u64);
        }
    }

    fn check_site(&self, site: u16, figures: &Figures, hour: &CivilHour) {
        if figures.views.day.is_some() {
            let shown: u64 = figures.filtered.iter().sum();
            assert_eq!(shown, self.left_out(site, Period::Day, hour), "left out of site {site}");
        }
        for period in Period::SHOWN {
            let (views, visits) = self.sums(site, None, period, hour);
            for (shown, counted) in [(figures.views.get(period), views), (figures.visits.get(period), visits)]
            {
                assert!(
                    shown.copied().flatten().is_none_or(|shown| shown == counted),
                    "{period:?}: {figures:?} and not {counted}"
                );
            }
        }
    }

    /// Everything is brought to the store, which must hold exactly what was counted.
    async fn end(mut self) {
        self.written().await;
        self.process().writer.turn().await;
        self.process().writer.send_all().await;
        self.check(true);
        let process = self.process.take().unwrap();
        assert_eq!(process.writer.delivery.outbox.waiting(), 0);
        let (mut buckets, mut pages) = (BTreeSet::new(), BTreeMap::<_, u64>::new());
        for (site, hour) in &self.left_out {
            buckets.extend(Period::WORDS.map(|(_, period)| (*site, period, *hour)));
        }
        for view in &self.views {
            buckets.extend(Period::WORDS.map(|(_, period)| (view.site, period, view.hour)));
            for period in [Period::Day, Period::Month, Period::All] {
                *pages.entry((view.site, view.hour.bucket(period))).or_default() += 1;
            }
        }
        let read = async |site: u16, bucket, kind, fields: &[String]| {
            let hash = HashName { site: SiteKey::new(&format!("s{site}")).unwrap(), bucket, kind };
            let fields = fields.iter().map(|field| field.as_str().into()).collect();
            let writer = &process.writer;
            let found = writer
                .delivery
                .store
                .read(&writer.delivery.identity.writer, vec![Query { hash, fields }])
                .await
                .unwrap();
            found[0].sums.iter().map(|sum| sum.unwrap_or(0)).collect::<Vec<_>>()
        };
        for (site, period, hour) in buckets {
            let (views, visits) = self.sums(site, None, period, &hour);
            let fields = ["views".to_owned(), "visits".to_owned(), "filtered:robot".to_owned()];
            let bucket = hour.bucket(period);
            let held = read(site, bucket, HashKind::Sums, &fields).await;
            let left_out = self.left_out(site, period, &hour);
            assert_eq!(held, [views, visits, left_out], "{bucket} of site {site}");
            if self.max_pages >= 12 && [Period::Day, Period::Month, Period::All].contains(&period) {
                let texts: Vec<_> = (0..12).map(|page| format!("/{page}")).collect();
                let views: Vec<_> =
                    (0..12).map(|page| self.sums(site, Some(page), period, &hour).0).collect();
                assert_eq!(read(site, bucket, HashKind::Pages, &texts).await, views);
            }
        }
        for ((site, bucket), views) in pages {
            let mut texts: Vec<_> = (0..12).map(|page| format!("/{page}")).collect();
            texts.push(crate::ingest::OTHER.to_owned());
            let found: u64 = read(site, bucket, HashKind::Pages, &texts).await.iter().sum();
            assert_eq!(found, views, "pages of {bucket} add up");
        }
        process.end().await;
    }
}

/// Another test that starts a server holds every lock of this process for a moment, between fork and exec.
fn lock(dir: &Path, disk: &Faults) -> DataDir {
    for _ in 0..10_000 {
        match DataDir::lock(Folder::on(dir, disk)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return opened.unwrap(),
        }
    }
    panic!("the last process still holds {}", dir.display())
}

fn run(steps: &[Step], max_pages: usize, sync: Sync) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut run = Run::new(max_pages, sync).await;
        for step in steps {
            run.step(step).await;
        }
        run.end().await;
    });
}

#[test]
fn what_was_answered_is_counted_once_whatever_happens_to_the_process() {
    let steps = prop::collection::vec(step(), 10..70);
    let ways = (
        prop_oneof![Just(3usize), Just(1000)],
        prop_oneof![4 => Just(Sync::EverySecond), 1 => Just(Sync::Always)],
    );
    let mut runner = TestRunner::new(Cases { failure_persistence: None, ..Cases::with_cases(cases(16)) });
    runner
        .run(&(steps, ways), |(steps, (max_pages, sync))| {
            run(&steps, max_pages, sync);
            Ok(())
        })
        .unwrap();
}

/// The n-th write fails, for every n: its group is undone as a whole, and the same views sent again count.
#[tokio::test]
async fn views_whose_write_fails_are_refused_and_count_when_they_come_again() {
    let mut refused = 0;
    for n in 1..=24 {
        let mut run = Run::new(1000, Sync::EverySecond).await;
        run.faults.only(&[Operation::Create, Operation::Write]);
        run.faults.fail_after(n);
        for view in 0..12u8 {
            let beacon = run.beacon(view % 3, 0, view % 2, Some(view));
            for tries in 0..3 {
                let (first, second) =
                    (beacon.clone(), Beacon { id: Some(1000 + u64::from(view)), ..beacon.clone() });
                let totals = run.process().totals.clone();
                let group = [totals.take(first).unwrap(), totals.take(second).unwrap()];
                let [first, second] = group;
                let (first, second) = (first.await, second.await);
                assert_eq!(first, second, "views of a group share its fate");
                if first.is_ok() {
                    break;
                }
                assert_eq!(run.process().outcomes().0, u64::from(view) * 2, "nothing of it is counted");
                refused += 1;
                assert!(tries < 2, "it fails once");
            }
            match view % 4 {
                1 => run.process().writer.turn().await,
                3 => run.process().writer.checkpoint().await,
                _ => {}
            }
        }
        let now = run.clock.now();
        let figures = run.process().totals.look(SiteId(0), now).figures();
        assert_eq!((figures.views.all, figures.visits.all), (Some(24), Some(3)), "operation {n}");
        assert_eq!(run.process().outcomes(), (24, 0));
        let fresh = tempfile::tempdir().unwrap();
        copy(run.dir(), fresh.path());
        run.process.take().unwrap().end().await;
        let config = settings(fresh.path(), 1000, Sync::EverySecond);
        let process = Process::start(&config, DataDir::open(fresh.path()).unwrap(), &run.clock).await;
        let figures = process.totals.look(SiteId(0), now).figures();
        assert_eq!(
            (figures.views.all, figures.visits.all),
            (Some(24), Some(3)),
            "operation {n}, after a kill"
        );
        process.end().await;
    }
    assert!(refused >= 8, "{refused} groups were refused");
}

/// Nobody is sent to a process whose journal fails. After a while somebody is again: nothing else shows that it works.
#[tokio::test]
async fn after_a_write_that_failed_it_is_unready_until_one_succeeds_or_ten_seconds_are_over() {
    let mut run = Run::new(1000, Sync::EverySecond).await;
    run.faults.only(&[Operation::Write]);
    let totals = run.process().totals.clone();
    let refusing = || totals.health().refusing;
    for succeeds in [false, true] {
        assert_eq!(refusing(), None);
        run.faults.fail_after(1);
        let view = run.beacon(1, 0, 1, None);
        assert!(totals.take(view.clone()).unwrap().await.is_err());
        run.hand.advance(Duration::from_millis(9_999));
        assert_eq!(refusing(), Some("journal-full"));
        if succeeds {
            totals.take(view).unwrap().await.unwrap();
        } else {
            run.hand.advance(Duration::from_millis(1));
        }
        assert_eq!(refusing(), None);
    }
    drop(totals);
    run.process.take().unwrap().end().await;
}

/// The power is cut before the journal is synced, and what comes after it stands where the lost views stood.
#[tokio::test]
async fn views_after_a_power_cut_are_not_taken_for_those_that_it_took() {
    let mut run = Run::new(1000, Sync::EverySecond).await;
    run.step(&VIEW).await;
    run.step(&Step::Turn).await;
    // Not synced: the power cut may take it.
    let lost = run.beacon(2, 0, 1, None);
    run.process().totals.take(lost).unwrap().await.unwrap();
    let fresh = tempfile::tempdir().unwrap();
    run.faults.cut_power(run.dir(), fresh.path(), |n| n.min(2) - 1);
    fs::copy(run.dir().join("totals.redb"), fresh.path().join("totals.redb")).unwrap();
    run.restart_in(fresh).await;
    run.step(&VIEW).await;
    run.step(&Step::Turn).await;
    run.end().await;
}

/// The power goes with the n-th operation of a checkpoint, for every n: the same view again counts, or is known.
#[tokio::test]
async fn a_checkpoint_tells_of_no_view_that_a_power_cut_takes() {
    for n in 1..=16 {
        let mut run = Run::new(1000, Sync::EverySecond).await;
        let view = run.beacon(1, 0, 1, Some(1));
        run.process().totals.take(view.clone()).unwrap().await.unwrap();
        run.faults.power_goes_after(n);
        run.end_of_checkpoint().await;
        let fresh = tempfile::tempdir().unwrap();
        run.faults.cut_power(run.dir(), fresh.path(), |n| n.min(2) - 1);
        fs::copy(run.dir().join("totals.redb"), fresh.path().join("totals.redb")).unwrap();
        let process = run.process.take().unwrap();
        process.end().await;
        let config = settings(fresh.path(), 1000, Sync::EverySecond);
        let process = Process::start(&config, DataDir::open(fresh.path()).unwrap(), &run.clock).await;
        process.totals.take(view).unwrap().await.unwrap();
        let figures = process.totals.look(SiteId(0), run.clock.now()).figures();
        let shown = (figures.views.all, figures.visits.all, figures.visitors.day);
        assert_eq!(shown, (Some(1), Some(1), Some(1)), "operation {n}");
        process.end().await;
    }
}

/// The sync of the newest batch failed: it is read from the page cache, sent, and then the power is cut.
#[tokio::test]
async fn a_batch_whose_sync_failed_is_copied_before_it_is_sent() {
    let mut run = Run::new(1000, Sync::EverySecond).await;
    run.step(&VIEW).await;
    run.step(&Step::Turn).await;
    run.step(&VIEW).await;
    let journal = run.process().totals.shared.intake.journal.clone().unwrap();
    journal.synced_to(journal.ask_sync()).await;
    run.faults.only(&[Operation::Sync]);
    run.faults.fail_after(1);
    let died = {
        let process = run.process.take().unwrap();
        let Process { totals, mut writer, committing, .. } = process;
        let died = tokio::spawn(async move { writer.freeze().await }).await.is_err();
        committing.abort();
        committing.await.ok();
        drop(totals);
        died
    };
    assert!(died, "the process ends");
    run.faults.only(&[]);
    drop(journal);
    // The same disk: its page cache still holds the batch.
    run.start().await;
    run.step(&Step::Turn).await;
    run.step(&Step::CutPower { seed: 1 }).await;
    run.step(&VIEW).await;
    run.end().await;
}

/// What must be known at the next start cannot be saved for a while.
#[tokio::test]
async fn a_data_dir_that_cannot_be_written_is_at_fault_and_not_the_store() {
    let mut run = Run::new(1000, Sync::EverySecond).await;
    run.step(&VIEW).await;
    let faults = run.faults.clone();
    faults.only(&[Operation::Rename]);
    let Writer { delivery, .. } = &mut run.process().writer;
    // As if the store were new to it.
    delivery.identity.datasets.clear();
    delivery.attach_anew();
    faults.fail_after(1);
    run.step(&Step::Turn).await;
    let Process { writer, .. } = run.process();
    assert_eq!((faults.failed(), writer.delivery.outbox.waiting()), (vec![Operation::Rename], 1));
    assert!(writer.delivery.identity.datasets.is_empty(), "what is not saved is not believed");
    let held = writer.shared.held().unwrap();
    assert!(held.contains("data_dir") && writer.shared.store_up(), "{held}");
    writer.delivery.retry_now();
    run.step(&Step::Turn).await;
    let Process { writer, .. } = run.process();
    assert_eq!((writer.shared.held(), writer.delivery.outbox.waiting()), (None, 0));
    let saved = fs::read_to_string(run.dir().join("writer")).unwrap();
    assert!(saved.contains("dataset embedded s0 ") && saved.contains("dataset embedded s1 "), "{saved}");
    run.end().await;
}

const VIEW: Step = Step::View { who: 1, site: 0, page: 1, id: None, waits: true };

#[tokio::test]
async fn the_last_known_figures_and_all_that_waits_are_shown_without_the_store_days_later() {
    use Step::*;
    let mut run = Run::new(1000, Sync::EverySecond).await;
    let before = [VIEW, Turn, Checkpoint, VIEW, Freeze, Minutes(31), VIEW, Freeze];
    let later = [Checkpoint, Minutes(1500), VIEW, Freeze, Checkpoint, VIEW, Kill { back: None }];
    for step in before.iter().chain(&later) {
        run.step(step).await;
    }
    let shown = &run.process().at_start[0];
    assert_eq!(shown.views, [2, 3, 2, 5, 5].map(Some).into());
    run.end().await;
}

#[test]
fn an_id_counts_again_after_twenty_minutes_and_no_sooner_than_after_ten() {
    use Step::*;
    let named = View { who: 1, site: 0, page: 1, id: Some(1), waits: true };
    for minutes in [0, 9, 20] {
        let again = [Kill { back: None }, named.clone()];
        run(
            &[[named.clone(), Minutes(minutes), named.clone()].as_slice(), &again].concat(),
            1000,
            Sync::Always,
        );
    }
}

#[test]
fn an_outbox_that_keeps_nothing_makes_no_start_count_twice() {
    use Step::*;
    let wait = Minutes(29);
    run(
        &[VIEW, Turn, wait.clone(), VIEW, Freeze, Send, wait, Trim, Kill { back: None }, VIEW, Turn],
        1000,
        Sync::EverySecond,
    );
}

#[test]
fn a_store_that_goes_back_over_midnight_is_healed_in_the_day_that_is_over_too() {
    use Step::*;
    let back = Kill { back: Some(0) };
    run(
        &[
            VIEW,
            Turn,
            Kill { back: None },
            VIEW,
            Turn,
            Minutes(31),
            VIEW,
            Turn,
            Checkpoint,
            Minutes(1500),
            VIEW,
            Turn,
            back,
            VIEW,
            Turn,
        ],
        1000,
        Sync::EverySecond,
    );
}

#[test]
fn a_hash_that_is_lost_beside_others_that_went_back_holds_nothing_up() {
    use Step::*;
    let other = View { who: 1, site: 1, page: 1, id: None, waits: true };
    let back = Kill { back: Some(0) };
    for _ in 0..3 {
        let steps =
            [VIEW, Turn, Kill { back: None }, VIEW, other.clone(), Turn, Checkpoint, back.clone(), VIEW];
        run(&steps, 1000, Sync::EverySecond);
    }
}
