//! Every Prometheus series: its name, its labels and its help, in one struct made once a process.
//!
//! No label holds text that a visitor can choose (a page, an address, a referrer); sites are labels because
//! they are configured. Label values that are known at the start are shown from then on, at 0.

mod register;
mod requests;
mod sites;
mod store;

pub use requests::{RequestFamilies, Requests};
pub use sites::{Outcome, Shown, SiteSeries};
pub use store::{Operation, StoreOperations};

use prometheus::{
    Encoder, Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::clock::Moment;
use crate::sites::Sites;
use register::Register;

words! {
    /// A bound of memory or disk, as label and log field.
    pub enum Bound {
        /// Sessions in memory.
        Sessions = "sessions",
        /// Visitors in memory of whom there were pings alone.
        Pings = "pings",
        /// View ids remembered.
        Ids = "ids",
        /// Pages of a site.
        Pages = "pages",
        /// Pages that are read and not in memory.
        Loads = "loads",
        /// Open connections.
        Connections = "connections",
        /// Open connections of one address.
        AddressConnections = "connections_per_address",
        /// Open connections of the admin listener.
        AdminConnections = "admin_connections",
        /// Readers of live counters.
        LiveReaders = "live_readers",
        /// Readers of live counters at one address.
        AddressReaders = "live_readers_per_address",
        /// Bytes of journal.
        Journal = "journal",
        /// Bytes of outbox.
        Outbox = "outbox",
        /// Age of what the journal has not synced.
        Unsynced = "unsynced",
    }
}

words! {
    /// What is kept in `data_dir` and tried again where it cannot be written, as label.
    pub enum DataFile {
        /// Views that were accepted.
        Journal = "journal",
        /// Batches on their way.
        Outbox = "outbox",
        /// Sessions, ids and last known totals.
        Checkpoint = "checkpoint",
        /// What visitors are told apart with.
        Salts = "salts",
        /// What was lost.
        Losses = "losses",
        /// Who this directory's writer is, and what it knows of its data sets.
        Writer = "writer",
        /// The embedded store.
        Totals = "totals",
    }
}

words! {
    /// What has its turn again and again, as label.
    pub enum Part {
        /// What takes beacons and expires sessions: once a second.
        EventLoop = "event_loop",
        /// What brings views to the store: once a flush.
        Writer = "writer",
    }
}

/// Where something may be lost: the labels of `footfall_losses_total`.
pub const LOSS_CAUSES: [&str; 4] = ["store", "journal", "outbox", "salts"];

/// Declares a struct of series. Each is a field with its type, how it is made (a function of [`Register`]), its
/// name, and its help, which is also the comment of the field. Fields after `with` are handed in.
macro_rules! series {
    (
        $(#[$about:meta])* $visibility:vis struct $struct:ident {
            $($field:ident: $type:ty = $kind:ident($($argument:expr),+; $help:literal),)+
        }
        $(with { $($(#[$made_about:meta])* $made_visibility:vis $made:ident: $made_type:ty,)+ })?
    ) => {
        $(#[$about])*
        $visibility struct $struct {
            $(#[doc = $help] pub $field: $type,)+
            $($($(#[$made_about])* $made_visibility $made: $made_type,)+)?
        }

        impl $struct {
            fn register_with(
                r: &Register<'_>,
                ($($($made,)+)?): ($($($made_type,)+)?),
            ) -> Result<Self, prometheus::Error> {
                Ok($struct {
                    $($field: r.$kind($($argument),+, $help)?,)+
                    $($($made,)+)?
                })
            }
        }
    };
}

series! {
    /// All series.
    pub struct Metrics {
        client_header_ignored: IntCounter = counter("footfall_client_header_ignored_total";
            "Forwarding headers ignored because the peer is not in trusted_proxies."),
        sessions: IntGauge = gauge("footfall_sessions"; "Sessions in memory."),
        connections: IntGauge = gauge("footfall_connections"; "Open connections of the public listener."),
        live_readers: IntGauge = gauge("footfall_live_readers"; "Readers of live counters."),
        live_dropped: IntCounter = counter("footfall_live_dropped_total";
            "Readers of live counters cut off because they took nothing."),
        accept_errors: IntCounter = counter("footfall_accept_errors_total"; "Accepts that failed."),
        connection_errors: IntCounterVec = counters("footfall_connection_errors_total", &["kind"];
            "Connections ended by a fault, by kind."),
        journal_bytes: IntGauge = gauge("footfall_journal_bytes"; "Journal on disk."),
        journal_groups: IntCounter = counter("footfall_journal_groups_total"; "Groups of views written."),
        journal_write_errors: IntCounter = counter("footfall_journal_write_errors_total";
            "Groups whose write failed and that were undone."),
        journal_sync: Histogram = seconds("footfall_journal_sync_duration_seconds"; "Time of a journal sync."),
        outbox_bytes: IntGauge = gauge("footfall_outbox_bytes"; "Outbox on disk."),
        unapplied_batches: IntGauge = gauge("footfall_unapplied_batches"; "Batches frozen and not yet applied."),
        oldest_unapplied: Gauge = real("footfall_oldest_unapplied_timestamp_seconds";
            "When the oldest view was accepted that the store does not hold yet; 0 if none waits."),
        last_backup: Gauge = real("footfall_last_backup_timestamp_seconds";
            "When this process last made a backup; 0 if it has made none."),
        last_flush: Gauge = real("footfall_last_flush_timestamp_seconds";
            "When a flush last ended with everything applied."),
        last_turn: IntGaugeVec = gauges("footfall_last_turn_timestamp_seconds", &["part"];
            "When a part last did what it does again and again."),
        bound_used: IntGaugeVec = gauges("footfall_bound_used", &["bound"];
            "How much of a bound is in use: a number, bytes or seconds."),
        bound_limit: IntGaugeVec = gauges("footfall_bound_limit", &["bound"];
            "How much of it may be: the setting."),
        store_up: IntGauge = gauge("footfall_store_up"; "1 while the store answers."),
        reload_successful: IntGauge = gauge("footfall_config_last_reload_successful";
            "1 if the configuration was taken when it was last read."),
        reload_success: Gauge = real("footfall_config_last_reload_success_timestamp_seconds";
            "When the configuration was last taken."),
    }
    with {
        /// What stands between a fault of the store and the totals.
        pub healing: Healing,
        /// What is asked of the store.
        pub store: StoreOperations,
        /// What is counted and shown by site.
        pub sites: SiteSeries,
        /// What is asked of the listeners.
        pub requests: RequestFamilies,
        bounds: [IntCounter; Bound::WORDS.len()],
        registry: Registry,
    }
}

series! {
    /// Series of what stands between a fault of the store and the totals.
    pub struct Healing {
        regressions: IntCounter = counter("footfall_store_regressions_total";
            "Hashes of the store found older than the last batch applied to them."),
        losses: IntCounterVec = counters("footfall_losses_total", &["cause"]; "Losses recorded in data_dir."),
        outbox_reach_seconds: Gauge = real("footfall_outbox_reach_seconds";
            "How far back in time the store may go and be healed from the outbox."),
        concerns: IntGauge = gauge("footfall_store_settings_unsafe";
            "Settings of the store's server that endanger counts."),
        twins: IntCounter = counter("footfall_identity_changes_total";
            "New identities taken because a copy of the directory bore the old one, or that was retired."),
        flush_held: IntGauge = gauge("footfall_flush_held";
            "Sites that are held until someone acts; 1 while nothing at all is sent to the store."),
        file_failing: IntGaugeVec = gauges("footfall_file_failing", &["file"];
            "1 while the last try to write something in data_dir failed."),
    }
}

impl Metrics {
    /// Registers all series; those by site for the given sites. Label values that are known are shown at 0
    /// before they first occur.
    pub fn new(sites: &Sites, max_sessions: usize) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = &Register(&registry);
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let bounds =
            r.counters("footfall_bounds_reached_total", &["bound"], "Times a bound rejected something new.")?;
        let made = (
            Healing::register_with(r, ())?,
            StoreOperations::new(r)?,
            SiteSeries::new(r, sites)?,
            RequestFamilies::new(r)?,
            Bound::WORDS.map(|(bound, _)| bounds.with_label_values(&[bound])),
            registry.clone(),
        );
        let metrics = Metrics::register_with(r, made)?;
        metrics.limit([(Bound::Sessions, max_sessions as u64)]);
        for cause in LOSS_CAUSES {
            metrics.healing.losses.with_label_values(&[cause]);
        }
        for (file, _) in DataFile::WORDS {
            metrics.healing.file_failing.with_label_values(&[file]);
        }
        for kind in ["parse", "timeout", "io"] {
            metrics.connection_errors.with_label_values(&[kind]);
        }
        Ok(metrics)
    }

    /// Notes that a part had its turn.
    pub fn had_turn(&self, part: Part, now: Moment) {
        self.last_turn.with_label_values(&[part.word()]).set(now.unix_ms / 1000);
    }

    /// Notes how a try to write something in `data_dir` ended.
    pub fn wrote<T, E>(&self, file: DataFile, ended: &Result<T, E>) {
        self.healing.file_failing.with_label_values(&[file.word()]).set(ended.is_err().into());
    }

    /// What could not be written when it was last tried.
    pub fn failing(&self) -> Vec<&'static str> {
        let fails = |file: &&str| self.healing.file_failing.with_label_values(&[file]).get() > 0;
        DataFile::WORDS.map(|(file, _)| file).into_iter().filter(fails).collect()
    }

    /// Counts something new that a bound rejected.
    pub fn bound(&self, bound: Bound) {
        self.bounds[bound as usize].inc();
    }

    /// Notes how much of bounds may be in use.
    pub fn limit<const N: usize>(&self, limits: [(Bound, u64); N]) {
        for (bound, limit) in limits {
            self.bound_limit.with_label_values(&[bound.word()]).set(limit as i64);
            self.used(bound, 0);
        }
    }

    /// Notes how much of a bound is in use.
    pub fn used(&self, bound: Bound, used: usize) {
        self.bound_used.with_label_values(&[bound.word()]).set(used as i64);
    }

    /// Notes that the configuration was read, and whether it was taken.
    pub fn reloaded(&self, taken: bool, now: Moment) {
        self.reload_successful.set(taken.into());
        if taken {
            self.reload_success.set(now.unix_ms as f64 / 1000.0);
        }
    }

    /// Whether the configuration was taken when it was last read.
    pub fn is_reloaded(&self) -> bool {
        self.reload_successful.get() > 0
    }

    /// Says what runs, on which kind of store; once a process.
    pub fn describe(&self, store: &str) -> Result<(), prometheus::Error> {
        let info = Opts::new("footfall_build_info", "What runs; always 1.")
            .const_label("version", env!("CARGO_PKG_VERSION"))
            .const_label("store", store);
        Register(&self.registry).add(IntGauge::with_opts(info)?)?.set(1);
        Ok(())
    }

    /// All series in the Prometheus text format 0.0.4.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
