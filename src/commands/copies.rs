//! `backup`, `restore` and `migrate`.

use std::fmt;
use std::path::Path;

use super::order;
use super::outcome::{Failure, Outcome};
use crate::app;
use crate::config::Config;
use crate::totals::{self, Job, Order, StoreUrl, UrlFault, without_secret};

/// Makes a backup in a new directory, by way of the service where one runs.
pub fn backup(config: &Config, into: &Path) -> Outcome {
    // The service has a working directory of its own.
    let into = std::path::absolute(into)?;
    order::carry_out(config, &Order::Job(Job::Backup { into }))
}

/// Restores a backup.
pub fn restore(config: &Config, from: &Path) -> Outcome {
    let done = app::alone(totals::restore(&config.totals, from))?;
    if config.totals.data_dir.exists() {
        totals::give_to_owner(&config.totals.data_dir)?;
    }
    Ok(done?)
}

/// The store that an argument names. It may hold a password, which `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct NamedStore(String);

impl From<String> for NamedStore {
    fn from(named: String) -> Self {
        NamedStore(named)
    }
}

impl fmt::Debug for NamedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_secret(&self.0))
    }
}

/// Copies one store into another. The configured one is read by way of the service.
pub fn migrate(config: &Config, from: &NamedStore, to: &NamedStore, resumes: bool) -> Outcome {
    let (from, to) = (url(config, &from.0)?, url(config, &to.0)?);
    let file =
        |url: &StoreUrl| url.file(&config.totals.data_dir).map(|file| file.canonicalize().unwrap_or(file));
    if from == to || file(&from).is_some() && file(&from) == file(&to) {
        let place = from.place(&config.totals.data_dir);
        return Err(Failure::Undone(format!("{place} is source and target: name another target")));
    }
    if from == config.totals.store.url && config.totals.data_dir.join("writer").exists() {
        return order::carry_out(config, &Order::Job(Job::Migrate { to, resumes }));
    }
    Ok(app::alone(totals::migrate(&config.totals, &from, &to, resumes))??)
}

/// The store that an argument names: `store` for the configured one, `@FILE` for a file with the URL, so that
/// no password appears in the list of processes.
fn url(config: &Config, named: &str) -> Result<StoreUrl, String> {
    let parse = |text: &str| text.parse().map_err(|fault: UrlFault| fault.to_string());
    let url = match named.strip_prefix('@') {
        Some(path) => {
            let read = std::fs::read_to_string(path);
            parse(read.map_err(|error| format!("{path}: {error}"))?.trim())?
        }
        None if named == "store" => config.totals.store.url.clone(),
        None => parse(named)?,
    };
    // The service has a working directory of its own.
    let StoreUrl::EmbeddedFile(path) = url else { return Ok(url) };
    let path = std::path::absolute(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(StoreUrl::EmbeddedFile(path))
}
