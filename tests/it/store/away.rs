//! G3 and G4: the store is down, late, or not what it was.

use std::time::{Duration, Instant};

use crate::support::dice::Dice;
use crate::support::harness::{Beacon, SITE, Setup, TestApp, counters_with, until, view};
use crate::support::http;
use crate::support::load::Load;
use crate::support::servers::{RedisServer, Reply};
use crate::support::service::{Service, my_turn};

const LASTING: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

fn send(app: &TestApp, number: usize) {
    for reader in 0..number {
        app.take(&view("/a").from(&format!("203.0.113.{}", reader + 1)));
    }
}

/// Redis holds so many views. (The metrics say what the writer's last turn found.)
fn until_stored(redis: &RedisServer, views: usize) {
    let (mut client, views) = (redis.client(), Reply::Bytes(Some(views.to_string().into_bytes())));
    until("everything is in the store", || {
        client.ask(&[b"HGET", b"footfall:{lamdong}:all", b"views"]) == views
    });
}

fn readiness(app: &TestApp) -> (u16, String) {
    let answer = http::get(app.admin(), "/readyz?verbose");
    (answer.status, answer.text().to_owned())
}

#[test]
fn with_redis_down_it_starts_accepts_and_catches_up() {
    let mut redis = RedisServer::start_with(&LASTING);
    redis.kill();
    let app = TestApp::start(Setup::default().store(&redis.url()));
    send(&app, 5);
    let unknown = app.get("/api/v1/sites/lamdong/counters");
    assert_eq!(unknown.outcome(), (503, "store-unreachable".into()), "never a false 0");
    assert!(unknown.header("retry-after").is_some());
    assert_eq!(unknown.header("cache-control"), Some("no-store"));
    let (status, text) = readiness(&app);
    assert_eq!(status, 200, "views can be taken and kept");
    assert!(text.contains("[-]store unreachable"), "{text}");
    assert_eq!(app.metric("footfall_store_up"), 0.0);
    redis.restart();
    until("it answers figures", || app.get("/api/v1/sites/lamdong/counters").status == 200);
    app.until_stale(false);
    assert_eq!(app.counters()["views"]["all"], 5);
    assert_eq!(app.metric("footfall_store_up"), 1.0);
}

#[test]
fn while_redis_is_down_the_last_known_totals_and_what_is_pending_are_shown() {
    let mut redis = RedisServer::start_with(&LASTING);
    let mut app = TestApp::start(Setup::default().store(&redis.url()));
    send(&app, 5);
    app.page("/a");
    until("everything is in the store", || app.metric("footfall_oldest_unapplied_timestamp_seconds") == 0.0);
    redis.kill();
    send(&app, 3);
    app.until_stale(true);
    for restarted in [false, true] {
        if restarted {
            app.restart_after(Duration::from_secs(1));
        }
        let shown = app.get(&counters_with(SITE, "/a"));
        assert_eq!(shown.header("cache-control"), Some("no-store"));
        let body = shown.json();
        assert_eq!(body["stale"], true);
        assert_eq!((&body["views"]["all"], &body["visits"]["all"]), (&8.into(), &5.into()), "{body}");
        assert_eq!(body["page"]["views"]["all"], 8, "{body}");
        assert_eq!(body["online"], 5);
    }
    let unknown = app.get(&counters_with(SITE, "/never-seen")).json();
    assert!(unknown["page"].get("views").is_none(), "what is not known is left out: {unknown}");
    send(&app, 2);
    assert_eq!(app.counters()["visits"]["all"], 5, "visitors are known by the salts that were kept");
    redis.restart();
    app.until_stale(false);
    assert_eq!(app.counters()["views"]["all"], 10);
    app.stop();
    assert_eq!(redis.client().ask(&[b"HGET", b"footfall:{lamdong}:all", b"views"]).text(), "10");
}

#[test]
fn a_figure_never_goes_back_while_the_store_comes_and_goes() {
    let mut redis = RedisServer::start_with(&LASTING);
    let mut app = TestApp::start(Setup::default().store(&redis.url()));
    app.until_stale(false);
    let mut last = 0;
    for round in 0..8 {
        for _ in 0..20 {
            send(&app, 2);
            let views = app.counters()["views"]["all"].as_u64().unwrap();
            assert!(views >= last + 2, "from {last} to {views}");
            last = views;
        }
        match round % 4 {
            0 => redis.kill(),
            2 => redis.restart(),
            _ => app.restart_after(Duration::ZERO),
        }
    }
}

#[test]
fn redis_restored_from_an_older_copy_is_given_what_it_lost() {
    let mut redis = RedisServer::start();
    let mut app = TestApp::start(Setup::default().store(&redis.url()));
    send(&app, 5);
    until_stored(&redis, 5);
    redis.client().ask(&[b"SAVE"]);
    for (restarted, before) in [(false, 5), (true, 15)] {
        send(&app, 7);
        until_stored(&redis, before + 7);
        if restarted {
            app.stop();
        }
        // What came after the copy is gone.
        redis.restart();
        if restarted {
            app.restart_after(Duration::from_secs(1));
        }
        send(&app, 3);
        until("it is healed", || app.metric("footfall_store_regressions_total") > 0.0);
        until_stored(&redis, before + 10);
    }
    assert_eq!(app.counters()["views"]["all"], 25);
    app.stop();
    let mut client = redis.client();
    for hash in ["day:2023-09-15", "week:2023-W37", "month:2023-09", "year:2023", "all"] {
        let key = format!("footfall:{{lamdong}}:{hash}");
        assert_eq!(client.ask(&[b"HGET", key.as_bytes(), b"views"]).text(), "25", "{hash}");
        assert_eq!(client.ask(&[b"HGET", key.as_bytes(), b"visits"]).text(), "7", "{hash}");
    }
    assert_eq!(client.ask(&[b"HGET", b"footfall:{lamdong}:all:pages", b"/a"]).text(), "25");
}

#[test]
fn a_data_set_that_vanishes_stops_the_flush_and_resets_nothing() {
    let redis = RedisServer::start();
    let mut app = TestApp::start(Setup::default().store(&redis.url()));
    send(&app, 5);
    app.page("/a");
    until_stored(&redis, 5);
    redis.client().ask(&[b"FLUSHALL"]);
    for restarted in [false, true] {
        if restarted {
            app.restart_after(Duration::from_secs(1));
        }
        send(&app, 3);
        until("it says so", || readiness(&app).1.contains("has vanished"));
        assert_eq!(readiness(&app).0, 200, "it keeps accepting");
        app.until_stale(true);
        send(&app, 2);
    }
    let counters = app.counters();
    assert_eq!((&counters["views"]["all"], &counters["visits"]["all"]), (&15.into(), &5.into()));
    let stored = redis.client().ask(&[b"HGET", b"footfall:{lamdong}:all", b"views"]);
    assert_eq!(stored, Reply::Bytes(None), "nothing is sent until someone acts");
    assert!(app.metric("footfall_unapplied_batches") > 0.0);
}

fn next(client: u32, number: u32) -> (String, u32, Beacon) {
    let page = format!("/tin/{}", number % 20);
    let who = (number + client) % 100;
    (page.clone(), who, view(&page).from(&format!("203.0.113.{}", who + 1)))
}

#[test]
fn redis_killed_and_restarted_under_load_loses_and_doubles_nothing() {
    let _turn = my_turn();
    let mut dice = Dice::thrown();
    let mut redis = RedisServer::start_with(&LASTING);
    let mut service = Service::start(Setup::default().store(&redis.url()));
    let load = Load::begin(4, next);
    load.aim(Some(service.public()));
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(200 + dice.below(500)));
        redis.kill();
        std::thread::sleep(Duration::from_millis(dice.below(300)));
        redis.restart();
    }
    let account = load.end();
    for again in [false, true] {
        if again {
            service.restart();
        }
        until("everything is in the store", || {
            service.metric("footfall_oldest_unapplied_timestamp_seconds") == 0.0
        });
        let counters = service.counters(SITE);
        account.check(counters["views"]["all"].as_u64().unwrap());
        assert_eq!(counters["visits"]["all"], 100);
    }
    let stored = redis.client().ask(&[b"HGET", b"footfall:{lamdong}:all", b"views"]).text();
    account.check(stored.parse().unwrap());
}

#[test]
fn redis_that_stands_still_slows_no_beacon() {
    let _turn = my_turn();
    let redis = RedisServer::start();
    // A beacon that waited for the store would take this long.
    let app = TestApp::start(Setup::default().store(&redis.url()).set("store.timeout", "10s"));
    send(&app, 5);
    app.page("/a");
    redis.pause();
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < Duration::from_secs(3) {
        let sent = Instant::now();
        send(&app, 1);
        assert_eq!(app.get(&counters_with(SITE, "/a")).status, 200);
        longest = longest.max(sent.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    redis.resume();
    println!("the longest took {longest:?}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    until("everything is in the store", || app.metric("footfall_oldest_unapplied_timestamp_seconds") == 0.0);
}

#[test]
fn redis_that_stands_still_longer_than_the_timeout_is_given_nothing_twice() {
    let redis = RedisServer::start();
    let mut app = TestApp::start(Setup::default().store(&redis.url()).set("store.timeout", "100ms"));
    for _ in 0..3 {
        redis.pause();
        send(&app, 20);
        app.until_stale(true);
        redis.resume();
        app.until_stale(false);
    }
    app.stop();
    assert_eq!(redis.client().ask(&[b"HGET", b"footfall:{lamdong}:all", b"views"]).text(), "60");
}
