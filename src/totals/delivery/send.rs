//! Puts batches into the outbox and brings them to the store.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::apply::FlushError;
use super::calendars;
use super::salts::Today;
use super::state::{Attachment, BackOff, Delivery, Link};
use crate::calendar::Period;
use crate::metrics::DataFile;
use crate::sites::{Site, SiteKey};
use crate::totals::batch::part::{HashName, PartId};
use crate::totals::batch::{Batch, Frozen};
use crate::totals::disk::fatal::die;
use crate::totals::disk::frame::Position;
use crate::totals::disk::log::AppendError;
use crate::totals::store::contract::{Store, StoreError};

/// How often a store that answers is attached anew and the running hashes compared: nothing else would show that it
/// went back where no batch comes any more, and others are told that this writer lives.
const ATTACH_ANEW: Duration = Duration::from_secs(60);

/// How often every hash is compared, over the same connection and while none has gone back. A store that goes back
/// shows it in the running ones: each batch writes to those of its sites.
const COMPARE_ALL: Duration = Duration::from_secs(3600);

/// The longest wait between two tries to reach a store.
const BACK_OFF: Duration = Duration::from_secs(2);

/// Hashes compared in one call of the store.
const HASHES_AT_A_TIME: usize = 1000;

/// Batches brought in one go: the writer looks at what it is asked in between.
pub const BATCHES_AT_A_TIME: u64 = 16;

/// How far the store was brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// More batches wait.
    Some,
    /// It holds all that the outbox does. `recut`: the calendar of a site had changed, so that stored figures
    /// have too.
    All { recut: bool },
}

impl<S: Store> Delivery<S> {
    /// Makes a batch of pending sums, and makes it durable. It waits until the journal is synced as far as they
    /// reach: the store must never be ahead of what a power cut leaves there.
    ///
    /// # Errors
    /// The sums, where the outbox cannot be written: views stay in the journal.
    pub fn add(&mut self, frozen: Frozen) -> Result<Position, Frozen> {
        let tag = u64::from_le_bytes(crate::random::bytes());
        let mut last_parts = self.last_parts.clone();
        let (sequence, clock_ms) = (self.outbox.next_sequence(), self.outbox.clock_ms());
        let batch = Batch::freeze(sequence, tag, clock_ms, frozen, &mut last_parts);
        let added = self.outbox.add(&batch);
        self.metrics.wrote(DataFile::Outbox, &added);
        match added {
            Ok(()) => {
                let reach = batch.reach;
                self.last_parts = last_parts;
                self.outbox.weigh(batch.sequence, batch.weights());
                self.fresh = Some(batch);
                Ok(reach)
            }
            Err(AppendError::Undone(error)) => {
                tracing::warn!(%error, "the outbox cannot be written; views stay in the journal");
                Err(batch.thaw())
            }
            Err(AppendError::Unknown(error)) => die(&format!("the outbox cannot be written: {error}")),
        }
    }

    /// Draws the salts of days that have come. Whether any day had.
    pub fn draw_salts(&mut self) -> bool {
        let now = self.clock.now();
        let day = |site: &Arc<Site>| Today {
            id: site.id,
            site: site.key.clone(),
            day: site.calendar.span(now.unix_ms).hour.day,
        };
        let days: Vec<Today> = self.sites.all().map(day).collect();
        if days == self.salted && !self.salts.still_in_use() {
            return false;
        }
        let drawn = self.salts.draw(&self.dir, &days, &self.salted);
        self.metrics.wrote(DataFile::Salts, &drawn);
        if let Err(error) = drawn {
            tracing::warn!(%error, "the salts cannot be written, and are drawn anew with the next turn");
            return false;
        }
        self.salted = days;
        // New ones are shared with the next attach.
        self.attach_anew();
        true
    }

    /// Brings waiting batches to the store, [`BATCHES_AT_A_TIME`]; `on_applied` is given each.
    ///
    /// # Errors
    /// See [`FlushError`]; [`Delivery::recover`] may mend it.
    pub async fn bring(&mut self, mut on_applied: impl FnMut(&Batch)) -> Result<Brought, FlushError> {
        if !self.is_attached() {
            self.attach().await?;
        }
        if self.all_held().is_some() {
            self.try_held(&mut on_applied).await?;
        }
        // Nothing is written where all has vanished, of sites that are not registered any more neither.
        if let Some(held) = self.all_held() {
            return Err(held);
        }
        if !matches!(self.link, Link::Verified(_)) {
            self.verify().await?;
        }
        let mut brought = 0;
        while let Some((sequence, _)) = self.outbox.next_waiting() {
            if brought == BATCHES_AT_A_TIME {
                return Ok(Brought::Some);
            }
            if let Some(held) = self.all_held() {
                return Err(held);
            }
            brought += 1;
            let fresh = self.fresh.take().filter(|batch| batch.sequence == sequence);
            let batch = match fresh {
                Some(batch) => Some(batch),
                None => self.outbox.get(sequence)?,
            };
            if let Some(batch) = batch {
                let whole = self.apply(&batch).await?;
                self.found(whole);
                let kind = self.store.kind();
                let is_due =
                    |site: &SiteKey| !self.is_held(site) && sequence > self.identity.floor_of(kind, site);
                on_applied(&batch.only(is_due));
            }
            self.outbox.set_applied(sequence);
        }
        if !matches!(self.link, Link::Verified(_)) {
            self.verify().await?;
        }
        self.try_held(&mut on_applied).await?;
        if let Some(held) = self.all_held() {
            return Err(held);
        }
        if self.outbox.held().is_empty() {
            self.settle()?;
        }
        Ok(Brought::All { recut: self.note_calendars().await? })
    }

    /// What can be done about a failure at once: the batches that are found to be a twin's are given to
    /// `on_applied`.
    ///
    /// # Errors
    /// The failure, where only time or a person helps.
    pub async fn recover(
        &mut self,
        failure: FlushError,
        on_applied: impl FnMut(&Batch),
    ) -> Result<(), FlushError> {
        match failure {
            FlushError::Twin(found) => self.part_ways(&found, on_applied),
            FlushError::Retired => self.come_back(),
            FlushError::Store(StoreError::Detached) => {
                self.link = Link::Away;
                Ok(())
            }
            FlushError::Lost(hash) if !self.refills => {
                tracing::warn!(hash, "a hash of the store has lost this writer's marker");
                // Others may have, too.
                self.link = Link::Away;
                // Is the data set still ours? Then the hash is healed.
                self.attach().await?;
                self.refills = true;
                Ok(())
            }
            failure => Err(failure),
        }
    }

    /// Notes how a try ended: when it failed, the next one waits.
    pub fn ended(&mut self, ended: &Result<(), FlushError>) {
        self.refills = false;
        let Err(error) = ended else {
            if self.back_off.failures > 0 {
                tracing::info!("the store answers again; everything is applied");
            }
            self.back_off = BackOff::default();
            return;
        };
        self.may_be_back = true;
        if self.back_off.failures == 0 {
            tracing::warn!(%error, "the store cannot be brought up to date; views are kept and sent later");
        }
        let failures = self.back_off.failures + 1;
        let wait = Duration::from_millis(100 << failures.min(6)).min(BACK_OFF);
        self.back_off = BackOff { failures, until: Some(Instant::now() + wait) };
        match error {
            FlushError::Held(_)
            | FlushError::DataDir(_)
            | FlushError::Store(StoreError::Refused(_) | StoreError::File(_)) => {
                self.link = Link::Held(error.to_string());
            }
            _ => self.attach_anew(),
        }
    }

    /// Compares what hashes bear, as it was read, with the last parts that were applied to them, and heals those
    /// that went back. Whether none had: else what was read is not to be believed.
    pub async fn check(&mut self, found: &[(HashName, Option<PartId>)]) -> Result<bool, FlushError> {
        let mut checked = self.check_once(found).await;
        if let Err(failure @ FlushError::Lost(_)) = checked {
            // No batch that comes may touch the hash ever again.
            self.recover(failure, |_| ()).await?;
            checked = self.check_once(found).await;
            self.refills = false;
        }
        let whole = checked?;
        self.found(whole);
        Ok(whole)
    }

    async fn check_once(&self, found: &[(HashName, Option<PartId>)]) -> Result<bool, FlushError> {
        // Of a site that is held by now nothing is healed.
        let is_held = found.iter().any(|(hash, _)| self.is_held(&hash.site));
        if is_held { Ok(false) } else { self.flush().check(&self.last_parts, found).await }
    }

    fn is_attached(&self) -> bool {
        let (Link::Attached(to) | Link::Verified(to)) = &self.link else { return false };
        to.at.elapsed() < ATTACH_ANEW && to.generation == self.store.generation()
    }

    /// Whether a look at hashes found all as they were left.
    fn found(&mut self, whole: bool) {
        self.may_be_back |= !whole;
        if let (false, Link::Verified(attached)) = (whole, &self.link) {
            self.link = Link::Attached(Attachment { compared: None, ..*attached });
        }
    }

    /// Compares the running hashes that the outbox can heal; all of them where one had gone back, and where that was
    /// not done for long: a store that went back in time has lost also what no later batch will touch, the hours
    /// and days that are over.
    async fn verify(&mut self) -> Result<(), FlushError> {
        let Link::Attached(mut attached) = self.link else { return Ok(()) };
        let is_recent = attached.compared.is_some_and(|at| at.elapsed() < COMPARE_ALL);
        if !(is_recent && self.compare(true).await?) {
            attached.compared = Some(Instant::now());
            self.compare(false).await?;
        }
        self.link = Link::Verified(attached);
        Ok(())
    }

    /// Compares hashes that the outbox can heal, and heals those that went back. Whether none had.
    async fn compare(&mut self, running_only: bool) -> Result<bool, FlushError> {
        let (first, applied) = (self.outbox.first_sequence().unwrap_or(u64::MAX), self.outbox.applied());
        let now_ms = self.clock.now().unix_ms;
        let running = |site: &Arc<Site>| {
            let hour = site.calendar.span(now_ms).hour;
            (site.key.clone(), Period::WORDS.map(|(_, period)| hour.bucket(period)))
        };
        let running: HashMap<SiteKey, _> = self.sites.all().map(running).collect();
        let is_running =
            |hash: &HashName| running.get(&hash.site).is_none_or(|buckets| buckets.contains(&hash.bucket));
        let hashes = self.hashes_of(first..=applied, |hash| !running_only || is_running(hash));
        let mut whole = true;
        for of_site in hashes.chunk_by(|a, b| a.site == b.site) {
            let Some(HashName { site, .. }) = of_site.first() else { continue };
            for some in of_site.chunks(HASHES_AT_A_TIME) {
                if !self.is_held(site) {
                    let compared = self.compare_some(some).await;
                    whole &= self.or_held(site, compared)?.unwrap_or(true);
                }
            }
        }
        self.may_be_back |= !whole;
        Ok(whole)
    }

    async fn compare_some(&self, hashes: &[HashName]) -> Result<bool, FlushError> {
        let bears = self.markers(&self.identity.writer, hashes).await?;
        self.flush().check(&self.last_parts, &bears).await
    }

    /// Notes that this kind of store holds all that the outbox can bring to it.
    fn settle(&mut self) -> io::Result<()> {
        let kind = self.store.kind();
        self.identity.change(&self.dir, |anew| anew.caught_up_with = Some(kind.to_owned()))
    }

    async fn note_calendars(&mut self) -> Result<bool, FlushError> {
        let generation = Some(self.store.generation());
        if self.calendars_noted == generation {
            return Ok(false);
        }
        if !self.is_attached() {
            // It may have gone back since its hashes were compared: a week must not be made the sum of days that did.
            return Err(StoreError::Detached.into());
        }
        let mut changed = false;
        for site in self.not_held() {
            let noted = calendars::note(&*self.store, &site, self.clock.now()).await;
            changed |= self.or_held(&site.key, noted.map_err(FlushError::Store))?.unwrap_or(false);
        }
        self.calendars_noted = generation;
        Ok(changed)
    }
}
