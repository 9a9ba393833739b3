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
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{NaiveDate, NaiveTime};
use tokio::sync::{Notify, oneshot};

use super::contract::{
    Attached, Claim, Concern, Fold, Found, Outcome, Query, Standing, Store, StoreError, WriterId, check,
};
use super::dump::{Fields, Fill, StoredName};
use super::embedded::Snapshot;
use super::progress::Progress;
use crate::random;
use crate::sites::SiteKey;
use crate::totals::batch::part::{HashName, Part, SketchPart, field_beside};
use crate::totals::batch::sketch::Sketch;

mod data;
mod faults;
pub use data::Data;
use data::Held;
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

    /// Goes back to a state it was in. Where a server is started anew its connections are new ones: what was on its
    /// way is gone, and `cuts` says whether the next call on each notices. `pick(n)` chooses one of n. What it was
    /// until now is remembered, too.
    pub fn go_back(&self, to: usize, back: Back, cuts: bool, mut pick: impl FnMut(usize) -> usize) {
        let mut state = self.state();
        let (now, earlier) = (state.data.clone(), state.past[to].clone());
        let later = state.past.get(to + 1).unwrap_or(&now).clone();
        state.data = match back {
            Back::Whole => earlier,
            Back::Within => {
                let mut data = earlier.clone();
                let some = later.unlike(&earlier).into_iter().filter(|_| pick(2) == 0);
                some.for_each(|name| data.take(&name, &later));
                data
            }
            Back::Hash => {
                let (mut data, names) = (now.clone(), now.unlike(&earlier));
                let one = (!names.is_empty()).then(|| pick(names.len()));
                one.into_iter().for_each(|one| data.take(&names[one], &earlier));
                data
            }
        };
        state.past.push(now);
        if back != Back::Hash {
            state.went_back += 1;
            state.cuts = cuts;
            state.late.clear();
        }
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

    async fn writers(&self, site: &SiteKey) -> Result<Vec<(WriterId, i64)>, StoreError> {
        let Data { bearers, today, .. } = &self.state().data;
        let seen = today.get(site).map_or(0, |day| day.and_time(NaiveTime::MIN).and_utc().timestamp());
        let of_site = bearers.keys().filter(|(of, _)| of == site);
        Ok(of_site.map(|(_, writer)| (writer.clone(), seen)).collect())
    }

    async fn retire(&self, site: &SiteKey, writers: &[WriterId], _: NaiveDate) -> Result<u64, StoreError> {
        let (site, writers) = (site.clone(), writers.to_vec());
        self.call(move |data| writers.iter().map(|writer| data.retire(&site, writer)).sum()).await
    }

    async fn progress(&self, site: &SiteKey, writer: &WriterId) -> Result<Option<Progress>, StoreError> {
        let name = (site.clone(), writer.clone());
        self.call(move |data| data.retired.get(&name).cloned().filter(|of| *of != Progress::default())).await
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

    async fn remove(&self, site: &SiteKey) -> Result<(), StoreError> {
        let site = site.clone();
        self.call(move |data| data.remove(&site)).await
    }

    async fn top(&self, _hash: &HashName, _most: usize) -> Result<Vec<(String, u64)>, StoreError> {
        self.call(|_| Vec::new()).await
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
                let entry = |field: &Arc<str>| hash?.entries.get(&field_beside(field)).cloned();
                let revision = hash.map_or(0, |hash| hash.revision);
                let (sums, entries) = (query.fields.iter().map(sum), query.fields.iter().map(entry));
                Found { marker, sums: sums.collect(), entries: entries.collect(), revision }
            };
            queries.iter().map(answer).collect()
        })
        .await
    }

    async fn next_entry(&self, site: &SiteKey, known: u64) -> Result<Option<u64>, StoreError> {
        let site = site.clone();
        self.call(move |data| {
            let number = data.numbers.entry(site).or_default();
            *number = known.max(*number) + 1;
            Some(*number)
        })
        .await
    }

    async fn prune(
        &self,
        site: &SiteKey,
        held: Option<NaiveDate>,
        days: Range<NaiveDate>,
    ) -> Result<Option<NaiveDate>, StoreError> {
        let (site, claimed) = (site.clone(), self.claims.lock().unwrap().get(site).cloned());
        let pruned = self.call(move |data| {
            let is_ours = claimed
                .is_none_or(|(dataset, _)| data.sites.get(&site).is_some_and(|(held, _)| *held == dataset));
            is_ours.then(|| data.prune(&site, held, days))
        });
        pruned.await?.ok_or(StoreError::Detached)
    }

    async fn fold(&self, fold: Fold) -> Result<u64, StoreError> {
        self.call(move |data| data.fold(&fold)).await
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

fn away() -> StoreError {
    StoreError::unreachable("the model is told not to")
}

fn is_not_copied() -> StoreError {
    StoreError::refused("a model of a store is not copied")
}
