//! Answers figures: `counters` and `pages`.

use std::borrow::Cow;
use std::sync::{Arc, MutexGuard};

use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Uri};
use url::form_urlencoded;

use crate::clock::Moment;
use crate::ingest::{self, Page, Reason};
use crate::serve::answer::etag;
use crate::serve::answer::{self, Fault, Response};
use crate::serve::public::context::{Asked, Public, Reply};
use crate::serve::shown::json::{self, PageShown, Shown};
use crate::serve::shown::prefix::{Front, Version};
use crate::sites::Site;
use crate::totals::{Figures, PageFigures};

/// Most pages of one request.
const MAX_PAGES: usize = 100;

/// `GET /api/v1/sites/{site}/counters[?page=]`.
pub fn counters(asked: Asked<'_>) -> Reply {
    let Asked { public, uri, name, headers } = asked;
    let sites = public.parts.sites.load();
    let Some(site) = sites.named(name) else { return refused(Reason::UnknownSite) };
    let page = match asked_pages(site, uri).next().transpose() {
        Ok(page) => page,
        Err(reason) => return refused(reason),
    };
    match public.counters(site, page.as_ref()) {
        Some(counters) if page.is_none() || counters.views.is_some() => {
            Reply::Now(counters.show(public, page.as_ref(), headers))
        }
        None if public.parts.totals.stale() => refused(Fault::StoreUnreachable),
        // The store may know: of the page, or of a day that is back because the clock was set back.
        _ => Reply::Later(Box::pin(load_counters(public.clone(), site.clone(), page, headers))),
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

/// `GET /api/v1/sites/{site}/pages?page=&page=`.
pub fn pages(asked: Asked<'_>) -> Reply {
    let Asked { public, uri, name, headers } = asked;
    let sites = public.parts.sites.load();
    let Some(site) = sites.named(name) else { return refused(Reason::UnknownSite) };
    let pages: Vec<Page> = match asked_pages(site, uri).take(MAX_PAGES + 1).collect() {
        Ok(pages) => pages,
        Err(reason) => return refused(reason),
    };
    if !(1..=MAX_PAGES).contains(&pages.len()) {
        return refused(Reason::Malformed);
    }
    let list = public.list(site, &pages);
    let is_known = is_known(&list.figures);
    if !is_known && public.parts.totals.stale() {
        return refused(Fault::StoreUnreachable);
    }
    if is_known && list.views.iter().all(Option::is_some) {
        return Reply::Now(list.show(public, site, &pages, headers));
    }
    Reply::Later(Box::pin(load_list(public.clone(), site.clone(), pages, list.views, headers)))
}

/// Asks the store, once, for what is not known of a site and pages.
async fn load_list(
    public: Arc<Public>,
    site: Arc<Site>,
    pages: Vec<Page>,
    views: Vec<Option<PageFigures>>,
    headers: HeaderMap,
) -> Response {
    let unknown = pages.iter().zip(views).filter(|(_, views)| views.is_none());
    let mut missing: Vec<Page> = unknown.map(|(page, _)| page.clone()).collect();
    missing.sort_unstable_by_key(Page::key);
    missing.dedup_by_key(|page| page.key());
    public.load(&site, missing).await;
    let list = public.list(&site, &pages);
    match is_known(&list.figures) {
        true => list.show(&public, &site, &pages, headers),
        false => answer::refused(Fault::StoreUnreachable),
    }
}

/// The site and, where one is asked for, the page of a read of counters.
///
/// # Errors
/// `unknown-site`, `bad-url`.
pub fn site_and_page(asked: &Asked<'_>) -> Result<(Arc<Site>, Option<Page>), Reason> {
    let site = asked.public.parts.sites.load().named(asked.name).ok_or(Reason::UnknownSite)?.clone();
    let page = asked_pages(&site, asked.uri).next().transpose()?;
    Ok((site, page))
}

/// What is left of a request that is understood.
pub struct Ready {
    pub public: Arc<Public>,
    pub headers: HeaderMap,
}

/// Answers once the page asked for is known: at once, or after the store was asked for it, once.
pub fn once_known(
    asked: Asked<'_>,
    site: Arc<Site>,
    page: Option<Page>,
    answer: impl FnOnce(Ready, &Arc<Site>, Option<&Page>) -> Response + Send + 'static,
) -> Reply {
    let ready = Ready { public: asked.public.clone(), headers: asked.headers };
    let now = ready.public.parts.clock.now();
    let totals = &ready.public.parts.totals;
    match page.clone().filter(|page| totals.page(page, site.id, now).is_none()) {
        None => Reply::Now(answer(ready, &site, page.as_ref())),
        Some(unknown) => Reply::Later(Box::pin(async move {
            ready.public.parts.totals.load_pages(site.id, vec![unknown]).await;
            answer(ready, &site, page.as_ref())
        })),
    }
}

/// The body of `counters` from memory as it is now, and its tag without the quotes; none where no figure of
/// the site is known.
pub fn counters_now(public: &Public, site: &Site, page: Option<&Page>) -> Option<(String, Bytes)> {
    let (tag, body) = public.counters(site, page)?.complete(public, page, &HeaderMap::new());
    Some((etag::name(&tag), body?))
}

/// A body of any type, or 304 where the reader holds this very one.
pub fn unless_held(headers: HeaderMap, body: Vec<u8>, kind: HeaderValue, cache: HeaderValue) -> Response {
    let tag = etag::of(0, &body);
    let body = (!etag::holds(&headers, &tag)).then(|| body.into());
    answer::shown(headers, body, tag, kind, cache)
}

fn refused(fault: impl Into<Fault>) -> Reply {
    Reply::Now(answer::refused(fault.into()))
}

/// The pages that a query names, in order.
fn asked_pages(site: &Site, uri: &Uri) -> impl Iterator<Item = Result<Page, Reason>> {
    said_pages(uri.query().unwrap_or_default()).map(|said| ingest::read_page(site, &said))
}

/// The values of `page` in a query, decoded.
fn said_pages(query: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let pairs = query.split('&').filter_map(|pair| {
        // Looking at all of it, without stopping at the first, is what the compiler makes quick.
        let encoded = pair.bytes().fold(false, |encoded, b| encoded | (b == b'%') | (b == b'+'));
        if encoded {
            return form_urlencoded::parse(pair.as_bytes()).next();
        }
        let (name, said) = pair.split_once('=').unwrap_or((pair, ""));
        Some((name.into(), said.into()))
    });
    pairs.filter(|(name, _)| name == "page").map(|(_, said)| said)
}

fn is_known(figures: &Figures) -> bool {
    figures.views.iter().any(Option::is_some)
}

/// What `counters` answers.
struct Counters<'a> {
    now: Moment,
    /// Up to date.
    front: MutexGuard<'a, Front>,
    /// Those of the page asked for, where they are known.
    views: Option<PageFigures>,
}

impl Counters<'_> {
    /// Whether something in it may be old.
    fn is_stale(&self, public: &Public, page: Option<&Page>) -> bool {
        public.parts.totals.stale() || (page.is_some() && self.views.is_none())
    }

    /// The tag of the body, and the body, but for an asker that holds it.
    fn complete(
        mut self,
        public: &Public,
        page: Option<&Page>,
        asker: &HeaderMap,
    ) -> (HeaderValue, Option<Bytes>) {
        let stale = self.is_stale(public, page);
        let page = page.map(|page| public.page_shown(page, self.views, self.now));
        self.front.complete(|text| json::page_counters(text, page.as_ref(), stale), asker)
    }

    fn show(self, public: &Public, page: Option<&Page>, headers: HeaderMap) -> Response {
        let stale = self.is_stale(public, page);
        let (tag, body) = self.complete(public, page, &headers);
        answer::figures(headers, body, tag, stale)
    }
}

/// What `pages` answers.
struct List {
    now: Moment,
    figures: Figures,
    /// Those of each page, where they are known.
    views: Vec<Option<PageFigures>>,
}

impl List {
    fn show(self, public: &Public, site: &Site, pages: &[Page], headers: HeaderMap) -> Response {
        let List { now, figures, views } = self;
        let stale = public.parts.totals.stale() || views.iter().any(Option::is_none);
        // Asked first: counting may find that visitors have gone offline, which is a change.
        public.parts.sessions.online(site.id, now);
        let online_changed_ms = public.parts.sessions.changed_ms(site.id);
        let pages = pages.iter().zip(views).map(|(page, views)| public.page_shown(page, views, now));
        let body = public.show(site, now, figures.changed_ms.max(online_changed_ms), |shown| {
            json::pages(shown, pages, stale)
        });
        let tag = etag::of(0, &body);
        let body = (!etag::holds(&headers, &tag)).then(|| body.into());
        answer::figures(headers, body, tag, stale)
    }
}

impl Public {
    /// Looks at the figures of a site and a page, and brings what the body begins with up to date. None
    /// where no figure of the site is known.
    fn counters(&self, site: &Site, page: Option<&Page>) -> Option<Counters<'_>> {
        let parts = &self.parts;
        let now = parts.clock.now();
        // Asked first: counting may find that visitors have gone offline, which is a change.
        let online = parts.sessions.online(site.id, now);
        let online_changed_ms = parts.sessions.changed_ms(site.id);
        let mut look = parts.totals.look(site.id, now);
        let views = page.and_then(|page| look.page(page));
        let version = Version { site: site.id, revision: look.revision(), online, online_changed_ms };
        let mut front = self.fronts.of(site.id);
        if !front.is(&version) {
            let figures = look.figures();
            if !is_known(&figures) {
                return None;
            }
            front.write(version, |text| {
                let changed_ms = figures.changed_ms.max(online_changed_ms);
                self.show(site, now, changed_ms, |shown| json::site_counters(text, shown, online, &figures));
            });
        }
        Some(Counters { now, front, views })
    }

    /// Asks the store, once: for the figures of the site where they are not known, and for pages.
    async fn load(&self, site: &Site, pages: Vec<Page>) {
        let totals = &self.parts.totals;
        if !is_known(&totals.figures(site.id, self.parts.clock.now())) {
            totals.load_figures(site.id).await;
        }
        totals.load_pages(site.id, pages).await;
    }

    fn list(&self, site: &Site, pages: &[Page]) -> List {
        let now = self.parts.clock.now();
        let mut look = self.parts.totals.look(site.id, now);
        List { now, figures: look.figures(), views: pages.iter().map(|page| look.page(page)).collect() }
    }

    fn page_shown<'a>(&self, page: &'a Page, views: Option<PageFigures>, now: Moment) -> PageShown<'a> {
        PageShown { page: page.as_str(), online: self.parts.sessions.page_online(page, now), views }
    }

    /// Has something written that begins with what stands in every body of a site.
    fn show<T>(&self, site: &Site, now: Moment, changed_ms: i64, write: impl FnOnce(&Shown<'_>) -> T) -> T {
        let hour = self.labels.at(site, now.unix_ms);
        let at = hour.rfc3339(&site.calendar, changed_ms);
        write(&Shown { site: site.key.as_str(), at: &at, buckets: hour.buckets() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_from_the_query_and_other_names_ignored() {
        let query = "_=1&page=%2Fa%20b&utm_source=x&page=/c+d&page=&page&pages=/e&&p%61ge=/f&page=/g=h?i";
        let said: Vec<_> = said_pages(query).collect();
        let parsed = form_urlencoded::parse(query.as_bytes());
        let plainly: Vec<_> = parsed.filter(|(name, _)| name == "page").map(|(_, said)| said).collect();
        assert_eq!(said, ["/a b", "/c d", "", "", "/f", "/g=h?i"]);
        assert_eq!(said, plainly, "as the long way reads them");
    }
}
