//! What is removed from the file: views of pages that are kept no longer, what is erased, whole sites.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use chrono::NaiveDate;
use redb::{Error, ReadableTable, WriteTransaction};

use super::tables::{
    FREED, MARKERS, META, SALTS, SKETCHES, SUMS, SumKey, entry_of, freed, hash_key, key, of_hash, of_site,
    pruned_of, raise,
};
use crate::ingest::OTHER;
use crate::sites::SiteKey;
use crate::totals::batch::part::{Entry, HashName, MAX_SUM, field_beside};
use crate::totals::store::contract::Fold;

/// So many views of pages are removed in one transaction, or those of one day: others wait for its end.
const PRUNED_AT_A_TIME: usize = 10_000;

/// Removes the pages of days, and notes up to which: the day that is noted then, and whether that is another one.
pub fn prune(
    tx: &WriteTransaction,
    site: &SiteKey,
    held: Option<NaiveDate>,
    days: Range<NaiveDate>,
) -> Result<(Option<NaiveDate>, bool), Error> {
    let mut meta = tx.open_table(META)?;
    let noted = pruned_of(&meta, site)?;
    if noted != held {
        return Ok((noted, false));
    }
    let (mut sums, mut markers) = (tx.open_table(SUMS)?, tx.open_table(MARKERS)?);
    let (mut removed, mut bytes, mut pruned) = (0, freed(&meta)?, days.start);
    for day in days.start.iter_days().take_while(|day| *day < days.end) {
        if removed >= PRUNED_AT_A_TIME {
            break;
        }
        for hash in HashName::pruned_with(site, day) {
            let (from, until) = of_hash(&hash_key(&hash));
            sums.retain_in(from.as_bytes()..until.as_bytes(), |key, _| {
                (removed, bytes) = (removed + 1, bytes + key.len() as u64 + 8);
                false
            })?;
            markers.retain_in(from.as_str()..until.as_str(), |_, _| false)?;
        }
        pruned = day.succ_opt().unwrap_or(day);
    }
    meta.insert(FREED, bytes.to_string().as_str())?;
    meta.insert(key(site, "pruned").as_str(), pruned.to_string().as_str())?;
    Ok((Some(pruned), true))
}

/// Removes all of a site.
pub fn remove(tx: &WriteTransaction, site: &SiteKey) -> Result<(), Error> {
    let (from, until) = of_site(site);
    let (from, until) = (from.as_str(), until.as_str());
    tx.open_table(META)?.retain_in(from..until, |_, _| false)?;
    tx.open_table(SALTS)?.retain_in(from..until, |_, _| false)?;
    tx.open_table(SKETCHES)?.retain_in(from..until, |_, _| false)?;
    tx.open_table(MARKERS)?.retain_in(from..until, |_, _| false)?;
    tx.open_table(SUMS)?.retain_in(from.as_bytes()..until.as_bytes(), |_, _| false)?;
    Ok(())
}

/// Removes fields of hashes; sums among them become part of that of `(other)`. Whether any was there.
pub fn erase(tx: &WriteTransaction, hashes: &[HashName], fields: &[Arc<str>]) -> Result<bool, Error> {
    let (mut sums, mut markers) = (tx.open_table(SUMS)?, tx.open_table(MARKERS)?);
    let mut changed = false;
    for hash in hashes {
        let (mut key, mut folded) = (SumKey::new(hash), 0);
        for field in fields {
            let sum = sums.remove(key.of(field))?.map(|sum| sum.value());
            folded += sum.unwrap_or_default();
            changed |= sum.is_some();
            if field.starts_with('+') {
                let entry = format!("{}\0{field}", hash_key(hash));
                changed |= markers.remove(entry.as_str())?.is_some();
            }
        }
        if folded > 0 {
            let other = sums.get(key.of(OTHER))?.map_or(0, |sum| sum.value());
            sums.insert(key.of(OTHER), other.saturating_add(folded).min(MAX_SUM))?;
        }
    }
    Ok(changed)
}

/// Makes the views of idle pages part of those of `(other)`. How many pages.
pub fn fold(tx: &WriteTransaction, fold: &Fold) -> Result<u64, Error> {
    let (mut sums, mut markers) = (tx.open_table(SUMS)?, tx.open_table(MARKERS)?);
    let (mut folded, mut changed) = (0, BTreeSet::new());
    let Some(all) = fold.longer.first() else { return Ok(0) };
    for page in &fold.pages {
        let views = sums.get(SumKey::new(all).of(page))?.map(|views| views.value());
        let mut is_idle = views.is_some_and(|views| views < fold.below)
            && entry_of(&markers, all, &field_beside(page), Entry::beside_sum)?.is_none();
        for day in &fold.days {
            is_idle = is_idle && sums.get(SumKey::new(day).of(page))?.is_none();
        }
        if !is_idle {
            continue;
        }
        folded += 1;
        for hash in &fold.longer {
            let mut key = SumKey::new(hash);
            let Some(views) = sums.remove(key.of(page))?.map(|views| views.value()) else { continue };
            let other = sums.get(key.of(OTHER))?.map_or(0, |views| views.value());
            sums.insert(key.of(OTHER), other.saturating_add(views))?;
            changed.insert(hash);
        }
    }
    changed.into_iter().try_for_each(|hash| raise(&mut markers, hash, 0))?;
    Ok(folded)
}
