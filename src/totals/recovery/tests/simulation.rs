//! The way from an accepted view to the store over seeded schedules: real journal, real outbox, real writer
//! and real recovery, over a store that fails, falls silent, is slow, vanishes and goes back in time, and over a
//! disk that fails and whose power is cut, as the schedule says; and processes that are killed in the middle of
//! what they do. While a call of the store is under way views come, time passes, and calls that were given up land.
//! One thread, time that stands still unless it is moved: a seed makes the same run again.
//!
//! How often each kind of fault comes is drawn for each seed: in some it never does, in some often. Half of the seeds
//! of a run are the same in every run, half are new. A kind of fault that came in no seed of a run fails it.
//!
//! `FOOTFALL_SEEDS=200000` runs more seeds than usual; `FOOTFALL_SEED=17` runs one and prints its steps;
//! `FOOTFALL_TEST_SEED`, which is printed, makes the new ones the same again.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use super::*;
use crate::totals::disk::faults::Operation;
use crate::totals::store::model::{Back, Ends};
use dice::Dice;
use world::{Act, Chaos, Kind, Wanted, World};

#[path = "../../../../tests/it/support/dice.rs"]
mod dice;
mod oracle;
mod world;

const USUALLY: u64 = 5000;

/// From so many seeds on every kind of fault must have come.
const ENOUGH: u64 = 2000;

/// How often each kind of fault came, by its name.
type Came = BTreeMap<String, u64>;

/// What must come in every run.
fn kinds() -> impl Iterator<Item = String> {
    let files = [
        Operation::Create,
        Operation::Write,
        Operation::Cut,
        Operation::Sync,
        Operation::SyncNames,
        Operation::Rename,
        Operation::Remove,
        Operation::Read,
    ];
    let store = [Ends::Failing, Ends::Silent, Ends::Slow, Ends::GivenUp].map(|ends| format!("{ends:?}"));
    let back = [Back::Whole, Back::Within, Back::Hash].map(|back| format!("{back:?}"));
    let chaos = Chaos::ALL.into_iter().filter(|chaos| !chaos.is_planned()).map(|chaos| format!("{chaos:?}"));
    let told = [
        "Landed",
        "Refused",
        "Unanswered",
        "LostViews",
        "Repeated",
        "Died",
        "StartFailed",
        "Vanished",
        "PowerCut",
        "Entered",
        "Pruned",
    ];
    let files = files.map(|operation| format!("{operation:?}"));
    files.into_iter().chain(store).chain(back).chain(chaos).chain(told.map(str::to_owned))
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

fn simulate(seed: u64, metrics: &Arc<Metrics>, talks: bool, failed: &AtomicBool) -> Came {
    let _seed = Seed(seed, failed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        for cause in crate::metrics::LOSS_CAUSES {
            metrics.healing.losses.with_label_values(&[cause]).reset();
        }
        let mut world = World::new(seed, metrics.clone(), talks, None).await;
        for _ in 0..10 + world.dice.below(16) {
            world.step().await;
        }
        world.end().await
    })
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(&Sites::new((0..3).map(site).collect()), 1000).unwrap())
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn over_thousands_of_schedules_nothing_is_lost_or_doubled_and_no_figure_goes_back() {
    let failed = &AtomicBool::new(false);
    if let Some(seed) = number("FOOTFALL_SEED") {
        simulate(seed, &metrics(), true, failed);
        return;
    }
    let seeds = number("FOOTFALL_SEEDS").unwrap_or(USUALLY);
    let new = Dice::thrown().below(u64::MAX / 2);
    println!("seeds 0 to {}, and {} from {new} on", seeds.div_ceil(2), seeds / 2);
    let seed = move |index: u64| if index.is_multiple_of(2) { index / 2 } else { new + index / 2 };
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let came = &Mutex::new(Came::new());
    std::thread::scope(|scope| {
        for first in 0..threads {
            let metrics = metrics();
            scope.spawn(move || {
                let goes_on = |_: &u64| !failed.load(Ordering::Relaxed);
                for index in (first..seeds).step_by(threads as usize).take_while(goes_on) {
                    let here = simulate(seed(index), &metrics, false, failed);
                    let mut came = came.lock().unwrap();
                    here.into_iter().for_each(|(kind, times)| *came.entry(kind).or_default() += times);
                }
            });
        }
    });
    let came = came.lock().unwrap();
    println!("{seeds} schedules: {came:?}");
    let never: Vec<String> = kinds().filter(|kind| !came.contains_key(kind)).collect();
    assert!(seeds < ENOUGH || never.is_empty(), "what never came: {never:?}");
}

/// A week that was cut anew is the sum of its days, and in a store that went back it is cut anew again.
#[tokio::test(start_paused = true)]
async fn a_store_that_went_back_is_told_of_the_calendar_again() {
    let (sync, rates) = (Sync::EverySecond, [0; Chaos::ALL.len()]);
    let kind = Kind { instances: 1, sync, forgets: false, tight: false, recuts: true, prunes: false, rates };
    let view = Wanted { who: 1, site: 0, page: 1, id: None };
    for seed in 0..8 {
        let mut world = World::new(seed, metrics(), false, Some(kind)).await;
        let went_back = [Act::Chaos(Chaos::Recut), Act::Turn, Act::Chaos(Chaos::Whole)];
        for act in [Act::Views(vec![view]), Act::Turn].into_iter().chain(went_back) {
            world.take_step(0, act).await;
        }
        world.end().await;
    }
}

/// A site moved west into a day that is over where it was: what it had counted on the next day is no 0 after a kill.
#[tokio::test(start_paused = true)]
async fn a_day_that_a_site_had_counted_before_it_moved_west_does_not_begin_at_0() {
    let (sync, rates) = (Sync::EverySecond, [0; Chaos::ALL.len()]);
    let kind = Kind { instances: 1, sync, forgets: false, tight: false, recuts: true, prunes: false, rates };
    let view = |who| Act::Views(vec![Wanted { who, site: 1, page: 1, id: None }]);
    let recut = || Act::Chaos(Chaos::Recut);
    // Which site moves, and when that is, is drawn for each.
    for seed in 0..64 {
        let mut world = World::new(seed, metrics(), false, Some(kind)).await;
        let before =
            [recut(), view(0), recut(), view(1), Act::Turn, Act::Pass { minutes: 700 }, Act::Checkpoint];
        for act in before.into_iter().chain([view(2), Act::Freeze, Act::Chaos(Chaos::Kill)]) {
            world.take_step(0, act).await;
        }
        world.end().await;
    }
}
