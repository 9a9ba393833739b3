//! How the writer stands to the store: it attaches, finds out whether another process bears its identity,
//! and takes a new one.
//!
//! **A copied directory** has the same writer in it. On Redis one run of a process bears a writer, and each
//! script checks that; a later run of the same directory takes the writer over. It notes the runs of its directory
//! and the last batch before each: up to there two directories are the same, which is called the fork. Whoever
//! finds that a run of another directory bears the writer, or a marker that is not its own, takes a new identity:
//!
//! - Batches up to the fork are the other's to apply: it has them too.
//! - Batches after it are this directory's own. Those parts of them that were applied already bear their own
//!   markers under the old identity; these are repeated under the new one, and everything else is sent.
//! - What was in no batch yet at the copy is in both journals, and counted by both.
//!
//! The embedded store is copied with its directory, and knows no twins.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::apply::FlushError;
use super::identity::{Change, Dataset};
use super::state::{Attachment, Delivery, Link};
use crate::sites::SiteKey;
use crate::totals::batch::Batch;
use crate::totals::batch::part::{HashName, Part};
use crate::totals::store::contract::{Claim, Marker, Standing, Store, WriterId};

/// A writer that has not attached for so long is gone: far longer than any outbox reaches. Seconds.
const GONE_S: i64 = 40 * 24 * 3600;

/// Most writers of a site retired each time the store is attached.
const GONE_AT_A_TIME: usize = 100;

/// What is said of a data set that is not the one that was written to.
fn vanished(site: &SiteKey) -> String {
    format!(
        "the data set of site {site} is not the one that was written to: it has vanished, or store.url names \
         another one; views are kept, nothing is sent. Set store.url right, or say what is meant: \
         `footfall store refill` or `footfall store accept-empty`"
    )
}

impl<S: Store> Delivery<S> {
    /// Registers with the store, site by site, and agrees on salts.
    ///
    /// # Errors
    /// See [`FlushError`]: held where a data set is not the one that was written to.
    pub async fn attach(&mut self) -> Result<(), FlushError> {
        self.attach_anew();
        let mut generation = None;
        self.look_at_settings().await?;
        let known = self.identity.datasets.len();
        for site in self.sites.clone().all() {
            let place = (self.store.kind().to_owned(), site.key.clone());
            let dataset = self.identity.datasets.get(&place).map(|dataset| dataset.id.clone());
            let (attached, since) = match self.claim(&site.key, dataset, None).await? {
                (Standing::Other, ..) => return Err(FlushError::Held(vanished(&site.key))),
                (Standing::Twin, ..) => {
                    return Err(FlushError::Twin("the mark of another process".to_owned()));
                }
                (Standing::Born | Standing::Ours, id, since) => (Dataset { id, floor: 0 }, since),
            };
            // Of several servers behind one address the first is the one that was looked at.
            generation.get_or_insert(self.store.generation());
            self.identity.datasets.entry(place).or_insert(attached);
            self.since.insert(site.key.clone(), since);
        }
        if known != self.identity.datasets.len() {
            self.identity.save(&self.dir)?;
        }
        self.settle_left().await?;
        self.retire_former().await?;
        self.retire_long_gone().await?;
        let in_force = self.in_force.load_full();
        let in_use = |site: &SiteKey| self.serves && in_force.get(site.as_str()).is_some();
        self.salts.share(&self.store, &self.dir, &self.salted, in_use).await?;
        let generation = generation.unwrap_or_default();
        self.link = Link::Attached(Attachment { at: Instant::now(), generation });
        Ok(())
    }

    /// Looks at the settings of the store's server: some refuse it, some are told.
    async fn look_at_settings(&mut self) -> Result<(), FlushError> {
        let concerns = self.store.concerns().await?;
        let refused = concerns.iter().find(|concern| concern.refused).map(|concern| concern.text.clone());
        self.concerns = concerns.into_iter().map(|concern| concern.text).collect();
        refused.map_or(Ok(()), |why| Err(FlushError::Held(format!("{why}; views are kept, nothing is sent"))))
    }

    /// Attaches to the data of a site: how this writer stands to it, its id and its first day.
    pub async fn claim(
        &mut self,
        key: &SiteKey,
        dataset: Option<std::sync::Arc<str>>,
        birth: Option<std::sync::Arc<str>>,
    ) -> Result<(Standing, std::sync::Arc<str>, chrono::NaiveDate), FlushError> {
        let now = self.clock.now();
        let calendar = self.sites.known(key).map(|site| site.calendar.clone());
        let (zone, today) = match &calendar {
            Some(calendar) => (calendar.zone.name(), calendar.span(now.unix_ms).hour.day),
            None => ("", crate::calendar::Calendar::utc().span(now.unix_ms).hour.day),
        };
        let claim = Claim { dataset, birth, runs: self.identity.runs.clone() };
        let attached = self.store.attach(key, zone, &self.identity.writer, today, &claim).await?;
        self.fork = attached.fork.or(self.fork);
        Ok((attached.standing, attached.dataset, attached.since))
    }

    /// Takes a new identity: a copy of this directory bears the old one.
    ///
    /// # Errors
    /// Of the file system: nothing has changed.
    pub(super) fn part_ways(
        &mut self,
        found: &str,
        mut on_applied: impl FnMut(&Batch),
    ) -> Result<(), FlushError> {
        let floor = self.fork.take().unwrap_or(0).max(self.outbox.applied());
        let former = self.identity.begin_anew(&self.dir, floor, Change::Twin)?;
        self.last_parts.retain(|_, last| last.sequence > floor);
        for sequence in self.outbox.applied() + 1..=floor {
            if let Some(batch) = self.outbox.get(sequence)? {
                on_applied(&batch);
            }
        }
        self.outbox.set_applied(floor);
        self.link = Link::Away;
        self.metrics.healing.twins.inc();
        tracing::warn!(
            former = &*former.0,
            writer = &*self.identity.writer.0,
            found,
            fork = floor,
            "another process bears the identity of this data_dir, which was copied: this one takes a new \
             identity; views that were in no batch when it was copied are counted by both"
        );
        Ok(())
    }

    /// Repeats, under this identity, the markers of parts after the floor that were applied under the one
    /// before: they are not sent again.
    async fn settle_left(&mut self) -> Result<(), FlushError> {
        let Some(left) = self.identity.superseded.clone() else { return Ok(()) };
        let mut hashes = BTreeSet::new();
        let mut own = std::collections::HashMap::new();
        let first = self.outbox.first_sequence().unwrap_or(0).max(self.identity.floor + 1);
        for sequence in first..self.outbox.next_sequence() {
            let Some(batch) = self.outbox.get(sequence)? else { continue };
            own.insert(sequence, batch.tag);
            hashes.extend(batch.parts().into_iter().map(|part| part.hash));
        }
        let hashes: Vec<HashName> = hashes.into_iter().collect();
        let found = self.markers(&left, &hashes).await?;
        let part = |(hash, marker): (HashName, Option<Marker>)| {
            let Some(Marker::Part(id)) = marker else { return None };
            let is_own = own.get(&id.sequence) == Some(&id.tag);
            is_own.then(|| Part { hash, prev: None, id, sums: Vec::new() })
        };
        // Where this was done before, the hash bears that marker or a later one: nothing is written.
        let parts = found.into_iter().filter_map(part).collect();
        self.store.apply(&self.identity.writer, parts, Vec::new()).await?;
        self.identity.superseded = None;
        self.identity.save(&self.dir)?;
        Ok(())
    }

    /// Removes the markers of writers that this directory was and is no more.
    async fn retire_former(&mut self) -> Result<(), FlushError> {
        while let Some(former) = self.identity.to_retire.last().cloned() {
            self.retire_everywhere(&former).await?;
            self.identity.to_retire.pop();
            self.identity.save(&self.dir)?;
        }
        Ok(())
    }

    /// Removes the markers of writers that were not seen for long, some at a time: instances that came and went
    /// without being drained must not fill the hashes. Should one come back, it takes a new identity and goes
    /// on after the last batch of which the store bore a marker.
    async fn retire_long_gone(&self) -> Result<(), FlushError> {
        let now_s = self.clock.now().unix_ms / 1000;
        for site in self.sites.all() {
            let known = self.store.writers(&site.key).await?;
            let gone = |(writer, seen): (WriterId, i64)| {
                (now_s - seen > GONE_S && writer != self.identity.writer).then_some(writer)
            };
            let gone: Vec<WriterId> = known.into_iter().filter_map(gone).take(GONE_AT_A_TIME).collect();
            if !gone.is_empty() {
                let removed = self.store.retire(&site.key, &gone).await?;
                tracing::info!(writers = gone.len(), removed, site = %site.key, "writers that are long gone are retired");
            }
        }
        Ok(())
    }

    /// Removes a writer's markers from all sites. How many.
    pub async fn retire_everywhere(&self, writer: &WriterId) -> Result<u64, FlushError> {
        let mut removed = 0;
        for site in self.sites.all() {
            removed += self.store.retire(&site.key, std::slice::from_ref(writer)).await?;
        }
        Ok(removed)
    }
}
