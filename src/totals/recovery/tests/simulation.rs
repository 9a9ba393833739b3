//! The way from an accepted view to the store over seeded schedules: real journal, real outbox, real writer
//! and real recovery over a store that fails, falls silent, is slow, vanishes and goes back in time as the
//! schedule says, and processes that are killed in the middle of what they do. While a call of the store is under
//! way views come, time passes, and calls that were given up land. One thread, time that stands still unless it is
//! moved: a seed makes the same run again.
//!
//! `FOOTFALL_SEEDS=200000` runs more seeds than usual, from 0; `FOOTFALL_SEED=17` runs one and prints
//! its steps.

use std::sync::atomic::Ordering;

use super::*;
use crate::calendar::{Bucket, PerPeriod};
use crate::totals::store::model::{Back, Data, Ends, Fault, Model};
use dice::Dice;

#[path = "../../../../tests/it/support/dice.rs"]
mod dice;

const USUALLY: u64 = 10_000;

/// How long a start waits for the store.
const PATIENCE: Duration = Duration::from_millis(500);

/// Sundays, a month's end, a year's end, the end of ISO week 53; half an hour before midnight.
const STARTS_MS: [i64; 4] = [START_MS, 1_796_056_200_000, 1_798_734_600_000, 1_798_993_800_000];

/// What a schedule may do.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// Instances on one store.
    instances: usize,
    /// Applied batches are dropped early, and few bytes fill the outbox.
    forgets: bool,
    sync: Sync,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    View {
        who: u8,
        site: u16,
        page: u8,
        id: Option<u8>,
    },
    Pass {
        minutes: u16,
    },
    Freeze,
    Send,
    Turn,
    Checkpoint,
    AskPage {
        site: u16,
        page: u8,
    },
    Trim,
    Befall(Fault),
    Down(bool),
    /// The store refuses the data of a site, or does so no more.
    Spoil {
        site: u16,
        is_spoiled: bool,
    },
    GoBack {
        how: Back,
        cuts: bool,
    },
    Land,
    Vanish,
    Return,
    Kill,
    Stop,
}

/// A view that was answered 204.
struct Accepted {
    by: usize,
    site: u16,
    page: u8,
    who: u8,
    hour: CivilHour,
    visit: bool,
    /// The batch it was frozen into.
    batch: Option<u64>,
}

struct Instance {
    dir: tempfile::TempDir,
    /// What runs, which takes views whatever its writer does.
    totals: Option<Arc<Totals>>,
    /// None while its writer is at work.
    process: Option<Process>,
    clock: Clock,
    hand: Hand,
    began_ms: i64,
    next_batch: u64,
    seen: BTreeMap<(u16, u8), i64>,
    ids: BTreeMap<(u16, u8), i64>,
    /// The largest figure ever shown of a bucket: views and visits.
    shown: BTreeMap<(u16, Bucket), (u64, u64)>,
}

struct World {
    dice: Dice,
    kind: Kind,
    talks: bool,
    model: Model,
    sites: Arc<Registry>,
    metrics: Arc<Metrics>,
    instances: Vec<Instance>,
    accepted: Vec<Accepted>,
    vanished: Option<(Data, usize)>,
    went_back: bool,
}

impl Instance {
    fn writer(&self) -> &Writer<TestStore> {
        &self.process.as_ref().unwrap().writer
    }
}

impl World {
    async fn new(seed: u64, metrics: Arc<Metrics>, talks: bool) -> World {
        let mut dice = Dice(seed);
        let sync = if dice.below(5) == 0 { Sync::Always } else { Sync::EverySecond };
        let instances = 1 + usize::from(dice.below(3) == 0);
        let kind = Kind { instances, forgets: dice.below(5) == 0, sync };
        let start_ms = STARTS_MS[dice.below(4) as usize];
        let sites = Arc::new(Registry::from_pointee(Sites::new((0..SITES).map(site).collect())));
        let (model, accepted) = (Model::default(), Vec::new());
        let (instances, vanished, went_back) = (Vec::new(), None, false);
        let mut world =
            World { dice, kind, talks, model, sites, metrics, instances, accepted, vanished, went_back };
        for index in 0..kind.instances {
            let (clock, hand) = Clock::by_hand(start_ms);
            let (seen, ids, shown) = Default::default();
            let (dir, process, began_ms, next_batch) = (directory(), None, start_ms, 1);
            world.instances.push(Instance {
                dir,
                totals: None,
                process,
                clock,
                hand,
                began_ms,
                next_batch,
                seen,
                ids,
                shown,
            });
            world.start(index).await;
        }
        world.model.forget_past();
        world
    }

    fn settings(&self, index: usize) -> Config {
        let mut config = settings(self.instances[index].dir.path(), 1000, self.kind.sync);
        config.store.url = "redis://model".parse().unwrap();
        let days = if self.kind.forgets { 1 } else { 10_000 };
        config.outbox.retention = Duration::from_secs(days * 24 * 3600);
        if self.kind.forgets {
            config.outbox.max_bytes = 4000;
        }
        config
    }

    /// Starts a process, which may be killed while it starts.
    async fn start(&mut self, index: usize) {
        let config = self.settings(index);
        let now_ms = self.instances[index].clock.now().unix_ms;
        let (clock, hand) = Clock::by_hand(now_ms);
        let process = loop {
            let model = self.model.clone();
            let store = async || TestStore::Model(model.clone());
            let dir = lock(&config.data_dir);
            let (sites, metrics) = (self.sites.clone(), self.metrics.clone());
            let start = Process::start_on(store, PATIENCE, &config, dir, &clock, sites, metrics, 1000);
            // On the heap: unoptimised, each of these takes much of a stack.
            let mut start = Box::pin(start);
            let started = loop {
                tokio::select! {
                    biased;
                    process = &mut start => break Some(process),
                    ends = self.model.befallen() => match ends {
                        Ends::Silent => break None,
                        _ => self.meanwhile(index).await,
                    }
                }
            };
            if let Some(process) = started {
                break process;
            }
        };
        let instance = &mut self.instances[index];
        (instance.clock, instance.hand, instance.began_ms) = (clock, hand, now_ms);
        (instance.totals, instance.process) = (Some(process.totals.clone()), Some(process));
        let figures = std::mem::take(&mut instance.process.as_mut().unwrap().at_start);
        // Before the store was asked.
        for (site, figures) in (0..SITES).zip(figures) {
            self.compare_site(index, site, &figures);
        }
    }

    async fn kill(&mut self, index: usize) {
        let before = self.accepted.len();
        self.end_process(index).await;
        if self.kind.forgets || self.kind.instances > 1 {
            // What is lost goes; what others counted since the last checkpoint is known when the store is
            // asked, and has been healed by them.
            self.instances[index].shown.clear();
        }
        self.start(index).await;
        self.note_batches(index, before);
    }

    async fn end_process(&mut self, index: usize) {
        self.instances[index].totals = None;
        self.instances[index].process.take().unwrap().end().await;
    }

    /// Has a writer do something. While a call of the store is under way others go on; if it falls silent the
    /// process is killed there.
    async fn has(&mut self, index: usize, work: impl AsyncFnOnce(&mut Writer<TestStore>)) {
        let before = self.accepted.len();
        let mut process = self.instances[index].process.take().unwrap();
        let killed = {
            let mut work = Box::pin(work(&mut process.writer));
            loop {
                tokio::select! {
                    biased;
                    () = &mut work => break false,
                    ends = self.model.befallen() => match ends {
                        Ends::Silent => break true,
                        _ => self.meanwhile(index).await,
                    }
                }
            }
        };
        self.instances[index].process = Some(process);
        if killed {
            self.kill(index).await;
        }
        self.note_batches(index, before);
    }

    /// What happens while a call of an instance's writer is under way.
    async fn meanwhile(&mut self, busy: usize) {
        for _ in 0..self.dice.below(4) {
            let other = self.dice.below(self.instances.len() as u64) as usize;
            let act = self.throw();
            let goes = match act {
                Act::View { .. } => self.instances[other].totals.is_some(),
                Act::Pass { minutes } => minutes < 60,
                Act::Turn | Act::AskPage { .. } | Act::Freeze | Act::Checkpoint => other != busy,
                Act::GoBack { .. } | Act::Land | Act::Down(_) => true,
                _ => false,
            };
            if goes {
                self.say(other, act);
                Box::pin(self.act(other, act)).await;
                self.check();
            }
        }
    }

    fn say(&self, index: usize, act: Act) {
        if self.talks {
            println!("instance {index}: {act:?}");
        }
    }

    /// The views accepted before a step are in the batch that it made, if it made one.
    fn note_batches(&mut self, index: usize, before: usize) {
        let instance = &mut self.instances[index];
        let next = instance.writer().delivery.outbox.next_sequence();
        if next > instance.next_batch {
            let frozen = std::mem::replace(&mut instance.next_batch, next);
            let views = self.accepted[..before].iter_mut().filter(|view| view.by == index);
            views.for_each(|view| _ = view.batch.get_or_insert(frozen));
        }
    }

    fn throw(&mut self) -> Act {
        let dice = &mut self.dice;
        let (site, page) = (dice.below(u64::from(SITES)) as u16, dice.below(4) as u8);
        let may_go_back = self.vanished.is_none() && self.model.past() > 0;
        match dice.below(64) {
            0..20 => {
                let id = (dice.below(3) == 0).then(|| dice.below(3) as u8);
                Act::View { who: dice.below(4) as u8, site, page, id }
            }
            20..23 if self.model.late() > 0 => Act::Land,
            20..26 => Act::Pass { minutes: [1, 7, 7, 29, 31, 31, 700, 1500][dice.below(8) as usize] },
            26..30 => Act::Freeze,
            30..33 => Act::Send,
            33..41 => Act::Turn,
            41..43 => Act::Checkpoint,
            43 => Act::AskPage { site, page },
            45 if self.kind.forgets => Act::Trim,
            44 | 45 => Act::Spoil { site, is_spoiled: page > 0 },
            46..52 => Act::Befall(Fault {
                calls: dice.below(6) as u32,
                parts: dice.below(20) as usize,
                ends: [Ends::Failing, Ends::Silent, Ends::Slow, Ends::GivenUp][dice.below(4) as usize],
            }),
            52 => Act::Down(true),
            53..55 => Act::Down(false),
            55..58 if may_go_back => {
                let how = [Back::Whole, Back::Within, Back::Hash][dice.below(3) as usize];
                Act::GoBack { how, cuts: dice.below(2) == 0 }
            }
            58 if may_go_back && !self.kind.forgets => Act::Vanish,
            59..61 if self.vanished.is_some() => Act::Return,
            61..63 => Act::Kill,
            63 => Act::Stop,
            _ => Act::Turn,
        }
    }

    async fn act(&mut self, index: usize, act: Act) {
        match act {
            Act::View { who, site, page, id } => self.view(index, who, site, page, id).await,
            Act::Pass { minutes } => self.pass(Duration::from_secs(u64::from(minutes) * MINUTE)).await,
            Act::Freeze => self.has(index, async |writer| writer.freeze().await).await,
            Act::Send => self.has(index, async |writer| writer.send().await).await,
            Act::Turn => self.has(index, async |writer| writer.turn().await).await,
            Act::Checkpoint => self.has(index, async |writer| writer.checkpoint().await).await,
            Act::AskPage { site, page } => self.ask_page(index, site, page).await,
            Act::Trim => {
                let uptime_ms = self.instances[index].clock.now().uptime_ms;
                self.has(index, async |writer| writer.delivery.outbox.trim(uptime_ms, true).unwrap()).await;
            }
            Act::Befall(fault) => self.model.plan(Some(fault)),
            Act::Down(down) => self.model.set_down(down),
            Act::Spoil { site, is_spoiled } => self.spoil(site, is_spoiled),
            Act::GoBack { how, cuts } => {
                let to = self.dice.below(self.model.past() as u64) as usize;
                self.model.go_back(to, how, cuts, |n| self.dice.below(n as u64) as usize);
                self.went_back = true;
            }
            Act::Land => self.model.land(self.dice.below(self.model.late() as u64) as usize),
            Act::Vanish => self.vanished = Some(self.model.vanish()),
            Act::Return => self.comes_back(),
            Act::Kill => self.kill(index).await,
            Act::Stop => {
                self.has(index, async |writer| {
                    writer.freeze().await;
                    writer.send().await;
                    writer.checkpoint().await;
                })
                .await;
                self.kill(index).await;
            }
        }
    }

    fn spoil(&self, of: u16, is_spoiled: bool) {
        self.model.spoil(&site(of).key, is_spoiled);
    }

    async fn pass(&mut self, by: Duration) {
        // In steps, as the seconds of a process: ids are forgotten by turns.
        tokio::time::advance(by).await;
        for instance in &mut self.instances {
            let mut left = by;
            while !left.is_zero() {
                let step = left.min(Duration::from_secs(5 * MINUTE));
                instance.hand.advance(step);
                instance.totals.iter().for_each(|totals| totals.tick(instance.clock.now()));
                left -= step;
            }
        }
    }

    /// The data set that had vanished is there again; what was written to the one in its place is gone.
    fn comes_back(&mut self) {
        let Some(before) = self.vanished.take() else { return };
        assert!(self.model.data().hashes.is_empty(), "something is written in place of what has vanished");
        self.model.come_back(before);
    }

    async fn view(&mut self, by: usize, who: u8, site: u16, page: u8, id: Option<u8>) {
        let instance = &mut self.instances[by];
        let at = instance.clock.now();
        let counted_ms = id.and_then(|id| instance.ids.get(&(site, id))).copied();
        // Between ten and twenty minutes an id may be known or not: then the view bears none.
        let (id, counts) = match counted_ms {
            Some(then) if at.unix_ms - then < 10 * 60_000 => (id, false),
            Some(then) if at.unix_ms - then.max(instance.began_ms) < 25 * 60_000 => (None, true),
            _ => (id, true),
        };
        let beacon = beacon(who, site, page, id, at);
        let hour = beacon.hour;
        let Ok(written) = instance.totals.as_ref().unwrap().take(beacon) else {
            assert!(self.kind.forgets, "no more of a site can be kept where little may be");
            return;
        };
        written.await.unwrap();
        if counts {
            let seen = instance.seen.insert((site, who), at.unix_ms);
            let visit = seen.is_none_or(|seen| at.unix_ms - seen > 30 * 60_000);
            self.accepted.push(Accepted { by, site, page, who, hour, visit, batch: None });
            if let Some(id) = id {
                instance.ids.insert((site, id), at.unix_ms);
            }
        }
    }

    async fn ask_page(&mut self, index: usize, site: u16, page: u8) {
        let id = SiteId(site);
        let text = Page::trusted(id, &format!("/{page}"));
        let (done, _answered) = oneshot::channel();
        let request = ReadRequest { site: id, wanted: Wanted::Pages(vec![text.clone()]), done };
        self.has(index, async |writer| writer.answer(vec![request]).await).await;
        let instance = &self.instances[index];
        let now = instance.clock.now();
        let Some(figures) = instance.totals.as_ref().unwrap().look(id, now).page(&text) else {
            return;
        };
        let hour = calendar().span(now.unix_ms).hour;
        for period in Period::SHOWN {
            let of = |by| self.sums(by, site, Some(page), period, &hour).0;
            self.compare(
                *figures.get(period).unwrap(),
                of(Some(index)),
                of(None),
                &format!("{period:?} of page {page}"),
            );
        }
    }

    /// Views and visits accepted by an instance, or by all.
    fn sums(
        &self,
        by: Option<usize>,
        site: u16,
        page: Option<u8>,
        period: Period,
        hour: &CivilHour,
    ) -> (u64, u64) {
        let bucket = hour.bucket(period);
        let within = self.accepted.iter().filter(|view| {
            view.site == site
                && by.is_none_or(|by| view.by == by)
                && page.is_none_or(|page| view.page == page)
                && view.hour.bucket(period) == bucket
        });
        within.fold((0, 0), |(views, visits), view| (views + 1, visits + u64::from(view.visit)))
    }

    /// A figure holds what its instance accepted and nothing that nobody did.
    #[track_caller]
    fn compare(&self, shown: u64, own: u64, all: u64, what: &str) {
        assert!(shown <= all, "{what}: {shown} is shown and {all} were accepted");
        let may_lose = self.kind.forgets && self.went_back;
        assert!(shown >= own || may_lose, "{what}: {shown} is shown and {own} were accepted here");
    }

    fn compare_site(&mut self, index: usize, site: u16, figures: &Figures) {
        let hour = calendar().span(self.instances[index].clock.now().unix_ms).hour;
        for period in Period::SHOWN {
            let shown = |of: &PerPeriod<Option<u64>>| of.get(period).copied().flatten();
            let (Some(views), Some(visits)) = (shown(&figures.views), shown(&figures.visits)) else {
                continue;
            };
            let own = self.sums(Some(index), site, None, period, &hour);
            let all = self.sums(None, site, None, period, &hour);
            self.compare(views, own.0, all.0, &format!("{period:?} views of site {site}"));
            self.compare(visits, own.1, all.1, &format!("{period:?} visits of site {site}"));
            let bucket = (site, hour.bucket(period));
            let before = self.instances[index].shown.entry(bucket).or_default();
            assert!(
                views >= before.0 && visits >= before.1,
                "{bucket:?} goes back from {before:?} to {views}, {visits}"
            );
            *before = (views, visits);
        }
    }

    /// What must hold after every step.
    fn check(&mut self) {
        if let Some(part) = self.model.data().doubled {
            panic!("{part:?} is in its hash twice");
        }
        for index in 0..self.instances.len() {
            let instance = &self.instances[index];
            let Some(totals) = &instance.totals else { continue };
            let now = instance.clock.now();
            let figures: Vec<_> = (0..SITES).map(|site| totals.look(SiteId(site), now).figures()).collect();
            for (site, figures) in (0..SITES).zip(figures) {
                self.compare_site(index, site, &figures);
            }
        }
    }

    /// All faults end: everything is brought to the store, which must hold exactly what was accepted.
    async fn end(mut self) {
        self.model.plan(None);
        self.model.set_down(false);
        (0..SITES).for_each(|site| self.spoil(site, false));
        self.comes_back();
        while self.model.late() > 0 && self.dice.below(2) == 0 {
            self.act(0, Act::Land).await;
        }
        for round in 0..4 {
            // A hash that went back is found when the store is attached anew.
            self.pass(Duration::from_secs([0, 61, 0, 0][round])).await;
            while round == 1 && self.model.late() > 0 {
                self.act(0, Act::Land).await;
            }
            for index in 0..self.instances.len() {
                self.pass(Duration::from_secs(20)).await;
                self.act(index, Act::Turn).await;
                self.check();
            }
        }
        for instance in &self.instances {
            let writer = instance.writer();
            assert_eq!(writer.shared.held(), None);
            assert_eq!(writer.delivery.outbox.waiting(), 0, "everything is applied");
            assert!(writer.delivery.outbox.held().is_empty(), "no site is held");
        }
        self.compare_store();
        for index in 0..self.instances.len() {
            self.end_process(index).await;
        }
    }

    fn compare_store(&self) {
        let data = self.model.data();
        let mut held = BTreeMap::new();
        for (hash, content) in &data.hashes {
            let sums = content.sums.iter().filter(|(_, sum)| **sum > 0);
            held.extend(sums.map(|(field, sum)| ((hash.clone(), field.clone()), *sum)));
        }
        let all = expected(self.accepted.iter());
        if !(self.kind.forgets && self.went_back) {
            let wrong = |(field, sum): &(_, &u64)| all.get(*field) != Some(*sum);
            let wrong: Vec<_> = held.iter().filter(wrong).collect();
            let missing: Vec<_> = all.iter().filter(|(field, _)| !held.contains_key(field)).collect();
            assert!(wrong.is_empty() && missing.is_empty(), "wrong: {wrong:?}; missing: {missing:?}");
            assert_eq!(self.sketches(&data), Ok(()));
            return;
        }
        // What was dropped from an outbox may be lost, and then it is recorded; nothing else is.
        let kept = |view: &&Accepted| {
            let writer = self.instances[view.by].writer();
            view.batch.is_none_or(|batch| Some(batch) >= writer.delivery.outbox.first_sequence())
        };
        let kept = expected(self.accepted.iter().filter(kept));
        let mut lost = 0;
        for (field, all) in &all {
            let (held, kept) = (held.get(field).copied().unwrap_or(0), kept.get(field).copied().unwrap_or(0));
            assert!(kept <= held && held <= *all, "{field:?}: {held} of {all}, of which {kept} are kept");
            lost += all - held;
        }
        assert!(held.keys().all(|field| all.contains_key(field)));
        assert!(
            lost == 0 || self.metrics.healing.losses.with_label_values(&["store"]).get() > 0,
            "a loss is said"
        );
    }

    /// Visitors of days: the sketches hold those that were accepted and no other.
    fn sketches(&self, data: &Data) -> Result<(), String> {
        let mut days: BTreeMap<(u16, chrono::NaiveDate), crate::totals::batch::sketch::Sketch> =
            BTreeMap::new();
        for view in &self.accepted {
            let day: u64 = view.hour.day.to_string().replace('-', "").parse().unwrap();
            let id = (day * 100 + u64::from(view.who)) * 10 + u64::from(view.site);
            days.entry((view.site, view.hour.day)).or_default().insert(id);
        }
        for ((site, day), sketch) in days {
            let name = hash(site, Bucket::Day(day), HashKind::Visitors);
            if data.sketch(&name).as_ref() != Some(&sketch) {
                return Err(format!("{name:?}"));
            }
        }
        Ok(())
    }
}

fn hash(site: u16, bucket: Bucket, kind: HashKind) -> HashName {
    HashName { site: SiteKey::new(&format!("s{site}")).unwrap(), bucket, kind }
}

/// What the store should hold of views.
fn expected<'a>(views: impl Iterator<Item = &'a Accepted>) -> BTreeMap<(HashName, Arc<str>), u64> {
    let mut sums = BTreeMap::new();
    let mut add = |hash: HashName, field: &str, sum: u64| {
        if sum > 0 {
            *sums.entry((hash, Arc::from(field))).or_default() += sum;
        }
    };
    for view in views {
        for (_, period) in Period::WORDS {
            let bucket = view.hour.bucket(period);
            let hash = |kind| hash(view.site, bucket, kind);
            add(hash(HashKind::Sums), "views", 1);
            add(hash(HashKind::Sums), "visits", view.visit.into());
            if [Period::Day, Period::Month, Period::All].contains(&period) {
                add(hash(HashKind::Pages), &format!("/{}", view.page), 1);
            }
        }
    }
    sums
}

/// Another test that starts a server holds every lock of this process for a moment, between fork and exec.
fn lock(dir: &Path) -> DataDir {
    for _ in 0..10_000 {
        match DataDir::open(dir) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return opened.unwrap(),
        }
    }
    panic!("the last process still holds {}", dir.display())
}

/// In memory where the machine has such a place: a schedule syncs some dozen times.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Says which seed it was if a schedule fails, and ends the others.
struct Seed<'a>(u64, &'a AtomicBool);

impl Drop for Seed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.1.store(true, Ordering::Relaxed);
            println!("to run it again: FOOTFALL_SEED={} cargo test --lib simulation", self.0);
        }
    }
}

fn simulate(seed: u64, metrics: &Arc<Metrics>, talks: bool, failed: &AtomicBool) {
    let _seed = Seed(seed, failed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        metrics.healing.losses.with_label_values(&["store"]).reset();
        let mut world = World::new(seed, metrics.clone(), talks).await;
        if talks {
            println!("{:?}", world.kind);
        }
        for _ in 0..10 + world.dice.below(16) {
            let act = world.throw();
            let index = world.dice.below(world.instances.len() as u64) as usize;
            world.say(index, act);
            world.act(index, act).await;
            world.check();
        }
        world.end().await;
    });
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn over_ten_thousand_schedules_nothing_is_lost_or_doubled_and_no_figure_goes_back() {
    let metrics = || Arc::new(Metrics::new(&Sites::new((0..SITES).map(site).collect()), 1000).unwrap());
    let failed = &AtomicBool::new(false);
    if let Some(seed) = number("FOOTFALL_SEED") {
        return simulate(seed, &metrics(), true, failed);
    }
    let seeds = number("FOOTFALL_SEEDS").unwrap_or(USUALLY);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        for first in 0..threads {
            let metrics = metrics();
            scope.spawn(move || {
                let goes_on = |_: &u64| !failed.load(Ordering::Relaxed);
                let mine = (first..seeds).step_by(threads as usize);
                mine.take_while(goes_on).for_each(|seed| simulate(seed, &metrics, false, failed));
            });
        }
    });
    println!("{seeds} schedules");
}
