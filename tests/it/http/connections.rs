//! Connections that mean ill, or are too many.

use std::time::{Duration, Instant};

use crate::support::harness::{SITE, Setup, TestApp, view};
use crate::support::http::{self, Connection, request};
use crate::support::service::Service;
use crate::support::wait::until;

#[test]
fn a_head_that_never_ends_is_cut_off_and_disturbs_nobody() {
    let app = TestApp::start(Setup::default().set("http.header_timeout", "1s"));
    let mut slow: Vec<Connection> = (0..20).map(|_| Connection::open(app.public()).unwrap()).collect();
    for connection in &mut slow {
        connection.send("POST /api/v1/beacon HTTP/1.1\r\nhost:").unwrap();
    }
    let began = Instant::now();
    app.take(&view("/a"));
    for connection in &mut slow {
        assert!(connection.is_closed());
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    until("they are counted", || app.metric("footfall_connection_errors_total{kind=\"timeout\"}") == 20.0);
    until("they are gone", || app.metric("footfall_connections") == 0.0);
}

#[test]
fn a_body_that_never_ends_is_answered_408() {
    let app = TestApp::start(Setup::default().set("http.body_timeout", "1s"));
    let mut slow = Connection::open(app.public()).unwrap();
    slow.send("POST /api/v1/beacon HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"site\":").unwrap();
    app.take(&view("/a"));
    let answer = slow.answer().unwrap();
    assert_eq!(answer.outcome(), (408, "timeout".into()));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(slow.is_closed());
    assert_eq!(app.metric("footfall_beacons_total{outcome=\"timeout\"}"), 1.0);
}

#[test]
fn who_sends_no_more_after_a_view_is_answered_all_the_same() {
    let app = TestApp::start(Setup::default().set("journal.sync", "always"));
    for _ in 0..20 {
        let mut connection = Connection::open(app.public()).unwrap();
        connection.send(view("/a").bytes()).unwrap();
        connection.send_no_more().unwrap();
        assert_eq!(connection.answer().unwrap().status, 204);
        app.note(SITE, "/a", None);
        assert!(connection.is_closed());
    }
    until("they are gone", || app.metric("footfall_connections") == 0.0);
}

#[test]
fn one_connection_too_many_is_closed_and_the_others_go_on() {
    let app = TestApp::start(Setup::default().set("http.max_connections", "10"));
    let mut kept: Vec<Connection> = (0..10).map(|_| Connection::open(app.public()).unwrap()).collect();
    for connection in &mut kept {
        assert_eq!(connection.ask(view("/a").bytes()).unwrap().status, 204);
        app.note(SITE, "/a", None);
    }
    let mut further = Connection::open(app.public()).unwrap();
    let _ = further.send(view("/a").bytes());
    assert!(further.answer().is_err(), "it is closed without an answer");
    assert_eq!(app.metric("footfall_bounds_reached_total{bound=\"connections\"}"), 1.0);
    assert_eq!(app.metric("footfall_connections"), 10.0);
    for connection in &mut kept {
        assert_eq!(connection.ask(view("/a").bytes()).unwrap().status, 204);
        app.note(SITE, "/a", None);
    }
    drop(kept);
    until("there is room again", || app.metric("footfall_connections") == 0.0);
    app.take(&view("/a"));
}

#[test]
fn without_descriptors_it_waits_and_goes_on() {
    let setup = Setup::default().set("http.max_connections", "1000").set("http.header_timeout", "5m");
    // The reserve that it keeps is taken by others, which it knows nothing of.
    let others = (3..10).map(|number| format!("exec {number}</dev/null")).collect::<Vec<_>>().join("; ");
    let mut service = Service::prepare(setup).after(&format!("ulimit -n 40; {others}"));
    service.begin();
    let mut operator = Connection::open(service.admin()).unwrap();
    let mut reader = Connection::open(service.public()).unwrap();
    let mut counted = 0;
    let mut send = |connection: &mut Connection| {
        assert_eq!(connection.ask(view("/a").bytes()).unwrap().status, 204);
        counted += 1;
    };
    send(&mut reader);
    // Its connection has to be accepted before the descriptors are used up.
    operator.ask(request("GET", "/metrics", &[], b"")).unwrap();
    let crowd: Vec<Connection> = (0..100).map(|_| Connection::open(service.public()).unwrap()).collect();
    until("accepts fail", || {
        let metrics = operator.ask(request("GET", "/metrics", &[], b"")).unwrap();
        let errors =
            metrics.text().lines().find_map(|line| line.strip_prefix("footfall_accept_errors_total "));
        errors.is_some_and(|errors| errors != "0")
    });
    for _ in 0..50 {
        send(&mut reader);
    }
    drop(crowd);
    let mut newcomer = Connection::open(service.public()).unwrap();
    send(&mut newcomer);
    assert!(service.log().contains("connections cannot be accepted"), "{}", service.log());
    service.restart();
    assert_eq!(service.page(SITE, "/a"), counted);
}

#[test]
fn requests_that_could_be_smuggled_count_at_most_once() {
    let app = TestApp::start(Setup::default());
    let body = r#"{"site":"lamdong","url":"/a"}"#;
    let hidden = String::from_utf8(view("/hidden").bytes()).unwrap();
    let post =
        |headers: &str, rest: &str| format!("POST /api/v1/beacon HTTP/1.1\r\nhost: x\r\n{headers}\r\n{rest}");
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for bytes in [
        post(
            &format!("content-length: {}\r\ntransfer-encoding: chunked\r\n", 4),
            &format!("{chunked}{hidden}"),
        ),
        post(
            &format!("transfer-encoding: chunked\r\ncontent-length: {}\r\n", 4),
            &format!("{chunked}{hidden}"),
        ),
        post("content-length: 3\r\ncontent-length: 29\r\n", &format!("{body}{hidden}")),
        post("content-length: +29\r\n", &format!("{body}{hidden}")),
        post("transfer-encoding: xchunked\r\n", &format!("{chunked}{hidden}")),
        post("transfer-encoding : chunked\r\n", &format!("{chunked}{hidden}")),
    ] {
        let mut connection = Connection::open(app.public()).unwrap();
        connection.send(&bytes).unwrap();
        match connection.answer() {
            Ok(answer) if answer.status == 204 => app.note(SITE, "/a", None),
            Ok(answer) => assert!((400..500).contains(&answer.status), "{bytes}: {answer:?}"),
            Err(_) => {}
        }
        assert!(connection.is_closed(), "{bytes}");
    }
    assert_eq!(app.page("/hidden")["views"]["all"], 0);
}

#[test]
fn many_requests_on_one_connection_are_answered_in_order() {
    let app = TestApp::start(Setup::default());
    let mut connection = Connection::open(app.public()).unwrap();
    let mut bytes = Vec::new();
    for _ in 0..20 {
        bytes.extend(view("/a").bytes());
        bytes.extend(request("GET", "/api/v1/sites/lamdong/counters", &[], b""));
        app.note(SITE, "/a", None);
    }
    connection.send(bytes).unwrap();
    for views in 1..=20 {
        assert_eq!(connection.answer().unwrap().status, 204);
        assert_eq!(connection.answer().unwrap().json()["views"]["all"], views, "a 204 is in the next read");
    }
    assert_eq!(http::get(app.public(), "/api/v1/sites/lamdong/counters").status, 200);
}
