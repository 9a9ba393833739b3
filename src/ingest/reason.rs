//! The one word for why a beacon was refused.

/// Why a beacon was refused or not counted: the answer's code, the metric's label and the log's
/// field are this one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not JSON of the described shape.
    Malformed,
    /// Neither an http(s) URL nor a path.
    BadUrl,
    /// The URL's host, the `Origin` or the `Referer` is not the site's.
    WrongOrigin,
    /// No such site, or none belongs to the URL's host alone.
    UnknownSite,
    /// Not a method of this path.
    MethodNotAllowed,
    /// The body did not arrive in time.
    Timeout,
    /// The body is larger than [`MAX_BODY`](super::MAX_BODY).
    TooLarge,
    /// The promise of a 204 cannot be kept now.
    Overloaded,
    /// The journal or the outbox is at its bound.
    JournalFull,
}

impl Reason {
    /// Every reason, in a fixed order.
    pub const ALL: [Reason; 9] = [
        Reason::Malformed,
        Reason::BadUrl,
        Reason::WrongOrigin,
        Reason::UnknownSite,
        Reason::MethodNotAllowed,
        Reason::Timeout,
        Reason::TooLarge,
        Reason::Overloaded,
        Reason::JournalFull,
    ];

    /// The stable code: answer, metric label and log field.
    pub fn code(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::BadUrl => "bad-url",
            Reason::WrongOrigin => "wrong-origin",
            Reason::UnknownSite => "unknown-site",
            Reason::MethodNotAllowed => "method-not-allowed",
            Reason::Timeout => "timeout",
            Reason::TooLarge => "too-large",
            Reason::Overloaded => "overloaded",
            Reason::JournalFull => "journal-full",
        }
    }
}
