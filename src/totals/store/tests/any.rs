//! Any of the stores, for tests that try one after another.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;

use crate::sites::SiteKey;
use crate::totals::batch::part::{HashName, Part, SketchPart};
use crate::totals::batch::sketch::Sketch;
use crate::totals::store::contract::*;
use crate::totals::store::dump::{Dump, Fields, Fill, Held, KeptSalt, SketchBytes, StoredName};
use crate::totals::store::model::Model;
use crate::totals::store::{Embedded, Keyspace, Opened, Redis, Snapshot, open};

pub enum AnyStore {
    Embedded(Embedded),
    Redis(Redis),
    Model(Model),
}

pub enum AnyDump {
    Embedded(Snapshot),
    Redis(Keyspace),
}

impl AnyStore {
    pub async fn open(config: &StoreConfig, data_dir: &Path) -> Result<AnyStore, StoreError> {
        Ok(match open(config, data_dir).await? {
            Opened::Embedded(store) => AnyStore::Embedded(store),
            Opened::Redis(store) => AnyStore::Redis(store),
        })
    }
}

impl AnyDump {
    /// Of a store that no service has open.
    pub async fn open(config: &StoreConfig) -> Result<AnyDump, StoreError> {
        match config.url.file(Path::new("")) {
            Some(path) => Snapshot::of_file(&path).await.map(AnyDump::Embedded),
            None => Keyspace::open(config).map(AnyDump::Redis),
        }
    }
}

/// The same call on whichever store it is.
macro_rules! on {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            AnyStore::Embedded($store) => $call,
            AnyStore::Redis($store) => $call,
            AnyStore::Model($store) => $call,
        }
    };
}

impl Store for AnyStore {
    type Dump = AnyDump;

    fn kind(&self) -> &'static str {
        on!(self, store => store.kind())
    }

    fn is_shared(&self) -> bool {
        on!(self, store => store.is_shared())
    }

    fn generation(&self) -> u64 {
        on!(self, store => store.generation())
    }

    async fn concerns(&self) -> Result<Vec<Concern>, StoreError> {
        on!(self, store => store.concerns().await)
    }

    async fn attach(
        &self,
        site: &SiteKey,
        zone: &str,
        writer: &WriterId,
        today: NaiveDate,
        claim: &Claim,
    ) -> Result<Attached, StoreError> {
        on!(self, store => store.attach(site, zone, writer, today, claim).await)
    }

    async fn writers(&self, site: &SiteKey) -> Result<Vec<(WriterId, i64)>, StoreError> {
        on!(self, store => store.writers(site).await)
    }

    async fn retire(&self, site: &SiteKey, writers: &[WriterId]) -> Result<u64, StoreError> {
        on!(self, store => store.retire(site, writers).await)
    }

    async fn apply(
        &self,
        writer: &WriterId,
        parts: Vec<Part>,
        sketches: Vec<SketchPart>,
    ) -> Result<Vec<Outcome>, StoreError> {
        on!(self, store => store.apply(writer, parts, sketches).await)
    }

    async fn note_calendar(
        &self,
        calendar: &str,
        at: &str,
        week: HashName,
        days: Vec<HashName>,
    ) -> Result<Option<String>, StoreError> {
        on!(self, store => store.note_calendar(calendar, at, week, days).await)
    }

    async fn read(&self, writer: &WriterId, queries: Vec<Query>) -> Result<Vec<Found>, StoreError> {
        on!(self, store => store.read(writer, queries).await)
    }

    async fn top(&self, hash: &HashName, most: usize) -> Result<Vec<(String, u64)>, StoreError> {
        on!(self, store => store.top(hash, most).await)
    }

    async fn sketches(&self, names: Vec<HashName>) -> Result<Vec<Option<Sketch>>, StoreError> {
        on!(self, store => store.sketches(names).await)
    }

    async fn visitors(&self, names: Vec<HashName>) -> Result<Vec<u64>, StoreError> {
        on!(self, store => store.visitors(names).await)
    }

    async fn salt(
        &self,
        site: &SiteKey,
        day: NaiveDate,
        proposed: [u8; 16],
        keep: Duration,
    ) -> Result<[u8; 16], StoreError> {
        on!(self, store => store.salt(site, day, proposed, keep).await)
    }

    async fn dump(&self) -> Result<AnyDump, StoreError> {
        match self {
            AnyStore::Embedded(store) => store.dump().await.map(AnyDump::Embedded),
            AnyStore::Redis(store) => store.dump().await.map(AnyDump::Redis),
            AnyStore::Model(store) => store.dump().await.map(AnyDump::Embedded),
        }
    }
}

/// The same call on whichever store can be filled.
macro_rules! fill {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            AnyStore::Embedded($store) => $call,
            AnyStore::Redis($store) => $call,
            AnyStore::Model(_) => panic!("a model is not filled"),
        }
    };
}

impl Fill for AnyStore {
    async fn put_all(&self, hashes: Vec<(StoredName, Fields)>) -> Result<(), StoreError> {
        fill!(self, store => store.put_all(hashes).await)
    }

    async fn put_sketches(&self, sketches: Vec<(StoredName, Vec<u8>)>) -> Result<(), StoreError> {
        fill!(self, store => store.put_sketches(sketches).await)
    }

    async fn put_meta(&self, site: &SiteKey, meta: Fields) -> Result<(), StoreError> {
        fill!(self, store => store.put_meta(site, meta).await)
    }
}

/// The same call on whichever is read.
macro_rules! of {
    ($self:ident, $dump:ident => $call:expr) => {
        match $self {
            AnyDump::Embedded($dump) => $call,
            AnyDump::Redis($dump) => $call,
        }
    };
}

impl Dump for AnyDump {
    fn stands_still(&self) -> bool {
        of!(self, dump => dump.stands_still())
    }

    async fn sites(&self) -> Result<BTreeSet<SiteKey>, StoreError> {
        of!(self, dump => dump.sites().await)
    }

    async fn meta(&self, site: &SiteKey) -> Result<Fields, StoreError> {
        of!(self, dump => dump.meta(site).await)
    }

    async fn names(&self, site: &SiteKey) -> Result<BTreeSet<Arc<str>>, StoreError> {
        of!(self, dump => dump.names(site).await)
    }

    async fn whole(&self, hashes: &[StoredName]) -> Result<Vec<Held>, StoreError> {
        of!(self, dump => dump.whole(hashes).await)
    }

    async fn scan(
        &self,
        hash: &StoredName,
        from: Option<String>,
    ) -> Result<(Fields, Option<String>), StoreError> {
        of!(self, dump => dump.scan(hash, from).await)
    }

    async fn fields(&self, hash: &StoredName, fields: &[String]) -> Result<Vec<Option<String>>, StoreError> {
        of!(self, dump => dump.fields(hash, fields).await)
    }

    async fn field(&self, hashes: &[StoredName], field: &str) -> Result<Vec<Option<String>>, StoreError> {
        of!(self, dump => dump.field(hashes, field).await)
    }

    async fn sketches(&self, names: &[StoredName]) -> Result<Vec<SketchBytes>, StoreError> {
        of!(self, dump => dump.sketches(names).await)
    }

    async fn salts(&self, site: &SiteKey) -> Result<Vec<KeptSalt>, StoreError> {
        of!(self, dump => dump.salts(site).await)
    }
}
