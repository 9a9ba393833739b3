//! The newspaper that footfall is for: an article of 15 September 2023, seen 13 times while 61 are online.

use crate::support::harness::{SITE, Setup, TestApp, counters_with, view};
use crate::support::http::{encoded, request};
use crate::support::servers::RedisServer;
use crate::support::wait::until;

/// What a sketch may say of 61 visitors: of their hashes, which differ in each run, two fall together in one run of
/// nine, and two pairs in one of 150.
const ESTIMATES: std::ops::RangeInclusive<u64> = 55..=63;

/// Composed, as a keyboard writes it.
const ARTICLE: &str = "/bai-viet/nâng-cao-chất-lượng-sinh-hoạt-chi-bộ-ở-đảng-bộ-khối-các-cơ-quan-tỉnh.html";

/// Base letters and marks apart, as some editors and file systems write it.
fn decomposed(text: &str) -> String {
    use unicode_normalization::UnicodeNormalization;
    text.nfd().collect()
}

fn article(number: usize) -> String {
    let host = ["https://baolamdong.vn", "https://www.baolamdong.vn", "http://baolamdong.vn", ""][number % 4];
    let path = match number % 5 {
        0 => ARTICLE.to_owned(),
        1 => encoded(ARTICLE),
        2 => decomposed(ARTICLE),
        3 => encoded(&decomposed(ARTICLE)),
        _ => encoded(ARTICLE).to_lowercase(),
    };
    let rest = ["", "?utm_source=zalo", "?fbclid=IwAR0x", "#binh-luan"][number % 4];
    format!("{host}{path}{rest}")
}

fn replay(setup: Setup) -> TestApp {
    let mut app = TestApp::start(setup);
    assert_ne!(decomposed(ARTICLE), ARTICLE);
    for reader in 0..61 {
        let beacon =
            if reader < 13 { view(&article(reader)) } else { view("https://baolamdong.vn/index.html") };
        let beacon = beacon
            .header(
                "user-agent",
                "Mozilla/5.0 (Linux; Android 13; SM-A135F) AppleWebKit/537.36 Chrome/142.0.0.0",
            )
            .header("origin", "https://baolamdong.vn")
            .header("content-type", "text/plain;charset=UTF-8")
            .from(&format!("198.51.100.7, 113.160.{}.{}", reader / 30, reader % 30 + 1));
        app.take(&beacon);
    }
    for started_again in [false, true] {
        if started_again {
            app.restart_after(std::time::Duration::from_secs(2));
        }
        figures_are_those_of_the_page(&app);
    }
    app
}

fn figures_are_those_of_the_page(app: &TestApp) {
    for spelled in
        [ARTICLE.to_owned(), encoded(ARTICLE), format!("https://baolamdong.vn{}", decomposed(ARTICLE))]
    {
        let page = app.page(&spelled);
        assert_eq!(page["page"], ARTICLE);
        assert_eq!((&page["views"]["all"], &page["online"]), (&13.into(), &13.into()));
    }
    let shown = app.get(&counters_with(SITE, ARTICLE)).json();
    assert_eq!(shown["online"], 61);
    assert_eq!(shown["buckets"]["week"], "2023-W37");
    for period in ["day", "week", "month", "year", "all"] {
        assert_eq!(shown["views"][period], 61);
        assert_eq!(shown["visits"][period], 61);
        let visitors = shown["visitors"][period].as_u64().unwrap();
        assert!(ESTIMATES.contains(&visitors), "{visitors}");
    }
    let target = format!("/api/v1/sites/lamdong/pages?page={}&page=/", encoded(ARTICLE));
    let mut pages = serde_json::Value::Null;
    until("both pages are known", || {
        pages = app.get(&target).json();
        pages["stale"] == false
    });
    assert_eq!(
        (&pages["pages"][0]["page"], &pages["pages"][0]["views"]["all"]),
        (&ARTICLE.into(), &13.into())
    );
    assert_eq!((&pages["pages"][1]["page"], &pages["pages"][1]["views"]["all"]), (&"/".into(), &48.into()));
    assert_eq!(pages["pages"][1]["online"], 48);
}

#[test]
fn its_figures_are_read_back_from_the_embedded_store() {
    replay(Setup::default());
}

#[test]
fn its_figures_are_read_back_from_redis_and_a_person_can_read_them() {
    let redis = RedisServer::start();
    let mut app = replay(Setup::default().store(&redis.url()));
    app.stop();
    for bucket in ["day:2023-09-15", "week:2023-W37", "month:2023-09", "year:2023", "all"] {
        assert_eq!(
            (redis.sum(bucket, "views"), redis.sum(bucket, "visits")),
            (Some(61), Some(61)),
            "{bucket}"
        );
    }
    assert_eq!(redis.sum("day:2023-09-15:pages", ARTICLE), Some(13));
    assert_eq!(redis.sum("all:pages", ARTICLE), Some(13));
    let visitors = redis.client().ask(&[b"PFCOUNT", b"footfall:{lamdong}:day:2023-09-15:visitors"]).int();
    assert!(ESTIMATES.contains(&(visitors as u64)), "{visitors}");
}

#[test]
fn a_browser_of_its_page_may_send_and_read() {
    let app = TestApp::start(Setup::default());
    let origin = [("origin", "https://baolamdong.vn"), ("access-control-request-method", "POST")];
    let preflight =
        crate::support::http::ask(app.public(), request("OPTIONS", "/api/v1/beacon", &origin, b""));
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    assert!(preflight.header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));
    assert!(
        preflight.header("access-control-allow-headers").is_some_and(|names| names.contains("content-type"))
    );
}
