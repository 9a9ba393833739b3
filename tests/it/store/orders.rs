//! A data set that vanished: the operator's word.

use std::time::Duration;

use crate::support::harness::{Setup, TestApp, until, view};
use crate::support::http;
use crate::support::servers::{RedisServer, Reply};
use crate::support::service::Service;

fn send(service: &Service, views: u32) {
    for reader in 0..views {
        let beacon = view("/a").from(&format!("203.0.113.{}", reader % 200 + 1));
        assert_eq!(http::ask(service.public(), beacon.bytes()).status, 204);
    }
}

fn stored(redis: &RedisServer, key: &str, field: &str) -> Option<u64> {
    match redis.client().ask(&[b"HGET", format!("footfall:{{lamdong}}:{key}").as_bytes(), field.as_bytes()]) {
        Reply::Bytes(Some(bytes)) => Some(String::from_utf8(bytes).unwrap().parse().unwrap()),
        _ => None,
    }
}

/// Waits until all that was sent is applied: the turn that runs now may have begun before it was.
fn quiet(service: &Service) {
    let flushed = || service.metric("footfall_last_flush_timestamp_seconds");
    for _ in 0..2 {
        let before = flushed();
        until("a turn ends with everything applied", || flushed() > before);
    }
}

fn until_held(service: &Service) {
    until("it says so", || {
        let (status, text) = service.readiness();
        assert_eq!(status, 200, "it keeps accepting");
        text.contains("has vanished") && text.contains("footfall store refill")
    });
    assert_eq!(service.metric("footfall_flush_held"), 1.0);
}

fn order(service: &Service, arguments: &[&str]) -> String {
    let (code, said) = service.order(arguments);
    assert_eq!(code, 0, "{arguments:?}: {said}");
    said
}

/// A service whose data set vanished after ten views, and that has taken three since.
fn bereft(live: bool) -> (RedisServer, Service) {
    let redis = RedisServer::start();
    let mut service = Service::start(Setup::default().store(&redis.url()));
    send(&service, 10);
    quiet(&service);
    redis.client().ask(&[b"FLUSHALL"]);
    send(&service, 3);
    until_held(&service);
    assert_eq!(redis.client().ask(&[b"DBSIZE"]).int(), 0, "nothing is written where the data set was");
    if !live {
        service.terminate();
    }
    (redis, service)
}

#[test]
fn refill_puts_back_what_the_outbox_holds() {
    for live in [true, false] {
        let (redis, mut service) = bereft(live);
        let said = order(&service, &["store", "refill", "--dry-run"]);
        assert!(said.contains("would be sent") && said.contains("13 views"), "{said}");
        assert_eq!(redis.client().ask(&[b"DBSIZE"]).int(), 0, "a dry run writes nothing");
        let said = order(&service, &["store", "refill"]);
        assert!(said.contains("the store is up to date"), "{said}");
        if !live {
            service.spawn();
            service.until_ready();
        }
        send(&service, 2);
        for hash in ["all", "all:pages"] {
            let field = if hash == "all" { "views" } else { "/a" };
            until("all is there", || stored(&redis, hash, field) == Some(15));
        }
        assert_eq!(service.counters("lamdong")["views"]["all"], 15);
        assert_eq!(service.metric("footfall_flush_held"), 0.0);
        assert_eq!(service.metric("footfall_losses_total{cause=\"store\"}"), 0.0, "nothing was out of reach");
        let (code, said) = service.order(&["store", "refill"]);
        assert_eq!((code, said.contains("nothing is to be decided")), (1, true), "{said}");
    }
}

#[test]
fn accept_empty_applies_what_was_not_applied_and_nothing_else() {
    for live in [true, false] {
        let (redis, mut service) = bereft(live);
        let said = order(&service, &["store", "accept-empty", "--dry-run"]);
        assert!(said.contains("would be applied"), "{said}");
        assert_eq!(redis.client().ask(&[b"DBSIZE"]).int(), 0, "a dry run writes nothing");
        order(&service, &["store", "accept-empty"]);
        if !live {
            service.spawn();
            service.until_ready();
        }
        send(&service, 2);
        until("what came since is there", || stored(&redis, "all", "views") == Some(5));
        assert_eq!(stored(&redis, "all:pages", "/a"), Some(5));
        assert!(
            service.metric("footfall_losses_total{cause=\"store\"}") >= 1.0,
            "what was given up is on record"
        );
        assert!(service.readiness().1.contains("given up by order"));
        // Killed and started again, it adds nothing of the past.
        service.kill9();
        service.spawn();
        service.until_ready();
        send(&service, 1);
        until("one more", || stored(&redis, "all", "views") == Some(6));
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(stored(&redis, "all", "views"), Some(6));
    }
}

#[test]
fn another_database_number_is_held_and_left_alone_and_the_right_one_goes_on() {
    let redis = RedisServer::start();
    let mut service = Service::start(Setup::default().store(&redis.url()));
    send(&service, 10);
    quiet(&service);
    let writes = || {
        let mut client = redis.client();
        client.ask(&[b"SELECT", b"1"]);
        client.ask(&[b"DBSIZE"]).int()
    };
    service.kill9();
    service.set("store.url", &format!("{}/1", redis.url()));
    service.spawn();
    service.until_ready();
    send(&service, 3);
    until_held(&service);
    assert_eq!(writes(), 0, "the other one is left alone");
    service.kill9();
    service.set("store.url", &redis.url());
    service.spawn();
    service.until_ready();
    send(&service, 1);
    until("all is there", || stored(&redis, "all", "views") == Some(14));
}

#[test]
fn a_deleted_store_file_is_refilled_or_accepted() {
    for (words, views) in [(["store", "refill"], 13), (["store", "accept-empty"], 3)] {
        for live in [true, false] {
            let mut service = Service::start(Setup::default());
            send(&service, 10);
            quiet(&service);
            // Killed, it would apply the batches of the last minute too: what is applied is in the checkpoint.
            service.terminate();
            std::fs::remove_file(service.data_dir().join("totals.redb")).unwrap();
            service.spawn();
            service.until_ready();
            send(&service, 3);
            until_held(&service);
            if !live {
                service.terminate();
            }
            let said = order(&service, &words);
            assert!(said.contains("the store is up to date"), "{said}");
            if !live {
                service.spawn();
                service.until_ready();
            }
            quiet(&service);
            service.terminate();
            // What this process remembers is never lowered; one that knows nothing shows what is stored.
            std::fs::remove_file(service.data_dir().join("checkpoint")).unwrap();
            service.spawn();
            service.until_ready();
            assert_eq!(service.counters("lamdong")["views"]["all"], views, "{words:?}, live: {live}");
        }
    }
}

#[test]
fn a_data_set_that_vanishes_as_the_day_turns_is_not_taken_for_a_new_day() {
    let redis = RedisServer::start();
    // 23:59:50 in Đà Lạt on the last day of a year: nearly every bucket is about to be new.
    let mut app = TestApp::start_at("2024-12-31T23:59:50+07:00", Setup::default().store(&redis.url()));
    // Figures of pages are not known while the store is away.
    app.compares_pages = false;
    for _ in 0..3 {
        app.take(&view("/a"));
    }
    until("they are stored", || stored(&redis, "all", "views") == Some(3));
    redis.client().ask(&[b"FLUSHALL"]);
    app.pass(Duration::from_secs(20));
    for _ in 0..2 {
        app.take(&view("/a"));
    }
    until("it says so", || http::get(app.admin(), "/readyz?verbose").text().contains("has vanished"));
    app.take(&view("/b"));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(redis.client().ask(&[b"DBSIZE"]).int(), 0, "nothing was taken for a bucket that is new");
    assert_eq!(app.counters()["views"]["day"], 3, "and it goes on counting");
}
