//! `live`: counters as Server-Sent Events.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::harness::{SITE, Setup, TestApp, counters_with, view};
use crate::support::http::{Answer, Connection, ask, encoded, request};
use crate::support::servers::{NOBODY, RedisServer};
use crate::support::wait::until;

const LIVE: &str = "/api/v1/sites/lamdong/live";

/// A reader of events.
struct Reader {
    connection: Connection,
    head: Answer,
    text: String,
}

/// What stands between two empty lines.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Block {
    Retry(u64),
    Event { id: String, data: String },
    Comment,
}

impl Reader {
    fn follow(address: SocketAddr, target: &str) -> Reader {
        Self::with(address, target, &[])
    }

    fn with(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Reader {
        Self::on(Connection::open(address).unwrap(), target, headers)
    }

    fn on(mut connection: Connection, target: &str, headers: &[(&str, &str)]) -> Reader {
        connection.send(request("GET", target, headers, b"")).unwrap();
        let head = connection.head().unwrap();
        assert_eq!(head.status, 200, "{head:?}");
        Reader { connection, head, text: String::new() }
    }

    /// The next block; none at the end.
    #[track_caller]
    fn block(&mut self) -> Option<Block> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = read(block);
                self.text = rest.to_owned();
                return Some(block);
            }
            let chunk = self.connection.chunk().expect("a block comes, or the end")?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next event's id and data; what else comes before it is passed over.
    #[track_caller]
    fn event(&mut self) -> (String, Value) {
        // Heartbeats keep coming where events do not.
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            assert!(Instant::now() < deadline, "no event comes");
            match self.block().expect("an event comes") {
                Block::Event { id, data } => return (id, serde_json::from_str(&data).unwrap()),
                Block::Retry(_) | Block::Comment => {}
            }
        }
    }

    /// Events until one holds what is waited for.
    #[track_caller]
    fn event_where(&mut self, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            let (_, event) = self.event();
            if holds(&event) {
                return event;
            }
        }
        panic!("no such event");
    }
}

fn read(block: &str) -> Block {
    if block == ":" {
        return Block::Comment;
    }
    let lines: Vec<(&str, &str)> = block.lines().map(|line| line.split_once(": ").unwrap()).collect();
    match lines[..] {
        [("retry", ms)] => Block::Retry(ms.parse().unwrap()),
        [("id", id), ("event", "counters"), ("data", data)] => {
            Block::Event { id: id.to_owned(), data: data.to_owned() }
        }
        _ => panic!("not as described: {block:?}"),
    }
}

#[test]
fn the_first_event_comes_at_once_and_is_the_body_of_counters() {
    let app = TestApp::start(Setup::default());
    app.take(&view("/a"));
    let mut reader = Reader::follow(app.public(), LIVE);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("access-control-allow-origin", "*"),
        ("x-content-type-options", "nosniff"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("date", "Fri, 15 Sep 2023 01:19:00 GMT"),
    ] {
        assert_eq!(reader.head.header(name), Some(value), "{name}");
    }
    assert_eq!(reader.head.header("set-cookie"), None);
    let Some(Block::Retry(ms)) = reader.block() else { panic!("it begins with retry") };
    assert!((4_000..6_000).contains(&ms), "{ms}");
    let counters = app.get("/api/v1/sites/lamdong/counters");
    let tag = counters.header("etag").unwrap().trim_matches('"').to_owned();
    assert_eq!(reader.block(), Some(Block::Event { id: tag, data: counters.text().to_owned() }));
    assert_eq!(app.metric("footfall_live_readers"), 1.0);
}

#[test]
fn an_old_client_reads_until_the_end_without_chunks() {
    let mut app = TestApp::start(Setup::default());
    let mut connection = Connection::open(app.public()).unwrap();
    connection.send("GET /api/v1/sites/lamdong/live HTTP/1.0\r\n\r\n").unwrap();
    let head = connection.head().unwrap();
    assert_eq!((head.status, head.header("transfer-encoding")), (200, None));
    app.take(&view("/a"));
    until("it is told", || app.metric("footfall_live_readers") == 1.0);
    app.stop();
    let text = connection.rest().unwrap();
    let blocks: Vec<Block> = text.split_terminator("\n\n").map(read).collect();
    assert!(matches!(blocks[..], [Block::Retry(_), Block::Event { .. }, .., Block::Retry(_)]), "{text}");
}

#[test]
fn a_change_is_told_to_all_who_follow() {
    let app = TestApp::start(Setup::default());
    app.take(&view("/a"));
    let mut readers = [LIVE, LIVE].map(|target| Reader::follow(app.public(), target));
    for reader in &mut readers {
        assert_eq!(reader.event().1["views"]["all"], 1);
    }
    app.take(&view("/a").from("203.0.113.9"));
    let [first, second] = readers.each_mut().map(Reader::event);
    assert_eq!(first, second);
    assert_eq!(first.1, app.counters());
    assert_eq!((&first.1["views"]["all"], &first.1["online"]), (&2.into(), &2.into()));
    app.pass(Duration::from_secs(301));
    for reader in &mut readers {
        assert_eq!(reader.event_where(|event| event["online"] == 0)["views"]["all"], 2);
    }
}

#[test]
fn a_page_is_followed_with_its_own_figures() {
    let app = TestApp::start(Setup::default());
    let target = format!("{LIVE}?page={}", encoded("https://baolamdong.vn/tin tức?fbclid=1"));
    let mut reader = Reader::follow(app.public(), &target);
    let (_, event) = reader.event();
    assert_eq!(
        (&event["page"]["page"], &event["page"]["views"]["all"]),
        (&"/tin tức".into(), &0.into()),
        "it is loaded before the first event"
    );
    app.take(&view("/tin tức").from("203.0.113.1"));
    let event = reader.event_where(|event| event["page"]["views"]["all"] == 1);
    assert_eq!(event, app.get(&counters_with(SITE, "/tin tức")).json());
    app.take(&view("/khác").from("203.0.113.1"));
    let event = reader.event_where(|event| event["page"]["online"] == 0);
    assert_eq!((&event["page"]["views"]["all"], &event["views"]["all"]), (&1.into(), &2.into()));
}

#[test]
fn changes_are_gathered_into_one_event_a_second() {
    let app = TestApp::start(Setup::default());
    let mut reader = Reader::follow(app.public(), LIVE);
    let (began, sent) = (Instant::now(), 200);
    app.read(sent);
    let (mut events, mut last) = (0, None);
    while last != Some(sent.into()) {
        let (_, event) = reader.event();
        events += 1;
        let views = event["views"]["all"].as_u64();
        assert!(views > last, "{views:?} after {last:?}");
        last = views;
    }
    let most = began.elapsed().as_secs() + 2;
    assert!((2..=most).contains(&events), "{events} events of {sent} views, at most {most}");
}

#[test]
fn a_reader_that_comes_back_is_not_told_again_what_it_holds() {
    let app = TestApp::start(Setup::default());
    app.take(&view("/a"));
    let (id, _) = Reader::follow(app.public(), LIVE).event();
    let mut back = Reader::with(app.public(), LIVE, &[("last-event-id", &id)]);
    let mut late = Reader::with(app.public(), LIVE, &[("last-event-id", "0123456789abcdef")]);
    assert_eq!(late.event().0, id);
    app.take(&view("/a"));
    assert_eq!(back.event().1["views"]["all"], 2, "its first event is the next change");
}

#[test]
fn a_silent_stream_is_kept_by_heartbeats_and_cut_by_no_limit() {
    let setup = Setup::default()
        .set("live.heartbeat", "1s")
        .set("http.header_timeout", "1s")
        .set("http.body_timeout", "1s")
        .set("http.write_timeout", "1s");
    let app = TestApp::start(setup);
    let mut reader = Reader::follow(app.public(), LIVE);
    assert!(matches!(reader.block(), Some(Block::Retry(_))));
    let (id, _) = reader.event();
    for _ in 0..4 {
        assert_eq!(reader.block(), Some(Block::Comment));
    }
    app.take(&view("/a"));
    let news = loop {
        match reader.block().unwrap() {
            Block::Event { id, .. } => break id,
            other => assert_eq!(other, Block::Comment),
        }
    };
    assert_ne!(news, id);
}

#[test]
fn no_more_readers_than_may_be() {
    let app = TestApp::start(Setup::default().set("live.max_readers", "2"));
    let first = Reader::follow(app.public(), LIVE);
    let _second = Reader::follow(app.public(), &format!("{LIVE}?page=/a"));
    let refused = app.get(LIVE);
    assert_eq!(refused.outcome(), (503, "live-full".into()));
    assert_eq!(refused.header("retry-after"), Some("30"));
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"));
    assert_eq!(app.metric("footfall_bounds_reached_total{bound=\"live_readers\"}"), 1.0);
    assert_eq!(app.metric("footfall_live_readers"), 2.0);
    drop(first);
    until("a place is free", || app.metric("footfall_live_readers") == 1.0);
    let _third = Reader::follow(app.public(), LIVE);
    assert_eq!(app.metric("footfall_live_readers"), 2.0);
    assert_eq!(app.counters()["stale"], false, "other reads go on");
}

#[test]
fn readers_of_one_site_leave_another_its_places() {
    let other = "[[site]]\nkey = \"other\"\nhosts = [\"other.example\"]\n";
    let app = TestApp::start(Setup::default().set("live.max_readers", "8").and(other));
    let follow = || Reader::follow(app.public(), LIVE);
    let _most: Vec<Reader> = (0..6).map(|_| follow()).collect();
    assert_eq!(app.get(LIVE).outcome(), (503, "live-full".into()));
    let live = "/api/v1/sites/other/live";
    let _its: Vec<Reader> = (0..2).map(|_| Reader::follow(app.public(), live)).collect();
    assert_eq!(app.get(live).outcome(), (503, "live-full".into()));
    assert_eq!(app.metric("footfall_bounds_reached_total{bound=\"live_readers\"}"), 2.0);
}

/// A connection whose kernel takes next to nothing before its owner reads.
fn narrow(address: SocketAddr) -> Connection {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    socket.connect(&address.into()).unwrap();
    Connection::on(socket.into())
}

#[test]
fn a_reader_that_takes_nothing_is_let_go_and_others_go_on() {
    let app = TestApp::start(Setup::default().set("http.write_timeout", "1s"));
    let mut slow = narrow(app.public());
    slow.send(request("GET", LIVE, &[], b"")).unwrap();
    let mut reader = Reader::follow(app.public(), LIVE);
    until("both follow", || app.metric("footfall_live_readers") == 2.0);
    let mut views = 0;
    // An event a second fills what the kernel holds for it: the longer, the busier the machine.
    while app.metric("footfall_live_readers") == 2.0 {
        assert!(views < 300, "it is never let go");
        app.take(&view("/a"));
        views += 1;
        reader.event_where(|event| event["views"]["all"] == views);
    }
    assert!(views > 1, "it was given time");
    until("its connection is closed", || app.metric("footfall_connections") == 1.0);
    assert_eq!(app.metric("footfall_connection_errors_total{kind=\"timeout\"}"), 1.0);
    app.take(&view("/a"));
    reader.event_where(|event| event["views"]["all"] == views + 1);
}

#[test]
fn a_stop_ends_streams_in_good_order() {
    let mut app = TestApp::start(Setup::default().set("stop_timeout", "5m"));
    let mut readers = [LIVE, LIVE, &format!("{LIVE}?page=/a")].map(|t| Reader::follow(app.public(), t));
    for reader in &mut readers {
        reader.event();
    }
    let began = Instant::now();
    app.stop();
    assert!(began.elapsed() < Duration::from_secs(60), "the drain waits for no reader");
    for reader in &mut readers {
        let Some(Block::Retry(ms)) = reader.block() else { panic!("it says when to come back") };
        assert!((1_000..10_000).contains(&ms), "{ms}");
        assert_eq!(reader.block(), None, "the body is ended, not broken off");
        assert!(reader.connection.is_closed());
    }
}

#[test]
fn what_cannot_be_followed_is_refused_with_a_reason() {
    let app = TestApp::start(Setup::default());
    for (target, status, code) in [
        ("/api/v1/sites/camau/live", 404, "unknown-site"),
        ("/api/v1/sites/lamdong/live?page=tin", 400, "bad-url"),
        ("/api/v1/sites/lamdong/live?page=https%3A%2F%2Felsewhere.vn%2F", 400, "bad-url"),
    ] {
        let answer = app.get(target);
        assert_eq!(answer.outcome(), (status, code.into()), "{target}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    let preflight = ask(app.public(), request("OPTIONS", LIVE, &[], b""));
    assert_eq!(preflight.header("access-control-allow-methods"), Some("GET, HEAD, OPTIONS"));
}

#[test]
fn a_store_that_goes_away_is_told_and_its_figures_stay() {
    let mut redis = RedisServer::lasting();
    let app = TestApp::start(Setup::default().store(&redis.url()));
    app.until_stale(false);
    app.take(&view("/a"));
    app.page("/a");
    let mut reader = Reader::follow(app.public(), &format!("{LIVE}?page=/a"));
    reader.event_where(|event| event["stale"] == false && event["page"]["views"]["all"] == 1);
    redis.kill();
    app.take(&view("/a"));
    let of_two = |event: &Value| event["page"]["views"]["all"] == 2 && event["views"]["all"] == 2;
    reader.event_where(|event| event["stale"] == true && of_two(event));
    redis.restart();
    reader.event_where(|event| event["stale"] == false && of_two(event));
}

#[test]
fn nobody_follows_figures_that_nobody_knows() {
    let mut app = TestApp::start(Setup::default().store(&format!("redis://{NOBODY}/0")));
    app.breaks_the_store();
    assert_eq!(app.get(LIVE).outcome(), (503, "store-unreachable".into()));
    assert_eq!(app.metric("footfall_live_readers"), 0.0);
}

#[test]
fn one_address_takes_its_part_of_the_readers_and_leaves_the_others_theirs() {
    let app = TestApp::start(Setup::default().set("live.max_readers_per_address", "2"));
    let follow = |address: &str| {
        let mut connection = Connection::open(app.public()).unwrap();
        let headers: Vec<_> =
            Some(("x-forwarded-for", address)).filter(|_| !address.is_empty()).into_iter().collect();
        connection.send(request("GET", LIVE, &headers, b"")).unwrap();
        let head = connection.head().unwrap();
        (head.status, connection)
    };
    let mut readers = Vec::new();
    for (address, status) in [
        ("203.0.113.9", 200),
        ("203.0.113.9", 200),
        ("203.0.113.9", 503),
        ("6.6.6.6, ::ffff:203.0.113.9", 503),
        ("203.0.113.10", 200),
        ("2001:db8::1", 200),
        ("2001:db8::2", 200),
        ("2001:db8::3", 503),
        ("2001:db8:0:1::1", 200),
        // The proxy names nobody: it may stand for any number.
        ("", 200),
        ("", 200),
        ("", 200),
    ] {
        let (found, connection) = follow(address);
        assert_eq!(found, status, "{address}");
        readers.push(connection);
    }
    assert_eq!(app.metric("footfall_bounds_reached_total{bound=\"live_readers_per_address\"}"), 3.0);
    drop(readers);
    until("all have left", || app.metric("footfall_live_readers") == 0.0);
    assert_eq!(follow("203.0.113.9").0, 200);
}
