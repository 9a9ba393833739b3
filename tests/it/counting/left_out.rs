//! Who does not belong is left out, and is seen to be (G14).

use std::time::Duration;

use serde_json::json;

use crate::support::harness::{Beacon, SITE, Setup, TestApp, view};
use crate::support::http::{BROWSER, ask, get};
use crate::support::servers::RedisServer;
use crate::support::wait::until;

const RULES: &str = "robots_allow = [\"OurApp/\"]\nexclude_addresses = [\"198.51.100.0/24\", \"2001:db8::/32\"]\n\
    exclude_pages = [\"/admin/*\", \"/xem-truoc\"]";

/// A view by a program.
fn robot(url: &str) -> Beacon {
    view(url).header("user-agent", "Mozilla/5.0 (compatible; Somebot/1; +http://bot.example)")
}

/// Views that are left out, one row for each reason that `RULES` and the defaults know.
fn left_out() -> Vec<(&'static str, Vec<Beacon>)> {
    vec![
        ("robot", vec![robot("/a"), robot("/b"), view("/a").header("user-agent", "curl/8.5")]),
        (
            "prefetch",
            vec![view("/a").header("sec-purpose", "prefetch"), view("/a").header("x-moz", "prefetch")],
        ),
        ("excluded-address", vec![view("/a").from("198.51.100.200"), view("/a").from("2001:db8:1::1")]),
        ("excluded-page", vec![view("/admin"), view("/Admin/../admin/users?x"), view("/xem-truoc/")]),
    ]
}

#[test]
fn what_is_left_out_is_in_no_total_of_readers_and_in_sums_of_its_own() {
    let redis = RedisServer::start();
    let mut app = TestApp::start(Setup::default().and(RULES).store(&redis.url()));
    for (reason, beacons) in left_out() {
        for beacon in &beacons {
            for sent in [beacon.clone(), beacon.clone().ping(), beacon.clone().leave()] {
                let answer = app.send(&sent);
                assert_eq!(answer.outcome(), (202, reason.to_owned()), "{sent:?}");
                assert_eq!(answer.header("footfall"), Some("1"));
            }
        }
        let outcomes = app.metric(&format!("footfall_beacons_total{{outcome=\"{reason}\",site=\"{SITE}\"}}"));
        assert_eq!(outcomes, 3.0 * beacons.len() as f64, "{reason}");
    }
    assert_eq!(app.online(), 0);
    app.take(&view("/a").by(1));
    app.take(&view("/administration").by(2));
    app.take(&view("/a").header("user-agent", "OurApp/3 (bot)"));
    let buckets =
        ["hour:2023-09-15T08+07:00", "day:2023-09-15", "week:2023-W37", "month:2023-09", "year:2023", "all"];
    let are = |more: u64| {
        until("the store has them", || redis.sum("all", "filtered:robot") == Some(3 + more));
        for (reason, beacons) in left_out() {
            let more = if reason == "robot" { more } else { 0 };
            for bucket in buckets {
                let stored = redis.sum(bucket, &format!("filtered:{reason}"));
                assert_eq!(stored, Some(beacons.len() as u64 + more), "{reason} in {bucket}");
            }
        }
    };
    are(0);
    assert_eq!(app.counters()["views"]["all"], 3);
    let overview = || get(app.admin(), "/").text().to_owned();
    until("today's are shown", || overview().contains("<b>3</b> robot"));
    assert!(overview().contains("<b>2</b> prefetch") && !overview().contains("</b> no-consent"));
    // Of these alone a batch is made too, and it is there once after a start.
    app.send(&robot("/a"));
    are(1);
    app.restart_after(Duration::from_secs(1));
    until("a start knows them", || get(app.admin(), "/").text().contains("<b>4</b> robot"));
    app.send(&robot("/a"));
    are(2);
    assert!(app.ordered(&["verify"]).contains("3 views"), "they agree");
}

#[test]
fn a_shadow_counts_robots_as_readers_and_among_what_is_left_out() {
    let redis = RedisServer::start();
    let app = TestApp::start(Setup::default().and("robots = \"shadow\"").store(&redis.url()));
    for _ in 0..3 {
        app.take(&robot("/a"));
    }
    app.take(&view("/a").by(1));
    until("the store has them", || redis.sum("all", "filtered:robot") == Some(3));
    assert_eq!(redis.views(), 4);
    let told = ask(app.public(), robot("/a").with("dry_run", true).bytes()).json();
    assert_eq!([&told["outcome"], &told["reason"]], ["counted", "robot"], "{told}");
}

#[test]
fn who_asks_not_to_be_told_apart_counts_as_a_view_alone() {
    let setup = "honour = [\"gpc\", \"dnt\"]\nhonour_as = \"without-identity\"";
    let app = TestApp::start(Setup::default().and(setup));
    app.take(&view("/a").header("sec-gpc", "1"));
    app.take(&view("/a").header("dnt", "1").ping());
    let shown = app.counters();
    assert_eq!([&shown["views"]["all"], &shown["visits"]["all"], &shown["online"]], [1, 0, 0]);
    let (_, line) = app.order(&["snippet", SITE]);
    assert!(!line.contains("data-gpc"), "its pages send beacons: {line}");
    assert_eq!(app.send(&view("/a").header("user-agent", BROWSER)).status, 204);
    assert_eq!(app.counters()["visits"]["all"], json!(1));
}
