//! Reads figures from the store, for those who ask.

use std::sync::Arc;

use chrono::{Datelike, NaiveDate};
use tokio::sync::oneshot;

use super::turn::Writer;
use crate::calendar::{Bucket, CivilHour, Period};
use crate::ingest::Page;
use crate::sites::{SiteId, SiteKey};
use crate::totals::batch::part::{HashKind, HashName, Sums};
use crate::totals::batch::sketch::Sketch;
use crate::totals::delivery::apply::FlushError;
use crate::totals::store::contract::{Found, Marker, Query, Store, StoreError, WriterId};
use crate::totals::tally::pages::{OTHER, PageFigures};
use crate::totals::tally::recent::{self, MOST_READ, StoredPast};
use crate::totals::tally::running::{PERIODS, SiteFigures, Stored};

/// A request for figures that are not known, or old.
pub struct Load {
    /// The site.
    pub site: SiteId,
    /// What of it.
    pub wanted: Wanted,
    /// Told when the answer is in the ledger, or when there is none.
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

/// What hashes bear.
pub type Bears = Vec<(HashName, Option<Marker>)>;

/// See the module.
pub struct Reader<'a, S> {
    /// The store.
    pub store: &'a S,
    /// Who asks.
    pub writer: &'a WriterId,
}

impl<S: Store> Reader<'_, S> {
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
        let hashes = PERIODS.map(|period| HashName::new(site, hour.bucket(period), HashKind::Sums));
        let queries =
            hashes.iter().map(|hash| Query { hash: hash.clone(), fields: fields.clone() }).collect();
        let found = self.store.read(self.writer, queries).await?;
        let mut sums = [Sums::default(); 5];
        for (sums, found) in sums.iter_mut().zip(&found) {
            let sum = |i: usize| found.sums.get(i).copied().flatten().unwrap_or(0);
            *sums = Sums { views: sum(0), visits: sum(1) };
        }
        let sketch = HashName::new(site, Bucket::Day(hour.day), HashKind::Visitors);
        let sketches = self.store.sketches(vec![sketch]).await?;
        let sketch = sketches.into_iter().next().flatten().unwrap_or_else(Sketch::new);
        let earlier_visitors = self.earlier_visitors(site, hour, since).await?;
        let markers = hashes.into_iter().zip(found.into_iter().map(|found| found.marker)).collect();
        Ok((Stored { hour: *hour, sums, earlier_visitors, sketch }, markers))
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
    ) -> Result<(StoredPast, Bears), StoreError> {
        let day = days.last().copied().unwrap_or_default();
        let buckets: Vec<Bucket> = hours.iter().map(|hour| hour.bucket(Period::Hour)).collect();
        let buckets = [buckets, days.iter().copied().map(Bucket::Day).collect()].concat();
        let hash = |bucket: &Bucket| HashName::new(site, *bucket, HashKind::Sums);
        let hashes: Vec<HashName> = buckets.iter().map(hash).collect();
        let fields: Vec<Arc<str>> = vec!["views".into(), "visits".into()];
        let query = |hash: &HashName| Query { hash: hash.clone(), fields: fields.clone() };
        let found = self.store.read(self.writer, hashes.iter().map(query).collect()).await?;
        let sums = |found: &Found| {
            let sum = |i: usize| found.sums.get(i).copied().flatten().unwrap_or(0);
            Sums { views: sum(0), visits: sum(1) }
        };
        let sums = buckets.into_iter().zip(found.iter().map(sums)).collect();
        // One of them may be `(other)`.
        let pages = HashName::new(site, Bucket::Day(day), HashKind::Pages);
        let pages = self.store.top(&pages, MOST_READ + 1).await?.into_iter().map(|(page, _)| page);
        let most_read = pages.filter(|page| page != OTHER).take(MOST_READ).map(Arc::from).collect();
        let bears = hashes.into_iter().zip(found.into_iter().map(|found| found.marker)).collect();
        Ok((StoredPast { sums, day, most_read }, bears))
    }

    /// Visitors of the earlier days of the week, month, year, and since the beginning: sums of days.
    async fn earlier_visitors(
        &self,
        site: &SiteKey,
        hour: &CivilHour,
        since: NaiveDate,
    ) -> Result<[u64; 4], StoreError> {
        let [week, month, year, all] = SiteFigures::earlier_days(hour, since);
        // The last one holds all the others.
        let name = |day: &NaiveDate| HashName::new(site, Bucket::Day(*day), HashKind::Visitors);
        let counts = self.store.visitors(all.iter().map(name).collect()).await?;
        let sum = |days: &[NaiveDate]| counts.iter().rev().take(days.len()).sum();
        Ok([sum(&week), sum(&month), sum(&year), sum(&all)])
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
        let hash = |bucket| HashName::new(site, bucket, HashKind::Pages);
        let hashes: Vec<HashName> = buckets.chain([Bucket::All]).map(hash).collect();
        let query = |hash: &HashName| Query { hash: hash.clone(), fields: fields.clone() };
        let found = self.store.read(self.writer, hashes.iter().map(query).collect()).await?;
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

impl<S: Store> Writer<S> {
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
        let whole = self.flush().check(&self.last_parts, &bears).await?;
        self.pace.verified &= whole;
        if !whole {
            return Ok(Vec::new());
        }
        let pages = stored.most_read.iter().map(|page| Page::trusted(site.id, page));
        let mut ledger = self.shared.ledger();
        let unknown = pages.filter(|page| ledger.page(site.id, page, now).is_none()).collect();
        ledger.load_past(site.id.index(), stored, now.uptime_ms);
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
        let whole = self.flush().check(&self.last_parts, &bears).await?;
        self.pace.verified &= whole;
        let mut ledger = self.shared.ledger();
        let now = self.shared.clock.now();
        let index = id.index();
        // Of a day that ended meanwhile nothing is taken.
        let lasts = ledger.is_day(index, hour.day, now);
        for (page, stored) in pages.iter().zip(figures).filter(|_| whole && lasts) {
            ledger.load_page(index, page.as_str(), &hour, stored, now.uptime_ms);
        }
        Ok(())
    }
}
