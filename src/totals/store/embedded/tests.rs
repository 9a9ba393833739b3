//! What is the embedded store's own: the file and its faults.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageBackend, TableDefinition};

use super::file::{begin, builder, open_file};
use super::*;
use crate::totals::store::tests::{day, hash, marker, part, site, writer};

async fn one_more(store: &Embedded, prev: Option<&str>, then: &str) -> Result<Vec<Outcome>, StoreError> {
    store.apply(&writer("w"), vec![part("all", prev, then, &[("views", 1)])], vec![]).await
}

async fn views(store: &Embedded) -> Found {
    let query = Query { hash: hash("all"), fields: vec!["views".into()] };
    store.read(&writer("w"), vec![query]).await.unwrap().pop().unwrap()
}

async fn refused(path: &Path, said: &str) {
    let before = fs::read(path).ok();
    let Err(StoreError::Refused(text)) = Embedded::open(path).await.map(drop) else { panic!("{said}") };
    assert!(text.contains(said) && text.contains(&path.display().to_string()), "{text}");
    assert!(fs::read(path).ok() == before, "the file was touched");
}

#[tokio::test]
async fn files_that_are_not_ours_are_left_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("totals.redb");
    fs::write(&path, "views,visits\n1,2\n".repeat(4_000)).unwrap();
    refused(&path, "the file is not footfall's, or damaged").await;
    fs::write(&path, "x").unwrap();
    refused(&path, "").await;

    let fill = |path: &Path, table: TableDefinition<&str, &str>, key: &str, value: &str| {
        let _ = fs::remove_file(path);
        let database = Database::create(path).unwrap();
        let tx = database.begin_write().unwrap();
        tx.open_table(table).unwrap().insert(key, value).unwrap();
        tx.commit().unwrap();
    };
    fill(&path, TableDefinition::new("accounts"), "a", "b");
    refused(&path, "the file is a database, but not footfall's").await;
    fill(&path, META, "zone", "UTC");
    refused(&path, "the file is a database, but not footfall's").await;
    fill(&path, META, "format", "2");
    refused(&path, "the file is of format 2, this version of footfall reads format 1").await;

    refused(&dir.path().join("missing/totals.redb"), "").await;
    let Err(StoreError::Refused(_)) = Embedded::open(dir.path()).await.map(drop) else { panic!() };
}

#[tokio::test]
async fn a_file_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("totals.redb");
    let store = Embedded::open(&path).await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let second = Embedded::open(&path).await.map(drop);
    let Err(StoreError::Refused(text)) = second else { panic!("{second:?}") };
    assert!(text.contains("another footfall runs on it"), "{text}");
    assert_eq!(one_more(&store, None, "m1").await.unwrap(), [Outcome::Applied]);
    drop(store);
    assert_eq!(views(&Embedded::open(&path).await.unwrap()).await.sums, [Some(1)]);
}

#[tokio::test]
async fn a_file_that_was_not_closed_is_opened_at_its_last_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(&dir.path().join("totals.redb")).await.unwrap();
    let left = dir.path().join("left.redb");
    // Before the birth was written, the file is empty, or a database without tables.
    fs::write(&left, "").unwrap();
    drop(Embedded::open(&left).await.unwrap());
    fs::remove_file(&left).unwrap();
    drop(Database::create(&left).unwrap());
    drop(Embedded::open(&left).await.unwrap());

    for (prev, then) in [(None, "m1"), (Some("m1"), "m2")] {
        one_more(&store, prev, then).await.unwrap();
        // What a process leaves behind that dies now.
        fs::copy(dir.path().join("totals.redb"), &left).unwrap();
        assert!(matches!(builder().open_read_only(&left), Err(DatabaseError::RepairAborted)));
        let again = Embedded::open(&left).await.unwrap();
        assert_eq!(views(&again).await, views(&store).await);
        assert_eq!(views(&again).await.marker, Some(marker(then)));
    }
}

/// Whether [`FullDisk`] is full. One test uses it.
static FULL: AtomicBool = AtomicBool::new(false);

/// A file on a disk that runs full.
#[derive(Debug)]
struct FullDisk(FileBackend);

fn space() -> io::Result<()> {
    if FULL.load(Ordering::SeqCst) { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
}

impl StorageBackend for FullDisk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        space()?;
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        space()?;
        self.0.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

fn open_on_full_disk(path: &Path) -> Result<Database, DatabaseError> {
    let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    builder().create_with_backend(FullDisk(FileBackend::new(file)?))
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_is_overcome() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("totals.redb");
    drop(Embedded::open(&path).await.unwrap());
    let store = Embedded(File::with(&path, open_on_full_disk, None));
    one_more(&store, None, "m1").await.unwrap();
    FULL.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let outcome = one_more(&store, Some("m1"), "m2").await;
        let Err(StoreError::File(text)) = outcome else { panic!("{outcome:?}") };
        assert!(text.contains("totals.redb: no storage space"), "{text}");
    }
    FULL.store(false, Ordering::SeqCst);
    assert_eq!(
        views(&store).await,
        Found { marker: Some(marker("m1")), sums: vec![Some(1)], entries: vec![None], revision: 0 }
    );
    assert_eq!(one_more(&store, Some("m1"), "m2").await.unwrap(), [Outcome::Applied]);
    drop(store);
    assert_eq!(views(&Embedded::open(&path).await.unwrap()).await.sums, [Some(2)]);
}

#[tokio::test]
async fn a_file_that_vanished_is_not_born_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("totals.redb");
    drop(Embedded::open(&path).await.unwrap());
    let store = Embedded(File::with(&path, open_file, None));
    fs::remove_file(&path).unwrap();
    let outcome = one_more(&store, None, "m1").await;
    assert!(matches!(outcome, Err(StoreError::Refused(_))), "{outcome:?}");
    assert!(!path.exists());
}

#[tokio::test]
async fn salts_go_when_their_time_has_passed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(&dir.path().join("totals.redb")).await.unwrap();
    let keep = Duration::from_secs(48 * 3600);
    let salt = async |on: &str, byte| store.salt(&site(), day(on), [byte; 16], keep).await.unwrap();
    assert_eq!(salt("2026-11-20", 20).await, [20; 16]);
    assert_eq!(salt("2026-11-22", 22).await, [22; 16]);
    assert_eq!(salt("2026-11-20", 99).await, [20; 16], "its day ended 24 hours ago");
    assert_eq!(salt("2026-11-23", 23).await, [23; 16]);
    assert_eq!(salt("2026-11-22", 99).await, [22; 16]);
    assert_eq!(salt("2026-11-20", 99).await, [99; 16], "it was deleted 48 hours after its day");
}

#[tokio::test]
async fn data_that_is_damaged_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("totals.redb");
    let store = Embedded::open(&path).await.unwrap();
    let name = hash("day:2026-11-23:visitors");
    store
        .0
        .work(|database| {
            let tx = begin(database)?;
            tx.open_table(SKETCHES)?.insert("demo/day:2026-11-23:visitors", b"HYLL".as_slice())?;
            tx.open_table(META)?.insert("demo/since", "yesterday")?;
            Ok(tx.commit()?)
        })
        .await
        .unwrap();
    for outcome in [
        store.visitors(vec![name.clone()]).await.map(drop),
        store.attach(&site(), "UTC", &writer("w"), day("2026-11-23"), &Claim::default()).await.map(drop),
        store.apply(&writer("w"), vec![], vec![SketchPart { name, registers: vec![(1, 1)] }]).await.map(drop),
    ] {
        let Err(StoreError::Refused(text)) = outcome else { panic!("{outcome:?}") };
        assert!(text.contains("not a sketch") || text.contains("yesterday"), "{text}");
    }
    // A refusal undoes its whole call, and the next one works.
    assert_eq!(one_more(&store, None, "m1").await.unwrap(), [Outcome::Applied]);
}

#[tokio::test]
async fn the_callers_thread_is_not_held_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(&dir.path().join("totals.redb")).await.unwrap();
    let caller = std::thread::current().id();
    let worker = store.0.work(move |_| Ok(std::thread::current().id())).await.unwrap();
    assert_ne!(worker, caller);
    // The same work done within an open transaction of another call waits for it, on its own thread.
    let (held, began) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (holds, begins) = (held.clone(), began.clone());
    let holder = store.0.work(move |database| {
        let tx = begin(database)?;
        begins.store(true, Ordering::SeqCst);
        while holds.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        Ok(tx.abort()?)
    });
    let others = async {
        while !began.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        assert_eq!(views(&store).await.sums, [None], "reading waits for no writing");
        held.store(false, Ordering::SeqCst);
    };
    let (holder, ()) = tokio::join!(holder, others);
    holder.unwrap();
}
