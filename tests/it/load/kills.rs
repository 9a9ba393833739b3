//! G1 and G2 under `kill -9`: at any instant, under load, nothing that was answered 204 is lost and
//! nothing is counted twice. `FOOTFALL_KILLS` says how often each test kills.

use std::time::{Duration, Instant};

use crate::support::dice::Dice;
use crate::support::harness::{SITE, Setup, number, view};
use crate::support::load::{Account, Load};
use crate::support::servers::RedisServer;
use crate::support::service::{Service, my_turn};
use crate::support::wait::pause;

const READERS: u32 = 40;

/// Kills the service again and again under load: now and then while it starts, else after so many views.
fn killed_again_and_again(service: &mut Service, load: Load) -> Account {
    let mut dice = Dice::thrown();
    service.begin();
    let load = load.begin(service);
    let mut starts = Vec::new();
    for _ in 0..number("FOOTFALL_KILLS", 20) {
        service.spawn();
        if dice.below(4) == 0 {
            pause(Duration::from_millis(dice.below(60)));
            continue;
        }
        let began = Instant::now();
        load.until_accepted(1);
        starts.push(began.elapsed());
        load.until_accepted(dice.below(400));
    }
    service.begin();
    load.until_accepted(1000);
    starts.sort_unstable();
    if let (Some(median), Some(longest)) = (starts.get(starts.len() / 2), starts.last()) {
        println!("from kill to serving: median {median:?}, longest {longest:?} of {}", starts.len());
    }
    load.end()
}

fn each_view_counts_once(setup: Setup, resends: bool) {
    let _turn = my_turn();
    let mut service = Service::prepare(setup);
    let account = killed_again_and_again(&mut service, Load { readers: READERS, resends, ..Load::default() });
    for again in [false, true] {
        if again {
            service.restart();
        }
        if resends {
            account.send_again(&service);
        }
        account.check(&service);
        assert_eq!(service.counters(SITE)["online"], READERS);
    }
}

#[test]
fn killed_on_the_embedded_store_each_view_counts_once() {
    each_view_counts_once(Setup::default(), false);
}

#[test]
fn killed_on_redis_each_view_counts_once() {
    let redis = RedisServer::start();
    each_view_counts_once(Setup::default().store(&redis.url()), false);
    assert_eq!(redis.sum("all", "visits"), Some(READERS.into()), "each reader made one visit");
}

#[test]
fn killed_while_each_view_is_synced_each_view_counts_once() {
    each_view_counts_once(Setup::default().set("journal.sync", "always"), false);
}

#[test]
fn killed_on_the_embedded_store_what_is_sent_again_counts_once() {
    each_view_counts_once(Setup::default(), true);
}

#[test]
fn killed_on_redis_what_is_sent_again_counts_once() {
    let redis = RedisServer::start();
    each_view_counts_once(Setup::default().store(&redis.url()), true);
    assert_eq!(redis.sum("all", "visits"), Some(READERS.into()), "a person can read it");
}

/// What `memory` promises nothing of is lost at a kill: what is in no batch yet.
fn killed_without_a_journal(setup: Setup) {
    let _turn = my_turn();
    let mut service = Service::start(setup.set("journal.sync", "memory"));
    let (mut kept, mut doubtful) = (Account(Vec::new()), Account(Vec::new()));
    for [stored, pending] in [["/a", "/b"], ["/c", "/d"], ["/e", "/f"]] {
        let calm = Load { pages: stored, readers: READERS, ..Load::default() };
        kept = kept.and(calm.run(&service, 400));
        service.settle();
        let load = Load { pages: pending, readers: READERS, ..Load::default() }.begin(&service);
        load.until_accepted(100);
        service.spawn();
        load.until_accepted(1);
        doubtful = doubtful.and(load.end().doubted());
        service.until_ready();
    }
    for stopped in [false, true] {
        if stopped {
            service.restart();
        }
        let counted = kept.check_pages(&service) + doubtful.check_pages(&service);
        assert_eq!(service.counters(SITE)["views"]["all"], counted, "pages and site agree");
    }
    let last = Load { pages: "/g", readers: READERS, ..Load::default() }.run(&service, 400);
    service.restart();
    last.check_pages(&service);
}

#[test]
fn killed_without_a_journal_the_embedded_store_has_what_was_in_a_batch_once() {
    killed_without_a_journal(Setup::default());
}

#[test]
fn killed_without_a_journal_redis_has_what_was_in_a_batch_once() {
    let redis = RedisServer::start();
    killed_without_a_journal(Setup::default().store(&redis.url()));
}

#[test]
fn another_store_is_one_setting_and_one_word_and_the_numbers_stay() {
    let redis = RedisServer::start();
    let mut service = Service::start(Setup::default().set("store.flush_interval", "200ms"));
    for number in 0..30 {
        service.take(&view(&format!("/bai-{}", number % 3)).by(number % 5));
    }
    for (url, is_new) in [(redis.url(), true), (redis.url(), false), ("embedded".to_owned(), false)] {
        service.set("store.url", &url);
        service.begin();
        if is_new {
            service.ordered(&["store", "refill"]);
        }
        let shown = service.counters(SITE);
        assert_eq!((&shown["views"]["all"], &shown["visits"]["week"]), (&30.into(), &5.into()), "on {url}");
        assert_eq!(service.metric("footfall_store_regressions_total"), 0.0);
        assert_eq!(service.metric("footfall_losses_total{cause=\"store\"}"), 0.0);
        for page in 0..3 {
            assert_eq!(service.page(SITE, &format!("/bai-{page}")), 10, "on {url}");
        }
    }
}
