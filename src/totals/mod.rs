//! Keeps totals: all that outlives the process.
//!
//! ```text
//! take ─▶ group ─ written to the journal ─▶ ledger (pending) ─ frozen ─▶ outbox ─ applied ─▶ store
//! ```
//!
//! - The event loop owns the [`group`] and writes it ([`journal`]); the [`ledger`] holds what is pending and
//!   the figures shown, under one short lock.
//! - The [`writer`], on a thread of its own, owns the rest: it freezes [`batch`]es into the [`outbox`],
//!   brings them to the [`store`] ([`flush`]) under an identity of its own ([`standing`]), carries out the
//!   [`orders`] of operators, and writes the [`checkpoint`].
//!
//! Files in `data_dir`: `LOCK`, `control.sock`, `writer`, `salts`, `checkpoint`, `losses`, `journal/`,
//! `outbox/`, and `totals.redb` of the embedded store. Their formats are described where they are written.
//! None holds an address or a user agent.

mod batch;
mod delivery;
mod disk;
mod intake;
mod recovery;
mod store;
mod tally;
mod upkeep;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::clock::{Clock, Moment};
use crate::ingest::{Beacon, Page, Reason, SaltTable};
use crate::metrics::{Metrics, Outcome};
use crate::sessions::{Sessions, Sighting};
use crate::sites::{Registry, SiteId};
use disk::log::{AppendError, Position};
use disk::losses::Losses;
use intake::group::{Group, Waiting};
use intake::journal::Journal;
use intake::record;
use tally::Ledger;
use writer::answers::{Load, Wanted};
use writer::decisions::Asked;
use writer::sites::Registration;

pub use batch::part::Sums;
pub use intake::group::Written;
pub use recovery::OpenError;
pub use store::check_authorities;
pub use store::contract::{StoreConfig, StoreError};
pub use store::url::{StoreUrl, UrlFault, without_secret};
pub use tally::pages::PageFigures;
pub use tally::recent::Past;
pub use tally::running::Figures;
pub use upkeep::audit::{Audit, Disagreement};
pub use writer::decisions::{Answer, Order};
pub use writer::jobs::{Copying, audit_of, migrate, restore};

/// When an accepted view is safe: what a 204 promises (G1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Written before the answer, synced every second: survives the death of the process.
    EverySecond,
    /// Synced before the answer: survives a power cut.
    Always,
    /// No journal.
    Memory,
}

/// Settings of the journal.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// What a 204 promises.
    pub sync: Sync,
    /// Refuse views once the oldest unsynced one is this old.
    pub max_unsynced: Duration,
    /// Refuse views once the journal holds this many bytes.
    pub max_bytes: u64,
}

/// Settings of the outbox.
#[derive(Clone, Debug)]
pub struct OutboxConfig {
    /// Keep applied batches this long.
    pub retention: Duration,
    /// But no more than this many bytes; unapplied batches are never dropped.
    pub max_bytes: u64,
}

/// Settings of the totals.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where journal, outbox, checkpoint, salts and the embedded store live.
    pub data_dir: PathBuf,
    /// The journal.
    pub journal: JournalConfig,
    /// The outbox.
    pub outbox: OutboxConfig,
    /// The store.
    pub store: StoreConfig,
    /// Most pages of a site in memory; views of further ones count in `(other)`.
    pub max_pages: usize,
    /// Most view ids remembered.
    pub max_ids: usize,
    /// Time between checkpoints of sessions, ids and known totals.
    pub checkpoint_interval: Duration,
}

/// A page whose figures were loaded longer ago is read again from a shared store when it is asked for,
/// monotonic milliseconds.
const PAGE_FRESH_MS: u64 = 30_000;

/// The past of a site that was loaded longer ago is read again when it is asked for, monotonic milliseconds:
/// other instances count too, and other pages may be read most.
const PAST_FRESH_MS: u64 = 10_000;

/// How long a start waits for the store, and sites that are added, before they go on without.
const STORE_PATIENCE: Duration = Duration::from_millis(500);

/// The longest wait for the store to tell of pages.
const LOAD_PATIENCE: Duration = Duration::from_secs(1);

/// Requests for pages that may wait for the writer.
const LOAD_QUEUE: usize = 256;

/// Orders that may wait for the writer.
const ORDER_QUEUE: usize = 16;

/// Whether views can be taken and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Why views are refused; none while they are taken.
    pub refusing: Option<&'static str>,
    /// The store answers and holds what it should.
    pub store_up: bool,
    /// Why nothing is sent to the store until someone acts.
    pub held: Option<String>,
    /// What was lost.
    pub lost: Option<String>,
    /// What in the settings of the store's server endangers counts.
    pub concerns: Vec<String>,
}

/// What the event loop and the writer share.
struct Shared {
    clock: Clock,
    sites: Arc<Registry>,
    metrics: Arc<Metrics>,
    ledger: Mutex<Ledger>,
    /// None where the journal is memory.
    journal: Option<Arc<Journal>>,
    /// The open group has its first view, or somebody waits for it.
    wake: Notify,
    salts: Arc<ArcSwap<SaltTable>>,
    store_up: AtomicBool,
    /// Figures of a day that has begun, or of one that is back, must be read.
    day_turned: AtomicBool,
    held: Mutex<Option<String>>,
    /// Views are taken: it is no command that has opened the totals.
    serves: AtomicBool,
    losses: Losses,
    /// What in the settings of the store's server endangers counts.
    concerns: Mutex<Vec<String>>,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Half a change to the sums is worse than a restart, which reads the journal.
        self.ledger.lock().unwrap_or_else(|_| die("a panic left the ledger half changed"))
    }

    /// The past of a site as it is known, and whether it is old.
    fn past(&self, site: SiteId, now: Moment) -> Option<(Past, bool)> {
        let (past, loaded_ms) = self.ledger().past(site, now)?;
        Some((past, now.uptime_ms.saturating_sub(loaded_ms) >= PAST_FRESH_MS))
    }

    fn held(&self) -> Option<String> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hold(&self, reason: Option<String>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = reason.as_ref().filter(|_| *held != reason) {
            tracing::error!(reason, "the flush is held");
        }
        self.metrics.healing.flush_held.set(reason.is_some().into());
        *held = reason;
    }

    fn concerns(&self) -> Vec<String> {
        self.concerns.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what endangers counts in the store's settings, and says what is new.
    fn be_concerned(&self, fresh: Vec<String>) {
        let mut concerns = self.concerns.lock().unwrap_or_else(PoisonError::into_inner);
        for concern in fresh.iter().filter(|concern| !concerns.contains(concern)) {
            tracing::warn!(concern, "a setting of the store endangers counts");
        }
        self.metrics.healing.concerns.set(fresh.len() as i64);
        *concerns = fresh;
    }

    fn set_store_up(&self, up: bool) {
        self.store_up.store(up, Ordering::Release);
        self.metrics.store_up.set(up.into());
    }

    fn take_day_turned(&self) -> bool {
        self.day_turned.swap(false, Ordering::AcqRel)
    }
}

/// Whether a process uses a data directory now.
pub fn is_in_use(data_dir: &Path) -> bool {
    disk::dir::DataDir::is_in_use(data_dir)
}

/// The totals: the only face of everything durable.
pub struct Totals {
    shared: Arc<Shared>,
    sessions: Arc<Sessions>,
    loads: mpsc::Sender<Load>,
    orders: mpsc::Sender<Asked>,
    registrations: mpsc::Sender<Registration>,
    reloads: bool,
    end: Mutex<Option<(oneshot::Sender<Duration>, oneshot::Receiver<()>)>>,
}

impl Totals {
    /// Opens everything in `data_dir`, reads back what the last process left, and starts the writer. The
    /// store need not be up.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        config: Config,
        clock: Clock,
        sites: Arc<Registry>,
        sessions: Arc<Sessions>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Totals>, OpenError> {
        recovery::open(config, clock, sites, sessions, metrics).await
    }

    /// Says that views are about to be taken.
    pub fn will_serve(&self) {
        self.shared.serves.store(true, Ordering::Release);
    }

    /// Takes a view into the open group. It is counted, or nothing of it is, when what is returned
    /// resolves; a repeated `id` resolves too, and counts nothing anew.
    ///
    /// # Errors
    /// `journal-full` or `overloaded`: the promise of a 204 cannot be kept now.
    pub fn take(&self, view: Beacon) -> Result<Written, Reason> {
        if let Some(journal) = &self.shared.journal {
            journal.admits(view.at)?;
        }
        let (written, first) = self.shared.ledger().push(view);
        if first {
            self.shared.wake.notify_one();
        }
        Ok(written)
    }

    /// Owns the open group: writes it once a turn of the event loop, and ends it. Runs on the event loop
    /// until it is dropped, when nobody waits for a group any more.
    pub async fn commit_groups(&self) {
        loop {
            self.shared.wake.notified().await;
            loop {
                let taken = self.shared.ledger().take_group();
                let Some((group, repeated)) = taken else { break };
                self.commit(group, repeated).await;
            }
        }
    }

    /// Decides the visits of a group, writes it, and counts it or undoes it.
    async fn commit(&self, mut group: Group, repeated: u64) {
        let views = group.views.iter().map(|Waiting { view, .. }| (view.visitor, &view.page));
        // Looking is all that is wanted of it.
        std::hint::black_box(self.sessions.look_ahead(views));
        let sites = self.shared.sites.load_full();
        for Waiting { view, visit } in &mut group.views {
            let sighting = self.sessions.observe(view.visitor, view.site, &view.page, view.at);
            *visit = sighting == Sighting::Visit;
            if let Some(site) = sites.at(view.site) {
                record::encode(&mut group.records, site.key.as_str(), view, *visit);
            }
        }
        let views = group.views.len() as u64;
        match self.write(&mut group).await {
            Ok(end) => {
                let done = self.shared.ledger().fold(group, end);
                self.shared.metrics.beacons(Outcome::Counted, views);
                self.shared.metrics.beacons(Outcome::Repeated, repeated);
                done.finish(Ok(()));
            }
            Err(AppendError::Undone(error)) => {
                tracing::warn!(%error, views, "a group could not be written and is undone");
                self.shared.metrics.journal_write_errors.inc();
                let (done, uncounted) = self.shared.ledger().undo(group);
                uncounted.into_iter().for_each(|visitor| self.sessions.uncount(visitor));
                use std::io::ErrorKind::{FileTooLarge, StorageFull};
                let full = matches!(error.kind(), StorageFull | FileTooLarge);
                done.finish(Err(if full { Reason::JournalFull } else { Reason::Overloaded }));
            }
            Err(AppendError::Unknown(error)) => die(&format!("the journal cannot be written: {error}")),
        }
    }

    /// Writes a group, and syncs it as configured. Where the journal goes on after it, if there is one.
    async fn write(&self, group: &mut Group) -> Result<Option<Position>, AppendError> {
        let Some(journal) = self.shared.journal.as_ref().filter(|_| !group.views.is_empty()) else {
            return Ok(None);
        };
        let now_ms = self.shared.clock.now().uptime_ms;
        let end = journal.write(&mut group.records, now_ms)?;
        if journal.mode() == Sync::Always {
            journal.synced_to(end).await;
        }
        Ok(Some(end))
    }

    /// To be called once a second on the event loop.
    pub fn tick(&self, now: Moment) {
        if let Some(journal) = &self.shared.journal {
            journal.ask_sync();
        }
        self.shared.ledger().ids.turn(now.uptime_ms);
    }

    /// The salts in force.
    pub fn salts(&self) -> Guard<Arc<SaltTable>> {
        self.shared.salts.load()
    }

    /// Looks at the running figures of a site and its pages, all of one instant.
    pub fn look(&self, site: SiteId, now: Moment) -> Look<'_> {
        Look { totals: self, ledger: self.shared.ledger(), site, now }
    }

    /// The running figures of a site.
    pub fn figures(&self, site: SiteId, now: Moment) -> Figures {
        self.look(site, now).figures()
    }

    /// The running figures of a page, if they are known without asking the store.
    pub fn page(&self, page: &Page, site: SiteId, now: Moment) -> Option<PageFigures> {
        self.look(site, now).page(page)
    }

    /// Asks the store for the figures of a site; what it does not answer in time stays unknown.
    pub async fn load_figures(&self, site: SiteId) {
        if let Some(done) = self.ask(site, Wanted::Figures) {
            tokio::time::timeout(LOAD_PATIENCE, done).await.ok();
        }
    }

    /// Asks the store for pages; what it does not answer in time stays unknown.
    pub async fn load_pages(&self, site: SiteId, pages: Vec<Page>) {
        if self.stale() || pages.is_empty() {
            return;
        }
        if let Some(done) = self.ask(site, Wanted::Pages(pages)) {
            tokio::time::timeout(LOAD_PATIENCE, done).await.ok();
        }
    }

    /// The hours, days and most-read pages of a site, if they are known without asking the store. `old`:
    /// they should be loaded anew.
    pub fn past(&self, site: SiteId, now: Moment) -> Option<(Past, bool)> {
        self.shared.past(site, now)
    }

    /// Asks the store for the past of a site and the figures of the pages it names; what it does not answer
    /// in time stays as it is known.
    pub async fn load_past(&self, site: SiteId) {
        if self.stale() {
            return;
        }
        if let Some(done) = self.ask(site, Wanted::Past) {
            tokio::time::timeout(LOAD_PATIENCE, done).await.ok();
        }
    }

    fn ask(&self, site: SiteId, wanted: Wanted) -> Option<oneshot::Receiver<()>> {
        let (done, answered) = oneshot::channel();
        // A full queue sheds the newcomer.
        self.loads.try_send(Load { site, wanted, done }).ok().map(|()| answered)
    }

    /// Whether the figures shown are the last known, the store being out of reach.
    pub fn stale(&self) -> bool {
        !self.shared.store_up.load(Ordering::Acquire)
    }

    /// Whether views can be taken and kept.
    pub fn health(&self) -> Health {
        let now = self.shared.clock.now();
        // Asking sheds no newcomer, so it is not counted as one.
        let reached = self.shared.journal.as_ref().and_then(|journal| journal.reached(now));
        let refusing = reached.map(|(_, reason)| reason.code());
        Health {
            refusing,
            store_up: !self.stale(),
            held: self.shared.held(),
            lost: self.shared.losses.summary(),
            concerns: self.shared.concerns(),
        }
    }

    /// Stops: brings what it can to the store within `patience`, writes a checkpoint and lets go of the
    /// data directory. No view may be on its way any more.
    pub async fn stop(&self, patience: Duration) {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((stop, stopped)) = end
            && stop.send(patience).is_ok()
        {
            // It ends without a word only if it panicked, which has been said.
            stopped.await.ok();
        }
    }
}

/// A look at the running figures of a site. Nothing is counted while it is held: it is to be let go of at
/// once.
pub struct Look<'a> {
    totals: &'a Totals,
    ledger: MutexGuard<'a, Ledger>,
    site: SiteId,
    now: Moment,
}

impl Look<'_> {
    /// The site's figures are the same while this number is. It never comes again in a process.
    pub fn revision(&mut self) -> u64 {
        self.ledger.revision(self.site, self.now)
    }

    /// The figures of the site.
    pub fn figures(&mut self) -> Figures {
        let figures = self.ledger.figures(self.site, self.now);
        if figures.views[0].is_none() {
            self.totals.shared.day_turned.store(true, Ordering::Release);
        }
        figures
    }

    /// The figures of a page, if they are known without asking the store. Where other instances count too,
    /// old ones are asked for anew, for the next reader.
    pub fn page(&mut self, page: &Page) -> Option<PageFigures> {
        let (figures, loaded_ms) = self.ledger.page(self.site, page, self.now)?;
        let old = || self.now.uptime_ms.saturating_sub(loaded_ms) > PAGE_FRESH_MS;
        if self.totals.reloads && old() && !self.totals.stale() {
            self.totals.ask(self.site, Wanted::Pages(vec![page.clone()]));
        }
        Some(figures)
    }
}

/// Ends the process where going on could lose or double counts. The journal is complete; the next start
/// reads it.
fn die(why: &str) -> ! {
    tracing::error!("{why}; the process ends, and recovers at the next start");
    // A test lets this thread alone end, as little of the process as can.
    #[cfg(test)]
    std::panic::panic_any(why.to_owned());
    #[cfg(not(test))]
    std::process::abort()
}

/// How many cases a property is tried on: so many, or as many times that as `FOOTFALL_CASES` says.
#[cfg(test)]
fn cases(usually: u32) -> u32 {
    std::env::var("FOOTFALL_CASES").map_or(usually, |times| usually * times.parse::<u32>().expect("a number"))
}
