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
//!         · in a batch that was cut to a site, or has entries: the number of each sums' first part varint …
//!         · where there are entries: count of hashes, entered … · the number of each one's part varint …
//!         · where views were left out, after a count of hashes that may be 0: of each sums count, (field text, views
//!         varint) …
//! sums    site text · civil hour · views varint · visits varint · day registers · registers (none since 0.2.0)
//!         · count of pages, (text, views varint) …
//! registers  count varint, (index u16, rank u8) …
//! entered site text · hash text · stamp (number varint, writer text) · count of fields, (field text, text) …
//! link    0 u8: this writer never wrote to the hash; or 1 u8 · the id of a part: sequence u64 · part u32 · tag u64
//! ```
//!
//! One link for each hash of the batch, in order of its first part: the marker that the hash bore when
//! the batch was frozen.

pub mod entry;
pub mod part;
pub mod sketch;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use self::entry::Entered;
use self::part::{
    ByField, Entry, HashKind, HashName, LastParts, MAX_FIELDS, MAX_SEQUENCE, Part, PartId, SketchPart, Sums,
};
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

/// What a freeze takes of the pending sums; or what is entered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frozen {
    pub sums: Vec<SiteSums>,
    pub entries: Vec<Entered>,
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
    pub entries: Vec<Entered>,
    /// The number of the first part of each of the sums, then of the part of each of the entered: that of the whole
    /// batch where this was cut out of one.
    firsts: Vec<u32>,
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
        let Frozen { sums, entries, reach, oldest_ms } = frozen;
        let (firsts, prev) = (first_parts(&sums, entries.len()), Vec::new());
        let mut batch = Batch { sequence, tag, reach, frozen_ms, oldest_ms, sums, entries, firsts, prev };
        batch.prev = batch.hashes().iter().map(|hash| last_parts.get(hash).copied()).collect();
        batch.advance(last_parts);
        batch
    }

    /// What it was frozen of.
    pub fn thaw(self) -> Frozen {
        Frozen { sums: self.sums, entries: self.entries, reach: self.reach, oldest_ms: self.oldest_ms }
    }

    /// Makes this batch's parts the last ones of their hashes.
    pub fn advance(&self, last_parts: &mut LastParts) {
        for (number, hash, _) in self.slices() {
            last_parts.insert(hash, self.part_id(number));
        }
    }

    /// The parts in order. Parts on one hash are chained: each expects the one before it.
    pub fn parts(&self) -> Vec<Part> {
        let mut last: HashMap<HashName, Option<PartId>> =
            self.hashes().into_iter().zip(self.prev.iter().copied()).collect();
        let part = |(number, hash, slice): (u32, HashName, Slice)| {
            let id = self.part_id(number);
            let prev = last.insert(hash.clone(), Some(id)).flatten();
            let (sums, entries) = self.fields(slice);
            // What is entered may lower what is shown, as far as the hash of all time, by which others see that
            // something was.
            let revision = matches!(slice, Slice::Entered(_)).then_some(0);
            Part { hash, prev, id, sums, entries, revision }
        };
        self.slices().into_iter().map(part).collect()
    }

    /// Names a part by its number.
    pub fn part_id(&self, number: u32) -> PartId {
        PartId { sequence: self.sequence, part: number, tag: self.tag }
    }

    /// The hashes in order of their first part.
    fn hashes(&self) -> Vec<HashName> {
        let mut seen = HashSet::new();
        let hashes = self.slices().into_iter().map(|(_, hash, _)| hash);
        hashes.filter(|hash| seen.insert(hash.clone())).collect()
    }

    /// What is added to which hash, at most [`MAX_FIELDS`] fields at a time, and its number.
    fn slices(&self) -> Vec<(u32, HashName, Slice)> {
        let mut slices = Vec::new();
        for (index, (site, first)) in self.sums.iter().zip(&self.firsts).enumerate() {
            let sums = SITE_PERIODS.map(|period| (site.hash(period, HashKind::Sums), Slice::Site(index)));
            let pages = PAGE_PERIODS.iter().flat_map(|period| {
                let hash = site.hash(*period, HashKind::Pages);
                let from = (0..site.pages.len()).step_by(MAX_FIELDS);
                from.map(move |from| (hash.clone(), Slice::Pages(index, from)))
            });
            let numbered = sums.into_iter().chain(pages).zip(*first..=u32::MAX);
            slices.extend(numbered.map(|((hash, slice), number)| (number, hash, slice)));
        }
        let numbers = self.firsts.iter().skip(self.sums.len());
        let entered = self.entries.iter().enumerate().zip(numbers);
        slices.extend(
            entered.map(|((index, entered), number)| (*number, entered.hash.clone(), Slice::Entered(index))),
        );
        slices
    }

    /// The sums and the entries of a part.
    fn fields(&self, slice: Slice) -> (ByField<u64>, ByField<Entry>) {
        let sums = match slice {
            Slice::Site(index) => {
                let fields = self.sums[index].sums.by_field().filter(|(_, sum)| *sum > 0);
                fields.map(|(field, sum)| (field.clone(), sum)).collect()
            }
            Slice::Pages(index, from) => {
                self.sums[index].pages.iter().skip(from).take(MAX_FIELDS).cloned().collect()
            }
            Slice::Entered(index) => return (Vec::new(), self.entries[index].entries()),
        };
        (sums, Vec::new())
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

    /// The batch without the sums of sites whose floor it does not exceed.
    pub fn above(&self, floor: impl Fn(&SiteKey) -> u64) -> Cow<'_, Batch> {
        self.only(|site| self.sequence > floor(site))
    }

    /// What the batch brings to some sites: the same parts, by the same names.
    pub fn only(&self, is_due: impl Fn(&SiteKey) -> bool) -> Cow<'_, Batch> {
        if self.owners().all(&is_due) {
            return Cow::Borrowed(self);
        }
        let firsts = self.owners().zip(&self.firsts).filter(|(site, _)| is_due(site));
        let firsts = firsts.map(|(_, first)| *first).collect();
        let sums = self.sums.iter().filter(|sums| is_due(&sums.site)).cloned().collect();
        let entries = self.entries.iter().filter(|entered| is_due(&entered.hash.site)).cloned().collect();
        let links = self.hashes().into_iter().zip(&self.prev).filter(|(hash, _)| is_due(&hash.site));
        let prev = links.map(|(_, link)| *link).collect();
        Cow::Owned(Batch { sums, entries, firsts, prev, ..*self })
    }

    /// Puts together what was cut out of one batch for different sites.
    pub fn join(&mut self, mut other: Batch) {
        let links = [&*self, &other].map(|batch| batch.hashes().into_iter().zip(batch.prev.clone()));
        let links: HashMap<HashName, Option<PartId>> = links.into_iter().flatten().collect();
        let at = self.sums.len();
        self.firsts.splice(at..at, other.firsts.drain(..other.sums.len()));
        self.firsts.extend(other.firsts);
        self.sums.extend(other.sums);
        self.entries.extend(other.entries);
        self.prev = self.hashes().iter().map(|hash| links.get(hash).copied().flatten()).collect();
    }

    /// The sites that it brings something to.
    pub fn sites(&self) -> BTreeSet<SiteKey> {
        self.owners().cloned().collect()
    }

    /// The site of each of the sums, then of each of the entered.
    fn owners(&self) -> impl Iterator<Item = &SiteKey> {
        self.sums.iter().map(|sums| &sums.site).chain(self.entries.iter().map(|entered| &entered.hash.site))
    }

    /// About how many bytes of it are each site's.
    pub fn weights(&self) -> Vec<(SiteKey, u64)> {
        let weight = |of: &SiteSums| {
            let pages: usize = of.pages.iter().map(|(page, _)| page.len() + 3).sum();
            (of.site.clone(), (64 + 3 * of.day_registers.len() + pages) as u64)
        };
        self.sums.iter().map(weight).collect()
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
        let (of_sums, of_entries) = self.firsts.split_at(self.sums.len().min(self.firsts.len()));
        let put = |out: &mut Vec<u8>, firsts: &[u32]| {
            firsts.iter().for_each(|first| out.put_varint((*first).into()));
        };
        let leaves_out = self.sums.iter().any(|site| site.sums.filtered.iter().any(|views| *views > 0));
        let has_more = !self.entries.is_empty() || leaves_out;
        if has_more || of_sums != first_parts(&self.sums, 0) {
            put(out, of_sums);
        }
        if has_more {
            out.put_varint(self.entries.len() as u64);
            self.entries.iter().for_each(|entered| entered.encode(out));
            put(out, of_entries);
        }
        for site in self.sums.iter().filter(|_| leaves_out) {
            site.sums.put_filtered(out);
        }
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
        let mut sums: Vec<SiteSums> =
            (0..take.count(12)?).map(|_| SiteSums::decode(&mut take)).collect::<Result<_, _>>()?;
        let prev = (0..take.count(1)?).map(|_| PartId::take(&mut take)).collect::<Result<_, _>>()?;
        let number =
            |take: &mut Take<'_>| u32::try_from(take.varint()?).map_err(|_| Damaged("the number of a part"));
        let mut firsts = first_parts(&sums, 0);
        if take.end().is_err() {
            for first in &mut firsts {
                *first = number(&mut take)?;
            }
        }
        let mut entries = Vec::new();
        if take.end().is_err() {
            for _ in 0..take.count(6)? {
                entries.push(Entered::decode(&mut take)?);
            }
            for _ in &entries {
                firsts.push(number(&mut take)?);
            }
        }
        if take.end().is_err() {
            for site in &mut sums {
                site.sums.take_filtered(&mut take)?;
            }
        }
        take.end()?;
        let batch = Batch { sequence, tag, reach, frozen_ms, oldest_ms, sums, entries, firsts, prev };
        if batch.prev.len() == batch.hashes().len() {
            Ok(batch)
        } else {
            Err(Damaged("the links of a batch"))
        }
    }
}

/// The number of the first part of each of a whole batch's sums, and of the part of each of so many entered.
fn first_parts(sums: &[SiteSums], entered: usize) -> Vec<u32> {
    let parts = |sums: &SiteSums| {
        (SITE_PERIODS.len() + PAGE_PERIODS.len() * sums.pages.len().div_ceil(MAX_FIELDS)) as u32
    };
    sums.iter()
        .map(parts)
        .chain(std::iter::repeat_n(1, entered))
        .scan(0u32, |next, parts| {
            let first = *next;
            *next = first.saturating_add(parts);
            Some(first)
        })
        .collect()
}

/// A stretch of a batch that makes one part.
#[derive(Clone, Copy)]
enum Slice {
    /// The sums of the site at this index.
    Site(usize),
    /// Its pages from the second index on.
    Pages(usize, usize),
    /// What is entered into the hash at this index.
    Entered(usize),
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
        let sums = Sums { views: take.sum()?, visits: take.sum()?, ..Sums::default() };
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
