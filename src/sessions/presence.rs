//! The numbers of visitors online on pages, and the deadlines of sessions.

use std::collections::VecDeque;

use hashbrown::HashTable;

use crate::sites::SiteId;

/// A page's place in [`Presence`] while somebody is on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageSlot(pub u32);

impl PageSlot {
    /// On no page.
    pub const NONE: PageSlot = PageSlot(u32::MAX);
}

struct PageOnline {
    key: u64,
    online: u32,
    site: SiteId,
    text: Box<str>,
}

/// What is due at a sweep, by visitor.
pub(super) struct Due {
    pub leaving: Vec<u64>,
    pub online: Vec<u64>,
    pub ended: Vec<u64>,
    /// The next second to look at.
    pub next: u32,
}

/// How many visitors are online on each page, and the deadlines of all sessions.
pub(super) struct Presence {
    index: HashTable<u32>,
    pages: Vec<PageOnline>,
    free: Vec<u32>,
    /// In order of time, because everybody who leaves has the same time left.
    leaving: VecDeque<(u32, u64)>,
    online: Wheel,
    ended: Wheel,
    /// The next second to look at.
    next: u32,
}

impl Presence {
    pub fn new(start: u32, slots: usize) -> Self {
        Presence {
            index: HashTable::new(),
            pages: Vec::new(),
            free: Vec::new(),
            leaving: VecDeque::new(),
            online: Wheel::new(slots),
            ended: Wheel::new(slots),
            next: start,
        }
    }

    /// Whether a slot is that of a page.
    pub fn is_page(&self, slot: PageSlot, key: u64) -> bool {
        self.pages.get(slot.0 as usize).is_some_and(|page| page.key == key && page.online > 0)
    }

    /// One more is online on a page.
    pub fn enter(&mut self, key: u64, site: SiteId, text: &str) -> PageSlot {
        let pages = &mut self.pages;
        if let Some(&slot) = self.index.find(key, |&slot| pages[slot as usize].key == key) {
            pages[slot as usize].online += 1;
            return PageSlot(slot);
        }
        let page = PageOnline { key, online: 1, site, text: text.into() };
        let slot = match self.free.pop() {
            Some(slot) => {
                pages[slot as usize] = page;
                slot
            }
            None => {
                pages.push(page);
                (pages.len() - 1) as u32
            }
        };
        self.index.insert_unique(key, slot, |&slot| pages[slot as usize].key);
        PageSlot(slot)
    }

    /// One fewer is online on a page.
    pub fn exit(&mut self, slot: PageSlot) {
        let Some(page) = self.pages.get_mut(slot.0 as usize) else { return };
        page.online -= 1;
        if page.online == 0 {
            page.text = "".into();
            let key = page.key;
            if let Ok(entry) = self.index.find_entry(key, |&s| s == slot.0) {
                entry.remove();
            }
            self.free.push(slot.0);
        }
    }

    /// Visitors online on a page.
    pub fn online(&self, key: u64) -> u32 {
        let found = self.index.find(key, |&slot| self.pages[slot as usize].key == key);
        found.map_or(0, |&slot| self.pages[slot as usize].online)
    }

    /// Site and text of every page, by slot.
    pub fn pages(&self) -> Vec<(SiteId, Box<str>)> {
        self.pages.iter().map(|page| (page.site, page.text.clone())).collect()
    }

    pub fn arm_online(&mut self, at: u32, key: u64) {
        self.online.arm(at, self.next, key);
    }

    pub fn arm_end(&mut self, at: u32, key: u64) {
        self.ended.arm(at, self.next, key);
    }

    pub fn leaving(&mut self, at: u32, key: u64) {
        self.leaving.push_back((at, key));
    }

    /// Entries of the wheel of those online, of the wheel of ends, and of those leaving.
    #[cfg(test)]
    pub fn entries(&self) -> [usize; 3] {
        let of = |wheel: &Wheel| wheel.slots.iter().map(Vec::len).sum();
        [of(&self.online), of(&self.ended), self.leaving.len()]
    }

    /// Takes out what is due up to and including second `t`, at most about `limit` entries.
    pub fn due(&mut self, t: u32, limit: usize) -> Due {
        let mut due = Due { leaving: Vec::new(), online: Vec::new(), ended: Vec::new(), next: self.next };
        while let Some(&(at, key)) = self.leaving.front()
            && at <= t
        {
            if due.leaving.len() == limit {
                return due;
            }
            self.leaving.pop_front();
            due.leaving.push(key);
        }
        // One turn of the wheel empties every slot: seconds beyond it need no look.
        let last = t.min(self.next.saturating_add(self.online.slots.len() as u32));
        while self.next <= last {
            let room = limit.saturating_sub(due.online.len() + due.ended.len());
            let done = self.online.take(self.next, room, &mut due.online)
                && self.ended.take(self.next, room, &mut due.ended);
            if !done {
                return due;
            }
            self.next += 1;
            due.next = self.next;
        }
        self.next = t + 1;
        due.next = self.next;
        due
    }
}

/// Keys by the second at which they are due. One turn is as long as the longest deadline. A key may come up
/// early, but never late.
struct Wheel {
    slots: Vec<Vec<u64>>,
}

impl Wheel {
    fn new(slots: usize) -> Self {
        Wheel { slots: (0..slots).map(|_| Vec::new()).collect() }
    }

    /// `next` is the second that is being emptied. A key a whole turn ahead would fall into the same slot, which
    /// would never become empty.
    fn arm(&mut self, at: u32, next: u32, key: u64) {
        let slot = at.clamp(next, next + self.slots.len() as u32 - 1) as usize % self.slots.len();
        self.slots[slot].push(key);
    }

    /// Moves up to `limit` keys of a second into `out`; returns whether none is left.
    fn take(&mut self, at: u32, limit: usize, out: &mut Vec<u64>) -> bool {
        let slot = at as usize % self.slots.len();
        let keys = &mut self.slots[slot];
        if keys.len() <= limit {
            out.append(keys);
            // The memory of a burst is given back now, and not kept for a whole turn.
            *keys = Vec::new();
            return true;
        }
        out.extend(keys.drain(keys.len() - limit..));
        false
    }
}
