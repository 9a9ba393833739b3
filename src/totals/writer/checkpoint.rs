//! The checkpoint: what a restart needs that no batch carries. Sessions and ids up to a position of the
//! journal, the last known figures of the store, and how far the outbox was applied.
//!
//! ```text
//! file     magic "footfall" · "c" · format u8 = 2 · body · CRC-32 u32 of all before it
//! body     written at (Unix ms i64, uptime ms u64, start of the machine u128)
//!          · position (segment u64, offset u64) · applied u64
//!          · held sites, (site text, applied to it u64) …
//!          · last parts, (site text, hash text, id of a part as in `batch`) …
//!          · sites, text …             all below name a site by its index here
//!          · online pages, (site varint, text) …
//!          · sessions, (visitor u64, site varint, page u32, age u32 s, online u32 s, flags u8) …
//!          · younger ids, (u64, site varint) … · older ids, the same …
//!          · figures, (site varint, civil hour, 5 × (views varint, visits varint),
//!            4 × earlier visitors varint, sketch: length varint and bytes, 5 × revision varint,
//!            data set text, 5 × what was left out as in `batch`) …
//!          · pages, (site varint, civil hour, text, 5 × views varint, 5 × revision varint) …
//!          · moves, (site text, page text, text of the entry in `aliases`) …
//! list     (count varint, so many items) … · 0
//! ```
//!
//! It is written piece by piece: what is copied is never in memory as a whole. In format 1, of version 0.1.0, the
//! checksum stood before the body, a list had one count and no 0 at its end, and there were no uptime, no held sites,
//! no sites of ids, no revisions, no data sets and no moves.
//!
//! It is replaced whole. A missing one costs presence and the last known figures, never a count: batches
//! and journal are complete without it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::calendar::{CivilHour, PerPeriod};
use crate::clock::{Moment, Stamp};
use crate::ingest::VisitorId;
use crate::sessions::{Export, Exported};
use crate::sites::{SiteId, SiteKey};
use crate::totals::batch::part::{Entry, HashName, LastParts, MAX_SEQUENCE, PartId, Sums};
use crate::totals::batch::sketch::Sketch;
use crate::totals::disk::codec::{Damaged, Put, Take};
use crate::totals::disk::frame::Position;
use crate::totals::intake::ids::Generations;
use crate::totals::store::contract::is_id;
use crate::totals::tally::cell::Revised;
use crate::totals::tally::running::Stored;

/// Its name in the data directory.
pub const FILE: &str = "checkpoint";

const MAGIC: &[u8; 10] = b"footfallc\x02";
/// How the first release began it.
const FIRST: &[u8; 10] = b"footfallc\x01";

/// Figures of a page as the store is known to hold them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPage {
    pub site: usize,
    pub hour: CivilHour,
    pub page: Arc<str>,
    pub figures: PerPeriod<Revised<u64>>,
}

/// By sites, what their pages moved to.
pub type Moves = BTreeMap<SiteKey, BTreeMap<Arc<str>, Entry>>;

/// What the file holds. Sites are named by their place in `sites`, which is that of their [`SiteId`] when it is
/// written; on reading, translate with [`Checkpoint::places`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub written: Stamp,
    pub position: Position,
    pub applied: u64,
    /// Sites that are held, and the last batch of which each has all.
    pub held: BTreeMap<SiteKey, u64>,
    pub last_parts: LastParts,
    pub sites: Vec<SiteKey>,
    pub sessions: Export,
    pub ids: Generations,
    pub figures: Vec<(usize, Stored)>,
    pub pages: Vec<KnownPage>,
    pub moves: Moves,
}

/// Begins the bytes of a checkpoint: all before the lists.
pub fn begin(out: &mut impl Put, written: Stamp, position: Position, applied: u64) {
    out.put(MAGIC);
    out.put_i64(written.at.unix_ms);
    out.put_u64(written.at.uptime_ms);
    out.put(&written.boot.to_le_bytes());
    out.put_u64(position.segment);
    out.put_u64(position.offset);
    out.put_u64(applied);
}

/// Writes some items of a list.
pub fn put_some<O: Put, T>(
    out: &mut O,
    items: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    put: impl Fn(&mut O, T),
) {
    let items = items.into_iter();
    if items.len() > 0 {
        out.put_varint(items.len() as u64);
        items.for_each(|item| put(out, item));
    }
}

/// Ends a list.
pub fn end_list(out: &mut impl Put) {
    out.put_varint(0);
}

/// Writes a held site, and up to which batch the store has its views.
pub fn put_held(out: &mut impl Put, (site, after): (&SiteKey, &u64)) {
    out.put_text(site.as_str());
    out.put_u64(*after);
}

/// Writes the last part of a hash.
pub fn put_last_part(out: &mut impl Put, (hash, last): (&HashName, &PartId)) {
    out.put_text(hash.site.as_str());
    out.put_text(&hash.to_string());
    PartId::put(Some(*last), out);
}

/// Writes a page that somebody is online on.
pub fn put_online_page(out: &mut impl Put, (site, text): &(SiteId, Box<str>)) {
    out.put_varint(site.0.into());
    out.put_text(text);
}

/// Writes an id.
pub fn put_id(out: &mut impl Put, (id, site): &(u64, SiteId)) {
    out.put_u64(*id);
    out.put_varint(site.0.into());
}

/// Writes the figures of a page.
pub fn put_page(out: &mut impl Put, known: &KnownPage) {
    out.put_varint(known.site as u64);
    out.put_hour(&known.hour);
    out.put_text(&known.page);
    known.figures.iter().for_each(|(_, views)| out.put_sum(views.value));
    put_revisions(out, known.figures);
}

/// Writes what the pages of a site moved to.
pub fn put_moves(out: &mut impl Put, (site, moved): (&SiteKey, &BTreeMap<Arc<str>, Entry>)) {
    put_some(out, moved, |out, (page, entry)| {
        for text in [site.as_str(), page, &entry.to_string()] {
            out.put_text(text);
        }
    });
}

impl Checkpoint {
    /// Reads the file.
    ///
    /// # Errors
    /// [`Damaged`]: of another format, or not what was written.
    pub fn decode(file: &[u8]) -> Result<Self, Damaged> {
        let damaged = Damaged("a checkpoint that does not check");
        let (mut take, is_first) = if let Some(rest) = file.strip_prefix(FIRST) {
            let mut take = Take(rest);
            if take.u32()? != crc32fast::hash(take.0) {
                return Err(damaged);
            }
            (take, true)
        } else {
            let (all, sum) = file.split_last_chunk().ok_or(damaged)?;
            let body = all.strip_prefix(MAGIC).ok_or(Damaged("a checkpoint of another format"))?;
            if u32::from_le_bytes(*sum) != crc32fast::hash(all) {
                return Err(damaged);
            }
            (Take(body), false)
        };
        let take = &mut take;
        // The first format did not say whose ids they are: they take room of the first site while they last.
        let id = |take: &mut Take<'_>| {
            let (id, site) = (take.u64()?, if is_first { 0 } else { take.varint()? });
            Ok((id, SiteId(site as u16)))
        };
        let unix_ms = take.instant()?;
        let (uptime_ms, boot) = if is_first { (0, 0) } else { (take.u64()?, take.u128()?) };
        let position = take.position()?;
        let checkpoint = Checkpoint {
            written: Stamp { at: Moment { unix_ms, uptime_ms }, boot },
            position,
            applied: take.at_most(MAX_SEQUENCE)?,
            held: if is_first {
                BTreeMap::new()
            } else {
                take_list(take, false, 10, take_held)?.into_iter().collect()
            },
            last_parts: take_list(take, is_first, 3, take_last_part)?.into_iter().collect(),
            sites: take_list(take, is_first, 2, |take| site_key(take.text()?))?,
            sessions: Export {
                pages: take_list(take, is_first, 2, |take| {
                    Ok((SiteId(take.varint()? as u16), take.text()?.into()))
                })?,
                sessions: take_list(take, is_first, 22, take_session)?,
            },
            ids: [take_list(take, is_first, 8, id)?, take_list(take, is_first, 8, id)?],
            figures: take_list(take, is_first, 25, |take| take_figures(take, is_first))?,
            pages: take_list(take, is_first, 17, |take| {
                let (site, hour) = (take.varint()? as usize, take.hour()?);
                let (page, views) = (take.text()?.into(), five(|| take.sum())?);
                Ok(KnownPage { site, hour, page, figures: take_revisions(take, views, is_first)? })
            })?,
            moves: if is_first { Moves::new() } else { take_moves(take)? },
        };
        take.end()?;
        Ok(checkpoint)
    }

    /// The place that each of its sites has now, by `place`; none for one that is gone.
    pub fn places(&self, place: impl Fn(&SiteKey) -> Option<SiteId>) -> Vec<Option<SiteId>> {
        self.sites.iter().map(place).collect()
    }
}

/// Reads a list; `is_whole`: all of it stands under one count.
fn take_list<'a, T>(
    take: &mut Take<'a>,
    is_whole: bool,
    each: usize,
    mut one: impl FnMut(&mut Take<'a>) -> Result<T, Damaged>,
) -> Result<Vec<T>, Damaged> {
    let mut list = Vec::new();
    loop {
        let some = take.count(each)?;
        list.reserve(some);
        for _ in 0..some {
            list.push(one(take)?);
        }
        if is_whole || some == 0 {
            return Ok(list);
        }
    }
}

fn five<T: Copy + Default>(mut one: impl FnMut() -> Result<T, Damaged>) -> Result<PerPeriod<T>, Damaged> {
    let mut all = [T::default(); 5];
    for place in &mut all {
        *place = one()?;
    }
    Ok(all.into())
}

fn site_key(text: &str) -> Result<SiteKey, Damaged> {
    SiteKey::new(text).ok_or(Damaged("a site's key"))
}

fn take_held(take: &mut Take<'_>) -> Result<(SiteKey, u64), Damaged> {
    Ok((site_key(take.text()?)?, take.at_most(MAX_SEQUENCE)?))
}

fn take_last_part(take: &mut Take<'_>) -> Result<(HashName, PartId), Damaged> {
    let hash =
        HashName::parse(&site_key(take.text()?)?, take.text()?).ok_or(Damaged("the name of a hash"))?;
    Ok((hash, PartId::take(take)?.ok_or(Damaged("a hash without a part"))?))
}

fn take_moves(take: &mut Take<'_>) -> Result<Moves, Damaged> {
    let mut moves = Moves::new();
    take_list(take, false, 3, |take| {
        let (site, page) = (site_key(take.text()?)?, take.text()?.into());
        moves.entry(site).or_default().insert(page, take.text()?.parse()?);
        Ok(())
    })?;
    Ok(moves)
}

const BEGUN: u8 = 1;
const COUNTED: u8 = 2;

/// Writes a session.
pub fn put_session(body: &mut impl Put, session: &Exported) {
    body.put_u64(session.visitor.0);
    body.put_varint(session.site.0.into());
    body.put_u32(session.page);
    body.put_u32(session.age_s);
    body.put_u32(session.online_s);
    body.put_u8(if session.begun { BEGUN } else { 0 } | if session.counted { COUNTED } else { 0 });
}

fn take_session(take: &mut Take<'_>) -> Result<Exported, Damaged> {
    let (visitor, site) = (VisitorId(take.u64()?), SiteId(take.varint()? as u16));
    let (page, age_s, online_s, flags) = (take.u32()?, take.u32()?, take.u32()?, take.u8()?);
    let (begun, counted) = (flags & BEGUN != 0, flags & COUNTED != 0);
    Ok(Exported { visitor, site, page, age_s, online_s, begun, counted })
}

/// Writes the figures of a site.
pub fn put_figures(body: &mut impl Put, (site, stored): &(usize, Stored)) {
    body.put_varint(*site as u64);
    body.put_hour(&stored.hour);
    for (_, sums) in stored.sums.iter() {
        body.put_sum(sums.value.views);
        body.put_sum(sums.value.visits);
    }
    stored.earlier_visitors.iter().skip(1).for_each(|(_, visitors)| body.put_sum(*visitors));
    let sketch = stored.sketch.to_bytes();
    body.put_varint(sketch.len() as u64);
    body.put(&sketch);
    put_revisions(body, stored.sums);
    body.put_text(stored.dataset.as_deref().unwrap_or_default());
    stored.sums.iter().for_each(|(_, sums)| sums.value.put_filtered(body));
}

fn put_revisions<T>(body: &mut impl Put, values: PerPeriod<Revised<T>>) {
    values.iter().for_each(|(_, value)| body.put_sum(value.revision));
}

/// Values with the revisions that follow them.
fn take_revisions<T>(
    take: &mut Take<'_>,
    values: PerPeriod<T>,
    is_first: bool,
) -> Result<PerPeriod<Revised<T>>, Damaged> {
    let revisions = if is_first { PerPeriod::default() } else { five(|| take.sum())? };
    Ok(values.zip(revisions).map(|(value, revision)| Revised { value, revision }))
}

fn take_figures(take: &mut Take<'_>, is_first: bool) -> Result<(usize, Stored), Damaged> {
    let (site, hour) = (take.varint()? as usize, take.hour()?);
    let sums = five(|| Ok(Sums { views: take.sum()?, visits: take.sum()?, ..Sums::default() }))?;
    let earlier_visitors = [0, take.sum()?, take.sum()?, take.sum()?, take.sum()?].into();
    let length = take.count(1)?;
    let sketch = Sketch::from_bytes(take.bytes(length)?).map_err(|_| Damaged("a sketch"))?;
    let mut sums: [Revised<Sums>; 5] = take_revisions(take, sums, is_first)?.into();
    let dataset = if is_first { "" } else { take.text()? };
    for sums in sums.iter_mut().filter(|_| !is_first) {
        sums.value.take_filtered(take)?;
    }
    if !dataset.is_empty() && !is_id(dataset) {
        return Err(Damaged("the id of a data set"));
    }
    let dataset = (!dataset.is_empty()).then(|| dataset.into());
    Ok((site, Stored { dataset, hour, sums: sums.into(), earlier_visitors, sketch }))
}

#[cfg(test)]
mod tests;
