//! A store in memory for tests: it keeps the contract in the plainest form, and it fails, falls silent, is
//! slow, vanishes and goes back in time when it is told to.
//!
//! A call that a fault befalls is done in two steps, and in between others may do what they like. Where its
//! caller has not waited for the second one (it gave the call up, or ended), that step is still on its way and
//! lands when the test says so, also after later calls.
//!
//! It remembers every state it was ever in, and of each hash the parts that were applied to it: one that
//! is applied a second time is the promise under test broken, and is noted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::NaiveDate;
use tokio::sync::{Notify, oneshot};

use super::contract::{
    Attached, Claim, Concern, Found, Outcome, Query, Standing, Store, StoreError, WriterId, check,
};
use super::dump::{Fields, Fill, RETIRED, StoredName};
use super::embedded::Snapshot;
use crate::random;
use crate::sites::SiteKey;
use crate::totals::batch::part::{HashKind, HashName, MAX_SUM, Part, PartId, SketchPart};
use crate::totals::batch::sketch::Sketch;

mod faults;
pub use faults::{Back, Ends, Fault};

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
    /// A fault befell a call that is under way.
    befallen: Notify,
}

#[derive(Default)]
struct State {
    data: Data,
    past: Vec<Data>,
    fault: Option<Fault>,
    /// What befell calls.
    befell: Vec<Ends>,
    /// Second steps of calls that nobody waits for any more, or not yet, by their numbers.
    late: BTreeMap<u64, Late>,
    second_steps: u64,
    down: bool,
    /// Sites whose data it refuses.
    spoiled: BTreeSet<SiteKey>,
    went_back: u64,
    /// Calls that were made.
    calls: u64,
    /// A call on a connection from before it went back fails; else it is made again without a word.
    cuts: bool,
}

type Late = Box<dyn FnOnce(&mut State) + Send>;

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
    /// As they were noted last.
    pub calendars: BTreeMap<SiteKey, String>,
    /// Weeks that were made the sum of their days, and how often.
    pub recut: BTreeMap<HashName, u64>,
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

/// How long a caller waits.
const TIMEOUT: Duration = Duration::from_secs(5);

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

    /// Waits until a fault befalls a call that goes on, or would. How it will end.
    pub async fn befallen(&self) -> Ends {
        self.shared.befallen.notified().await;
        *self.befell().last().expect("it befell a call")
    }

    /// What befell calls so far.
    pub fn befell(&self) -> Vec<Ends> {
        self.state().befell.clone()
    }

    /// Calls whose second step is on its way.
    pub fn late(&self) -> usize {
        self.state().late.len()
    }

    /// One of the calls that are on their way lands.
    pub fn land(&self, index: usize) {
        let mut state = self.state();
        let number = *state.late.keys().nth(index).expect("one of them");
        state.land(number);
    }

    /// Calls that were made of it.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// States it was in, apart from the present one.
    pub fn past(&self) -> usize {
        self.state().past.len()
    }

    /// Is empty. What it held, and how many states it had been in.
    pub fn vanish(&self) -> (Data, usize) {
        let mut state = self.state();
        state.late.clear();
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

    /// The second step of a call, if no fault befalls it or the caller sees it done.
    async fn second<T: Send + 'static>(
        &self,
        fault: Option<Fault>,
        step: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let Some(Fault { ends, .. }) = fault else { return Ok(step(&mut self.state())) };
        self.state().befell.push(ends);
        if ends == Ends::Failing {
            return Err(away());
        }
        let (tell, told) = oneshot::channel();
        let number = {
            let mut state = self.state();
            state.second_steps += 1;
            let number = state.second_steps;
            state.late.insert(number, Box::new(move |state| _ = tell.send(step(state))));
            number
        };
        self.shared.befallen.notify_one();
        // Whoever waits for that does what it likes before this is polled again.
        tokio::task::yield_now().await;
        match ends {
            Ends::Silent => std::future::pending().await,
            Ends::GivenUp => tokio::time::sleep(TIMEOUT).await,
            _ => self.state().land(number),
        }
        // A call that was given up may have landed meanwhile: its answer is lost.
        if ends == Ends::Slow { told.await.map_err(|_| away()) } else { Err(away()) }
    }

    /// A call that no marker guards: it has one step, the first or the second.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Data) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.befalls()? {
            Some(fault) if fault.parts > 0 => {
                let done = work(&mut self.state().data);
                self.second(Some(fault), |_| done).await
            }
            fault => self.second(fault, |state| work(&mut state.data)).await,
        }
    }
}

impl State {
    fn land(&mut self, number: u64) {
        if let Some(late) = self.late.remove(&number) {
            late(self);
        }
    }

    fn apply(
        &mut self,
        claims: &HashMap<SiteKey, Held>,
        writer: &WriterId,
        parts: &[Part],
        sketches: Vec<SketchPart>,
    ) -> Result<Vec<Outcome>, StoreError> {
        let before = self.data.clone();
        let sites = sketches.iter().map(|sketch| &sketch.name.site);
        sites.into_iter().try_for_each(|site| self.data.is_held(claims, site, writer))?;
        for SketchPart { name, registers } in sketches {
            let sketch = Arc::make_mut(self.data.sketches.entry(name).or_default());
            for (index, rank) in registers {
                let held = sketch.entry(index).or_default();
                *held = rank.max(*held);
            }
        }
        let mut apply = |part: &Part| {
            self.data.is_held(claims, &part.hash.site, writer)?;
            self.data.apply(writer, part)
        };
        let outcomes = parts.iter().map(&mut apply).collect::<Result<Vec<_>, _>>()?;
        if outcomes.contains(&Outcome::Applied) {
            self.past.push(before);
        }
        Ok(outcomes)
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
        let (key, by, claimed) = (site.clone(), writer.clone(), claim.clone());
        let attached = self.call(move |data| data.attach(&key, &by, today, &claimed, proposed)).await?;
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
        let (site, writers) = (site.clone(), writers.to_vec());
        self.call(move |data| writers.iter().map(|writer| data.retire(&site, writer)).sum()).await
    }

    async fn note_calendar(
        &self,
        calendar: &str,
        _at: &str,
        week: HashName,
        days: Vec<HashName>,
    ) -> Result<Option<String>, StoreError> {
        let calendar = calendar.to_owned();
        self.call(move |data| data.note_calendar(calendar, week, &days)).await
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
        let (claims, writer) = (self.claims.lock().unwrap().clone(), writer.clone());
        let reached = fault.map_or(parts.len(), |fault| fault.parts.min(parts.len()));
        // The sites before it have their parts, as those of Redis do.
        let spoiled = parts.iter().position(|part| self.accepts([&part.hash].into_iter()).is_err());
        let (most, accepted) =
            (spoiled.unwrap_or(parts.len()), self.accepts(parts.iter().map(|part| &part.hash)));
        let reached = reached.min(most);
        let first = self.state().apply(&claims, &writer, &parts[..reached], sketches)?;
        let rest = move |state: &mut State| state.apply(&claims, &writer, &parts[reached..most], Vec::new());
        let outcomes = [first, self.second(fault, rest).await??].concat();
        accepted.map(|()| outcomes)
    }

    async fn read(&self, writer: &WriterId, queries: Vec<Query>) -> Result<Vec<Found>, StoreError> {
        // A marker can be read.
        self.accepts(queries.iter().filter(|query| !query.fields.is_empty()).map(|query| &query.hash))?;
        let writer = writer.clone();
        self.call(move |data| {
            let answer = |query: &Query| {
                let hash = data.hashes.get(&query.hash);
                let sum = |field| hash.and_then(|hash| hash.sums.get(field)).copied();
                let marker = hash.and_then(|hash| hash.markers.get(&writer)).copied();
                let revision = hash.map_or(0, |hash| hash.revision);
                Found { marker, sums: query.fields.iter().map(sum).collect(), revision }
            };
            queries.iter().map(answer).collect()
        })
        .await
    }

    async fn sketches(&self, names: Vec<HashName>) -> Result<Vec<Option<Sketch>>, StoreError> {
        self.call(move |data| names.iter().map(|name| data.sketch(name)).collect()).await
    }

    async fn visitors(&self, names: Vec<HashName>) -> Result<Vec<u64>, StoreError> {
        let of = |data: &Data, name: &HashName| data.sketch(name).map_or(0, |sketch| sketch.estimate());
        self.call(move |data| names.iter().map(|name| of(data, name)).collect()).await
    }

    async fn salt(
        &self,
        site: &SiteKey,
        day: NaiveDate,
        proposed: [u8; 16],
        _keep: Duration,
    ) -> Result<[u8; 16], StoreError> {
        let place = (site.clone(), day);
        self.call(move |data| *data.salts.entry(place).or_insert(proposed)).await
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

    fn note_calendar(&mut self, calendar: String, week: HashName, days: &[HashName]) -> Option<String> {
        let before = self.calendars.insert(week.site.clone(), calendar.clone())?;
        let first_day = |calendar: &str| calendar.rsplit(' ').next().map(str::to_owned);
        if first_day(&before) != first_day(&calendar) {
            let sum = |field: &str| {
                days.iter().filter_map(|day| self.hashes.get(day)?.sums.get(field)).sum::<u64>()
            };
            let sums = ["views", "visits"].map(|field| (Arc::from(field), sum(field)));
            Arc::make_mut(self.hashes.entry(week.clone()).or_default()).sums.extend(sums);
            *self.recut.entry(week).or_default() += 1;
        }
        (before != calendar).then_some(before)
    }

    /// Whether a site's data is what a connection attached to.
    fn is_held(
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
    fn unlike(&self, other: &Data) -> Vec<HashName> {
        let same = |name: &HashName| match (self.hashes.get(name), other.hashes.get(name)) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        let names: BTreeSet<&HashName> = self.hashes.keys().chain(other.hashes.keys()).collect();
        names.into_iter().filter(|name| !same(name)).cloned().collect()
    }

    /// Takes a hash from another state, with the sketch that stands beside it.
    fn take(&mut self, name: &HashName, from: &Data) {
        set(&mut self.hashes, name, from.hashes.get(name));
        if name.kind == HashKind::Sums {
            let sketch = HashName { kind: HashKind::Visitors, ..name.clone() };
            set(&mut self.sketches, &sketch, from.sketches.get(&sketch));
        }
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

fn set<T: Clone>(map: &mut BTreeMap<HashName, T>, name: &HashName, value: Option<&T>) {
    match value {
        Some(value) => _ = map.insert(name.clone(), value.clone()),
        None => _ = map.remove(name),
    }
}

fn away() -> StoreError {
    StoreError::unreachable("the model is told not to")
}

fn is_not_copied() -> StoreError {
    StoreError::refused("a model of a store is not copied")
}
