//! How the writer stands to the store: it attaches, finds out whether another process bears its identity,
//! and takes a new one.
//!
//! **A copied directory** has the same writer in it. On Redis one run of a process bears a writer, and each
//! script checks that; a later run of the same directory takes the writer over. It notes the runs of its directory
//! and the last batch before each: up to there two directories are the same, which is called the fork. Whoever
//! finds that a run of another directory bears the writer, or a marker that is not its own, takes a new identity:
//!
//! - Batches up to the fork are to be applied by the one that bears the identity, or that bore it last: the other has
//!   them too.
//! - Batches after it are this directory's own. Those parts of them that were applied already bear their own
//!   markers under the old identity; these are repeated under the new one, and everything else is sent.
//! - What was in no batch yet at the copy is in both journals, and counted by both.
//!
//! The embedded store is copied with its directory, and knows no twins.
//!
//! **A writer that was retired** has nobody beside it: what it had not applied, or only in part, is sent by its
//! directory alone, should that come back. It takes a new identity, too, which goes on in each site after what is
//! known to be applied there; the markers that hashes bore of later batches are gone, but the last of them were
//! noted, and are repeated.

use std::collections::{BTreeMap, HashMap};

use tokio::time::Instant;

use super::apply::FlushError;
use super::identity::{Change, Dataset};
use super::state::{Attachment, Delivery, Link};
use crate::sites::SiteKey;
use crate::totals::batch::Batch;
use crate::totals::batch::part::{HashName, Part, PartId};
use crate::totals::store::contract::{Claim, Standing, Store, StoreError, WriterId, clock_fault};

/// A writer that has not attached for so long is gone: far longer than any outbox reaches. Seconds.
const GONE_S: i64 = 40 * 24 * 3600;

/// A writer that has attached since counts now: one that lives does so each minute. Seconds.
const LIVES_S: i64 = 150;

/// So long this process must have seen of a writer that nothing of it moves before it is taken for gone: the clock of
/// a store may be wrong for a while. Milliseconds.
const WATCHED_MS: u64 = 24 * 3600 * 1000;

/// Most writers of a site retired each time the store is attached.
const GONE_AT_A_TIME: usize = 100;

/// A hash, and the parts that batches after the floor bring to it.
type Written = (HashName, Vec<PartId>);

impl<S: Store> Delivery<S> {
    /// Registers with the store, site by site, and agrees on salts.
    ///
    /// # Errors
    /// See [`FlushError`]: held where a data set is not the one that was written to.
    pub async fn attach(&mut self) -> Result<(), FlushError> {
        let before = if let Link::Verified(before) = self.link { Some(before) } else { None };
        self.attach_anew();
        self.today()?;
        let mut generation = None;
        self.look_at_settings().await?;
        let mut told = Vec::new();
        let mut refused = Ok(());
        for site in self.to_attach() {
            let attached = self.attach_site(&site).await;
            match self.or_held(&site, attached) {
                Ok(attached) => told.extend(attached),
                Err(error) => {
                    refused = Err(error);
                    break;
                }
            }
            // Of several servers behind one address the first is the one that was looked at.
            generation.get_or_insert(self.store.generation());
        }
        // What was told of some sites is known from now on, whatever becomes of the others.
        self.identity.change(&self.dir, |anew| {
            told.into_iter().for_each(|(place, attached)| _ = anew.datasets.entry(place).or_insert(attached));
        })?;
        refused?;
        self.settle_left().await?;
        self.retire_former().await?;
        self.retire_long_gone().await?;
        let held = self.outbox.held().clone();
        for (site, refused) in self.share_salts(|site| !held.contains_key(site)).await? {
            self.or_held::<()>(&site, Err(refused.into()))?;
        }
        let generation = generation.unwrap_or_default();
        let compared =
            before.filter(|before| before.generation == generation).and_then(|before| before.compared);
        self.link = Link::Attached(Attachment { at: Instant::now(), generation, compared });
        Ok(())
    }

    /// Agrees with the store on the salts of sites; those that it refuses.
    pub(super) async fn share_salts(
        &mut self,
        of: impl Fn(&SiteKey) -> bool,
    ) -> Result<Vec<(SiteKey, StoreError)>, FlushError> {
        let in_force = self.in_force.load_full();
        let in_use = |site: &SiteKey| self.serves && in_force.get(site.as_str()).is_some();
        self.salts.share(&*self.store, &self.dir, &self.salted, of, in_use).await
    }

    /// Registers with the data of a site. The place of its data set, and what that is if it was not known.
    pub(super) async fn attach_site(
        &mut self,
        key: &SiteKey,
    ) -> Result<((SiteKey, String), Dataset), FlushError> {
        let dataset = self.dataset(key);
        if dataset.is_none() && self.is_of_another_store() {
            return Err(FlushError::Held(format!(
                "site {key} has no data yet and is not given any where the data of all other sites has vanished; \
                 its views are kept"
            )));
        }
        match self.claim(key, dataset, None).await? {
            (Standing::Other, ..) => Err(FlushError::Held(self.vanished(key))),
            (Standing::Twin, ..) => Err(FlushError::Twin("the mark of another process".to_owned())),
            (Standing::Retired, ..) => Err(FlushError::Retired),
            (Standing::Born | Standing::Ours, id, since) => {
                self.since.insert(key.clone(), since);
                Ok(((key.clone(), self.store.kind().to_owned()), Dataset { id, floor: 0 }))
            }
        }
    }

    /// The sites that are not held, among them those that were attached though they are registered no more. First
    /// those whose data sets are known: they tell whether the store is the one that it was.
    fn to_attach(&self) -> Vec<SiteKey> {
        let all = self.sites.all().map(|site| &site.key).chain(self.since.keys());
        let mut sites: Vec<SiteKey> = all.filter(|site| !self.is_held(site)).cloned().collect();
        sites.sort_by_key(|site| (self.dataset(site).is_none(), site.clone()));
        sites.dedup();
        sites
    }

    /// Whether none of the data sets that were written to is there, as far as is known.
    fn is_of_another_store(&self) -> bool {
        let mut known =
            self.sites.all().map(|site| &site.key).filter(|site| self.dataset(site).is_some()).peekable();
        let has_vanished = |site: &SiteKey| self.held.get(site).is_none_or(|why| *why == self.vanished(site));
        known.peek().is_some() && known.all(|site| self.is_held(site) && has_vanished(site))
    }

    /// What is said of a data set that is not the one that was written to.
    fn vanished(&self, site: &SiteKey) -> String {
        let (last, now) = (self.identity.last_dataset(site).map(|(kind, _)| kind), self.store.kind());
        let where_to = match last {
            Some(last) if last != now => {
                format!("it was in the {last} store, and store.url names {now}; `footfall migrate` copies it")
            }
            _ => "it has vanished, or store.url names another one".to_owned(),
        };
        format!(
            "the data set of site {site} is not the one that was written to: {where_to}; views are kept, nothing is \
             sent. Set store.url right, or say what is meant: `footfall store refill` or `footfall store accept-empty`"
        )
    }

    /// Looks at the settings of the store's server: some refuse it, some are told.
    async fn look_at_settings(&mut self) -> Result<(), FlushError> {
        let concerns = self.store.concerns().await?;
        let refused = concerns.iter().find(|concern| concern.refused).map(|concern| concern.text.clone());
        self.concerns = concerns.into_iter().map(|concern| concern.text).collect();
        refused.map_or(Ok(()), |why| Err(FlushError::Held(format!("{why}; views are kept, nothing is sent"))))
    }

    /// Attaches to the data of a site: how this writer stands to it, its id and its first day.
    pub async fn claim(
        &mut self,
        key: &SiteKey,
        dataset: Option<std::sync::Arc<str>>,
        birth: Option<std::sync::Arc<str>>,
    ) -> Result<(Standing, std::sync::Arc<str>, chrono::NaiveDate), FlushError> {
        let now = self.clock.now();
        let calendar = self.sites.known(key).map(|site| site.calendar.clone());
        let today = self.today()?;
        let (zone, today) = match &calendar {
            Some(calendar) => (calendar.zone.name(), calendar.span(now.unix_ms).hour.day),
            None => ("", today),
        };
        let claim = Claim { dataset, birth, runs: self.identity.runs.clone() };
        let attached = self.store.attach(key, zone, &self.identity.writer, today, &claim).await?;
        if let Some(fork) = attached.fork.filter(|fork| *fork >= self.outbox.next_sequence()) {
            let text =
                format!("{key}: it says that batches up to {fork} are this data_dir's, which never had them");
            return Err(StoreError::refused(text).into());
        }
        self.fork = attached.fork.or(self.fork);
        self.note_pruned(key, attached.pruned);
        Ok((attached.standing, attached.dataset, attached.since))
    }

    /// Takes a new identity: a copy of this directory bears the old one.
    ///
    /// # Errors
    /// Of the file system: nothing has changed.
    pub(super) fn part_ways(
        &mut self,
        found: &str,
        mut on_applied: impl FnMut(&Batch),
    ) -> Result<(), FlushError> {
        // What waits of a site that is held is not applied.
        let applied = self.outbox.held().values().copied().fold(self.outbox.applied(), u64::min);
        let fork = self.fork.unwrap_or(0);
        // Whoever bore the identity until now is to apply what both have, the other leaves it to this one: what the
        // other applied of it before is told by the markers.
        let is_bearer = matches!(self.link, Link::Attached(_) | Link::Verified(_));
        let floor = if is_bearer { 0 } else { fork };
        let former = self.begin_anew(floor, Change::Twin { fork })?;
        for sequence in applied + 1..=floor {
            if let Some(batch) = self.outbox.get(sequence)? {
                on_applied(&batch.only(|site| sequence > self.outbox.applied_to(site)));
            }
        }
        self.outbox.leave_to_another(floor);
        tracing::warn!(
            former = &*former.0,
            writer = &*self.identity.writer.0,
            found,
            fork,
            "another process bears the identity of this data_dir, which was copied: this one takes a new \
             identity; views that were in no batch when it was copied are counted by both"
        );
        Ok(())
    }

    /// Takes a new identity: the old one was retired, and nobody else applies what it left.
    ///
    /// # Errors
    /// Of the file system: nothing has changed.
    pub(super) fn come_back(&mut self) -> Result<(), FlushError> {
        let former = self.begin_anew(0, Change::Retired { last: self.outbox.next_sequence() - 1 })?;
        tracing::warn!(
            former = &*former.0,
            writer = &*self.identity.writer.0,
            "the writer of this data_dir was retired: it goes on as another one with what is not applied"
        );
        Ok(())
    }

    fn begin_anew(&mut self, floor: u64, change: Change) -> std::io::Result<WriterId> {
        let (kind, outbox) = (self.store.kind(), &self.outbox);
        let applied_to = |of: &str, site: &SiteKey| if of == kind { outbox.applied_to(site) } else { 0 };
        let former = self.identity.begin_anew(&self.dir, floor, applied_to, change)?;
        self.last_parts.retain(|hash, last| last.sequence > self.identity.floor_of(kind, &hash.site));
        (self.fork, self.link) = (None, Link::Away);
        self.metrics.healing.twins.inc();
        Ok(former)
    }

    /// Repeats, under this identity, the markers of parts after the floor that were applied under those
    /// before: they are not sent again. Of a site that is held it is done when that is no more.
    async fn settle_left(&mut self) -> Result<(), FlushError> {
        let written = self.after_the_floor(|site| !self.is_held(site))?;
        for of_site in written.chunk_by(|(a, _), (b, _)| a.site == b.site) {
            let settled = self.repeat_markers(of_site).await;
            if let Some((HashName { site, .. }, _)) = of_site.first() {
                self.or_held(site, settled)?;
            }
        }
        // Where it was done already, it does nothing.
        if self.outbox.held().is_empty() {
            self.identity.change(&self.dir, |anew| anew.superseded.clear())?;
        }
        Ok(())
    }

    /// The same for one site.
    pub(super) async fn settle_site(&self, site: &SiteKey) -> Result<(), FlushError> {
        let written = self.after_the_floor(|key| key == site)?;
        self.repeat_markers(&written).await
    }

    /// The hashes of sites that batches after the floor write to; none where this was nobody else.
    fn after_the_floor(&self, of: impl Fn(&SiteKey) -> bool) -> std::io::Result<Vec<Written>> {
        let (mut hashes, kind) = (BTreeMap::<_, Vec<PartId>>::new(), self.store.kind());
        let first = self.outbox.first_kept().unwrap_or(0).max(self.identity.floor + 1);
        let all = if self.identity.superseded.is_empty() { 0..0 } else { first..self.outbox.next_sequence() };
        for sequence in all {
            let Some(batch) = self.outbox.get(sequence)? else { continue };
            let is_due = |site: &SiteKey| of(site) && sequence > self.identity.floor_of(kind, site);
            for part in batch.only(is_due).parts() {
                hashes.entry(part.hash).or_default().push(part.id);
            }
        }
        Ok(hashes.into_iter().collect())
    }

    /// Repeats the markers of a site's hashes.
    async fn repeat_markers(&self, written: &[Written]) -> Result<(), FlushError> {
        let Some((HashName { site, .. }, _)) = written.first() else { return Ok(()) };
        let names: Vec<HashName> = written.iter().map(|(hash, _)| hash.clone()).collect();
        for (left, same) in self.identity.superseded.iter().rev() {
            let progress = self.store.progress(site, left).await?;
            let found: HashMap<HashName, PartId> = match &progress {
                Some(progress) => progress.markers.iter().cloned().collect(),
                None => {
                    let found = self.markers(left, &names).await?.into_iter();
                    found.filter_map(|(hash, id)| Some((hash, id?))).collect()
                }
            };
            let whole = progress.map_or(0, |progress| progress.whole).min(*same);
            let part = |(hash, ids): &Written| {
                let last_up_to = |sequence| ids.iter().rfind(|id| id.sequence <= sequence).copied();
                let id = match found.get(hash).copied() {
                    Some(id) if ids.contains(&id) => id,
                    // One from after the fork is the other's, who had applied all that both have before.
                    Some(id) if id.sequence > *same => last_up_to(*same)?,
                    Some(_) => return None,
                    None => last_up_to(whole)?,
                };
                let (hash, sums, entries) = (hash.clone(), Vec::new(), Vec::new());
                Some(Part { hash, prev: None, id, sums, entries, revision: None })
            };
            // Where this was done before, the hash bears that marker or a later one: nothing is written.
            let parts = written.iter().filter_map(part).collect();
            self.store.apply(&self.identity.writer, parts, Vec::new()).await?;
        }
        Ok(())
    }

    /// Removes the markers of writers that this directory was and is no more; again and again while a site is held.
    async fn retire_former(&mut self) -> Result<(), FlushError> {
        let today = self.today()?;
        for former in self.identity.to_retire.clone() {
            for site in self.not_held() {
                let retired = self.store.retire(&site.key, std::slice::from_ref(&former), today).await;
                self.or_held(&site.key, retired.map_err(FlushError::Store))?;
            }
        }
        if self.outbox.held().is_empty() {
            self.identity.change(&self.dir, |anew| anew.to_retire.clear())?;
        }
        Ok(())
    }

    /// Removes the markers of writers that were not seen for long, some at a time: instances that came and went
    /// without being drained must not fill the hashes. One that lives attaches each minute, whatever the store's clock
    /// says then.
    async fn retire_long_gone(&mut self) -> Result<(), FlushError> {
        self.instances = 0;
        for site in self.not_held() {
            let known = self.store.writers(&site.key).await.map_err(FlushError::Store);
            let Some(known) = self.or_held(&site.key, known)? else { continue };
            let Some(now_s) = self.own_seen(&known) else { continue };
            let lives = |(writer, seen): &&(WriterId, i64)| {
                *writer != self.identity.writer && now_s.saturating_sub(*seen) <= LIVES_S
            };
            self.instances = self.instances.max(known.iter().filter(lives).count());
            let (now_ms, before) =
                (self.clock.now().uptime_ms, self.gone.remove(&site.key).unwrap_or_default());
            let seems_gone = |(_, seen): &(WriterId, i64)| now_s.saturating_sub(*seen) > GONE_S;
            let since = |seen| (before.get(&seen).copied().unwrap_or(now_ms), seen);
            let watched: Vec<_> = known.into_iter().filter(seems_gone).map(since).collect();
            let is_due = |since: u64| now_ms.saturating_sub(since) >= WATCHED_MS;
            let gone =
                watched.iter().filter(|(since, _)| is_due(*since)).map(|(_, (writer, _))| writer.clone());
            let gone: Vec<WriterId> = gone.take(GONE_AT_A_TIME).collect();
            self.gone
                .insert(site.key.clone(), watched.into_iter().map(|(since, seen)| (seen, since)).collect());
            if !gone.is_empty() {
                let removed = self.store.retire(&site.key, &gone, self.today()?).await;
                let removed = self.or_held(&site.key, removed.map_err(FlushError::Store))?;
                tracing::info!(writers = gone.len(), removed, site = %site.key, "writers that are long gone are retired");
                // It takes the longer, the older a site is: the others follow when the store is attached next.
                break;
            }
        }
        Ok(())
    }

    /// When this writer was last seen, of those that a store knows: its clock, by which all of them are seen.
    pub(super) fn own_seen(&self, known: &[(WriterId, i64)]) -> Option<i64> {
        known.iter().find(|(writer, _)| *writer == self.identity.writer).map(|(_, seen)| *seen)
    }

    /// The day, to within one that a zone may be ahead or behind.
    ///
    /// # Errors
    /// Held where the clock is wrong: the data of a site would for ever begin on a day that nobody counted.
    pub fn today(&self) -> Result<chrono::NaiveDate, FlushError> {
        match clock_fault(&self.clock) {
            None => Ok(crate::calendar::Calendar::utc().span(self.clock.now().unix_ms).hour.day),
            Some(why) => Err(FlushError::Held(format!("{why}; views are kept, nothing is sent"))),
        }
    }
}
