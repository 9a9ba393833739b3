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
    Redis(Box<Keyspace>),
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
            None => Keyspace::open(config).map(|dump| AnyDump::Redis(Box::new(dump))),
        }
    }
}

/// Methods that are passed on to whichever it is.
macro_rules! passed_on {
    ($any:ident: $($kind:ident)*; $($name:ident($($argument:ident: $type:ty),*) -> $reply:ty;)*) => {
        passed_on!(@each [$any $($kind)*] $(($name [$($argument: $type),*] $reply))*);
    };
    (@each $kinds:tt $($method:tt)*) => {
        $(passed_on!(@method $kinds $method);)*
    };
    (@method [$any:ident $($kind:ident)*] ($name:ident [$($argument:ident: $type:ty),*] $reply:ty)) => {
        async fn $name(&self, $($argument: $type),*) -> Result<$reply, StoreError> {
            passed_on!(@match self, $name [$($argument),*] $any $($kind)*)
        }
    };
    (@match $self:ident, $name:ident $arguments:tt $any:ident $($kind:ident)*) => {
        match $self {
            $($any::$kind(one) => passed_on!(@call one, $name $arguments),)*
        }
    };
    (@call $one:ident, $name:ident [$($argument:ident),*]) => {
        $one.$name($($argument),*).await
    };
}

impl Store for AnyStore {
    type Dump = AnyDump;

    fn kind(&self) -> &'static str {
        match self {
            AnyStore::Embedded(store) => store.kind(),
            AnyStore::Redis(store) => store.kind(),
            AnyStore::Model(store) => store.kind(),
        }
    }

    fn is_shared(&self) -> bool {
        !matches!(self, AnyStore::Embedded(_))
    }

    fn generation(&self) -> u64 {
        match self {
            AnyStore::Embedded(store) => store.generation(),
            AnyStore::Redis(store) => store.generation(),
            AnyStore::Model(store) => store.generation(),
        }
    }

    passed_on! {
        AnyStore: Embedded Redis Model;
        concerns() -> Vec<Concern>;
        attach(site: &SiteKey, zone: &str, writer: &WriterId, today: NaiveDate, claim: &Claim) -> Attached;
        writers(site: &SiteKey) -> Vec<(WriterId, i64)>;
        retire(site: &SiteKey, writers: &[WriterId]) -> u64;
        note_calendar(calendar: &str, at: &str, week: HashName, days: Vec<HashName>) -> Option<String>;
        apply(writer: &WriterId, parts: Vec<Part>, sketches: Vec<SketchPart>) -> Vec<Outcome>;
        read(writer: &WriterId, queries: Vec<Query>) -> Vec<Found>;
        top(hash: &HashName, most: usize) -> Vec<(String, u64)>;
        sketches(names: Vec<HashName>) -> Vec<Option<Sketch>>;
        visitors(names: Vec<HashName>) -> Vec<u64>;
        salt(site: &SiteKey, day: NaiveDate, proposed: [u8; 16], keep: Duration) -> [u8; 16];
    }

    async fn dump(&self) -> Result<AnyDump, StoreError> {
        match self {
            AnyStore::Embedded(store) => store.dump().await.map(AnyDump::Embedded),
            AnyStore::Redis(store) => store.dump().await.map(|dump| AnyDump::Redis(Box::new(dump))),
            AnyStore::Model(store) => store.dump().await.map(AnyDump::Embedded),
        }
    }
}

impl Fill for AnyStore {
    passed_on! {
        AnyStore: Embedded Redis Model;
        put_all(hashes: Vec<(StoredName, Fields)>) -> ();
        put_sketches(sketches: Vec<(StoredName, Vec<u8>)>) -> ();
        put_meta(site: &SiteKey, meta: Fields) -> ();
    }
}

impl Dump for AnyDump {
    fn stands_still(&self) -> bool {
        matches!(self, AnyDump::Embedded(_))
    }

    passed_on! {
        AnyDump: Embedded Redis;
        sites() -> BTreeSet<SiteKey>;
        meta(site: &SiteKey) -> Fields;
        names(site: &SiteKey) -> BTreeSet<Arc<str>>;
        whole(hashes: &[StoredName]) -> Vec<Held>;
        scan(hash: &StoredName, from: Option<String>) -> (Fields, Option<String>);
        get(hashes: &[StoredName], fields: &[String]) -> Vec<Vec<Option<String>>>;
        sketches(names: &[StoredName]) -> Vec<SketchBytes>;
        salts(site: &SiteKey) -> Vec<KeptSalt>;
    }
}
