//! Reads of a site and its pages, and waiting until they are known.

use std::borrow::Cow;
use std::sync::Arc;

use hyper::HeaderMap;
use url::form_urlencoded;

use super::context::{Public, ReadRequest, Reply};
use crate::ingest::{self, MAX_PAGE, Page, Reason};
use crate::serve::answer::Response;
use crate::serve::parts::Parts;
use crate::serve::shown::figure::CurrentFigures;
use crate::sites::Site;

/// A read of a site, and of a page of it where one is asked for.
pub struct SiteRead {
    pub public: Arc<Public>,
    pub site: Arc<Site>,
    pub page: Option<Page>,
    pub headers: HeaderMap,
    /// Keys of pages that the store was asked for and does not have.
    pub absent: Arc<[u64]>,
}

impl SiteRead {
    /// Finds out what a request reads of a site; `bad-url` where it names a page that is none.
    pub fn of(request: ReadRequest<'_>, site: &Arc<Site>) -> Result<SiteRead, Reason> {
        let (public, site) = (request.public.clone(), site.clone());
        let page = pages(&site, request.query()).next().transpose().map_err(|_| Reason::BadUrl)?;
        Ok(SiteRead { public, site, page, headers: request.headers, absent: Arc::default() })
    }

    /// Answers once the page is known: at once, or after the store was asked for it, once.
    pub fn once_known(self, answer: impl FnOnce(SiteRead) -> Response + Send + 'static) -> Reply {
        let (totals, now) = (&self.public.parts.totals, self.public.parts.clock.now());
        match self.page.clone().filter(|page| totals.look(self.site.id, now).page(page).is_none()) {
            None => Reply::Now(answer(self)),
            Some(unknown) => Reply::Later(Box::pin(async move {
                let absent = self.public.parts.totals.fetch_pages(self.site.id, vec![unknown]).await;
                answer(SiteRead { absent, ..self })
            })),
        }
    }

    /// The figures of the site and the page as they are now.
    pub fn current_figures(&self) -> CurrentFigures {
        let Parts { totals, sessions, clock, .. } = &*self.public.parts;
        let (site, now) = (self.site.id, clock.now());
        let figures = totals.look(site, now).figures();
        let views = |page| totals.look(site, now).without(&self.absent).page(page);
        let page = self.page.as_ref().map(|page| (sessions.page_online(page, now), views(page)));
        let are_known = figures.visits.iter().all(|(_, visits)| visits.is_some());
        let is_page_unknown = page.is_some_and(|(_, views)| views.is_none());
        let stale = totals.stale(site) || !are_known || is_page_unknown;
        CurrentFigures { figures, online: sessions.online(site, now), page, stale }
    }
}

/// A page that a reader asks for; what the reader wrote, if that is no page of the site.
pub type Asked = Result<Page, String>;

/// The pages that a query names, in order.
pub fn pages(site: &Site, query: &str) -> impl Iterator<Item = Asked> {
    page_values(query).map(|value| {
        let given = |_| value[..value.floor_char_boundary(MAX_PAGE)].to_owned();
        ingest::read_page(site, &value).map_err(given)
    })
}

/// The values of `page` in a query, decoded.
fn page_values(query: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let pairs = query.split('&').filter_map(|pair| {
        // The compiler makes this loop fast because it never stops early.
        let encoded = pair.bytes().fold(false, |encoded, b| encoded | (b == b'%') | (b == b'+'));
        if encoded {
            return form_urlencoded::parse(pair.as_bytes()).next();
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((name.into(), value.into()))
    });
    pairs.filter(|(name, _)| name == "page").map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_from_the_query_and_other_names_ignored() {
        let query = "_=1&page=%2Fa%20b&utm_source=x&page=/c+d&page=&page&pages=/e&&p%61ge=/f&page=/g=h?i";
        let values: Vec<_> = page_values(query).collect();
        let parsed = form_urlencoded::parse(query.as_bytes());
        let plainly: Vec<_> = parsed.filter(|(name, _)| name == "page").map(|(_, value)| value).collect();
        assert_eq!(values, ["/a b", "/c d", "", "", "/f", "/g=h?i"]);
        assert_eq!(values, plainly, "as the slow way reads them");
    }
}
