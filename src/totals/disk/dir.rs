//! The data directory: locked for life, its small files replaced whole.
//!
//! ```text
//! checked text   lines of text, and a last one: `crc32 ` and the CRC-32 of the lines before it, 8 hex digits
//! ```
//!
//! What no other file can tell (`writer`, `salts`) is kept twice, the second time as `<name>.copy`: where
//! one of the two is damaged the other is taken, and the damaged one is set aside as `<name>.damaged`. A text
//! without a checksum is believed where there is no copy.

use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, lchown};
use std::path::Path;

use super::files::Folder;

/// The name of the file that is locked.
pub const LOCK: &str = "LOCK";

/// A data directory that this process alone uses. The lock ends with the process, however it ends.
pub struct DataDir {
    pub folder: Folder,
    _lock: fs::File,
}

/// What a checked text was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    Absent,
    /// As it was written.
    Whole(String),
    Damaged,
}

impl DataDir {
    /// Makes the directory if need be, and locks it; `WouldBlock` where another process holds it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let folder = Folder::from(path);
        folder.exist()?;
        check_private(path)?;
        Self::lock(folder)
    }

    /// Locks a directory that is there.
    pub fn lock(folder: Folder) -> io::Result<Self> {
        let path = folder.path.join(LOCK);
        let mut lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(path).unwrap_or_default();
                let text = format!("another footfall uses it (process {})", holder.trim());
                return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        lock.set_len(0)?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(DataDir { folder, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.folder.path
    }

    /// Reads a text that is kept twice. Where one copy is damaged it is told by the other.
    pub fn read_kept(&self, name: &str) -> io::Result<Kept> {
        let bytes = self.folder.read(name)?;
        let first = check(bytes.as_deref());
        if let Kept::Whole(_) = first {
            return Ok(first);
        }
        let copy = check(self.folder.read(&format!("{name}.copy"))?.as_deref());
        match (&copy, bytes.map(String::from_utf8)) {
            // Written before there were copies and checksums.
            (Kept::Absent, Some(Ok(text))) => Ok(Kept::Whole(text)),
            (Kept::Absent, None) => Ok(Kept::Absent),
            (Kept::Whole(text), _) => {
                tracing::warn!(name, "a file of data_dir is damaged or gone; its copy is taken");
                self.set_aside(name)?;
                self.folder.replace(name, checked(text).as_bytes())?;
                Ok(copy)
            }
            _ => Ok(Kept::Damaged),
        }
    }

    /// Replaces a text that is kept twice. After an error too it is the old one or the new one, whole.
    pub fn replace_kept(&self, name: &str, text: &str) -> io::Result<()> {
        let text = checked(text);
        self.folder.replace(name, text.as_bytes())?;
        self.folder.replace(&format!("{name}.copy"), text.as_bytes())
    }

    /// Renames a damaged file, for whoever wants to look at it.
    pub fn set_aside(&self, name: &str) -> io::Result<()> {
        if self.path().join(name).exists() {
            self.folder.rename(name, &format!("{name}.damaged"))?;
            self.folder.sync()?;
        }
        Ok(())
    }
}

/// The user of this process; none where there is no /proc.
pub fn own_user() -> Option<u32> {
    fs::metadata("/proc/self").ok().map(|process| process.uid())
}

/// Refuses that root makes files which the directory's owner could not use afterwards.
pub fn check_owner(path: &Path) -> io::Result<()> {
    match (own_user(), fs::metadata(path)) {
        (Some(0), Ok(dir)) if dir.uid() != 0 => {
            let problem = "root would make files that the owner cannot use";
            Err(with_remedy(io::Error::new(io::ErrorKind::PermissionDenied, problem), path))
        }
        _ => Ok(()),
    }
}

/// Refuses a directory that everybody may write to, and links in it: what this process writes would be written, as
/// its user, to a place that somebody else chose.
fn check_private(path: &Path) -> io::Result<()> {
    let shown = path.display();
    if fs::metadata(path)?.mode() & 0o002 != 0 {
        return Err(io::Error::other(format!("everybody may write to {shown}: chmod o-w {shown}")));
    }
    // What this process may not read it does not write to.
    for entry in fs::read_dir(path).into_iter().flatten() {
        let entry = entry?;
        let (kind, path) = (entry.file_type()?, entry.path());
        if kind.is_symlink() {
            let shown = path.display();
            return Err(io::Error::other(format!("{shown} is a link: put there what it leads to")));
        }
        if kind.is_dir() {
            check_private(&path)?;
        }
    }
    Ok(())
}

/// Gives what root made in a directory to the directory's owner, who has to use it.
pub fn give_to_owner(path: &Path) -> io::Result<()> {
    let owner = fs::metadata(path)?;
    if own_user() != Some(0) || owner.uid() == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        lchown(entry.path(), Some(owner.uid()), Some(owner.gid()))?;
        if entry.file_type()?.is_dir() {
            give_to_owner(&entry.path())?;
        }
    }
    Ok(())
}

/// The fault of a directory that this user may not use, with what helps.
pub fn with_remedy(fault: io::Error, path: &Path) -> io::Error {
    let Some(me) = own_user().filter(|_| fault.kind() == io::ErrorKind::PermissionDenied) else {
        return fault;
    };
    let shown = path.display();
    let remedy = match fs::metadata(path) {
        Err(_) => format!("make it for user {me}: install -d -m 700 -o {me} {shown}"),
        Ok(dir) if dir.uid() == me => format!("what is in it must be user {me}'s: chown -R {me} {shown}"),
        Ok(dir) => {
            let owner = dir.uid();
            format!(
                "it is user {owner}'s, and this process runs as user {me}: run it as {owner}, or chown -R {me} {shown}"
            )
        }
    };
    io::Error::new(fault.kind(), format!("{fault}; {remedy}"))
}

/// Whether a process uses a data directory now.
pub fn is_in_use(data_dir: &Path) -> bool {
    let lock = OpenOptions::new().read(true).write(true).open(data_dir.join(LOCK));
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}

const CHECK: &str = "crc32 ";

/// A text with its checksum.
pub fn checked(text: &str) -> String {
    format!("{text}{CHECK}{:08x}\n", crc32fast::hash(text.as_bytes()))
}

/// Takes the checksum off a text.
pub fn check(bytes: Option<&[u8]>) -> Kept {
    let Some(bytes) = bytes else { return Kept::Absent };
    let end = bytes.len().saturating_sub(CHECK.len() + 9);
    match std::str::from_utf8(&bytes[..end]) {
        Ok(text) if checked(text).as_bytes() == bytes => Kept::Whole(text.to_owned()),
        _ => Kept::Damaged,
    }
}

#[cfg(test)]
mod tests;
