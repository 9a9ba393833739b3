//! Reads figures from the store. Everything that is shown is made of three ways to read: sums of buckets, views
//! of pages in buckets, the pages of a day that are read most.
//!
//! With each goes what the hashes bear that it was read from: where one went back, what was read is not to be
//! believed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{Datelike, Days, NaiveDate};

use crate::calendar::{Bucket, CivilHour, PerPeriod, Period};
use crate::ingest::{OTHER, Page};
use crate::sites::{Site, SiteKey};
use crate::totals::batch::Batch;
use crate::totals::batch::entry::Total;
use crate::totals::batch::part::{Entry, HashKind, HashName, MAX_SUM, PartId, Sums};
use crate::totals::store::contract::{Found, Query, Store, StoreError, WriterId};
use crate::totals::tally::cell::Revised;
use crate::totals::tally::recent::{MOST_READ, StoredRecent};
use crate::totals::tally::running::{RunningTotals, Stored};

/// The fields of a hash of sums, the last of which is `visitors`: their sum is in sketches, what is entered of them stands
/// here.
fn fields_of_sums() -> Vec<Arc<str>> {
    Sums::fields().iter().cloned().chain([Total::Visitors.word().into()]).collect()
}

/// What the store holds of a field: a sum, and what was entered beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub counted: u64,
    pub entered: i64,
}

impl Kept {
    /// What is shown of it.
    pub fn shown(self) -> u64 {
        self.counted.saturating_add_signed(self.entered).min(MAX_SUM)
    }
}

fn sums_of(Revised { value, revision }: &Revised<Vec<Kept>>) -> Revised<Sums> {
    let mut sums = Sums::default();
    for (field, kept) in Sums::fields().iter().zip(value) {
        if let Some(number) = sums.number_mut(field) {
            *number = kept.shown();
        }
    }
    Revised { value: sums, revision: *revision }
}

/// What hashes bear.
pub type Bears = Vec<(HashName, Option<PartId>)>;

/// Days whose visitors are read again and again after they ended: batches of other instances may still come.
const SETTLES_AFTER: Days = Days::new(2);

/// Visitors of days that are over, by site. Each is read once, and again when a batch of this instance for it is
/// brought late, on another connection (the server may have gone back), and after an operator's order. What
/// another instance brings more than two days late is seen then, or by the next start.
#[derive(Default)]
pub struct ClosedDays {
    generation: u64,
    by_site: HashMap<SiteKey, BTreeMap<NaiveDate, u64>>,
}

impl ClosedDays {
    /// Forgets what was read of the days that a batch adds to.
    pub fn forget(&mut self, batch: &Batch) {
        for sums in &batch.sums {
            self.by_site.get_mut(&sums.site).map(|days| days.remove(&sums.hour.day));
        }
    }
}

/// What was found, field by field; one that is not there counts as 0.
fn kept(found: &Found) -> Vec<Kept> {
    let entered = |entry: &Option<Entry>| entry.as_ref().map_or(0, Entry::amount);
    let fields = found.sums.iter().zip(&found.entries);
    fields.map(|(sum, entry)| Kept { counted: sum.unwrap_or_default(), entered: entered(entry) }).collect()
}

/// The pages of a day that are read most, most views first. One that moved counts for what it is shown as.
pub async fn most_read(store: &impl Store, site: &Site, day: NaiveDate) -> Result<Vec<Arc<str>>, StoreError> {
    let pages = HashName::new(&site.key, Bucket::Day(day), HashKind::Pages);
    let aliases = &site.pages.aliases;
    // One of them may be `(other)`.
    let most = MOST_READ + 1 + aliases.number();
    let mut shown = HashMap::<Arc<str>, u64>::new();
    for (page, views) in store.top(&pages, most).await? {
        let to = aliases.shown_as(&page).cloned();
        *shown.entry(to.unwrap_or_else(|| page.into())).or_default() += views;
    }
    let mut pages: Vec<_> = shown.into_iter().filter(|(page, _)| **page != *OTHER).collect();
    pages.sort_unstable_by(|(a, a_views), (b, b_views)| b_views.cmp(a_views).then_with(|| a.cmp(b)));
    Ok(pages.into_iter().map(|(page, _)| page).take(MOST_READ).collect())
}

/// Reads the store as a writer.
pub struct Reader<'a, S> {
    pub store: &'a S,
    pub writer: &'a WriterId,
}

impl<S: Store> Reader<'_, S> {
    /// The sums of buckets, in their order.
    pub async fn sums(
        &self,
        site: &SiteKey,
        buckets: &[Bucket],
    ) -> Result<(Vec<Revised<Sums>>, Bears), StoreError> {
        let (found, bears) = self.fields(site, buckets, HashKind::Sums, fields_of_sums()).await?;
        Ok((found.iter().map(sums_of).collect(), bears))
    }

    /// Views of pages, bucket by bucket, in the order of the pages.
    pub async fn pages(
        &self,
        site: &SiteKey,
        buckets: &[Bucket],
        pages: &[Page],
    ) -> Result<(Vec<Revised<Vec<Kept>>>, Bears), StoreError> {
        let fields = pages.iter().map(|page| page.as_str().into()).collect();
        self.fields(site, buckets, HashKind::Pages, fields).await
    }

    /// Fields of the hashes of buckets; one that is not there counts as 0.
    async fn fields(
        &self,
        site: &SiteKey,
        buckets: &[Bucket],
        kind: HashKind,
        fields: Vec<Arc<str>>,
    ) -> Result<(Vec<Revised<Vec<Kept>>>, Bears), StoreError> {
        let hashes: Vec<HashName> = buckets.iter().map(|bucket| HashName::new(site, *bucket, kind)).collect();
        let query = |hash: &HashName| Query { hash: hash.clone(), fields: fields.clone() };
        let found = self.store.read(self.writer, hashes.iter().map(query).collect()).await?;
        let apart = |found: Found| (Revised { revision: found.revision, value: kept(&found) }, found.marker);
        let (sums, markers): (Vec<_>, Vec<_>) = found.into_iter().map(apart).unzip();
        Ok((sums, hashes.into_iter().zip(markers).collect()))
    }

    /// The figures of a site in the buckets of an hour, of a data set that is known since a day.
    pub async fn running(
        &self,
        site: &SiteKey,
        hour: &CivilHour,
        (dataset, since): (Option<Arc<str>>, NaiveDate),
        closed: &mut ClosedDays,
    ) -> Result<(Stored, Bears), StoreError> {
        let buckets = Period::SHOWN.map(|period| hour.bucket(period));
        let (kept, bears) = self.fields(site, &buckets, HashKind::Sums, fields_of_sums()).await?;
        let sums: [Revised<Sums>; 5] = std::array::from_fn(|i| kept.get(i).map(sums_of).unwrap_or_default());
        let sketch = HashName::new(site, Bucket::Day(hour.day), HashKind::Visitors);
        let sketches = self.store.sketches(vec![sketch]).await?;
        let sketch = sketches.into_iter().next().flatten().unwrap_or_default();
        let earlier_visitors = self.earlier_visitors(site, hour, since, closed).await?;
        let earlier: [u64; 5] = earlier_visitors.into();
        let earlier: [u64; 5] = std::array::from_fn(|i| {
            let entered = kept.get(i).and_then(|kept| kept.value.last()).map_or(0, |kept| kept.entered);
            Kept { counted: earlier[i], entered }.shown()
        });
        let earlier_visitors = earlier.into();
        Ok((Stored { dataset, hour: *hour, sums: sums.into(), earlier_visitors, sketch }, bears))
    }

    /// Visitors of the earlier days of the week, month, year, and since the beginning: sums of days.
    async fn earlier_visitors(
        &self,
        site: &SiteKey,
        hour: &CivilHour,
        since: NaiveDate,
        closed: &mut ClosedDays,
    ) -> Result<PerPeriod<u64>, StoreError> {
        let [week, month, year, all] = RunningTotals::earlier_days(hour, since);
        let generation = self.store.generation();
        if closed.generation != generation {
            *closed = ClosedDays { generation, ..ClosedDays::default() };
        }
        let known = closed.by_site.entry(site.clone()).or_default();
        let settled = hour.day.checked_sub_days(SETTLES_AFTER).unwrap_or(hour.day);
        known.retain(|day, _| *day < settled);
        // The last one holds all the others.
        let unknown: Vec<NaiveDate> = all.iter().filter(|day| !known.contains_key(day)).copied().collect();
        let name = |day: &NaiveDate| HashName::new(site, Bucket::Day(*day), HashKind::Visitors);
        let counts = self.store.visitors(unknown.iter().map(name).collect()).await?;
        known.extend(unknown.into_iter().zip(counts));
        let of = |day: &NaiveDate| known.get(day).copied().unwrap_or_default();
        let sum = |days: &[NaiveDate]| days.iter().map(of).fold(0, u64::saturating_add).min(MAX_SUM);
        Ok([0, sum(&week), sum(&month), sum(&year), sum(&all)].into())
    }

    /// The figures of pages in the buckets of an hour. What is counted of a week is the sum of its days, of a year that
    /// of its months, and so are their revisions; what is entered of them stands in hashes of their own.
    pub async fn running_pages(
        &self,
        site: &SiteKey,
        hour: &CivilHour,
        pages: &[Page],
    ) -> Result<(Vec<PerPeriod<Revised<u64>>>, Bears), StoreError> {
        let mut buckets = Bucket::Week(hour.week).parts();
        buckets.retain(|day| *day <= Bucket::Day(hour.day));
        let days = buckets.len();
        buckets.push(hour.bucket(Period::Week));
        buckets.extend((1..=hour.day.month() as u8).map(|month| Bucket::Month(hour.day.year(), month)));
        let months = buckets.len();
        buckets.extend([hour.bucket(Period::Year), Bucket::All]);
        let (views, bears) = self.pages(site, &buckets, pages).await?;
        let figures = |page: usize| {
            // Entered into the last one.
            let of = |buckets: &[Revised<Vec<Kept>>]| {
                let sum = |sum: Revised<Kept>, views: &Revised<Vec<Kept>>| {
                    let counted = sum.value.counted + views.value[page].counted;
                    let value = Kept { counted, entered: views.value[page].entered };
                    Revised { value, revision: views.revision.saturating_add(sum.revision) }
                };
                let Revised { value, revision } = buckets.iter().fold(Revised::default(), sum);
                Revised { value: value.shown(), revision }
            };
            let (day, week) = (of(&views[days - 1..days]), of(&views[..=days]));
            let (month, year) = (of(&views[months - 1..months]), of(&views[days + 1..=months]));
            [day, week, month, year, of(&views[months + 1..])].into()
        };
        Ok(((0..pages.len()).map(figures).collect(), bears))
    }

    /// Hours and days of a site, beside the pages that are read most on the last one.
    pub async fn recent(
        &self,
        site: &SiteKey,
        hours: &[CivilHour],
        days: &[NaiveDate],
        most_read: Vec<Arc<str>>,
    ) -> Result<(StoredRecent, Bears), StoreError> {
        let day = days.last().copied().unwrap_or_default();
        let hours = hours.iter().map(|hour| hour.bucket(Period::Hour));
        let buckets: Vec<Bucket> = hours.chain(days.iter().copied().map(Bucket::Day)).collect();
        let (sums, bears) = self.sums(site, &buckets).await?;
        Ok((StoredRecent { sums: buckets.into_iter().zip(sums).collect(), day, most_read }, bears))
    }
}
