//! How long views of pages are kept by day.

use std::time::Duration;

use crate::support::harness::{SITE, Setup, TestApp, view};
use crate::support::servers::RedisServer;
use crate::support::wait::until;

const A_DAY: Duration = Duration::from_secs(24 * 3600);

fn setup(store: &str) -> Setup {
    Setup::default().set("totals.page_days", "7").store(store)
}

/// Days go by, on each of which a page is read.
fn days_pass(app: &mut TestApp, days: u32) {
    for _ in 0..days {
        app.restart_after(A_DAY);
        app.take(&view("/b"));
    }
}

#[track_caller]
fn agrees(app: &TestApp) {
    let (code, said) = app.order(&["verify"]);
    assert!(code == 0 && said.contains("everything agrees"), "{said}");
}

#[test]
fn old_days_of_pages_are_removed_and_everything_else_stays() {
    let redis = RedisServer::start();
    for url in ["embedded".to_owned(), redis.url()] {
        // A month ends meanwhile.
        let mut app = TestApp::start_at("2023-09-27T08:19:00+07:00", setup(&url));
        app.read(7);
        days_pass(&mut app, 7);
        let days = [
            "2023-09-27",
            "2023-09-28",
            "2023-09-29",
            "2023-09-30",
            "2023-10-01",
            "2023-10-02",
            "2023-10-03",
            "2023-10-04",
            "2023-10-05",
            "2023-10-06",
        ];
        assert_eq!(app.stored_page_days(), days[..8]);
        days_pass(&mut app, 2);
        assert_eq!(app.stored_page_days(), days[2..]);
        agrees(&app);
        app.restart_after(A_DAY);
        let (a, b) = (app.page("/a")["views"].take(), app.page("/b")["views"].take());
        let periods = ["day", "week", "month", "year", "all"];
        assert_eq!(periods.map(|period| a[period].as_u64().unwrap()), [0, 0, 0, 7, 7]);
        assert_eq!(periods.map(|period| b[period].as_u64().unwrap()), [0, 5, 6, 9, 9]);
        assert_eq!(app.counters()["views"]["year"], 16);
    }
}

#[test]
fn what_another_instance_brings_late_counts_in_all_but_what_is_pruned() {
    let mut redis = RedisServer::lasting();
    let mut late = TestApp::start_at("2023-09-15T08:19:00+07:00", setup(&redis.url()));
    let mut app = TestApp::start_at("2023-09-15T08:19:00+07:00", setup(&redis.url()));
    late.read(1);
    until("it is applied", || redis.sum("day:2023-09-15:pages", "/a") == Some(1));
    // In a batch that waits.
    late.stop();
    redis.kill();
    late.restart_after(Duration::from_secs(60));
    late.read(2);
    late.stop();
    redis.restart();
    app.until_tried();
    days_pass(&mut app, 9);
    assert_eq!(app.stored_page_days()[0], "2023-09-17");
    late.restart_after(9 * A_DAY);
    until("the rest is applied", || redis.views() == 12);
    assert_eq!((redis.sum("all:pages", "/a"), redis.sum("month:2023-09:pages", "/a")), (Some(3), Some(3)));
    assert_eq!(redis.sum("day:2023-09-15", "views"), Some(3));
    assert_eq!(redis.sum("day:2023-09-15:pages", "/a"), None);
    assert_eq!(late.metric("footfall_losses_total{cause=\"store\"}"), 0.0);
    agrees(&late);
    late.forget_what_was_accepted();
    app.forget_what_was_accepted();
}

#[test]
fn a_redis_that_goes_back_before_it_was_pruned_is_pruned_again() {
    let mut redis = RedisServer::start();
    let mut app = TestApp::start_at("2023-09-15T08:19:00+07:00", setup(&redis.url()));
    app.read(4);
    days_pass(&mut app, 7);
    until("all is applied", || redis.views() == 11);
    redis.client().ask(&[b"SAVE"]);
    days_pass(&mut app, 3);
    let kept = app.stored_page_days();
    assert_eq!((&*kept[0], kept.len()), ("2023-09-18", 8));
    redis.restart();
    assert_eq!(app.stored_page_days()[0], "2023-09-15");
    app.restart_after(Duration::from_secs(5));
    until("it is healed", || redis.views() == 14);
    assert_eq!(app.metric("footfall_losses_total{cause=\"store\"}"), 0.0);
    assert_eq!(app.stored_page_days(), kept);
}

#[test]
fn pages_that_hardly_anybody_read_are_folded_once_nobody_does() {
    let redis = RedisServer::start();
    for url in ["embedded".to_owned(), redis.url()] {
        let setup = setup(&url).set("totals.fold_below", "3");
        let mut app = TestApp::start_at("2023-09-27T08:19:00+07:00", setup);
        // What is folded is shown no more.
        app.compares_pages = false;
        app.read(3);
        for page in ["/made/up", "/made/up", "/seldom", "/%20"] {
            app.take(&view(page));
        }
        days_pass(&mut app, 7);
        app.take(&view("/seldom"));
        let all = |app: &TestApp, page: &str| app.page(page)["views"]["all"].as_u64().unwrap();
        let shown = |app: &TestApp| ["/a", "/made/up", "/seldom", "/%20"].map(|page| all(app, page));
        app.restart_after(Duration::from_secs(5));
        assert_eq!(shown(&app), [3, 2, 2, 1]);
        for _ in 0..2 {
            days_pass(&mut app, 1);
            app.stop();
        }
        app.restart_after(Duration::from_secs(5));
        until("what is folded is shown no more", || shown(&app) == [3, 0, 2, 0]);
        agrees(&app);
        app.take(&view("/made/up"));
        until("it begins anew", || all(&app, "/made/up") == 1);
        assert_eq!(app.counters()["views"]["all"], 4 + 3 + 9 + 1 + 1);
    }
}

#[test]
fn pages_cannot_be_told_as_of_a_day_that_is_not_kept() {
    let app = TestApp::start(setup("embedded"));
    app.until_stale(false);
    let file = app.write(
        "month.csv",
        "total,period,bucket,page,value\nviews,month,2023-09,/a,5\nviews,year,2023,/a,5\nviews,all,,/a,5\n",
    );
    let (code, said) = app.order(&["import", &file, "--site", SITE, "--as-of", "2023-09-07"]);
    assert!(code == 1 && said.contains("line 2: views of pages are kept by day from 2023-09-08"), "{said}");
    let (code, said) = app.order(&["import", &file, "--site", SITE, "--as-of", "2023-09-08"]);
    assert_eq!(code, 0, "{said}");
}
