//! What the event loop and the writer share, and how the writer stands.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use crate::clock::{Clock, Moment};
use crate::ingest::{Reason, SaltTable};
use crate::metrics::Metrics;
use crate::sites::{Registry, SiteId, SiteKey};
use crate::totals::disk::losses::Losses;
use crate::totals::intake::Intake;
use crate::totals::store::contract::clock_fault;
use crate::totals::tally::recent::Recent;
use crate::totals::tally::{self, Tally};

/// The recent past of a site that was read longer ago is read again when it is asked for, monotonic
/// milliseconds: other instances count too, and other pages may be read most.
const RECENT_FRESH_MS: u64 = 10_000;

/// A page whose figures were fetched longer ago is fetched again from a shared store when it is asked for,
/// monotonic milliseconds.
const PAGE_FRESH_MS: u64 = 30_000;

/// Whether figures of a page that were read then are old.
pub fn is_page_old(loaded_ms: u64, now: Moment) -> bool {
    now.uptime_ms.saturating_sub(loaded_ms) > PAGE_FRESH_MS
}

/// Whether views can be taken and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Why the clock of this machine is wrong, and views are refused; none while it is not.
    pub clock: Option<String>,
    /// Why views are refused otherwise; none while they are taken.
    pub refusing: Option<&'static str>,
    /// The store answers and holds what it should.
    pub store_up: bool,
    /// Why nothing is sent to the store until someone acts.
    pub held: Option<String>,
    /// Sites whose data the store refuses, or some figures of which it does, and why.
    pub troubled: Vec<String>,
    /// What in `data_dir` cannot be written and is tried again.
    pub failing: Option<String>,
    /// The configuration was not taken when it was last read.
    pub not_reloaded: bool,
    /// What was lost.
    pub lost: Option<String>,
    /// What in the settings of the store's server endangers counts.
    pub concerns: Vec<String>,
}

/// A site whose data the store refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Troubled {
    /// Its place, if it has one.
    pub id: Option<SiteId>,
    pub why: String,
}

/// What the event loop and the writer share.
pub struct Shared {
    pub clock: Clock,
    pub sites: Arc<Registry>,
    pub metrics: Arc<Metrics>,
    pub intake: Intake,
    pub tally: Mutex<Tally>,
    pub salts: Arc<ArcSwap<SaltTable>>,
    pub losses: Arc<Losses>,
    /// Figures of a day that has begun, or of one that is back, must be read.
    pub day_turned: AtomicBool,
    /// Views are taken: it is no command that has opened the totals.
    pub serves: AtomicBool,
    pub store: StoreStatus,
}

/// How the writer stands to the store, for those who ask.
#[derive(Default)]
pub struct StoreStatus {
    up: AtomicBool,
    held: Mutex<Option<String>>,
    troubled: ArcSwap<BTreeMap<SiteKey, Troubled>>,
    /// Figures of sites that cannot be read, by what they are, and why.
    unread: Mutex<BTreeMap<(SiteKey, &'static str), String>>,
    concerns: Mutex<Vec<String>>,
    instances: AtomicUsize,
}

impl StoreStatus {
    /// Other instances that count into the store.
    pub fn instances(&self) -> usize {
        self.instances.load(Ordering::Relaxed)
    }

    /// Notes how many there are.
    pub fn note_instances(&self, instances: usize) {
        self.instances.store(instances, Ordering::Relaxed);
    }
}

impl Shared {
    /// The tally, for a moment.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        tally::lock(&self.tally)
    }

    /// The recent past of a site as it is known, and whether it is old.
    pub fn recent(&self, site: SiteId, now: Moment) -> Option<(Recent, bool)> {
        let (recent, read_ms) = self.tally().recent(site, now)?;
        Some((recent, now.uptime_ms.saturating_sub(read_ms) >= RECENT_FRESH_MS))
    }

    /// Whether the store is up to date.
    pub fn store_up(&self) -> bool {
        self.store.up.load(Ordering::Acquire)
    }

    /// Whether the figures of a site are up to date.
    pub fn is_up(&self, site: SiteId) -> bool {
        self.store_up() && !self.store.troubled.load().values().any(|troubled| troubled.id == Some(site))
    }

    /// Notes the sites whose data the store refuses.
    pub fn note_troubled(&self, troubled: BTreeMap<SiteKey, Troubled>) {
        let held = troubled.len().max(self.held().is_some().into());
        self.metrics.healing.flush_held.set(held as i64);
        if **self.store.troubled.load() != troubled {
            self.store.troubled.store(Arc::new(troubled));
        }
    }

    fn unread(&self) -> MutexGuard<'_, BTreeMap<(SiteKey, &'static str), String>> {
        self.store.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes whether some figures of a site can be read; if not, why.
    pub fn note_unread(&self, what: &'static str, site: &SiteKey, why: Option<&String>) {
        let place = (site.clone(), what);
        match why {
            Some(why) => _ = self.unread().insert(place, why.clone()),
            None => _ = self.unread().remove(&place),
        }
    }

    /// Why nothing is sent to the store until someone acts.
    pub fn held(&self) -> Option<String> {
        self.store.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes how the writer stands to the store, and says what is new.
    pub fn note_store(&self, up: bool, held: Option<&str>, concerns: &[String]) {
        self.store.up.store(up, Ordering::Release);
        self.metrics.store_up.set(up.into());
        let mut was_held = self.store.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = held.filter(|_| was_held.as_deref() != held) {
            tracing::error!(reason, "the flush is held");
        }
        *was_held = held.map(str::to_owned);
        let mut known = self.store.concerns.lock().unwrap_or_else(PoisonError::into_inner);
        for concern in concerns.iter().filter(|concern| !known.contains(concern)) {
            tracing::warn!(concern, "a setting of the store endangers counts");
        }
        self.metrics.healing.concerns.set(concerns.len() as i64);
        if *known != concerns {
            *known = concerns.to_vec();
        }
    }

    /// Whether views can be taken and kept.
    pub fn health(&self) -> Health {
        let failing = self.metrics.failing();
        let unread = self.unread();
        let sites = self.sites.load();
        // One may have been removed since.
        let unread = unread.iter().filter(|((site, _), _)| sites.get(site.as_str()).is_some());
        let unread = unread.map(|((site, what), why)| format!("{site}: {what} cannot be shown: {why}"));
        let is_behind = self.clock.was_behind(self.clock.now()).is_some();
        Health {
            clock: is_behind.then(|| clock_fault(&self.clock)).flatten(),
            refusing: self.intake.refusing(self.clock.now()).map(Reason::word),
            store_up: self.store_up(),
            held: self.held(),
            troubled: self
                .store
                .troubled
                .load()
                .iter()
                .map(|(site, of)| format!("{site}: {}", of.why))
                .chain(unread)
                .collect(),
            failing: (!failing.is_empty()).then(|| format!("cannot be written: {}", failing.join(", "))),
            not_reloaded: !self.metrics.is_reloaded(),
            lost: self.losses.summary(),
            concerns: self.store.concerns.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
