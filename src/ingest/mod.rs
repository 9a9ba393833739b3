//! Takes beacons: bytes in, a decided [`Beacon`] or a [`Reason`] out. No I/O, no clock, and no state of its own but
//! that of the [`Limits`]: the tables it fills otherwise ([`Hours`], and what [`Robots`] remember) only save calculating
//! the same again.

mod client;
mod filter;
mod limits;
mod location;
mod page;
mod reason;
mod robots;
mod visitor;
mod wire;

use std::borrow::Cow;

use hyper::HeaderMap;
use hyper::header::{HeaderValue, ORIGIN, REFERER};

pub use client::{Client, ClientHeader, ClientSource, Proxies};
pub use limits::{Admission, Asking, Limits, Rate, Rates};
pub use page::{MAX_PAGE, OTHER, Page};
pub use reason::{Cause, Reason, Refusal};
pub use robots::{BROWSERS, Robots};
pub use visitor::{SaltTable, SiteSalts, Visitor, VisitorId};
pub use wire::{Kind, Said};

use crate::calendar::{CivilHour, Span};
use crate::clock::Moment;
use crate::sites::{Honour, Hours, OriginCheck, RobotRule, Site, SiteId, Sites};
use filter::Sender;
use location::Location;

/// The civil hours of the sites.
pub type Spans = Hours<Span>;

/// The largest body of a beacon, bytes.
pub const MAX_BODY: usize = 4096;

/// A decided beacon, all that totals and sessions need. Of kind view, this is the view.
#[derive(Clone, Debug)]
pub struct Beacon {
    /// View, ping or leave.
    pub kind: Kind,
    /// The site.
    pub site: SiteId,
    /// The page.
    pub page: Page,
    /// Its visitor; none if the site's identity is `none`.
    pub visitor: Option<Visitor>,
    /// The salted hash of site, page and the beacon's `id`; none without an `id`.
    pub id: Option<u64>,
    /// When it was accepted.
    pub at: Moment,
    /// The civil hour it is counted in.
    pub hour: CivilHour,
    /// A robot sent it, and its site counts those to compare.
    pub is_shadow: bool,
}

/// Everything that decides beside what the beacon itself says.
pub struct Context<'a, T = Span> {
    /// The registered sites.
    pub sites: &'a Sites,
    /// The civil hours of the sites.
    pub spans: &'a Hours<T>,
    /// The salts in force.
    pub salts: &'a SaltTable,
    /// Knows robots.
    pub robots: &'a Robots,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// Who sent the request, as found by [`Proxies::client`].
    pub client: Client,
    /// Now.
    pub now: Moment,
}

/// Decides a beacon: it is accepted, refused as `unknown-site`, `bad-url` or `wrong-origin`, or left out by a rule of its
/// site.
pub fn accept<T: From<Span>>(said: &Said<'_>, context: &Context<'_, T>) -> Result<Beacon, Refusal> {
    let named = match &said.site {
        Some(key) => Some(context.sites.get(key).ok_or_else(|| unknown_key(context.sites, key))?),
        None => None,
    };
    let of_named = named.map(|site| site.id);
    let refusal = |site, reason, cause| Refusal { site, cause, ..Refusal::from(reason) };
    // As browsers read an attribute of a page, whose writer broke the line.
    let url = said.url.trim_matches(|c| c <= ' ');
    let location =
        located(named.map(|site| &**site), url).ok_or_else(|| refusal(of_named, Reason::BadUrl, None))?;
    let host = location.host.as_deref();
    let site = match named {
        Some(site) => site,
        None => host
            .and_then(|host| context.sites.only_at_host(host))
            .ok_or_else(|| refusal(None, Reason::UnknownSite, Some(unknown_host(host))))?,
    };
    let foreign = host.filter(|host| !site.has_host(host)).map(|host| foreign_host(site, host));
    if let Some(cause) = foreign.or_else(|| foreign_sender(site, context.headers)) {
        return Err(refusal(Some(site.id), Reason::WrongOrigin, Some(cause)));
    }
    let Context { salts, headers, client, robots, now, .. } = *context;
    let span = context.spans.span(site, now.unix_ms);
    let page = Page::normalise(site.id, &site.pages, &location.path);
    let sender = Sender::of(headers);
    let left_out = filter::left_out(site, page.as_str(), said.consent, client, &sender, robots);
    let is_shadow = site.filter.robots == RobotRule::Shadow
        && left_out.as_ref().is_some_and(|(reason, _)| *reason == Reason::Robot);
    if let Some((reason, cause)) = left_out.filter(|_| !is_shadow) {
        let left_out_in = (said.kind == Kind::View).then_some(span.hour);
        return Err(Refusal { left_out_in, ..refusal(Some(site.id), reason, cause) });
    }
    // By the name that it has itself: a view that is sent again after the page moved counts once.
    let id = said.id.as_deref().map(|id| salts.view_id(site, page.as_str(), id));
    let page = shown_as(site, &page).unwrap_or(page);
    let browser = said.visitor.as_deref();
    let is_nobody = site.filter.honour_as == Honour::WithoutIdentity && sender.has_opted_out(site);
    let identified = || visitor::identified(site, salts, browser, client.address, sender.user_agent, &span);
    let visitor = if is_nobody { None } else { identified() };
    Ok(Beacon { kind: said.kind, site: site.id, page, visitor, id, at: now, hour: span.hour, is_shadow })
}

/// What a page is counted and shown as, if it moved; [`OTHER`] where it was erased.
pub fn shown_as(site: &Site, page: &Page) -> Option<Page> {
    let to = site.pages.aliases.shown_as(page.as_str())?;
    Some(Page::trusted(site.id, to))
}

/// Reads a page as a reader names it: a path, or a URL of one of the site's hosts; else `bad-url`. One that moved is
/// the page that it is shown as.
pub fn read_page(site: &Site, said: &str) -> Result<Page, Reason> {
    let page = named_page(site, said)?;
    Ok(shown_as(site, &page).filter(|to| to.as_str() != OTHER).unwrap_or(page))
}

/// The same, but by its own name.
pub fn named_page(site: &Site, said: &str) -> Result<Page, Reason> {
    let location = located(Some(site), said).ok_or(Reason::BadUrl)?;
    if location.host.as_deref().is_some_and(|host| !site.has_host(host)) {
        return Err(Reason::BadUrl);
    }
    Ok(Page::normalise(site.id, &site.pages, &location.path))
}

/// Where a URL points. Of a page in an app whose origin is the site's, its path does.
fn located<'a>(site: Option<&Site>, url: &'a str) -> Option<Location<'a>> {
    let in_app = || {
        let mut origins = site?.origins.iter().filter(|origin| origin.contains("://"));
        origins
            .find_map(|origin| url.strip_prefix(origin.as_str()))
            .map(|path| if path.is_empty() { "/" } else { path })
    };
    Location::of(url).or_else(|| in_app().filter(|path| path.starts_with('/')).and_then(Location::of))
}

/// What is wrong with the page that sent a beacon, by its `Origin` or else its `Referer`; none where it may send beacons
/// of the site. This keeps the pages of other sites out. It cannot keep out a program, which can send any header.
fn foreign_sender(site: &Site, headers: &HeaderMap) -> Option<Cause> {
    let origins = headers.get_all(ORIGIN);
    // Some proxies empty the `Referer` instead of removing it.
    let referers = || headers.get_all(REFERER).iter().filter(|referer| !referer.is_empty());
    let is_foreign = |url: &&HeaderValue| !is_from(site, url);
    let origin = origins.iter().find(is_foreign);
    if origin.is_none() && origins.iter().next().is_some() {
        return None;
    }
    let has_referer = referers().next().is_some();
    // A redirect from one address of the service to another (http to https) makes it `null`.
    let is_lost = origin.is_some() && origins.iter().all(|origin| origin == "null");
    match origin {
        Some(origin) if !(is_lost && has_referer) => Some(foreign_origin(site, origin)),
        _ if has_referer => referers().find(is_foreign).map(|url| foreign_origin(site, url)),
        _ => (site.origin_check == OriginCheck::Strict).then(|| {
            Cause::named("no Origin", |_| {
                format!(
                    "Neither Origin nor Referer is there, and origin_check of site {} is strict.",
                    site.key
                )
            })
        }),
    }
}

fn unknown_key(sites: &Sites, key: &str) -> Refusal {
    let cause = Cause::named(key, |name| match sites.near(key) {
        Some(near) => format!("No site has the key {name}: did you mean {near}?"),
        None => format!("No site has the key {name}: add it as a [[site]], or name one of those there are."),
    });
    Refusal { cause: Some(cause), ..Reason::UnknownSite.into() }
}

fn unknown_host(host: Option<&str>) -> Cause {
    Cause::named(host.unwrap_or("no host"), |name| match host {
        Some(_) => {
            format!("The host {name} is not that of one site alone: add it to hosts, or name the site.")
        }
        None => "A path alone belongs to no site: name the site.".to_owned(),
    })
}

fn foreign_host(site: &Site, host: &str) -> Cause {
    Cause::named(host, |name| {
        format!("The page's host {name} is not the site's: add it to hosts of site {}.", site.key)
    })
}

/// The sender is named by its host, never by its page.
fn foreign_origin(site: &Site, url: &HeaderValue) -> Cause {
    let url = String::from_utf8_lossy(url.as_bytes());
    let host = Location::absolute(&url).and_then(|location| location.host.map(Cow::into_owned));
    let scheme_and_host = url.split('/').take(3).collect::<Vec<_>>().join("/");
    Cause::named(&host.unwrap_or(scheme_and_host), |name| {
        format!(
            "The sending page is of {name}, not of the site: add it to hosts or origins of site {}.",
            site.key
        )
    })
}

/// Whether the URL in a header is of a host of the site, or of one that may send its beacons.
fn is_from(site: &Site, url: &HeaderValue) -> bool {
    // Nearly always it is an `Origin` of a scheme and a host only, which needs no parser.
    let bare =
        [&b"https://"[..], b"http://"].into_iter().find_map(|scheme| url.as_bytes().strip_prefix(scheme));
    if bare.is_some_and(|bare| site.hosts.iter().any(|host| host.as_bytes() == bare)) {
        return true;
    }
    // No URL of the web: `null`, and the pages of an app.
    if site.origins.iter().any(|origin| origin.as_bytes().eq_ignore_ascii_case(url.as_bytes())) {
        return true;
    }
    // Of a query, old browsers send any bytes.
    let url = String::from_utf8_lossy(url.as_bytes());
    let location = Location::absolute(&url);
    let host = location.as_ref().and_then(|location| location.host.as_deref());
    host.is_some_and(|host| site.takes_from(host))
}

#[cfg(test)]
mod tests;
