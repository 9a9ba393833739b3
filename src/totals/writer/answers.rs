//! Reads figures from the store, for those who ask.

use std::sync::Arc;

use chrono::{Datelike, NaiveDate};
use tokio::sync::oneshot;

use super::turn::Writer;
use crate::calendar::{Bucket, CivilHour, PerPeriod, Period};
use crate::ingest::Page;
use crate::metrics::{Operation, StoreOperations};
use crate::sites::{SiteId, SiteKey};
use crate::totals::batch::sketch::Sketch;
use crate::totals::delivery::apply::FlushError;
use crate::totals::store::contract::{Found, HashName, Marker, Query, Store, StoreError, WriterId};
use crate::totals::tally::pages::{OTHER, PageFigures};
use crate::totals::tally::recent::{self, MostRead, StoredRecent};
use crate::totals::tally::running::{RunningTotals, Stored, Sums, hash_name};

/// A request for figures that are not known, or old.
pub struct Load {
    /// The site.
    pub site: SiteId,
    /// What of it.
    pub wanted: Wanted,
    /// Told when the answer is in the tally, or when there is none.
    pub done: oneshot::Sender<()>,
}

/// What figures are wanted of a site.
pub enum Wanted {
    /// The running ones.
    Figures,
    /// Those of pages.
    Pages(Vec<Page>),
    /// Hours, days, and the pages read most today.
    Past,
}

/// Most steps in which the pages of a day are read for those read most: the writer is not to be kept from its
/// work, whatever the number of pages.
const MAX_STEPS: usize = 200;

/// What hashes bear.
pub type Bears = Vec<(HashName, Option<Marker>)>;

/// See the module.
pub struct Reader<'a> {
    /// The store.
    pub store: &'a Store,
    /// Who asks.
    pub writer: &'a WriterId,
    /// Counts what is asked.
    pub operations: &'a StoreOperations,
}

impl Reader<'_> {
    /// The figures of a site in the buckets of an hour, and the markers of the hashes they were read from.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn site(
        &self,
        site: &SiteKey,
        hour: &CivilHour,
        since: NaiveDate,
    ) -> Result<(Stored, Bears), StoreError> {
        let fields: Vec<Arc<str>> = vec!["views".into(), "visits".into()];
        let hash = |name: String| HashName { site: site.clone(), name: name.into() };
        let hashes = Period::SHOWN.map(|period| hash(hash_name(hour.bucket(period))));
        let queries =
            hashes.iter().map(|hash| Query { hash: hash.clone(), fields: fields.clone() }).collect();
        let found = self.read(queries).await?;
        let mut sums = [Sums::default(); 5];
        for (sums, found) in sums.iter_mut().zip(&found) {
            let sum = |i: usize| found.sums.get(i).copied().flatten().unwrap_or(0);
            *sums = Sums { views: sum(0), visits: sum(1) };
        }
        let sketch = hash(format!("{}:visitors", hash_name(hour.bucket(Period::Day))));
        let sketches = self.store.sketches(vec![sketch]);
        let sketches = self.operations.watch(Operation::Read, sketches).await?;
        let sketch = sketches.into_iter().next().flatten().unwrap_or_else(Sketch::new);
        let earlier_visitors = self.earlier_visitors(site, hour, since).await?;
        let markers = hashes.into_iter().zip(found.into_iter().map(|found| found.marker)).collect();
        Ok((Stored { hour: *hour, sums: sums.into(), earlier_visitors, sketch }, markers))
    }

    async fn read(&self, queries: Vec<Query>) -> Result<Vec<Found>, StoreError> {
        self.operations.watch(Operation::Read, self.store.read(self.writer, queries)).await
    }

    /// What the store holds of the past of a site, and the markers of the hashes it was read from.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn past(
        &self,
        site: &SiteKey,
        hours: &[CivilHour],
        days: &[NaiveDate],
    ) -> Result<(StoredRecent, Bears), StoreError> {
        let day = days.last().copied().unwrap_or_default();
        let buckets: Vec<Bucket> = hours.iter().map(|hour| hour.bucket(Period::Hour)).collect();
        let buckets = [buckets, days.iter().copied().map(Bucket::Day).collect()].concat();
        let hash = |name: String| HashName { site: site.clone(), name: name.into() };
        let hashes: Vec<HashName> = buckets.iter().map(|bucket| hash(hash_name(*bucket))).collect();
        let fields: Vec<Arc<str>> = vec!["views".into(), "visits".into()];
        let query = |hash: &HashName| Query { hash: hash.clone(), fields: fields.clone() };
        let found = self.read(hashes.iter().map(query).collect()).await?;
        let sums = |found: &Found| {
            let sum = |i: usize| found.sums.get(i).copied().flatten().unwrap_or(0);
            Sums { views: sum(0), visits: sum(1) }
        };
        let sums = buckets.into_iter().zip(found.iter().map(sums)).collect();
        let mut most = MostRead::default();
        let pages = hash(format!("{}:pages", hash_name(Bucket::Day(day))));
        let tell = |page: String, views: String| {
            if let Ok(views) = views.parse()
                && page != OTHER
                && !page.starts_with('#')
            {
                most.tell(page, views);
            }
        };
        self.operations.watch(Operation::Read, self.store.walk(&pages, MAX_STEPS, tell)).await?;
        let bears = hashes.into_iter().zip(found.into_iter().map(|found| found.marker)).collect();
        Ok((StoredRecent { sums, day, most_read: most.pages() }, bears))
    }

    /// Visitors of the earlier days of the week, month, year, and since the beginning: sums of days.
    async fn earlier_visitors(
        &self,
        site: &SiteKey,
        hour: &CivilHour,
        since: NaiveDate,
    ) -> Result<PerPeriod<u64>, StoreError> {
        let [week, month, year, all] = RunningTotals::earlier_days(hour, since);
        // The last one holds all the others.
        let name = |day: &NaiveDate| HashName {
            site: site.clone(),
            name: format!("{}:visitors", hash_name(Bucket::Day(*day))).into(),
        };
        let counts = self.store.visitors(all.iter().map(name).collect());
        let counts = self.operations.watch(Operation::Read, counts).await?;
        let sum = |days: &[NaiveDate]| counts.iter().rev().take(days.len()).sum();
        Ok([0, sum(&week), sum(&month), sum(&year), sum(&all)].into())
    }

    /// The figures of pages in the buckets of an hour, and the markers of the hashes they were read from. A
    /// week is the sum of its days, a year that of its months.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn pages(
        &self,
        site: &SiteKey,
        hour: &CivilHour,
        pages: &[Page],
    ) -> Result<(Vec<PageFigures>, Bears), StoreError> {
        let days: Vec<NaiveDate> = hour.week.iter_days().take_while(|day| *day <= hour.day).collect();
        let months = 1..=hour.day.month() as u8;
        let buckets = days.iter().map(|day| Bucket::Day(*day));
        let buckets = buckets.chain(months.map(|month| Bucket::Month(hour.day.year(), month)));
        let fields: Vec<Arc<str>> = pages.iter().map(|page| page.as_str().into()).collect();
        let hash = |bucket: Bucket| HashName {
            site: site.clone(),
            name: format!("{}:pages", hash_name(bucket)).into(),
        };
        let hashes: Vec<HashName> = buckets.chain([Bucket::All]).map(hash).collect();
        let query = |hash: &HashName| Query { hash: hash.clone(), fields: fields.clone() };
        let found = self.read(hashes.iter().map(query).collect()).await?;
        let figures = |page: usize| {
            let sums: Vec<u64> =
                found.iter().map(|hash| hash.sums.get(page).copied().flatten().unwrap_or(0)).collect();
            let (of_days, rest) = sums.split_at(days.len().min(sums.len()));
            let (of_months, all) = rest.split_at(rest.len().saturating_sub(1));
            let last = |sums: &[u64]| sums.last().copied().unwrap_or(0);
            [last(of_days), of_days.iter().sum(), last(of_months), of_months.iter().sum(), last(all)]
        };
        let figures = (0..pages.len()).map(figures).collect();
        Ok((figures, hashes.into_iter().zip(found.into_iter().map(|found| found.marker)).collect()))
    }
}

impl Writer {
    /// Reads figures for those who ask, and for all who ask at the same time.
    pub async fn answer(&mut self, first: Load) {
        let mut loads = vec![first];
        while let Ok(more) = self.loads.try_recv() {
            loads.push(more);
        }
        let of_sites = loads.iter().any(|load| matches!(load.wanted, Wanted::Figures));
        if self.is_whole()
            && of_sites
            && let Err(error) = self.refresh().await
        {
            self.failed(&error);
        }
        for load in loads {
            if self.is_whole()
                && let Err(error) = self.load(load.site, &load.wanted).await
            {
                self.failed(&error);
            }
            // Whoever asked may have gone.
            load.done.send(()).ok();
        }
    }

    /// Whether what is read is what was applied: in between a batch may have been applied whose answer was
    /// lost.
    fn is_whole(&self) -> bool {
        self.pace.attached && self.pace.verified && self.outbox.waiting() == 0
    }

    async fn load(&mut self, site: SiteId, wanted: &Wanted) -> Result<(), FlushError> {
        match wanted {
            Wanted::Figures => Ok(()),
            Wanted::Pages(pages) => self.load_pages(site, pages).await,
            // Many may have asked before the first of them was answered.
            Wanted::Past if self.is_past_fresh(site) => Ok(()),
            Wanted::Past => {
                let pages = self.load_past(site).await?;
                self.load_pages(site, &pages).await
            }
        }
    }

    fn is_past_fresh(&self, site: SiteId) -> bool {
        self.shared.past(site, self.shared.clock.now()).is_some_and(|(_, old)| !old)
    }

    /// Reads the past of a site. The pages it names whose figures are not known.
    async fn load_past(&mut self, site: SiteId) -> Result<Vec<Page>, FlushError> {
        let Some(site) = self.sites.at(site).cloned() else { return Ok(Vec::new()) };
        let now = self.shared.clock.now();
        let (hours, days) = recent::buckets(&site.calendar, now.unix_ms);
        let (stored, bears) = self.reader().past(&site.key, &hours, &days).await?;
        // What went back is healed first: its figures are not believed, and read when next asked for.
        let whole = self.flush().check(&self.heads, &bears).await?;
        self.pace.verified &= whole;
        if !whole {
            return Ok(Vec::new());
        }
        let pages = stored.most_read.iter().map(|page| Page::trusted(site.id, page));
        let mut tally = self.shared.tally();
        let unknown = pages.filter(|page| tally.page(site.id, page, now).is_none()).collect();
        tally.learn_recent(site.id, stored, now.uptime_ms);
        Ok(unknown)
    }

    async fn load_pages(&mut self, id: SiteId, pages: &[Page]) -> Result<(), FlushError> {
        let Some(site) = self.sites.at(id).cloned().filter(|_| !pages.is_empty()) else {
            return Ok(());
        };
        let now = self.shared.clock.now();
        let hour = site.calendar.span(now.unix_ms).hour;
        let (figures, bears) = self.reader().pages(&site.key, &hour, pages).await?;
        // What went back is healed first: its figures are not believed, and read when next asked for.
        let whole = self.flush().check(&self.heads, &bears).await?;
        self.pace.verified &= whole;
        let mut tally = self.shared.tally();
        let now = self.shared.clock.now();
        // Of a day that ended meanwhile nothing is taken.
        let lasts = tally.is_day(id, hour.day, now);
        for (page, stored) in pages.iter().zip(figures).filter(|_| whole && lasts) {
            tally.learn_page(id, page.as_str(), &hour, stored, now.uptime_ms);
        }
        Ok(())
    }
}
