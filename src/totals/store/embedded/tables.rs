//! The tables of the file, and how their keys are written.

use std::fmt::Display;

use redb::{Error, ReadableTable, TableDefinition};

use crate::sites::SiteKey;
use crate::totals::batch::part::{self, HashName, PartId};
use crate::totals::batch::sketch::Sketch;
use crate::totals::store::contract::WriterId;
use crate::totals::store::dump::StoredName;

/// `<site>/<name>\0<field>` → sum.
pub const SUMS: TableDefinition<&[u8], u64> = TableDefinition::new("sums");
/// `<site>/<name>\0<writer>` → marker; `<site>/<name>\0revision` → the revision of the hash, where it is not 0.
pub const MARKERS: TableDefinition<&str, &str> = TableDefinition::new("markers");
/// `<site>/<name>` → a sketch as Redis would keep it.
pub const SKETCHES: TableDefinition<&str, &[u8]> = TableDefinition::new("sketches");
/// `<site>/<day>` → when it may go (Unix seconds), the salt.
pub const SALTS: TableDefinition<&str, (i64, [u8; 16])> = TableDefinition::new("salts");
/// `format`; `<site>/calendar`, `<site>/calendar:<instant>` (a change of it), `<site>/dataset`, `<site>/since`,
/// `<site>/zone`, `<site>/writer:<id>` (last attached); `<site>/run:<id>` and `<site>/runs:<id>` of a writer that was
/// retired, as in Redis.
pub const META: TableDefinition<&str, &str> = TableDefinition::new("meta");

pub fn key(site: &SiteKey, name: impl Display) -> String {
    format!("{site}/{name}")
}

pub fn hash_key(hash: &HashName) -> String {
    key(&hash.site, hash)
}

pub fn stored_key(name: &StoredName) -> String {
    key(&name.site, &name.name)
}

pub fn marker_key(hash: &HashName, writer: &WriterId) -> String {
    format!("{}\0{}", hash_key(hash), writer.0)
}

pub fn revision_key(hash: &HashName) -> String {
    format!("{}\0revision", hash_key(hash))
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

pub fn revision_of(
    markers: &impl ReadableTable<&'static str, &'static str>,
    hash: &HashName,
) -> Result<u64, Error> {
    let Some(text) = text_of(markers, &revision_key(hash))? else { return Ok(0) };
    let damaged = || Error::Corrupted(format!("{}: the revision is {text:?}", hash_key(hash)));
    part::sum(&text).ok_or_else(damaged)
}

pub fn text_of(
    table: &impl ReadableTable<&'static str, &'static str>,
    key: &str,
) -> Result<Option<String>, Error> {
    Ok(table.get(key)?.map(|text| text.value().to_owned()))
}
