//! Pages of days that are older than they are kept: they are removed from the store, site by site, some days at a
//! time, beside the batches; and pages that hardly anybody ever read and nobody reads are folded into `(other)`, if
//! that is wanted. What is removed is what the store says, whoever said it first; the running figures of
//! a page are made of younger days, its months and all of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Days, NaiveDate};

use super::apply::FlushError;
use super::state::{Cursor, Delivery};
use crate::calendar::{Bucket, Period};
use crate::ingest::OTHER;
use crate::sites::{Site, SiteKey};
use crate::totals::batch::part::{HashKind, HashName, sum};
use crate::totals::store::contract::{Fold, Store, StoreError};
use crate::totals::store::dump::Dump;

/// Days removed in one step. Redis takes about a millisecond for them.
const DAYS_AT_A_TIME: Days = Days::new(500);

/// Fields folded in one step: of ten years with each of them that of some hundred hashes.
const FIELDS_AT_A_TIME: usize = 50;

/// So long before the first day of a site views may have been counted, which waited elsewhere.
const BEFORE_SINCE: Days = Days::new(31);

/// So many days of pages may have been kept before the setting was made lower.
const MAX_KEPT: u64 = 400;

impl<S: Store> Delivery<S> {
    /// Removes some pages of the first site that has older ones than of so many days.
    ///
    /// # Errors
    /// See [`FlushError`]; what was not removed is removed later.
    pub async fn prune(&mut self, page_days: u64) -> Result<(), FlushError> {
        for site in self.not_held() {
            let Some(since) = self.since.get(&site.key).copied() else { continue };
            let held = self.pruned.get(&site.key).copied();
            // Days that were entered of the time before the site's first one are at most so much older.
            let from = held.unwrap_or(since - BEFORE_SINCE - Days::new(page_days.max(MAX_KEPT)));
            let until = self.pages_since(&site, page_days);
            if from >= until {
                continue;
            }
            // Where this clock is ahead of the store's that one is believed: nothing brings the pages back.
            let known = self.store.writers(&site.key).await.map_err(FlushError::Store);
            let known = self.or_held(&site.key, known)?.unwrap_or_default();
            let day = self.own_seen(&known).and_then(|seen| DateTime::from_timestamp(seen, 0));
            let Some(day) = day.map(|at| at.date_naive() + Days::new(1)) else { continue };
            let until = until.min(day - Days::new(page_days)).min(from + DAYS_AT_A_TIME);
            if from < until {
                let pruned = self.store.prune(&site.key, held, from..until).await.map_err(FlushError::Store);
                if let Some(pruned) = self.or_held(&site.key, pruned)? {
                    self.note_pruned(&site.key, pruned);
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// Folds some pages of the first site that was not gone through since its pages were pruned last.
    ///
    /// # Errors
    /// See [`FlushError`]; what was not folded is folded later.
    pub async fn fold(&mut self, page_days: u64, below: u64) -> Result<(), FlushError> {
        for site in self.not_held().into_iter().filter(|_| below > 0) {
            let pruned = self.pages_since(&site, page_days);
            // As long as older days are there, too, it is put off: all that are would be looked at.
            if self.pruned.get(&site.key) != Some(&pruned) {
                continue;
            }
            let begun = self.folding.get(&site.key).filter(|(since, _)| *since == pruned);
            let Some(from) = begun.map_or(Some(None), |(_, next)| next.clone()) else { continue };
            let folded = self.fold_some(&site, below, from).await;
            if let Some(next) = self.or_held(&site.key, folded)? {
                self.folding.insert(site.key.clone(), (pruned, next.map(Some)));
            }
            return Ok(());
        }
        Ok(())
    }

    /// Goes on in the pages of all time. Where to go on then.
    async fn fold_some(&self, site: &Site, below: u64, from: Cursor) -> Result<Cursor, FlushError> {
        let all = HashName::new(&site.key, Bucket::All, HashKind::Pages);
        let (fields, next) = self.store.dump().await?.scan(&(&all).into(), from).await?;
        let is_small = |(page, views): &(String, String)| {
            !page.starts_with(['#', '+']) && page != OTHER && sum(views).is_some_and(|views| views < below)
        };
        let pages: Vec<Arc<str>> = fields.into_iter().filter(is_small).map(|(page, _)| page.into()).collect();
        let (mut hashes, days) = self.hashes_of_pages(site);
        hashes.retain(|hash| hash.bucket.period() != Period::Week);
        self.fold_fields(&Fold { hashes, fields: pages, below: Some(below), days }).await?;
        Ok(next)
    }

    /// The hashes of a site's pages by the calendar, as far as they are kept: all time first, and those of days apart.
    pub fn hashes_of_pages(&self, site: &Site) -> (Vec<HashName>, Vec<HashName>) {
        let today = site.calendar.span(self.clock.now().unix_ms).hour.day;
        let first = self.since.get(&site.key).copied().unwrap_or(today) - BEFORE_SINCE;
        let pruned = self.pruned.get(&site.key);
        let hash = |bucket| HashName::new(&site.key, bucket, HashKind::Pages);
        let (mut longer, mut days) = (BTreeSet::new(), Vec::new());
        // A day more, by the clock of another instance.
        for day in first.iter_days().take_while(|day| *day <= today + Days::new(1)).map(Bucket::Day) {
            days.extend(Some(hash(day)).filter(|hash| !hash.is_pruned(pruned)));
            longer.extend(site.calendar.longer(day));
        }
        (longer.into_iter().rev().map(hash).collect(), days)
    }

    /// Makes fields part of `(other)`, some at a time. How many were there.
    pub async fn fold_fields(&self, fold: &Fold) -> Result<u64, StoreError> {
        let mut folded = 0;
        for some in fold.fields.chunks(FIELDS_AT_A_TIME) {
            folded += self.store.fold(Fold { fields: some.to_vec(), ..fold.clone() }).await?;
        }
        Ok(folded)
    }

    /// The first day of which a site's pages are kept, where those of so many days are.
    pub fn pages_since(&self, site: &Site, page_days: u64) -> NaiveDate {
        let today = site.calendar.span(self.clock.now().unix_ms).hour.day;
        let since = today - Days::new(page_days);
        self.pruned.get(&site.key).map_or(since, |pruned| since.max(*pruned))
    }

    pub(super) fn note_pruned(&mut self, site: &SiteKey, pruned: Option<NaiveDate>) {
        match pruned {
            Some(day) => _ = self.pruned.insert(site.clone(), day),
            None => _ = self.pruned.remove(site),
        }
    }
}
