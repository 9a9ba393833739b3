//! The recent past of a site in memory: its hours and days of a month, and the pages read most today.
//!
//! Shown = stored + unapplied, as in [`figures`](super::running), but kept for every hour and day that the
//! store was asked for. Nothing is here before somebody asks; after that, what is counted is added, so a
//! store that is away costs nothing but what other instances count.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{Days, NaiveDate};

use crate::calendar::{Bucket, Calendar, CivilHour, Period};
use crate::totals::batch::part::Sums;

/// Days told of, the running one included.
pub const DAYS: u64 = 30;

/// Most pages told of.
pub const MOST_READ: usize = 10;

/// Most hours told of: two long days.
const MAX_HOURS: usize = 50;

/// The recent past of a site, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// The hours of yesterday and today, up to the running one.
    pub hours: Vec<(CivilHour, Sums)>,
    /// The last thirty days, up to the running one.
    pub days: Vec<(NaiveDate, Sums)>,
    /// The pages that were read most today when the store was asked, at most ten; their order may have
    /// changed since.
    pub most_read: Vec<Arc<str>>,
}

/// What the store says of the past.
pub struct StoredPast {
    /// Of every bucket that was asked for.
    pub sums: Vec<(Bucket, Sums)>,
    /// The day that `most_read` is of.
    pub day: NaiveDate,
    /// See [`Past::most_read`].
    pub most_read: Vec<Arc<str>>,
}

/// See the module.
#[derive(Default)]
pub struct History {
    /// By hour: what the store does not hold yet. Rarely more than one.
    unapplied: Vec<(CivilHour, Sums)>,
    shown: Option<Shown>,
}

struct Shown {
    sums: BTreeMap<Bucket, Sums>,
    day: NaiveDate,
    most_read: Vec<Arc<str>>,
    loaded_ms: u64,
}

impl History {
    /// Views are written, or stand in an unapplied batch read back at start.
    pub fn add(&mut self, hour: &CivilHour, sums: Sums) {
        match self.unapplied.iter_mut().find(|(of, _)| of == hour) {
            Some((_, held)) => *held += sums,
            None => self.unapplied.push((*hour, sums)),
        }
        let Some(shown) = &mut self.shown else { return };
        for bucket in [hour.bucket(Period::Hour), hour.bucket(Period::Day)] {
            if let Some(held) = shown.sums.get_mut(&bucket) {
                *held += sums;
                continue;
            }
            shown.sums.insert(bucket, sums);
            let first = hour.day.checked_sub_days(Days::new(DAYS + 1)).unwrap_or(hour.day);
            shown.sums.retain(|bucket, _| bucket.days().is_some_and(|(day, _)| day >= first));
        }
    }

    /// The store holds so much of an hour now.
    pub fn applied(&mut self, hour: &CivilHour, sums: Sums) {
        if let Some(place) = self.unapplied.iter().position(|(of, _)| of == hour) {
            let left = self.unapplied[place].1 - sums;
            self.unapplied[place].1 = left;
            if left == Sums::default() {
                self.unapplied.swap_remove(place);
            }
        }
    }

    /// The store's word, read while no batch was on its way. Figures never go back.
    pub fn load(&mut self, stored: StoredPast, uptime_ms: u64) {
        let mut sums: BTreeMap<Bucket, Sums> = stored.sums.into_iter().collect();
        for (hour, held) in &self.unapplied {
            for bucket in [hour.bucket(Period::Hour), hour.bucket(Period::Day)] {
                *sums.entry(bucket).or_default() += *held;
            }
        }
        for (bucket, before) in self.shown.iter().flat_map(|shown| &shown.sums) {
            if let Some(fresh) = sums.get_mut(bucket) {
                let (views, visits) = (fresh.views.max(before.views), fresh.visits.max(before.visits));
                *fresh = Sums { views, visits };
            }
        }
        let (day, most_read) = (stored.day, stored.most_read);
        self.shown = Some(Shown { sums, day, most_read, loaded_ms: uptime_ms });
    }

    /// The past up to an hour, and when it was loaded, monotonic milliseconds; none where it is not known.
    pub fn past(&self, calendar: &Calendar, unix_ms: i64) -> Option<(Past, u64)> {
        let shown = self.shown.as_ref()?;
        let of = |bucket: Bucket| shown.sums.get(&bucket).copied().unwrap_or_default();
        let (hours, days) = buckets(calendar, unix_ms);
        let today = days.last().copied();
        let past = Past {
            hours: hours.into_iter().map(|hour| (hour, of(hour.bucket(Period::Hour)))).collect(),
            days: days.into_iter().map(|day| (day, of(Bucket::Day(day)))).collect(),
            most_read: if today == Some(shown.day) { shown.most_read.clone() } else { Vec::new() },
        };
        Some((past, shown.loaded_ms))
    }
}

/// The hours and the days told of at an instant, oldest first.
pub fn buckets(calendar: &Calendar, unix_ms: i64) -> (Vec<CivilHour>, Vec<NaiveDate>) {
    let mut span = calendar.span(unix_ms);
    let today = span.hour.day;
    let yesterday = today.pred_opt().unwrap_or(today);
    let mut hours: Vec<CivilHour> = Vec::with_capacity(MAX_HOURS);
    while hours.len() < MAX_HOURS && span.hour.day >= yesterday {
        if hours.last() != Some(&span.hour) {
            hours.push(span.hour);
        }
        span = calendar.span(span.from_ms - 1);
    }
    hours.reverse();
    let days = (0..DAYS).rev().filter_map(|back| today.checked_sub_days(Days::new(back))).collect();
    (hours, days)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::Zone;

    fn calendar() -> Calendar {
        let zone = Zone::named("America/St_Johns").unwrap();
        Calendar { zone, week_start: chrono::Weekday::Mon }
    }

    /// 2026-11-02 00:20 in St. John's, after a day of 25 hours.
    const AT_MS: i64 = 1_793_591_400_000;

    #[test]
    fn the_hours_reach_back_over_all_of_yesterday() {
        let (hours, days) = buckets(&calendar(), AT_MS);
        assert_eq!(
            hours.last().map(|hour| (hour.day.to_string(), hour.hour)),
            Some(("2026-11-02".into(), 0))
        );
        assert_eq!(hours.len(), 26, "a day of 25 hours and one");
        assert_eq!((days.len() as u64, days.last().copied()), (DAYS, hours.last().map(|hour| hour.day)));
    }

    #[test]
    fn what_is_applied_meanwhile_is_counted_once_and_nothing_goes_back() {
        let calendar = calendar();
        let hour = calendar.span(AT_MS).hour;
        let views = |views| Sums { views, visits: 1 };
        let stored = |held: u64| StoredPast {
            sums: vec![(hour.bucket(Period::Hour), views(held)), (Bucket::Day(hour.day), views(held))],
            day: hour.day,
            most_read: Vec::new(),
        };
        let mut history = History::default();
        let shown = |history: &History| {
            let (past, _) = history.past(&calendar, AT_MS).unwrap();
            (past.hours.last().unwrap().1.views, past.days.last().unwrap().1.views)
        };
        history.add(&hour, views(2));
        assert_eq!(history.past(&calendar, AT_MS), None, "nobody has asked the store");
        history.load(stored(5), 0);
        assert_eq!(shown(&history), (7, 7));
        history.add(&hour, views(1));
        history.applied(&hour, Sums { views: 3, visits: 2 });
        assert!(history.unapplied.is_empty());
        assert_eq!(shown(&history), (8, 8));
        history.load(stored(8), 0);
        assert_eq!(shown(&history), (8, 8));
        history.load(stored(1), 0);
        assert_eq!(shown(&history), (8, 8), "a store that went back is not believed");
    }
}
