//! G3 and G4: the store is down, late, or not what it was.

use std::time::Duration;

use crate::support::dice::Dice;
use crate::support::harness::{SITE, Setup, TestApp, counters_with, view};
use crate::support::proxy::Proxy;
use crate::support::servers::{NOBODY, RedisServer, Reply};
use crate::support::wait::until;

/// Redis holds so many views. (The metrics say what the writer's last turn found.)
fn until_stored(redis: &RedisServer, views: u64) {
    until("everything is in the store", || redis.views() == views);
}

#[test]
fn with_redis_down_it_starts_accepts_and_catches_up() {
    let mut redis = RedisServer::lasting();
    redis.kill();
    let app = TestApp::start(Setup::default().store(&redis.url()));
    app.read(5);
    let unknown = app.get("/api/v1/sites/lamdong/counters");
    assert_eq!(unknown.outcome(), (503, "store-unreachable".into()), "never a false 0");
    assert!(unknown.header("retry-after").is_some());
    assert_eq!(unknown.header("cache-control"), Some("no-store"));
    let (status, text) = app.readiness();
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
fn a_clock_that_is_not_set_yet_begins_no_site_and_costs_no_view() {
    let redis = RedisServer::start();
    let app = TestApp::start_at("1970-01-02T08:19:00+07:00", Setup::default().store(&redis.url()));
    app.read(3);
    until("it says why", || app.readiness().1.contains("the clock of this machine says 1970-01-02"));
    assert_eq!(redis.client().ask(&[b"DBSIZE"]).int(), 0);
    app.step_to("2026-11-23T08:19:00+07:00");
    app.read(2);
    until_stored(&redis, 5);
    let since = redis.client().ask(&[b"HGET", b"footfall:{lamdong}:meta", b"since"]);
    assert_eq!(since.text(), "2026-11-23");
    app.until_stale(false);
}

#[test]
fn while_redis_is_down_the_last_known_totals_and_what_is_pending_are_shown() {
    let mut redis = RedisServer::lasting();
    let mut app = TestApp::start(Setup::default().store(&redis.url()));
    app.read(5);
    app.page("/a");
    until("everything is in the store", || app.metric("footfall_oldest_unapplied_timestamp_seconds") == 0.0);
    redis.kill();
    app.read(3);
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
    app.read(2);
    assert_eq!(app.counters()["visits"]["all"], 5, "visitors are known by the salts that were kept");
    redis.restart();
    app.until_stale(false);
    assert_eq!(app.counters()["views"]["all"], 10);
    app.stop();
    assert_eq!(redis.views(), 10);
}

#[test]
fn a_figure_never_goes_back_while_the_store_comes_and_goes() {
    let mut redis = RedisServer::lasting();
    let mut app = TestApp::start(Setup::default().store(&redis.url()));
    app.until_stale(false);
    let mut last = 0;
    for round in 0..8 {
        for _ in 0..20 {
            app.read(2);
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
    app.read(5);
    until_stored(&redis, 5);
    redis.client().ask(&[b"SAVE"]);
    for (restarted, before) in [(false, 5), (true, 15)] {
        app.read(7);
        until_stored(&redis, before + 7);
        if restarted {
            app.stop();
        }
        // What came after the copy is gone.
        redis.restart();
        if restarted {
            app.restart_after(Duration::from_secs(1));
        }
        app.read(3);
        until("it is healed", || app.metric("footfall_store_regressions_total") > 0.0);
        until_stored(&redis, before + 10);
    }
    assert_eq!(app.counters()["views"]["all"], 25);
    app.stop();
    for hash in ["day:2023-09-15", "week:2023-W37", "month:2023-09", "year:2023", "all"] {
        assert_eq!((redis.sum(hash, "views"), redis.sum(hash, "visits")), (Some(25), Some(7)), "{hash}");
    }
    assert_eq!(redis.sum("all:pages", "/a"), Some(25));
}

/// The primary dies, and a replica that lagged behind it is promoted in its place: three times, the second time with
/// the service stopped meanwhile, the third time with the primary alive, whose last writes nobody will see.
#[test]
fn a_lagging_replica_that_is_promoted_is_given_what_it_lacks() {
    let mut primary = RedisServer::start();
    let proxy = Proxy::to(primary.port(), Dice(1));
    let mut app = TestApp::start(Setup::default().store(&proxy.url()));
    let mut views = 0;
    for round in 0..3 {
        app.read(5);
        until_stored(&primary, views + 5);
        let replica = primary.replica();
        assert_eq!(replica.views(), views + 5);
        // From here on it lags: its way to the primary is lost.
        let (host, port) = NOBODY.split_once(':').unwrap();
        replica.client().ask(&[b"REPLICAOF", host.as_bytes(), port.as_bytes()]);
        app.pass(Duration::from_secs(3600));
        app.read(7);
        app.take(&view("/b"));
        until_stored(&primary, views + 13);
        if round == 1 {
            app.stop();
        }
        proxy.turn_to(replica.port());
        if round == 2 {
            primary.client().ask(&[b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes"]);
        } else {
            primary.kill();
        }
        let promoted =
            || assert_eq!(replica.client().ask(&[b"REPLICAOF", b"NO", b"ONE"]), Reply::Status("OK".into()));
        if round == 1 {
            promoted();
            app.restart_after(Duration::from_secs(1));
        } else {
            // For a while it is asked and takes nothing.
            app.until_stale(true);
            app.read(2);
            promoted();
            views += 2;
        }
        app.read(3);
        until("it is healed", || app.metric("footfall_store_regressions_total") > 0.0);
        views += 16;
        until_stored(&replica, views);
        app.until_stale(false);
        assert_eq!(app.metric("footfall_losses_total{cause=\"store\"}"), 0.0);
        primary = replica;
    }
    // Whoever reads for the first time within half an hour makes a visit: seven in each hour, and one of "/b".
    let counters = app.counters();
    let visits = counters["visits"]["all"].as_u64().unwrap();
    assert_eq!(counters["views"]["all"], views);
    app.stop();
    for hash in ["day:2023-09-15", "week:2023-W37", "month:2023-09", "year:2023", "all"] {
        let stored = (primary.sum(hash, "views"), primary.sum(hash, "visits"));
        assert_eq!(stored, (Some(views), Some(visits)), "{hash}");
    }
    assert_eq!([primary.sum("all:pages", "/a"), primary.sum("all:pages", "/b")], [Some(views - 3), Some(3)]);
    let sketch = RedisServer::key("day:2023-09-15:visitors");
    assert_eq!(
        primary.client().ask(&[b"PFCOUNT", sketch.as_bytes()]),
        Reply::Int(8),
        "the readers of that day"
    );
}

#[test]
fn a_data_set_that_vanishes_stops_the_flush_and_resets_nothing() {
    let redis = RedisServer::start();
    let mut app = TestApp::start(Setup::default().store(&redis.url()));
    app.read(5);
    app.page("/a");
    until_stored(&redis, 5);
    redis.client().ask(&[b"FLUSHALL"]);
    for restarted in [false, true] {
        if restarted {
            app.restart_after(Duration::from_secs(1));
        }
        app.read(3);
        until("it says so", || app.readiness().1.contains("has vanished"));
        assert_eq!(app.readiness().0, 200, "it keeps accepting");
        app.until_stale(true);
        app.read(2);
    }
    let counters = app.counters();
    assert_eq!((&counters["views"]["all"], &counters["visits"]["all"]), (&15.into(), &5.into()));
    app.until_tried();
    assert!(redis.is_empty(), "nothing is sent until someone acts");
    assert!(app.metric("footfall_unapplied_batches") > 0.0);
    app.breaks_the_store();
}

#[test]
fn redis_that_stands_still_slows_no_beacon() {
    let redis = RedisServer::start();
    // Longer than a client waits: a beacon or a reader that waits for the store fails.
    let app = TestApp::start(Setup::default().store(&redis.url()).set("store.timeout", "60s"));
    app.read(5);
    app.page("/a");
    redis.pause();
    for _ in 0..300 {
        app.read(1);
        assert_eq!(app.get(&counters_with(SITE, "/a")).status, 200);
    }
    redis.resume();
    until_stored(&redis, 305);
}

#[test]
fn redis_that_stands_still_longer_than_the_timeout_is_given_nothing_twice() {
    let redis = RedisServer::start();
    let mut app = TestApp::start(Setup::default().store(&redis.url()).set("store.timeout", "300ms"));
    app.until_stale(false);
    for _ in 0..3 {
        redis.pause();
        app.read(20);
        app.until_stale(true);
        redis.resume();
        app.until_stale(false);
    }
    app.stop();
    assert_eq!(redis.views(), 60);
}
