//! What every answer carries, and the answers that say no.

pub mod etag;
pub mod routes;

use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::body::{Frame, SizeHint};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::ingest::Reason;
use crate::serve::answer::routes::Methods;
use crate::serve::live::Reader;

/// An answer.
pub type Response = hyper::Response<Body>;

/// The body of an answer.
pub enum Body {
    /// All of it is there.
    Whole(Full<Bytes>),
    /// Events, for as long as there are any: not hyper sends them, but `live`, over the bare socket.
    Events(Box<Reader>),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Body::Whole(body) => Pin::new(body).poll_frame(cx),
            Body::Events(reader) => {
                reader.poll_next(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece.text()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(body) => body.is_end_stream(),
            Body::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(body) => body.size_hint(),
            Body::Events(_) => SizeHint::default(),
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

/// Types of bodies.
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
pub const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
pub const CSS: HeaderValue = HeaderValue::from_static("text/css; charset=utf-8");
pub const SVG: HeaderValue = HeaderValue::from_static("image/svg+xml; charset=utf-8");

const ANY: HeaderValue = HeaderValue::from_static("*");
const EXPOSED: HeaderValue = HeaderValue::from_static("Footfall-Reason, Retry-After, ETag");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const CLOSE: HeaderValue = HeaderValue::from_static("close");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const JAVASCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=utf-8");
const GIF_TYPE: HeaderValue = HeaderValue::from_static("image/gif");
const CROSS_ORIGIN: HeaderValue = HeaderValue::from_static("cross-origin");
const PREFLIGHT_HEADERS: HeaderValue = HeaderValue::from_static("content-type, if-none-match, cache-control");
const A_DAY: HeaderValue = HeaderValue::from_static("86400");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const FOOTFALL_REASON: HeaderName = HeaderName::from_static("footfall-reason");

/// One transparent pixel.
const GIF: &[u8; 43] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff\
    \x21\xf9\x04\x01\x00\x00\x00\x00\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b";

/// Why a request is not answered as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A beacon's reason, or a read's of the same name.
    Refused(Reason),
    /// No such path.
    NotFound,
    /// No figure of the site is known and the store does not answer.
    StoreUnreachable,
    /// The token of a page is missing or another.
    WrongToken,
    /// As many live readers as there may be.
    LiveFull,
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        Fault::Refused(reason)
    }
}

impl Fault {
    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Fault::Refused(reason) => reason.code(),
            Fault::NotFound => "not-found",
            Fault::StoreUnreachable => "store-unreachable",
            Fault::WrongToken => "wrong-token",
            Fault::LiveFull => "live-full",
        }
    }

    /// The status and a sentence for people.
    fn meaning(self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Fault::NotFound => (S::NOT_FOUND, "There is nothing at this path."),
            Fault::StoreUnreachable => {
                (S::SERVICE_UNAVAILABLE, "No figure of this site is known yet and the store does not answer.")
            }
            Fault::WrongToken => (S::FORBIDDEN, "The link is not, or no longer, the one to this page."),
            Fault::LiveFull => (
                S::SERVICE_UNAVAILABLE,
                "There are as many live readers as there may be: ask again in a while.",
            ),
            Fault::Refused(reason) => match reason {
                Reason::Malformed => (S::BAD_REQUEST, "The request is not of the described shape."),
                Reason::BadUrl => {
                    (S::BAD_REQUEST, "The page is neither an http(s) URL of the site nor a path.")
                }
                Reason::WrongOrigin => (S::FORBIDDEN, "The URL or the sending page is not the site's."),
                Reason::UnknownSite => (S::NOT_FOUND, "No site is registered under this name or host."),
                Reason::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "The path does not take this method."),
                Reason::Timeout => (S::REQUEST_TIMEOUT, "The body did not arrive in time."),
                Reason::TooLarge => (S::PAYLOAD_TOO_LARGE, "The body is larger than 4096 bytes."),
                Reason::Overloaded => (S::SERVICE_UNAVAILABLE, "Views cannot be kept at this moment."),
                Reason::JournalFull => (S::SERVICE_UNAVAILABLE, "There is no room to keep further views."),
            },
        }
    }

    /// The status.
    pub fn status(self) -> StatusCode {
        self.meaning().0
    }

    /// When it is worth trying again, seconds.
    fn retry_after(self) -> Option<HeaderValue> {
        match self {
            Fault::Refused(Reason::JournalFull) | Fault::LiveFull => Some(HeaderValue::from_static("30")),
            fault if fault.status() == StatusCode::SERVICE_UNAVAILABLE => Some(HeaderValue::from_static("5")),
            _ => None,
        }
    }

    /// Whether the rest of the request was left unread, so that nothing can follow it.
    fn closes(self) -> bool {
        matches!(self, Fault::Refused(Reason::TooLarge | Reason::Timeout))
    }
}

/// The 204 of a beacon. Its headers take the place of the request's, whose table is at hand.
pub fn no_content(mut headers: HeaderMap) -> Response {
    share(&mut headers, NO_STORE);
    finish(StatusCode::NO_CONTENT, headers, Bytes::new())
}

/// The 204 of a preflight.
pub fn preflight(methods: Methods) -> Response {
    let mut headers = HeaderMap::with_capacity(8);
    open(&mut headers, NO_STORE);
    headers.insert(header::ALLOW, methods.allow());
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods.allow());
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, PREFLIGHT_HEADERS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, A_DAY);
    finish(StatusCode::NO_CONTENT, headers, Bytes::new())
}

/// The pixel: 200, or the status of a fault with its code.
pub fn gif(mut headers: HeaderMap, fault: Option<Fault>) -> Response {
    open(&mut headers, NO_STORE);
    headers.insert(header::CONTENT_TYPE, GIF_TYPE);
    headers.insert(RESOURCE_POLICY, CROSS_ORIGIN);
    if let Some(fault) = fault {
        headers.insert(FOOTFALL_REASON, HeaderValue::from_static(fault.code()));
        explain(&mut headers, fault);
    }
    finish(fault.map_or(StatusCode::OK, Fault::status), headers, Bytes::from_static(GIF))
}

/// Figures; without a body where the reader has it already. Their headers take the place of the request's.
pub fn figures(headers: HeaderMap, body: Option<Bytes>, tag: HeaderValue, stale: bool) -> Response {
    shown(headers, body, tag, JSON, if stale { NO_STORE } else { FRESH })
}

/// What was asked for; without a body where the reader has it already. Its headers take the place of the
/// request's.
pub fn shown(
    mut headers: HeaderMap,
    body: Option<Bytes>,
    tag: HeaderValue,
    kind: HeaderValue,
    cache: HeaderValue,
) -> Response {
    open(&mut headers, cache);
    headers.insert(header::ETAG, tag);
    match body {
        None => finish(StatusCode::NOT_MODIFIED, headers, Bytes::new()),
        Some(body) => {
            headers.insert(header::CONTENT_TYPE, kind);
            finish(StatusCode::OK, headers, body)
        }
    }
}

/// Lets pages of every origin show an answer, as an image or a script.
pub fn shared(mut response: Response) -> Response {
    response.headers_mut().insert(RESOURCE_POLICY, CROSS_ORIGIN);
    response
}

/// A page for those who know its address.
pub fn secluded(html: String) -> Response {
    let mut headers = HeaderMap::with_capacity(10);
    open(&mut headers, NO_STORE);
    headers.insert(header::CONTENT_TYPE, HTML);
    finish(StatusCode::OK, headers, html.into())
}

/// Keeps search engines away from a page, and its address from the pages it leads to.
pub fn unlisted(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("x-robots-tag"), HeaderValue::from_static("noindex, nofollow"));
    response
}

/// The way to another path.
pub fn see(location: HeaderValue) -> Response {
    let mut headers = HeaderMap::with_capacity(8);
    open(&mut headers, NO_STORE);
    headers.insert(header::LOCATION, location);
    finish(StatusCode::FOUND, headers, Bytes::new())
}

/// Events as they happen.
pub fn events(reader: Reader, unix_ms: i64) -> Response {
    let mut headers = HeaderMap::with_capacity(8);
    open(&mut headers, NO_STORE);
    headers.insert(header::CONTENT_TYPE, EVENTS);
    // Other answers have it from hyper.
    let date = chrono::DateTime::from_timestamp_millis(unix_ms).unwrap_or_default();
    if let Ok(date) = HeaderValue::try_from(date.format("%a, %d %b %Y %H:%M:%S GMT").to_string()) {
        headers.insert(header::DATE, date);
    }
    // nginx would gather events until its buffer is full.
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    let mut response = Response::new(Body::Events(Box::new(reader)));
    *response.headers_mut() = headers;
    response
}

/// A page script; without a body where the browser holds this very file.
pub fn script(
    mut headers: HeaderMap,
    body: Option<&'static [u8]>,
    tag: HeaderValue,
    cache: HeaderValue,
) -> Response {
    open(&mut headers, cache);
    headers.insert(header::ETAG, tag);
    headers.insert(RESOURCE_POLICY, CROSS_ORIGIN);
    let Some(body) = body else { return finish(StatusCode::NOT_MODIFIED, headers, Bytes::new()) };
    headers.insert(header::CONTENT_TYPE, JAVASCRIPT);
    finish(StatusCode::OK, headers, Bytes::from_static(body))
}

/// A fault on the public listener.
pub fn refused(fault: Fault) -> Response {
    let mut headers = HeaderMap::with_capacity(8);
    open(&mut headers, NO_STORE);
    headers.insert(header::CONTENT_TYPE, PROBLEM);
    explain(&mut headers, fault);
    finish(fault.status(), headers, problem(fault).into())
}

/// The public 405.
pub fn not_allowed(methods: Methods) -> Response {
    let mut response = refused(Reason::MethodNotAllowed.into());
    response.headers_mut().insert(header::ALLOW, methods.allow());
    response
}

/// A fault on the admin listener.
pub fn admin_refused(fault: Fault, methods: Option<Methods>) -> Response {
    let mut response = admin(fault.status(), PROBLEM, problem(fault));
    if let Some(methods) = methods {
        response.headers_mut().insert(header::ALLOW, methods.allow());
    }
    response
}

/// Text for operators.
pub fn admin_text(status: StatusCode, text: impl Into<Vec<u8>>) -> Response {
    admin(status, TEXT, text.into())
}

/// An answer on the admin listener.
pub fn admin(status: StatusCode, kind: HeaderValue, body: Vec<u8>) -> Response {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    finish(status, headers, body.into())
}

/// An answer on the admin listener, packed for who can unpack it.
pub fn admin_packed(asker: &HeaderMap, kind: HeaderValue, body: Vec<u8>) -> Response {
    let packed = takes_gzip(asker).then(|| gzip(&body)).flatten();
    let encoded = packed.is_some();
    let mut response = admin(StatusCode::OK, kind, packed.unwrap_or(body));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if encoded {
        response.headers_mut().insert(header::CONTENT_ENCODING, GZIP);
    }
    response
}

/// Whether an asker takes gzip (RFC 9110 §12.5.3).
fn takes_gzip(asker: &HeaderMap) -> bool {
    let said = asker.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    said.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0));
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    let room = Vec::with_capacity(body.len() / 8);
    let mut packer = flate2::write::GzEncoder::new(room, flate2::Compression::fast());
    packer.write_all(body).ok()?;
    packer.finish().ok()
}

/// What every public answer with a body begins with.
fn open(headers: &mut HeaderMap, cache: HeaderValue) {
    share(headers, cache);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
}

/// What every public answer bears: any page may read it. What stood in the table goes.
fn share(headers: &mut HeaderMap, cache: HeaderValue) {
    headers.clear();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.insert(header::CACHE_CONTROL, cache);
}

/// What a fault adds.
fn explain(headers: &mut HeaderMap, fault: Fault) {
    if let Some(seconds) = fault.retry_after() {
        headers.insert(header::RETRY_AFTER, seconds);
    }
    if fault.closes() {
        headers.insert(header::CONNECTION, CLOSE);
    }
}

fn finish(status: StatusCode, headers: HeaderMap, body: Bytes) -> Response {
    let mut response = Response::new(Body::Whole(Full::new(body)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The problem document (RFC 9457). Its type is `about:blank`, its title the status' own: what tells
/// problems apart is the code. All of it is our text and needs no escaping.
fn problem(fault: Fault) -> Vec<u8> {
    let (status, detail) = fault.meaning();
    let mut body = Vec::with_capacity(192);
    for piece in [
        r#"{"type":"about:blank","title":""#,
        status.canonical_reason().unwrap_or_default(),
        r#"","status":"#,
        status.as_str(),
        r#","detail":""#,
        detail,
        r#"","code":""#,
        fault.code(),
        r#""}"#,
    ] {
        body.extend_from_slice(piece.as_bytes());
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn faults() -> impl Iterator<Item = Fault> {
        Reason::ALL.into_iter().map(Fault::from).chain([
            Fault::NotFound,
            Fault::StoreUnreachable,
            Fault::LiveFull,
            Fault::WrongToken,
        ])
    }

    #[test]
    fn problems_are_json_of_the_promised_members() {
        for fault in faults() {
            let body: serde_json::Value = serde_json::from_slice(&problem(fault)).unwrap();
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
            assert_eq!(headers["access-control-expose-headers"], "Footfall-Reason, Retry-After, ETag");
            assert_eq!(headers["cache-control"], "no-store");
            assert_eq!(headers["x-content-type-options"], "nosniff");
            assert_eq!(headers["content-type"], "application/problem+json");
            assert_eq!(headers.contains_key("retry-after"), fault.status() == 503, "{fault:?}");
            assert!(!headers.contains_key("set-cookie"));
        }
    }

    #[tokio::test]
    async fn the_gif_is_43_bytes_with_the_status_of_its_fault() {
        let counted = gif(HeaderMap::new(), None);
        assert_eq!(counted.status(), 200);
        assert_eq!(counted.headers()["cross-origin-resource-policy"], "cross-origin");
        assert!(!counted.headers().contains_key("footfall-reason"));
        let pixel = counted.into_body().collect().await.unwrap().to_bytes();
        assert_eq!((pixel.len(), &pixel[..6], pixel[42]), (43, b"GIF89a".as_slice(), b';'));

        let full = gif(HeaderMap::new(), Some(Reason::JournalFull.into()));
        assert_eq!(full.status(), 503);
        assert_eq!(full.headers()["footfall-reason"], "journal-full");
        assert_eq!(full.headers()["retry-after"], "30");
        assert_eq!(full.into_body().collect().await.unwrap().to_bytes().len(), 43);
    }

    #[test]
    fn a_304_has_the_cache_headers_and_no_body() {
        use hyper::body::Body;
        let answer = |body, stale| figures(HeaderMap::new(), body, HeaderValue::from_static("\"a\""), stale);
        let full = answer(Some(Bytes::from_static(b"{}")), false);
        assert_eq!((full.status(), &full.headers()["content-type"]), (StatusCode::OK, &JSON));
        let same = answer(None, false);
        assert_eq!(same.status(), 304);
        assert_eq!(same.headers()["etag"], full.headers()["etag"]);
        assert_eq!(
            same.headers()["cache-control"],
            "public, max-age=5, stale-while-revalidate=30, stale-if-error=86400"
        );
        assert!(same.body().is_end_stream() && !same.headers().contains_key("content-type"));
        let stale = answer(None, true);
        assert_eq!(
            (stale.status(), &stale.headers()["cache-control"]),
            (StatusCode::NOT_MODIFIED, &NO_STORE)
        );
    }

    #[test]
    fn nothing_of_the_request_comes_back() {
        let mut request = HeaderMap::new();
        request.insert("cookie", HeaderValue::from_static("a=b"));
        request.insert("cache-control", HeaderValue::from_static("max-age=0"));
        let answer = no_content(request);
        assert_eq!(answer.status(), 204);
        let mut names: Vec<_> = answer.headers().keys().map(header::HeaderName::as_str).collect();
        names.sort_unstable();
        let promised = ["access-control-allow-origin", "access-control-expose-headers", "cache-control"];
        assert_eq!(names, promised);
        assert_eq!(answer.headers()["cache-control"], "no-store");
    }
}
