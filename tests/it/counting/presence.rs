//! Who is online, and which views are a visit.

use std::time::Duration;

use crate::support::harness::{Beacon, Setup, TestApp, view};
use crate::support::servers::RedisServer;
use crate::support::wait::until;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn visits(app: &TestApp) -> u64 {
    app.counters()["visits"]["all"].as_u64().unwrap()
}

fn reader(number: usize) -> Beacon {
    view("/a").from(&format!("203.0.{}.{}", number / 250, number % 250 + 1))
}

#[test]
fn a_visitor_is_online_for_five_minutes_after_the_last_sign_of_life() {
    let app = TestApp::start(Setup::default());
    app.take(&view("/a").from("203.0.113.1"));
    app.pass(4 * MINUTE);
    app.take(&view("/a").from("203.0.113.1").ping());
    app.pass(5 * MINUTE - SECOND);
    assert_eq!((app.online(), app.page("/a")["online"].as_u64()), (1, Some(1)));
    app.pass(2 * SECOND);
    assert_eq!((app.online(), app.page("/a")["online"].as_u64()), (0, Some(0)));
}

#[test]
fn a_visitor_is_online_on_the_page_that_it_looked_at_last() {
    let app = TestApp::start(Setup::default());
    app.take(&view("/a").from("203.0.113.1"));
    app.take(&view("/b").from("203.0.113.1"));
    assert_eq!((app.page("/a")["online"].as_u64(), app.page("/b")["online"].as_u64()), (Some(0), Some(1)));
    assert_eq!(app.online(), 1);
}

#[test]
fn one_who_left_goes_offline_after_half_a_minute_unless_there_is_a_new_sign() {
    let app = TestApp::start(Setup::default());
    for address in ["203.0.113.1", "203.0.113.2"] {
        app.take(&view("/a").from(address));
        app.take(&view("/a").from(address).leave());
    }
    app.take(&view("/a").from("203.0.113.3").leave());
    assert_eq!(app.online(), 2, "a leave alone makes nobody online");
    app.pass(10 * SECOND);
    app.take(&view("/b").from("203.0.113.2"));
    app.pass(21 * SECOND);
    assert_eq!(app.online(), 1);
    assert_eq!(visits(&app), 2, "a leave ends no visit");
    app.take(&view("/c").from("203.0.113.1"));
    assert_eq!((app.online(), visits(&app)), (2, 2));
}

#[test]
fn who_leaves_one_page_and_reads_on_in_another_stays_online() {
    let app = TestApp::start(Setup::default());
    let reader = |page| view(page).from("203.0.113.1");
    app.take(&reader("/a"));
    app.take(&reader("/b"));
    app.take(&reader("/b").ping());
    app.take(&reader("/a").leave());
    app.pass(31 * SECOND);
    assert_eq!((app.online(), app.page("/b")["online"].as_u64()), (1, Some(1)));
    app.take(&reader("/b").leave());
    app.pass(31 * SECOND);
    assert_eq!(app.online(), 0);
}

#[test]
fn a_ping_without_a_session_makes_online_and_counts_nothing() {
    let app = TestApp::start(Setup::default());
    app.take(&view("/a").from("203.0.113.1").ping());
    let counters = app.counters();
    assert_eq!(counters["online"], 1);
    assert_eq!((&counters["views"]["all"], &counters["visits"]["all"]), (&0.into(), &0.into()));
    app.take(&view("/a").from("203.0.113.1"));
    assert_eq!((app.online(), visits(&app)), (1, 1));
}

#[test]
fn a_visit_ends_with_a_gap_over_half_an_hour() {
    let app = TestApp::start(Setup::default());
    app.take(&view("/a").from("203.0.113.1"));
    app.pass(30 * MINUTE);
    app.take(&view("/a").from("203.0.113.1"));
    assert_eq!(visits(&app), 1);
    app.pass(20 * MINUTE);
    app.take(&view("/a").from("203.0.113.1").ping());
    app.pass(20 * MINUTE);
    app.take(&view("/a").from("203.0.113.1"));
    assert_eq!(visits(&app), 1, "pings keep it alive");
    app.pass(30 * MINUTE + SECOND);
    app.take(&view("/a").from("203.0.113.1"));
    assert_eq!(visits(&app), 2);
    assert_eq!(app.counters()["visitors"]["day"], 1);
}

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const SAFARI: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Safari/605.1.15";

#[test]
fn address_and_user_agent_tell_visitors_apart() {
    let app = TestApp::start(Setup::default());
    app.take(&view("/a").from("203.0.113.1").header("user-agent", FIREFOX));
    app.take(&view("/a").from("203.0.113.1").header("user-agent", SAFARI));
    app.take(&view("/a").from("203.0.113.2").header("user-agent", FIREFOX));
    app.take(&view("/a").from("203.0.113.2").header("user-agent", FIREFOX).with("visitor", "ignored"));
    assert_eq!((app.online(), visits(&app)), (3, 3));
}

#[test]
fn with_identity_browser_the_page_tells_visitors_apart() {
    let app = TestApp::start(Setup::default().and("identity = \"browser\""));
    app.take(&view("/a").from("203.0.113.1").with("visitor", "v1"));
    app.take(&view("/a").from("203.0.113.2").with("visitor", "v1"));
    app.take(&view("/a").from("203.0.113.1").with("visitor", "v2"));
    assert_eq!((app.online(), visits(&app)), (2, 2));
    app.take(&view("/a").from("203.0.113.1"));
    app.take(&view("/a").from("203.0.113.1"));
    assert_eq!((app.online(), visits(&app)), (3, 3), "without an id the address does");
    let pixel = "/api/v1/beacon.gif?site=lamdong&url=/a&visitor=v1";
    assert_eq!(app.get(pixel).status, 200);
    app.note("lamdong", "/a", None);
    assert_eq!((app.online(), visits(&app)), (3, 3), "by the image, one is who one is by a beacon");
}

#[test]
fn with_identity_none_views_alone_are_counted() {
    let app = TestApp::start(Setup::default().and("identity = \"none\""));
    for address in ["203.0.113.1", "203.0.113.2"] {
        app.take(&view("/a").from(address).with("visitor", "v"));
        app.take(&view("/a").from(address).ping());
        app.take(&view("/a").from(address).leave());
    }
    let counters = app.counters();
    assert_eq!((&counters["views"]["all"], &counters["online"]), (&2.into(), &0.into()));
    assert_eq!((&counters["visits"]["all"], &counters["visitors"]["all"]), (&0.into(), &0.into()));
}

#[test]
fn a_full_table_counts_views_of_newcomers_and_not_their_visits() {
    let app = TestApp::start(Setup::default().set("sessions.max_sessions", "1000"));
    for number in 0..1010 {
        app.take(&reader(number));
    }
    let counters = app.counters();
    assert_eq!((&counters["views"]["all"], &counters["visits"]["all"]), (&1010.into(), &1000.into()));
    assert_eq!(counters["online"], 1000);
    assert_eq!(app.metric("footfall_bounds_reached_total{bound=\"sessions\"}"), 10.0);
    app.take(&reader(3));
    assert_eq!(visits(&app), 1000, "who is in stays in");
    app.pass(31 * MINUTE);
    until("all have ended", || {
        app.pass(SECOND);
        app.metric("footfall_sessions") == 0.0
    });
    app.take(&reader(1009));
    assert_eq!((visits(&app), app.online()), (1001, 1), "there is room again");
}

#[test]
fn a_restart_keeps_who_is_online_and_begins_no_second_visit() {
    let redis = RedisServer::start();
    for setup in [Setup::default(), Setup::default().store(&redis.url())] {
        let mut app = TestApp::start(setup);
        for number in 0..61 {
            app.take(&reader(number));
        }
        app.take(&reader(0).leave());
        app.restart_after(10 * SECOND);
        assert_eq!((app.online(), app.page("/a")["online"].as_u64()), (61, Some(61)));
        for number in 1..61 {
            app.take(&reader(number));
        }
        assert_eq!(visits(&app), 61);
        app.pass(21 * SECOND);
        assert_eq!(app.online(), 60, "the one that left before the restart");
        app.restart_after(5 * MINUTE);
        assert_eq!(app.online(), 0);
        app.take(&reader(5));
        assert_eq!(visits(&app), 61, "within half an hour it is the same visit");
        app.restart_after(31 * MINUTE);
        app.take(&reader(5));
        assert_eq!(visits(&app), 62);
    }
}

#[test]
fn a_visit_that_spans_midnight_is_one_visit() {
    let mut app = TestApp::start_at("2023-09-14T23:50:00+07:00", Setup::default());
    app.take(&reader(1));
    app.pass(15 * MINUTE);
    app.take(&reader(1));
    let counters = app.counters();
    assert_eq!(counters["buckets"]["day"], "2023-09-15");
    assert_eq!((&counters["visits"]["day"], &counters["visits"]["all"]), (&0.into(), &1.into()));
    assert_eq!((&counters["views"]["day"], &counters["views"]["all"]), (&1.into(), &2.into()));
    assert_eq!((&counters["visitors"]["day"], &counters["online"]), (&1.into(), &1.into()));
    app.take(&reader(2));
    app.restart_after(10 * MINUTE);
    app.take(&reader(1));
    app.take(&reader(2));
    assert_eq!(visits(&app), 2);
}

#[test]
fn a_visit_that_spans_midnight_and_a_restart_is_one_visit() {
    let mut app = TestApp::start_at("2023-09-14T23:50:00+07:00", Setup::default());
    app.take(&reader(1));
    app.restart_after(20 * MINUTE);
    app.take(&reader(1));
    assert_eq!(visits(&app), 1);
}

#[test]
fn an_address_is_one_visitor_however_it_is_written() {
    let app = TestApp::start(Setup::default());
    let same =
        ["2001:db8::7", "2001:0db8:0:0:0:0:0:0007", "2001:DB8::7", "[2001:db8::7]", "[2001:db8::7]:4711"];
    for address in same {
        app.take(&view("/a").from(address));
    }
    assert_eq!((app.online(), visits(&app)), (1, 1));
    // One of IPv4 in the form of IPv6, as a socket for both has it.
    for address in ["203.0.113.7", "::ffff:203.0.113.7", "::ffff:cb00:7107", "203.0.113.7:4711"] {
        app.take(&view("/a").from(address));
    }
    assert_eq!((app.online(), visits(&app)), (2, 2));
    // Another address is another visitor, also from the same network.
    app.take(&view("/a").from("2001:db8::8"));
    assert_eq!((app.online(), visits(&app)), (3, 3));
}
