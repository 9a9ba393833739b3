//! `entries`: what was entered, and how it is taken back.

use clap::Subcommand;

use super::examples;
use crate::totals::{Intent, Order};

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
        #[command(flatten)]
        intent: Intent,
    },
}

/// Of which site something is corrected, and why.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Correction {
    /// The site's key
    #[arg(long, value_name = "KEY")]
    pub site: String,
    #[command(flatten)]
    pub intent: Intent,
}

impl Entries {
    /// What is ordered by it.
    pub fn order(self) -> Order {
        let Entries { site, what } = self;
        match what {
            None => Order::Entries { site, number: None },
            Some(What::Show { number }) => Order::Entries { site, number: Some(number) },
            Some(What::Undo { number, intent }) => Order::Undo { site, number, intent },
        }
    }
}
