//! G11 at the real binary: why a beacon is refused is one word in the answer, in the metric and in the log.

use std::collections::BTreeSet;
use std::time::Duration;

use footfall::ingest::Reason;
use serde_json::Value;

use crate::support::harness::{SITE, Setup, TestApp, view};
use crate::support::http::{Connection, ask, get, request};
use crate::support::meddled::Meddled;
use crate::support::wait::until;

/// What is sent, as bytes of a request; and what becomes of the disk meanwhile.
type Sent = (Vec<u8>, &'static str);

/// How each reason comes about: the word, the status, site and cause that are named, and what is sent.
fn table() -> Vec<(&'static str, u16, &'static str, &'static str, Sent)> {
    let beacon = |body: &str| request("POST", "/api/v1/beacon", &[], body.as_bytes());
    let well = |bytes: Vec<u8>| (bytes, "");
    let mut unfinished = beacon(&"x".repeat(100));
    let agreed = view("/a").with("site", "asking").with("consent", true);
    unfinished.truncate(unfinished.len() - 50);
    vec![
        ("rate-limited", 429, "few", "views_per_minute", well(view("/a").with("site", "few").bytes())),
        ("reload", 202, "once", "", well(view("/a").with("site", "once").bytes())),
        ("malformed", 400, "-", "body", well(beacon("nonsense"))),
        ("bad-url", 400, SITE, "", well(view("ftp://baolamdong.vn/a").bytes())),
        (
            "wrong-origin",
            403,
            SITE,
            "m.elsewhere.vn",
            well(view("/a").header("origin", "https://m.elsewhere.vn").bytes()),
        ),
        ("unknown-site", 404, "-", "lamdnog", well(view("/a").with("site", "lamdnog").bytes())),
        ("no-consent", 202, "asking", "", well(view("/a").with("site", "asking").bytes())),
        ("opted-out", 202, "asking", "", well(agreed.header("dnt", "1").bytes())),
        (
            "robot",
            202,
            SITE,
            "bot",
            well(view("/a").header("user-agent", "Mozilla/5.0 (x; Somebot/1)").bytes()),
        ),
        ("prefetch", 202, SITE, "", well(view("/a").header("sec-purpose", "prefetch").bytes())),
        ("excluded-address", 202, SITE, "exclude_addresses", well(view("/a").from("198.51.100.9").bytes())),
        ("excluded-page", 202, SITE, "exclude_pages", well(view("/admin/users?x=1").bytes())),
        ("method-not-allowed", 405, "-", "", well(request("PUT", "/api/v1/beacon", &[], b"{}"))),
        ("timeout", 408, "-", "", well(unfinished)),
        ("too-large", 413, "-", "", well(beacon(&"x".repeat(4097)))),
        ("overloaded", 503, SITE, "", (view("/a").bytes(), "unwritable /journal/")),
        ("journal-full", 503, SITE, "", (view("/a").bytes(), "full /journal/")),
        ("clock-wrong", 503, SITE, "", (view("/a").bytes(), "clock -220000000")),
    ]
}

const SITES: &str = r#"
[[site]]
key = "asking"
hosts = ["asking.vn"]
require_consent = true
honour = ["dnt"]
[[site]]
key = "few"
hosts = ["few.vn"]
views_per_minute = 1
[[site]]
key = "once"
hosts = ["once.vn"]
reload_window = "1h""#;

/// Each is refused so often.
const TIMES: u64 = 3;

#[test]
fn each_reason_is_the_same_word_in_the_answer_the_metric_and_the_log() {
    let words: BTreeSet<&str> = Reason::WORDS.into_iter().map(|(word, _)| word).collect();
    let table = table();
    let in_table: BTreeSet<&str> = table.iter().map(|(word, ..)| *word).collect();
    assert_eq!(in_table, words, "the table has every reason");

    let excluded = "exclude_addresses = [\"198.51.100.0/24\"]\nexclude_pages = [\"/admin/*\"]\n";
    let setup = Setup::default().set("http.body_timeout", "1s").and(&format!("{excluded}{SITES}"));
    let mut meddled = Meddled::start(setup);
    let service = &meddled.service;
    ["few", "once"].iter().for_each(|&site| service.take(&view("/a").with("site", site)));
    let refused = |word: &str| service.metric(&format!("footfall_beacons_total{{outcome=\"{word}\"}}"));
    for (word, status, site, cause, (bytes, order)) in &table {
        let before: Vec<f64> = words.iter().map(|word| refused(word)).collect();
        meddled.order(order);
        let clock_is =
            |wrong| until("the clock is read", || service.readiness().1.contains("[-]clock") == wrong);
        clock_is(order.starts_with("clock"));
        let open = |_| {
            let mut connection = Connection::open(service.public()).unwrap();
            connection.send(bytes).unwrap();
            connection
        };
        // All are sent before one is answered: they wait together for what takes its time.
        let sent: Vec<Connection> = (0..TIMES).map(open).collect();
        for mut connection in sent {
            let answer = connection.answer().unwrap();
            assert_eq!(answer.outcome(), (*status, (*word).to_owned()));
            let retry = answer.header("retry-after").is_some();
            assert_eq!(retry, [429, 503].contains(status), "{word}: {answer:?}");
            let is_told = *status == 202 || answer.text().contains(cause);
            assert!(is_told, "{answer:?} names {cause}");
        }
        meddled.order("");
        clock_is(false);
        for (other, before) in words.iter().zip(before) {
            let more = if other == word { TIMES } else { 0 };
            assert_eq!(refused(other), before + more as f64, "{other} after {word}");
        }
        let of_site = format!("footfall_beacons_total{{outcome=\"{word}\",site=\"{site}\"}}");
        assert_eq!(service.metric(&of_site), TIMES as f64, "{of_site}");
        let causes = if cause.is_empty() { String::new() } else { format!(" ({cause})") };
        let shown = format!("site {site}: {TIMES} beacons refused in the last hour, {word}{causes}</li>");
        let overview = get(service.admin(), "/");
        let is_shown = overview.text().contains(&shown);
        assert_eq!(is_shown, *status != 202, "{shown} in {}", overview.text());
    }
    let detail = |bytes: Vec<u8>| ask(service.public(), bytes).json()["detail"].as_str().unwrap().to_owned();
    let near = detail(view("/a").with("site", "lamdnog").bytes());
    assert!(near.ends_with("No site has the key lamdnog: did you mean lamdong?"), "{near}");
    let host = detail(view("https://m.baolamdong.vn/secret").bytes());
    assert!(
        host.ends_with("The page's host m.baolamdong.vn is not the site's: add it to hosts of site lamdong.")
    );
    let hostile = detail(view("/a").with("site", "\"}<script>\u{7}").bytes());
    assert!(hostile.contains(r#"\"}<script>\u{7}"#), "{hostile}");
    assert!(!get(service.admin(), "/").text().contains("}<script>"), "it is shown as text");
    assert_eq!(service.counters(SITE)["views"]["all"], 0);

    // The first of each is told at once, the others of that minute when it is over or the service stops.
    meddled.service.stop();
    let log = meddled.service.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_of_beacons =
        |line: &Value| line["message"].as_str().is_some_and(|text| text.starts_with("beacons "));
    let lines: Vec<Value> = lines.filter(is_of_beacons).collect();
    for (word, status, site, cause, _) in &table {
        let of_word: Vec<&Value> = lines.iter().filter(|line| line["reason"] == *word).collect();
        let told: u64 = of_word.iter().map(|line| line["number"].as_u64().unwrap()).sum();
        assert!(told >= TIMES && of_word[0]["number"] == 1, "{of_word:?}");
        let causes = of_word[0]["causes"].as_str().unwrap_or_default();
        assert_eq!(causes, *cause, "{of_word:?}");
        let level = if *status == 503 { "WARN" } else { "INFO" };
        let message = if *status == 202 { "beacons left out" } else { "beacons refused" };
        assert_eq!(of_word[0]["message"], message);
        assert!(of_word.iter().all(|line| line["site"] == *site && line["level"] == level), "{of_word:?}");
    }
    assert!(lines.iter().all(|line| words.contains(line["reason"].as_str().unwrap())), "{lines:?}");
}

#[test]
fn an_hour_with_fewer_visitors_than_its_views_can_be_of_is_named() {
    for (addresses, per_visitor, is_named) in [(3, 66.0, true), (200, 1.0, false)] {
        let app = TestApp::start(Setup::default());
        for view_number in 0..200 {
            app.take(&view("/a").by(view_number % addresses));
        }
        let shown = || app.metric("footfall_hour_views_per_visitor{site=\"lamdong\"}");
        assert_eq!(shown(), 0.0);
        app.pass(Duration::from_secs(3600));
        until("an hour is over", || shown() == per_visitor);
        let told = "site lamdong: 200 views of 3 visitors within an hour";
        assert_eq!(get(app.admin(), "/").text().contains(told), is_named, "{addresses}");
        app.pass(Duration::from_secs(3600));
        until("an hour without views is over", || shown() == 0.0);
        assert!(!get(app.admin(), "/").text().contains(told));
    }
}
