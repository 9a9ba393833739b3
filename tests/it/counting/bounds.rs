//! G5: each bound sheds the newcomer, is counted where it shows, and resets nothing that was counted.

use crate::support::harness::{SITE, Setup, TestApp, counters_with, view};
use crate::support::http::{self, Connection, request};
use crate::support::load::{ENDLESS, fill};
use crate::support::servers::RedisServer;
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

/// The settings are the smallest there are.
#[test]
fn a_site_that_takes_all_it_can_get_leaves_another_its_part() {
    let other = "[[site]]\nkey = \"other\"\nhosts = [\"other.example\"]\n";
    let setup =
        Setup::default().set("sessions.max_sessions", "1000").set("totals.max_ids", "1000").and(other);
    let app = TestApp::start(setup);
    for reader in 0..1000 {
        app.take(&view("/a").by(reader).id(&format!("id-{reader}")));
    }
    assert_eq!((reached(&app, "ids"), reached(&app, "sessions")), (250.0, 250.0));
    for _ in 0..2 {
        for reader in 0..250 {
            app.take(&view("/a").with("site", "other").by(reader).id(&format!("id-{reader}")));
        }
    }
    let counters = app.counters_of("other");
    assert_eq!((&counters["views"]["all"], &counters["visits"]["all"]), (&250.into(), &250.into()));
    assert_eq!((reached(&app, "ids"), reached(&app, "sessions")), (250.0, 250.0));
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
fn reads_of_pages_that_never_were_push_no_page_out_of_memory() {
    let mut redis = RedisServer::lasting();
    let app = TestApp::start(Setup::default().store(&redis.url()).set("totals.max_pages", "10"));
    for page in 0..10 {
        (0..=page).for_each(|_| app.take(&view(&format!("/p/{page}"))));
    }
    until("no view waits for the store", || app.metric("footfall_oldest_unapplied_timestamp_seconds") == 0.0);
    let known = |page: &str| app.get(&counters_with(SITE, page)).json()["page"]["views"]["all"].as_u64();
    assert!((0..10).all(|page| app.page(&format!("/p/{page}"))["views"]["all"] == page + 1));
    assert_eq!(reached(&app, "loads"), 0.0);
    for reader in 0..1000 {
        assert_eq!(known(&format!("/never/{reader}")), Some(0));
    }
    assert_eq!(reached(&app, "loads"), 744.0);
    // Only what is in memory can be shown now.
    redis.kill();
    app.until_stale(true);
    for page in 0..10 {
        assert_eq!(known(&format!("/p/{page}")), Some(page + 1));
    }
    assert_eq!((known("/never/0"), known("/never/999")), (None, Some(0)));
    redis.restart();
    app.until_stale(false);
}

#[test]
fn readers_who_ask_at_once_for_many_pages_that_never_were_are_told_so() {
    let redis = RedisServer::start();
    let app = TestApp::start(Setup::default().store(&redis.url()));
    app.take(&view("/a"));
    let public = app.public();
    for round in 0..5 {
        let read = |reader: u32| {
            let pages = (0..100).map(|n| format!("page=/never/{round}/{reader}/{n}")).collect::<Vec<_>>();
            let list = http::get(public, &format!("/api/v1/sites/{SITE}/pages?{}", pages.join("&"))).json();
            assert_eq!(list["stale"], false);
            let shown = list["pages"].as_array().unwrap();
            assert!(shown.iter().all(|page| page["views"]["all"] == 0) && shown.len() == 100);
        };
        std::thread::scope(|scope| (0..4).for_each(|reader| _ = scope.spawn(move || read(reader))));
    }
}

#[test]
fn sites_whose_past_is_left_for_the_next_reader_are_counted() {
    let site = |n: u32| format!("[[site]]\nkey = \"s{n}\"\nhosts = [\"s{n}.example\"]\n");
    let app = TestApp::start(Setup::default().and(&(0..17).map(site).collect::<String>()));
    assert_eq!(http::get(app.admin(), "/").status, 200);
    // A machine that is too busy to read sixteen of them in time counts those too.
    assert!(reached(&app, "loads") >= 2.0);
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
fn a_site_that_fills_the_journal_leaves_another_its_part() {
    let _turn = my_turn();
    let setup = Setup::default()
        .set("journal.max_bytes", "16 MiB")
        .set("journal.max_unsynced", "5m")
        .set("store.flush_interval", "5m")
        .set("checkpoint_interval", "1h")
        .and("[[site]]\nkey = \"tin\"\nhosts = [\"tin.vn\"]\ntime_zone = \"Asia/Ho_Chi_Minh\"\n");
    let service = Service::start(setup);
    assert!(fill(&service, "a", 400, ENDLESS) < ENDLESS, "it never becomes full");
    assert_eq!(service.send(&view("/a")).outcome(), (503, "journal-full".to_owned()));
    assert!(service.metric("footfall_bounds_reached_total{bound=\"journal\"}") > 0.0);
    for reader in 0..100 {
        service.take(&view("/a").with("site", "tin").by(reader));
    }
    assert_eq!(service.readiness().0, 200);
    assert!(service.metric("footfall_journal_bytes") < f64::from(14 << 20));
}

/// The store is away, and batches of many pages of one site wait for it.
#[test]
fn a_site_that_fills_the_outbox_leaves_another_its_part() {
    let _turn = my_turn();
    let mut redis = RedisServer::start();
    redis.kill();
    let setup = Setup::default()
        .store(&redis.url())
        .set("outbox.max_bytes", "16 MiB")
        .set("journal.max_unsynced", "5m")
        .and("[[site]]\nkey = \"tin\"\nhosts = [\"tin.vn\"]\ntime_zone = \"Asia/Ho_Chi_Minh\"\n");
    let mut service = Service::start(setup);
    let mut taken = fill(&service, "many", ENDLESS, 30_000);
    // While the store is away a batch is made every ten seconds.
    until("no more is taken", || {
        let is_taken = service.send(&view("/a")).status == 204;
        taken += u64::from(is_taken);
        !is_taken
    });
    assert!(service.metric("footfall_bounds_reached_total{bound=\"outbox\"}") > 0.0);
    // A start knows what waits from before.
    service.begin();
    assert_eq!(service.send(&view("/a")).outcome(), (503, "journal-full".to_owned()));
    for reader in 0..100 {
        service.take(&view("/a").with("site", "tin").by(reader));
    }
    assert_eq!(service.readiness().0, 200);
    redis.restart();
    until("views are taken again", || service.send(&view("/a")).status == 204);
    service.until_applied();
    assert_eq!(service.counters(SITE)["views"]["all"], taken + 1);
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
