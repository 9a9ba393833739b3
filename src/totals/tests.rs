//! What tests can do to totals, and how hard they try.

use super::*;

/// What a test can have panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakable {
    /// What writes to the store.
    Writer,
    /// What syncs the journal.
    Sync,
    /// What writes the journal.
    Commit,
    /// What happens once a second.
    Tick,
}

impl Totals {
    /// Has a thread or a task panic at its next turn.
    pub fn break_part(&self, part: Breakable) {
        fn poison<T>(lock: &std::sync::Mutex<T>) {
            let hold = || panic!("a test breaks a lock: {}", lock.lock().is_ok());
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(hold)).unwrap_err();
        }
        let intake = &self.shared.intake;
        match part {
            Breakable::Writer => poison(&self.shared.tally),
            Breakable::Sync => intake.journal.as_ref().unwrap().break_sync(),
            Breakable::Commit => {
                poison(&intake.open);
                intake.wake.notify_one();
            }
            Breakable::Tick => poison(&intake.ids),
        }
    }
}

/// How many cases a property is tried on: so many, or as many times that as `FOOTFALL_CASES` says.
pub(in crate::totals) fn cases(usually: u32) -> u32 {
    std::env::var("FOOTFALL_CASES").map_or(usually, |times| usually * times.parse::<u32>().expect("a number"))
}
