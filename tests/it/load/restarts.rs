//! A restart: who has connected is answered.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::harness::{SITE, Setup, number, view};
use crate::support::http::{Answer, Connection, request};
use crate::support::servers::free_port;
use crate::support::service::{Service, my_turn};
use crate::support::wait::until;

/// A client that sends views, each until it is answered, and reads counters; all must be answered.
struct Client {
    number: usize,
    address: SocketAddr,
    /// Whether it keeps its connection.
    keeps: bool,
    connection: Option<Connection>,
    /// Requests that found a connection closed that had been used before.
    again: u64,
}

impl Client {
    fn run(mut self, done: &AtomicBool, counted: &AtomicU64) -> u64 {
        let mut sent = 0_u64;
        while !done.load(Ordering::Acquire) {
            sent += 1;
            let (id, from) = (format!("{}-{sent}", self.number), format!("203.0.113.{}", self.number + 1));
            assert_eq!(self.ask(&view("/a").id(&id).from(&from).bytes()).status, 204);
            counted.fetch_add(1, Ordering::AcqRel);
            let read = request("GET", "/api/v1/sites/lamdong/counters", &[], b"");
            assert_eq!(self.ask(&read).status, 200);
        }
        self.again
    }

    /// Is answered. A connection that was used before may be closed: then, and only then, it asks again on
    /// another one.
    fn ask(&mut self, request: &[u8]) -> Answer {
        if let Some(mut connection) = self.connection.take() {
            if let Ok(answer) = connection.ask(request) {
                self.keep(connection, &answer);
                return answer;
            }
            self.again += 1;
        }
        let mut connection = Connection::open(self.address).expect("it is never refused");
        let answer = connection.ask(request).expect("what is asked first is answered");
        self.keep(connection, &answer);
        answer
    }

    fn keep(&mut self, connection: Connection, answer: &Answer) {
        self.connection = (self.keeps && !answer.is_last()).then_some(connection);
    }
}

#[test]
fn a_restart_drops_no_connection_where_systemd_holds_the_listener() {
    let _turn = my_turn();
    let listener = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let address = listener.local_addr().unwrap();
    let mut service = Service::prepare(Setup::default()).handed(listener);
    service.begin();

    let (done, counted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let client = Client { number, address, keeps: number % 2 == 0, connection: None, again: 0 };
            let (done, counted) = (done.clone(), counted.clone());
            std::thread::spawn(move || client.run(&done, &counted))
        })
        .collect();
    let restarts = number("FOOTFALL_RESTARTS", 4);
    for _ in 0..restarts {
        let before = counted.load(Ordering::Acquire);
        until("all are busy", || counted.load(Ordering::Acquire) >= before + 100);
        service.restart();
    }
    done.store(true, Ordering::Release);
    let again: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
    let counted = counted.load(Ordering::Acquire);
    println!("{restarts} restarts: accepted {counted}, asked again on a new connection {again}");
    assert_eq!(service.counters(SITE)["views"]["all"], counted);
}

/// Connections that the kernel has taken and the service has not, as it cannot run just now, each with a
/// view sent on it.
fn waiting(service: &Service) -> Vec<Connection> {
    service.signal("STOP");
    let send = |number| {
        let mut connection = Connection::open(service.public()).unwrap();
        connection.send(view("/a").id(&format!("{number}")).bytes()).unwrap();
        connection
    };
    (0..20).map(send).collect()
}

#[test]
fn who_waits_at_the_services_own_listener_when_it_stops_is_answered() {
    let mut service = Service::start(Setup::default());
    let waiting = waiting(&service);
    service.ask_to_stop();
    service.signal("CONT");
    for mut connection in waiting {
        let answer = connection.answer().unwrap();
        assert_eq!(answer.status, 204, "{answer:?}");
        // Who was answered before the service had looked at the signal is not told, and closed when idle.
        assert!(answer.is_last() || connection.is_closed(), "{answer:?}");
    }
    service.stop();
    service.begin();
    assert_eq!(service.page(SITE, "/a"), 20);
}

#[test]
fn who_waits_at_systemds_listener_when_the_service_stops_is_answered_by_the_next_process() {
    let listener = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let mut service = Service::prepare(Setup::default()).handed(listener);
    service.begin();
    let waiting = waiting(&service);
    service.ask_to_stop();
    service.signal("CONT");
    service.restart();
    for mut connection in waiting {
        assert_eq!(connection.answer().unwrap().status, 204);
    }
    assert_eq!(service.page(SITE, "/a"), 20);
}

#[test]
fn who_has_connected_and_said_nothing_yet_is_waited_for_and_not_for_long() {
    let mut service = Service::start(Setup::default());
    let (mut speaks, mut silent) =
        (Connection::open(service.public()).unwrap(), Connection::open(service.public()).unwrap());
    until("both are let in", || service.metric("footfall_connections") == 2.0);
    service.ask_to_stop();
    until("it is unready", || service.readiness().0 == 503);
    let answer = speaks.ask(view("/a").bytes()).unwrap();
    assert!(answer.status == 204 && answer.is_last(), "{answer:?}");
    assert!(speaks.is_closed() && silent.is_closed());
    let (status, took) = service.terminate();
    assert!(status.success() && took < Duration::from_secs(50), "{status} after {took:?}");
}
