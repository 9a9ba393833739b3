//! A store in memory for tests: it keeps the contract in the plainest form, and it fails, falls silent,
//! vanishes and goes back in time when it is told to.
//!
//! It remembers every state it was ever in, and of each hash the parts that were applied to it: one that
//! is applied a second time is the promise under test broken, and is noted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::NaiveDate;
use tokio::sync::Notify;

use super::contract::{
    Attached, Claim, Concern, Found, Outcome, Query, Standing, Store, StoreError, WriterId, check,
};
use super::dump::{Fields, Fill, RETIRED, StoredName};
use super::embedded::Snapshot;
use crate::random;
use crate::sites::SiteKey;
use crate::totals::batch::part::{HashName, MAX_SUM, Part, PartId, SketchPart};
use crate::totals::batch::sketch::Sketch;

/// The store. Clones are connections to the same one.
#[derive(Default)]
pub struct Model {
    shared: Arc<Shared>,
    /// How often the store had gone back when this connection was made.
    went_back: AtomicU64,
    /// What calls of `apply` are held to.
    claims: Mutex<HashMap<SiteKey, Held>>,
}

/// A data set, and the run that holds the writer.
type Held = (Arc<str>, Option<Arc<str>>);

impl Clone for Model {
    fn clone(&self) -> Self {
        let went_back = self.state().went_back.into();
        Model { shared: self.shared.clone(), went_back, claims: Mutex::default() }
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// A call fell silent.
    silence: Notify,
}

#[derive(Default)]
struct State {
    data: Data,
    past: Vec<Data>,
    fault: Option<Fault>,
    down: bool,
    /// Sites whose data it refuses.
    spoiled: BTreeSet<SiteKey>,
    went_back: u64,
    /// Calls that were made.
    calls: u64,
    /// A call on a connection from before it went back fails; else it is made again without a word.
    cuts: bool,
}

/// What a store holds.
#[derive(Clone, Default)]
pub struct Data {
    pub hashes: BTreeMap<HashName, Arc<Hash>>,
    /// The registers that are not zero.
    sketches: BTreeMap<HashName, Arc<BTreeMap<u16, u8>>>,
    sites: BTreeMap<SiteKey, (Arc<str>, NaiveDate)>,
    /// The run that holds each writer.
    bearers: HashMap<(SiteKey, WriterId), Arc<str>>,
    /// The last batch of each writer that was retired.
    retired: HashMap<(SiteKey, WriterId), Option<u64>>,
    salts: BTreeMap<(SiteKey, NaiveDate), [u8; 16]>,
    /// A part that was applied to a hash that had it in it already.
    pub doubled: Option<Part>,
}

/// One hash.
#[derive(Clone, Default)]
pub struct Hash {
    pub sums: BTreeMap<Arc<str>, u64>,
    markers: HashMap<WriterId, PartId>,
    revision: u64,
    /// The parts with sums that are in it.
    applied: Vec<(WriterId, PartId)>,
}

/// What befalls a call to come.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// So many calls pass before it.
    pub calls: u32,
    /// So many parts of the call are applied (of a call that has fewer: all, and its answer is lost).
    pub parts: usize,
    /// No answer ever comes; else the call fails.
    pub silent: bool,
}

impl Model {
    /// Plans a fault, in place of one that was planned before.
    pub fn plan(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    /// Whether every call fails from now on, doing nothing.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// Whether the sums of a site are refused from now on.
    pub fn spoil(&self, site: &SiteKey, is_spoiled: bool) {
        match is_spoiled {
            true => _ = self.state().spoiled.insert(site.clone()),
            false => _ = self.state().spoiled.remove(site),
        }
    }

    fn accepts<'a>(&self, mut hashes: impl Iterator<Item = &'a HashName>) -> Result<(), StoreError> {
        let spoiled = &self.state().spoiled;
        let refused = hashes.find(|hash| spoiled.contains(&hash.site));
        refused.map_or(Ok(()), |hash| Err(StoreError::refused(format!("{} {hash} is spoiled", hash.site))))
    }

    /// Waits until a call falls silent.
    pub async fn silent(&self) {
        self.shared.silence.notified().await;
    }

    /// Calls that were made of it.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// States it was in, apart from the present one.
    pub fn past(&self) -> usize {
        self.state().past.len()
    }

    /// Goes back to a state it was in, as a server does that is started anew: its connections are new ones,
    /// and `cuts` says whether the next call on each notices. What it was until now is remembered, too.
    pub fn go_back(&self, to: usize, cuts: bool) {
        let mut state = self.state();
        let earlier = state.past[to].clone();
        let now = std::mem::replace(&mut state.data, earlier);
        state.past.push(now);
        state.went_back += 1;
        state.cuts = cuts;
    }

    /// Is empty. What it held, and how many states it had been in.
    pub fn vanish(&self) -> (Data, usize) {
        let mut state = self.state();
        (std::mem::take(&mut state.data), state.past.len())
    }

    /// Holds what it held before it vanished; what it was in between is forgotten.
    pub fn come_back(&self, (data, past): (Data, usize)) {
        let mut state = self.state();
        state.data = data;
        state.past.truncate(past);
    }

    /// Forgets the states it was in.
    pub fn forget_past(&self) {
        self.state().past.clear();
    }

    /// What it holds.
    pub fn data(&self) -> Data {
        self.state().data.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    /// The fault that befalls this call, if one does.
    fn befalls(&self) -> Result<Option<Fault>, StoreError> {
        let mut state = self.state();
        state.calls += 1;
        let cut = self.went_back.swap(state.went_back, Ordering::Relaxed) != state.went_back;
        if state.down || (cut && state.cuts) {
            return Err(away());
        }
        match &mut state.fault {
            Some(Fault { calls: calls @ 1.., .. }) => {
                *calls -= 1;
                Ok(None)
            }
            fault => Ok(fault.take()),
        }
    }

    async fn ends(&self, fault: Fault) -> StoreError {
        if fault.silent {
            self.shared.silence.notify_one();
            std::future::pending::<()>().await;
        }
        away()
    }

    /// A call that changes nothing that a marker guards.
    async fn call<T>(&self, work: impl FnOnce(&mut Data) -> T) -> Result<T, StoreError> {
        match self.befalls()? {
            Some(fault) if fault.parts == 0 => Err(self.ends(fault).await),
            Some(fault) => {
                work(&mut self.state().data);
                Err(self.ends(fault).await)
            }
            None => Ok(work(&mut self.state().data)),
        }
    }

    /// Whether a site's data is what this connection attached to.
    fn holds(&self, data: &Data, site: &SiteKey, writer: &WriterId) -> Result<(), StoreError> {
        let Some((dataset, run)) = self.claims.lock().unwrap().get(site).cloned() else { return Ok(()) };
        let bearer = data.bearers.get(&(site.clone(), writer.clone()));
        let same = data.sites.get(site).is_some_and(|(held, _)| *held == dataset);
        let ours = run.is_none_or(|run| bearer == Some(&run));
        if same && ours { Ok(()) } else { Err(StoreError::Detached) }
    }
}

impl Store for Model {
    /// It is not read by tools.
    type Dump = Snapshot;

    fn kind(&self) -> &'static str {
        "model"
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn generation(&self) -> u64 {
        self.went_back.load(Ordering::Relaxed)
    }

    async fn concerns(&self) -> Result<Vec<Concern>, StoreError> {
        Ok(Vec::new())
    }

    async fn attach(
        &self,
        site: &SiteKey,
        _zone: &str,
        writer: &WriterId,
        today: NaiveDate,
        claim: &Claim,
    ) -> Result<Attached, StoreError> {
        let proposed = claim.birth.clone().unwrap_or_else(|| random::id().into());
        let attached = self.call(|data| data.attach(site, writer, today, claim, proposed)).await?;
        if matches!(attached.standing, Standing::Born | Standing::Ours) {
            let run = claim.runs.last().map(|run| run.id.clone());
            self.claims.lock().unwrap().insert(site.clone(), (attached.dataset.clone(), run));
        }
        Ok(attached)
    }

    async fn writers(&self, _site: &SiteKey) -> Result<Vec<(WriterId, i64)>, StoreError> {
        Ok(Vec::new())
    }

    async fn retire(&self, site: &SiteKey, writers: &[WriterId], _: NaiveDate) -> Result<u64, StoreError> {
        self.call(|data| writers.iter().map(|writer| data.retire(site, writer)).sum()).await
    }

    async fn note_calendar(
        &self,
        _calendar: &str,
        _at: &str,
        _week: HashName,
        _days: Vec<HashName>,
    ) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    async fn top(&self, _hash: &HashName, _most: usize) -> Result<Vec<(String, u64)>, StoreError> {
        Ok(Vec::new())
    }

    async fn dump(&self) -> Result<Snapshot, StoreError> {
        Err(is_not_copied())
    }

    async fn apply(
        &self,
        writer: &WriterId,
        parts: Vec<Part>,
        sketches: Vec<SketchPart>,
    ) -> Result<Vec<Outcome>, StoreError> {
        check(&parts)?;
        let fault = self.befalls()?;
        let reached = fault.map_or(parts.len(), |fault| fault.parts.min(parts.len()));
        // The sites before it have their parts, as those of Redis do.
        let spoiled = parts.iter().position(|part| self.accepts([&part.hash].into_iter()).is_err());
        let reached = spoiled.map_or(reached, |spoiled| spoiled.min(reached));
        let outcomes = {
            let mut state = self.state();
            let before = state.data.clone();
            let sites = sketches.iter().map(|sketch| &sketch.name.site);
            sites.into_iter().try_for_each(|site| self.holds(&state.data, site, writer))?;
            for SketchPart { name, registers } in sketches {
                let sketch = Arc::make_mut(state.data.sketches.entry(name).or_default());
                for (index, rank) in registers {
                    let held = sketch.entry(index).or_default();
                    *held = rank.max(*held);
                }
            }
            let mut apply = |part: &Part| {
                self.holds(&state.data, &part.hash.site, writer)?;
                state.data.apply(writer, part)
            };
            let outcomes = parts.iter().take(reached).map(&mut apply).collect::<Result<Vec<_>, _>>()?;
            if outcomes.contains(&Outcome::Applied) {
                state.past.push(before);
            }
            outcomes
        };
        match fault {
            Some(fault) => Err(self.ends(fault).await),
            None => self.accepts(parts.iter().map(|part| &part.hash)).map(|()| outcomes),
        }
    }

    async fn read(&self, writer: &WriterId, queries: Vec<Query>) -> Result<Vec<Found>, StoreError> {
        // A marker can be read.
        self.accepts(queries.iter().filter(|query| !query.fields.is_empty()).map(|query| &query.hash))?;
        self.call(|data| {
            let answer = |query: &Query| {
                let hash = data.hashes.get(&query.hash);
                let sum = |field| hash.and_then(|hash| hash.sums.get(field)).copied();
                let marker = hash.and_then(|hash| hash.markers.get(writer)).copied();
                let revision = hash.map_or(0, |hash| hash.revision);
                Found { marker, sums: query.fields.iter().map(sum).collect(), revision }
            };
            queries.iter().map(answer).collect()
        })
        .await
    }

    async fn sketches(&self, names: Vec<HashName>) -> Result<Vec<Option<Sketch>>, StoreError> {
        self.call(|data| names.iter().map(|name| data.sketch(name)).collect()).await
    }

    async fn visitors(&self, names: Vec<HashName>) -> Result<Vec<u64>, StoreError> {
        let of = |data: &Data, name: &HashName| data.sketch(name).map_or(0, |sketch| sketch.estimate());
        self.call(|data| names.iter().map(|name| of(data, name)).collect()).await
    }

    async fn salt(
        &self,
        site: &SiteKey,
        day: NaiveDate,
        proposed: [u8; 16],
        _keep: Duration,
    ) -> Result<[u8; 16], StoreError> {
        self.call(|data| *data.salts.entry((site.clone(), day)).or_insert(proposed)).await
    }
}

impl Fill for Model {
    async fn put_all(&self, _hashes: Vec<(StoredName, Fields)>) -> Result<(), StoreError> {
        Err(is_not_copied())
    }

    async fn put_sketches(&self, _sketches: Vec<(StoredName, Vec<u8>)>) -> Result<(), StoreError> {
        Err(is_not_copied())
    }

    async fn put_meta(&self, _site: &SiteKey, _meta: Fields) -> Result<(), StoreError> {
        Err(is_not_copied())
    }
}

impl Data {
    fn attach(
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
        let last = self.retired.get(&name).copied();
        let refused = |standing| {
            let dataset = held.clone().map_or_else(|| "".into(), |(dataset, _)| dataset);
            Attached { dataset, since, standing, fork: last.flatten() }
        };
        if claim.dataset.as_ref().is_some_and(|expected| held.as_ref().is_none_or(|held| held.0 != *expected))
        {
            return refused(Standing::Other);
        }
        if last.is_some() {
            return refused(Standing::Twin);
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
        Attached { dataset, since, standing, fork }
    }

    fn retire(&mut self, site: &SiteKey, writer: &WriterId) -> u64 {
        let of_site = self.hashes.iter_mut().filter(|(name, _)| name.site == *site);
        let gone: Vec<PartId> =
            of_site.filter_map(|(_, hash)| Arc::make_mut(hash).markers.remove(writer)).collect();
        let name = (site.clone(), writer.clone());
        self.bearers.insert(name.clone(), RETIRED.into());
        self.retired.insert(name, gone.iter().map(|id| id.sequence).max());
        gone.len() as u64
    }

    /// A sketch.
    pub fn sketch(&self, name: &HashName) -> Option<Sketch> {
        let registers: Vec<_> = self.sketches.get(name)?.iter().map(|(i, rank)| (*i, *rank)).collect();
        let mut sketch = Sketch::new();
        sketch.raise(&registers);
        Some(sketch)
    }

    fn apply(&mut self, writer: &WriterId, part: &Part) -> Result<Outcome, StoreError> {
        let found = self.hashes.get(&part.hash).and_then(|hash| hash.markers.get(writer)).copied();
        if found == Some(part.id) {
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

fn away() -> StoreError {
    StoreError::unreachable("the model is told not to")
}

fn is_not_copied() -> StoreError {
    StoreError::refused("a model of a store is not copied")
}
