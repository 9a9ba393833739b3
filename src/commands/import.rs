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
use crate::totals::{Entering, Intent, Order, Row, Rows};

/// The longest file, bytes. Its rows are in memory.
const MAX_FILE: u64 = 256 << 20;

/// Rows that go with one order, and their bytes. A longer file becomes several entries.
const ROWS_AT_A_TIME: usize = 100_000;
const BYTES_AT_A_TIME: usize = 16 << 20;

/// What a row takes beside its page.
const ROW_BYTES: usize = 100;

/// How an order ends that is refused for its rows.
pub const NOTHING: &str = "nothing is entered";

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
    /// Take weeks and hours of a calendar that the site had before its week_start or time_zone was changed, too
    #[arg(long)]
    former_calendar: bool,
    #[command(flatten)]
    intent: Intent,
}

/// Has the rows of a file entered, all of them or, where anything is wrong, none.
pub fn run(config: &Config, import: Import) -> Outcome {
    let Import { file, site, as_of, add: adds, roll_up: rolls_up, former_calendar, intent } = import;
    let path = file.display();
    let bytes = read(&file).map_err(|error| format!("{path}: {error}"))?;
    let source = input::file_name(&path.to_string());
    let intent = Intent { source, digest: digest(&bytes), ..intent };
    let entering = Entering { as_of, adds, rolls_up, former_calendar, intent, ..Entering::default() };
    let (rows, faults) = rows_of(&bytes, site.as_deref())?;
    let parts = parts(rows, ROWS_AT_A_TIME, BYTES_AT_A_TIME);
    let progress = ProgressBar::new(2 * parts.len() as u64);
    let outcome = enter(&entering, parts, faults, |entering| {
        progress.inc(1);
        order::carry_out(config, &Order::Enter(entering))
    });
    progress.finish_and_clear();
    outcome
}

/// Reads all rows, in the order in which they are entered: those of the site before those of its pages, of each the
/// longest buckets first; and what is wrong with others.
fn rows_of(bytes: &[u8], site: Option<&str>) -> Result<(Vec<Row>, Vec<String>), Failure> {
    let (mut rows, mut faults) = (Vec::new(), Vec::new());
    rows::read(bytes, site, |line, row| match row {
        Ok(row) => rows.push(row),
        Err(fault) => faults.push(format!("line {line}: {fault}\n")),
    })?;
    let length = |row: &Row| Period::WORDS.iter().position(|(word, _)| *word == row.period);
    rows.sort_by(|a, b| (&a.site, &a.page, length(b)).cmp(&(&b.site, &b.page, length(a))));
    Ok((rows, faults))
}

/// Cuts rows into parts, but not between longer buckets of one name: what is entered of these is compared.
fn parts(rows: Vec<Row>, most: usize, most_bytes: usize) -> Vec<Vec<Row>> {
    let (mut parts, mut bytes) = (Vec::<Vec<Row>>::new(), 0);
    for row in rows {
        let is_apart = |last: &Row| {
            (&last.site, &last.page) != (&row.site, &row.page) || ["day", "hour"].contains(&&*row.period)
        };
        let full = parts.last().filter(|part| part.len() >= most || bytes >= most_bytes);
        if parts.is_empty() || full.and_then(|part| part.last()).is_some_and(is_apart) {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += row.page.len() + ROW_BYTES;
        parts.last_mut().into_iter().for_each(|part| part.push(row.clone()));
    }
    parts
}

/// Has all parts entered or, where anything is wrong with one, none.
fn enter(
    entering: &Entering,
    parts: Vec<Vec<Row>>,
    mut faults: Vec<String>,
    mut order: impl FnMut(Entering) -> Outcome,
) -> Outcome {
    let number = parts.len();
    let part = |(rows, part): (Vec<Row>, usize)| {
        let mut entering = Entering { rows: Rows(rows), ..entering.clone() };
        entering.intent.digest += &if number > 1 { format!("/{part}") } else { String::new() };
        entering
    };
    let parts: Vec<Entering> = parts.into_iter().zip(1..).map(part).collect();
    let mut said = String::new();
    for part in &parts {
        let intent = Intent { dry_run: true, ..part.intent.clone() };
        match order(Entering { intent, ..part.clone() }) {
            Ok(done) => said += &done,
            Err(Failure::Undone(why)) => match why.trim_end().strip_suffix(NOTHING) {
                Some(of_part) => faults.push(of_part.to_owned()),
                None => return Err(why.into()),
            },
            Err(other) => return Err(other),
        }
    }
    if !faults.is_empty() {
        return Err((faults.concat() + NOTHING).into());
    }
    if parts.is_empty() {
        return Err(format!("{} has no rows", entering.intent.source).into());
    }
    if entering.intent.dry_run {
        return Ok(said);
    }
    match parts.into_iter().map(order).collect() {
        Err(Failure::Undone(why)) if number > 1 => {
            Err(format!("{why}; give the file again, and it goes on from here").into())
        }
        entered => entered,
    }
}

/// The bytes of a file, or of the standard input.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let input = input::open(&path.to_string_lossy(), &ProgressBar::hidden())?;
    let is_long = input.take(MAX_FILE + 1).read_to_end(&mut bytes)? as u64 > MAX_FILE;
    if is_long { Err(io::Error::other("longer than 256 MiB: give it in several files")) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The orders that a file becomes, two rows at a time: which lines, and of what digest.
    fn orders(
        text: &str,
        dry_run: bool,
        answer: impl Fn(&Entering) -> Outcome,
    ) -> (Result<String, String>, Vec<String>) {
        let mut orders = Vec::new();
        let mut entering = Entering::default();
        entering.intent.dry_run = dry_run;
        (entering.intent.source, entering.intent.digest) = ("past.csv".to_owned(), "d".to_owned());
        let (rows, faults) = rows_of(text.as_bytes(), Some("demo")).unwrap();
        let said = enter(&entering, parts(rows, 2, 1 << 20), faults, |entering| {
            let lines: Vec<usize> = entering.rows.0.iter().map(|row| row.line).collect();
            let trial = if entering.intent.dry_run { "tried" } else { "entered" };
            orders.push(format!("{lines:?} {} {trial}", entering.intent.digest));
            answer(&entering)
        });
        let text = |failure| match failure {
            Failure::Refused(text) | Failure::Undone(text) | Failure::No(text) => text,
        };
        (said.map_err(text), orders)
    }

    fn done(_: &Entering) -> Outcome {
        Ok("done\n".to_owned())
    }

    const LONG: &str = "total,period,bucket,page,value\nvisits,day,2020-01-01,,1\nvisits,year,2020,,1\n\
                        visits,all,,,1\nvisits,month,2020-01,,1\nviews,all,,/b,1\nviews,all,,/a,1\nviews,year,2020,/a,1\n";

    #[test]
    fn a_long_file_is_tried_as_a_whole_and_cut_where_buckets_are_not_compared() {
        let (said, of) = orders(LONG, false, done);
        assert_eq!(said, Ok("done\n".repeat(3)));
        let cut = ["[4, 3, 5] d/1", "[2, 7, 8] d/2", "[6] d/3"];
        let tried = cut.map(|part| format!("{part} tried"));
        assert_eq!(of, [tried.clone(), cut.map(|part| format!("{part} entered"))].concat());
        assert_eq!(orders(LONG, true, done).1, tried);
        let (_, of) = orders("total,period,value\nvisits,all,1\n", false, done);
        assert_eq!(of, ["[2] d tried", "[2] d entered"]);
        let rows = rows_of(LONG.as_bytes(), Some("demo")).unwrap().0;
        assert_eq!(parts(rows.clone(), 100, 1).len(), 4, "as soon as they are so many bytes");
        assert_eq!(parts(rows, 100, 1 << 20).len(), 1);
    }

    #[test]
    fn nothing_is_entered_where_anything_is_wrong() {
        let refuses = |lines: &'static [usize]| {
            move |entering: &Entering| match entering.rows.0.iter().find(|row| lines.contains(&row.line)) {
                Some(row) => Err(format!("line {}: x\nnothing is entered\n", row.line).into()),
                None => done(entering),
            }
        };
        let refused = |text: &str, lines, of_orders| {
            let (said, of) = orders(text, false, refuses(lines));
            assert!(of.iter().all(|order| order.ends_with("tried")), "{of:?}");
            assert_eq!(of.len(), of_orders);
            said.unwrap_err()
        };
        assert_eq!(refused(LONG, &[5, 6], 3), "line 5: x\nline 6: x\nnothing is entered");
        let faulty = refused(&LONG.replace("2020,,1", "2020,,x"), &[6], 3);
        assert!(faulty.starts_with("line 3: value \"x\""), "{faulty}");
        assert!(faulty.ends_with("line 6: x\nnothing is entered"), "{faulty}");
        assert_eq!(refused("total,period,value\n", &[], 0), "past.csv has no rows");
    }

    #[test]
    fn what_is_interrupted_says_how_to_go_on() {
        let (said, _) = orders(LONG, false, |entering| match entering.rows.0[0].line {
            2 if !entering.intent.dry_run => Err("it stops".to_owned().into()),
            _ => done(entering),
        });
        assert_eq!(said.unwrap_err(), "it stops; give the file again, and it goes on from here");
    }
}
