//! A beacon that asks what would become of it is decided as any other, and counts nothing.

use serde_json::{Value, json};

use crate::support::harness::{Beacon, SITE, Setup, TestApp, view};
use crate::support::http::{ask, get, request};
use crate::support::meddled::Meddled;
use crate::support::wait::until;

const SITES: &str = "[[site]]\nkey = \"asks\"\nhosts = [\"asks.vn\"]\nrequire_consent = true\n\
    [[site]]\nkey = \"own\"\nhosts = [\"own.vn\"]\nidentity = \"browser\"\n\
    honour = [\"gpc\"]\nhonour_as = \"without-identity\"\n\
    [[site]]\nkey = \"none\"\nhosts = [\"none.vn\"]\nidentity = \"none\"\norigin_check = \"strict\"";

fn dry(beacon: &Beacon) -> Beacon {
    beacon.clone().with("dry_run", true)
}

fn counted(app: &TestApp) -> Vec<String> {
    let text = get(app.admin(), "/metrics").text().to_owned();
    let is_count = |line: &&str| {
        [
            "footfall_beacons_total",
            "footfall_views_total",
            "footfall_online",
            "footfall_client_header_ignored",
        ]
        .iter()
        .any(|name| line.starts_with(name))
    };
    text.lines().filter(is_count).map(str::to_owned).collect()
}

#[test]
fn a_beacon_is_told_what_would_become_of_it_and_counts_nothing() {
    let app = TestApp::start(Setup::default().and("exclude_addresses = [\"198.51.100.0/24\"]").and(SITES));
    app.take(&view("/a").by(1).id("once"));
    let before = counted(&app);
    for (beacon, told) in [
        (
            view("https://www.baolamdong.vn/tin/?x=1").by(2),
            json!({"outcome": "counted", "status": 204, "reason": null, "detail": null, "site": SITE, "page": "/tin",
                "kind": "view", "identity": "address", "client": "header", "day": "2023-09-15"}),
        ),
        (view("/a").by(1).id("once"), json!({"outcome": "repeated", "status": 204})),
        (view("/a").by(1).ping(), json!({"outcome": "taken", "kind": "ping"})),
        (view("/a"), json!({"client": "proxy"})),
        (view("/a").with("site", "own").with("visitor", "x"), json!({"identity": "browser"})),
        (view("/a").with("site", "own"), json!({"identity": "address"})),
        (
            view("/a").with("site", "none"),
            json!({"identity": "none", "outcome": "refused", "reason": "wrong-origin", "site": "none"}),
        ),
        (
            view("/a").with("site", "asks"),
            json!({"outcome": "filtered", "status": 202, "reason": "no-consent", "site": "asks", "page": null}),
        ),
        (view("/a").with("site", "asks").with("consent", true), json!({"outcome": "counted"})),
        (
            view("/a").header("user-agent", "curl/8.5"),
            json!({"outcome": "filtered", "status": 202, "reason": "robot",
                "detail": "It is taken for a program's; robots_allow of the site takes in those that are readers'. The \
                           user agent does not begin as a browser's."}),
        ),
        // As who opens it in an address bar has it, and no page.
        (view("/a").header("sec-fetch-mode", "navigate"), json!({"outcome": "counted"})),
        (
            view("/a").header("sec-gpc", "1").with("site", "own").with("visitor", "x"),
            json!({"outcome": "counted", "identity": "none"}),
        ),
        (
            view("/a").from("198.51.100.7"),
            json!({"reason": "excluded-address",
                "detail": "The site leaves out this address. By 198.51.100.0/24 in exclude_addresses."}),
        ),
        (
            view("ftp://x/").by(1),
            json!({"outcome": "refused", "status": 400, "reason": "bad-url", "day": null}),
        ),
        (view("https://m.baolamdong.vn/"), json!({"status": 403, "reason": "wrong-origin", "site": SITE})),
        (view("/").with("site", "lamdnog"), json!({"status": 404, "reason": "unknown-site", "site": null})),
    ] {
        let shown = ask(app.public(), dry(&beacon).bytes());
        assert_eq!((shown.status, shown.header("cache-control")), (200, Some("no-store")), "{beacon:?}");
        assert_eq!(shown.header("access-control-allow-origin"), Some("*"));
        let shown = shown.json();
        for (member, value) in told.as_object().unwrap() {
            assert_eq!(&shown[member], value, "{member} of {beacon:?}: {shown}");
        }
        assert_eq!(shown["reason"].is_null(), shown["detail"].is_null(), "{shown}");
        assert!(!shown.to_string().contains("203.0."), "no address: {shown}");
        // What is foretold comes true.
        if shown["outcome"] == "refused" {
            let refused = app.send(&beacon).json();
            assert_eq!((&refused["code"], &refused["detail"]), (&shown["reason"], &shown["detail"]));
        }
    }
    let refusals = counted(&app).iter().zip(&before).filter(|(now, then)| now != then).count();
    assert_eq!(refusals, 4, "what was sent without dry_run alone");
    assert_eq!(app.counters()["views"]["all"], 1);
    assert_eq!(app.online(), 1);
}

#[test]
fn it_may_be_asked_by_the_query_too_also_from_an_address_bar() {
    let app = TestApp::start(Setup::default().set("trusted_proxies", ""));
    let before = counted(&app);
    let url = "url=https%3A%2F%2Fbaolamdong.vn%2Ftin&site=lamdong";
    let forwarded = [("x-forwarded-for", "203.0.113.1")];
    let post =
        |body: &[u8]| ask(app.public(), request("POST", "/api/v1/beacon?dry_run", &forwarded, body)).json();
    let gif = app.get(&format!("/api/v1/beacon.gif?{url}&dry_run")).json();
    assert_eq!([&gif["outcome"], &gif["page"], &gif["client"]], ["counted", "/tin", "peer"]);
    assert_eq!(post(br#"{"site":"lamdong","url":"/a"}"#)["client"], "ignored-header");
    let shown = post(br#"{"site":"lamdong","url":"/a","kind":"look"}"#);
    assert_eq!([&shown["reason"], &shown["site"]], [&json!("malformed"), &Value::Null]);
    assert!(shown["detail"].as_str().unwrap().ends_with("kind must be view, ping or leave."), "{shown}");
    assert_eq!(app.get("/api/v1/beacon.gif?dry_run").json()["reason"], "malformed");
    assert_eq!(counted(&app), before);
    assert!(!get(app.admin(), "/").text().contains("refused in the last hour"));
}

#[test]
fn what_the_service_cannot_keep_is_foretold() {
    let meddled = Meddled::start(Setup::default());
    meddled.order("clock -220000000");
    until("the clock is read", || meddled.service.readiness().1.contains("[-]clock"));
    let told = ask(meddled.service.public(), dry(&view("/a")).bytes()).json();
    assert_eq!([&told["outcome"], &told["reason"]], ["refused", "clock-wrong"], "{told}");
    assert_eq!((&told["status"], &told["site"]), (&503.into(), &SITE.into()));
    meddled.order("");
}
