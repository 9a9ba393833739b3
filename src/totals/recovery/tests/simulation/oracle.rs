//! What must be counted, found without the code under test: a plain list of views, days by `chrono` alone, visits
//! by looking back in the list, the names of hashes as README has them.

use std::collections::BTreeMap;

use crate::totals::batch::part::Stamp;
use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, Weekday};

pub const MINUTE_MS: i64 = 60_000;
const HOUR_S: i64 = 3600;

/// The periods that are shown, and of what is shown of them: the same place in [`View::names`], after the hour.
pub const SHOWN: std::ops::Range<usize> = 1..6;
pub const WEEK: usize = 2;
pub const YEAR: usize = 4;
/// Those that pages are kept of.
const OF_PAGES: [usize; 3] = [1, 3, 5];

/// How a site's days and weeks are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Berlin, which has summer time; else Saigon, which has none.
    pub berlin: bool,
    pub first: Weekday,
}

impl Cut {
    pub fn zone(self) -> &'static str {
        if self.berlin { "Europe/Berlin" } else { "Asia/Ho_Chi_Minh" }
    }

    fn offset_s(self, unix_ms: i64) -> i64 {
        if !self.berlin {
            return 7 * HOUR_S;
        }
        let utc = DateTime::from_timestamp_millis(unix_ms).unwrap().naive_utc();
        // From the last Sunday of March to that of October, 01:00 UTC each.
        let change = |month| -> NaiveDateTime {
            let last = NaiveDate::from_ymd_opt(utc.year(), month, 31).unwrap();
            let sunday = last - Days::new(last.weekday().num_days_from_sunday().into());
            sunday.and_hms_opt(1, 0, 0).unwrap()
        };
        if (change(3)..change(10)).contains(&utc) { 2 * HOUR_S } else { HOUR_S }
    }

    fn local(self, unix_ms: i64) -> NaiveDateTime {
        DateTime::from_timestamp_millis(unix_ms + self.offset_s(unix_ms) * 1000).unwrap().naive_utc()
    }

    pub fn day(self, unix_ms: i64) -> NaiveDate {
        self.local(unix_ms).date()
    }

    /// The names of the hashes that a view of an instant counts in: hour, day, week, month, year, all.
    pub fn names(self, site: usize, unix_ms: i64) -> [String; 6] {
        let (local, offset_h) = (self.local(unix_ms), self.offset_s(unix_ms) / HOUR_S);
        let of = |format: &str| format!("s{site}/{}", local.format(format));
        [
            of("hour:%Y-%m-%dT%H") + &format!("+{offset_h:02}:00"),
            of("day:%Y-%m-%d"),
            week(site, local.date(), self.first),
            of("month:%Y-%m"),
            of("year:%Y"),
            format!("s{site}/all"),
        ]
    }
}

fn week(site: usize, day: NaiveDate, first: Weekday) -> String {
    let begins = day - Days::new(day.weekday().days_since(first).into());
    match first {
        Weekday::Mon => format!("s{site}/week:{}", begins.format("%G-W%V")),
        _ => format!("s{site}/week:{begins}/P7D"),
    }
}

/// A view that is counted.
#[derive(Clone, Debug)]
pub struct View {
    pub by: usize,
    pub site: usize,
    pub page: u8,
    pub who: u8,
    pub id: Option<u8>,
    pub at_ms: i64,
    pub day: NaiveDate,
    pub names: [String; 6],
    /// None of the same visitor came within half an hour before it.
    pub visit: bool,
    /// The batch it was frozen into.
    pub batch: Option<u64>,
    /// Its bytes in the journal: the name of a file, where they begin, and what they are.
    pub written: (String, usize, Vec<u8>),
    /// They are synced for certain.
    pub synced: bool,
}

/// A value that was entered of a site.
#[derive(Clone, Debug)]
pub struct Registered {
    pub site: usize,
    pub stamp: Stamp,
    /// It is in an outbox for certain: the process did not end while it was added.
    pub certain: bool,
}

/// Sums by hash and field.
pub type Sums = BTreeMap<(String, String), u64>;

/// The views that are counted, in the order in which they were taken.
#[derive(Default)]
pub struct Oracle {
    pub views: Vec<View>,
    /// What was entered.
    pub entries: Vec<Registered>,
    /// Weeks may be cut anew.
    pub recuts: bool,
    /// The weeks that were made the sum of their days, and when views came that were cut otherwise, the last time.
    pub recut: BTreeMap<String, i64>,
}

impl Oracle {
    /// When a visitor of an instance viewed a site last.
    pub fn seen_ms(&self, by: usize, site: usize, who: u8) -> Option<i64> {
        let of = |view: &&View| (view.by, view.site, view.who) == (by, site, who);
        self.views.iter().rfind(of).map(|view| view.at_ms)
    }

    /// When an id of a site was counted last at an instance.
    pub fn counted_ms(&self, by: usize, site: usize, id: u8) -> Option<i64> {
        let of = |view: &&View| (view.by, view.site, view.id) == (by, site, Some(id));
        self.views.iter().rfind(of).map(|view| view.at_ms)
    }

    /// The names of hashes that a view counts in, by period: two for a week that was cut anew.
    fn names(&self, view: &View, period: usize) -> Vec<String> {
        let mut names = vec![view.names[period].clone()];
        let weeks = [Weekday::Mon, Weekday::Sun].map(|first| week(view.site, view.day, first));
        let counts = |week: &String| self.recut.get(week).is_some_and(|until_ms| view.at_ms <= *until_ms);
        let weeks = weeks.into_iter().filter(|week| period == WEEK && *week != view.names[WEEK]);
        names.extend(weeks.filter(counts));
        names
    }

    /// Views and visits in a hash: of an instance what it counted there itself, or all that it may hold.
    pub fn sums(&self, by: Option<usize>, hash: &str, period: usize, page: Option<u8>) -> (u64, u64) {
        let weeks = |view: &View| [Weekday::Mon, Weekday::Sun].map(|first| week(view.site, view.day, first));
        let may = |view: &View| {
            self.recuts && by.is_none() && period == WEEK && weeks(view).iter().any(|week| week == hash)
        };
        let within = |view: &&View| {
            by.is_none_or(|by| view.by == by)
                && page.is_none_or(|page| view.page == page)
                && (view.names[period] == hash || may(view))
        };
        let within = self.views.iter().filter(within);
        within.fold((0, 0), |(views, visits), view| (views + 1, visits + u64::from(view.visit)))
    }

    /// What the store should hold of some of the views.
    pub fn expected(&self, of: impl Fn(&View) -> bool) -> Sums {
        let mut sums = Sums::new();
        let mut add = |hash: String, field: String| *sums.entry((hash, field)).or_default() += 1;
        for view in self.views.iter().filter(|view| of(view)) {
            for period in 0..view.names.len() {
                for name in self.names(view, period) {
                    add(name.clone(), "views".to_owned());
                    if view.visit {
                        add(name.clone(), "visits".to_owned());
                    }
                }
            }
            for period in OF_PAGES {
                add(format!("{}:pages", view.names[period]), format!("/{}", view.page));
            }
        }
        sums
    }
}
