//! The figures of one site in memory: as shown, and what of them the store does not hold yet.
//!
//! Shown = stored + unapplied, where unapplied is what is pending or on its way. Counting a view adds it to
//! both shown and unapplied; the store's word that it applied a batch takes it from unapplied alone. So a
//! figure never goes back across a flush, and a fresh reading of the store is merged by adding what is
//! unapplied to it.

use std::collections::BTreeMap;

use chrono::NaiveDate;

use crate::calendar::{CivilHour, Period};
use crate::totals::batch::part::Sums;
use crate::totals::batch::sketch::{Registers, Sketch, register_of};

/// Day, week, month, year, all: the buckets that figures are shown for.
pub const PERIODS: [Period; 5] = [Period::Day, Period::Week, Period::Month, Period::Year, Period::All];

/// Which of the shown buckets two hours have in common.
pub fn same_buckets(a: &CivilHour, b: &CivilHour) -> [bool; 5] {
    if (a.day, a.week) == (b.day, b.week) {
        return [true; 5];
    }
    PERIODS.map(|period| a.bucket(period) == b.bucket(period))
}

/// Amounts by civil day that are not in the store yet: rarely more than one day, never many.
#[derive(Clone, Debug, Default)]
pub struct Unapplied<T>(Vec<(CivilHour, T)>);

impl<T: Default + Copy + PartialOrd + std::ops::Sub<Output = T>> Unapplied<T> {
    /// The amount of a day. The hour's own hour is of no account; its week may be one of another calendar.
    pub fn of(&mut self, hour: &CivilHour) -> &mut T {
        let same = |h: &CivilHour| (h.day, h.week) == (hour.day, hour.week);
        let place = self.0.iter().position(|(h, _)| same(h)).unwrap_or_else(|| {
            self.0.push((*hour, T::default()));
            self.0.len() - 1
        });
        &mut self.0[place].1
    }

    /// The store holds so much of a day now.
    pub fn take(&mut self, day: NaiveDate, mut amount: T) {
        while let Some(place) = self.0.iter().position(|(h, _)| h.day == day) {
            let left = &mut self.0[place].1;
            if amount < *left {
                *left = *left - amount;
                return;
            }
            amount = amount - *left;
            self.0.swap_remove(place);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&CivilHour, &T)> {
        self.0.iter().map(|(hour, amount)| (hour, amount))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What the store says of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The hour whose buckets these are.
    pub hour: CivilHour,
    /// Day, week, month, year, all.
    pub sums: [Sums; 5],
    /// Visitors of the other days of the week, month, year and ever.
    pub earlier_visitors: [u64; 4],
    /// The day's visitors.
    pub sketch: Sketch,
}

/// See the module.
pub struct SiteFigures {
    unapplied: Unapplied<Sums>,
    shown: Option<Shown>,
    /// The latest day of which anything is known: later than that of `shown` where the wall clock was set
    /// back, and then nothing is known of the buckets in between.
    latest: NaiveDate,
    /// Visitors of the running day.
    day: (Option<NaiveDate>, Sketch),
    /// Registers of the pending day's sketch that the store may not hold, and their ranks.
    risen: BTreeMap<u16, u8>,
    changed_ms: i64,
}

#[derive(Clone)]
struct Shown {
    hour: CivilHour,
    sums: [Sums; 5],
    earlier_visitors: [u64; 4],
}

/// Figures of the running buckets: day, week, month, year, all. `None`: not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Views.
    pub views: [Option<u64>; 5],
    /// Visits.
    pub visits: [Option<u64>; 5],
    /// Visitors: of a day an estimate, of a longer period the sum of its days.
    pub visitors: [Option<u64>; 5],
    /// When they last changed, Unix milliseconds.
    pub changed_ms: i64,
}

impl SiteFigures {
    pub fn new() -> Self {
        SiteFigures {
            unapplied: Unapplied::default(),
            shown: None,
            latest: NaiveDate::MIN,
            day: (None, Sketch::new()),
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
        self.shown = self.shown_in(hour);
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
        *self.unapplied.of(hour) += sums;
        // A day that has passed still counts in the longer buckets that it shares with what is shown.
        self.shown = self.shown_in(hour).or(self.shown.take());
        self.latest = self.latest.max(hour.day);
        if let Some(shown) = &mut self.shown {
            for (figure, same) in shown.sums.iter_mut().zip(same_buckets(hour, &shown.hour)) {
                if same {
                    *figure += sums;
                }
            }
        }
    }

    /// Takes the registers that rose.
    pub fn seal(&mut self) -> Registers {
        std::mem::take(&mut self.risen).into_iter().collect()
    }

    /// The store holds a batch's amounts now.
    pub fn applied(&mut self, day: NaiveDate, sums: Sums) {
        self.unapplied.take(day, sums);
    }

    /// The store's word on the running day, read while no batch was on its way. Figures never go back.
    pub fn load(&mut self, stored: Stored, now_ms: i64) {
        let mut sums = stored.sums;
        for (other, amount) in self.unapplied.iter() {
            for (figure, same) in sums.iter_mut().zip(same_buckets(other, &stored.hour)) {
                if same {
                    *figure += *amount;
                }
            }
        }
        if self.day.0 != Some(stored.hour.day) {
            self.begin_day(&stored.hour);
        }
        self.day.1.merge(&stored.sketch);
        let mut earlier_visitors = stored.earlier_visitors;
        let before = self.shown_in(&stored.hour);
        if let Some(shown) = &before {
            for (new, old) in sums.iter_mut().zip(shown.sums) {
                *new = Sums { views: new.views.max(old.views), visits: new.visits.max(old.visits) };
            }
            for (new, old) in earlier_visitors.iter_mut().zip(shown.earlier_visitors) {
                *new = old.max(*new);
            }
        }
        if before.is_none_or(|shown| shown.sums != sums || shown.earlier_visitors != earlier_visitors) {
            self.changed_ms = now_ms;
        }
        // What was known of a later day, in another zone or before the clock was set back, is no 0.
        self.latest = self.latest.max(stored.hour.day);
        self.shown = Some(Shown { hour: stored.hour, sums, earlier_visitors });
    }

    /// The figures in the buckets of an hour.
    pub fn figures(&self, hour: &CivilHour) -> Figures {
        let Some(shown) = self.shown_in(hour) else {
            return Figures { changed_ms: self.changed_ms, ..Figures::default() };
        };
        let today = if self.day.0 == Some(hour.day) { self.day.1.estimate() } else { 0 };
        let earlier = shown.earlier_visitors;
        Figures {
            views: shown.sums.map(|s| Some(s.views)),
            visits: shown.sums.map(|s| Some(s.visits)),
            visitors: std::array::from_fn(|i| Some(today + if i == 0 { 0 } else { earlier[i - 1] })),
            changed_ms: self.changed_ms,
        }
    }

    /// What the store is known to hold, for the checkpoint.
    pub fn stored(&self) -> Option<Stored> {
        let shown = self.shown.as_ref().filter(|shown| shown.hour.day >= self.latest)?;
        let mut sums = shown.sums;
        for (other, amount) in self.unapplied.iter() {
            for (figure, same) in sums.iter_mut().zip(same_buckets(other, &shown.hour)) {
                if same {
                    *figure = *figure - *amount;
                }
            }
        }
        let sketch = if self.day.0 == Some(shown.hour.day) { self.day.1.clone() } else { Sketch::new() };
        Some(Stored { hour: shown.hour, sums, earlier_visitors: shown.earlier_visitors, sketch })
    }

    /// What is shown in the buckets of another hour: a new bucket begins at 0, and the visitors of the day
    /// that ended become earlier ones. A day that has passed (the wall clock was set back) is not known.
    fn shown_in(&self, hour: &CivilHour) -> Option<Shown> {
        let shown = self.shown.as_ref()?;
        if shown.hour.day == hour.day {
            return Some(shown.clone());
        }
        if hour.day < shown.hour.day || shown.hour.day < self.latest {
            return None;
        }
        let same = same_buckets(&shown.hour, hour);
        let ended = if self.day.0 == Some(shown.hour.day) { self.day.1.estimate() } else { 0 };
        Some(Shown {
            hour: *hour,
            sums: std::array::from_fn(|i| if same[i] { shown.sums[i] } else { Sums::default() }),
            earlier_visitors: std::array::from_fn(|i| {
                if same[i + 1] { shown.earlier_visitors[i] + ended } else { 0 }
            }),
        })
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

#[cfg(test)]
mod tests;
