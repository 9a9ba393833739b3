//! G11 at the real binary: why a beacon is refused is one word in the answer, in the metric and in the log.

use std::collections::BTreeSet;

use footfall::ingest::Reason;
use serde_json::Value;

use crate::support::harness::{SITE, Setup, view};
use crate::support::http::{Connection, request};
use crate::support::meddled::Meddled;
use crate::support::wait::until;

/// What is sent, as bytes of a request; and what becomes of the disk meanwhile.
type Sent = (Vec<u8>, &'static str);

/// How each reason comes about: the word, the status, the site that the log names, and what is sent.
fn table() -> Vec<(&'static str, u16, &'static str, Sent)> {
    let beacon = |body: &str| request("POST", "/api/v1/beacon", &[], body.as_bytes());
    let well = |bytes: Vec<u8>| (bytes, "");
    let mut unfinished = beacon(&"x".repeat(100));
    let agreed = view("/a").with("site", "asking").with("consent", true);
    unfinished.truncate(unfinished.len() - 50);
    vec![
        ("malformed", 400, "-", well(beacon("nonsense"))),
        ("bad-url", 400, SITE, well(view("ftp://baolamdong.vn/a").bytes())),
        ("wrong-origin", 403, SITE, well(view("/a").header("origin", "https://elsewhere.vn").bytes())),
        ("unknown-site", 404, "-", well(view("/a").with("site", "nobody").bytes())),
        ("no-consent", 202, "asking", well(view("/a").with("site", "asking").bytes())),
        ("opted-out", 202, "asking", well(agreed.header("dnt", "1").bytes())),
        ("method-not-allowed", 405, "-", well(request("PUT", "/api/v1/beacon", &[], b"{}"))),
        ("timeout", 408, "-", well(unfinished)),
        ("too-large", 413, "-", well(beacon(&"x".repeat(4097)))),
        ("overloaded", 503, SITE, (view("/a").bytes(), "unwritable /journal/")),
        ("journal-full", 503, SITE, (view("/a").bytes(), "full /journal/")),
        ("clock-wrong", 503, SITE, (view("/a").bytes(), "clock -220000000")),
    ]
}

/// Each is refused so often.
const TIMES: u64 = 3;

#[test]
fn each_reason_is_the_same_word_in_the_answer_the_metric_and_the_log() {
    let words: BTreeSet<&str> = Reason::WORDS.into_iter().map(|(word, _)| word).collect();
    let table = table();
    assert_eq!(
        table.iter().map(|(word, ..)| *word).collect::<BTreeSet<_>>(),
        words,
        "the table has every reason"
    );

    let mut meddled = Meddled::start(Setup::default().set("http.body_timeout", "1s").and(
        "[[site]]\nkey = \"asking\"\nhosts = [\"asking.vn\"]\nrequire_consent = true\nhonour = [\"dnt\"]",
    ));
    let service = &meddled.service;
    let refused = |word: &str| service.metric(&format!("footfall_beacons_total{{outcome=\"{word}\"}}"));
    for (word, status, _, (bytes, order)) in &table {
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
            assert_eq!(answer.header("retry-after").is_some(), *status == 503, "{word}: {answer:?}");
        }
        meddled.order("");
        clock_is(false);
        for (other, before) in words.iter().zip(before) {
            let more = if other == word { TIMES } else { 0 };
            assert_eq!(refused(other), before + more as f64, "{other} after {word}");
        }
    }
    assert_eq!(service.counters(SITE)["views"]["all"], 0);

    // The first of each is told at once, the others of that minute when it is over or the service stops.
    meddled.service.stop();
    let log = meddled.service.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines: Vec<Value> = lines.filter(|line| line["message"] == "beacons refused").collect();
    for (word, status, site, _) in &table {
        let of_word: Vec<&Value> = lines.iter().filter(|line| line["reason"] == *word).collect();
        let told: u64 = of_word.iter().map(|line| line["number"].as_u64().unwrap()).sum();
        assert_eq!((told, of_word[0]["number"].as_u64()), (TIMES, Some(1)), "{of_word:?}");
        let level = if *status == 503 { "WARN" } else { "INFO" };
        assert!(of_word.iter().all(|line| line["site"] == *site && line["level"] == level), "{of_word:?}");
    }
    assert!(lines.iter().all(|line| words.contains(line["reason"].as_str().unwrap())), "{lines:?}");
}
