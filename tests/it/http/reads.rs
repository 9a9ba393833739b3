//! `counters` and `pages`.

use std::time::Duration;

use crate::support::harness::{SITE, Setup, TestApp, counters_with, view};
use crate::support::http::{ask, encoded, request};
use crate::support::servers::RedisServer;

const FRESH: &str = "public, max-age=5, stale-while-revalidate=30, stale-if-error=86400";

#[test]
fn counters_are_the_described_body() {
    let app = TestApp::start(Setup::default());
    app.take(&view("https://baolamdong.vn/bai-viet/1.html?fbclid=x").from("203.0.113.1"));
    app.take(&view("/bai-viet/1.html").from("203.0.113.2"));
    app.pass(Duration::from_secs(5));
    let shown = app.get(&counters_with(SITE, "https://www.baolamdong.vn/bai-viet/1.html"));
    assert_eq!(
        shown.text(),
        concat!(
            r#"{"site":"lamdong","at":"2023-09-15T08:19:00+07:00","online":2,"#,
            r#""buckets":{"day":"2023-09-15","week":"2023-W37","month":"2023-09","year":"2023"},"#,
            r#""views":{"day":2,"week":2,"month":2,"year":2,"all":2},"#,
            r#""visits":{"day":2,"week":2,"month":2,"year":2,"all":2},"#,
            r#""visitors":{"day":2,"week":2,"month":2,"year":2,"all":2},"#,
            r#""page":{"page":"/bai-viet/1.html","online":2,"#,
            r#""views":{"day":2,"week":2,"month":2,"year":2,"all":2}},"stale":false}"#,
        )
    );
    assert_eq!(shown.header("content-type"), Some("application/json"));
    assert_eq!(shown.header("cache-control"), Some(FRESH));
    assert_eq!(shown.header("access-control-allow-origin"), Some("*"));
    assert_eq!(
        shown.header("access-control-expose-headers"),
        Some("Footfall, Footfall-Reason, Retry-After, ETag")
    );
    assert!(app.counters().get("page").is_none(), "only when asked for");
}

#[test]
fn a_204_is_in_the_next_read() {
    let app = TestApp::start(Setup::default());
    for views in 1..=50 {
        app.take(&view("/a"));
        assert_eq!(app.counters()["views"]["all"], views);
        assert_eq!(app.page("/a")["views"]["day"], views);
    }
}

#[test]
fn a_reader_who_has_the_body_is_told_so_while_nothing_moves() {
    let app = TestApp::start(Setup::default());
    app.take(&view("/a"));
    let target = counters_with(SITE, "/a");
    let held = |tag: &str| ask(app.public(), request("GET", &target, &[("if-none-match", tag)], b""));
    app.page("/a");
    let tag = app.get(&target).header("etag").unwrap().to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'), "strong: {tag}");
    app.pass(Duration::from_secs(60));
    let same = held(&tag);
    assert_eq!((same.status, same.body.len()), (304, 0));
    assert_eq!((same.header("etag"), same.header("cache-control")), (Some(tag.as_str()), Some(FRESH)));
    assert_eq!(same.header("access-control-allow-origin"), Some("*"));
    assert_eq!(held("\"other\"").status, 200);
    app.take(&view("/b"));
    let moved = held(&tag);
    assert_eq!(moved.status, 200);
    assert_eq!(moved.json()["at"], "2023-09-15T08:20:00+07:00");
    let tag = moved.header("etag").unwrap().to_owned();
    app.pass(Duration::from_secs(301));
    assert_eq!(held(&tag).json()["online"], 0, "going offline is a change");
}

#[test]
fn pages_are_answered_in_order_and_as_often_as_asked() {
    let app = TestApp::start(Setup::default());
    for page in ["/a", "/a", "/tin tức"] {
        app.take(&view(page));
    }
    for page in ["/a", "/tin tức"] {
        app.page(page);
    }
    let target = "/api/v1/sites/lamdong/pages?page=/tin%20t%E1%BB%A9c&page=/a/&_=9&page=/never&page=/a";
    let mut shown = app.get(target);
    crate::support::wait::until("all are known", || {
        shown = app.get(target);
        shown.json()["stale"] == false
    });
    let body = shown.json();
    let items: Vec<(&str, u64, u64)> = body["pages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            (
                item["page"].as_str().unwrap(),
                item["views"]["all"].as_u64().unwrap(),
                item["online"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(items, [("/tin tức", 1, 1), ("/a", 2, 0), ("/never", 0, 0), ("/a", 2, 0)]);
    assert_eq!((&body["site"], &body["buckets"]["week"]), (&"lamdong".into(), &"2023-W37".into()));
    assert_eq!(shown.header("cache-control"), Some(FRESH));
    let tag = shown.header("etag").unwrap();
    assert_eq!(ask(app.public(), request("GET", target, &[("if-none-match", tag)], b"")).status, 304);
}

#[test]
fn what_cannot_be_read_is_refused_with_a_reason() {
    let app = TestApp::start(Setup::default());
    let hundred_and_one: String = (0..101).map(|n| format!("&page=/{n}")).collect();
    for (target, status, code) in [
        ("/api/v1/sites/camau/counters", 404, "unknown-site"),
        ("/api/v1/sites/camau/pages?page=/a", 404, "unknown-site"),
        ("/api/v1/sites/lamdong/pages", 400, "malformed"),
        (&format!("/api/v1/sites/lamdong/pages?{hundred_and_one}"), 400, "malformed"),
        ("/api/v1/sites/lamdong", 404, "not-found"),
    ] {
        let answer = app.get(target);
        assert_eq!(answer.outcome(), (status, code.into()), "{target}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
}

/// None of them is a page of the site.
const FOREIGN: [&str; 8] = [
    "tin",
    "",
    "https://elsewhere.vn/a",
    "https://baolamdong-vn.translate.goog/a",
    "file:///C:/Users/lan/a.html",
    "//baolamdong.vn/a",
    "javascript:void(0)",
    "\u{0}\"",
];

#[test]
fn what_is_no_page_of_the_site_spoils_nothing() {
    let app = TestApp::start(Setup::default());
    app.read(2);
    app.page("/a");
    let whole = app.get("/api/v1/sites/lamdong/counters").text().to_owned();
    for foreign in FOREIGN {
        assert_eq!(app.get(&counters_with(SITE, foreign)).text(), whole, "{foreign}");
    }
    let long = "ắ".repeat(400);
    let asked = FOREIGN.into_iter().chain([long.as_str(), "/a"]);
    let query: String = asked.map(|page| format!("page={}&", encoded(page))).collect();
    let shown = app.get(&format!("/api/v1/sites/lamdong/pages?page=/a&{query}")).json();
    let items = shown["pages"].as_array().unwrap();
    let own = serde_json::json!({
        "page": "/a", "online": 2, "views": {"day": 2, "week": 2, "month": 2, "year": 2, "all": 2},
    });
    assert_eq!((&items[0], &items[10], items.len()), (&own, &own, 11));
    for (item, foreign) in items[1..].iter().zip(FOREIGN) {
        assert_eq!(*item, serde_json::json!({"page": foreign}));
    }
    let cut = items[9]["page"].as_str().unwrap();
    assert!(cut.len() == 510 && long.starts_with(cut), "cut at a character: {cut}");
    assert_eq!(shown["stale"], false, "nothing is missing");
}

#[test]
fn the_names_of_the_query_that_a_site_keeps_are_told() {
    let app = TestApp::start(Setup::default().and("page_query = [\"id\", \"trang\"]"));
    app.read(1);
    let told = serde_json::json!(["id", "trang"]);
    let answer = app.send(&view("/a?id=1&fbclid=x").with("answer", "counters"));
    assert_eq!((&answer.json()["page_query"], &answer.json()["page"]["page"]), (&told, &"/a?id=1".into()));
    for target in ["counters", "counters?page=/a", "counters?page=tin", "pages?page=/a&page=tin"] {
        let shown = app.get(&format!("/api/v1/sites/lamdong/{target}")).json();
        assert_eq!(shown["page_query"], told, "{target}");
    }
}

#[test]
fn a_page_that_finds_no_room_counts_for_its_site() {
    let mut redis = RedisServer::lasting();
    let mut app = TestApp::start(Setup::default().store(&redis.url()).set("totals.max_pages", "10"));
    app.compares_pages = false;
    app.until_stale(false);
    // While the store is away no page can be let go of.
    redis.kill();
    for number in 0..15 {
        app.take(&view(&format!("/{number}")));
    }
    assert_eq!(app.counters()["views"]["all"], 15);
    let shed = || app.metric("footfall_bounds_reached_total{bound=\"pages\"}");
    assert_eq!(shed(), 5.0);
    for number in 0..10 {
        app.take(&view(&format!("/{number}")));
    }
    assert_eq!(shed(), 5.0, "who is in stays in");
    app.until_stale(true);
    redis.restart();
    app.until_stale(false);
    crate::support::wait::until("no view waits for the store", || {
        app.metric("footfall_oldest_unapplied_timestamp_seconds") == 0.0
    });
    app.take(&view("/late"));
    assert_eq!(app.page("/late")["views"]["all"], 1, "there is room again");
    app.stop();
    assert_eq!(["(other)", "/9", "/late"].map(|page| redis.sum("all:pages", page)), [5, 2, 1].map(Some));
}
