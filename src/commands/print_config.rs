//! `print-config`: the configuration in force.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::Config;

/// Prints it as TOML, secrets hidden.
pub fn run(config: &Config, out: &mut impl Write) -> io::Result<ExitCode> {
    out.write_all(config.to_toml().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
