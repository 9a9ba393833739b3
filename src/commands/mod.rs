//! What the command line does beside serving.

mod answer;
mod check_config;
mod copies;
mod healthcheck;
mod order;
mod print_config;
mod snippet;
mod verify;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::totals::Order;

/// Exit code of a configuration or a command line that is refused (`EX_USAGE`).
pub const EXIT_CONFIG: u8 = 64;

const EXAMPLES: &str = "\
Examples:
  footfall                                     serve, by config/footfall.toml or the defaults
  footfall --config /etc/footfall/footfall.toml check-config
  FOOTFALL_STORE__URL=redis://127.0.0.1:6379 footfall
  footfall print-config > footfall.toml        start a configuration of your own

Exit codes: 0 done; 1 the start failed, not healthy, not done, or totals that disagree; 64 the configuration or the arguments are refused.";

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
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Take beacons and serve counters until told to stop (the default)
    Serve,
    /// Read the configuration and list every fault, without starting anything
    CheckConfig,
    /// Print the configuration in force as TOML, secrets hidden
    PrintConfig,
    /// Print what to paste into a site's pages, and the lines of a Content-Security-Policy
    Snippet {
        /// The site's key
        site: String,
    },
    /// Ask the running service whether it can take and keep views; for container health checks
    Healthcheck,
    /// Apply what a stopped instance still holds, and give up its identity: its data_dir may be deleted then
    Drain,
    /// Audit the totals: hours against days, days against weeks and months, pages against views
    Verify(verify::Verify),
    /// Copy the totals of a service, running or not, into a new directory
    Backup {
        /// The directory; the service makes it, so its user must be able to
        #[arg(value_name = "DIR")]
        into: PathBuf,
    },
    /// Bring a backup to an empty data_dir (and, with Redis, an empty database)
    Restore {
        /// The directory of the backup
        #[arg(value_name = "DIR")]
        from: PathBuf,
    },
    /// Copy the totals of one store into another that is empty; set store.url afterwards
    Migrate {
        /// `store` (as configured), `embedded`, `embedded:FILE`, `redis://…`, `rediss://…`, or @FILE with a URL
        from: String,
        /// The same
        to: String,
        /// Take up a copy that was broken off
        #[arg(long)]
        resume: bool,
    },
    /// Remove the markers of a writer that is gone for good from the store
    Retire {
        /// The writer's id, as the field `writer:<id>` of a site's meta hash shows it
        writer: String,
        /// Even if it was seen within the last quarter of an hour
        #[arg(long)]
        force: bool,
    },
    /// Decide what becomes of a data set that has vanished
    #[command(subcommand)]
    Store(StoreCommand),
}

/// What becomes of a data set that has vanished, or is another one than was written to.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum StoreCommand {
    /// Put back what the outbox holds, as far as it reaches back; what lies before it is recorded as lost
    Refill {
        /// Say only what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Begin anew on the data set that is there: only what it was never sent is applied
    AcceptEmpty {
        /// Say only what would be done
        #[arg(long)]
        dry_run: bool,
    },
}

impl Command {
    /// Whether it may open the totals itself, and so has a log worth reading.
    pub fn is_order(&self) -> bool {
        use Command::{CheckConfig, Healthcheck, PrintConfig, Serve};
        !matches!(self, Serve | CheckConfig | PrintConfig | Healthcheck)
    }

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
            Command::Snippet { site } => snippet::run(config, &site, out),
            Command::Healthcheck => healthcheck::run(config, out),
            Command::Drain => order::run(config, &Order::Drain, out),
            Command::Verify(asked) => verify::run(config, &asked, out),
            Command::Backup { into } => copies::backup(config, &into, out),
            Command::Restore { from } => copies::restore(config, &from, out),
            Command::Migrate { from, to, resume } => copies::migrate(config, &from, &to, resume, out),
            Command::Retire { writer, force } => order::run(config, &Order::Retire { writer, force }, out),
            Command::Store(StoreCommand::Refill { dry_run }) => {
                order::run(config, &Order::Refill { dry_run }, out)
            }
            Command::Store(StoreCommand::AcceptEmpty { dry_run }) => {
                order::run(config, &Order::AcceptEmpty { dry_run }, out)
            }
        }
    }
}
