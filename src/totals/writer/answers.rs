//! Answers those who ask for figures that are not known, or old.

use std::collections::BTreeMap;

use super::mailbox::{ReadRequest, Wanted};
use super::turn::{REFRESH, Writer};
use crate::ingest::Page;
use crate::sites::{SiteId, SiteKey};
use crate::totals::delivery::apply::FlushError;
use crate::totals::store::contract::Store;
use crate::totals::tally::recent;

/// Pages read with one trip: about as many as the server answers within a millisecond or two.
const PAGES_AT_A_TIME: usize = 1000;

/// What is wanted of a site by all who wait.
#[derive(Default)]
struct OfSite {
    recent: bool,
    pages: Vec<Page>,
}

impl<S: Store> Writer<S> {
    /// Reads figures for all who ask at the same time: what several want is read once.
    pub async fn answer(&mut self, requests: Vec<ReadRequest>) {
        let (mut figures, mut sites, mut waiting) = (false, BTreeMap::<_, OfSite>::new(), Vec::new());
        for ReadRequest { site, wanted, done } in requests {
            let of_site = sites.entry(site.0).or_default();
            match wanted {
                Wanted::Figures => figures |= self.may_refresh(site),
                Wanted::Recent => of_site.recent = true,
                Wanted::Pages(pages) => of_site.pages.extend(pages),
            }
            waiting.push(done);
        }
        if let Err(error) = self.read_wanted(figures, sites).await {
            self.ended(Err(error));
        }
        // Whoever asked may have gone.
        waiting.into_iter().for_each(|done| _ = done.send(()));
    }

    async fn read_wanted(&mut self, figures: bool, sites: BTreeMap<u16, OfSite>) -> Result<(), FlushError> {
        if figures && self.delivery.is_whole() {
            self.refresh().await?;
        }
        for (site, OfSite { recent, mut pages }) in sites {
            let site = SiteId(site);
            // Many may have asked before the first of them was answered.
            let Some(key) = self.delivery.sites.at(site).map(|site| site.key.clone()) else { continue };
            if recent && self.is_whole_of(&key) && !self.is_recent_fresh(site) {
                let read = self.fetch_recent(site).await;
                pages.extend(self.or_unreadable(&key, read)?.unwrap_or_default());
            }
            pages.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
            pages.dedup();
            let now = self.shared.clock.now();
            pages.retain(|page| !self.shared.is_page_fresh(site, page, now));
            for some in pages.chunks(PAGES_AT_A_TIME) {
                if self.is_whole_of(&key) {
                    let read = self.fetch_pages(site, some).await;
                    self.or_unreadable(&key, read)?;
                }
            }
        }
        Ok(())
    }

    /// Whether figures are read for those who wait for a site's. Where those cannot be read, not each time.
    fn may_refresh(&self, site: SiteId) -> bool {
        let site = self.delivery.sites.at(site);
        let is_unreadable = site.is_some_and(|site| self.unreadable.contains_key(&site.key));
        !is_unreadable || self.refreshed_at.is_none_or(|at| at.elapsed() >= REFRESH)
    }

    /// Whether what is read of a site is all that was applied to it.
    fn is_whole_of(&self, site: &SiteKey) -> bool {
        self.delivery.is_whole() && !self.delivery.is_held(site)
    }

    fn is_recent_fresh(&self, site: SiteId) -> bool {
        self.shared.recent(site, self.shared.clock.now()).is_some_and(|(_, old)| !old)
    }

    /// Reads the recent past of a site. The pages it names whose figures are not known.
    async fn fetch_recent(&mut self, site: SiteId) -> Result<Vec<Page>, FlushError> {
        let Some(site) = self.delivery.sites.at(site).cloned() else { return Ok(Vec::new()) };
        let now = self.shared.clock.now();
        let (hours, days) = recent::buckets(&site.calendar, now.unix_ms);
        let (stored, bears) = self.reader().recent(&site.key, &hours, &days).await?;
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
