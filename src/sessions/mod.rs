//! Tracks online sessions in a DashMap, bounded.
//!
//! A [`Session`] is 12 bytes under a [`Key`] of 8. `online` is not computed when it is read: the numbers of a site
//! and a page change when a visitor comes online or goes offline, and three timing wheels of one slot a second
//! tell when that is due. A visitor's next sign of life does not move its entry in a wheel: the entry comes up,
//! the deadline is found to be later, and it is put there. So a sign of life costs one look-up in the map and a
//! short lock, whatever the number of sessions.
//!
//! Locks: [`Presence`] may be locked while a guard into the map is held, never the other way round. No second
//! guard is taken while one is held (DashMap would deadlock).

mod presence;
mod session;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::{DashMap, SharedValue};

use crate::clock::Moment;
use crate::ingest::{Beacon, Kind, Page, Visitor, VisitorId};
use crate::metrics::{Bound, Metrics};
use crate::sites::{Shares, SiteId};
use presence::{LEAVE_GRACE_S, Place, Presence, most_guests};
use session::{
    BEGUN, COUNTED, IN_END_WHEEL, IN_LEAVE_WHEEL, IN_ONLINE_WHEEL, Key, LEAVING, ONLINE, Session, mark,
};

/// Fewer views are not looked up ahead: locking the shards costs more.
const AHEAD: usize = 16;

/// Shards of the table: none is so large that a sign waits long for its growth or its copy.
const SHARDS: usize = 64;

/// Pages copied while [`Presence`] is locked.
const PAGES_AT_A_TIME: usize = 1000;

/// The most wheel entries that expire before a read is answered.
const SWEEP_ON_READ: usize = 256;

/// Settings of the session table.
#[derive(Clone, Debug)]
pub struct Config {
    /// A visitor is online this long after its last sign of life.
    pub online_window: Duration,
    /// A session ends after a gap of this length.
    pub visit_timeout: Duration,
    /// The most sessions kept.
    pub max_sessions: usize,
    /// The most pages that visitors of all sites are online on. Who is on another counts for the site alone.
    pub max_pages: usize,
}

/// What a view, or a ping, is to its visitor's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// It begins a session, or is the first of one that is counted: a visit.
    Visit,
    /// It belongs to a session whose visit is counted.
    Known,
    /// The table is full: the view counts, its visit does not.
    Full,
    /// A ping that finds no session whose visit is counted: the visitor is online.
    NoSession,
    /// The site tells no visitors apart.
    Anonymous,
}

/// A session as it is written to the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The visitor.
    pub visitor: VisitorId,
    /// The site.
    pub site: SiteId,
    /// Index into [`Export::pages`] of the page it is online on.
    pub page: u32,
    /// Seconds since the last sign of life.
    pub age_s: u32,
    /// Seconds it stays online without another sign; 0 if it is offline.
    pub online_s: u32,
    /// Whether it is a session, begun by a view.
    pub begun: bool,
    /// Whether its visit is counted.
    pub counted: bool,
}

/// All sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// Site and text of the pages that sessions are on.
    pub pages: Vec<(SiteId, Box<str>)>,
    /// The sessions, in no order.
    pub sessions: Vec<Exported>,
}

impl Export {
    /// The same under the ids that `place` gives to the sites; sites without one are left out.
    pub fn with_sites(&self, place: impl Fn(SiteId) -> Option<SiteId>) -> Export {
        let pages = self.pages.iter().map(|(site, text)| (place(*site).unwrap_or(*site), text.clone()));
        let sessions =
            self.sessions.iter().filter_map(|s| Some(Exported { site: place(s.site)?, ..s.clone() }));
        Export { pages: pages.collect(), sessions: sessions.collect() }
    }
}

/// The session table.
pub struct Sessions {
    map: DashMap<Key, Session, foldhash::fast::RandomState>,
    presence: Mutex<Presence>,
    sites: Vec<SiteOnline>,
    /// The next second to sweep; everything due before it is done.
    swept_to: AtomicU64,
    window_s: u32,
    timeout_s: u32,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct SiteOnline {
    now: AtomicU64,
    changed_ms: AtomicI64,
}

impl Sessions {
    /// An empty table for `sites` sites.
    pub fn new(config: Config, sites: usize, metrics: Arc<Metrics>, now: Moment) -> Self {
        let window_s = config.online_window.as_secs() as u32;
        let timeout_s = config.visit_timeout.as_secs() as u32;
        let start = now.uptime_s();
        let slots = window_s.max(timeout_s) as usize + 2;
        let shares = Shares::new(config.max_sessions);
        metrics.limit([(Bound::Pings, most_guests(config.max_sessions) as u64)]);
        Sessions {
            map: DashMap::with_hasher_and_shard_amount(foldhash::fast::RandomState::default(), SHARDS),
            presence: Mutex::new(Presence::new(start, slots, shares, config.max_pages)),
            sites: (0..sites).map(|_| SiteOnline::default()).collect(),
            swept_to: AtomicU64::new(u64::from(start)),
            window_s,
            timeout_s,
            metrics,
        }
    }

    /// Shares the room for sessions, and for the pages they are on, among so many sites.
    pub fn share_among(&self, sites: usize) {
        self.presence().share_among(sites);
    }

    /// A view: finds or begins the visitor's session and makes the visitor online on the page.
    pub fn observe(&self, visitor: Option<Visitor>, site: SiteId, page: &Page, now: Moment) -> Sighting {
        let Some(visitor) = visitor else { return Sighting::Anonymous };
        let room = |presence: &mut Presence| presence.take(site, false);
        let seen = self.touch(visitor, site, page, now, room, |session, alive| {
            if alive && session.is(COUNTED) {
                return Sighting::Known;
            }
            session.flags |= BEGUN | COUNTED;
            Sighting::Visit
        });
        seen.unwrap_or(Sighting::Full)
    }

    /// A beacon that is read back at start: to its visitor's session it is what it was then, whatever room there is
    /// now.
    pub fn observe_again(&self, beacon: &Beacon, sighting: Sighting, now: Moment) {
        let Beacon { kind, site, ref page, at, .. } = *beacon;
        let is_over = now.uptime_s().saturating_sub(at.uptime_s()) > self.timeout_s;
        let Some(visitor) = beacon.visitor.filter(|_| !is_over && sighting != Sighting::Full) else { return };
        if kind == Kind::Leave {
            return self.leave(Some(visitor), page, at);
        }
        let room = |presence: &mut Presence| {
            presence.add(site);
            Ok(())
        };
        self.touch(visitor, site, page, at, room, |session, _| match sighting {
            Sighting::NoSession => session.flags &= !(BEGUN | COUNTED),
            _ => session.flags |= BEGUN | COUNTED,
        });
    }

    /// Looks up the visitors and pages of a group before its views are observed. Without locks in between, the
    /// waits for memory overlap where the tables are larger than the cache. Returns for how many views only
    /// times will change.
    pub fn look_ahead<'a>(&self, views: impl ExactSizeIterator<Item = (Option<Visitor>, &'a Page)>) -> usize {
        if views.len() < AHEAD {
            return 0;
        }
        let shards: Vec<_> = self.map.shards().iter().map(|shard| shard.read()).collect();
        let place = |visitor: Visitor| {
            let key = Key::from(visitor.today.0);
            let hash = self.map.hash_usize(&key);
            let shard = shards.get(self.map.determine_shard(hash))?;
            let (_, session) = shard.get(hash as u64, |(other, _)| *other == key)?;
            Some(session.get()).filter(|session| session.is(ONLINE)).map(|session| session.place)
        };
        let presence = self.presence();
        let stays = |(visitor, page): (Option<Visitor>, &Page)| {
            let online = presence.online(page.key());
            let there = visitor.and_then(place).is_some_and(|place| presence.is_on(place, page));
            online > 0 && there
        };
        views.filter(|view| stays(*view)).count()
    }

    /// A ping: keeps a session alive; without one it makes the visitor online and counts nothing.
    pub fn ping(&self, visitor: Option<Visitor>, site: SiteId, page: &Page, now: Moment) -> Sighting {
        let Some(visitor) = visitor else { return Sighting::Anonymous };
        let room = |presence: &mut Presence| presence.take(site, true);
        let seen = self.touch(visitor, site, page, now, room, |session, alive| {
            if !alive {
                session.flags &= !(BEGUN | COUNTED);
            }
            if session.is(COUNTED) { Sighting::Known } else { Sighting::NoSession }
        });
        seen.unwrap_or(Sighting::Full)
    }

    /// A leave: the visitor goes offline in 30 s unless it gives another sign. One of another page than the
    /// visitor is on is none: the visitor reads on in another tab.
    pub fn leave(&self, visitor: Option<Visitor>, page: &Page, now: Moment) {
        let Some(visitor) = visitor else { return };
        let t = now.uptime_s();
        let due = t + LEAVE_GRACE_S;
        for id in [Some(visitor.today), visitor.beside].into_iter().flatten() {
            let Some(mut session) = self.map.get_mut(&id.0.into()) else { continue };
            // A second leave does not put off the first.
            let mut presence = self.presence();
            if session.is(ONLINE)
                && !session.is(LEAVING)
                && due < session.online_until(self.window_s)
                && session.page_mark == mark(page)
                && presence.is_on(session.place, page)
            {
                session.leave(t);
                if !session.is(IN_LEAVE_WHEEL) {
                    session.flags |= IN_LEAVE_WHEEL;
                    presence.arm_leaving(due, id.0);
                }
            }
            return;
        }
    }

    /// Takes back the visit of a view that is not counted after all.
    pub fn uncount(&self, visitor: VisitorId) {
        if let Some(mut session) = self.map.get_mut(&visitor.0.into()) {
            session.flags &= !COUNTED;
        }
    }

    /// Visitors online on a site.
    pub fn online(&self, site: SiteId, now: Moment) -> u64 {
        self.sweep(now, SWEEP_ON_READ);
        self.sites.get(site.index()).map_or(0, |s| s.now.load(Ordering::Relaxed))
    }

    /// Visitors online on a page.
    pub fn page_online(&self, page: &Page, now: Moment) -> u64 {
        self.sweep(now, SWEEP_ON_READ);
        u64::from(self.presence().online(page.key()))
    }

    /// Unix milliseconds at which the number of visitors online on a site last changed.
    pub fn changed_ms(&self, site: SiteId) -> i64 {
        self.sites.get(site.index()).map_or(0, |s| s.changed_ms.load(Ordering::Relaxed))
    }

    /// Pages that visitors are on.
    pub fn pages(&self) -> usize {
        self.presence().pages_held()
    }

    /// Visitors in memory.
    pub fn held(&self) -> usize {
        self.presence().held().0
    }

    /// Those of them without a session, of whom there were pings alone.
    pub fn guests(&self) -> usize {
        self.presence().held().1
    }

    /// Expires what is due, at most `limit` entries; returns whether more is due.
    pub fn sweep(&self, now: Moment, limit: usize) -> bool {
        let t = now.uptime_s();
        if u64::from(t) < self.swept_to.load(Ordering::Acquire) {
            return false;
        }
        let due = self.presence().due(t, limit);
        for &key in &due.leaving {
            self.leave_fired(key, now);
        }
        for &key in &due.online {
            self.online_fired(key, now);
        }
        for &key in &due.ended {
            self.end_fired(key, t);
        }
        self.swept_to.store(u64::from(due.next), Ordering::Release);
        due.next <= t
    }

    /// Copies the sessions of each shard, one shard after another: what changes meanwhile may or may not be
    /// included. No sign waits for the copy of more than one shard.
    pub fn export(&self, now: Moment) -> impl Iterator<Item = Vec<Exported>> + '_ {
        let t = now.uptime_s();
        let exported = move |presence: &Presence, key: Key, session: &Session| {
            let until = session.is(ONLINE).then(|| session.online_until(self.window_s));
            Exported {
                visitor: VisitorId(key.into()),
                site: presence.site_of(session.place, session.is(ONLINE)),
                page: session.place.0,
                age_s: t.saturating_sub(session.last_life),
                online_s: until.map_or(0, |until| until.saturating_sub(t)),
                begun: session.is(BEGUN),
                counted: session.is(COUNTED),
            }
        };
        self.map.shards().iter().map(move |shard| {
            // Places are those of the instant of the copy while the shard is locked.
            let (shard, presence) = (shard.read(), self.presence());
            let each = |(key, session): (Key, SharedValue<Session>)| exported(&presence, key, session.get());
            shard.clone().into_iter().map(each).collect()
        })
    }

    /// Copies site and text of the pages that sessions are on, some at a time, in the order of their places.
    pub fn export_pages(&self) -> impl Iterator<Item = Vec<(SiteId, Box<str>)>> + '_ {
        let some = |from| self.presence().pages(from, PAGES_AT_A_TIME);
        (0..).step_by(PAGES_AT_A_TIME).map(some).take_while(|pages| !pages.is_empty())
    }

    /// Restores what was exported `elapsed_s` seconds ago, except what has ended since.
    pub fn restore(&self, export: &Export, elapsed_s: u32, now: Moment) {
        let t = now.uptime_s();
        let pages: Vec<Page> = export.pages.iter().map(|(site, text)| Page::trusted(*site, text)).collect();
        for saved in &export.sessions {
            let age = saved.age_s.saturating_add(elapsed_s);
            let online_s = saved.online_s.saturating_sub(elapsed_s);
            if age > self.timeout_s || !(saved.begun || online_s > 0) {
                continue;
            }
            // Whatever room there is: the next view of a session that is not taken back would be another visit.
            self.presence().add(saved.site);
            if saved.begun {
                self.presence().turn(saved.site, true);
            }
            let mut flags = if saved.begun { BEGUN } else { 0 };
            flags |= if saved.counted { COUNTED } else { 0 };
            let mut session = Session::new(saved.site, t.saturating_sub(age), flags);
            // Who stays online for less than a whole window has left.
            if online_s > 0 && age.saturating_add(online_s) < self.window_s {
                session.leave((t + online_s).saturating_sub(LEAVE_GRACE_S));
            }
            if let (1.., Some(page)) = (online_s, pages.get(saved.page as usize)) {
                self.come_online(saved.visitor.0, &mut session, saved.site, page, now);
            } else {
                self.arm_end(saved.visitor.0, &mut session);
            }
            if let Some(before) = self.map.insert(saved.visitor.0.into(), session) {
                self.presence().give_back(saved.site, before.is(BEGUN));
            }
        }
    }

    /// Notes a sign of life. `decide` is told whether the session was alive; what it returns is returned, or
    /// none where `room` finds none for a new session.
    fn touch<T>(
        &self,
        visitor: Visitor,
        site: SiteId,
        page: &Page,
        now: Moment,
        room: impl FnOnce(&mut Presence) -> Result<(), Bound>,
        decide: impl FnOnce(&mut Session, bool) -> T,
    ) -> Option<T> {
        let t = now.uptime_s();
        let key = visitor.today.0;
        if let Some(mut session) = self.map.get_mut(&key.into()) {
            return Some(self.sign(key, &mut session, site, page, now, decide));
        }
        let session = match visitor.beside.and_then(|id| self.map.remove(&id.0.into())) {
            Some((_, session)) => {
                // Its entries in the wheels have the old key and will find nothing.
                let flags = session.flags & !(IN_ONLINE_WHEEL | IN_END_WHEEL | IN_LEAVE_WHEEL);
                Session { flags, ..session }
            }
            None => {
                if let Err(bound) = room(&mut self.presence()) {
                    self.metrics.bound(bound);
                    return None;
                }
                Session::new(site, t, 0)
            }
        };
        // It must be in the map before its wheel entry comes up: an entry that finds nothing is dropped.
        let (mut is_new, begun) = (false, session.is(BEGUN));
        let mut session = self.map.entry(key.into()).or_insert_with(|| {
            is_new = true;
            session
        });
        if !is_new {
            self.presence().give_back(site, begun);
        }
        Some(self.sign(key, &mut session, site, page, now, decide))
    }

    fn sign<T>(
        &self,
        key: u64,
        session: &mut Session,
        site: SiteId,
        page: &Page,
        now: Moment,
        decide: impl FnOnce(&mut Session, bool) -> T,
    ) -> T {
        let t = now.uptime_s();
        let begun = session.is(BEGUN);
        let alive = begun && t.saturating_sub(session.last_life) <= self.timeout_s;
        let decided = decide(session, alive);
        if session.is(BEGUN) != begun {
            self.presence().turn(site, !begun);
        }
        let left = session.left();
        let is_latest = t >= left.unwrap_or(session.last_life);
        session.last_life = session.last_life.max(t);
        left.into_iter().for_each(|left| session.leave(left));
        if is_latest {
            session.flags &= !LEAVING;
            self.come_online(key, session, site, page, now);
        } else if session.is(ONLINE) {
            // Read back at start: a later sign was in the checkpoint, and says where the visitor is.
            self.arm_online(key, session, &mut self.presence());
        } else if !session.is(IN_ONLINE_WHEEL | IN_END_WHEEL) {
            self.arm_end(key, session);
        }
        decided
    }

    /// Makes a session online on a page, if it is not.
    fn come_online(&self, key: u64, session: &mut Session, site: SiteId, page: &Page, now: Moment) {
        let was_online = session.is(ONLINE);
        let mut presence = self.presence();
        if !was_online || !presence.is_on(session.place, page) {
            let place = presence.enter(page, site).unwrap_or_else(|| {
                self.metrics.bound(Bound::Pages);
                presence.enter_other(site)
            });
            if was_online {
                presence.exit(session.place);
            }
            session.place = place;
        }
        session.page_mark = mark(page);
        self.arm_online(key, session, &mut presence);
        drop(presence);
        if !was_online {
            session.flags |= ONLINE;
            self.site_changed(site, 1, now);
        }
    }

    fn go_offline(&self, session: &mut Session, now: Moment) {
        session.flags &= !(ONLINE | LEAVING);
        let site = self.presence().exit(session.place);
        session.place = Place::of_site(site);
        self.site_changed(site, -1, now);
    }

    /// Handles an entry of the wheel of those who left that has come up.
    fn leave_fired(&self, key: u64, now: Moment) {
        let Some(mut session) = self.map.get_mut(&key.into()) else { return };
        let until = session.online_until(self.window_s);
        if session.is(LEAVING) && until > now.uptime_s() {
            // It came back, and left again.
            self.presence().arm_leaving(until, key);
            return;
        }
        session.flags &= !IN_LEAVE_WHEEL;
        if session.is(LEAVING) {
            self.go_offline(&mut session, now);
        }
    }

    /// Handles an entry of the wheel of those online that has come up.
    fn online_fired(&self, key: u64, now: Moment) {
        let Some(mut session) = self.map.get_mut(&key.into()) else { return };
        let until = session.online_until(self.window_s);
        if session.is(ONLINE) && until > now.uptime_s() {
            self.presence().arm_online(until, key);
            return;
        }
        session.flags &= !IN_ONLINE_WHEEL;
        if session.is(ONLINE) {
            self.go_offline(&mut session, now);
        }
        if session.is(BEGUN) {
            if !session.is(IN_END_WHEEL) {
                self.arm_end(key, &mut session);
            }
            return;
        }
        drop(session);
        self.remove_if(key, |session| !session.is(BEGUN | ONLINE));
    }

    /// Handles an entry of the wheel of ends that has come up.
    fn end_fired(&self, key: u64, t: u32) {
        let Some(mut session) = self.map.get_mut(&key.into()) else { return };
        session.flags &= !IN_END_WHEEL;
        if session.is(IN_ONLINE_WHEEL) {
            // It comes back when its entry in the other wheel comes up.
            return;
        }
        if t <= session.last_life + self.timeout_s {
            self.arm_end(key, &mut session);
            return;
        }
        let timeout_s = self.timeout_s;
        drop(session);
        self.remove_if(key, |session| !session.is(ONLINE) && t > session.last_life + timeout_s);
    }

    fn arm_online(&self, key: u64, session: &mut Session, presence: &mut Presence) {
        if !session.is(IN_ONLINE_WHEEL) {
            presence.arm_online(session.online_until(self.window_s), key);
            session.flags |= IN_ONLINE_WHEEL;
        }
    }

    fn arm_end(&self, key: u64, session: &mut Session) {
        self.presence().arm_end(session.last_life + self.timeout_s + 1, key);
        session.flags |= IN_END_WHEEL;
    }

    fn remove_if(&self, key: u64, over: impl FnOnce(&Session) -> bool) {
        if let Some((_, session)) = self.map.remove_if(&key.into(), |_, session| over(session)) {
            let mut presence = self.presence();
            let site = presence.site_of(session.place, session.is(ONLINE));
            presence.give_back(site, session.is(BEGUN));
        }
    }

    fn site_changed(&self, site: SiteId, by: i64, now: Moment) {
        if let Some(online) = self.sites.get(site.index()) {
            online.now.fetch_add(by as u64, Ordering::Relaxed);
            online.changed_ms.store(now.unix_ms, Ordering::Relaxed);
        }
    }

    fn presence(&self) -> MutexGuard<'_, Presence> {
        // No change under this lock can be left half done by a panic.
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
