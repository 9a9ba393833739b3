//! One turn of the writer: it freezes pending sums into a batch, has it delivered, reads the figures that other
//! instances may have changed, and looks after the files.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::checkpoint::{self, Checkpoint, KnownPage};
use super::config::Config;
use super::reads::Reader;
use super::status::Shared;
use crate::calendar::{Bucket, Calendar};
use crate::clock::Moment;
use crate::metrics::{Bound, Part};
use crate::sessions::{Export, Sessions};
use crate::sites::SiteId;
use crate::totals::delivery::Delivery;
use crate::totals::delivery::apply::FlushError;
use crate::totals::disk::dir::DataDir;
use crate::totals::disk::frame::Position;
use crate::totals::store::contract::Store;

/// How long a start waits for the store, and sites that are added, before they go on without.
pub const STORE_PATIENCE: Duration = Duration::from_millis(500);

/// How often a shared store is read again for what other instances counted.
const REFRESH: Duration = Duration::from_secs(5);

/// While the store is away batches are frozen less often, so that there are fewer to send.
const FREEZE_WHILE_AWAY: Duration = Duration::from_secs(10);

/// Pages copied while the tally is locked.
const PAGES_AT_A_TIME: usize = 1000;

/// The last parts of hours and days are remembered this long at least, though the outbox, being full,
/// may have dropped them: a quiet site's next view must not be taken for a store that went back.
const LAST_PARTS_KEPT_MS: i64 = 3 * 24 * 3_600_000;

/// Tries to bring the store up to date before the next turn: each mends what stopped the one before.
const TRIES: u32 = 4;

/// Owns everything durable but the journal.
pub struct Writer<S> {
    pub shared: Arc<Shared>,
    pub sessions: Arc<Sessions>,
    pub dir: Arc<DataDir>,
    pub config: Config,
    pub delivery: Delivery<S>,
    /// Up to where the journal is in batches.
    pub frozen_to: Position,
    frozen_at: Option<Instant>,
    /// When the figures of all sites were read; none where they must be.
    pub refreshed_at: Option<Instant>,
    checkpoint_at: Option<Instant>,
    /// Held by whoever copies the whole store.
    pub copying: Weak<()>,
}

impl<S: Store> Writer<S> {
    /// A writer that has read back what the last one left: the journal is in batches up to `frozen_to`.
    pub fn new(
        shared: Arc<Shared>,
        sessions: Arc<Sessions>,
        dir: Arc<DataDir>,
        config: Config,
        delivery: Delivery<S>,
        frozen_to: Position,
    ) -> Self {
        Writer {
            shared,
            sessions,
            dir,
            config,
            delivery,
            frozen_to,
            frozen_at: None,
            refreshed_at: None,
            checkpoint_at: None,
            copying: Weak::new(),
        }
    }

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

    /// Brings what it can to the store within `patience`, and writes a checkpoint.
    pub async fn end(&mut self, patience: Duration) {
        self.freeze().await;
        self.delivery.retry_now();
        if tokio::time::timeout(patience, self.send()).await.is_err() {
            tracing::warn!(
                "the store did not take everything in time; the rest is sent after the next start"
            );
        }
        self.checkpoint().await;
    }

    /// One turn: freeze, send, look after the files.
    pub async fn turn(&mut self) {
        self.draw_salts();
        let away = self.delivery.is_failing() || self.delivery.held().is_some();
        let is_fresh = self.frozen_at.is_some_and(|at| at.elapsed() < FREEZE_WHILE_AWAY);
        if !(away && is_fresh) {
            self.freeze().await;
        }
        self.send().await;
        self.look_after_files().await;
        self.show();
    }

    /// Makes a batch of all that is pending, and makes it durable.
    pub async fn freeze(&mut self) {
        if self.delivery.outbox.is_full() {
            self.shared.metrics.bound(Bound::Outbox);
            return;
        }
        let Some(frozen) = self.shared.tally().freeze() else { return };
        if let Some(journal) = &self.shared.intake.journal {
            // The store must never be ahead of what a power cut leaves in the journal.
            journal.synced_to(frozen.reach).await;
        }
        match self.delivery.add(frozen) {
            Ok(reach) => (self.frozen_to, self.frozen_at) = (reach, Some(Instant::now())),
            Err(frozen) => self.shared.tally().unfreeze(frozen),
        }
    }

    /// Brings waiting batches to the store, and reads it when that is due.
    pub async fn send(&mut self) {
        if self.must_not_write() || !self.delivery.may_try() {
            return;
        }
        let sent = self.try_send().await;
        if sent.is_ok() {
            self.shared.metrics.last_flush.set(self.shared.clock.now().unix_ms as f64 / 1000.0);
        }
        self.ended(sent);
    }

    /// Notes how work with the store ended.
    pub fn ended(&mut self, ended: Result<(), FlushError>) {
        self.delivery.ended(&ended);
        // A fault of this process's own files says nothing against the store.
        let up = matches!(ended, Ok(()) | Err(FlushError::DataDir(_)));
        self.shared.note_store(up, self.delivery.held(), &self.delivery.concerns);
    }

    async fn try_send(&mut self) -> Result<(), FlushError> {
        for _ in 1..TRIES {
            let Err(failure) = self.bring_and_read().await else { return Ok(()) };
            let shared = self.shared.clone();
            self.delivery.recover(failure, |batch| shared.tally().applied(batch)).await?;
        }
        self.bring_and_read().await
    }

    async fn bring_and_read(&mut self) -> Result<(), FlushError> {
        let shared = self.shared.clone();
        if self.delivery.bring(|batch| shared.tally().applied(batch)).await? {
            self.refreshed_at = None;
        }
        let is_old = |at: Instant| self.delivery.store.is_shared() && at.elapsed() >= REFRESH;
        let day_turned = self.shared.day_turned.swap(false, Ordering::AcqRel);
        if day_turned || self.refreshed_at.is_none_or(is_old) { self.refresh().await } else { Ok(()) }
    }

    /// Whether the store must stay as it is: a Redis is not written to while it is copied.
    fn must_not_write(&self) -> bool {
        self.copying.strong_count() > 0 && self.delivery.store.is_shared()
    }

    /// What reads the store as this writer.
    pub fn reader(&self) -> Reader<'_, S> {
        Reader { store: &self.delivery.store, writer: &self.delivery.identity.writer }
    }

    /// Draws the salts of days that have come.
    pub fn draw_salts(&mut self) {
        if self.delivery.draw_salts() {
            self.refreshed_at = None;
        }
    }

    /// Reads the figures of every site from the store.
    pub async fn refresh(&mut self) -> Result<(), FlushError> {
        let now = self.shared.clock.now();
        let (mut bears, mut read) = (Vec::new(), Vec::new());
        for site in self.delivery.sites.all() {
            let hour = site.calendar.span(now.unix_ms).hour;
            let since = self.delivery.since.get(&site.key).copied().unwrap_or(hour.day);
            let dataset = self.delivery.dataset(&site.key);
            let (stored, markers) = self.reader().running(&site.key, &hour, (dataset, since)).await?;
            bears.extend(markers);
            read.push((site.id, stored));
        }
        // What went back is healed first and read again: its figures are not believed.
        let whole = self.delivery.check(&bears).await?;
        let mut tally = self.shared.tally();
        let now = self.shared.clock.now();
        // Of a day that ended meanwhile nothing is taken: views of the next may be shown already.
        let lasts = whole && read.iter().all(|(site, stored)| tally.is_day(*site, stored.hour.day, now));
        self.refreshed_at = lasts.then(Instant::now);
        if lasts {
            read.into_iter().for_each(|(site, stored)| tally.learn_site(site, stored, now.unix_ms));
        }
        Ok(())
    }

    async fn look_after_files(&mut self) {
        let now = self.shared.clock.now();
        if self.checkpoint_at.is_none_or(|at| at.elapsed() >= self.config.checkpoint_interval) {
            self.checkpoint().await;
        } else if let Some(journal) = &self.shared.intake.journal
            && let Err(error) = journal.roll(false)
        {
            tracing::warn!(%error, "no new journal segment can be made; the current one grows");
        }
        let answers = self.delivery.is_verified() && self.shared.store_up();
        if let Err(error) = self.delivery.outbox.trim(now.uptime_ms, answers) {
            tracing::warn!(%error, "old batches cannot be deleted");
        }
    }

    fn show(&self) {
        let (metrics, outbox) = (&self.shared.metrics, &self.delivery.outbox);
        metrics.healing.outbox_reach_seconds.set(outbox.reach_ms() as f64 / 1000.0);
        metrics.outbox_bytes.set(outbox.bytes() as i64);
        metrics.unapplied_batches.set(outbox.waiting() as i64);
        let waiting = outbox.next_waiting().map(|(_, oldest_ms)| oldest_ms);
        let oldest_ms = waiting.or_else(|| self.shared.tally().oldest_ms);
        metrics.oldest_unapplied.set(oldest_ms.map_or(0.0, |ms| ms as f64 / 1000.0));
        metrics.had_turn(Part::Writer, self.shared.clock.now());
    }

    /// Writes the checkpoint and deletes the journal that nobody needs any more.
    pub async fn checkpoint(&mut self) {
        self.checkpoint_at = Some(Instant::now());
        let Some(checkpoint) = self.make_checkpoint().await else { return };
        let position = checkpoint.position.min(self.frozen_to);
        if let Some(journal) = &self.shared.intake.journal {
            // It tells of visits, visitors and ids of views, which a power cut must not take and leave it.
            journal.synced_to(journal.ask_sync()).await;
        }
        if let Err(error) = self.dir.folder.replace(checkpoint::FILE, &checkpoint.encode()) {
            tracing::warn!(%error, "the checkpoint cannot be written; the last one is kept");
            return;
        }
        if let Some(journal) = &self.shared.intake.journal {
            let deleted = journal.roll(true).and_then(|()| journal.remove_before(position));
            if let Err(error) = deleted {
                tracing::warn!(%error, "the journal cannot be shortened");
            }
        }
        let first = self.delivery.outbox.first_sequence().unwrap_or(0);
        let now_ms = self.shared.clock.now().unix_ms;
        let recent = Calendar::utc().span(now_ms.saturating_sub(LAST_PARTS_KEPT_MS)).hour.day;
        self.delivery.last_parts.retain(|hash, last| {
            let is_over = matches!(hash.bucket, Bucket::Hour(day, ..) | Bucket::Day(day) if day < recent);
            last.sequence >= first || !is_over
        });
    }

    /// Copies everything, never holding the tally for long. Nothing else applies batches meanwhile, so what
    /// the store is known to hold stays what it is. None while the journal cannot be written.
    async fn make_checkpoint(&self) -> Option<Checkpoint> {
        let position = self.shared.tally().folded;
        let now = self.shared.clock.now();
        let (sessions, ids) = self.copy_presence(now).await?;
        let sites = self.shared.tally().sites();
        let mut figures = Vec::new();
        let mut pages = Vec::new();
        for (site, _) in &sites {
            figures.extend(self.shared.tally().stored(*site).map(|stored| (site.index(), stored)));
            // The embedded store is here whenever this process is.
            if self.delivery.store.is_shared() {
                pages.extend(self.known_pages(*site));
            }
        }
        Some(Checkpoint {
            written_ms: now.unix_ms,
            position,
            applied: self.delivery.outbox.applied(),
            last_parts: self.delivery.last_parts.clone(),
            sites: sites.into_iter().map(|(_, key)| key).collect(),
            sessions,
            ids,
            figures,
            pages,
        })
    }

    /// Sessions and ids, without those of views that were undone after all.
    async fn copy_presence(&self, now: Moment) -> Option<(Export, (Vec<u64>, Vec<u64>))> {
        let (ended, undone) = self.shared.intake.groups();
        let copied = (self.sessions.export(now), self.shared.intake.export_ids());
        // The group that was open and the one that was being written: when both have ended, every view
        // that was copied is either written or known to be undone.
        while self.shared.intake.is_writing() && self.shared.intake.groups().0 < ended + 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (self.shared.intake.groups().1 == undone).then_some(copied)
    }

    fn known_pages(&self, site: SiteId) -> Vec<KnownPage> {
        let mut known = Vec::new();
        let mut from = Some(0);
        while let Some(slot) = from {
            let (some, next) = self.shared.tally().stored_pages(site, slot, PAGES_AT_A_TIME);
            known.extend(some.into_iter().map(|(page, hour, figures)| KnownPage {
                site: site.index(),
                hour,
                page,
                figures,
            }));
            from = next;
        }
        known
    }
}
