//! What delivery knows: the store, the writer's identity, what is on its way, and how the writer stands to the store.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use chrono::NaiveDate;
use tokio::time::Instant;

use super::apply::{Flush, FlushError};
use super::identity::Identity;
use super::outbox::Outbox;
use super::salts::{Salts, Today};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::sites::{Registry, SiteKey, Sites};
use crate::totals::batch::Batch;
use crate::totals::batch::part::{HashName, LastParts, PartId};
use crate::totals::disk::dir::DataDir;
use crate::totals::disk::losses::Losses;
use crate::totals::store::contract::{Query, Store, WriterId};

/// How this directory's writer stands to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Not attached: nothing was tried yet, what it was attached to has changed, or the store does not answer.
    Away,
    /// The store refuses, or holds other data sets of every site, or a file of `data_dir` cannot be read or written: that does
    /// not pass by itself. It is tried all the same.
    Held(String),
    /// Attached; a hash may have gone back unnoticed.
    Attached(Attachment),
    /// Attached, and every hash that the outbox can heal bears what was last applied to it.
    Verified(Attachment),
}

/// When the store was attached, and which connection to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub(super) at: Instant,
    pub(super) generation: u64,
    /// When every hash was compared last; none where one has gone back since, or something failed.
    pub(super) compared: Option<Instant>,
}

/// Where to go on in a hash; none at its beginning.
pub(super) type Cursor = Option<String>;

/// When the store is to be tried again.
#[derive(Default)]
pub(super) struct BackOff {
    pub(super) failures: u32,
    pub(super) until: Option<Instant>,
}

/// What brings batches to the store, and all that it must know for it.
pub struct Delivery<S> {
    /// What goes on beside the writer's turns has it, too.
    pub store: Arc<S>,
    pub identity: Identity,
    pub outbox: Outbox,
    pub last_parts: LastParts,
    pub(super) salts: Salts,
    pub(super) dir: Arc<DataDir>,
    /// The sites in force or about to be, and those that were removed: what waits of them is applied too.
    pub sites: Arc<Sites>,
    pub(super) in_force: Arc<Registry>,
    pub(super) link: Link,
    pub(super) back_off: BackOff,
    /// Why sites are held, of those that were tried since the start.
    pub held: BTreeMap<SiteKey, String>,
    /// They are not tried again before.
    pub(super) held_until: Option<Instant>,
    /// Writers of sites that seem to be gone, with when the store says that each was last seen, and since when this
    /// process has found it so; uptime.
    pub(super) gone: HashMap<SiteKey, HashMap<(WriterId, i64), u64>>,
    /// Batches up to this one are a twin's too, if there is one.
    pub(super) fork: Option<u64>,
    /// A hash was lost, and the data set found to be ours: it is healed from the outbox.
    pub(super) refills: bool,
    /// The first civil day that each site's data set knows.
    pub since: HashMap<SiteKey, NaiveDate>,
    /// The day before which each site's pages are pruned, as the store said last.
    pub pruned: HashMap<SiteKey, NaiveDate>,
    /// How far each site's pages were folded, since its pages were pruned up to a day; none where all were.
    pub(super) folding: HashMap<SiteKey, (NaiveDate, Option<Cursor>)>,
    /// The days that salts are drawn for.
    pub(super) salted: Vec<Today>,
    /// Visitors of running days are told apart by the salts that were drawn.
    pub serves: bool,
    /// The store's generation that was told the calendars of `sites`: one that went back may not know them.
    pub calendars_noted: Option<u64>,
    /// Hashes may have been given again what was removed from them: some had gone back, or something failed half way.
    pub may_be_back: bool,
    /// The batch added last, if it is the next to be sent: saves reading it back.
    pub(super) fresh: Option<Batch>,
    /// What in the settings of the store's server endangers counts.
    pub concerns: Vec<String>,
    /// Other writers that the store has seen of late.
    pub instances: usize,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) losses: Arc<Losses>,
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

impl<S: Store> Delivery<S> {
    /// Begins a run of this directory's writer on a store.
    pub fn new(parts: Parts, store: S) -> io::Result<Self> {
        let Parts { dir, mut identity, outbox, mut last_parts, salts, sites, clock, metrics, losses } = parts;
        identity.begin_run(&dir, outbox.next_sequence() - 1)?;
        let kind = store.kind();
        last_parts.retain(|hash, last| last.sequence > identity.floor_of(kind, &hash.site));
        Ok(Delivery {
            store: Arc::new(store),
            identity,
            outbox,
            last_parts,
            salts,
            dir,
            sites: sites.load_full(),
            in_force: sites,
            link: Link::Away,
            back_off: BackOff::default(),
            held: BTreeMap::new(),
            held_until: None,
            gone: HashMap::new(),
            fork: None,
            refills: false,
            since: HashMap::new(),
            pruned: HashMap::new(),
            folding: HashMap::new(),
            salted: Vec::new(),
            serves: false,
            calendars_noted: None,
            may_be_back: false,
            fresh: None,
            concerns: Vec::new(),
            instances: 0,
            clock,
            metrics,
            losses,
        })
    }

    /// The data set of a site that this writer has written to last.
    pub fn dataset(&self, site: &SiteKey) -> Option<Arc<str>> {
        self.identity.last_dataset(site).map(|(_, dataset)| dataset.id.clone())
    }

    /// Whether the last try failed.
    pub fn is_failing(&self) -> bool {
        self.back_off.failures > 0
    }

    /// Why nothing is sent, to any site, until somebody acts.
    pub fn stopped(&self) -> Option<&str> {
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
        if self.stopped().is_none() {
            self.link = Link::Away;
        }
    }

    /// What hashes bear now of a writer.
    pub(super) async fn markers(
        &self,
        writer: &WriterId,
        hashes: &[HashName],
    ) -> Result<Vec<(HashName, Option<PartId>)>, FlushError> {
        let query = |hash: &HashName| Query { hash: hash.clone(), fields: Vec::new() };
        let found = self.store.read(writer, hashes.iter().map(query).collect()).await?;
        Ok(hashes.iter().cloned().zip(found.into_iter().map(|found| found.marker)).collect())
    }

    /// The hashes whose last part is of these batches, in order, so that a run of the simulation can be had again.
    pub(super) fn hashes_of(
        &self,
        batches: RangeInclusive<u64>,
        is_due: impl Fn(&HashName) -> bool,
    ) -> Vec<HashName> {
        let kept = self.last_parts.iter().filter(|(_, last)| batches.contains(&last.sequence));
        let mut hashes: Vec<HashName> =
            kept.map(|(hash, _)| hash).filter(|hash| is_due(hash)).cloned().collect();
        hashes.sort_unstable();
        hashes
    }

    pub(super) fn flush(&self) -> Flush<'_, S> {
        Flush {
            store: &self.store,
            writer: &self.identity.writer,
            identity: &self.identity,
            outbox: &self.outbox,
            metrics: &self.metrics,
            losses: &self.losses,
            pruned: &self.pruned,
            now_ms: self.clock.now().unix_ms,
            refill: self.refills,
            released: None,
            catching_up: self.identity.caught_up_with.as_deref() != Some(self.store.kind()),
        }
    }
}
