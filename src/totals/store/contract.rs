//! The store's contract, over the embedded store and Redis.
//!
//! Totals rest in **hashes**: a site, a name (`day:2026-11-23`, `day:2026-11-23:pages`, `all`) and in it
//! fields (`views`, `visits`, a page) with sums, beside one **marker** for each writer. A marker names
//! the last part of a batch that its writer applied to that hash, so the sum and the word on what it
//! holds live and die together.
//!
//! | | embedded | Redis |
//! |---|---|---|
//! | atomic together | a whole [`apply`](Store::apply) | one part |
//! | on disk when `Ok` is returned | yes | as the server's `appendfsync` says |
//! | may go back in time | only with its file | killed, failed over, restored: markers show it |
//! | one more writer | its own fields and markers, as in Redis, but one process at a time | any number |
//!
//! Every method may be tried again after [`StoreError::Unreachable`]: parts are guarded by markers, and
//! merging sketches, attaching and asking for a salt change nothing the second time.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;

use super::embedded::Embedded;
#[cfg(test)]
use super::model;
use super::redis::Redis;
use super::url::StoreUrl;
use crate::sites::SiteKey;
use crate::totals::batch::part::{HashName, Part, PartId, SketchPart};
use crate::totals::batch::sketch::Sketch;

/// Settings of the store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Which store.
    pub url: StoreUrl,
    /// A PEM file of the authorities that a `rediss://` server is checked against, instead of the
    /// public ones.
    pub tls_ca_file: Option<std::path::PathBuf>,
    /// Time between flushes.
    pub flush_interval: Duration,
    /// How long one store operation may take.
    pub timeout: Duration,
}

impl StoreConfig {
    /// The same settings for another store.
    pub fn at(&self, url: StoreUrl) -> StoreConfig {
        let tls_ca_file = self.tls_ca_file.clone().filter(|_| url.is_encrypted());
        StoreConfig { url, tls_ca_file, ..self.clone() }
    }
}

/// The identity that applies batches: 16 hex digits, born with a `data_dir`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WriterId(pub Arc<str>);

/// What a hash bears of a writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marker {
    /// The last part applied to it.
    Part(PartId),
    /// A text that names no part: something else wrote it.
    Foreign(Arc<str>),
}

impl From<&str> for Marker {
    fn from(text: &str) -> Self {
        text.parse().map_or_else(|_| Marker::Foreign(text.into()), Marker::Part)
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Marker::Part(id) => id.fmt(f),
            Marker::Foreign(text) => f.write_str(text),
        }
    }
}

/// What became of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The hash bore `prev`: the sums were added and it bears the part.
    Applied,
    /// The hash bore the part already: nothing was written.
    Already,
    /// It bore something else, or nothing: nothing was written.
    Found(Option<Marker>),
}

/// A question for a hash.
#[derive(Clone, Debug)]
pub struct Query {
    /// The hash.
    pub hash: HashName,
    /// The fields.
    pub fields: Vec<Arc<str>>,
}

/// The answer to a [`Query`], read at one instant: the sums hold exactly what the marker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The asking writer's marker.
    pub marker: Option<Marker>,
    /// One for each field, in order; none where the hash lacks it.
    pub sums: Vec<Option<u64>>,
}

/// One run of a process on a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// 16 hex digits, drawn when it began.
    pub id: Arc<str>,
    /// The last batch that was frozen before it began.
    pub base: u64,
}

/// What a writer expects of a site's data when it attaches. Nothing, by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The data set; none: whichever is there.
    pub dataset: Option<Arc<str>>,
    /// The id of the data set if it is born; none: a random one.
    pub birth: Option<Arc<str>>,
    /// The runs of the writer's directory, oldest first; the last is this process. Redis lets one run bear
    /// a writer, the last that attached, and lets it go to a later run of the same directory only. Empty:
    /// anyone may apply as this writer.
    pub runs: Vec<Run>,
}

/// How a writer stands to a site's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The data was born just now.
    Born,
    /// It is what was expected.
    Ours,
    /// It is another data set than the one expected, or gone. Nothing was written.
    Other,
    /// A run of another directory bears the writer: a copy of this one. Nothing was written.
    Twin,
}

/// What a store says of a site's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The id that the data set was born with.
    pub dataset: Arc<str>,
    /// The first civil day that was ever attached: visitors of `all` are summed from here.
    pub since: NaiveDate,
    /// How the writer stands to it.
    pub standing: Standing,
    /// Where the writer passed from one run to another that need not be of the same directory, or is borne
    /// by a twin: batches up to this one are the same in both.
    pub fork: Option<u64>,
}

/// A setting of the store's server that endangers counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concern {
    /// Nothing may be sent while it is so.
    pub refused: bool,
    /// What it is and what to do, in a sentence.
    pub text: String,
}

/// A fault of the store.
///
/// Which of the two a fault is, is decided in one function a backend: `embedded::fault`, `redis::fault`.
/// Neither text ever holds a password.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It did not answer, or not in time: whether it acted is not known. Trying again may help.
    #[error("the store does not answer: {0}")]
    Unreachable(String),
    /// It refuses, and will until someone acts (format of another version, wrong type, no rights).
    #[error("the store refuses: {0}")]
    Refused(String),
    /// The data set is no longer the one attached, or another process bears the writer: nothing was written.
    /// Attach anew.
    #[error("the data set or the bearer of the writer has changed")]
    Detached,
}

/// A store.
///
/// Methods may be called from several tasks at once; for one writer, `apply` is called by one task
/// only, and waits for its answer before it is called again. Nothing blocks the caller's thread.
/// Dropping a call's future leaves open whether the store acted, as `Unreachable` does.
///
/// How long a call takes: Redis answers each round trip, connecting included, within
/// [`StoreConfig::timeout`] or the call fails; the embedded store takes as long as the disk does.
pub enum Store {
    /// On local files.
    Embedded(Embedded),
    /// Redis or Valkey.
    Redis(Redis),
    /// What tests put in their place.
    #[cfg(test)]
    Model(model::Model),
}

impl Store {
    /// What kind of store it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Store::Embedded(_) => "embedded",
            Store::Redis(_) => "redis",
            #[cfg(test)]
            Store::Model(_) => "model",
        }
    }

    /// Whether other instances may write to it too, and whether it may be away while this process runs.
    pub fn is_shared(&self) -> bool {
        !matches!(self, Store::Embedded(_))
    }

    /// Makes the store that the settings name. Redis need not be up.
    ///
    /// # Errors
    /// A URL that names no store, an unreadable CA file, a store file that cannot be opened.
    pub async fn open(config: &StoreConfig, data_dir: &Path) -> Result<Store, StoreError> {
        match config.url.file(data_dir) {
            Some(path) => Embedded::open(&path).await.map(Store::Embedded),
            None => Redis::open(config).map(Store::Redis),
        }
    }

    /// Registers the writer with a site's data, which is born if there is none. With an empty `zone` the one
    /// that is there stays.
    ///
    /// Keeps the earliest `today` ever attached as `since`, and the zone and the writer's last sign of
    /// life for people to read. May be called again at any time, by several writers at once: one of
    /// them is told that the data was `Born`, all are told the same data set. Redis holds later calls of
    /// `apply` on the site to the claim.
    ///
    /// # Errors
    /// `Refused` for data of another format, or a server that is too old.
    pub async fn attach(
        &self,
        site: &SiteKey,
        zone: &str,
        writer: &WriterId,
        today: NaiveDate,
        claim: &Claim,
    ) -> Result<Attached, StoreError> {
        match self {
            Store::Embedded(store) => store.attach(site, zone, writer, today, claim).await,
            Store::Redis(store) => store.attach(site, zone, writer, today, claim).await,
            #[cfg(test)]
            Store::Model(store) => store.attach(site, writer, today, claim).await,
        }
    }

    /// Removes writers' markers from every hash of a site, and has the bearer of one, should it come back, take
    /// itself for a twin. How many markers. May be called again.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn retire(&self, site: &SiteKey, writers: &[WriterId]) -> Result<u64, StoreError> {
        match self {
            Store::Embedded(store) => store.retire(site, writers).await,
            Store::Redis(store) => store.retire(site, writers).await,
            #[cfg(test)]
            Store::Model(_) => Ok(0),
        }
    }

    /// The writers that a site's data knows, and when each last attached: Unix seconds.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn writers(&self, site: &SiteKey) -> Result<Vec<(WriterId, i64)>, StoreError> {
        match self {
            Store::Embedded(store) => store.writers(site).await,
            Store::Redis(store) => store.writers(site).await,
            #[cfg(test)]
            Store::Model(_) => Ok(Vec::new()),
        }
    }

    /// What in the server's settings endangers counts.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn concerns(&self) -> Result<Vec<Concern>, StoreError> {
        match self {
            Store::Embedded(_) => Ok(Vec::new()),
            Store::Redis(store) => store.concerns().await,
            #[cfg(test)]
            Store::Model(_) => Ok(Vec::new()),
        }
    }

    /// Changes whenever what answers may be another server, or the same one started anew.
    pub fn generation(&self) -> u64 {
        match self {
            Store::Embedded(_) => 0,
            Store::Redis(store) => store.generation(),
            #[cfg(test)]
            Store::Model(store) => store.generation(),
        }
    }

    /// Applies parts in order, each atomically with its marker. On return with `Ok`, each outcome is
    /// what the store did, and the embedded store has it on disk. Sketches are merged too, before the
    /// parts.
    ///
    /// A part that does not fit (see [`Outcome::Found`]) holds up no other; several parts may follow
    /// one another on one hash, each with the marker of the one before it as its `prev`. On
    /// `Unreachable` any of the parts may have been applied (the embedded store: all or none): send
    /// the same parts again, those that were applied answer [`Outcome::Already`].
    ///
    /// # Errors
    /// See [`StoreError`]. `Refused` for a stored sum that is not plain digits, for a sum that would
    /// pass [`MAX_SUM`], and for parts that break the rules of [`Part`]; Redis may have applied other
    /// parts of the call, the embedded store has applied none.
    pub async fn apply(
        &self,
        writer: &WriterId,
        parts: Vec<Part>,
        sketches: Vec<SketchPart>,
    ) -> Result<Vec<Outcome>, StoreError> {
        parts.iter().try_for_each(check)?;
        match self {
            Store::Embedded(store) => store.apply(writer, parts, sketches).await,
            Store::Redis(store) => store.apply(writer, parts, sketches).await,
            #[cfg(test)]
            Store::Model(store) => store.apply(writer, parts, sketches).await,
        }
    }

    /// Notes the calendar of a site, as `<zone> <first day of the week>`, with a mark of the change at an
    /// instant, if it was another one, which is answered. Where its weeks begin on another day the hash of the
    /// running week is made the sum of its days. In one step.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn note_calendar(
        &self,
        calendar: &str,
        at: &str,
        week: HashName,
        days: Vec<HashName>,
    ) -> Result<Option<String>, StoreError> {
        match self {
            Store::Embedded(store) => store.note_calendar(calendar, at, week, days).await,
            Store::Redis(store) => store.note_calendar(calendar, at, &week, &days).await,
            #[cfg(test)]
            Store::Model(_) => Ok(None),
        }
    }

    /// Reads sums, each hash at one instant. The answers are in the order of the queries.
    ///
    /// # Errors
    /// See [`StoreError`]; a sum that is not plain digits is `Refused`.
    pub async fn read(&self, writer: &WriterId, queries: Vec<Query>) -> Result<Vec<Found>, StoreError> {
        match self {
            Store::Embedded(store) => store.read(writer, queries).await,
            Store::Redis(store) => store.read(writer, queries).await,
            #[cfg(test)]
            Store::Model(store) => store.read(writer, queries).await,
        }
    }

    /// Reads sketches, in the order of the names; none where there is none.
    ///
    /// # Errors
    /// See [`StoreError`]; bytes that are no sketch are `Refused`.
    pub async fn sketches(&self, names: Vec<HashName>) -> Result<Vec<Option<Sketch>>, StoreError> {
        match self {
            Store::Embedded(store) => store.sketches(names).await,
            Store::Redis(store) => store.sketches(names).await,
            #[cfg(test)]
            Store::Model(store) => store.sketches(names).await,
        }
    }

    /// Estimates of sketches, in the order of the names, without sending their registers; 0 where
    /// there is none.
    ///
    /// # Errors
    /// See [`StoreError`]; bytes that are no sketch are `Refused`.
    pub async fn visitors(&self, names: Vec<HashName>) -> Result<Vec<u64>, StoreError> {
        match self {
            Store::Embedded(store) => store.visitors(names).await,
            Store::Redis(store) => store.visitors(names).await,
            #[cfg(test)]
            Store::Model(store) => store.visitors(names).await,
        }
    }

    /// The salt of a site's civil day: the one that is there, else the proposed one, which is kept
    /// from now for `keep`. Of several writers that propose at once, one is heard by all.
    ///
    /// Redis deletes the salt after `keep` by itself. The embedded store has no clock: it keeps the
    /// salt of a day until the end of that day (UTC) and `keep` have passed, and deletes it when it is
    /// next asked for the salt of a day that begins after that, of any site.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn salt(
        &self,
        site: &SiteKey,
        day: NaiveDate,
        proposed: [u8; 16],
        keep: Duration,
    ) -> Result<[u8; 16], StoreError> {
        match self {
            Store::Embedded(store) => store.salt(site, day, proposed, keep).await,
            Store::Redis(store) => store.salt(site, day, proposed, keep).await,
            #[cfg(test)]
            Store::Model(store) => store.salt(site, day, proposed, keep).await,
        }
    }
}

/// Refuses a part that breaks the rules.
fn check(part: &Part) -> Result<(), StoreError> {
    let refused =
        |fault| StoreError::Refused(format!("a part of {} {} has {fault}", part.hash.site, part.hash));
    part.fault().map_or(Ok(()), |fault| Err(refused(fault)))
}

/// 16 random hex digits: a data set's id, a name that nobody else uses.
///
/// # Errors
/// `Unreachable` if the machine gives no random bytes.
pub fn random_id() -> Result<String, StoreError> {
    let id = getrandom::u64().map_err(|err| StoreError::Unreachable(format!("no random bytes: {err}")))?;
    Ok(format!("{id:016x}"))
}
