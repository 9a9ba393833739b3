//! What the embedded store holds: a read transaction of its file, which stays as it was when the
//! transaction began.

use std::any::Any;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{NaiveDate, NaiveTime};
use redb::{Error, ReadTransaction, ReadableDatabase, ReadableTable, TransactionError};

use super::file::{File, read_only};
use super::tables::{MARKERS, META, SALTS, SKETCHES, SUMS, field_of, of_hash, of_site, stored_key};
use crate::sites::SiteKey;
use crate::totals::store::dump::{Dump, Fields, Held, KeptSalt, STEP, SketchBytes, StoredName};
use crate::totals::store::error::StoreError;

/// The file as it was at one instant.
pub struct Snapshot {
    tx: Arc<ReadTransaction>,
    /// What it reads is open as long as this.
    _database: Box<dyn Any + Send + Sync>,
}

impl Snapshot {
    /// Of a file that no service has open, which is left as it is, byte for byte. Only one that was not closed
    /// properly, as after `kill -9`, is set right first.
    pub async fn of_file(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::refused(format!("{} is not there", path.display())));
        }
        let of = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || read_only(&of)).await;
        match opened.map_err(|error| StoreError::unreachable(error.to_string()))?? {
            Some(file) => Self::begin(file.begin_read(), file),
            None => Self::of(&File::open(path).await?).await,
        }
    }

    /// Of a file that is open.
    pub async fn of(file: &File) -> Result<Self, StoreError> {
        let database = file.database().await?;
        Self::begin(database.begin_read(), database)
    }

    fn begin(
        tx: Result<ReadTransaction, TransactionError>,
        database: impl Any + Send + Sync,
    ) -> Result<Self, StoreError> {
        let tx = tx.map_err(|error| StoreError::refused(error.to_string()))?;
        Ok(Snapshot { tx: Arc::new(tx), _database: Box::new(database) })
    }

    /// Reads on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&ReadTransaction) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let tx = self.tx.clone();
        let read = tokio::task::spawn_blocking(move || job(&tx)).await;
        let read = read.map_err(|error| StoreError::unreachable(error.to_string()))?;
        read.map_err(|error| StoreError::refused(error.to_string()))
    }
}

impl Dump for Snapshot {
    fn stands_still(&self) -> bool {
        true
    }

    async fn sites(&self) -> Result<BTreeSet<SiteKey>, StoreError> {
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

    async fn meta(&self, site: &SiteKey) -> Result<Fields, StoreError> {
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

    async fn names(&self, site: &SiteKey) -> Result<BTreeSet<Arc<str>>, StoreError> {
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

    async fn whole(&self, hashes: &[StoredName]) -> Result<Vec<Held>, StoreError> {
        let hashes = hashes.to_vec();
        self.read(move |tx| {
            let (sums, markers) = (tx.open_table(SUMS)?, tx.open_table(MARKERS)?);
            let all = |hash: &StoredName| -> Result<Held, Error> {
                let (from, until) = of_hash(&stored_key(hash));
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

    async fn scan(
        &self,
        hash: &StoredName,
        from: Option<String>,
    ) -> Result<(Fields, Option<String>), StoreError> {
        let hash = hash.clone();
        self.read(move |tx| {
            let (prefix, until) = of_hash(&stored_key(&hash));
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

    async fn get(
        &self,
        hashes: &[StoredName],
        fields: &[String],
    ) -> Result<Vec<Vec<Option<String>>>, StoreError> {
        let (hashes, fields) = (hashes.to_vec(), fields.to_vec());
        self.read(move |tx| {
            let of = |hash| fields.iter().map(|field| value_of(tx, hash, field)).collect();
            hashes.iter().map(of).collect()
        })
        .await
    }

    async fn sketches(&self, names: &[StoredName]) -> Result<Vec<SketchBytes>, StoreError> {
        let names = names.to_vec();
        self.read(move |tx| {
            let sketches = tx.open_table(SKETCHES)?;
            let of = |name: &StoredName| -> Result<_, Error> {
                Ok(Ok(sketches.get(stored_key(name).as_str())?.map(|bytes| bytes.value().to_vec())))
            };
            names.iter().map(of).collect()
        })
        .await
    }

    async fn salts(&self, site: &SiteKey) -> Result<Vec<KeptSalt>, StoreError> {
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

/// A sum, a marker, or an entry.
fn value_of(tx: &ReadTransaction, hash: &StoredName, field: &str) -> Result<Option<String>, Error> {
    let (prefix, _) = of_hash(&stored_key(hash));
    let name = field.strip_prefix('#').or_else(|| field.starts_with('+').then_some(field));
    Ok(match name {
        Some(name) => {
            let marker = tx.open_table(MARKERS)?.get(format!("{prefix}{name}").as_str())?;
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
    (field_of(key.value(), prefix), sum.value().to_string())
}

/// Markers and entries of a hash.
fn markers_of(
    markers: &impl ReadableTable<&'static str, &'static str>,
    hash: &StoredName,
) -> Result<Fields, Error> {
    let (from, until) = of_hash(&stored_key(hash));
    let mut fields = Fields::new();
    for entry in markers.range(from.as_str()..until.as_str())? {
        let (key, marker) = entry?;
        let name = key.value().get(from.len()..).unwrap_or_default();
        let mark = if name.starts_with('+') { "" } else { "#" };
        fields.push((format!("{mark}{name}"), marker.value().to_owned()));
    }
    Ok(fields)
}
