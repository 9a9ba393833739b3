//! What every answer carries, and the answers that say no.

pub mod etag;
pub mod events;
mod fault;
pub mod html;
pub mod names;
pub mod packed;
pub mod routes;

use std::sync::LazyLock;

use bytes::Bytes;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

pub use self::fault::Fault;
use self::{events::EventSource, routes::Methods};
use crate::ingest::{Cause, Reason};

pub type Response = hyper::Response<Body>;

pub enum Body {
    /// All of it is there: hyper sends it.
    Whole(Bytes),
    /// Events, for as long as there are any: sent over the bare socket.
    Events(Box<dyn EventSource>),
}

impl Body {
    /// The body as hyper sends it; events are not for hyper.
    pub fn whole(self) -> Full<Bytes> {
        match self {
            Body::Whole(body) => Full::new(body),
            Body::Events(_) => Full::default(),
        }
    }
}

/// `Cache-Control` of figures that move.
pub const FRESH: HeaderValue =
    HeaderValue::from_static("public, max-age=5, stale-while-revalidate=30, stale-if-error=86400");
/// `Cache-Control` of beacons, errors and figures that may be old.
pub const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// `Cache-Control` of the footer block and the badge.
pub const HALF_A_MINUTE: HeaderValue =
    HeaderValue::from_static("public, max-age=30, stale-while-revalidate=30, stale-if-error=86400");
/// `Cache-Control` of what changes with the version only.
pub const AN_HOUR: HeaderValue = HeaderValue::from_static("public, max-age=3600");

pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
pub const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
pub const CSS: HeaderValue = HeaderValue::from_static("text/css; charset=utf-8");
pub const SVG: HeaderValue = HeaderValue::from_static("image/svg+xml; charset=utf-8");
pub const JAVASCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=utf-8");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const GIF_TYPE: HeaderValue = HeaderValue::from_static("image/gif");

/// A document that may load nothing.
pub const NO_SOURCES: HeaderValue = HeaderValue::from_static("default-src 'none'");
/// A page that may load nothing, lead nowhere and be framed by nobody: every page, unless it is [`guarded`] otherwise.
const CLOSED: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const ANY: HeaderValue = HeaderValue::from_static("*");
const EXPOSED: HeaderValue = HeaderValue::from_static("Footfall, Footfall-Reason, Retry-After, ETag");
const TAKEN: HeaderValue = HeaderValue::from_static("content-type, if-none-match, cache-control");
const ONE: HeaderValue = HeaderValue::from_static("1");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const CROSS_ORIGIN: HeaderValue = HeaderValue::from_static("cross-origin");
const SAME_ORIGIN: HeaderValue = HeaderValue::from_static("same-origin");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// By it a page tells an answer of the service from one of whatever stands before it.
const FOOTFALL: HeaderName = HeaderName::from_static("footfall");
const FOOTFALL_REASON: HeaderName = HeaderName::from_static("footfall-reason");
const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");

/// A body of no more bytes is sent as it is.
const WORTHWHILE: usize = 1024;

/// The longest list of header names that a preflight is answered with, bytes.
const MOST_NAMES: usize = 1024;

/// One transparent pixel.
const GIF: &[u8; 43] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff\
    \x21\xf9\x04\x01\x00\x00\x00\x00\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b";

/// The headers of the 204 of a beacon, and those of the figures that it asked for. A copy of a table costs half of
/// filling one.
static OF_NO_CONTENT: LazyLock<HeaderMap> = LazyLock::new(|| {
    let mut headers = HeaderMap::with_capacity(4);
    share(&mut headers, NO_STORE);
    headers
});
static OF_FIGURES: LazyLock<HeaderMap> = LazyLock::new(|| {
    let mut headers = public(HeaderMap::with_capacity(6), NO_STORE);
    headers.insert(header::CONTENT_TYPE, JSON);
    headers
});

/// The 204 of a beacon.
pub fn no_content() -> Response {
    finish(StatusCode::NO_CONTENT, OF_NO_CONTENT.clone(), Bytes::new())
}

/// The figures that a beacon asked for.
pub fn figures(body: Bytes) -> Response {
    finish(StatusCode::OK, OF_FIGURES.clone(), body)
}

/// The 204 of a preflight. Whatever header is asked for is allowed: libraries that trace requests add their own to
/// every one of a page, and none of them changes an answer.
pub fn preflight(methods: Methods, asker: &HeaderMap) -> Response {
    let asked = asker.get(header::ACCESS_CONTROL_REQUEST_HEADERS).filter(|names| are_names(names.as_bytes()));
    let mut response = fresh(StatusCode::NO_CONTENT, header::ALLOW, methods.allow(), Bytes::new());
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods.allow());
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.cloned().unwrap_or(TAKEN));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    headers.insert(header::VARY, HeaderValue::from_static("access-control-request-headers"));
    response
}

/// Whether a text is a list of header names, and of a length that can be sent back.
fn are_names(list: &[u8]) -> bool {
    let mut names = list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    list.len() <= MOST_NAMES && names.all(|name| HeaderName::from_bytes(name).is_ok())
}

/// The pixel: 200, or the status of a fault with its code.
pub fn gif(headers: HeaderMap, fault: Option<Fault>) -> Response {
    let mut headers = public(headers, NO_STORE);
    headers.insert(header::CONTENT_TYPE, GIF_TYPE);
    headers.insert(RESOURCE_POLICY, CROSS_ORIGIN);
    if let Some(fault) = fault {
        headers.insert(FOOTFALL_REASON, HeaderValue::from_static(fault.code()));
        explain(&mut headers, fault);
    }
    finish(fault.map_or(StatusCode::OK, Fault::status), headers, Bytes::from_static(GIF))
}

/// What was asked for; 304 without a body where the reader has it already. Its headers take the place of the
/// request's.
pub fn tagged(
    headers: HeaderMap,
    body: Option<Bytes>,
    tag: HeaderValue,
    kind: HeaderValue,
    cache: HeaderValue,
) -> Response {
    let Some(body) = body else {
        // In the form that the reader has it in, which need not be the plain one.
        let held = etag::held(&headers, &tag).unwrap_or(tag);
        let mut headers = public(headers, cache);
        headers.insert(header::ETAG, held);
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        return finish(StatusCode::NOT_MODIFIED, headers, Bytes::new());
    };
    let mut headers = public(headers, cache);
    headers.insert(header::ETAG, tag);
    set_kind(&mut headers, kind);
    finish(StatusCode::OK, headers, body)
}

/// A body, or 304 where the reader has this very one. Its headers take the place of the request's.
pub fn unless_held(headers: HeaderMap, body: Vec<u8>, kind: HeaderValue, cache: HeaderValue) -> Response {
    let (tag, body) = etag::unless_held(&headers, body);
    tagged(headers, body, tag, kind, cache)
}

/// Lets pages of every origin show an answer, as an image or a script.
pub fn shared(mut response: Response) -> Response {
    response.headers_mut().insert(RESOURCE_POLICY, CROSS_ORIGIN);
    response
}

/// Says what a document may load, and who may frame it.
pub fn guarded(mut response: Response, policy: HeaderValue) -> Response {
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

/// Has nobody keep an answer, or show it to anybody else.
pub fn keep_private(response: &mut Response) {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
}

/// A page only for those who know its address.
pub fn unlisted_page(html: String) -> Response {
    unlisted(fresh(StatusCode::OK, header::CONTENT_TYPE, HTML, html))
}

/// Keeps search engines away from a page, and its address hidden from the pages it links to.
pub fn unlisted(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(ROBOTS, HeaderValue::from_static("noindex, nofollow"));
    response
}

pub fn redirect(status: StatusCode, location: HeaderValue) -> Response {
    fresh(status, header::LOCATION, location, Bytes::new())
}

/// Events as they happen.
pub fn events(source: Box<dyn EventSource>, unix_ms: i64) -> Response {
    let mut response = fresh(StatusCode::OK, header::CONTENT_TYPE, EVENTS, Bytes::new());
    let headers = response.headers_mut();
    // To other answers hyper adds it.
    let date = chrono::DateTime::from_timestamp_millis(unix_ms).unwrap_or_default();
    if let Ok(date) = HeaderValue::try_from(date.format("%a, %d %b %Y %H:%M:%S GMT").to_string()) {
        headers.insert(header::DATE, date);
    }
    // nginx would gather events until its buffer is full.
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    *response.body_mut() = Body::Events(source);
    response
}

pub fn refused(fault: Fault) -> Response {
    refused_for(fault, None)
}

/// The answer to a beacon that is refused: with what in it is the cause.
pub fn refused_for(fault: Fault, cause: Option<&Cause>) -> Response {
    if fault.status() == StatusCode::ACCEPTED {
        // No problem of who sent it: it was understood, and is left out.
        let code = HeaderValue::from_static(fault.code());
        return fresh(StatusCode::ACCEPTED, FOOTFALL_REASON, code, Bytes::new());
    }
    let mut response = fresh(fault.status(), header::CONTENT_TYPE, PROBLEM, fault.problem(cause));
    explain(response.headers_mut(), fault);
    response
}

/// Says no; to a browser that opens a page, by one of these pages, in the order of [`language`].
pub fn refused_to(asker: &HeaderMap, fault: Fault, pages: [&'static str; 2]) -> Response {
    if !asker.get(header::ACCEPT).is_some_and(|accepted| accepted.as_bytes().starts_with(b"text/html")) {
        return refused(fault);
    }
    let page = pages[language(asker, None).unwrap_or(1)];
    let mut response = fresh(fault.status(), header::CONTENT_TYPE, HTML, page);
    response.headers_mut().insert(FOOTFALL_REASON, HeaderValue::from_static(fault.code()));
    response
}

/// In which language a reader is told: 0 Vietnamese, 1 English. The one asked for, else the first of the browser's that
/// there is; English where it has neither.
pub fn language(asker: &HeaderMap, asked: Option<&str>) -> Option<usize> {
    let header = asker.get(header::ACCEPT_LANGUAGE).and_then(|accepted| accepted.to_str().ok());
    let known = |tag: &str| ["vi", "en"].into_iter().position(|known| tag.trim_start().starts_with(known));
    Some(asked.or(header)?.to_ascii_lowercase().split(',').find_map(known).unwrap_or(1))
}

pub fn admin_refused(fault: Fault) -> Response {
    admin(fault.status(), PROBLEM, fault.problem(None))
}

/// The 405 of either listener.
pub fn not_allowed(refused: fn(Fault) -> Response, methods: Methods) -> Response {
    let mut response = refused(Reason::MethodNotAllowed.into());
    response.headers_mut().insert(header::ALLOW, methods.allow());
    response
}

pub fn admin_text(status: StatusCode, text: impl Into<Bytes>) -> Response {
    admin(status, TEXT, text)
}

/// A page on the admin listener.
pub fn admin_page(html: String) -> Response {
    unlisted(admin(StatusCode::OK, HTML, html))
}

/// An answer on the admin listener, in gzip for askers that take it.
pub fn admin_packed(asker: &HeaderMap, kind: HeaderValue, body: Vec<u8>) -> Response {
    pack(admin(StatusCode::OK, kind, body), asker.get(header::ACCEPT_ENCODING))
}

/// Every answer of the admin listener: no page of another origin may read or embed it.
fn admin(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Response {
    let mut headers = HeaderMap::with_capacity(5);
    headers.insert(RESOURCE_POLICY, SAME_ORIGIN);
    set_kind(&mut headers, kind);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    finish(status, headers, body.into())
}

/// An answer as it is sent to an asker with this `Accept-Encoding`.
pub fn pack(mut response: Response, accepted: Option<&HeaderValue>) -> Response {
    let made = response.headers().contains_key(header::CONTENT_ENCODING);
    let Body::Whole(body) = response.body() else { return response };
    if made || body.len() <= WORTHWHILE || response.status() != StatusCode::OK {
        return response;
    }
    match packed::takes(accepted, "gzip").then(|| packed::gzip(body)).flatten() {
        Some(packed) => encode(&mut response, "gzip", packed.into()),
        None => vary(&mut response),
    }
    response
}

/// Puts a body in the place of the plain one. A strong tag is that of one form (RFC 9110, 8.8.3.3).
pub fn encode(response: &mut Response, coding: &'static str, body: Bytes) {
    vary(response);
    *response.body_mut() = Body::Whole(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    if let Some(tag) = headers.get_mut(header::ETAG) {
        let plain = tag.as_bytes().strip_suffix(b"\"").unwrap_or_default();
        let own = [plain, b"-", coding.as_bytes(), b"\""].concat();
        *tag = HeaderValue::from_bytes(&own).unwrap_or_else(|_| tag.clone());
    }
}

fn vary(response: &mut Response) {
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
}

/// A public answer that is not cached, with one header more.
fn fresh(status: StatusCode, name: HeaderName, value: HeaderValue, body: impl Into<Bytes>) -> Response {
    let mut headers = public(HeaderMap::with_capacity(10), NO_STORE);
    if name == header::CONTENT_TYPE {
        set_kind(&mut headers, value);
    } else {
        headers.insert(name, value);
    }
    finish(status, headers, body.into())
}

/// What a body is. To its own host a page may tell where it is, since a view's sender is told by that; to others nothing.
fn set_kind(headers: &mut HeaderMap, kind: HeaderValue) {
    if kind == HTML {
        headers.insert(header::CONTENT_SECURITY_POLICY, CLOSED);
        headers.insert(header::REFERRER_POLICY, SAME_ORIGIN);
    }
    headers.insert(header::CONTENT_TYPE, kind);
}

/// The headers of every public answer with a body, in place of what is in the table.
fn public(mut headers: HeaderMap, cache: HeaderValue) -> HeaderMap {
    share(&mut headers, cache);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers
}

/// The headers of every public answer, in place of what is in the table: any page may read it.
fn share(headers: &mut HeaderMap, cache: HeaderValue) {
    headers.clear();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.insert(FOOTFALL, ONE);
    headers.insert(header::CACHE_CONTROL, cache);
}

/// Adds the headers of a fault.
fn explain(headers: &mut HeaderMap, fault: Fault) {
    if let Some(seconds) = fault.retry_after() {
        headers.insert(header::RETRY_AFTER, seconds);
    }
    if fault == Fault::Unauthorized {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    // Nothing can follow a request of which the rest was left unread.
    if matches!(fault, Fault::Refused(Reason::TooLarge | Reason::Timeout)) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

fn finish(status: StatusCode, headers: HeaderMap, body: Bytes) -> Response {
    let mut response = Response::new(Body::Whole(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn faults() -> impl Iterator<Item = Fault> {
        Reason::WORDS.into_iter().map(|(_, reason)| Fault::from(reason)).chain([
            Fault::NotFound,
            Fault::Misdirected,
            Fault::StoreUnreachable,
            Fault::LiveFull,
            Fault::WrongToken,
            Fault::Unauthorized,
        ])
    }

    #[test]
    fn problems_are_json_of_the_promised_members() {
        for fault in faults() {
            let body: serde_json::Value = serde_json::from_str(&fault.problem(None)).unwrap();
            let members: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(members.len(), 5, "{members:?}");
            assert_eq!(body["status"], fault.status().as_u16());
            assert_eq!(body["code"], fault.code());
            assert_eq!(body["type"], "about:blank");
            assert!(!body["title"].as_str().unwrap().is_empty());
            assert!(!body["detail"].as_str().unwrap().is_empty());
        }
    }

    #[test]
    fn every_refusal_can_be_read_by_any_page_and_is_never_cached() {
        for fault in faults() {
            let response = refused(fault);
            let headers = response.headers();
            assert_eq!(headers["access-control-allow-origin"], "*");
            assert_eq!(
                headers["access-control-expose-headers"],
                "Footfall, Footfall-Reason, Retry-After, ETag"
            );
            assert_eq!(headers["footfall"], "1");
            assert_eq!(headers["cache-control"], "no-store");
            assert_eq!(headers["x-content-type-options"], "nosniff");
            let left_out = fault.status() == 202;
            assert_eq!(headers.contains_key("footfall-reason"), left_out, "{fault:?}");
            assert_eq!(headers.get("content-type"), (!left_out).then_some(&PROBLEM));
            let is_passing = matches!(fault.status().as_u16(), 429 | 503);
            assert_eq!(headers.contains_key("retry-after"), is_passing, "{fault:?}");
            assert!(!headers.contains_key("set-cookie"));
        }
    }

    #[tokio::test]
    async fn the_gif_is_43_bytes_with_the_status_of_its_fault() {
        let counted = gif(HeaderMap::new(), None);
        assert_eq!(counted.status(), 200);
        assert_eq!(counted.headers()["cross-origin-resource-policy"], "cross-origin");
        assert!(!counted.headers().contains_key("footfall-reason"));
        let pixel = counted.into_body().whole().collect().await.unwrap().to_bytes();
        assert_eq!((pixel.len(), &pixel[..6], pixel[42]), (43, b"GIF89a".as_slice(), b';'));

        let full = gif(HeaderMap::new(), Some(Reason::JournalFull.into()));
        assert_eq!(full.status(), 503);
        assert_eq!(full.headers()["footfall-reason"], "journal-full");
        assert_eq!(full.headers()["retry-after"], "30");
        assert_eq!(full.into_body().whole().collect().await.unwrap().to_bytes().len(), 43);
    }

    #[test]
    fn a_304_has_the_cache_headers_and_no_body() {
        use hyper::body::Body;
        let answer =
            |body, cache| tagged(HeaderMap::new(), body, HeaderValue::from_static("\"a\""), JSON, cache);
        let full = answer(Some(Bytes::from_static(b"{}")), FRESH);
        assert_eq!((full.status(), &full.headers()["content-type"]), (StatusCode::OK, &JSON));
        let same = answer(None, FRESH);
        assert_eq!(same.status(), 304);
        assert_eq!(same.headers()["etag"], full.headers()["etag"]);
        assert_eq!(
            same.headers()["cache-control"],
            "public, max-age=5, stale-while-revalidate=30, stale-if-error=86400"
        );
        assert!(!same.headers().contains_key("content-type"));
        assert!(same.into_body().whole().is_end_stream());
        let stale = answer(None, NO_STORE);
        assert_eq!(
            (stale.status(), &stale.headers()["cache-control"]),
            (StatusCode::NOT_MODIFIED, &NO_STORE)
        );
    }

    #[test]
    fn a_beacon_is_answered_with_what_is_promised() {
        let answer = no_content();
        assert_eq!(answer.status(), 204);
        let mut names: Vec<_> = answer.headers().keys().map(header::HeaderName::as_str).collect();
        names.sort_unstable();
        let promised =
            ["access-control-allow-origin", "access-control-expose-headers", "cache-control", "footfall"];
        assert_eq!(names, promised);
        assert_eq!(answer.headers()["cache-control"], "no-store");
    }
}
