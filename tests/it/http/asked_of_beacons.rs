//! Beacons that ask for figures.

use std::time::Duration;

use crate::support::harness::{Beacon, SITE, Setup, TestApp, counters_with, view};
use crate::support::http::{ask, request};
use crate::support::servers::RedisServer;

fn asking(beacon: Beacon) -> Beacon {
    beacon.with("answer", "counters")
}

#[test]
fn a_beacon_is_told_what_a_reader_of_its_page_is() {
    let app = TestApp::start(Setup::default());
    app.page("/tin");
    let url = "https://baolamdong.vn/tin/?fbclid=x#top";
    for (beacon, views, online) in [
        (view(url).by(1), 1, 1),
        (view(url).by(2), 2, 2),
        (view(url).by(3).id("once"), 3, 3),
        (view(url).by(3).id("once"), 3, 3),
        (view(url).by(4).ping(), 3, 4),
        (view(url).by(2).leave(), 3, 4),
    ] {
        let told = app.send(&asking(beacon.clone()));
        let shown = told.json();
        assert_eq!((told.status, &shown["page"]["views"]["all"]), (200, &views.into()), "{beacon:?}");
        assert_eq!((&shown["online"], &shown["views"]["day"]), (&online.into(), &views.into()));
        assert_eq!(told.text(), app.get(&counters_with(SITE, url)).text(), "{beacon:?}");
        assert_eq!(told.header("cache-control"), Some("no-store"));
        assert_eq!(told.header("content-type"), Some("application/json"));
        assert_eq!((told.header("footfall"), told.header("etag")), (Some("1"), None));
    }
    // A condition is for reads: it is not heeded here.
    app.note(SITE, "/tin", None);
    let body = br#"{"site":"lamdong","url":"/tin","answer":"counters"}"#;
    let told = ask(app.public(), request("POST", "/api/v1/beacon", &[("if-none-match", "*")], body));
    assert_eq!((told.status, &told.json()["page"]["views"]["all"]), (200, &4.into()));
}

#[test]
fn who_asks_for_something_else_or_is_refused_is_told_so() {
    let app = TestApp::start(Setup::default());
    for (beacon, outcome) in [
        (view("/a").with("answer", "figures"), (400, "malformed")),
        (view("/a").with("answer", true), (400, "malformed")),
        (asking(view("ftp://baolamdong.vn/")), (400, "bad-url")),
        (asking(view("https://elsewhere.vn/a")), (403, "wrong-origin")),
    ] {
        assert_eq!(app.send(&beacon).outcome(), (outcome.0, outcome.1.into()), "{beacon:?}");
    }
    assert_eq!(app.send(&view("/a").with("answer", serde_json::Value::Null)).status, 204);
}

#[test]
fn a_page_that_is_not_in_memory_is_told_with_what_the_store_has() {
    let redis = RedisServer::lasting();
    let mut app = TestApp::start(Setup::default().store(&redis.url()));
    app.until_stale(false);
    app.read(3);
    app.restart_after(Duration::from_secs(1));
    app.until_stale(false);
    let shown = app.send(&asking(view("/a").by(7))).json();
    assert_eq!((&shown["page"]["views"]["all"], &shown["stale"]), (&4.into(), &false.into()));
}

#[test]
fn where_no_figure_is_known_the_answer_is_empty() {
    let mut redis = RedisServer::lasting();
    redis.kill();
    let mut app = TestApp::start(Setup::default().store(&redis.url()));
    app.breaks_the_store();
    let told = app.send(&asking(view("/a")));
    assert_eq!((told.status, told.body.len(), told.header("footfall")), (204, 0, Some("1")));
    assert_eq!(app.send(&asking(view("/a").ping())).status, 204);
    app.forget_what_was_accepted();
    redis.restart();
}

#[test]
fn a_page_that_was_erased_is_told_of_by_its_own_name() {
    let mut app = TestApp::start(Setup::default());
    app.compares_pages = false;
    app.read(2);
    let (code, said) = app.order(&["erase", "--site", SITE, "--page", "/a"]);
    assert_eq!(code, 0, "{said}");
    let told = app.send(&asking(view("/a")));
    assert_eq!(told.json()["page"]["page"], "/a");
    assert_eq!(told.text(), app.get(&counters_with(SITE, "/a")).text());
}
