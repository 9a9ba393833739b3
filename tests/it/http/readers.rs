//! What a site keeps for those who have a token.

use footfall::config::Config;

use crate::support::harness::{Setup, TestApp, view};
use crate::support::http::{self, Answer, Connection, ask, request};

const READS: [&str; 5] = [
    "/api/v1/sites/lamdong/counters",
    "/api/v1/sites/lamdong/pages?page=/a",
    "/widget/lamdong",
    "/badge/lamdong.svg",
    "/api/v1/sites/lamdong/live",
];
/// What `sha256sum` says of "the old token" and of "the-new-token".
const HASHES: [&str; 2] = [
    "sha256:de5fe0bafb540b3043bd7a0719e9bf67d8b2b942975e7c5e8477a4230b87d0ef",
    "sha256:412bf7031143083202a9f92a5c9e061394d14f4bc0bc4d1f11beb0456f4bfa00",
];
const PRIVATE: Option<&str> = Some("private, no-store");

fn app(public: &str) -> TestApp {
    let app = TestApp::start(Setup::default().and(&format!("public = [{public}]\nread_tokens = {HASHES:?}")));
    app.read(1);
    // At its end nobody has a token to compare with.
    app.forget_what_was_accepted();
    app
}

fn asked(app: &TestApp, method: &str, target: &str, authorization: Option<&str>) -> Answer {
    let headers: Vec<_> = authorization.map(|value| ("authorization", value)).into_iter().collect();
    let mut connection = Connection::open(app.public()).unwrap();
    connection.send(request(method, target, &headers, b"")).unwrap();
    // Of a stream, and of an answer to HEAD, there is the head alone.
    match method == "HEAD" || target.ends_with("live") {
        true => connection.head().unwrap(),
        false => connection.answer().unwrap(),
    }
}

#[test]
fn what_is_kept_is_read_with_a_token_alone_and_no_cache_keeps_it() {
    let app = app("");
    for target in READS {
        for wrong in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer wrong"),
            Some("Bearer the-new-toke"),
            Some("Bearer the-new-token2"),
            Some("Basic the-new-token"),
            Some("the-new-token"),
            Some("Bearer the-new-token, Bearer x"),
        ] {
            let answer = asked(&app, "HEAD", target, wrong);
            assert_eq!(
                (answer.status, answer.header("www-authenticate")),
                (401, Some("Bearer")),
                "{target} {wrong:?}"
            );
            assert_eq!(answer.header("cache-control"), PRIVATE);
        }
        let refused = ask(app.public(), request("GET", &format!("{target}?token=the-new-token"), &[], b""));
        assert_eq!(refused.outcome(), (401, "unauthorized".into()), "{target}");
        assert!(!refused.text().contains("the-new-token"));
        for right in ["Bearer the old token", "Bearer the-new-token", "bearer  the-new-token"] {
            let answer = asked(&app, "GET", target, Some(right));
            assert_eq!((answer.status, answer.header("cache-control")), (200, PRIVATE), "{target} {right}");
        }
    }
    // A page may ask with a token, too.
    let asks = [("access-control-request-headers", "authorization")];
    let preflight = ask(app.public(), request("OPTIONS", READS[0], &asks, b""));
    assert_eq!(
        (preflight.status, preflight.header("access-control-allow-headers")),
        (204, Some("authorization"))
    );
}

#[test]
fn what_stays_public_is_read_by_all_and_no_cache_keeps_that_either() {
    let app = app("\"counters\"");
    let counters = asked(&app, "GET", READS[0], None);
    assert_eq!((counters.status, counters.header("cache-control")), (200, PRIVATE));
    let held = [("if-none-match", counters.header("etag").unwrap())];
    let same = ask(app.public(), request("GET", READS[0], &held, b""));
    assert_eq!((same.status, same.header("cache-control")), (304, PRIVATE));
    for target in &READS[1..] {
        assert_eq!(asked(&app, "HEAD", target, None).status, 401, "{target}");
    }
    let unknown = app.get("/api/v1/sites/camau/pages?page=/a");
    assert_eq!(unknown.outcome(), (404, "unknown-site".into()));
}

#[test]
fn a_beacon_is_told_what_its_sender_may_read() {
    let told = |app: &TestApp, token: Option<&str>| {
        let beacon = view("/a").with("answer", "counters");
        let beacon = token.iter().fold(beacon, |beacon, token| beacon.header("authorization", token));
        http::ask(app.public(), beacon.bytes()).status
    };
    let (kept, public) = (app("\"pages\", \"widget\""), app("\"counters\""));
    assert_eq!([told(&kept, None), told(&kept, Some("Bearer x"))], [204, 204]);
    assert_eq!(told(&kept, Some("Bearer the-new-token")), 200);
    assert_eq!(told(&public, None), 200);
}

#[test]
fn tokens_are_written_as_hashes_and_never_shown() {
    let load = |lines: &str| {
        let site = format!("[[site]]\nkey = \"a\"\nhosts = [\"a.example\"]\ntime_zone = \"UTC\"\n{lines}");
        Config::load(Some(("footfall.toml", site.as_str())), std::iter::empty())
    };
    let hash = HASHES[0];
    let config = load(&format!("public = []\nread_tokens = [\"{hash}\"]")).unwrap();
    assert!(config.to_toml().contains("read_tokens = [\"***\"]") && config.warnings.is_empty(), "{config:?}");
    for (lines, warning) in [
        ("public = [\"counters\"]".to_owned(), "read_tokens is empty: nobody reads them"),
        (format!("read_tokens = [\"{hash}\"]"), "read_tokens, which nobody needs"),
    ] {
        let warnings = load(&lines).unwrap().warnings.join("\n");
        assert!(warnings.contains(warning), "{warnings}");
    }
    for (lines, fault) in [
        (
            "read_tokens = [\"a-token-in-clear\"]",
            "site.0.read_tokens = [\"***\"]: not sha256: and 64 hex digits",
        ),
        ("read_tokens = \"a-token-in-clear\"", "site.0.read_tokens: not a list"),
        (
            "public = [\"everything\"]",
            "site.0.public = [\"everything\"]: not one of counters, pages, live, widget, badge",
        ),
    ] {
        let faults = load(lines).unwrap_err().to_string();
        assert!(faults.contains(fault) && !faults.contains("in-clear"), "{faults}");
    }
}
