//! What is removed from the file: views of pages that are kept no longer, what is erased, whole sites.

use std::ops::Range;

use chrono::NaiveDate;
use redb::{Error, ReadableTable, WriteTransaction};

use super::tables::{
    FREED, MARKERS, META, SALTS, SKETCHES, SUMS, SumKey, entry_of, freed, hash_key, key, marker_key, of_hash,
    of_site, pruned_of, raise,
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

/// Makes fields part of `(other)`. How many there were, hash by hash.
pub fn fold(tx: &WriteTransaction, fold: &Fold) -> Result<u64, Error> {
    let (mut sums, mut markers) = (tx.open_table(SUMS)?, tx.open_table(MARKERS)?);
    let (mut going, mut removed) = (Vec::new(), 0);
    for field in &fold.fields {
        if let (Some(below), Some(all)) = (fold.below, fold.hashes.first()) {
            let views = sums.get(SumKey::new(all).of(field))?.map(|views| views.value());
            let mut stays = views.is_none_or(|views| views >= below)
                || entry_of(&markers, all, &field_beside(field), Entry::beside_sum)?.is_some();
            for day in &fold.days {
                stays = stays || sums.get(SumKey::new(day).of(field))?.is_some();
            }
            if stays {
                continue;
            }
        }
        going.push(field);
    }
    for hash in &fold.hashes {
        let (mut key, mut moved) = (SumKey::new(hash), None);
        for field in &going {
            if let Some(sum) = sums.remove(key.of(field))? {
                moved = Some(moved.unwrap_or(0) + sum.value());
                removed += 1;
            } else if field.starts_with('+') {
                removed += u64::from(markers.remove(marker_key(hash, field).as_str())?.is_some());
            }
        }
        let Some(moved) = moved else { continue };
        let other = sums.get(key.of(OTHER))?.map_or(0, |sum| sum.value());
        sums.insert(key.of(OTHER), other.saturating_add(moved).min(MAX_SUM))?;
        raise(&mut markers, hash, 0)?;
    }
    Ok(removed)
}
