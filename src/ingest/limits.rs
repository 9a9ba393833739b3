//! How often one client is taken, and how many new pages it brings.
//!
//! Each visitor has a share, and each address a larger one, since a whole carrier may stand behind it. What a visitor
//! sends beyond its own share takes nothing from the others of its address.
//!
//! A page that is not known is new, and is admitted at a rate by network and by site. One that is not admitted counts in
//! [`OTHER`] until another network asks for it too: who makes pages up does it from one.
//!
//! The memory of all this is fixed. A key is looked for in one line of the processor's cache, where the entry that says
//! least makes room for it: under a flood of clients the limits become more generous, never less.

use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;
use ipnet::IpNet;

use super::page::{OTHER, Page};
use super::reason::{Cause, Reason, Refusal};
use super::visitor::Visitor;
use super::wire::Kind;
use crate::clock::Moment;
use crate::sites::{Site, SiteId};

const MINUTE_US: u64 = 60_000_000;

/// A site's new pages may come at once as far as they come in so many minutes.
const SITE_MINUTES: u64 = 10;

/// A site's new pages of a minute are one part in so many of its room for pages.
const SITE_PART: u64 = 20;

/// Pages that other networks asked for before are admitted at so many times the rate of new ones.
const ASKED_FOR: u64 = 10;

/// The first 48 bits of IPv6 have so many times the rate of an address: a carrier gives them to many readers, and a data
/// centre to one machine.
const NETWORK: u64 = 20;

/// Entries that one look at a table finds: a line of the cache.
const WAYS: usize = 8;

/// Sets of the tables of buckets and of pages: half a mebibyte each, for 65,536 entries.
const SETS: usize = 1 << 13;

/// Sets of the table of views, which is made when a site asks for it: eight mebibytes, for a million views.
const VIEW_SETS: usize = 1 << 17;

/// Low bits of an entry that hold a time in microseconds, nine years from the start.
const TIME_BITS: u32 = 48;

/// Low bits of an entry that hold the network that asked for a page first, or [`ADMITTED`].
const ASKER_BITS: u32 = 24;

/// Low bits of an entry that hold a time in seconds.
const SECOND_BITS: u32 = 32;

/// In the place of the network that asked for a page first.
const ADMITTED: u64 = 0;

/// So many a minute; after a quiet while, those of some minutes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    each_us: u64,
    burst_us: u64,
}

impl Rate {
    /// So many a minute, all of which may come at once. None for 0: any number.
    pub fn a_minute(number: usize) -> Option<Rate> {
        (number > 0).then(|| Rate { each_us: MINUTE_US / number as u64, burst_us: MINUTE_US })
    }

    fn times(self, times: u64) -> Rate {
        Rate { each_us: (self.each_us / times).max(1), ..self }
    }

    /// That of the new pages of a site with room for so many.
    pub fn of_site(max_pages: usize) -> Rate {
        let a_minute = (max_pages as u64 / SITE_PART).max(1);
        Rate { each_us: MINUTE_US / a_minute, burst_us: SITE_MINUTES * MINUTE_US }
    }
}

/// The limits that are set.
#[derive(Clone, Debug)]
pub struct Rates {
    /// Beacons of a visitor.
    pub visitor: Option<Rate>,
    /// Beacons of an address to a site.
    pub address: Option<Rate>,
    /// New pages of a network to a site; none: pages are not limited.
    pub new_pages: Option<Rate>,
    /// New pages of a site.
    pub site_pages: Rate,
    /// Networks that are not limited.
    pub exempt: Vec<IpNet>,
}

impl Rates {
    /// Whether an address is not limited.
    pub fn exempts(&self, address: IpAddr) -> bool {
        self.exempt.iter().any(|network| network.contains(&address))
    }
}

/// A beacon as the limits see it.
pub struct Asking<'a> {
    /// The site.
    pub site: &'a Site,
    /// View, ping or leave.
    pub kind: Kind,
    /// The page.
    pub page: &'a Page,
    /// The visitor, if the site tells them apart.
    pub visitor: Option<Visitor>,
    /// The address of its client; none where that is not limited.
    pub address: Option<IpAddr>,
    /// Now.
    pub now: Moment,
    /// It only asks: nothing is used up.
    pub is_dry: bool,
    /// Looks up whether its page is in memory.
    pub has_page: &'a dyn Fn() -> bool,
    /// Looks up whether it is a view that was counted before and is sent again.
    pub is_repeated: &'a dyn Fn() -> bool,
}

/// What is made of a beacon that is within the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Whether its page is admitted; else it counts in [`OTHER`].
    pub page: bool,
    /// What is to be forgotten if the view cannot be kept; see [`Limits::forget`].
    pub noted: Option<u64>,
}

/// What a bucket, or something else that is kept by key, belongs to.
#[derive(Clone, Copy, Hash)]
enum Subject {
    Address,
    Network,
    Site,
    NewPages,
    NewPagesOfSite,
    PagesAskedFor,
    Asker,
}

/// The state of all limits.
pub struct Limits {
    hashes: RandomState,
    began_ms: u64,
    buckets: Table,
    pages: Table,
    views: OnceLock<Table>,
}

impl Limits {
    /// No one has been seen yet.
    pub fn new(now: Moment) -> Self {
        Limits {
            hashes: RandomState::default(),
            began_ms: now.uptime_ms,
            buckets: Table::new(SETS),
            pages: Table::new(SETS),
            views: OnceLock::new(),
        }
    }

    /// Whether a beacon is within the limits, and its page admitted; else `rate-limited` or `reload`.
    pub fn judge(&self, rates: &Rates, asking: &Asking<'_>) -> Result<Admission, Refusal> {
        let Asking { site, kind, visitor, address, now, .. } = *asking;
        if let Some(address) = address {
            let visitor = visitor.zip(rates.visitor).map(|(of, rate)| self.token(of.today.0, rate, now));
            let visitor = allowed(visitor, site.id, "limits.visitor")?;
            let of = |subject, bits, rate: Option<Rate>| {
                let key = || self.key(subject, site.id, prefix(address, bits));
                allowed(rate.map(|rate| self.token(key(), rate, now)), site.id, "limits.address")
            };
            let of_address = of(Subject::Address, 64, rates.address)?;
            let all = rates.address.filter(|_| address.is_ipv6()).map(|rate| rate.times(NETWORK));
            let network = of(Subject::Network, 48, all)?;
            spend([visitor, of_address, network], asking);
        }
        let mut noted = None;
        if kind == Kind::View {
            let seen = self.seen(asking);
            if seen.as_ref().is_some_and(|(_, is_again)| *is_again) && !(asking.is_repeated)() {
                return Err(Reason::Reload.of(site.id));
            }
            let key = || self.key(Subject::Site, site.id, 0);
            let token = Rate::a_minute(site.limits.views_per_minute).map(|rate| self.token(key(), rate, now));
            spend([allowed(token, site.id, "views_per_minute")?], asking);
            if let Some((entry, false)) = seen.filter(|_| !asking.is_dry) {
                entry.put(self.second(now));
                noted = Some(entry.key);
            }
        }
        Ok(Admission { page: self.admits(rates, asking), noted })
    }

    /// A view that was noted could not be kept: if it is sent again, it is no reload.
    pub fn forget(&self, noted: Option<u64>) {
        if let (Some(key), Some(views)) = (noted, self.views.get()) {
            let entry = views.entry(key, SECOND_BITS, |second| second);
            if entry.held.is_some() {
                entry.cell.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Of a site with a `reload_window`, the entry of visitor and page, and whether a view of them was counted within it.
    fn seen(&self, asking: &Asking<'_>) -> Option<(Entry<'_>, bool)> {
        let window_s = asking.site.limits.reload_window.as_secs();
        let visitor = asking.visitor.filter(|_| window_s > 0)?;
        let views = self.views.get_or_init(|| Table::new(VIEW_SETS));
        let key = self.hashes.hash_one((visitor.today.0, asking.page.key()));
        let entry = views.entry(key, SECOND_BITS, |second| second);
        let is_again = entry.held.is_some_and(|then| self.second(asking.now) < then + window_s);
        Some((entry, is_again))
    }

    /// Whether a page is counted under its own name.
    fn admits(&self, rates: &Rates, asking: &Asking<'_>) -> bool {
        let Asking { site, kind, page, address, now, .. } = *asking;
        let Some((rate, address)) = rates.new_pages.zip(address) else { return true };
        if page.as_str() == OTHER {
            return true;
        }
        let entry = self.pages.entry(page.key(), ASKER_BITS, |asker| (asker == ADMITTED).into());
        if entry.held == Some(ADMITTED) {
            return true;
        }
        let network = prefix(address, 48);
        let token = |subject, of, rate: Rate| self.token(self.key(subject, site.id, of), rate, now).map(Some);
        let asker = (self.key(Subject::Asker, site.id, network) % (1 << ASKER_BITS)) | 1;
        let is_known = (asking.has_page)();
        let as_new = || {
            let of_network = token(Subject::NewPages, network, rate)?;
            Some([of_network, token(Subject::NewPagesOfSite, 0, rates.site_pages)?])
        };
        let as_asked_for = || {
            entry.held.filter(|first| *first != asker)?;
            Some([token(Subject::PagesAskedFor, network, rate.times(ASKED_FOR))?, None])
        };
        // A ping or a leave brings no page.
        let tokens = if is_known || kind != Kind::View { None } else { as_new().or_else(as_asked_for) };
        let is_admitted = is_known || tokens.is_some();
        spend(tokens.into_iter().flatten(), asking);
        if !asking.is_dry && (is_admitted || (kind == Kind::View && entry.held.is_none())) {
            entry.put(if is_admitted { ADMITTED } else { asker });
        }
        is_admitted
    }

    /// What a bucket gives if it has one left; none where it is empty.
    fn token(&self, key: u64, rate: Rate, now: Moment) -> Option<Token<'_>> {
        let entry = self.buckets.entry(key, TIME_BITS, |until| until);
        let now_us = now.uptime_ms.saturating_sub(self.began_ms) * 1000;
        // The time at which the bucket is full again.
        let until_us = entry.held.unwrap_or(0).max(now_us) + rate.each_us;
        (until_us <= now_us + rate.burst_us).then_some(Token { entry, until_us })
    }

    fn key(&self, subject: Subject, site: SiteId, of: u64) -> u64 {
        self.hashes.hash_one((subject, site, of))
    }

    fn second(&self, now: Moment) -> u64 {
        now.uptime_ms.saturating_sub(self.began_ms) / 1000
    }
}

/// The first bits of an address: of IPv4 all of them.
fn prefix(address: IpAddr, bits: u32) -> u64 {
    match address {
        // No address of IPv6 begins so.
        IpAddr::V4(v4) => u64::from(v4.to_bits()) | 0xffff << 32,
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64 >> (64 - bits),
    }
}

/// One that a bucket gives.
struct Token<'a> {
    entry: Entry<'a>,
    until_us: u64,
}

/// The token of a limit that is set, if its bucket had one.
fn allowed<'a>(
    token: Option<Option<Token<'a>>>,
    site: SiteId,
    limit: &str,
) -> Result<Option<Token<'a>>, Refusal> {
    match token {
        Some(None) => {
            let cause = Cause::named(limit, |name| format!("It is more than {name} allows."));
            Err(Refusal { cause: Some(cause), ..Reason::RateLimited.of(site) })
        }
        token => Ok(token.flatten()),
    }
}

fn spend<'a>(tokens: impl IntoIterator<Item = Option<Token<'a>>>, asking: &Asking<'_>) {
    if !asking.is_dry {
        tokens.into_iter().flatten().for_each(|token| token.entry.put(token.until_us));
    }
}

/// A line of the cache.
#[derive(Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

/// Entries of a fixed number, a power of two. Each has some bits of its key, and below them what is kept.
struct Table(Box<[Set]>);

/// Where a key is, or is to be.
struct Entry<'a> {
    cell: &'a AtomicU64,
    key: u64,
    bits: u32,
    /// What is kept of it.
    held: Option<u64>,
}

impl Table {
    fn new(sets: usize) -> Self {
        Table((0..sets).map(|_| Set::default()).collect())
    }

    /// The entry of a key; where there is none, that of another which is worth least.
    fn entry(&self, key: u64, bits: u32, worth: impl Fn(u64) -> u64) -> Entry<'_> {
        let Set(cells) = &self.0[key as usize & (self.0.len() - 1)];
        let (mut least, mut cell) = (u64::MAX, &cells[0]);
        for other in cells {
            let word = other.load(Ordering::Relaxed);
            let value = word & ((1 << bits) - 1);
            if word >> bits == key >> bits {
                return Entry { cell: other, key, bits, held: Some(value) };
            }
            let worth = if word == 0 { 0 } else { 1 + worth(value) };
            if worth < least {
                (least, cell) = (worth, other);
            }
        }
        Entry { cell, key, bits, held: None }
    }
}

impl Entry<'_> {
    fn put(&self, value: u64) {
        let mask = (1 << self.bits) - 1;
        self.cell.store(self.key & !mask | value & mask, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
