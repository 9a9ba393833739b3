//! `/newsroom/{site}`: the page of figures of one site, for whoever has its token.
//!
//! The link that is passed on has the token in its query. Opened, it is traded for a cookie of this page alone, so that
//! the token stays in no address that a browser shows, keeps or tells other sites. No other answer sets a cookie, and no
//! other reads one.

use hyper::StatusCode;
use hyper::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use url::form_urlencoded;

use super::context::{Public, ReadRequest, Reply};
use crate::serve::answer::{Fault, Response};
use crate::serve::{answer, overview};
use crate::sites::SiteKey;

/// What whoever has another link is told.
const CLOSED: [&str; 2] = [include_str!("newsroom/closed.vi.html"), include_str!("newsroom/closed.en.html")];

/// The cookie's name.
const NAME: &str = "footfall_newsroom";

/// How long a browser keeps it, seconds: a year. It opens nothing once the token is another.
const MAX_AGE: u32 = 365 * 24 * 3600;

pub fn newsroom(request: ReadRequest<'_>) -> Result<Reply, Fault> {
    let headers = &request.headers;
    let refused = |fault| Ok(Reply::Now(answer::unlisted(answer::refused_to(headers, fault, CLOSED))));
    let site = request.public.parts.sites.load().get(request.name).cloned();
    let Some((site, token)) = site.and_then(|site| Some((site.clone(), site.newsroom_token.clone()?))) else {
        return refused(Fault::NotFound);
    };
    let linked = form_urlencoded::parse(request.query().as_bytes()).find(|(name, _)| name == "token");
    if let Some((_, given)) = linked {
        return match token.is(&given) {
            true => Ok(Reply::Now(traded(request.public, request.uri.path(), &site.key, &given))),
            false => refused(Fault::WrongToken),
        };
    }
    if !cookies(headers).any(|given| token.is(given)) {
        return refused(Fault::WrongToken);
    }
    let (parts, is_part) = (request.public.parts.clone(), overview::is_part(request.uri));
    Ok(Reply::Later(Box::pin(async move {
        overview::know(&parts, &site).await;
        let title = format!("{} newsroom", site.key);
        let figures = overview::health::list(&parts, false) + &overview::section(&parts, &site);
        overview::answer(answer::unlisted_page, is_part, [&title, "Newsroom", &figures, ""])
    })))
}

/// What cookies of our name hold.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lists = headers.get_all(COOKIE).iter().filter_map(|list| list.to_str().ok());
    let cookies =
        lists.flat_map(|list| list.split(';')).filter_map(|cookie| cookie.trim().strip_prefix(NAME));
    cookies.filter_map(|rest| rest.strip_prefix('='))
}

/// The way to the same page without the token, which the browser shows by a cookie from now on.
fn traded(public: &Public, path: &str, key: &SiteKey, token: &str) -> Response {
    // Seen from the page, which a proxy may have below another path.
    let up = if path.ends_with('/') { "../.." } else { ".." };
    let location = HeaderValue::try_from(format!("{up}/newsroom/{key}"));
    let location = location.unwrap_or(HeaderValue::from_static(""));
    let mut response = answer::unlisted(answer::redirect(StatusCode::SEE_OTHER, location));
    let secure = if public.parts.base.starts_with("https:") { "; Secure" } else { "" };
    let mount = public.config.mount.as_str();
    // Where there is a mount, a proxy may also lead here without it: on a host of the service's own.
    for mount in ["", mount].into_iter().skip(usize::from(mount.is_empty())) {
        let cookie = format!(
            "{NAME}={token}; Path={mount}/newsroom/{key}; Max-Age={MAX_AGE}; HttpOnly; SameSite=Lax{secure}"
        );
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    }
    response
}
