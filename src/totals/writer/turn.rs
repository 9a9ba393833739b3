//! One turn of the writer: it freezes pending sums into a batch, has it delivered, reads the figures that other
//! instances may have changed, and looks after the files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use chrono::NaiveDate;
use tokio::time::Instant;

use super::checkpoint::{self, KnownPage, Moves};
use super::config::Config;
use super::reads::{Bears, ClosedDays, Reader};
use super::status::{Shared, Troubled};
use super::walks::Walks;
use crate::calendar::{Bucket, Calendar};
use crate::clock::Moment;
use crate::ingest::OTHER;
use crate::metrics::{Bound, DataFile, Part};
use crate::sessions::Sessions;
use crate::sites::{Site, SiteId, SiteKey};
use crate::totals::batch::entry::Entered;
use crate::totals::batch::part::{HashKind, Sums};
use crate::totals::batch::{Batch, SiteSums};
use crate::totals::delivery::Delivery;
use crate::totals::delivery::apply::FlushError;
use crate::totals::delivery::held::or_noted;
use crate::totals::delivery::send::Brought;
use crate::totals::disk::codec::Put;
use crate::totals::disk::dir::DataDir;
use crate::totals::disk::frame::Position;
use crate::totals::intake::ids;
use crate::totals::store::contract::{Store, StoreError};
use crate::totals::tally;
use crate::totals::tally::cell::Revised;
use crate::totals::tally::running::Stored;

/// How long a start waits for the store, and sites that are added, before they go on without.
pub const STORE_PATIENCE: Duration = Duration::from_millis(500);

/// How often a shared store is read again for what other instances counted.
pub const REFRESH: Duration = Duration::from_secs(5);

/// How often all running figures of a site are read. In between its sums of all time are, and the others where
/// those have changed: every batch adds to them.
const REFRESH_WHOLE: Duration = Duration::from_secs(60);

/// While the store is away batches are frozen less often, so that there are fewer to send.
const FREEZE_WHILE_AWAY: Duration = Duration::from_secs(10);

/// What is said of a site that was held when the last process ended.
const UNTRIED: &str = "it was held before the start, and is tried again";
const KEPT: &str = "; its views are kept";
const IS_FULL: &str = "; no more of its views can be kept, and its beacons are refused";

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
    /// When all of them were.
    whole_at: Option<Instant>,
    /// The day and the sums of all time with which each site's figures were read last.
    last_read: HashMap<SiteKey, (NaiveDate, Revised<Sums>)>,
    pub closed: ClosedDays,
    /// Sites whose figures cannot be read, and why.
    pub unreadable: BTreeMap<SiteKey, String>,
    /// Why the recent past of sites, and figures of their pages, could not be read: kept so that it is said once.
    pub unread: [BTreeMap<SiteKey, String>; 2],
    pub walks: Walks,
    checkpoint_at: Option<Instant>,
    /// Pages of which something was entered, or of which what moved was counted: they are to be read again.
    pub entered: BTreeSet<(SiteKey, Arc<str>)>,
    /// What pages of each site moved to.
    pub moves: Moves,
    /// Batches wait, and nothing keeps them from being brought.
    pub more_waits: bool,
    /// Held by whoever copies the whole store.
    pub copying: Weak<()>,
}

impl<S: Store> Writer<S> {
    /// A writer that has read back what the last one left: the journal is in batches up to `frozen_to`, and pages
    /// are shown as they moved.
    pub fn new(
        shared: Arc<Shared>,
        sessions: Arc<Sessions>,
        dir: Arc<DataDir>,
        config: Config,
        delivery: Delivery<S>,
        frozen_to: Position,
        moves: Moves,
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
            whole_at: None,
            last_read: HashMap::new(),
            closed: ClosedDays::default(),
            unreadable: BTreeMap::new(),
            unread: Default::default(),
            walks: Walks::default(),
            checkpoint_at: None,
            entered: BTreeSet::new(),
            moves,
            more_waits: false,
            copying: Weak::new(),
        }
    }

    /// What was read back from the journal becomes a batch at once: a synced copy of it, before anything
    /// of it is sent. Then gives the store a chance to answer before the first request does.
    pub async fn begin(&mut self, patience: Duration) {
        self.draw_salts();
        self.freeze().await;
        if tokio::time::timeout(patience, self.send_all()).await.is_err() {
            tracing::info!("the store is still being brought up to date");
        }
        self.show();
    }

    /// Brings what it can to the store within `patience`, and writes a checkpoint.
    pub async fn end(&mut self, patience: Duration) {
        self.freeze().await;
        self.delivery.retry_now();
        if tokio::time::timeout(patience, self.send_all()).await.is_err() {
            tracing::warn!(
                "the store did not take everything in time; the rest is sent after the next start"
            );
        }
        self.checkpoint().await;
    }

    /// One turn: freeze, send, look after the files.
    pub async fn turn(&mut self) {
        self.draw_salts();
        let away = self.delivery.is_failing() || self.delivery.stopped().is_some();
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
        let Some(frozen) = tally::freeze(&self.shared.tally) else { return };
        if let Some(journal) = &self.shared.intake.journal {
            // The store must never be ahead of what a power cut leaves in the journal.
            journal.synced_to(frozen.reach).await;
        }
        match self.delivery.add(frozen) {
            Ok(reach) => (self.frozen_to, self.frozen_at) = (reach, Some(Instant::now())),
            Err(frozen) => self.shared.tally().unfreeze(frozen),
        }
    }

    /// Brings all that waits to the store, however much that is.
    pub async fn send_all(&mut self) {
        self.send().await;
        while self.more_waits {
            // So that whoever waits only so long sees that it is over.
            tokio::task::yield_now().await;
            self.send().await;
        }
    }

    /// Brings some of the waiting batches to the store; where that was all, reads it when that is due.
    pub async fn send(&mut self) {
        self.more_waits = false;
        if self.must_not_write() || !self.delivery.may_try() {
            return;
        }
        let sent = self.try_send().await;
        let is_all = matches!(sent, Ok(Brought::All { .. }));
        if is_all && self.delivery.outbox.held().is_empty() {
            self.shared.metrics.last_flush.set(self.shared.clock.now().unix_ms as f64 / 1000.0);
        }
        match sent {
            // How this stands to the store is told when all is there.
            Ok(Brought::Some) => self.more_waits = true,
            sent => self.ended(sent.map(drop)),
        }
    }

    /// Notes how work with the store ended.
    pub fn ended(&mut self, ended: Result<(), FlushError>) {
        self.delivery.ended(&ended);
        // A fault of this process's own files says nothing against the store.
        let up = matches!(ended, Ok(()) | Err(FlushError::DataDir(_)));
        if matches!(ended, Ok(()) | Err(FlushError::Store(StoreError::File(_)))) {
            self.shared.metrics.wrote(DataFile::Totals, &ended);
        }
        self.shared.store.note_instances(self.delivery.instances);
        self.shared.note_store(up, self.delivery.stopped(), &self.delivery.concerns);
        self.note_troubled();
    }

    /// Notes the sites whose data the store refuses, and those of which no more can be set aside.
    fn note_troubled(&self) {
        let Delivery { held, outbox, .. } = &self.delivery;
        let reasons = self.unreadable.iter().chain(held);
        let untried = outbox.held().keys().filter(|site| !held.contains_key(*site));
        let mut troubled: BTreeMap<SiteKey, Troubled> = BTreeMap::new();
        let tally = self.shared.tally();
        for (site, why) in
            reasons.map(|(site, why)| (site, &**why)).chain(untried.map(|site| (site, UNTRIED)))
        {
            let is_full = outbox.full_asides().any(|full| full == site);
            let why = format!("{why}{}", if is_full { IS_FULL } else { KEPT });
            troubled.insert(site.clone(), Troubled { id: tally.site_id(site), why });
        }
        drop(tally);
        self.shared.note_troubled(troubled);
    }

    async fn try_send(&mut self) -> Result<Brought, FlushError> {
        for _ in 1..TRIES {
            let failure = match self.bring_and_read().await {
                Err(failure) => failure,
                brought => return brought,
            };
            let shared = self.shared.clone();
            self.delivery.recover(failure, |batch| tally::applied(&shared.tally, batch)).await?;
        }
        self.bring_and_read().await
    }

    async fn bring_and_read(&mut self) -> Result<Brought, FlushError> {
        let Writer { delivery, shared, closed, entered, refreshed_at, .. } = self;
        let (sites, mut brings_erased) = (shared.sites.load_full(), false);
        let on_applied = |batch: &Batch| {
            tally::applied(&shared.tally, batch);
            closed.forget(batch);
            for SiteSums { site, pages, .. } in &batch.sums {
                let Some(of_site) = sites.get(site.as_str()) else { continue };
                for (page, _) in pages {
                    let Some(to) = of_site.pages.aliases.shown_as(page) else { continue };
                    brings_erased |= **to == *OTHER;
                    entered.insert((site.clone(), page.clone()));
                }
            }
            for Entered { hash, fields, .. } in &batch.entries {
                *refreshed_at = None;
                brings_erased |= hash.kind == HashKind::Pages;
                let pages = fields.iter().filter(|_| hash.kind == HashKind::Pages);
                let pages = pages.filter_map(|(field, _)| field.strip_prefix('+'));
                entered.extend(pages.map(|page| (hash.site.clone(), page.into())));
            }
        };
        let brought = delivery.bring(on_applied).await;
        delivery.may_be_back |= brings_erased;
        let brought = brought?;
        match brought {
            Brought::Some => return Ok(brought),
            Brought::All { recut: true } => self.refreshed_at = None,
            Brought::All { recut: false } => {}
        }
        let is_old = |at: Instant| self.delivery.store.is_shared() && at.elapsed() >= REFRESH;
        let day_turned = self.shared.day_turned.swap(false, Ordering::AcqRel);
        if day_turned || self.refreshed_at.is_none_or(is_old) {
            self.refresh().await?;
        }
        self.read_entered().await?;
        self.delivery.prune(self.config.page_days).await?;
        self.fold_erased().await?;
        self.delivery.fold(self.config.page_days, self.config.fold_below).await?;
        Ok(brought)
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

    /// Reads the figures of the sites from the store, those that may have changed.
    pub async fn refresh(&mut self) -> Result<(), FlushError> {
        let now = self.shared.clock.now();
        let sites: Vec<Arc<Site>> = self.delivery.sites.all().cloned().collect();
        let is_whole =
            self.refreshed_at.is_none() || self.whole_at.is_none_or(|at| at.elapsed() >= REFRESH_WHOLE);
        self.unreadable.retain(|key, _| sites.iter().any(|site| site.key == *key));
        let (mut read, mut whole) = (Vec::new(), true);
        for site in sites.iter().filter(|site| !self.delivery.is_held(&site.key)).collect::<Vec<_>>() {
            let stored = self.read_site(site, now, is_whole).await;
            let says = "the figures of a site cannot be read";
            let Some((stored, bears)) = or_noted(&mut self.unreadable, &site.key, stored, says)? else {
                continue;
            };
            self.unreadable.remove(&site.key);
            // What went back is healed first and read again: its figures are not believed.
            let checked = self.delivery.check(&bears).await;
            whole &= self.delivery.or_held(&site.key, checked)?.unwrap_or(true);
            read.extend(stored.filter(|_| !self.delivery.is_held(&site.key)).map(|stored| (site, stored)));
        }
        if !whole {
            self.closed = ClosedDays::default();
        }
        let mut tally = self.shared.tally();
        let now = self.shared.clock.now();
        // Of a day that ended meanwhile nothing is taken: views of the next may be shown already.
        let lasts = whole && read.iter().all(|(site, stored)| tally.is_day(site.id, stored.hour.day, now));
        self.refreshed_at = lasts.then(Instant::now);
        if lasts {
            self.whole_at = if is_whole { self.refreshed_at } else { self.whole_at };
            for (site, stored) in read {
                self.last_read.insert(site.key.clone(), (stored.hour.day, stored.sums.all));
                tally.learn_site(site.id, stored, now.unix_ms);
            }
        }
        Ok(())
    }

    /// Reads the figures of a site, where they may have changed, and what the hashes bear that were looked at.
    async fn read_site(
        &mut self,
        site: &Site,
        now: Moment,
        is_whole: bool,
    ) -> Result<(Option<Stored>, Bears), FlushError> {
        let hour = site.calendar.span(now.unix_ms).hour;
        let (sums, mut bears) = self.reader().sums(&site.key, &[Bucket::All]).await?;
        let is_same =
            sums.first().is_some_and(|sums| self.last_read.get(&site.key) == Some(&(hour.day, *sums)));
        let was_read = !self.unreadable.contains_key(&site.key);
        if !is_whole && is_same && was_read && self.shared.tally().figures(site.id, now).views.day.is_some() {
            return Ok((None, bears));
        }
        let since = self.delivery.since.get(&site.key).copied().unwrap_or(hour.day);
        let dataset = self.delivery.dataset(&site.key);
        let Writer { delivery, closed, .. } = self;
        let reader = Reader { store: &*delivery.store, writer: &delivery.identity.writer };
        let (stored, markers) = reader.running(&site.key, &hour, (dataset, since), closed).await?;
        bears.extend(markers);
        bears.extend(self.learn_aliases(&site.key).await?);
        Ok((Some(stored), bears))
    }

    async fn look_after_files(&mut self) {
        let now = self.shared.clock.now();
        let journal = &self.shared.intake.journal;
        // Views are refused until some of it can be deleted, which only a checkpoint allows.
        let refuses = journal.as_ref().is_some_and(|journal| journal.is_full());
        let is_old = |at: Instant| at.elapsed() >= self.config.checkpoint_interval;
        if self.checkpoint_at.is_none_or(is_old) || refuses && self.frozen_at > self.checkpoint_at {
            self.checkpoint().await;
        } else if let Some(journal) = journal
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
        metrics.used(Bound::Outbox, outbox.waiting_bytes() as usize);
        let tally = self.shared.tally();
        let mut waiting = (outbox.waiting(), outbox.next_waiting().map(|(_, oldest_ms)| oldest_ms));
        for site in outbox.held().keys().filter(|site| tally.waits(site)) {
            let (batches, oldest_ms) = outbox.waiting_of(site);
            waiting = (waiting.0.max(batches), waiting.1.into_iter().chain(oldest_ms).min());
        }
        metrics.unapplied_batches.set(waiting.0 as i64);
        let oldest_ms = waiting.1.or(tally.oldest_ms);
        let full = outbox.full_asides().chain(outbox.over_share(self.delivery.sites.all().count()));
        self.shared.intake.refuse(full.filter_map(|site| tally.site_id(site)));
        drop(tally);
        metrics.oldest_unapplied.set(oldest_ms.map_or(0.0, |ms| ms as f64 / 1000.0));
        let saved = if self.delivery.identity.is_unsaved { Err(()) } else { Ok(()) };
        metrics.wrote(DataFile::Writer, &saved);
        metrics.had_turn(Part::Writer, self.shared.clock.now());
    }

    /// Writes the checkpoint and deletes the journal that nobody needs any more.
    pub async fn checkpoint(&mut self) {
        let clock = &self.shared.clock;
        if clock.was_behind(clock.now()).is_some() {
            // The next process must not take the wrong time for one that has been.
            return;
        }
        self.checkpoint_at = Some(Instant::now());
        let written = self.write_checkpoint().await;
        self.shared.metrics.wrote(DataFile::Checkpoint, &written);
        let position = match written {
            Ok(Some(position)) => position.min(self.frozen_to),
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "the checkpoint cannot be written; the last one is kept");
                return;
            }
        };
        if let Some(journal) = &self.shared.intake.journal {
            let deleted = journal.roll(true).and_then(|()| journal.remove_before(position));
            self.shared.metrics.wrote(DataFile::Journal, &deleted);
            if let Err(error) = deleted {
                tracing::warn!(%error, "the journal cannot be shortened");
            }
        }
        if let Err(error) = self.delivery.outbox.forget_released() {
            tracing::warn!(%error, "what was set aside for a site cannot be deleted");
        }
        let first = self.delivery.outbox.first_kept().unwrap_or(0);
        // Before the oldest batch that is kept: the wall clock may be ahead just now, and what is forgotten is not
        // learned again.
        let Some(oldest_ms) = self.delivery.outbox.oldest_ms() else { return };
        let oldest_ms = oldest_ms.min(self.shared.clock.now().unix_ms);
        let recent = Calendar::utc().span(oldest_ms.saturating_sub(LAST_PARTS_KEPT_MS)).hour.day;
        self.delivery.last_parts.retain(|hash, last| {
            let is_over = matches!(hash.bucket, Bucket::Hour(day, ..) | Bucket::Day(day) if day < recent);
            last.sequence >= first || !is_over
        });
    }

    /// Writes everything into the checkpoint as it is copied, never holding a lock for long. Nothing else applies
    /// batches meanwhile, so what the store is known to hold stays what it is. From where on the journal is needed
    /// beside it; none where a group was undone meanwhile, whose views are among the copied ones.
    async fn write_checkpoint(&self) -> io::Result<Option<Position>> {
        let (ended, undone) = self.shared.intake.groups();
        let position = self.shared.tally().written;
        let now = self.shared.clock.now();
        let mut file = self.dir.folder.begin_replacing(checkpoint::FILE)?;
        let out = &mut file;
        checkpoint::begin(out, self.shared.clock.stamp(now), position, self.delivery.outbox.applied());
        checkpoint::put_some(out, self.delivery.outbox.held(), checkpoint::put_held);
        checkpoint::end_list(out);
        checkpoint::put_some(out, &self.delivery.last_parts, checkpoint::put_last_part);
        checkpoint::end_list(out);
        let sites = self.shared.tally().sites();
        checkpoint::put_some(out, &sites, |out, (_, key)| out.put_text(key.as_str()));
        checkpoint::end_list(out);
        for pages in self.sessions.export_pages() {
            checkpoint::put_some(out, &pages, checkpoint::put_online_page);
        }
        checkpoint::end_list(out);
        for sessions in self.sessions.export(now) {
            checkpoint::put_some(out, &sessions, checkpoint::put_session);
        }
        checkpoint::end_list(out);
        for age in [ids::YOUNG, ids::OLD] {
            for ids in self.shared.intake.export_ids(age) {
                checkpoint::put_some(out, &ids, checkpoint::put_id);
            }
            checkpoint::end_list(out);
        }
        for (site, _) in &sites {
            let stored = self.shared.tally().stored(*site);
            let stored = stored.map(|stored| (site.index(), stored));
            checkpoint::put_some(out, stored.as_slice(), checkpoint::put_figures);
        }
        checkpoint::end_list(out);
        // The embedded store is here whenever this process is.
        for (site, _) in sites.iter().filter(|_| self.delivery.store.is_shared()) {
            self.put_known_pages(out, *site);
        }
        checkpoint::end_list(out);
        self.moves.iter().for_each(|of_site| checkpoint::put_moves(out, of_site));
        checkpoint::end_list(out);
        // The group that was open and the one that was being written: when both have ended, every view
        // that was copied is either written or known to be undone.
        while self.shared.intake.is_writing() && self.shared.intake.groups().0 < ended + 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if self.shared.intake.groups().1 != undone {
            return Ok(None);
        }
        if let Some(journal) = &self.shared.intake.journal {
            // It tells of visits, visitors and ids of views, which a power cut must not take and leave it.
            journal.synced_to(journal.ask_sync()).await;
        }
        file.finish()?;
        Ok(Some(position))
    }

    fn put_known_pages(&self, out: &mut impl Put, site: SiteId) {
        let mut from = Some(0);
        while let Some(slot) = from {
            let (some, next) = self.shared.tally().stored_pages(site, slot);
            tally::give_way();
            let known = |(page, hour, figures)| KnownPage { site: site.index(), hour, page, figures };
            checkpoint::put_some(out, some.into_iter().map(known), |out, known| {
                checkpoint::put_page(out, &known)
            });
            from = next;
        }
    }
}
