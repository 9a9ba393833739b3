//! `entries`: what was entered, and how it is taken back.

use clap::Subcommand;

use super::examples;
use super::import::user;
use crate::totals::{EntryReason, Order};

/// Which entries, and what with them.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Entries {
    /// One site's entries alone
    #[arg(long, value_name = "KEY", global = true)]
    site: Option<String>,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
enum What {
    /// Show what an entry changed: the values before and after
    #[command(after_help = examples::ENTRIES_SHOW)]
    Show {
        /// Its number
        number: u64,
    },
    /// Enter the values before an entry, unless they were entered anew since
    #[command(after_help = examples::ENTRIES_UNDO)]
    Undo {
        /// Its number
        number: u64,
        /// Say only what would be done
        #[arg(long)]
        dry_run: bool,
        /// The reason, for the list
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
    },
}

/// Of which site something is corrected, and why.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Correction {
    /// The site's key
    #[arg(long, value_name = "KEY")]
    pub site: String,
    /// Say only what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// The reason, for the list of entries
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
}

impl Correction {
    /// Who corrects it, and why.
    pub fn reason(&self) -> EntryReason {
        EntryReason { who: user(), why: self.why.clone(), ..EntryReason::default() }
    }
}

impl Entries {
    /// What is ordered by it.
    pub fn order(self) -> Order {
        let Entries { site, what } = self;
        match what {
            None => Order::Entries { site, number: None },
            Some(What::Show { number }) => Order::Entries { site, number: Some(number) },
            Some(What::Undo { number, dry_run, why }) => {
                let reason = EntryReason { who: user(), why, ..EntryReason::default() };
                Order::Undo { site, number, reason, dry_run }
            }
        }
    }
}
