//! What a row names.

use std::sync::Arc;

use chrono::{Datelike, NaiveTime};

use crate::calendar::{Bucket, Calendar, Period};
use crate::ingest::{OTHER, read_page, shown_as};
use crate::totals::batch::entry::Total;
use crate::totals::batch::part::{HashKind, HashName, MAX_SUM};
use crate::totals::store::contract::Store;
use crate::totals::writer::rows::{Entering, Row};
use crate::totals::writer::turn::Writer;

/// No page of the web was counted before.
pub const FIRST_YEAR: i32 = 1990;

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

/// What is wrong, by lines.
pub type Faults = Vec<(usize, String)>;

impl<S: Store> Writer<S> {
    /// The name that a row is of, or what is wrong with it; none where what it is of is not kept any more.
    pub(super) fn name(&self, row: &Row, entering: &Entering) -> Result<Option<Name>, String> {
        if row.value.unsigned_abs() > MAX_SUM || row.value < 0 && !entering.adds {
            return Err(format!("no bucket shows {}", row.value));
        }
        let site = self.delivery.sites.configured(&row.site)?;
        let total = word(&Total::WORDS, &row.total, "total")?;
        let period = word(&Period::WORDS, &row.period, "period")?;
        let now_ms = self.shared.clock.now().unix_ms;
        let from_ms = entering.as_of.map_or(now_ms, |day| site.calendar.day_begins_ms(day));
        let bucket = bucket(&site.calendar, from_ms, period, &row.bucket, entering.former_calendar)?;
        if entering.rolls_up && period != Period::Day {
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
                let page = read_page(site, page).map_err(|_| no_page(page))?;
                match shown_as(site, &page) {
                    None => (HashKind::Pages, page.as_str().into()),
                    Some(other) if entering.day.is_some() => (HashKind::Pages, other.as_str().into()),
                    Some(_) => return Err(format!("{} was erased", page.as_str())),
                }
            }
        };
        let hash = HashName::new(&site.key, bucket, kind);
        let since = self.delivery.pages_since(site, self.config.page_days);
        if kind == HashKind::Pages && entering.as_of.is_some_and(|day| day < since) {
            let kept = format!("views of pages are kept by day from {since} on (totals.page_days)");
            return Err(format!("{kept}: give a later --as-of"));
        }
        // Where days are rolled up they count in the longer buckets.
        let is_of_use = entering.rolls_up || !hash.is_pruned(Some(&since));
        Ok(is_of_use.then_some(Name { hash, field }))
    }

    /// The names of the longer buckets that hold all of one.
    pub(super) fn longer(&self, name: &Name) -> Vec<Name> {
        let site = self.delivery.sites.known(&name.hash.site);
        let buckets = site.map(|site| site.calendar.longer(name.hash.bucket)).unwrap_or_default();
        buckets.into_iter().map(|bucket| name.of(bucket)).collect()
    }

    /// The names of the buckets that one is made of.
    pub(super) fn parts(&self, name: &Name) -> Vec<Name> {
        let buckets = match name.hash.bucket {
            Bucket::All => (FIRST_YEAR..=self.today(&name.hash.site).year()).map(Bucket::Year).collect(),
            bucket => bucket.parts(),
        };
        buckets.into_iter().map(|bucket| name.of(bucket)).collect()
    }
}

fn bucket(
    calendar: &Calendar,
    from_ms: i64,
    period: Period,
    said: &str,
    of_any: bool,
) -> Result<Bucket, String> {
    let hour = calendar.span(from_ms).hour;
    let current = hour.bucket(period);
    if said == "current" || (said.is_empty() && period == Period::All) {
        return Ok(current);
    }
    let bucket = said.parse().ok().filter(|bucket: &Bucket| bucket.period() == period);
    let bucket =
        bucket.ok_or_else(|| format!("{said:?} is no {}: the current one is {current}", period.word()))?;
    if !of_any && !exists(calendar, bucket) {
        let fault =
            format!("the site's calendar has no {} {said}: the current one is {current}", period.word());
        return Err(format!(
            "{fault}; if its week_start or time_zone was another once, add --former-calendar"
        ));
    }
    match bucket.days() {
        Some((first, _)) if first.year() < FIRST_YEAR => Err(format!("{bucket} begins before {FIRST_YEAR}")),
        Some((first, _)) if first > hour.day => Err(format!("{bucket} begins after {}", hour.day)),
        _ => Ok(bucket),
    }
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
