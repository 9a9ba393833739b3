//! The checkpoint: what a restart needs that no batch carries. Sessions and ids up to a position of the
//! journal, the last known figures of the store, and how far the outbox was applied.
//!
//! ```text
//! file     magic "footfall" · "c" · format u8 = 2 · CRC-32 u32 of the body · body
//! body     written at i64 (Unix ms) · position (segment u64, offset u64) · applied u64
//!          · count of held sites, (site text, applied to it u64) …
//!          · count of last parts, (site text, hash text, id of a part as in `batch`) …
//!          · count of sites, text …             all below name a site by its index here
//!          · count of online pages, (site varint, text) …
//!          · count of sessions, (visitor u64, site varint, page u32, age u32 s, online u32 s, flags u8) …
//!          · count of younger ids, u64 … · count of older ids, u64 …
//!          · count of figures, (site varint, civil hour, 5 × (views varint, visits varint),
//!            4 × earlier visitors varint, sketch: length varint and bytes, 5 × revision varint,
//!            data set text) …
//!          · count of pages, (site varint, civil hour, text, 5 × views varint, 5 × revision varint) …
//! format 1 has no held sites, no revisions and no data sets
//! ```
//!
//! It is replaced whole. A missing one costs presence and the last known figures, never a count: batches
//! and journal are complete without it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::calendar::{CivilHour, PerPeriod};
use crate::ingest::VisitorId;
use crate::sessions::{Export, Exported};
use crate::sites::{SiteId, SiteKey};
use crate::totals::batch::part::{HashName, LastParts, MAX_SEQUENCE, PartId, Sums};
use crate::totals::batch::sketch::Sketch;
use crate::totals::disk::codec::{Damaged, Put, Take};
use crate::totals::disk::frame::Position;
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

/// What the file holds. Sites are named by their place in `sites`, which is that of their [`SiteId`] when it is
/// written; on reading, translate with [`Checkpoint::places`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub written_ms: i64,
    pub position: Position,
    pub applied: u64,
    /// Sites that are held, and the last batch of which each has all.
    pub held: BTreeMap<SiteKey, u64>,
    pub last_parts: LastParts,
    pub sites: Vec<SiteKey>,
    pub sessions: Export,
    pub ids: (Vec<u64>, Vec<u64>),
    pub figures: Vec<(usize, Stored)>,
    pub pages: Vec<KnownPage>,
}

impl Checkpoint {
    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(64 + self.sessions.sessions.len() * 26 + self.pages.len() * 64);
        body.put_i64(self.written_ms);
        body.put_u64(self.position.segment);
        body.put_u64(self.position.offset);
        body.put_u64(self.applied);
        put_all(&mut body, &self.held, |body, (site, after)| {
            body.put_text(site.as_str());
            body.put_u64(*after);
        });
        put_all(&mut body, &self.last_parts, |body, (hash, last)| {
            body.put_text(hash.site.as_str());
            body.put_text(&hash.to_string());
            PartId::put(Some(*last), body);
        });
        put_all(&mut body, &self.sites, |body, site| body.put_text(site.as_str()));
        put_all(&mut body, &self.sessions.pages, |body, (site, text)| {
            body.put_varint(site.0.into());
            body.put_text(text);
        });
        put_all(&mut body, &self.sessions.sessions, put_session);
        put_all(&mut body, &self.ids.0, |body, id| body.put_u64(*id));
        put_all(&mut body, &self.ids.1, |body, id| body.put_u64(*id));
        put_all(&mut body, &self.figures, put_figures);
        put_all(&mut body, &self.pages, |body, known| {
            body.put_varint(known.site as u64);
            body.put_hour(&known.hour);
            body.put_text(&known.page);
            known.figures.iter().for_each(|(_, views)| body.put_sum(views.value));
            put_revisions(body, known.figures);
        });
        let mut file = Vec::with_capacity(body.len() + 14);
        file.put(MAGIC);
        file.put_u32(crc32fast::hash(&body));
        file.put(&body);
        file
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`Damaged`]: of another format, or not what was written.
    pub fn decode(file: &[u8]) -> Result<Self, Damaged> {
        let (first, current) = (file.strip_prefix(FIRST), file.strip_prefix(MAGIC));
        let mut take = Take(first.or(current).ok_or(Damaged("a checkpoint of another format"))?);
        let is_first = first.is_some();
        if take.u32()? != crc32fast::hash(take.0) {
            return Err(Damaged("a checkpoint that does not check"));
        }
        let written_ms = take.instant()?;
        let position = take.position()?;
        let checkpoint = Checkpoint {
            written_ms,
            position,
            applied: take.at_most(MAX_SEQUENCE)?,
            held: match is_first {
                true => BTreeMap::new(),
                false => take_all(&mut take, 10, |take| {
                    Ok((site_key(take.text()?)?, take.at_most(MAX_SEQUENCE)?))
                })?
                .into_iter()
                .collect(),
            },
            last_parts: take_all(&mut take, 3, take_last_part)?.into_iter().collect(),
            sites: take_all(&mut take, 2, |take| site_key(take.text()?))?,
            sessions: Export {
                pages: take_all(&mut take, 2, |take| {
                    Ok((SiteId(take.varint()? as u16), take.text()?.into()))
                })?,
                sessions: take_all(&mut take, 22, take_session)?,
            },
            ids: (take_all(&mut take, 8, Take::u64)?, take_all(&mut take, 8, Take::u64)?),
            figures: take_all(&mut take, 25, |take| take_figures(take, is_first))?,
            pages: take_all(&mut take, 17, |take| {
                let (site, hour) = (take.varint()? as usize, take.hour()?);
                let (page, views) = (take.text()?.into(), five(|| take.sum())?);
                Ok(KnownPage { site, hour, page, figures: take_revisions(take, views, is_first)? })
            })?,
        };
        take.end()?;
        Ok(checkpoint)
    }

    /// The place that each of its sites has now, by `place`; none for one that is gone.
    pub fn places(&self, place: impl Fn(&SiteKey) -> Option<SiteId>) -> Vec<Option<SiteId>> {
        self.sites.iter().map(place).collect()
    }
}

fn put_all<T>(
    body: &mut Vec<u8>,
    items: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    put: impl Fn(&mut Vec<u8>, T),
) {
    let items = items.into_iter();
    body.put_varint(items.len() as u64);
    items.for_each(|item| put(body, item));
}

fn take_all<'a, T>(
    take: &mut Take<'a>,
    each: usize,
    mut one: impl FnMut(&mut Take<'a>) -> Result<T, Damaged>,
) -> Result<Vec<T>, Damaged> {
    (0..take.count(each)?).map(|_| one(take)).collect()
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

fn take_last_part(take: &mut Take<'_>) -> Result<(HashName, PartId), Damaged> {
    let hash =
        HashName::parse(&site_key(take.text()?)?, take.text()?).ok_or(Damaged("the name of a hash"))?;
    Ok((hash, PartId::take(take)?.ok_or(Damaged("a hash without a part"))?))
}

const BEGUN: u8 = 1;
const COUNTED: u8 = 2;

fn put_session(body: &mut Vec<u8>, session: &Exported) {
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

fn put_figures(body: &mut Vec<u8>, (site, stored): &(usize, Stored)) {
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
}

fn put_revisions<T>(body: &mut Vec<u8>, values: PerPeriod<Revised<T>>) {
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
    let sums = five(|| Ok(Sums { views: take.sum()?, visits: take.sum()? }))?;
    let earlier_visitors = [0, take.sum()?, take.sum()?, take.sum()?, take.sum()?].into();
    let length = take.count(1)?;
    let sketch = Sketch::from_bytes(take.bytes(length)?).map_err(|_| Damaged("a sketch"))?;
    let sums = take_revisions(take, sums, is_first)?;
    let dataset = if is_first { "" } else { take.text()? };
    if !dataset.is_empty() && !is_id(dataset) {
        return Err(Damaged("the id of a data set"));
    }
    let dataset = (!dataset.is_empty()).then(|| dataset.into());
    Ok((site, Stored { dataset, hour, sums, earlier_visitors, sketch }))
}

#[cfg(test)]
mod tests;
