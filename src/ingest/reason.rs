//! Why a beacon was refused: one word, and what in it is the cause.

use std::fmt::Display;

use crate::calendar::CivilHour;
use crate::sites::SiteId;

words! {
    /// Why a beacon was refused or not counted: the answer's code, the metric's label and the log's
    /// field are this one word.
    pub enum Reason {
        /// Not JSON of the described shape.
        Malformed = "malformed",
        /// Neither an http(s) URL nor a path.
        BadUrl = "bad-url",
        /// The URL's host, the `Origin` or the `Referer` is not the site's.
        WrongOrigin = "wrong-origin",
        /// No such site, or none belongs to the URL's host alone.
        UnknownSite = "unknown-site",
        /// The site counts only readers who agreed, and the beacon does not say so.
        NoConsent = "no-consent",
        /// The browser asks not to be counted, which the site honours.
        OptedOut = "opted-out",
        /// A program sent it, and no reader's browser.
        Robot = "robot",
        /// The page was loaded ahead, for nobody yet.
        Prefetch = "prefetch",
        /// Sent from an address that the site leaves out.
        ExcludedAddress = "excluded-address",
        /// Of a page that the site leaves out.
        ExcludedPage = "excluded-page",
        /// The site counts this visitor's views of this page once in a while.
        Reload = "reload",
        /// More beacons than a limit allows.
        RateLimited = "rate-limited",
        /// Not a method of this path.
        MethodNotAllowed = "method-not-allowed",
        /// The body did not arrive in time.
        Timeout = "timeout",
        /// The body is larger than [`MAX_BODY`](super::MAX_BODY).
        TooLarge = "too-large",
        /// The promise of a 204 cannot be kept now.
        Overloaded = "overloaded",
        /// The journal or the outbox is at its bound.
        JournalFull = "journal-full",
        /// The clock of this machine is behind: the view would count on a day that is over.
        ClockWrong = "clock-wrong",
    }
}

impl Reason {
    /// Why a view that is understood may be left out: each of them has sums of its own. In order of their words.
    pub const FILTERED: [Reason; 7] = [
        Reason::ExcludedAddress,
        Reason::ExcludedPage,
        Reason::NoConsent,
        Reason::OptedOut,
        Reason::Prefetch,
        Reason::Reload,
        Reason::Robot,
    ];

    /// The refusal for this reason of a beacon of a site.
    pub fn of(self, site: SiteId) -> Refusal {
        Refusal { site: Some(site), ..self.into() }
    }
}

/// The most characters of a cause's name.
const MAX_CAUSE: usize = 80;

/// A beacon that is not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The site, where it names a registered one or its URL has the host of one.
    pub site: Option<SiteId>,
    /// Why.
    pub reason: Reason,
    /// What in it is the cause, where there is more to say than the reason.
    pub cause: Option<Cause>,
    /// The civil hour in which it is counted as left out: of a view that was understood.
    pub left_out_in: Option<CivilHour>,
}

/// What in a beacon is the cause of its refusal, and by which rule. What is the sender's text is bounded, and never a
/// page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// A host, a key, the name of a member or of a setting, or a robot's mark.
    pub name: String,
    /// A sentence: what is wrong with it and what to add, or by which rule it is left out.
    pub remedy: String,
}

impl Cause {
    /// Of a name that the sender chose. `remedy` makes the sentence of it.
    pub(super) fn named<T: Display>(name: &str, remedy: impl FnOnce(&str) -> T) -> Self {
        let name: String = name.chars().flat_map(char::escape_debug).take(MAX_CAUSE).collect();
        Cause { remedy: remedy(&name).to_string(), name }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Refusal { site: None, reason, cause: None, left_out_in: None }
    }
}
