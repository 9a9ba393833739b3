//! The file: opened, opened anew after a fault, and checked to be ours.
//!
//! redb refuses everything after an I/O error until the file is opened anew. So any fault that may
//! pass drops the handle, and the next call opens the file again, at its last commit.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{
    Builder, Database, DatabaseError, Error, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, TableError,
    WriteTransaction,
};

use super::tables::{FREED, MARKERS, META, SALTS, SKETCHES, SUMS, freed, text_of};
use crate::totals::store::error::StoreError;

/// The layout of the tables.
const FORMAT: &str = "1";
/// Memory for pages of the file, those being written included.
const CACHE_BYTES: usize = 64 << 20;

/// How a database is opened: [`open_file`], except in tests.
pub type Opener = fn(&Path) -> Result<Database, DatabaseError>;

/// The store's file.
pub struct File(Arc<Handle>);

struct Handle {
    path: PathBuf,
    opener: Opener,
    database: Mutex<Option<Arc<Database>>>,
}

impl File {
    /// Opens the file, or makes it.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let path = path.to_owned();
        blocking(move || {
            let database = birth_or_open(&path).map_err(|err| fault(err).within(path.display()))?;
            Ok(Self::with(&path, open_file, Some(Arc::new(database))))
        })
        .await
    }

    /// A file that is there; opened when it is first needed, if it is not given.
    pub fn with(path: &Path, opener: Opener, database: Option<Arc<Database>>) -> Self {
        File(Arc::new(Handle { path: path.to_owned(), opener, database: Mutex::new(database) }))
    }

    /// Works on the file, on a thread that may block.
    pub async fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Database) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let handle = self.0.clone();
        blocking(move || {
            let outcome = handle.database().and_then(|database| job(&database).map_err(fault));
            if let Err(StoreError::Unreachable(_) | StoreError::File(_)) = outcome {
                handle.forget();
            }
            outcome.map_err(|fault| fault.within(handle.path.display()))
        })
        .await
    }

    /// The database, for one who reads it beside the calls: it stays open as long as this is held.
    pub async fn database(&self) -> Result<Arc<Database>, StoreError> {
        let handle = self.0.clone();
        blocking(move || handle.database()).await
    }
}

impl Handle {
    fn database(&self) -> Result<Arc<Database>, StoreError> {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = &*slot {
            return Ok(database.clone());
        }
        let database = match (self.opener)(&self.path) {
            Ok(database) => Arc::new(database),
            // A call that began before the fault still holds the handle.
            Err(DatabaseError::DatabaseAlreadyOpen) => {
                return Err(StoreError::unreachable("it is being opened anew"));
            }
            Err(err) => return Err(fault(err.into())),
        };
        *slot = Some(database.clone());
        Ok(database)
    }

    /// Lets go of the database: the next call opens it anew.
    fn forget(&self) {
        *self.database.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Reads the file as it is at one instant.
pub async fn read<T: Send + 'static>(
    file: &File,
    job: impl FnOnce(&ReadTransaction) -> Result<T, Error> + Send + 'static,
) -> Result<T, StoreError> {
    file.work(move |database| job(&database.begin_read()?)).await
}

/// Changes the file in one transaction, which is on disk when this returns.
pub async fn write<T: Send + 'static>(
    file: &File,
    job: impl FnOnce(&WriteTransaction) -> Result<T, Error> + Send + 'static,
) -> Result<T, StoreError> {
    write_if(file, move |tx| Ok((job(tx)?, true))).await
}

/// The same for a job that says whether it has changed anything: if not, nothing is synced.
pub async fn write_if<T: Send + 'static>(
    file: &File,
    job: impl FnOnce(&WriteTransaction) -> Result<(T, bool), Error> + Send + 'static,
) -> Result<T, StoreError> {
    file.work(move |database| {
        let tx = begin(database)?;
        let (done, changed) = job(&tx)?;
        if changed {
            tx.commit()?
        } else {
            tx.abort()?
        }
        Ok(done)
    })
    .await
}

/// Begins a transaction whose commit is durable when it returns. It saves the allocator's state, too
/// ("quick repair"): opening the file after a crash does not read all of it.
pub fn begin(database: &Database) -> Result<WriteTransaction, Error> {
    let mut tx = database.begin_write()?;
    tx.set_durability(redb::Durability::Immediate)?;
    tx.set_quick_repair(true);
    Ok(tx)
}

/// Opens the file that is there and ours, or makes one.
fn birth_or_open(path: &Path) -> Result<Database, Error> {
    if fs::metadata(path).is_ok_and(|file| file.len() > 0) {
        // Read first: opening for writing would touch a file that is not ours.
        match builder().open_read_only(path) {
            Ok(database) => {
                is_ours(&database.begin_read()?)?;
            }
            // It was not closed properly, as after kill -9. Opening it for writing sets that right.
            Err(DatabaseError::RepairAborted) => {}
            Err(err) => return Err(err.into()),
        }
    } else {
        make_file(path)?;
    }
    let mut database = builder().create(path)?;
    if !is_ours(&database.begin_read()?)? {
        let tx = begin(&database)?;
        tx.open_table(META)?.insert("format", FORMAT)?;
        tx.open_table(SUMS)?;
        tx.open_table(MARKERS)?;
        tx.open_table(SKETCHES)?;
        tx.open_table(SALTS)?;
        tx.commit()?;
    }
    if let Err(error) = give_back(&mut database, path) {
        tracing::warn!(%error, "what was removed from the store's file stays part of it");
    }
    Ok(database)
}

/// Makes the file smaller where a tenth of it or more was removed since that was done last: in between what is new
/// takes the room of what is removed.
fn give_back(database: &mut Database, path: &Path) -> Result<(), Error> {
    let bytes = fs::metadata(path)?.len();
    if freed(&database.begin_read()?.open_table(META)?)? < bytes / 10 {
        return Ok(());
    }
    tracing::info!(bytes, "much was removed from the store's file: it is made smaller, which takes a while");
    database.compact()?;
    tracing::info!(bytes = fs::metadata(path)?.len(), "the store's file is smaller now");
    let tx = begin(database)?;
    tx.open_table(META)?.remove(FREED)?;
    Ok(tx.commit()?)
}

/// Opens a file of footfall's for reading alone; none where it was not closed properly.
pub fn read_only(path: &Path) -> Result<Option<ReadOnlyDatabase>, StoreError> {
    let opened = match builder().open_read_only(path) {
        Ok(database) => {
            database.begin_read().map_err(Error::from).and_then(|tx| is_ours(&tx)).map(|_| Some(database))
        }
        Err(DatabaseError::RepairAborted) => Ok(None),
        Err(err) => Err(err.into()),
    };
    opened.map_err(|err| fault(err).within(path.display()))
}

pub fn open_file(path: &Path) -> Result<Database, DatabaseError> {
    builder().open(path)
}

/// The settings of the database.
pub fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Makes an empty file for its owner only (it will hold salts) and its entry in the directory durable.
fn make_file(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => fs::File::open(dir)?.sync_all(),
        _ => fs::File::open(".")?.sync_all(),
    }
}

/// Whether the file is footfall's; not yet if it is empty. Anything else is an error.
fn is_ours(tx: &ReadTransaction) -> Result<bool, Error> {
    if tx.list_tables()?.next().is_none() && tx.list_multimap_tables()?.next().is_none() {
        return Ok(false);
    }
    let format = match tx.open_table(META) {
        Ok(meta) => text_of(&meta, "format")?,
        Err(TableError::Storage(err)) => return Err(err.into()),
        Err(_) => None,
    };
    match format.as_deref() {
        Some(FORMAT) => Ok(true),
        Some(format) => Err(Error::Corrupted(format!(
            "the file is of format {format}, this version of footfall reads format {FORMAT}"
        ))),
        None => Err(Error::Corrupted("the file is a database, but not footfall's".to_owned())),
    }
}

/// Decides whether a fault may pass. What this store itself finds wrong in the data comes as
/// `Corrupted`, as redb's own findings do.
fn fault(err: Error) -> StoreError {
    use io::ErrorKind::{InvalidData, IsADirectory, NotFound, PermissionDenied};
    match err {
        Error::Io(err) if err.kind() == InvalidData => {
            StoreError::refused(format!("the file is not footfall's, or damaged ({err})"))
        }
        Error::Io(err) if matches!(err.kind(), IsADirectory | NotFound | PermissionDenied) => {
            StoreError::refused(err.to_string())
        }
        Error::Io(err) => StoreError::File(err.to_string().into()),
        Error::PreviousIo | Error::DatabaseClosed | Error::LockPoisoned(_) => {
            StoreError::unreachable(err.to_string())
        }
        Error::DatabaseAlreadyOpen | Error::LockProtocolMismatch => {
            StoreError::refused("the file is open elsewhere: another footfall runs on it")
        }
        Error::Corrupted(text) => StoreError::refused(text),
        err => StoreError::refused(err.to_string()),
    }
}

/// Runs work that may wait for the disk. redb may panic on a file that was altered behind its back.
async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(job).await {
        Ok(outcome) => outcome,
        Err(err) if err.is_panic() => Err(StoreError::refused("the store's file is damaged")),
        Err(_) => Err(StoreError::unreachable("the service is stopping")),
    }
}
