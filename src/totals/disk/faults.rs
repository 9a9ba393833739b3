//! A disk that fails, and whose power can be cut, under the real files of a directory of a test.
//!
//! The real files are what the page cache holds: they are what a killed process leaves. Beside them is
//! kept what is durable: each file's bytes as of its last sync, and each directory's names as of its own.
//! After a failed sync the bytes that it was for are lost however often they are synced again, as Linux
//! has it; they are read from the page cache until the power is cut.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Seek};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Create,
    Write,
    Cut,
    Sync,
    SyncNames,
    Rename,
    Remove,
    Read,
}

#[derive(Default)]
struct Inode {
    durable: Vec<u8>,
    /// Bytes whose sync failed.
    lost: Vec<Range<usize>>,
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    operations: u64,
    /// Operations that fail, by their number.
    fails: BTreeSet<u64>,
    /// Which operations can fail; all if none is named.
    only: BTreeSet<Operation>,
    failed: Vec<Operation>,
    /// Syncs take until this is over.
    slow: bool,
    /// Operations of all kinds so far, with which of them the power goes, and whether it has gone.
    all: u64,
    off_at: Option<u64>,
    off: bool,
}

impl State {
    fn next_fails(&mut self, operation: Operation) -> bool {
        self.all += 1;
        self.off |= self.off_at == Some(self.all);
        if self.off {
            return true;
        }
        if !self.only.is_empty() && !self.only.contains(&operation) {
            return false;
        }
        self.operations += 1;
        let number = self.operations;
        let fails = self.fails.contains(&number);
        if fails {
            self.failed.push(operation);
        }
        fails
    }
}

/// A clone is the same disk.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<State>>, Arc<Condvar>);

fn input_output() -> io::Error {
    // EIO
    io::Error::from_raw_os_error(5)
}

impl Faults {
    /// What is in a directory and is not known yet is durable on this disk.
    pub(super) fn adopt(&self, path: &Path) {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.adopt(&path);
                continue;
            }
            if self.state().names.contains_key(&path) {
                continue;
            }
            let durable = fs::read(&path).unwrap();
            let mut state = self.state();
            state.inodes.push(Inode { durable, lost: Vec::new() });
            let inode = state.inodes.len() - 1;
            state.names.insert(path.clone(), inode);
            state.durable_names.insert(path, inode);
        }
    }

    /// The n-th operation from now on fails.
    pub fn fail_after(&self, n: u64) {
        let mut state = self.state();
        let number = state.operations + n;
        state.fails.insert(number);
    }

    /// Only these operations can fail, and are counted.
    pub fn only(&self, operations: &[Operation]) {
        self.state().only = operations.iter().copied().collect();
    }

    /// Whether a sync that is asked for goes on for as long as this is so.
    pub fn be_slow(&self, slow: bool) {
        self.state().slow = slow;
        self.1.notify_all();
    }

    /// The power goes with the n-th operation from now on: it and all that follow fail and change nothing, until
    /// [`Faults::cut_power`] tells what is left.
    pub fn power_goes_after(&self, n: u64) {
        let mut state = self.state();
        state.off_at = Some(state.all + n);
    }

    /// Whether the power has gone.
    pub fn is_off(&self) -> bool {
        self.state().off
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        let mut state = self.state();
        state.fails.clear();
        state.off_at = None;
    }

    /// What has failed so far.
    pub fn failed(&self) -> Vec<Operation> {
        self.state().failed.clone()
    }

    /// What a power cut leaves of a directory of this disk, written to another one. `pick(n)` chooses one
    /// of n: what was not synced may have reached the disk all the same, in part or whole.
    pub fn cut_power(&self, from: &Path, to: &Path, mut pick: impl FnMut(usize) -> usize) {
        let state = self.state();
        let names = if pick(3) == 0 { &state.names } else { &state.durable_names };
        for (path, inode) in names {
            let Ok(inner) = path.strip_prefix(from) else { continue };
            let to = to.join(inner);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            let inode = &state.inodes[*inode];
            let mut bytes = inode.durable.clone();
            // The file may go by another name by now, or by none.
            let live = fs::read(path).unwrap_or_default();
            let is_live = state.names.get(path) == names.get(path);
            if is_live && live.starts_with(&bytes) && inode.lost.is_empty() {
                let more = live.len() - bytes.len();
                let reached = [0, 0, more / 2, more][pick(4)];
                bytes.extend_from_slice(&live[bytes.len()..bytes.len() + reached]);
                // A page of it may hold nothing.
                if reached > 0 && pick(4) == 0 {
                    let end = bytes.len();
                    bytes[end - reached..].fill(0);
                }
            }
            fs::write(to, bytes).unwrap();
        }
    }

    fn ask(&self, operation: Operation) -> io::Result<()> {
        if self.state().next_fails(operation) { Err(input_output()) } else { Ok(()) }
    }

    fn created(&self, path: &Path) -> usize {
        let mut state = self.state();
        let known = state.names.get(path).copied();
        let inode = known.unwrap_or_else(|| {
            state.inodes.push(Inode::default());
            state.inodes.len() - 1
        });
        // What is written anew is synced anew.
        state.inodes[inode].lost.clear();
        state.names.insert(path.to_owned(), inode);
        inode
    }

    fn opened(&self, path: &Path) -> usize {
        self.state().names.get(path).copied().expect("every file is known")
    }

    fn renamed(&self, from: &Path, to: &Path) {
        let mut state = self.state();
        if let Some(inode) = state.names.remove(from) {
            state.names.insert(to.to_owned(), inode);
        }
    }

    fn removed(&self, path: &Path) {
        self.state().names.remove(path);
    }

    fn sync_names(&self, folder: &Path) -> io::Result<()> {
        self.ask(Operation::SyncNames)?;
        let mut state = self.state();
        let inside = |path: &Path| path.parent() == Some(folder);
        state.durable_names.retain(|path, _| !inside(path));
        let names: Vec<_> = state.names.iter().filter(|(path, _)| inside(path)).collect();
        let names: Vec<_> = names.into_iter().map(|(path, inode)| (path.clone(), *inode)).collect();
        state.durable_names.extend(names);
        Ok(())
    }

    fn sync(&self, inode: usize, mut file: &fs::File) -> io::Result<()> {
        let mut live = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut live)?;
        let state = self.1.wait_while(self.state(), |state| state.slow);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        let fails = state.next_fails(Operation::Sync);
        if state.off {
            return Err(input_output());
        }
        let inode = &mut state.inodes[inode];
        if fails {
            inode.lost.push(inode.durable.len().min(live.len())..live.len());
            return Err(input_output());
        }
        for lost in &inode.lost {
            let end = lost.end.min(live.len());
            live[lost.start.min(end)..end].fill(0);
        }
        inode.durable = live;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The disk beneath a directory: one that can fail, or the real one alone.
#[derive(Clone, Default)]
pub struct Disk(pub Option<Faults>);

impl Disk {
    pub(super) fn ask(&self, operation: Operation) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |faults| faults.ask(operation))
    }

    pub(super) fn created(&self, path: &Path) -> Place {
        Place(self.0.as_ref().map(|faults| (faults.clone(), faults.created(path))))
    }

    pub(super) fn opened(&self, path: &Path) -> Place {
        Place(self.0.as_ref().map(|faults| (faults.clone(), faults.opened(path))))
    }

    pub(super) fn renamed(&self, from: &Path, to: &Path) {
        self.0.iter().for_each(|faults| faults.renamed(from, to));
    }

    pub(super) fn removed(&self, path: &Path) {
        self.0.iter().for_each(|faults| faults.removed(path));
    }

    /// None where the real names are to be synced.
    pub(super) fn sync_names(&self, folder: &Path) -> Option<io::Result<()>> {
        self.0.as_ref().map(|faults| faults.sync_names(folder))
    }
}

/// A file of a disk that can fail, or of the real one alone.
pub struct Place(Option<(Faults, usize)>);

impl Place {
    pub(super) fn ask(&self, operation: Operation) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |(faults, _)| faults.ask(operation))
    }

    /// How much of a write that fails gets through, in percent.
    pub(super) fn write(&self) -> Option<usize> {
        let mut state = self.0.as_ref()?.0.state();
        let fails = state.next_fails(Operation::Write);
        let through = if state.off { 0 } else { [0, 40, 100][state.operations as usize % 3] };
        fails.then_some(through)
    }

    /// None where the real file is to be synced.
    pub(super) fn sync(&self, file: &fs::File) -> Option<io::Result<()>> {
        self.0.as_ref().map(|(faults, inode)| faults.sync(*inode, file))
    }
}
