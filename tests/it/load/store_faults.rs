//! G2 and G4 under load: the way to Redis breaks within any byte, Redis loses what it had appended, is out
//! of memory, or is a replica for a while. `FOOTFALL_CUTS` and `FOOTFALL_LOSSES` say how often.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::dice::Dice;
use crate::support::harness::{SITE, Setup, number};
use crate::support::load::{Account, Load, Running};
use crate::support::proxy::Proxy;
use crate::support::servers::{NOBODY, RedisServer, Reply};
use crate::support::service::{Service, files, my_turn};
use crate::support::wait::{pause, until};

const BUCKETS: [&str; 5] = ["day", "week", "month", "year", "all"];

fn begin(store: &str, load: Load) -> (Service, Running) {
    let service = Service::start(Setup::default().store(store));
    let load = load.begin(&service);
    (service, load)
}

/// Everything is in the store; what it holds is what the service shows and what was accepted, in every
/// bucket, before and after a restart.
fn check(service: &mut Service, redis: &RedisServer, account: &Account) {
    for again in [false, true] {
        if again {
            service.restart();
        }
        service.until_applied();
        account.check(service);
        let counters = service.counters(SITE);
        for bucket in BUCKETS {
            let name = match bucket {
                "all" => "all".to_owned(),
                _ => format!("{bucket}:{}", counters["buckets"][bucket].as_str().unwrap()),
            };
            // Over a midnight the running buckets hold less.
            for total in ["views", "visits"] {
                assert_eq!(redis.sum(&name, total), counters[total][bucket].as_u64(), "{total} of {name}");
            }
        }
        let Reply::Array(pages) = redis.client().ask(&[b"HGETALL", RedisServer::key("all:pages").as_bytes()])
        else {
            panic!("a hash")
        };
        let pages: Vec<String> = pages.into_iter().map(Reply::text).collect();
        let views = pages.chunks(2).filter(|pair| !pair[0].starts_with('#'));
        let views: u64 = views.map(|pair| pair[1].parse::<u64>().unwrap()).sum();
        assert_eq!(views, redis.views(), "pages and site agree");
    }
}

#[test]
fn behind_a_way_that_is_cut_within_any_byte_nothing_is_lost_or_doubled() {
    let _turn = my_turn();
    let cuts = number("FOOTFALL_CUTS", 20);
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.port(), Dice::thrown());
    let (mut service, load) =
        begin(&proxy.url(), Load { rest: Duration::from_millis(10), ..Load::default() });
    for cut in 1..=cuts {
        proxy.set_cuts(true);
        // A connection that was made before has no end: each one from here on has.
        redis.client().ask(&[b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes"]);
        until("a connection is cut", || proxy.cuts().0 + proxy.cuts().1 >= cut);
        proxy.set_cuts(false);
        until("it goes on", || service.metric("footfall_store_up") == 1.0);
    }
    load.until_accepted(1000);
    let account = load.end();
    let (asked, answered) = proxy.cuts();
    println!("cut: {asked} within what was asked, {answered} within what was answered");
    assert!(asked > 0 && answered > 0);
    check(&mut service, &redis, &account);
}

/// The file that is appended to.
fn appended(redis: &RedisServer) -> PathBuf {
    let found = files(&redis.dir().join("appendonlydir"));
    found.into_iter().find(|path| path.to_string_lossy().ends_with(".incr.aof")).expect("an append file")
}

#[test]
fn redis_killed_with_appended_data_really_lost_is_given_it_again() {
    let _turn = my_turn();
    let losses = number("FOOTFALL_LOSSES", 5);
    let mut dice = Dice::thrown();
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "no"]);
    let (mut service, load) = begin(&redis.url(), Load::default());
    until("the data set is born", || redis.views() > 0);
    let born = std::fs::metadata(appended(&redis)).unwrap().len();
    let mut lost = 0;
    for _ in 0..losses {
        let (before, more) = (redis.views(), 100 + dice.below(500));
        until("further views are stored", || redis.views() > before + more);
        let before = redis.views();
        redis.kill();
        // As a power cut: the end of what was appended never reached the disk, from some byte on.
        let file = OpenOptions::new().write(true).open(appended(&redis)).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(born + dice.below(length - born)).unwrap();
        redis.restart();
        lost += before.saturating_sub(redis.views());
    }
    load.until_accepted(1000);
    let account = load.end();
    assert!(lost > 0, "redis lost nothing: nothing is tested");
    service.until_applied();
    let healed = service.metric("footfall_store_regressions_total");
    println!("redis, killed {losses} times, lost {lost} views, and {healed} times a hash was healed");
    check(&mut service, &redis, &account);
}

#[test]
fn redis_that_comes_and_goes_loses_and_doubles_nothing() {
    let _turn = my_turn();
    let mut dice = Dice::thrown();
    let mut redis = RedisServer::lasting();
    let (mut service, load) = begin(&redis.url(), Load { resends: true, ..Load::default() });
    for _ in 0..8 {
        load.until_accepted(dice.below(400));
        redis.kill();
        pause(Duration::from_millis(dice.below(300)));
        redis.restart();
    }
    load.until_accepted(1000);
    let account = load.end();
    check(&mut service, &redis, &account);
}

/// While Redis refuses every write beacons are accepted; afterwards it is given what it missed.
fn refuses(begin_with: &[&[u8]], end_with: &[&[u8]]) {
    let _turn = my_turn();
    let redis = RedisServer::start();
    let (mut service, load) = begin(&redis.url(), Load { clients: 2, ..Load::default() });
    until("the data set is born", || redis.views() > 0);
    for _ in 0..2 {
        assert_eq!(redis.client().ask(begin_with), Reply::Status("OK".to_owned()));
        until("the store is known not to take it", || service.metric("footfall_store_up") == 0.0);
        load.until_accepted(600);
        assert_eq!(redis.client().ask(end_with), Reply::Status("OK".to_owned()));
        until("the store takes it again", || service.metric("footfall_store_up") == 1.0);
    }
    let account = load.end();
    check(&mut service, &redis, &account);
}

#[test]
fn redis_that_is_out_of_memory_is_given_later_what_it_refused() {
    refuses(&[b"CONFIG", b"SET", b"maxmemory", b"1"], &[b"CONFIG", b"SET", b"maxmemory", b"0"]);
}

#[test]
fn redis_that_is_a_replica_for_a_while_is_given_later_what_it_refused() {
    // Of nobody: a primary, even one of another test, would have it take over what it holds.
    let (host, port) = NOBODY.split_once(':').unwrap();
    let (begin, end) = (["REPLICAOF", host, port], ["REPLICAOF", "NO", "ONE"]);
    refuses(&begin.map(str::as_bytes), &end.map(str::as_bytes));
}
