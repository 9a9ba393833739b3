//! A data set that vanished: the operator's word.

use std::time::Duration;

use crate::support::harness::{Setup, TestApp, view};
use crate::support::servers::RedisServer;
use crate::support::service::Service;
use crate::support::wait::until;

fn until_held(service: &Service) {
    until("it says so", || {
        let (status, text) = service.readiness();
        assert_eq!(status, 200, "it keeps accepting");
        text.contains("has vanished") && text.contains("footfall store refill")
    });
    assert_eq!(service.metric("footfall_flush_held"), 1.0);
}

/// A service whose data set vanished after ten views, and that has taken three since.
fn bereft(live: bool) -> (RedisServer, Service) {
    let redis = RedisServer::start();
    let mut service = Service::start(Setup::default().store(&redis.url()));
    service.read(10);
    service.settle();
    redis.client().ask(&[b"FLUSHALL"]);
    service.read(3);
    until_held(&service);
    assert!(redis.is_empty(), "nothing is written where the data set was");
    if !live {
        service.terminate();
    }
    (redis, service)
}

#[test]
fn refill_puts_back_what_the_outbox_holds() {
    for live in [true, false] {
        let (redis, mut service) = bereft(live);
        let said = service.ordered(&["store", "refill", "--dry-run"]);
        assert!(said.contains("would be sent") && said.contains("13 views"), "{said}");
        assert!(redis.is_empty(), "a dry run writes nothing");
        let said = service.ordered(&["store", "refill"]);
        assert!(said.contains("the store is up to date"), "{said}");
        if !live {
            service.begin();
        }
        service.read(2);
        for hash in ["all", "all:pages"] {
            let field = if hash == "all" { "views" } else { "/a" };
            until("all is there", || redis.sum(hash, field) == Some(15));
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
        service.breaks_the_store();
        let said = service.ordered(&["store", "accept-empty", "--dry-run"]);
        assert!(said.contains("would be applied"), "{said}");
        assert!(redis.is_empty(), "a dry run writes nothing");
        service.ordered(&["store", "accept-empty"]);
        if !live {
            service.begin();
        }
        service.read(2);
        until("what came since is there", || redis.sum("all", "views") == Some(5));
        assert_eq!(redis.sum("all:pages", "/a"), Some(5));
        assert!(
            service.metric("footfall_losses_total{cause=\"store\"}") >= 1.0,
            "what was given up is on record"
        );
        assert!(service.readiness().1.contains("given up by order"));
        // Killed and started again, it adds nothing of the past.
        service.begin();
        service.read(1);
        until("one more", || redis.sum("all", "views") == Some(6));
        service.settle();
        assert_eq!(redis.sum("all", "views"), Some(6));
    }
}

#[test]
fn another_database_number_is_held_and_left_alone_and_the_right_one_goes_on() {
    let redis = RedisServer::start();
    let mut service = Service::start(Setup::default().store(&redis.url()));
    service.read(10);
    service.settle();
    let writes = || {
        let mut client = redis.client();
        client.ask(&[b"SELECT", b"1"]);
        client.ask(&[b"DBSIZE"]).int()
    };
    service.set("store.url", &format!("{}/1", redis.url()));
    service.begin();
    service.read(3);
    until_held(&service);
    assert_eq!(writes(), 0, "the other one is left alone");
    service.set("store.url", &redis.url());
    service.begin();
    service.read(1);
    until("all is there", || redis.sum("all", "views") == Some(14));
}

#[test]
fn a_deleted_store_file_is_refilled_or_accepted() {
    for (words, views) in [(["store", "refill"], 13), (["store", "accept-empty"], 3)] {
        for live in [true, false] {
            let mut service = Service::start(Setup::default());
            service.breaks_the_store();
            service.read(10);
            service.settle();
            // Killed, it would apply the batches of the last minute too: what is applied is in the checkpoint.
            service.terminate();
            std::fs::remove_file(service.data_dir().join("totals.redb")).unwrap();
            service.begin();
            service.read(3);
            until_held(&service);
            if !live {
                service.terminate();
            }
            let said = service.ordered(&words);
            assert!(said.contains("the store is up to date"), "{said}");
            if !live {
                service.begin();
            }
            service.settle();
            service.terminate();
            // What this process remembers is never lowered; one that knows nothing shows what is stored.
            std::fs::remove_file(service.data_dir().join("checkpoint")).unwrap();
            service.begin();
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
    until("they are stored", || redis.sum("all", "views") == Some(3));
    redis.client().ask(&[b"FLUSHALL"]);
    app.pass(Duration::from_secs(20));
    for _ in 0..2 {
        app.take(&view("/a"));
    }
    until("it says so", || app.readiness().1.contains("has vanished"));
    app.take(&view("/b"));
    app.until_tried();
    assert!(redis.is_empty(), "nothing was taken for a bucket that is new");
    assert_eq!(app.counters()["views"]["day"], 3, "and it goes on counting");
    app.breaks_the_store();
}
