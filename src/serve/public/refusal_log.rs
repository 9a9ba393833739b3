//! The log of refusals (G11): at most one line a minute for each site and reason, with their number. It never
//! has an address, a user agent or a page.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::{Moment, OnceAMinute};
use crate::ingest::Reason;
use crate::sites::{SiteId, Sites};

/// Whose beacon is refused, and why: a site, where the beacon named a registered one.
pub type Refusal = (Option<SiteId>, Reason);

#[derive(Default)]
struct RefusalLine {
    /// Refused since the line was last written.
    number: u64,
    minute: OnceAMinute,
}

impl RefusalLine {
    /// The number to write now, if a minute has passed.
    fn due(&mut self, now: Moment) -> Option<u64> {
        (self.number > 0 && self.minute.due(now)).then(|| std::mem::take(&mut self.number))
    }
}

/// The refusals that are not in the log yet.
#[derive(Default)]
pub struct RefusalLog(Mutex<HashMap<Refusal, RefusalLine>>);

impl RefusalLog {
    /// Notes a refusal; the first of its kind in a while is written at once.
    pub fn note(&self, sites: &Sites, refusal: Refusal, now: Moment) {
        if let Some(number) = self.count(refusal, now) {
            write(sites, refusal, number);
        }
    }

    /// Writes what a minute has gathered.
    pub fn write_due(&self, sites: &Sites, now: Moment) {
        let due: Vec<_> =
            self.lines().iter_mut().filter_map(|(key, line)| Some((*key, line.due(now)?))).collect();
        due.into_iter().for_each(|(key, number)| write(sites, key, number));
    }

    /// Writes whatever is left: the service stops.
    pub fn write_remaining(&self, sites: &Sites) {
        for (key, line) in self.lines().drain().filter(|(_, line)| line.number > 0) {
            write(sites, key, line.number);
        }
    }

    fn count(&self, refusal: Refusal, now: Moment) -> Option<u64> {
        let mut lines = self.lines();
        let line = lines.entry(refusal).or_default();
        line.number += 1;
        line.due(now)
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Refusal, RefusalLine>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(sites: &Sites, (site, reason): Refusal, number: u64) {
    let site = site.and_then(|id| sites.at(id)).map_or("-", |site| site.key.as_str());
    let reason_code = reason.word();
    match reason {
        // The service itself is the cause.
        Reason::Overloaded | Reason::JournalFull | Reason::ClockWrong => {
            tracing::warn!(site, reason = reason_code, number, "beacons refused");
        }
        _ => tracing::info!(site, reason = reason_code, number, "beacons refused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use std::time::Duration;

    #[test]
    fn one_line_a_minute_carries_the_number() {
        let (clock, hand) = Clock::by_hand(0);
        let refusals = RefusalLog::default();
        let note = |reason| refusals.count((Some(SiteId(0)), reason), clock.now());
        assert_eq!(note(Reason::BadUrl), Some(1), "the first is told at once");
        assert_eq!(note(Reason::BadUrl), None);
        assert_eq!(note(Reason::WrongOrigin), Some(1), "another reason has its own line");
        assert_eq!(refusals.count((None, Reason::BadUrl), clock.now()), Some(1), "and so has another site");
        hand.advance(Duration::from_millis(59_999));
        assert_eq!(note(Reason::BadUrl), None);
        hand.advance(Duration::from_millis(1));
        assert_eq!(note(Reason::BadUrl), Some(3));
        assert_eq!(note(Reason::BadUrl), None);
    }

    #[test]
    fn what_a_minute_gathered_is_written_without_a_further_refusal() {
        let (clock, hand) = Clock::by_hand(0);
        let (sites, refusals) = (Sites::default(), RefusalLog::default());
        for _ in 0..5 {
            refusals.note(&sites, (None, Reason::Malformed), clock.now());
        }
        let waiting = || refusals.lines().values().map(|line| line.number).sum::<u64>();
        refusals.write_due(&sites, clock.now());
        assert_eq!(waiting(), 4);
        hand.advance(Duration::from_secs(60));
        refusals.write_due(&sites, clock.now());
        assert_eq!(waiting(), 0);
    }
}
