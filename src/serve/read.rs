//! Answers figures: `counters` and `pages`.

use std::hash::BuildHasher;
use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::{HeaderValue, IF_NONE_MATCH};
use url::form_urlencoded;

use super::json::{self, PageShown, Shown};
use super::public::{Asked, Public, Reply};
use super::reply::{self, Fault, Response};
use crate::clock::Moment;
use crate::ingest::{self, Page, Reason};
use crate::sites::Site;
use crate::totals::{Figures, PageFigures};

/// Most pages of one request.
const MAX_PAGES: usize = 100;

/// Which body is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Counters,
    Pages,
}

/// A read that is understood.
struct Question {
    public: Arc<Public>,
    form: Form,
    site: Arc<Site>,
    pages: Vec<Page>,
    headers: HeaderMap,
    now: Moment,
}

/// `GET /api/v1/sites/{site}/counters[?page=]`.
pub(super) fn counters(asked: Asked<'_>) -> Reply {
    answer(asked, Form::Counters)
}

/// `GET /api/v1/sites/{site}/pages?page=&page=`.
pub(super) fn pages(asked: Asked<'_>) -> Reply {
    answer(asked, Form::Pages)
}

fn answer(asked: Asked<'_>, form: Form) -> Reply {
    let question = match understand(asked, form) {
        Ok(question) => question,
        Err(reason) => return Reply::Now(reply::refused(reason.into())),
    };
    let totals = &question.public.parts.totals;
    let figures = totals.figures(question.site.id, question.now);
    if figures.views.iter().all(Option::is_none) {
        return Reply::Now(reply::refused(Fault::StoreUnreachable));
    }
    let views = question.views();
    if views.iter().all(Option::is_some) {
        Reply::Now(question.show(&figures, &views))
    } else {
        Reply::Later(Box::pin(question.show_loaded(figures, views)))
    }
}

fn understand(asked: Asked<'_>, form: Form) -> Result<Question, Reason> {
    let parts = &asked.public.parts;
    let site = parts.sites.get(asked.name).ok_or(Reason::UnknownSite)?.clone();
    let most = if form == Form::Counters { 1 } else { MAX_PAGES + 1 };
    let pages = asked_pages(asked.uri.query().unwrap_or_default())
        .take(most)
        .map(|said| ingest::read_page(&site, &said))
        .collect::<Result<Vec<_>, _>>()?;
    if form == Form::Pages && !(1..=MAX_PAGES).contains(&pages.len()) {
        return Err(Reason::Malformed);
    }
    let now = parts.clock.now();
    Ok(Question { public: asked.public.clone(), form, site, pages, headers: asked.headers, now })
}

fn asked_pages(query: &str) -> impl Iterator<Item = std::borrow::Cow<'_, str>> {
    form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "page").map(|(_, said)| said)
}

impl Question {
    /// What is known of the pages asked for.
    fn views(&self) -> Vec<Option<PageFigures>> {
        let known = |page| self.public.parts.totals.page(page, self.site.id, self.now);
        self.pages.iter().map(known).collect()
    }

    /// Asks the store, once, for the pages that are not known.
    async fn show_loaded(self, figures: Figures, views: Vec<Option<PageFigures>>) -> Response {
        let unknown = self.pages.iter().zip(&views).filter(|(_, views)| views.is_none());
        let mut missing: Vec<Page> = unknown.map(|(page, _)| page.clone()).collect();
        missing.sort_unstable_by_key(Page::key);
        missing.dedup_by_key(|page| page.key());
        self.public.parts.totals.load_pages(self.site.id, missing).await;
        let views = self.views();
        self.show(&figures, &views)
    }

    fn show(self, figures: &Figures, views: &[Option<PageFigures>]) -> Response {
        let parts = &self.public.parts;
        let (site, now) = (&self.site, self.now);
        // Asked first: counting may find that visitors have gone offline, which is a change.
        let online = parts.sessions.online(site.id, now);
        let hour = self.public.labels.at(site, now.unix_ms);
        let changed_ms = figures.changed_ms.max(parts.sessions.changed_ms(site.id));
        let shown = Shown {
            site: site.key.as_str(),
            at: &hour.rfc3339(&site.calendar, changed_ms),
            buckets: hour.buckets(),
            stale: parts.totals.stale() || views.iter().any(Option::is_none),
        };
        let mut pages = self.pages.iter().zip(views).map(|(page, views)| PageShown {
            page: page.as_str(),
            online: parts.sessions.page_online(page, now),
            views: *views,
        });
        let body = match self.form {
            Form::Counters => json::counters(&shown, online, figures, pages.next().as_ref()),
            Form::Pages => json::pages(&shown, pages),
        };
        conditional(self.headers, body, shown.stale)
    }
}

/// The body, or 304 where the reader holds this very body.
fn conditional(headers: HeaderMap, body: Vec<u8>, stale: bool) -> Response {
    let tag = entity_tag(&body);
    let body = (!holds(&headers, &tag)).then_some(body);
    reply::figures(headers, body, tag, stale)
}

/// A strong entity tag: the quoted hex of a hash of the body, the same from every process of a release.
fn entity_tag(body: &[u8]) -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let hash = foldhash::quality::FixedState::default().hash_one(body);
    let mut tag = [b'"'; 18];
    for (place, digit) in tag[1..17].iter_mut().enumerate() {
        *digit = HEX[(hash >> (60 - 4 * place)) as usize & 15];
    }
    HeaderValue::from_bytes(&tag).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Whether `If-None-Match` names a tag (weak comparison, RFC 9110, 13.1.2).
fn holds(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().any(|list| {
        list.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|candidate| {
            candidate == b"*" || candidate.strip_prefix(b"W/").unwrap_or(candidate) == tag.as_bytes()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IF_NONE_MATCH, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn tags_are_quoted_hex_of_the_body_alone() {
        let tag = entity_tag(b"{}");
        assert_eq!(tag, entity_tag(b"{}"));
        assert_ne!(tag, entity_tag(b"{ }"));
        let hex = tag.to_str().unwrap().strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap();
        assert!(hex.len() == 16 && u64::from_str_radix(hex, 16).is_ok(), "{hex}");
    }

    #[test]
    fn if_none_match_takes_lists_stars_and_weak_tags() {
        let tag = HeaderValue::from_static("\"abc\"");
        for held in [
            &["\"abc\""][..],
            &["W/\"abc\""],
            &["*"],
            &["\"x\", \"abc\""],
            &["\"x\" ,W/\"abc\" "],
            &["\"x\"", "\"abc\""],
        ] {
            assert!(holds(&asking(held), &tag), "{held:?}");
        }
        for other in [&[][..], &["\"ab\""], &["abc"], &["W/abc"], &[""], &["\"abcd\", \"ab\""]] {
            assert!(!holds(&asking(other), &tag), "{other:?}");
        }
    }

    #[test]
    fn a_304_has_the_cache_headers_and_no_body() {
        use hyper::body::Body;
        let body = br#"{"online":61}"#.to_vec();
        let full = conditional(HeaderMap::new(), body.clone(), false);
        assert_eq!(full.status(), 200);
        assert_eq!(full.headers()["content-type"], "application/json");
        let mut again = HeaderMap::new();
        again.insert(IF_NONE_MATCH, full.headers()["etag"].clone());
        let same = conditional(again.clone(), body.clone(), false);
        assert_eq!(same.status(), 304);
        assert_eq!(same.headers()["etag"], full.headers()["etag"]);
        assert_eq!(
            same.headers()["cache-control"],
            "public, max-age=5, stale-while-revalidate=30, stale-if-error=86400"
        );
        assert!(same.body().is_end_stream() && !same.headers().contains_key("content-type"));
        let stale = conditional(again, body, true);
        assert_eq!((stale.status().as_u16(), &stale.headers()["cache-control"]), (304, &reply::NO_STORE));
    }

    #[test]
    fn pages_are_read_from_the_query_and_other_names_ignored() {
        let said: Vec<_> = asked_pages("_=1&page=%2Fa%20b&utm_source=x&page=/c+d&page=&pages=/e").collect();
        assert_eq!(said, ["/a b", "/c d", ""]);
    }
}
