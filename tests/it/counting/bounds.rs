//! G5: each bound sheds the newcomer, is counted where it shows, and resets nothing that was counted.

use crate::support::harness::{SITE, Setup, TestApp, view};
use crate::support::http::{self, Connection, request};
use crate::support::load::{ENDLESS, fill};
use crate::support::service::{Service, memory, my_turn};
use crate::support::wait::until;

fn reached(app: &TestApp, bound: &str) -> f64 {
    app.metric(&format!("footfall_bounds_reached_total{{bound=\"{bound}\"}}"))
}

#[test]
fn more_ids_than_are_remembered_count_and_the_known_ones_count_once() {
    let app = TestApp::start(Setup::default().set("totals.max_ids", "1000"));
    for id in 0..1000 {
        app.take(&view("/a").id(&format!("id-{id}")));
    }
    assert_eq!(reached(&app, "ids"), 0.0);
    for id in 1000..1100 {
        app.take(&view("/a").id(&format!("id-{id}")));
    }
    assert_eq!(reached(&app, "ids"), 100.0);
    for id in 0..1000 {
        app.take(&view("/a").id(&format!("id-{id}")));
    }
    assert_eq!(app.counters()["views"]["all"], 1100);
}

#[test]
fn more_pages_than_there_is_room_for_count_for_the_site_and_together() {
    // Nothing is applied meanwhile, so that no page makes room.
    let setup = Setup::default().set("totals.max_pages", "10").set("store.flush_interval", "5m");
    let mut app = TestApp::start(setup);
    // What is counted in "(other)" is not the page's own.
    app.compares_pages = false;
    for round in 1..=3u32 {
        for page in 0..30 {
            app.take(&view(&format!("/p/{page}")));
        }
        assert_eq!(app.counters()["views"]["all"], round * 30);
        assert_eq!(app.page("/p/3")["views"]["all"], round, "one that has a place keeps it");
        // The first flush, right after the start, may have made room for a few.
        let shed = reached(&app, "pages");
        assert!((f64::from(round * 20 - 10)..=f64::from(round * 20)).contains(&shed), "{shed}");
    }
    app.restart_after(std::time::Duration::from_secs(1));
    assert_eq!(app.counters()["views"]["all"], 90);
}

#[test]
fn a_body_that_is_too_large_is_refused_unread() {
    let app = TestApp::start(Setup::default());
    app.take(&view("/a"));
    let body = format!("{{\"site\":\"{SITE}\",\"url\":\"/a\",\"x\":\"{}\"}}", "x".repeat(1 << 20));
    for _ in 0..50 {
        let mut connection = Connection::open(app.public()).unwrap();
        // It may be cut off while it is still being sent.
        if let Ok(answer) = connection.ask(request("POST", "/api/v1/beacon", &[], body.as_bytes())) {
            assert_eq!(answer.status, 413);
        }
    }
    assert!(app.metric("footfall_beacons_total{outcome=\"too-large\"}") > 0.0);
    assert_eq!(app.counters()["views"]["all"], 1);
}

#[test]
fn a_full_journal_refuses_views_keeps_those_it_has_and_does_not_grow() {
    let _turn = my_turn();
    // Neither flush nor checkpoint empties it.
    let setup = Setup::default()
        .set("journal.max_bytes", "16 MiB")
        .set("journal.max_unsynced", "5m")
        .set("store.flush_interval", "5m")
        .set("checkpoint_interval", "1h");
    let mut service = Service::start(setup);
    let public = service.public();
    let taken = fill(&service, "a", 400, ENDLESS);
    assert!(taken < ENDLESS, "it never becomes full");
    let (status, text) = service.readiness();
    assert!(status == 503 && text.contains("[-]journal journal-full"), "{text}");
    let before = memory(service.pid());
    let mut connection = Connection::open(public).unwrap();
    for _ in 0..2000 {
        assert_eq!(connection.ask(view("/a").bytes()).unwrap().status, 503);
    }
    let grown = memory(service.pid()).saturating_sub(before);
    assert!(grown < 8 << 20, "it grew by {grown} bytes");
    assert!(service.metric("footfall_bounds_reached_total{bound=\"journal\"}") >= 2000.0);
    let bytes = service.metric("footfall_journal_bytes");
    assert!(bytes < f64::from(17 << 20), "{bytes} bytes");
    assert_eq!(service.counters_now(SITE)["views"]["all"], taken, "nothing is reset");
    // A start makes a batch of it, and its first checkpoint room.
    service.begin();
    until("views are taken again", || service.send(&view("/a")).status == 204);
    assert_eq!(http::get(service.admin(), "/readyz").status, 200);
    assert_eq!(service.counters(SITE)["views"]["all"], taken + 1);
}
