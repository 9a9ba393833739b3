//! Losses: what was promised and could not be kept. Each is recorded for good, shown by `/readyz?verbose`
//! and counted by a metric, so that none passes in silence (G10).
//!
//! `data_dir/losses` is text, a line a loss:
//!
//! ```text
//! 2026-11-23T21:43:31Z store lamdong/day:2026-11-20 batches after 17 up to 230
//! when it was found    cause place                  extent
//! ```
//!
//! The place has no space in it; the extent is words for people: which batches, bytes or times. A loss that is
//! found again (a damaged segment is read at each start) is the same line and recorded once. Whoever has
//! read it may move the file away while the service is stopped.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, SecondsFormat, Utc};

use super::dir::DataDir;
use super::files::Folder;
use crate::metrics::{DataFile, LOSS_CAUSES, Metrics};

/// Its name in the data directory.
const FILE: &str = "losses";

/// Most lines of the file. What is found beyond is counted and logged.
const MAX_LINES: usize = 10_000;

const LONGEST_LINE: usize = 1000;

/// Where something was lost. In order of [`LOSS_CAUSES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The store went back further than the outbox reaches.
    Store = 0,
    /// A part of the journal is damaged or missing: views.
    Journal = 1,
    /// A part of the outbox is damaged or missing: batches.
    Outbox = 2,
    /// The salts are damaged: who visited today.
    Salts = 3,
}

pub struct Losses {
    folder: Folder,
    metrics: Arc<Metrics>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Lines without their time.
    lines: HashSet<String>,
    last: Option<String>,
    /// Lines that are not in the file yet.
    unwritten: String,
}

impl Losses {
    /// Reads what was recorded.
    pub fn open(dir: &DataDir, metrics: Arc<Metrics>) -> io::Result<Self> {
        let folder = dir.folder.clone();
        let bytes = folder.read(FILE)?.unwrap_or_default();
        let mut known = Known::default();
        // Lines that this never writes are left alone.
        let fits = |line: &&str| line.len() <= LONGEST_LINE && !line.contains(char::is_control);
        for line in String::from_utf8_lossy(&bytes).lines().filter(fits).take(MAX_LINES) {
            let Some((_, loss)) = line.split_once(' ') else { continue };
            let cause = LOSS_CAUSES.iter().find(|cause| loss.split(' ').next() == Some(cause));
            if let Some(cause) = cause
                && known.lines.insert(loss.to_owned())
            {
                metrics.healing.losses.with_label_values(&[cause]).inc();
                known.last = Some(line.to_owned());
            }
        }
        Ok(Losses { folder, metrics, known: Mutex::new(known) })
    }

    /// Notes a loss, unless it is known, and saves it.
    ///
    /// # Errors
    /// See [`Losses::save`].
    pub fn record(&self, cause: Cause, now_ms: i64, place: &str, extent: &str) -> io::Result<()> {
        self.note(cause, now_ms, place, extent);
        self.save()
    }

    /// Notes a loss, unless it is known. It is recorded when it has been saved.
    pub fn note(&self, cause: Cause, now_ms: i64, place: &str, extent: &str) {
        let cause = LOSS_CAUSES[cause as usize];
        let loss = format!("{cause} {} {}", place.replace(' ', "_"), extent.replace('\n', " "));
        let at = DateTime::from_timestamp_millis(now_ms).unwrap_or_default();
        let line = format!("{} {loss}", DateTime::<Utc>::to_rfc3339_opts(&at, SecondsFormat::Secs, true));
        let mut known = self.known();
        if known.lines.contains(&loss) {
            return;
        }
        tracing::error!(cause, place, extent, "something is lost; it is recorded in data_dir/losses");
        self.metrics.healing.losses.with_label_values(&[cause]).inc();
        if known.lines.len() < MAX_LINES {
            known.lines.insert(loss);
            known.unwritten += &format!("{line}\n");
        }
        known.last = Some(line);
    }

    /// Records all that was noted, with one sync: not for the event loop.
    ///
    /// # Errors
    /// Of the file system: nothing may be done by which what is lost could not be found out again. What cannot be
    /// recorded is tried again with the next.
    pub fn save(&self) -> io::Result<()> {
        let lines = std::mem::take(&mut self.known().unwritten);
        if lines.is_empty() {
            return Ok(());
        }
        let written = self.append(&lines);
        self.metrics.wrote(DataFile::Losses, &written);
        written.inspect_err(|error| {
            tracing::error!(%error, lines, "losses cannot be recorded");
            self.known().unwritten.insert_str(0, &lines);
        })
    }

    fn append(&self, lines: &str) -> io::Result<()> {
        let mut text = self.folder.read(FILE)?.unwrap_or_default();
        // What a version before appended may have been torn.
        if text.last().is_some_and(|last| *last != b'\n') {
            text.push(b'\n');
        }
        text.extend_from_slice(lines.as_bytes());
        self.folder.replace(FILE, &text)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are recorded and which came last, in words; none where nothing was lost.
    pub fn summary(&self) -> Option<String> {
        let known = self.known();
        let last = known.last.as_ref()?;
        Some(format!("{} recorded in data_dir/{FILE}, the last: {last}", known.lines.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sites::Sites;
    use crate::totals::disk::faults::{Faults, Operation};

    #[test]
    fn many_losses_are_one_sync_and_the_name_of_their_file_is_durable() {
        let (path, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let faults = Faults::default();
        let dir = DataDir::lock(Folder::on(path.path(), &faults)).unwrap();
        let open =
            |dir: &DataDir| Losses::open(dir, Arc::new(Metrics::new(&Sites::default(), 1).unwrap())).unwrap();
        let losses = open(&dir);
        faults.only(&[Operation::Sync, Operation::SyncNames]);
        // Of the file and of its name; the third is that of the next loss.
        faults.fail_after(3);
        (0..MAX_LINES - 2).for_each(|n| losses.note(Cause::Store, 0, &format!("lamdong/{n}"), "all"));
        losses.save().unwrap();
        assert_eq!(faults.failed(), [], "one sync of each");
        // What is not synced is lost with the power.
        faults.cut_power(path.path(), after.path(), |_| 1);
        let kept = open(&DataDir::open(after.path()).unwrap()).summary().unwrap();
        assert!(kept.starts_with("9998 recorded"), "{kept}");

        losses.record(Cause::Store, 0, "tin/a", "it fails").unwrap_err();
        assert_eq!((faults.failed(), losses.metrics.failing()), (vec![Operation::Sync], vec!["losses"]));
        losses.record(Cause::Store, 0, "tin/b", "both are recorded").unwrap();
        assert_eq!(losses.metrics.failing(), Vec::<&str>::new());
        assert!(open(&dir).summary().unwrap().starts_with("10000 recorded"));
    }

    #[test]
    fn a_loss_is_recorded_once_and_outlives_the_process() {
        let path = tempfile::tempdir().unwrap();
        let open = |metrics: &Arc<Metrics>| {
            Losses::open(&DataDir::open(path.path()).unwrap(), metrics.clone()).unwrap()
        };
        let fresh = || Arc::new(Metrics::new(&Sites::default(), 1).unwrap());
        let metrics = fresh();
        let losses = open(&metrics);
        assert_eq!(losses.summary(), None);
        losses.record(Cause::Store, 0, "lamdong/all", "batches after 3 up to 9").unwrap();
        losses.record(Cause::Store, 5000, "lamdong/all", "batches after 3 up to 9").unwrap();
        losses.record(Cause::Journal, 5000, "journal/a b", "bytes\n1 to 2").unwrap();
        let (metrics, again) = (
            fresh(),
            "2 recorded in data_dir/losses, the last: \
            1970-01-01T00:00:05Z journal journal/a_b bytes 1 to 2",
        );
        for _ in 0..2 {
            let losses = open(&metrics);
            assert_eq!(losses.summary().as_deref(), Some(again));
            losses.record(Cause::Store, 9000, "lamdong/all", "batches after 3 up to 9").unwrap();
        }
        let counted = LOSS_CAUSES.map(|cause| metrics.healing.losses.with_label_values(&[cause]).get());
        assert_eq!(counted, [2, 2, 0, 0], "each process counts what it finds recorded");
        let text = std::fs::read_to_string(path.path().join(FILE)).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}
