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
        let (name, mut seen) = (self.hash(bucket, HashKind::Pages).name, HashSet::new());
        self.each_page(bucket, |auditor, page, value| {
            let key = key_of(&page);
            if page.starts_with('+') {
                entered += if seen.insert(key) { auditor.entered(&name, &page, &value) } else { 0 };
                return;
            }
            let sum = auditor.page_sum(&name, &page, &value);
            if !seen.insert(key) || page.starts_with('#') {
                return;
            }
            total += sum;
            pages += 1;
            *of_whole.entry(key).or_default() += sum;
            if !parts.is_empty() && of_parts.remove(&key).unwrap_or(0) != sum {
                auditor.suspect(Suspicion::Page(bucket, page));
            }
        })
        .await?;
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
            self.each_page(*part, |auditor, page, _| {
                if missing.remove(&key_of(&page)).is_some_and(|views| views > 0) {
                    auditor.suspect(Suspicion::Page(bucket, page));
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Tells the fields of a bucket's pages.
    async fn each_page(
        &mut self,
        bucket: Bucket,
        mut told: impl FnMut(&mut Self, String, String) + Send,
    ) -> Result<(), StoreError> {
        let (dump, hash) = (self.dump, self.hash(bucket, HashKind::Pages));
        let read = dump.each(&hash, |page, value| told(self, page, value)).await;
        if let Err(StoreError::Refused(fault)) = &read {
            self.tell(&hash.name, "hash", "a hash of pages", &**fault);
            return Ok(());
        }
        read
    }

    fn page_sum(&mut self, hash: &str, page: &str, value: &str) -> u64 {
        if page.starts_with('#') {
            self.check_marker(hash, page, value);
            return 0;
        }
        part::sum(value).unwrap_or_else(|| {
            self.tell(hash, page, "a plain number", value);
            0
        })
    }

    /// The views before and after the pages are read are the bounds of what these may sum up to.
    pub(super) async fn confirm_pages(&mut self, bucket: Bucket) -> Result<Option<Disagreement>, StoreError> {
        let hash = [self.hash(bucket, HashKind::Sums)];
        let before = self.dump.field(&hash, "views").await?.pop().flatten();
        let (mut total, mut seen) = (0u64, HashSet::with_capacity(STEP));
        self.each_page(bucket, |_, page, value| {
            if !page.starts_with(['#', '+']) && seen.insert(key_of(&page)) {
                total = total.saturating_add(part::sum(&value).unwrap_or(0));
            }
        })
        .await?;
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
