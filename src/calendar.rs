//! From an instant and a zone to buckets.
//!
//! The zone rules are those of the bundled database, never of the machine: on a machine with old rules a
//! newsroom's day would end at the wrong hour. Dates are `chrono`'s. The zone rules are `jiff`'s, whose types are
//! used in this file only.
//!
//! A bucket is a set of instants, and not always one stretch of time: where clocks are set back over midnight
//! (St. John's until 2011, at 00:01), a minute of the new day is followed by an hour of the day before. Every
//! instant is in exactly one bucket of each period.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, Timelike, Weekday};
use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, TimeZoneDatabase};

const HOUR_MS: i64 = 3_600_000;

/// How long before a civil hour a session may have begun that is alive in it: the longest `visit_timeout`.
const CARRY_MS: i64 = 3 * HOUR_MS;

/// 0001-01-10 and 9999-12-21. Instants beyond count as these, so that every name has a year of four digits and
/// no sum of an instant and an offset leaves the libraries' range.
const FIRST_S: i64 = -62_134_819_200;
const LAST_S: i64 = 253_401_350_400;

words! {
    /// A calendar period.
    pub enum Period {
        /// A civil hour. The two that a clock shows when it is set back are told apart by the offset.
        Hour = "hour",
        /// A civil day of 23, 24 or 25 hours.
        Day = "day",
        /// Seven days from the site's first day of the week.
        Week = "week",
        /// A civil month.
        Month = "month",
        /// A civil year.
        Year = "year",
        /// Since the beginning.
        All = "all",
    }
}

impl Period {
    /// The periods whose running totals are shown: all but the hour.
    pub const SHOWN: [Period; 5] = [Period::Day, Period::Week, Period::Month, Period::Year, Period::All];
}

/// A value for each of [`Period::SHOWN`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerPeriod<T> {
    /// Of the day.
    pub day: T,
    /// Of the week.
    pub week: T,
    /// Of the month.
    pub month: T,
    /// Of the year.
    pub year: T,
    /// Since the beginning.
    pub all: T,
}

impl<T> PerPeriod<T> {
    /// Each period with its value, from the shortest.
    pub fn iter(&self) -> impl Iterator<Item = (Period, &T)> {
        Period::SHOWN.into_iter().zip([&self.day, &self.week, &self.month, &self.year, &self.all])
    }

    /// The value of a period; none of the hour.
    pub fn get(&self, period: Period) -> Option<&T> {
        self.iter().find(|(other, _)| *other == period).map(|(_, value)| value)
    }
}

/// From values in the order of [`Period::SHOWN`].
impl<T> From<[T; 5]> for PerPeriod<T> {
    fn from([day, week, month, year, all]: [T; 5]) -> Self {
        PerPeriod { day, week, month, year, all }
    }
}

/// One period in a site's zone. Displays as, and parses from, the bucket's name
/// (`2026-11-23T08+07:00`, `2026-11-23`, `2026-W48` or `2026-11-22/P7D`, `2026-11`, `2026`, `all`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bucket {
    /// Day, hour 0..=23 and the offset from UTC in seconds.
    Hour(NaiveDate, u8, i32),
    /// A day.
    Day(NaiveDate),
    /// A week, by its first day.
    Week(NaiveDate),
    /// Year and month 1..=12.
    Month(i32, u8),
    /// A year.
    Year(i32),
    /// Everything.
    All,
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Bucket::Hour(day, hour, offset_s) => write!(f, "{day}T{hour:02}{}", Offset(offset_s)),
            Bucket::Day(day) => write!(f, "{day}"),
            Bucket::Week(first) if first.weekday() == Weekday::Mon => {
                let week = first.iso_week();
                write!(f, "{:04}-W{:02}", week.year(), week.week())
            }
            Bucket::Week(first) => write!(f, "{first}/P7D"),
            Bucket::Month(year, month) => write!(f, "{year:04}-{month:02}"),
            Bucket::Year(year) => write!(f, "{year:04}"),
            Bucket::All => f.write_str("all"),
        }
    }
}

/// Seconds east of UTC as `+07:00`, or, for a local mean time from before there were zones, as `+07:06:30`.
struct Offset(i32);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { '-' } else { '+' };
        let (minutes, seconds) = (self.0.unsigned_abs() / 60, self.0.unsigned_abs() % 60);
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)?;
        if seconds == 0 { Ok(()) } else { write!(f, ":{seconds:02}") }
    }
}

/// A text that names no bucket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a bucket")]
pub struct NotABucket;

impl FromStr for Bucket {
    type Err = NotABucket;

    /// Takes only what `Display` writes.
    fn from_str(name: &str) -> Result<Self, NotABucket> {
        let day = |text: &str| text.parse::<NaiveDate>().ok();
        let bucket = match name.len() {
            3 => Some(Bucket::All),
            4 => day(&format!("{name}-01-01")).map(|first| Bucket::Year(first.year())),
            7 => day(&format!("{name}-01")).map(|first| Bucket::Month(first.year(), first.month() as u8)),
            8 => NaiveDate::parse_from_str(&format!("{name}-1"), "%G-W%V-%u").ok().map(Bucket::Week),
            10 => day(name).map(Bucket::Day),
            14 => name.strip_suffix("/P7D").and_then(day).map(Bucket::Week),
            _ => named_hour(name),
        };
        bucket.filter(|bucket| bucket.to_string() == name && !name.starts_with('-')).ok_or(NotABucket)
    }
}

/// The hour of a name that may be written in other ways than `Display` does.
fn named_hour(name: &str) -> Option<Bucket> {
    let (day, time) = name.split_once('T')?;
    let (hour, offset) = time.split_at_checked(2)?;
    let seconds = |(part, unit): (&str, i32)| Some(i32::from(part.parse::<u8>().ok()?) * unit);
    let size = offset.get(1..)?.split(':').zip([3600, 60, 1]).map(seconds).sum::<Option<i32>>()?;
    let offset_s = if offset.starts_with('-') { -size } else { size };
    let hour = hour.parse().ok().filter(|hour| *hour < 24 && size < 26 * 3600)?;
    // No year has more than four digits.
    let day = Some(day).filter(|day| day.len() == 10)?.parse().ok()?;
    Some(Bucket::Hour(day, hour, offset_s))
}

impl Bucket {
    /// The period this bucket is one of.
    pub fn period(self) -> Period {
        match self {
            Bucket::Hour(..) => Period::Hour,
            Bucket::Day(_) => Period::Day,
            Bucket::Week(_) => Period::Week,
            Bucket::Month(..) => Period::Month,
            Bucket::Year(_) => Period::Year,
            Bucket::All => Period::All,
        }
    }

    /// The first and the last civil day of a bucket; none for `all`.
    pub fn days(self) -> Option<(NaiveDate, NaiveDate)> {
        match self {
            Bucket::Hour(day, ..) | Bucket::Day(day) => Some((day, day)),
            Bucket::Week(first) => Some((first, first.checked_add_days(Days::new(6))?)),
            Bucket::Month(year, month) => {
                let first = NaiveDate::from_ymd_opt(year, u32::from(month), 1)?;
                Some((first, first.checked_add_months(Months::new(1))?.pred_opt()?))
            }
            Bucket::Year(year) => {
                Some((NaiveDate::from_ymd_opt(year, 1, 1)?, NaiveDate::from_ymd_opt(year, 12, 31)?))
            }
            Bucket::All => None,
        }
    }

    /// The buckets that a week, a month (its days) or a year (its months) is made of; itself, of any other.
    pub fn parts(self) -> Vec<Bucket> {
        match (self, self.days()) {
            (Bucket::Year(year), _) => (1..=12).map(|month| Bucket::Month(year, month)).collect(),
            (Bucket::Week(_) | Bucket::Month(..), Some((first, last))) => {
                first.iter_days().take_while(|day| *day <= last).map(Bucket::Day).collect()
            }
            _ => vec![self],
        }
    }
}

/// One civil hour of a site, in which a view is counted. It is decided once, when the view is accepted, and
/// every longer bucket follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CivilHour {
    /// The civil day.
    pub day: NaiveDate,
    /// The hour of the day, 0..=23.
    pub hour: u8,
    /// The zone's offset from UTC in this hour, seconds.
    pub offset_s: i32,
    /// The first day of the week that `day` lies in.
    pub week: NaiveDate,
}

impl CivilHour {
    /// The bucket of a period that this hour lies in.
    pub fn bucket(&self, period: Period) -> Bucket {
        match period {
            Period::Hour => Bucket::Hour(self.day, self.hour, self.offset_s),
            Period::Day => Bucket::Day(self.day),
            Period::Week => Bucket::Week(self.week),
            Period::Month => Bucket::Month(self.day.year(), self.day.month() as u8),
            Period::Year => Bucket::Year(self.day.year()),
            Period::All => Bucket::All,
        }
    }
}

/// The time in which the civil hour stays the same: until the next full hour on the zone's clock, or until that
/// clock is set forward or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The hour.
    pub hour: CivilHour,
    /// Its first millisecond since the Unix epoch.
    pub from_ms: i64,
    /// The first millisecond after it.
    pub until_ms: i64,
    /// The other civil day, if any, in which a session may have begun that is alive in this hour.
    pub neighbour: Option<NaiveDate>,
}

/// An IANA time zone with current rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(jiff::tz::TimeZone);

impl Zone {
    /// Finds a zone by its IANA name, in any letter case, in the bundled database.
    pub fn named(name: &str) -> Option<Zone> {
        let zone = TimeZoneDatabase::bundled().get(name).ok()?;
        (!zone.is_unknown() && zone.iana_name().is_some()).then_some(Zone(zone))
    }

    /// The IANA name.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or_default()
    }

    /// The offset from UTC in force at an instant, seconds.
    fn offset_s(&self, unix_ms: i64) -> i32 {
        self.0.to_offset(timestamp(unix_ms)).seconds()
    }

    /// The latest instant, up to and with `unix_ms`, at which the offset changed. Transitions of the
    /// database that change a zone's name or its daylight-saving flag alone do not count.
    fn last_change_ms(&self, unix_ms: i64, not_before_ms: i64) -> Option<i64> {
        self.0
            .preceding(timestamp(unix_ms + 1))
            .map(|transition| (transition.timestamp().as_millisecond(), transition.offset().seconds()))
            .take_while(|(at_ms, _)| *at_ms >= not_before_ms)
            .find(|(at_ms, after_s)| self.offset_s(at_ms - 1) != *after_s)
            .map(|(at_ms, _)| at_ms)
    }

    /// The first instant after `unix_ms` and before `end_ms` at which the offset changes.
    fn next_change_ms(&self, unix_ms: i64, end_ms: i64) -> Option<i64> {
        let now_s = self.offset_s(unix_ms);
        self.0
            .following(timestamp(unix_ms))
            .map(|transition| (transition.timestamp().as_millisecond(), transition.offset().seconds()))
            .take_while(|(at_ms, _)| *at_ms < end_ms)
            .find(|(_, after_s)| *after_s != now_s)
            .map(|(at_ms, _)| at_ms)
    }
}

/// An instant as a type of the zone library. Callers keep within its range.
fn timestamp(unix_ms: i64) -> Timestamp {
    Timestamp::from_millisecond(unix_ms).unwrap_or_default()
}

/// The words for the days of a week.
pub const WEEKDAYS: [(&str, Weekday); 7] = [
    ("monday", Weekday::Mon),
    ("tuesday", Weekday::Tue),
    ("wednesday", Weekday::Wed),
    ("thursday", Weekday::Thu),
    ("friday", Weekday::Fri),
    ("saturday", Weekday::Sat),
    ("sunday", Weekday::Sun),
];

/// The calendar of a site: its zone and the day its weeks begin on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// The zone.
    pub zone: Zone,
    /// First day of the week; Monday gives ISO weeks.
    pub week_start: Weekday,
}

impl Calendar {
    /// UTC with ISO weeks: the calendar of a site that is not registered any more.
    pub fn utc() -> Self {
        Calendar { zone: Zone(jiff::tz::TimeZone::UTC), week_start: Weekday::Mon }
    }

    /// The civil hour at an instant and how long it lasts.
    pub fn span(&self, unix_ms: i64) -> Span {
        let unix_ms = unix_ms.clamp(FIRST_S * 1000, LAST_S * 1000);
        let offset_s = self.zone.offset_s(unix_ms);
        let offset_ms = i64::from(offset_s) * 1000;
        let begin_ms = (unix_ms + offset_ms).div_euclid(HOUR_MS) * HOUR_MS - offset_ms;
        let end_ms = begin_ms + HOUR_MS;
        let civil = self.civil(unix_ms);
        let day = civil.date();
        let from_ms = self.zone.last_change_ms(unix_ms, begin_ms).unwrap_or(begin_ms);
        // By time and not by the clock, which may have been set forward since midnight. Where it was set back, the
        // window may begin and end on one day, and hold another.
        let changed_ms = self.zone.last_change_ms(from_ms, from_ms - CARRY_MS).unwrap_or(from_ms);
        let before = [from_ms - CARRY_MS, from_ms - 1, changed_ms - 1, changed_ms];
        Span {
            hour: CivilHour { day, hour: civil.hour() as u8, offset_s, week: self.week_of(day) },
            from_ms,
            until_ms: self.zone.next_change_ms(unix_ms, end_ms).unwrap_or(end_ms),
            neighbour: before.into_iter().map(|at_ms| self.civil(at_ms).date()).find(|other| *other != day),
        }
    }

    /// What the site's clocks show at an instant.
    fn civil(&self, unix_ms: i64) -> NaiveDateTime {
        let offset_ms = i64::from(self.zone.offset_s(unix_ms)) * 1000;
        DateTime::from_timestamp_millis(unix_ms + offset_ms).unwrap_or_default().naive_utc()
    }

    /// The first day of the week that a day lies in.
    pub fn week_of(&self, day: NaiveDate) -> NaiveDate {
        let since = day.weekday().days_since(self.week_start);
        day.checked_sub_days(Days::new(u64::from(since))).unwrap_or(day)
    }

    /// The buckets that hold all of one.
    pub fn longer(&self, bucket: Bucket) -> Vec<Bucket> {
        match bucket {
            Bucket::Day(day) => {
                let month = Bucket::Month(day.year(), day.month() as u8);
                vec![Bucket::Week(self.week_of(day)), month, Bucket::Year(day.year()), Bucket::All]
            }
            Bucket::Month(year, _) => vec![Bucket::Year(year), Bucket::All],
            Bucket::Week(_) | Bucket::Year(_) => vec![Bucket::All],
            Bucket::Hour(..) | Bucket::All => Vec::new(),
        }
    }

    /// The first instant of a civil day, milliseconds since the Unix epoch. A day that the zone skipped begins
    /// and ends where the next day begins.
    pub fn day_begins_ms(&self, day: NaiveDate) -> i64 {
        let midnight_s = day.and_time(NaiveTime::MIN).and_utc().timestamp().clamp(FIRST_S, LAST_S);
        let civil = jiff::tz::Offset::UTC.to_datetime(timestamp(midnight_s * 1000));
        let at_ms = |offset: jiff::tz::Offset| (midnight_s - i64::from(offset.seconds())) * 1000;
        match self.zone.0.to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Unambiguous { offset } => at_ms(offset),
            AmbiguousOffset::Fold { before, .. } => at_ms(before),
            // The clock was set forward over midnight: the day begins at that moment.
            AmbiguousOffset::Gap { before, .. } => {
                let behind_ms = at_ms(before);
                self.zone.last_change_ms(behind_ms, i64::MIN).unwrap_or(behind_ms)
            }
        }
    }

    /// An instant in the site's zone as RFC 3339 with whole seconds (`2023-09-15T08:19:00+07:00`).
    pub fn rfc3339(&self, unix_ms: i64) -> String {
        let unix_ms = unix_ms.clamp(FIRST_S * 1000, LAST_S * 1000);
        // An offset in RFC 3339 has no seconds: the same instant is written with a whole minute.
        let offset_s = self.zone.offset_s(unix_ms) / 60 * 60;
        let civil = DateTime::from_timestamp_millis(unix_ms + i64::from(offset_s) * 1000).unwrap_or_default();
        format!("{}{}", civil.format("%Y-%m-%dT%H:%M:%S"), Offset(offset_s))
    }
}

#[cfg(test)]
mod tests;
