//! What takes views: an accepted view is on disk before it is answered, and then it is counted.
//!
//! The views of one turn of the event loop make a group ([`group`]), which is written with one write
//! ([`journal`]) and answered at once. A group that cannot be written is undone, as if none of its views had
//! been taken. Pings and leaves are written with them, so that after a kill a session is what it was; they are
//! promised to nobody, and leave the second half of the journal to the views.

pub mod group;
pub mod ids;
pub mod journal;
pub mod record;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use self::group::{Group, Written};
use self::ids::{Ids, Taken};
use self::journal::{Journal, Sync};
use crate::clock::{Clock, Moment, OnceAMinute};
use crate::ingest::{Beacon, Kind, OTHER, Reason};
use crate::metrics::{Bound, Metrics, Outcome};
use crate::sessions::{Sessions, Sighting};
use crate::sites::{Registry, SiteId};
use crate::totals::disk::fatal::die;
use crate::totals::disk::frame::{FRAME_HEADER, Position};
use crate::totals::disk::log::AppendError;
use crate::totals::tally::{self, CountedView, Tally};

/// Takes views, writes them in groups, and has them counted.
pub struct Intake {
    /// None where the journal is memory.
    pub journal: Option<Arc<Journal>>,
    pub ids: Mutex<Ids>,
    pub clock: Clock,
    pub sites: Arc<Registry>,
    pub metrics: Arc<Metrics>,
    pub open: Mutex<Open>,
    /// The open group has its first view.
    pub wake: Notify,
    /// Says that groups are undone: on a full disk thousands are in a second.
    pub undone: OnceAMinute,
    /// Sites whose views are refused, since no more of them can be kept; there is rarely one.
    pub full: Full,
}

/// Sites of which no more views are taken.
#[derive(Default)]
pub struct Full {
    any: AtomicBool,
    sites: Mutex<Vec<SiteId>>,
}

/// The group that takes views now, and how many were taken from here to be written, have ended, and were
/// undone.
#[derive(Default)]
pub struct Open {
    group: Group,
    taken: u64,
    ended: u64,
    undone: u64,
}

impl Intake {
    /// Takes a view into the open group; `clock-wrong`, `journal-full` or `overloaded` where the promise of a 204 cannot
    /// be kept now.
    pub fn take(&self, view: Beacon) -> Result<Written, Reason> {
        if let Err((bound, reason)) = self.check(&view) {
            bound.into_iter().for_each(|bound| self.metrics.bound(bound));
            return Err(reason);
        }
        let (written, is_first) = {
            let Open { group, .. } = &mut *self.open();
            group.views.push(CountedView { view, visit: false });
            (Written { group: group.done.clone(), place: None }, group.views.len() == 1)
        };
        if is_first {
            self.wake.notify_one();
        }
        Ok(written)
    }

    /// Why a view is not taken now, and the bound that is reached.
    fn check(&self, view: &Beacon) -> Result<(), (Option<Bound>, Reason)> {
        if self.clock.was_behind(view.at).is_some() {
            return Err((None, Reason::ClockWrong));
        }
        let full = || self.is_full(view.site).or_else(|| self.has_no_share(view.site));
        let reached = self.reached(view.at).or_else(full);
        reached.map_or(Ok(()), |(bound, reason)| Err((Some(bound), reason)))
    }

    /// What would become of a beacon that came now.
    pub fn foretell(&self, beacon: &Beacon) -> Result<Outcome, Reason> {
        if beacon.kind != Kind::View {
            return Ok(Outcome::Taken);
        }
        self.check(beacon).map_err(|(_, reason)| reason)?;
        self.refusing(beacon.at).map_or(Ok(()), Err)?;
        let is_known = beacon.id.is_some_and(|id| self.ids().knows(id));
        Ok(match beacon.page.as_str() {
            _ if is_known => Outcome::Repeated,
            OTHER => Outcome::Folded,
            _ => Outcome::Counted,
        })
    }

    /// Takes a ping or a leave into the open group: the sessions are told of all signs in the order in which they
    /// came. One that would be written alone and is not to be is told of at once.
    pub fn sign(&self, sign: Beacon, sessions: &Sessions) -> Option<Written> {
        let (written, is_first) = {
            let Open { group, .. } = &mut *self.open();
            if group.views.is_empty() && !self.keeps(&sign) {
                self.tell(sessions, &sign);
                return None;
            }
            group.views.push(CountedView { view: Beacon { id: None, ..sign }, visit: false });
            (Written { group: group.done.clone(), place: None }, group.views.len() == 1)
        };
        if is_first {
            self.wake.notify_one();
        }
        Some(written)
    }

    /// Whether a ping or a leave is to be written.
    fn keeps(&self, sign: &Beacon) -> bool {
        sign.visitor.is_some() && self.journal.as_ref().is_some_and(|journal| journal.keeps_signs(sign.at))
    }

    /// Why views are refused now.
    pub fn reached(&self, now: Moment) -> Option<(Bound, Reason)> {
        self.journal.as_ref()?.reached(now)
    }

    /// Why nobody should be sent here now: a bound is reached, or the last group could not be written.
    pub fn refusing(&self, now: Moment) -> Option<Reason> {
        let bound = self.reached(now).map(|(_, reason)| reason);
        bound.or_else(|| self.journal.as_ref()?.failing(now))
    }

    /// No more views of these sites are taken.
    pub fn refuse(&self, sites: impl Iterator<Item = SiteId>) {
        let mut full = self.full.sites.lock().unwrap_or_else(PoisonError::into_inner);
        *full = sites.collect();
        self.full.any.store(!full.is_empty(), Ordering::Release);
    }

    fn is_full(&self, site: SiteId) -> Option<(Bound, Reason)> {
        if !self.full.any.load(Ordering::Relaxed) {
            return None;
        }
        let full = self.full.sites.lock().unwrap_or_else(PoisonError::into_inner);
        full.contains(&site).then_some((Bound::Outbox, Reason::JournalFull))
    }

    fn has_no_share(&self, site: SiteId) -> Option<(Bound, Reason)> {
        let has_room = self.journal.as_ref()?.has_room(site);
        (!has_room).then_some((Bound::Journal, Reason::JournalFull))
    }

    /// To be called once a second on the event loop.
    pub fn tick(&self, now: Moment) {
        if let Some(journal) = &self.journal {
            journal.ask_sync();
        }
        self.ids().turn(now.uptime_ms);
    }

    /// Owns the open group: writes it once a turn of the event loop, and ends it.
    pub async fn commit(&self, sessions: &Sessions, tally: &Mutex<Tally>) {
        let mut spare = Group::default();
        loop {
            self.wake.notified().await;
            while self.take_group(&mut spare) {
                self.commit_group(&mut spare, sessions, tally).await;
                self.open().ended += 1;
                spare.renew();
            }
        }
    }

    /// Puts an empty group in the place of the open one, if that has views.
    fn take_group(&self, empty: &mut Group) -> bool {
        let open = &mut *self.open();
        let any = !open.group.views.is_empty();
        if any {
            open.taken += 1;
            std::mem::swap(&mut open.group, empty);
        }
        any
    }

    /// Decides the visits of a group, writes it, and counts it or undoes it.
    async fn commit_group(&self, group: &mut Group, sessions: &Sessions, tally: &Mutex<Tally>) {
        let repeated = self.drop_repeated(group);
        self.observe(group, sessions);
        match self.write(group).await {
            Ok(end) => {
                group.views.retain(|counted| counted.view.kind == Kind::View);
                tally::lock(tally).count(&group.views, end);
                repeated.into_iter().for_each(|site| self.metrics.sites.beacon(site, Outcome::Repeated));
                group.done.finish(Ok(()));
            }
            Err(AppendError::Undone(error)) => {
                if self.undone.due(self.clock.now()) {
                    tracing::warn!(%error, "groups cannot be written and are undone; this is said once a minute");
                }
                self.metrics.journal_write_errors.inc();
                self.undo(group, sessions);
                group.done.finish(Err(journal::refusal(&error)));
            }
            Err(AppendError::Unknown(error)) => die(&format!("the journal cannot be written: {error}")),
        }
    }

    /// Drops the views whose id was counted before or comes earlier in the group. The site of each.
    fn drop_repeated(&self, group: &mut Group) -> Vec<SiteId> {
        let mut repeated = Vec::new();
        if group.views.iter().all(|counted| counted.view.id.is_none()) {
            return repeated;
        }
        let mut ids = self.ids();
        group.views.retain_mut(|counted| {
            let taken = counted.view.id.map(|id| ids.take(id, counted.view.site));
            if taken == Some(Taken::NoRoom) {
                self.metrics.bound(Bound::Ids);
                // Neither does a start remember it.
                counted.view.id = None;
            }
            if taken == Some(Taken::Known) {
                repeated.push(counted.view.site);
            }
            taken != Some(Taken::Known)
        });
        repeated
    }

    /// Tells the sessions of a group's views, notes which of them are visits, and encodes the records.
    fn observe(&self, group: &mut Group, sessions: &Sessions) {
        let views = group.views.iter().map(|counted| (counted.view.visitor, &counted.view.page));
        // Only for speed: it brings the sessions into the cache, all at once, before they are needed one by
        // one below. `black_box` keeps the compiler from leaving out a result that nobody uses.
        std::hint::black_box(sessions.look_ahead(views));
        let sites = self.sites.load_full();
        for CountedView { view, visit } in &mut group.views {
            let sighting = match view.kind {
                Kind::View => sessions.observe(view.visitor, view.site, &view.page, view.at),
                _ => self.tell(sessions, view),
            };
            *visit = sighting == Sighting::Visit;
            let changes_nothing = matches!(sighting, Sighting::Full | Sighting::Anonymous);
            if view.kind != Kind::View && changes_nothing {
                continue;
            }
            if let Some(site) = sites.at(view.site) {
                let before = group.records.len();
                record::encode(&mut group.records, site.key.as_str(), view, sighting);
                let bytes = group.records.len() - before;
                match group.bytes.last_mut().filter(|(of, _)| *of == view.site) {
                    Some((_, held)) => *held += bytes,
                    None => group.bytes.push((view.site, bytes)),
                }
            }
        }
    }

    /// Tells the sessions of a ping or a leave.
    fn tell(&self, sessions: &Sessions, sign: &Beacon) -> Sighting {
        let sighting = match sign.kind {
            Kind::Leave => {
                sessions.leave(sign.visitor, &sign.page, sign.at);
                sign.visitor.map_or(Sighting::Anonymous, |_| Sighting::Known)
            }
            _ => sessions.ping(sign.visitor, sign.site, &sign.page, sign.at),
        };
        let is_shed = sighting == Sighting::Full;
        self.metrics.sites.beacon(sign.site, if is_shed { Outcome::Shed } else { Outcome::Taken });
        sighting
    }

    /// Writes a group, and syncs it as configured. Where the journal goes on after it, if there is one.
    async fn write(&self, group: &mut Group) -> Result<Option<Position>, AppendError> {
        let Some(journal) = self.journal.as_ref().filter(|_| group.records.len() > FRAME_HEADER) else {
            return Ok(None);
        };
        let end = journal.write(&mut group.records, self.clock.now().uptime_ms)?;
        journal.note(&group.bytes);
        if journal.config.sync == Sync::Always {
            journal.synced_to(end).await;
        }
        Ok(Some(end))
    }

    /// A group could not be written: its ids are free again, and its visits are no visits.
    fn undo(&self, group: &Group, sessions: &Sessions) {
        let mut ids = self.ids();
        group.views.iter().filter_map(|counted| counted.view.id).for_each(|id| ids.forget(id));
        drop(ids);
        let mut visits = HashSet::new();
        for CountedView { view, visit } in &group.views {
            let Some(visitor) = view.visitor else { continue };
            // Over midnight the next sign takes the session along.
            if *visit || visitor.beside.is_some_and(|beside| visits.contains(&beside)) {
                visits.insert(visitor.today);
            }
        }
        visits.into_iter().for_each(|visitor| sessions.uncount(visitor));
        // After all that: whoever copies ids and sessions, and sees the same number before and after, has
        // copied nothing that is undone.
        self.open().undone += 1;
    }

    /// Whether views wait for their group.
    pub fn is_writing(&self) -> bool {
        let open = self.open();
        !open.group.views.is_empty() || open.taken > open.ended
    }

    /// Groups that have ended, and how many of them were undone.
    pub fn groups(&self) -> (u64, u64) {
        let open = self.open();
        (open.ended, open.undone)
    }

    /// Shares the room for ids and in the journal among so many sites.
    pub fn share_among(&self, sites: usize) {
        self.ids().share_among(sites);
        self.journal.iter().for_each(|journal| journal.share_among(sites));
    }

    /// The ids of a generation for the checkpoint. Those of groups that are not yet written are among them.
    pub fn export_ids(&self, age: usize) -> impl Iterator<Item = Vec<(u64, SiteId)>> + '_ {
        // Part by part: no view waits for the whole copy.
        (0..ids::PARTS).map(move |part| self.ids().export(part, age))
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(|_| die("a panic left the open group half changed"))
    }

    pub fn ids(&self) -> MutexGuard<'_, Ids> {
        self.ids.lock().unwrap_or_else(|_| die("a panic left the ids half changed"))
    }
}
