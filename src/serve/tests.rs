//! Connections, routes and bodies over real sockets. The handler here is small: what the real ones
//! answer is tested with the whole service.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use tokio::sync::oneshot;

use super::addresses::Addresses;
use super::admin::ROUTES as ADMIN;
use super::answer::{
    self, Fault, Response,
    routes::{Routes, Target},
};
use super::conn::{Acceptor, Admission, bind, body};
use super::public::{PublicHandler, ROUTES as PUBLIC};
use crate::clock::Clock;
use crate::ingest::Reason;
use crate::metrics::Metrics;
use crate::sites::Sites;

/// Longer than anything here takes on a busy machine.
const AGES: Duration = Duration::from_secs(20);

/// A listener with the real acceptor, routes and bodies, and handlers that need nothing else.
struct Served {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<std::io::Result<()>>>,
}

/// What a test changes of the limits.
struct Limits {
    connections: usize,
    header: Duration,
    body: Duration,
    write: Duration,
    drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { connections: 100, header: AGES, body: AGES, write: AGES, drain: AGES }
    }
}

async fn handle(
    routes: Arc<Routes<PublicHandler>>,
    within: Duration,
    request: Request<Incoming>,
) -> Response {
    let (head, body) = request.into_parts();
    match routes.find(&head.method, head.uri.path()).1 {
        Target::Handler(PublicHandler::Beacon, _) => match body::read(body, &head.headers, within).await {
            Err(reason) => answer::refused(reason.into()),
            Ok(body) if body.is_empty() => answer::refused(Reason::Malformed.into()),
            Ok(body) if &body[..] == b"slow" => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                answer::no_content()
            }
            Ok(body) => {
                let mut response = answer::no_content();
                response.headers_mut().insert("x-length", body.len().into());
                response
            }
        },
        Target::Handler(PublicHandler::Gif, _) => answer::gif(head.headers, None),
        // Far more than the sockets' buffers hold.
        Target::Handler(_, "large") => answer::admin_text(StatusCode::OK, vec![b'.'; 64 << 20]),
        Target::Handler(_, name) => answer::admin_text(StatusCode::OK, name.to_owned()),
        Target::Preflight(methods) => answer::preflight(methods, &head.headers),
        Target::NotAllowed(_, methods) => answer::not_allowed(answer::refused, methods),
        Target::Missing => answer::refused(Fault::NotFound),
    }
}

fn serve(limits: Limits) -> Served {
    let metrics = Arc::new(Metrics::new(&Sites::default(), 1).unwrap());
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), limits.write).unwrap();
    let address = listener.local_addr().unwrap();
    let addresses = Addresses::new(usize::MAX);
    let acceptor = Acceptor {
        admission: Admission::Bounded(limits.connections, Box::new(move |peer| addresses.take(Some(peer)))),
        header_timeout: limits.header,
        write_timeout: limits.write,
        clock: Clock::system(),
        metrics: metrics.clone(),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let routes = Arc::new(Routes::new(PUBLIC));
    let running = async move {
        let answer = move |_, request| handle(routes.clone(), limits.body, request);
        let stop = async {
            let _ = stopped.await;
        };
        acceptor.serve(listener, answer, stop, limits.drain).await
    };
    let served = thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(running)
    });
    Served { address, metrics, stop: Some(stop), served: Some(served) }
}

impl Served {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(AGES)).unwrap();
        stream
    }

    /// Everything the server sends until it closes, after `request` was sent.
    fn told(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_ref()).unwrap();
        rest(&mut stream)
    }

    /// The answer to a request that asks for the connection to be closed.
    fn asked(&self, method_and_target: &str) -> String {
        self.told(format!("{method_and_target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
    }

    fn connection_errors(&self, kind: &str) -> u64 {
        self.metrics.connection_errors.with_label_values(&[kind]).get()
    }

    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits for the end of the drain.
    fn join(&mut self) {
        self.served.take().unwrap().join().unwrap().unwrap();
    }
}

fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("the server closes in time");
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads one answer without a body.
fn head(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    while !all.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer comes in time");
        all.extend(byte);
    }
    String::from_utf8(all).unwrap()
}

/// Polls until `condition` holds.
fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("it never came true");
}

fn post(body: &str, headers: &str) -> String {
    format!("POST /api/v1/beacon HTTP/1.1\r\nhost: x\r\n{headers}\r\n{body}")
}

fn sized(body: &str) -> String {
    post(body, &format!("content-length: {}\r\n", body.len()))
}

#[track_caller]
fn has(answer: &str, status: u16, needles: &[&str]) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "not {status}: {answer}");
    for needle in needles {
        assert!(answer.to_lowercase().contains(&needle.to_lowercase()), "no {needle:?} in {answer}");
    }
}

const OPEN: &str = "access-control-allow-origin: *\r\n";

#[test]
fn requests_find_their_routes() {
    let served = serve(Limits::default());
    has(&served.asked("GET /nowhere"), 404, &[OPEN, "\"code\":\"not-found\"", "no-store"]);
    has(&served.asked("GET /api/v1/sites/a-b/counters?page=/x"), 200, &["\r\n\r\na-b"]);
    has(&served.asked("GET http://else.where/api/v1/sites/abc/pages"), 200, &["\r\n\r\nabc"]);
    let head = served.asked("HEAD /api/v1/sites/abc/counters");
    has(&head, 200, &["content-length: 3\r\n"]);
    assert!(head.ends_with("\r\n\r\n"), "HEAD has no body: {head}");
    has(&served.asked("GET /api/v1/beacon.gif?url=/"), 200, &["image/gif", "content-length: 43"]);
    let get = served.asked("GET /api/v1/beacon");
    has(&get, 405, &["allow: POST, OPTIONS\r\n", "\"code\":\"method-not-allowed\"", OPEN]);
    has(&served.asked("DELETE /api/v1/sites/abc/counters"), 405, &["allow: GET, HEAD, OPTIONS\r\n"]);
    has(&served.asked("CONNECT example.org:443"), 404, &[]);
}

#[test]
fn every_public_path_answers_preflights() {
    let served = serve(Limits::default());
    for route in PUBLIC {
        let answer = served.asked(&format!("OPTIONS {}", route.path.replace("{site}", "s")));
        has(
            &answer,
            204,
            &[OPEN, "access-control-max-age: 86400", "access-control-allow-headers: content-type"],
        );
        let methods = route.methods.allow();
        has(&answer, 204, &[&format!("access-control-allow-methods: {}\r\n", methods.to_str().unwrap())]);
    }
    has(&served.asked("OPTIONS /nowhere"), 404, &[OPEN]);
}

#[test]
fn the_admin_paths_are_not_for_pages() {
    let routes = Routes::new(ADMIN);
    for path in ["/", "/livez", "/readyz", "/metrics"] {
        assert!(matches!(routes.find(&hyper::Method::GET, path).1, Target::Handler(..)));
        assert!(matches!(routes.find(&hyper::Method::HEAD, path).1, Target::Handler(..)));
        assert!(matches!(routes.find(&hyper::Method::OPTIONS, path).1, Target::NotAllowed(..)));
        let public = Routes::new(PUBLIC).find(&hyper::Method::GET, path).1;
        // The one path that both have: for pages it leads to the demo.
        assert!(path == "/" || matches!(public, Target::Missing), "{path}");
    }
}

#[test]
fn bodies_are_read_however_they_come() {
    let served = serve(Limits::default());
    let mut stream = served.connect();
    for (sent, length) in [
        (sized("hello"), "x-length: 5\r\n"),
        (sized(&"x".repeat(4096)), "x-length: 4096\r\n"),
        (post("3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n", "transfer-encoding: chunked\r\n"), "x-length: 7\r\n"),
    ] {
        stream.write_all(sent.as_bytes()).unwrap();
        let answer = head(&mut stream);
        has(&answer, 204, &[OPEN, length, "cache-control: no-store"]);
        assert!(!answer.contains("set-cookie"));
    }
    stream.write_all(post("", "content-length: 6\r\n").as_bytes()).unwrap();
    for piece in ["ab", "cd", "ef"] {
        sleep(Duration::from_millis(20));
        stream.write_all(piece.as_bytes()).unwrap();
    }
    has(&head(&mut stream), 204, &["x-length: 6\r\n"]);
}

#[test]
fn an_answered_go_ahead_is_only_given_to_bodies_that_fit() {
    let served = serve(Limits::default());
    let mut stream = served.connect();
    stream.write_all(post("", "content-length: 3\r\nexpect: 100-continue\r\n").as_bytes()).unwrap();
    has(&head(&mut stream), 100, &[]);
    stream.write_all(b"abc").unwrap();
    has(&head(&mut stream), 204, &["x-length: 3\r\n"]);
    stream.write_all(post("", "content-length: 5000\r\nexpect: 100-continue\r\n").as_bytes()).unwrap();
    has(&rest(&mut stream), 413, &["too-large"]);
}

#[test]
fn a_body_too_large_is_413_and_the_connection_ends() {
    let served = serve(Limits::default());
    let large = "x".repeat(4097);
    let told = ["\"code\":\"too-large\"", "connection: close\r\n", OPEN];
    has(&served.told(sized(&large)), 413, &told);
    has(&served.told(sized(&"x".repeat(40_000))), 413, &told);
    let chunked = post(&format!("1001\r\n{large}\r\n0\r\n\r\n"), "transfer-encoding: chunked\r\n");
    has(&served.told(chunked), 413, &told);
}

#[test]
fn a_slow_body_is_408_and_the_connection_ends() {
    let served = serve(Limits { body: Duration::from_millis(100), ..Limits::default() });
    let answer = served.told(post("ab", "content-length: 6\r\n"));
    has(&answer, 408, &["\"code\":\"timeout\"", "connection: close\r\n"]);
}

#[test]
fn two_lengths_end_the_connection_so_nothing_is_smuggled() {
    let served = serve(Limits::default());
    let hidden = "GET /api/v1/sites/hidden/pages HTTP/1.1\r\nhost: x\r\n\r\n";
    for headers in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
    ] {
        let answer = served.told(post(&format!("2\r\nab\r\n0\r\n\r\n{hidden}"), headers));
        has(&answer, 204, &["x-length: 2\r\n", "connection: close\r\n"]);
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
    let twice = served.told(post("abcdef", "content-length: 5\r\ncontent-length: 6\r\n"));
    has(&twice, 400, &[]);
}

#[test]
fn an_upgrade_is_not_taken_and_the_connection_goes_on() {
    let served = serve(Limits::default());
    let mut stream = served.connect();
    for upgrade in ["upgrade: h2c\r\nconnection: upgrade\r\n", ""] {
        let request = post("hello", &format!("content-length: 5\r\n{upgrade}"));
        stream.write_all(request.as_bytes()).unwrap();
        has(&head(&mut stream), 204, &["x-length: 5\r\n"]);
    }
}

#[test]
fn heads_that_are_slow_or_too_large_end_the_connection() {
    let served = serve(Limits { header: Duration::from_millis(100), ..Limits::default() });
    assert_eq!(served.told("GET /livez HTTP/1.1\r\nhost:"), "");
    until(|| served.connection_errors("timeout") == 1);
    assert_eq!(served.told(""), "", "an idle connection is not kept either");
    has(&served.told("nonsense\r\n\r\n"), 400, &[]);
    until(|| served.connection_errors("parse") >= 1);
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(17_000));
    has(&served.told(long), 431, &[]);
}

#[test]
fn connections_over_the_bound_are_closed_and_counted() {
    let served = serve(Limits { connections: 2, ..Limits::default() });
    let mut kept = [served.connect(), served.connect()];
    for stream in &mut kept {
        stream.write_all(sized("a").as_bytes()).unwrap();
        has(&head(stream), 204, &[]);
    }
    assert_eq!(served.metrics.connections.get(), 2);
    let mut third = served.connect();
    assert_eq!(rest(&mut third), "");
    let text = String::from_utf8(served.metrics.text().unwrap()).unwrap();
    assert!(text.contains("footfall_bounds_reached_total{bound=\"connections\"} 1"), "{text}");

    drop(kept);
    until(|| served.metrics.connections.get() == 0);
    has(&served.told(post("a", "content-length: 1\r\nconnection: close\r\n")), 204, &[]);
}

#[test]
fn a_stop_ends_idle_connections_and_waits_for_open_requests() {
    let mut served = serve(Limits::default());
    let (mut idle, mut busy) = (served.connect(), served.connect());
    idle.write_all(sized("a").as_bytes()).unwrap();
    has(&head(&mut idle), 204, &[]);
    busy.write_all(sized("slow").as_bytes()).unwrap();
    until(|| served.metrics.connections.get() == 2);
    sleep(Duration::from_millis(50));
    served.stop();
    assert_eq!(rest(&mut idle), "");
    has(&rest(&mut busy), 204, &[]);
    served.join();
    let refused = TcpStream::connect(served.address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(served.metrics.connections.get(), 0);
}

#[test]
fn a_drain_has_its_deadline() {
    let mut served = serve(Limits { drain: Duration::from_millis(50), ..Limits::default() });
    let mut stuck = served.connect();
    stuck.write_all(post("ab", "content-length: 6\r\n").as_bytes()).unwrap();
    until(|| served.metrics.connections.get() == 1);
    sleep(Duration::from_millis(50));
    served.stop();
    served.join();
    assert_eq!(rest(&mut stuck), "");
}

#[test]
fn a_reader_that_takes_nothing_is_let_go() {
    let served = serve(Limits { write: Duration::from_millis(200), ..Limits::default() });
    let mut stream = served.connect();
    stream.write_all(b"GET /api/v1/sites/large/pages HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    until(|| served.metrics.connections.get() == 1);
    until(|| served.metrics.connections.get() == 0);
    assert_eq!(served.connection_errors("timeout"), 1);
}
