//! SIGTERM: open requests end, nothing is lost, and it takes no longer than it may.

use std::time::Duration;

use crate::support::harness::{Beacon, SITE, Setup, until, view};
use crate::support::http::{self, Connection};
use crate::support::load::{Fate, Load};
use crate::support::servers::RedisServer;
use crate::support::service::{Service, my_turn};

fn next(client: u32, number: u32) -> (String, u32, Beacon) {
    let page = format!("/tin/{}", number % 50);
    let who = (number + client * 50) % 200;
    (page.clone(), who, view(&page).from(&format!("203.0.113.{}", who + 1)))
}

/// Stops under load, starts again, and compares.
fn stops_under_load(setup: Setup, while_loaded: impl FnOnce(), before_restart: impl FnOnce()) {
    let _turn = my_turn();
    let mut service = Service::start(setup.set("stop_timeout", "5s"));
    let load = Load::begin(4, next);
    load.aim(Some(service.public()));
    until("a thousand views are counted", || {
        service.metric("footfall_views_total{site=\"lamdong\"}") >= 800.0
    });
    while_loaded();
    let now = service.metric("footfall_views_total{site=\"lamdong\"}");
    until("more views are counted", || {
        service.metric("footfall_views_total{site=\"lamdong\"}") >= now + 800.0
    });
    let (status, took) = service.terminate();
    let account = load.end();
    assert_eq!(status.code(), Some(0), "{}", service.log());
    assert!(took < Duration::from_secs(6), "it took {took:?}");
    before_restart();
    service.spawn();
    service.until_ready();
    let counters = service.counters(SITE);
    account.check(counters["views"]["all"].as_u64().unwrap());
    assert_eq!(counters["visits"]["all"], account.visitors(Fate::Accepted).len());
}

#[test]
fn stopped_under_load_on_the_embedded_store_nothing_is_lost() {
    stops_under_load(Setup::default(), || {}, || {});
}

#[test]
fn stopped_under_load_on_redis_nothing_is_lost() {
    let redis = RedisServer::start();
    stops_under_load(Setup::default().store(&redis.url()), || {}, || {});
}

#[test]
fn stopped_under_load_while_redis_is_down_nothing_is_lost() {
    let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let setup = Setup::default().store(&redis.url());
    let redis = std::cell::RefCell::new(redis);
    stops_under_load(setup, || redis.borrow_mut().kill(), || redis.borrow_mut().restart());
}

#[test]
fn a_stop_brings_everything_to_the_store() {
    let redis = RedisServer::start();
    let setup = Setup::default().store(&redis.url()).set("store.flush_interval", "5m");
    let mut service = Service::start(setup);
    for _ in 0..20 {
        assert_eq!(http::ask(service.public(), view("/a").bytes()).status, 204);
    }
    let (status, _) = service.terminate();
    assert_eq!(status.code(), Some(0));
    assert_eq!(redis.client().ask(&[b"HGET", b"footfall:{lamdong}:all", b"views"]).text(), "20");
}

#[test]
fn a_request_that_is_open_at_the_stop_is_answered() {
    let mut service = Service::start(Setup::default());
    let mut idle = Connection::open(service.public()).unwrap();
    assert_eq!(idle.ask(view("/b").bytes()).unwrap().status, 204);
    let mut open = Connection::open(service.public()).unwrap();
    let bytes = view("/a").bytes();
    let (first, rest) = bytes.split_at(bytes.len() - 5);
    // Once more on the same connection, so that it has certainly been accepted before the stop.
    assert_eq!(open.ask(view("/b").bytes()).unwrap().status, 204);
    open.send(first).unwrap();
    // The head must be read before the stop: only then is it an open request.
    std::thread::sleep(Duration::from_millis(100));
    service.ask_to_stop();
    until("it is unready", || service.readiness().0 == 503);
    assert!(service.readiness().1.contains("starting or stopping"));
    assert!(idle.is_closed());
    until("nobody is let in", || Connection::open(service.public()).is_err());
    open.send(rest).unwrap();
    assert_eq!(open.answer().unwrap().status, 204);
    let (status, _) = service.terminate();
    assert_eq!(status.code(), Some(0));
    service.spawn();
    service.until_ready();
    assert_eq!((service.page(SITE, "/a"), service.page(SITE, "/b")), (1, 2));
}

#[test]
fn a_request_that_never_ends_does_not_hold_the_stop() {
    let mut service =
        Service::start(Setup::default().set("stop_timeout", "2s").set("http.body_timeout", "1m"));
    let mut open = Connection::open(service.public()).unwrap();
    open.send("POST /api/v1/beacon HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let (status, took) = service.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(3), "it took {took:?}");
}
