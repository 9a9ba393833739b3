//! What a store holds, listed in steps and written as it is, for `verify`, `backup`, `restore` and `migrate`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime};

use super::error::Reply;
use crate::sites::SiteKey;
use crate::totals::batch::part::HashName;

/// Fields read or written in one step.
pub const STEP: usize = 1000;

/// Small hashes read in one step.
pub const HASHES: usize = 200;

/// A name of a site, as text: a store may hold what this version has no name for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredName {
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

/// The bytes of a sketch, or why what stands under its name is none.
pub type SketchBytes = Result<Option<Vec<u8>>, String>;

/// The field of a hash that holds its revision. No writer is called so.
pub const REVISION: &str = "#revision";

/// Stands in `meta` for the run of a writer that was retired (`run:<id>`), and in front of how far it had come
/// (`runs:<id>`): no run of a directory is called so.
pub const RETIRED: &str = "retired";

/// A salt: its day, the salt, how long it is still kept.
pub type KeptSalt = (NaiveDate, [u8; 16], Duration);

/// All that a store holds. It is read in steps: nothing is held in memory except the names of one site and a step
/// of one hash.
///
/// Of the embedded store it is a snapshot: the file as it was at one instant, while the service goes on
/// writing. Of Redis it is what the server answers now: hashes read one after another may disagree while
/// somebody applies batches.
pub trait Dump: Send + Sync + 'static {
    /// Whether nothing of it changes while it is read.
    fn stands_still(&self) -> bool;

    /// The sites that have a data set.
    fn sites(&self) -> impl Reply<BTreeSet<SiteKey>>;

    /// What is known of a site beside its sums: `format`, `dataset`, `since`, `zone`, `writer:<id>` …
    fn meta(&self, site: &SiteKey) -> impl Reply<Fields>;

    /// The id of a site's data set.
    fn dataset(&self, site: &SiteKey) -> impl Reply<String> {
        async move {
            let of = |(field, id): (String, String)| (field == "dataset").then_some(id);
            Ok(self.meta(site).await?.into_iter().find_map(of).unwrap_or_default())
        }
    }

    /// The names of a site's hashes and sketches, without `meta` and salts.
    fn names(&self, site: &SiteKey) -> impl Reply<BTreeSet<Arc<str>>>;

    /// All fields of small hashes, each hash at one instant; at most [`HASHES`] at a time.
    fn whole(&self, hashes: &[StoredName]) -> impl Reply<Vec<Held>>;

    /// About [`STEP`] fields of a hash, and where to go on. One that changes meanwhile may be told twice.
    /// `Refused` where the name holds something else.
    fn scan(&self, hash: &StoredName, from: Option<String>) -> impl Reply<(Fields, Option<String>)>;

    /// Tells each field of a hash, with the warnings of [`Dump::scan`].
    fn each(&self, hash: &StoredName, mut told: impl FnMut(String, String) + Send) -> impl Reply<()> {
        async move {
            let mut from = Some(None);
            while let Some(cursor) = from {
                let (fields, next) = self.scan(hash, cursor).await?;
                fields.into_iter().for_each(|(field, value)| told(field, value));
                from = next.map(Some);
            }
            Ok(())
        }
    }

    /// Fields of hashes, all of them as nearly at one instant as the store can: for each hash its fields in their
    /// order. Of a few hashes, and at most [`STEP`] fields; what is no hash has none.
    fn get(&self, hashes: &[StoredName], fields: &[String]) -> impl Reply<Vec<Vec<Option<String>>>>;

    /// One field of each hash.
    fn field(&self, hashes: &[StoredName], field: &str) -> impl Reply<Vec<Option<String>>> {
        async move {
            let held = self.get(hashes, &[field.to_owned()]).await?;
            Ok(held.into_iter().map(|fields| fields.into_iter().next().flatten()).collect())
        }
    }

    /// Fields of one hash; at most [`STEP`].
    fn fields(&self, hash: &StoredName, fields: &[String]) -> impl Reply<Vec<Option<String>>> {
        async move { Ok(self.get(std::slice::from_ref(hash), fields).await?.pop().unwrap_or_default()) }
    }

    /// The markers of a hash, of every writer that `meta` names.
    fn markers(&self, hash: &StoredName, writers: &[String]) -> impl Reply<Fields> {
        async move {
            let names: Vec<String> = writers.iter().map(|writer| format!("#{writer}")).collect();
            let found = self.fields(hash, &names).await?;
            Ok(names.into_iter().zip(found).filter_map(|(name, marker)| Some((name, marker?))).collect())
        }
    }

    /// The bytes of sketches, or why there are none (in words); at most [`HASHES`] at a time.
    fn sketches(&self, names: &[StoredName]) -> impl Reply<Vec<SketchBytes>>;

    /// The salts that are kept.
    fn salts(&self, site: &SiteKey) -> impl Reply<Vec<KeptSalt>>;
}

/// A store that is made like another. Not for counting: everything is set, nothing is added.
pub trait Fill: Send + Sync {
    /// Sets fields of a hash.
    fn put(&self, hash: &StoredName, fields: Fields) -> impl Reply<()> {
        self.put_all(vec![(hash.clone(), fields)])
    }

    /// Sets fields of small hashes together, at most [`HASHES`].
    fn put_all(&self, hashes: Vec<(StoredName, Fields)>) -> impl Reply<()>;

    /// Sets sketches.
    fn put_sketches(&self, sketches: Vec<(StoredName, Vec<u8>)>) -> impl Reply<()>;

    /// Sets what is known of a site. In Redis `format` is what keeps a service away from data that is
    /// not yet complete; the embedded store has one format for the whole file, which is left as it is.
    fn put_meta(&self, site: &SiteKey, meta: Fields) -> impl Reply<()>;
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
mod tests;
