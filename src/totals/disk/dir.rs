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
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::files::Folder;

/// A data directory that this process alone uses. The lock ends with the process, however it ends.
pub struct DataDir {
    folder: Folder,
    _lock: fs::File,
}

/// What a checked text was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// There is none.
    Absent,
    /// As it was written.
    Whole(String),
    /// Not as it was written.
    Damaged,
}

impl DataDir {
    /// Makes the directory if need be, and locks it.
    ///
    /// # Errors
    /// Of the file system; `WouldBlock` where another process holds it.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::lock(Folder::make(path)?)
    }

    /// Locks a directory.
    ///
    /// # Errors
    /// As [`DataDir::open`].
    pub fn lock(folder: Folder) -> io::Result<Self> {
        let path = folder.path().join("LOCK");
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

    /// Whether a process uses the directory now.
    pub fn is_in_use(path: &Path) -> bool {
        let lock = OpenOptions::new().read(true).write(true).open(path.join("LOCK"));
        lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The same, to work with.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Reads a small file; none where there is none.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.folder.read(name)
    }

    /// Replaces a small file: after a crash it is the old one or the new one, whole.
    ///
    /// # Errors
    /// Of the file system; the old file is untouched.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.folder.replace(name, bytes)
    }

    /// Reads a text that is kept twice. Where one copy is damaged it is told by the other.
    pub fn read_kept(&self, name: &str) -> io::Result<Kept> {
        let first = check(self.read(name)?);
        if let Kept::Whole(_) = first {
            return Ok(first);
        }
        let copy = check(self.read(&copy_of(name))?);
        if copy == Kept::Absent
            && let Some(Ok(text)) = self.read(name)?.map(String::from_utf8)
        {
            // Written before there were copies and checksums.
            return Ok(Kept::Whole(text));
        }
        if let Kept::Whole(text) = &copy {
            tracing::warn!(name, "a file of data_dir is damaged or gone; its copy is taken");
            self.set_aside(name)?;
            self.folder.replace(name, checked(text).as_bytes())?;
            return Ok(copy);
        }
        Ok(if first == Kept::Absent && copy == Kept::Absent { Kept::Absent } else { Kept::Damaged })
    }

    /// Replaces a text that is kept twice.
    ///
    /// # Errors
    /// Of the file system; it is the old one or the new one, whole.
    pub fn replace_kept(&self, name: &str, text: &str) -> io::Result<()> {
        let text = checked(text);
        self.folder.replace(name, text.as_bytes())?;
        self.folder.replace(&copy_of(name), text.as_bytes())
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

fn copy_of(name: &str) -> String {
    format!("{name}.copy")
}

const CHECK: &str = "crc32 ";

/// A text with its checksum.
pub fn checked(text: &str) -> String {
    format!("{text}{CHECK}{:08x}\n", crc32fast::hash(text.as_bytes()))
}

/// Takes the checksum off a text.
pub fn check(bytes: Option<Vec<u8>>) -> Kept {
    let Some(bytes) = bytes else { return Kept::Absent };
    let text = String::from_utf8(bytes).ok().and_then(|whole| {
        let text = whole.get(..whole.len().checked_sub(CHECK.len() + 9)?)?;
        (checked(text) == whole).then(|| text.to_owned())
    });
    text.map_or(Kept::Damaged, Kept::Whole)
}

#[cfg(test)]
mod tests;
