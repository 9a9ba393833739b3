//! What a store holds, listed in steps and written as it is: the ground of `verify`, `backup`, `restore`
//! and `migrate`.
//!
//! Of the embedded store it is a snapshot: the file as it was at one instant, while the service goes on
//! writing. Of Redis it is what the server answers now: hashes read one after another may disagree while
//! somebody applies batches. A single hash is read at one instant where it is small ([`Contents::whole`]).
//!
//! Nothing is held in memory but the names of one site and a step of one hash.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime};

use super::contract::{Store, StoreConfig, StoreError};
use super::embedded::Embedded;
use super::embedded::dump::Snapshot;
use super::redis::Redis;
use crate::sites::SiteKey;
use crate::totals::batch::part::HashName;

/// Fields read or written in one step.
pub const STEP: usize = 1000;

/// Small hashes read in one step.
pub const HASHES: usize = 200;

/// A name of a site, as text: a store may hold what this version has no name for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredName {
    /// The site.
    pub site: SiteKey,
    /// `day:2026-11-23` and the like.
    pub name: Arc<str>,
}

impl From<&HashName> for StoredName {
    fn from(hash: &HashName) -> Self {
        StoredName { site: hash.site.clone(), name: hash.to_string().into() }
    }
}

/// Fields and their values as text; markers are fields that begin with `#`, as in Redis.
pub type Fields = Vec<(String, String)>;

/// What stands under a name: its fields, or why it has none (in words).
pub type Held = Result<Fields, String>;

/// A salt: its day, the salt, how long it is still kept.
pub type KeptSalt = (NaiveDate, [u8; 16], Duration);

/// See the module.
pub enum Contents {
    /// Of local files, at one instant.
    Embedded(Snapshot),
    /// Of Redis or Valkey, as it is now.
    Redis(Redis),
}

impl Contents {
    /// What the store of a URL holds: `embedded` is the file in `data_dir`, `embedded:PATH` one elsewhere.
    ///
    /// # Errors
    /// See [`Store::open`]; a file that is not there.
    pub async fn open(config: &StoreConfig, data_dir: &Path) -> Result<Self, StoreError> {
        match config.url.file(data_dir) {
            Some(path) if !path.exists() => {
                Err(StoreError::Refused(format!("{} is not there", path.display())))
            }
            Some(path) => Snapshot::of_file(&path).await.map(Contents::Embedded),
            None => Redis::open(config).map(Contents::Redis),
        }
    }

    /// A snapshot of an embedded store that is open.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn of(store: &Embedded) -> Result<Self, StoreError> {
        store.snapshot().await.map(Contents::Embedded)
    }

    /// Whether nothing of it changes while it is read.
    pub fn stands_still(&self) -> bool {
        matches!(self, Contents::Embedded(_))
    }

    /// The sites that have a data set.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn sites(&self) -> Result<BTreeSet<SiteKey>, StoreError> {
        match self {
            Contents::Embedded(snapshot) => snapshot.sites().await,
            Contents::Redis(redis) => redis.sites().await,
        }
    }

    /// What is known of a site beside its sums: `format`, `dataset`, `since`, `zone`, `writer:<id>` …
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn meta(&self, site: &SiteKey) -> Result<Fields, StoreError> {
        match self {
            Contents::Embedded(snapshot) => snapshot.meta(site).await,
            Contents::Redis(redis) => redis.meta(site).await,
        }
    }

    /// The names of a site's hashes and sketches, without `meta` and salts.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn names(&self, site: &SiteKey) -> Result<BTreeSet<Arc<str>>, StoreError> {
        match self {
            Contents::Embedded(snapshot) => snapshot.names(site).await,
            Contents::Redis(redis) => redis.names(site).await,
        }
    }

    /// All fields of small hashes, each hash at one instant; at most [`HASHES`] at a time.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn whole(&self, hashes: &[StoredName]) -> Result<Vec<Held>, StoreError> {
        match self {
            Contents::Embedded(snapshot) => snapshot.whole(hashes.to_vec()).await,
            Contents::Redis(redis) => redis.whole(hashes).await,
        }
    }

    /// About [`STEP`] fields of a hash, and where to go on. One that changes meanwhile may be told twice.
    ///
    /// # Errors
    /// See [`StoreError`]; `Refused` where the name holds something else.
    pub async fn step(
        &self,
        hash: &StoredName,
        from: Option<String>,
    ) -> Result<(Fields, Option<String>), StoreError> {
        match self {
            Contents::Embedded(snapshot) => snapshot.step(hash, from).await,
            Contents::Redis(redis) => redis.step(hash, from).await,
        }
    }

    /// Some fields of a hash; at most [`STEP`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn fields(
        &self,
        hash: &StoredName,
        fields: &[String],
    ) -> Result<Vec<Option<String>>, StoreError> {
        match self {
            Contents::Embedded(snapshot) => snapshot.fields(hash, fields.to_vec()).await,
            Contents::Redis(redis) => redis.fields(hash, fields).await,
        }
    }

    /// One field of each of a few hashes, all of them as nearly at one instant as the store can.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn field(&self, hashes: &[StoredName], field: &str) -> Result<Vec<Option<String>>, StoreError> {
        match self {
            Contents::Embedded(snapshot) => snapshot.field(hashes.to_vec(), field.to_owned()).await,
            Contents::Redis(redis) => redis.field(hashes, field).await,
        }
    }

    /// The markers of a hash, of every writer that `meta` names.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn markers(&self, hash: &StoredName, writers: &[String]) -> Result<Fields, StoreError> {
        let names: Vec<String> = writers.iter().map(|writer| format!("#{writer}")).collect();
        let mut markers = Fields::new();
        for some in names.chunks(STEP) {
            let found = self.fields(hash, some).await?;
            let named = some.iter().cloned().zip(found);
            markers.extend(named.filter_map(|(name, marker)| Some((name, marker?))));
        }
        Ok(markers)
    }

    /// The bytes of sketches; at most [`HASHES`] at a time.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn sketches(
        &self,
        names: &[StoredName],
    ) -> Result<Vec<Result<Option<Vec<u8>>, String>>, StoreError> {
        match self {
            Contents::Embedded(snapshot) => snapshot.sketches(names.to_vec()).await,
            Contents::Redis(redis) => redis.sketch_bytes(names).await,
        }
    }

    /// The salts that are kept.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn salts(&self, site: &SiteKey) -> Result<Vec<KeptSalt>, StoreError> {
        match self {
            Contents::Embedded(snapshot) => snapshot.salts(site).await,
            Contents::Redis(redis) => redis.salts(site).await,
        }
    }
}

impl Store {
    /// Tells the fields of a hash one after another, at most so many steps of about [`STEP`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn walk(
        &self,
        hash: &StoredName,
        steps: usize,
        mut tell: impl FnMut(String, String),
    ) -> Result<(), StoreError> {
        let snapshot = match self {
            Store::Embedded(store) => Some(store.snapshot().await?),
            _ => None,
        };
        let mut from = None;
        for _ in 0..steps {
            let (fields, next) = match (self, &snapshot) {
                (_, Some(snapshot)) => snapshot.step(hash, from).await?,
                (Store::Redis(redis), _) => redis.step(hash, from).await?,
                _ => (Fields::new(), None),
            };
            fields.into_iter().for_each(|(field, value)| tell(field, value));
            from = next;
            if from.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Sets fields of a hash to what they are elsewhere. Not for counting: nothing is added.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn put(&self, hash: &StoredName, fields: Fields) -> Result<(), StoreError> {
        match self {
            Store::Embedded(store) => store.put(vec![(hash.clone(), fields)]).await,
            Store::Redis(store) => store.put(&[(hash.clone(), fields)]).await,
            #[cfg(test)]
            Store::Model(model) => Err(model.is_not_copied()),
        }
    }

    /// The same for small hashes together, at most [`HASHES`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn put_all(&self, hashes: Vec<(StoredName, Fields)>) -> Result<(), StoreError> {
        match self {
            Store::Embedded(store) => store.put(hashes).await,
            Store::Redis(store) => store.put(&hashes).await,
            #[cfg(test)]
            Store::Model(model) => Err(model.is_not_copied()),
        }
    }

    /// Sets sketches.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn put_sketches(&self, sketches: Vec<(StoredName, Vec<u8>)>) -> Result<(), StoreError> {
        match self {
            Store::Embedded(store) => store.put_sketches(sketches).await,
            Store::Redis(store) => store.put_sketches(&sketches).await,
            #[cfg(test)]
            Store::Model(model) => Err(model.is_not_copied()),
        }
    }

    /// Sets what is known of a site. In Redis `format` is what keeps a service away from data that is
    /// not yet complete; the embedded store has one format for the whole file, which is left as it is.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn put_meta(&self, site: &SiteKey, meta: Fields) -> Result<(), StoreError> {
        match self {
            Store::Embedded(store) => store.put_meta(site, meta).await,
            Store::Redis(store) => store.put_meta(site, meta).await,
            #[cfg(test)]
            Store::Model(model) => Err(model.is_not_copied()),
        }
    }
}

/// When a writer was last seen as the embedded store keeps it: a day.
pub fn seen_as_day(seen: &str) -> String {
    let instant = seen.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    instant.map_or_else(|| seen.to_owned(), |at| at.date_naive().to_string())
}

/// When a writer was last seen as Redis keeps it: Unix seconds.
pub fn seen_as_seconds(seen: &str) -> String {
    let day: Option<NaiveDate> = seen.parse().ok();
    day.map_or_else(|| seen.to_owned(), |day| day.and_time(NaiveTime::MIN).and_utc().timestamp().to_string())
}

#[cfg(test)]
pub mod tests;
