//! What must hold after every step of a schedule, and at its end.

use super::super::oracle::{WEEK, YEAR};
use super::*;
use crate::calendar::PerPeriod;

/// After so long every hash was compared, whatever became of it.
const ALL_COMPARED_S: u64 = 3601;

impl World {
    /// What must hold after every step.
    pub(super) fn check(&mut self) {
        let data = self.model.data();
        if let Some(part) = data.doubled {
            panic!("{part:?} is in its hash twice");
        }
        for (hash, times) in data.recut {
            self.recuts.entry((format!("{}/{hash}", hash.site), times)).or_insert(self.recut_ms);
        }
        for index in 0..self.instances.len() {
            let page = self.dice.below(PAGES) as u8;
            let instance = &self.instances[index];
            let totals = instance.totals.clone().filter(|_| !instance.dead);
            let (Some(totals), now) = (totals, instance.clock.now()) else { continue };
            for site in instance.sites() {
                let id = SiteId(site as u16);
                let figures = totals.look(id, now).figures();
                self.compare_site(index, site, &figures, now);
                let shown = totals.look(id, now).page(&text(id, page));
                for (period, name) in
                    self.shown(site, now).into_iter().enumerate().filter(|_| shown.is_some())
                {
                    let period = period + SHOWN.start;
                    let views = *shown.iter().flat_map(|shown| shown.iter()).nth(period - 1).unwrap().1;
                    let of = |by| self.oracle.sums(by, &name, period, Some(page)).0;
                    // A week that was cut otherwise when a page was counted is known when the store is read; and a page's
                    // year is the sum of its months up to now, which another zone may set back.
                    let is_cut = self.kind.recuts && matches!(period, WEEK | YEAR);
                    let own = if self.kind.tight || is_cut { 0 } else { of(Some(index)) };
                    self.compare(views, own, of(None), &format!("page {page} in {name}"));
                }
            }
        }
    }

    /// The hashes of what is shown.
    fn shown(&self, site: usize, now: Moment) -> Vec<String> {
        self.cuts[site].names(site, now.unix_ms)[SHOWN].to_vec()
    }

    /// A figure holds what its instance accepted and nothing that nobody did.
    #[track_caller]
    fn compare(&self, shown: u64, own: u64, all: u64, what: &str) {
        assert!(shown <= all, "{what}: {shown} is shown and {all} were accepted");
        let may_lose = self.kind.forgets && self.went_back;
        assert!(shown >= own || may_lose, "{what}: {shown} is shown and {own} were accepted here");
    }

    pub(super) fn compare_site(&mut self, index: usize, site: usize, figures: &Figures, now: Moment) {
        let lost = self.losses();
        let shown = figures
            .views
            .iter()
            .zip(figures.visits.iter())
            .map(|((_, views), (_, visits))| (*views, *visits));
        for ((period, name), shown) in SHOWN.zip(self.shown(site, now)).zip(shown) {
            let (Some(views), Some(visits)) = shown else { continue };
            if self.talks && name.ends_with("/all") {
                println!("    instance {index} shows {views} views and {visits} visits of {name}");
            }
            let is_cut = self.kind.recuts && period == WEEK;
            let own = if is_cut { (0, 0) } else { self.oracle.sums(Some(index), &name, period, None) };
            let all = self.oracle.sums(None, &name, period, None);
            self.compare(views, own.0, all.0, &format!("views in {name}"));
            // Who finds no room begins a visit with a later view, or never.
            let (own, all) = if self.kind.tight { (0, views) } else { (own.1, all.1) };
            self.compare(visits, own, all, &format!("visits in {name}"));
            let before = self.instances[index].shown.entry(name.clone()).or_default();
            if views < before.views || visits < before.visits {
                // What is recorded as lost is shown no more, from the next reading on.
                let may = is_cut || lost > before.lost;
                assert!(may, "{name} goes back from {before:?} to {views}, {visits}");
                before.lost = lost;
            }
            (before.views, before.visits) = (views, visits);
        }
    }

    fn losses(&self) -> u64 {
        let of = |cause: &str| self.metrics.healing.losses.with_label_values(&[cause]).get();
        crate::metrics::LOSS_CAUSES.map(of).iter().sum()
    }

    /// All faults end: everything is brought to the store, which must hold exactly what was accepted, and every
    /// instance shows that.
    pub async fn end(mut self) -> Came {
        self.model.plan(None);
        self.model.set_down(false);
        self.instances.iter().for_each(|instance| instance.disk.heal());
        self.comes_back();
        while self.model.late() > 0 && self.dice.below(2) == 0 {
            self.land();
        }
        // A hash that went back is found within a minute, and one that is over within an hour. The last turn is for those
        // whose day has just turned.
        for seconds in [20, ALL_COMPARED_S, 20, 20, 0] {
            for index in 0..self.instances.len() {
                self.pass(seconds).await;
                self.take_step(index, Act::Turn).await;
            }
            while seconds == ALL_COMPARED_S && self.model.late() > 0 {
                self.land();
            }
        }
        // Hashes that went back and that no kept batch touches are found, site by site, when they are read, and read when
        // next asked for.
        let (rounds, instances) = (if self.kind.forgets { SITES + 1 } else { 1 }, self.instances.len());
        for index in (0..rounds).flat_map(|_| 0..instances) {
            for site in self.instances[index].sites() {
                for page in 0..PAGES as u8 {
                    self.ask_page(index, site, page).await;
                }
            }
            self.take_step(index, Act::Turn).await;
        }
        for instance in &self.instances {
            let writer = instance.writer();
            assert_eq!(writer.shared.held(), None);
            assert_eq!(writer.delivery.outbox.waiting(), 0, "everything is applied");
        }
        self.compare_calendars();
        let held = self.held();
        if self.oracle.expected(|_| true).keys().any(|(hash, _)| self.is_pruned(hash)) {
            self.came("Pruned");
        }
        self.compare_store(&held);
        self.compare_entries();
        for index in 0..self.instances.len() {
            self.compare_shown(index, &held);
        }
        let befell = self.model.befell().into_iter().map(|ends| format!("{ends:?}"));
        let failed = self.instances.iter().flat_map(|instance| instance.disk.failed());
        let came: Vec<String> = befell.chain(failed.map(|operation| format!("{operation:?}"))).collect();
        came.iter().for_each(|what| self.came(what));
        for index in 0..self.instances.len() {
            self.end_process(index).await;
        }
        self.came
    }

    /// The store knows how weeks are cut now; those that it was told to cut anew and has kept are sums of their days.
    fn compare_calendars(&mut self) {
        let data = self.model.data();
        let recut = data.recut.iter().map(|(hash, times)| (format!("{}/{hash}", hash.site), *times));
        self.oracle.recut = recut.map(|place| (place.0.clone(), self.recuts[&place])).collect();
        for (site, noted) in &data.calendars {
            let cut = self.cuts[usize::from(site.as_str().as_bytes()[1] - b'0')];
            let first = if cut.first == Weekday::Mon { "monday" } else { "sunday" };
            assert_eq!(*noted, format!("{} {first}", cut.zone()), "the calendar of {site}");
        }
    }

    /// Whether the store says that a hash is pruned. One that went back to what it was is there, and nobody minds.
    fn is_pruned(&self, place: &str) -> bool {
        let Some((site, hash)) = place.split_once('/') else { return false };
        let site = SiteKey::new(site).unwrap();
        let pruned = self.model.data().pruned;
        HashName::parse(&site, hash).is_some_and(|hash| hash.is_pruned(pruned.get(&site)))
    }

    /// What the store holds.
    fn held(&self) -> Sums {
        let mut held = Sums::new();
        for (hash, content) in &self.model.data().hashes {
            let sums = content.sums.iter().filter(|(_, sum)| **sum > 0);
            let place = |field: &str| (format!("{}/{hash}", hash.site), field.to_owned());
            held.extend(sums.map(|(field, sum)| (place(field), *sum)));
        }
        held.retain(|(hash, _), _| !self.is_pruned(hash));
        held
    }

    /// Of what was entered of a site the latest holds.
    fn compare_entries(&self) {
        let data = self.model.data();
        for site in (0..SITES).filter(|_| !self.kind.forgets) {
            let held = data.hashes.get(&entered_into(site)).and_then(|hash| hash.entries.get("+views"));
            let held = held.map(|entry| &entry.stamp);
            let entered = || self.oracle.entries.iter().filter(|entry| entry.site == site);
            let least = entered().filter(|entry| entry.certain).map(|entry| &entry.stamp).max();
            let is_one = held.is_none_or(|held| entered().any(|entry| entry.stamp == *held));
            assert!(held >= least && is_one, "site {site} holds {held:?}: {:?}", self.oracle.entries);
        }
    }

    fn compare_store(&self, held: &Sums) {
        let mut all = self.oracle.expected(|_| true);
        all.retain(|(hash, _), _| !self.is_pruned(hash));
        if self.kind.tight {
            return self.compare_tight(held, &all);
        }
        if !(self.kind.forgets && self.went_back) {
            let wrong: Vec<_> = held.iter().filter(|(field, sum)| all.get(*field) != Some(*sum)).collect();
            let missing: Vec<_> = all.iter().filter(|(field, _)| !held.contains_key(field)).collect();
            assert!(wrong.is_empty() && missing.is_empty(), "wrong: {wrong:?}; missing: {missing:?}");
            assert_eq!(self.losses(), 0, "nothing is lost");
            return self.compare_sketches();
        }
        // What was dropped from an outbox may be lost, and then it is recorded; nothing else is.
        let kept = self.oracle.expected(|view| {
            let writer = self.instances[view.by].writer();
            view.batch.is_none_or(|batch| Some(batch) >= writer.delivery.outbox.first_sequence())
        });
        let mut lost = 0;
        for (field, all) in &all {
            let (held, kept) = (held.get(field).copied().unwrap_or(0), kept.get(field).copied().unwrap_or(0));
            assert!(kept <= held && held <= *all, "{field:?}: {held} of {all}, of which {kept} are kept");
            lost += all - held;
        }
        assert!(held.keys().all(|field| all.contains_key(field)));
        assert!(lost == 0 || self.losses() > 0, "a loss is said");
    }

    /// Where there is no room all views count, in `(other)` if need be; visits may be left out.
    fn compare_tight(&self, held: &Sums, all: &Sums) {
        let of = |sums: &Sums, place: &(String, String)| sums.get(place).copied().unwrap_or(0);
        let mut pages: BTreeMap<&str, u64> = BTreeMap::new();
        for ((hash, field), sum) in held {
            match (hash.strip_suffix(":pages"), field.as_str()) {
                (Some(hash), _) => *pages.entry(hash).or_default() += sum,
                (None, "views") => assert_eq!(*sum, of(all, &(hash.clone(), field.clone())), "{hash}"),
                (None, _) => {
                    assert!(*sum <= of(held, &(hash.clone(), "views".to_owned())), "{hash}");
                    let most = of(all, &(hash.clone(), field.clone()));
                    assert!(*sum <= most || !hash.ends_with("/all"), "{hash}: {sum} of {most} visits");
                }
            }
        }
        for ((hash, field), sum) in all {
            let there = of(held, &(hash.clone(), field.clone()));
            assert!(field != "views" || there == *sum, "{hash}");
            let known = hash.ends_with(":pages") && field.starts_with('/');
            assert!(!known || there <= *sum, "{hash} {field}: {there} of {sum}");
        }
        for (hash, sum) in pages {
            assert_eq!(sum, of(held, &(hash.to_owned(), "views".to_owned())), "pages of {hash} add up");
        }
    }

    /// Visitors of days: the sketches hold those that were accepted and no other.
    fn compare_sketches(&self) {
        let mut days = BTreeMap::<_, crate::totals::batch::sketch::Sketch>::new();
        for view in &self.oracle.views {
            let day: u64 = view.day.format("%Y%m%d").to_string().parse().unwrap();
            let id = (day * 100 + u64::from(view.who)) * 10 + view.site as u64;
            days.entry((view.site, view.day)).or_default().insert(id);
        }
        let data = self.model.data();
        for ((site, day), sketch) in days {
            let site = SiteKey::new(&format!("s{site}")).unwrap();
            let name = HashName::parse(&site, &format!("day:{day}:visitors")).unwrap();
            assert_eq!(data.sketch(&name).as_ref(), Some(&sketch), "{name}");
        }
    }

    /// Every figure of an instance is known, and is what the store holds.
    fn compare_shown(&self, index: usize, held: &Sums) {
        let of =
            |hash: &str, field: &str| held.get(&(hash.to_owned(), field.to_owned())).copied().unwrap_or(0);
        let data = self.model.data();
        for site in self.instances[index].sites() {
            let (totals, now) =
                (self.instances[index].totals.clone().unwrap(), self.instances[index].clock.now());
            let (id, names) = (SiteId(site as u16), self.shown(site, now));
            let figures = totals.look(id, now).figures();
            let shown =
                |of: &PerPeriod<Option<u64>>| of.iter().map(|(_, figure)| *figure).collect::<Vec<_>>();
            for (field, figures) in [("views", &figures.views), ("visits", &figures.visits)] {
                let mut shown = shown(figures);
                let mut stored: Vec<_> = names.iter().map(|hash| Some(of(hash, field))).collect();
                if self.kind.recuts {
                    // A week that was cut otherwise for a while, unknown to the store, is shown as the sum of its days.
                    (shown[1], stored[1]) = (None, None);
                }
                assert_eq!(shown, stored, "{field} of site {site} at instance {index}");
            }
            let key = SiteKey::new(&format!("s{site}")).unwrap();
            let day =
                HashName::parse(&key, &format!("day:{}:visitors", self.cuts[site].day(now.unix_ms))).unwrap();
            let visitors = data.sketch(&day).map_or(0, |sketch| sketch.estimate());
            assert!(figures.visitors.day >= Some(visitors), "visitors of site {site} at instance {index}");
            for page in 0..PAGES as u8 {
                let shown = totals.look(id, now).page(&text(id, page));
                assert!(shown.is_some() || self.kind.tight, "page {page} of site {site} is known");
                let Some(shown) = shown else { continue };
                let field = format!("/{page}");
                for (hash, views) in [(0, shown.day), (2, shown.month), (4, shown.all)] {
                    let hash = format!("{}:pages", names[hash]);
                    assert!(views == of(&hash, &field) || self.kind.tight, "{field} in {hash}: {views}");
                }
            }
        }
    }
}
