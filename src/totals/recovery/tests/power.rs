//! G1: what a power cut takes of what was answered 204, at the worst: all that no sync has covered.

use super::*;

/// Refuse views once the oldest unsynced one is this old.
const MAX_UNSYNCED_MS: u64 = 5000;

/// Views that were answered 204, in order, each with an id and when it was.
type Taken = Vec<(Beacon, u64)>;

struct Machine {
    dir: tempfile::TempDir,
    faults: Faults,
    clock: Clock,
    hand: Hand,
    process: Process,
}

impl Machine {
    async fn start(dir: tempfile::TempDir, sync: Sync, unix_ms: i64) -> Machine {
        let (faults, (clock, hand)) = (Faults::default(), Clock::by_hand(unix_ms));
        let mut config = settings(dir.path(), 1000, sync);
        config.journal.max_unsynced = Duration::from_millis(MAX_UNSYNCED_MS);
        let locked = lock(dir.path(), &faults);
        let process = Process::start(&config, locked, &clock).await;
        Machine { dir, faults, clock, hand, process }
    }

    /// Takes a view; whether it is answered 204.
    async fn take(&self, view: Beacon) -> bool {
        match self.process.totals.take(view) {
            Ok(written) => {
                tokio::time::timeout(Duration::from_secs(60), written).await.unwrap().unwrap();
                true
            }
            Err(reason) => {
                assert_eq!(reason, crate::ingest::Reason::Overloaded);
                false
            }
        }
    }

    /// What happens once a second. With a disk that keeps up all is synced by it alone.
    async fn second(&self, keeps_up: bool) {
        let now = self.clock.now();
        self.process.totals.tick(now);
        let journal = self.process.totals.shared.intake.journal.as_ref().unwrap();
        let later = Moment { uptime_ms: u64::MAX - 1, ..now };
        let synced = async {
            while journal.reached(later).is_some() {
                tokio::task::yield_now().await;
            }
        };
        if keeps_up {
            tokio::time::timeout(Duration::from_secs(60), synced).await.expect("all is synced");
        }
    }

    /// The power is cut, and comes back.
    async fn cut_power(self, sync: Sync) -> Machine {
        let fresh = tempfile::tempdir().unwrap();
        // Of three choices and of four: nothing reached the disk unasked.
        self.faults.cut_power(self.dir.path(), fresh.path(), |of| usize::from(of == 3));
        // The embedded store syncs for itself.
        fs::copy(self.dir.path().join("totals.redb"), fresh.path().join("totals.redb")).unwrap();
        self.faults.be_slow(false);
        let now_ms = self.clock.now().unix_ms;
        self.process.end().await;
        Machine::start(fresh, sync, now_ms).await
    }

    fn counted(&self) -> (u64, u64) {
        let figures = self.process.totals.look(SiteId(0), self.clock.now()).figures();
        (figures.views.all.unwrap(), figures.visits.all.unwrap())
    }
}

/// Views for some seconds, in the last of which the disk keeps up or does not; then the power is cut. What was
/// taken, what was refused, and what of the first is lost.
async fn lost(sync: Sync, seconds: u64, slow: u64, turn: bool) -> (Taken, u64, Taken) {
    let mut machine = Machine::start(tempfile::tempdir().unwrap(), sync, START_MS).await;
    let (mut taken, mut refused) = (Taken::new(), 0);
    for second in 0..seconds {
        let keeps_up = second < seconds - slow;
        machine.faults.be_slow(!keeps_up);
        for _ in 0..4 {
            machine.hand.advance(Duration::from_millis(250));
            let at = machine.clock.now();
            let id = Some(taken.len() as u64 + refused + 1);
            let view = Beacon { id, ..beacon(1, 0, 1, None, at) };
            match machine.take(view.clone()).await {
                true => taken.push((view, at.uptime_ms)),
                false => refused += 1,
            }
        }
        // The last second is not over when the power is cut.
        if second + 1 < seconds {
            machine.second(keeps_up).await;
        }
        if turn && keeps_up && second % 3 == 1 {
            machine.process.writer.turn().await;
        }
    }
    let machine = machine.cut_power(sync).await;
    let (views, visits) = machine.counted();
    assert!(views <= taken.len() as u64 && visits == 1, "{views} views and {visits} visits");
    let lost = taken[views as usize..].to_vec();
    // What is there is what was taken first: what is lost counts when it comes again, and nothing else does.
    for (number, (view, _)) in taken.iter().enumerate() {
        let view = Beacon { at: machine.clock.now(), ..view.clone() };
        assert!(machine.take(view).await);
        let counted = views.max(number as u64 + 1);
        assert_eq!(machine.counted(), (counted, 1));
    }
    machine.process.end().await;
    (taken, refused, lost)
}

#[tokio::test]
async fn every_second_a_power_cut_takes_the_last_second() {
    for (seconds, turn) in [(2, false), (3, true), (7, false), (7, true)] {
        let (taken, refused, lost) = lost(Sync::EverySecond, seconds, 0, turn).await;
        assert_eq!((taken.len() as u64, refused), (seconds * 4, 0));
        assert_eq!(lost.len(), 4, "nothing was synced unasked, and all else was");
    }
}

#[tokio::test]
async fn every_second_with_a_slow_disk_a_power_cut_takes_no_more_than_may_be_unsynced() {
    for slow in [3, 5, 6, 20] {
        let (_, refused, lost) = lost(Sync::EverySecond, 4 + slow, slow, true).await;
        let (first, last) = (lost[0].1, lost[lost.len() - 1].1);
        assert!(last - first <= MAX_UNSYNCED_MS, "{} ms of views are lost", last - first);
        assert_eq!(refused > 0, slow >= 6, "views are taken for as long as they may be");
    }
}

#[tokio::test]
async fn always_a_power_cut_takes_nothing_that_was_answered() {
    for (seconds, turn) in [(1, false), (5, false), (5, true)] {
        let (taken, refused, lost) = lost(Sync::Always, seconds, 0, turn).await;
        assert_eq!((taken.len() as u64, refused, lost.len()), (seconds * 4, 0, 0));
    }
}
