//! Days, weeks, months and years as the site's calendar has them.

use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::harness::{Setup, TestApp, view};
use crate::support::servers::RedisServer;
use crate::support::wait::until;

const MINUTE: Duration = Duration::from_secs(60);

/// The running buckets' views, once they are known.
fn views(app: &TestApp) -> Value {
    let mut shown = Value::Null;
    until("all figures are known", || {
        shown = app.get("/api/v1/sites/lamdong/counters").json();
        shown["views"].as_object().is_some_and(|views| views.len() == 5)
    });
    shown["views"].take()
}

/// What a site has counted in day, week, month, year and ever.
fn in_buckets(figures: [u64; 5]) -> Value {
    let [day, week, month, year, all] = figures;
    json!({"day": day, "week": week, "month": month, "year": year, "all": all})
}

fn send(app: &TestApp, number: usize) {
    for _ in 0..number {
        app.take(&view("/a").from("203.0.113.1"));
    }
}

/// From an instant over a boundary: what is counted before is seen after it in the buckets that go on.
#[track_caller]
fn crosses(setup: Setup, before: &str, buckets_after: Value, goes_on: [bool; 5]) {
    let mut app = TestApp::start_at(before, setup);
    send(&app, 3);
    app.pass(2 * MINUTE);
    let after = |later: u64| in_buckets(goes_on.map(|on| if on { 3 + later } else { later }));
    assert_eq!(app.counters()["buckets"], buckets_after);
    assert_eq!(views(&app), after(0));
    send(&app, 2);
    assert_eq!(views(&app), after(2));
    assert_eq!(app.page("/a")["views"], after(2), "pages have the same calendar");
    app.restart_after(MINUTE);
    assert_eq!(views(&app), after(2));
    assert_eq!(app.page("/a")["views"], after(2));
}

fn on_both_stores(before: &str, buckets_after: &Value, goes_on: [bool; 5]) {
    let redis = RedisServer::start();
    for setup in [Setup::default(), Setup::default().store(&redis.url())] {
        crosses(setup, before, buckets_after.clone(), goes_on);
    }
}

#[test]
fn a_day_ends_at_midnight_of_the_site() {
    let after = json!({"day": "2023-09-16", "week": "2023-W37", "month": "2023-09", "year": "2023"});
    on_both_stores("2023-09-15T23:59:00+07:00", &after, [false, true, true, true, true]);
}

#[test]
fn a_week_ends_on_sunday() {
    let after = json!({"day": "2023-09-18", "week": "2023-W38", "month": "2023-09", "year": "2023"});
    on_both_stores("2023-09-17T23:59:00+07:00", &after, [false, false, true, true, true]);
}

#[test]
fn a_month_may_end_within_a_week() {
    let after = json!({"day": "2024-03-01", "week": "2024-W09", "month": "2024-03", "year": "2024"});
    on_both_stores("2024-02-29T23:59:00+07:00", &after, [false, true, false, true, true]);
}

#[test]
fn a_year_may_end_within_a_week() {
    let after = json!({"day": "2027-01-01", "week": "2026-W53", "month": "2027-01", "year": "2027"});
    on_both_stores("2026-12-31T23:59:00+07:00", &after, [false, true, false, false, true]);
}

#[test]
fn a_week_that_begins_on_sunday_is_named_by_it() {
    let after = json!({"day": "2026-11-22", "week": "2026-11-22/P7D", "month": "2026-11", "year": "2026"});
    let setup = Setup::default().and("week_start = \"sunday\"");
    crosses(setup, "2026-11-21T23:59:00+07:00", after, [false, false, true, true, true]);
}

#[test]
fn a_day_begins_after_a_midnight_that_there_is_not() {
    // Where summer time begins at midnight the first hour is 01:00.
    let setup = Setup::default()
        .sites("[[site]]\nkey = \"lamdong\"\nhosts = [\"baolamdong.vn\"]\ntime_zone = \"Africa/Cairo\"");
    let after = json!({"day": "2024-04-26", "week": "2024-W17", "month": "2024-04", "year": "2024"});
    crosses(setup, "2024-04-25T23:59:00+02:00", after, [false, true, true, true, true]);
}

#[test]
fn sites_of_other_zones_have_other_days() {
    let setup = Setup::default()
        .and("[[site]]\nkey = \"paris\"\nhosts = [\"paris.example\"]\ntime_zone = \"Europe/Paris\"");
    let app = TestApp::start_at("2023-09-15T23:59:00+07:00", setup);
    send(&app, 1);
    app.take(&view("/a").with("site", "paris"));
    app.pass(2 * MINUTE);
    assert_eq!(app.counters()["buckets"]["day"], "2023-09-16");
    let paris = app.counters_of("paris");
    assert_eq!((&paris["buckets"]["day"], &paris["views"]["day"]), (&"2023-09-15".into(), &1.into()));
    assert_eq!(paris["at"], "2023-09-15T18:59:00+02:00");
}

#[test]
fn views_at_midnight_while_redis_is_down_stay_in_their_days() {
    let mut redis = RedisServer::lasting();
    let mut app = TestApp::start_at("2023-09-15T23:50:00+07:00", Setup::default().store(&redis.url()));
    send(&app, 2);
    app.page("/a");
    app.until_stale(false);
    redis.kill();
    app.pass(9 * MINUTE);
    send(&app, 3);
    app.pass(6 * MINUTE);
    send(&app, 4);
    app.until_stale(true);
    for restarted in [false, true] {
        if restarted {
            app.restart_after(MINUTE);
        }
        assert_eq!(views(&app), in_buckets([4, 9, 9, 9, 9]), "restarted: {restarted}");
        assert_eq!(app.page("/a")["views"], in_buckets([4, 9, 9, 9, 9]), "restarted: {restarted}");
        assert_eq!(app.counters()["visits"], in_buckets([0, 1, 1, 1, 1]));
        assert_eq!(app.counters()["visitors"]["day"], 1);
        assert_eq!(app.counters()["stale"], true);
    }
    redis.restart();
    app.until_stale(false);
    until("everything is known", || views(&app) == in_buckets([4, 9, 9, 9, 9]));
    app.stop();
    for (day, counted) in [("day:2023-09-15", 5), ("day:2023-09-16", 4)] {
        assert_eq!(redis.sum(day, "views"), Some(counted));
    }
}

#[test]
fn a_wall_clock_that_is_set_back_moves_nothing() {
    let redis = RedisServer::start();
    for setup in [Setup::default(), Setup::default().store(&redis.url())] {
        let mut app = TestApp::start_at("2023-09-15T23:58:00+07:00", setup);
        send(&app, 3);
        app.pass(4 * MINUTE);
        send(&app, 2);
        assert_eq!(views(&app), in_buckets([2, 5, 5, 5, 5]));
        app.step_to("2023-09-15T23:57:00+07:00");
        send(&app, 4);
        until("the day that is back is known", || views(&app) == in_buckets([7, 9, 9, 9, 9]));
        app.pass(5 * MINUTE);
        until("and so is the next", || views(&app) == in_buckets([2, 9, 9, 9, 9]));
        app.restart_after(MINUTE);
        assert_eq!(views(&app), in_buckets([2, 9, 9, 9, 9]));
    }
}

#[test]
fn a_wall_clock_that_is_set_back_over_midnight_begins_no_second_visit() {
    for back_to in ["2023-09-15T23:57:00+07:00", "2023-09-15T17:02:00+07:00"] {
        let mut app = TestApp::start_at("2023-09-16T00:02:00+07:00", Setup::default());
        let one_visit = |app: &TestApp| {
            let counters = app.counters();
            assert_eq!((&counters["visits"]["all"], &counters["online"]), (&1.into(), &1.into()));
        };
        send(&app, 2);
        app.step_to(back_to);
        send(&app, 2);
        until("the day that is back is known", || views(&app) == in_buckets([2, 4, 4, 4, 4]));
        one_visit(&app);
        app.restart_after(MINUTE);
        send(&app, 1);
        one_visit(&app);
        app.step_to("2023-09-16T00:03:00+07:00");
        send(&app, 1);
        one_visit(&app);
    }
}

/// No figure is missing for a moment, though the next flush is far away.
#[test]
fn a_wall_clock_that_is_stepped_is_answered_at_once() {
    let redis = RedisServer::start();
    for setup in [Setup::default(), Setup::default().store(&redis.url())] {
        let app = TestApp::start_at("2023-09-15T23:58:00+07:00", setup.set("store.flush_interval", "5m"));
        let shown = || app.counters()["views"].take();
        send(&app, 3);
        app.pass(4 * MINUTE);
        send(&app, 2);
        assert_eq!(shown(), in_buckets([2, 5, 5, 5, 5]));
        // By seconds, over midnight, by hours and by days; and on again.
        for (to, day) in [
            ("2023-09-16T00:01:57+07:00", 2),
            ("2023-09-15T23:57:00+07:00", 3),
            ("2023-09-15T17:02:00+07:00", 3),
            ("2023-09-13T12:00:00+07:00", 0),
            ("2023-09-15T12:00:00+07:00", 3),
            ("2023-09-16T00:03:00+07:00", 2),
            ("2023-09-17T08:00:00+07:00", 0),
        ] {
            app.step_to(to);
            assert_eq!(shown(), in_buckets([day, 5, 5, 5, 5]), "{to}");
            assert_eq!(app.page("/a")["views"]["day"], day, "{to}");
        }
    }
}

#[test]
fn a_wall_clock_that_jumps_ahead_ends_no_session() {
    let app = TestApp::start(Setup::default());
    send(&app, 1);
    app.step_to("2023-09-15T14:19:00+07:00");
    send(&app, 1);
    let counters = app.counters();
    assert_eq!((&counters["visits"]["all"], &counters["online"]), (&1.into(), &1.into()));
}

fn with_calendar(zone: &str, week_start: &str) -> String {
    format!(
        "[[site]]\nkey = \"lamdong\"\nhosts = [\"baolamdong.vn\"]\n\
         time_zone = \"{zone}\"\nweek_start = \"{week_start}\"\n"
    )
}

#[test]
fn a_new_first_day_of_the_week_sums_the_running_week_from_its_days() {
    let redis = RedisServer::start();
    let zone = "Asia/Ho_Chi_Minh";
    for url in ["embedded".to_owned(), redis.url()] {
        let setup = Setup::default().store(&url).sites(&with_calendar(zone, "monday"));
        // A Saturday.
        let mut app = TestApp::start_at("2026-11-21T12:00:00+07:00", setup);
        send(&app, 1);
        app.pass(24 * 60 * MINUTE);
        send(&app, 2);
        app.pass(24 * 60 * MINUTE);
        send(&app, 4);
        assert_eq!(views(&app), in_buckets([4, 4, 7, 7, 7]));
        app.set_sites(&with_calendar(zone, "sunday"));
        for restarts in 0..3 {
            app.restart_after(MINUTE);
            assert_eq!(app.counters()["buckets"]["week"], "2026-11-22/P7D");
            let later = restarts * 8;
            assert_eq!(views(&app), in_buckets([4 + later, 6 + later, 7 + later, 7 + later, 7 + later]));
            send(&app, 8);
        }
        app.set_sites(&with_calendar(zone, "monday"));
        app.restart_after(MINUTE);
        assert_eq!(views(&app), in_buckets([28, 28, 31, 31, 31]));
        assert_eq!(app.page("/a")["views"], in_buckets([28, 28, 31, 31, 31]));
        app.stop();
    }
    let mut client = redis.client();
    let mut hash = |name: &str, field: &str| {
        let key = format!("footfall:{{lamdong}}:{name}");
        client.ask(&[b"HGET", key.as_bytes(), field.as_bytes()]).text()
    };
    assert_eq!(hash("week:2026-11-22/P7D", "views"), "30");
    assert_eq!(hash("week:2026-W48", "views"), "28");
    assert_eq!(hash("meta", "calendar"), "Asia/Ho_Chi_Minh monday");
    assert_eq!(
        hash("meta", "calendar:2026-11-23T12:01:00+07:00"),
        "Asia/Ho_Chi_Minh monday to Asia/Ho_Chi_Minh sunday"
    );
}

#[test]
fn a_new_first_day_of_the_week_waits_for_a_store_that_is_away() {
    let mut redis = RedisServer::lasting();
    let zone = "Asia/Ho_Chi_Minh";
    let setup = Setup::default().store(&redis.url()).sites(&with_calendar(zone, "monday"));
    let mut app = TestApp::start_at("2026-11-22T12:00:00+07:00", setup);
    send(&app, 2);
    app.until_stale(false);
    redis.kill();
    app.pass(24 * 60 * MINUTE);
    send(&app, 4);
    app.set_sites(&with_calendar(zone, "sunday"));
    app.restart_after(MINUTE);
    send(&app, 8);
    // Of a week that another calendar cut nothing is known without the store: never a false figure.
    assert_eq!(app.get("/api/v1/sites/lamdong/counters").status, 503);
    redis.restart();
    until("figures are known", || app.get("/api/v1/sites/lamdong/counters").status == 200);
    app.until_stale(false);
    until("it is summed", || views(&app) == in_buckets([12, 14, 14, 14, 14]));
    app.restart_after(MINUTE);
    assert_eq!(views(&app), in_buckets([12, 14, 14, 14, 14]));
}

/// Between 00:00 and 03:00 of that day lie two hours.
#[test]
fn a_session_goes_on_over_a_midnight_after_which_clocks_are_set_forward() {
    for (begins, minutes, visits) in [
        ("2026-03-28T23:50:00+01:00", 170, 1),
        ("2026-03-28T23:10:00+01:00", 180, 1),
        ("2026-03-28T23:10:00+01:00", 181, 2),
    ] {
        let paris = "[[site]]\nkey = \"lamdong\"\nhosts = [\"baolamdong.vn\"]\ntime_zone = \"Europe/Paris\"";
        let app =
            TestApp::start_at(begins, Setup::default().sites(paris).set("sessions.visit_timeout", "3h"));
        send(&app, 1);
        app.pass(minutes * MINUTE);
        send(&app, 1);
        assert_eq!(app.counters()["visits"]["all"], visits, "{minutes} minutes after {begins}");
    }
}

#[test]
fn a_new_time_zone_holds_for_views_accepted_afterwards() {
    let redis = RedisServer::start();
    for url in ["embedded".to_owned(), redis.url()] {
        let setup = Setup::default().store(&url).sites(&with_calendar("Asia/Ho_Chi_Minh", "monday"));
        let mut app = TestApp::start_at("2026-11-24T01:00:00+07:00", setup);
        send(&app, 3);
        assert_eq!(views(&app), in_buckets([3, 3, 3, 3, 3]));
        // There it is the day before.
        app.set_sites(&with_calendar("America/New_York", "monday"));
        app.restart_after(MINUTE);
        assert_eq!(app.counters()["buckets"]["day"], "2026-11-23");
        assert_eq!(views(&app), in_buckets([0, 3, 3, 3, 3]));
        send(&app, 2);
        assert_eq!(views(&app), in_buckets([2, 5, 5, 5, 5]));
        app.pass(24 * 60 * MINUTE);
        let at_once = app.counters()["views"].take();
        assert_eq!(at_once, in_buckets([3, 5, 5, 5, 5]), "what was counted in that day stays there");
        app.stop();
    }
    let changed =
        redis.client().ask(&[b"HGET", b"footfall:{lamdong}:meta", b"calendar:2026-11-23T13:01:00-05:00"]);
    assert_eq!(changed.text(), "Asia/Ho_Chi_Minh monday to America/New_York monday");
}

#[test]
fn a_day_of_25_hours_and_one_of_23_are_days() {
    for (night, hours) in [("2026-10-25T00:30:00+02:00", 24), ("2026-03-29T00:30:00+01:00", 22)] {
        let setup = Setup::default().sites(&with_calendar("Europe/Paris", "monday"));
        let mut app = TestApp::start_at(night, setup);
        let day = app.counters()["buckets"]["day"].take();
        for hour in 1..=hours {
            send(&app, 1);
            assert_eq!(views(&app)["day"], hour);
            app.pass(60 * MINUTE);
            assert_eq!(app.counters()["buckets"]["day"], day, "hour {hour}");
        }
        app.restart_after(60 * MINUTE);
        assert_ne!(app.counters()["buckets"]["day"], day);
        assert_eq!(views(&app)["day"], 0);
    }
}

/// Its first turn is over, and the next is far away: nothing but views is written.
fn until_quiet(app: &TestApp, checkpoint: &mut Option<SystemTime>) {
    let written = || fs::metadata(app.data_dir().join("checkpoint")).and_then(|file| file.modified()).ok();
    until("the first turn has come to the checkpoint", || written() > *checkpoint);
    *checkpoint = written();
    // A page that is not known is asked of the writer, which answers between two turns.
    app.page("/nobody-reads-this");
}

/// Of each hour of a night how many views the store holds.
fn stored_hours(app: &TestApp, hours: &[&str]) -> Vec<(u64, u64)> {
    let sums = redb::TableDefinition::<&[u8], u64>::new("sums");
    let database = redb::Database::open(app.data_dir().join("totals.redb")).unwrap();
    let sums = redb::ReadableDatabase::begin_read(&database).unwrap().open_table(sums).unwrap();
    let sum = |hour: &str, total: &str| {
        let key = format!("lamdong/hour:{hour}\0{total}");
        sums.get(key.as_bytes()).unwrap().map_or(0, |sum| sum.value())
    };
    hours.iter().map(|hour| (sum(hour, "views"), sum(hour, "visits"))).collect()
}

/// The process is killed in each hour of a night in which the clocks are changed, and starts again in the next: what it
/// reads back stays in the hour and on the day in which it was accepted.
#[test]
fn killed_over_a_change_of_summer_time_each_view_stays_in_its_hour_and_day() {
    let autumn = [
        "2026-10-24T23+02:00",
        "2026-10-25T00+02:00",
        "2026-10-25T01+02:00",
        "2026-10-25T02+02:00",
        "2026-10-25T02+01:00",
        "2026-10-25T03+01:00",
    ];
    let spring = [
        "2026-03-28T23+01:00",
        "2026-03-29T00+01:00",
        "2026-03-29T01+01:00",
        "2026-03-29T03+02:00",
        "2026-03-29T04+02:00",
    ];
    for hours in [&autumn[..], &spring[..]] {
        let (date, rest) = hours[0].split_at(13);
        let setup = Setup::default()
            .sites(&with_calendar("Europe/Berlin", "monday"))
            .set("store.flush_interval", "5m")
            .set("checkpoint_interval", "1h");
        let mut app = TestApp::start_at(&format!("{date}:30:00{rest}"), setup);
        let (mut checkpoint, mut sent) = (None, Vec::new());
        for hour in hours {
            until_quiet(&app, &mut checkpoint);
            let number = sent.len() as u64 + 1;
            send(&app, number as usize);
            sent.push((number, 1));
            let shown = app.counters();
            assert!(shown["at"].as_str().unwrap().starts_with(&hour[..13]), "{hour}: {shown}");
            app.kill_and_begin_after(60 * MINUTE);
        }
        // What was last accepted is read back on another day.
        until_quiet(&app, &mut checkpoint);
        app.kill_and_begin_after(24 * 60 * MINUTE);
        let all: u64 = sent.iter().map(|(views, _)| views).sum();
        let figures = app.counters();
        assert_eq!((&figures["views"]["day"], &figures["views"]["all"]), (&0.into(), &all.into()));
        assert_eq!(figures["visits"]["all"], sent.len());
        app.stop();
        assert_eq!(stored_hours(&app, hours), sent, "{hours:?}");
    }
}
/// Twenty readers are twenty visits, visitors and online; the salts are those of so many days.
#[track_caller]
fn twenty_read(app: &TestApp, salts: usize) {
    (0..20).for_each(|reader| app.take(&view("/a").by(reader)));
    let (shown, counters) = (views(app), app.counters());
    assert_eq!(shown["day"], counters["views"]["all"], "{shown} {counters}");
    assert_eq!((counters["visits"]["day"].as_u64(), app.online()), (Some(20), 20), "{counters}");
    // An estimate: of twenty, two may look alike.
    assert!(counters["visitors"]["day"].as_u64().is_some_and(|all| (18..=20).contains(&all)), "{counters}");
    let kept = std::fs::read_to_string(app.data_dir().join("salts")).unwrap();
    assert_eq!(
        kept.lines().filter(|line| line.contains(" shared ") || line.contains(" drawn ")).count(),
        salts
    );
}

/// The salts of a day are there: the writer has looked at the clock.
fn until_drawn(app: &TestApp, day: &str) {
    let path = app.data_dir().join("salts");
    until("the salts of the day are drawn", || std::fs::read_to_string(&path).unwrap().contains(day));
}

#[test]
fn a_wall_clock_that_is_wrong_for_a_moment_makes_no_reader_another_one() {
    let redis = RedisServer::start();
    let moment = Duration::from_secs(14);
    for setup in [Setup::default(), Setup::default().store(&redis.url())] {
        for (wrong, drawn) in [("2023-09-18", "2023-09-19"), ("2023-09-12", "2023-09-13")] {
            for restarts in [[false, false], [true, false], [false, true]] {
                redis.client().ask(&[b"FLUSHALL"]);
                let mut app = TestApp::start(setup.clone());
                twenty_read(&app, 2);
                app.step_to(&format!("{wrong}T08:19:00+07:00"));
                until_drawn(&app, drawn);
                match restarts[0] {
                    true => app.restart_after(moment),
                    false => app.pass(moment),
                }
                app.step_to("2023-09-15T08:19:28+07:00");
                if restarts[1] {
                    app.restart_after(moment);
                }
                twenty_read(&app, 4);
                // What was drawn for a wrong day goes when it was not used for two days.
                app.pass(Duration::from_secs(49 * 3600));
                let kept = || std::fs::read_to_string(app.data_dir().join("salts")).unwrap();
                until("old salts are gone", || !kept().contains(drawn));
            }
        }
    }
}

#[test]
fn salts_are_gone_two_days_after_their_day() {
    let mut app = TestApp::start_at("2023-09-15T23:50:00+07:00", Setup::default());
    let kept = |app: &TestApp, day: &str| {
        std::fs::read_to_string(app.data_dir().join("salts")).unwrap().contains(day)
    };
    app.pass(20 * MINUTE);
    until_drawn(&app, "2023-09-17");
    for hours in [10, 37] {
        app.restart_after(hours * 60 * MINUTE);
        assert!(kept(&app, "2023-09-15"), "after {hours} hours");
    }
    app.restart_after(60 * MINUTE);
    until("it is gone", || !kept(&app, "2023-09-15"));
    assert!(kept(&app, "2023-09-16") && kept(&app, "2023-09-18"));
}
