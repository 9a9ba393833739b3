//! The one task that owns everything durable but the journal: it freezes pending sums into batches,
//! brings them to the store, reads the store for those who ask, and writes the checkpoint. It runs on a
//! thread of its own, so that no disk and no store ever holds the event loop.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use chrono::NaiveDate;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::answers::{Load, Reader};
use super::checkpoint::{self, Checkpoint, KnownPage};
use super::decisions::Asked;
use super::sites::Registration;
use crate::calendar::{Bucket, Calendar, CivilHour};
use crate::clock::Moment;
use crate::metrics::Bound;
use crate::sessions::{Export, Sessions};
use crate::sites::{Site, SiteKey, Sites};
use crate::totals::batch::Batch;
use crate::totals::batch::part::{HashName, LastParts, PartId};
use crate::totals::delivery::apply::{Flush, FlushError};
use crate::totals::delivery::calendars;
use crate::totals::delivery::identity::Identity;
use crate::totals::delivery::outbox::Outbox;
use crate::totals::delivery::salts::{Salts, Today, random};
use crate::totals::disk::dir::DataDir;
use crate::totals::disk::log::{AppendError, Position};
use crate::totals::store::contract::{Marker, Query, Store, StoreError, WriterId};
use crate::totals::{Config, Shared, die};

/// How often a store that answers is attached anew and every hash compared: nothing else would show that it
/// went back where no batch comes any more, and others are told that this writer lives.
const ATTACH_ANEW: Duration = Duration::from_secs(60);

/// How often a shared store is read again for what other instances counted.
const REFRESH: Duration = Duration::from_secs(5);

/// While the store is away batches are frozen less often, so that there are fewer to send.
const FREEZE_WHILE_AWAY: Duration = Duration::from_secs(10);

/// The longest wait between two tries to reach a store.
const BACK_OFF: Duration = Duration::from_secs(2);

/// Pages copied while the ledger is locked.
const PAGES_AT_A_TIME: usize = 1000;

/// Hashes compared in one call of the store.
const HASHES_AT_A_TIME: usize = 1000;

/// The last parts of hours and days are remembered this long at least, though the outbox, being full,
/// may have dropped them: a quiet site's next view must not be taken for a store that went back.
const LAST_PARTS_KEPT_MS: i64 = 3 * 24 * 3_600_000;

/// See the module.
pub struct Writer<S> {
    pub shared: Arc<Shared>,
    /// The sites in force or about to be, and those that were removed: what waits of them is applied too.
    pub sites: Arc<Sites>,
    pub sessions: Arc<Sessions>,
    pub dir: DataDir,
    pub config: Config,
    pub identity: Identity,
    pub salts: Salts,
    pub outbox: Outbox,
    pub last_parts: LastParts,
    pub store: S,
    pub loads: mpsc::Receiver<Load>,
    pub orders: mpsc::Receiver<Asked>,
    pub registrations: mpsc::Receiver<Registration>,
    pub pace: Pace,
}

/// When things were last done and where they stand.
#[derive(Default)]
pub struct Pace {
    pub attached: bool,
    /// Every hash that the outbox can heal is known to bear what was last applied to it.
    pub verified: bool,
    pub attached_at: Option<Instant>,
    /// Which connection to the store was attached.
    pub generation: u64,
    /// Batches up to this one are a twin's too, if there is one.
    pub fork: Option<u64>,
    /// A hash was lost, and the data set found to be ours: it is healed from the outbox.
    pub refills: bool,
    /// The figures of every site have been read since the store was attached.
    pub loaded: bool,
    pub serving: bool,
    /// The store knows the calendars of the sites.
    pub calendars_noted: bool,
    /// The batch frozen last, if it is the next to be sent: saves reading it back.
    pub fresh: Option<Batch>,
    pub frozen_at: Option<Instant>,
    pub refreshed_at: Option<Instant>,
    pub checkpoint_at: Option<Instant>,
    /// No try to reach the store before this.
    pub retry_at: Option<Instant>,
    pub failures: u32,
    pub since: HashMap<SiteKey, NaiveDate>,
    pub salts_drawn: Vec<Today>,
    /// Up to where the journal is in batches.
    pub frozen_to: Position,
    /// Held by whoever reads the whole store.
    pub copying: Weak<()>,
}

impl Pace {
    /// At the start: the journal is in batches up to `frozen_to`.
    pub fn after(frozen_to: Position) -> Self {
        Pace { frozen_to, ..Pace::default() }
    }

    /// Whether the journal is in batches up to a position.
    pub fn has_frozen(&self, position: Position) -> bool {
        self.frozen_to >= position
    }

    /// The next try to reach the store need not wait.
    pub fn retry_now(&mut self) {
        self.retry_at = None;
    }
}

impl<S: Store> Writer<S> {
    /// What was read back from the journal becomes a batch at once: a synced copy of it, before anything
    /// of it is sent. Then gives the store a chance to answer before the first request does.
    pub async fn begin(&mut self, patience: Duration) {
        self.draw_salts();
        self.freeze().await;
        if tokio::time::timeout(patience, self.send()).await.is_err() {
            tracing::info!("the store is still being brought up to date");
        }
        self.show();
    }

    /// Works until `stop` is told; then brings what it can to the store before the deadline it is told,
    /// and writes a checkpoint.
    pub async fn run(mut self, mut stop: oneshot::Receiver<Duration>) {
        self.pace.serving = true;
        let mut ticks = tokio::time::interval(self.flush_interval());
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let deadline = loop {
            tokio::select! {
                _ = ticks.tick() => self.turn().await,
                Some(load) = self.loads.recv() => self.answer(load).await,
                Some(asked) = self.orders.recv() => self.obey(asked).await,
                Some(wanted) = self.registrations.recv() => self.register(wanted).await,
                deadline = &mut stop => break deadline.unwrap_or_default(),
            }
        };
        self.freeze().await;
        self.pace.retry_now();
        if tokio::time::timeout(deadline, self.send()).await.is_err() {
            tracing::warn!(
                "the store did not take everything in time; the rest is sent after the next start"
            );
        }
        self.checkpoint().await;
    }

    fn flush_interval(&self) -> Duration {
        self.config.store.flush_interval
    }

    /// One turn: freeze, send, look after the files.
    pub async fn turn(&mut self) {
        self.draw_salts();
        let away = self.pace.failures > 0 || self.shared.held().is_some();
        let rests = self.pace.frozen_at.is_some_and(|at| at.elapsed() < FREEZE_WHILE_AWAY);
        if !(away && rests) {
            self.freeze().await;
        }
        self.send().await;
        self.look_after_files().await;
        self.show();
    }

    /// Makes a batch of all that is pending, and makes it durable.
    pub async fn freeze(&mut self) {
        if self.outbox.is_full() {
            self.shared.metrics.bound(Bound::Outbox);
            return;
        }
        let Some(frozen) = self.shared.ledger().freeze() else { return };
        if let Some(journal) = &self.shared.journal {
            // The store must never be ahead of what a power cut leaves in the journal.
            journal.synced_to(frozen.reach).await;
        }
        let (sequence, tag) = (self.outbox.next_sequence(), u64::from_le_bytes(random()));
        let mut last_parts = self.last_parts.clone();
        let clock_ms = self.outbox.clock_ms();
        let batch = Batch::freeze(
            sequence,
            tag,
            frozen.reach,
            clock_ms,
            frozen.oldest_ms,
            frozen.sums,
            &mut last_parts,
        );
        match self.outbox.add(&batch) {
            Ok(()) => {
                self.last_parts = last_parts;
                self.pace.frozen_to = batch.reach;
                self.pace.frozen_at = Some(Instant::now());
                self.pace.fresh = Some(batch);
            }
            Err(AppendError::Undone(error)) => {
                tracing::warn!(%error, "the outbox cannot be written; views stay in the journal");
                let Batch { reach, oldest_ms, sums, .. } = batch;
                self.shared.ledger().unfreeze(crate::totals::tally::Frozen { sums, reach, oldest_ms });
            }
            Err(AppendError::Unknown(error)) => die(&format!("the outbox cannot be written: {error}")),
        }
    }

    /// Brings waiting batches to the store, and reads it when that is due.
    pub async fn send(&mut self) {
        if self.rests() || self.pace.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let ended = self.try_send().await;
        match ended {
            Ok(()) => {
                if self.pace.failures > 0 {
                    tracing::info!("the store answers again; everything is applied");
                }
                self.pace.failures = 0;
                self.shared.hold(None);
                self.shared.set_store_up(true);
                self.shared.metrics.last_flush.set(self.shared.clock.now().unix_ms as f64 / 1000.0);
            }
            Err(error) => self.failed(&error),
        }
    }

    pub fn failed(&mut self, error: &FlushError) {
        if self.pace.failures == 0 {
            tracing::warn!(%error, "the store cannot be brought up to date; views are kept and sent later");
        }
        self.pace.failures += 1;
        self.pace.attached = false;
        self.shared.set_store_up(false);
        // Neither passes by itself.
        if let FlushError::Held(_) | FlushError::Store(StoreError::Refused(_)) = error {
            self.shared.hold(Some(error.to_string()));
        }
        let wait = Duration::from_millis(100 << self.pace.failures.min(6)).min(BACK_OFF);
        self.pace.retry_at = Some(Instant::now() + wait);
    }

    async fn try_send(&mut self) -> Result<(), FlushError> {
        // Each of these happens once: after it the store is as it should be, or away.
        for _ in 0..4 {
            match self.send_all().await {
                Err(FlushError::Twin(found)) => self.part_ways(&found)?,
                Err(FlushError::Store(StoreError::Detached)) => self.pace.attached = false,
                Err(FlushError::Lost(hash)) if !self.pace.refills => {
                    tracing::warn!(hash, "a hash of the store has lost this writer's marker");
                    // Is the data set still ours? Then the hash is healed.
                    self.attach().await?;
                    self.pace.refills = true;
                }
                ended => {
                    self.pace.refills = false;
                    return ended;
                }
            }
        }
        Err(StoreError::Unreachable("it changes faster than it can be brought up to date".to_owned()).into())
    }

    async fn send_all(&mut self) -> Result<(), FlushError> {
        let recent = self.pace.attached_at.is_some_and(|at| at.elapsed() < ATTACH_ANEW);
        if !(self.pace.attached && recent && self.pace.generation == self.store.generation()) {
            self.attach().await?;
        }
        if !self.pace.verified {
            self.verify().await?;
        }
        while let Some((sequence, _)) = self.outbox.next_waiting() {
            let fresh = self.pace.fresh.take().filter(|batch| batch.sequence == sequence);
            let batch = match fresh {
                Some(batch) => Some(batch),
                None => self.outbox.get(sequence)?,
            };
            if let Some(batch) = batch {
                let whole = self.flush().apply(&batch).await?;
                self.pace.verified &= whole;
                let kind = self.store.kind();
                let shown = batch.above(|site| self.identity.floor_of(kind, site));
                self.shared.ledger().applied(&shown);
            }
            self.outbox.set_applied(sequence);
        }
        if !self.pace.verified {
            self.verify().await?;
        }
        let kind = self.store.kind();
        if self.identity.settled.as_deref() != Some(kind) {
            self.identity.settled = Some(kind.to_owned());
            self.identity.save(&self.dir)?;
        }
        if !self.pace.calendars_noted {
            let now = self.shared.clock.now();
            if calendars::note(&self.store, &self.sites, now).await? {
                self.pace.loaded = false;
            }
            self.pace.calendars_noted = true;
        }
        let due = self.store.is_shared() && self.pace.refreshed_at.is_none_or(|at| at.elapsed() >= REFRESH);
        if !self.pace.loaded || due || self.shared.take_day_turned() {
            self.refresh().await?;
        }
        Ok(())
    }

    /// Compares every hash that the outbox can heal: a store that went back in time has lost also what
    /// no later batch will touch, the hours and days that are over.
    async fn verify(&mut self) -> Result<(), FlushError> {
        let (first, applied) = (self.outbox.first_sequence().unwrap_or(u64::MAX), self.outbox.applied());
        let kept = |(_, last): &(&HashName, &PartId)| (first..=applied).contains(&last.sequence);
        let mut hashes: Vec<HashName> =
            self.last_parts.iter().filter(kept).map(|(hash, _)| hash.clone()).collect();
        // In order, so that a run of the simulation can be had again.
        hashes.sort_unstable();
        for some in hashes.chunks(HASHES_AT_A_TIME) {
            let bears = self.markers(&self.identity.writer, some).await?;
            self.flush().check(&self.last_parts, &bears).await?;
        }
        self.pace.verified = true;
        Ok(())
    }

    /// What hashes bear now of a writer.
    pub async fn markers(
        &self,
        writer: &WriterId,
        hashes: &[HashName],
    ) -> Result<Vec<(HashName, Option<Marker>)>, FlushError> {
        let query = |hash: &HashName| Query { hash: hash.clone(), fields: Vec::new() };
        let found = self.store.read(writer, hashes.iter().map(query).collect()).await?;
        Ok(hashes.iter().cloned().zip(found.into_iter().map(|found| found.marker)).collect())
    }

    pub fn reader(&self) -> Reader<'_, S> {
        Reader { store: &self.store, writer: &self.identity.writer }
    }

    pub fn flush(&self) -> Flush<'_, S> {
        Flush {
            store: &self.store,
            writer: &self.identity.writer,
            identity: &self.identity,
            outbox: &self.outbox,
            metrics: &self.shared.metrics,
            losses: &self.shared.losses,
            now_ms: self.shared.clock.now().unix_ms,
            refill: self.pace.refills,
            catching_up: self.identity.settled.as_deref() != Some(self.store.kind()),
        }
    }

    /// Draws the salts of days that have come.
    pub fn draw_salts(&mut self) {
        let now = self.shared.clock.now();
        let day = |site: &Arc<Site>| Today {
            id: site.id,
            site: site.key.clone(),
            day: site.calendar.span(now.unix_ms).hour.day,
        };
        let days: Vec<Today> = self.sites.all().map(day).collect();
        if days != self.pace.salts_drawn {
            if let Err(error) = self.salts.draw(&self.dir, &days) {
                tracing::warn!(%error, "the salts cannot be written: a restart would begin sessions anew");
            }
            self.pace.salts_drawn = days;
            // New ones are shared with the next attach.
            self.pace.attached = false;
            self.pace.loaded = false;
        }
    }

    /// Reads the figures of every site from the store.
    pub async fn refresh(&mut self) -> Result<(), FlushError> {
        let now = self.shared.clock.now();
        let reader = self.reader();
        let mut bears = Vec::new();
        let mut read = Vec::new();
        for site in self.sites.all() {
            let hour = site.calendar.span(now.unix_ms).hour;
            let since = self.pace.since.get(&site.key).copied().unwrap_or(hour.day);
            let (stored, markers) = reader.site(&site.key, &hour, since).await?;
            bears.extend(markers);
            read.push((site.id.index(), stored));
        }
        // What went back is healed first and read again: its figures are not believed.
        let whole = self.flush().check(&self.last_parts, &bears).await?;
        self.pace.verified &= whole;
        self.pace.refreshed_at = whole.then(Instant::now);
        let mut ledger = self.shared.ledger();
        let now = self.shared.clock.now();
        // Of a day that ended meanwhile nothing is taken: views of the next may be shown already.
        self.pace.loaded =
            whole && read.iter().all(|(index, stored)| ledger.is_day(*index, stored.hour.day, now));
        if self.pace.loaded {
            read.into_iter().for_each(|(index, stored)| ledger.load_site(index, stored, now.unix_ms));
        }
        Ok(())
    }

    async fn look_after_files(&mut self) {
        let now = self.shared.clock.now();
        if self.pace.checkpoint_at.is_none_or(|at| at.elapsed() >= self.config.checkpoint_interval) {
            self.checkpoint().await;
        } else if let Some(journal) = &self.shared.journal
            && let Err(error) = journal.roll(false)
        {
            tracing::warn!(%error, "no new journal segment can be made; the current one grows");
        }
        // Nothing is dropped on the word of a server that has not been looked at.
        let known = self.pace.verified && self.pace.generation == self.store.generation();
        let answers = known && self.shared.store_up.load(Ordering::Acquire);
        if let Err(error) = self.outbox.trim(now.uptime_ms, answers) {
            tracing::warn!(%error, "old batches cannot be deleted");
        }
    }

    fn show(&self) {
        let metrics = &self.shared.metrics;
        metrics.healing.outbox_reach_seconds.set(self.outbox.reach_ms() as f64 / 1000.0);
        metrics.outbox_bytes.set(self.outbox.bytes() as i64);
        metrics.unapplied_batches.set(self.outbox.waiting() as i64);
        let waiting = self.outbox.next_waiting().map(|(_, oldest_ms)| oldest_ms);
        let oldest_ms = waiting.or_else(|| self.shared.ledger().oldest_ms());
        metrics.oldest_unapplied.set(oldest_ms.map_or(0.0, |ms| ms as f64 / 1000.0));
    }

    /// Writes the checkpoint and deletes the journal that nobody needs any more.
    pub async fn checkpoint(&mut self) {
        self.pace.checkpoint_at = Some(Instant::now());
        let Some(checkpoint) = self.make_checkpoint().await else { return };
        let position = checkpoint.position.min(self.pace.frozen_to);
        if let Err(error) = self.dir.replace(checkpoint::FILE, &checkpoint.encode()) {
            tracing::warn!(%error, "the checkpoint cannot be written; the last one is kept");
            return;
        }
        if let Some(journal) = &self.shared.journal {
            let deleted = journal.roll(true).and_then(|()| journal.remove_before(position));
            if let Err(error) = deleted {
                tracing::warn!(%error, "the journal cannot be shortened");
            }
        }
        let first = self.outbox.first_sequence().unwrap_or(0);
        let now_ms = self.shared.clock.now().unix_ms;
        let recent = Calendar::utc().span(now_ms.saturating_sub(LAST_PARTS_KEPT_MS)).hour.day;
        self.last_parts.retain(|hash, last| {
            let is_over = matches!(hash.bucket, Bucket::Hour(day, ..) | Bucket::Day(day) if day < recent);
            last.sequence >= first || !is_over
        });
    }

    /// Copies everything, never holding the ledger for long. Nothing else applies batches meanwhile, so what
    /// the store is known to hold stays what it is. None while the journal cannot be written.
    async fn make_checkpoint(&self) -> Option<Checkpoint> {
        let position = self.shared.ledger().folded();
        let now = self.shared.clock.now();
        let (sessions, ids) = self.copy_presence(now).await?;
        let sites = self.shared.ledger().sites();
        let mut figures = Vec::new();
        let mut pages = Vec::new();
        for (index, ..) in &sites {
            figures.extend(self.shared.ledger().stored(*index).map(|stored| (*index, stored)));
            // The embedded store is here whenever this process is.
            if self.store.is_shared() {
                pages.extend(self.known_pages(*index));
            }
        }
        Some(Checkpoint {
            written_ms: now.unix_ms,
            position,
            applied: self.outbox.applied(),
            last_parts: self.last_parts.clone(),
            sites: sites.into_iter().map(|(_, key, _)| key).collect(),
            sessions,
            ids,
            figures,
            pages,
        })
    }

    /// Sessions and ids, without those of views that were undone after all.
    async fn copy_presence(&self, now: Moment) -> Option<(Export, (Vec<u64>, Vec<u64>))> {
        let (ended, undone) = self.shared.ledger().groups();
        let copied = (self.sessions.export(now), self.shared.ledger().ids.export());
        // The group that was open and the one that was being written: when both have ended, every view
        // that was copied is either written or known to be undone.
        while self.shared.ledger().is_writing() && self.shared.ledger().groups().0 < ended + 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (self.shared.ledger().groups().1 == undone).then_some(copied)
    }

    fn known_pages(&self, site: usize) -> Vec<KnownPage> {
        let mut known = Vec::new();
        let mut from = Some(0);
        while let Some(slot) = from {
            let (some, next) = self.shared.ledger().stored_pages(site, slot, PAGES_AT_A_TIME);
            known.extend(some.into_iter().map(|(page, hour, figures): (_, CivilHour, _)| KnownPage {
                site,
                hour,
                page,
                figures,
            }));
            from = next;
        }
        known
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        StoreError::Unreachable(error.to_string())
    }
}
