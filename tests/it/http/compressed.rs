//! Texts in fewer bytes, and heads alone.

use std::io::Read;
use std::time::Duration;

use crate::support::harness::{Setup, TestApp};
use crate::support::http::{Answer, Connection, ask, request};

const TOKEN: &str = "0123456789abcdef";

fn app() -> TestApp {
    let app = TestApp::start(
        Setup::default()
            .and(&format!("newsroom_token = \"{TOKEN}\""))
            .and("[[site]]\nkey = \"demo\"\nhosts = [\"localhost\"]\ntime_zone = \"Asia/Ho_Chi_Minh\""),
    );
    app.read(1);
    app.page("/a");
    app
}

fn asked(app: &TestApp, target: &str, headers: &[(&str, &str)]) -> Answer {
    let cookie = format!("footfall_newsroom={TOKEN}");
    let headers = [headers, &[("cookie", cookie.as_str())]].concat();
    ask(app.public(), request("GET", target, &headers, b""))
}

fn unpacked(answer: &Answer) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*answer.body).read_to_string(&mut text).unwrap();
    text
}

fn list() -> String {
    (0..60).fold("/api/v1/sites/lamdong/pages?page=/a".to_owned(), |list, _| list + "&page=/a")
}

#[test]
fn long_texts_are_packed_for_who_takes_them() {
    let app = app();
    let newsroom = "/newsroom/lamdong";
    let list = list();
    for (target, is_tagged) in [
        ("/footfall.js", true),
        ("/footfall.v1.more.js", true),
        (&list, true),
        ("/demo", true),
        ("/demo.css", true),
        (newsroom, false),
    ] {
        let plain = asked(&app, target, &[]);
        assert!(plain.status == 200 && plain.body.len() > 1024, "{target}: {}", plain.body.len());
        assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("accept-encoding")));
        let packed = asked(&app, target, &[("accept-encoding", "deflate, gzip;q=0.8")]);
        assert_eq!((packed.status, packed.header("content-encoding")), (200, Some("gzip")), "{target}");
        assert_eq!(packed.header("vary"), Some("accept-encoding"));
        assert_eq!(packed.header("content-length"), Some(packed.body.len().to_string().as_str()));
        assert!(packed.body.len() < plain.body.len());
        if is_tagged {
            assert_eq!(unpacked(&packed), plain.text(), "{target}");
            let (tag, other) = (plain.header("etag").unwrap(), packed.header("etag").unwrap());
            assert_eq!(other, format!("{}-gzip\"", tag.strip_suffix('"').unwrap()));
            for held in [tag, other] {
                let same = asked(&app, target, &[("accept-encoding", "gzip"), ("if-none-match", held)]);
                assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, Some(held)));
                assert_eq!(
                    (same.header("vary"), same.header("content-encoding")),
                    (Some("accept-encoding"), None)
                );
            }
        }
        for refused in ["identity", "gzip;q=0", "br;q=0, gzip;q=0"] {
            let answer = asked(&app, target, &[("accept-encoding", refused)]);
            assert_eq!(answer.header("content-encoding"), None, "{target} {refused}");
        }
    }
}

#[test]
fn the_page_script_is_packed_once_and_well() {
    let app = app();
    for name in ["v1.js", "v1.more.js", "v1.rare.js", "v1.debug.js"] {
        let target = format!("/footfall.{name}");
        let released =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/serve/public/script/released");
        for (accepted, coding, ending) in [
            ("gzip, deflate, br, zstd", "br", "br"),
            ("br", "br", "br"),
            ("gzip", "gzip", "gz"),
            ("br;q=0, gzip", "gzip", "gz"),
        ] {
            let answer = asked(&app, &target, &[("accept-encoding", accepted)]);
            assert_eq!(answer.header("content-encoding"), Some(coding), "{accepted}");
            assert_eq!(answer.body, std::fs::read(released.join(format!("{name}.{ending}"))).unwrap());
            assert_eq!(answer.header("etag"), Some(format!("\"{name}-{coding}\"").as_str()));
            assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
            assert_eq!(answer.header("cross-origin-resource-policy"), Some("cross-origin"));
        }
    }
}

#[test]
fn short_texts_and_images_are_sent_as_they_are() {
    let app = app();
    for target in [
        "/api/v1/sites/lamdong/counters?page=/a",
        "/widget/lamdong?format=text",
        "/api/v1/beacon.gif?site=lamdong&url=nowhere",
        "/nowhere",
    ] {
        let answer = asked(&app, target, &[("accept-encoding", "gzip, br")]);
        assert_eq!((answer.header("content-encoding"), answer.header("vary")), (None, None), "{target}");
    }
}

#[test]
fn there_is_a_head_wherever_there_is_a_get_and_it_counts_nothing() {
    let app = app();
    let head = |target: &str| {
        let mut connection = Connection::open(app.public()).unwrap();
        let packed = &[("accept-encoding", "gzip")];
        connection.send(request("HEAD", target, packed, b"")).unwrap();
        let head = connection.head().unwrap();
        // Nothing stands between it and the next answer.
        (head, connection.ask(request("GET", "/nowhere", &[], b"")).map(|next| next.status).ok())
    };
    let list = list();
    let pixel = "/api/v1/beacon.gif?site=lamdong&url=/a";
    let nowhere = "/api/v1/beacon.gif?site=lamdong&url=https://elsewhere.vn/a";
    for target in [
        "/api/v1/sites/lamdong/counters",
        "/footfall.js",
        &list,
        "/widget/lamdong",
        "/widget.css",
        "/badge/lamdong.svg",
        "/demo",
        "/",
        "/nowhere",
        nowhere,
    ] {
        let whole = asked(&app, target, &[("accept-encoding", "gzip")]);
        let (head, next) = head(target);
        assert_eq!((head.status, next), (whole.status, Some(404)), "{target}");
        for name in ["content-length", "content-type", "content-encoding", "etag", "vary", "cache-control"] {
            let length_of_nothing = name == "content-length" && whole.body.is_empty();
            assert!(length_of_nothing || head.header(name) == whole.header(name), "{name} of {target}");
        }
    }
    let (of_pixel, next) = head(pixel);
    assert_eq!((of_pixel.status, of_pixel.header("content-type"), next), (200, Some("image/gif"), Some(404)));
    let (of_events, next) = head("/api/v1/sites/lamdong/live");
    assert_eq!((of_events.status, of_events.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!((of_events.header("footfall"), next), (Some("1"), Some(404)));
    crate::support::wait::until("nobody follows", || app.metric("footfall_live_readers") == 0.0);
    app.pass(Duration::from_secs(1));
    assert_eq!(app.counters()["views"]["all"], 1);
    // The one that was refused was refused to the GET.
    assert_eq!(app.metric("footfall_beacons_total{outcome=\"wrong-origin\"}"), 1.0);
}
