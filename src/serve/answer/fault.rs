//! Why a request is not answered as asked, and how an answer says so.

use std::borrow::Cow;

use hyper::StatusCode;
use hyper::header::HeaderValue;

use crate::ingest::{Cause, Reason};

/// Why a request is not answered as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A beacon's reason, or a read's of the same name.
    Refused(Reason),
    NotFound,
    /// The request is for another host than the admin listener's.
    Misdirected,
    /// No figure of the site is known and the store does not answer.
    StoreUnreachable,
    /// The token of a page is missing or wrong.
    WrongToken,
    /// What is read is kept for those who have a token, and none of them is shown.
    Unauthorized,
    LiveFull,
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        Fault::Refused(reason)
    }
}

impl Fault {
    /// The code by which programs know it.
    pub fn code(self) -> &'static str {
        match self {
            Fault::Refused(reason) => reason.word(),
            Fault::NotFound => "not-found",
            Fault::Misdirected => "misdirected",
            Fault::StoreUnreachable => "store-unreachable",
            Fault::WrongToken => "wrong-token",
            Fault::Unauthorized => "unauthorized",
            Fault::LiveFull => "live-full",
        }
    }

    /// The status and a sentence for people.
    fn meaning(self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Fault::NotFound => (
                S::NOT_FOUND,
                "There is nothing at this path of footfall, which counts the visits of news sites.",
            ),
            Fault::Misdirected => (
                S::MISDIRECTED_REQUEST,
                "The admin listener is not asked for under this host: if it is its own, add it to admin_hosts.",
            ),
            Fault::StoreUnreachable => {
                (S::SERVICE_UNAVAILABLE, "No figure of this site is known yet and the store does not answer.")
            }
            Fault::WrongToken => (S::FORBIDDEN, "The link is not, or no longer, the one to this page."),
            Fault::Unauthorized => (
                S::UNAUTHORIZED,
                "The site shows this only to those who have a token (Authorization: Bearer).",
            ),
            Fault::LiveFull => (
                S::SERVICE_UNAVAILABLE,
                "There are as many live readers as there may be, of all or of one address: ask again in a while.",
            ),
            Fault::Refused(reason) => match reason {
                Reason::Malformed => (S::BAD_REQUEST, "The request is not of the described shape."),
                Reason::BadUrl => {
                    (S::BAD_REQUEST, "The page is neither an http(s) URL of the site nor a path.")
                }
                Reason::WrongOrigin => (S::FORBIDDEN, "The URL or the sending page is not the site's."),
                Reason::UnknownSite => (S::NOT_FOUND, "No site is registered under this name or host."),
                Reason::NoConsent => (S::ACCEPTED, "The site counts only readers who have agreed to it."),
                Reason::OptedOut => (S::ACCEPTED, "The reader's browser asks not to be counted."),
                Reason::Robot => (
                    S::ACCEPTED,
                    "It is taken for a program's; robots_allow of the site takes in those that are readers'.",
                ),
                Reason::Prefetch => {
                    (S::ACCEPTED, "The page was loaded ahead of a reader, who has not come yet.")
                }
                Reason::ExcludedAddress => (S::ACCEPTED, "The site leaves out this address."),
                Reason::ExcludedPage => (S::ACCEPTED, "The site leaves out this page."),
                Reason::Reload => (S::ACCEPTED, "The visitor's view of this page was counted a while ago."),
                Reason::RateLimited => (S::TOO_MANY_REQUESTS, "More beacons come than are taken."),
                Reason::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "The path does not take this method."),
                Reason::Timeout => (S::REQUEST_TIMEOUT, "The body did not arrive in time."),
                Reason::TooLarge => (S::PAYLOAD_TOO_LARGE, "The body is larger than 4096 bytes."),
                Reason::Overloaded => (S::SERVICE_UNAVAILABLE, "Views cannot be kept at this moment."),
                Reason::JournalFull => (S::SERVICE_UNAVAILABLE, "There is no room to keep further views."),
                Reason::ClockWrong => (S::SERVICE_UNAVAILABLE, "The clock of this service is wrong."),
            },
        }
    }

    /// The sentence for people, and what is the cause.
    pub fn detail(self, cause: Option<&Cause>) -> Cow<'static, str> {
        let (_, meaning) = self.meaning();
        cause.map_or(meaning.into(), |cause| format!("{meaning} {}", cause.remedy).into())
    }

    pub fn status(self) -> StatusCode {
        self.meaning().0
    }

    /// After how many seconds it is worth trying again.
    pub fn retry_after(self) -> Option<HeaderValue> {
        match self {
            Fault::Refused(Reason::JournalFull) | Fault::LiveFull => Some(HeaderValue::from_static("30")),
            Fault::Refused(Reason::RateLimited) => Some(HeaderValue::from_static("10")),
            fault if fault.status() == StatusCode::SERVICE_UNAVAILABLE => Some(HeaderValue::from_static("5")),
            _ => None,
        }
    }

    /// The problem document (RFC 9457), with what is the cause. Its type is `about:blank` and its title the status'
    /// own: the code tells problems apart.
    pub fn problem(self, cause: Option<&Cause>) -> String {
        let (status, detail) = (self.status(), serde_json::Value::from(self.detail(cause)));
        let (title, number, code) =
            (status.canonical_reason().unwrap_or_default(), status.as_str(), self.code());
        format!(
            r#"{{"type":"about:blank","title":"{title}","status":{number},"detail":{detail},"code":"{code}"}}"#
        )
    }
}
