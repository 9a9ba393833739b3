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
        until("the past is not shown", || service.counters("lamdong")["views"]["all"] == 5);
        assert_eq!(service.page("lamdong", "/a"), 5);
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
        assert_eq!(service.counters("lamdong")["views"]["all"], 6);
        assert_eq!(service.page("lamdong", "/a"), 6);
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
            for again in [false, true] {
                assert_eq!(service.counters("lamdong")["views"]["all"], views, "{words:?}, live: {live}");
                assert_eq!(service.page("lamdong", "/a"), views, "{words:?}, live: {live}, again: {again}");
                service.restart();
            }
        }
    }
}

#[test]
fn figures_that_a_person_lowers_under_a_higher_revision_are_shown_and_stay() {
    let redis = RedisServer::start();
    let mut service = Service::start(Setup::default().store(&redis.url()));
    service.breaks_the_store();
    service.read(10);
    service.settle();
    let mut client = redis.client();
    let mut set = |bucket: &str, field: &str, value: &str| {
        let key = RedisServer::key(bucket);
        client.ask(&[b"HSET", key.as_bytes(), field.as_bytes(), value.as_bytes()]);
    };
    let shown = |service: &Service, period: &str| service.counters("lamdong")["views"][period].clone();
    set("all", "views", "4");
    let year = shown_year(&service);
    set(&year, "views", "6");
    set(&year, "#revision", "1");
    until("what is revised is shown", || shown(&service, "year") == 6);
    assert_eq!(shown(&service, "all"), 10, "what is less without a word is not believed");
    set("all", "#revision", "1");
    until("what is revised is shown", || shown(&service, "all") == 4);
    service.restart();
    service.read(1);
    service.settle();
    assert_eq!((shown(&service, "all"), shown(&service, "year")), (5.into(), 7.into()));
    set("all", "views", "3");
    set("all", "#revision", "0");
    set(&year, "views", "5");
    set(&year, "#revision", "2");
    until("what is revised is shown", || shown(&service, "year") == 5);
    assert_eq!(shown(&service, "all"), 5, "an earlier revision is not believed");
}

/// The hash of the running year.
fn shown_year(service: &Service) -> String {
    format!("year:{}", service.counters("lamdong")["buckets"]["year"].as_str().unwrap())
}

#[test]
fn what_is_recorded_as_lost_is_not_shown_any_more_by_any_instance() {
    let mut redis = RedisServer::start();
    let setup = Setup::default().store(&redis.url());
    let [mut first, mut second] = [Service::start(setup.clone()), Service::start(setup)];
    first.read(10);
    first.settle();
    redis.client().ask(&[b"SAVE"]);
    let image = std::fs::read(redis.dir().join("dump.rdb")).unwrap();
    first.read(5);
    second.read(3);
    until("all is stored", || redis.views() == 18);
    for service in [&mut first, &mut second] {
        service.breaks_the_store();
        until("all is shown", || service.counters("lamdong")["views"]["all"] == 18);
        assert_eq!(service.page("lamdong", "/a"), 18);
        service.terminate();
    }
    // The store goes back, and the outbox of one does not reach so far.
    std::fs::remove_dir_all(first.data_dir().join("outbox")).unwrap();
    std::fs::create_dir(first.data_dir().join("outbox")).unwrap();
    redis.kill();
    std::fs::write(redis.dir().join("dump.rdb"), image).unwrap();
    redis.restart();
    second.begin();
    second.settle();
    assert_eq!((redis.views(), second.counters("lamdong")["views"]["all"].clone()), (13, 18.into()));
    first.begin();
    for again in [false, true] {
        for service in [&mut first, &mut second] {
            until("what is lost is not shown", || service.counters("lamdong")["views"]["all"] == 13);
            until("nor of the page", || service.page("lamdong", "/a") == 13);
            if again {
                service.kill9();
                service.begin();
            }
        }
    }
    assert_eq!(redis.views(), 13);
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
