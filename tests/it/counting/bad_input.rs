//! What is not a beacon counts nothing and ends nothing.

use crate::support::dice::Dice;
use crate::support::harness::{SITE, Setup, TestApp, view};
use crate::support::http::{Connection, ask, request};

#[test]
fn nonsense_is_malformed() {
    let app = TestApp::start(Setup::default());
    let whole = br#"{"site":"lamdong","url":"/a","kind":"view","id":"1","visitor":"2"}"#;
    let mut bodies: Vec<Vec<u8>> = (0..whole.len()).map(|length| whole[..length].to_vec()).collect();
    let more: [&[u8]; 17] = [
        b"null",
        b"\"/a\"",
        b"[\"lamdong\",\"/a\"]",
        b"{\"site\":\"lamdong\",\"url\":[\"/a\"]}",
        b"{\"site\":7,\"url\":\"/a\"}",
        b"{\"site\":\"lamdong\",\"url\":null}",
        b"{\"site\":\"lamdong\",\"url\":\"/a\",\"kind\":true}",
        b"{\"site\":\"lamdong\",\"url\":\"/a\",\"kind\":\"VIEW\"}",
        b"{\"site\":\"lamdong\",\"url\":\"/a\",\"id\":1}",
        b"{\"site\":\"lamdong\",\"url\":\"/a\",\"url\":\"/b\"}",
        b"{\"site\":\"lamdong\",\"url\":\"/a\"}{}",
        b"{'site':'lamdong','url':'/a'}",
        b"{\"site\":\"lamdong\",\"url\":\"/\xff\xfe\"}",
        b"{\"site\":\"lamdong\",\"url\":\"/\xed\xa0\x80\"}",
        b"{\"site\":\"lamdong\",\"url\":\"/\\ud800\"}",
        b"{\"site\":\"lamdong\",\"url\":\"/a\nb\"}",
        b"\xef\xbb\xbf{\"site\":\"lamdong\",\"url\":\"/a\"}",
    ];
    bodies.extend(more.map(<[u8]>::to_vec));
    bodies.push([b"{\"x\":".as_slice(), &[b'['; 4000]].concat());
    for body in &bodies {
        let answer = ask(app.public(), request("POST", "/api/v1/beacon", &[], body));
        assert_eq!(answer.outcome(), (400, "malformed".into()), "{}", String::from_utf8_lossy(body));
    }
    let counted = app.metric("footfall_beacons_total{outcome=\"malformed\"}");
    assert_eq!(counted, bodies.len() as f64);
    assert_eq!(app.counters()["views"]["all"], 0);
}

#[test]
fn a_body_that_breaks_off_counts_nothing() {
    let app = TestApp::start(Setup::default());
    let bytes = view("/a").bytes();
    for length in [10, bytes.len() / 2, bytes.len() - 1] {
        let mut connection = Connection::open(app.public()).unwrap();
        connection.send(&bytes[..length]).unwrap();
        connection.send_no_more().unwrap();
        if let Ok(answer) = connection.answer() {
            assert!((400..500).contains(&answer.status), "{answer:?}");
        }
        assert!(connection.is_closed());
    }
    assert_eq!(app.counters()["views"]["all"], 0);
}

#[test]
fn control_characters_stay_escaped_and_pages_short() {
    let app = TestApp::start(Setup::default());
    for (url, page) in [
        ("/a%00b", "/a%00b"),
        ("/a\u{7}b", "/a%07b"),
        ("/a%0d%0aSet-Cookie: x", "/a%0D%0ASet-Cookie: x"),
        ("/a\u{202e}b", "/a%E2%80%AEb"),
        ("/%ff%FE", "/%FF%FE"),
        ("/a%2fb", "/a%2Fb"),
        ("/x/../y/./z/", "/y/z"),
    ] {
        app.take(&view(url));
        let shown = app.page(url);
        assert_eq!(
            (shown["page"].as_str(), shown["views"]["all"].as_u64()),
            (Some(page), Some(1)),
            "{url:?}"
        );
    }
    let long = format!("/{}", "à".repeat(1000));
    app.take(&view(&long));
    app.take(&view(&format!("{long}x")));
    let shown = app.page(&long);
    assert!(shown["page"].as_str().unwrap().len() <= 512);
    assert_eq!(shown["views"]["all"], 1, "cut pages are told apart");
}

#[test]
fn a_beacon_with_anything_changed_is_taken_or_refused_and_nothing_else() {
    let app = TestApp::start(Setup::default());
    let mut dice = Dice::thrown();
    let whole = br#"{"site":"lamdong","url":"https://baolamdong.vn/tin-t%E1%BB%A9c/1?x=2#y","id":"abc"}"#;
    let mut connection = Connection::open(app.public()).unwrap();
    for _ in 0..2000 {
        let mut body = whole.to_vec();
        for _ in 0..=dice.below(3) {
            let at = dice.below(body.len() as u64) as usize;
            match dice.below(3) {
                0 => body[at] = dice.below(256) as u8,
                1 => drop(body.remove(at)),
                _ => body.insert(at, b"\"{}[]:,\\%/\0\x7f\xc3"[dice.below(13) as usize]),
            }
        }
        let answer = connection.ask(request("POST", "/api/v1/beacon", &[], &body)).unwrap();
        if answer.status == 204 {
            let said: serde_json::Value = serde_json::from_slice(&body).unwrap();
            app.note(
                SITE,
                said["url"].as_str().unwrap(),
                said["id"].as_str().filter(|i| !i.is_empty()).map(str::to_owned),
            );
        } else {
            assert!(
                matches!(answer.status, 400 | 403 | 404),
                "{answer:?}: {}",
                String::from_utf8_lossy(&body)
            );
        }
    }
}

#[test]
fn what_is_no_http_is_refused_by_kind() {
    let app = TestApp::start(Setup::default());
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(20_000));
    let wide = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(20_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(101));
    for bytes in
        ["\x16\x03\x01\x02\x00\x01", "GET\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &long, &wide, &many]
    {
        let mut connection = Connection::open(app.public()).unwrap();
        let _ = connection.send(bytes);
        if let Ok(answer) = connection.answer() {
            assert!((400..500).contains(&answer.status), "{answer:?}");
        }
        assert!(connection.is_closed());
    }
    assert!(app.metric("footfall_connection_errors_total{kind=\"parse\"}") >= 5.0);
    app.take(&view("/a"));
}
