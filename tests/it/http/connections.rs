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
    let setup =
        Setup::default().set("trusted_proxies", "127.0.0.7").set("http.exempt_addresses", "127.0.0.8");
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

/// Two servers may read each of them in two ways: a view of `/a` and, behind it, one of `/hidden`. Whether footfall
/// refuses it; it reads the others in the one way that there is by RFC 9112, and ends their connection.
pub fn ambiguous() -> Vec<(String, bool)> {
    let body = r#"{"site":"lamdong","url":"/a"}"#;
    let hidden = String::from_utf8(view("/hidden").bytes()).unwrap();
    let post = |version: &str, headers: &str, rest: &str| {
        format!(
            "POST /api/v1/beacon HTTP/{version}\r\nhost: stats.example.org\r\nuser-agent: {}\r\n{headers}\r\n{rest}{hidden}",
            http::BROWSER
        )
    };
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let whole = body.len();
    let mut rows = vec![
        (post("1.1", "content-length: 4\r\ntransfer-encoding: chunked\r\n", &chunked), false),
        (post("1.1", "transfer-encoding: chunked\r\ncontent-length: 4\r\n", &chunked), false),
        (post("1.1", &format!("content-length: {whole}\r\ntransfer-encoding: chunked\r\n"), &chunked), false),
        (post("1.1", "content-length: 3\r\ncontent-length: 29\r\n", body), true),
        (post("1.0", "transfer-encoding: chunked\r\n", &chunked), true),
    ];
    for length in
        ["+29", "-29", "0x1d", "2 9", "29 29", "29, 30", "29;", "29\u{b}", "99999999999999999999", "", "29.0"]
    {
        rows.push((post("1.1", &format!("content-length: {length}\r\n"), body), true));
    }
    for coding in
        ["xchunked", "chunked, identity", "identity", "chunke", "chunked\u{b}", "chunked;q=1", "\"chunked\""]
    {
        rows.push((post("1.1", &format!("transfer-encoding: {coding}\r\n"), &chunked), true));
    }
    for headers in [
        "transfer-encoding : chunked\r\n",
        " transfer-encoding: chunked\r\n",
        "x: y\r\n transfer-encoding: chunked\r\n",
        "transfer-encoding:\r\n chunked\r\n",
        "content-length\r\n: 29\r\n",
        "x: a\rcontent-length: 29\r\n",
        "x: a\0\r\ncontent-length: 29\r\n",
        "x\0: a\r\ncontent-length: 29\r\n",
        ": a\r\ncontent-length: 29\r\n",
        "content-length 29\r\n",
        "(x): a\r\ncontent-length: 29\r\n",
    ] {
        rows.push((post("1.1", headers, &chunked), true));
    }
    let of = |size: &str| format!("{size}{body}\r\n0\r\n\r\n");
    for chunks in [
        of("1d\n"),
        of("-1d\r\n"),
        of("+1d\r\n"),
        of("0x1d\r\n"),
        of("1 d\r\n"),
        of("g\r\n"),
        of("\r\n"),
        of(";\r\n"),
        of("3\r\n"),
        of("1d\r"),
        of("fffffffffffffffff\r\n"),
        format!("1d\r\n{body}0\r\n\r\n"),
        format!("1d\r\n{body}\n0\r\n\r\n"),
        format!("1d\r\n{body}\r\n0\r\nx\r\n\r\n"),
    ] {
        rows.push((post("1.1", "transfer-encoding: chunked\r\n", &chunks), true));
    }
    rows
}

#[test]
fn what_can_be_read_in_two_ways_is_refused_or_counts_once() {
    let app = TestApp::start(Setup::default());
    for (bytes, is_refused) in ambiguous() {
        let mut connection = Connection::open(app.public()).unwrap();
        // It may be refused before all of it is sent.
        let _ = connection.send(&bytes);
        match connection.answer() {
            Ok(answer) if answer.status == 204 && !is_refused => app.note(SITE, "/a", None),
            Ok(answer) => assert!(is_refused && answer.status == 400, "{bytes:?}: {answer:?}"),
            Err(fault) => panic!("{bytes:?}: {fault}"),
        }
        assert!(connection.is_closed(), "{bytes:?}");
    }
    assert_eq!(app.page("/hidden")["views"]["all"], 0);
}

#[test]
fn a_head_beyond_its_bounds_is_refused() {
    let app = TestApp::start(Setup::default());
    let headers = |number: usize| (0..number).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    // As long as the buffer, and not at its end yet.
    let long = |start: &str, more: &str| (start.to_owned() + &more.repeat(16 * 1024))[..16 * 1024].to_owned();
    for (bytes, status) in [
        (long("GET /", "a"), 431),
        (long("GET / HTTP/1.1\r\nx-forwarded-for: ", "1.2.3.4,"), 431),
        (format!("GET / HTTP/1.1\r\n{}\r\n", headers(101)), 431),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), 400),
        ("G\0T / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("CONNECT stats.example:80 HTTP/1.1\r\n\r\n".to_owned(), 405),
    ] {
        let mut connection = Connection::open(app.public()).unwrap();
        let _ = connection.send(&bytes);
        let found = connection.head().map(|answer| answer.status);
        assert!(
            found.as_ref().is_ok_and(|found| *found == status),
            "{found:?} and not {status}: {bytes:.60}"
        );
        drop(connection);
    }
    app.take(&view("/a"));
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
