//! Every Prometheus series: its name, its labels and its help, in one struct made once a process.
//!
//! No label holds text of a visitor's making (a page, an address, a referrer); sites are labels
//! because they are configured. All label values that are known at the start are shown from the
//! start, at 0.

mod requests;
mod sites;
mod store;

pub use requests::{NO_ROUTE, Requests};
pub use sites::{Shown, Totals};
pub use store::{Operation, StoreOperations};

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::clock::Moment;
use crate::ingest::Reason;
use crate::sites::{SiteId, Sites};

/// A bound of G5, as label and log field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Sessions in memory.
    Sessions,
    /// View ids remembered.
    Ids,
    /// Pages of a site.
    Pages,
    /// Open connections.
    Connections,
    /// Readers of live counters.
    LiveReaders,
    /// Bytes of journal.
    Journal,
    /// Bytes of outbox.
    Outbox,
    /// Age of what the journal has not synced.
    Unsynced,
}

const BOUNDS: [(Bound, &str); 8] = [
    (Bound::Sessions, "sessions"),
    (Bound::Ids, "ids"),
    (Bound::Pages, "pages"),
    (Bound::Connections, "connections"),
    (Bound::LiveReaders, "live_readers"),
    (Bound::Journal, "journal"),
    (Bound::Outbox, "outbox"),
    (Bound::Unsynced, "unsynced"),
];

/// What became of a beacon that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A view, written and counted.
    Counted,
    /// A view whose id was counted before.
    Repeated,
    /// A ping or a leave.
    Taken,
}

/// Seconds, from a tenth of a millisecond to five seconds.
const SECONDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// All series.
pub struct Metrics {
    registry: Registry,
    outcomes: [IntCounter; 3],
    reasons: [IntCounter; Reason::ALL.len()],
    bounds: [IntCounter; BOUNDS.len()],
    sites: sites::OfSites,
    requests: requests::Families,
    reloads: Reloads,
    /// Forwarding headers ignored because the peer is no trusted proxy.
    pub client_header_ignored: IntCounter,
    /// Sessions in memory.
    pub sessions: IntGauge,
    /// Open connections of the public listener.
    pub connections: IntGauge,
    /// Readers of live counters.
    pub live_readers: IntGauge,
    /// Readers of live counters that were cut off because they took nothing.
    pub live_dropped: IntCounter,
    /// Accepts that failed (descriptor exhaustion, mostly).
    pub accept_errors: IntCounter,
    /// Requests that the HTTP parser refused or that broke off, by kind.
    pub connection_errors: IntCounterVec,
    /// Journal on disk, bytes.
    pub journal_bytes: IntGauge,
    /// Groups written to the journal.
    pub journal_groups: IntCounter,
    /// Groups whose write failed and that were undone.
    pub journal_write_errors: IntCounter,
    /// Time of a journal sync, seconds.
    pub journal_sync_seconds: Histogram,
    /// Outbox on disk, bytes.
    pub outbox_bytes: IntGauge,
    /// Batches frozen and not yet applied.
    pub unapplied_batches: IntGauge,
    /// When the oldest view was accepted that no store holds yet (Unix seconds; 0: none waits).
    pub oldest_unapplied: Gauge,
    /// When a flush last ended with everything applied (Unix seconds).
    pub last_flush: Gauge,
    /// What is asked of the store.
    pub store: StoreOperations,
    /// 1 while the store answers.
    pub store_up: IntGauge,
    /// What stands between a fault of the store and its figures.
    pub healing: Healing,
}

/// Series of what stands between a fault of the store and its figures.
pub struct Healing {
    /// Hashes whose marker was older than the last batch: the store went back in time.
    pub regressions: IntCounter,
    /// Losses recorded in `data_dir`, by cause; what earlier processes recorded is counted at the start.
    pub losses: IntCounterVec,
    /// How far back in time the store may go and be healed, seconds.
    pub outbox_reach_seconds: Gauge,
    /// 1 while nothing is sent to the store until someone acts.
    pub flush_held: IntGauge,
    /// Settings of the store's server that endanger counts.
    pub concerns: IntGauge,
    /// New identities taken because a copy of the directory bore the old one.
    pub twins: IntCounter,
}

impl Healing {
    fn new(r: &Register<'_>) -> Result<Self, prometheus::Error> {
        let healing = Healing {
            regressions: r.counter(
                "footfall_store_regressions_total",
                "Hashes of the store found older than the last batch applied to them.",
            )?,
            losses: r.counters("footfall_losses_total", "Losses recorded in data_dir.", &["cause"])?,
            outbox_reach_seconds: r.timestamp(
                "footfall_outbox_reach_seconds",
                "How far back in time the store may go and be healed from the outbox.",
            )?,
            concerns: r.gauge(
                "footfall_store_settings_unsafe",
                "Settings of the store's server that endanger counts.",
            )?,
            twins: r.counter(
                "footfall_identity_changes_total",
                "New identities taken because a copy of the directory bore the old one.",
            )?,
            flush_held: r
                .gauge("footfall_flush_held", "1 while nothing is sent to the store until someone acts.")?,
        };
        for cause in LOSS_CAUSES {
            healing.losses.with_label_values(&[cause]);
        }
        Ok(healing)
    }
}

/// Where something may be lost, as labels.
pub const LOSS_CAUSES: [&str; 4] = ["store", "journal", "outbox", "salts"];

/// When the configuration was last read.
struct Reloads {
    successful: IntGauge,
    success: Gauge,
}

impl Metrics {
    /// Registers all series; those by site for the given sites.
    ///
    /// # Errors
    /// A name that is registered twice.
    pub fn new(sites: &Sites, max_sessions: usize) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = Register(&registry);
        r.constants(max_sessions)?;

        let beacons =
            r.counters("footfall_beacons_total", "Beacons by what became of them.", &["outcome"])?;
        let bounds =
            r.counters("footfall_bounds_reached_total", "Times a bound shed a newcomer.", &["bound"])?;
        let metrics = Metrics {
            outcomes: ["counted", "repeated", "taken"].map(|o| beacons.with_label_values(&[o])),
            reasons: Reason::ALL.map(|reason| beacons.with_label_values(&[reason.code()])),
            bounds: BOUNDS.map(|(_, name)| bounds.with_label_values(&[name])),
            sites: sites::OfSites::new(&r, sites)?,
            requests: requests::Families::new(&r)?,
            reloads: Reloads {
                successful: r.gauge(
                    "footfall_config_last_reload_successful",
                    "1 if the configuration was taken when it was last read.",
                )?,
                success: r.timestamp(
                    "footfall_config_last_reload_success_timestamp_seconds",
                    "When the configuration was last taken.",
                )?,
            },
            client_header_ignored: r.counter(
                "footfall_client_header_ignored_total",
                "Forwarding headers ignored because the peer is not in trusted_proxies.",
            )?,
            sessions: r.gauge("footfall_sessions", "Sessions in memory.")?,
            connections: r.gauge("footfall_connections", "Open connections of the public listener.")?,
            live_readers: r.gauge("footfall_live_readers", "Readers of live counters.")?,
            live_dropped: r.counter(
                "footfall_live_dropped_total",
                "Readers of live counters cut off because they took nothing.",
            )?,
            accept_errors: r.counter("footfall_accept_errors_total", "Accepts that failed.")?,
            connection_errors: r.counters(
                "footfall_connection_errors_total",
                "Connections ended by a fault, by kind.",
                &["kind"],
            )?,
            journal_bytes: r.gauge("footfall_journal_bytes", "Journal on disk.")?,
            journal_groups: r.counter("footfall_journal_groups_total", "Groups of views written.")?,
            journal_write_errors: r.counter(
                "footfall_journal_write_errors_total",
                "Groups whose write failed and that were undone.",
            )?,
            journal_sync_seconds: r.seconds("footfall_journal_sync_seconds", "Time of a journal sync.")?,
            healing: Healing::new(&r)?,
            outbox_bytes: r.gauge("footfall_outbox_bytes", "Outbox on disk.")?,
            unapplied_batches: r
                .gauge("footfall_unapplied_batches", "Batches frozen and not yet applied.")?,
            oldest_unapplied: r.timestamp(
                "footfall_oldest_unapplied_timestamp_seconds",
                "When the oldest view was accepted that the store does not hold yet; 0 if none waits.",
            )?,
            last_flush: r.timestamp(
                "footfall_last_flush_timestamp_seconds",
                "When a flush last ended with everything applied.",
            )?,
            store: StoreOperations::new(&r)?,
            store_up: r.gauge("footfall_store_up", "1 while the store answers.")?,
            registry: registry.clone(),
        };
        metrics.show_from_the_start();
        Ok(metrics)
    }

    /// Label values that are known are shown at 0 before they first occur.
    fn show_from_the_start(&self) {
        for kind in ["parse", "timeout", "io"] {
            self.connection_errors.with_label_values(&[kind]);
        }
    }

    /// Counts beacons that were not refused.
    pub fn beacons(&self, outcome: Outcome, number: u64) {
        self.outcomes[outcome as usize].inc_by(number);
    }

    /// Counts a refused beacon.
    pub fn refused(&self, reason: Reason) {
        self.reasons[reason as usize].inc();
    }

    /// Counts a bound that shed a newcomer.
    pub fn bound(&self, bound: Bound) {
        self.bounds[bound as usize].inc();
    }

    /// Has series for sites that a reload added.
    pub fn register(&self, sites: &Sites) {
        self.sites.register(sites);
    }

    /// Adds counted views and visits of a site.
    pub fn counted(&self, site: SiteId, views: u64, visits: u64) {
        self.sites.counted(site, views, visits);
    }

    /// Sets what only a scrape needs.
    pub fn show_sites<'a>(&self, sites: impl Iterator<Item = Shown<'a>>) {
        self.sites.show(sites);
    }

    /// The series of a listener's requests, whose routes stand in this order.
    pub fn requests(&self, listener: &str, routes: impl Iterator<Item = &'static str>) -> Requests {
        self.requests.of(listener, routes)
    }

    /// The configuration was read, and taken if it is without fault.
    pub fn reloaded(&self, taken: bool, now: Moment) {
        self.reloads.successful.set(taken.into());
        if taken {
            self.reloads.success.set(now.unix_ms as f64 / 1000.0);
        }
    }

    /// Says what runs, on which kind of store.
    ///
    /// # Errors
    /// It was said before.
    pub fn describe(&self, store: &str) -> Result<(), prometheus::Error> {
        let info = Opts::new("footfall_build_info", "What runs; always 1.")
            .const_label("version", env!("CARGO_PKG_VERSION"))
            .const_label("store", store);
        Register(&self.registry).add(IntGauge::with_opts(info)?)?.set(1);
        Ok(())
    }

    /// All series in the Prometheus text format 0.0.4.
    ///
    /// # Errors
    /// A series that cannot be written as text.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Makes a series and registers it.
struct Register<'a>(&'a Registry);

impl Register<'_> {
    fn add<C: Collector + Clone + 'static>(&self, series: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(series.clone()))?;
        Ok(series)
    }

    /// What needs no handle: the process, the bounds.
    fn constants(&self, max_sessions: usize) -> Result<(), prometheus::Error> {
        #[cfg(target_os = "linux")]
        self.0.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        self.gauge("footfall_sessions_limit", "Most sessions kept in memory.")?.set(max_sessions as i64);
        Ok(())
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::new(name, help)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::new(name, help)?)
    }

    fn timestamp(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.add(Gauge::new(name, help)?)
    }

    fn seconds(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))?)
    }
}

#[cfg(test)]
mod tests;
