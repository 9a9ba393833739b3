//! `check-config`: says that a configuration is good. (A bad one is refused before any command runs.)

use std::io::{self, Write};
use std::process::ExitCode;

use super::EXIT_CONFIG;
use crate::config::Config;

/// Prints the warnings and one line of what would be served; where a file that the configuration names cannot
/// be used, says so on the standard error.
pub fn run(config: &Config, out: &mut impl Write) -> io::Result<ExitCode> {
    if let Err(faults) = config.check_files() {
        eprintln!("footfall: {faults}");
        return Ok(EXIT_CONFIG.into());
    }
    for warning in &config.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    let sites = config.sites.iter().len();
    let noun = if sites == 1 { "site" } else { "sites" };
    let store = &config.totals.store.url;
    writeln!(out, "ok: {sites} {noun}, store {store}, data in {}", config.totals.data_dir.display())?;
    Ok(ExitCode::SUCCESS)
}
