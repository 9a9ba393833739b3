//! The recent hours and days of a site in memory, and the pages read most today.
//!
//! Nothing is here before somebody asks; after that, what is counted is added, so a store that is away costs
//! nothing except what other instances count.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{Days, NaiveDate};

use super::cell::{Buckets, Cell, Revised};
use crate::calendar::{Bucket, Calendar, CivilHour, Period};
use crate::totals::batch::part::Sums;

/// Days told of, the running one included.
pub const DAYS: u64 = 30;

/// Most pages told of.
pub const MOST_READ: usize = 10;

/// Most hours told of: two long days.
const MAX_HOURS: usize = 50;

/// The recent hours and days of a site, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// The hours of yesterday and today, up to the running one.
    pub hours: Vec<(CivilHour, Sums)>,
    /// The last thirty days, up to the running one.
    pub days: Vec<(NaiveDate, Sums)>,
    /// The pages that were read most today when the store was asked, at most ten; their order may have
    /// changed since.
    pub most_read: Vec<Arc<str>>,
}

/// What the store holds of them.
pub struct StoredRecent {
    /// Of every bucket that was asked for.
    pub sums: Vec<(Bucket, Revised<Sums>)>,
    /// The day that `most_read` is of.
    pub day: NaiveDate,
    pub most_read: Vec<Arc<str>>,
}

/// What is shown of recent hours and days.
#[derive(Default)]
pub struct RecentBuckets {
    sums: Cell<HoursAndDays>,
    /// The day that `most_read` is of.
    day: NaiveDate,
    most_read: Vec<Arc<str>>,
    loaded_ms: u64,
}

#[derive(Clone)]
struct HoursAndDays(BTreeMap<Bucket, Revised<Sums>>);

impl Buckets for HoursAndDays {
    type Amount = Sums;

    fn have_in_common(a: &CivilHour, b: &CivilHour) -> bool {
        a == b
    }

    fn change(&mut self, hour: &CivilHour, change: impl Fn(Sums) -> Sums) {
        for bucket in [hour.bucket(Period::Hour), hour.bucket(Period::Day)] {
            let sums = self.0.entry(bucket).or_default();
            sums.value = change(sums.value);
        }
    }

    fn keep(&mut self, before: &Self) {
        for (bucket, sums) in &mut self.0 {
            *sums = before.0.get(bucket).map_or(*sums, |before| sums.after(*before));
        }
    }
}

impl RecentBuckets {
    /// Views are written, or in an unapplied batch read back at start.
    pub fn add(&mut self, hour: &CivilHour, sums: Sums) {
        let known = self.sums.shown.as_ref().map(|shown| shown.0.len());
        self.sums.add(hour, sums);
        if let Some(HoursAndDays(shown)) = &mut self.sums.shown
            && known.is_some_and(|known| shown.len() > known)
        {
            let first = hour.day.checked_sub_days(Days::new(DAYS + 1)).unwrap_or(hour.day);
            shown.retain(|bucket, _| bucket.days().is_some_and(|(day, _)| day >= first));
        }
    }

    /// The store holds so much of an hour now.
    pub fn applied(&mut self, hour: &CivilHour, sums: Sums) {
        self.sums.applied(hour, sums);
    }

    /// Takes what the store holds, read while no batch was on its way.
    pub fn learn(&mut self, stored: StoredRecent, uptime_ms: u64) {
        self.sums.learn(HoursAndDays(stored.sums.into_iter().collect()));
        (self.day, self.most_read, self.loaded_ms) = (stored.day, stored.most_read, uptime_ms);
    }

    /// What is shown is not of what the store holds now.
    pub fn forget(&mut self) {
        self.sums.forget();
    }

    /// What is shown at an instant, and when it was loaded, monotonic milliseconds; none where it is not known.
    pub fn recent(&self, calendar: &Calendar, unix_ms: i64) -> Option<(Recent, u64)> {
        let HoursAndDays(shown) = self.sums.shown.as_ref()?;
        let of = |bucket: Bucket| shown.get(&bucket).copied().unwrap_or_default().value;
        let (hours, days) = buckets(calendar, unix_ms);
        let today = days.last().copied();
        let recent = Recent {
            hours: hours.into_iter().map(|hour| (hour, of(hour.bucket(Period::Hour)))).collect(),
            days: days.into_iter().map(|day| (day, of(Bucket::Day(day)))).collect(),
            most_read: if today == Some(self.day) { self.most_read.clone() } else { Vec::new() },
        };
        Some((recent, self.loaded_ms))
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
        let views = |views| Sums { views, visits: 1, ..Sums::default() };
        let stored = |held: u64| StoredRecent {
            sums: vec![
                (hour.bucket(Period::Hour), views(held).into()),
                (Bucket::Day(hour.day), views(held).into()),
            ],
            day: hour.day,
            most_read: Vec::new(),
        };
        let mut buckets = RecentBuckets::default();
        let shown = |buckets: &RecentBuckets| {
            let (recent, _) = buckets.recent(&calendar, AT_MS).unwrap();
            (recent.hours.last().unwrap().1.views, recent.days.last().unwrap().1.views)
        };
        buckets.add(&hour, views(2));
        assert_eq!(buckets.recent(&calendar, AT_MS), None, "nobody has asked the store");
        buckets.learn(stored(5), 0);
        assert_eq!(shown(&buckets), (7, 7));
        buckets.add(&hour, views(1));
        buckets.applied(&hour, Sums { views: 3, visits: 2, ..Sums::default() });
        assert!(buckets.sums.is_applied());
        assert_eq!(shown(&buckets), (8, 8));
        buckets.learn(stored(8), 0);
        assert_eq!(shown(&buckets), (8, 8));
        buckets.learn(stored(1), 0);
        assert_eq!(shown(&buckets), (8, 8), "a store that went back is not believed");
    }
}
