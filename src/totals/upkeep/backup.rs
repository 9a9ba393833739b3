//! A backup: a directory with the totals of every site as one embedded store, whatever the store of the
//! service is, and a manifest. It can be restored on its own.
//!
//! What is left out, and why: salts and visitor ids (a backup kept for years would keep what must be
//! forgotten within days), journal and outbox (all that was counted is in the store before the copy begins),
//! sessions (nobody is online any more), and who wrote it: what is restored is another writer.
//!
//! ```text
//! MANIFEST   lines of UTF-8 text:
//!            "footfall backup " format = 1
//!            "version " the version that made it
//!            "made " RFC 3339
//!            "site " key " views " number " visits " number     one for each site
//!            "file totals.redb " bytes " crc32 " 8 hex digits
//! totals.redb   an embedded store (see `embedded`)
//! ```
//!
//! The directory has another name until everything in it is synced: one that has its own name is whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::audit::{self, Audit};
use super::copy::{self, CopyError, Manner};
use crate::totals::disk::dir::{DataDir, LOCK};
use crate::totals::disk::files::sync_dir;
use crate::totals::disk::formats;
use crate::totals::store::AnyDump;
use crate::totals::store::contract::StoreConfig;
use crate::totals::store::dump::Dump;
use crate::totals::store::url::StoreUrl;

const MANIFEST: &str = "MANIFEST";
const TOTALS: &str = "totals.redb";
const FORMAT: &str = "1";

/// Why there is no backup, or why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file or directory.
    #[error("{path}: {fault}", path = .0.display(), fault = .1)]
    File(PathBuf, io::Error),
    /// A directory that must be empty is not.
    #[error("{path} is not empty: {what}", path = .0.display(), what = .1)]
    NotEmpty(PathBuf, &'static str),
    /// Not a backup, or a damaged one.
    #[error("{path}: {what}", path = .0.display(), what = .1)]
    Damaged(PathBuf, String),
    /// The totals.
    #[error("{0}")]
    Copy(#[from] CopyError),
}

fn at(path: &Path) -> impl Fn(io::Error) -> BackupError {
    move |error| BackupError::File(path.to_owned(), error)
}

/// Copies what a store holds into a new directory. `made` is the time, for people. What it holds then.
/// Where it fails there is no directory of that name, or it is empty as before.
pub async fn backup(from: &impl Dump, into: &Path, made: &str) -> Result<Vec<Audit>, BackupError> {
    if !is_empty(into).map_err(at(into))? {
        return Err(BackupError::NotEmpty(into.to_owned(), "a backup is made into a new directory"));
    }
    let unfinished = unfinished(into)?;
    DirBuilder::new().mode(0o700).create(&unfinished).map_err(at(&unfinished))?;
    let audits = copy::copy_into_file(from, unfinished.join(TOTALS), Manner::default()).await?;
    let (into, manifest) = (into.to_owned(), sites_of(&audits));
    let head = format!("footfall backup {FORMAT}\nversion {}\nmade {made}\n", env!("CARGO_PKG_VERSION"));
    let finished = tokio::task::spawn_blocking(move || finish(&unfinished, &into, head + &manifest)).await;
    finished.map_err(|error| BackupError::File(PathBuf::from(TOTALS), io::Error::other(error)))??;
    Ok(audits)
}

fn sites_of(audits: &[Audit]) -> String {
    let line = |audit: &Audit| format!("site {} views {} visits {}\n", audit.site, audit.views, audit.visits);
    audits.iter().map(line).collect()
}

/// The directory as it is called until it is whole; what a backup that was broken off left is deleted.
fn unfinished(into: &Path) -> Result<PathBuf, BackupError> {
    let mut name = into.as_os_str().to_owned();
    name.push(".unfinished");
    let path = PathBuf::from(name);
    if path.exists() {
        for file in [TOTALS.to_owned(), format!("{TOTALS}.unfinished"), MANIFEST.to_owned()] {
            match fs::remove_file(path.join(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error)),
                _ => {}
            }
        }
        fs::remove_dir(&path).map_err(at(&path))?;
    }
    Ok(path)
}

/// Writes the manifest and gives the directory its name.
fn finish(unfinished: &Path, into: &Path, mut manifest: String) -> Result<(), BackupError> {
    let totals = unfinished.join(TOTALS);
    let (bytes, sum) = checksum(&totals).map_err(at(&totals))?;
    manifest += &format!("file {TOTALS} {bytes} crc32 {sum:08x}\n");
    let path = unfinished.join(MANIFEST);
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).and_then(|mut file| {
            file.write_all(manifest.as_bytes())?;
            file.sync_all()
        });
    written.and_then(|()| sync_dir(unfinished)).map_err(at(&path))?;
    fs::rename(unfinished, into).map_err(at(into))?;
    let parent = into.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_dir(parent).map_err(at(parent))
}

/// Brings a backup to where the settings have the totals: a `data_dir` that is empty, and with Redis a
/// database without these sites. What is there then. The next start is a writer of its own.
/// Where it fails there may be keys in Redis that no service reads (see `migrate`).
pub async fn restore(store: &StoreConfig, data_dir: &Path, from: &Path) -> Result<Vec<Audit>, BackupError> {
    check(from)?;
    let must_be_empty = || match is_empty(data_dir).map_err(at(data_dir))? {
        true => Ok(()),
        false => {
            Err(BackupError::NotEmpty(data_dir.to_owned(), "a backup is restored into an empty data_dir"))
        }
    };
    // Nothing is made in a directory of something else, and nothing in one that a service uses meanwhile.
    must_be_empty()?;
    let _locked = DataDir::open(data_dir).map_err(at(data_dir))?;
    must_be_empty()?;
    let totals = from.join(TOTALS);
    let refused = |error| BackupError::Damaged(totals.clone(), format!("{error}"));
    let dump = AnyDump::of_file(&totals).await.map_err(refused)?;
    if store.url != StoreUrl::Embedded {
        return Ok(copy::copy(&dump, store, data_dir, Manner::default()).await?);
    }
    let mut audits = Vec::new();
    for site in dump.sites().await.map_err(refused)? {
        audits.push(audit::audit(&dump, &site).await.map_err(refused)?);
    }
    copy_file(&totals, data_dir).map_err(at(data_dir))?;
    Ok(audits)
}

/// Reads the manifest, and the files as it says.
fn check(dir: &Path) -> Result<(), BackupError> {
    let path = dir.join(MANIFEST);
    let damaged = |what: &str| BackupError::Damaged(path.clone(), what.to_owned());
    let text = fs::read_to_string(&path).map_err(at(&path))?;
    let format = text.lines().next().and_then(|line| line.strip_prefix("footfall backup "));
    match format {
        Some(FORMAT) => {}
        Some(found) => return Err(damaged(&formats::unknown(found, FORMAT))),
        None => return Err(damaged("not the manifest of a backup of footfall")),
    }
    let mut files = text.lines().filter_map(|line| line.strip_prefix("file "));
    let (Some(line), None) = (files.next(), files.next()) else {
        return Err(damaged("it names no file, or several"));
    };
    let totals = dir.join(TOTALS);
    let (bytes, sum) = checksum(&totals).map_err(at(&totals))?;
    if line != format!("{TOTALS} {bytes} crc32 {sum:08x}") {
        let what = format!("{bytes} bytes, CRC-32 {sum:08x}; the manifest says {line}: it is damaged");
        return Err(BackupError::Damaged(totals, what));
    }
    Ok(())
}

fn copy_file(totals: &Path, data_dir: &Path) -> io::Result<()> {
    let fresh = data_dir.join(format!("{TOTALS}.unfinished"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    io::copy(&mut File::open(totals)?, &mut file)?;
    file.sync_all()?;
    fs::rename(&fresh, data_dir.join(TOTALS))?;
    sync_dir(data_dir)
}

/// Length and CRC-32 of a file.
fn checksum(path: &Path) -> io::Result<(u64, u32)> {
    let (mut file, mut hasher, mut bytes) = (File::open(path)?, crc32fast::Hasher::new(), 0);
    let mut piece = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok((bytes, hasher.finalize()));
        }
        hasher.update(piece.get(..read).unwrap_or_default());
        bytes += read as u64;
    }
}

/// Whether nothing is in a directory, or there is none. A file system's own folder and a lock do not count.
fn is_empty(dir: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        if name != "lost+found" && name != LOCK {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn nothing_is_restored_into_a_directory_that_is_in_use() {
        let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let totals = from.path().join(TOTALS);
        fs::write(&totals, "not the totals of anything").unwrap();
        let (bytes, sum) = checksum(&totals).unwrap();
        let manifest = format!("footfall backup {FORMAT}\nfile {TOTALS} {bytes} crc32 {sum:08x}\n");
        fs::write(from.path().join(MANIFEST), manifest).unwrap();
        let (flush_interval, timeout) = (Duration::from_secs(1), Duration::from_secs(1));
        let config = StoreConfig { url: StoreUrl::Embedded, tls_ca_file: None, flush_interval, timeout };
        let refused = async || restore(&config, into.path(), from.path()).await.unwrap_err().to_string();

        let used = DataDir::open(into.path()).unwrap();
        assert!(refused().await.contains("another footfall uses it"));
        drop(used);
        assert!(refused().await.contains(TOTALS), "the lock of one that has ended is nothing");
        fs::write(into.path().join("journal"), "").unwrap();
        assert!(refused().await.contains("is not empty"));
    }
}
