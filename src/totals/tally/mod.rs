//! What is counted and shown, in memory: pending sums until they are frozen into a batch, and the figures that
//! readers get. All of it is under one lock that is never held across an `.await` or a write.

pub mod cell;
pub mod pages;
pub mod recent;
pub mod running;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::NaiveDate;

use self::cell::Revised;
use self::pages::{PageFigures, Pages, StoredPage};
use self::recent::{Recent, RecentBuckets, StoredRecent};
use self::running::{Figures, RunningTotals, Stored};
use crate::calendar::{Calendar, CivilHour, PerPeriod, Span};
use crate::clock::Moment;
use crate::ingest::{Beacon, OTHER, Page, Reason};
use crate::metrics::{Bound, Metrics};
use crate::sites::{Site, SiteId, SiteKey};
use crate::totals::batch::part::Sums;
use crate::totals::batch::{Batch, Frozen, SiteSums};
use crate::totals::disk::fatal::die;
use crate::totals::disk::frame::Position;

/// Pages that are gone through while the tally is locked.
const PAGES_AT_A_TIME: usize = 1000;

/// Time for another thread to wake and to take the lock.
const STEP_PAUSE: Duration = Duration::from_micros(50);

/// A view that is written, and whether it is a visit too.
pub struct CountedView {
    pub view: Beacon,
    pub visit: bool,
}

/// The sites with what is pending and shown of each. A site's place is its [`SiteId`].
pub struct Tally {
    sites: Vec<SiteTally>,
    by_key: HashMap<SiteKey, SiteId>,
    sealed: Vec<SiteSums>,
    /// When the oldest view was accepted that is in no batch.
    pub oldest_ms: Option<i64>,
    /// Where the journal goes on after the last view that is counted.
    pub folded: Position,
    /// And after the last group, be it of pings and leaves alone.
    pub written: Position,
    max_pages: usize,
    metrics: Arc<Metrics>,
}

struct SiteTally {
    key: SiteKey,
    calendar: Calendar,
    span: Span,
    /// When the span's day began: its figures changed then, if not later.
    midnight_ms: i64,
    pages: Pages,
    totals: RunningTotals,
    /// How often `totals` may have changed.
    revision: u64,
    recent: RecentBuckets,
    pending: Option<(CivilHour, Sums)>,
}

impl SiteTally {
    /// Whether an hour's week is one of the site's calendar.
    fn cuts(&self, hour: &CivilHour) -> bool {
        self.calendar.week_of(hour.day) == hour.week
    }

    /// Shows the buckets of an instant.
    fn turn_to(&mut self, now: Moment) {
        self.span = self.calendar.span(now.unix_ms);
        self.midnight_ms = self.calendar.day_begins_ms(self.span.hour.day);
        self.revision += 1;
    }

    /// The totals, to be changed.
    fn change(&mut self) -> &mut RunningTotals {
        self.revision += 1;
        &mut self.totals
    }

    fn add(&mut self, hour: &CivilHour, sums: Sums, at_ms: i64) {
        let (_, pending) = self.pending.get_or_insert((*hour, Sums::default()));
        *pending += sums;
        // What is left out changes no figure that readers are shown.
        self.revision += u64::from(sums.views > 0);
        self.totals.count(hour, sums, at_ms);
        self.recent.add(hour, sums);
    }

    fn forget_past(&mut self) {
        self.pages.forget();
        self.recent.forget();
    }

    /// Takes what is pending, if it is of another hour.
    fn seal_before(&mut self, hour: &CivilHour) -> Option<SiteSums> {
        self.pending.filter(|(pending, _)| pending != hour).and_then(|_| self.seal())
    }

    /// Takes what is pending.
    fn seal(&mut self) -> Option<SiteSums> {
        let (hour, sums) = self.pending.take()?;
        Some(SiteSums {
            site: self.key.clone(),
            hour,
            sums,
            day_registers: self.totals.seal(),
            pages: self.pages.seal(),
        })
    }
}

/// Locks a tally. Half a change to the sums is worse than a restart, which reads the journal.
pub fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(|_| die("a panic left the tally half changed"))
}

/// Stands between two steps that lock the tally, so that no view waits for all of them: who waits for the lock gets
/// it. Without this, the one who has just let go of it would be the first to take it again.
pub fn give_way() {
    std::thread::sleep(STEP_PAUSE);
}

/// Takes all that is pending; none where nothing is.
pub fn freeze(tally: &Mutex<Tally>) -> Option<Frozen> {
    while !lock(tally).seal_some() {
        give_way();
    }
    lock(tally).freeze()
}

/// The store holds a batch now.
pub fn applied(tally: &Mutex<Tally>, batch: &Batch) {
    for SiteSums { site, hour, sums, pages, .. } in &batch.sums {
        let Some(id) = lock(tally).applied(site, hour, *sums) else { continue };
        for (step, some) in pages.chunks(PAGES_AT_A_TIME).enumerate() {
            if step > 0 {
                give_way();
            }
            let some: Vec<_> = some.iter().map(|(page, views)| (Page::trusted(id, page), *views)).collect();
            if let Some(site) = lock(tally).site(id) {
                some.iter().for_each(|(page, views)| site.pages.applied(page, hour, *views));
            }
        }
    }
}

impl Tally {
    pub fn new(max_pages: usize, metrics: Arc<Metrics>) -> Self {
        Tally {
            sites: Vec::new(),
            by_key: HashMap::new(),
            sealed: Vec::new(),
            oldest_ms: None,
            folded: Position::default(),
            written: Position::default(),
            max_pages,
            metrics,
        }
    }

    fn add_site(&mut self, key: SiteKey, calendar: Calendar, now: Moment) -> SiteId {
        let id = SiteId(self.sites.len() as u16);
        self.by_key.insert(key.clone(), id);
        let span = calendar.span(now.unix_ms);
        self.sites.push(SiteTally {
            key,
            midnight_ms: calendar.day_begins_ms(span.hour.day),
            calendar,
            span,
            pages: Pages::new(id, self.max_pages),
            totals: RunningTotals::new(),
            revision: 0,
            recent: RecentBuckets::default(),
            pending: None,
        });
        id
    }

    /// The place of a registered site: its own, where it has one. Those of the first ones are their ids.
    pub fn place(&mut self, site: &Site, now: Moment) -> SiteId {
        let Some(id) = self.site_id(&site.key) else {
            return self.add_site(site.key.clone(), site.calendar.clone(), now);
        };
        // Of one that only had views left the calendar was not known.
        if let Some(known) = self.site(id).filter(|known| known.calendar != site.calendar) {
            known.calendar = site.calendar.clone();
            known.turn_to(now);
        }
        id
    }

    /// The place of a site that views were read back of. One that is no longer registered gets a place
    /// too: its views were promised.
    pub fn place_of(&mut self, key: &SiteKey, now: Moment) -> SiteId {
        self.site_id(key).unwrap_or_else(|| self.add_site(key.clone(), Calendar::utc(), now))
    }

    /// The place of a registered site or of one that has views.
    pub fn site_id(&self, key: &SiteKey) -> Option<SiteId> {
        self.by_key.get(key).copied()
    }

    fn site(&mut self, id: SiteId) -> Option<&mut SiteTally> {
        self.sites.get_mut(id.index())
    }

    /// The most pages of a site that can make no room for others.
    pub fn bound_pages(&self) -> usize {
        self.sites.iter().map(|site| site.pages.bound()).max().unwrap_or_default()
    }

    /// Whether the store does not hold all views of a site.
    pub fn waits(&self, key: &SiteKey) -> bool {
        let site = self.site_id(key).and_then(|id| self.sites.get(id.index()));
        site.is_some_and(|site| !site.totals.is_applied())
    }

    /// Counts views and visits of a group that is written, up to where the journal goes on after it.
    pub fn count(&mut self, views: &[CountedView], end: Option<Position>) {
        // Views of one site and hour follow each other nearly always: their sums are added once.
        for run in views.chunk_by(|a, b| a.view.site == b.view.site && a.view.hour == b.view.hour) {
            self.count_run(run, false);
        }
        self.written = end.unwrap_or(self.written);
        if !views.is_empty() {
            self.folded = self.written;
        }
    }

    /// Counts views of one site and hour. `again`: they are of the journal and in no batch, read back at start.
    pub fn count_run(&mut self, run: &[CountedView], again: bool) {
        let (Some(CountedView { view: first, .. }), Some(last)) = (run.first(), run.last()) else { return };
        let Some(site) = self.sites.get_mut(first.site.index()) else { return };
        self.sealed.extend(site.seal_before(&first.hour));
        let (mut sums, mut folded) = (Sums { views: run.len() as u64, ..Sums::default() }, 0);
        for CountedView { view, visit } in run {
            sums.visits += u64::from(*visit);
            if view.is_shadow {
                sums += Sums::left_out(Reason::Robot);
            }
            if !site.pages.count(&view.page, &first.hour) {
                folded += 1;
                if view.page.as_str() != OTHER && !again {
                    self.metrics.bound(Bound::Pages);
                }
            }
            if let Some(visitor) = view.visitor {
                site.change().see(&first.hour, visitor.today.0, again);
            }
        }
        site.add(&first.hour, sums, last.view.at.unix_ms);
        self.oldest_ms.get_or_insert(first.at.unix_ms);
        if !again {
            self.metrics.sites.counted(first.site, sums.views, sums.visits, folded);
        }
    }

    /// Counts a view that was left out. Of these alone a batch is made too, which reaches no further than the last.
    pub fn leave_out(&mut self, site: SiteId, hour: &CivilHour, reason: Reason, now: Moment) {
        let Some(site) = self.sites.get_mut(site.index()) else { return };
        self.sealed.extend(site.seal_before(hour));
        site.add(hour, Sums::left_out(reason), i64::MIN);
        self.oldest_ms.get_or_insert(now.unix_ms);
    }

    /// Takes all that is pending and sealed.
    fn freeze(&mut self) -> Option<Frozen> {
        self.sealed.extend(self.sites.iter_mut().filter_map(SiteTally::seal));
        let oldest_ms = self.oldest_ms.take()?;
        let sums = std::mem::take(&mut self.sealed);
        Some(Frozen { sums, entries: Vec::new(), reach: self.folded, oldest_ms })
    }

    /// The store holds what a site gained in an hour, but for its pages. The site's place.
    fn applied(&mut self, key: &SiteKey, hour: &CivilHour, sums: Sums) -> Option<SiteId> {
        let id = self.site_id(key)?;
        let site = self.site(id)?;
        site.change().applied(hour, sums);
        site.recent.applied(hour, sums);
        Some(id)
    }

    /// A freeze did not become a batch: what it took is pending again.
    pub fn unfreeze(&mut self, frozen: Frozen) {
        self.sealed.splice(0..0, frozen.sums);
        self.oldest_ms = Some(frozen.oldest_ms);
    }

    /// Seals some of what is pending ahead of a freeze; whether that was all that is worth it.
    fn seal_some(&mut self) -> bool {
        let mut most = PAGES_AT_A_TIME;
        for site in &mut self.sites {
            most -= site.pages.seal_some(most);
        }
        most > 0
    }

    /// Something was counted of a site on a day: should that come, its buckets do not begin at 0.
    pub fn note_day(&mut self, site: &SiteKey, day: NaiveDate) {
        if let Some(site) = self.site_id(site).and_then(|id| self.site(id)) {
            site.totals.note_day(day);
            site.pages.note_day(day);
        }
    }

    /// A batch of which it is not known that the store holds it: read back at start.
    pub fn restore_unapplied(&mut self, batch: &Batch, now: Moment) {
        for sums in &batch.sums {
            let id = self.place_of(&sums.site, now);
            let Some(site) = self.site(id) else { continue };
            site.change().restore_unapplied(&sums.hour, sums.sums, &sums.day_registers);
            site.recent.add(&sums.hour, sums.sums);
            for (page, views) in &sums.pages {
                site.pages.restore_unapplied(page, &sums.hour, *views);
            }
        }
    }

    /// Takes what the store holds of a site. What was known of another data set is forgotten.
    pub fn learn_site(&mut self, id: SiteId, stored: Stored, now_ms: i64) {
        // A week that another calendar cut is not known by this one.
        if let Some(site) = self.site(id).filter(|site| site.cuts(&stored.hour)) {
            if site.totals.is_of_another(stored.dataset.as_deref()) {
                site.forget_past();
            }
            site.change().learn(stored, now_ms);
        }
    }

    /// Forgets the recent past and the pages of all sites: they are read again when they are asked for.
    pub fn forget_past(&mut self) {
        self.sites.iter_mut().for_each(SiteTally::forget_past);
    }

    /// The same for one site.
    pub fn forget_past_of(&mut self, key: &SiteKey) {
        if let Some(site) = self.site_id(key).and_then(|id| self.site(id)) {
            site.change();
            site.forget_past();
        }
    }

    /// Takes what the store holds of the recent hours and days of a site.
    pub fn learn_recent(&mut self, id: SiteId, stored: StoredRecent, uptime_ms: u64) {
        if let Some(site) = self.site(id) {
            site.recent.learn(stored, uptime_ms);
        }
    }

    /// Takes what the store holds of a page.
    pub fn learn_page(
        &mut self,
        id: SiteId,
        page: &str,
        hour: &CivilHour,
        stored: PerPeriod<Revised<u64>>,
        uptime_ms: u64,
    ) {
        let Some(site) = self.sites.get_mut(id.index()).filter(|site| site.cuts(hour)) else { return };
        if !site.pages.learn(page, hour, stored, uptime_ms) {
            self.metrics.bound(Bound::Loads);
        }
    }

    /// Takes back what a checkpoint holds of a page.
    pub fn restore_page(
        &mut self,
        id: SiteId,
        page: &str,
        hour: &CivilHour,
        stored: PerPeriod<Revised<u64>>,
    ) {
        if let Some(site) = self.site(id).filter(|site| site.cuts(hour)) {
            site.pages.restore(page, hour, stored);
        }
    }

    /// A site, in the buckets of an instant.
    fn site_at(&mut self, id: SiteId, now: Moment) -> Option<&mut SiteTally> {
        let site = self.site(id)?;
        if !(site.span.from_ms..site.span.until_ms).contains(&now.unix_ms) {
            site.turn_to(now);
        }
        Some(site)
    }

    /// Whether a civil day is the running one of a site.
    pub fn is_day(&mut self, id: SiteId, day: NaiveDate, now: Moment) -> bool {
        self.site_at(id, now).is_some_and(|site| site.span.hour.day == day)
    }

    /// The figures of a site.
    pub fn figures(&mut self, id: SiteId, now: Moment) -> Figures {
        let Some(site) = self.site_at(id, now) else { return Figures::default() };
        let figures = site.totals.figures(&site.span.hour);
        Figures { changed_ms: figures.changed_ms.max(site.midnight_ms), ..figures }
    }

    /// How often the figures of a site may have changed: what [`Tally::figures`] gives is the same while
    /// this is.
    pub fn revision(&mut self, id: SiteId, now: Moment) -> u64 {
        self.site_at(id, now).map_or(0, |site| site.revision)
    }

    /// The figures of a page and when they were loaded, monotonic milliseconds.
    pub fn page(&mut self, id: SiteId, page: &Page, now: Moment) -> Option<(PageFigures, u64)> {
        let site = self.site_at(id, now)?;
        site.pages.figures(page, &site.span.hour)
    }

    /// Whether a page is one that the store was found not to have a moment ago.
    pub fn is_absent(&self, id: SiteId, page: &Page) -> bool {
        self.sites.get(id.index()).is_some_and(|site| site.pages.is_absent(page))
    }

    /// Whether something is known of a page, or was counted.
    pub fn has_place(&mut self, id: SiteId, page: &Page) -> bool {
        self.site(id).is_some_and(|site| site.pages.has_place(page))
    }

    /// The recent hours and days of a site and when they were loaded, monotonic milliseconds.
    pub fn recent(&self, id: SiteId, now: Moment) -> Option<(Recent, u64)> {
        let site = self.sites.get(id.index())?;
        site.recent.recent(&site.calendar, now.unix_ms)
    }

    /// Every site by its place.
    pub fn sites(&self) -> Vec<(SiteId, SiteKey)> {
        let sites = self.sites.iter().enumerate();
        sites.map(|(place, site)| (SiteId(place as u16), site.key.clone())).collect()
    }

    /// What the store is known to hold of a site, for the checkpoint.
    pub fn stored(&self, id: SiteId) -> Option<Stored> {
        self.sites.get(id.index())?.totals.stored()
    }

    /// What the store is known to hold of a site's pages; see [`Pages::export`].
    pub fn stored_pages(&self, id: SiteId, from: usize) -> (Vec<StoredPage>, Option<usize>) {
        let site = self.sites.get(id.index());
        site.map_or((Vec::new(), None), |site| site.pages.export(from, PAGES_AT_A_TIME))
    }
}
