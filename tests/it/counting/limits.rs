//! Who comes too often, brings too many new pages, or fills the memory, keeps nobody else from being counted.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;

use crate::support::harness::{Beacon, SITE, Setup, TestApp, number, view};
use crate::support::http::{BROWSER, Connection, ask};
use crate::support::meddled::Meddled;
use crate::support::service::{Service, memory};
use crate::support::wait::until;

const LIMITED: (u16, &str) = (429, "rate-limited");

fn outcome(app: &TestApp, beacon: &Beacon) -> (u16, String) {
    app.send(beacon).outcome()
}

fn beacons(app: &TestApp, outcome: &str) -> f64 {
    app.metric(&format!("footfall_beacons_total{{outcome=\"{outcome}\",site=\"{SITE}\"}}"))
}

/// What a dry run tells.
fn told(app: &TestApp, beacon: &Beacon) -> Value {
    ask(app.public(), beacon.clone().with("dry_run", true).bytes()).json()
}

#[test]
fn a_visitor_and_an_address_have_their_limits_and_a_dry_run_names_them() {
    let app = TestApp::start(Setup::default().set("limits.visitor", "6").set("limits.address", "20"));
    let by = |agent: u32| {
        view("/a").from("198.51.100.1").header("user-agent", &format!("{BROWSER} Browser/{agent}"))
    };
    for beacon in [by(1), by(1).ping(), by(1).leave()] {
        assert_eq!(told(&app, &beacon)["reason"], Value::Null);
        (0..2).for_each(|_| app.take(&beacon));
    }
    for beacon in [by(1), by(1).ping(), by(1).leave()] {
        for _ in 0..10 {
            let refused = app.send(&beacon);
            assert_eq!(
                (refused.outcome(), refused.header("retry-after")),
                ((429, LIMITED.1.into()), Some("10"))
            );
            assert!(refused.text().contains("limits.visitor"), "{refused:?}");
        }
    }
    let dry = told(&app, &by(1));
    assert_eq!([&dry["outcome"], &dry["reason"]], ["refused", LIMITED.1]);
    assert_eq!(dry["status"], LIMITED.0);
    assert!(dry["detail"].as_str().unwrap().contains("limits.visitor"), "{dry}");
    // As an image, too.
    let gif = format!(
        "GET /api/v1/beacon.gif?site={SITE}&url=/a HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.1\r\n\
         User-Agent: {BROWSER} Browser/1\r\n\r\n"
    );
    let gif = ask(app.public(), gif);
    assert_eq!((gif.status, gif.header("footfall-reason")), (429, Some(LIMITED.1)));
    // What it sent in vain took nothing from the others of its address.
    let taken = (2..100).filter(|agent| app.send(&by(*agent)).status == 204).count();
    assert_eq!(taken, 14);
    assert!(app.send(&by(500)).text().contains("limits.address"));
    // Neither from other addresses, nor from another site.
    app.take(&view("/a").from("198.51.100.2"));
    assert_eq!((app.counters()["views"]["all"].clone(), beacons(&app, LIMITED.1)), (17.into(), 116.0));
    app.pass(Duration::from_secs(10));
    app.take(&by(1));
    assert_eq!(outcome(&app, &by(1)).0, 429);
    app.pass(Duration::from_secs(60));
    (0..6).for_each(|_| app.take(&by(1)));
    // A trusted proxy that names nobody stands for many, and a network that is exempt does as well.
    (0..100).for_each(|_| app.take(&view("/a")));
    (0..100).for_each(|_| app.take(&view("/a").by(1)));
}

#[test]
fn a_site_has_a_limit_where_it_is_set() {
    let other = "views_per_minute = 10\n[[site]]\nkey = \"free\"\nhosts = [\"free.vn\"]\ntime_zone = \"UTC\"";
    let app = TestApp::start(Setup::default().and(other));
    (0..10).for_each(|reader| app.take(&view("/a").by(reader)));
    assert_eq!(outcome(&app, &view("/a").by(10)), (429, LIMITED.1.to_owned()));
    assert!(told(&app, &view("/a"))["detail"].as_str().unwrap().contains("views_per_minute"));
    app.take(&view("/a").by(1).ping());
    (0..100).for_each(|reader| app.take(&view("/a").with("site", "free").by(reader)));
    app.pass(Duration::from_secs(6));
    app.take(&view("/a").by(10));
    assert_eq!(outcome(&app, &view("/a").by(11)).0, 429);
}

#[test]
fn a_reload_counts_once_in_the_window() {
    let app = TestApp::start(Setup::default().and("reload_window = \"30m\""));
    app.take(&view("/a?x=1").by(1).id("one"));
    for _ in 0..3 {
        let reload = app.send(&view("https://baolamdong.vn/a/").by(1).id("two"));
        assert_eq!((reload.status, reload.header("footfall-reason")), (202, Some("reload")));
    }
    let dry = told(&app, &view("/a").by(1));
    assert_eq!([&dry["outcome"], &dry["reason"]], ["filtered", "reload"]);
    // The same view sent again is none.
    app.take(&view("/a").by(1).id("one"));
    app.take(&view("/b").by(1));
    app.take(&view("/a").by(2));
    app.pass(Duration::from_secs(29 * 60));
    assert_eq!(outcome(&app, &view("/a").by(1)).0, 202);
    app.pass(Duration::from_secs(60));
    app.take(&view("/a").by(1));
    assert_eq!(app.counters()["views"]["all"], 4);
    assert_eq!((beacons(&app, "reload"), beacons(&app, "repeated")), (4.0, 1.0));
}

#[test]
fn a_view_that_could_not_be_kept_is_no_reload() {
    let meddled = Meddled::start(Setup::default().and("reload_window = \"1h\""));
    let reader = view("/a").by(1);
    meddled.order("unwritable /journal/");
    assert_eq!(meddled.service.send(&reader).outcome(), (503, "overloaded".to_owned()));
    meddled.order("");
    until("views are kept again", || meddled.service.send(&reader).status == 204);
    assert_eq!(meddled.service.send(&reader).outcome(), (202, "reload".to_owned()));
    assert_eq!(meddled.service.counters(SITE)["views"]["all"], 1);
}

#[test]
fn made_up_pages_do_not_keep_real_articles_out() {
    let setup = Setup::default()
        .set("limits.new_pages", "60")
        .set("limits.address", "0")
        .set("limits.visitor", "0")
        .set("totals.max_pages", "500")
        .set("store.flush_interval", "5m");
    let mut app = TestApp::start(setup);
    app.compares_pages = false;
    let made_up = 3000;
    let mut connection = Connection::open(app.public()).unwrap();
    for n in 0..made_up {
        let beacon = view(&format!("/made-up/{n}")).from("198.51.100.1");
        assert_eq!(connection.ask(beacon.bytes()).unwrap().status, 204);
        app.note(SITE, "/made-up", None);
        if n % 300 == 0 {
            let article = format!("/bai-viet/{n}");
            for from in ["198.51.100.7", "2001:db8::7"] {
                app.take(&view(&article).from(from));
            }
            // The maker of pages was there first: that view alone is in "(other)".
            let mixed = format!("/tin/{n}");
            for from in ["198.51.100.1", "198.51.100.8", "198.51.100.1"] {
                app.take(&view(&mixed).from(from));
            }
        }
    }
    let folded = beacons(&app, "folded");
    assert!(folded >= f64::from(made_up - 60), "{folded}");
    assert_eq!(app.metric("footfall_bounds_reached_total{bound=\"pages\"}"), 0.0);
    let check = |app: &TestApp| {
        for n in (0..made_up).step_by(300) {
            assert_eq!(app.page(&format!("/bai-viet/{n}"))["views"]["all"], 2, "{n}");
            let mixed = app.page(&format!("/tin/{n}"))["views"]["all"].as_u64().unwrap();
            assert!(mixed >= 2, "{n}: {mixed}");
        }
        assert_eq!(app.page("/made-up/2999")["views"]["all"], 0);
    };
    check(&app);
    let dry = told(&app, &view("/made-up/2999").from("198.51.100.1"));
    assert_eq!([&dry["outcome"], &dry["page"]], ["folded", "(other)"]);
    // A page that is known comes in freely, and so does one that was decided before a restart.
    app.restart_after(Duration::from_secs(1));
    check(&app);
    for n in (0..made_up).step_by(300) {
        app.take(&view(&format!("/bai-viet/{n}")).from("198.51.100.1"));
        assert_eq!(app.page(&format!("/bai-viet/{n}"))["views"]["all"], 3);
    }
}

#[test]
fn pings_leave_room_for_the_visits_of_readers() {
    let app = TestApp::start(Setup::default().set("sessions.max_sessions", "1000"));
    for reader in 0..1500 {
        app.take(&view("/a").by(reader).ping());
    }
    assert_eq!((app.online(), beacons(&app, "shed")), (250, 1250.0));
    assert_eq!(app.metric("footfall_bounds_reached_total{bound=\"pings\"}"), 1250.0);
    (2000..2750).for_each(|reader| app.take(&view("/a").by(reader)));
    assert_eq!((&app.counters()["visits"]["all"], app.online()), (&750.into(), 1000));
    app.take(&view("/a").by(3));
    assert_eq!(app.counters()["visits"]["all"], 751, "who pinged has room for its visit");
}

#[test]
fn limits_change_on_a_reload() {
    let service = Service::start(Setup::default());
    let reader = view("/a").from("198.51.100.1");
    (0..20).for_each(|_| service.take(&reader));
    let sites =
        "[[site]]\nkey = \"lamdong\"\nhosts = [\"baolamdong.vn\"]\ntime_zone = \"Asia/Ho_Chi_Minh\"\n";
    let limits = |visitor: u32| format!("[limits]\nvisitor = {visitor}\n{sites}");
    service.write("footfall.toml", &limits(1));
    assert!(service.reload());
    service.send(&reader);
    assert_eq!(service.send(&reader).outcome(), (429, LIMITED.1.to_owned()));
    service.write("footfall.toml", &limits(0));
    assert!(service.reload());
    (0..300).for_each(|_| service.take(&reader));
}

/// Strangers with an address, an identity and a page of their own each, against the smallest bounds there are: the full
/// tier sends five million.
#[test]
fn strangers_fill_no_memory_and_push_out_no_reader() {
    let strangers = number("FOOTFALL_STRANGERS", 20_000) as u32;
    let setup = Setup::default()
        .set("sessions.max_sessions", "1000")
        .set("totals.max_ids", "1000")
        .set("totals.max_pages", "100");
    let service = Service::start(setup);
    let reader = |n: u32| view("/bai-that").by(n % 10);
    (0..10).for_each(|n| service.take(&reader(n)));
    let mut connection = Connection::open(service.public()).unwrap();
    let (mut most, mut early) = (0, 0);
    for first in (0..strangers).step_by(100) {
        let mut requests = Vec::new();
        for n in first..first + 100 {
            let address = Ipv4Addr::from((10 << 24) + n).to_string();
            let stranger = view(&format!("/la/{n}")).from(&address).id(&format!("{n}"));
            requests.extend(stranger.bytes());
        }
        connection.send(&requests).unwrap();
        (0..100).for_each(|_| assert_eq!(connection.answer().unwrap().status, 204));
        service.take(&reader(first / 100));
        if first % 1000 == 0 {
            most = most.max(memory(service.pid()));
        }
        if first == strangers / 4 {
            early = most;
        }
    }
    let readers = strangers.div_ceil(100);
    let counters = || service.counters(SITE);
    until("all are counted", || counters()["views"]["all"] == strangers + readers + 10);
    assert_eq!(service.page(SITE, "/bai-that"), u64::from(readers) + 10);
    assert_eq!(counters()["visits"]["all"], 1000);
    for bound in ["sessions", "ids"] {
        assert!(
            service.metric(&format!("footfall_bounds_reached_total{{bound=\"{bound}\"}}")) > 0.0,
            "{bound}"
        );
    }
    let folded = service.metric("footfall_beacons_total{outcome=\"folded\"}");
    assert!(folded > f64::from(strangers) * 0.9, "{folded}");
    println!("{strangers} strangers: {} MiB after a quarter, {} MiB at most", early >> 20, most >> 20);
    assert!(most < early + (24 << 20), "{most} bytes, and {early} after a quarter");
}
