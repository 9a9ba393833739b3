//! The dashboards and rules of `config/`: how they are made, and that every query of theirs finds what a
//! running service exports.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::Path;

use promql_parser::parser::{self, Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::Value;

use crate::support::harness::{SITE, Setup, view};
use crate::support::http;
use crate::support::prometheus::Prometheus;
use crate::support::servers::RedisServer;
use crate::support::service::{Service, files};
use crate::support::wait::until_none_missing;

/// Exported, and used by no dashboard and no rule, with why.
const UNUSED: [(&str, &str); 2] = [
    (
        "footfall_config_last_reload_success_timestamp_seconds",
        "an alert says that a reload failed; this, since when",
    ),
    ("footfall_identity_changes_total", "the log says it, and what to do; nothing is lost by it"),
];

/// Queries that find nothing in a short and healthy run, by the panel's title or the rule's name.
const MAY_BE_EMPTY: [(&str, &str); 8] = [
    ("Today against yesterday", "there is no yesterday yet"),
    ("Views a minute, and a week ago", "there is no week ago yet"),
    ("Store operations", "none fails"),
    ("Redis: memory", "redis_exporter is another program"),
    ("Redis: commands a second", "redis_exporter is another program"),
    ("Redis: keys evicted and expired", "redis_exporter is another program"),
    ("Refused by reason", "only the reasons that occur"),
    ("Left out by reason", "only the reasons that occur"),
];

/// Metrics of others that may be named.
fn is_foreign(metric: &str) -> bool {
    metric.starts_with("redis_") || metric == "up" || metric.contains(':')
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn rules() -> Vec<String> {
    let files = files(&root().join("config/prometheus/rules"));
    files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

/// The dashboards by name of file.
pub fn dashboards() -> Vec<(String, Value)> {
    let files = files(&root().join("config/grafana/dashboards"));
    let read = |file: &std::path::PathBuf| {
        let text = std::fs::read_to_string(file).unwrap();
        (file.display().to_string(), serde_json::from_str(&text).unwrap())
    };
    files.iter().map(read).collect()
}

pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// The panels that show something.
pub fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(dashboard, "panels").iter().filter(|panel| panel["type"] != "row")
}

/// A query with Grafana's variables filled in: all that there is.
fn filled(expr: &str) -> String {
    filled_for(expr, ".+")
}

/// A query with Grafana's variables filled in, for some instances.
pub fn filled_for(expr: &str, instance: &str) -> String {
    expr.replace("$__rate_interval", "15s")
        .replace("$__range", "1m")
        .replace("$job", "footfall")
        .replace("$instance", instance)
        .replace("$site", ".+")
        .replace("$redis", ".+")
}

/// The selectors of a query, each with whether it stands in a range.
#[derive(Default)]
struct Selectors {
    found: Vec<(VectorSelector, bool)>,
}

impl ExprVisitor for Selectors {
    type Error = Infallible;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Infallible> {
        match expr {
            Expr::VectorSelector(selector) => self.found.push((selector.clone(), false)),
            Expr::MatrixSelector(matrix) => self.found.push((matrix.vs.clone(), true)),
            _ => {}
        }
        Ok(true)
    }
}

#[track_caller]
fn selectors(promql: &str) -> Vec<(VectorSelector, bool)> {
    let parsed = parser::parse(promql).unwrap_or_else(|fault| panic!("{promql}: {fault}"));
    let mut selectors = Selectors::default();
    walk_expr(&mut selectors, &parsed).unwrap();
    selectors.found
}

fn metrics(promql: &str) -> BTreeSet<String> {
    selectors(promql).into_iter().filter_map(|(selector, _)| selector.name).collect()
}

#[test]
fn dashboards_keep_the_rules_of_the_trade() {
    let mut uids = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        let must = |holds: bool, what: &str| assert!(holds, "{file}: {what}");
        must(uids.insert(dashboard["uid"].as_str().unwrap().to_owned()), "its uid is its own");
        must(dashboard["editable"] == false, "editable: false");
        must((39..=41).contains(&dashboard["schemaVersion"].as_u64().unwrap()), "the classic schema");
        must(dashboard.get("__inputs").is_none(), "no __inputs: provisioning does not fill them in");
        must(!list(&dashboard, "links").is_empty(), "links to the others");
        must(list(&dashboard["annotations"], "list").len() >= 2, "annotations of restarts and deploys");
        let variables = list(&dashboard["templating"], "list");
        let named = |name: &str| variables.iter().find(|variable| variable["name"] == name);
        let sources: Vec<_> = variables.iter().filter(|variable| variable["type"] == "datasource").collect();
        must(sources.len() == 1 && sources[0]["name"] == "datasource", "one variable datasource");
        must(sources[0]["label"] == "Data Source", "its label");
        for name in ["job", "instance"] {
            let variable = named(name).unwrap_or_else(|| panic!("{file}: no variable {name}"));
            must(variable["multi"] == true && variable["allValue"] == ".+", "multi, all is .+");
            must(variable["refresh"] == 2, "refreshed when the time changes");
        }
        let mut titles = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap();
            let must = |holds: bool, what: &str| assert!(holds, "{file}: {title}: {what}");
            must(titles.insert(title), "its title is its own");
            must(panel["description"].as_str().is_some_and(|text| text.len() > 10), "a description");
            must(panel["fieldConfig"]["defaults"]["unit"].is_string(), "a unit");
            must(panel["datasource"]["uid"] == "${datasource}", "the datasource variable");
            must(!list(panel, "targets").is_empty(), "a query");
            for target in list(panel, "targets") {
                must(target["datasource"]["uid"] == "${datasource}", "the datasource variable");
                obeys(target["expr"].as_str().unwrap(), &must);
            }
        }
    }
    assert_eq!(uids.len(), 3, "newsroom, service, resources");
}

/// A query is of the chosen jobs and instances, and shows no bare counter.
fn obeys(expr: &str, must: &impl Fn(bool, &str)) {
    let ranges = expr.matches('[').count();
    let chosen = expr.matches("[$__rate_interval]").count() + expr.matches("[$__range]").count();
    must(ranges == chosen, "a range is $__rate_interval or $__range");
    for (selector, in_range) in selectors(&filled(expr)) {
        let name = selector.name.as_deref().unwrap_or_default();
        // Of the exporter of another Redis nothing is asked.
        let labels: &[&str] = if name.starts_with("redis_") { &["instance"] } else { &["job", "instance"] };
        for label in labels {
            must(selector.matchers.matchers.iter().any(|matcher| matcher.name == *label), "job and instance");
        }
        if is_foreign(name) {
            continue;
        }
        let counts = ["_total", "_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end));
        // Losses are kept over restarts: their number is a state as well.
        must(!counts || in_range || name == "footfall_losses_total", "a counter is shown by its rate");
    }
}

/// A service on Redis that has seen everything that happens on a good day.
fn busy() -> (RedisServer, Service) {
    let redis = RedisServer::start();
    let service = Service::start(Setup::default().store(&redis.url()));
    (redis, service)
}

fn send(service: &Service, round: u32) {
    for number in 0..20 {
        let reader = format!("203.0.{}.{}", round % 256, number % 7);
        let again = format!("again-{round}");
        let beacons = [
            view(&format!("/{number}")).id(&again).from(&reader),
            view(&format!("/{number}")).id(&again).from(&reader),
            view("/a").ping().from(&reader),
            view("https://elsewhere.vn/").from(&reader),
        ];
        for beacon in beacons {
            service.send(&beacon);
        }
        http::get(service.public(), &format!("/api/v1/sites/{SITE}/counters"));
        http::get(service.public(), "/api/v1/sites/nobody/counters");
    }
}

#[test]
fn every_query_finds_what_it_asks_for() {
    let (_redis, service) = busy();
    let rules = rules();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let prometheus = Prometheus::scraping(&[service.admin()], &rules);
    let mut asked: Vec<(String, String)> = Vec::new();
    for (_, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap().to_owned();
            let exprs = list(panel, "targets").iter().map(|target| filled(target["expr"].as_str().unwrap()));
            asked.extend(exprs.map(|expr| (title.clone(), expr)));
        }
        for annotation in list(&dashboard["annotations"], "list") {
            let expr = filled(annotation["expr"].as_str().unwrap());
            prometheus.query(&expr).unwrap_or_else(|fault| panic!("{expr}: {fault}"));
        }
    }
    // Alerts find nothing on a good day, what they compare does.
    for (name, query, alerts) in prometheus.rules() {
        prometheus.query(&query).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        asked.extend((!alerts).then_some((name, query)));
    }
    assert!(asked.len() > 50, "{}", asked.len());
    let excused: BTreeMap<_, _> = MAY_BE_EMPTY.into_iter().collect();
    let mut silent = asked;
    let mut round = 0;
    until_none_missing(|| {
        round += 1;
        send(&service, round);
        silent.retain(|(_, expr)| {
            prometheus.query(expr).unwrap_or_else(|fault| panic!("{expr}: {fault}")).is_empty()
        });
        let missing = silent.iter().filter(|(title, _)| !excused.contains_key(title.as_str()));
        missing.map(|(title, expr)| format!("{title}: {expr}")).collect()
    });
    assert_eq!(prometheus.firing(service.admin()), BTreeSet::new(), "a good day alerts nobody");
}

#[test]
fn every_metric_named_is_exported_and_every_one_exported_is_used() {
    let (_redis, service) = busy();
    let text = http::get(service.admin(), "/metrics").text().to_owned();
    let exported: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let family = |name: &str| {
        let ends = ["_bucket", "_sum", "_count"];
        let base = ends.iter().find_map(|end| name.strip_suffix(end)).filter(|base| exported.contains(base));
        base.unwrap_or(name).to_owned()
    };
    let mut queries = Vec::new();
    for (_, dashboard) in dashboards() {
        let targets = panels(&dashboard).flat_map(|panel| list(panel, "targets"));
        let all = targets.chain(list(&dashboard["annotations"], "list"));
        queries.extend(all.map(|query| filled(query["expr"].as_str().unwrap())));
    }
    let rules = rules();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    queries.extend(Prometheus::scraping(&[], &rules).rules().into_iter().map(|(_, query, _)| query));
    let named: BTreeSet<String> = queries.iter().flat_map(|query| metrics(query)).collect();
    let used: BTreeSet<String> = named.iter().filter(|name| !is_foreign(name)).map(|n| family(n)).collect();
    let missing: Vec<_> = used.iter().filter(|name| !exported.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "named and not exported: {missing:?}");
    let excused: BTreeSet<&str> = UNUSED.iter().map(|(name, _)| *name).collect();
    let idle: Vec<_> = exported.iter().filter(|n| !used.contains(**n) && !excused.contains(**n)).collect();
    assert!(idle.is_empty(), "exported and used nowhere: {idle:?}");
    let stale: Vec<_> = excused.iter().filter(|n| used.contains(**n) || !exported.contains(**n)).collect();
    assert!(stale.is_empty(), "excused without need: {stale:?}");
}

/// The recorded series of rules, each with its query.
fn recorded(rules: &str) -> Vec<(String, String)> {
    let parts = rules.split("- record: ").skip(1);
    let of = |part: &str| {
        let (name, rest) = part.split_once('\n').unwrap();
        (name.to_owned(), rest.split("\n      - ").next().unwrap_or(rest).to_owned())
    };
    parts.map(of).collect()
}

#[test]
fn every_alert_fires_where_it_should_and_is_silent_where_it_should_be() {
    let tests = files(&root().join("config/prometheus/tests"));
    let said = std::process::Command::new("promtool")
        .args(["test", "rules"])
        .args(&tests)
        .output()
        .unwrap_or_else(|_| panic!("this test needs promtool: apt-get install prometheus"));
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let tests: String = tests.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let rules = rules().concat();
    let readme = std::fs::read_to_string(root().join("config/prometheus/README.md")).unwrap();
    // What is recorded is asked for, and named by the labels that are left, the metric and the operation.
    for (record, query) in recorded(&rules) {
        let [level, metric, operation] = record.split(':').collect::<Vec<_>>()[..] else {
            panic!("{record}")
        };
        assert!(metric.starts_with("footfall_") && !operation.is_empty(), "{record}");
        let by = format!("by ({}", level.replace('_', ", "));
        assert!(query.contains(&by), "{record} is of other labels: {query}");
        assert!(rules.matches(&record).count() > 1, "{record} is used nowhere");
    }
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("name: {alert} fires")), "{alert} has no case in which it fires");
        assert!(tests.contains(&format!("name: {alert} is silent")), "{alert} has no silent case");
        let (_, runbook) = readme.split_once(&format!("### {alert}\n")).expect(alert);
        let parts: Vec<&str> = runbook.split("\n\n").take(3).collect();
        assert!(parts[0].starts_with("Impact: ") && parts[1].starts_with("Look: "), "{alert}: {parts:?}");
        assert!(parts[2].starts_with("Do: ") && parts[1..].concat().contains('`'), "{alert}: {parts:?}");
    }
    // Where each leads there is its section.
    let service = Service::start(Setup::default());
    let page = http::get(service.admin(), "/runbook");
    let links: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: ")).collect();
    assert_eq!(links.len(), rules.matches("- alert: ").count());
    for link in links {
        // An instance has the page; where it is gone, another one, or else the file.
        for rest in link.split('#').skip(1) {
            let anchor = rest.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default();
            assert!(page.text().contains(&format!("<h2 id=\"{anchor}\">")), "{link}");
        }
        assert!(link.contains("}}/runbook#") && link.contains("instance"), "{link}");
    }
    assert!(page.status == 200 && !page.text().contains("](") && !page.text().contains('`'), "{page:?}");
}
