//! Keeps totals: all that outlives the process.
//!
//! ```text
//! take ─▶ group ─ written to the journal ─▶ tally (pending) ─ frozen ─▶ outbox ─ applied ─▶ store
//! ```
//!
//! - The event loop takes views and writes them to the journal ([`intake`]); the [`tally`] holds what is
//!   pending and the figures shown, under one short lock.
//! - The [`writer`], on a thread of its own, owns the rest: it freezes [`batch`]es into the outbox,
//!   brings them to the [`store`] ([`delivery`]) under an identity of its own, carries out the orders of
//!   operators, and writes the checkpoint.
//!
//! Files in `data_dir`: `LOCK`, `control.sock`, `writer`, `salts`, `checkpoint`, `losses`, `journal/`,
//! `outbox/`, `totals.redb` of the embedded store, and `export` while one is made. Their formats are described where they are written.
//! None holds an address or a user agent.

mod batch;
mod delivery;
mod disk;
#[cfg(any(test, fuzzing))]
pub mod fuzzed;
mod intake;
mod recovery;
mod store;
mod tally;
mod upkeep;
mod writer;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use arc_swap::Guard;
use tokio::sync::oneshot;

use crate::calendar::CivilHour;
use crate::clock::{Clock, Moment};
use crate::ingest::{Beacon, Page, Reason, SaltTable};
use crate::metrics::{Bound, Metrics, Outcome};
use crate::sessions::Sessions;
use crate::sites::{NoPlace, Registry, SiteId, Sites};
use disk::dir::{DataDir, check_owner, with_remedy};
use tally::Tally;
use writer::mailbox::{Absent, Mailbox, Wanted};
use writer::status::{Shared, is_page_old};

pub use batch::part::Sums;
pub use batch::sketch::Sketch;
pub use delivery::outbox::OutboxConfig;
pub use disk::dir::{give_to_owner, is_in_use, own_user};
pub use intake::group::Written;
pub use intake::ids::REMEMBER_MS;
pub use intake::journal::{JournalConfig, Sync};
pub use store::check_authorities;
pub use store::contract::{StoreConfig, StoreError};
pub use store::url::{HIDDEN, StoreUrl, UrlFault, without_secret};
pub use tally::pages::PageFigures;
pub use tally::recent::Recent;
pub use tally::running::Figures;
pub use upkeep::audit::{Audit, Disagreement};
pub use upkeep::export::Format;
pub use writer::OpenError;
pub use writer::config::Config;
pub use writer::jobs::{audit_of, migrate, other_kind_in_use, restore};
pub use writer::mailbox::{Answer, Job, Order};
pub use writer::rows::{Entering, Intent, MAX_ROWS, Move, Moving, Row, Rows};
pub use writer::status::Health;

/// The longest wait for figures of the store.
const FETCH_PATIENCE: Duration = Duration::from_secs(1);

/// The totals: the only face of everything durable.
pub struct Totals {
    shared: Arc<Shared>,
    sessions: Arc<Sessions>,
    writer: Mailbox,
    reloads: bool,
}

impl Totals {
    /// Opens everything in `data_dir`, reads back what the last process left, and starts the writer. The
    /// store need not be up.
    pub async fn open(
        config: Config,
        clock: Clock,
        sites: Arc<Registry>,
        sessions: Arc<Sessions>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Totals>, OpenError> {
        let reloads = config.store.url.kind() == "redis";
        let path = config.data_dir.display().to_string();
        let files = |error| OpenError::Files(path.clone(), with_remedy(error, Path::new(&path)));
        let dir = DataDir::open(&config.data_dir).map_err(files)?;
        recovery::check_formats(&config, &dir).map_err(files)?;
        let start =
            recovery::read_back(config, dir, clock, sites, sessions.clone(), metrics).map_err(files)?;
        let shared = start.shared.clone();
        let writer = writer::spawn(start).await?;
        Ok(Arc::new(Totals { shared, sessions, writer, reloads }))
    }

    /// Refuses a directory in which this process would make files that its owner cannot use.
    pub fn check_owner(config: &Config) -> Result<(), OpenError> {
        check_owner(&config.data_dir)
            .map_err(|error| OpenError::Files(config.data_dir.display().to_string(), error))
    }

    /// Says that views are about to be taken.
    pub fn will_serve(&self) {
        self.shared.serves.store(true, Ordering::Release);
    }

    /// Takes a view into the open group. It is counted, or nothing of it is, when what is returned
    /// resolves; a repeated `id` resolves too, and counts nothing anew. `clock-wrong`, `journal-full` or `overloaded` where
    /// the promise of a 204 cannot be kept now.
    pub fn take(&self, view: Beacon) -> Result<Written, Reason> {
        self.shared.intake.take(view)
    }

    /// What would become of a beacon that came now; it changes nothing.
    pub fn foretell(&self, beacon: &Beacon) -> Result<Outcome, Reason> {
        self.shared.intake.foretell(beacon)
    }

    /// Counts a view that was left out, in the civil hour of its site. It is in no journal: it goes with the next batch.
    pub fn leave_out(&self, site: SiteId, hour: &CivilHour, reason: Reason, now: Moment) {
        if self.shared.clock.was_behind(now).is_none() {
            self.shared.tally().leave_out(site, hour, reason, now);
        }
    }

    /// Whether a page is in memory: it was counted lately, or the store was found to have it.
    pub fn has_place(&self, site: SiteId, page: &Page) -> bool {
        self.shared.tally().has_place(site, page)
    }

    /// Whether a view with this id was counted in the last minutes.
    pub fn knows(&self, id: u64) -> bool {
        self.shared.intake.ids().knows(id)
    }

    /// Takes a ping or a leave. It waits with the views of its turn; what is returned resolves, however they end, when
    /// the sessions have been told. None: they have been.
    pub fn sign(&self, sign: Beacon) -> Option<Written> {
        self.shared.intake.sign(sign, &self.sessions)
    }

    /// Owns the open group: writes it once a turn of the event loop, and ends it. Runs on the event loop
    /// until it is dropped, when nobody waits for a group any more.
    pub async fn commit_groups(&self) {
        self.shared.intake.commit(&self.sessions, &self.shared.tally).await;
    }

    /// To be called once a second on the event loop.
    pub fn tick(&self, now: Moment) {
        self.shared.intake.tick(now);
    }

    /// The salts in force.
    pub fn salts(&self) -> Guard<Arc<SaltTable>> {
        self.shared.salts.load()
    }

    /// Looks at the running figures of a site and its pages, all of one instant.
    pub fn look(&self, site: SiteId, now: Moment) -> Look<'_> {
        Look { totals: self, tally: self.shared.tally(), site, now, absent: &[] }
    }

    /// The hours, days and most-read pages of a site, if they are known without asking the store; and
    /// whether they are old and should be fetched anew.
    pub fn recent(&self, site: SiteId, now: Moment) -> Option<(Recent, bool)> {
        self.shared.recent(site, now)
    }

    /// Asks the store for the figures of a site, even where it is out of reach.
    pub async fn fetch_figures(&self, site: SiteId) {
        self.fetch(site, Wanted::Figures).await;
    }

    /// Asks the store for pages. Those that it does not have, for [`Look::without`].
    pub async fn fetch_pages(&self, site: SiteId, pages: Vec<Page>) -> Absent {
        match self.stale(site) || pages.is_empty() {
            true => Absent::default(),
            false => self.fetch(site, Wanted::Pages(pages)).await,
        }
    }

    /// Asks the store for the recent past of a site and the figures of the pages it names.
    pub async fn fetch_recent(&self, site: SiteId) {
        if !self.stale(site) {
            self.fetch(site, Wanted::Recent).await;
        }
    }

    /// What the store does not answer in time stays as it is known.
    async fn fetch(&self, site: SiteId, wanted: Wanted) -> Absent {
        let Some(done) = self.ask(site, wanted) else { return Absent::default() };
        let answered = tokio::time::timeout(FETCH_PATIENCE, done).await;
        if answered.is_err() {
            self.shared.metrics.bound(Bound::Loads);
        }
        answered.map(Result::unwrap_or_default).unwrap_or_default()
    }

    fn ask(&self, site: SiteId, wanted: Wanted) -> Option<oneshot::Receiver<Absent>> {
        let asked = self.writer.fetch(site, wanted);
        if asked.is_none() {
            self.shared.metrics.bound(Bound::Loads);
        }
        asked
    }

    /// Whether the figures shown of a site are the last known, the store being out of reach or refusing its data.
    pub fn stale(&self, site: SiteId) -> bool {
        !self.shared.is_up(site)
    }

    /// Other instances that count into the store.
    pub fn instances(&self) -> usize {
        self.shared.store.instances()
    }

    /// Whether views can be taken and kept.
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Resolves when a thread of the totals has ended, with what it did. Before [`Totals::stop`] only a panic ends
    /// one, and then views would be promised that nobody keeps.
    pub async fn ended(&self) -> &'static str {
        let sync_ended = async {
            match &self.shared.intake.journal {
                Some(journal) => journal.sync_ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.writer.ended() => "what writes to the store",
            () = sync_ended => "what syncs the journal",
        }
    }

    /// Shows how much of its bounds is in use, and since when views wait for a turn of the writer, which shows it
    /// otherwise and may not come.
    pub fn show_waiting(&self) {
        let (metrics, intake) = (&self.shared.metrics, &self.shared.intake);
        metrics.used(Bound::Ids, intake.ids().number());
        if let Some(journal) = &intake.journal {
            metrics.used(Bound::Unsynced, journal.unsynced(self.shared.clock.now()).as_secs() as usize);
        }
        let (waiting, most) = self.writer.reads();
        metrics.limit([(Bound::Loads, most as u64)]);
        metrics.used(Bound::Loads, waiting);
        let (bound_pages, oldest_ms) = {
            let tally = self.shared.tally();
            (tally.bound_pages(), tally.oldest_ms)
        };
        metrics.used(Bound::Pages, bound_pages.max(self.sessions.pages()));
        let shown = &metrics.oldest_unapplied;
        if let Some(ms) = oldest_ms.filter(|_| shown.get() == 0.0) {
            shown.set(ms as f64 / 1000.0);
        }
    }

    /// Stops: brings what it can to the store within `patience`, writes a checkpoint and lets go of the
    /// data directory. No view may be on its way any more.
    pub async fn stop(&self, patience: Duration) {
        self.writer.stop(patience).await;
    }

    /// Has the writer carry out an order. It waits for the writer's turn to end, and as long as the order takes.
    pub async fn order(&self, order: Order) -> Answer {
        self.writer.order(order).await
    }

    /// Puts these sites in force. A site that is not among them any more is refused from then on, and what
    /// was taken of it is counted; one that stays keeps its place and its calendar. Where too many were added
    /// nothing changes.
    pub async fn register(&self, wanted: Sites) -> Result<(), NoPlace> {
        self.writer.register(wanted).await
    }
}

/// A look at the running figures of a site. Nothing is counted while it is held: it is to be let go of at
/// once.
pub struct Look<'a> {
    totals: &'a Totals,
    tally: MutexGuard<'a, Tally>,
    site: SiteId,
    now: Moment,
    absent: &'a [u64],
}

impl<'a> Look<'a> {
    /// Knows besides that the store does not have these pages, in order of their keys.
    pub fn without(self, absent: &'a [u64]) -> Self {
        Look { absent, ..self }
    }

    /// The site's figures are the same while this number is. It never comes again in a process.
    pub fn revision(&mut self) -> u64 {
        self.tally.revision(self.site, self.now)
    }

    /// The figures of the site.
    pub fn figures(&mut self) -> Figures {
        let figures = self.tally.figures(self.site, self.now);
        if figures.views.day.is_none() {
            self.totals.shared.day_turned.store(true, Ordering::Release);
        }
        figures
    }

    /// The figures of a page, if they are known without asking the store. Where other instances count too,
    /// old ones are asked for anew, for the next reader.
    pub fn page(&mut self, page: &Page) -> Option<PageFigures> {
        let Some((figures, loaded_ms)) = self.tally.page(self.site, page, self.now) else {
            let is_absent = self.absent.binary_search(&page.key()).is_ok();
            return (is_absent && !self.tally.has_place(self.site, page)).then(PageFigures::default);
        };
        if self.totals.reloads && is_page_old(loaded_ms, self.now) && !self.totals.stale(self.site) {
            self.totals.ask(self.site, Wanted::Pages(vec![page.clone()]));
        }
        Some(figures)
    }
}

#[cfg(test)]
pub mod tests;
#[cfg(test)]
use tests::cases;
