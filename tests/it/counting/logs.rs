//! Access logs of the past, counted as beacons are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use chrono::DateTime;
use serde_json::json;

use crate::support::harness::{SITE, Setup, TestApp, view};
use crate::support::servers::RedisServer;
use crate::support::service::Service;
use crate::support::wait::until;

const AGENTS: [&str; 2] =
    ["Mozilla/5.0 (X11; Linux x86_64) Gecko/1", "Mozilla/5.0 (Linux; Android 13; SM-A135F) Gecko/1"];

const PATHS: [&str; 5] =
    ["/", "/index.html?utm_source=zalo", "/tin/%C4%91%C3%A0-l%E1%BA%A1t/", "//tin/a", "/tin/../tin/a?b=1"];

/// Views of one evening until after midnight, sent as beacons and written as a log, add up to the same.
#[test]
fn a_log_adds_up_to_what_beacons_of_its_views_count() {
    let app = TestApp::start_at("2023-09-15T22:30:00+07:00", Setup::default());
    let mut log = String::new();
    let mut at = chrono::DateTime::parse_from_rfc3339("2023-09-15T15:30:00+00:00").unwrap();
    let mut days = Vec::new();
    for number in 0..60_usize {
        let (client, agent, path) = (number * 7 % 5, AGENTS[number % 2], PATHS[number * 3 % 5]);
        let address = format!("203.0.113.{client}");
        app.take(&view(&format!("https://baolamdong.vn{path}")).from(&address).header("user-agent", agent));
        let time = at.format("%d/%b/%Y:%H:%M:%S %z");
        writeln!(log, r#"{address} - - [{time}] "GET {path} HTTP/1.1" 200 9 "-" "{agent}""#).unwrap();
        let pause = Duration::from_secs([20, 400, 31 * 60][number % 17 / 8]);
        if number == 59 || at.timestamp() < 1_694_797_200 && (at + pause).timestamp() >= 1_694_797_200 {
            until("what was sent is shown", || app.counters()["views"]["all"] == json!(number + 1));
            let shown = app.counters();
            days.push(["day", "views", "visits", "visitors"].map(|total| match total {
                "day" => shown["buckets"]["day"].as_str().unwrap().to_owned(),
                total => shown[total]["day"].to_string(),
            }));
        }
        app.pass(pause);
        at += pause;
    }
    let mut service = Service::start(Setup::default());
    service.stop();
    service.write("access.log", &log);
    let arguments = ["backfill", "--site", SITE, "--until", "2023-09-16", "--dry-run", "access.log"];
    let said = service.ordered(&arguments);
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("warning: the first view")).collect();
    assert_eq!((lines.len(), days.len()), (2, 2), "{said}");
    for (line, [day, views, visits, visitors]) in lines.into_iter().zip(days) {
        let rest = line.strip_prefix(&format!("{day}: {views} views, {visits} visits, "));
        let end = " visitors, 3 pages: would be entered: nothing is counted of it";
        let estimate = rest.and_then(|rest| rest.strip_suffix(end)).expect(line);
        // The salts differ: two hashes may fall together in one of the two.
        let [estimate, visitors] = [estimate, &visitors].map(|number| number.parse::<i64>().unwrap());
        assert!((estimate - visitors).abs() <= 1, "{line} {visitors}");
    }
}

/// Logs of two servers that share the readers, line by line.
struct Logs {
    of_servers: [String; 2],
    days: BTreeMap<String, Plain>,
}

/// What a day adds up to, counted by nothing of the service's own.
#[derive(Clone, Debug, Default, PartialEq)]
struct Plain {
    views: i64,
    visits: i64,
    visitors: BTreeSet<(usize, usize)>,
    pages: BTreeMap<String, i64>,
}

/// From 11 to 15 September, and the first view of the 16th.
fn logs() -> Logs {
    let mut logs = Logs { of_servers: Default::default(), days: BTreeMap::new() };
    let mut at = DateTime::parse_from_rfc3339("2023-09-11T00:01:00+07:00").unwrap();
    let mut last_seen = BTreeMap::new();
    for number in 0_usize.. {
        let visitor = (number / 5 * 7 % 11, number / 5 % 2);
        let path = format!("/tin/{}", number * number % 97);
        let time = at.format("%d/%b/%Y:%H:%M:%S %z");
        let line = format!(
            r#"203.0.113.{} - - [{time}] "GET {path} HTTP/1.1" 200 9 "-" "{}""#,
            visitor.0, AGENTS[visitor.1]
        );
        let log = &mut logs.of_servers[number / 3 % 2];
        writeln!(log, "{line}\n{}", line.replace(&path, "/main.css")).unwrap();
        if number % 50 == 7 {
            log.push_str("no line of a log\n");
        }
        let day = at.date_naive().to_string();
        if day == "2023-09-16" {
            return logs;
        }
        let day = logs.days.entry(day).or_default();
        day.views += 1;
        let last = last_seen.insert(visitor, at);
        day.visits += i64::from(last.is_none_or(|last| at - last > chrono::Duration::minutes(30)));
        day.visitors.insert(visitor);
        *day.pages.entry(path).or_default() += 1;
        at += Duration::from_secs([20, 90, 300, 1500][number % 13 % 4]);
    }
    logs
}

impl Logs {
    /// As one log.
    fn merged(&self) -> String {
        let mut lines: Vec<&str> = self.of_servers.iter().flat_map(|log| log.lines()).collect();
        lines.sort_by_key(|line| line.split_once('[').map(|(_, time)| time));
        lines.join("\n") + "\n"
    }

    /// Of the first days.
    fn sum(&self, days: usize, of: impl Fn(&Plain) -> i64) -> i64 {
        self.days.values().take(days).map(of).sum()
    }
}

fn zipped(text: &str) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(text.as_bytes()).unwrap();
    gz.finish().unwrap()
}

#[test]
fn days_of_logs_are_entered_once_where_nothing_covers_them() {
    let redis = RedisServer::start();
    let mut app = TestApp::start(Setup::default().store(&redis.url()));
    app.until_stale(false);
    app.compares_pages = false;
    app.read(3);
    app.pass(Duration::from_secs(24 * 3600));
    let logs = logs();
    let (a, b) = (app.write("a.log", &logs.of_servers[0]), app.write("b.log.1.gz", ""));
    std::fs::write(&b, zipped(&logs.of_servers[1])).unwrap();
    let backfill = |more: &[&str]| {
        let (code, said) = app.order(&[&["backfill", "--site", SITE, &a, &b], more].concat());
        assert_eq!(code, 0, "{said}");
        said
    };
    let shown = |total: &str, period: &str| app.counters()[total][period].as_i64().unwrap();
    let is_shown = |days: usize| {
        for period in ["week", "month", "year", "all"] {
            assert_eq!(shown("views", period), 3 + logs.sum(days, |day| day.views), "{period}");
            assert_eq!(shown("visits", period), 3 + logs.sum(days, |day| day.visits), "{period}");
        }
    };

    let said = backfill(&["--dry-run"]);
    assert_eq!(said.matches("would be entered").count(), 4, "{said}");
    let beacons = "left out: beacons counted 3 views, 3 visitors, 3 visits";
    let Plain { views, visits, .. } = logs.days["2023-09-15"];
    let told = format!("2023-09-15: {views} views, {visits} visits, ");
    assert!(said.contains(&told) && said.contains(beacons), "{said}");
    let malformed = logs.of_servers.iter().map(|log| log.matches("no line").count()).sum::<usize>();
    assert!(said.contains(&format!("left out: {malformed} lines, malformed-line\n")), "{said}");
    assert!(said.contains("left out: 1 lines, day-not-closed\n"), "{said}");
    is_shown(0);

    let said = backfill(&["--why", "the time before"]);
    assert_eq!(
        (said.matches("values are entered, as ").count(), said.matches(beacons).count()),
        (4, 1),
        "{said}"
    );
    is_shown(4);
    let visitors = 3 + logs.sum(4, |day| day.visitors.len() as i64);
    // Two of a day's visitors may fall together.
    assert!((shown("visitors", "all") - visitors).abs() <= 4, "{visitors}");
    let field = |bucket: &str, field: &str| {
        let held =
            redis.client().ask(&[b"HGET", RedisServer::key(bucket).as_bytes(), field.as_bytes()]).text();
        held.split(' ').next().unwrap().parse::<i64>().unwrap()
    };
    for (day, plain) in logs.days.iter().take(4) {
        let hash = format!("day:{day}");
        assert_eq!((field(&hash, "+views"), field(&hash, "+visits")), (plain.views, plain.visits), "{day}");
        for (page, views) in &plain.pages {
            assert_eq!(field(&format!("{hash}:pages"), &format!("+{page}")), *views, "{day} {page}");
        }
    }
    for page in (0..97).map(|number| format!("/tin/{number}")) {
        let views = logs.sum(4, |day| day.pages.get(&page).copied().unwrap_or_default());
        let shown = &app.page(&page)["views"];
        assert_eq!((&shown["month"], &shown["all"]), (&views.into(), &views.into()), "{page}");
    }
    let entries = app.order(&["entries"]).1;
    assert!(entries.contains("backfill 2023-09-14 a.log and 1 more sha256:"), "{entries}");

    let said = backfill(&["--until", "2023-09-15"]);
    for entry in 1..=4 {
        assert!(said.contains(&format!("left out: entry {entry} covers it")), "{said}");
    }
    assert!(said.contains("warning: 2023-09-15: ") && !said.contains("are entered"), "{said}");
    is_shown(4);

    for entry in 1..=4 {
        assert_eq!(app.order(&["entries", "undo", &entry.to_string()]).0, 0);
    }
    is_shown(0);
}

#[test]
fn a_day_of_logs_is_taken_back_in_any_order_and_entered_anew() {
    let (service, logs) = (Service::start(Setup::default()), logs());
    service.write("access.log", "");
    let of_none = service.ordered(&["backfill", "--site", SITE, "access.log"]);
    assert_eq!(of_none, "nothing is entered: there are no lines\n");
    service.write("access.log", &logs.merged());
    let backfill = || service.ordered(&["backfill", "--site", SITE, "access.log"]);
    let views = || service.counters(SITE)["views"]["all"].as_i64().unwrap();
    let all = logs.sum(5, |day| day.views);
    backfill();
    assert_eq!(views(), all);
    for (undone, counted) in [(2, "2023-09-12"), (5, "2023-09-15")] {
        service.ordered(&["entries", "undo", &undone.to_string()]);
        assert_eq!(views(), all - logs.days[counted].views);
        assert_eq!(backfill().matches("values are entered, as ").count(), 1);
        assert_eq!(views(), all);
    }
    let (code, said) = service.order(&["entries", "undo", "6"]);
    assert!(code == 1 && said.contains("was entered anew as 7: undo that first"), "{said}");
    service.ordered(&["entries", "undo", "9"]);
    assert_eq!(views(), all - logs.days["2023-09-15"].views);
    let said = service.ordered(&["entries", "undo", "8"]);
    assert!(said.contains("values are entered, as 11"), "{said}");
    assert_eq!(views(), all, "the day that 8 took back");
}

#[test]
fn an_opening_balance_may_hold_the_days_of_logs() {
    let mut service = Service::start(Setup::default());
    let logs = logs();
    service.write("a.log", &logs.merged());
    service.write("past.csv", "total,period,value\nvisits,all,1316656\n");
    service.ordered(&["import", "past.csv", "--site", SITE]);
    let backfill = ["backfill", "--site", SITE, "a.log"];
    let said = service.ordered(&backfill);
    let held = "visits all has 1316656 entered, and what it is made of 0: the rest may be of this day; undo that entry";
    assert_eq!(said.matches(held).count(), 5, "{said}");
    assert_eq!(service.counters(SITE)["visits"]["all"], 1_316_656);
    service.ordered(&["entries", "undo", "1"]);
    service.stop();
    service.ordered(&backfill);
    service.ordered(&["import", "past.csv", "--site", SITE]);
    service.begin();
    assert_eq!(service.counters(SITE)["visits"]["all"], 1_316_656, "what it shall show");
    assert_eq!(service.counters(SITE)["views"]["all"], logs.sum(5, |day| day.views));
    let (code, said) = service.order(&["entries", "undo", "4"]);
    assert!(code == 1 && said.contains("visits all has 1316656 entered"), "{said}");
    // What was entered for all time is the days' again, and a page's opening balance counts too.
    service.ordered(&["entries", "undo", "8"]);
    service.ordered(&["entries", "undo", "4"]);
    service.write("page.csv", "total,period,page,value\nviews,all,/tin/0,7777\n");
    service.ordered(&["import", "page.csv", "--site", SITE]);
    let said = service.ordered(&backfill);
    assert!(said.contains("left out: lamdong: views of /tin/0 all has 7777 entered"), "{said}");
    service.ordered(&["entries", "undo", "11"]);
    assert!(service.ordered(&backfill).contains("values are entered, as 13"), "{said}");
}

/// A command that is killed has entered whole days, and goes on with the next.
#[test]
fn a_backfill_that_is_killed_goes_on_where_it_was() {
    let logs = logs();
    let log = logs.merged();
    let redis = RedisServer::start();
    for (url, runs) in [("embedded", false), (&redis.url(), true)] {
        let mut service = Service::start(Setup::default().store(url));
        service.write("access.log", &log);
        if !runs {
            service.stop();
        }
        // Without the end of the third day the second one is not closed.
        let upto = log.find("[13/Sep/2023:23:").unwrap();
        let said = service.killed(&["backfill", "--site", SITE, "-"], &log[..upto], "2023-09-11: ");
        assert!(said.contains("values are entered, as 1"), "{said}");
        let said = service.ordered(&["backfill", "--site", SITE, "access.log"]);
        assert!(said.contains("left out: entry 1 covers it"), "{said}");
        assert_eq!(said.matches("values are entered, as ").count(), 4, "{said}");
        if !runs {
            service.begin();
        }
        let shown = service.counters(SITE);
        assert_eq!(shown["views"]["all"], logs.sum(5, |day| day.views));
        assert_eq!(shown["visits"]["all"], logs.sum(5, |day| day.visits));
        let said = service.ordered(&["verify"]);
        assert!(said.contains("everything agrees"), "{said}");
    }
}

#[test]
fn a_full_disk_ends_a_backfill_between_two_days() {
    let (logs, redis) = (logs(), RedisServer::start());
    let mut service = Service::prepare(Setup::default().store(&redis.url())).after("trap '' XFSZ");
    service.begin();
    service.write("access.log", &logs.merged());
    let backfill =
        |more: &[&str]| service.order(&[&["backfill", "--site", SITE, "access.log"], more].concat());
    assert_eq!(backfill(&["--until", "2023-09-12"]).0, 0);
    service.limit_files("0");
    let (code, said) = backfill(&[]);
    assert!(
        code == 1 && said.contains("the outbox is full or cannot be written: nothing is entered"),
        "{said}"
    );
    assert_eq!(service.counters(SITE)["visits"]["all"], logs.sum(2, |day| day.visits), "whole days");
    service.limit_files("unlimited");
    let (code, said) = backfill(&[]);
    assert_eq!((code, said.matches("left out: entry ").count()), (0, 2), "{said}");
    assert_eq!(service.counters(SITE)["visits"]["all"], logs.sum(5, |day| day.visits));
}

#[test]
fn what_backfill_refuses_and_what_it_leaves_out() {
    let mut service = Service::start(Setup::default());
    service.stop();
    let line = r#"203.0.113.1 - - [15/Sep/2023:08:19:00 +0700] "GET / HTTP/1.1" 200 9"#;
    service.write("access.log", &format!("{line}\nnothing\n"));
    let copy = zipped(&format!("{line}\nnothing\n"));
    std::fs::write(service.data_dir().with_file_name("copy.gz"), copy).unwrap();
    let cut = zipped(&logs().merged());
    std::fs::write(service.data_dir().with_file_name("cut.gz"), &cut[..cut.len() * 4 / 5]).unwrap();
    let path = "access.log";
    // That of the site, as the line tells the time.
    let today = chrono::Utc::now().with_timezone(&chrono::FixedOffset::east_opt(7 * 3600).unwrap());
    service.write(
        "today.log",
        &line.replace("15/Sep/2023:08:19:00", &today.format("%d/%b/%Y:%H:%M:%S").to_string()),
    );
    let today = today.date_naive().succ_opt().unwrap().to_string();
    let backfill = |arguments: &[&str]| service.order(&[&["backfill", "--site"][..], arguments].concat());
    for (arguments, code, says) in [
        (&["nobody", path][..], 64, "site \"nobody\" is not configured"),
        (&[SITE, path, path], 64, "it would be counted twice"),
        (&[SITE, path, "copy.gz"], 64, "copy.gz begins as access.log does: it would be counted twice"),
        (&[SITE, "--dry-run"], 64, "<FILE>"),
        (&[SITE, "--until", "2023-02-30", path], 64, "2023-02-30"),
        (&[SITE, "/no/such.log"], 1, "/no/such.log: No such file"),
        (&[SITE, "/"], 1, "/: Is a directory"),
        (&[SITE, path], 0, "left out: 1 lines, day-not-closed"),
        (&[SITE, path], 0, "access.log:2\n"),
        (&[SITE, "--until", "2023-09-14", path], 0, "left out: 1 lines, after-until"),
        (&[SITE, "--until", &today, "today.log"], 0, "left out: it is not over"),
        (&[SITE, "--dry-run", "--until", "2023-09-15", path], 0, "2023-09-15: 1 views, 1 visits"),
        (
            &[SITE, "--dry-run", "--until", "2023-09-15", path],
            0,
            "2023-09-15 is of 2023-09-15T08:19:00+07:00",
        ),
    ] {
        let (ended, said) = backfill(arguments);
        assert!(ended == code && said.contains(says), "{arguments:?}: {ended} {said}");
        assert!(!said.contains("are entered"), "{arguments:?}: {said}");
    }
    assert!(service.ordered(&["entries"]).contains("nothing was entered"));
    let (code, said) = backfill(&[SITE, "cut.gz"]);
    assert!(code == 1 && said.contains("is the last line that could be read"), "{said}");
    assert!((1..5).contains(&said.matches("are entered, as ").count()), "whole days alone: {said}");
}
