//! What is shown of something counted: shown = stored + unapplied, where unapplied is what is pending or on
//! its way to the store.
//!
//! Counting adds to both shown and unapplied; when the store has applied a batch, that is taken from unapplied
//! alone. So what is shown never goes back across a flush, and a fresh reading of the store is merged by adding
//! to it what is unapplied. Of two readings the larger one holds, unless the store says by a higher revision that
//! what it held before does not hold any more.

use crate::calendar::{CivilHour, PerPeriod, Period};
use crate::totals::batch::part::Sums;

/// What is counted: one number or several.
pub trait Amount: Copy + Default + PartialEq {
    /// Makes one of two, number by number.
    fn merge(self, other: Self, numbers: fn(u64, u64) -> u64) -> Self;

    fn plus(self, other: Self) -> Self {
        self.merge(other, u64::saturating_add)
    }

    /// Never below 0.
    fn minus(self, other: Self) -> Self {
        self.merge(other, u64::saturating_sub)
    }

    fn or_larger(self, other: Self) -> Self {
        self.merge(other, u64::max)
    }
}

impl Amount for u64 {
    fn merge(self, other: Self, numbers: fn(u64, u64) -> u64) -> Self {
        numbers(self, other)
    }
}

impl Amount for Sums {
    fn merge(self, other: Self, numbers: fn(u64, u64) -> u64) -> Self {
        self.with(other, numbers)
    }
}

/// A value, and the revision of what it was read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revised<T> {
    pub value: T,
    pub revision: u64,
}

impl<T> From<T> for Revised<T> {
    fn from(value: T) -> Self {
        Revised { value, revision: 0 }
    }
}

impl<T: Amount> Revised<T> {
    /// What holds of it and of what was there before: a value goes back under a higher revision only. A lower one is
    /// that of a store which went back itself: the next one is compared with it.
    pub fn after(self, before: Self) -> Self {
        match self.revision > before.revision {
            true => self,
            false => Revised { value: self.value.or_larger(before.value), ..self },
        }
    }
}

/// Buckets and their values.
pub trait Buckets: Clone {
    type Amount: Amount;
    /// Whether two hours are in the same of these buckets, whichever are shown.
    fn have_in_common(a: &CivilHour, b: &CivilHour) -> bool;
    /// Changes the values of the buckets that an hour is in.
    fn change(&mut self, hour: &CivilHour, change: impl Fn(Self::Amount) -> Self::Amount);
    /// Values go back under a higher revision only: keeps those that hold still.
    fn keep(&mut self, before: &Self);
}

/// What is shown of buckets, if it is known, and how much of it the store does not hold yet.
pub struct Cell<B: Buckets> {
    pub shown: Option<B>,
    /// Rarely of more than one hour or day, never of many.
    unapplied: Vec<(CivilHour, B::Amount)>,
}

impl<B: Buckets> Default for Cell<B> {
    fn default() -> Self {
        Cell { shown: None, unapplied: Vec::new() }
    }
}

impl<B: Buckets> Cell<B> {
    /// Counts an amount, or restores one of an unapplied batch read back at start.
    pub fn add(&mut self, hour: &CivilHour, amount: B::Amount) {
        match self.unapplied.iter_mut().find(|(of, _)| B::have_in_common(of, hour)) {
            Some((_, held)) => *held = held.plus(amount),
            None => self.unapplied.push((*hour, amount)),
        }
        if let Some(shown) = &mut self.shown {
            shown.change(hour, |value| value.plus(amount));
        }
    }

    /// The store holds so much of an hour now.
    pub fn applied(&mut self, hour: &CivilHour, amount: B::Amount) {
        for (_, held) in self.unapplied.iter_mut().filter(|(of, _)| B::have_in_common(of, hour)) {
            *held = held.minus(amount);
        }
        self.unapplied.retain(|(_, held)| *held != B::Amount::default());
    }

    /// Whether the store holds all of it.
    pub fn is_applied(&self) -> bool {
        self.unapplied.is_empty()
    }

    /// Takes what the store holds, read while no batch was on its way. What is shown until now must be of the
    /// same buckets.
    pub fn learn(&mut self, mut stored: B) {
        for (hour, amount) in &self.unapplied {
            stored.change(hour, |value| value.plus(*amount));
        }
        if let Some(before) = &self.shown {
            stored.keep(before);
        }
        self.shown = Some(stored);
    }

    /// What is shown is not of what the store holds now.
    pub fn forget(&mut self) {
        self.shown = None;
    }

    /// What the store is known to hold.
    pub fn stored(&self) -> Option<B> {
        let mut stored = self.shown.clone()?;
        for (hour, amount) in &self.unapplied {
            stored.change(hour, |value| value.minus(*amount));
        }
        Some(stored)
    }
}

/// Values of the day, week, month and year of an hour, and since the beginning.
#[derive(Clone, Copy)]
pub struct Running<T> {
    pub hour: CivilHour,
    pub values: PerPeriod<Revised<T>>,
}

impl<T: Amount> Running<T> {
    /// The same in the buckets of another hour: one that has come begins at 0. `lasts`: nothing was counted on
    /// a later day. None where that is not so, and for a day that has passed (the wall clock was set back).
    pub fn turned(&self, hour: &CivilHour, lasts: bool) -> Option<Self> {
        if hour.day == self.hour.day {
            return Some(*self);
        }
        let turn = |(value, same)| if same { value } else { Revised::default() };
        let values = self.values.zip(same_buckets(&self.hour, hour)).map(turn);
        (lasts && hour.day > self.hour.day).then_some(Running { hour: *hour, values })
    }
}

impl<T: Amount> Buckets for Running<T> {
    type Amount = T;

    fn have_in_common(a: &CivilHour, b: &CivilHour) -> bool {
        (a.day, a.week) == (b.day, b.week)
    }

    fn change(&mut self, hour: &CivilHour, change: impl Fn(T) -> T) {
        let one = |(held, same): (Revised<T>, _)| match same {
            true => Revised { value: change(held.value), ..held },
            false => held,
        };
        self.values = self.values.zip(same_buckets(&self.hour, hour)).map(one);
    }

    fn keep(&mut self, before: &Self) {
        self.values = self.values.zip(before.values).map(|(value, before)| value.after(before));
    }
}

/// Which of the shown buckets two hours have in common.
pub fn same_buckets(a: &CivilHour, b: &CivilHour) -> PerPeriod<bool> {
    if (a.day, a.week) == (b.day, b.week) {
        return [true; 5].into();
    }
    Period::SHOWN.map(|period| a.bucket(period) == b.bucket(period)).into()
}

impl<T> PerPeriod<T> {
    /// Of every value another.
    pub fn map<U>(self, one: impl FnMut(T) -> U) -> PerPeriod<U> {
        <[T; 5]>::from(self).map(one).into()
    }

    /// Both values of each period.
    pub fn zip<U>(self, other: PerPeriod<U>) -> PerPeriod<(T, U)> {
        PerPeriod {
            day: (self.day, other.day),
            week: (self.week, other.week),
            month: (self.month, other.month),
            year: (self.year, other.year),
            all: (self.all, other.all),
        }
    }
}

/// In the order of [`Period::SHOWN`].
impl<T> From<PerPeriod<T>> for [T; 5] {
    fn from(PerPeriod { day, week, month, year, all }: PerPeriod<T>) -> Self {
        [day, week, month, year, all]
    }
}
