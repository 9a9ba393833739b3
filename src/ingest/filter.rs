//! Who does not belong: why a beacon that is understood is left out of its site's totals.

use hyper::HeaderMap;

use super::client::Client;
use super::reason::{Cause, Reason};
use super::robots::{Mark, Robots};
use crate::sites::{Honour, RobotRule, Signal, Site};

/// What a browser calls a page that it loads for nobody yet.
const AHEAD: [&[u8]; 2] = [b"prefetch", b"preview"];

/// What the headers of a request tell of who sent it, gathered in one pass.
#[derive(Clone, Copy, Default)]
pub struct Sender<'a> {
    pub user_agent: &'a [u8],
    brands: &'a [u8],
    is_ahead: bool,
    prerenders: bool,
    is_image: bool,
    navigates: bool,
    gpc: bool,
    dnt: bool,
}

impl<'a> Sender<'a> {
    pub fn of(headers: &'a HeaderMap) -> Self {
        let mut sender = Sender::default();
        for (name, value) in headers {
            let value = value.as_bytes();
            match name.as_str() {
                "user-agent" if sender.user_agent.is_empty() => sender.user_agent = value,
                "sec-ch-ua" => sender.brands = value,
                "sec-fetch-dest" => sender.is_image = value == b"image",
                "sec-fetch-mode" => sender.navigates = value == b"navigate",
                "sec-gpc" => sender.gpc = value == b"1",
                "dnt" => sender.dnt = value == b"1",
                // The first is today's, the others are older browsers'.
                "sec-purpose" | "purpose" | "x-purpose" | "x-moz" => {
                    sender.prerenders |= has(value, b"prerender");
                    sender.is_ahead |= AHEAD.iter().any(|word| has(value, word));
                }
                _ => {}
            }
        }
        sender
    }

    /// Whether the browser bears a wish that a site honours.
    pub fn has_opted_out(&self, site: &Site) -> bool {
        let bears = |wish: &Signal| match wish {
            Signal::Gpc => self.gpc,
            Signal::Dnt => self.dnt,
        };
        site.honour.iter().any(bears)
    }

    /// By what it is a program and no browser, for people.
    fn robot(&self, site: &Site, robots: &Robots) -> Option<Cause> {
        let mark = robots.mark(self.user_agent, self.brands);
        let allows = |word: &String| has(self.user_agent, word.as_bytes());
        if mark.is_none() && !self.navigates || site.filter.robots_allow.iter().any(allows) {
            return None;
        }
        let (name, remedy) = match mark {
            Some(Mark::Word(word)) => (word, format!("The user agent contains {word:?}.")),
            Some(Mark::Old(browser)) => {
                (browser, format!("The user agent names a version of {browser} that is no longer in use."))
            }
            Some(Mark::NoEngine) => ("no engine", "The user agent names no browser's engine.".to_owned()),
            Some(Mark::NoForm) => ("no browser", "The user agent does not begin as a browser's.".to_owned()),
            Some(Mark::Hints) => ("Sec-CH-UA", "Sec-CH-UA contradicts the user agent.".to_owned()),
            // A page sends its beacons by scripts and images: nobody goes to one.
            None => ("Sec-Fetch-Mode", "Sec-Fetch-Mode is that of a page, not of a beacon.".to_owned()),
        };
        Some(Cause { name: name.to_owned(), remedy })
    }
}

/// Why a beacon of a page is left out, and by which rule; none where it belongs to the readers of its site. A robot is
/// named last.
pub fn left_out(
    site: &Site,
    page: &str,
    has_consent: bool,
    client: Client,
    sender: &Sender<'_>,
    robots: &Robots,
) -> Option<(Reason, Option<Cause>)> {
    let rules = &site.filter;
    // The log has the setting alone: what is excluded may be one address.
    let by = |setting: &str, rule: &dyn std::fmt::Display| {
        Some(Cause { name: setting.to_owned(), remedy: format!("By {rule} in {setting}.") })
    };
    if let Some(network) = rules.addresses.iter().find(|network| network.contains(&client.address)) {
        return Some((Reason::ExcludedAddress, by("exclude_addresses", network)));
    }
    if let Some(excluded) = rules.pages.iter().find(|excluded| excluded.covers(page)) {
        return Some((Reason::ExcludedPage, by("exclude_pages", excluded)));
    }
    if site.require_consent && !has_consent {
        return Some((Reason::NoConsent, None));
    }
    if rules.honour_as == Honour::LeaveOut && sender.has_opted_out(site) {
        return Some((Reason::OptedOut, None));
    }
    // A script sends its beacon when the page is shown, and Chromium 156 calls it prerendered a moment longer.
    if sender.is_ahead && (!sender.prerenders || sender.is_image) {
        return Some((Reason::Prefetch, None));
    }
    if rules.robots == RobotRule::Count {
        return None;
    }
    sender.robot(site, robots).map(|cause| (Reason::Robot, Some(cause)))
}

/// Whether a text has a word, in any letter case.
fn has(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}
