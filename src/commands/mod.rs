//! What the command line does beside serving.

mod adjust;
mod backfill;
mod copies;
mod doctor;
mod documents;
mod entries;
mod examples;
mod export;
mod healthcheck;
mod http;
mod import;
mod input;
mod order;
mod outcome;
mod pages;
mod snippet;
mod verify;

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{Config, DEFAULTS};
use crate::totals::Order;
pub use outcome::{EXIT_REFUSED, Failure, Outcome, is_journal, not_printed, print};

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "footfall", version, about, after_help = examples::PROGRAM)]
pub struct Arguments {
    /// The configuration file
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
    #[command(after_help = examples::SERVE)]
    Serve,
    /// Read the configuration and list every fault, without starting anything
    #[command(after_help = examples::CHECK_CONFIG)]
    CheckConfig,
    /// Print the configuration in force as TOML, secrets hidden
    #[command(after_help = examples::PRINT_CONFIG)]
    PrintConfig {
        /// The commented defaults instead, to begin a file of your own with
        #[arg(long)]
        defaults: bool,
    },
    /// Print what to paste into a site's pages, and the lines of a Content-Security-Policy
    #[command(after_help = examples::SNIPPET)]
    Snippet {
        /// The site's key
        site: String,
    },
    /// Ask the running service whether it can take and keep views; for container health checks
    #[command(after_help = examples::HEALTHCHECK)]
    Healthcheck,
    /// Say what is wrong: with the running service and, given a page, with its line and what becomes of a visit
    #[command(after_help = examples::DOCTOR)]
    Doctor(doctor::Doctor),
    /// Apply what a stopped instance still holds, and give up its identity: its data_dir may be deleted then
    #[command(after_help = examples::DRAIN)]
    Drain,
    /// Audit the totals: hours against days, days against weeks and months, pages against views
    #[command(after_help = examples::VERIFY)]
    Verify(verify::Verify),
    /// Count access logs of the time before footfall, by the rules that beacons are counted by
    #[command(after_help = examples::BACKFILL)]
    Backfill(backfill::Backfill),
    /// Copy the totals of a service, running or not, into a new directory
    #[command(after_help = examples::BACKUP)]
    Backup {
        /// The directory; the service makes it, so its user must be able to
        #[arg(value_name = "DIR")]
        into: PathBuf,
    },
    /// Bring a backup to an empty data_dir (and, with Redis, an empty database)
    #[command(after_help = examples::RESTORE)]
    Restore {
        /// The directory of the backup
        #[arg(value_name = "DIR")]
        from: PathBuf,
    },
    /// Copy the totals of one store into another that is empty; set store.url afterwards
    #[command(after_help = examples::MIGRATE)]
    Migrate {
        /// `store` (as configured), `embedded`, `embedded:FILE`, `redis://…`, `rediss://…`, or @FILE with a URL
        from: copies::NamedStore,
        /// The same
        to: copies::NamedStore,
        /// Take up a copy that was broken off
        #[arg(long)]
        resume: bool,
    },
    /// Enter totals from a CSV or JSON file beside what is counted: opening balances, the past of another counter
    #[command(after_help = examples::IMPORT)]
    Import(import::Import),
    /// Write all totals as rows that import reads: CSV, or JSON
    #[command(after_help = examples::EXPORT)]
    Export(export::Export),
    /// Add to a day's total, and to those of its week, month, year and of all time
    #[command(after_help = examples::ADJUST)]
    Adjust(adjust::Adjust),
    /// List what was entered, or take an entry back
    #[command(after_help = examples::ENTRIES)]
    Entries(entries::Entries),
    /// Show pages that moved under their new names, with what was counted under the old ones
    #[command(subcommand)]
    Pages(pages::Pages),
    /// Forget a page: what was counted of it is shown under no name, now and ever after
    #[command(after_help = examples::ERASE)]
    Erase(pages::Erase),
    /// Remove the markers of a writer that is gone for good from the store
    #[command(after_help = examples::RETIRE)]
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
    /// Print a shell's completions of this command line
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// The shell
        #[arg(value_parser = documents::shell())]
        shell: clap_complete::Shell,
    },
    /// Print the manual page footfall(1)
    #[command(after_help = examples::MAN)]
    Man {
        /// Write it below this directory instead, with a page for each command and footfall.toml(5)
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
}

/// What becomes of a data set that has vanished, or is another one than was written to.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum StoreCommand {
    /// Put back what the outbox holds, as far as it reaches back; what lies before it is recorded as lost
    #[command(after_help = examples::REFILL)]
    Refill {
        /// Say only what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Begin anew on the data set that is there: only what it was never sent is applied
    #[command(after_help = examples::ACCEPT_EMPTY)]
    AcceptEmpty {
        /// Say only what would be done
        #[arg(long)]
        dry_run: bool,
    },
}

impl Command {
    /// Runs a command that needs no configuration; none for one that does.
    pub fn document(&self) -> Option<Outcome> {
        match self {
            Command::Completions { shell } => Some(Ok(documents::completions(Arguments::command(), *shell))),
            Command::PrintConfig { defaults: true } => Some(Ok(DEFAULTS.to_owned())),
            Command::Man { into } => Some(documents::man(Arguments::command(), into.as_deref())),
            _ => None,
        }
    }

    /// Whether it may open the totals itself, and so needs a log.
    pub fn is_order(&self) -> bool {
        use Command::{CheckConfig, Doctor, Healthcheck, PrintConfig, Serve};
        !matches!(self, Serve | CheckConfig | Doctor(_) | PrintConfig { .. } | Healthcheck)
    }

    /// Runs a command. `Serve` and the documents are the caller's, and do nothing here.
    pub fn run(self, config: &Config) -> Outcome {
        let order = |order| order::carry_out(config, &order);
        let done = match self {
            Command::Serve | Command::Completions { .. } | Command::Man { .. } => return Ok(String::new()),
            Command::CheckConfig => return check_config(config),
            Command::PrintConfig { .. } => return Ok(config.to_toml()),
            Command::Snippet { site } => return snippet::run(config, &site),
            Command::Doctor(asked) => return doctor::run(config, &asked),
            Command::Healthcheck => return healthcheck::run(config),
            Command::Verify(asked) => return verify::run(config, &asked),
            Command::Backfill(asked) => return backfill::run(config, &asked),
            Command::Export(asked) => return export::run(config, asked),
            Command::Backup { into } => copies::backup(config, &into),
            Command::Restore { from } => copies::restore(config, &from),
            Command::Migrate { from, to, resume } => copies::migrate(config, &from, &to, resume),
            Command::Import(import) => import::run(config, import),
            Command::Adjust(asked) => order(asked.order()),
            Command::Entries(asked) => order(asked.order()),
            Command::Pages(asked) => order(asked.order()?),
            Command::Erase(asked) => order(asked.order()),
            Command::Drain => order(Order::Drain),
            Command::Retire { writer, force } => order(Order::Retire { writer, force }),
            Command::Store(StoreCommand::Refill { dry_run }) => order(Order::Refill { dry_run }),
            Command::Store(StoreCommand::AcceptEmpty { dry_run }) => order(Order::AcceptEmpty { dry_run }),
        };
        done.map(|done| format!("{}\n", done.trim_end()))
    }
}

/// The warnings, and one line of what would be served. (A bad configuration is refused before any command runs.)
fn check_config(config: &Config) -> Outcome {
    config.check_files()?;
    let warnings: String = config.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
    let notes: String = config.notes().map(|note| format!("note: {note}\n")).collect();
    let sites = config.sites.iter().len();
    let noun = if sites == 1 { "site" } else { "sites" };
    let (store, dir) = (&config.totals.store.url, config.totals.data_dir.display());
    Ok(format!("{warnings}{notes}ok: {sites} {noun}, store {store}, data in {dir}\n"))
}

#[cfg(test)]
mod tests;
