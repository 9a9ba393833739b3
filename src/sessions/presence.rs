//! The numbers of visitors online on pages, and the deadlines of sessions.

use hashbrown::HashTable;

use crate::ingest::{OTHER, Page};
use crate::metrics::Bound;
use crate::sites::{Shares, SiteId};

/// A visitor who left stays online for so many seconds: the next page may be loading.
pub(super) const LEAVE_GRACE_S: u32 = 30;

/// Visitors without a session take no more of the room than one part in so many.
const GUEST_PART: usize = 4;

/// How many they may be, where there is room for so many visitors.
pub(super) fn most_guests(max_sessions: usize) -> usize {
    max_sessions / GUEST_PART
}

/// Where a visitor is: while online, the number of the page in [`Presence`]; else the number of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(pub u32);

impl Place {
    /// Of a visitor who is not online.
    pub fn of_site(site: SiteId) -> Self {
        Place(site.0.into())
    }
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
    /// How the sites share the room for pages with somebody on them, [`OTHER`] of each aside.
    page_shares: Shares,
    /// How the sites share the room for sessions.
    shares: Shares,
    /// And the part of it for visitors without a session, of whom there were pings alone.
    guests: Shares,
    pub(super) leaving: Wheel,
    pub(super) online: Wheel,
    pub(super) ended: Wheel,
    /// The next second to look at.
    next: u32,
}

impl Presence {
    pub fn new(start: u32, slots: usize, shares: Shares, max_pages: usize) -> Self {
        Presence {
            index: HashTable::new(),
            pages: Vec::new(),
            free: Vec::new(),
            page_shares: Shares::new(max_pages),
            guests: Shares::new(most_guests(shares.most())),
            shares,
            leaving: Wheel::new(LEAVE_GRACE_S as usize + 2),
            online: Wheel::new(slots),
            ended: Wheel::new(slots),
            next: start,
        }
    }

    /// Shares the room for sessions and pages among so many sites.
    pub fn share_among(&mut self, sites: usize) {
        self.shares.among(sites);
        self.guests.among(sites);
        self.page_shares.among(sites);
    }

    /// Takes room for a visitor of a site, who is a guest until a session begins; else the bound that is reached.
    /// Pings alone take no more than a part, so that they leave room for views.
    pub fn take(&mut self, site: SiteId, is_ping: bool) -> Result<(), Bound> {
        if is_ping && !self.guests.has_room(site.index()) {
            return Err(Bound::Pings);
        }
        if !self.shares.has_room(site.index()) {
            return Err(Bound::Sessions);
        }
        self.add(site);
        Ok(())
    }

    /// The same, whatever the room.
    pub fn add(&mut self, site: SiteId) {
        self.shares.add(site.index());
        self.guests.add(site.index());
    }

    /// A visitor's session begins, or it is over and a ping came.
    pub fn turn(&mut self, site: SiteId, has_session: bool) {
        match has_session {
            true => self.guests.give_back(site.index()),
            false => self.guests.add(site.index()),
        }
    }

    /// A visitor's room is free again.
    pub fn give_back(&mut self, site: SiteId, has_session: bool) {
        self.shares.give_back(site.index());
        if !has_session {
            self.guests.give_back(site.index());
        }
    }

    /// Visitors who are held, and those of them without a session.
    pub fn held(&self) -> (usize, usize) {
        (self.shares.all(), self.guests.all())
    }

    /// Pages with somebody on them.
    pub fn pages_held(&self) -> usize {
        self.page_shares.all()
    }

    fn find(&self, key: u64) -> Option<u32> {
        self.index.find(key, |&slot| self.pages[slot as usize].key == key).copied()
    }

    /// Whether a slot is where a page is counted: its own, or where it has none [`OTHER`]'s.
    pub fn is_on(&self, slot: Place, page: &Page) -> bool {
        let at = self.pages.get(slot.0 as usize).filter(|at| at.online > 0);
        at.is_some_and(|at| at.key == page.key() || (&*at.text == OTHER && self.find(page.key()).is_none()))
    }

    /// One more is online on a page; none where there is no room for another page of the site.
    pub fn enter(&mut self, page: &Page, site: SiteId) -> Option<Place> {
        let known = self.find(page.key());
        let has_room = known.is_some() || page.as_str() == OTHER || self.page_shares.take(site.index());
        has_room.then(|| self.come(known, page, site))
    }

    /// One more is online on a page that has no place of its own.
    pub fn enter_other(&mut self, site: SiteId) -> Place {
        let page = Page::trusted(site, OTHER);
        self.come(self.find(page.key()), &page, site)
    }

    fn come(&mut self, known: Option<u32>, page: &Page, site: SiteId) -> Place {
        if let Some(slot) = known {
            self.pages[slot as usize].online += 1;
            return Place(slot);
        }
        let (key, pages) = (page.key(), &mut self.pages);
        let page = PageOnline { key, online: 1, site, text: page.as_str().into() };
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
        Place(slot)
    }

    /// One fewer is online on a page, whose site is returned.
    pub fn exit(&mut self, place: Place) -> SiteId {
        let page = &mut self.pages[place.0 as usize];
        page.online -= 1;
        let (key, site) = (page.key, page.site);
        if page.online == 0 {
            if &*std::mem::take(&mut page.text) != OTHER {
                self.page_shares.give_back(site.index());
            }
            if let Ok(entry) = self.index.find_entry(key, |&slot| slot == place.0) {
                entry.remove();
            }
            self.free.push(place.0);
        }
        site
    }

    /// The site of a visitor who is, or is not, online.
    pub fn site_of(&self, place: Place, is_online: bool) -> SiteId {
        if is_online { self.pages[place.0 as usize].site } else { SiteId(place.0 as u16) }
    }

    /// Visitors online on a page.
    pub fn online(&self, key: u64) -> u32 {
        self.find(key).map_or(0, |slot| self.pages[slot as usize].online)
    }

    /// Site and text of pages, by slot from one on.
    pub fn pages(&self, from: usize, limit: usize) -> Vec<(SiteId, Box<str>)> {
        self.pages.iter().skip(from).take(limit).map(|page| (page.site, page.text.clone())).collect()
    }

    pub fn arm_online(&mut self, at: u32, key: u64) {
        self.online.arm(at, self.next, key);
    }

    pub fn arm_end(&mut self, at: u32, key: u64) {
        self.ended.arm(at, self.next, key);
    }

    pub fn arm_leaving(&mut self, at: u32, key: u64) {
        self.leaving.arm(at, self.next, key);
    }

    /// Takes out what is due up to and including second `t`, at most about `limit` entries.
    pub fn due(&mut self, t: u32, limit: usize) -> Due {
        let mut due = Due { leaving: Vec::new(), online: Vec::new(), ended: Vec::new(), next: self.next };
        // One turn of the longest wheels empties every slot: seconds beyond it need no look.
        let last = t.min(self.next.saturating_add(self.online.slots.len() as u32));
        while self.next <= last {
            let room = limit.saturating_sub(due.leaving.len() + due.online.len() + due.ended.len());
            let done = self.leaving.take(self.next, room, &mut due.leaving)
                && self.online.take(self.next, room, &mut due.online)
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
pub(super) struct Wheel {
    pub(super) slots: Vec<Vec<u64>>,
}

impl Wheel {
    fn new(slots: usize) -> Self {
        Wheel { slots: (0..slots).map(|_| Vec::new()).collect() }
    }

    /// `next` is the second that is being emptied. A key a whole turn ahead would fall into the same slot, which
    /// would never become empty.
    fn arm(&mut self, at: u32, next: u32, key: u64) {
        let slot = at.clamp(next, next + self.slots.len() as u32 - 1) as usize % self.slots.len();
        let keys = &mut self.slots[slot];
        if keys.len() == keys.capacity() {
            // By a quarter: twice the room would be a quarter of what a session takes.
            keys.reserve_exact(keys.len() / 4 + 4);
        }
        keys.push(key);
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
