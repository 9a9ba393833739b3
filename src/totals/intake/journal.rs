//! The journal: accepted views on disk before they are answered.
//!
//! Groups are written by the event loop itself, one write a turn: a thread in between costs more than
//! the write. Syncing is slow and is done by a thread of its own. A failed sync ends the process: its pages
//! may be marked clean and lost, and a second sync would succeed without them.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::{Clock, Moment};
use crate::ingest::Reason;
use crate::metrics::{Bound, Metrics};
use crate::sites::{Shares, SiteId};
use crate::totals::disk::fatal::die;
use crate::totals::disk::files::File;
use crate::totals::disk::frame::Position;
use crate::totals::disk::log::{AppendError, HEADER, Segments};

words! {
    /// When an accepted view is safe: what a 204 promises (G1).
    pub enum Sync {
        /// Written before the answer, synced every second: survives the death of the process.
        EverySecond = "every-second",
        /// Synced before the answer: survives a power cut.
        Always = "always",
        /// No journal.
        Memory = "memory",
    }
}

/// Settings of the journal.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// What a 204 promises.
    pub sync: Sync,
    /// Refuse views once the oldest unsynced one is this old.
    pub max_unsynced: Duration,
    /// Refuse views once the journal holds this many bytes.
    pub max_bytes: u64,
}

/// The letter of its segments.
pub const KIND: u8 = b'j';

/// A new segment is begun beyond this size, so that old ones can be deleted.
const SEGMENT_BYTES: u64 = 16 << 20;

/// For so long after a write that failed nobody is to be sent here. Then somebody is again: nothing else shows whether
/// writes succeed.
const FAILED_FOR_MS: u64 = 10_000;

/// What views are refused with whose group could not be written.
pub fn refusal(error: &io::Error) -> Reason {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::FileTooLarge => Reason::JournalFull,
        _ => Reason::Overloaded,
    }
}

struct SyncRequest {
    file: Arc<File>,
    upto: Position,
    /// Read under the lock of `state`: what is written after it is younger.
    asked_ms: u64,
}

struct State {
    log: Segments,
    /// A sync up to here has been asked for.
    asked: Position,
    /// When the last group could not be written, monotonic milliseconds, and what its views were refused with.
    failed: Option<(u64, Reason)>,
}

/// The open segment is written here; what is checked for every view is beside `state`, to be read without
/// its lock.
pub struct Journal {
    pub config: JournalConfig,
    clock: Clock,
    state: Mutex<State>,
    requests: mpsc::Sender<SyncRequest>,
    synced: watch::Receiver<Position>,
    /// When the oldest bytes were written that no sync has covered, monotonic milliseconds; `u64::MAX`: none.
    unsynced_ms: AtomicU64,
    /// Bytes of all segments.
    bytes: AtomicU64,
    /// Bytes of its records by site: which segments they are in is not known.
    shares: Mutex<Shares>,
    metrics: Arc<Metrics>,
}

impl Journal {
    /// Goes on with a log that has been opened and read back, and starts the thread that syncs it.
    pub fn open(
        log: Segments,
        config: JournalConfig,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> io::Result<Arc<Self>> {
        let (requests, queue) = mpsc::channel();
        // What was there has been synced on opening, and so has the new segment's head.
        let (synced_sender, synced) = watch::channel(log.end());
        let bytes = AtomicU64::new(log.bytes());
        let shares = Mutex::new(Shares::new(usize::try_from(config.max_bytes).unwrap_or(usize::MAX)));
        metrics.journal_bytes.set(log.bytes() as i64);
        let journal = Arc::new(Journal {
            config,
            clock,
            state: Mutex::new(State { asked: log.end(), log, failed: None }),
            requests,
            synced,
            unsynced_ms: AtomicU64::new(u64::MAX),
            bytes,
            shares,
            metrics,
        });
        let weak = Arc::downgrade(&journal);
        std::thread::Builder::new().name("journal-sync".to_owned()).spawn(move || {
            while let Ok(request) = queue.recv() {
                let Some(journal) = weak.upgrade() else { return };
                journal.sync(request, &synced_sender);
            }
        })?;
        Ok(journal)
    }

    fn sync(&self, request: SyncRequest, synced: &watch::Sender<Position>) {
        let began = self.clock.now();
        if let Err(error) = request.file.sync_data() {
            die(&format!("a sync of the journal failed ({error}): what is on disk is not known"));
        }
        let took_ms = self.clock.now().uptime_ms - began.uptime_ms;
        self.metrics.journal_sync.observe(took_ms as f64 / 1000.0);
        let state = self.state();
        // What was written since the request is younger than it.
        let unsynced_ms = if state.log.end() <= request.upto { u64::MAX } else { request.asked_ms };
        self.unsynced_ms.store(unsynced_ms, Ordering::Release);
        drop(state);
        synced.send_replace(request.upto);
    }

    /// Whether nothing more is written until some of it is deleted.
    pub fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.config.max_bytes
    }

    /// Shares the room among so many sites.
    pub fn share_among(&self, sites: usize) {
        self.shares().among(sites);
    }

    fn is_half_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.config.max_bytes / 2
    }

    /// Whether a site may write more of it. Until half of it is full each may.
    pub fn has_room(&self, site: SiteId) -> bool {
        !self.is_half_full() || self.shares().has_room(site.index())
    }

    /// Whether pings and leaves are written.
    pub fn keeps_signs(&self, now: Moment) -> bool {
        !self.is_half_full() && self.reached(now).is_none()
    }

    /// So many bytes of sites were written.
    pub fn note(&self, bytes: &[(SiteId, usize)]) {
        let mut shares = self.shares();
        bytes.iter().for_each(|(site, bytes)| shares.add_many(site.index(), *bytes));
    }

    /// How long ago the oldest view was written that is not synced.
    pub fn unsynced(&self, now: Moment) -> Duration {
        Duration::from_millis(now.uptime_ms.saturating_sub(self.unsynced_ms.load(Ordering::Relaxed)))
    }

    /// The bound that is reached, and what views are refused with.
    pub fn reached(&self, now: Moment) -> Option<(Bound, Reason)> {
        if self.is_full() {
            return Some((Bound::Journal, Reason::JournalFull));
        }
        (self.unsynced(now) > self.config.max_unsynced).then_some((Bound::Unsynced, Reason::Overloaded))
    }

    /// What views are refused with, where the last group could not be written a moment ago.
    pub fn failing(&self, now: Moment) -> Option<Reason> {
        let (failed_ms, reason) = self.state().failed?;
        (now.uptime_ms.saturating_sub(failed_ms) < FAILED_FOR_MS).then_some(reason)
    }

    /// Writes a group. Where it ends.
    pub fn write(&self, group: &mut [u8], now_ms: u64) -> Result<Position, AppendError> {
        let mut state = self.state();
        let written = state.log.append(group);
        state.failed = match &written {
            Err(AppendError::Undone(error)) => Some((now_ms, refusal(error))),
            _ => None,
        };
        let end = written?;
        self.unsynced_ms.fetch_min(now_ms, Ordering::Release);
        let bytes = self.bytes.fetch_add(group.len() as u64, Ordering::Relaxed) + group.len() as u64;
        self.metrics.journal_bytes.set(bytes as i64);
        self.metrics.journal_groups.inc();
        Ok(end)
    }

    /// Asks for a sync of all that is written, unless it has been asked for.
    pub fn ask_sync(&self) -> Position {
        let mut state = self.state();
        let upto = state.log.end();
        if state.asked < upto {
            state.asked = upto;
            let request =
                SyncRequest { file: state.log.current(), upto, asked_ms: self.clock.now().uptime_ms };
            // The thread lives as long as the journal.
            self.requests.send(request).ok();
        }
        upto
    }

    /// Waits until all up to a position is synced.
    pub async fn synced_to(&self, position: Position) {
        if *self.synced.borrow() >= position {
            return;
        }
        self.ask_sync();
        if self.synced.clone().wait_for(|synced| *synced >= position).await.is_err() {
            // The thread that syncs has ended, and with it the process: nothing is promised any more.
            std::future::pending::<()>().await;
        }
    }

    /// Resolves when the thread that syncs has ended.
    pub async fn sync_ended(&self) {
        self.synced.clone().wait_for(|_| false).await.ok();
    }

    /// Goes on in a new segment if the current one is full, or if `anyway` and it holds something. Where that
    /// fails, the current segment is kept.
    pub fn roll(&self, anyway: bool) -> io::Result<()> {
        let (next, end) = {
            let state = self.state();
            (state.log.next(), state.log.end().offset)
        };
        if end < SEGMENT_BYTES && (!anyway || end <= HEADER) {
            return Ok(());
        }
        let fresh = next.prepare()?;
        let mut state = self.state();
        let upto = state.log.end();
        let file = state.log.install(fresh);
        // Through the same queue, so that no later sync is reported before this one.
        self.requests.send(SyncRequest { file, upto, asked_ms: self.clock.now().uptime_ms }).ok();
        Ok(())
    }

    /// Deletes segments that end before a position.
    pub fn remove_before(&self, position: Position) -> io::Result<()> {
        let (forgotten, bytes) = {
            let mut state = self.state();
            let forgotten = state.log.forget_before(position);
            self.bytes.store(state.log.bytes(), Ordering::Relaxed);
            (forgotten, state.log.bytes())
        };
        self.shares().shrink(usize::try_from(bytes).unwrap_or(usize::MAX));
        self.metrics.journal_bytes.set(bytes as i64);
        forgotten.delete()
    }

    fn shares(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
