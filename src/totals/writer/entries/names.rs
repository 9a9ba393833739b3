//! What a row names.

use std::sync::Arc;

use chrono::{Datelike, NaiveDate, NaiveTime};

use crate::calendar::{Bucket, Calendar, Period};
use crate::ingest::{OTHER, read_page, shown_as};
use crate::sites::{Site, Sites};
use crate::totals::batch::entry::Total;
use crate::totals::batch::part::{HashKind, HashName};
use crate::totals::writer::rows::Row;

/// The place of an entry: a field of a hash, without the `+`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    pub hash: HashName,
    pub field: Arc<str>,
}

impl Name {
    /// The same of another bucket.
    pub fn of(&self, bucket: Bucket) -> Name {
        Name { hash: HashName { bucket, ..self.hash.clone() }, field: self.field.clone() }
    }

    /// For people.
    pub fn told(&self) -> String {
        let page = if self.hash.kind == HashKind::Pages { "views of " } else { "" };
        format!("{}: {page}{} {}", self.hash.site, self.field, self.hash.bucket)
    }
}

/// When rows are read.
pub struct Reading<'a> {
    pub sites: &'a Sites,
    pub now_ms: i64,
    /// The day that they speak of, if it is not now.
    pub as_of: Option<NaiveDate>,
    /// They are of days alone.
    pub rolls_up: bool,
}

impl Reading<'_> {
    /// The site and the name that a row is of, or what is wrong with it.
    pub fn name(&self, row: &Row) -> Result<(Arc<Site>, Name), String> {
        let site = known(self.sites, &row.site)?.clone();
        let total = word(&Total::WORDS, &row.total, "total")?;
        let period = word(&Period::WORDS, &row.period, "period")?;
        let bucket = self.bucket(&site.calendar, period, &row.bucket)?;
        if self.rolls_up && period != Period::Day {
            return Err(format!("a {} beside days that are rolled up into it", period.word()));
        }
        if period == Period::Hour && (total == Total::Visitors || !row.page.is_empty()) {
            return Err(
                "of an hour views and visits of the site are kept, no visitors and no pages".to_owned()
            );
        }
        let (kind, field) = match row.page.as_str() {
            "" => (HashKind::Sums, total.word().into()),
            _ if total != Total::Views => return Err(format!("a page has views, no {}", total.word())),
            OTHER => (HashKind::Pages, OTHER.into()),
            page => {
                let page = read_page(&site, page).map_err(|_| no_page(page))?;
                if shown_as(&site, &page).is_some() {
                    return Err(format!("{} was erased", page.as_str()));
                }
                (HashKind::Pages, page.as_str().into())
            }
        };
        let hash = HashName::new(&site.key, bucket, kind);
        Ok((site, Name { hash, field }))
    }

    fn bucket(&self, calendar: &Calendar, period: Period, said: &str) -> Result<Bucket, String> {
        let from_ms = self.as_of.map_or(self.now_ms, |day| calendar.day_begins_ms(day));
        let hour = calendar.span(from_ms).hour;
        let current = hour.bucket(period);
        if said == "current" || (said.is_empty() && period == Period::All) {
            return Ok(current);
        }
        let no_bucket = || format!("{said:?} is no {}: the current one is {current}", period.word());
        let bucket: Bucket = said.parse().map_err(|_| no_bucket())?;
        if bucket.period() != period || !exists(calendar, bucket) {
            return Err(no_bucket());
        }
        match bucket.days() {
            Some((first, _)) if first > hour.day => Err(format!("{bucket} begins after {}", hour.day)),
            _ => Ok(bucket),
        }
    }
}

/// The site of a key.
pub fn known<'a>(sites: &'a Sites, key: &str) -> Result<&'a Arc<Site>, String> {
    sites.get(key).ok_or_else(|| format!("site {key:?} is not configured: the sites are {}", sites.keys()))
}

/// What is said of a text that names no page.
pub fn no_page(said: &str) -> String {
    format!("{said:?} is neither a path nor a URL of a host of the site")
}

fn word<T: Copy>(words: &[(&'static str, T)], said: &str, what: &str) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == said);
    let all = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
    found.map(|(_, value)| *value).ok_or_else(|| format!("{what} {said:?} is none of {}", all()))
}

/// Whether a calendar has a bucket: a week begins on the site's first day, an hour is one of the site's clock.
fn exists(calendar: &Calendar, bucket: Bucket) -> bool {
    match bucket {
        Bucket::Week(first) => calendar.week_of(first) == first,
        Bucket::Hour(day, hour, offset_s) => {
            let midnight_s = day.and_time(NaiveTime::MIN).and_utc().timestamp() - i64::from(offset_s);
            let at_ms = (midnight_s + i64::from(hour) * 3600) * 1000;
            // Where the clock was set forward within it, its beginning is not there.
            let ends_ms = at_ms + 3_599_999;
            [at_ms, ends_ms].into_iter().any(|at_ms| calendar.span(at_ms).hour.bucket(Period::Hour) == bucket)
        }
        _ => true,
    }
}

/// The buckets that a day lies in, or that hold all of a longer bucket.
pub fn longer(calendar: &Calendar, bucket: Bucket) -> Vec<Bucket> {
    match bucket {
        Bucket::Day(day) => {
            let month = Bucket::Month(day.year(), day.month() as u8);
            vec![Bucket::Week(calendar.week_of(day)), month, Bucket::Year(day.year()), Bucket::All]
        }
        Bucket::Month(year, _) => vec![Bucket::Year(year), Bucket::All],
        Bucket::Week(_) | Bucket::Year(_) => vec![Bucket::All],
        Bucket::Hour(..) | Bucket::All => Vec::new(),
    }
}

/// The buckets whose sums make up what is counted of a name: of a page's week and year no sum of its own is kept.
pub fn parts(name: &Name) -> Vec<Bucket> {
    match name.hash.bucket {
        bucket @ (Bucket::Week(_) | Bucket::Year(_)) if name.hash.kind == HashKind::Pages => within(bucket),
        bucket => vec![bucket],
    }
}

/// The buckets that a week, a month or a year is made of.
pub fn within(bucket: Bucket) -> Vec<Bucket> {
    match bucket {
        Bucket::Year(year) => (1..=12).map(|month| Bucket::Month(year, month)).collect(),
        bucket => {
            let (first, last) = bucket.days().unwrap_or_default();
            first.iter_days().take_while(|day| *day <= last).map(Bucket::Day).collect()
        }
    }
}
