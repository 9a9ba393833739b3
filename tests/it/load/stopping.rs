//! SIGTERM: open requests end, nothing is lost, and it takes no longer than it may.

use std::time::Duration;

use crate::support::harness::{SITE, Setup, view};
use crate::support::http::Connection;
use crate::support::load::Load;
use crate::support::servers::RedisServer;
use crate::support::service::{Service, my_turn};
use crate::support::wait::until;

/// Stops under load, starts again, and compares.
fn stops_under_load(setup: Setup, while_loaded: impl FnOnce(), before_restart: impl FnOnce()) {
    let _turn = my_turn();
    let mut service = Service::start(setup.set("stop_timeout", "5s"));
    let load = Load { readers: 200, ..Load::default() }.begin(&service);
    load.until_accepted(800);
    while_loaded();
    load.until_accepted(800);
    let (status, took) = service.terminate();
    let account = load.end();
    assert_eq!(status.code(), Some(0), "{}", service.log());
    assert!(took < Duration::from_secs(50), "it took {took:?}");
    before_restart();
    service.begin();
    account.check(&service);
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
    let redis = RedisServer::lasting();
    let setup = Setup::default().store(&redis.url());
    let redis = std::cell::RefCell::new(redis);
    stops_under_load(setup, || redis.borrow_mut().kill(), || redis.borrow_mut().restart());
}

#[test]
fn a_stop_brings_everything_to_the_store() {
    let redis = RedisServer::start();
    let setup = Setup::default().store(&redis.url()).set("store.flush_interval", "5m");
    let mut service = Service::start(setup);
    service.read(20);
    service.stop();
    assert_eq!(redis.views(), 20);
}

/// A connection on which the service waits for the body of a view.
fn half_sent(service: &Service, bytes: &[u8]) -> Connection {
    let mut open = Connection::open(service.public()).unwrap();
    open.send(bytes).unwrap();
    assert_eq!(open.head().unwrap().status, 100, "the head is read");
    open
}

#[test]
fn a_request_that_is_open_at_the_stop_is_answered() {
    let mut service = Service::start(Setup::default());
    let mut idle = Connection::open(service.public()).unwrap();
    assert_eq!(idle.ask(view("/b").bytes()).unwrap().status, 204);
    let bytes = view("/a").header("expect", "100-continue").bytes();
    let (first, rest) = bytes.split_at(bytes.len() - 5);
    let mut open = half_sent(&service, first);
    service.ask_to_stop();
    until("it is unready", || service.readiness().0 == 503);
    assert!(service.readiness().1.contains("starting or stopping"));
    assert!(idle.is_closed());
    until("nobody is let in", || Connection::open(service.public()).is_err());
    open.send(rest).unwrap();
    assert_eq!(open.answer().unwrap().status, 204);
    assert_eq!(service.until_ended().code(), Some(0));
    service.begin();
    assert_eq!((service.page(SITE, "/a"), service.page(SITE, "/b")), (1, 1));
}

#[test]
fn a_request_that_never_ends_does_not_hold_the_stop() {
    let mut service =
        Service::start(Setup::default().set("stop_timeout", "2s").set("http.body_timeout", "1m"));
    let head =
        "POST /api/v1/beacon HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n{";
    let _open = half_sent(&service, head.as_bytes());
    let (status, took) = service.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(20), "it took {took:?}");
}
