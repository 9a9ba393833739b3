//! G2 and G4 under load: the way to Redis breaks within any byte, Redis loses what it had appended, is out
//! of memory, or is a replica for a while. `FOOTFALL_CUTS` and `FOOTFALL_LOSSES` say how often.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::dice::Dice;
use crate::support::harness::{Beacon, SITE, Setup, number, until, view};
use crate::support::load::{Account, Load};
use crate::support::proxy::Proxy;
use crate::support::servers::{RedisClient, RedisServer, Reply};
use crate::support::service::{Service, files, my_turn};

const VISITORS: u32 = 100;
const PAGES: u32 = 20;
const BUCKETS: [&str; 5] = ["day", "week", "month", "year", "all"];

fn next(client: u32, number: u32) -> (String, u32, Beacon) {
    // Cuts and losses are what is tested, not speed.
    std::thread::sleep(Duration::from_millis(1));
    let page = format!("/tin/{}", number % PAGES);
    let who = (number + client) % VISITORS;
    (page.clone(), who, view(&page).from(&format!("203.0.113.{}", who + 1)))
}

fn service(store: &str) -> Service {
    Service::start(Setup::default().store(store))
}

/// Everything is in the store; what it holds is what the service shows and what was accepted, in every
/// bucket, before and after a restart.
fn check(service: &mut Service, redis: &RedisServer, account: &Account) {
    for again in [false, true] {
        if again {
            service.restart();
        }
        until("everything is in the store", || {
            service.metric("footfall_oldest_unapplied_timestamp_seconds") == 0.0
        });
        let counters = service.counters(SITE);
        let views = counters["views"]["all"].as_u64().unwrap();
        account.check(views);
        let mut client = redis.client();
        let stored = |client: &mut RedisClient, name: &str, field: &str| -> u64 {
            let key = format!("footfall:{{lamdong}}:{name}");
            client.ask(&[b"HGET", key.as_bytes(), field.as_bytes()]).text().parse().unwrap()
        };
        for bucket in BUCKETS {
            let name = match bucket {
                "all" => "all".to_owned(),
                _ => format!("{bucket}:{}", counters["buckets"][bucket].as_str().unwrap()),
            };
            // Over a midnight the running buckets hold less.
            let of = |total: &str| counters[total][bucket].as_u64().unwrap();
            assert_eq!(stored(&mut client, &name, "views"), of("views"), "{name}");
            assert_eq!(stored(&mut client, &name, "visits"), of("visits"), "{name}");
        }
        assert_eq!(counters["visits"]["all"], VISITORS, "each visitor made one visit");
        let pages: u64 =
            (0..PAGES).map(|page| stored(&mut client, "all:pages", &format!("/tin/{page}"))).sum();
        assert_eq!(pages, views, "pages and site agree");
    }
}

#[test]
fn behind_a_way_that_is_cut_within_any_byte_nothing_is_lost_or_doubled() {
    let _turn = my_turn();
    let cuts = number("FOOTFALL_CUTS", 20);
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.port(), Dice::thrown());
    // Often, for a connection is cut by what passes over it.
    let often = Setup::default().store(&proxy.url()).set("store.flush_interval", "100ms");
    let mut service = Service::start(often);
    let load = Load::begin(4, next);
    load.aim(Some(service.public()));
    proxy.set_cuts(true);
    // The connection that stands was made before: cut it, so that each one from here on has its end.
    redis.client().ask(&[b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes"]);
    let deadline = Instant::now() + Duration::from_secs(60 + 4 * cuts);
    while proxy.cuts().0 + proxy.cuts().1 < cuts {
        assert!(Instant::now() < deadline, "only {:?} cuts", proxy.cuts());
        std::thread::sleep(Duration::from_millis(20));
    }
    proxy.set_cuts(false);
    let account = load.end();
    let (asked, answered) = proxy.cuts();
    println!("cut: {asked} within what was asked, {answered} within what was answered");
    assert!(asked > 0 && answered > 0);
    until("nothing is cut any more", || {
        redis.client().ask(&[b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes"]);
        service.metric("footfall_store_up") == 1.0
    });
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
    let mut service = service(&redis.url());
    let load = Load::begin(4, next);
    load.aim(Some(service.public()));
    let stored = |redis: &RedisServer| {
        let views = redis.client().ask(&[b"HGET", b"footfall:{lamdong}:all", b"views"]);
        if let Reply::Bytes(Some(_)) = views { views.text().parse().unwrap() } else { 0u64 }
    };
    until("the data set is born", || stored(&redis) > 0);
    let born = std::fs::metadata(appended(&redis)).unwrap().len();
    let mut lost = 0;
    for _ in 0..losses {
        std::thread::sleep(Duration::from_millis(300 + dice.below(700)));
        let before = stored(&redis);
        redis.kill();
        // As a power cut: the end of what was appended never reached the disk, from some byte on.
        let file = OpenOptions::new().write(true).open(appended(&redis)).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(born + dice.below(length - born)).unwrap();
        redis.restart();
        lost += before.saturating_sub(stored(&redis));
    }
    let account = load.end();
    assert!(lost > 0, "redis lost nothing: nothing is tested");
    until("everything is in the store", || {
        service.metric("footfall_oldest_unapplied_timestamp_seconds") == 0.0
    });
    let healed = service.metric("footfall_store_regressions_total");
    println!("redis, killed {losses} times, lost {lost} views, and {healed} times a hash was healed");
    check(&mut service, &redis, &account);
}

/// While Redis refuses every write beacons are accepted; afterwards it is given what it missed.
fn refuses(begin: &[&[u8]], end: &[&[u8]]) {
    let _turn = my_turn();
    let redis = RedisServer::start();
    let mut service = service(&redis.url());
    let load = Load::begin(2, next);
    load.aim(Some(service.public()));
    until("the data set is born", || service.metric("footfall_last_flush_timestamp_seconds") > 0.0);
    for _ in 0..2 {
        assert_eq!(redis.client().ask(begin), Reply::Status("OK".to_owned()));
        until("the store is known not to take it", || service.metric("footfall_store_up") == 0.0);
        let before = service.metric("footfall_beacons_total{outcome=\"counted\"}");
        until("beacons are accepted all the same", || {
            service.metric("footfall_beacons_total{outcome=\"counted\"}") > before + 600.0
        });
        assert_eq!(redis.client().ask(end), Reply::Status("OK".to_owned()));
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
    // Of a primary that is not there: what it holds stays.
    let port = crate::support::servers::free_port().to_string();
    let (begin, end) = (["REPLICAOF", "127.0.0.1", &port], ["REPLICAOF", "NO", "ONE"]);
    refuses(&begin.map(str::as_bytes), &end.map(str::as_bytes));
}
