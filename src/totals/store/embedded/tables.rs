//! The tables of the file, and how their keys are written.

use std::fmt::Display;

use chrono::NaiveDate;
use redb::{Error, ReadableTable, Table, TableDefinition};

use crate::sites::SiteKey;
use crate::totals::batch::part::{self, Entry, HashName, PartId};
use crate::totals::batch::sketch::Sketch;
use crate::totals::disk::codec::Damaged;
use crate::totals::store::contract::written_day;
use crate::totals::store::dump::StoredName;

/// `<site>/<name>\0<field>` → sum.
pub const SUMS: TableDefinition<&[u8], u64> = TableDefinition::new("sums");
/// `<site>/<name>\0<writer>` → marker; `<site>/<name>\0revision` → the revision of the hash, where it is not 0;
/// `<site>/<name>\0+<field>` → the entry beside a sum.
pub const MARKERS: TableDefinition<&str, &str> = TableDefinition::new("markers");
/// `<site>/<name>` → a sketch as Redis would keep it.
pub const SKETCHES: TableDefinition<&str, &[u8]> = TableDefinition::new("sketches");
/// `<site>/<day>` → when it may go (Unix seconds), the salt.
pub const SALTS: TableDefinition<&str, (i64, [u8; 16])> = TableDefinition::new("salts");
/// `format`; `<site>/entry` (the number of the last one), `<site>/calendar`, `<site>/calendar:<instant>` (a change of it), `<site>/dataset`, `<site>/since`, `<site>/pruned`,
/// `<site>/zone`, `<site>/writer:<id>` (last attached); `<site>/run:<id>` and `<site>/runs:<id>` of a writer that was
/// retired, as in Redis.
pub const META: TableDefinition<&str, &str> = TableDefinition::new("meta");
/// In `meta`: the bytes that were removed since the file was made smaller.
pub const FREED: &str = "freed";

pub fn key(site: &SiteKey, name: impl Display) -> String {
    format!("{site}/{name}")
}

pub fn hash_key(hash: &HashName) -> String {
    key(&hash.site, hash)
}

pub fn stored_key(name: &StoredName) -> String {
    key(&name.site, &name.name)
}

/// The key of a writer's marker, of the revision, or of an entry.
pub fn marker_key(hash: &HashName, field: &str) -> String {
    format!("{}\0{field}", hash_key(hash))
}

/// The keys of a site are from the first up to the second.
pub fn of_site(site: &SiteKey) -> (String, String) {
    (format!("{site}/"), format!("{site}0"))
}

/// The keys of a hash's fields are from the first up to the second.
pub fn of_hash(key: &str) -> (String, String) {
    (format!("{key}\0"), format!("{key}\x01"))
}

/// The keys of the sums of one hash, built in one buffer.
pub struct SumKey {
    bytes: Vec<u8>,
    prefix: usize,
}

impl SumKey {
    pub fn new(hash: &HashName) -> Self {
        let mut bytes = hash_key(hash).into_bytes();
        bytes.push(0);
        SumKey { prefix: bytes.len(), bytes }
    }

    pub fn of(&mut self, field: &str) -> &[u8] {
        self.bytes.truncate(self.prefix);
        self.bytes.extend_from_slice(field.as_bytes());
        &self.bytes
    }
}

/// The field in a key of a sum.
pub fn field_of(key: &[u8], prefix: &str) -> String {
    String::from_utf8_lossy(key.get(prefix.len()..).unwrap_or_default()).into_owned()
}

pub fn sketch_of(
    sketches: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &HashName,
) -> Result<Option<Sketch>, Error> {
    let key = hash_key(name);
    let Some(bytes) = sketches.get(key.as_str())? else { return Ok(None) };
    Sketch::from_bytes(bytes.value()).map(Some).map_err(|err| Error::Corrupted(format!("{key}: {err}")))
}

pub fn marker_of(
    markers: &impl ReadableTable<&'static str, &'static str>,
    key: &str,
) -> Result<Option<PartId>, Error> {
    let Some(text) = markers.get(key)? else { return Ok(None) };
    let foreign = |_| Error::Corrupted(format!("{key} is {:?}, which is no marker", text.value()));
    text.value().parse().map(Some).map_err(foreign)
}

/// The entry in a field, read as it must be written there.
pub fn entry_of(
    markers: &impl ReadableTable<&'static str, &'static str>,
    hash: &HashName,
    field: &str,
    read: impl Fn(&str) -> Result<Entry, Damaged>,
) -> Result<Option<Entry>, Error> {
    let key = marker_key(hash, field);
    let Some(text) = text_of(markers, &key)? else { return Ok(None) };
    read(&text).map(Some).map_err(|_| Error::Corrupted(format!("{key} is {text:?}, which is no entry")))
}

pub fn revision_of(
    markers: &impl ReadableTable<&'static str, &'static str>,
    hash: &HashName,
) -> Result<u64, Error> {
    let Some(text) = text_of(markers, &marker_key(hash, "revision"))? else { return Ok(0) };
    let damaged = || Error::Corrupted(format!("{}: the revision is {text:?}", hash_key(hash)));
    part::sum(&text).ok_or_else(damaged)
}

pub fn freed(meta: &impl ReadableTable<&'static str, &'static str>) -> Result<u64, Error> {
    Ok(text_of(meta, FREED)?.and_then(|bytes| bytes.parse().ok()).unwrap_or_default())
}

pub fn text_of(
    table: &impl ReadableTable<&'static str, &'static str>,
    key: &str,
) -> Result<Option<String>, Error> {
    Ok(table.get(key)?.map(|text| text.value().to_owned()))
}

/// The day before which pages are pruned.
pub fn pruned_of(
    meta: &impl ReadableTable<&'static str, &'static str>,
    site: &SiteKey,
) -> Result<Option<NaiveDate>, Error> {
    let text = text_of(meta, &key(site, "pruned"))?;
    text.map(|text| written_day(&text).ok_or_else(|| damaged("pruned", &text))).transpose()
}

/// Raises the revision of a hash, to a number at least.
pub fn raise(markers: &mut Table<&str, &str>, hash: &HashName, least: u64) -> Result<(), Error> {
    let next = revision_of(markers, hash)?.saturating_add(1);
    let revision = least.max(next).min(part::MAX_SUM).to_string();
    markers.insert(marker_key(hash, "revision").as_str(), revision.as_str())?;
    Ok(())
}

/// What of the file cannot be.
pub fn damaged(what: &str, value: &str) -> Error {
    Error::Corrupted(format!("{what} is {value:?}"))
}
