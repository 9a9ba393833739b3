//! Any of the stores, for tests that try one after another.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use chrono::NaiveDate;

use crate::sites::SiteKey;
use crate::totals::batch::part::{HashName, Part, SketchPart};
use crate::totals::batch::sketch::Sketch;
use crate::totals::store::contract::*;
use crate::totals::store::dump::{Fields, Fill, StoredName};
use crate::totals::store::model::Model;
use crate::totals::store::progress::Progress;
use crate::totals::store::{AnyDump, AnyStore};

pub enum TestStore {
    Real(AnyStore),
    Model(Model),
}

impl TestStore {
    pub async fn open(config: &StoreConfig, data_dir: &Path) -> Result<TestStore, StoreError> {
        AnyStore::open(config, data_dir, None).await.map(TestStore::Real)
    }
}

/// Methods that are passed on to whichever it is.
macro_rules! passed_on {
    ($($name:ident($($argument:ident: $type:ty),*) -> $reply:ty;)*) => {$(
        async fn $name(&self, $($argument: $type),*) -> Result<$reply, StoreError> {
            match self {
                Self::Real(store) => store.$name($($argument),*).await,
                Self::Model(store) => store.$name($($argument),*).await,
            }
        }
    )*};
}

impl Store for TestStore {
    type Dump = AnyDump;

    fn kind(&self) -> &'static str {
        match self {
            TestStore::Real(store) => store.kind(),
            TestStore::Model(store) => store.kind(),
        }
    }

    fn is_shared(&self) -> bool {
        match self {
            TestStore::Real(store) => store.is_shared(),
            TestStore::Model(store) => store.is_shared(),
        }
    }

    fn generation(&self) -> u64 {
        match self {
            TestStore::Real(store) => store.generation(),
            TestStore::Model(store) => store.generation(),
        }
    }

    passed_on! {
        concerns() -> Vec<Concern>;
        attach(site: &SiteKey, zone: &str, writer: &WriterId, today: NaiveDate, claim: &Claim) -> Attached;
        writers(site: &SiteKey) -> Vec<(WriterId, i64)>;
        retire(site: &SiteKey, writers: &[WriterId], today: NaiveDate) -> u64;
        progress(site: &SiteKey, writer: &WriterId) -> Option<Progress>;
        note_calendar(calendar: &str, at: &str, week: HashName, days: Vec<HashName>) -> Option<String>;
        apply(writer: &WriterId, parts: Vec<Part>, sketches: Vec<SketchPart>) -> Vec<Outcome>;
        remove(site: &SiteKey) -> ();
        next_entry(site: &SiteKey, known: u64) -> Option<u64>;
        prune(site: &SiteKey, held: Option<NaiveDate>, days: Range<NaiveDate>) -> Option<NaiveDate>;
        fold(fold: Fold) -> u64;
        read(writer: &WriterId, queries: Vec<Query>) -> Vec<Found>;
        top(hash: &HashName, most: usize) -> Vec<(String, u64)>;
        sketches(names: Vec<HashName>) -> Vec<Option<Sketch>>;
        visitors(names: Vec<HashName>) -> Vec<u64>;
        salt(site: &SiteKey, day: NaiveDate, proposed: [u8; 16], keep: Duration) -> [u8; 16];
    }

    async fn dump(&self) -> Result<AnyDump, StoreError> {
        match self {
            TestStore::Real(store) => store.dump().await,
            TestStore::Model(store) => store.dump().await.map(AnyDump::Embedded),
        }
    }
}

impl Fill for TestStore {
    passed_on! {
        put_all(hashes: Vec<(StoredName, Fields)>) -> ();
        put_sketches(sketches: Vec<(StoredName, Vec<u8>)>) -> ();
        put_meta(site: &SiteKey, meta: Fields) -> ();
    }
}
