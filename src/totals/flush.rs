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
//! | not ours | another writer bears this identity | hold |

use super::batch::{Batch, Heads, Link};
use super::outbox::Outbox;
use super::store::{HashName, Marker, Outcome, Part, SketchPart, Store, StoreError, WriterId};
use crate::metrics::Metrics;

/// Why a flush did not end.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// Try again later.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A batch could not be read back.
    #[error("the outbox cannot be read: {0}")]
    Outbox(#[from] std::io::Error),
    /// A hash that this writer has written to is gone: is the data set still the same?
    #[error("hash {0} of the store has lost this writer's marker")]
    Lost(String),
    /// Nothing is sent until someone acts.
    #[error("{0}")]
    Held(String),
}

/// Everything a flush works with.
pub struct Flush<'a> {
    pub store: &'a Store,
    pub writer: &'a WriterId,
    pub outbox: &'a Outbox,
    pub metrics: &'a Metrics,
    /// A lost hash is re-sent from the beginning of the outbox: the data set has been found to be ours.
    pub refill: bool,
}

impl Flush<'_> {
    /// Applies a batch. When it returns `Ok` the store holds all of it. Whether no hash had gone back:
    /// where one has, others may have too that no batch touches any more.
    ///
    /// # Errors
    /// See [`FlushError`]; any part may or may not have been applied.
    pub async fn apply(&self, batch: &Batch) -> Result<bool, FlushError> {
        let mut whole = true;
        let parts = batch.parts();
        let hashes: Vec<HashName> = parts.iter().map(|part| part.hash.clone()).collect();
        let outcomes = self.store.apply(self.writer, parts, batch.sketches()).await?;
        for (number, (hash, outcome)) in hashes.iter().zip(outcomes).enumerate() {
            // Parts of one hash are chained, so its last one speaks for all.
            let is_last = !hashes.iter().skip(number + 1).any(|other| other == hash);
            if let (true, Outcome::Found(found)) = (is_last, outcome) {
                let last = Link { sequence: batch.sequence, part: number as u32, tag: batch.tag };
                whole &= self.heal(hash, found, last).await?;
            }
        }
        Ok(whole)
    }

    /// Compares what hashes bear with the last parts that were applied to them, and heals those that
    /// went back. Whether none had.
    ///
    /// # Errors
    /// See [`FlushError`].
    pub async fn check(
        &self,
        heads: &Heads,
        found: &[(HashName, Option<Marker>)],
    ) -> Result<bool, FlushError> {
        let mut whole = true;
        for (hash, marker) in found {
            if let Some(head) = heads.get(hash)
                && marker.as_ref() != Some(&head.marker())
            {
                whole &= self.heal(hash, marker.clone(), *head).await?;
            }
        }
        Ok(whole)
    }

    /// Brings a hash up to and including part `last`, given the marker that it bears. Whether it was
    /// there already.
    async fn heal(&self, hash: &HashName, found: Option<Marker>, last: Link) -> Result<bool, FlushError> {
        let from = match &found {
            None if !self.refill => return Err(FlushError::Lost(hash.name.to_string())),
            None => None,
            Some(marker) => match self.position_of(marker)? {
                link if link.is_before(last) => Some(link),
                _ => return Ok(true),
            },
        };
        self.warn_of_loss(hash, from);
        let first = from.map_or(0, |link| link.sequence).max(self.outbox.first_sequence().unwrap_or(0));
        let mut bears = found;
        for sequence in first..=last.sequence {
            let Some(batch) = self.outbox.get(sequence)? else { continue };
            bears = self.resend(&batch, hash, from, last, bears).await?;
        }
        if bears.as_ref() != Some(&last.marker()) {
            // The last part is not kept any more: what it held is lost, and that is said once.
            let part = Part { hash: hash.clone(), prev: bears, marker: last.marker(), sums: Vec::new() };
            self.apply_one(part, Vec::new()).await?;
        }
        Ok(false)
    }

    /// Re-sends the parts of a batch on one hash that lie after `from`. The marker that it bears then.
    async fn resend(
        &self,
        batch: &Batch,
        hash: &HashName,
        from: Option<Link>,
        last: Link,
        mut bears: Option<Marker>,
    ) -> Result<Option<Marker>, FlushError> {
        for (number, mut part) in batch.parts().into_iter().enumerate() {
            let link = Link { sequence: batch.sequence, part: number as u32, tag: batch.tag };
            let due = from.is_none_or(|from| from.is_before(link)) && !last.is_before(link);
            if part.hash != *hash || !due {
                continue;
            }
            part.prev = bears;
            let marker = part.marker.clone();
            let mut sketches = batch.sketches();
            sketches.retain(|s| {
                s.name.site == hash.site && s.name.name.strip_suffix(":visitors") == Some(&hash.name)
            });
            self.apply_one(part, sketches).await?;
            bears = Some(marker);
        }
        Ok(bears)
    }

    async fn apply_one(&self, part: Part, sketches: Vec<SketchPart>) -> Result<(), FlushError> {
        let held = FlushError::Held(twin(&part.hash));
        match self.store.apply(self.writer, vec![part], sketches).await?.as_slice() {
            [Outcome::Applied | Outcome::Already] => Ok(()),
            _ => Err(held),
        }
    }

    /// The part of ours that a marker names.
    fn position_of(&self, marker: &Marker) -> Result<Link, FlushError> {
        let held =
            || FlushError::Held(format!("marker {} of the store is not one of this writer's", marker.0));
        let link: Link = marker.0.parse().map_err(|_| held())?;
        match self.outbox.get(link.sequence)? {
            Some(batch) if batch.tag == link.tag => Ok(link),
            Some(_) => Err(held()),
            // Older than what is kept; one from the future is another writer's.
            None if link.sequence < self.outbox.next_sequence() => Ok(link),
            None => Err(held()),
        }
    }

    fn warn_of_loss(&self, hash: &HashName, from: Option<Link>) {
        self.metrics.store_regressions.inc();
        let reached = from.map_or(0, |link| link.sequence);
        let first = self.outbox.first_sequence().unwrap_or(u64::MAX);
        if reached + 1 < first {
            tracing::error!(site = %hash.site, hash = &*hash.name, found = reached, outbox_begins = first,
                "the store went back further than the outbox reaches: batches in between, if they touched \
                 this hash, are lost");
        } else {
            tracing::warn!(site = %hash.site, hash = &*hash.name, found = reached,
                "the store went back in time: re-sending from the outbox");
        }
    }
}

fn twin(hash: &HashName) -> String {
    format!(
        "another writer bears this identity: hash {} of site {} changed under our hands",
        hash.name, hash.site
    )
}

#[cfg(test)]
mod tests;
