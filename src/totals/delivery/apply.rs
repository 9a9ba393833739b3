//! Brings batches from the outbox to the store, each exactly once.
//!
//! A part is applied if its hash bears the marker that it was frozen on. What else the hash may bear
//! decides what is done:
//!
//! | found | means | done |
//! |---|---|---|
//! | the part's own marker | it was applied, the answer was lost | go on |
//! | ours, younger | it was applied before a restart | go on |
//! | ours, older | the store went back in time | re-send what follows it, from the outbox |
//! | nothing | the hash was lost | the same from the beginning, if the data set is still ours |
//! | not ours | another writer bears this identity | take a new one |
//!
//! **Healing** brings all hashes that went back up to date in one pass over the outbox. What follows the
//! marker that a hash bears is added up, over many batches, into few parts: each leads from the marker that
//! is there to the marker of the last batch in it. The markers alone decide which sums these are, so a part
//! whose answer was lost is found applied, or made again the same. Where the first batch that is kept was
//! frozen on another marker than the hash bears, what lay between is lost, and recorded.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use chrono::NaiveDate;

use super::identity::Identity;
use super::outbox::Outbox;
use crate::metrics::Metrics;
use crate::sites::SiteKey;
use crate::totals::batch::Batch;
use crate::totals::batch::part::{
    Entry, HashKind, HashName, LastParts, MAX_FIELDS, Part, PartId, SketchPart,
};
use crate::totals::batch::sketch::Registers;
use crate::totals::disk::losses::{Cause, Losses};
use crate::totals::store::contract::{Outcome, Store, StoreError, WriterId};

/// Parts of a healing that are sent in one call of the store.
const PARTS_AT_A_TIME: usize = 500;

/// Why a flush did not end.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// Try again later.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A file of this process's own, which the store has no part in: a batch could not be read back, or what must
    /// be known at the next start not be saved.
    #[error("a file of data_dir cannot be read or written: {0}; views are kept, nothing is sent")]
    DataDir(#[from] std::io::Error),
    /// A hash that this writer has written to is gone: is the data set still the same?
    #[error("hash {0} of the store has lost this writer's marker")]
    Lost(String),
    /// Another writer bears this identity.
    #[error("another writer bears this identity: the store holds {0}")]
    Twin(String),
    /// This writer was retired.
    #[error("this writer was retired")]
    Retired,
    /// Nothing is sent until someone acts.
    #[error("{0}")]
    Held(String),
}

/// Everything a flush works with.
pub struct Flush<'a, S> {
    pub store: &'a S,
    pub writer: &'a WriterId,
    pub identity: &'a Identity,
    pub outbox: &'a Outbox,
    pub metrics: &'a Metrics,
    pub losses: &'a Losses,
    /// The day before which each site's pages are pruned: such hashes are gone, and not lost.
    pub pruned: &'a HashMap<SiteKey, NaiveDate>,
    pub now_ms: i64,
    /// A lost hash is re-sent from the beginning of the outbox: the data set has been found to be ours.
    pub refill: bool,
    /// A site that is held, and is about to be no more: that its hashes are behind is no news, and what waits of it is
    /// sent. Of the others that are held nothing is.
    pub released: Option<&'a SiteKey>,
    /// The store was another one until now, or was accepted anew: that hashes are behind is no news.
    pub catching_up: bool,
}

/// A hash that is behind.
struct Gap {
    /// Up to and including this part it is to be brought.
    last: PartId,
    /// The part whose marker it bears.
    from: Option<PartId>,
    /// The part that it will bear when all that was made is applied.
    bears: Option<PartId>,
    /// The last part added up.
    reached: Option<PartId>,
    /// Whether what is there was compared with what the first kept part was frozen on.
    compared: bool,
    /// What its revision becomes at least: something of it is lost or entered, and the hash does not bear that yet.
    revision: Option<u64>,
    sums: BTreeMap<Arc<str>, u64>,
    /// Of a register the latest.
    entries: BTreeMap<Arc<str>, Entry>,
}

impl<S: Store> Flush<'_, S> {
    /// Applies a batch. When it returns `Ok` the store holds all of it. Whether no hash had gone back:
    /// where one has, others may have too that no batch touches any more.
    ///
    /// # Errors
    /// See [`FlushError`]; any part may or may not have been applied.
    pub async fn apply(&self, batch: &Batch) -> Result<bool, FlushError> {
        let parts = self.parts(batch);
        let sent: Vec<(HashName, PartId)> = parts.iter().map(|part| (part.hash.clone(), part.id)).collect();
        let mut sketches = batch.sketches();
        sketches.retain(|sketch| batch.sequence > self.floor(&sketch.name));
        let outcomes = self.store.apply(self.writer, parts, sketches).await?;
        // Parts of one hash are chained, so the outcome of its last one speaks for all.
        let mut seen = HashSet::new();
        let mut behind = Vec::new();
        for ((hash, id), outcome) in sent.into_iter().zip(outcomes).rev() {
            if seen.insert(hash.clone())
                && let Outcome::Found(found) = outcome
            {
                behind.push((hash, found, id));
            }
        }
        self.heal(behind).await
    }

    /// Compares what hashes bear with the last parts that were applied to them, and heals those that
    /// went back. Whether none had.
    pub async fn check(
        &self,
        last_parts: &LastParts,
        found: &[(HashName, Option<PartId>)],
    ) -> Result<bool, FlushError> {
        let differs = |(hash, marker): &(HashName, Option<PartId>)| {
            let last = *last_parts.get(hash)?;
            let is_pruned = hash.is_pruned(self.pruned.get(&hash.site));
            (*marker != Some(last) && !is_pruned).then(|| (hash.clone(), *marker, last))
        };
        self.heal(found.iter().filter_map(differs).collect()).await
    }

    /// The parts of a batch, as this identity sends them: none below the floor, and a hash that was last
    /// written to below it is new.
    fn parts(&self, batch: &Batch) -> Vec<Part> {
        let mut parts = batch.parts();
        parts.retain_mut(|part| {
            let floor = self.floor(&part.hash);
            part.prev.take_if(|prev| prev.sequence <= floor);
            batch.sequence > floor
        });
        parts
    }

    fn floor(&self, hash: &HashName) -> u64 {
        if self.outbox.held().contains_key(&hash.site) && self.released != Some(&hash.site) {
            return u64::MAX;
        }
        self.identity.floor_of(self.store.kind(), &hash.site)
    }

    /// Brings hashes up to and including a part, given the marker that each bears. Whether all were there
    /// already.
    async fn heal(&self, behind: Vec<(HashName, Option<PartId>, PartId)>) -> Result<bool, FlushError> {
        let mut gaps = HashMap::new();
        let mut tags = HashMap::new();
        for (hash, found, last) in behind {
            let from = match found {
                None if !self.refill && !self.catching_up && self.released.is_none() => {
                    return Err(FlushError::Lost(hash.to_string()));
                }
                None => None,
                Some(marker) => match self.part_of(marker, &mut tags)? {
                    id if id.is_before(last) => Some(id),
                    _ => continue,
                },
            };
            gaps.insert(hash, Gap::new(from, last));
        }
        if gaps.is_empty() {
            return Ok(true);
        }
        let hashes = gaps.len();
        if !self.catching_up && self.released.is_none() {
            self.metrics.healing.regressions.inc_by(hashes as u64);
            tracing::warn!(hashes, "the store went back in time: re-sending from the outbox");
        }
        self.pass(gaps).await?;
        // Tried again and again it may be, and not succeed.
        match (self.catching_up, self.released) {
            (true, _) => tracing::info!(hashes, "a store that is new here was given what the outbox holds"),
            (_, Some(site)) => tracing::info!(%site, hashes, "what waited of a site was sent"),
            (false, None) => {}
        }
        Ok(false)
    }

    /// One pass over the outbox.
    async fn pass(&self, mut gaps: HashMap<HashName, Gap>) -> Result<(), FlushError> {
        let begins =
            |(hash, gap): (&HashName, &Gap)| gap.from.map_or_else(|| self.floor(hash) + 1, |id| id.sequence);
        let first = gaps.iter().map(begins).min().unwrap_or(0);
        let first = first.max(self.outbox.first_kept().unwrap_or(0));
        let last = gaps.values().map(|gap| gap.last.sequence).max().unwrap_or(0);
        let mut made = Vec::new();
        let mut raised = Raised::default();
        for sequence in first..=last {
            let Some(batch) = self.outbox.get(sequence)? else { continue };
            self.add_up(&batch, &mut gaps, &mut made, &mut raised)?;
            if made.len() >= PARTS_AT_A_TIME {
                self.ship(&mut made, &mut raised).await?;
            }
        }
        for (hash, gap) in &mut gaps {
            if gap.reached.or(gap.from) != Some(gap.last) {
                // The last part is not kept any more: what it held is lost, and that is said once.
                self.lost(hash, gap.reached.or(gap.from), gap.last);
                (gap.reached, gap.revision) = (Some(gap.last), self.after_a_loss());
            }
            made.extend(gap.make(hash));
        }
        self.ship(&mut made, &mut raised).await
    }

    /// Adds up what a batch brings to the hashes that are behind it.
    fn add_up(
        &self,
        batch: &Batch,
        gaps: &mut HashMap<HashName, Gap>,
        made: &mut Vec<Part>,
        raised: &mut Raised,
    ) -> Result<(), FlushError> {
        let mut due = HashSet::new();
        for part in self.parts(batch) {
            let Some(gap) = gaps.get_mut(&part.hash) else { continue };
            let follows = gap.from.is_none_or(|from| from.is_before(part.id)) && !gap.last.is_before(part.id);
            if !follows {
                continue;
            }
            if !gap.compared {
                gap.compared = true;
                self.compare(&part, gap)?;
            }
            let fresh = part.sums.iter().filter(|(field, _)| !gap.sums.contains_key(field)).count()
                + part.entries.iter().filter(|(field, _)| !gap.entries.contains_key(field)).count();
            if gap.sums.len() + gap.entries.len() + fresh > MAX_FIELDS {
                made.extend(gap.make(&part.hash));
            }
            for (field, add) in part.sums {
                *gap.sums.entry(field).or_default() += add;
            }
            // A figure may be lower by an entry that comes back: whoever read another one must believe it.
            let revision = if part.entries.is_empty() { part.revision } else { self.after_a_loss() };
            gap.revision = revision.max(gap.revision);
            part.entries.into_iter().for_each(|(field, entry)| entry.put(&mut gap.entries, &field));
            gap.reached = Some(part.id);
            due.insert(part.hash);
        }
        raised.take(batch, &due);
        Ok(())
    }

    /// Compares what a hash bears with what the first part to follow was frozen on.
    fn compare(&self, part: &Part, gap: &mut Gap) -> Result<(), FlushError> {
        match (gap.from, part.prev) {
            (from, prev) if from == prev => {}
            // What lies below the floor is not missed.
            (Some(from), None) if from.sequence <= self.floor(&part.hash) => {}
            // A store that is new to this directory begins with what is kept.
            (None, Some(_)) if self.catching_up => {}
            (from, Some(prev)) if from.is_none_or(|from| from.is_before(prev)) => {
                self.lost(&part.hash, from, prev);
                gap.revision = self.after_a_loss();
            }
            // It bears something that came after what this part was frozen on, and is not kept here.
            (from, _) => {
                return Err(FlushError::Twin(from.map_or_else(String::new, |from| from.to_string())));
            }
        }
        Ok(())
    }

    /// Sends what was made, after what is lost by it is recorded.
    async fn ship(&self, made: &mut Vec<Part>, raised: &mut Raised) -> Result<(), FlushError> {
        self.losses.save()?;
        let (parts, sketches) = (std::mem::take(made), raised.made());
        if parts.is_empty() && sketches.is_empty() {
            return Ok(());
        }
        let outcomes = self.store.apply(self.writer, parts, sketches).await?;
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Found(_))) {
            // A call of ours that was given up came between: the next try sees what it did.
            return Err(StoreError::unreachable("a hash changed while it was healed").into());
        }
        Ok(())
    }

    /// The part of ours that a marker names.
    fn part_of(&self, id: PartId, tags: &mut HashMap<u64, Option<u64>>) -> Result<PartId, FlushError> {
        let twin = || FlushError::Twin(id.to_string());
        let tag = match tags.get(&id.sequence) {
            Some(tag) => *tag,
            None => self.outbox.get(id.sequence)?.map(|batch| batch.tag),
        };
        tags.insert(id.sequence, tag);
        match tag {
            Some(tag) if tag == id.tag => Ok(id),
            Some(_) => Err(twin()),
            // Older than what is kept; one from the future is another writer's.
            None if id.sequence < self.outbox.next_sequence() => Ok(id),
            None => Err(twin()),
        }
    }

    /// The revision of a hash that has lost something, or is given an entry again: the time, which is more than any
    /// that was read before, wherever the store went back to.
    fn after_a_loss(&self) -> Option<u64> {
        Some(self.now_ms.max(0) as u64)
    }

    /// Notes that what lies between two parts of a hash is not kept any more.
    fn lost(&self, hash: &HashName, after: Option<PartId>, up_to: PartId) {
        let place = format!("{}/{hash}", hash.site);
        let after = after.map_or(0, |id| id.sequence);
        let mut extent = format!("batches after {after} up to {}", up_to.sequence);
        if let Some(oldest_ms) = self.outbox.oldest_ms() {
            let oldest = chrono::DateTime::from_timestamp_millis(oldest_ms).unwrap_or_default();
            extent += &format!(", their views accepted before {}", oldest.format("%FT%TZ"));
        }
        self.losses.note(Cause::Store, self.now_ms, &place, &extent);
    }
}

impl Gap {
    fn new(from: Option<PartId>, last: PartId) -> Self {
        let (sums, entries) = (BTreeMap::new(), BTreeMap::new());
        Gap { last, from, bears: from, reached: None, compared: false, revision: None, sums, entries }
    }

    /// A part of all that is added up, if there is anything.
    fn make(&mut self, hash: &HashName) -> Option<Part> {
        let id = self.reached.filter(|reached| self.bears != Some(*reached))?;
        let sums = std::mem::take(&mut self.sums).into_iter().collect();
        let entries = std::mem::take(&mut self.entries).into_iter().collect();
        let (prev, revision) = (self.bears.replace(id), self.revision.take());
        Some(Part { hash: hash.clone(), prev, id, sums, entries, revision })
    }
}

/// Registers of sketches, raised over many batches.
#[derive(Default)]
struct Raised(HashMap<HashName, HashMap<u16, u8>>);

impl Raised {
    /// Takes the sketches of a batch that belong to hashes.
    fn take(&mut self, batch: &Batch, hashes: &HashSet<HashName>) {
        for sketch in batch.sketches() {
            let of = HashName { kind: HashKind::Sums, ..sketch.name.clone() };
            if hashes.contains(&of) {
                let registers = self.0.entry(sketch.name).or_default();
                for (index, rank) in sketch.registers {
                    let held = registers.entry(index).or_default();
                    *held = rank.max(*held);
                }
            }
        }
    }

    fn made(&mut self) -> Vec<SketchPart> {
        let part = |(name, raised): (HashName, HashMap<u16, u8>)| {
            let mut registers: Registers = raised.into_iter().collect();
            registers.sort_unstable();
            SketchPart { name, registers }
        };
        self.0.drain().map(part).collect()
    }
}

#[cfg(test)]
mod tests;
