//! Answers those who ask for figures that are not known, or old.

use super::mailbox::{ReadRequest, Wanted};
use super::turn::Writer;
use crate::ingest::Page;
use crate::sites::SiteId;
use crate::totals::delivery::apply::FlushError;
use crate::totals::store::contract::Store;
use crate::totals::tally::recent;

impl<S: Store> Writer<S> {
    /// Reads figures for those who ask, and for all who ask at the same time.
    pub async fn answer(&mut self, requests: Vec<ReadRequest>) {
        let of_sites = requests.iter().any(|request| matches!(request.wanted, Wanted::Figures));
        if self.delivery.is_whole()
            && of_sites
            && let Err(error) = self.refresh().await
        {
            self.ended(Err(error));
        }
        for request in requests {
            if self.delivery.is_whole()
                && let Err(error) = self.fetch(request.site, &request.wanted).await
            {
                self.ended(Err(error));
            }
            // Whoever asked may have gone.
            request.done.send(()).ok();
        }
    }

    async fn fetch(&mut self, site: SiteId, wanted: &Wanted) -> Result<(), FlushError> {
        match wanted {
            Wanted::Figures => Ok(()),
            Wanted::Pages(pages) => self.fetch_pages(site, pages).await,
            // Many may have asked before the first of them was answered.
            Wanted::Recent if self.is_recent_fresh(site) => Ok(()),
            Wanted::Recent => {
                let pages = self.fetch_recent(site).await?;
                self.fetch_pages(site, &pages).await
            }
        }
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
