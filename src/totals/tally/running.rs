//! The running totals of one site in memory, and the visitors of its running day.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::NaiveDate;

use super::cell::{Amount, Buckets, Cell, Revised, Running};
use crate::calendar::{CivilHour, PerPeriod, Period};
use crate::ingest::Reason;
use crate::totals::batch::part::Sums;
use crate::totals::batch::sketch::{Registers, Sketch, register_of};

/// What the store holds of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The id of the data set that it is of; none where a release wrote it that did not note it.
    pub dataset: Option<Arc<str>>,
    /// The hour whose buckets these are.
    pub hour: CivilHour,
    pub sums: PerPeriod<Revised<Sums>>,
    /// Visitors of the other days of each bucket: none of the day's.
    pub earlier_visitors: PerPeriod<u64>,
    pub sketch: Sketch,
}

/// What is shown of a site, except the visitors of the day.
pub struct RunningTotals {
    /// The data set that was read.
    dataset: Option<Arc<str>>,
    totals: Cell<Running<Total>>,
    /// The latest day of which anything is known: later than that of `totals` where the wall clock was set
    /// back, and then nothing is known of the buckets in between.
    latest: NaiveDate,
    /// Visitors of the running day.
    day: (Option<NaiveDate>, Sketch),
    /// Visitors as they were shown last.
    visitors: Option<Running<u64>>,
    /// Registers of the pending day's sketch that the store may not hold, and their ranks.
    risen: BTreeMap<u16, u8>,
    changed_ms: i64,
}

/// What is counted in a bucket. Visitors of days are added up when the day has ended.
#[derive(Clone, Copy, Default, PartialEq)]
struct Total {
    sums: Sums,
    earlier_visitors: u64,
}

impl Amount for Total {
    fn merge(self, other: Self, numbers: fn(u64, u64) -> u64) -> Self {
        let earlier_visitors = numbers(self.earlier_visitors, other.earlier_visitors);
        Total { sums: self.sums.merge(other.sums, numbers), earlier_visitors }
    }
}

/// Figures of the running buckets: day, week, month, year, all. `None`: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Views.
    pub views: PerPeriod<Option<u64>>,
    /// Visits.
    pub visits: PerPeriod<Option<u64>>,
    /// Visitors: of a day an estimate, of a longer period the sum of its days; not more than the visits only because
    /// the estimate is none too exact.
    pub visitors: PerPeriod<Option<u64>>,
    /// Views of the day that were left out, in order of [`Reason::FILTERED`].
    pub filtered: [u64; Reason::FILTERED.len()],
    /// When they last changed, Unix milliseconds.
    pub changed_ms: i64,
}

impl Figures {
    /// Whether any of the views are known.
    pub fn are_known(&self) -> bool {
        self.views.iter().any(|(_, views)| views.is_some())
    }
}

impl RunningTotals {
    pub fn new() -> Self {
        RunningTotals {
            dataset: None,
            totals: Cell::default(),
            latest: NaiveDate::MIN,
            day: (None, Sketch::new()),
            visitors: None,
            risen: BTreeMap::new(),
            changed_ms: 0,
        }
    }

    /// Views are written, the last of which was accepted at `at_ms`.
    pub fn count(&mut self, hour: &CivilHour, sums: Sums, at_ms: i64) {
        self.add(hour, sums);
        self.changed_ms = self.changed_ms.max(at_ms);
    }

    /// One of them is a visitor's. `again`: it is read back from the journal and in no batch; its visitor goes
    /// to the store even if the day's sketch holds it, because that may come from a checkpoint, which knew it
    /// before the store did. To raise a register twice changes nothing.
    pub fn see(&mut self, hour: &CivilHour, visitor: u64, again: bool) {
        self.turn_day(hour);
        let is_running = self.day.0 == Some(hour.day);
        let rose = is_running && self.day.1.insert(visitor).is_some();
        if rose || again || !is_running {
            let (register, rank) = register_of(visitor);
            let risen = self.risen.entry(register).or_default();
            *risen = rank.max(*risen);
        }
    }

    /// A day that has come begins; one that has passed does not come back.
    fn turn_day(&mut self, hour: &CivilHour) {
        if self.day.0.is_none_or(|day| day < hour.day) {
            self.begin_day(hour);
        }
    }

    fn begin_day(&mut self, hour: &CivilHour) {
        // The day that ends belongs to the earlier days of what is shown.
        self.totals.shown = self.shown_in(hour);
        self.day = (Some(hour.day), Sketch::new());
    }

    /// Amounts of an unapplied batch read back at start.
    pub fn restore_unapplied(&mut self, hour: &CivilHour, sums: Sums, day_registers: &Registers) {
        self.add(hour, sums);
        self.turn_day(hour);
        if self.day.0 == Some(hour.day) {
            self.day.1.raise(day_registers);
        }
    }

    fn add(&mut self, hour: &CivilHour, sums: Sums) {
        // A day that has passed still counts in the longer buckets that it shares with what is shown.
        self.totals.shown = self.shown_in(hour).or(self.totals.shown);
        self.totals.add(hour, Total { sums, earlier_visitors: 0 });
        self.latest = self.latest.max(hour.day);
    }

    /// Something was counted on a day, before this process was there.
    pub fn note_day(&mut self, day: NaiveDate) {
        self.latest = self.latest.max(day);
    }

    /// Takes the registers that rose.
    pub fn seal(&mut self) -> Registers {
        std::mem::take(&mut self.risen).into_iter().collect()
    }

    /// The store holds a batch's amounts now.
    pub fn applied(&mut self, hour: &CivilHour, sums: Sums) {
        self.totals.applied(hour, Total { sums, earlier_visitors: 0 });
    }

    /// Whether the store holds all of it.
    pub fn is_applied(&self) -> bool {
        self.totals.is_applied()
    }

    /// Whether what is shown is of another data set.
    pub fn is_of_another(&self, dataset: Option<&str>) -> bool {
        self.dataset.as_deref() != dataset
    }

    /// Takes what the store holds of the running day, read while no batch was on its way. Of another data set it
    /// takes the place of what was known.
    pub fn learn(&mut self, stored: Stored, now_ms: i64) {
        let Stored { dataset, hour, sums, earlier_visitors, sketch } = stored;
        if self.day.0 != Some(hour.day) {
            self.begin_day(&hour);
        }
        let before = self.shown_in(&hour);
        let is_another = self.is_of_another(dataset.as_deref());
        let is_newer = |shown: Running<Total>| sums.day.revision > shown.values.day.revision;
        if is_another || before.is_some_and(is_newer) {
            self.day.1 = Sketch::new();
            let risen: Registers = self.risen.iter().map(|(register, rank)| (*register, *rank)).collect();
            self.day.1.raise(&risen);
        }
        self.day.1.merge(&sketch);
        (self.dataset, self.totals.shown) = (dataset, before.filter(|_| !is_another));
        let total = |(sums, earlier_visitors): (Revised<Sums>, _)| Revised {
            value: Total { sums: sums.value, earlier_visitors },
            revision: sums.revision,
        };
        self.totals.learn(Running { hour, values: sums.zip(earlier_visitors).map(total) });
        if before.map(|shown| shown.values) != self.totals.shown.map(|shown| shown.values) {
            self.changed_ms = now_ms;
        }
        // What was known of a later day, in another zone or before the clock was set back, is no 0.
        self.latest = self.latest.max(hour.day);
    }

    /// The figures in the buckets of an hour.
    pub fn figures(&mut self, hour: &CivilHour) -> Figures {
        let Some(Running { values, .. }) = self.shown_in(hour) else {
            return Figures { changed_ms: self.changed_ms, ..Figures::default() };
        };
        let today = self.visitors_of(hour.day);
        let before = self.visitors.and_then(|shown| shown.turned(hour, true)).map(|shown| shown.values);
        let visitors = values.zip(before.unwrap_or_default()).map(|(total, before)| {
            let estimate = total.value.earlier_visitors + today;
            likely_visitors(estimate, total.value.sums.visits, before.value)
        });
        self.visitors = Some(Running { hour: *hour, values: visitors.map(Revised::from) });
        Figures {
            views: values.map(|total| Some(total.value.sums.views)),
            visits: values.map(|total| Some(total.value.sums.visits)),
            visitors: visitors.map(Some),
            filtered: values.day.value.sums.filtered,
            changed_ms: self.changed_ms,
        }
    }

    /// What the store is known to hold, for the checkpoint.
    pub fn stored(&self) -> Option<Stored> {
        let Running { hour, values } = self.totals.stored()?;
        let sketch = if self.day.0 == Some(hour.day) { self.day.1.clone() } else { Sketch::new() };
        let earlier_visitors = values.map(|total| total.value.earlier_visitors);
        let sums = |total: Revised<Total>| Revised { value: total.value.sums, revision: total.revision };
        let dataset = self.dataset.clone();
        Some(Stored { dataset, hour, sums: values.map(sums), earlier_visitors, sketch })
    }

    /// What is shown, in the buckets of another hour. The visitors of a day that ended become earlier ones.
    fn shown_in(&self, hour: &CivilHour) -> Option<Running<Total>> {
        let shown = self.totals.shown?;
        let mut turned = shown.turned(hour, shown.hour.day >= self.latest)?;
        if turned.hour.day > shown.hour.day {
            let ended = Total { sums: Sums::default(), earlier_visitors: self.visitors_of(shown.hour.day) };
            turned.change(&shown.hour, |total| total.plus(ended));
        }
        Some(turned)
    }

    fn visitors_of(&self, day: NaiveDate) -> u64 {
        if self.day.0 == Some(day) { self.day.1.estimate() } else { 0 }
    }

    /// The days before today of the week, the month, the year and since the beginning, each without those
    /// before `since`.
    pub fn earlier_days(hour: &CivilHour, since: NaiveDate) -> [Vec<NaiveDate>; 4] {
        let yesterday = hour.day.pred_opt();
        let days = |from: NaiveDate| -> Vec<NaiveDate> {
            let from = from.max(since);
            yesterday.map_or(Vec::new(), |to| from.iter_days().take_while(|d| *d <= to).collect())
        };
        let first = |period| match hour.bucket(period).days() {
            Some((first, _)) => first,
            None => since,
        };
        [Period::Week, Period::Month, Period::Year, Period::All].map(|p| days(first(p)))
    }
}

/// The number of visitors that is shown. An estimate that exceeds the visits by no more than its error, two standard
/// errors of a sketch, is one of so many visitors as there were visits. More are shown: there are some where sessions
/// last over midnight, or find no place. What was shown `before` is not taken back for that.
fn likely_visitors(estimate: u64, visits: u64, before: u64) -> u64 {
    let error = (u128::from(estimate) * 162 / 10_000) as u64;
    if estimate.saturating_sub(visits) > error { estimate } else { estimate.min(visits.max(before)) }
}

#[cfg(test)]
mod tests;
