//! Totals on local files: one redb file.
//!
//! A call of `apply` is one transaction, on disk when it returns.

mod dump;
mod file;
mod forget;
mod tables;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{NaiveDate, NaiveTime};
use redb::{Error, ReadableTable, Table, WriteTransaction};

pub use self::dump::Snapshot;
use self::file::{File, read, write, write_if};
use self::tables::{
    MARKERS, META, SALTS, SKETCHES, SUMS, SumKey, damaged, entry_of, field_of, hash_key, key, marker_key,
    marker_of, of_hash, pruned_of, raise, revision_of, sketch_of, stored_key, text_of,
};
use super::contract::{
    Attached, Claim, Concern, Fold, Found, Outcome, Query, Standing, Store, StoreError, TOP_OF, Top,
    WriterId, check, is_id, written_day,
};
use super::dump::{Fields, Fill, RETIRED, StoredName, seen_as_day};
use super::progress::Progress;
use crate::random;
use crate::sites::SiteKey;
use crate::totals::batch::part::{self, Entry, HashName, MAX_SUM, Part, SketchPart, Sums, field_beside};
use crate::totals::batch::sketch::Sketch;

/// The embedded store.
pub struct Embedded(File);

impl Embedded {
    /// Opens the file, or makes it. One that is open elsewhere, of another format, or not footfall's is `Refused`
    /// and left as it is.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        File::open(path).await.map(Embedded)
    }

    /// Refuses a file as `open` does, but leaves it closed; one that was not closed properly passes.
    pub fn check(path: &Path) -> Result<(), StoreError> {
        if path.exists() { file::read_only(path).map(|_| ()) } else { Ok(()) }
    }
}

impl Store for Embedded {
    type Dump = Snapshot;

    fn kind(&self) -> &'static str {
        "embedded"
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn generation(&self) -> u64 {
        0
    }

    async fn concerns(&self) -> Result<Vec<Concern>, StoreError> {
        Ok(Vec::new())
    }

    async fn attach(
        &self,
        site: &SiteKey,
        zone: &str,
        writer: &WriterId,
        today: NaiveDate,
        claim: &Claim,
    ) -> Result<Attached, StoreError> {
        let (site, zone, writer) = (site.clone(), zone.to_owned(), writer.clone());
        let expected = claim.dataset.clone();
        let proposed = claim.birth.as_deref().map_or_else(random::id, str::to_owned);
        write_if(&self.0, move |tx| {
            let mut meta = tx.open_table(META)?;
            let held = text_of(&meta, &key(&site, "dataset"))?;
            if let Some(held) = held.as_ref().filter(|held| !is_id(held)) {
                return Err(damaged("dataset", held));
            }
            if expected.is_some_and(|expected| held.as_deref() != Some(&*expected)) {
                let (dataset, standing) = (held.unwrap_or_default().into(), Standing::Other);
                return Ok((Attached { dataset, since: today, pruned: None, standing, fork: None }, false));
            }
            let since = match text_of(&meta, &key(&site, "since"))? {
                Some(since) => today.min(written_day(&since).ok_or_else(|| damaged("since", &since))?),
                None => today,
            };
            let pruned = pruned_of(&meta, &site)?;
            if text_of(&meta, &key(&site, format!("run:{}", writer.0)))?.as_deref() == Some(RETIRED) {
                let fork = progress_of(&meta, &site, &writer)?.map(|progress| progress.last);
                let (dataset, standing) = (held.unwrap_or_default().into(), Standing::Retired);
                return Ok((Attached { dataset, since, pruned, standing, fork }, false));
            }
            let standing = if held.is_none() { Standing::Born } else { Standing::Ours };
            let dataset = held.unwrap_or(proposed);
            let mut changed = false;
            let mut keep = |name: &str, value: &str| -> Result<(), Error> {
                let key = key(&site, name);
                if text_of(&meta, &key)?.as_deref() != Some(value) {
                    changed = true;
                    meta.insert(key.as_str(), value)?;
                }
                Ok(())
            };
            if !zone.is_empty() {
                keep("zone", &zone)?;
            }
            keep(&format!("writer:{}", writer.0), &today.to_string())?;
            keep("dataset", &dataset)?;
            keep("since", &since.to_string())?;
            Ok((Attached { dataset: dataset.into(), since, pruned, standing, fork: None }, changed))
        })
        .await
    }

    async fn writers(&self, site: &SiteKey) -> Result<Vec<(WriterId, i64)>, StoreError> {
        let prefix = key(site, "writer:");
        read(&self.0, move |tx| {
            let meta = tx.open_table(META)?;
            let mut writers = Vec::new();
            for entry in meta.range(prefix.as_str()..)? {
                let (name, day) = entry?;
                let Some(id) = name.value().strip_prefix(&prefix) else { break };
                let day: Option<NaiveDate> = day.value().parse().ok();
                let seen = day.map_or(0, |day| day.and_time(NaiveTime::MIN).and_utc().timestamp());
                writers.push((WriterId(id.into()), seen));
            }
            Ok(writers)
        })
        .await
    }

    async fn retire(&self, site: &SiteKey, writers: &[WriterId], _: NaiveDate) -> Result<u64, StoreError> {
        let (site, writers) = (site.clone(), writers.to_vec());
        write(&self.0, move |tx| {
            let mut removed = 0;
            let mut meta = tx.open_table(META)?;
            for writer in &writers {
                let (prefix, ending) = (key(&site, ""), format!("\0{}", writer.0));
                let mut progress = progress_of(&meta, &site, writer).ok().flatten().unwrap_or_default();
                tx.open_table(MARKERS)?.retain(|key, marker| {
                    let hash = key.strip_prefix(&prefix).and_then(|key| key.strip_suffix(&ending));
                    let Some(hash) = hash else { return true };
                    removed += 1;
                    if let (Some(hash), Ok(id)) = (HashName::parse(&site, hash), marker.parse()) {
                        progress.note(hash, id);
                    }
                    false
                })?;
                let of_writer = |what: &str| key(&site, format!("{what}:{}", writer.0));
                meta.remove(of_writer("writer").as_str())?;
                meta.insert(of_writer("run").as_str(), RETIRED)?;
                if progress.last > 0 {
                    meta.insert(of_writer("runs").as_str(), progress.to_string().as_str())?;
                }
            }
            Ok(removed)
        })
        .await
    }

    async fn progress(&self, site: &SiteKey, writer: &WriterId) -> Result<Option<Progress>, StoreError> {
        let (site, writer) = (site.clone(), writer.clone());
        read(&self.0, move |tx| progress_of(&tx.open_table(META)?, &site, &writer)).await
    }

    async fn apply(
        &self,
        writer: &WriterId,
        parts: Vec<Part>,
        sketches: Vec<SketchPart>,
    ) -> Result<Vec<Outcome>, StoreError> {
        check(&parts)?;
        let writer = writer.clone();
        write_if(&self.0, move |tx| {
            let merged = merge(tx, &sketches)?;
            let outcomes = add(tx, &writer, &parts)?;
            let changed = merged || outcomes.contains(&Outcome::Applied);
            Ok((outcomes, changed))
        })
        .await
    }

    async fn note_calendar(
        &self,
        calendar: &str,
        at: &str,
        week: HashName,
        days: Vec<HashName>,
    ) -> Result<Option<String>, StoreError> {
        let (calendar, at) = (calendar.to_owned(), at.to_owned());
        write_if(&self.0, move |tx| {
            let before = change_calendar(tx, &calendar, &at, &week, &days)?;
            let changed = before.as_ref() != Some(&calendar);
            Ok((before.filter(|_| changed), changed))
        })
        .await
    }

    async fn read(&self, writer: &WriterId, queries: Vec<Query>) -> Result<Vec<Found>, StoreError> {
        let writer = writer.clone();
        read(&self.0, move |tx| {
            let (sums, markers) = (tx.open_table(SUMS)?, tx.open_table(MARKERS)?);
            let answer = |query: &Query| {
                let marker = marker_of(&markers, &marker_key(&query.hash, &writer.0))?;
                let mut key = SumKey::new(&query.hash);
                let mut sum = |field| {
                    let Some(sum) = sums.get(key.of(field))? else { return Ok(None) };
                    let sum = Some(sum.value()).filter(|sum| *sum <= MAX_SUM);
                    sum.map(Some).ok_or_else(|| Error::Corrupted(format!("the sum of {field} is above 2^53")))
                };
                let sums = query.fields.iter().map(|field| sum(field));
                let sums = sums.collect::<Result<_, Error>>()?;
                let entry = |field: &Arc<str>| {
                    entry_of(&markers, &query.hash, &field_beside(field), Entry::beside_sum)
                };
                let entries = query.fields.iter().map(entry);
                let entries = entries.collect::<Result<_, Error>>()?;
                Ok(Found { marker, sums, entries, revision: revision_of(&markers, &query.hash)? })
            };
            queries.iter().map(answer).collect()
        })
        .await
    }

    async fn next_entry(&self, site: &SiteKey, known: u64) -> Result<Option<u64>, StoreError> {
        let key = key(site, "entry");
        write(&self.0, move |tx| {
            let mut meta = tx.open_table(META)?;
            let held = text_of(&meta, &key)?.unwrap_or_else(|| "0".to_owned());
            let held = part::sequence(&held).ok_or_else(|| damaged("entry", &held))?;
            let number = known.max(held) + 1;
            meta.insert(key.as_str(), number.to_string().as_str())?;
            Ok(Some(number))
        })
        .await
    }

    async fn prune(
        &self,
        site: &SiteKey,
        held: Option<NaiveDate>,
        days: Range<NaiveDate>,
    ) -> Result<Option<NaiveDate>, StoreError> {
        let site = site.clone();
        write_if(&self.0, move |tx| forget::prune(tx, &site, held, days)).await
    }

    async fn remove(&self, site: &SiteKey) -> Result<(), StoreError> {
        let site = site.clone();
        write(&self.0, move |tx| forget::remove(tx, &site)).await
    }

    async fn fold(&self, fold: Fold) -> Result<u64, StoreError> {
        write_if(&self.0, move |tx| {
            let folded = forget::fold(tx, &fold)?;
            Ok((folded, folded > 0))
        })
        .await
    }

    async fn top(&self, hash: &HashName, most: usize) -> Result<Vec<(String, u64)>, StoreError> {
        let (from, until) = of_hash(&hash_key(hash));
        read(&self.0, move |tx| {
            let sums = tx.open_table(SUMS)?;
            let mut top = Top::new(most);
            for entry in sums.range(from.as_bytes()..until.as_bytes())?.take(TOP_OF) {
                let (key, sum) = entry?;
                top.tell(field_of(key.value(), &from), sum.value());
            }
            let (begin, end) = (format!("{from}+"), format!("{from},"));
            for entry in tx.open_table(MARKERS)?.range(begin.as_str()..end.as_str())?.take(TOP_OF) {
                let (key, text) = entry?;
                top.tell_entry(key.value().get(from.len()..).unwrap_or_default(), text.value());
            }
            Ok(top.sorted())
        })
        .await
    }

    async fn sketches(&self, names: Vec<HashName>) -> Result<Vec<Option<Sketch>>, StoreError> {
        read(&self.0, move |tx| {
            let sketches = tx.open_table(SKETCHES)?;
            names.iter().map(|name| sketch_of(&sketches, name)).collect()
        })
        .await
    }

    async fn visitors(&self, names: Vec<HashName>) -> Result<Vec<u64>, StoreError> {
        let sketches = self.sketches(names).await?;
        Ok(sketches.iter().map(|sketch| sketch.as_ref().map_or(0, Sketch::estimate)).collect())
    }

    async fn salt(
        &self,
        site: &SiteKey,
        day: NaiveDate,
        proposed: [u8; 16],
        keep: Duration,
    ) -> Result<[u8; 16], StoreError> {
        let key = key(site, day);
        let asked = key.clone();
        let held = read(&self.0, move |tx| {
            Ok(tx.open_table(SALTS)?.get(asked.as_str())?.map(|held| held.value().1))
        });
        if let Some(salt) = held.await? {
            return Ok(salt);
        }
        let begins = day.and_time(NaiveTime::MIN).and_utc().timestamp();
        let keep = i64::try_from(keep.as_secs()).unwrap_or(i64::MAX);
        let expires = begins.saturating_add(24 * 3600).saturating_add(keep);
        write(&self.0, move |tx| {
            let mut salts = tx.open_table(SALTS)?;
            salts.retain(|_, (expires, _)| expires > begins)?;
            // Another call may have been faster since the look above.
            let held = salts.get(key.as_str())?.map(|held| held.value().1);
            if held.is_none() {
                salts.insert(key.as_str(), (expires, proposed))?;
            }
            Ok(held.unwrap_or(proposed))
        })
        .await
    }

    async fn dump(&self) -> Result<Snapshot, StoreError> {
        Snapshot::of(&self.0).await
    }
}

impl Fill for Embedded {
    async fn put_all(&self, hashes: Vec<(StoredName, Fields)>) -> Result<(), StoreError> {
        write(&self.0, move |tx| {
            let (mut sums, mut markers) = (tx.open_table(SUMS)?, tx.open_table(MARKERS)?);
            for (hash, fields) in &hashes {
                let hash = stored_key(hash);
                for (field, value) in fields {
                    let marker = field.strip_prefix('#');
                    if let Some(name) = marker.or_else(|| field.starts_with('+').then_some(field)) {
                        markers.insert(format!("{hash}\0{name}").as_str(), value.as_str())?;
                        continue;
                    }
                    let sum: u64 = value.parse().map_err(|_| damaged(&format!("{hash} {field}"), value))?;
                    sums.insert(format!("{hash}\0{field}").as_bytes(), sum)?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn put_sketches(&self, sketches: Vec<(StoredName, Vec<u8>)>) -> Result<(), StoreError> {
        write(&self.0, move |tx| {
            let mut table = tx.open_table(SKETCHES)?;
            for (name, bytes) in &sketches {
                table.insert(stored_key(name).as_str(), bytes.as_slice())?;
            }
            Ok(())
        })
        .await
    }

    async fn put_meta(&self, site: &SiteKey, meta: Fields) -> Result<(), StoreError> {
        let site = site.clone();
        write(&self.0, move |tx| {
            let mut table = tx.open_table(META)?;
            for (name, value) in meta.iter().filter(|(name, _)| name != "format") {
                let is_writer = name.starts_with("writer:");
                let value = if is_writer { seen_as_day(value) } else { value.clone() };
                table.insert(key(&site, name).as_str(), value.as_str())?;
            }
            Ok(())
        })
        .await
    }
}

fn progress_of(
    meta: &impl ReadableTable<&'static str, &'static str>,
    site: &SiteKey,
    writer: &WriterId,
) -> Result<Option<Progress>, Error> {
    let runs = text_of(meta, &key(site, format!("runs:{}", writer.0)))?.unwrap_or_default();
    Progress::read(site, &runs).map_err(|fault| Error::Corrupted(fault.to_string()))
}

/// The calendar before; nothing is changed where it is the same.
fn change_calendar(
    tx: &WriteTransaction,
    calendar: &str,
    at: &str,
    week: &HashName,
    days: &[HashName],
) -> Result<Option<String>, Error> {
    let mut meta = tx.open_table(META)?;
    let site = &week.site;
    let before = text_of(&meta, &key(site, "calendar"))?;
    if before.as_deref() == Some(calendar) {
        return Ok(before);
    }
    if let Some(before) = &before {
        let first_day = |calendar: &str| calendar.rsplit(' ').next().map(str::to_owned);
        if first_day(before) != first_day(calendar) {
            sum_days(&mut tx.open_table(SUMS)?, week, days)?;
        }
        let change = format!("{before} to {calendar}");
        meta.insert(key(site, format!("calendar:{at}")).as_str(), change.as_str())?;
    }
    meta.insert(key(site, "calendar").as_str(), calendar)?;
    Ok(before)
}

fn sum_days(sums: &mut Table<&[u8], u64>, week: &HashName, days: &[HashName]) -> Result<(), Error> {
    for field in Sums::fields() {
        let mut total = 0u64;
        for day in days {
            let sum = sums.get(SumKey::new(day).of(field))?.map_or(0, |sum| sum.value());
            total = total.saturating_add(sum);
        }
        if total > MAX_SUM {
            return Err(damaged(&format!("the sum of the days of {week}"), &total.to_string()));
        }
        sums.insert(SumKey::new(week).of(field), total)?;
    }
    Ok(())
}

/// Adds the sums of parts that fit.
fn add(tx: &WriteTransaction, writer: &WriterId, parts: &[Part]) -> Result<Vec<Outcome>, Error> {
    let mut sums = tx.open_table(SUMS)?;
    let mut markers = tx.open_table(MARKERS)?;
    let meta = tx.open_table(META)?;
    let mut outcome = |part: &Part| {
        let key = marker_key(&part.hash, &writer.0);
        let found = marker_of(&markers, &key)?;
        let may_prune = part.hash.prunes_with().is_some();
        let pruned = if may_prune { pruned_of(&meta, &part.hash.site)? } else { None };
        if found == Some(part.id) || part.hash.is_pruned(pruned.as_ref()) {
            return Ok(Outcome::Already);
        }
        if found != part.prev {
            return Ok(Outcome::Found(found));
        }
        add_part(&mut sums, part)?;
        enter(&mut markers, part)?;
        markers.insert(key.as_str(), part.id.to_string().as_str())?;
        if let Some(revision) = part.revision {
            raise(&mut markers, &part.hash, revision)?;
        }
        Ok(Outcome::Applied)
    };
    parts.iter().map(&mut outcome).collect()
}

/// Puts entries in the place of earlier ones.
fn enter(markers: &mut Table<&str, &str>, part: &Part) -> Result<(), Error> {
    for (field, entry) in &part.entries {
        let held = entry_of(markers, &part.hash, field, str::parse)?;
        if held.is_none_or(|held| held.stamp < entry.stamp) {
            let key = marker_key(&part.hash, field);
            markers.insert(key.as_str(), entry.to_string().as_str())?;
        }
    }
    Ok(())
}

fn add_part(sums: &mut Table<&[u8], u64>, part: &Part) -> Result<(), Error> {
    // In order of the keys: neighbours share pages of the file.
    let mut ordered: Vec<(&str, u64)> = part.sums.iter().map(|(field, add)| (&**field, *add)).collect();
    ordered.sort_unstable();
    let mut key = SumKey::new(&part.hash);
    for (field, add) in ordered {
        let key = key.of(field);
        let total = |held: u64| {
            let total = held.checked_add(add).filter(|&total| total <= MAX_SUM);
            total.ok_or_else(|| Error::Corrupted(format!("the sum of {field} would pass 2^53")))
        };
        if let Some(mut held) = sums.get_mut(key)? {
            let total = total(held.value())?;
            held.insert(total)?;
            continue;
        }
        sums.insert(key, total(0)?)?;
    }
    Ok(())
}

/// Raises registers of sketches. Whether any rose.
fn merge(tx: &WriteTransaction, parts: &[SketchPart]) -> Result<bool, Error> {
    // One visit of the table for all parts of a sketch.
    let mut by_name: BTreeMap<&HashName, Vec<&SketchPart>> = BTreeMap::new();
    for part in parts {
        by_name.entry(&part.name).or_default().push(part);
    }
    let mut sketches = tx.open_table(SKETCHES)?;
    let mut any = false;
    for (name, parts) in by_name {
        let held = sketch_of(&sketches, name)?;
        let mut sketch = held.clone().unwrap_or_default();
        parts.iter().for_each(|part| sketch.raise(&part.registers));
        if held.as_ref() != Some(&sketch) {
            sketches.insert(hash_key(name).as_str(), sketch.to_bytes().as_slice())?;
            any = true;
        }
    }
    Ok(any)
}

#[cfg(test)]
mod tests;
