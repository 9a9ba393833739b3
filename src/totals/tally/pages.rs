//! The pages of one site in memory: what is pending for them, and their figures as shown.
//!
//! A page is here while something of it is not yet in the store, and as long as there is room after
//! that: the table is a cache of figures and the place of pending sums at once. It is bounded; a page
//! with nothing pending makes room for a new one, and when there is none, a new page is counted in [`OTHER`].
//! Pages that were only read make room first, and when the table is full, reading takes at most a part of it. A
//! page that the store does not have takes no place: anybody can ask for as many of those as he likes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use chrono::NaiveDate;
use hashbrown::HashTable;

use super::cell::{Amount, Buckets, Cell, Revised, Running};
use crate::calendar::{CivilHour, PerPeriod};
use crate::ingest::{OTHER, Page};
use crate::sites::SiteId;

/// How many slots are looked at for one to give up.
const SEARCH: usize = 64;

/// How many pages are known that the store does not have.
const ABSENT: usize = 256;

/// Where the table is full, reads take no more of it than one part in so many.
const READ_PART: usize = 4;

/// The place of [`OTHER`].
const OTHER_SLOT: u32 = 0;

/// Views of a page in the running day, week, month, year and ever.
pub type PageFigures = PerPeriod<u64>;

/// A page, and its figures in the buckets of an hour as the store is known to hold them.
pub type StoredPage = (Arc<str>, CivilHour, PerPeriod<Revised<u64>>);

/// What counting a view touches, kept apart so that thousands of pages stay in the CPU's cache.
struct Count {
    key: u64,
    /// Views since the last seal, all of [`Pages::hour`].
    pending: u32,
    /// Looked at since the search for room last came by.
    used: bool,
    /// Views of it were counted here; otherwise it was only read.
    counted: bool,
}

/// The rest of a page.
struct Entry {
    text: Arc<str>,
    /// Sealed views; pending ones are not among them.
    views: Cell<Running<u64>>,
    loaded_ms: u64,
    /// Nothing was counted on later days than that of what is shown: a bucket that comes begins at 0.
    lasts: bool,
}

/// The table of a site's pages.
pub struct Pages {
    site: SiteId,
    index: HashTable<u32>,
    /// By slot, as are `entries`.
    counts: Vec<Count>,
    entries: Vec<Entry>,
    /// Slots with pending views.
    dirty: Vec<u32>,
    /// Views that were sealed and taken by no batch yet, by slot.
    sealed: HashMap<u32, (Arc<str>, u64)>,
    /// Slots of pages that were only read when they came, in the order in which they came.
    read: VecDeque<u32>,
    /// Keys of pages that the store does not have, and when it was asked, in that order.
    absent: VecDeque<(u64, u64)>,
    /// The hour that pending and sealed views are of.
    hour: Option<CivilHour>,
    hand: usize,
    max: usize,
    /// How many pages have sealed views that the store does not hold.
    unapplied: usize,
    /// The latest day that a view was counted on.
    latest: NaiveDate,
}

impl Pages {
    /// An empty table of at most `max` pages.
    pub fn new(site: SiteId, max: usize) -> Self {
        // The page of those that find no room is not in the index.
        Pages {
            site,
            index: HashTable::new(),
            counts: vec![Count { key: 0, pending: 0, used: true, counted: true }],
            entries: vec![Entry::new(OTHER.into())],
            dirty: Vec::new(),
            sealed: HashMap::new(),
            read: VecDeque::new(),
            absent: VecDeque::new(),
            hour: None,
            hand: 0,
            max: max + 1,
            unapplied: 0,
            latest: NaiveDate::MIN,
        }
    }

    /// The place of a page that is counted, made if there is room.
    fn intern(&mut self, page: &Page) -> Option<u32> {
        if let Some(slot) = self.find(page) {
            self.counts[slot as usize].counted = true;
            return Some(slot);
        }
        let slot = self.unused().or_else(|| self.only_read()).or_else(|| self.idle())?;
        Some(self.place(slot, page, true))
    }

    /// A place for a page that is read, and whether no other had to make room.
    fn intern_read(&mut self, page: &Page) -> (Option<u32>, bool) {
        let unused = self.unused();
        let is_part_full = self.read.len() >= self.max / READ_PART;
        let slot = unused.or_else(|| if is_part_full { self.only_read() } else { None });
        let Some(slot) = slot.or_else(|| self.idle()) else { return (None, false) };
        self.read.push_back(slot);
        (Some(self.place(slot, page, false)), unused.is_some())
    }

    fn place(&mut self, slot: u32, page: &Page, counted: bool) -> u32 {
        self.absent.retain(|(key, _)| *key != page.key());
        let count = Count { key: page.key(), pending: 0, used: true, counted };
        let entry = Entry::new(page.as_str().into());
        if slot as usize == self.entries.len() {
            self.counts.push(count);
            self.entries.push(entry);
        } else {
            (self.counts[slot as usize], self.entries[slot as usize]) = (count, entry);
        }
        let counts = &self.counts;
        self.index.insert_unique(page.key(), slot, |&slot| counts[slot as usize].key);
        slot
    }

    /// Pages are told apart by their keys, as in sessions: of a million, two meet by chance on one of forty
    /// million sites, and nobody outside can compute a key.
    fn find(&mut self, page: &Page) -> Option<u32> {
        if page.as_str() == OTHER {
            return Some(OTHER_SLOT);
        }
        let counts = &self.counts;
        let slot = *self.index.find(page.key(), |&slot| counts[slot as usize].key == page.key())?;
        self.counts[slot as usize].used = true;
        Some(slot)
    }

    /// A slot that no page has had.
    fn unused(&self) -> Option<u32> {
        (self.entries.len() < self.max).then_some(self.entries.len() as u32)
    }

    /// The slot of the page that came first of those that were only read since.
    fn only_read(&mut self) -> Option<u32> {
        while let Some(slot) = self.read.pop_front() {
            if !self.counts[slot as usize].counted {
                return self.vacate(slot);
            }
        }
        None
    }

    /// The slot of a page which nothing depends on, rather of one that nobody asked for lately.
    fn idle(&mut self) -> Option<u32> {
        let mut idle = None;
        for _ in 0..SEARCH {
            self.hand = self.hand % (self.entries.len() - 1) + 1;
            let count = self.counts.get_mut(self.hand)?;
            let used = std::mem::take(&mut count.used);
            // Nothing depends on it.
            if count.pending == 0 && self.entries.get(self.hand)?.views.is_applied() {
                idle = idle.filter(|_| used).or(Some(self.hand as u32));
                if !used {
                    break;
                }
            }
        }
        self.vacate(idle?)
    }

    fn vacate(&mut self, slot: u32) -> Option<u32> {
        let key = self.counts.get(slot as usize)?.key;
        if let Ok(found) = self.index.find_entry(key, |&s| s == slot) {
            found.remove();
        }
        Some(slot)
    }

    /// Counts a view; whether under a page's name. What is pending of another hour has been sealed.
    pub fn count(&mut self, page: &Page, hour: &CivilHour) -> bool {
        debug_assert!(self.hour.is_none_or(|pending| pending == *hour));
        let slot = self.intern(page).unwrap_or(OTHER_SLOT);
        let count = &mut self.counts[slot as usize];
        count.pending += 1;
        if count.pending == 1 {
            self.dirty.push(slot);
        }
        self.hour = Some(*hour);
        slot != OTHER_SLOT
    }

    /// Something was counted on a day, before this process was there.
    pub fn note_day(&mut self, day: NaiveDate) {
        self.latest = self.latest.max(day);
    }

    /// Takes what is pending and sealed.
    pub fn seal(&mut self) -> Vec<(Arc<str>, u64)> {
        self.seal_some(usize::MAX);
        self.hour = None;
        std::mem::take(&mut self.sealed).into_values().collect()
    }

    /// Seals the pending views of at most so many pages, and says of how many: what is left for [`Pages::seal`] is
    /// less work.
    pub fn seal_some(&mut self, most: usize) -> usize {
        let Some(hour) = self.hour else { return 0 };
        self.latest = self.latest.max(hour.day);
        let from = self.dirty.len().saturating_sub(most);
        let slots = self.dirty.drain(from..);
        let number = slots.len();
        for slot in slots {
            let views = u64::from(std::mem::take(&mut self.counts[slot as usize].pending));
            let entry = &mut self.entries[slot as usize];
            self.unapplied += usize::from(entry.views.is_applied());
            entry.add(&hour, views);
            self.sealed.entry(slot).or_insert_with(|| (entry.text.clone(), 0)).1 += views;
        }
        number
    }

    /// Views in an unapplied batch read back at start. The batch names the page, so it is given a place
    /// beyond the bound where there is none else.
    pub fn restore_unapplied(&mut self, page: &str, hour: &CivilHour, views: u64) {
        let page = Page::trusted(self.site, page);
        let slot = self.intern(&page).unwrap_or_else(|| self.place(self.entries.len() as u32, &page, true));
        let entry = &mut self.entries[slot as usize];
        self.unapplied += usize::from(entry.views.is_applied());
        entry.add(hour, views);
        self.latest = self.latest.max(hour.day);
    }

    /// The store holds a batch's views now.
    pub fn applied(&mut self, page: &Page, hour: &CivilHour, views: u64) {
        if let Some(slot) = self.find(page) {
            let held = &mut self.entries[slot as usize].views;
            let was_applied = held.is_applied();
            held.applied(hour, views);
            self.unapplied -= usize::from(!was_applied && held.is_applied());
        }
    }

    /// Takes what the store holds of a page, read while no batch was on its way; `hour` is the running one. False
    /// where another page had to make room for it, or where it is not kept itself.
    pub fn learn(
        &mut self,
        page: &str,
        hour: &CivilHour,
        stored: PerPeriod<Revised<u64>>,
        uptime_ms: u64,
    ) -> bool {
        let page = Page::trusted(self.site, page);
        let (slot, is_easy) = match self.find(&page) {
            Some(slot) => (Some(slot), true),
            None if stored.iter().all(|(_, views)| views.value == 0) => {
                return self.learn_absent(page.key(), uptime_ms);
            }
            None => self.intern_read(&page),
        };
        if let Some(slot) = slot {
            self.learn_at(slot, hour, stored, uptime_ms);
        }
        is_easy
    }

    /// The store does not have a page.
    fn learn_absent(&mut self, key: u64, uptime_ms: u64) -> bool {
        self.absent.retain(|(known, _)| *known != key);
        let is_full = self.absent.len() >= ABSENT;
        if is_full {
            self.absent.pop_front();
        }
        self.absent.push_back((key, uptime_ms));
        !is_full
    }

    /// How many pages can make no room for others, since their views are not in the store; at least.
    pub fn bound(&self) -> usize {
        self.unapplied.max(self.dirty.len())
    }

    /// Whether a page is one of those that the store was found last not to have.
    pub fn is_absent(&self, page: &Page) -> bool {
        self.absent.iter().rev().any(|(key, _)| *key == page.key())
    }

    /// Whether a page is in the table.
    pub fn has_place(&mut self, page: &Page) -> bool {
        self.find(page).is_some()
    }

    /// Takes back what a checkpoint holds of a page.
    pub fn restore(&mut self, page: &str, hour: &CivilHour, stored: PerPeriod<Revised<u64>>) {
        if let Some(slot) = self.intern(&Page::trusted(self.site, page)) {
            self.learn_at(slot, hour, stored, 0);
        }
    }

    fn learn_at(&mut self, slot: u32, hour: &CivilHour, stored: PerPeriod<Revised<u64>>, uptime_ms: u64) {
        let entry = &mut self.entries[slot as usize];
        entry.views.shown = entry.shown_in(hour);
        entry.views.learn(Running { hour: *hour, values: stored });
        entry.loaded_ms = uptime_ms;
        // The wall clock may have been set back.
        let latest = self.hour.map_or(self.latest, |pending| self.latest.max(pending.day));
        entry.lasts = latest <= hour.day;
    }

    /// What is shown is not of what the store holds now: no page is known until it is read again.
    pub fn forget(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.views.forget());
        self.absent.clear();
    }

    /// The figures of a page, and when they were last loaded; none where they are not known.
    pub fn figures(&mut self, page: &Page, hour: &CivilHour) -> Option<(PageFigures, u64)> {
        let Some(slot) = self.find(page) else {
            let (_, asked_ms) = self.absent.iter().find(|(key, _)| *key == page.key())?;
            return Some((PageFigures::default(), *asked_ms));
        };
        let slot = slot as usize;
        let (entry, pending) = (&self.entries[slot], u64::from(self.counts[slot].pending));
        let mut shown = entry.shown_in(hour)?;
        if let Some(of) = self.hour.filter(|_| pending > 0) {
            shown.change(&of, |views| views.plus(pending));
        }
        Some((shown.values.map(|views| views.value), entry.loaded_ms))
    }

    /// Known pages from a slot on, at most `limit`, for the checkpoint. And the slot to go on from, or none.
    pub fn export(&self, from: usize, limit: usize) -> (Vec<StoredPage>, Option<usize>) {
        let entries = self.entries.iter().skip(from).take(limit).filter(|entry| entry.lasts);
        let known = entries.filter_map(|entry| {
            let Running { hour, values } = entry.views.stored()?;
            Some((entry.text.clone(), hour, values))
        });
        let next = from + limit;
        (known.collect(), (next < self.entries.len()).then_some(next))
    }
}

impl Entry {
    fn new(text: Arc<str>) -> Self {
        Entry { text, views: Cell::default(), loaded_ms: 0, lasts: true }
    }

    fn add(&mut self, hour: &CivilHour, views: u64) {
        // A day that has passed still counts in the longer buckets that it shares with what is shown.
        self.views.shown = self.shown_in(hour).or(self.views.shown);
        self.views.add(hour, views);
    }

    /// What is shown, in the buckets of another hour.
    fn shown_in(&self, hour: &CivilHour) -> Option<Running<u64>> {
        self.views.shown?.turned(hour, self.lasts)
    }
}

#[cfg(test)]
pub mod tests;
