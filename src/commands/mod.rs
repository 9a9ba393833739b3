//! What the command line does beside serving.

mod check_config;
mod healthcheck;
mod print_config;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;

/// Exit code of a configuration or a command line that is refused (`EX_USAGE`).
pub const EXIT_CONFIG: u8 = 64;

const EXAMPLES: &str = "\
Examples:
  footfall                                     serve, by config/footfall.toml or the defaults
  footfall --config /etc/footfall/footfall.toml check-config
  FOOTFALL_STORE__URL=redis://127.0.0.1:6379 footfall
  footfall print-config > footfall.toml        start a configuration of your own

Exit codes: 0 done; 1 the start failed, or not healthy; 64 the configuration or the arguments are refused.";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "footfall", version, about, after_help = EXAMPLES)]
pub struct Arguments {
    /// The configuration file [default: $FOOTFALL_CONFIG, else config/footfall.toml, else
    /// /etc/footfall/footfall.toml, else the compiled-in defaults]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// What to do; without one, serve.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Take beacons and serve counters until told to stop (the default)
    Serve,
    /// Read the configuration and list every fault, without starting anything
    CheckConfig,
    /// Print the configuration in force as TOML, secrets hidden
    PrintConfig,
    /// Ask the running service whether it can take and keep views; for container health checks
    Healthcheck,
}

impl Command {
    /// Does what is asked, on the standard output. `Serve` is the caller's: it returns at once.
    ///
    /// # Errors
    /// The standard output cannot be written to.
    pub fn run(self, config: &Config) -> io::Result<ExitCode> {
        let out = &mut io::stdout().lock();
        match self {
            Command::Serve => Ok(ExitCode::SUCCESS),
            Command::CheckConfig => check_config::run(config, out),
            Command::PrintConfig => print_config::run(config, out),
            Command::Healthcheck => healthcheck::run(config, out),
        }
    }
}
