//! What is counted and not yet frozen, and the figures shown: the part of totals that is in memory,
//! under one lock that is never held across an `.await` or a write.

pub mod pages;
pub mod recent;
pub mod running;

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use chrono::NaiveDate;

use self::pages::{Known, PageFigures, Pages};
use self::recent::{History, Past, StoredPast};
use self::running::{Figures, SiteFigures, Stored};
use crate::calendar::{Calendar, CivilHour, Span};
use crate::clock::Moment;
use crate::ingest::{Beacon, Page, VisitorId};
use crate::metrics::{Bound, Metrics};
use crate::sites::{Site, SiteId, SiteKey};
use crate::totals::batch::part::Sums;
use crate::totals::batch::{Batch, SiteSums};
use crate::totals::disk::log::Position;
use crate::totals::intake::group::{Done, Group, Waiting, Written};
use crate::totals::intake::ids::{Ids, Taken};
use crate::totals::intake::record::Record;

/// See the module.
pub struct Ledger {
    sites: Vec<SiteLedger>,
    by_key: HashMap<SiteKey, usize>,
    pub ids: Ids,
    open: Group,
    /// Memory of the last group, to be used again.
    spare: Option<Group>,
    /// A group has been taken and has not ended.
    in_flight: bool,
    /// Groups that have ended, and those of them that were undone.
    ended: u64,
    undone: u64,
    sealed: Vec<SiteSums>,
    /// When the oldest view was accepted that is in no batch.
    oldest_ms: Option<i64>,
    /// Up to where the journal is folded.
    folded: Position,
    max_pages: usize,
    metrics: Arc<Metrics>,
}

struct SiteLedger {
    key: SiteKey,
    calendar: Calendar,
    span: Span,
    /// When the span's day began: its figures changed then, if not later.
    midnight_ms: i64,
    pages: Pages,
    figures: Revised<SiteFigures>,
    history: History,
    pending: Option<(CivilHour, Sums)>,
}

/// A value and how often it may have changed: whenever somebody had it to change.
struct Revised<T> {
    value: T,
    revision: u64,
}

impl<T> Deref for Revised<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Revised<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.revision += 1;
        &mut self.value
    }
}

impl SiteLedger {
    /// Whether an hour's week is one of the site's calendar.
    fn cuts(&self, hour: &CivilHour) -> bool {
        self.calendar.week_of(hour.day) == hour.week
    }

    /// Shows the buckets of an instant.
    fn turn_to(&mut self, now: Moment) {
        self.span = self.calendar.span(now.unix_ms);
        self.midnight_ms = self.calendar.day_begins_ms(self.span.hour.day);
        self.figures.revision += 1;
    }

    fn add(&mut self, hour: &CivilHour, sums: Sums, at_ms: i64) {
        let (_, pending) = self.pending.get_or_insert((*hour, Sums::default()));
        *pending += sums;
        self.figures.count(hour, sums, at_ms);
        self.history.add(hour, sums);
    }
}

/// What a freeze takes.
pub struct Frozen {
    pub sums: Vec<SiteSums>,
    pub reach: Position,
    pub oldest_ms: i64,
}

impl Ledger {
    pub fn new(max_ids: usize, max_pages: usize, now: Moment, metrics: Arc<Metrics>) -> Self {
        Ledger {
            sites: Vec::new(),
            by_key: HashMap::new(),
            ids: Ids::new(max_ids, now.uptime_ms),
            open: Group::default(),
            spare: None,
            in_flight: false,
            ended: 0,
            undone: 0,
            sealed: Vec::new(),
            oldest_ms: None,
            folded: Position::default(),
            max_pages,
            metrics,
        }
    }

    /// Adds a site.
    fn add_site(&mut self, key: SiteKey, calendar: Calendar, now: Moment) -> usize {
        let index = self.sites.len();
        self.by_key.insert(key.clone(), index);
        let span = calendar.span(now.unix_ms);
        let midnight_ms = calendar.day_begins_ms(span.hour.day);
        let pages = Pages::new(self.max_pages);
        let figures = Revised { value: SiteFigures::new(), revision: 0 };
        let history = History::default();
        self.sites.push(SiteLedger {
            key,
            calendar,
            span,
            midnight_ms,
            pages,
            figures,
            history,
            pending: None,
        });
        index
    }

    /// The place of a registered site: its own, where it has one. Those of the first ones are their ids.
    pub fn register(&mut self, site: &Site, now: Moment) -> usize {
        let Some(index) = self.site_index(&site.key) else {
            return self.add_site(site.key.clone(), site.calendar.clone(), now);
        };
        // Of one that only had views left the calendar was not known.
        if let Some(known) = self.sites.get_mut(index).filter(|known| known.calendar != site.calendar) {
            known.calendar = site.calendar.clone();
            known.turn_to(now);
        }
        index
    }

    /// Puts a view into the open group. Whether it is the first there, so that its owner must be woken.
    pub fn push(&mut self, view: Beacon) -> (Written, bool) {
        self.open.views.push(Waiting { view, visit: false });
        (Written::with(&self.open.done), self.open.views.len() == 1)
    }

    /// Takes the open group to be written, without the views whose id was counted before or stands
    /// earlier in the group; how many those are. None where the group is empty.
    pub fn take_group(&mut self) -> Option<(Group, u64)> {
        if self.open.views.is_empty() {
            return None;
        }
        self.in_flight = true;
        let next = self.spare.take().unwrap_or_default();
        let mut group = std::mem::replace(&mut self.open, next);
        let all = group.views.len();
        group.views.retain(|waiting| waiting.view.id.is_none_or(|id| self.claim(id)));
        let repeated = (all - group.views.len()) as u64;
        Some((group, repeated))
    }

    /// Claims an id for a view: false where a view with it was counted before, or is about to be.
    fn claim(&mut self, id: u64) -> bool {
        let taken = self.ids.take(id);
        if taken == Taken::NoRoom {
            self.metrics.bound(Bound::Ids);
        }
        taken != Taken::Known
    }

    /// A group is written up to `end`: its views and visits are counted.
    pub fn fold(&mut self, group: Group, end: Option<Position>) -> Arc<Done> {
        // Views of one site and hour follow each other nearly always: their sums are added once.
        for run in group.views.chunk_by(|a, b| a.view.site == b.view.site && a.view.hour == b.view.hour) {
            self.fold_run(run);
        }
        self.folded = end.unwrap_or(self.folded);
        self.recycle(group)
    }

    fn fold_run(&mut self, run: &[Waiting]) {
        let (Some(Waiting { view: first, .. }), Some(Waiting { view: last, .. })) = (run.first(), run.last())
        else {
            return;
        };
        let Some(site) = self.sites.get_mut(first.site.index()) else { return };
        Self::turn(site, &first.hour, &mut self.sealed);
        let mut sums = Sums { views: run.len() as u64, visits: 0 };
        for Waiting { view, visit } in run {
            sums.visits += u64::from(*visit);
            if !site.pages.count(&view.page, &first.hour) {
                self.metrics.bound(Bound::Pages);
            }
            if let Some(visitor) = view.visitor {
                site.figures.see(&first.hour, visitor.today.0, false);
            }
        }
        site.add(&first.hour, sums, last.at.unix_ms);
        self.oldest_ms.get_or_insert(first.at.unix_ms);
        self.metrics.counted(first.site, sums.views, sums.visits);
    }

    /// A group could not be written: it never was. The visitors whose visit is not counted after all.
    pub fn undo(&mut self, group: Group) -> (Arc<Done>, Vec<VisitorId>) {
        self.undone += 1;
        group.views.iter().filter_map(|waiting| waiting.view.id).for_each(|id| self.ids.forget(id));
        let visits = group.views.iter().filter(|waiting| waiting.visit);
        let uncounted = visits.filter_map(|waiting| waiting.view.visitor).map(|visitor| visitor.today);
        let uncounted = uncounted.collect();
        (self.recycle(group), uncounted)
    }

    fn recycle(&mut self, mut group: Group) -> Arc<Done> {
        self.in_flight = false;
        self.ended += 1;
        let done = group.done.clone();
        group.clear();
        // After a burst its memory goes back.
        if group.records.capacity() < 1 << 20 {
            self.spare = Some(group);
        }
        done
    }

    /// Whether views wait for their group.
    pub fn is_writing(&self) -> bool {
        self.in_flight || !self.open.views.is_empty()
    }

    /// Groups that have ended, and how many of them were undone.
    pub fn groups(&self) -> (u64, u64) {
        (self.ended, self.undone)
    }

    /// The journal is folded up to here: at start, after the replay.
    pub fn set_folded(&mut self, position: Position) {
        self.folded = position;
    }

    /// Up to where the journal is folded.
    pub fn folded(&self) -> Position {
        self.folded
    }

    /// When the oldest view was accepted that is in no batch.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.oldest_ms
    }

    /// Seals what is pending of another hour.
    fn turn(site: &mut SiteLedger, hour: &CivilHour, sealed: &mut Vec<SiteSums>) {
        if site.pending.is_some_and(|(pending, _)| pending != *hour) {
            Self::seal(site, sealed);
        }
    }

    fn seal(site: &mut SiteLedger, sealed: &mut Vec<SiteSums>) {
        let Some((hour, sums)) = site.pending.take() else { return };
        let risen = site.figures.seal();
        sealed.push(SiteSums {
            site: site.key.clone(),
            hour,
            sums,
            day_registers: risen.day,
            pages: site.pages.seal(),
        });
    }

    /// Takes all that is pending; none where nothing is.
    pub fn freeze(&mut self) -> Option<Frozen> {
        for site in &mut self.sites {
            Self::seal(site, &mut self.sealed);
        }
        let oldest_ms = self.oldest_ms.take()?;
        Some(Frozen { sums: std::mem::take(&mut self.sealed), reach: self.folded, oldest_ms })
    }

    /// A freeze did not become a batch: what it took is pending again.
    pub fn unfreeze(&mut self, frozen: Frozen) {
        self.sealed.splice(0..0, frozen.sums);
        self.oldest_ms = Some(frozen.oldest_ms);
    }

    /// The store holds a batch now.
    pub fn applied(&mut self, batch: &Batch) {
        for sums in &batch.sums {
            let Some(&index) = self.by_key.get(&sums.site) else { continue };
            let site = &mut self.sites[index];
            site.figures.applied(sums.hour.day, sums.sums);
            site.history.applied(&sums.hour, sums.sums);
            for (page, views) in &sums.pages {
                let page = Page::trusted(SiteId(index as u16), page);
                site.pages.applied(&page, sums.hour.day, *views);
            }
        }
    }

    /// A batch of which it is not known that the store holds it: read back at start.
    pub fn restore_unapplied(&mut self, batch: &Batch, now: Moment) {
        for sums in &batch.sums {
            let index = self.index_of(&sums.site, now);
            let site = &mut self.sites[index];
            site.figures.restore_unapplied(&sums.hour, sums.sums, &sums.day_registers);
            site.history.add(&sums.hour, sums.sums);
            for (page, views) in &sums.pages {
                let page = Page::trusted(SiteId(index as u16), page);
                site.pages.restore_unapplied(&page, &sums.hour, *views);
            }
        }
    }

    /// A view of the journal that is in no batch: read back at start.
    pub fn restore(&mut self, record: &Record<'_>, now: Moment) {
        let Some(key) = SiteKey::new(record.site) else { return };
        let index = self.index_of(&key, now);
        let site = &mut self.sites[index];
        Self::turn(site, &record.hour, &mut self.sealed);
        site.pages.count(&Page::trusted(SiteId(index as u16), record.page), &record.hour);
        if let Some(visitor) = record.visitor {
            site.figures.see(&record.hour, visitor, true);
        }
        site.add(&record.hour, Sums { views: 1, visits: record.visit.into() }, record.at_ms);
        self.oldest_ms.get_or_insert(record.at_ms);
    }

    /// The place of a site. One that is no longer registered gets a place too: its views were promised.
    fn index_of(&mut self, key: &SiteKey, now: Moment) -> usize {
        match self.by_key.get(key) {
            Some(&index) => index,
            None => self.add_site(key.clone(), Calendar::utc(), now),
        }
    }

    /// The place of a registered site or of one that has views.
    pub fn site_index(&self, key: &SiteKey) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    /// Takes the store's word on a site.
    pub fn load_site(&mut self, index: usize, stored: Stored, now_ms: i64) {
        // A week that another calendar cut is not known by this one.
        if let Some(site) = self.sites.get_mut(index).filter(|site| site.cuts(&stored.hour)) {
            site.figures.load(stored, now_ms);
        }
    }

    /// Takes the store's word on the past of a site.
    pub fn load_past(&mut self, index: usize, stored: StoredPast, uptime_ms: u64) {
        if let Some(site) = self.sites.get_mut(index) {
            site.history.load(stored, uptime_ms);
        }
    }

    /// The past of a site and when it was loaded, monotonic milliseconds.
    pub fn past(&self, site: SiteId, now: Moment) -> Option<(Past, u64)> {
        let site = self.sites.get(site.index())?;
        site.history.past(&site.calendar, now.unix_ms)
    }

    /// Takes the store's word on a page.
    pub fn load_page(
        &mut self,
        index: usize,
        page: &str,
        hour: &CivilHour,
        stored: PageFigures,
        uptime_ms: u64,
    ) {
        if let Some(site) = self.sites.get_mut(index).filter(|site| site.cuts(hour)) {
            let page = Page::trusted(SiteId(index as u16), page);
            site.pages.load(&page, hour, stored, uptime_ms);
        }
    }

    /// The civil hour of a site.
    pub fn hour(&mut self, index: usize, now: Moment) -> Option<CivilHour> {
        let site = self.sites.get_mut(index)?;
        if !(site.span.from_ms..site.span.until_ms).contains(&now.unix_ms) {
            site.turn_to(now);
        }
        Some(site.span.hour)
    }

    /// Whether a civil day is the running one of a site.
    pub fn is_day(&mut self, index: usize, day: NaiveDate, now: Moment) -> bool {
        self.hour(index, now).is_some_and(|hour| hour.day == day)
    }

    /// The figures of a site.
    pub fn figures(&mut self, site: SiteId, now: Moment) -> Figures {
        let Some(hour) = self.hour(site.index(), now) else { return Figures::default() };
        let site = &self.sites[site.index()];
        let mut figures = site.figures.figures(&hour);
        figures.changed_ms = figures.changed_ms.max(site.midnight_ms);
        figures
    }

    /// How often the figures of a site may have changed: what [`Ledger::figures`] gives is the same while
    /// this is.
    pub fn revision(&mut self, site: SiteId, now: Moment) -> u64 {
        self.hour(site.index(), now);
        self.sites.get(site.index()).map_or(0, |site| site.figures.revision)
    }

    /// The figures of a page and when they were loaded, monotonic milliseconds.
    pub fn page(&mut self, site: SiteId, page: &Page, now: Moment) -> Option<(PageFigures, u64)> {
        let hour = self.hour(site.index(), now)?;
        self.sites[site.index()].pages.figures(page, &hour)
    }

    /// Key, calendar and place of every site.
    pub fn sites(&self) -> Vec<(usize, SiteKey, Calendar)> {
        let site = |(index, site): (usize, &SiteLedger)| (index, site.key.clone(), site.calendar.clone());
        self.sites.iter().enumerate().map(site).collect()
    }

    /// What the store is known to hold of a site, for the checkpoint.
    pub fn stored(&self, index: usize) -> Option<Stored> {
        self.sites.get(index)?.figures.stored()
    }

    /// What the store is known to hold of a site's pages; see [`Pages::export`].
    pub fn stored_pages(&self, index: usize, from: usize, limit: usize) -> (Vec<Known>, Option<usize>) {
        self.sites.get(index).map_or((Vec::new(), None), |site| site.pages.export(from, limit))
    }
}
