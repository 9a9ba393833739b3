//! Answers figures: `counters[?page=]` and `pages?page=&page=`.

use std::sync::{Arc, MutexGuard};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::HeaderValue;

use super::context::{Public, ReadRequest, Reply};
use super::known;
use crate::calendar::PerPeriod;
use crate::clock::Moment;
use crate::ingest::{Page, Reason};
use crate::serve::answer::{self, Fault, Response, etag};
use crate::serve::live::Snapshot;
use crate::serve::shown::{
    json::{self, BodyHead, PageItem},
    prefix::{BodyPrefix, Version},
};
use crate::sites::Site;
use crate::totals::Figures;

const MAX_PAGES: usize = 100;

pub fn counters(request: ReadRequest<'_>) -> Result<Reply, Fault> {
    let ReadRequest { public, .. } = request;
    let sites = public.parts.sites.load();
    let site = sites.named(request.name).ok_or(Reason::UnknownSite)?;
    let page = known::pages(site, request.query()).next().transpose()?;
    let headers = request.headers;
    match public.counters(site, page.as_ref()) {
        Some(counters) if page.is_none() || counters.views.is_some() => {
            Ok(Reply::Now(counters.show(public, page.as_ref(), headers)))
        }
        None if public.parts.totals.stale() => Err(Fault::StoreUnreachable),
        // The store may know: of the page, or of a day that is back because the clock was set back.
        _ => Ok(Reply::Later(Box::pin(load_counters(public.clone(), site.clone(), page, headers)))),
    }
}

/// Asks the store, once, for what is not known of a site and a page.
async fn load_counters(
    public: Arc<Public>,
    site: Arc<Site>,
    page: Option<Page>,
    headers: HeaderMap,
) -> Response {
    public.load(&site, page.iter().cloned().collect()).await;
    match public.counters(&site, page.as_ref()) {
        Some(counters) => counters.show(&public, page.as_ref(), headers),
        None => answer::refused(Fault::StoreUnreachable),
    }
}

pub fn pages(request: ReadRequest<'_>) -> Result<Reply, Fault> {
    let ReadRequest { public, .. } = request;
    let sites = public.parts.sites.load();
    let site = sites.named(request.name).ok_or(Reason::UnknownSite)?;
    let pages: Vec<Page> =
        known::pages(site, request.query()).take(MAX_PAGES + 1).collect::<Result<_, _>>()?;
    if !(1..=MAX_PAGES).contains(&pages.len()) {
        return Err(Reason::Malformed.into());
    }
    let headers = request.headers;
    let list = public.list(site, &pages);
    match list.figures.are_known() {
        false if public.parts.totals.stale() => Err(Fault::StoreUnreachable),
        true if list.views.iter().all(Option::is_some) => {
            Ok(Reply::Now(list.show(public, site, &pages, headers)))
        }
        _ => Ok(Reply::Later(Box::pin(load_list(public.clone(), site.clone(), pages, list, headers)))),
    }
}

/// Asks the store, once, for what is not known of a site and pages.
async fn load_list(
    public: Arc<Public>,
    site: Arc<Site>,
    pages: Vec<Page>,
    list: PageList,
    headers: HeaderMap,
) -> Response {
    let unknown = pages.iter().zip(list.views).filter(|(_, views)| views.is_none());
    let mut missing: Vec<Page> = unknown.map(|(page, _)| page.clone()).collect();
    missing.sort_unstable_by_key(Page::key);
    missing.dedup_by_key(|page| page.key());
    public.load(&site, missing).await;
    let list = public.list(&site, &pages);
    match list.figures.are_known() {
        true => list.show(&public, &site, &pages, headers),
        false => answer::refused(Fault::StoreUnreachable),
    }
}

/// `counters` from memory as it is now; none where no figure of the site is known.
pub fn snapshot(public: &Public, site: &Arc<Site>, page: Option<&Page>) -> Option<Snapshot> {
    let (tag, body) = public.counters(site, page)?.complete(public, page, &HeaderMap::new());
    Some(Snapshot { id: etag::unquoted(&tag), body: body? })
}

/// What `counters` answers.
struct Counters<'a> {
    now: Moment,
    prefix: MutexGuard<'a, BodyPrefix>,
    views: Option<PerPeriod<u64>>,
    /// Whether something in it may be old.
    stale: bool,
}

impl Counters<'_> {
    /// The tag of the body, and the body unless the asker has it.
    fn complete(
        mut self,
        public: &Public,
        page: Option<&Page>,
        asker: &HeaderMap,
    ) -> (HeaderValue, Option<Bytes>) {
        let item = page.map(|page| public.page_item(page, self.views, self.now));
        self.prefix.complete(|text| json::page_counters(text, item.as_ref(), self.stale), asker)
    }

    fn show(self, public: &Public, page: Option<&Page>, headers: HeaderMap) -> Response {
        let cache = cache(self.stale);
        let (tag, body) = self.complete(public, page, &headers);
        answer::tagged(headers, body, tag, answer::JSON, cache)
    }
}

fn cache(stale: bool) -> HeaderValue {
    if stale { answer::NO_STORE } else { answer::FRESH }
}

/// What `pages` answers.
struct PageList {
    now: Moment,
    figures: Figures,
    views: Vec<Option<PerPeriod<u64>>>,
}

impl PageList {
    fn show(self, public: &Public, site: &Arc<Site>, pages: &[Page], headers: HeaderMap) -> Response {
        let PageList { now, figures, views } = self;
        let stale = public.parts.totals.stale() || views.iter().any(Option::is_none);
        let (_, online_changed_ms) = public.online(site, now);
        let items = pages.iter().zip(views).map(|(page, views)| public.page_item(page, views, now));
        let hour = public.parts.hours.at(site, now.unix_ms);
        let head = BodyHead::new(site, &hour.made, figures.changed_ms.max(online_changed_ms));
        let body = json::pages(&head, items, stale);
        answer::unless_held(headers, body, answer::JSON, cache(stale))
    }
}

impl Public {
    /// Looks at the figures of a site and a page, and brings what the body begins with up to date. None
    /// where no figure of the site is known.
    fn counters(&self, site: &Arc<Site>, page: Option<&Page>) -> Option<Counters<'_>> {
        let parts = &self.parts;
        let now = parts.clock.now();
        let (online, online_changed_ms) = self.online(site, now);
        let mut look = parts.totals.look(site.id, now);
        let views = page.and_then(|page| look.page(page));
        let version = Version { site: site.id, revision: look.revision(), online, online_changed_ms };
        let mut prefix = self.prefixes.of(site.id);
        if !prefix.is(&version) {
            let figures = look.figures();
            if !figures.are_known() {
                return None;
            }
            let hour = parts.hours.at(site, now.unix_ms);
            let head = BodyHead::new(site, &hour.made, figures.changed_ms.max(online_changed_ms));
            prefix.write(version, |text| json::site_counters(text, &head, online, &figures));
        }
        drop(look);
        let stale = parts.totals.stale() || (page.is_some() && views.is_none());
        Some(Counters { now, prefix, views, stale })
    }

    /// Visitors online on a site, and when their number last changed. In this order: counting may find that
    /// visitors have gone offline, which is a change.
    fn online(&self, site: &Site, now: Moment) -> (u64, i64) {
        let online = self.parts.sessions.online(site.id, now);
        (online, self.parts.sessions.changed_ms(site.id))
    }

    /// Asks the store, once: for the figures of the site where they are not known, and for pages.
    async fn load(&self, site: &Site, pages: Vec<Page>) {
        let totals = &self.parts.totals;
        if !totals.look(site.id, self.parts.clock.now()).figures().are_known() {
            totals.fetch_figures(site.id).await;
        }
        totals.fetch_pages(site.id, pages).await;
    }

    fn list(&self, site: &Site, pages: &[Page]) -> PageList {
        let now = self.parts.clock.now();
        let mut look = self.parts.totals.look(site.id, now);
        let figures = look.figures();
        let views = pages.iter().map(|page| look.page(page)).collect();
        PageList { now, figures, views }
    }

    fn page_item<'a>(&self, page: &'a Page, views: Option<PerPeriod<u64>>, now: Moment) -> PageItem<'a> {
        PageItem { page: page.as_str(), online: self.parts.sessions.page_online(page, now), views }
    }
}
