//! Connections that mean ill, or are too many.

use std::net::SocketAddr;
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

/// A connection from one of this machine's own addresses.
fn from(last: u8, to: SocketAddr) -> Connection {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.connect(&to.into()).unwrap();
    Connection::on(socket.into())
}

#[test]
fn one_address_takes_its_part_of_the_connections_and_leaves_the_others_theirs() {
    let setup = Setup::default().set("trusted_proxies", "127.0.0.7").set("http.exempt_addresses", "127.0.0.8");
    let app = TestApp::start(setup.set("http.max_connections_per_address", "5"));
    let served = |last| {
        let mut connection = from(last, app.public());
        let taken = connection.ask(view("/a").bytes()).is_ok_and(|answer| answer.status == 204);
        if taken {
            app.note(SITE, "/a", None);
        }
        (taken, connection)
    };
    let mut kept = Vec::new();
    for (last, others) in [(5, 5), (6, 5), (7, 20), (8, 20)] {
        for _ in 0..others {
            let (taken, connection) = served(last);
            assert!(taken, "{last}");
            kept.push(connection);
        }
    }
    assert!(!served(5).0 && !served(6).0 && served(7).0 && served(8).0);
    let bound = |name: &str| app.metric(&format!("footfall_bounds_reached_total{{bound=\"{name}\"}}"));
    assert_eq!((bound("connections_per_address"), bound("connections")), (2.0, 0.0));
    // What one gives back it may take again, also where it was a reader of live counters.
    kept.drain(..10).for_each(drop);
    until("the first two have none", || app.metric("footfall_connections") == 40.0);
    let follow = |connection: &mut Connection| {
        connection.send(request("GET", "/api/v1/sites/lamdong/live", &[], b"")).unwrap();
        connection.head().is_ok_and(|head| head.status == 200)
    };
    let mut readers: Vec<Connection> = (0..5).map(|_| from(5, app.public())).collect();
    assert!(readers.iter_mut().all(follow) && !served(5).0, "a stream of events is a connection, too");
    drop((kept, readers));
    until("there are none", || app.metric("footfall_connections") == 0.0);
    assert!(served(5).0);
}

#[test]
fn idle_connections_keep_nobody_from_the_admin_listener() {
    let service = Service::start(Setup::default().set("http.header_timeout", "5m"));
    let mut idle: Vec<Connection> = (0..128).map(|_| Connection::open(service.admin()).unwrap()).collect();
    for _ in 0..200 {
        idle.push(Connection::open(service.admin()).unwrap());
        assert_eq!(http::get(service.admin(), "/livez").status, 200);
    }
    assert_eq!(service.order(&["healthcheck"]).0, 0);
    assert!(idle[0].is_closed(), "the oldest make room");
    let bound = |name: &str| service.metric(&format!("footfall_bounds_reached_total{{bound=\"{name}\"}}"));
    assert!(bound("admin_connections") >= 200.0 && bound("connections") == 0.0);
    assert!(!service.log().contains("a fault of ours"), "{}", service.log());
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
