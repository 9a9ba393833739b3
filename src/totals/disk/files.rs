//! A directory whose files this process alone writes: the only way from journal, outbox and the small
//! files of `data_dir` to the disk. (The lock and the embedded store go their own ways.)
//!
//! What is written is durable when it has been synced, and a name (of a new, renamed or deleted file) when
//! its directory has been. In tests every operation can be made to fail, a write to stop short, and the
//! power to be cut, which takes all that was not synced.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::codec::Put;
#[cfg(test)]
use super::faults::{Disk, Faults, Operation, Place};

#[derive(Clone)]
pub struct Folder {
    pub path: PathBuf,
    #[cfg(test)]
    disk: Disk,
}

impl Folder {
    /// A directory on a disk that can fail. What is in it is durable.
    #[cfg(test)]
    pub fn on(path: &Path, faults: &Faults) -> Folder {
        fs::create_dir_all(path).unwrap();
        faults.adopt(path);
        Folder { path: path.to_owned(), disk: Disk(Some(faults.clone())) }
    }

    /// Makes the directory (0700), and those that it is in, if need be; the name of each is durable then.
    pub fn exist(&self) -> io::Result<()> {
        if self.path.is_dir() {
            return Ok(());
        }
        let mut above = self.clone();
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        above.path = parent.unwrap_or(Path::new(".")).to_owned();
        above.exist()?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        // One whose name may not be durable must be made again.
        above.sync().inspect_err(|_| _ = fs::remove_dir(&self.path))
    }

    /// A directory in this one.
    pub fn within(&self, name: &str) -> Self {
        let mut folder = self.clone();
        folder.path.push(name);
        folder
    }

    /// The names of its files that are text.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.path)?;
        let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(io::Result::transpose).collect()
    }

    /// Makes a file (0600), or empties the one that is there.
    pub fn create(&self, name: &str) -> io::Result<File> {
        let path = self.path.join(name);
        #[cfg(test)]
        self.disk.ask(Operation::Create)?;
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        Ok(File {
            file,
            #[cfg(test)]
            place: self.disk.created(&path),
        })
    }

    /// Opens a file for reading, and for syncing.
    pub fn open(&self, name: &str) -> io::Result<File> {
        let path = self.path.join(name);
        #[cfg(test)]
        self.disk.ask(Operation::Read)?;
        let file = fs::File::open(&path)?;
        Ok(File {
            file,
            #[cfg(test)]
            place: self.disk.opened(&path),
        })
    }

    /// Reads a file; none where there is none.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        #[cfg(test)]
        self.disk.ask(Operation::Read)?;
        if_there(fs::read(self.path.join(name)))
    }

    /// Renames a file, over another one if there is one.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path.join(from), self.path.join(to));
        #[cfg(test)]
        self.disk.ask(Operation::Rename)?;
        fs::rename(&from, &to)?;
        #[cfg(test)]
        self.disk.renamed(&from, &to);
        Ok(())
    }

    /// Deletes the directory, which is empty.
    pub fn vanish(&self) -> io::Result<()> {
        if_there(fs::remove_dir(&self.path)).map(drop)
    }

    /// Deletes a file; one that is gone already is as good.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        #[cfg(test)]
        self.disk.ask(Operation::Remove)?;
        if_there(fs::remove_file(&path))?;
        #[cfg(test)]
        self.disk.removed(&path);
        Ok(())
    }

    /// Makes the names in it durable.
    pub fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(synced) = self.disk.sync_names(&self.path) {
            return synced;
        }
        sync_dir(&self.path)
    }

    /// Begins to replace a file that is too large to be in memory as a whole.
    pub fn begin_replacing(&self, name: &str) -> io::Result<Replacement<'_>> {
        let file = self.create(&format!("{name}.new"))?;
        let name = name.to_owned();
        let (piece, sum) = (Vec::with_capacity(2 * PIECE), crc32fast::Hasher::new());
        Ok(Replacement { folder: self, name, file, piece, at: 0, sum, written: Ok(()) })
    }

    /// Replaces a small file: after a crash it is the old one or the new one, whole. After an error the old
    /// one is untouched, or is replaced but may come back.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let fresh = format!("{name}.new");
        let file = self.create(&fresh)?;
        file.write_all_at(bytes, 0)?;
        self.put_in_place(&file, &fresh, name)
    }

    fn put_in_place(&self, file: &File, fresh: &str, name: &str) -> io::Result<()> {
        file.sync_data()?;
        self.rename(fresh, name)?;
        self.sync()
    }
}

/// Bytes that are written at once.
const PIECE: usize = 1 << 16;

/// A file that is written in pieces and takes the place of another when it is whole. One that is dropped before
/// changes nothing.
pub struct Replacement<'a> {
    folder: &'a Folder,
    name: String,
    file: File,
    piece: Vec<u8>,
    /// Where the piece belongs.
    at: u64,
    sum: crc32fast::Hasher,
    written: io::Result<()>,
}

impl Put for Replacement<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.piece.put(bytes);
        if self.piece.len() >= PIECE {
            self.write();
        }
    }
}

impl Replacement<'_> {
    fn write(&mut self) {
        self.sum.update(&self.piece);
        if self.written.is_ok() {
            self.written = self.file.write_all_at(&self.piece, self.at);
        }
        self.at += self.piece.len() as u64;
        self.piece.clear();
    }

    /// Puts it in the place of the other, with the CRC-32 of all its bytes as the last four. See
    /// [`Folder::replace`].
    pub fn finish(mut self) -> io::Result<()> {
        self.sum.update(&self.piece);
        self.piece.put_u32(self.sum.finalize());
        self.written.and_then(|()| self.file.write_all_at(&self.piece, self.at))?;
        self.folder.put_in_place(&self.file, &format!("{}.new", self.name), &self.name)
    }
}

impl From<&Path> for Folder {
    /// A directory that exists, or is made with the first file.
    fn from(path: &Path) -> Self {
        Folder {
            path: path.to_owned(),
            #[cfg(test)]
            disk: Disk::default(),
        }
    }
}

/// What was asked of a file; none where there is no such file.
pub fn if_there<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        answer => answer.map(Some),
    }
}

/// Makes the names in a directory of no [`Folder`] durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// An open file. It can be shared between threads: every operation names its place.
pub struct File {
    file: fs::File,
    #[cfg(test)]
    place: Place,
}

impl File {
    /// Writes all of it at a place. After an error any part of it may have been written.
    pub fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Some(short) = self.place.write() {
            let some = bytes.get(..bytes.len() * short / 100).unwrap_or_default();
            self.file.write_all_at(some, at)?;
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.file.write_all_at(bytes, at)
    }

    /// Fills the buffer from a place; `UnexpectedEof` where the file ends before.
    pub fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }

    /// Bytes in it.
    pub fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Cuts it off.
    pub fn cut(&self, bytes: u64) -> io::Result<()> {
        #[cfg(test)]
        self.place.ask(Operation::Cut)?;
        self.file.set_len(bytes)
    }

    /// Makes what was written durable, with what is needed to read it. An error may leave it marked as
    /// written though it is not: a later sync proves nothing then.
    pub fn sync_data(&self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(synced) = self.place.sync(&self.file) {
            return synced;
        }
        self.file.sync_data()
    }
}
