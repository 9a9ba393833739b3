//! A directory whose files this process alone writes: the only way from journal, outbox and the small
//! files of `data_dir` to the disk. (The lock, the file of losses and the embedded store go their own ways.)
//!
//! What is written is durable when it has been synced, and a name (of a new, renamed or deleted file) when
//! its directory has been. In tests every operation can be made to fail, a write to stop short, and the
//! power to be cut, which takes all that was not synced.

#[cfg(test)]
use super::faults;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Clone)]
pub struct Folder {
    pub(super) path: PathBuf,
    #[cfg(test)]
    pub(super) faults: Option<faults::Faults>,
}

impl Folder {
    /// Makes the directory (0700) if need be; its name is durable then.
    pub fn make(path: &Path) -> io::Result<Self> {
        let folder = Folder {
            path: path.to_owned(),
            #[cfg(test)]
            faults: None,
        };
        folder.exist()?;
        Ok(folder)
    }

    /// Makes the directory if need be.
    pub fn exist(&self) -> io::Result<()> {
        if self.path.is_dir() {
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => fs::File::open(parent)?.sync_all(),
            _ => fs::File::open(".")?.sync_all(),
        }
    }

    /// A directory in this one, made if need be.
    pub fn within(&self, name: &str) -> io::Result<Self> {
        let mut folder = self.clone();
        folder.path.push(name);
        folder.exist()?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
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
        self.ask(faults::Operation::Create)?;
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        Ok(File {
            file,
            #[cfg(test)]
            place: self.faults.as_ref().map(|faults| faults.created(&path)),
        })
    }

    /// Opens a file for reading, and for syncing.
    pub fn open(&self, name: &str) -> io::Result<File> {
        let path = self.path.join(name);
        let file = fs::File::open(&path)?;
        Ok(File {
            file,
            #[cfg(test)]
            place: self.faults.as_ref().map(|faults| faults.opened(&path)),
        })
    }

    /// Reads a file; none where there is none.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Renames a file, over another one if there is one.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path.join(from), self.path.join(to));
        #[cfg(test)]
        self.ask(faults::Operation::Rename)?;
        fs::rename(&from, &to)?;
        #[cfg(test)]
        self.faults.iter().for_each(|faults| faults.renamed(&from, &to));
        Ok(())
    }

    /// Deletes a file; one that is gone already is as good.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        #[cfg(test)]
        self.ask(faults::Operation::Remove)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        #[cfg(test)]
        self.faults.iter().for_each(|faults| faults.removed(&path));
        Ok(())
    }

    /// Makes the names in it durable.
    pub fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(faults) = &self.faults {
            return faults.sync_names(&self.path);
        }
        fs::File::open(&self.path)?.sync_all()
    }

    /// Replaces a small file: after a crash it is the old one or the new one, whole.
    ///
    /// # Errors
    /// Of the file system; the old file is untouched, or is replaced but may come back.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let fresh = format!("{name}.new");
        let file = self.create(&fresh)?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()?;
        self.rename(&fresh, name)?;
        self.sync()
    }

    #[cfg(test)]
    fn ask(&self, operation: faults::Operation) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.ask(operation))
    }
}

impl From<&Path> for Folder {
    /// A directory that exists, or is made with the first file.
    fn from(path: &Path) -> Self {
        Folder {
            path: path.to_owned(),
            #[cfg(test)]
            faults: None,
        }
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
    place: Option<faults::Place>,
}

impl File {
    /// Writes all of it at a place. After an error any part of it may have been written.
    pub fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Some(short) = self.place.as_ref().and_then(faults::Place::write) {
            let some = bytes.get(..bytes.len() * short / 100).unwrap_or_default();
            self.file.write_all_at(some, at)?;
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.file.write_all_at(bytes, at)
    }

    /// Fills the buffer from a place.
    ///
    /// # Errors
    /// Of the file system; `UnexpectedEof` where the file ends before.
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
        self.ask(faults::Operation::Cut)?;
        self.file.set_len(bytes)
    }

    /// Makes what was written durable, with what is needed to read it. An error may leave it marked as
    /// written though it is not: a later sync proves nothing then.
    pub fn sync_data(&self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(place) = &self.place {
            return place.sync(&self.file);
        }
        self.file.sync_data()
    }

    /// The same, with all that is known of the file.
    pub fn sync_all(&self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(place) = &self.place {
            return place.sync(&self.file);
        }
        self.file.sync_all()
    }

    #[cfg(test)]
    fn ask(&self, operation: faults::Operation) -> io::Result<()> {
        self.place.as_ref().map_or(Ok(()), |place| place.ask(operation))
    }
}
