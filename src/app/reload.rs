//! Reads the configuration again while the service runs: sites with their tokens, proxies and labels change at
//! once; every other setting that differs is named and takes effect at the next start.
//!
//! Nothing changes if there is a fault in what was read.

use std::sync::Arc;

use tokio::signal::unix::Signal;

use super::supervisor;
use crate::config::{Config, Faults};
use crate::serve::Parts;
use crate::sites::{Site, Sites};

/// Reads the configuration as the start did.
pub trait ReadConfig: Fn() -> Result<Config, Faults> + Clone + Send + 'static {}

impl<F: Fn() -> Result<Config, Faults> + Clone + Send + 'static> ReadConfig for F {}

/// Reloads at each signal, for as long as it is polled.
pub(super) async fn on_each(mut hangups: Signal, parts: Arc<Parts>, started: Config, again: impl ReadConfig) {
    while hangups.recv().await.is_some() {
        supervisor::reloading();
        let taken = reload(&parts, &started, again.clone()).await;
        parts.metrics.reloaded(taken, parts.clock.now());
        supervisor::reloaded();
    }
}

/// Reads the configuration and applies the settings that can change. Returns whether it was taken.
async fn reload(parts: &Parts, started: &Config, again: impl ReadConfig) -> bool {
    // Files are read on another thread: the event loop goes on taking views.
    let fresh = match tokio::task::spawn_blocking(again).await {
        Ok(Ok(fresh)) => fresh,
        Ok(Err(Faults(faults))) => {
            for fault in &faults {
                tracing::error!(%fault, "the configuration is not taken; the old one stays in force");
            }
            return false;
        }
        Err(error) => {
            tracing::error!(%error, "the configuration is not taken; the old one stays in force");
            return false;
        }
    };
    let before = parts.sites.load_full();
    warn(started, &before, &fresh);
    if let Err(error) = parts.totals.register(fresh.sites.clone()).await {
        tracing::error!(%error, "the configuration is not taken; the old one stays in force");
        return false;
    }
    parts.lists.store(Arc::new(fresh.serve.lists));
    let after = parts.sites.load_full();
    tracing::info!(
        sites = after.keys(),
        added = missing(&after, &before),
        removed = missing(&before, &after),
        "the configuration is taken"
    );
    true
}

/// Logs what is probably a mistake, and what takes effect only at the next start.
fn warn(started: &Config, before: &Sites, fresh: &Config) {
    for warning in &fresh.warnings {
        tracing::warn!("{warning}");
    }
    for key in fresh.fixed_differences(started) {
        tracing::warn!(key, "this setting takes effect at the next start");
    }
    let recut = |site: &&Arc<Site>| before.known(&site.key).is_some_and(|b| b.calendar != site.calendar);
    for site in fresh.sites.iter().filter(recut) {
        tracing::warn!(site = %site.key, "time_zone and week_start of a site take effect at the next start");
    }
}

/// The keys of the sites that are not among `others`.
fn missing(sites: &Sites, others: &Sites) -> String {
    let missing = sites.iter().map(|site| site.key.as_str()).filter(|key| others.get(key).is_none());
    missing.collect::<Vec<&str>>().join(" ")
}
