//! Batches: frozen additions to totals, with the position in the journal up to which they reach.
//!
//! A batch is made once and never cut again: every try sends the same parts. What it adds to each hash
//! of the store follows from it alone ([`Batch::parts`]), so the outbox keeps the amounts of a page once
//! although three hashes receive them.
//!
//! ```text
//! batch   sequence u64 · tag u64 · reach (segment u64, offset u64) · frozen at i64 (ms, outbox clock)
//!         · oldest view accepted at i64 (Unix ms)
//!         · count of sums, sums … · count of links, links …
//! sums    site text · civil hour · views varint · visits varint · day registers · registers (none since 0.2.0)
//!         · count of pages, (text, views varint) …
//! registers  count varint, (index u16, rank u8) …
//! link    0 u8: this writer never wrote to the hash; or 1 u8 · the id of a part: sequence u64 · part u32 · tag u64
//! ```
//!
//! One link for each hash of the batch, in order of its first part: the marker that the hash bore when
//! the batch was frozen.

pub mod part;
pub mod sketch;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use self::part::{HashKind, HashName, LastParts, MAX_FIELDS, MAX_SEQUENCE, Part, PartId, SketchPart, Sums};
use self::sketch::Registers;
use crate::calendar::{CivilHour, Period};
use crate::sites::SiteKey;
use crate::totals::disk::codec::{Damaged, Put, Take};
use crate::totals::disk::frame::Position;

/// What a site gained in a civil hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteSums {
    pub site: SiteKey,
    pub hour: CivilHour,
    pub sums: Sums,
    /// Registers of the day's sketch that rose.
    pub day_registers: Registers,
    pub pages: Vec<(Arc<str>, u64)>,
}

/// What a freeze takes of the pending sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frozen {
    pub sums: Vec<SiteSums>,
    /// Where the journal goes on after the last view in them.
    pub reach: Position,
    /// When the oldest view in them was accepted, Unix milliseconds.
    pub oldest_ms: i64,
}

/// Frozen additions to totals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub sequence: u64,
    pub tag: u64,
    /// Where the journal goes on after the last view in it.
    pub reach: Position,
    pub frozen_ms: i64,
    pub oldest_ms: i64,
    pub sums: Vec<SiteSums>,
    prev: Vec<Option<PartId>>,
}

impl Batch {
    /// Freezes sums: each hash's first part follows the hash's last part so far, which then is of this batch.
    pub fn freeze(
        sequence: u64,
        tag: u64,
        frozen_ms: i64,
        frozen: Frozen,
        last_parts: &mut LastParts,
    ) -> Self {
        let Frozen { sums, reach, oldest_ms } = frozen;
        let mut batch = Batch { sequence, tag, reach, frozen_ms, oldest_ms, sums, prev: Vec::new() };
        batch.prev = batch.hashes().iter().map(|hash| last_parts.get(hash).copied()).collect();
        batch.advance(last_parts);
        batch
    }

    /// What it was frozen of.
    pub fn thaw(self) -> Frozen {
        Frozen { sums: self.sums, reach: self.reach, oldest_ms: self.oldest_ms }
    }

    /// Makes this batch's parts the last ones of their hashes.
    pub fn advance(&self, last_parts: &mut LastParts) {
        for (number, (hash, _)) in self.slices().into_iter().enumerate() {
            last_parts.insert(hash, self.part_id(number));
        }
    }

    /// The parts in order. Parts on one hash are chained: each expects the one before it.
    pub fn parts(&self) -> Vec<Part> {
        let mut last: HashMap<HashName, Option<PartId>> =
            self.hashes().into_iter().zip(self.prev.iter().copied()).collect();
        let part = |(number, (hash, slice)): (usize, (HashName, Slice))| {
            let id = self.part_id(number);
            let prev = last.insert(hash.clone(), Some(id)).flatten();
            Part { hash, prev, id, sums: self.fields(slice), revision: None }
        };
        self.slices().into_iter().enumerate().map(part).collect()
    }

    /// Names a part by its number.
    pub fn part_id(&self, number: usize) -> PartId {
        PartId { sequence: self.sequence, part: number as u32, tag: self.tag }
    }

    /// The hashes in order of their first part.
    fn hashes(&self) -> Vec<HashName> {
        let mut seen = HashSet::new();
        let hashes = self.slices().into_iter().map(|(hash, _)| hash);
        hashes.filter(|hash| seen.insert(hash.clone())).collect()
    }

    /// What is added to which hash, at most [`MAX_FIELDS`] fields at a time.
    fn slices(&self) -> Vec<(HashName, Slice)> {
        let mut slices = Vec::new();
        for (index, site) in self.sums.iter().enumerate() {
            slices.extend(SITE_PERIODS.map(|period| (site.hash(period, HashKind::Sums), Slice::Site(index))));
            for period in PAGE_PERIODS {
                let hash = site.hash(period, HashKind::Pages);
                for from in (0..site.pages.len()).step_by(MAX_FIELDS) {
                    slices.push((hash.clone(), Slice::Pages(index, from)));
                }
            }
        }
        slices
    }

    fn fields(&self, slice: Slice) -> Vec<(Arc<str>, u64)> {
        match slice {
            Slice::Site(index) => {
                let sums = self.sums[index].sums;
                let fields = [("views", sums.views), ("visits", sums.visits)];
                fields.into_iter().filter(|(_, sum)| *sum > 0).map(|(name, sum)| (name.into(), sum)).collect()
            }
            Slice::Pages(index, from) => {
                self.sums[index].pages.iter().skip(from).take(MAX_FIELDS).cloned().collect()
            }
        }
    }

    /// The sketches to merge.
    pub fn sketches(&self) -> Vec<SketchPart> {
        let sites = self.sums.iter().filter(|site| !site.day_registers.is_empty());
        let part = |site: &SiteSums| SketchPart {
            name: site.hash(Period::Day, HashKind::Visitors),
            registers: site.day_registers.clone(),
        };
        sites.map(part).collect()
    }

    /// The batch as it is shown: without the sums of sites whose floor it does not exceed. It is not to be sent.
    pub fn above(&self, floor: impl Fn(&SiteKey) -> u64) -> Cow<'_, Batch> {
        let due = |sums: &SiteSums| self.sequence > floor(&sums.site);
        if self.sums.iter().all(due) {
            return Cow::Borrowed(self);
        }
        let sums = self.sums.iter().filter(|sums| due(sums)).cloned().collect();
        Cow::Owned(Batch { sums, prev: Vec::new(), ..*self })
    }

    /// Appends the batch to a buffer.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.sequence);
        out.put_u64(self.tag);
        out.put_u64(self.reach.segment);
        out.put_u64(self.reach.offset);
        out.put_i64(self.frozen_ms);
        out.put_i64(self.oldest_ms);
        out.put_varint(self.sums.len() as u64);
        for site in &self.sums {
            site.encode(out);
        }
        out.put_varint(self.prev.len() as u64);
        self.prev.iter().for_each(|id| PartId::put(*id, out));
    }

    /// Reads a batch.
    ///
    /// # Errors
    /// [`Damaged`], though its checksum was right: written by another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut take = Take(bytes);
        let (sequence, tag) = (take.at_most(MAX_SEQUENCE)?, take.u64()?);
        let reach = take.position()?;
        let (frozen_ms, oldest_ms) = (take.instant()?, take.instant()?);
        let sums = (0..take.count(12)?).map(|_| SiteSums::decode(&mut take)).collect::<Result<_, _>>()?;
        let prev = (0..take.count(1)?).map(|_| PartId::take(&mut take)).collect::<Result<_, _>>()?;
        take.end()?;
        let batch = Batch { sequence, tag, reach, frozen_ms, oldest_ms, sums, prev };
        if batch.prev.len() == batch.hashes().len() {
            Ok(batch)
        } else {
            Err(Damaged("the links of a batch"))
        }
    }
}

/// A stretch of a batch that makes one part.
#[derive(Clone, Copy)]
enum Slice {
    /// The views and visits of the site at this index.
    Site(usize),
    /// Its pages from the second index on.
    Pages(usize, usize),
}

/// A site's sums are kept for every period.
const SITE_PERIODS: [Period; 6] =
    [Period::Hour, Period::Day, Period::Week, Period::Month, Period::Year, Period::All];

/// A page's by day and month and since the beginning; its week is the sum of its days, its year that of
/// its months. Two hashes fewer to write for every view, at most 19 reads for a page that is not in memory.
const PAGE_PERIODS: [Period; 3] = [Period::Day, Period::Month, Period::All];

impl SiteSums {
    fn hash(&self, period: Period, kind: HashKind) -> HashName {
        HashName::new(&self.site, self.hour.bucket(period), kind)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_text(self.site.as_str());
        out.put_hour(&self.hour);
        out.put_varint(self.sums.views);
        out.put_varint(self.sums.visits);
        put_registers(out, &self.day_registers);
        put_registers(out, &Registers::new());
        out.put_varint(self.pages.len() as u64);
        for (page, views) in &self.pages {
            out.put_text(page);
            out.put_varint(*views);
        }
    }

    fn decode(take: &mut Take<'_>) -> Result<Self, Damaged> {
        let site = SiteKey::new(take.text()?).ok_or(Damaged("a site's key"))?;
        let hour = take.hour()?;
        let sums = Sums { views: take.sum()?, visits: take.sum()? };
        let day_registers = take_registers(take)?;
        take_registers(take)?;
        Ok(SiteSums {
            site,
            hour,
            sums,
            day_registers,
            pages: (0..take.count(2)?)
                .map(|_| Ok((take.text()?.into(), take.sum()?)))
                .collect::<Result<_, Damaged>>()?,
        })
    }
}

/// Appends registers of a sketch.
pub fn put_registers(out: &mut Vec<u8>, registers: &Registers) {
    out.put_varint(registers.len() as u64);
    for (index, rank) in registers {
        out.put(&index.to_le_bytes());
        out.put_u8(*rank);
    }
}

/// Reads what [`put_registers`] wrote.
pub fn take_registers(take: &mut Take<'_>) -> Result<Registers, Damaged> {
    (0..take.count(3)?)
        .map(|_| {
            let (low, high, rank) = (take.u8()?, take.u8()?, take.u8()?);
            let index = u16::from_le_bytes([low, high]);
            if index < 16384 && (1..=51).contains(&rank) {
                Ok((index, rank))
            } else {
                Err(Damaged("a register"))
            }
        })
        .collect()
}

#[cfg(test)]
pub mod tests;
