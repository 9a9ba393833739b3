//! Visitors: salted identities that are good for one civil day.
//!
//! The hashed bytes are unambiguous: they begin with the kind of what is hashed and the length of each field,
//! so that an address never equals a browser's id, nor a visitor of one site that of another. Their order is
//! fixed, so that instances which share a store and its salts make the same ids.

use std::net::IpAddr;

use chrono::NaiveDate;
use siphasher::sip::SipHasher13;

use crate::calendar::Span;
use crate::sites::{Identity, Site, SiteId};

/// In this civil hour the next day may have begun before: the wall clock may have been set back over midnight
/// before the salts, which are drawn some seconds after it, show that.
const LAST_HOUR: u8 = 23;

/// A salted identity: SipHash-1-3 of site and identity under the site's salt of one civil day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VisitorId(pub u64);

/// Who sent a beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// Under the salt of the beacon's civil day.
    pub today: VisitorId,
    /// Under the salt of the neighbouring day, while a session of that day may be alive: the day before, or
    /// the day after if the wall clock may have been set back over midnight.
    pub beside: Option<VisitorId>,
}

/// The salts of one site, each for one civil day, newest last. They are drawn a day ahead and kept two days:
/// there are four, unless the wall clock was set back.
#[derive(Clone, Default)]
pub struct SiteSalts {
    /// Day and key.
    pub days: Vec<(NaiveDate, [u8; 16])>,
}

impl SiteSalts {
    /// The salt of a day.
    pub fn of(&self, day: NaiveDate) -> Option<&[u8; 16]> {
        self.days.iter().rev().find(|(salted, _)| *salted == day).map(|(_, salt)| salt)
    }

    /// The salt of the day nearest to one that has none.
    fn nearest(&self, day: NaiveDate) -> Option<&[u8; 16]> {
        let distance = |salted: NaiveDate| (salted - day).num_days().abs();
        self.days.iter().min_by_key(|(salted, _)| distance(*salted)).map(|(_, salt)| salt)
    }

    /// The salt of the neighbouring day in which a session may have begun. For most of the day there is none,
    /// which saves the second hash. The next day has begun before if the day after it has a salt.
    fn beside(&self, Span { hour, neighbour, .. }: &Span) -> Option<&[u8; 16]> {
        if let Some(day) = neighbour {
            return self.of(*day);
        }
        let next = hour.day.succ_opt()?;
        let may_have_begun = hour.hour == LAST_HOUR || self.of(next.succ_opt()?).is_some();
        self.of(next).filter(|_| may_have_begun)
    }
}

/// The salts of all sites in order of [`SiteId`], and the key that view ids are hashed with.
/// Replaced as a whole when a salt is drawn or deleted.
#[derive(Clone, Default)]
pub struct SaltTable {
    /// By site.
    pub sites: Vec<SiteSalts>,
    /// The key of view ids: kept for the life of a data directory.
    pub id_key: [u8; 16],
}

impl SaltTable {
    /// The salts of a site.
    pub fn site(&self, id: SiteId) -> Option<&SiteSalts> {
        self.sites.get(id.index())
    }

    /// The hash of the `id` that names a view of a page.
    pub(super) fn view_id(&self, site: &Site, page: &str, id: &str) -> u64 {
        let fields = [site.key.as_str(), page, id];
        hashed(&self.id_key, Subject::ViewId, fields.map(str::as_bytes))
    }
}

/// What tells a visitor apart, before it is salted.
enum UnsaltedIdentity<'a> {
    Address { address: IpAddr, user_agent: &'a [u8] },
    Browser { id: &'a str },
}

impl UnsaltedIdentity<'_> {
    fn salted(&self, site: &Site, salt: &[u8; 16]) -> VisitorId {
        let key = site.key.as_str().as_bytes();
        VisitorId(match self {
            UnsaltedIdentity::Address { address: IpAddr::V4(v4), user_agent } => {
                hashed(salt, Subject::Address, [key, &v4.octets(), user_agent])
            }
            UnsaltedIdentity::Address { address: IpAddr::V6(v6), user_agent } => {
                hashed(salt, Subject::Address, [key, &v6.octets(), user_agent])
            }
            UnsaltedIdentity::Browser { id } => hashed(salt, Subject::Browser, [key, id.as_bytes(), b""]),
        })
    }
}

/// What is hashed. The numbers are part of every hash on disk.
#[derive(Clone, Copy)]
enum Subject {
    Address = 1,
    Browser = 2,
    ViewId = 3,
}

/// SipHash-1-3 of the subject and the fields' lengths (four bytes each, little-endian), then the fields.
fn hashed(key: &[u8; 16], subject: Subject, fields: [&[u8]; 3]) -> u64 {
    let [first, second, third] = fields.map(|field| u128::from(field.len() as u32));
    let lengths = subject as u128 | first << 32 | second << 64 | third << 96;
    let hasher = SipHasher13::new_with_key(key);
    // One piece is hashed much faster than four.
    let mut piece = [0; AT_ONCE];
    let length = LENGTHS + fields.iter().map(|field| field.len()).sum::<usize>();
    let Some(room) = piece.get_mut(..length) else {
        let pieces: Vec<u8> = [&lengths.to_le_bytes()[..], fields[0], fields[1], fields[2]].concat();
        return hasher.hash(&pieces);
    };
    let (head, mut rest) = room.split_at_mut(LENGTHS);
    head.copy_from_slice(&lengths.to_le_bytes());
    for field in fields {
        let (place, left) = rest.split_at_mut(field.len());
        place.copy_from_slice(field);
        rest = left;
    }
    hasher.hash(room)
}

/// Length of subject and lengths, bytes.
const LENGTHS: usize = 16;

/// The most that is hashed without an allocation: nearly every user agent is shorter.
const AT_ONCE: usize = 384;

/// Who sent a beacon: none if the site tells nobody apart, or has no salt yet. A day without a salt takes that
/// of the nearest day, so that visitors are still told apart, though that salt is kept longer.
pub(super) fn identified(
    site: &Site,
    salts: &SaltTable,
    browser: Option<&str>,
    address: IpAddr,
    user_agent: &[u8],
    span: &Span,
) -> Option<Visitor> {
    let told = match (site.identity, browser) {
        (Identity::None, _) => return None,
        (Identity::Browser, Some(id)) => UnsaltedIdentity::Browser { id },
        _ => UnsaltedIdentity::Address { address, user_agent },
    };
    let salts = salts.site(site.id)?;
    let day = span.hour.day;
    let today = told.salted(site, salts.of(day).or_else(|| salts.nearest(day))?);
    let beside = salts.beside(span).map(|salt| told.salted(site, salt));
    Some(Visitor { today, beside: beside.filter(|id| *id != today) })
}
