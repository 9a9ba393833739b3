//! A schedule: instances on one store, what befalls them, and what must hold after every step and at the end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use chrono::Weekday;

use super::oracle::{Cut, MINUTE_MS, Oracle, SHOWN, Sums, View};
use super::*;
use crate::totals::store::model::{Data, Fault, Model};

mod acts;
mod checks;
mod views;

/// How long a start waits for the store.
const PATIENCE: Duration = Duration::from_millis(500);

/// Half an hour before midnight in Saigon, of Sundays, a month's end, a year's end, the end of ISO week 53; in Berlin
/// before clocks are set back, before they are set forward, and before a midnight.
const STARTS_MS: [i64; 7] = [
    START_MS,
    1_796_056_200_000,
    1_798_734_600_000,
    1_798_993_800_000,
    1_792_886_400_000,
    1_806_193_800_000,
    1_798_756_200_000,
];

/// Sites, the last of which is removed and added again.
const SITES: usize = 3;
const PAGES: u64 = 4;

/// What makes a schedule hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chaos {
    Failing,
    Silent,
    Slow,
    GivenUp,
    Down,
    Whole,
    Within,
    Hash,
    Vanish,
    Kill,
    Stop,
    PowerCut,
    Disk,
    Reload,
    Recut,
    Trim,
}

impl Chaos {
    pub const ALL: [Chaos; 16] = {
        use Chaos::*;
        [
            Failing, Silent, Slow, GivenUp, Down, Whole, Within, Hash, Vanish, Kill, Stop, PowerCut, Disk,
            Reload, Recut, Trim,
        ]
    };

    /// Whether it is only planned, and comes later or never.
    pub fn is_planned(self) -> bool {
        use Chaos::*;
        matches!(self, Failing | Silent | Slow | GivenUp | Disk | PowerCut)
    }
}

/// What a schedule may do.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Instances on one store.
    pub instances: usize,
    pub sync: Sync,
    /// Applied batches are dropped early, and few bytes fill the outbox.
    pub forgets: bool,
    /// Few sessions, ids, pages and bytes of the journal fill what holds them.
    pub tight: bool,
    /// Zones and first days of weeks change.
    pub recuts: bool,
    /// Pages are kept for a week, and weeks pass.
    pub prunes: bool,
    /// How often each kind of chaos comes, beside [`ORDINARY`].
    pub rates: [u64; Chaos::ALL.len()],
}

/// How often ordinary steps come.
const ORDINARY: u64 = 41;

#[derive(Clone, Debug)]
pub enum Act {
    Views(Vec<Wanted>),
    Pass { minutes: u64 },
    Freeze,
    Send,
    Turn,
    Checkpoint,
    AskPage { site: usize, page: u8 },
    Enter { site: usize },
    Land,
    Chaos(Chaos),
}

#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub who: u8,
    pub site: usize,
    pub page: u8,
    pub id: Option<u8>,
}

struct Instance {
    dir: tempfile::TempDir,
    disk: Faults,
    /// What runs, which takes views whatever its writer does.
    totals: Option<Arc<Totals>>,
    /// What writes its groups.
    committing: Option<tokio::task::AbortHandle>,
    /// None while its writer is at work.
    process: Option<Process>,
    /// It could not go on.
    dead: bool,
    clock: Clock,
    hand: Hand,
    began_ms: i64,
    next_batch: u64,
    /// Whether the last site is registered.
    has_last: bool,
    /// When views of a visitor were refused: its session may have gone on.
    refused_ms: BTreeMap<(usize, u8), i64>,
    shown: BTreeMap<String, Before>,
}

/// What was shown of a bucket last.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    views: u64,
    visits: u64,
    /// How many losses there were when it went back.
    lost: u64,
}

impl Instance {
    fn writer(&self) -> &Writer<TestStore> {
        &self.process.as_ref().unwrap().writer
    }

    fn sites(&self) -> std::ops::Range<usize> {
        0..SITES - usize::from(!self.has_last)
    }

    /// The files of the journal, and what is in them.
    fn journal(&self) -> BTreeMap<String, Vec<u8>> {
        let names = fs::read_dir(self.dir.path().join("journal")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let read =
            |name: String| (name.clone(), fs::read(self.dir.path().join("journal").join(name)).unwrap());
        names.filter(|name| name.ends_with(".seg")).map(read).collect()
    }

    /// Resolves when what writes groups, or what syncs the journal, has ended.
    async fn ended(&self) {
        let journal = self.totals.as_ref().unwrap().shared.intake.journal.clone().unwrap();
        let mut synced = pin!(journal.sync_ended());
        loop {
            tokio::select! {
                biased;
                () = &mut synced => return,
                () = tokio::task::yield_now() => {}
            }
            if self.committing.as_ref().unwrap().is_finished() {
                return;
            }
        }
    }
}

/// What is left of work: none where the process could not go on.
async fn alive<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let poll = |context: &mut std::task::Context<'_>| match catch_unwind(AssertUnwindSafe(|| {
        work.as_mut().poll(context)
    })) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    };
    std::future::poll_fn(poll).await
}

pub struct World {
    pub dice: Dice,
    kind: Kind,
    talks: bool,
    model: Model,
    metrics: Arc<Metrics>,
    instances: Vec<Instance>,
    oracle: Oracle,
    cuts: [Cut; SITES],
    vanished: Option<(Data, usize)>,
    went_back: bool,
    last_id: u8,
    /// When weeks were last to be cut otherwise; and of each week that was made the sum of its days, for how often it
    /// was, when that was.
    recut_ms: i64,
    recuts: BTreeMap<(String, u64), i64>,
    came: Came,
}

impl World {
    /// A world of whichever kind the seed draws, or of this one.
    pub async fn new(seed: u64, metrics: Arc<Metrics>, talks: bool, of: Option<Kind>) -> World {
        let mut dice = Dice(seed);
        let mut one_in = |n| dice.below(n) == 0;
        let sync = if one_in(5) { Sync::Always } else { Sync::EverySecond };
        let (several, forgets, tight, recuts) = (one_in(3), one_in(5), one_in(6), one_in(5));
        let (tight, recuts) = (tight && !forgets, recuts && !several && !forgets && !tight);
        let rates = std::array::from_fn(|_| [0, 1, 1, 3][dice.below(4) as usize]);
        let prunes = dice.below(4) == 0;
        let drawn = Kind { instances: 1 + usize::from(several), sync, forgets, tight, recuts, prunes, rates };
        let kind = of.unwrap_or(drawn);
        if talks {
            println!("{kind:?}");
        }
        let start_ms = STARTS_MS[dice.below(STARTS_MS.len() as u64) as usize];
        let cut = |berlin, first| Cut { berlin, first };
        let cuts = [cut(false, Weekday::Mon), cut(true, Weekday::Mon), cut(false, Weekday::Sun)];
        let mut world = World {
            dice,
            kind,
            talks,
            model: Model::default(),
            metrics,
            instances: Vec::new(),
            oracle: Oracle { recuts: kind.recuts, ..Oracle::default() },
            cuts,
            vanished: None,
            went_back: false,
            last_id: 0,
            recut_ms: 0,
            recuts: BTreeMap::new(),
            came: Came::new(),
        };
        for index in 0..kind.instances {
            let (clock, hand) = Clock::by_hand(start_ms);
            world.instances.push(Instance {
                dir: directory(),
                disk: Faults::default(),
                totals: None,
                committing: None,
                process: None,
                dead: false,
                clock,
                hand,
                began_ms: start_ms,
                next_batch: 1,
                has_last: true,
                refused_ms: BTreeMap::new(),
                shown: BTreeMap::new(),
            });
            world.start(index).await;
        }
        world.model.forget_past();
        world
    }

    fn below(&mut self, end: usize) -> usize {
        self.dice.below(end as u64) as usize
    }

    fn came(&mut self, what: &str) {
        if self.talks {
            println!("  {what}");
        }
        *self.came.entry(what.to_owned()).or_default() += 1;
    }

    fn settings(&self, index: usize) -> Config {
        let max_pages = if self.kind.tight { 2 } else { 1000 };
        let mut config = settings(self.instances[index].dir.path(), max_pages, self.kind.sync);
        config.store.url = "redis://model".parse().unwrap();
        config.page_days = if self.kind.prunes { 7 } else { 62 };
        let days = if self.kind.forgets { 1 } else { 10_000 };
        config.outbox.retention = Duration::from_secs(days * 24 * 3600);
        if self.kind.forgets {
            config.outbox.max_bytes = 4000;
        }
        if self.kind.tight {
            (config.max_ids, config.journal.max_bytes) = (2, 600);
        }
        config
    }

    fn calendar(&self, site: usize) -> Calendar {
        let cut = self.cuts[site];
        Calendar { zone: Zone::named(cut.zone()).unwrap(), week_start: cut.first }
    }

    fn sites(&self, index: usize) -> Sites {
        let cut = |id: usize| Site { calendar: self.calendar(id), ..site(id as u16) };
        Sites::new(self.instances[index].sites().map(cut).collect())
    }

    /// Starts a process, which may be killed while it starts, or fail to start.
    async fn start(&mut self, index: usize) {
        let now_ms = self.instances[index].clock.now().unix_ms;
        let (clock, hand) = Clock::by_hand(now_ms);
        let instance = &mut self.instances[index];
        (instance.clock, instance.hand) = (clock.clone(), hand);
        let (now_ms, process) = loop {
            let now_ms = clock.now().unix_ms;
            let (config, disk) = (self.settings(index), self.instances[index].disk.clone());
            let (failed, model) = (disk.failed().len(), self.model.clone());
            let store = async || TestStore::Model(model.clone());
            let dir = lock(&config.data_dir, &disk);
            let sites = Arc::new(Registry::from_pointee(self.sites(index)));
            let sessions = if self.kind.tight { 3 } else { 1000 };
            let metrics = self.metrics.clone();
            let start = Process::start_on(store, PATIENCE, &config, dir, &clock, sites, metrics, sessions);
            // On the heap: unoptimised, each of these takes much of a stack.
            let mut start = Box::pin(alive(start));
            let started = loop {
                tokio::select! {
                    biased;
                    started = &mut start => break started,
                    ends = self.model.befallen() => match ends {
                        Ends::Silent => break None,
                        _ => self.meanwhile().await,
                    }
                }
            };
            match started {
                Some(Ok(process)) => break (now_ms, process),
                Some(Err(error)) => {
                    assert!(disk.is_off() || disk.failed().len() > failed, "it does not start: {error}");
                    self.came("StartFailed");
                }
                None => {}
            }
            if disk.is_off() {
                self.lose_power(index).await;
            }
        };
        let instance = &mut self.instances[index];
        instance.committing = Some(process.committing.abort_handle());
        instance.began_ms = clock.now().unix_ms;
        // As the first second of a process: much time may have passed while it started.
        process.totals.tick(clock.now());
        (instance.totals, instance.process) = (Some(process.totals.clone()), Some(process));
        let figures = std::mem::take(&mut instance.process.as_mut().unwrap().at_start);
        let now = Moment { unix_ms: now_ms, ..instance.clock.now() };
        // Before the store was asked.
        for (site, figures) in figures.iter().enumerate() {
            self.compare_site(index, site, figures, now);
        }
    }

    async fn kill(&mut self, index: usize) {
        self.end_process(index).await;
        if self.kind.forgets || self.kind.instances > 1 {
            // What is lost goes; what others counted since the last checkpoint is known when the store is
            // asked, and has been healed by them.
            self.instances[index].shown.clear();
        }
        self.start_again(index).await;
    }

    async fn start_again(&mut self, index: usize) {
        let before = self.oracle.views.len();
        self.start(index).await;
        self.note_batches(index, before);
    }

    async fn end_process(&mut self, index: usize) {
        let instance = &mut self.instances[index];
        (instance.totals, instance.committing, instance.dead) = (None, None, false);
        instance.process.take().unwrap().end().await;
    }

    async fn cut_power(&mut self, index: usize) {
        self.end_process(index).await;
        self.lose_power(index).await;
        self.start_again(index).await;
    }

    /// What was not synced may be gone.
    async fn lose_power(&mut self, index: usize) {
        self.came("PowerCut");
        let (fresh, dice) = (directory(), &mut self.dice);
        let instance = &mut self.instances[index];
        let old = std::mem::replace(&mut instance.dir, fresh);
        let fresh = instance.dir.path();
        let pick = |n: usize| dice.below(n as u64) as usize;
        let failed = instance.disk.failed();
        std::mem::take(&mut instance.disk).cut_power(old.path(), fresh, pick);
        let survives = |view: &View| {
            let (name, from, bytes) = &view.written;
            let kept = fs::read(fresh.join("journal").join(name)).unwrap_or_default();
            // What is in a batch needs the journal no more.
            view.batch.is_some() || kept.get(*from..from + bytes.len()) == Some(bytes)
        };
        let gone = |view: &View| view.by == index && !survives(view);
        let lost: Vec<View> = self.oracle.views.extract_if(.., |view| gone(view)).collect();
        let told = |view: &View| view.synced;
        assert!(!lost.iter().any(told), "views that were synced are lost with the power: {lost:?}");
        if !lost.is_empty() {
            self.came("LostViews");
        }
        self.instances[index].shown.clear();
        if failed.contains(&Operation::Sync) {
            // Linux takes what it failed to write for written, so that the next process cannot know that a group which
            // it reads is not on the disk. Its views stand in a batch at once; its visits and ids are remembered
            // through a power cut from the first checkpoint on only. Nobody goes on with them.
            self.pass(31 * MINUTE).await;
        }
    }

    /// Processes that could not go on, or lost their power then, are started again.
    async fn bury(&mut self) {
        for index in 0..self.instances.len() {
            let instance = &self.instances[index];
            if instance.dead && instance.process.is_some() {
                match instance.disk.is_off() || !(self.kind.forgets || self.dice.below(2) == 0) {
                    true => self.cut_power(index).await,
                    false => self.kill(index).await,
                }
            }
        }
    }

    /// Has a writer do something. While a call of the store is under way others go on; if it falls silent the
    /// process is killed there.
    async fn has(&mut self, index: usize, work: impl AsyncFnOnce(&mut Writer<TestStore>)) {
        let before = self.oracle.views.len();
        let instance = &mut self.instances[index];
        let (mut process, disk) = (instance.process.take().unwrap(), instance.disk.clone());
        let (failed, journal) = (disk.failed().len(), process.totals.shared.intake.journal.clone().unwrap());
        let lives = {
            let mut work = Box::pin(alive(work(&mut process.writer)));
            loop {
                tokio::select! {
                    biased;
                    done = &mut work => break done,
                    () = journal.sync_ended() => break None,
                    ends = self.model.befallen() => match ends {
                        Ends::Silent => self.instances[index].dead = true,
                        _ => self.meanwhile().await,
                    }
                }
                if self.instances[index].dead {
                    break Some(());
                }
            }
        };
        drop(journal);
        self.instances[index].process = Some(process);
        if lives.is_none() || disk.is_off() {
            assert!(disk.is_off() || disk.failed().len() > failed, "it ends though nothing failed");
            self.instances[index].dead = true;
            self.came("Died");
        }
        self.note_batches(index, before);
        self.sync(index).await;
    }

    /// What happens while a call of the store is under way.
    async fn meanwhile(&mut self) {
        for _ in 0..self.dice.below(4) {
            let index = self.below(self.instances.len());
            let (act, instance) = (self.throw(), &self.instances[index]);
            let goes = match &act {
                Act::Views(_) => instance.totals.is_some() && !instance.dead,
                Act::Pass { minutes } => *minutes < 60,
                Act::Turn
                | Act::AskPage { .. }
                | Act::Enter { .. }
                | Act::Freeze
                | Act::Checkpoint
                | Act::Chaos(Chaos::Kill) => instance.process.is_some() && !instance.dead,
                Act::Chaos(chaos) => {
                    use Chaos::*;
                    matches!(chaos, Down | Whole | Within | Hash | Disk)
                }
                Act::Land => true,
                Act::Send => false,
            };
            if goes {
                Box::pin(self.take_step(index, act)).await;
            }
        }
    }

    /// The views accepted before a step are in the batch that it made, if it made one.
    fn note_batches(&mut self, index: usize, before: usize) {
        let instance = &mut self.instances[index];
        let next = instance.writer().delivery.outbox.next_sequence();
        if next > instance.next_batch {
            let frozen = std::mem::replace(&mut instance.next_batch, next);
            let views = self.oracle.views.iter_mut().take(before).filter(|view| view.by == index);
            views.for_each(|view| _ = view.batch.get_or_insert(frozen));
        }
    }
}

/// The hash that values are entered into.
fn entered_into(site: usize) -> HashName {
    HashName::parse(&SiteKey::new(&format!("s{site}")).unwrap(), "year:1999").unwrap()
}

fn text(site: SiteId, page: u8) -> Page {
    Page::trusted(site, &format!("/{page}"))
}

/// In memory where the machine has such a place: a schedule syncs some dozen times.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
