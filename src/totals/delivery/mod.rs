//! Batches reach the store, each exactly once: through the [`outbox`], under an [`identity`] that the store
//! knows ([`attach`]), by the markers that its hashes bear ([`apply`]).
//!
//! It reports by what it returns and knows nothing of who counts, or of who reads what is stored.

pub mod apply;
pub mod attach;
mod calendars;
mod decide;
pub mod identity;
pub mod outbox;
pub mod salts;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use tokio::time::Instant;

use self::apply::{Flush, FlushError};
use self::identity::Identity;
use self::outbox::Outbox;
use self::salts::{Salts, Today};
use crate::clock::Clock;
use crate::metrics::{Metrics, Operation};
use crate::sites::{Registry, Site, SiteKey, Sites};
use crate::totals::batch::part::{HashName, LastParts, PartId};
use crate::totals::batch::{Batch, Frozen};
use crate::totals::disk::dir::DataDir;
use crate::totals::disk::fatal::die;
use crate::totals::disk::log::{AppendError, Position};
use crate::totals::disk::losses::Losses;
use crate::totals::store::contract::{Marker, Query, Store, StoreError, WriterId};

/// How often a store that answers is attached anew and every hash compared: nothing else would show that it
/// went back where no batch comes any more, and others are told that this writer lives.
const ATTACH_ANEW: Duration = Duration::from_secs(60);

/// The longest wait between two tries to reach a store.
const BACK_OFF: Duration = Duration::from_secs(2);

/// Hashes compared in one call of the store.
const HASHES_AT_A_TIME: usize = 1000;

/// How this directory's writer stands to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Not attached: nothing was tried yet, what it was attached to has changed, or the store does not answer.
    Away,
    /// The store refuses, or holds another data set: that does not pass by itself. It is tried all the same.
    Held(String),
    /// Attached; a hash may have gone back unnoticed.
    Attached(Attachment),
    /// Attached, and every hash that the outbox can heal bears what was last applied to it.
    Verified(Attachment),
}

/// When the store was attached, and which connection to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    at: Instant,
    generation: u64,
}

/// When the store is to be tried again.
#[derive(Default)]
struct BackOff {
    failures: u32,
    until: Option<Instant>,
}

/// What brings batches to the store, and all that it must know for it.
pub struct Delivery {
    pub store: Store,
    pub identity: Identity,
    pub outbox: Outbox,
    pub last_parts: LastParts,
    salts: Salts,
    dir: Arc<DataDir>,
    /// The sites in force or about to be, and those that were removed: what waits of them is applied too.
    pub sites: Arc<Sites>,
    in_force: Arc<Registry>,
    link: Link,
    back_off: BackOff,
    /// Batches up to this one are a twin's too, if there is one.
    fork: Option<u64>,
    /// A hash was lost, and the data set found to be ours: it is healed from the outbox.
    refills: bool,
    /// The first civil day that each site's data set knows.
    since: HashMap<SiteKey, NaiveDate>,
    /// The days that salts are drawn for.
    salted: Vec<Today>,
    /// Visitors of running days are told apart by the salts that were drawn.
    pub serves: bool,
    calendars_noted: bool,
    /// The batch added last, if it is the next to be sent: saves reading it back.
    fresh: Option<Batch>,
    /// What in the settings of the store's server endangers counts.
    pub concerns: Vec<String>,
    clock: Clock,
    metrics: Arc<Metrics>,
    losses: Arc<Losses>,
}

/// What a start read back, for [`Delivery::new`].
pub struct Parts {
    pub dir: Arc<DataDir>,
    pub identity: Identity,
    pub outbox: Outbox,
    pub last_parts: LastParts,
    pub salts: Salts,
    pub sites: Arc<Registry>,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub losses: Arc<Losses>,
}

impl Delivery {
    /// Begins a run of this directory's writer on a store.
    pub fn new(parts: Parts, store: Store) -> io::Result<Self> {
        let Parts { dir, mut identity, outbox, mut last_parts, salts, sites, clock, metrics, losses } = parts;
        identity.begin_run(&dir, outbox.next_sequence() - 1)?;
        let kind = store.kind();
        last_parts.retain(|hash, last| last.sequence > identity.floor_of(kind, &hash.site));
        Ok(Delivery {
            store,
            identity,
            outbox,
            last_parts,
            salts,
            dir,
            sites: sites.load_full(),
            in_force: sites,
            link: Link::Away,
            back_off: BackOff::default(),
            fork: None,
            refills: false,
            since: HashMap::new(),
            salted: Vec::new(),
            serves: false,
            calendars_noted: false,
            fresh: None,
            concerns: Vec::new(),
            clock,
            metrics,
            losses,
        })
    }

    /// Whether the last try failed.
    pub fn is_failing(&self) -> bool {
        self.back_off.failures > 0
    }

    /// Why nothing is sent until somebody acts.
    pub fn held(&self) -> Option<&str> {
        if let Link::Held(why) = &self.link { Some(why) } else { None }
    }

    /// Whether the store is verified on the connection that answers now: nothing is dropped on the word of a
    /// server that has not been looked at.
    pub fn is_verified(&self) -> bool {
        matches!(&self.link, Link::Verified(attached) if attached.generation == self.store.generation())
    }

    /// Whether what is read is what was applied: in between a batch may have been applied whose answer was
    /// lost.
    pub fn is_whole(&self) -> bool {
        matches!(self.link, Link::Verified(_)) && self.outbox.waiting() == 0
    }

    /// The first civil day that a site's data set knows.
    pub fn since(&self, site: &SiteKey) -> Option<NaiveDate> {
        self.since.get(site).copied()
    }

    /// The next try to reach the store need not wait.
    pub fn retry_now(&mut self) {
        self.back_off.until = None;
    }

    /// Whether the store may be tried now.
    pub fn may_try(&self) -> bool {
        self.back_off.until.is_none_or(|until| Instant::now() >= until)
    }

    /// The store is attached anew before anything more is sent.
    pub fn attach_anew(&mut self) {
        if self.held().is_none() {
            self.link = Link::Away;
        }
    }

    /// Other sites are in force or about to be.
    pub fn replace_sites(&mut self, sites: Arc<Sites>) {
        self.sites = sites;
        self.calendars_noted = false;
    }

    /// Makes a batch of pending sums, and makes it durable. It waits until the journal is synced as far as they
    /// reach: the store must never be ahead of what a power cut leaves there.
    ///
    /// # Errors
    /// The sums, where the outbox cannot be written: views stay in the journal.
    pub fn add(&mut self, frozen: Frozen) -> Result<Position, Frozen> {
        let tag = u64::from_le_bytes(crate::random::bytes());
        let mut last_parts = self.last_parts.clone();
        let (sequence, clock_ms) = (self.outbox.next_sequence(), self.outbox.clock_ms());
        let batch = Batch::freeze(sequence, tag, clock_ms, frozen, &mut last_parts);
        match self.outbox.add(&batch) {
            Ok(()) => {
                let reach = batch.reach;
                self.last_parts = last_parts;
                self.fresh = Some(batch);
                Ok(reach)
            }
            Err(AppendError::Undone(error)) => {
                tracing::warn!(%error, "the outbox cannot be written; views stay in the journal");
                Err(batch.thaw())
            }
            Err(AppendError::Unknown(error)) => die(&format!("the outbox cannot be written: {error}")),
        }
    }

    /// Draws the salts of days that have come. Whether any day had.
    pub fn draw_salts(&mut self) -> bool {
        let now = self.clock.now();
        let day = |site: &Arc<Site>| Today {
            id: site.id,
            site: site.key.clone(),
            day: site.calendar.span(now.unix_ms).hour.day,
        };
        let days: Vec<Today> = self.sites.all().map(day).collect();
        if days == self.salted {
            return false;
        }
        if let Err(error) = self.salts.draw(&self.dir, &days) {
            tracing::warn!(%error, "the salts cannot be written: a restart would begin sessions anew");
        }
        self.salted = days;
        // New ones are shared with the next attach.
        self.attach_anew();
        true
    }

    /// Brings waiting batches to the store, which then holds what the outbox does; `on_applied` is given each.
    /// Whether the calendar of a site had changed, so that stored figures have too.
    ///
    /// # Errors
    /// See [`FlushError`]; [`Delivery::recover`] may mend it.
    pub async fn bring(&mut self, mut on_applied: impl FnMut(&Batch)) -> Result<bool, FlushError> {
        if !self.is_attached() {
            self.attach().await?;
        }
        if !matches!(self.link, Link::Verified(_)) {
            self.verify().await?;
        }
        while let Some((sequence, _)) = self.outbox.next_waiting() {
            let fresh = self.fresh.take().filter(|batch| batch.sequence == sequence);
            let batch = match fresh {
                Some(batch) => Some(batch),
                None => self.outbox.get(sequence)?,
            };
            if let Some(batch) = batch {
                let whole = self.flush().apply(&batch).await?;
                self.found(whole);
                let kind = self.store.kind();
                on_applied(&batch.above(|site| self.identity.floor_of(kind, site)));
            }
            self.outbox.set_applied(sequence);
        }
        if !matches!(self.link, Link::Verified(_)) {
            self.verify().await?;
        }
        self.settle()?;
        self.note_calendars().await
    }

    /// What can be done about a failure at once: the batches that are found to be a twin's are given to
    /// `on_applied`.
    ///
    /// # Errors
    /// The failure, where only time or a person helps.
    pub async fn recover(
        &mut self,
        failure: FlushError,
        on_applied: impl FnMut(&Batch),
    ) -> Result<(), FlushError> {
        match failure {
            FlushError::Twin(found) => self.part_ways(&found, on_applied),
            FlushError::Store(StoreError::Detached) => {
                self.link = Link::Away;
                Ok(())
            }
            FlushError::Lost(hash) if !self.refills => {
                tracing::warn!(hash, "a hash of the store has lost this writer's marker");
                // Is the data set still ours? Then the hash is healed.
                self.attach().await?;
                self.refills = true;
                Ok(())
            }
            failure => Err(failure),
        }
    }

    /// Notes how a try ended: when it failed, the next one waits.
    pub fn ended(&mut self, ended: &Result<(), FlushError>) {
        self.refills = false;
        let Err(error) = ended else {
            if self.back_off.failures > 0 {
                tracing::info!("the store answers again; everything is applied");
            }
            self.back_off = BackOff::default();
            return;
        };
        if self.back_off.failures == 0 {
            tracing::warn!(%error, "the store cannot be brought up to date; views are kept and sent later");
        }
        let failures = self.back_off.failures + 1;
        let wait = Duration::from_millis(100 << failures.min(6)).min(BACK_OFF);
        self.back_off = BackOff { failures, until: Some(Instant::now() + wait) };
        match error {
            FlushError::Held(_) | FlushError::Store(StoreError::Refused(_)) => {
                self.link = Link::Held(error.to_string());
            }
            _ => self.attach_anew(),
        }
    }

    /// Compares what hashes bear, as it was read, with the last parts that were applied to them, and heals those
    /// that went back. Whether none had: else what was read is not to be believed.
    pub async fn check(&mut self, found: &[(HashName, Option<Marker>)]) -> Result<bool, FlushError> {
        let whole = self.flush().check(&self.last_parts, found).await?;
        self.found(whole);
        Ok(whole)
    }

    fn is_attached(&self) -> bool {
        let (Link::Attached(to) | Link::Verified(to)) = &self.link else { return false };
        to.at.elapsed() < ATTACH_ANEW && to.generation == self.store.generation()
    }

    /// Whether a look at hashes found all as they were left.
    fn found(&mut self, whole: bool) {
        if let (false, Link::Verified(attached)) = (whole, &self.link) {
            self.link = Link::Attached(*attached);
        }
    }

    /// Compares every hash that the outbox can heal: a store that went back in time has lost also what
    /// no later batch will touch, the hours and days that are over.
    async fn verify(&mut self) -> Result<(), FlushError> {
        let (first, applied) = (self.outbox.first_sequence().unwrap_or(u64::MAX), self.outbox.applied());
        let kept = |(_, last): &(&HashName, &PartId)| (first..=applied).contains(&last.sequence);
        let mut hashes: Vec<HashName> =
            self.last_parts.iter().filter(kept).map(|(hash, _)| hash.clone()).collect();
        // In order, so that a run of the simulation can be had again.
        hashes.sort_unstable();
        for some in hashes.chunks(HASHES_AT_A_TIME) {
            let bears = self.markers(&self.identity.writer, some).await?;
            self.flush().check(&self.last_parts, &bears).await?;
        }
        if let Link::Attached(attached) = self.link {
            self.link = Link::Verified(attached);
        }
        Ok(())
    }

    /// What hashes bear now of a writer.
    async fn markers(
        &self,
        writer: &WriterId,
        hashes: &[HashName],
    ) -> Result<Vec<(HashName, Option<Marker>)>, FlushError> {
        let query = |hash: &HashName| Query { hash: hash.clone(), fields: Vec::new() };
        let found = self.store.read(writer, hashes.iter().map(query).collect());
        let found = self.metrics.store.watch(Operation::Read, found).await?;
        Ok(hashes.iter().cloned().zip(found.into_iter().map(|found| found.marker)).collect())
    }

    /// Notes that this kind of store holds all that the outbox can bring to it.
    fn settle(&mut self) -> io::Result<()> {
        let kind = self.store.kind();
        if self.identity.settled.as_deref() == Some(kind) {
            return Ok(());
        }
        self.identity.settled = Some(kind.to_owned());
        self.identity.save(&self.dir)
    }

    async fn note_calendars(&mut self) -> Result<bool, FlushError> {
        if self.calendars_noted {
            return Ok(false);
        }
        let changed = calendars::note(&self.store, &self.sites, self.clock.now()).await?;
        self.calendars_noted = true;
        Ok(changed)
    }

    fn flush(&self) -> Flush<'_> {
        Flush {
            store: &self.store,
            writer: &self.identity.writer,
            identity: &self.identity,
            outbox: &self.outbox,
            metrics: &self.metrics,
            losses: &self.losses,
            now_ms: self.clock.now().unix_ms,
            refill: self.refills,
            catching_up: self.identity.settled.as_deref() != Some(self.store.kind()),
        }
    }
}
