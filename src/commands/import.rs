//! `import`: reads rows of totals from a file and has them entered.

pub mod rows;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use indicatif::ProgressBar;

use super::input::{self, digest};
use super::order;
use super::outcome::{Failure, Outcome};
use crate::calendar::Period;
use crate::config::Config;
use crate::totals::{Entering, Intent, Order, Rows};

/// The longest file, bytes.
const MAX_FILE: u64 = 1 << 30;

/// Rows that go with one order. A longer file becomes several entries.
const ROWS_AT_A_TIME: usize = 100_000;

/// What to enter, and how.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Import {
    /// CSV or JSON with the columns site, total, period, bucket, page, value; - is the standard input
    file: PathBuf,
    /// The site of rows that name none
    #[arg(long, value_name = "KEY")]
    site: Option<String>,
    /// Rows say what was shown when this civil day began, and not what shall be shown now
    #[arg(long, value_name = "DAY", conflicts_with = "add")]
    as_of: Option<NaiveDate>,
    /// Add the values to what was entered before
    #[arg(long)]
    add: bool,
    /// All rows are of days: add what they change to their weeks, months, years and to all
    #[arg(long)]
    roll_up: bool,
    #[command(flatten)]
    intent: Intent,
}

/// Has the rows of a file entered, all of them or, where anything is wrong, none.
pub fn run(config: &Config, import: Import) -> Outcome {
    let Import { file, site, as_of, add: adds, roll_up: rolls_up, intent } = import;
    let path = file.display();
    let bytes = read(&file).map_err(|error| format!("{path}: {error}"))?;
    let source = input::file_name(&path.to_string());
    let intent = Intent { source, digest: digest(&bytes), ..intent };
    let entering = Entering { as_of, adds, rolls_up, intent, ..Entering::default() };
    let order = |entering| order::carry_out(config, &Order::Enter(entering));
    let (at_a_time, faults, progress) = (ROWS_AT_A_TIME, String::new(), ProgressBar::new_spinner());
    let outcome =
        Importer { order, at_a_time, entering, site, bytes, faults, progress: progress.clone() }.run();
    progress.finish_and_clear();
    outcome
}

fn text(failure: Failure) -> String {
    let (Failure::Refused(text) | Failure::Undone(text) | Failure::No(text)) = failure;
    text
}

/// The bytes of a file, or of the standard input.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let input = input::open(&path.to_string_lossy(), &ProgressBar::hidden())?;
    let is_long = input.take(MAX_FILE + 1).read_to_end(&mut bytes)? as u64 > MAX_FILE;
    if is_long { Err(io::Error::other("longer than 1 GiB: give it in several files")) } else { Ok(bytes) }
}

/// A file on its way into the store.
struct Importer<F> {
    /// Has some of them entered.
    order: F,
    at_a_time: usize,
    /// What an order is, but for its rows.
    entering: Entering,
    site: Option<String>,
    bytes: Vec<u8>,
    /// Lines that are no rows.
    faults: String,
    progress: ProgressBar,
}

impl<F: FnMut(Entering) -> Outcome> Importer<F> {
    /// Has all rows entered or, where anything is wrong, none.
    fn run(mut self) -> Outcome {
        // All of it is tried first: what one order would refuse shall not follow on what others entered.
        let tried = self.pass(true, None);
        let faults = &self.faults;
        if !faults.is_empty() {
            let others = tried.map_or_else(text, |_| "nothing is entered".to_owned());
            return Err(format!("{faults}{others}").into());
        }
        let tried = tried?;
        if tried.is_empty() {
            return Err(format!("{} has no rows", self.entering.intent.source).into());
        }
        match &self.entering {
            entering if entering.intent.dry_run => Ok(tried),
            entering if !entering.is_part => self.pass(false, None),
            _ => {
                // What is entered of a month is part of what is entered of its year.
                let longest_first = Period::WORDS.iter().rev();
                let entered = longest_first.map(|(_, period)| self.pass(false, Some(*period)));
                let goes_on = "longer buckets are entered: the file again goes on from here";
                let entered: Result<String, Failure> = entered.collect();
                entered.map_err(|why| format!("{}; {goes_on}", text(why)).into())
            }
        }
    }

    /// Reads the file and orders its rows, or those of a period. What was done.
    fn pass(&mut self, dry_run: bool, of: Option<Period>) -> Outcome {
        let Importer { order, at_a_time, entering, site, bytes, faults, progress } = self;
        let (mut rows, mut said) = (Vec::new(), String::new());
        let mut order = |rows, entering: &Entering| {
            let intent = Intent { dry_run, ..entering.intent.clone() };
            order(Entering { rows: Rows(rows), intent, ..entering.clone() })
        };
        rows::read(bytes.as_slice(), site.as_deref(), |line, row| {
            match row {
                Err(fault) => *faults += &format!("line {line}: {fault}\n"),
                Ok(row) if of.is_some_and(|of| of.word() != row.period) => {}
                Ok(row) if rows.len() < *at_a_time => rows.push(row),
                Ok(_) if entering.adds => {
                    return Err(format!("with --add a file has at most {at_a_time} rows").into());
                }
                Ok(row) => {
                    entering.is_part = true;
                    said += &order(std::mem::replace(&mut rows, vec![row]), entering)?;
                    let what = of.map_or("checked", Period::word);
                    progress.set_message(format!("{what} up to line {line}"));
                }
            }
            Ok(())
        })?;
        if !rows.is_empty() {
            said += &order(rows, entering)?;
        }
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The orders that a file becomes, two rows at a time: which lines, whether on trial, whether a part.
    fn orders(text: &str, adds: bool, answer: impl Fn(&Entering) -> Outcome) -> (Outcome, Vec<String>) {
        let mut orders = Vec::new();
        let order = |entering: Entering| {
            let lines: Vec<usize> = entering.rows.0.iter().map(|row| row.line).collect();
            orders.push(format!("{lines:?} {} {}", entering.intent.dry_run, entering.is_part));
            answer(&entering)
        };
        let progress = ProgressBar::hidden();
        let entering = Entering { adds, ..Entering::default() };
        let (site, bytes) = (Some("demo".to_owned()), text.as_bytes().to_vec());
        let importer =
            Importer { order, at_a_time: 2, entering, site, bytes, faults: String::new(), progress };
        (importer.run(), orders)
    }

    fn done(_: &Entering) -> Outcome {
        Ok("done\n".to_owned())
    }

    const LONG: &str = "total,period,bucket,value\nvisits,day,2020-01-01,1\nvisits,year,2020,1\nvisits,all,,1\n\
                        visits,day,2020-01-02,1\nvisits,day,2020-01-03,1\n";

    #[test]
    fn a_long_file_is_tried_as_a_whole_and_entered_from_its_longest_buckets_on() {
        let (said, of) = orders(LONG, false, done);
        assert_eq!(said.unwrap(), "done\n".repeat(4));
        let tried = ["[2, 3] true true", "[4, 5] true true", "[6] true true"];
        let entered = ["[4] false true", "[3] false true", "[2, 5] false true", "[6] false true"];
        assert_eq!(of, [&tried[..], &entered[..]].concat());
        let (said, of) = orders("total,period,value\nvisits,all,1\n", false, done);
        assert_eq!((said.unwrap(), of.len()), ("done\n".to_owned(), 2));
    }

    #[test]
    fn nothing_is_entered_where_anything_is_wrong() {
        let refuses_line_5 = |entering: &Entering| match entering.rows.0.iter().any(|row| row.line == 5) {
            true => Err("line 5: x\nnothing is entered".to_owned().into()),
            false => done(entering),
        };
        let refused = |text: &str, add, of_orders| {
            let (said, of) = orders(text, add, refuses_line_5);
            assert!(of.iter().all(|order| order.contains(" true ")), "{of:?}");
            assert_eq!(of.len(), of_orders);
            super::text(said.unwrap_err())
        };
        assert_eq!(refused(LONG, false, 2), "line 5: x\nnothing is entered");
        let faulty = LONG.replace("2020,1", "2020,x");
        assert!(refused(&faulty, false, 2).starts_with("line 3: value \"x\""));
        assert!(refused(&faulty, false, 2).ends_with("line 5: x\nnothing is entered"));
        assert!(refused(LONG, true, 0).contains("at most 2 rows"));
        assert!(refused("total,period,value\n", false, 0).contains("no rows"));
    }

    #[test]
    fn what_is_interrupted_says_how_to_go_on() {
        let (said, _) = orders(LONG, false, |entering| match entering.rows.0[0].line {
            2 if !entering.intent.dry_run => Err("it stops".to_owned().into()),
            _ => done(entering),
        });
        assert_eq!(
            text(said.unwrap_err()),
            "it stops; longer buckets are entered: the file again goes on from here"
        );
    }
}
