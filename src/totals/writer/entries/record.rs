//! The audit of a site's entries: a hash of registers beside its sums, so that it goes the same way to the store.
//!
//! | field | text |
//! |---|---|
//! | `+<number>.<writer>` | who entered what, when and why, as JSON |
//! | `+<number>.<writer> <hash> <field>` | what was entered there before and after |
//!
//! Of a day that is entered as a whole the latter stand in a hash of that day, and only for the day: its longer
//! buckets rose by as much. So the audit stays short, however many days are entered.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::names::Name;
use super::weigh::{Names, Weighed};
use crate::calendar::Bucket;
use crate::sites::SiteKey;
use crate::totals::batch::entry::Entered;
use crate::totals::batch::part::{ByField, Entry, HashKind, HashName, MAX_FIELDS, Stamp, field_beside};
use crate::totals::store::contract::StoreError;
use crate::totals::store::dump::Dump;
use crate::totals::writer::rows::Intent;

/// What is known of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// RFC 3339, in the site's zone.
    pub at: String,
    /// What was ordered: `import`, `import --add`, `undo 7`.
    pub order: String,
    #[serde(flatten)]
    pub intent: Intent,
    /// How many values it changed.
    pub values: usize,
    /// The day that it entered as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<NaiveDate>,
}

/// A site's audit.
pub type Audit = BTreeMap<Stamp, Record>;

fn audit(site: &SiteKey, day: Option<NaiveDate>) -> HashName {
    HashName::new(site, day.map_or(Bucket::All, Bucket::Day), HashKind::Entries)
}

fn field_of(stamp: &Stamp) -> Arc<str> {
    field_beside(&format!("{}.{}", stamp.number, stamp.writer))
}

/// What is entered under a stamp, with its record, as it goes into a batch. The hash of all time is always among
/// it: by its revision other instances see that they must read the site again. Pages by day are kept `since` a day.
pub fn entered(
    site: &SiteKey,
    stamp: &Stamp,
    record: &Record,
    names: &Names,
    since: NaiveDate,
) -> Vec<Entered> {
    let all = HashName::new(site, Bucket::All, HashKind::Sums);
    let mut hashes = BTreeMap::<HashName, ByField<Arc<str>>>::from([(all, Vec::new())]);
    let json = serde_json::to_string(record).unwrap_or_default();
    let mut places = Vec::new();
    for (Name { hash, field }, Weighed { entered, becomes, .. }) in names {
        if !hash.is_pruned(Some(&since)) {
            let value = becomes.to_string().into();
            hashes.entry(hash.clone()).or_default().push((field_beside(field), value));
        }
        if record.day.is_none_or(|day| hash.bucket == Bucket::Day(day)) {
            let place = format!("{} {hash} {field}", field_of(stamp)).into();
            places.push((place, format!("{entered} {becomes}").into()));
        }
    }
    hashes.insert(audit(site, record.day), places);
    hashes.entry(audit(site, None)).or_default().insert(0, (field_of(stamp), json.into()));
    hashes.into_iter().flat_map(|(hash, fields)| in_parts(&hash, stamp, &fields)).collect()
}

/// What is entered into one hash.
pub fn in_parts(hash: &HashName, stamp: &Stamp, fields: &ByField<Arc<str>>) -> Vec<Entered> {
    let whole = fields.is_empty().then(Vec::new);
    let some = fields.chunks(MAX_FIELDS).map(<[_]>::to_vec).chain(whole);
    some.map(|fields| Entered { hash: hash.clone(), stamp: stamp.clone(), fields }).collect()
}

/// Reads the registers of a hash.
pub async fn registers(
    dump: &impl Dump,
    hash: &HashName,
    mut told: impl FnMut(&str, Entry) + Send,
) -> Result<(), StoreError> {
    let told =
        |field: String, value: String| value.parse().map(|entry| told(&field, entry)).unwrap_or_default();
    dump.each(&hash.into(), told).await
}

/// Reads the audit of a site.
pub async fn read(dump: &impl Dump, site: &SiteKey) -> Result<Audit, StoreError> {
    let mut records = Audit::new();
    registers(dump, &audit(site, None), |field, Entry { text, stamp }| {
        if let (false, Ok(record)) = (field.contains(' '), serde_json::from_str(&text)) {
            records.insert(stamp, record);
        }
    })
    .await?;
    Ok(records)
}

/// The fields of an audit that name pages.
pub async fn places_of(
    dump: &impl Dump,
    audit: &HashName,
    pages: &[Arc<str>],
) -> Result<Vec<Arc<str>>, StoreError> {
    let (pages, mut fields) = (pages.iter().map(|page| &**page).collect::<HashSet<&str>>(), Vec::new());
    registers(dump, audit, |field, _| {
        let page = field.splitn(3, ' ').nth(2).filter(|page| pages.contains(page));
        fields.extend(page.map(|_| field.into()));
    })
    .await?;
    Ok(fields)
}

/// What an entry changed: by names what was there before, and what it entered.
pub async fn changes(
    dump: &impl Dump,
    site: &SiteKey,
    of: &Stamp,
    day: Option<NaiveDate>,
) -> Result<BTreeMap<Name, (i64, i64)>, StoreError> {
    let (mut changes, entry) = (BTreeMap::new(), format!("{} ", field_of(of)));
    registers(dump, &audit(site, day), |field, Entry { text, .. }| {
        let change = || {
            let (hash, field) = field.strip_prefix(&entry)?.split_once(' ')?;
            let (before, after) = text.split_once(' ')?;
            let name = Name { hash: HashName::parse(site, hash)?, field: field.into() };
            Some((name, (before.parse().ok()?, after.parse().ok()?)))
        };
        changes.extend(change());
    })
    .await?;
    Ok(changes)
}
