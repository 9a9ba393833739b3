//! Reads access logs of web servers: lines in, the totals of civil days out, by the very rules that beacons are
//! counted by.
//!
//! ```text
//! source ─ line ─ decided by ingest ─ put in order ─ sessions ─ sums of two days ─▶ a day that is closed
//! ```
//!
//! A line that is the view of a page becomes a beacon of its own time, whose visitor is salted with a salt of this
//! run alone. Of the logs, the one that is read least far is read on, and a view is counted when each has been read
//! [`DISORDER_MS`] beyond it: so views of all logs are counted in their order, in memory that does not grow with the
//! logs. Two days are open at a time, because lines may go back over midnight, and because some zones' clocks did.

mod line;
mod rules;
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::NaiveDate;
use foldhash::HashMap;

use crate::clock::Moment;
use crate::ingest::{Beacon, OTHER, Page, Robots};
use crate::metrics::Metrics;
use crate::sessions::{self, Sessions, Sighting};
use crate::sites::Site;
use crate::totals::Sketch;
use line::Line;
pub use rules::LeftOut;
use rules::Rules;
pub use source::Source;

/// How far lines of one log may go back and still be counted in their order.
const DISORDER_MS: i64 = 60_000;

/// A line so far beyond the one before it is believed if the next line of its log is not before it.
const LEAP_MS: i64 = 24 * 3_600_000;

/// 1995-01-01: no log of the web is older.
const FIRST_MS: i64 = 788_918_400_000;

/// Lines that are read of a log before another one may be read.
const AT_ONCE: usize = 256;

/// The most views that wait to be put in order.
const MAX_WAITING: usize = 200_000;

/// Malformed lines that are shown.
const SHOWN: usize = 5;

/// What a site's civil day adds up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Day {
    /// The day.
    pub day: NaiveDate,
    /// When its first view was, Unix milliseconds.
    pub first_ms: i64,
    /// Views of pages.
    pub views: u64,
    /// Sessions that began.
    pub visits: u64,
    /// An estimate of its distinct visitors, as beacons' visitors are estimated.
    pub visitors: u64,
    /// Pages with their views, in order of their names.
    pub pages: Vec<(Box<str>, u64)>,
}

/// What was read and not counted.
#[derive(Clone, Debug, Default)]
pub struct Rest {
    /// Lines by the word of the reason.
    pub lines: BTreeMap<&'static str, u64>,
    /// Where the first malformed ones are.
    pub malformed: Vec<String>,
    /// Views that were counted without a visit, since there was no room for their sessions.
    pub without_room: u64,
}

impl Rest {
    fn count(&mut self, why: &'static str, lines: u64) {
        if lines > 0 {
            *self.lines.entry(why).or_default() += lines;
        }
    }
}

/// The past of a site as logs tell it.
pub struct Past {
    logs: Vec<Log>,
    rules: Rules,
    waiting: Waiting,
    sessions: Sessions,
    max_pages: usize,
    open: BTreeMap<NaiveDate, Sums>,
    /// Days before it are closed.
    open_from: NaiveDate,
    until: Option<NaiveDate>,
    /// No line is of later than this.
    last_ms: i64,
    rest: Rest,
}

/// A log, and up to when it is read.
struct Log {
    source: Source,
    reached_ms: i64,
    /// The last line, which the next one may take back if it leapt ahead.
    last: Option<(i64, Option<Beacon>)>,
}

/// Decided views that wait until no earlier one can come.
struct Waiting {
    /// A session has no shorter time than a second.
    by_second: BTreeMap<i64, Vec<Beacon>>,
    number: usize,
    /// Of the latest line, also of one that is no view.
    latest_ms: i64,
}

/// The sums of a day that is open.
#[derive(Default)]
struct Sums {
    first_ms: Option<i64>,
    views: u64,
    visits: u64,
    visitors: Sketch,
    /// By the key of the page.
    pages: HashMap<u64, (Page, u64)>,
}

impl Past {
    /// Of a site by its logs, read now. Its visitors get a salt of their own.
    ///
    /// # Errors
    /// The process has no metrics.
    pub fn new(
        site: &Site,
        sessions: sessions::Config,
        logs: Vec<Source>,
        until: Option<NaiveDate>,
        now: Moment,
        robots: Robots,
        salt: [u8; 16],
    ) -> Result<Past, String> {
        let rules = Rules::new(site, robots, salt);
        let metrics = Metrics::new(&rules.sites, sessions.max_sessions).map_err(|error| error.to_string())?;
        let log = |source| Log { source, reached_ms: i64::MIN, last: None };
        Ok(Past {
            logs: logs.into_iter().map(log).collect(),
            rules,
            waiting: Waiting { by_second: BTreeMap::new(), number: 0, latest_ms: i64::MIN },
            max_pages: sessions.max_pages,
            sessions: Sessions::new(sessions, 1, Arc::new(metrics), Moment::default()),
            open: BTreeMap::new(),
            open_from: NaiveDate::MIN,
            until,
            last_ms: now.unix_ms + LEAP_MS,
            rest: Rest::default(),
        })
    }

    /// The next day that is closed: when a later line follows it, and at the end if it is not after the last one that
    /// is wanted. None when the logs have ended.
    ///
    /// # Errors
    /// A log cannot be read on. No further day may be counted, since lines of it may be missing.
    pub fn next_day(&mut self) -> Result<Option<Day>, String> {
        loop {
            if let Some(closed) = self.take_closed() {
                return Ok(Some(closed));
            }
            if self.advance()? {
                continue;
            }
            let latest = self.rules.site.calendar.span(self.waiting.latest_ms).hour.day;
            let end = self.until.and_then(|until| until.succ_opt()).map_or(latest, |after| after.max(latest));
            if self.open_from >= end {
                let why = if self.until.is_some() { LeftOut::AfterUntil } else { LeftOut::DayNotClosed };
                let open = std::mem::take(&mut self.open);
                self.rest.count(why.word(), open.values().map(|sums| sums.views).sum());
                return Ok(None);
            }
            self.open_from = end;
        }
    }

    /// What was left out so far.
    pub fn rest(&self) -> &Rest {
        &self.rest
    }

    fn take_closed(&mut self) -> Option<Day> {
        while let Some(first) = self.open.first_entry().filter(|first| *first.key() < self.open_from) {
            let (day, sums) = first.remove_entry();
            if self.until.is_none_or(|until| day <= until) {
                return Some(sums.of(day));
            }
            self.rest.count(LeftOut::AfterUntil.word(), sums.views);
        }
        None
    }

    /// Counts the views of one second, or reads on; false when all is counted.
    fn advance(&mut self) -> Result<bool, String> {
        let behind = (0..self.logs.len()).min_by_key(|at| self.logs[*at].reached_ms);
        let sure_ms = behind.map_or(i64::MAX, |at| self.logs[at].reached_ms.saturating_sub(DISORDER_MS));
        if let Some(views) = self.waiting.take(sure_ms) {
            views.into_iter().for_each(|view| self.count(view));
            return Ok(true);
        }
        let Some(at) = behind else { return Ok(false) };
        for _ in 0..AT_ONCE {
            if !self.read_line(at)? {
                let last = self.logs.swap_remove(at).last;
                last.into_iter().for_each(|(at_ms, view)| self.waiting.put(at_ms, view));
                break;
            }
        }
        Ok(true)
    }

    /// Reads a line of a log; false at its end.
    fn read_line(&mut self, at: usize) -> Result<bool, String> {
        let Some(log) = self.logs.get_mut(at) else { return Ok(false) };
        let Some(text) = log.source.next_line()? else { return Ok(false) };
        let Some(line) = Line::read(text) else {
            if self.rest.malformed.len() < SHOWN {
                self.rest.malformed.push(log.source.place());
            }
            self.rest.count(LeftOut::MalformedLine.word(), 1);
            return Ok(true);
        };
        let at_ms = line.at_ms;
        let is_absurd = !(FIRST_MS..=self.last_ms).contains(&at_ms);
        if is_absurd || at_ms < log.reached_ms.saturating_sub(LEAP_MS) {
            let why = if is_absurd { LeftOut::AbsurdTime } else { LeftOut::OutOfOrder };
            self.rest.count(why.word(), 1);
            return Ok(true);
        }
        let view = self.rules.decide(&line).map_err(|why| self.rest.count(why, 1)).ok();
        let Some((before_ms, before)) = log.last.replace((at_ms, view)) else { return Ok(true) };
        if before_ms > log.reached_ms.saturating_add(LEAP_MS) && at_ms < before_ms - DISORDER_MS {
            self.rest.count(LeftOut::AbsurdTime.word(), u64::from(before.is_some()));
        } else {
            log.reached_ms = log.reached_ms.max(before_ms);
            self.waiting.put(before_ms, before);
        }
        Ok(true)
    }

    fn count(&mut self, view: Beacon) {
        let day = view.hour.day;
        if day < self.open_from {
            return self.rest.count(LeftOut::OutOfOrder.word(), 1);
        }
        self.open_from = day.pred_opt().map_or(self.open_from, |before| before.max(self.open_from));
        self.sessions.sweep(view.at, usize::MAX);
        let sighting = self.sessions.observe(view.visitor, view.site, &view.page, view.at);
        self.rest.without_room += u64::from(sighting == Sighting::Full);
        self.open.entry(day).or_default().count(view, sighting == Sighting::Visit, self.max_pages);
    }
}

impl Waiting {
    fn put(&mut self, at_ms: i64, view: Option<Beacon>) {
        self.latest_ms = self.latest_ms.max(at_ms);
        if let Some(view) = view {
            self.by_second.entry(at_ms / 1000).or_default().push(view);
            self.number += 1;
        }
    }

    /// Takes the views of the first second, if it is before `sure_ms`, or if too many wait.
    fn take(&mut self, sure_ms: i64) -> Option<Vec<Beacon>> {
        let is_full = self.number > MAX_WAITING;
        let first = self.by_second.first_entry()?;
        let views = (is_full || *first.key() < sure_ms / 1000).then(|| first.remove())?;
        self.number -= views.len();
        Some(views)
    }
}

impl Sums {
    fn count(&mut self, view: Beacon, is_visit: bool, max_pages: usize) {
        self.first_ms = Some(self.first_ms.map_or(view.at.unix_ms, |first| first.min(view.at.unix_ms)));
        self.views += 1;
        self.visits += u64::from(is_visit);
        view.visitor.into_iter().for_each(|visitor| _ = self.visitors.insert(visitor.today.0));
        let has_place = self.pages.len() < max_pages || self.pages.contains_key(&view.page.key());
        let page = if has_place { view.page } else { Page::trusted(view.site, OTHER) };
        self.pages.entry(page.key()).or_insert((page, 0)).1 += 1;
    }

    fn of(self, day: NaiveDate) -> Day {
        let pages = self.pages.into_values().map(|(page, views)| (page.as_str().into(), views));
        let mut pages: Vec<(Box<str>, u64)> = pages.collect();
        pages.sort_unstable();
        let (first_ms, visitors) = (self.first_ms.unwrap_or_default(), self.visitors.estimate());
        Day { day, first_ms, views: self.views, visits: self.visits, visitors, pages }
    }
}

/// Reads a line of a log, whatever it is.
#[cfg(any(test, fuzzing))]
pub fn read_any_line(bytes: &[u8]) {
    drop(Line::read(bytes));
}

#[cfg(test)]
mod tests;
