//! Pages against views, and the pages of days, months and of all against each other.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::auditor::{Auditor, Disagreement, Suspicion};
use crate::calendar::Bucket;
use crate::totals::batch::part::{self, HashKind, HashName};
use crate::totals::store::contract::StoreError;
use crate::totals::store::dump::{Dump, STEP};

/// Views by a page's hash: of a million pages 24 MB.
type ByPage = HashMap<u64, u64>;

impl<D: Dump> Auditor<'_, D> {
    /// Goes through the pages of every month and its days, then of all.
    pub(super) async fn suspect_pages(&mut self) -> Result<(), StoreError> {
        let mut of_months = ByPage::new();
        let months = self.months();
        for month in &months {
            let mut days = self.parts.get(month).map(|(_, days)| days.clone()).unwrap_or_default();
            let (all, pruned) = (days.len(), self.pruned);
            let hash = |day: &Bucket| HashName::new(self.site, *day, HashKind::Pages);
            days.retain(|day| !hash(day).is_pruned(pruned.as_ref()));
            let mut of_days = ByPage::new();
            for day in &days {
                self.compare(*day, &mut ByPage::new(), &mut of_days, &[]).await?;
            }
            // Of a month whose days are pruned the views alone tell what its pages add up to.
            let parts = if days.len() < all { &[] } else { &*days };
            self.compare(*month, &mut of_days, &mut of_months, parts).await?;
        }
        // Years keep no pages.
        self.audit.pages = self.compare(Bucket::All, &mut of_months, &mut ByPage::new(), &months).await?;
        Ok(())
    }

    /// Compares the pages of a bucket with its views, and with those of its parts; adds them up for the
    /// bucket that it is a part of. How many there are.
    async fn compare(
        &mut self,
        bucket: Bucket,
        of_parts: &mut ByPage,
        of_whole: &mut ByPage,
        parts: &[Bucket],
    ) -> Result<usize, StoreError> {
        let views = self.sums.get(&bucket).map_or(0, |sums| sums.views);
        let (mut total, mut pages, mut entered) = (0u64, 0, 0);
        let mut from = Some(None);
        let mut seen = HashSet::new();
        while let Some(cursor) = from {
            let (fields, next) = self.page_step(bucket, cursor).await?;
            from = next.map(Some);
            for (page, value) in fields {
                if page.starts_with('+') {
                    let name = self.hash(bucket, HashKind::Pages).name;
                    entered +=
                        if seen.insert(key_of(&page)) { self.entered(&name, &page, &value) } else { 0 };
                    continue;
                }
                let (key, sum) = (key_of(&page), self.page_sum(bucket, &page, &value));
                if !seen.insert(key) || page.starts_with('#') {
                    continue;
                }
                total += sum;
                pages += 1;
                *of_whole.entry(key).or_default() += sum;
                if !parts.is_empty() && of_parts.remove(&key).unwrap_or(0) != sum {
                    self.suspect(Suspicion::Page(bucket, page));
                }
            }
        }
        let name = self.hash(bucket, HashKind::Pages).name;
        self.show_entered_pages(&name, entered);
        if total != views {
            self.suspect(Suspicion::Pages(bucket));
        }
        if !of_parts.is_empty() {
            self.suspect_missing(bucket, of_parts, parts).await?;
        }
        Ok(pages)
    }

    /// Pages of the parts that the whole lacks: their names are in the parts.
    async fn suspect_missing(
        &mut self,
        bucket: Bucket,
        missing: &mut ByPage,
        parts: &[Bucket],
    ) -> Result<(), StoreError> {
        for part in parts {
            let mut from = Some(None);
            while let Some(cursor) = from {
                let (fields, next) = self.page_step(*part, cursor).await?;
                from = next.map(Some);
                for (page, _) in fields {
                    if missing.remove(&key_of(&page)).is_some_and(|views| views > 0) {
                        self.suspect(Suspicion::Page(bucket, page));
                    }
                }
            }
        }
        Ok(())
    }

    async fn page_step(
        &mut self,
        bucket: Bucket,
        from: Option<String>,
    ) -> Result<(Vec<(String, String)>, Option<String>), StoreError> {
        let hash = self.hash(bucket, HashKind::Pages);
        match self.dump.scan(&hash, from).await {
            Err(StoreError::Refused(fault)) => {
                self.tell(&hash.name, "hash", "a hash of pages", &*fault);
                Ok((Vec::new(), None))
            }
            step => step,
        }
    }

    fn page_sum(&mut self, bucket: Bucket, page: &str, value: &str) -> u64 {
        let hash = self.hash(bucket, HashKind::Pages);
        if page.starts_with('#') {
            self.check_marker(&hash.name, page, value);
            return 0;
        }
        part::sum(value).unwrap_or_else(|| {
            self.tell(&hash.name, page, "a plain number", value);
            0
        })
    }

    /// The views before and after the pages are read are the bounds of what these may sum up to.
    pub(super) async fn confirm_pages(&mut self, bucket: Bucket) -> Result<Option<Disagreement>, StoreError> {
        let hash = [self.hash(bucket, HashKind::Sums)];
        let before = self.dump.field(&hash, "views").await?.pop().flatten();
        let mut total = 0u64;
        let mut seen = HashSet::with_capacity(STEP);
        let mut from = Some(None);
        while let Some(cursor) = from {
            let (fields, next) = self.page_step(bucket, cursor).await?;
            from = next.map(Some);
            for (page, value) in fields {
                if !page.starts_with(['#', '+']) && seen.insert(key_of(&page)) {
                    total = total.saturating_add(part::sum(&value).unwrap_or(0));
                }
            }
        }
        let after = self.dump.field(&hash, "views").await?.pop().flatten();
        let number = |views: &Option<String>| views.as_deref().and_then(part::sum).unwrap_or(0);
        let disagrees = !(number(&before)..=number(&after)).contains(&total);
        Ok(disagrees.then(|| Disagreement {
            bucket: self.hash(bucket, HashKind::Pages).name.to_string(),
            what: "all pages".to_owned(),
            expected: format!("{}, the views of {}", number(&after), hash[0].name),
            found: total.to_string(),
        }))
    }
}

/// Two pages of a site are taken for one once in some billions of audits.
fn key_of(page: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    page.hash(&mut hasher);
    hasher.finish()
}
