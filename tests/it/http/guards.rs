//! What a page may load and who may frame it, and that operators' answers are found at their own listener alone.

use std::net::SocketAddr;

use crate::support::harness::{Setup, TestApp};
use crate::support::http::{Answer, ask, get, request};

const TOKEN: &str = "0123456789abcdef";

fn app() -> TestApp {
    let demo = "[[site]]\nkey = \"demo\"\nhosts = [\"localhost\", \"*.news.example\"]\ntime_zone = \"UTC\"";
    TestApp::start(Setup::default().and(&format!("newsroom_token = \"{TOKEN}\"")).and(demo))
}

/// Every path of a listener, as its metrics have them.
fn routes(app: &TestApp, listener: &str) -> Vec<String> {
    let metrics = get(app.admin(), "/metrics");
    let begin = format!("footfall_http_request_duration_seconds_count{{listener=\"{listener}\",route=\"/");
    let lines = metrics.text().lines().filter_map(|line| line.strip_prefix(begin.as_str()));
    lines.map(|rest| format!("/{}", rest.split('"').next().unwrap())).collect()
}

fn opened(address: SocketAddr, target: &str) -> Answer {
    let cookie = format!("footfall_newsroom={TOKEN}");
    let headers = [("accept", "text/html,*/*;q=0.8"), ("cookie", cookie.as_str())];
    ask(address, request("GET", target, &headers, b""))
}

#[test]
fn every_page_says_what_it_may_do_and_who_may_frame_it() {
    let app = app();
    let names = [("{site}", "demo"), ("{file}", "js"), ("{article}", "cau-treo")];
    let mut pages = Vec::new();
    for (listener, address) in [("public", app.public()), ("admin", app.admin())] {
        let mut targets = routes(&app, listener);
        assert!(targets.len() >= 5, "{targets:?}");
        // What nobody serves, and what is closed, is a page too.
        targets.extend(["/nothing", "/newsroom/{site}", "/newsroom/lamdong"].map(str::to_owned));
        for target in targets.into_iter().filter(|target| !target.ends_with("/live")) {
            let target = names.iter().fold(target, |target, (name, value)| target.replace(name, value));
            for query in [
                "",
                "?format=fragment",
                "?part=figures",
                "?token=x",
                "?page=%3Cbx%3E&site=%3Cbx%3E&lang=%3Cbx%3E",
            ] {
                let target = format!("{target}{query}");
                let answer = opened(address, &target);
                let kind = answer.header("content-type").unwrap_or_default();
                assert!(
                    kind == "application/json" || !answer.body.windows(4).any(|text| text == b"<bx>"),
                    "{target} shows what it was asked"
                );
                if !answer.body.is_empty() && !target.ends_with(".gif") {
                    assert_eq!(
                        answer.header("x-content-type-options"),
                        Some("nosniff"),
                        "{target}: {answer:?}"
                    );
                }
                if !answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html")) {
                    continue;
                }
                let policy = answer.header("content-security-policy").unwrap_or_else(|| panic!("{target}"));
                let rule = |name: &str| {
                    let rules = policy.split(';').filter_map(|rule| rule.trim().split_once(' '));
                    rules.into_iter().find(|(rule, _)| *rule == name).map(|(_, sources)| sources.to_owned())
                };
                for name in ["default-src", "base-uri", "form-action"] {
                    assert_eq!(rule(name).as_deref(), Some("'none'"), "{target}: {policy}");
                }
                assert!(!policy.contains("unsafe") && !policy.contains("data: ;"), "{target}: {policy}");
                let framed = match target.split('?').next().unwrap() {
                    "/widget/demo" if !query.contains("fragment") => {
                        "'self' https://localhost:* http://localhost:* https://*.news.example:* http://*.news.example:*"
                    }
                    demo if demo.starts_with("/demo") => "'self'",
                    _ => "'none'",
                };
                let found = rule("frame-ancestors").unwrap_or_default();
                assert!(found == framed || answer.status >= 400 && found == "'none'", "{target}: {policy}");
                let referrer = answer.header("referrer-policy").unwrap_or_else(|| panic!("{target}"));
                assert!(["no-referrer", "same-origin"].contains(&referrer), "{target}: {referrer}");
                pages.push(target);
            }
        }
    }
    for page in [
        "/demo",
        "/demo/cau-treo",
        "/widget/demo",
        "/widget/demo?format=fragment",
        "/newsroom/lamdong",
        "/nothing",
    ] {
        assert!(pages.iter().any(|found| found == page), "{page} is not among {pages:?}");
    }
    assert!(pages.contains(&"/newsroom/lamdong?part=figures".to_owned()) && pages.contains(&"/".to_owned()));
}

#[test]
fn what_is_for_operators_is_not_found_at_the_public_listener() {
    let app = TestApp::start(Setup::default());
    let admin = app.admin();
    let paths = routes(&app, "admin");
    assert!(paths.len() >= 5, "{paths:?}");
    for path in paths {
        let own = get(admin, &path).status;
        assert!(own == 200 || path == "/runbook", "{path}: {own}");
        let bare = path.trim_start_matches('/');
        for target in [
            path.clone(),
            format!("/{path}/"),
            format!("/.{path}?verbose"),
            path.to_uppercase(),
            format!("/%2e/{bare}"),
            format!("/%2f{bare}"),
            format!("/api/v1/../..{path}"),
            format!("http://{admin}{path}"),
            format!("http://localhost@{admin}{path}"),
        ] {
            for host in [admin.to_string(), "localhost".to_owned(), "stats.example".to_owned()] {
                let asked = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
                let answer = ask(app.public(), asked);
                assert!([400, 404].contains(&answer.status), "{target} {host}: {answer:?}");
                assert!(!answer.text().contains("footfall_"), "{target}");
            }
        }
    }
}
