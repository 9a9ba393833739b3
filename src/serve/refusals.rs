//! The refusals of the last hour (G11), by site and reason, with their number and what is their cause, and what was
//! left out. They are in the log, at most one line a minute for each, and refusals in the overview; never with an
//! address, a user agent or a page.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::{Moment, OnceAMinute};
use crate::ingest::{Reason, Refusal};
use crate::sites::{SiteId, Sites};

/// Causes that are told of a site and a reason.
const MAX_CAUSES: usize = 8;

/// Most lines of the list for operators.
const MAX_LISTED: usize = 20;

const MINUTES: usize = 60;
const MINUTE_MS: u64 = 60_000;

/// Whose beacons are refused, and why: a site, where they named a registered one.
type Kind = (Option<SiteId>, Reason);

#[derive(Default)]
struct RefusalLine {
    /// Refused since the line was last written.
    number: u64,
    minute: OnceAMinute,
    hour: Hour,
    /// The causes that come most often, with their numbers and when they came last, by uptime.
    causes: Vec<(String, u64, u64)>,
}

impl RefusalLine {
    fn note(&mut self, cause: Option<String>, now: Moment) {
        self.number += 1;
        self.hour.add(now);
        self.causes.retain(|(.., last)| now.uptime_ms.saturating_sub(*last) < MINUTES as u64 * MINUTE_MS);
        let Some(cause) = cause else { return };
        let known = self.causes.iter().position(|(name, ..)| *name == cause);
        // Where there is no room, one takes the place and the number of the rarest: what comes often stays.
        let rarest =
            || (0..self.causes.len()).min_by_key(|at| self.causes.get(*at).map(|(_, number, _)| *number));
        match known.or_else(|| rarest().filter(|_| self.causes.len() >= MAX_CAUSES)) {
            Some(at) => {
                let number = self.causes.get(at).map_or(0, |(_, number, _)| *number);
                self.causes[at] = (cause, number + 1, now.uptime_ms);
            }
            None => self.causes.push((cause, 1, now.uptime_ms)),
        }
    }

    /// The number to write now, if a minute has passed, and the causes.
    fn due(&mut self, now: Moment) -> Option<(u64, String)> {
        (self.number > 0 && self.minute.due(now)).then(|| (std::mem::take(&mut self.number), self.causes()))
    }

    /// The causes, the most frequent first.
    fn causes(&self) -> String {
        let mut causes: Vec<_> = self.causes.iter().collect();
        causes.sort_by_key(|(_, number, _)| std::cmp::Reverse(*number));
        causes.into_iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// How many in each of the last minutes.
struct Hour {
    minutes: [u64; MINUTES],
    /// The minute of uptime that was last written to.
    last: u64,
}

impl Default for Hour {
    fn default() -> Self {
        Hour { minutes: [0; MINUTES], last: 0 }
    }
}

impl Hour {
    fn add(&mut self, now: Moment) {
        self.go_to(now);
        self.minutes[(self.last % MINUTES as u64) as usize] += 1;
    }

    fn sum(&mut self, now: Moment) -> u64 {
        self.go_to(now);
        self.minutes.iter().sum()
    }

    fn go_to(&mut self, now: Moment) {
        let minute = now.uptime_ms / MINUTE_MS;
        for passed in (self.last + 1..=minute).rev().take(MINUTES) {
            self.minutes[(passed % MINUTES as u64) as usize] = 0;
        }
        self.last = self.last.max(minute);
    }
}

/// The refusals of the last hour, and those that are not in the log yet.
#[derive(Default)]
pub struct Refusals(Mutex<HashMap<Kind, RefusalLine>>);

impl Refusals {
    /// Notes a refusal; the first of its kind in a while is written at once.
    pub fn note(&self, sites: &Sites, refusal: Refusal, now: Moment) {
        let kind = (refusal.site, refusal.reason);
        if let Some(told) = self.count(refusal, now) {
            write(sites, kind, told);
        }
    }

    /// Writes what a minute has gathered.
    pub fn write_due(&self, sites: &Sites, now: Moment) {
        let due: Vec<_> =
            self.lines().iter_mut().filter_map(|(kind, line)| Some((*kind, line.due(now)?))).collect();
        due.into_iter().for_each(|(kind, told)| write(sites, kind, told));
    }

    /// Writes whatever is left: the service stops.
    pub fn write_remaining(&self, sites: &Sites) {
        for (kind, line) in self.lines().drain().filter(|(_, line)| line.number > 0) {
            write(sites, kind, (line.number, line.causes()));
        }
    }

    /// A line for each kind of the last hour, the most frequent first. That some are left out is no fault.
    pub fn of_last_hour(&self, sites: &Sites, now: Moment) -> Vec<String> {
        let mut found: Vec<(u64, Kind, String)> = self
            .lines()
            .iter_mut()
            .filter(|((_, reason), _)| !Reason::FILTERED.contains(reason))
            .map(|(kind, line)| (line.hour.sum(now), *kind, line.causes()))
            .filter(|(number, ..)| *number > 0)
            .collect();
        found.sort_by_key(|(number, kind, _)| (std::cmp::Reverse(*number), *kind));
        let line = |(number, (site, reason), causes): (u64, Kind, String)| {
            let causes = if causes.is_empty() { causes } else { format!(" ({causes})") };
            format!(
                "site {}: {number} beacons refused in the last hour, {}{causes}",
                key(sites, site),
                reason.word()
            )
        };
        found.into_iter().take(MAX_LISTED).map(line).collect()
    }

    fn count(&self, refusal: Refusal, now: Moment) -> Option<(u64, String)> {
        let mut lines = self.lines();
        let line = lines.entry((refusal.site, refusal.reason)).or_default();
        line.note(refusal.cause.map(|cause| cause.name), now);
        line.due(now)
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Kind, RefusalLine>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(sites: &Sites, site: Option<SiteId>) -> &str {
    site.and_then(|id| sites.at(id)).map_or("-", |site| site.key.as_str())
}

fn write(sites: &Sites, (site, reason): Kind, (number, causes): (u64, String)) {
    let (site, reason_code) = (key(sites, site), reason.word());
    match reason {
        // The service itself is the cause.
        Reason::Overloaded | Reason::JournalFull | Reason::ClockWrong => {
            tracing::warn!(site, reason = reason_code, number, "beacons refused");
        }
        _ if Reason::FILTERED.contains(&reason) => {
            tracing::info!(site, reason = reason_code, number, causes, "beacons left out");
        }
        _ => tracing::info!(site, reason = reason_code, number, causes, "beacons refused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::ingest::Cause;
    use std::time::Duration;

    fn refusal(site: Option<SiteId>, reason: Reason, cause: &str) -> Refusal {
        let cause = Cause { name: cause.to_owned(), remedy: String::new() };
        Refusal { site, cause: (!cause.name.is_empty()).then_some(cause), ..reason.into() }
    }

    #[test]
    fn one_line_a_minute_carries_the_number() {
        let (clock, hand) = Clock::by_hand(0);
        let refusals = Refusals::default();
        let count =
            |site, reason| refusals.count(refusal(site, reason, ""), clock.now()).map(|(number, _)| number);
        let note = |reason| count(Some(SiteId(0)), reason);
        assert_eq!(note(Reason::BadUrl), Some(1), "the first is told at once");
        assert_eq!(note(Reason::BadUrl), None);
        assert_eq!(note(Reason::WrongOrigin), Some(1), "another reason has its own line");
        assert_eq!(count(None, Reason::BadUrl), Some(1), "and so has another site");
        hand.advance(Duration::from_millis(59_999));
        assert_eq!(note(Reason::BadUrl), None);
        hand.advance(Duration::from_millis(1));
        assert_eq!(note(Reason::BadUrl), Some(3));
        assert_eq!(note(Reason::BadUrl), None);
    }

    #[test]
    fn what_a_minute_gathered_is_written_without_a_further_refusal() {
        let (clock, hand) = Clock::by_hand(0);
        let (sites, refusals) = (Sites::default(), Refusals::default());
        for _ in 0..5 {
            refusals.note(&sites, refusal(None, Reason::Malformed, "body"), clock.now());
        }
        let waiting = || refusals.lines().values().map(|line| line.number).sum::<u64>();
        refusals.write_due(&sites, clock.now());
        assert_eq!(waiting(), 4);
        hand.advance(Duration::from_secs(60));
        refusals.write_due(&sites, clock.now());
        assert_eq!(waiting(), 0);
    }

    #[test]
    fn an_hour_is_remembered_with_the_causes_that_come_often() {
        let (clock, hand) = Clock::by_hand(0);
        let (sites, refusals) = (Sites::default(), Refusals::default());
        let note =
            |cause: &str| refusals.note(&sites, refusal(None, Reason::WrongOrigin, cause), clock.now());
        let told = || refusals.of_last_hour(&sites, clock.now()).join("\n");
        (0..50).for_each(|_| note("often.vn"));
        (0..100).for_each(|made_up| note(&format!("{made_up}.example")));
        let begins = "site -: 150 beacons refused in the last hour, wrong-origin (";
        assert!(told().starts_with(begins) && told().contains("often.vn"), "{}", told());
        assert_eq!(told().matches(", ").count(), MAX_CAUSES, "{}", told());
        hand.advance(Duration::from_secs(59 * 60));
        note("late.vn");
        assert!(told().contains(": 151 ") && told().contains("late.vn"), "{}", told());
        hand.advance(Duration::from_secs(60));
        note("late.vn");
        assert_eq!(told(), "site -: 2 beacons refused in the last hour, wrong-origin (late.vn)");
        hand.advance(Duration::from_secs(3600));
        assert_eq!(told(), "");
    }
}
