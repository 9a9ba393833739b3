//! One accepted view, ping or leave as the journal keeps it.
//!
//! ```text
//! group  records, one after another (a frame of the journal)
//! record flags u8 (1 visit · 2 visitor · 4 visitor of the neighbouring day · 8 id · 16 no room for a
//!        session · since format 2: 32 a ping · 64 a leave · 128 a ping that found no session)
//!        site text · accepted at i64 (Unix ms) · civil hour · [visitor u64] · [of the neighbouring
//!        day u64] · [id u64] · page text
//! ```
//!
//! Integers, texts and the civil hour as in `codec`. No address and no user agent is in it; the
//! visitor is a salted hash.

use crate::calendar::CivilHour;
use crate::ingest::{Beacon, Kind};
use crate::sessions::Sighting;
use crate::totals::disk::codec::{Damaged, Put, Take};

const VISIT: u8 = 1;
const VISITOR: u8 = 2;
const BESIDE: u8 = 4;
const ID: u8 = 8;
const FULL: u8 = 16;
const PING: u8 = 32;
const LEAVE: u8 = 64;
const NO_SESSION: u8 = 128;

/// A view, a ping or a leave read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub kind: Kind,
    pub site: &'a str,
    /// When it was accepted, Unix milliseconds.
    pub at_ms: i64,
    /// The civil hour it counts in.
    pub hour: CivilHour,
    /// What it was to its visitor's session: a start must not decide that anew.
    pub sighting: Sighting,
    /// The visitor under the day's salt.
    pub visitor: Option<u64>,
    /// And under the salt of the neighbouring day.
    pub beside: Option<u64>,
    /// The hash of its id.
    pub id: Option<u64>,
    pub page: &'a str,
}

/// Appends a beacon to a group.
pub fn encode(group: &mut Vec<u8>, site: &str, view: &Beacon, sighting: Sighting) {
    let beside = view.visitor.and_then(|v| v.beside);
    let mut flags = match sighting {
        Sighting::Visit => VISIT,
        Sighting::Full => FULL,
        Sighting::NoSession => NO_SESSION,
        Sighting::Known | Sighting::Anonymous => 0,
    };
    flags |= match view.kind {
        Kind::View => 0,
        Kind::Ping => PING,
        Kind::Leave => LEAVE,
    };
    flags |= if view.visitor.is_some() { VISITOR } else { 0 };
    flags |= if beside.is_some() { BESIDE } else { 0 };
    flags |= if view.id.is_some() { ID } else { 0 };
    group.put_u8(flags);
    group.put_text(site);
    group.put_i64(view.at.unix_ms);
    group.put_hour(&view.hour);
    for number in [view.visitor.map(|v| v.today.0), beside.map(|v| v.0), view.id].into_iter().flatten() {
        group.put_u64(number);
    }
    group.put_text(view.page.as_str());
}

/// Reads the beacons of a group. [`Damaged`], though its checksum was right: written by another version.
pub fn decode<'a>(group: &'a [u8], mut each: impl FnMut(Record<'a>)) -> Result<(), Damaged> {
    let mut take = Take(group);
    while !take.0.is_empty() {
        let flags = take.u8()?;
        let (site, at_ms, hour) = (take.text()?, take.instant()?, take.hour()?);
        let mut number = |flag| if flags & flag != 0 { take.u64().map(Some) } else { Ok(None) };
        let (visitor, beside, id) = (number(VISITOR)?, number(BESIDE)?, number(ID)?);
        let sighting = match visitor {
            _ if flags & VISIT != 0 => Sighting::Visit,
            _ if flags & FULL != 0 => Sighting::Full,
            _ if flags & NO_SESSION != 0 => Sighting::NoSession,
            Some(_) => Sighting::Known,
            None => Sighting::Anonymous,
        };
        let kind = match flags & (PING | LEAVE) {
            0 => Kind::View,
            PING => Kind::Ping,
            _ => Kind::Leave,
        };
        each(Record { kind, site, at_ms, hour, sighting, visitor, beside, id, page: take.text()? });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
