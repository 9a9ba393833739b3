//! What operators see.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::support::harness::{Setup, TestApp, view};
use crate::support::http;
use crate::support::prometheus::Prometheus;
use crate::support::wait::until;

#[test]
fn promtool_finds_nothing_to_say_of_the_metrics() {
    let app = TestApp::start(Setup::default());
    app.take(&view("/a"));
    let metrics = http::get(app.admin(), "/metrics");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|_| panic!("this test needs promtool: apt-get install prometheus"));
    promtool.stdin.take().unwrap().write_all(&metrics.body).unwrap();
    let said = promtool.wait_with_output().unwrap();
    assert!(said.status.success() && said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
}

/// Runs of a name's letters, in what stands between backticks in the first column of the README's table.
fn documented() -> BTreeSet<String> {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/prometheus/README.md")).unwrap();
    let (_, rest) = readme.split_once("\n## Metrics\n").expect("a section of metrics");
    let rows = rest.split("\n## ").next().unwrap_or(rest).lines().filter(|line| line.starts_with("| `"));
    let cells = rows.skip(1).filter_map(|row| row.split('|').nth(1));
    cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .map(|name| format!("footfall_{}", name.split('{').next().unwrap_or(&name)))
        .collect()
}

#[test]
fn the_readme_tells_of_every_series_and_of_no_other() {
    let app = TestApp::start(Setup::default());
    let metrics = http::get(app.admin(), "/metrics");
    let families = metrics.text().lines().filter_map(|line| line.strip_prefix("# TYPE footfall_"));
    let exported = families.filter_map(|line| Some(format!("footfall_{}", line.split(' ').next()?)));
    let exported: BTreeSet<String> = exported.collect();
    let documented = documented();
    assert!(exported.len() > 30, "{exported:?}");
    assert_eq!(exported.difference(&documented).collect::<Vec<_>>(), Vec::<&String>::new(), "not told");
    assert_eq!(documented.difference(&exported).collect::<Vec<_>>(), Vec::<&String>::new(), "not there");
}

#[test]
fn metrics_are_packed_for_who_unpacks_them() {
    let app = TestApp::start(Setup::default());
    let ask = |accepted: &str| {
        let mut connection = http::Connection::open(app.admin()).unwrap();
        let accepted = format!("GET /metrics HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {accepted}\r\n\r\n");
        connection.ask(accepted).unwrap()
    };
    for plain in ["identity", "gzip;q=0", "gzip; q=0.000, br", ""] {
        assert_eq!(ask(plain).header("content-encoding"), None, "{plain}");
        assert!(ask(plain).text().contains("footfall_build_info{"));
    }
    for packed in ["gzip", "deflate, GZIP;q=0.5", "br;q=1, gzip"] {
        let answer = ask(packed);
        assert_eq!(answer.header("content-encoding"), Some("gzip"), "{packed}");
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*answer.body).read_to_string(&mut text).unwrap();
        assert!(text.contains("footfall_build_info{") && text.len() > 4 * answer.body.len());
    }
}

#[test]
fn prometheus_scrapes_the_views() {
    let app = TestApp::start(Setup::default());
    for _ in 0..13 {
        app.take(&view("/a"));
    }
    let prometheus = Prometheus::scraping(&[app.admin()], &[]);
    until("Prometheus has the series", || {
        prometheus.value("footfall_views_total{site=\"lamdong\"}") == Some(13.0)
    });
    assert_eq!(prometheus.value("footfall_online_visitors{site=\"lamdong\"}"), Some(1.0));
    assert_eq!(prometheus.value("up{job=\"footfall\"}"), Some(1.0));
}

#[test]
fn probes_tell_alive_from_ready() {
    let app = TestApp::start(Setup::default());
    let ask = |target: &str| {
        let answer = http::get(app.admin(), target);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        (answer.status, answer.text().to_owned())
    };
    assert_eq!(ask("/livez"), (200, "ok\n".into()));
    assert_eq!(ask("/readyz"), (200, "ok\n".into()));
    until("the store is attached", || {
        ask("/readyz?verbose").1 == "[+]service ok\n[+]journal ok\n[+]store ok\nok\n"
    });
    assert_eq!(ask("/nothing").0, 404);
    assert!(ask("/").1.contains("/metrics"));
    assert_eq!(app.get("/metrics").status, 404, "not for the public");
    assert_eq!(
        http::get(app.admin(), "/api/v1/sites/lamdong/counters").status,
        404,
        "nor the other way round"
    );
}

#[test]
fn a_ping_without_room_is_shed_and_not_taken() {
    let app = TestApp::start(Setup::default().set("sessions.max_sessions", "1000"));
    app.read(1000);
    app.take(&view("/a").by(7).ping());
    app.take(&view("/a").by(2000).ping());
    app.take(&view("/a").by(2000).leave());
    let beacons = |outcome: &str| app.metric(&format!("footfall_beacons_total{{outcome=\"{outcome}\"}}"));
    assert_eq!([beacons("counted"), beacons("taken"), beacons("shed")], [1000.0, 2.0, 1.0]);
    assert_eq!(app.metric("footfall_bounds_reached_total{bound=\"sessions\"}"), 1.0);
}

#[test]
fn the_metrics_add_up() {
    let app = TestApp::start(Setup::default());
    for number in 1..=5 {
        let reader = |beacon: crate::support::harness::Beacon| beacon.from(&format!("203.0.113.{number}"));
        app.take(&reader(view("/a").id(&number.to_string())));
        app.take(&reader(view("/a").id(&number.to_string())));
        app.take(&reader(view("/a").ping()));
        assert_eq!(app.send(&reader(view("https://elsewhere.vn/"))).status, 403);
    }
    let beacons = |outcome: &str| app.metric(&format!("footfall_beacons_total{{outcome=\"{outcome}\"}}"));
    assert_eq!(
        [beacons("counted"), beacons("repeated"), beacons("taken"), beacons("wrong-origin")],
        [5.0; 4]
    );
    assert_eq!(app.metric("footfall_views_total{site=\"lamdong\"}"), 5.0);
    assert_eq!(app.metric("footfall_visits_total{site=\"lamdong\"}"), 5.0);
    assert_eq!(app.metric("footfall_online_visitors{site=\"lamdong\"}"), 5.0);
    assert_eq!(app.metric("footfall_sessions"), 5.0);
    until("everything is in the store", || app.metric("footfall_oldest_unapplied_timestamp_seconds") == 0.0);
    assert_eq!((app.metric("footfall_unapplied_batches"), app.metric("footfall_store_up")), (0.0, 1.0));
    assert!(app.metric("footfall_last_flush_timestamp_seconds") > 0.0);
}

#[test]
fn every_bound_has_its_limit_and_how_much_of_it_is_in_use() {
    let setup = Setup::default().set("store.flush_interval", "5m").set("sessions.max_sessions", "1000");
    let app = TestApp::start(setup.set("totals.max_ids", "200000"));
    for number in 1..=3 {
        let reader = format!("203.0.113.{number}");
        app.take(&view(&format!("/{number}")).id(&number.to_string()).from(&reader));
    }
    let metrics = http::get(app.admin(), "/metrics").text().to_owned();
    let bounds =
        metrics.lines().filter_map(|line| line.strip_prefix("footfall_bounds_reached_total{bound=\""));
    let bounds: Vec<&str> = bounds.filter_map(|rest| rest.split('"').next()).collect();
    assert!(bounds.len() >= 9, "{bounds:?}");
    let of = |what: &str, bound: &str| app.metric(&format!("footfall_bound_{what}{{bound=\"{bound}\"}}"));
    // Of what each address may have, there is not one number.
    for bound in bounds.into_iter().filter(|bound| !bound.ends_with("_per_address")) {
        assert!(of("limit", bound) > 0.0 && of("used", bound) < of("limit", bound), "{bound}");
    }
    assert_eq!(["sessions", "ids", "pages"].map(|bound| of("used", bound)), [3.0; 3]);
    assert_eq!([of("limit", "sessions"), of("limit", "ids")], [1000.0, 200_000.0]);
}
