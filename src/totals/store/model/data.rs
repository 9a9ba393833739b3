//! What the model holds, and what calls do to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use chrono::NaiveDate;

use crate::ingest::OTHER;
use crate::sites::SiteKey;
use crate::totals::batch::part::{Entry, HashKind, HashName, MAX_SUM, Part, PartId, Sums, field_beside};
use crate::totals::batch::sketch::Sketch;
use crate::totals::store::contract::{Attached, Claim, Fold, Outcome, Standing, StoreError, WriterId};
use crate::totals::store::dump::RETIRED;
use crate::totals::store::progress::Progress;

/// A data set, and the run that holds the writer.
pub type Held = (Arc<str>, Option<Arc<str>>);

/// What a store holds.
#[derive(Clone, Default)]
pub struct Data {
    pub hashes: BTreeMap<HashName, Arc<Hash>>,
    /// The registers that are not zero.
    pub sketches: BTreeMap<HashName, Arc<BTreeMap<u16, u8>>>,
    pub sites: BTreeMap<SiteKey, (Arc<str>, NaiveDate)>,
    /// The run that holds each writer.
    pub bearers: HashMap<(SiteKey, WriterId), Arc<str>>,
    /// How far each writer had come that was retired.
    pub retired: HashMap<(SiteKey, WriterId), Progress>,
    pub salts: BTreeMap<(SiteKey, NaiveDate), [u8; 16]>,
    /// As they were noted last.
    pub calendars: BTreeMap<SiteKey, String>,
    /// The day on which each site was attached last.
    pub today: BTreeMap<SiteKey, NaiveDate>,
    /// The day before which each site's pages are pruned.
    pub pruned: BTreeMap<SiteKey, NaiveDate>,
    /// The number of each site's last entry.
    pub numbers: BTreeMap<SiteKey, u64>,
    /// Weeks that were made the sum of their days, and how often.
    pub recut: BTreeMap<HashName, u64>,
    /// A part that was applied to a hash that had it in it already.
    pub doubled: Option<Part>,
}

/// One hash.
#[derive(Clone, Default)]
pub struct Hash {
    pub sums: BTreeMap<Arc<str>, u64>,
    /// Registers, by their fields.
    pub entries: BTreeMap<Arc<str>, Entry>,
    pub markers: HashMap<WriterId, PartId>,
    pub revision: u64,
    /// The parts with sums that are in it.
    pub applied: Vec<(WriterId, PartId)>,
}

impl Data {
    pub fn attach(
        &mut self,
        site: &SiteKey,
        writer: &WriterId,
        today: NaiveDate,
        claim: &Claim,
        proposed: Arc<str>,
    ) -> Attached {
        let held = self.sites.get(site).cloned();
        let (dataset, since) = held.clone().unwrap_or((proposed, today));
        let name = (site.clone(), writer.clone());
        let retired = self.retired.get(&name);
        let last = retired.map(|of| of.last).filter(|last| *last > 0);
        let pruned = self.pruned.get(site).copied();
        self.today.insert(site.clone(), today);
        let refused = |standing| {
            let dataset = held.clone().map_or_else(|| "".into(), |(dataset, _)| dataset);
            Attached { dataset, since, pruned, standing, fork: last }
        };
        if claim.dataset.as_ref().is_some_and(|expected| held.as_ref().is_none_or(|held| held.0 != *expected))
        {
            return refused(Standing::Other);
        }
        if retired.is_some() {
            return refused(Standing::Retired);
        }
        let mut fork = None;
        if let Some(run) = claim.runs.last() {
            if let Some(bearer) = self.bearers.get(&name).filter(|bearer| **bearer != run.id) {
                let Some(place) = claim.runs.iter().position(|run| run.id == *bearer) else {
                    return refused(Standing::Twin);
                };
                fork = claim.runs.get(place + 1).map(|next| next.base);
            }
            self.bearers.insert(name, run.id.clone());
        }
        let since = today.min(since);
        self.sites.insert(site.clone(), (dataset.clone(), since));
        let standing = if held.is_none() { Standing::Born } else { Standing::Ours };
        Attached { dataset, since, pruned, standing, fork }
    }

    pub fn note_calendar(&mut self, calendar: String, week: HashName, days: &[HashName]) -> Option<String> {
        let before = self.calendars.insert(week.site.clone(), calendar.clone())?;
        let first_day = |calendar: &str| calendar.rsplit(' ').next().map(str::to_owned);
        if first_day(&before) != first_day(&calendar) {
            let sum = |field: &str| {
                days.iter().filter_map(|day| self.hashes.get(day)?.sums.get(field)).sum::<u64>()
            };
            let sums: Vec<_> = Sums::fields().iter().map(|field| (field.clone(), sum(field))).collect();
            Arc::make_mut(self.hashes.entry(week.clone()).or_default()).sums.extend(sums);
            *self.recut.entry(week).or_default() += 1;
        }
        (before != calendar).then_some(before)
    }

    pub fn prune(
        &mut self,
        site: &SiteKey,
        held: Option<NaiveDate>,
        days: Range<NaiveDate>,
    ) -> Option<NaiveDate> {
        if self.pruned.get(site).copied() == held {
            self.hashes.retain(|name, _| name.site != *site || !name.is_pruned(Some(&days.end)));
            self.pruned.insert(site.clone(), days.end);
        }
        self.pruned.get(site).copied()
    }

    pub fn fold(&mut self, fold: &Fold) -> u64 {
        let hash = |name: &HashName| self.hashes.get(name);
        let all = fold.hashes.first().and_then(hash);
        let goes = |page: &&Arc<str>| {
            let Some(below) = fold.below else { return true };
            let is_on_a_day =
                fold.days.iter().any(|day| hash(day).is_some_and(|day| day.sums.contains_key(*page)));
            let is_small = |all: &Arc<Hash>| all.sums.get(*page).is_some_and(|views| *views < below);
            let is_entered = |all: &Arc<Hash>| all.entries.contains_key(&field_beside(page));
            all.is_some_and(|all| is_small(all) && !is_entered(all)) && !is_on_a_day
        };
        let going: Vec<_> = fold.fields.iter().filter(goes).cloned().collect();
        let mut removed = 0;
        for name in &fold.hashes {
            let Some(hash) = self.hashes.get_mut(name).map(Arc::make_mut) else { continue };
            removed += going.iter().filter(|field| hash.entries.remove(*field).is_some()).count();
            let gone: Vec<u64> = going.iter().filter_map(|page| hash.sums.remove(page)).collect();
            if !gone.is_empty() {
                *hash.sums.entry(OTHER.into()).or_default() += gone.iter().sum::<u64>();
                hash.revision += 1;
                removed += gone.len();
            }
        }
        removed as u64
    }

    /// Whether a site's data is what a connection attached to.
    pub fn is_held(
        &self,
        claims: &HashMap<SiteKey, Held>,
        site: &SiteKey,
        writer: &WriterId,
    ) -> Result<(), StoreError> {
        let Some((dataset, run)) = claims.get(site) else { return Ok(()) };
        let bearer = self.bearers.get(&(site.clone(), writer.clone()));
        let same = self.sites.get(site).is_some_and(|(held, _)| held == dataset);
        let ours = run.as_ref().is_none_or(|run| bearer == Some(run));
        if same && ours { Ok(()) } else { Err(StoreError::Detached) }
    }

    /// The hashes that differ from those of another state.
    pub fn unlike(&self, other: &Data) -> Vec<HashName> {
        let same = |name: &HashName| match (self.hashes.get(name), other.hashes.get(name)) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        let names: BTreeSet<&HashName> = self.hashes.keys().chain(other.hashes.keys()).collect();
        names.into_iter().filter(|name| !same(name)).cloned().collect()
    }

    /// Takes a hash from another state, with the sketch that stands beside it.
    pub fn take(&mut self, name: &HashName, from: &Data) {
        set(&mut self.hashes, name, from.hashes.get(name));
        if name.kind == HashKind::Sums {
            let sketch = HashName { kind: HashKind::Visitors, ..name.clone() };
            set(&mut self.sketches, &sketch, from.sketches.get(&sketch));
        }
    }

    pub fn retire(&mut self, site: &SiteKey, writer: &WriterId) -> u64 {
        let name = (site.clone(), writer.clone());
        self.bearers.insert(name.clone(), RETIRED.into());
        let (progress, mut removed) = (self.retired.entry(name).or_default(), 0);
        for (name, hash) in self.hashes.iter_mut().filter(|(name, _)| name.site == *site) {
            if let Some(id) = Arc::make_mut(hash).markers.remove(writer) {
                progress.note(name.clone(), id);
                removed += 1;
            }
        }
        removed
    }

    pub fn remove(&mut self, site: &SiteKey) {
        self.hashes.retain(|hash, _| hash.site != *site);
        self.sketches.retain(|hash, _| hash.site != *site);
        self.salts.retain(|(of, _), _| of != site);
        self.sites.remove(site);
        self.calendars.remove(site);
        self.pruned.remove(site);
        self.numbers.remove(site);
        self.bearers.retain(|(of, _), _| of != site);
        self.retired.retain(|(of, _), _| of != site);
    }

    /// A sketch.
    pub fn sketch(&self, name: &HashName) -> Option<Sketch> {
        let registers: Vec<_> = self.sketches.get(name)?.iter().map(|(i, rank)| (*i, *rank)).collect();
        let mut sketch = Sketch::new();
        sketch.raise(&registers);
        Some(sketch)
    }

    pub fn apply(&mut self, writer: &WriterId, part: &Part) -> Result<Outcome, StoreError> {
        let found = self.hashes.get(&part.hash).and_then(|hash| hash.markers.get(writer)).copied();
        if found == Some(part.id) || part.hash.is_pruned(self.pruned.get(&part.hash.site)) {
            return Ok(Outcome::Already);
        }
        if found != part.prev {
            return Ok(Outcome::Found(found));
        }
        let hash = Arc::make_mut(self.hashes.entry(part.hash.clone()).or_default());
        let mut sums = hash.sums.clone();
        for (field, add) in &part.sums {
            let sum = sums.entry(field.clone()).or_default();
            let total = sum.checked_add(*add).filter(|total| *total <= MAX_SUM);
            *sum = total.ok_or_else(|| StoreError::refused(format!("the sum of {field} would pass 2^53")))?;
        }
        hash.sums = sums;
        part.entries.iter().for_each(|(field, entry)| entry.clone().put(&mut hash.entries, field));
        let name = (writer.clone(), part.id);
        if !part.sums.is_empty() && hash.applied.contains(&name) {
            self.doubled = Some(part.clone());
        }
        hash.applied.push(name);
        hash.markers.insert(writer.clone(), part.id);
        hash.revision =
            part.revision.map_or(hash.revision, |revision| revision.max(hash.revision + 1).min(MAX_SUM));
        Ok(Outcome::Applied)
    }
}

fn set<T: Clone>(map: &mut BTreeMap<HashName, T>, name: &HashName, value: Option<&T>) {
    match value {
        Some(value) => _ = map.insert(name.clone(), value.clone()),
        None => _ = map.remove(name),
    }
}
