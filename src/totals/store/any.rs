//! A store of either kind as one type, so that what works on stores is compiled once and not once for each kind.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;

use super::contract::{
    Attached, Claim, Concern, Fold, Found, Outcome, Query, Store, StoreConfig, StoreError, WriterId,
};
use super::dump::{Dump, Fields, Fill, Held, KeptSalt, SketchBytes, StoredName};
use super::embedded::{Embedded, Snapshot};
use super::progress::Progress;
use super::redis::{Keyspace, Redis};
use crate::metrics::{Metrics, Operation};
use crate::sites::SiteKey;
use crate::totals::batch::part::{HashName, Part, SketchPart};
use crate::totals::batch::sketch::Sketch;

/// The store that the settings name. What a service asks of it is counted and timed.
pub struct AnyStore {
    kind: Kind,
    metrics: Option<Arc<Metrics>>,
}

enum Kind {
    Embedded(Embedded),
    Redis(Redis),
}

/// What a store holds.
pub enum AnyDump {
    /// A file as it was at one instant.
    Embedded(Snapshot),
    /// What the server answers now.
    Redis(Box<Keyspace>),
}

/// Carries out an expression on the store or dump of whichever kind it is.
macro_rules! either {
    ($kind:ident, $any:expr, $store:ident => $done:expr) => {
        match $any {
            $kind::Embedded($store) => $done,
            $kind::Redis($store) => $done,
        }
    };
}

/// Operations of a store that are passed on, each under the word that it is counted as.
macro_rules! counted {
    ($($operation:ident: $name:ident($($argument:ident: $type:ty),*) -> $reply:ty;)*) => {$(
        async fn $name(&self, $($argument: $type),*) -> Result<$reply, StoreError> {
            let work = async { either!(Kind, &self.kind, store => store.$name($($argument),*).await) };
            match &self.metrics {
                Some(metrics) => metrics.store.watch(Operation::$operation, work).await,
                None => work.await,
            }
        }
    )*};
}

/// Methods of a dump that are passed on.
macro_rules! passed_on {
    ($($name:ident($($argument:ident: $type:ty),*) -> $reply:ty;)*) => {$(
        async fn $name(&self, $($argument: $type),*) -> Result<$reply, StoreError> {
            either!(AnyDump, self, dump => dump.$name($($argument),*).await)
        }
    )*};
}

impl AnyStore {
    /// Opens the store that the settings name. Redis need not be up.
    pub async fn open(
        config: &StoreConfig,
        data_dir: &Path,
        metrics: Option<Arc<Metrics>>,
    ) -> Result<Self, StoreError> {
        let kind = match config.url.file(data_dir) {
            Some(path) => Kind::Embedded(Embedded::open(&path).await?),
            None => Kind::Redis(Redis::open(config)?),
        };
        Ok(AnyStore { kind, metrics })
    }

    /// Opens a file of the embedded store.
    pub async fn open_file(path: &Path) -> Result<Self, StoreError> {
        Ok(AnyStore { kind: Kind::Embedded(Embedded::open(path).await?), metrics: None })
    }
}

impl AnyDump {
    /// Of the store that the settings name, which no service of this process has open.
    pub async fn open(config: &StoreConfig, data_dir: &Path) -> Result<Self, StoreError> {
        match config.url.file(data_dir) {
            Some(path) => Self::of_file(&path).await,
            None => Keyspace::open(config).map(|dump| AnyDump::Redis(Box::new(dump))),
        }
    }

    /// Of a file of the embedded store that no service has open.
    pub async fn of_file(path: &Path) -> Result<Self, StoreError> {
        Snapshot::of_file(path).await.map(AnyDump::Embedded)
    }
}

impl Store for AnyStore {
    type Dump = AnyDump;

    fn kind(&self) -> &'static str {
        either!(Kind, &self.kind, store => store.kind())
    }

    fn is_shared(&self) -> bool {
        either!(Kind, &self.kind, store => store.is_shared())
    }

    fn generation(&self) -> u64 {
        either!(Kind, &self.kind, store => store.generation())
    }

    counted! {
        Attach: concerns() -> Vec<Concern>;
        Attach: attach(site: &SiteKey, zone: &str, writer: &WriterId, today: NaiveDate, claim: &Claim) -> Attached;
        Attach: writers(site: &SiteKey) -> Vec<(WriterId, i64)>;
        Attach: retire(site: &SiteKey, writers: &[WriterId], today: NaiveDate) -> u64;
        Attach: progress(site: &SiteKey, writer: &WriterId) -> Option<Progress>;
        Attach: note_calendar(calendar: &str, at: &str, week: HashName, days: Vec<HashName>) -> Option<String>;
        Apply: apply(writer: &WriterId, parts: Vec<Part>, sketches: Vec<SketchPart>) -> Vec<Outcome>;
        Apply: remove(site: &SiteKey) -> ();
        Apply: next_entry(site: &SiteKey, known: u64) -> Option<u64>;
        Apply: prune(site: &SiteKey, held: Option<NaiveDate>, days: Range<NaiveDate>) -> Option<NaiveDate>;
        Apply: fold(fold: Fold) -> u64;
        Read: read(writer: &WriterId, queries: Vec<Query>) -> Vec<Found>;
        Read: top(hash: &HashName, most: usize) -> Vec<(String, u64)>;
        Read: sketches(names: Vec<HashName>) -> Vec<Option<Sketch>>;
        Read: visitors(names: Vec<HashName>) -> Vec<u64>;
        Salt: salt(site: &SiteKey, day: NaiveDate, proposed: [u8; 16], keep: Duration) -> [u8; 16];
    }

    /// Not counted: tools read it beside the writer's work.
    async fn dump(&self) -> Result<AnyDump, StoreError> {
        Ok(match &self.kind {
            Kind::Embedded(store) => AnyDump::Embedded(store.dump().await?),
            Kind::Redis(store) => AnyDump::Redis(Box::new(store.dump().await?)),
        })
    }
}

impl Dump for AnyDump {
    fn stands_still(&self) -> bool {
        matches!(self, AnyDump::Embedded(_))
    }

    passed_on! {
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

impl Fill for AnyStore {
    async fn put_all(&self, hashes: Vec<(StoredName, Fields)>) -> Result<(), StoreError> {
        either!(Kind, &self.kind, store => store.put_all(hashes).await)
    }

    async fn put_sketches(&self, sketches: Vec<(StoredName, Vec<u8>)>) -> Result<(), StoreError> {
        either!(Kind, &self.kind, store => store.put_sketches(sketches).await)
    }

    async fn put_meta(&self, site: &SiteKey, meta: Fields) -> Result<(), StoreError> {
        either!(Kind, &self.kind, store => store.put_meta(site, meta).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sites::Sites;
    use crate::totals::store::tests::{config, day, hash, part, site, writer};

    #[tokio::test]
    async fn every_operation_is_counted_and_timed() {
        let metrics = Arc::new(Metrics::new(&Sites::default(), 1).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let store = AnyStore::open(&config("embedded"), dir.path(), Some(metrics.clone())).await.unwrap();
        let (site, by, day) = (site(), writer("w"), day("2026-11-23"));
        let done = [
            store.concerns().await.is_ok(),
            store.attach(&site, "UTC", &by, day, &Claim::default()).await.is_ok(),
            store.writers(&site).await.is_ok(),
            store.retire(&site, &[], day).await.is_ok(),
            store.progress(&site, &by).await.is_ok(),
            store.note_calendar("UTC monday", "", hash("week:2026-W48"), vec![]).await.is_ok(),
            store.apply(&by, vec![], vec![]).await.is_ok(),
            store.next_entry(&site, 0).await.is_ok(),
            store.prune(&site, None, day..day).await.is_ok(),
            store.fold(Fold::default()).await.is_ok(),
            store.read(&by, vec![]).await.is_ok(),
            store.top(&hash("all:pages"), 1).await.is_ok(),
            store.sketches(vec![]).await.is_ok(),
            store.visitors(vec![]).await.is_ok(),
            store.salt(&site, day, [1; 16], Duration::from_secs(1)).await.is_ok(),
            store.remove(&site).await.is_ok(),
        ];
        assert_eq!(done, [true; 16]);
        let too_much = part("all", None, "m1", &[("views", u64::MAX)]);
        assert!(store.apply(&by, vec![too_much], vec![]).await.is_err());
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        for line in [
            "operation_duration_seconds_count{operation=\"salt\"} 1",
            "operations_total{operation=\"apply\",outcome=\"error\"} 1",
            "operations_total{operation=\"apply\",outcome=\"ok\"} 5",
            "operations_total{operation=\"attach\",outcome=\"ok\"} 6",
            "operations_total{operation=\"read\",outcome=\"ok\"} 4",
        ] {
            assert!(text.contains(&format!("footfall_store_{line}\n")), "{line} is not in {text}");
        }
    }
}
