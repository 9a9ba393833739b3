//! The contents of the embedded store: a read transaction of its file, which stays as it was when the
//! transaction began.

use std::any::Any;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{NaiveDate, NaiveTime};
use redb::{Error, ReadTransaction, ReadableDatabase, ReadableTable, TransactionError};

use super::file::{begin, read_only};
use super::{Embedded, MARKERS, META, SALTS, SKETCHES, SUMS};
use crate::sites::SiteKey;
use crate::totals::store::contract::StoreError;
use crate::totals::store::dump::{Fields, Held, KeptSalt, STEP, StoredName, seen_as_day};

/// See the module.
pub struct Snapshot {
    tx: Arc<ReadTransaction>,
    /// What it reads is open as long as this.
    _database: Box<dyn Any + Send + Sync>,
}

impl Embedded {
    /// The store as it is now.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let database = self.0.database().await?;
        Snapshot::begin(database.begin_read(), database)
    }

    /// See [`Store::put`](crate::totals::store::contract::Store::put).
    pub async fn put(&self, hashes: Vec<(StoredName, Fields)>) -> Result<(), StoreError> {
        self.0
            .work(move |database| {
                let tx = begin(database)?;
                {
                    let (mut sums, mut markers) = (tx.open_table(SUMS)?, tx.open_table(MARKERS)?);
                    for (hash, fields) in &hashes {
                        let hash = stored_key(hash);
                        for (field, value) in fields {
                            let plain = || Error::Corrupted(format!("{hash} {field} is {value:?}"));
                            if let Some(writer) = field.strip_prefix('#') {
                                markers.insert(format!("{hash}\0{writer}").as_str(), value.as_str())?;
                            } else {
                                let sum: u64 = value.parse().map_err(|_| plain())?;
                                sums.insert(format!("{hash}\0{field}").as_bytes(), sum)?;
                            }
                        }
                    }
                }
                Ok(tx.commit()?)
            })
            .await
    }

    /// See [`Store::put_sketches`](crate::totals::store::contract::Store::put_sketches).
    pub async fn put_sketches(&self, sketches: Vec<(StoredName, Vec<u8>)>) -> Result<(), StoreError> {
        self.0
            .work(move |database| {
                let tx = begin(database)?;
                {
                    let mut table = tx.open_table(SKETCHES)?;
                    for (name, bytes) in &sketches {
                        table.insert(stored_key(name).as_str(), bytes.as_slice())?;
                    }
                }
                Ok(tx.commit()?)
            })
            .await
    }

    /// See [`Store::put_meta`](crate::totals::store::contract::Store::put_meta).
    pub async fn put_meta(&self, site: &SiteKey, meta: Fields) -> Result<(), StoreError> {
        let site = site.clone();
        self.0
            .work(move |database| {
                let tx = begin(database)?;
                {
                    let mut table = tx.open_table(META)?;
                    for (name, value) in meta.iter().filter(|(name, _)| name != "format") {
                        let is_writer = name.starts_with("writer:");
                        let value = if is_writer { seen_as_day(value) } else { value.clone() };
                        table.insert(format!("{site}/{name}").as_str(), value.as_str())?;
                    }
                }
                Ok(tx.commit()?)
            })
            .await
    }
}

impl Snapshot {
    /// Of a file that no service has open, which is left as it is, byte for byte. Only one that was not closed
    /// properly, as after `kill -9`, is set right first.
    pub async fn of_file(path: &Path) -> Result<Self, StoreError> {
        let of = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || read_only(&of)).await;
        match opened.map_err(|error| StoreError::Unreachable(error.to_string()))?? {
            Some(file) => Self::begin(file.begin_read(), file),
            None => Embedded::open(path).await?.snapshot().await,
        }
    }

    fn begin(
        tx: Result<ReadTransaction, TransactionError>,
        database: impl Any + Send + Sync,
    ) -> Result<Self, StoreError> {
        let tx = tx.map_err(|error| StoreError::Refused(error.to_string()))?;
        Ok(Snapshot { tx: Arc::new(tx), _database: Box::new(database) })
    }

    /// Reads on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&ReadTransaction) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let tx = self.tx.clone();
        let read = tokio::task::spawn_blocking(move || job(&tx)).await;
        let read = read.map_err(|error| StoreError::Unreachable(error.to_string()))?;
        read.map_err(|error| StoreError::Refused(error.to_string()))
    }

    pub async fn sites(&self) -> Result<BTreeSet<SiteKey>, StoreError> {
        self.read(|tx| {
            let mut sites = BTreeSet::new();
            for entry in tx.open_table(META)?.iter()? {
                let (key, _) = entry?;
                let site = key.value().strip_suffix("/dataset").and_then(SiteKey::new);
                sites.extend(site);
            }
            Ok(sites)
        })
        .await
    }

    pub async fn meta(&self, site: &SiteKey) -> Result<Fields, StoreError> {
        let (from, until) = of_site(site);
        self.read(move |tx| {
            let meta = tx.open_table(META)?;
            let mut fields = Fields::new();
            for entry in meta.range(from.as_str()..until.as_str())? {
                let (key, value) = entry?;
                let name = key.value().get(from.len()..).unwrap_or_default();
                fields.push((name.to_owned(), value.value().to_owned()));
            }
            let format = meta.get("format")?.map(|format| format.value().to_owned());
            fields.extend(format.map(|format| ("format".to_owned(), format)));
            Ok(fields)
        })
        .await
    }

    pub async fn names(&self, site: &SiteKey) -> Result<BTreeSet<Arc<str>>, StoreError> {
        let (from, until) = of_site(site);
        self.read(move |tx| {
            let mut names = BTreeSet::new();
            let name = |key: &str| key.get(from.len()..).map(Arc::from);
            let (sums, markers) = (tx.open_table(SUMS)?, tx.open_table(MARKERS)?);
            // From each hash straight to the next: a hash of pages may have a million fields.
            let mut next = from.clone();
            while let Some(entry) = sums.range(next.as_bytes()..until.as_bytes())?.next() {
                let hash = before_nul(&String::from_utf8_lossy(entry?.0.value()));
                next = format!("{hash}\x01");
                names.extend(name(&hash));
            }
            let mut next = from.clone();
            while let Some(entry) = markers.range(next.as_str()..until.as_str())?.next() {
                let hash = before_nul(entry?.0.value());
                next = format!("{hash}\x01");
                names.extend(name(&hash));
            }
            for entry in tx.open_table(SKETCHES)?.range(from.as_str()..until.as_str())? {
                names.extend(name(entry?.0.value()));
            }
            Ok(names)
        })
        .await
    }

    pub async fn whole(&self, hashes: Vec<StoredName>) -> Result<Vec<Held>, StoreError> {
        self.read(move |tx| {
            let (sums, markers) = (tx.open_table(SUMS)?, tx.open_table(MARKERS)?);
            let all = |hash: &StoredName| -> Result<Held, Error> {
                let (from, until) = of_hash(hash);
                let mut fields = markers_of(&markers, hash)?;
                for entry in sums.range(from.as_bytes()..until.as_bytes())? {
                    fields.push(sum_field(&from, entry?));
                }
                Ok(Ok(fields))
            };
            hashes.iter().map(all).collect()
        })
        .await
    }

    pub async fn step(
        &self,
        hash: &StoredName,
        from: Option<String>,
    ) -> Result<(Fields, Option<String>), StoreError> {
        let hash = hash.clone();
        self.read(move |tx| {
            let (prefix, until) = of_hash(&hash);
            let after = from.as_ref().map(|field| format!("{prefix}{field}").into_bytes());
            let begin = match &after {
                Some(after) => Bound::Excluded(after.as_slice()),
                None => Bound::Included(prefix.as_bytes()),
            };
            let sums = tx.open_table(SUMS)?;
            let mut fields = Fields::new();
            for entry in sums.range::<&[u8]>((begin, Bound::Excluded(until.as_bytes())))?.take(STEP) {
                fields.push(sum_field(&prefix, entry?));
            }
            let next = fields.last().filter(|_| fields.len() == STEP).map(|(field, _)| field.clone());
            if from.is_none() {
                fields.extend(markers_of(&tx.open_table(MARKERS)?, &hash)?);
            }
            Ok((fields, next))
        })
        .await
    }

    pub async fn field(
        &self,
        hashes: Vec<StoredName>,
        field: String,
    ) -> Result<Vec<Option<String>>, StoreError> {
        self.read(move |tx| hashes.iter().map(|hash| value_of(tx, hash, &field)).collect()).await
    }

    pub async fn fields(
        &self,
        hash: &StoredName,
        fields: Vec<String>,
    ) -> Result<Vec<Option<String>>, StoreError> {
        let hash = hash.clone();
        self.read(move |tx| fields.iter().map(|field| value_of(tx, &hash, field)).collect()).await
    }

    pub async fn sketches(
        &self,
        names: Vec<StoredName>,
    ) -> Result<Vec<Result<Option<Vec<u8>>, String>>, StoreError> {
        self.read(move |tx| {
            let sketches = tx.open_table(SKETCHES)?;
            let of = |name: &StoredName| -> Result<_, Error> {
                Ok(Ok(sketches.get(stored_key(name).as_str())?.map(|bytes| bytes.value().to_vec())))
            };
            names.iter().map(of).collect()
        })
        .await
    }

    pub async fn salts(&self, site: &SiteKey) -> Result<Vec<KeptSalt>, StoreError> {
        let (from, until) = of_site(site);
        self.read(move |tx| {
            let mut salts = Vec::new();
            for entry in tx.open_table(SALTS)?.range(from.as_str()..until.as_str())? {
                let (key, value) = entry?;
                let day: Option<NaiveDate> = key.value().get(from.len()..).and_then(|day| day.parse().ok());
                let (expires_s, salt) = value.value();
                let Some(day) = day else { continue };
                // This store has no clock: what it was asked to keep beyond the end of the day.
                let ends_s = day.and_time(NaiveTime::MIN).and_utc().timestamp() + 24 * 3600;
                let kept_s = u64::try_from(expires_s.saturating_sub(ends_s)).unwrap_or(0);
                salts.push((day, salt, Duration::from_secs(kept_s)));
            }
            Ok(salts)
        })
        .await
    }
}

fn stored_key(name: &StoredName) -> String {
    format!("{}/{}", name.site, name.name)
}

/// The keys of a site are from the first up to the second.
fn of_site(site: &SiteKey) -> (String, String) {
    (format!("{site}/"), format!("{site}0"))
}

/// The keys of a hash's fields are from the first up to the second.
fn of_hash(hash: &StoredName) -> (String, String) {
    let key = stored_key(hash);
    (format!("{key}\0"), format!("{key}\x01"))
}

/// A sum, or a marker.
fn value_of(tx: &ReadTransaction, hash: &StoredName, field: &str) -> Result<Option<String>, Error> {
    let (prefix, _) = of_hash(hash);
    Ok(match field.strip_prefix('#') {
        Some(writer) => {
            let marker = tx.open_table(MARKERS)?.get(format!("{prefix}{writer}").as_str())?;
            marker.map(|marker| marker.value().to_owned())
        }
        None => {
            let sum = tx.open_table(SUMS)?.get(format!("{prefix}{field}").as_bytes())?;
            sum.map(|sum| sum.value().to_string())
        }
    })
}

fn before_nul(key: &str) -> String {
    key.split('\0').next().unwrap_or_default().to_owned()
}

fn sum_field(
    prefix: &str,
    (key, sum): (redb::AccessGuard<'_, &[u8]>, redb::AccessGuard<'_, u64>),
) -> (String, String) {
    let field = key.value().get(prefix.len()..).unwrap_or_default();
    (String::from_utf8_lossy(field).into_owned(), sum.value().to_string())
}

fn markers_of(
    markers: &impl ReadableTable<&'static str, &'static str>,
    hash: &StoredName,
) -> Result<Fields, Error> {
    let (from, until) = of_hash(hash);
    let mut fields = Fields::new();
    for entry in markers.range(from.as_str()..until.as_str())? {
        let (key, marker) = entry?;
        let writer = key.value().get(from.len()..).unwrap_or_default();
        fields.push((format!("#{writer}"), marker.value().to_owned()));
    }
    Ok(fields)
}
