//! `check-config`: says that a configuration is good. (A bad one is refused before any command.)

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::Config;

/// Prints the warnings and one line of what would be served.
pub fn run(config: &Config, out: &mut impl Write) -> io::Result<ExitCode> {
    for warning in &config.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    let sites = config.sites.iter().len();
    let noun = if sites == 1 { "site" } else { "sites" };
    let store = config.shown_store();
    writeln!(out, "ok: {sites} {noun}, store {store}, data in {}", config.totals.data_dir.display())?;
    Ok(ExitCode::SUCCESS)
}
