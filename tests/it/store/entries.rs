//! What a person enters beside what is counted: opening balances, corrections, and how they are taken back.

use std::time::Duration;

use crate::support::harness::{SITE, Setup, TestApp, view};
use crate::support::servers::RedisServer;
use crate::support::service::Service;
use crate::support::wait::until;

const ARTICLE: &str = "/bai-viet/1.html";

/// The figures of the newspaper before the first beacon.
pub const PAST: &str = "site,total,period,bucket,page,value
lamdong,visits,all,all,,1316656
lamdong,visits,week,2023-W37,,10133
lamdong,visits,month,2023-09,,53735
lamdong,visits,year,2023,,634697
lamdong,views,all,all,https://www.baolamdong.vn/bai-viet/1.html,12
";

fn visits(app: &TestApp) -> [u64; 5] {
    visits_of(app, SITE)
}

pub fn visits_of(app: &TestApp, site: &str) -> [u64; 5] {
    let shown = app.counters_of(site);
    ["all", "day", "week", "month", "year"].map(|period| shown["visits"][period].as_u64().unwrap())
}

/// The figures of the page that footfall was made for.
#[track_caller]
fn are_those_of_the_seed(app: &TestApp) {
    are_those_of_the_seed_on(app, SITE, ARTICLE);
}

#[track_caller]
pub fn are_those_of_the_seed_on(app: &TestApp, site: &str, article: &str) {
    until("its figures are shown", || visits_of(app, site) == [1_316_717, 61, 10_194, 53_796, 634_758]);
    let shown = app.counters_of(site);
    assert_eq!((&shown["views"]["all"], &shown["stale"]), (&61.into(), &false.into()));
    let views = &app.page_of(site, article)["views"];
    assert_eq!((&views["all"], &views["month"]), (&13.into(), &1.into()), "a row fills its own bucket");
    let pages = app.get(&format!("/api/v1/sites/{site}/pages?page={article}")).json();
    assert_eq!(pages["pages"][0]["views"]["all"], 13);
    for (format, figures) in [
        ("html", ["001316717", "61", "10.194", "53.796", "634.758"]),
        ("fragment", ["001316717", "61", "10.194", "53.796", "634.758"]),
        ("text", ["001316717", "61", "10.194", "53.796", "634.758"]),
        ("json", ["1316717", "61", "10194", "53796", "634758"]),
    ] {
        let text = app.get(&format!("/widget/{site}?lang=vi&format={format}")).text().to_owned();
        for figure in figures {
            assert!(text.contains(figure), "{format} without {figure}: {text}");
        }
    }
}

fn seed(setup: Setup) -> TestApp {
    let mut app = TestApp::start(setup);
    // The views of the article are more than were accepted.
    app.compares_pages = false;
    app.until_stale(false);
    let file = app.write("past.csv", PAST);
    let said = app.ordered(&["import", &file, "--dry-run"]);
    assert!(said.contains("lamdong: visits all: 1316656 is entered, 0 was, shows 1316656"), "{said}");
    assert_eq!(visits(&app), [0; 5]);
    let said = app.ordered(&["import", &file, "--why", "the counter before"]);
    assert!(said.contains("lamdong: 5 values are entered, as 1"), "{said}");
    assert_eq!(visits(&app), [1_316_656, 0, 10_133, 53_735, 634_697], "shown at once");
    assert_eq!(app.page(ARTICLE)["views"]["all"], 12);
    for reader in 0..61 {
        let page = if reader == 7 { ARTICLE } else { "/" };
        app.take(&view(page).from(&format!("113.160.1.{reader}")));
    }
    are_those_of_the_seed(&app);
    let said = app.ordered(&["import", &file]);
    assert!(said.contains("nothing changes: the same was entered as 1"), "{said}");
    are_those_of_the_seed(&app);
    app
}

#[test]
fn the_seed_is_shown_exactly_and_is_there_after_a_kill() {
    let mut app = seed(Setup::default());
    until("all is applied", || app.metric("footfall_oldest_unapplied_timestamp_seconds") == 0.0);
    app.kill_and_begin_after(Duration::from_secs(3));
    are_those_of_the_seed(&app);
    app.restart_after(Duration::from_secs(3));
    are_those_of_the_seed(&app);
}

#[test]
fn a_redis_that_goes_back_under_the_seed_changes_nothing() {
    let mut redis = RedisServer::start();
    let mut app = seed(Setup::default().store(&redis.url()));
    until("all is applied", || app.metric("footfall_oldest_unapplied_timestamp_seconds") == 0.0);
    // Before the import, but for the data set itself.
    let mut client = redis.client();
    for bucket in ["all", "year:2023", "month:2023-09", "week:2023-W37", "all:pages", "entries"] {
        client.ask(&[b"DEL", RedisServer::key(bucket).as_bytes()]);
    }
    client.ask(&[b"SAVE"]);
    redis.restart();
    app.kill_and_begin_after(Duration::from_secs(3));
    are_those_of_the_seed(&app);
    until("it is healed", || redis.sum("all", "visits") == Some(61));
    let entry = redis.client().ask(&[b"HGET", RedisServer::key("all").as_bytes(), b"+visits"]).text();
    assert!(entry.starts_with("1316656 1 "), "{entry}");
    assert!(app.ordered(&["entries"]).contains("lamdong 1  2023-09-15T08:19:00+07:00"));
}

#[test]
fn an_entry_is_listed_and_undone() {
    let redis = RedisServer::start();
    for url in ["embedded".to_owned(), redis.url()] {
        let mut app = TestApp::start(Setup::default().store(&url));
        app.compares_pages = false;
        app.until_stale(false);
        app.read(3);
        let first = app.write("first.csv", "total,period,page,value\nvisits,all,,100\nviews,all,/a,50\n");
        app.ordered(&["import", &first, "--site", SITE]);
        assert_eq!((visits(&app)[0], &app.page("/a")["views"]["all"]), (100, &50.into()));
        app.take(&view("/a").by(77));
        let second = app.write("second.json", "[{\"total\":\"visits\",\"period\":\"all\",\"value\":-30}]");
        app.ordered(&["import", &second, "--site", SITE, "--add"]);
        until("a lower figure is shown", || visits(&app)[0] == 71);
        app.ordered(&["import", &second, "--site", SITE, "--add"]);
        assert_eq!(visits(&app)[0], 71, "the same file twice");
        let (code, said) = app.order(&["entries", "undo", "1"]);
        assert!(code == 1 && said.contains("visits all was entered anew as 2: undo that first"), "{said}");
        let said = app.ordered(&["entries"]);
        assert!(said.contains("lamdong 2  ") && said.contains("import --add second.json sha256:"), "{said}");
        assert!(
            app.ordered(&["entries", "show", "2"]).contains("lamdong: visits all 97 became 67"),
            "{said}"
        );
        app.ordered(&["entries", "undo", "2", "--why", "a mistake"]);
        assert_eq!(visits(&app)[0], 101);
        let said = app.ordered(&["entries", "undo", "1", "--dry-run"]);
        assert!(said.contains("lamdong: visits all: 0 is entered, 97 was"), "{said}");
        app.ordered(&["import", &first, "--site", SITE, "--add"]);
        assert_eq!(visits(&app)[0], 201, "entered in another way it is another entry");
        app.ordered(&["entries", "undo", "4"]);
        app.ordered(&["entries", "undo", "1"]);
        assert_eq!((visits(&app)[0], &app.page("/a")["views"]["all"]), (4, &4.into()));
        app.ordered(&["entries", "undo", "6"]);
        assert_eq!(visits(&app)[0], 101, "what was undone is entered again");
        let said = app.ordered(&["verify"]);
        assert!(said.contains("everything agrees") && said.contains("all +visits 97"), "{said}");
        assert!(said.contains("all:pages + (all pages) 47"), "{said}");
    }
}

#[test]
fn all_faults_are_told_with_their_lines_and_nothing_is_entered() {
    let redis = RedisServer::start();
    let mut service = Service::start(Setup::default());
    service.read(2);
    service.write(
        "faults.csv",
        "site;total;period;bucket;page;value
lamdong;visits;all;all;;500
nobody;visits;all;all;;1
lamdong;visits;day;2026-02-30;;1
lamdong;visits;week;2025-W53;;1
lamdong;visits;month;2026-13;;1
lamdong;visits;day;2999-01-01;;1
lamdong;hits;all;all;;1
lamdong;visits;all;all;/a;1
lamdong;views;all;all;https://elsewhere.example/a;1
lamdong;visits;all;all;;1.000
lamdong;visits;all;all;;9007199254740992
lamdong;visits;all;all;;-1
lamdong;visitors;hour;current;;1
",
    );
    let (code, said) = service.order(&["import", "faults.csv"]);
    assert_eq!(code, 1, "{said}");
    for line in 3..=14 {
        assert!(said.contains(&format!("line {line}: ")), "line {line} of {said}");
    }
    assert!(!said.contains("line 2:") && said.contains("nothing is entered"), "{said}");
    service.write("nest.csv", "total,period,bucket,value\nvisits,month,2020-05,7\nvisits,year,2020,9\n");
    let (code, said) = service.order(&["import", "nest.csv", "--site", SITE]);
    assert!(
        code == 1 && said.contains("line 3: lamdong: visits 2020 would have 9 entered, and all"),
        "{said}"
    );
    assert_eq!(service.counters(SITE)["visits"]["all"], 2);
    assert!(service.ordered(&["entries"]).contains("nothing was entered"));
    // What follows is entered while it does not run.
    service.write(
        "days.csv",
        "total,period,bucket,page,value\nvisits,day,2020-05-30,,7\nvisits,day,2020-06-01,,5\nvisitors,day,2020-06-01,,3\n",
    );
    service.write("pages.csv", "total,period,bucket,page,value\nviews,month,2020-06,/a,40\nviews,year,2020,/a,40\nviews,all,,/a,42\n");
    service.stop();
    service.ordered(&["import", "pages.csv", "--site", SITE]);
    service.ordered(&["import", "days.csv", "--site", SITE, "--roll-up"]);
    service.begin();
    assert_eq!(service.counters(SITE)["visits"]["all"], 14);
    assert_eq!(service.counters(SITE)["visitors"]["all"], 5);
    assert_eq!(service.page(SITE, "/a"), 42);
    let said = service.ordered(&["verify"]);
    for beside in ["month:2020-05 +visits 7", "month:2020-06 +visits 5", "year:2020 +visits 12"] {
        assert!(said.contains(beside), "{said}");
    }
    // Again, with one day corrected: the longer buckets follow.
    service.write("days.csv", "total,period,bucket,value\nvisits,day,2020-06-01,6\n");
    service.ordered(&["import", "days.csv", "--site", SITE, "--roll-up"]);
    assert_eq!(service.counters(SITE)["visits"]["all"], 15);
    service.ordered(&["migrate", "store", &redis.url()]);
    service.stop();
    service.set("store.url", &redis.url());
    service.begin();
    assert_eq!(service.counters(SITE)["visits"]["all"], 15);
    assert_eq!(service.page(SITE, "/a"), 42);
    assert!(service.ordered(&["entries"]).contains("lamdong 3  "));
    service.ordered(&["entries", "undo", "3"]);
    assert_eq!(service.counters(SITE)["visits"]["all"], 14);
}

#[test]
fn rows_may_speak_of_the_beginning_of_a_day() {
    let mut app = TestApp::start(Setup::default());
    app.compares_pages = false;
    app.read(2);
    app.pass(Duration::from_secs(24 * 3600));
    app.read(3);
    until("the next day is shown", || app.counters()["visits"]["day"] == 3);
    let file = app.write(
        "past.csv",
        "total,period,bucket,page,value\nvisits,all,,,102\nvisits,year,current,,52\nviews,year,current,/a,12\nviews,all,,/a,12\nvisitors,all,,,1002\n",
    );
    app.ordered(&["import", &file, "--site", SITE, "--as-of", "2023-09-16"]);
    let shown = app.counters();
    assert_eq!((&shown["visits"]["all"], &shown["visits"]["year"]), (&105.into(), &55.into()));
    assert_eq!((&shown["visitors"]["all"], &shown["visitors"]["day"]), (&1005.into(), &3.into()));
    let page = app.page("/a");
    assert_eq!((&page["views"]["year"], &page["views"]["all"]), (&15.into(), &15.into()));
    let (code, said) = app.order(&["import", &file, "--site", SITE, "--as-of", "2023-09-18"]);
    assert!(code == 1 && said.contains("future"), "{said}");
}

#[test]
fn a_day_is_adjusted_with_every_longer_bucket() {
    let redis = RedisServer::start();
    for url in ["embedded".to_owned(), redis.url()] {
        let mut service = Service::start(Setup::default().store(&url));
        service.read(3);
        service.take(&view("/b").by(9));
        let shown = |service: &Service| {
            let of = |total: &str| {
                let shown = &service.counters(SITE)[total];
                ["day", "week", "month", "year", "all"].map(|period| shown[period].as_u64().unwrap())
            };
            (of("visits"), of("visitors"), service.page(SITE, "/b"))
        };
        let adjust = ["adjust", "--site", SITE, "--day", "current"];
        let with = |more: &[&'static str]| [&adjust, more].concat();
        let said = service.ordered(&with(&["visits", "-2", "--why", "a robot"]));
        assert!(said.contains("lamdong: 5 values are entered, as 1"), "{said}");
        service.ordered(&with(&["visitors", "+7"]));
        service.ordered(&with(&["views", "10", "--page", "/b"]));
        assert_eq!(shown(&service), ([2; 5], [11; 5], 11));
        let (code, said) = service.order(&with(&["visits", "-3"]));
        assert!(
            code == 1 && said.contains(": lamdong: visits 20") && said.contains("would show -1"),
            "{said}"
        );
        let said = service.ordered(&with(&["visits", "-2", "--dry-run"]));
        assert!(said.contains("visits all: -4 is entered, -2 was, shows 0"), "{said}");
        assert_eq!(shown(&service), ([2; 5], [11; 5], 11));
        service.stop();
        service.ordered(&with(&["visits", "-2"]));
        service.begin();
        assert_eq!(shown(&service).0, [0; 5], "entered while it did not run");
        assert!(service.ordered(&["entries"]).contains("  adjust  5 values: a robot"));
        service.ordered(&["entries", "undo", "4"]);
        service.ordered(&["entries", "undo", "1"]);
        service.ordered(&["entries", "undo", "3"]);
        assert_eq!(shown(&service), ([4; 5], [11; 5], 1));
        // What only a longer bucket lacks is seen, too.
        service.write("less.csv", "total,period,bucket,value\nvisits,year,current,-3\n");
        service.ordered(&["import", "less.csv", "--add", "--site", SITE]);
        let (code, said) = service.order(&with(&["visits", "-2"]));
        assert!(code == 1 && said.contains("would show -1"), "{said}");
        let (code, said) = service.order(&["adjust", "--site", SITE, "--day", "2026-02-30", "visits", "1"]);
        assert!(code == 1 && said.contains("\"2026-02-30\" is no day"), "{said}");
    }
}
