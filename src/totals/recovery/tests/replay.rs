//! A start decides nothing anew: after a kill, sums and sessions are what they were in the run.

use super::*;
use crate::sessions::Exported;

/// Few, so that the table is full most of the time.
const ROOM: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Sign {
    View {
        who: u8,
        page: u8,
        id: Option<u8>,
    },
    Ping {
        who: u8,
        page: u8,
    },
    Leave {
        who: u8,
        page: u8,
    },
    Pass {
        seconds: u32,
    },
    /// The open group is written, or undone.
    Written,
    Undone,
    Checkpoint,
}

fn sign() -> impl Strategy<Value = Sign> {
    let seconds = prop_oneof![Just(0u32), 0..70u32, 290..310u32, 1000..1810u32];
    let id = prop_oneof![2 => Just(None), 1 => (0..3u8).prop_map(Some)];
    prop_oneof![
        12 => (0..6u8, 0..3u8, id).prop_map(|(who, page, id)| Sign::View { who, page, id }),
        3 => (0..6u8, 0..3u8).prop_map(|(who, page)| Sign::Ping { who, page }),
        3 => (0..6u8, 0..3u8).prop_map(|(who, page)| Sign::Leave { who, page }),
        4 => seconds.prop_map(|seconds| Sign::Pass { seconds }),
        5 => Just(Sign::Written),
        2 => Just(Sign::Undone),
        1 => Just(Sign::Checkpoint),
    ]
}

async fn start(dir: DataDir, path: &Path, clock: &Clock) -> Process {
    let config = Config { max_ids: 2, ..settings(path, 1000, Sync::EverySecond) };
    let sites = Arc::new(Registry::from_pointee(Sites::new(vec![site(0)])));
    let metrics = Arc::new(Metrics::new(&sites.load(), ROOM).unwrap());
    let store = async || TestStore::open(&config.store, &config.data_dir).await.unwrap();
    let patience = Duration::from_secs(60);
    Process::start_on(store, patience, &config, dir, clock, sites, metrics, ROOM).await.unwrap()
}

/// Who it is, on whichever day.
fn reader(visitor: VisitorId) -> u64 {
    visitor.0 / 10 % 100
}

struct Replayed {
    dir: tempfile::TempDir,
    faults: Faults,
    process: Process,
    clock: Clock,
    hand: Hand,
    waiting: Vec<(VisitorId, Option<i64>, Written)>,
    /// The last view or ping of each reader that was surely written: a view with an id may have been a repeated one.
    written: BTreeMap<u64, i64>,
}

impl Replayed {
    async fn new() -> Replayed {
        let (clock, hand) = Clock::by_hand(START_MS);
        let (dir, faults) = (tempfile::tempdir().unwrap(), Faults::default());
        let folder = lock(dir.path(), &faults);
        let process = start(folder, dir.path(), &clock).await;
        faults.only(&[Operation::Write]);
        Replayed { dir, faults, process, clock, hand, waiting: Vec::new(), written: BTreeMap::new() }
    }

    fn beacon(&self, kind: Kind, who: u8, page: u8, id: Option<u8>) -> Beacon {
        Beacon { kind, ..beacon(who, 0, page, id, self.clock.now()) }
    }

    async fn sign(&mut self, sign: Sign) {
        match sign {
            Sign::View { who, page, id } => {
                let view = self.beacon(Kind::View, who, page, id);
                let visitor = view.visitor.unwrap().today;
                let at_ms = id.is_none().then_some(view.at.unix_ms);
                self.waiting.push((visitor, at_ms, self.process.totals.take(view).unwrap()));
            }
            Sign::Ping { who, page } => {
                let ping = self.beacon(Kind::Ping, who, page, None);
                let (visitor, at_ms) = (ping.visitor.unwrap().today, ping.at.unix_ms);
                self.waiting.push((visitor, Some(at_ms), self.process.totals.sign(ping).unwrap()));
            }
            Sign::Leave { who, page } => {
                let leave = self.beacon(Kind::Leave, who, page, None);
                let visitor = leave.visitor.unwrap().today;
                self.waiting.push((visitor, None, self.process.totals.sign(leave).unwrap()));
            }
            Sign::Pass { seconds } => {
                self.hand.advance(Duration::from_secs(seconds.into()));
                let now = self.clock.now();
                self.process.totals.tick(now);
                while self.process.sessions.sweep(now, 100) {}
            }
            Sign::Written => self.end_group().await,
            Sign::Undone => {
                if !self.waiting.is_empty() {
                    self.faults.fail_after(1);
                }
                self.end_group().await;
            }
            Sign::Checkpoint => {
                self.end_group().await;
                self.process.writer.checkpoint().await;
            }
        }
    }

    async fn end_group(&mut self) {
        for (visitor, at_ms, written) in std::mem::take(&mut self.waiting) {
            if let (Ok(()), Some(at_ms)) = (written.await, at_ms) {
                self.written.insert(reader(visitor), at_ms);
            }
        }
    }

    fn sums(&self, process: &Process) -> (PerPeriod<Option<u64>>, PerPeriod<Option<u64>>) {
        let figures = process.totals.look(SiteId(0), self.clock.now()).figures();
        (figures.views, figures.visits)
    }

    fn visits(&self, process: &Process) -> BTreeMap<u64, u32> {
        let sessions = process.sessions.export(self.clock.now()).flatten();
        let counted = sessions.filter(|session| session.begun && session.counted);
        counted.map(|Exported { visitor, age_s, .. }| (reader(visitor), age_s)).collect()
    }

    /// Kills the process and compares the next one with it.
    async fn end(mut self) {
        self.end_group().await;
        let fresh = tempfile::tempdir().unwrap();
        copy(self.dir.path(), fresh.path());
        let next = start(DataDir::open(fresh.path()).unwrap(), fresh.path(), &self.clock).await;
        assert_eq!(self.sums(&next), self.sums(&self.process));
        let (before, after) = (self.visits(&self.process), self.visits(&next));
        for visitor in after.keys() {
            assert!(before.contains_key(visitor), "{visitor} has a visit that nobody counted");
        }
        for (visitor, age_s) in before {
            // Of a group that was undone nothing is written: who lives by it alone may be over.
            let at_ms = self.written.get(&visitor).copied().unwrap_or(i64::MIN / 2);
            let is_alive = age_s <= 30 * 60 && self.clock.now().unix_ms - at_ms < 30 * 60_000;
            assert!(!is_alive || after.contains_key(&visitor), "{visitor} would begin a second visit");
        }
        next.end().await;
        self.process.end().await;
    }
}

fn replay(signs: &[Sign]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut run = Replayed::new().await;
        for sign in signs {
            run.sign(*sign).await;
        }
        run.end().await;
    });
}

#[test]
fn a_start_gives_the_sessions_and_sums_of_the_run() {
    let config = Cases { failure_persistence: None, ..Cases::with_cases(cases(64)) };
    let run = |signs: Vec<Sign>| {
        replay(&signs);
        Ok(())
    };
    TestRunner::new(config).run(&prop::collection::vec(sign(), 1..60), run).unwrap();
}

/// Readers that found no room, and have gone on reading since.
#[test]
fn whose_visit_found_no_room_is_not_known_after_a_kill() {
    let views: Vec<_> = (0..6).map(|who| Sign::View { who, page: 0, id: None }).collect();
    replay(&views);
    let pass = Sign::Pass { seconds: 1801 };
    replay(&[&views[..3], &[Sign::Written, pass, Sign::Pass { seconds: 1 }], &views[3..]].concat());
}

#[tokio::test]
async fn a_reader_s_two_views_over_midnight_that_are_undone_become_a_visit_when_they_come_again() {
    let mut run = Replayed::new().await;
    run.hand.step_to(START_MS + 30 * 60_000 - 1);
    run.sign(Sign::View { who: 1, page: 0, id: None }).await;
    run.hand.advance(Duration::from_millis(1));
    run.sign(Sign::Ping { who: 1, page: 0 }).await;
    run.sign(Sign::View { who: 1, page: 1, id: None }).await;
    run.sign(Sign::Undone).await;
    assert_eq!(run.process.outcomes().0, 0);
    run.sign(Sign::View { who: 1, page: 1, id: None }).await;
    run.sign(Sign::Written).await;
    assert_eq!(run.sums(&run.process).1.all, Some(1));
    run.end().await;
}

/// All in one group, which is written when the last of them has come.
#[tokio::test]
async fn a_ping_or_a_leave_after_a_view_that_waits_is_the_later_sign() {
    let mut run = Replayed::new().await;
    let online = |run: &Replayed, page: u8| {
        let page = Page::trusted(SiteId(0), &format!("/{page}"));
        run.process.sessions.page_online(&page, run.clock.now())
    };
    for sign in [
        Sign::View { who: 1, page: 0, id: None },
        Sign::Ping { who: 1, page: 1 },
        Sign::View { who: 2, page: 2, id: None },
        Sign::Leave { who: 2, page: 2 },
        Sign::Written,
    ] {
        run.sign(sign).await;
    }
    assert_eq!([0, 1, 2].map(|page| online(&run, page)), [0, 1, 1]);
    run.sign(Sign::Pass { seconds: 31 }).await;
    assert_eq!([0, 1, 2].map(|page| online(&run, page)), [0, 1, 0]);
    run.end().await;
}

/// Sessions and ids are as old as they are, whatever the wall clock says at the start, or said before.
#[tokio::test]
async fn a_wall_clock_that_was_set_ends_no_session_and_forgets_no_id() {
    const DAYS_MS: i64 = 3 * 24 * 3_600_000;
    for (then_ms, now_ms) in [(0, DAYS_MS), (0, -DAYS_MS), (DAYS_MS, 0), (-DAYS_MS, 0), (DAYS_MS, DAYS_MS)] {
        let mut run = Replayed::new().await;
        for sign in [
            Sign::View { who: 1, page: 0, id: Some(1) },
            Sign::Checkpoint,
            Sign::Pass { seconds: 60 },
            Sign::View { who: 2, page: 0, id: None },
            Sign::Written,
        ] {
            run.sign(sign).await;
        }
        run.hand.step_to(run.clock.now().unix_ms + then_ms);
        run.sign(Sign::View { who: 3, page: 0, id: Some(3) }).await;
        run.sign(Sign::Written).await;
        run.sign(Sign::Pass { seconds: 14 }).await;
        let before = run.visits(&run.process);
        run.hand.step_to(run.clock.now().unix_ms - then_ms + now_ms);
        let fresh = tempfile::tempdir().unwrap();
        copy(run.dir.path(), fresh.path());
        let next = start(DataDir::open(fresh.path()).unwrap(), fresh.path(), &run.clock).await;
        let after = run.visits(&next);
        let is_near = |(visitor, age_s): (&u64, &u32)| after[visitor].abs_diff(*age_s) <= 74;
        assert!(before.len() == 3 && before.iter().all(is_near), "{before:?} {after:?}");
        if now_ms > 0 && [0, now_ms].contains(&then_ms) {
            assert_eq!(before, after);
        }
        for id in [1, 3] {
            let again = run.beacon(Kind::View, id, 0, Some(id));
            next.totals.take(again).unwrap().await.unwrap();
        }
        assert_eq!(next.outcomes(), (0, 2));
        next.end().await;
        run.process.end().await;
    }
}
