//! The one word for why a beacon was refused.

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
