//! What rows name: pages however they are written, buckets that are kept, buckets that hold each other.

use std::fmt::Write;
use std::time::Duration;

use crate::support::harness::{SITE, Setup, TestApp, view};
use crate::support::http::BROWSER;
use crate::support::servers::RedisServer;
use crate::support::wait::until;

const HEAD: &str = "total,period,bucket,page,value\n";

fn app(setup: Setup) -> TestApp {
    let mut app = TestApp::start(setup);
    // Of what is entered no view was taken.
    app.compares_pages = false;
    app.until_stale(false);
    app
}

#[track_caller]
fn import(app: &TestApp, rows: &str, arguments: &[&str]) -> String {
    let file = app.write("rows.csv", &format!("{HEAD}{rows}"));
    app.ordered(&[&["import", &file, "--site", SITE], arguments].concat())
}

#[track_caller]
fn refused(app: &TestApp, rows: &str, arguments: &[&str], faults: &[&str]) {
    let file = app.write("rows.csv", &format!("{HEAD}{rows}"));
    let (code, said) = app.order(&[&["import", &file, "--site", SITE], arguments].concat());
    assert!(code == 1 && said.trim_end().ends_with("nothing is entered"), "{said}");
    for fault in faults {
        assert!(said.contains(fault), "no {fault:?} in {said}");
    }
}

fn of_page(app: &TestApp, page: &str) -> [u64; 5] {
    let views = app.page(page)["views"].take();
    ["all", "year", "month", "week", "day"].map(|period| views[period].as_u64().unwrap())
}

fn of_site(app: &TestApp) -> [u64; 3] {
    let views = app.counters()["views"].take();
    ["all", "year", "month"].map(|period| views[period].as_u64().unwrap())
}

#[test]
fn a_page_that_is_written_in_two_ways_is_never_taken_for_one_row() {
    let app = app(Setup::default());
    app.ordered(&["pages", "move", "--site", SITE, "/old", "/a"]);
    let rows = "views,all,,/a,10\nviews,all,,/a/,5\nviews,all,,/b,1\n\
                views,all,,https://www.baolamdong.vn/a/index.html?utm_source=x,2\nviews,all,,/old,3\n";
    refused(
        &app,
        rows,
        &[],
        &[
            "line 3: /a/ is the same page as /a in line 2: give one row with the sum",
            "line 5: https://www.baolamdong.vn/a/index.html?utm_source=x is the same page as /a",
            "line 6: /old is the same page as /a in line 2",
        ],
    );
    import(&app, rows, &["--add"]);
    assert_eq!((of_page(&app, "/a")[0], of_page(&app, "/b")[0]), (20, 1));
    import(&app, "views,all,,/a,10\nviews,all,,/a,11\n", &[]);
    assert_eq!(of_page(&app, "/a")[0], 11, "a later row of the same page takes the place of the earlier one");
}

#[test]
fn what_begins_before_the_web_is_refused_and_costs_no_start() {
    let mut app = app(Setup::default());
    for (period, bucket) in
        [("day", "0000-01-01"), ("week", "1800-W03"), ("month", "1989-12"), ("year", "0001")]
    {
        let fault = format!("{bucket} begins before 1990");
        refused(&app, &format!("visits,{period},{bucket},,3\n"), &[], &[&fault]);
    }
    let adjust = ["adjust", "--site", SITE, "--day", "0000-01-01", "visits", "3"];
    assert!(app.order(&adjust).1.contains("0000-01-01 begins before 1990"));
    import(&app, "visits,day,1990-01-01,,3\n", &["--roll-up"]);
    app.restart_after(Duration::from_secs(1));
    assert_eq!(app.counters()["visits"]["all"], 3);
}

#[test]
fn days_of_pages_that_are_not_kept_count_in_their_months_or_are_left_out() {
    let redis = RedisServer::start();
    for url in ["embedded".to_owned(), redis.url()] {
        let mut app = app(Setup::default().set("totals.page_days", "7").store(&url));
        app.read(1);
        let rows = "views,day,2023-09-07,/a,5\nviews,week,2023-W36,/a,6\nviews,day,2023-09-08,/a,1\n\
                    views,month,2023-09,/a,7\nviews,year,2023,/a,8\nviews,all,,/a,9\n";
        let said = import(&app, rows, &[]);
        // The week ends with a day that is kept.
        assert!(
            said.contains("left out: 1 rows of pages by day or week") && said.contains("5 values"),
            "{said}"
        );
        assert_eq!(of_page(&app, "/a"), [9, 8, 7, 1, 1]);
        // As another counter tells it: nothing but days.
        let mut days = String::new();
        (1..=14).for_each(|day| writeln!(days, "views,day,2023-09-{day:02},/b,2").unwrap());
        import(&app, &days, &["--roll-up"]);
        assert_eq!(of_page(&app, "/b")[..3], [28, 28, 28]);
        assert!(import(&app, &days, &["--roll-up"]).contains("nothing changes"));
        assert_eq!(of_page(&app, "/b")[..3], [28, 28, 28], "the same file twice");
        for number in 2..5 {
            let number = number.to_string();
            app.ordered(&["entries", "undo", "--site", SITE, &number]);
            assert_eq!(of_page(&app, "/b")[0], if number == "3" { 28 } else { 0 }, "undo {number}");
        }
        if url != "embedded" {
            let held = |day: &str| redis.sum(&format!("day:{day}:pages"), "+/b");
            assert_eq!(held("2023-09-07"), None, "it is not kept");
            let keys = redis.client().ask(&[b"EXISTS", RedisServer::key("day:2023-09-07:pages").as_bytes()]);
            assert_eq!(format!("{keys:?}"), "Int(0)");
        }
        assert!(app.ordered(&["verify"]).contains("everything agrees"));
        app.restart_after(Duration::from_secs(1));
        assert_eq!(of_page(&app, "/b")[0], 0);
    }
}

#[test]
fn no_bucket_has_more_entered_than_one_that_holds_it() {
    let app = app(Setup::default());
    import(
        &app,
        "views,all,,,1000\nviews,year,2022,,500\nviews,month,2022-03,,400\nviews,week,2022-W10,,90\n",
        &[],
    );
    refused(&app, "views,all,,,450\n", &[], &["line 2: lamdong: views 2022 would have 500 entered, and all"]);
    refused(
        &app,
        "views,all,,,450\nviews,year,2022,,300\n",
        &[],
        &["views 2022-03 would have 400 entered, and 2022"],
    );
    refused(
        &app,
        "views,all,,,80\nviews,year,2022,,70\nviews,month,2022-03,,0\n",
        &[],
        &["views 2022-W10 would have 90"],
    );
    refused(&app, "views,year,2021,,1001\n", &[], &["line 2: lamdong: views 2021 would have 1001 entered"]);
    import(&app, "views,all,,,450\nviews,year,2022,,300\nviews,month,2022-03,,0\n", &[]);
    import(&app, "views,month,2022-04,,300\n", &[]);
    let (code, said) = app.order(&["entries", "undo", "1"]);
    assert!(code == 1 && said.contains("was entered anew as 2: undo that first"), "{said}");
    app.ordered(&["entries", "undo", "2"]);
    let (code, said) = app.order(&["entries", "undo", "1"]);
    let fault = "lamdong: views 2022-04 would have 300 entered, and 2022, which holds it, only 0";
    assert!(code == 1 && said.contains(fault), "{said}");
    app.ordered(&["entries", "undo", "3"]);
    app.ordered(&["entries", "undo", "1"]);
    assert_eq!(of_site(&app)[0], 0);
}

#[test]
fn what_was_added_is_not_added_again_though_something_else_was_entered_since() {
    let app = app(Setup::default());
    let rows = "visits,day,2023-09-14,,100\nvisits,day,2023-09-13,,7\n";
    let visits = || app.counters()["visits"]["all"].as_u64().unwrap();
    import(&app, rows, &["--add", "--roll-up"]);
    app.ordered(&["adjust", "--site", SITE, "--day", "2023-09-14", "visits", "1"]);
    assert_eq!(visits(), 108);
    assert!(
        import(&app, rows, &["--add", "--roll-up"]).contains("nothing changes: the same was entered as 1")
    );
    assert_eq!(visits(), 108);
    app.ordered(&["entries", "undo", "2"]);
    app.ordered(&["entries", "undo", "1"]);
    import(&app, rows, &["--add", "--roll-up"]);
    assert_eq!(visits(), 107, "what was undone is entered anew");
    app.ordered(&["entries", "undo", "5"]);
    app.ordered(&["entries", "undo", "6"]);
    assert!(
        import(&app, rows, &["--add", "--roll-up"]).contains("nothing changes: the same was entered as 5")
    );
    assert_eq!(visits(), 107, "it stands again");
}

#[test]
fn an_entry_is_found_on_whichever_site_it_is() {
    let setup = Setup::default().sites(
        "[[site]]\nkey = \"berlin\"\nhosts = [\"berlin.example\"]\ntime_zone = \"Europe/Berlin\"\n\n[[site]]\nkey = \"lamdong\"\n\
         hosts = [\"baolamdong.vn\"]\ntime_zone = \"Asia/Ho_Chi_Minh\"\n",
    );
    let app = app(setup);
    import(&app, "visits,all,,,1\n", &["--why", "two\u{1b}[2J\nlines"]);
    import(&app, "visits,all,,,2\n", &[]);
    let said = app.ordered(&["entries"]);
    assert!(said.contains(": two [2J lines\n") && said.lines().count() == 2, "{said:?}");
    assert!(app.ordered(&["entries", "show", "2"]).contains("lamdong: visits all 1 became 2"));
    app.ordered(&["entries", "undo", "2"]);
    let file = app.write("berlin.csv", "total,period,value\nvisits,all,4\n");
    app.ordered(&["import", &file, "--site", "berlin"]);
    for (what, fault) in [("9", "there is no entry 9"), ("1", "several sites have an entry 1")] {
        let (code, said) = app.order(&["entries", "undo", what]);
        assert!(code == 1 && said.contains(fault), "{said}");
    }
    let (code, said) = app.order(&["entries", "show", "9"]);
    assert!(code == 1 && said.contains("there is no entry 9"), "{said}");
    app.ordered(&["entries", "undo", "1", "--site", "berlin"]);
}

#[test]
fn logs_are_counted_for_what_their_pages_are_shown_as() {
    let redis = RedisServer::start();
    let app = app(Setup::default().store(&redis.url()));
    app.take(&view("/gone"));
    app.ordered(&["pages", "move", "--site", SITE, "/old", "/new"]);
    app.ordered(&["adjust", "--site", SITE, "--day", "current", "--page", "/gone", "views", "4"]);
    app.ordered(&["pages", "move", "--site", SITE, "/went", "/gone"]);
    let erase = ["erase", "--site", SITE, "--page", "/gone"];
    let said = app.ordered(&[&erase[..], &["--dry-run"]].concat());
    let what = "its 1 views and of /went become part of (other), and 4 entered ones are gone";
    assert!(said.contains(what), "{said}");
    app.ordered(&erase);
    let mut log = String::new();
    for day in ["01/Jul/2023", "02/Jul/2023", "03/Jul/2023"] {
        for (number, page) in ["/old", "/old", "/old", "/new", "/new", "/gone", "/x"].iter().enumerate() {
            let time = format!("{day}:00:{number:02}:00 +0700");
            writeln!(log, r#"203.0.113.{number} - - [{time}] "GET {page} HTTP/1.1" 200 9 "-" "{BROWSER}""#)
                .unwrap();
        }
    }
    let log = app.write("access.log", &log);
    let backfill = || app.ordered(&["backfill", "--site", SITE, &log]);
    let said = backfill();
    assert_eq!(said.matches("are entered").count(), 2, "{said}");
    let shown =
        || [of_site(&app)[0], of_page(&app, "/new")[0], of_page(&app, "/x")[0], of_page(&app, "/gone")[0]];
    until("all of it is shown", || shown() == [15, 10, 2, 0]);
    let other = || {
        let rows = app.ordered(&["export", "--site", SITE]);
        let row = rows.lines().find(|row| row.starts_with("lamdong,views,month,2023-07,\"(other)\""));
        row.map(str::to_owned).unwrap_or_default()
    };
    assert_eq!(other(), "lamdong,views,month,2023-07,\"(other)\",2,2");
    // Its days of pages are not kept any more: what is undone is known nevertheless, and so is what that undid.
    let entries = app.ordered(&["entries"]);
    let last = entries.lines().last().unwrap().split(' ').nth(1).unwrap().parse::<u64>().unwrap();
    app.ordered(&["entries", "undo", &last.to_string()]);
    until("a day is taken back", || shown() == [8, 5, 1, 0]);
    app.ordered(&["entries", "undo", &(last + 1).to_string()]);
    until("it is there again", || shown() == [15, 10, 2, 0]);
    assert_eq!(other(), "lamdong,views,month,2023-07,\"(other)\",2,2");
    let keys = redis.client().ask(&[b"KEYS", b"*day:2023-07-0?:pages"]);
    assert_eq!(format!("{keys:?}"), "Array([])");
    assert!(app.ordered(&["verify"]).contains("everything agrees"));
    for entry in [last - 1, last + 2] {
        app.ordered(&["entries", "undo", &entry.to_string()]);
    }
    until("what beacons counted remains", || shown() == [1, 0, 0, 0]);
}
