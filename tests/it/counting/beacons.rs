//! Beacons and what they are answered.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use crate::support::harness::{Beacon, Setup, TestApp, view};
use crate::support::http::{Answer, ask, encoded, request};

/// Headers, by name and value.
type Headers = &'static [(&'static str, &'static str)];

fn post(app: &TestApp, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    ask(app.public(), request("POST", "/api/v1/beacon", headers, body))
}

fn gif(app: &TestApp, query: &str) -> Answer {
    app.get(&format!("/api/v1/beacon.gif?{query}"))
}

#[test]
fn a_view_is_answered_204_that_any_page_may_read_and_nobody_keeps() {
    let app = TestApp::start(Setup::default());
    let answer = app.send(&view("https://baolamdong.vn/a").header("cookie", "a=b"));
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(
        answer.header("access-control-expose-headers"),
        Some("Footfall, Footfall-Reason, Retry-After, ETag")
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("footfall"), Some("1"));
    assert_eq!(answer.header("set-cookie"), None);
    assert_eq!(answer.header("access-control-allow-credentials"), None);
}

#[test]
fn everything_else_counts_nothing_and_says_why() {
    let setup = Setup::default().and("origins = [\"amp.example\"]\n").and(
        "[[site]]\nkey = \"strict\"\nhosts = [\"strict.vn\"]\norigin_check = \"strict\"\n\
         [[site]]\nkey = \"twin\"\nhosts = [\"strict.vn\", \"twin.vn\"]",
    );
    let app = TestApp::start(setup);
    let refused: &[(Headers, &str, (u16, &str))] = &[
        (&[], "", (400, "malformed")),
        (&[], "[]", (400, "malformed")),
        (&[], r#"{"site":"lamdong"}"#, (400, "malformed")),
        (&[], r#"{"site":"lamdong","url":7}"#, (400, "malformed")),
        (&[], r#"{"site":"lamdong","url":"/a","kind":"hit"}"#, (400, "malformed")),
        (&[], r#"{"site":"lamdong","url":"tin"}"#, (400, "bad-url")),
        (&[], r#"{"site":"lamdong","url":"ftp://baolamdong.vn/"}"#, (400, "bad-url")),
        (&[], r#"{"site":"lamdong","url":"//baolamdong.vn/a"}"#, (400, "bad-url")),
        (&[], r#"{"site":"camau","url":"/a"}"#, (404, "unknown-site")),
        (&[], r#"{"url":"/a"}"#, (404, "unknown-site")),
        (&[], r#"{"url":"https://elsewhere.vn/a"}"#, (404, "unknown-site")),
        (&[], r#"{"url":"https://strict.vn/a"}"#, (404, "unknown-site")),
        (&[], r#"{"site":"lamdong","url":"https://elsewhere.vn/a"}"#, (403, "wrong-origin")),
        (&[("origin", "https://elsewhere.vn")], r#"{"site":"lamdong","url":"/a"}"#, (403, "wrong-origin")),
        (&[("origin", "null")], r#"{"site":"lamdong","url":"/a"}"#, (403, "wrong-origin")),
        (&[("referer", "https://elsewhere.vn/a")], r#"{"site":"lamdong","url":"/a"}"#, (403, "wrong-origin")),
        (
            &[("origin", "https://elsewhere.vn"), ("referer", "https://baolamdong.vn")],
            r#"{"site":"lamdong","url":"/a"}"#,
            (403, "wrong-origin"),
        ),
        (&[], r#"{"site":"strict","url":"https://strict.vn/a"}"#, (403, "wrong-origin")),
    ];
    for (headers, body, (status, code)) in refused {
        let answer = post(&app, headers, body.as_bytes());
        assert_eq!(answer.outcome(), (*status, (*code).to_owned()), "{headers:?} {body}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    let before = app.metric("footfall_beacons_total{outcome=\"wrong-origin\"}");
    assert_eq!(before, 6.0, "the reason in the answer is the reason in the metric");
    let taken: &[(Headers, &str, &str)] = &[
        (&[("origin", "https://baolamdong.vn")], "lamdong", "https://www.baolamdong.vn/b"),
        (&[("origin", "https://amp.example")], "lamdong", "/b"),
        (&[("referer", "https://www.baolamdong.vn/x")], "lamdong", "/b"),
        (&[("origin", "https://baolamdong.vn"), ("referer", "https://elsewhere.vn/")], "lamdong", "/b"),
        (&[("referer", "")], "lamdong", "/b"),
        (&[("content-type", "text/plain"), ("referer", "https://strict.vn/")], "strict", "/b"),
    ];
    for (headers, site, url) in taken {
        let body = format!(r#"{{"site":"{site}","url":"{url}","later":{{"a":[1]}}}}"#);
        assert_eq!(post(&app, headers, body.as_bytes()).status, 204, "{headers:?} {body}");
        app.note(site, url, None);
    }
    // A host that is one site's alone names it.
    assert_eq!(post(&app, &[], br#"{"url":"https://twin.vn/c"}"#).status, 204);
    app.note("twin", "/c", None);
}

#[test]
fn a_method_or_a_path_that_is_not_there_is_told_so() {
    let app = TestApp::start(Setup::default());
    let asked = |method: &str, target: &str| ask(app.public(), request(method, target, &[], b""));
    let get = asked("GET", "/api/v1/beacon");
    assert_eq!(get.outcome(), (405, "method-not-allowed".into()));
    assert_eq!(get.header("allow"), Some("POST, OPTIONS"));
    assert_eq!(asked("POST", "/api/v1/beacon.gif").outcome(), (405, "method-not-allowed".into()));
    assert_eq!(asked("POST", "/api/v1/sites/lamdong/counters").outcome(), (405, "method-not-allowed".into()));
    assert_eq!(app.get("/api/v2/beacon").outcome(), (404, "not-found".into()));
    for path in ["/api/v1/beacon", "/api/v1/beacon.gif", "/api/v1/sites/lamdong/counters"] {
        let preflight = asked("OPTIONS", path);
        assert_eq!(preflight.status, 204);
        assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
        assert!(preflight.header("access-control-allow-methods").is_some_and(|m| m.contains("OPTIONS")));
        assert_eq!(preflight.header("access-control-allow-credentials"), None);
    }
}

#[test]
fn other_spellings_of_the_services_own_addresses_lead_there() {
    let setup = Setup::default()
        .set("public_url", "https://baolamdong.vn/Thong-Ke/")
        .set("page.beacon", "Thu/Tin")
        .set("page.script", "stats");
    let app = TestApp::start(setup);
    for path in [
        "/api/v1/beacon/",
        "//api/v1/beacon",
        "/api//v1///beacon//",
        "/./api/v1/./beacon/.",
        "/API/v1/Beacon",
        "/Thong-Ke/api/v1/beacon/",
        "//Thong-Ke//Api/v1/beacon?x=1",
        "/Thu/Tin/",
        "/Thong-Ke//Thu/Tin",
    ] {
        let body = br#"{"site":"lamdong","url":"/a"}"#;
        assert_eq!(ask(app.public(), request("POST", path, &[], body)).status, 204, "{path}");
        app.note("lamdong", "/a", None);
        let preflight = ask(app.public(), request("OPTIONS", path, &[], b""));
        assert_eq!((preflight.status, preflight.header("allow")), (204, Some("POST, OPTIONS")), "{path}");
    }
    app.page("/a");
    for (path, same) in [
        ("/api/v1/beacon.gif/?site=lamdong&url=nowhere", "/api/v1/beacon.gif?site=lamdong&url=nowhere"),
        ("//api/v1/sites/lamdong/counters/?page=/a", "/api/v1/sites/lamdong/counters?page=/a"),
        ("/api/v1/sites/lamdong/pages/?page=/a", "/api/v1/sites/lamdong/pages?page=/a"),
        ("/footfall.js/", "/footfall.js"),
        ("//stats.js", "/footfall.js"),
        ("/Footfall.v1.js", "/footfall.v1.js"),
        ("/widget//lamdong/?format=text", "/widget/lamdong?format=text"),
        ("/badge/lamdong.svg/", "/badge/lamdong.svg"),
        ("/Thong-Ke/", "/"),
    ] {
        let (other, plain) = (app.get(path), app.get(same));
        assert_eq!((other.status, &other.body), (plain.status, &plain.body), "{path}");
    }
    for path in
        ["/api/v1", "/api/v1/beacons/", "/api/v1/beacon/x", "/x/api/v1/beacon", "/api/v1/sites//counters"]
    {
        assert_eq!(app.get(path).outcome(), (404, "not-found".into()), "{path}");
    }
}

#[test]
fn what_is_dropped_of_a_url_does_not_decide_whether_a_view_counts() {
    let app = TestApp::start(Setup::default());
    let padding = |length: usize| "x=1&".repeat(length / 4);
    let encoded_padding = |length: usize| encoded(&padding(length));
    let queries = [
        format!("site=lamdong&url=/a%3F{}", encoded_padding(4500)),
        format!("site=lamdong&url=/a%23{}", encoded_padding(4500)),
        "site=lamdong&url=https://baolamdong.vn/a?q=t%EAn".to_owned(),
        "site=lamdong&url=https%3A%2F%2Fbaolamdong.vn%2Fa%3fq%3Dt%EAn".to_owned(),
        "site=lamdong&url=/a%23%ff".to_owned(),
        "site=lamdong&url=/a?%".to_owned(),
    ];
    for query in &queries {
        assert_eq!(gif(&app, query).status, 200, "{query}");
        app.note("lamdong", "/a", None);
    }
    assert_eq!(gif(&app, "site=lamdong&url=/%ff?a").outcome(), (400, "malformed".into()), "the path does");
    let urls = [
        format!("https://baolamdong.vn/a?{}", padding(3900)),
        format!("https://baolamdong.vn/a#{}", padding(3900)),
        "https://baolamdong.vn/a?%ff%zz%#%".to_owned(),
        "https://baolamdong.vn/a?\u{202e}\u{0}{}|^`#[]".to_owned(),
    ];
    for url in urls {
        let referer = app.send(&view(&url).header("referer", "https://www.baolamdong.vn/?q=t\u{ea}n"));
        assert_eq!(referer.status, 204, "{url}");
    }
    assert_eq!(app.page("/a")["views"]["all"], 10);
}

#[test]
fn a_preflight_allows_whatever_names_are_asked_for() {
    let app = TestApp::start(Setup::default());
    let usual = "content-type, if-none-match, cache-control";
    let long = "x-trace, ".repeat(200) + "x-trace";
    for (asked, allowed) in [
        (None, usual),
        (Some("traceparent"), "traceparent"),
        (Some("content-type,sentry-trace, baggage"), "content-type,sentry-trace, baggage"),
        (Some("X-Requested-With"), "X-Requested-With"),
        (Some("a b"), usual),
        (Some("traceparent,,x"), usual),
        (Some("x: y"), usual),
        (Some(""), usual),
        (Some(long.as_str()), usual),
    ] {
        for path in ["/api/v1/beacon", "/api/v1/sites/lamdong/counters", "/footfall.js", "/widget/lamdong"] {
            let headers = asked.map(|names| ("access-control-request-headers", names));
            let preflight = ask(app.public(), request("OPTIONS", path, headers.as_slice(), b""));
            assert_eq!((preflight.status, preflight.header("footfall")), (204, Some("1")));
            assert_eq!(preflight.header("access-control-allow-headers"), Some(allowed), "{path} {asked:?}");
            assert_eq!(preflight.header("vary"), Some("access-control-request-headers"));
        }
    }
}

#[test]
fn a_body_is_at_most_4096_bytes() {
    let app = TestApp::start(Setup::default());
    let body = |length: usize| {
        let (head, tail) = (r#"{"site":"lamdong","url":"/long","x":""#, r#""}"#);
        format!("{head}{}{tail}", "a".repeat(length - head.len() - tail.len()))
    };
    assert_eq!(post(&app, &[], body(4096).as_bytes()).status, 204);
    app.note("lamdong", "/long", None);
    assert_eq!(post(&app, &[], body(4097).as_bytes()).outcome(), (413, "too-large".into()));
    let chunked = format!(
        "POST /api/v1/beacon HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        4097,
        body(4097)
    );
    assert_eq!(ask(app.public(), chunked).outcome(), (413, "too-large".into()));
}

#[test]
fn a_pixel_counts_a_view_for_pages_without_scripts() {
    let app = TestApp::start(Setup::default());
    let url = encoded("https://baolamdong.vn/thu?x=1");
    for _ in 0..2 {
        let pixel = gif(&app, &format!("site=lamdong&url={url}&id=mail-1&utm_source=thu"));
        assert_eq!((pixel.status, pixel.body.len()), (200, 43));
        assert_eq!(pixel.header("content-type"), Some("image/gif"));
        assert_eq!(pixel.header("cross-origin-resource-policy"), Some("cross-origin"));
        assert_eq!(pixel.header("cache-control"), Some("no-store"));
        app.note("lamdong", "/thu", Some("mail-1".into()));
    }
    for (query, status, reason) in [
        ("site=lamdong", 400, "malformed"),
        ("site=camau&url=/a", 404, "unknown-site"),
        ("site=lamdong&url=a", 400, "bad-url"),
        ("site=lamdong&url=https%3A%2F%2Felsewhere.vn%2F", 403, "wrong-origin"),
        ("site=lamdong&url=%ff", 400, "malformed"),
    ] {
        let pixel = gif(&app, query);
        assert_eq!(
            (pixel.status, pixel.body.len(), pixel.header("footfall-reason")),
            (status, 43, Some(reason))
        );
    }
}

#[test]
fn hosts_of_a_site_may_be_named_by_their_end_and_apps_by_their_origin() {
    let app = TestApp::start(Setup::default().sites(
        "[[site]]\nkey = \"tinh\"\nhosts = [\"*.lamdong.gov.vn\"]\ntime_zone = \"Asia/Ho_Chi_Minh\"\n\
         origins = [\"capacitor://localhost\", \"*.translate.goog\"]\n\
         [[site]]\nkey = \"thi\"\nhosts = [\"thi.lamdong.gov.vn\"]\ntime_zone = \"Asia/Ho_Chi_Minh\"",
    ));
    let taken: &[(Headers, &str, &str)] = &[
        (&[], "tinh", "https://www.lamdong.gov.vn/a"),
        (&[("origin", "https://so.nong.lamdong.gov.vn:8443")], "tinh", "https://so.nong.lamdong.gov.vn/a"),
        (&[], "thi", "https://thi.lamdong.gov.vn/a"),
        (&[("origin", "capacitor://localhost")], "tinh", "https://www.lamdong.gov.vn/a"),
        (&[("origin", "https://tinh.translate.goog")], "tinh", "https://www.lamdong.gov.vn/a"),
    ];
    for (headers, site, url) in taken {
        let body = format!(r#"{{"url":"{url}"}}"#);
        assert_eq!(post(&app, headers, body.as_bytes()).status, 204, "{headers:?} {url}");
        app.note(site, "/a", None);
    }
    let of_app =
        view("capacitor://localhost/a").with("site", "tinh").header("origin", "capacitor://localhost");
    assert_eq!(post(&app, &[], br#"{"url":"https://lamdong.gov.vn/a"}"#).outcome().0, 404);
    let refused: &[(Headers, &str, u16)] = &[
        (&[], "https://lamdong.gov.vn/a", 403),
        (&[], "https://xlamdong.gov.vn/a", 403),
        (&[], "https://www.lamdong.gov.vn.example/a", 403),
        (&[("origin", "capacitor://localhost.example")], "/a", 403),
        (&[("origin", "ionic://localhost")], "/a", 403),
        (&[], "ionic://localhost/a", 400),
        (&[], "capacitor://localhosts/a", 400),
        (&[], "capacitor://localhost//elsewhere.vn/a", 400),
    ];
    for (headers, url, status) in refused {
        let body = format!(r#"{{"site":"tinh","url":"{url}"}}"#);
        assert_eq!(post(&app, headers, body.as_bytes()).status, *status, "{headers:?} {url}");
    }
    assert_eq!(app.send(&of_app).status, 204);
    assert_eq!(app.page_of("tinh", "capacitor://localhost/a?x=1#y")["page"], "/a");
    assert_eq!(app.page_of("tinh", "/a")["views"]["all"], 5);
    assert_eq!(app.get("/api/v1/sites/www.lamdong.gov.vn/counters").json()["site"], "tinh");
    let framed = app.get("/widget/tinh");
    assert!(framed.header("content-security-policy").unwrap().contains("https://*.lamdong.gov.vn:*"));
}

#[test]
fn where_consent_is_required_only_readers_who_agreed_are_counted() {
    let app = TestApp::start(Setup::default().and("require_consent = true"));
    let agreed = |beacon: Beacon| beacon.with("consent", true);
    for beacon in [view("/a"), view("/a").ping(), view("/a").leave(), view("/a").with("consent", false)] {
        for beacon in [beacon.clone(), beacon.with("answer", "counters")] {
            let answer = app.send(&beacon);
            assert_eq!(answer.outcome(), (202, "no-consent".into()), "{beacon:?}");
            assert_eq!((answer.body.len(), answer.header("footfall")), (0, Some("1")));
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
    }
    for query in ["", "&consent=false", "&consent"] {
        let pixel = gif(&app, &format!("site=lamdong&url=/a{query}"));
        assert_eq!((pixel.outcome(), pixel.body.len()), ((202, "no-consent".into()), 43), "{query}");
    }
    // Who has no part in it is told so first.
    assert_eq!(app.send(&view("https://elsewhere.vn/a")).status, 403);
    assert_eq!(app.metric("footfall_beacons_total{outcome=\"no-consent\"}"), 11.0);
    let none = app.counters();
    assert_eq!(
        (&none["views"]["all"], &none["visits"]["all"], &none["online"]),
        (&0.into(), &0.into(), &0.into())
    );
    app.take(&agreed(view("/a")));
    assert_eq!(app.send(&agreed(view("/a").ping())).status, 204);
    assert_eq!(gif(&app, "consent=true&site=lamdong&url=/a").status, 200);
    app.note("lamdong", "/a", None);
    assert_eq!(app.page("/a")["views"]["all"], 2);
}

#[test]
fn pixels_in_mail_and_feeds_count_as_promised() {
    let app = TestApp::start(
        Setup::default()
            .and("origins = [\"feedly.com\"]\nrobots_allow = [\"GoogleImageProxy\"]")
            .and("[[site]]\nkey = \"strict\"\nhosts = [\"strict.vn\"]\norigin_check = \"strict\""),
    );
    const PROXY: &str =
        "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)";
    let asked: &[(Headers, &str, u16)] = &[
        (&[("user-agent", PROXY)], "lamdong", 200),
        (&[("user-agent", "Mozilla/5.0"), ("accept", "image/*")], "lamdong", 202),
        (&[("user-agent", "")], "lamdong", 202),
        (&[], "lamdong", 200),
        (&[("referer", "https://feedly.com/")], "lamdong", 200),
        (&[("referer", "https://outlook.live.com/")], "lamdong", 403),
        (&[], "strict", 403),
    ];
    for (headers, site, status) in asked {
        let host = if *site == "strict" { "strict.vn" } else { "baolamdong.vn" };
        let target =
            format!("/api/v1/beacon.gif?site={site}&url={}", encoded(&format!("https://{host}/thu")));
        let pixel = ask(app.public(), request("GET", &target, headers, b""));
        assert_eq!((pixel.status, pixel.body.len()), (*status, 43), "{headers:?} {site}");
        if *status == 200 {
            app.note(site, "/thu", None);
        }
    }
    assert_eq!(app.page("/thu")["views"]["all"], 3);
}

#[test]
fn an_id_counts_once_per_site_and_page() {
    let setup = Setup::default().and("[[site]]\nkey = \"camau\"\nhosts = [\"camau.vn\"]");
    let mut app = TestApp::start(setup);
    for _ in 0..3 {
        app.take(&view("/a").id("x"));
        app.take(&view("https://baolamdong.vn/a/").id("x"));
        app.take(&view("/b").id("x"));
        app.take(&view("/a").with("site", "camau").id("x"));
        app.take(&view("/a").id("y"));
        app.take(&view("/a").id(""));
    }
    assert_eq!(app.page("/a")["views"]["all"], 2 + 3, "x, y and three without a name");
    assert_eq!(app.page("/b")["views"]["all"], 1);
    assert_eq!(app.page_of("camau", "/a")["views"]["all"], 1);
    assert_eq!(app.metric("footfall_beacons_total{outcome=\"repeated\"}"), 11.0);
    // Nine minutes and a restart later it is still the same view.
    app.restart_after(std::time::Duration::from_secs(9 * 60));
    app.take(&view("/a").id("x"));
    assert_eq!(app.page("/a")["views"]["all"], 5);
    // It is forgotten after twenty.
    app.restart_after(std::time::Duration::from_secs(20 * 60));
    app.ids_are_forgotten();
    app.take(&view("/a").id("x"));
    assert_eq!(app.page("/a")["views"]["all"], 6);
    let too_long = "ă".repeat(65);
    assert_eq!(app.send(&view("/a").id(&too_long)).outcome(), (400, "malformed".into()));
    app.take(&view("/a").id(&"ă".repeat(64)));
}

#[test]
fn the_same_id_at_the_same_time_counts_once() {
    let app = TestApp::start(Setup::default());
    let (address, bytes) = (app.public(), view("/dong-thoi").id("einmal").bytes());
    let senders: Vec<_> = (0..16)
        .map(|_| {
            let bytes = bytes.clone();
            std::thread::spawn(move || (0..20).map(|_| ask(address, &bytes).status).collect::<Vec<_>>())
        })
        .collect();
    for sender in senders {
        for status in sender.join().unwrap() {
            assert_eq!(status, 204);
            app.note("lamdong", "/dong-thoi", Some("einmal".into()));
        }
    }
    assert_eq!(app.page("/dong-thoi")["views"]["all"], 1);
}

#[test]
fn the_client_is_the_rightmost_address_that_no_proxy_of_ours_has() {
    let setup = Setup::default().set("trusted_proxies", "127.0.0.0/8, 10.0.0.0/8");
    let app = TestApp::start(setup);
    // Each line is one and the same visitor to us, whatever it claims further left.
    let visitors: &[&[&[&str]]] = &[
        &[
            &["203.0.113.1"],
            &["198.51.100.9, 203.0.113.1"],
            &["203.0.113.1, 10.1.2.3"],
            &["203.0.113.1:4711"],
        ],
        &[
            &["203.0.113.2", "10.1.2.3"],
            &["1.1.1.1, 203.0.113.2", "10.9.9.9, 10.1.2.3"],
            &["::ffff:203.0.113.2"],
        ],
        &[&["2001:db8::1"], &["[2001:db8::1]:80"], &["junk, 2001:DB8::1"]],
        &[&["10.7.7.7"], &["junk, 10.7.7.7"]],
    ];
    for (known, lines) in visitors.iter().enumerate() {
        for headers in *lines {
            let beacon = headers.iter().fold(view("/a"), |beacon, value| beacon.from(value));
            app.take(&beacon);
            assert_eq!(app.online(), known as u64 + 1, "{headers:?}");
        }
    }
    let counters = app.counters();
    assert_eq!(
        (counters["visits"]["day"].as_u64(), counters["visitors"]["day"].as_u64()),
        (Some(4), Some(4))
    );
}

#[test]
fn a_forwarding_header_of_an_untrusted_peer_is_ignored_and_counted() {
    let app = TestApp::start(Setup::default().set("trusted_proxies", "10.0.0.0/8"));
    app.take(&view("/a").from("203.0.113.1"));
    app.take(&view("/a").from("203.0.113.2"));
    assert_eq!(app.online(), 1, "both came from this machine");
    assert_eq!(app.metric("footfall_client_header_ignored_total"), 2.0);
}

#[test]
fn the_header_that_names_the_client_is_the_configured_one_alone() {
    let app = TestApp::start(Setup::default().set("client_header", "forwarded"));
    app.take(&view("/a").header("forwarded", "for=203.0.113.1;proto=https, for=127.0.0.9"));
    app.take(&view("/a").header("forwarded", "for=\"[2001:db8::1]:99\""));
    app.take(&view("/a").from("203.0.113.3"));
    app.take(&view("/a").from("203.0.113.4"));
    assert_eq!(app.online(), 3);
}

#[test]
fn without_a_header_the_peer_is_the_client() {
    let app = TestApp::start(Setup::default().set("client_header", "none"));
    for last in 1..=3 {
        let own = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&own.into()).unwrap();
        socket.connect(&app.public().into()).unwrap();
        let mut stream = TcpStream::from(socket);
        assert_eq!(stream.local_addr().unwrap().ip(), IpAddr::from([127, 0, 0, last]));
        std::io::Write::write_all(&mut stream, &view("/a").from("203.0.113.1").bytes()).unwrap();
        let mut head = [0; 12];
        std::io::Read::read_exact(&mut stream, &mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 204");
        app.note("lamdong", "/a", None);
    }
    assert_eq!(app.online(), 3);
}

#[test]
fn sites_do_not_mix() {
    let app = TestApp::start(Setup::default().and("[[site]]\nkey = \"camau\"\nhosts = [\"camau.vn\"]"));
    for _ in 0..3 {
        app.take(&view("/tin").from("203.0.113.1"));
    }
    app.take(&view("/tin").with("site", "camau").from("203.0.113.1"));
    app.take(&view("/tin").with("site", "camau").from("203.0.113.2"));
    let (here, there) = (app.counters(), app.counters_of("camau"));
    assert_eq!(
        (&here["views"]["all"], &here["visits"]["all"], &here["online"]),
        (&3.into(), &1.into(), &1.into())
    );
    assert_eq!(
        (&there["views"]["all"], &there["visits"]["all"], &there["online"]),
        (&2.into(), &2.into(), &2.into())
    );
    assert_eq!(
        (app.page("/tin")["online"].as_u64(), app.page_of("camau", "/tin")["online"].as_u64()),
        (Some(1), Some(2))
    );
}
