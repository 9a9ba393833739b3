//! The site and the pages that a read asks for, and waiting until they are known.

use std::borrow::Cow;
use std::sync::Arc;

use hyper::HeaderMap;
use url::form_urlencoded;

use super::context::{Public, ReadRequest, Reply};
use crate::ingest::{self, Page, Reason};
use crate::serve::answer::Response;
use crate::sites::Site;

/// The site and, where one is asked for, the page of a read.
///
/// # Errors
/// `unknown-site`, `bad-url`.
pub fn site_and_page(request: &ReadRequest<'_>) -> Result<(Arc<Site>, Option<Page>), Reason> {
    let sites = request.public.parts.sites.load();
    let site = sites.named(request.name).ok_or(Reason::UnknownSite)?.clone();
    let page = pages(&site, request.query()).next().transpose()?;
    Ok((site, page))
}

/// The pages that a query names, in order.
pub fn pages(site: &Site, query: &str) -> impl Iterator<Item = Result<Page, Reason>> {
    page_values(query).map(|value| ingest::read_page(site, &value))
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

/// Answers once the page asked for is known: at once, or after the store was asked for it, once.
pub fn once_known(
    request: ReadRequest<'_>,
    site: Arc<Site>,
    page: Option<Page>,
    answer: impl FnOnce(&Arc<Public>, HeaderMap, &Arc<Site>, Option<&Page>) -> Response + Send + 'static,
) -> Reply {
    let ReadRequest { public, headers, .. } = request;
    let (totals, now) = (&public.parts.totals, public.parts.clock.now());
    match page.clone().filter(|page| totals.page(page, site.id, now).is_none()) {
        None => Reply::Now(answer(public, headers, &site, page.as_ref())),
        Some(unknown) => {
            let public = public.clone();
            Reply::Later(Box::pin(async move {
                public.parts.totals.load_pages(site.id, vec![unknown]).await;
                answer(&public, headers, &site, page.as_ref())
            }))
        }
    }
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
