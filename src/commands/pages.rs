//! `pages`: pages that moved are shown as others.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::entries::Correction;
use super::examples;
use super::import::{self, read, rows};
use super::outcome::Failure;
use crate::ingest::OTHER;
use crate::totals::{Intent, Move, Moving, Order, Rows};

/// What with which pages.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Pages {
    /// Count and show what is read under an old name under a new one
    #[command(after_help = examples::PAGES_MOVE)]
    Move(MovePages),
    /// List the pages that are shown as others
    #[command(after_help = examples::PAGES_LIST)]
    List {
        /// One site's pages alone
        #[arg(long, value_name = "KEY")]
        site: Option<String>,
    },
}

/// Which pages moved.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct MovePages {
    #[command(flatten)]
    of: Correction,
    /// The old path or URL
    #[arg(required_unless_present_any = ["file", "undo"], requires = "new", conflicts_with_all = ["file", "undo"])]
    old: Option<String>,
    /// The new one
    new: Option<String>,
    /// A CSV file with an old and a new path or URL on each line; - is the standard input
    #[arg(long, conflicts_with = "undo")]
    file: Option<PathBuf>,
    /// Show this page as itself again
    #[arg(long, value_name = "OLD")]
    undo: Option<String>,
}

/// A page or a site to be erased.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Erase {
    #[command(flatten)]
    of: Correction,
    /// Its path or URL; pages that are shown as it are erased with it
    #[arg(long, value_name = "PAGE", required_unless_present = "whole_site")]
    page: Option<String>,
    /// Everything that is stored of the site, which begins anew
    #[arg(long, conflicts_with = "page")]
    whole_site: bool,
}

impl Erase {
    /// What is ordered by it.
    pub fn order(self) -> Order {
        let Erase { of, page, .. } = self;
        match page {
            Some(page) => ordered(of, vec![Move { line: 0, page, to: OTHER.to_owned() }], String::new()),
            None => Order::EraseSite { site: of.site, intent: of.intent },
        }
    }
}

impl Pages {
    /// What is ordered by it.
    ///
    /// # Errors
    /// A file cannot be read, or is not one of moves.
    pub fn order(self) -> Result<Order, Failure> {
        let MovePages { of, old, new, file, undo } = match self {
            Pages::Move(pages) => pages,
            Pages::List { site } => return Ok(Order::Moves { site }),
        };
        let Some(file) = file else {
            let (page, to) = (undo.or(old).unwrap_or_default(), new.unwrap_or_default());
            return Ok(ordered(of, vec![Move { line: 0, page, to }], String::new()));
        };
        let source = file.display().to_string();
        let moves = moves_in(&file)?;
        Ok(ordered(of, moves, source))
    }
}

fn ordered(of: Correction, moves: Vec<Move>, source: String) -> Order {
    let intent = Intent { source, ..of.intent };
    Order::Move(Moving { site: of.site, moves: Rows(moves), intent })
}

fn moves_in(file: &Path) -> Result<Vec<Move>, Failure> {
    let (mut moves, mut faults) = (Vec::new(), String::new());
    for numbered in rows::lines(read(file)?.as_slice()) {
        let (line, text) = numbered?;
        match rows::cells(&text).as_deref() {
            Ok([page, to]) if !page.is_empty() && !to.is_empty() => {
                moves.push(Move { line, page: page.clone(), to: to.clone() });
            }
            _ => {
                let fault = "not an old and a new page: one with a separator in it stands in quotes";
                faults += &format!("line {line}: {fault}\n");
            }
        }
    }
    if faults.is_empty() { Ok(moves) } else { Err((faults + import::NOTHING).into()) }
}
