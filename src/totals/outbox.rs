//! The outbox: durable batches on their way to the store, and their recent past.
//!
//! A batch is in it, synced, before the first try to apply it. Applied ones stay for a while, so that a
//! store that went back in time can be given again what it lost.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use super::OutboxConfig;
use super::batch::Batch;
use super::segments::{AppendError, FRAME_HEADER, Position, Segments};

/// Segments are as long as this, so that old batches can be dropped.
const SEGMENT_BYTES: u64 = 4 << 20;

const KIND: u8 = b'o';

/// Where a batch stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    sequence: u64,
    at: Position,
    /// When it was frozen, by the outbox's own clock.
    frozen_ms: i64,
    oldest_ms: i64,
}

impl Place {
    fn of(batch: &Batch, at: Position, frozen_ms: i64) -> Self {
        Place { sequence: batch.sequence, at, frozen_ms, oldest_ms: batch.oldest_ms }
    }
}

/// See the module.
pub struct Outbox {
    dir: PathBuf,
    log: Segments,
    places: VecDeque<Place>,
    applied: u64,
    /// Retention is counted by this clock. It stands while the store does not answer, and at the newest
    /// batch while no process runs.
    clock_ms: i64,
    /// When the clock was last moved on; monotonic milliseconds.
    moved_ms: Option<u64>,
    config: OutboxConfig,
    buffer: Vec<u8>,
}

impl Outbox {
    /// Opens the outbox in `dir`; `each` is given every batch in it, oldest first.
    ///
    /// # Errors
    /// Of the file system; a damaged batch that is not the torn tail of a crash.
    pub fn open(dir: &Path, config: OutboxConfig, mut each: impl FnMut(Batch)) -> io::Result<Self> {
        let log = Segments::open(dir, KIND, 0)?;
        let mut places = VecDeque::new();
        let damage = log.replay(Position::default(), |payload, at, _| {
            let batch = Batch::decode(payload).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            places.push_back(Place::of(&batch, at, batch.frozen_ms));
            each(batch);
            Ok(())
        })?;
        for damage in damage.iter().filter(|d| !d.torn_tail) {
            tracing::error!(
                segment = damage.at.segment,
                offset = damage.at.offset,
                bytes = damage.bytes,
                "a part of the outbox is damaged: what it held is counted only if it was applied before"
            );
        }
        let clock_ms = places.back().map_or(0, |place| place.frozen_ms);
        let (dir, buffer) = (dir.to_owned(), Vec::new());
        Ok(Outbox { dir, log, places, applied: 0, clock_ms, moved_ms: None, config, buffer })
    }

    /// The sequence that the next batch bears.
    pub fn next_sequence(&self) -> u64 {
        self.places.back().map_or(self.applied, |place| place.sequence).max(self.applied) + 1
    }

    /// The first batch that is kept, if any.
    pub fn first_sequence(&self) -> Option<u64> {
        self.places.front().map(|place| place.sequence)
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
        let first = self.places.partition_point(|place| place.sequence <= self.applied);
        self.places.get(first).map(|place| (place.sequence, place.oldest_ms))
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// Whether unapplied batches alone fill it: none more is taken then.
    pub fn is_full(&self) -> bool {
        self.log.bytes() >= self.config.max_bytes
            && self.places.front().is_none_or(|place| place.sequence > self.applied)
    }

    /// Adds a batch and syncs it.
    ///
    /// # Errors
    /// `Undone`: it is not in the outbox. `Unknown`, or a failed sync: the process must end.
    pub fn add(&mut self, batch: &Batch) -> Result<(), AppendError> {
        if self.log.current_bytes() > SEGMENT_BYTES {
            let fresh = Segments::prepare(&self.dir, KIND, self.log.next_number());
            self.log.install(fresh.map_err(AppendError::Undone)?);
        }
        self.buffer.clear();
        self.buffer.resize(FRAME_HEADER, 0);
        batch.encode(&mut self.buffer);
        let at = self.log.end();
        self.log.append(&mut self.buffer)?;
        self.log.current().sync_data().map_err(AppendError::Unknown)?;
        self.places.push_back(Place::of(batch, at, self.clock_ms));
        if self.buffer.capacity() > 1 << 20 {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Everything up to a batch is applied.
    pub fn set_applied(&mut self, sequence: u64) {
        self.applied = self.applied.max(sequence);
    }

    /// Reads a batch; none where it is not kept any more.
    ///
    /// # Errors
    /// Of the file system; a damaged batch.
    pub fn get(&self, sequence: u64) -> io::Result<Option<Batch>> {
        let Ok(index) = self.places.binary_search_by_key(&sequence, |place| place.sequence) else {
            return Ok(None);
        };
        let Some(place) = self.places.get(index) else { return Ok(None) };
        let bytes = self.log.read(place.at)?;
        let batch = Batch::decode(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        Ok(Some(batch))
    }

    /// Drops applied batches that are older than the retention or beyond the size, oldest first. The
    /// newest stays: its sequence and its reach are what the next start goes on from.
    ///
    /// # Errors
    /// Of the file system.
    pub fn trim(&mut self, uptime_ms: u64, store_answers: bool) -> io::Result<()> {
        let moved_ms = self.moved_ms.replace(uptime_ms).unwrap_or(uptime_ms);
        if store_answers {
            self.clock_ms += uptime_ms.saturating_sub(moved_ms) as i64;
        }
        let retention_ms = self.config.retention.as_millis() as i64;
        let mut excess = self.log.bytes().saturating_sub(self.config.max_bytes);
        while let (Some(front), Some(next)) = (self.places.front(), self.places.get(1)) {
            let old = self.clock_ms.saturating_sub(front.frozen_ms) > retention_ms;
            if front.sequence > self.applied || !(old || excess > 0) {
                break;
            }
            let next = next.at;
            excess = excess.saturating_sub(next.offset.saturating_sub(front.at.offset));
            self.places.pop_front();
        }
        let keep = self.places.front().map_or(self.log.end(), |place| place.at);
        self.log.forget_before(keep).into_iter().try_for_each(std::fs::remove_file)
    }
}

#[cfg(test)]
mod tests;
