//! A site whose data the store refuses, or whose data set is another one, waits alone: what batches bring to it
//! stays in the outbox, and all else goes on.
//!
//! It is tried again and again. Once its data can be attached to and its hashes be read they are healed as those of
//! a store that went back in time are: by the markers that they bear, from what the outbox kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::apply::{Flush, FlushError};
use super::state::Delivery;
use crate::sites::{Site, SiteKey};
use crate::totals::batch::Batch;
use crate::totals::batch::part::{HashName, PartId};
use crate::totals::store::contract::{Store, StoreError};

/// A site that is held is tried after so long, or the later, the longer a try takes, at the latest after [`LATEST`].
const RETRY: Duration = Duration::from_secs(5);
const LATEST: Duration = Duration::from_secs(60);

/// Whether it is the data of a site that an error speaks of, where what failed was done for one site.
fn is_of_a_site(error: &FlushError) -> bool {
    matches!(error, FlushError::Held(_) | FlushError::Store(StoreError::Refused(_)))
}

/// What was done for a site came to; none where that failed for how the site's data is, which is noted, and said where
/// it was not noted already.
pub fn or_noted<T>(
    notes: &mut BTreeMap<SiteKey, String>,
    site: &SiteKey,
    outcome: Result<T, FlushError>,
    says: &str,
) -> Result<Option<T>, FlushError> {
    match outcome {
        Err(error) if is_of_a_site(&error) => {
            let why = error.to_string();
            if notes.get(site) != Some(&why) {
                tracing::error!(%site, why, "{says}");
            }
            notes.insert(site.clone(), why);
            Ok(None)
        }
        outcome => outcome.map(Some),
    }
}

impl<S: Store> Delivery<S> {
    /// Whether what is brought to a site waits.
    pub fn is_held(&self, site: &SiteKey) -> bool {
        self.outbox.held().contains_key(site)
    }

    /// The sites that are not held.
    pub(super) fn not_held(&self) -> Vec<Arc<Site>> {
        self.sites.all().filter(|site| !self.is_held(&site.key)).cloned().collect()
    }

    /// Why nothing at all can be sent: every site is held.
    pub(super) fn all_held(&self) -> Option<FlushError> {
        let mut sites = self.sites.all().map(|site| &site.key);
        let first = sites.next().filter(|site| self.is_held(site))?;
        sites.all(|site| self.is_held(site)).then(|| {
            let why = self.held.get(first).map_or("it was held before the start", |why| why);
            FlushError::Held(why.to_owned())
        })
    }

    /// Why nothing is sent, or not all.
    pub fn why_held(&self) -> Option<String> {
        let of_site = || self.held.iter().next().map(|(site, why)| format!("site {site}: {why}"));
        self.stopped().map(str::to_owned).or_else(of_site)
    }

    /// What was done for a site came to; none where it is held for how that failed.
    pub fn or_held<T>(
        &mut self,
        site: &SiteKey,
        outcome: Result<T, FlushError>,
    ) -> Result<Option<T>, FlushError> {
        let says = "a site is held: its views are kept, all others are sent";
        let done = or_noted(&mut self.held, site, outcome, says)?;
        if done.is_none() {
            self.outbox.hold(site);
        }
        Ok(done)
    }

    /// Applies a batch; where the store refuses it, site by site. Whether no hash had gone back.
    pub(super) async fn apply(&mut self, batch: &Batch) -> Result<bool, FlushError> {
        match self.flush().apply(batch).await {
            Err(error) if is_of_a_site(&error) => {}
            outcome => return outcome,
        }
        let mut whole = true;
        // What was applied of it is found applied.
        for site in batch.sites() {
            let applied = self.flush().apply(&batch.only(|key| *key == site)).await;
            whole &= self.or_held(&site, applied)?.unwrap_or(true);
        }
        Ok(whole)
    }

    /// Tries the sites that are held; `on_applied` is given what waited of those that are no more.
    pub(super) async fn try_held(&mut self, on_applied: &mut impl FnMut(&Batch)) -> Result<(), FlushError> {
        let began = Instant::now();
        if self.outbox.held().is_empty() || self.held_until.is_some_and(|until| began < until) {
            return Ok(());
        }
        for site in self.outbox.held().keys().cloned().collect::<Vec<_>>() {
            let released = self.release(&site, on_applied).await;
            self.or_held(&site, released)?;
        }
        // Much may have to be read for it each time: others must not wait for that often.
        self.held_until = Some(Instant::now() + (began.elapsed() * 20).clamp(RETRY, LATEST));
        Ok(())
    }

    /// Brings to a site all that waited.
    async fn release(
        &mut self,
        site: &SiteKey,
        on_applied: &mut impl FnMut(&Batch),
    ) -> Result<(), FlushError> {
        let (place, attached) = self.attach_site(site).await?;
        self.identity.change(&self.dir, |anew| _ = anew.datasets.entry(place).or_insert(attached))?;
        if let Some((_, refused)) = self.share_salts(|key| key == site).await?.pop() {
            return Err(refused.into());
        }
        self.settle_site(site).await?;
        let (first, applied) = (self.outbox.first_kept().unwrap_or(u64::MAX), self.outbox.applied());
        let hashes = self.hashes_of(first..=applied, |hash| hash.site == *site);
        let bears: Vec<(HashName, Option<PartId>)> = self.markers(&self.identity.writer, &hashes).await?;
        let flush = Flush { released: Some(site), ..self.flush() };
        flush.check(&self.last_parts, &bears).await?;
        self.may_be_back = true;
        let floor = self.identity.floor_of(self.store.kind(), site);
        for sequence in self.outbox.applied_to(site).max(floor) + 1..=applied {
            if let Some(batch) = self.outbox.get(sequence)? {
                on_applied(&batch.only(|key| key == site));
            }
        }
        tracing::info!(%site, "a site is held no more: what waited of it is applied");
        self.held.remove(site);
        self.outbox.release(site);
        // Its calendar may not be noted yet.
        self.calendars_noted = None;
        Ok(())
    }
}
