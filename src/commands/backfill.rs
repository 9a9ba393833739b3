//! `backfill`: what access logs say of the time before footfall.

use std::collections::HashMap;
use std::io::{self, Write};

use chrono::NaiveDate;
use indicatif::ProgressBar;

use super::entries::Correction;
use super::outcome::{Failure, Outcome};
use super::{input, order};
use crate::clock::Clock;
use crate::config::Config;
use crate::logs::{Day, Past, Rest, Source};
use crate::random;
use crate::sessions;
use crate::totals::{Entering, Intent, MAX_ROWS, Order, Row, Rows};

/// A first day that begins so late may have begun in a log that is not there.
const LATE_MS: i64 = 3_600_000;

/// Which logs to count, and of which site.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Backfill {
    #[command(flatten)]
    of: Correction,
    /// The last day to count, even if no later line follows it: for logs that end with it
    #[arg(long, value_name = "DAY")]
    until: Option<NaiveDate>,
    /// Access logs, plain or gzip; `-` is the standard input
    #[arg(required = true, value_name = "FILE")]
    logs: Vec<String>,
}

/// Has each day that logs tell entered, where nothing covers it. What is left out of the logs, and why.
pub fn run(config: &Config, asked: &Backfill) -> Outcome {
    let site = config.sites.configured(&asked.of.site).map_err(Failure::Refused)?;
    refuse_copies(&asked.logs)?;
    let progress = input::progress();
    let open = |name: &String| {
        let source = input::open(name, &progress).and_then(|input| Source::of(name, input));
        source.map_err(|error| format!("{name}: {error}"))
    };
    let logs = asked.logs.iter().map(open).collect::<Result<_, _>>()?;
    // With `(other)` and the three sums of the site.
    let max_pages = config.sessions.max_pages.min(MAX_ROWS - 4);
    let sessions = sessions::Config { max_pages, ..config.sessions.clone() };
    let (now, robots) = (Clock::system().now(), config.serve.lists.robots.clone());
    let mut past = Past::new(site, sessions, logs, asked.until, now, robots, random::bytes())?;
    let mut is_first = true;
    while let Some(day) = past.next_day()? {
        let Day { day: date, first_ms, views, visits, visitors, pages } = &day;
        if std::mem::take(&mut is_first) && first_ms - site.calendar.day_begins_ms(*date) > LATE_MS {
            let first = site.calendar.rfc3339(*first_ms);
            let warning =
                format!("warning: the first view of {date} is of {first}: are there logs of before?");
            progress.suspend(|| writeln!(io::stdout(), "{warning}"))?;
        }
        progress.set_message(date.to_string());
        let pages = pages.len();
        let told = format!("{date}: {views} views, {visits} visits, {visitors} visitors, {pages} pages");
        let is_last = Some(*date) == asked.until;
        let done = order::carry_out(config, &Order::Enter(asked.entering(day)))?;
        let warning = if is_last && done.starts_with("left out") { "warning: " } else { "" };
        let done = done.trim_end().replace('\n', "; ");
        progress.suspend(|| writeln!(io::stdout(), "{warning}{told}: {done}"))?;
    }
    progress.finish_and_clear();
    let Rest { lines, malformed, without_room } = past.rest();
    let lines = lines.iter().map(|(why, number)| format!("left out: {number} lines, {why}\n"));
    let mut said: String = lines.collect();
    said.extend(malformed.iter().map(|place| format!("malformed: {place}\n")));
    if *without_room > 0 {
        said += &format!("without a visit: {without_room} views, since sessions.max_sessions was reached\n");
    }
    if is_first && said.is_empty() {
        said += "nothing is entered: there are no lines\n";
    }
    Ok(said)
}

/// Refuses a log that is given twice, though it be by another name, a copy or compressed.
fn refuse_copies(logs: &[String]) -> Result<(), Failure> {
    let mut beginnings = HashMap::new();
    for name in logs.iter().filter(|name| *name != "-") {
        let source = input::open(name, &ProgressBar::hidden()).and_then(|input| Source::of(name, input));
        let Some(beginning) = source.map(Source::beginning).ok().filter(|text| !text.is_empty()) else {
            continue;
        };
        if let Some(same) = beginnings.insert(beginning, name) {
            let why = format!("{name} begins as {same} does: it would be counted twice");
            return Err(Failure::Refused(why));
        }
    }
    Ok(())
}

impl Backfill {
    /// What of a day shall be shown.
    fn entering(&self, Day { day, views, visits, visitors, pages, .. }: Day) -> Entering {
        let row = |total: &str, page: &str, value: u64| Row {
            line: 0,
            site: self.of.site.clone(),
            total: total.to_owned(),
            period: "day".to_owned(),
            bucket: day.to_string(),
            page: page.to_owned(),
            value: value as i64,
        };
        let sums = [("views", views), ("visits", visits), ("visitors", visitors)];
        let sums = sums.map(|(total, value)| row(total, "", value)).into_iter();
        let rows: Vec<Row> =
            sums.chain(pages.iter().map(|(page, views)| row("views", page, *views))).collect();
        let digest = input::digest(&serde_json::to_vec(&rows).unwrap_or_default());
        let (first, more) = (input::file_name(&self.logs[0]), self.logs.len() - 1);
        let source = if more > 0 { format!("{first} and {more} more") } else { first };
        let intent = Intent { source, digest, ..self.of.intent.clone() };
        Entering { rows: Rows(rows), rolls_up: true, day: Some(day), intent, ..Entering::default() }
    }
}
