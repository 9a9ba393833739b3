//! Answers figures: `counters[?page=]` and `pages?page=&page=`.

use std::sync::Arc;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::HeaderValue;

use super::context::{Public, ReadRequest, Reply};
use super::known::{self, Asked};
use crate::calendar::PerPeriod;
use crate::clock::Moment;
use crate::ingest::{Page, Reason};
use crate::serve::answer::{self, Fault, Response, etag};
use crate::serve::live::Snapshot;
use crate::serve::shown::{
    json::{self, BodyHead, PageItem},
    prefix::Version,
};
use crate::sites::{Site, SiteId};

const MAX_PAGES: usize = 100;

/// What a reader is shown.
struct Shown {
    /// None where nobody asks for it.
    tag: Option<HeaderValue>,
    /// None where the asker has it.
    body: Option<Bytes>,
    /// Whether something in it may be old or is not known.
    stale: bool,
    /// Pages asked for whose views are not known.
    unknown: Vec<Page>,
}

/// What somebody reads.
#[derive(Clone, Copy)]
struct Reading<'a> {
    public: &'a Public,
    site: &'a Arc<Site>,
    asked: &'a [Asked],
    /// Who may have it already; none: who is told without having asked for it.
    asker: Option<&'a HeaderMap>,
    show: Show,
}

/// Shows what is known; none where no figure of the site is known. The store was found not to have the pages of some
/// keys.
type Show = fn(Reading<'_>, &[u64]) -> Option<Shown>;

pub fn counters(request: ReadRequest<'_>, site: &Arc<Site>) -> Result<Reply, Fault> {
    // What is no page of the site, such as a copy of one at a translator's, is shown the site's own figures.
    let page = known::pages(site, request.query()).next();
    once_known(request, site, page.as_slice(), show_counters)
}

pub fn pages(request: ReadRequest<'_>, site: &Arc<Site>) -> Result<Reply, Fault> {
    let pages: Vec<Asked> = known::pages(site, request.query()).take(MAX_PAGES + 1).collect();
    if !(1..=MAX_PAGES).contains(&pages.len()) {
        return Err(Reason::Malformed.into());
    }
    once_known(request, site, &pages, show_pages)
}

/// `counters` from memory as it is now; none where no figure of the site is known.
pub fn snapshot(public: &Public, site: &Arc<Site>, page: Option<&Page>, absent: &[u64]) -> Option<Snapshot> {
    let Shown { tag, body, .. } = show_site(public, site, page, absent, Some(&HeaderMap::new()))?;
    Some(Snapshot { id: tag?.to_str().ok()?.trim_matches('"').to_owned(), body: body? })
}

/// What a beacon is told of its page: the body of `counters` as everybody else has it, once the page is known; none where
/// no figure of the site is known.
pub async fn told(public: &Public, site: SiteId, page: Page) -> Option<Bytes> {
    let site = public.parts.sites.load().at(site)?.clone();
    let reading = Reading { public, site: &site, asked: &[Ok(page)], asker: None, show: show_counters };
    match reading.at_once() {
        Ok(shown) => shown.body,
        // In a box: every connection has room for this future.
        Err(unknown) => Box::pin(reading.once_asked(unknown?)).await?.body,
    }
}

/// Answers from memory where everything asked for is known; otherwise once the store was asked for the rest.
fn once_known(
    request: ReadRequest<'_>,
    site: &Arc<Site>,
    asked: &[Asked],
    show: Show,
) -> Result<Reply, Fault> {
    let ReadRequest { public, headers, .. } = request;
    let unknown = match (Reading { public, site, asked, asker: Some(&headers), show }).at_once() {
        Ok(shown) => return Ok(Reply::Now(shown.answer(headers))),
        Err(unknown) => unknown.ok_or(Fault::StoreUnreachable)?,
    };
    let (public, site, asked) = (public.clone(), site.clone(), asked.to_vec());
    Ok(Reply::Later(Box::pin(async move {
        let reading = Reading { public: &public, site: &site, asked: &asked, asker: Some(&headers), show };
        match reading.once_asked(unknown).await {
            Some(shown) => shown.answer(headers),
            None => answer::refused(Fault::StoreUnreachable),
        }
    })))
}

impl Reading<'_> {
    /// What is shown where everything asked for is known. Else the pages to ask the store for; none where no figure is
    /// known and asking is of no use.
    fn at_once(self) -> Result<Shown, Option<Vec<Page>>> {
        match (self.show)(self, &[]) {
            Some(shown) if shown.unknown.is_empty() => Ok(shown),
            Some(shown) => Err(Some(shown.unknown)),
            None if self.public.parts.totals.stale(self.site.id) => Err(None),
            // The store may know of a day that is back because the clock was set back.
            None => Err(Some(self.asked.iter().flatten().cloned().collect())),
        }
    }

    /// What is shown after the store was asked for what is not known.
    async fn once_asked(self, mut unknown: Vec<Page>) -> Option<Shown> {
        let (totals, site) = (&self.public.parts.totals, self.site.id);
        if !totals.look(site, self.public.parts.clock.now()).figures().are_known() {
            totals.fetch_figures(site).await;
        }
        unknown.sort_unstable_by_key(Page::key);
        unknown.dedup_by_key(|page| page.key());
        let absent = totals.fetch_pages(site, unknown).await;
        (self.show)(self, &absent)
    }
}

impl Shown {
    fn answer(self, headers: HeaderMap) -> Response {
        let cache = if self.stale { answer::NO_STORE } else { answer::FRESH };
        let tag = self.tag.unwrap_or(HeaderValue::from_static("\"\""));
        answer::tagged(headers, self.body, tag, answer::JSON, cache)
    }
}

fn show_counters(Reading { public, site, asked, asker, .. }: Reading<'_>, absent: &[u64]) -> Option<Shown> {
    show_site(public, site, asked.iter().flatten().next(), absent, asker)
}

/// Brings what the body of `counters` begins with up to date and ends it with the page, if one is asked for.
fn show_site(
    public: &Public,
    site: &Arc<Site>,
    page: Option<&Page>,
    absent: &[u64],
    asker: Option<&HeaderMap>,
) -> Option<Shown> {
    let parts = &public.parts;
    let now = parts.clock.now();
    let (online, online_changed_ms) = public.online(site, now);
    let mut look = parts.totals.look(site.id, now).without(absent);
    let views = page.and_then(|page| look.page(page));
    let version = Version { site: site.id, revision: look.revision(), online, online_changed_ms };
    let mut prefix = public.prefixes.of(site.id);
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
    let unknown: Vec<Page> = page.filter(|_| views.is_none()).cloned().into_iter().collect();
    let stale = parts.totals.stale(site.id) || !unknown.is_empty();
    let item = page.map(|page| public.page_item(page, views, now));
    let end = |text: &mut _| json::page_counters(text, item.as_ref(), &site.pages.query, stale);
    let (tag, body) = prefix.complete(end, asker);
    Some(Shown { tag, body, stale, unknown })
}

fn show_pages(
    Reading { public, site, asked: pages, asker, .. }: Reading<'_>,
    absent: &[u64],
) -> Option<Shown> {
    let now = public.parts.clock.now();
    let mut look = public.parts.totals.look(site.id, now).without(absent);
    let figures = look.figures();
    let views: Vec<_> =
        pages.iter().map(|asked| asked.as_ref().ok().and_then(|page| look.page(page))).collect();
    drop(look);
    if !figures.are_known() {
        return None;
    }
    let unknown = pages.iter().zip(&views).filter(|(_, views)| views.is_none());
    let unknown: Vec<Page> = unknown.filter_map(|(asked, _)| asked.as_ref().ok().cloned()).collect();
    let stale = public.parts.totals.stale(site.id) || !unknown.is_empty();
    let (_, online_changed_ms) = public.online(site, now);
    let items = pages.iter().zip(views).map(|(asked, views)| match asked {
        Ok(page) => public.page_item(page, views, now),
        Err(given) => PageItem { page: given, online: None, views: None },
    });
    let hour = public.parts.hours.at(site, now.unix_ms);
    let head = BodyHead::new(site, &hour.made, figures.changed_ms.max(online_changed_ms));
    let (tag, body) = etag::unless_held(asker?, json::pages(&head, items, &site.pages.query, stale));
    Some(Shown { tag: Some(tag), body, stale, unknown })
}

impl Public {
    /// Visitors online on a site, and when their number last changed. In this order: counting may find that
    /// visitors have gone offline, which is a change.
    fn online(&self, site: &Site, now: Moment) -> (u64, i64) {
        let online = self.parts.sessions.online(site.id, now);
        (online, self.parts.sessions.changed_ms(site.id))
    }

    fn page_item<'a>(&self, page: &'a Page, views: Option<PerPeriod<u64>>, now: Moment) -> PageItem<'a> {
        PageItem { page: page.as_str(), online: Some(self.parts.sessions.page_online(page, now)), views }
    }
}
