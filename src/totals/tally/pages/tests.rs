//! The pages of a site against a plain model that remembers every view.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::calendar::{Calendar, PerPeriod};
use crate::totals::tally::cell::same_buckets;

const DAY_MS: i64 = 24 * 3_600_000;
/// 2026-11-29, a Sunday: the next days begin a week and a month.
const SUNDAY_MS: i64 = 1_795_910_400_000;

pub(in crate::totals) fn hour_of(day: u8) -> CivilHour {
    Calendar::utc().span(SUNDAY_MS + i64::from(day) * DAY_MS).hour
}

fn page(n: u8) -> Page {
    Page::trusted(SiteId(0), &format!("/{n}"))
}

#[derive(Clone, Debug)]
enum Step {
    Views { page: u8, number: u8 },
    Day(u8),
    SealSome(usize),
    Freeze,
    Apply,
    Load(u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..8u8, 1..4u8).prop_map(|(page, number)| Step::Views { page, number }),
        2 => (0..40u8).prop_map(Step::Day),
        3 => (0..4usize).prop_map(Step::SealSome),
        4 => Just(Step::Freeze),
        4 => Just(Step::Apply),
        5 => (0..8u8).prop_map(Step::Load),
        1 => Just(Step::Restart),
    ]
}

type Amounts = BTreeMap<(String, u8), u64>;

fn add(to: &mut Amounts, what: &Amounts) {
    for (key, amount) in what {
        *to.entry(key.clone()).or_default() += amount;
    }
}

fn figures(of: &Amounts, text: &str, day: u8) -> PageFigures {
    let mut figures = PerPeriod::<u64>::default();
    for ((_, other), amount) in of.iter().filter(|((page, _), _)| page == text) {
        let more = same_buckets(&hour_of(*other), &hour_of(day)).map(|same| if same { *amount } else { 0 });
        figures = figures.zip(more).map(|(figure, more)| figure + more);
    }
    figures
}

struct Run {
    real: Pages,
    max: usize,
    day: u8,
    /// By the name that the store is given.
    stored: Amounts,
    waiting: Vec<Amounts>,
    pending: Amounts,
    sealed: Amounts,
    /// Views that are in no batch, with the page as it was asked for.
    journal: Vec<(u8, u8)>,
    /// The day of the last start.
    started: u8,
    shown: BTreeMap<u8, PageFigures>,
}

impl Run {
    fn all(&self) -> Amounts {
        let mut all = self.stored.clone();
        self.waiting.iter().for_each(|batch| add(&mut all, batch));
        add(&mut all, &self.sealed);
        add(&mut all, &self.pending);
        all
    }

    /// Views of a day that come with another one pending are sealed first, as the tally does.
    fn seal(&mut self) {
        let found: BTreeMap<String, u64> =
            self.real.seal().into_iter().map(|(text, views)| (text.to_string(), views)).collect();
        let pending = std::mem::take(&mut self.pending);
        let expected: BTreeMap<_, _> = pending.iter().map(|((text, _), n)| (text.clone(), *n)).collect();
        assert_eq!(found, expected, "what is sealed is what was pending");
        add(&mut self.sealed, &pending);
    }

    fn step(&mut self, step: &Step) {
        let hour = hour_of(self.day);
        match *step {
            Step::Views { page: n, number } => {
                for _ in 0..number {
                    self.count(n, self.day);
                    self.journal.push((n, self.day));
                }
            }
            Step::Day(day) => {
                self.seal();
                self.day = day.max(self.started);
                self.shown.clear();
            }
            Step::SealSome(most) => {
                let dirty = self.real.dirty.len();
                assert_eq!(self.real.seal_some(most), dirty.min(most));
            }
            Step::Freeze => {
                self.seal();
                let frozen = std::mem::take(&mut self.sealed);
                self.journal.clear();
                if !frozen.is_empty() {
                    self.waiting.push(frozen);
                }
            }
            Step::Apply if !self.waiting.is_empty() => {
                let batch = self.waiting.remove(0);
                for ((text, day), views) in &batch {
                    self.real.applied(&Page::trusted(SiteId(0), text), &hour_of(*day), *views);
                }
                add(&mut self.stored, &batch);
            }
            // Pages are loaded while nothing waits, as the writer does.
            Step::Load(n) if self.waiting.is_empty() => {
                let text = page(n).as_str().to_owned();
                let stored = figures(&self.stored, &text, self.day).map(Revised::from);
                self.real.learn(&text, &hour, stored, 0);
            }
            // A start does not know what was counted on days to come, if the clock is set back before or
            // after it.
            Step::Restart if self.all().keys().all(|(_, day)| *day <= self.day) => self.restart(),
            _ => {}
        }
        self.check();
    }

    fn count(&mut self, n: u8, day: u8) {
        let page = page(n);
        let named = self.real.count(&page, &hour_of(day));
        if !named {
            let needed = |(count, entry): (&Count, &Entry)| count.pending > 0 || !entry.views.is_applied();
            let all_needed = self.real.counts.iter().zip(&self.real.entries).skip(1).all(needed);
            assert!(all_needed, "a page found no room although another was idle");
        }
        let text = if named { page.as_str() } else { OTHER };
        *self.pending.entry((text.to_owned(), day)).or_default() += 1;
    }

    /// What a checkpoint keeps, and the batches that wait; what is pending comes from the journal.
    fn restart(&mut self) {
        let mut known = Vec::new();
        let mut from = Some(0);
        while let Some(slot) = from {
            let (some, next) = self.real.export(slot, 3);
            known.extend(some);
            from = next;
        }
        for (text, hour, stored) in &known {
            let day = (0..40).find(|day| hour_of(*day).day == hour.day).unwrap();
            let expected = figures(&self.stored, text, day).map(Revised::from);
            assert_eq!(*stored, expected, "what the store holds of {text}");
        }
        self.real = Pages::new(SiteId(0), self.max);
        for (text, hour, stored) in known {
            self.real.restore(&text, &hour, stored);
        }
        for ((text, day), views) in self.waiting.iter().flatten() {
            self.real.restore_unapplied(text, &hour_of(*day), *views);
        }
        self.started = self.day;
        (self.pending, self.sealed) = Default::default();
        let mut of = None;
        for (n, day) in self.journal.clone() {
            if of.replace(day).is_some_and(|of| of != day) {
                self.seal();
            }
            self.count(n, day);
        }
        if of.is_some_and(|of| of != self.day) {
            self.seal();
        }
        self.shown.clear();
    }

    fn check(&mut self) {
        let all = self.all();
        let hour = hour_of(self.day);
        for n in 0..8 {
            let Some((shown, _)) = self.real.figures(&page(n), &hour) else { continue };
            assert_eq!(shown, figures(&all, page(n).as_str(), self.day), "page {n} on day {}", self.day);
            if let Some(before) = self.shown.insert(n, shown) {
                assert!(before.iter().zip(shown.iter()).all(|(before, now)| before.1 <= now.1));
            }
        }
        let (counts, entries) = (&self.real.counts, &self.real.entries);
        let dirty = counts.iter().filter(|count| count.pending > 0).count();
        assert_eq!(dirty, self.real.dirty.len());
        assert_eq!(counts.len(), entries.len());
        let keyed =
            |(count, entry): (&Count, &Entry)| count.key == Page::trusted(SiteId(0), &entry.text).key();
        assert!(counts.iter().zip(entries).skip(1).all(keyed), "a slot counts for another page");
        assert_eq!(self.real.index.len(), entries.len() - 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::totals::cases(600)))]

    #[test]
    fn shown_is_stored_and_unapplied(
        max in prop_oneof![Just(2usize), Just(4), Just(20)],
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut run = Run {
            real: Pages::new(SiteId(0), max),
            max,
            day: 20,
            stored: Amounts::new(),
            waiting: Vec::new(),
            pending: Amounts::new(),
            sealed: Amounts::new(),
            journal: Vec::new(),
            started: 0,
            shown: BTreeMap::new(),
        };
        steps.iter().for_each(|step| run.step(step));
    }
}

#[test]
fn a_new_page_takes_the_place_of_an_idle_page_even_if_all_were_asked_for() {
    let mut pages = Pages::new(SiteId(0), 100);
    let hour = hour_of(0);
    for n in 0..100 {
        assert!(pages.learn(page(n).as_str(), &hour, [Revised::from(1); 5].into(), 0));
    }
    for n in 100..200 {
        assert!(pages.intern(&page(n)).is_some(), "page {n} found no room");
    }
    assert_eq!(pages.entries.len(), 101);
}

#[test]
fn a_page_that_was_asked_for_outlives_one_that_was_not() {
    let mut pages = Pages::new(SiteId(0), 4);
    let hour = hour_of(0);
    for n in 0..4 {
        pages.learn(page(n).as_str(), &hour, [Revised::from(1); 5].into(), 0);
    }
    pages.intern(&page(4));
    // Everybody's mark is gone now; page 3 gets one again.
    assert!(pages.figures(&page(3), &hour).is_some());
    pages.intern(&page(5));
    pages.intern(&page(6));
    assert!(pages.figures(&page(3), &hour).is_some());
}

#[test]
fn what_is_only_read_takes_a_part_of_the_table_and_what_is_not_there_takes_none() {
    let mut pages = Pages::new(SiteId(0), 8);
    let hour = hour_of(0);
    let known = |pages: &mut Pages, numbers: std::ops::Range<u8>| {
        numbers.filter(|n| pages.figures(&page(*n), &hour).is_some()).count()
    };
    for n in 0..8 {
        pages.count(&page(n), &hour);
    }
    for (text, views) in pages.seal() {
        pages.applied(&Page::trusted(SiteId(0), &text), &hour, views);
    }
    for n in 0..8 {
        pages.learn(page(n).as_str(), &hour, [Revised::from(1); 5].into(), 0);
    }
    // Nobody has viewed these.
    let learned = (0..300u16).filter(|n| {
        let absent = format!("/absent/{n}");
        let easy = pages.learn(&absent, &hour, PerPeriod::default(), 7);
        let shown = pages.figures(&Page::trusted(SiteId(0), &absent), &hour);
        assert_eq!(shown, Some((PageFigures::default(), 7)));
        easy
    });
    assert_eq!(learned.count(), ABSENT);
    assert_eq!(known(&mut pages, 0..8), 8);
    // These were viewed long ago.
    for n in 10..100 {
        assert!(!pages.learn(page(n).as_str(), &hour, [Revised::from(1); 5].into(), 0));
        assert_eq!(known(&mut pages, n..n + 1), 1);
    }
    assert_eq!((known(&mut pages, 0..8), known(&mut pages, 10..100)), (6, 2));
    // Counted pages take the places of those that were only read.
    for n in 100..102 {
        pages.count(&page(n), &hour);
    }
    assert_eq!((known(&mut pages, 0..8), known(&mut pages, 10..100)), (6, 0));
    // A page that was not there is, once it is viewed.
    let viewed = Page::trusted(SiteId(0), "/absent/299");
    pages.count(&viewed, &hour);
    assert_eq!(pages.figures(&viewed, &hour), None);
}
