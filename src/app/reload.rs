//! Reads the configuration again while the service runs: sites with their tokens, proxies and labels change at
//! once; every other setting that differs is named and takes effect at the next start.
//!
//! Nothing changes if there is a fault in what was read.

use std::path::PathBuf;
use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::signal::unix::Signal;

use super::supervisor;
use crate::config::{Config, Fault, Faults};
use crate::serve::Parts;
use crate::sites::{Site, Sites};

/// Reloads at each signal, for as long as it is polled.
pub(super) async fn on_each(mut hangups: Signal, parts: Arc<Parts>, started: Config, file: Option<PathBuf>) {
    while hangups.recv().await.is_some() {
        supervisor::reloading();
        let taken = reload(&parts, &started, file.clone()).await;
        for fault in taken.as_ref().err().into_iter().flatten() {
            tracing::error!(%fault, "the configuration is not taken; the old one stays in force");
        }
        parts.metrics.reloaded(taken.is_ok(), parts.clock.now());
        supervisor::tell(&[NotifyState::Ready]);
    }
}

/// Reads the configuration and applies the settings that can change; or says why it is not taken.
async fn reload(parts: &Parts, started: &Config, file: Option<PathBuf>) -> Result<(), Vec<String>> {
    // Files are read on another thread: the event loop goes on taking views.
    let fresh = tokio::task::spawn_blocking(move || Config::of_process(file.as_deref())).await;
    let fresh = fresh.map_err(|error| vec![error.to_string()])?;
    let fresh = fresh.map_err(|Faults(faults)| faults.iter().map(Fault::to_string).collect::<Vec<_>>())?;
    if !fresh.names_a_site() && started.names_a_site() {
        // A file that is just being written is empty, or ends early.
        return Err(vec!["it names no [[site]] any more: to serve none, stop the service".to_owned()]);
    }
    let before = parts.sites.load_full();
    warn(started, &before, &fresh);
    parts.totals.register(fresh.sites.clone()).await.map_err(|error| vec![error.to_string()])?;
    parts.settings.store(Arc::new(started.reloaded_to(&fresh)));
    parts.lists.store(Arc::new(fresh.serve.lists));
    let after = parts.sites.load_full();
    tracing::info!(
        sites = after.keys(),
        added = missing(&after, &before),
        removed = missing(&before, &after),
        "the configuration is taken"
    );
    Ok(())
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
