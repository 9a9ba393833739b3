//! The outbox: durable batches on their way to the store, and their recent past.
//!
//! A batch is in it, synced, before the first try to apply it. Applied ones stay for a while, so that a
//! store that went back in time can be given again what it lost.
//!
//! A site may be **held**: what batches bring to it waits, while all else of them is applied. So that it need not
//! keep whole segments, what waits of a site is set aside, in a log of its own (`held-<site>`), before they are
//! dropped. [`Outbox::get`] reads from both.
//!
//! A batch is added when the sync of the one before it has succeeded; if the sync of a batch fails the
//! process ends, and the next one may read from the page cache what is not on the disk. So every start
//! copies the newest batch into its own, synced segment before anything of it is sent.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;
use std::{io, mem};

use crate::sites::{Shares, SiteKey};
use crate::totals::batch::Batch;
use crate::totals::disk::fatal::die;
use crate::totals::disk::files::Folder;
use crate::totals::disk::frame::{FRAME_HEADER, Position};
use crate::totals::disk::log::{AppendError, Damage, Segments};

/// Settings of the outbox.
#[derive(Clone, Debug)]
pub struct OutboxConfig {
    /// Keep applied batches this long.
    pub retention: Duration,
    /// But no more than this many bytes; unapplied batches are never dropped.
    pub max_bytes: u64,
}

/// Old batches are dropped by whole segments. One is as long as this, or shorter: so many make up all that
/// may be kept.
const SEGMENT_BYTES: u64 = 4 << 20;
const SEGMENTS: u64 = 4;

const KIND: u8 = b'o';

/// How the folder begins in which a site's parts are set aside.
const ASIDE: &str = "held-";

/// Where a batch stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    sequence: u64,
    at: Position,
    /// By the outbox's own clock.
    frozen_ms: i64,
    oldest_ms: i64,
}

impl Place {
    fn of(batch: &Batch, at: Position) -> Self {
        Place { sequence: batch.sequence, at, frozen_ms: batch.frozen_ms, oldest_ms: batch.oldest_ms }
    }
}

/// Durable batches in order of their sequence.
pub struct Outbox {
    folder: Folder,
    log: Segments,
    places: VecDeque<Place>,
    applied: u64,
    /// Bytes of batches that wait, by site; and of each of these batches.
    waiting_bytes: BTreeMap<SiteKey, u64>,
    weights: VecDeque<(u64, Vec<(SiteKey, u64)>)>,
    /// Sites that are held, and the last batch of which each has all.
    held: BTreeMap<SiteKey, u64>,
    /// What was set aside.
    asides: BTreeMap<SiteKey, Outbox>,
    /// Retention is counted by this clock. It stands while the store does not answer, and at the newest
    /// batch while no process runs.
    clock_ms: i64,
    /// When the clock was last moved on; monotonic milliseconds.
    moved_ms: Option<u64>,
    config: OutboxConfig,
    buffer: Vec<u8>,
    damage: Vec<Damage>,
}

impl Outbox {
    /// Opens the outbox in a folder; `each` is given every batch in it, oldest first, and before that what was set
    /// aside for each site.
    ///
    /// # Errors
    /// Of the file system, a full disk among them; a batch of another version.
    pub fn open(
        folder: impl Into<Folder>,
        config: OutboxConfig,
        mut each: impl FnMut(Batch),
    ) -> io::Result<Self> {
        Self::open_folder(folder.into(), config, &mut each)
    }

    fn open_folder(folder: Folder, config: OutboxConfig, each: &mut dyn FnMut(Batch)) -> io::Result<Self> {
        let log = Segments::open(folder.clone(), KIND, 0)?;
        let (mut asides, mut places) = (BTreeMap::new(), VecDeque::<Place>::new());
        for name in folder.names()? {
            if let Some(site) = name.strip_prefix(ASIDE).and_then(SiteKey::new) {
                asides.insert(site, Outbox::open_folder(folder.within(&name), config.clone(), each)?);
            }
        }
        let damage = log.replay(Position::default(), |payload, at, _| {
            let batch = Batch::decode(payload).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            match places.back_mut() {
                // A start's copy of the newest batch.
                Some(newest) if newest.sequence >= batch.sequence => newest.at = at,
                _ => {
                    places.push_back(Place::of(&batch, at));
                    // A process may have ended between setting aside and dropping.
                    let is_new =
                        |site: &SiteKey| asides.get(site).is_none_or(|aside| !aside.has(batch.sequence));
                    each(batch.only(is_new).into_owned());
                }
            }
            Ok(())
        })?;
        let clock_ms = places.back().map_or(0, |place| place.frozen_ms);
        let mut outbox = Outbox {
            folder,
            log,
            places,
            applied: 0,
            waiting_bytes: BTreeMap::new(),
            weights: VecDeque::new(),
            held: BTreeMap::new(),
            asides,
            clock_ms,
            moved_ms: None,
            config,
            buffer: Vec::new(),
            damage,
        };
        outbox.copy_newest()?;
        Ok(outbox)
    }

    fn copy_newest(&mut self) -> io::Result<()> {
        let Some(newest) = self.places.back_mut() else { return Ok(()) };
        let payload = self.log.read(newest.at)?;
        let mut frame = vec![0; FRAME_HEADER];
        frame.extend_from_slice(&payload);
        let at = self.log.end();
        self.log.append(&mut frame).map_err(|error| match error {
            AppendError::Undone(error) | AppendError::Unknown(error) => error,
        })?;
        self.log.current().sync_data()?;
        let before = mem::replace(&mut newest.at, at).segment;
        // Where the start before made a copy and nothing came after it, that is of no more use: a process that
        // starts again and again would fill the disk with them.
        let is_used = self.places.iter().any(|place| place.at.segment == before)
            || self.damage.iter().any(|damage| damage.at.segment == before);
        if !is_used && let Err(error) = self.log.forget(before).delete() {
            tracing::warn!(%error, "an old copy of the newest batch cannot be deleted");
        }
        Ok(())
    }

    /// What was found damaged on opening.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// The same of what was set aside for sites.
    pub fn aside_damage(&self) -> impl Iterator<Item = (&SiteKey, &Damage)> {
        self.asides.iter().flat_map(|(site, aside)| aside.damage.iter().map(move |damage| (site, damage)))
    }

    /// Batches that are not there although younger ones are, and those up to `applied` that were younger
    /// than all that is there.
    pub fn gaps(&self, applied: u64) -> Vec<RangeInclusive<u64>> {
        let sequences = self.places.iter().map(|place| place.sequence);
        let ends = sequences.clone().skip(1).chain([applied + 1]);
        let starts: Vec<u64> = if self.places.is_empty() { vec![0] } else { sequences.collect() };
        starts.into_iter().zip(ends).filter(|(a, b)| a + 1 < *b).map(|(a, b)| a + 1..=b - 1).collect()
    }

    /// The sequence that the next batch bears.
    pub fn next_sequence(&self) -> u64 {
        self.places.back().map_or(self.applied, |place| place.sequence).max(self.applied) + 1
    }

    /// The first batch that is kept, if any.
    pub fn first_sequence(&self) -> Option<u64> {
        self.places.front().map(|place| place.sequence)
    }

    /// The first batch of which anything is kept.
    pub fn first_kept(&self) -> Option<u64> {
        let asides = self.asides.values().filter_map(Outbox::first_sequence);
        asides.chain(self.first_sequence()).min()
    }

    fn has(&self, sequence: u64) -> bool {
        self.places.binary_search_by_key(&sequence, |place| place.sequence).is_ok()
    }

    /// Goes on where another process stood. What was set aside for a site that is not held as far as is known waits
    /// as all else does.
    pub fn resume(&mut self, applied: u64, held: BTreeMap<SiteKey, u64>) {
        self.set_applied(applied);
        self.held = self.asides.keys().map(|site| (site.clone(), applied)).chain(held).collect();
    }

    /// Sites that are held, and the last batch of which each has all.
    pub fn held(&self) -> &BTreeMap<SiteKey, u64> {
        &self.held
    }

    /// Up to which batch a site has all.
    pub fn applied_to(&self, site: &SiteKey) -> u64 {
        self.held.get(site).copied().unwrap_or(self.applied)
    }

    /// Batches up to this one are another's to apply.
    pub fn leave_to_another(&mut self, sequence: u64) {
        self.set_applied(sequence);
        self.held.values_mut().for_each(|after| *after = sequence.max(*after));
    }

    /// What batches bring to a site waits from here on.
    pub fn hold(&mut self, site: &SiteKey) {
        self.held.entry(site.clone()).or_insert(self.applied);
    }

    /// A site has all that waited. What was set aside stays until [`Outbox::forget_released`].
    pub fn release(&mut self, site: &SiteKey) {
        self.held.remove(site);
    }

    /// Deletes what was set aside for sites that are held no more: others remember that it is applied.
    pub fn forget_released(&mut self) -> io::Result<()> {
        let held = &self.held;
        self.asides
            .extract_if(.., |site, _| !held.contains_key(site))
            .try_for_each(|(_, aside)| aside.log.delete())
    }

    /// The sites for which as much is set aside as may be: all together as much as the outbox may hold, each an equal
    /// share.
    pub fn full_asides(&self) -> impl Iterator<Item = &SiteKey> {
        let share = self.config.max_bytes / self.asides.len().max(1) as u64;
        let full = move |(site, aside): &(&SiteKey, &Outbox)| {
            aside.bytes() >= share && self.held.contains_key(*site)
        };
        self.asides.iter().filter(full).map(|(site, _)| site)
    }

    /// A batch of these [`Batch::weights`] waits.
    pub fn weigh(&mut self, sequence: u64, weights: Vec<(SiteKey, u64)>) {
        for (site, bytes) in &weights {
            *self.waiting_bytes.entry(site.clone()).or_default() += bytes;
        }
        self.weights.push_back((sequence, weights));
    }

    /// How many bytes wait.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes.values().sum()
    }

    /// The sites that have taken more of it, with what waits, than leaves each of so many others its part.
    pub fn over_share(&self, sites: usize) -> impl Iterator<Item = &SiteKey> {
        let mut shares = Shares::new(usize::try_from(self.config.max_bytes).unwrap_or(usize::MAX));
        shares.among(sites);
        shares.hold(self.waiting_bytes.values().map(|bytes| *bytes as usize).collect());
        let over = move |(index, _): &(usize, &SiteKey)| sites > 1 && shares.is_over(*index);
        self.waiting_bytes.keys().enumerate().filter(over).map(|(_, site)| site)
    }

    /// Up to which batch all is applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Batches that wait.
    pub fn waiting(&self) -> u64 {
        self.places.back().map_or(0, |place| place.sequence.saturating_sub(self.applied))
    }

    /// The first batch that waits, and when the oldest view in it was accepted (Unix milliseconds).
    pub fn next_waiting(&self) -> Option<(u64, i64)> {
        self.next_after(self.applied)
    }

    fn next_after(&self, sequence: u64) -> Option<(u64, i64)> {
        let first = self.places.partition_point(|place| place.sequence <= sequence);
        self.places.get(first).map(|place| (place.sequence, place.oldest_ms))
    }

    /// Batches that wait for a site: how many at most, and when the oldest view in the first was accepted.
    pub fn waiting_of(&self, site: &SiteKey) -> (u64, Option<i64>) {
        let after = self.applied_to(site);
        let aside = self.asides.get(site).and_then(|aside| aside.next_after(after));
        let first = aside.or_else(|| self.next_after(after));
        ((self.next_sequence() - 1).saturating_sub(after), first.map(|(_, oldest_ms)| oldest_ms))
    }

    /// What a batch that is frozen now bears: milliseconds of the clock by which retention is counted.
    pub fn clock_ms(&self) -> i64 {
        self.clock_ms
    }

    /// How old the oldest batch is that is kept: as far back the store may go and be healed. Milliseconds.
    pub fn reach_ms(&self) -> u64 {
        let age_ms = |place: &Place| self.clock_ms.saturating_sub(place.frozen_ms);
        self.places.front().map_or(0, age_ms).max(0) as u64
    }

    /// When the oldest view of the oldest batch was accepted that is kept (Unix milliseconds).
    pub fn oldest_ms(&self) -> Option<i64> {
        self.places.front().map(|place| place.oldest_ms)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.log.bytes() + self.asides.values().map(Outbox::bytes).sum::<u64>()
    }

    /// Whether what waits fills it, and nothing can be dropped: no more is taken then.
    pub fn is_full(&self) -> bool {
        let oldest = self.places.front().map(|place| place.at.segment);
        let waits = self.places.iter().find(|place| place.sequence > self.applied);
        self.log.bytes() >= self.config.max_bytes && waits.map(|place| place.at.segment) == oldest
    }

    /// Adds a batch and syncs it.
    ///
    /// # Errors
    /// `Undone`: it is not in the outbox. `Unknown`, or a failed sync: the process must end.
    pub fn add(&mut self, batch: &Batch) -> Result<(), AppendError> {
        if self.log.end().offset > SEGMENT_BYTES.min(self.config.max_bytes / SEGMENTS) {
            let fresh = self.log.next().prepare();
            self.log.install(fresh.map_err(AppendError::Undone)?);
        }
        self.buffer.clear();
        self.buffer.resize(FRAME_HEADER, 0);
        batch.encode(&mut self.buffer);
        let at = self.log.end();
        self.log.append(&mut self.buffer)?;
        self.log.current().sync_data().map_err(AppendError::Unknown)?;
        self.places.push_back(Place::of(batch, at));
        if self.buffer.capacity() > 1 << 20 {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Everything up to a batch is applied.
    pub fn set_applied(&mut self, sequence: u64) {
        self.applied = self.applied.max(sequence);
        while let Some((_, weights)) = self.weights.pop_front_if(|(of, _)| *of <= self.applied) {
            for (site, bytes) in weights {
                let left = self.waiting_bytes.get(&site).map_or(0, |held| held.saturating_sub(bytes));
                match left {
                    0 => self.waiting_bytes.remove(&site),
                    _ => self.waiting_bytes.insert(site, left),
                };
            }
        }
    }

    /// Reads a batch; none where it is not kept any more.
    ///
    /// # Errors
    /// Of the file system; a damaged batch.
    pub fn get(&self, sequence: u64) -> io::Result<Option<Batch>> {
        let mut found = self.read(sequence)?;
        if found.is_none() {
            for aside in self.asides.values() {
                let Some(cut) = aside.read(sequence)? else { continue };
                match &mut found {
                    Some(found) => found.join(cut),
                    None => found = Some(cut),
                }
            }
        }
        Ok(found)
    }

    fn read(&self, sequence: u64) -> io::Result<Option<Batch>> {
        let Ok(index) = self.places.binary_search_by_key(&sequence, |place| place.sequence) else {
            return Ok(None);
        };
        let Some(place) = self.places.get(index) else { return Ok(None) };
        let bytes = self.log.read(place.at)?;
        let batch = Batch::decode(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        Ok(Some(batch))
    }

    /// Drops applied batches that are older than the retention or beyond the size, oldest first, by whole
    /// segments: what is on the disk can heal. The newest stays: its sequence and its reach are what the
    /// next start goes on from.
    pub fn trim(&mut self, uptime_ms: u64, store_answers: bool) -> io::Result<()> {
        let moved_ms = self.moved_ms.replace(uptime_ms).unwrap_or(uptime_ms);
        if store_answers {
            self.clock_ms += uptime_ms.saturating_sub(moved_ms) as i64;
        }
        while let Some((last, next)) = self.end_of_first_segment() {
            let place = self.places.get(last).filter(|place| place.sequence <= self.applied);
            let old = |place: &Place| self.clock_ms.saturating_sub(place.frozen_ms) > self.retention_ms();
            if !place.is_some_and(|place| old(place) || self.log.bytes() > self.config.max_bytes) {
                break;
            }
            self.set_aside(last)?;
            self.places.drain(..=last);
            self.log.forget_before(next).delete()?;
        }
        if self.places.is_empty() {
            self.log.forget_before(self.log.end()).delete()?;
        }
        Ok(())
    }

    /// Sets aside, durably, what waits of held sites in the batches up to a place.
    fn set_aside(&mut self, last: usize) -> io::Result<()> {
        let sequences: Vec<u64> = self.places.range(..=last).map(|place| place.sequence).collect();
        for sequence in sequences.into_iter().filter(|s| self.held.values().any(|after| after < s)) {
            let Some(batch) = self.read(sequence)? else { continue };
            let held = |site: &SiteKey| self.held.get(site).is_some_and(|after| *after < sequence);
            for site in batch.sites().into_iter().filter(held).collect::<Vec<_>>() {
                let aside = match self.asides.entry(site.clone()) {
                    Entry::Occupied(aside) => aside.into_mut(),
                    Entry::Vacant(place) => {
                        let folder = self.folder.within(&format!("{ASIDE}{site}"));
                        place.insert(Outbox::open(folder, self.config.clone(), |_| ())?)
                    }
                };
                if aside.has(sequence) {
                    continue;
                }
                match aside.add(&batch.only(|key| *key == site)) {
                    Ok(()) => {}
                    Err(AppendError::Undone(error)) => return Err(error),
                    Err(AppendError::Unknown(error)) => {
                        die(&format!("what waits of site {site} cannot be set aside: {error}"))
                    }
                }
            }
        }
        Ok(())
    }

    /// The last batch of the first segment that holds any, and where the next one begins.
    fn end_of_first_segment(&self) -> Option<(usize, Position)> {
        let segment = self.places.front()?.at.segment;
        let next = self.places.iter().position(|place| place.at.segment > segment)?;
        Some((next - 1, self.places.get(next)?.at))
    }

    fn retention_ms(&self) -> i64 {
        self.config.retention.as_millis() as i64
    }
}

#[cfg(test)]
mod tests;
