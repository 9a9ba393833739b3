//! Answers those who ask for figures that are not known, or old.
//!
//! Which pages are read most is looked for beside the writer's turns: a day may have so many pages that it takes long.
//! The figures themselves are read in between, when nothing is on its way to the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::mailbox::{Absent, Asker, ReadRequest, Wanted};
use super::status::is_page_old;
use super::turn::{REFRESH, Writer};
use super::walks::Walk;
use crate::calendar::PerPeriod;
use crate::ingest::{OTHER, Page, shown_as};
use crate::sites::{SiteId, SiteKey};
use crate::totals::batch::part::MAX_SUM;
use crate::totals::delivery::apply::FlushError;
use crate::totals::delivery::held::or_noted;
use crate::totals::store::contract::Store;
use crate::totals::tally::cell::Revised;
use crate::totals::tally::recent;

/// Pages read with one trip: about as many as the server answers within a millisecond or two.
const PAGES_AT_A_TIME: usize = 1000;

/// What is read beside the running figures of a site.
const RECENT: &str = "hours, days and most-read pages";
const PAGES: &str = "pages";

/// What is wanted of a site.
#[derive(Default)]
struct OfSite {
    pages: Vec<Page>,
    /// Each is told, and its place is free, when this site is read.
    waiting: Vec<Asker>,
}

impl<S: Store> Writer<S> {
    /// Reads figures for all who ask at the same time: what several want is read once.
    pub async fn answer(&mut self, requests: Vec<ReadRequest>) {
        let (mut figures, mut sites) = (false, BTreeMap::<_, OfSite>::new());
        for ReadRequest { site, wanted, done, place } in requests {
            let of_site: &mut OfSite = sites.entry(site).or_default();
            match wanted {
                Wanted::Recent => {
                    self.walks.wait(site, (done, place));
                    continue;
                }
                Wanted::Figures => figures |= self.may_refresh(site),
                Wanted::Pages(pages) => of_site.pages.extend(pages),
            }
            of_site.waiting.push((done, place));
        }
        self.begin_walks();
        // After a failure nothing is whole, and nothing more is read.
        if figures
            && self.delivery.is_whole()
            && let Err(error) = self.refresh().await
        {
            self.ended(Err(error));
        }
        // Who asks for little does not wait for who asks for much.
        let mut sites: Vec<_> = sites.into_iter().collect();
        sites.sort_by_key(|(_, of_site)| of_site.pages.len());
        for (site, OfSite { pages, waiting }) in sites {
            let mut absent = Vec::new();
            if let Err(error) = self.read_pages(site, pages, &mut absent).await {
                self.ended(Err(error));
            }
            absent.sort_unstable();
            let absent = Absent::from(absent);
            // Whoever asked may have gone.
            waiting.into_iter().for_each(|(done, _)| _ = done.send(absent.clone()));
        }
    }

    /// Reads pages of a site, and adds those that the store does not have.
    async fn read_pages(
        &mut self,
        site: SiteId,
        mut pages: Vec<Page>,
        absent: &mut Vec<u64>,
    ) -> Result<(), FlushError> {
        let Some(key) = self.delivery.sites.at(site).map(|site| site.key.clone()) else { return Ok(()) };
        // Many may have asked before the first of them was answered.
        pages.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        pages.dedup();
        let now = self.shared.clock.now();
        let is_old = |page: &Page| {
            let mut tally = self.shared.tally();
            let is_fresh = tally.page(site, page, now).is_some_and(|(_, read_ms)| !is_page_old(read_ms, now));
            absent.extend((is_fresh && tally.is_absent(site, page)).then(|| page.key()));
            !is_fresh
        };
        pages.retain(is_old);
        for some in pages.chunks(PAGES_AT_A_TIME) {
            if self.is_whole_of(&key) {
                let read = self.fetch_pages(site, some, absent).await;
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
        let askers = self.walks.no_more(walk.site);
        if let Err(error) = self.read_recent(walk).await {
            self.ended(Err(error));
        }
        // Whoever asked may have gone.
        askers.into_iter().for_each(|(done, _)| _ = done.send(Absent::from([])));
        self.begin_walks();
    }

    async fn read_recent(&mut self, walk: Walk) -> Result<(), FlushError> {
        let site = walk.site;
        let Some(key) = self.delivery.sites.at(site).map(|site| site.key.clone()) else { return Ok(()) };
        if self.is_whole_of(&key) {
            let read = self.fetch_recent(walk).await;
            let pages = self.or_unread(RECENT, &key, read)?.unwrap_or_default();
            self.read_pages(site, pages, &mut Vec::new()).await?;
        }
        Ok(())
    }

    /// Whether figures are read for those who wait for a site's. Where those cannot be read, not each time.
    fn may_refresh(&self, site: SiteId) -> bool {
        let site = self.delivery.sites.at(site);
        let is_unreadable = site.is_some_and(|site| self.unreadable.contains_key(&site.key));
        !is_unreadable || self.refreshed_at.is_none_or(|at| at.elapsed() >= REFRESH)
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

    async fn fetch_pages(
        &mut self,
        id: SiteId,
        pages: &[Page],
        absent: &mut Vec<u64>,
    ) -> Result<(), FlushError> {
        let Some(site) = self.delivery.sites.at(id).cloned().filter(|_| !pages.is_empty()) else {
            return Ok(());
        };
        let hour = site.calendar.span(self.shared.clock.now().unix_ms).hour;
        let (mut names, mut of) = (pages.to_vec(), Vec::new());
        for (at, page) in pages.iter().enumerate() {
            let beside = site.pages.aliases.beside(page.as_str());
            names.extend(beside.iter().map(|name| Page::trusted(id, name)));
            of.extend(beside.iter().map(|_| at));
        }
        let (mut figures, bears) = self.reader().running_pages(&site.key, &hour, &names).await?;
        for (at, beside) in of.into_iter().zip(figures.split_off(pages.len())) {
            let plus = |(sum, beside): (Revised<u64>, Revised<u64>)| {
                let value = sum.value.saturating_add(beside.value).min(MAX_SUM);
                Revised { value, ..sum }
            };
            figures[at] = figures[at].zip(beside).map(plus);
        }
        for (page, figures) in pages.iter().zip(&mut figures) {
            // Erased: should it still be there, it is not shown.
            if shown_as(&site, page).is_some_and(|to| to.as_str() == OTHER) {
                *figures = PerPeriod::default();
            }
        }
        // What went back is healed first: its figures are not believed, and read when next asked for.
        let whole = self.delivery.check(&bears).await?;
        let mut tally = self.shared.tally();
        let now = self.shared.clock.now();
        // Of a day that ended meanwhile nothing is taken.
        let lasts = tally.is_day(id, hour.day, now);
        for (page, stored) in pages.iter().zip(figures).filter(|_| whole && lasts) {
            tally.learn_page(id, page.as_str(), &hour, stored, now.uptime_ms);
            absent.extend(tally.is_absent(id, page).then(|| page.key()));
        }
        Ok(())
    }

    /// Reads again the pages that are known of those of which something was entered.
    pub async fn read_entered(&mut self) -> Result<(), FlushError> {
        for site in self.delivery.sites.all().cloned().collect::<Vec<_>>() {
            let of_site = |(key, _): &&(SiteKey, Arc<str>)| *key == site.key;
            let pages = self.entered.iter().filter(of_site).map(|(_, page)| Page::trusted(site.id, page));
            let pages = pages.map(|page| shown_as(&site, &page).unwrap_or(page));
            let now = self.shared.clock.now();
            let known: Vec<Page> =
                pages.filter(|page| self.shared.tally().page(site.id, page, now).is_some()).collect();
            for some in known.chunks(PAGES_AT_A_TIME) {
                if self.is_whole_of(&site.key) {
                    self.fetch_pages(site.id, some, &mut Vec::new()).await?;
                }
            }
        }
        self.entered.clear();
        Ok(())
    }
}
