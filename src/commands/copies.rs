//! `backup`, `restore` and `migrate`.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use super::order;
use crate::app;
use crate::config::Config;
use crate::totals::{Job, Order, StoreUrl, UrlFault};

/// Makes a backup in a new directory, by way of the service where one runs.
pub fn backup(config: &Config, into: &Path, out: &mut impl Write) -> io::Result<ExitCode> {
    // The service has a working directory of its own.
    let into = std::path::absolute(into)?;
    order::run(config, &Order::Job(Job::Backup { into }), out)
}

/// Restores a backup.
pub fn restore(config: &Config, from: &Path, out: &mut impl Write) -> io::Result<ExitCode> {
    order::print(app::restore(config, from), out)
}

/// Copies one store into another. The configured one is read by way of the service.
pub fn migrate(
    config: &Config,
    from: &str,
    to: &str,
    resumes: bool,
    out: &mut impl Write,
) -> io::Result<ExitCode> {
    let (from, to) = match (url(config, from), url(config, to)) {
        (Ok(from), Ok(to)) => (from, to),
        (Err(why), _) | (_, Err(why)) => return order::print(Err(why), out),
    };
    if from == config.totals.store.url && config.totals.data_dir.join("writer").exists() {
        return order::run(config, &Order::Job(Job::Migrate { to, resumes }), out);
    }
    order::print(app::migrate(config, &from, &to, resumes), out)
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
