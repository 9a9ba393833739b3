//! An instant and a zone become buckets.
//!
//! The zone rules are the bundled zone database's, never the machine's copy: a machine with old
//! rules would end a newsroom's day at the wrong hour. Dates are `chrono`'s; the zone rules are `jiff`'s,
//! whose types do not leave this file.
//!
//! A bucket is a set of instants, not always one stretch: where clocks fall back over midnight
//! (St. John's until 2011, at 00:01) a day has a minute, loses an hour to the day before, and goes on.
//! Buckets of one period tile time all the same: every instant lies in exactly one.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveTime, Timelike, Weekday};
use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, TimeZoneDatabase};

const HOUR_MS: i64 = 3_600_000;

/// 0001-01-10 and 9999-12-21: instants beyond count as these, so that every name has a year of four
/// digits and no sum of an instant and an offset leaves the libraries' range.
const FIRST_S: i64 = -62_134_819_200;
const LAST_S: i64 = 253_401_350_400;

/// A calendar period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Period {
    /// A civil hour; an hour that comes twice on a long day is two, told apart by the offset.
    Hour,
    /// A civil day of 23, 24 or 25 hours.
    Day,
    /// Seven days from the site's first day of the week.
    Week,
    /// A civil month.
    Month,
    /// A civil year.
    Year,
    /// Since the beginning.
    All,
}

impl Period {
    /// Every period, from the shortest to the longest.
    pub const ALL: [Period; 6] =
        [Period::Hour, Period::Day, Period::Week, Period::Month, Period::Year, Period::All];

    /// The periods whose running totals are shown: all but the hour.
    pub const SHOWN: [Period; 5] = [Period::Day, Period::Week, Period::Month, Period::Year, Period::All];

    /// Its word: `hour`, `day`, `week`, `month`, `year` or `all`.
    pub fn name(self) -> &'static str {
        match self {
            Period::Hour => "hour",
            Period::Day => "day",
            Period::Week => "week",
            Period::Month => "month",
            Period::Year => "year",
            Period::All => "all",
        }
    }
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
    /// The value of a period; none of the hour.
    pub fn get(&self, period: Period) -> Option<&T> {
        match period {
            Period::Hour => None,
            Period::Day => Some(&self.day),
            Period::Week => Some(&self.week),
            Period::Month => Some(&self.month),
            Period::Year => Some(&self.year),
            Period::All => Some(&self.all),
        }
    }

    /// Each period with its value, from the shortest.
    pub fn iter(&self) -> impl Iterator<Item = (Period, &T)> {
        Period::SHOWN.into_iter().filter_map(|period| Some((period, self.get(period)?)))
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

/// Seconds east of UTC as `+07:00`; the seconds of local mean times, before zones were drawn, as
/// `+07:06:30`.
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

    /// Strict: what is read is written back the same, byte for byte.
    fn from_str(name: &str) -> Result<Self, NotABucket> {
        let bucket = match name.len() {
            3 => (name == "all").then_some(Bucket::All),
            4 => number(name).map(|year| Bucket::Year(year as i32)),
            7 => month(name),
            8 => iso_week(name),
            10 => date(name).map(Bucket::Day),
            14 => named_week(name),
            19 | 22 => hour(name),
            _ => None,
        };
        bucket.ok_or(NotABucket)
    }
}

/// A number of digits only.
fn number(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn month(name: &str) -> Option<Bucket> {
    let (year, month) = name.split_once('-')?;
    let (year, month) = (number(year).filter(|_| year.len() == 4)?, number(month)?);
    (1..=12).contains(&month).then_some(Bucket::Month(year as i32, month as u8))
}

fn date(name: &str) -> Option<NaiveDate> {
    let (year, rest) = name.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    if (year.len(), month.len(), day.len()) != (4, 2, 2) {
        return None;
    }
    NaiveDate::from_ymd_opt(number(year)? as i32, number(month)?, number(day)?)
}

fn iso_week(name: &str) -> Option<Bucket> {
    let (year, week) = name.split_once("-W")?;
    let (year, week) = (number(year).filter(|_| year.len() == 4)?, number(week)?);
    NaiveDate::from_isoywd_opt(year as i32, week, Weekday::Mon).map(Bucket::Week)
}

fn named_week(name: &str) -> Option<Bucket> {
    let first = date(name.strip_suffix("/P7D")?)?;
    (first.weekday() != Weekday::Mon).then_some(Bucket::Week(first))
}

fn hour(name: &str) -> Option<Bucket> {
    let (day, rest) = name.split_once('T')?;
    let (hour, offset) = rest.split_at_checked(2)?;
    let hour = number(hour).filter(|hour| *hour < 24)?;
    let (sign, offset) = offset.split_at_checked(1)?;
    let mut parts = offset.split(':').map(|part| number(part).filter(|_| part.len() == 2));
    let (hours, minutes) = (parts.next()??, parts.next()??);
    let seconds = match parts.next() {
        // Whole minutes are written without seconds.
        Some(seconds) => seconds.filter(|seconds| *seconds > 0)?,
        None => 0,
    };
    let size = (hours * 3600 + minutes * 60 + seconds) as i32;
    let offset_s = match sign {
        "+" => size,
        "-" if size > 0 => -size,
        _ => return None,
    };
    (parts.next().is_none() && hours < 26 && minutes < 60 && seconds < 60).then_some(Bucket::Hour(
        date(day)?,
        hour as u8,
        offset_s,
    ))
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
}

/// One civil hour of a site: what a view is counted in. Every longer bucket follows from it, and it
/// is decided once, when the view is accepted.
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

/// The stretch of time in which the civil hour stays the same: to the next full hour on the zone's
/// clock or to the moment that clock is set, whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The hour.
    pub hour: CivilHour,
    /// Its first millisecond since the Unix epoch.
    pub from_ms: i64,
    /// The first millisecond after it.
    pub until_ms: i64,
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

/// An instant as the zone library has it. Callers keep within its range; the epoch stands for what
/// would be outside.
fn timestamp(unix_ms: i64) -> Timestamp {
    Timestamp::from_millisecond(unix_ms).unwrap_or_default()
}

/// The calendar of a site: its zone and the day its weeks begin on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// The zone.
    pub zone: Zone,
    /// First day of the week; Monday gives ISO weeks.
    pub week_start: Weekday,
}

impl Calendar {
    /// UTC with ISO weeks: the calendar of a site that nothing is known of any more.
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
        let civil = DateTime::from_timestamp_millis(unix_ms + offset_ms).unwrap_or_default();
        let day = civil.date_naive();
        Span {
            hour: CivilHour { day, hour: civil.hour() as u8, offset_s, week: self.week_of(day) },
            from_ms: self.zone.last_change_ms(unix_ms, begin_ms).unwrap_or(begin_ms),
            until_ms: self.zone.next_change_ms(unix_ms, end_ms).unwrap_or(end_ms),
        }
    }

    /// The first day of the week that a day lies in.
    pub fn week_of(&self, day: NaiveDate) -> NaiveDate {
        let since = day.weekday().days_since(self.week_start);
        day.checked_sub_days(Days::new(u64::from(since))).unwrap_or(day)
    }

    /// When a civil day begins, milliseconds since the Unix epoch: its first existing instant. A day
    /// that the zone skipped begins, and ends, with the day after it.
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
        // RFC 3339 knows no seconds of an offset: the same instant, told from the whole minute.
        let offset_s = self.zone.offset_s(unix_ms) / 60 * 60;
        let civil = DateTime::from_timestamp_millis(unix_ms + i64::from(offset_s) * 1000).unwrap_or_default();
        format!("{}{}", civil.format("%Y-%m-%dT%H:%M:%S"), Offset(offset_s))
    }
}

#[cfg(test)]
mod tests;
