//! Answers those who ask for figures that are not known, or old.
//!
//! Which pages are read most is looked for beside the writer's turns: a day may have so many pages that it takes long.
//! The figures themselves are read in between, when nothing is on its way to the store.

use std::collections::BTreeMap;

use super::mailbox::{ReadRequest, Wanted};
use super::turn::Writer;
use super::walks::Walk;
use crate::ingest::Page;
use crate::sites::{SiteId, SiteKey};
use crate::totals::delivery::apply::FlushError;
use crate::totals::delivery::held::or_noted;
use crate::totals::store::contract::Store;
use crate::totals::tally::recent;

/// Pages read with one trip: about as many as the server answers within a millisecond or two.
const PAGES_AT_A_TIME: usize = 1000;

/// What is read beside the running figures of a site.
const RECENT: &str = "hours, days and most-read pages";
const PAGES: &str = "pages";

impl<S: Store> Writer<S> {
    /// Reads figures for all who ask at the same time: what several want is read once.
    pub async fn answer(&mut self, requests: Vec<ReadRequest>) {
        let (mut figures, mut sites, mut waiting) = (false, BTreeMap::<_, Vec<Page>>::new(), Vec::new());
        for ReadRequest { site, wanted, done } in requests {
            match wanted {
                Wanted::Figures => figures = true,
                Wanted::Recent => {
                    self.walks.wait(site, done);
                    continue;
                }
                Wanted::Pages(pages) => sites.entry(site.0).or_default().extend(pages),
            }
            waiting.push(done);
        }
        self.begin_walks();
        if let Err(error) = self.read_wanted(figures, sites).await {
            self.ended(Err(error));
        }
        // Whoever asked may have gone.
        waiting.into_iter().for_each(|done| _ = done.send(()));
    }

    async fn read_wanted(
        &mut self,
        figures: bool,
        sites: BTreeMap<u16, Vec<Page>>,
    ) -> Result<(), FlushError> {
        if figures && self.delivery.is_whole() {
            self.refresh().await?;
        }
        for (site, pages) in sites {
            self.read_pages(SiteId(site), pages).await?;
        }
        Ok(())
    }

    async fn read_pages(&mut self, site: SiteId, mut pages: Vec<Page>) -> Result<(), FlushError> {
        let Some(key) = self.delivery.sites.at(site).map(|site| site.key.clone()) else { return Ok(()) };
        pages.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        pages.dedup();
        // Many may have asked before the first of them was answered.
        let now = self.shared.clock.now();
        pages.retain(|page| !self.shared.is_page_fresh(site, page, now));
        for some in pages.chunks(PAGES_AT_A_TIME) {
            if self.is_whole_of(&key) {
                let read = self.fetch_pages(site, some).await;
                self.or_unread(PAGES, &key, read)?;
            }
        }
        Ok(())
    }

    /// Begins walks that are due, and lets go of those who wait for others.
    fn begin_walks(&mut self) {
        let now_ms = self.shared.clock.now().unix_ms;
        for mut waiting in std::mem::take(&mut self.walks.waiting) {
            let Some(site) = self.delivery.sites.at(waiting.site).cloned() else { continue };
            if !waiting.has_begun && (!self.is_whole_of(&site.key) || self.is_recent_fresh(site.id)) {
                continue;
            }
            self.walks.begin(&mut waiting, &self.delivery.store, &site, site.calendar.span(now_ms).hour.day);
            self.walks.waiting.push(waiting);
        }
    }

    /// Reads what else is wanted of the site whose pages were walked through.
    pub async fn end_walk(&mut self, walk: Walk) {
        let done = self.walks.no_more(walk.site);
        if let Err(error) = self.read_recent(walk).await {
            self.ended(Err(error));
        }
        // Whoever asked may have gone.
        done.into_iter().for_each(|done| _ = done.send(()));
        self.begin_walks();
    }

    async fn read_recent(&mut self, walk: Walk) -> Result<(), FlushError> {
        let site = walk.site;
        let Some(key) = self.delivery.sites.at(site).map(|site| site.key.clone()) else { return Ok(()) };
        if self.is_whole_of(&key) {
            let read = self.fetch_recent(walk).await;
            let pages = self.or_unread(RECENT, &key, read)?.unwrap_or_default();
            self.read_pages(site, pages).await?;
        }
        Ok(())
    }

    /// What was read beside the running figures of a site; none where the store refuses it. All else goes on.
    fn or_unread<T>(
        &mut self,
        what: &'static str,
        site: &SiteKey,
        read: Result<T, FlushError>,
    ) -> Result<Option<T>, FlushError> {
        let says = "figures of a site cannot be read, which are not the running ones: they are not shown";
        let known = &mut self.unread[usize::from(what == PAGES)];
        let read = or_noted(known, site, read, says)?;
        let why = known.get(site).filter(|_| read.is_none());
        self.shared.note_unread(what, site, why);
        Ok(read)
    }

    /// Whether what is read of a site is all that was applied to it.
    fn is_whole_of(&self, site: &SiteKey) -> bool {
        self.delivery.is_whole() && !self.delivery.is_held(site)
    }

    fn is_recent_fresh(&self, site: SiteId) -> bool {
        self.shared.recent(site, self.shared.clock.now()).is_some_and(|(_, old)| !old)
    }

    /// Reads the recent past of a site. The pages it names whose figures are not known.
    async fn fetch_recent(&mut self, walk: Walk) -> Result<Vec<Page>, FlushError> {
        let Some(site) = self.delivery.sites.at(walk.site).cloned() else { return Ok(Vec::new()) };
        let most_read = walk.found?;
        let now = self.shared.clock.now();
        let (hours, days) = recent::buckets(&site.calendar, now.unix_ms);
        if days.last() != Some(&walk.day) {
            // That day has ended meanwhile.
            return Ok(Vec::new());
        }
        let (stored, bears) = self.reader().recent(&site.key, &hours, &days, most_read).await?;
        // What went back is healed first: its figures are not believed, and read when next asked for.
        if !self.delivery.check(&bears).await? {
            return Ok(Vec::new());
        }
        let pages = stored.most_read.iter().map(|page| Page::trusted(site.id, page));
        let mut tally = self.shared.tally();
        let unknown = pages.filter(|page| tally.page(site.id, page, now).is_none()).collect();
        tally.learn_recent(site.id, stored, now.uptime_ms);
        Ok(unknown)
    }

    async fn fetch_pages(&mut self, id: SiteId, pages: &[Page]) -> Result<(), FlushError> {
        let Some(site) = self.delivery.sites.at(id).cloned().filter(|_| !pages.is_empty()) else {
            return Ok(());
        };
        let hour = site.calendar.span(self.shared.clock.now().unix_ms).hour;
        let (figures, bears) = self.reader().running_pages(&site.key, &hour, pages).await?;
        // What went back is healed first: its figures are not believed, and read when next asked for.
        let whole = self.delivery.check(&bears).await?;
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
