//! What only a person can decide: what becomes of a data set that is not the one that was written to, and of
//! writers that are gone.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::identity::{Change, Dataset};
use super::state::{Delivery, Link};
use crate::sites::SiteKey;
use crate::totals::disk::losses::Cause;
use crate::totals::store::contract::{Standing, Store, WriterId};

/// A writer that attached so recently is taken to live: a running one attaches each minute. Seconds.
const LIVES_S: i64 = 15 * 60;

/// Why something was not decided or not carried out: told to the operator in words.
pub type Reason = Box<dyn std::error::Error + Send + Sync>;

/// A site whose data set is not the one that was written to.
struct Strayed {
    site: SiteKey,
    ours: Arc<str>,
    /// The one that is there; none if there is none.
    found: Option<Arc<str>>,
}

impl<S: Store> Delivery<S> {
    /// The data set has vanished: what the outbox holds is put back, on a dry run only told.
    pub async fn refill(&mut self, dry_run: bool) -> Result<String, Reason> {
        let strayed = self.strayed().await?;
        let held = self.held_of(&strayed)?;
        let mut said = String::new();
        for Strayed { site, ours, found } in &strayed {
            let into = found.as_ref().map_or("no data".to_owned(), |id| format!("data set {id}"));
            let (batches, views) = held.get(site).copied().unwrap_or_default();
            said += &format!("{site}: the store holds {into}; {batches} batches with {views} views ");
            said += if dry_run { "would be sent\n" } else { "are sent\n" };
            if !dry_run {
                // Born again under its old id: other instances on this store know it then, and refill it too.
                let floor = self.identity.floor_of(self.store.kind(), site);
                self.take_dataset(site, found.clone(), Some(ours.clone()), floor).await?;
            }
        }
        let reach = humantime::format_duration(Duration::from_secs(self.outbox.reach_ms() / 1000));
        said += &format!("what lies before that ({reach} back) is not in the outbox");
        Ok(said + if dry_run { "" } else { ", and recorded as lost" })
    }

    /// The data set is another one: it is begun anew with what was not applied yet, on a dry run only told.
    pub async fn accept_empty(&mut self, dry_run: bool) -> Result<String, Reason> {
        let strayed = self.strayed().await?;
        let mut said = String::new();
        for Strayed { site, ours, found } in &strayed {
            let into = found.as_ref().map_or("a new data set".to_owned(), |id| format!("data set {id}"));
            said += &format!("{site}: {into} takes the place of {ours}\n");
            if dry_run {
                continue;
            }
            let applied = self.outbox.applied_to(site);
            let extent = format!("batches up to {applied}, given up by order of the operator");
            self.losses.record(Cause::Store, self.clock.now().unix_ms, site.as_str(), &extent)?;
            self.take_dataset(site, found.clone(), None, applied).await?;
            self.last_parts.retain(|hash, last| hash.site != *site || last.sequence > applied);
        }
        let applied = strayed.iter().map(|strayed| self.outbox.applied_to(&strayed.site)).min();
        let waiting = (self.outbox.next_sequence() - 1).saturating_sub(applied.unwrap_or_default());
        said += &format!("{waiting} batches that were not applied yet ");
        Ok(said
            + match dry_run {
                true => "would be applied; what was applied before would not be in it",
                false => "are applied",
            })
    }

    /// Everything that is stored of a site is removed, and a data set is born in its place. What was applied before is
    /// not put back: to a store that goes back to it, this is another data set.
    pub async fn erase_site(&mut self, site: &SiteKey) -> Result<(), Reason> {
        self.store.remove(site).await?;
        let applied = self.outbox.applied_to(site);
        self.take_dataset(site, None, None, applied).await?;
        self.last_parts.retain(|hash, _| hash.site != *site);
        Ok(())
    }

    /// This directory becomes another writer: all of the one before is applied. Who it was, and why its markers
    /// could not be removed yet, if they could not.
    ///
    /// # Errors
    /// Of the file system: it is who it was.
    pub async fn give_up_identity(&mut self) -> io::Result<(WriterId, Option<String>)> {
        // First it is somebody else, then the markers go: in between a crash changes nothing.
        let former = self.identity.begin_anew(&self.dir, self.outbox.applied(), |_, _| 0, Change::Drained)?;
        self.last_parts.clear();
        let removed = self.attach().await;
        Ok((former, removed.err().map(|error| error.to_string())))
    }

    /// Whether a writer may be retired, being gone for good; `force`: even if it was seen a moment ago.
    ///
    /// # Errors
    /// Why not.
    pub async fn may_retire(&self, writer: &WriterId, force: bool) -> Result<(), Reason> {
        if *writer == self.identity.writer {
            return Err("this is the writer of this data_dir; `footfall drain` gives it up".into());
        }
        let (mut seen, mut now_s) = (None, None);
        for site in self.sites.all() {
            let known = self.store.writers(&site.key).await?;
            now_s = now_s.max(self.own_seen(&known));
            seen = seen.max(known.into_iter().find(|(id, _)| id == writer).map(|(_, seen)| seen));
        }
        let Some(seen) = seen else {
            return Err(format!("the store knows no writer {}", writer.0).into());
        };
        let ago_s = now_s.unwrap_or(seen) - seen;
        if ago_s < LIVES_S && !force {
            return Err(format!(
                "writer {} was seen {ago_s} s ago and may live; drain it, or retire it with --force once it is gone \
                 for good: what it still holds would be counted anew",
                writer.0,
            )
            .into());
        }
        Ok(())
    }

    /// A copy will not be taken for a data set that came in place of the one this writer had in a store of
    /// that kind.
    pub fn welcome_copy_in(&mut self, kind: &str) -> io::Result<()> {
        let ours = self.store.kind();
        if kind == ours { Ok(()) } else { self.identity.copy_datasets(&self.dir, ours, kind) }
    }

    /// The sites whose data set is not the one that was written to. Writes nothing to those.
    async fn strayed(&mut self) -> Result<Vec<Strayed>, Reason> {
        let mut strayed = Vec::new();
        for site in self.sites.clone().all() {
            let Some(ours) = self.dataset(&site.key) else { continue };
            let told = match self.claim(&site.key, Some(ours.clone()), None).await {
                // Nothing is to be decided of one that is held for another reason.
                Err(_) if self.held.contains_key(&site.key) => continue,
                told => told?,
            };
            if let (Standing::Other, found, _) = told {
                let found = (!found.is_empty()).then_some(found);
                strayed.push(Strayed { site: site.key.clone(), ours, found });
            }
        }
        if strayed.is_empty() {
            return Err("the store holds the data set that was written to: nothing is to be decided".into());
        }
        Ok(strayed)
    }

    /// Takes the data set of a site that is there, or one that is born as `birth`, for this writer's own from
    /// the batch after `floor` on.
    async fn take_dataset(
        &mut self,
        site: &SiteKey,
        found: Option<Arc<str>>,
        birth: Option<Arc<str>>,
        floor: u64,
    ) -> Result<(), Reason> {
        let (_, id, _) = self.claim(site, found, birth).await?;
        let kind = self.store.kind();
        self.identity.change(&self.dir, |anew| anew.take_dataset(kind, site, Dataset { id, floor }))?;
        // The store is attached anew.
        (self.link, self.held_until) = (Link::Away, None);
        Ok(())
    }

    /// What the outbox holds of sites: batches and views.
    fn held_of(&self, sites: &[Strayed]) -> io::Result<BTreeMap<SiteKey, (u64, u64)>> {
        let mut held: BTreeMap<SiteKey, (u64, u64)> = BTreeMap::new();
        let Some(first) = self.outbox.first_kept() else { return Ok(held) };
        for sequence in first..self.outbox.next_sequence() {
            let Some(batch) = self.outbox.get(sequence)? else { continue };
            for sums in batch.sums.iter().filter(|sums| sites.iter().any(|strayed| strayed.site == sums.site))
            {
                if sequence > self.identity.floor_of(self.store.kind(), &sums.site) {
                    let (batches, views) = held.entry(sums.site.clone()).or_default();
                    *batches += 1;
                    *views += sums.sums.views;
                }
            }
        }
        Ok(held)
    }
}
