//! What no store of ours says is refused, in few words, and at its first word where it has no end.

use std::sync::Mutex;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::totals::store::dump::Dump;
use crate::totals::store::tests::servers::{Lie, array, bulk, liar};

/// A store whose server answers a command with a lie.
struct Lied {
    store: Redis,
    lie: Arc<Mutex<(&'static str, Vec<u8>)>>,
    port: u16,
    _server: RedisServer,
}

impl Lied {
    async fn new() -> Lied {
        let server = RedisServer::start();
        let lie = Arc::new(Mutex::new(("", Vec::new())));
        let told = lie.clone();
        let port = liar(server.port(), move |words| {
            let (command, bytes) = told.lock().unwrap().clone();
            let endless = || if bytes.is_empty() { Lie::NeverEnds } else { Lie::Says(bytes.clone()) };
            (words[0] == command).then(endless)
        });
        let mut store = open(&config(&format!("redis://127.0.0.1:{port}"))).await;
        store.connection.most_steps = 1000;
        Lied { store, lie, port, _server: server }
    }

    fn lies(&self, command: &'static str, bytes: Vec<u8>) {
        *self.lie.lock().unwrap() = (command, bytes);
    }

    async fn attach(&self) -> Result<Attached, StoreError> {
        self.store.attach(&site(), "UTC", &writer("w"), day("2026-11-23"), &Claim::default()).await
    }
}

/// Refused in words that a log can bear.
#[track_caller]
fn said<T: std::fmt::Debug>(outcome: Result<T, StoreError>, said: &str) {
    let Err(StoreError::Refused(text)) = outcome else { panic!("{said}: {outcome:?}") };
    assert!(text.contains(said), "{text}");
    assert!(text.len() < 6000 && !text.contains(char::is_control), "{text:?}");
}

#[tokio::test]
async fn an_attached_writer_is_told_nothing_that_cannot_be() {
    let lied = Lied::new().await;
    let long = "x".repeat(5 << 20);
    let told = |words: [&str; 5]| array(&words.map(bulk));
    for since in
        ["0001-01-01", "1999-12-31", "-262143-01-01", "+2026-11-23", "2026-11-24", "9999-12-31", "", &long]
    {
        lied.lies("EVAL", told(["d1", since, "ours", "", ""]));
        said(lied.attach().await, "footfall:{demo}:meta: since is");
    }
    for dataset in ["", "a b", "d1 0\ndataset redis demo d2", "d1\u{202e}", &long] {
        lied.lies("EVAL", told([dataset, "2026-11-23", "born", "", ""]));
        said(lied.attach().await, "footfall:{demo}:meta: dataset is");
    }
    for fork in ["18446744073709551615", "9007199254740993", "-1", "+1", "1 ", &long] {
        lied.lies("EVAL", told(["d1", "2026-11-23", "twin", "", fork]));
        said(lied.attach().await, "footfall:{demo}:meta: the fork is");
    }
    for pruned in ["2026-1-1", "0001-01-01", "today", &long] {
        lied.lies("EVAL", told(["d1", "2026-11-23", "ours", pruned, ""]));
        said(lied.attach().await, "footfall:{demo}:meta: pruned is");
    }
    lied.lies("EVAL", told(["d1", "2026-11-23", "king", "", ""]));
    said(lied.attach().await, "the standing is");
    lied.lies("EVAL", bulk("d1"));
    said(lied.attach().await, "");
    lied.lies("EVAL", told(["d1", "2000-01-01", "ours", "2026-09-22", "7"]));
    let told = lied.attach().await.unwrap();
    assert_eq!((told.since, told.fork), (day("2000-01-01"), Some(7)));
    assert_eq!(told.pruned, Some(day("2026-09-22")));
    lied.lies("EVAL", bulk("2026-1-1"));
    let pruned = lied.store.prune(&site(), None, day("2026-09-01")..day("2026-09-22")).await;
    said(pruned, "footfall:{demo}:meta: pruned is");
}

#[tokio::test]
async fn sums_markers_and_visitors_are_bounded() {
    let lied = Lied::new().await;
    let query = || vec![Query { hash: hash("all"), fields: vec!["views".into()] }];
    for sum in ["9007199254740992", "9223372036854775808", "1e3", "-1", ""] {
        lied.lies("HMGET", array(&[bulk(""), bulk("0"), bulk(sum)]));
        said(lied.store.read(&writer("w"), query()).await, "the sum of views is not a plain number");
        lied.lies("HMGET", array(&[bulk(""), bulk(sum), bulk("1")]));
        said(lied.store.read(&writer("w"), query()).await, "the sum of #revision is not a plain number");
    }
    let beyond = format!("{:020}.0000.00000000000000aa", u64::MAX);
    for marker in ["m1", "\x1b[2J", &beyond, &"1".repeat(5 << 20)] {
        lied.lies("HMGET", array(&[bulk(marker), bulk("0"), bulk("1")]));
        said(lied.store.read(&writer("w"), query()).await, "footfall:{demo}:all: a marker is");
        lied.lies("EVALSHA", bulk(marker));
        said(one_more(&lied.store, None, "m1").await, "footfall:{demo}:all: a marker is");
    }
    for visitors in ["-1", "9007199254740992", "9223372036854775807"] {
        lied.lies("PFCOUNT", format!(":{visitors}\r\n").into_bytes());
        said(lied.store.visitors(vec![hash("day:2026-11-23:visitors")]).await, "visitors");
    }
    lied.lies(
        "HSCAN",
        array(&[bulk("0"), array(&["/a", "2", "/b", "9007199254740992", "/\x1b[2J", "3"].map(bulk))]),
    );
    assert_eq!(lied.store.top(&hash("all:pages"), 9).await.unwrap(), [("/a".to_owned(), 2)]);
}

#[tokio::test]
async fn a_fault_is_told_in_a_short_printable_text() {
    let lied = Lied::new().await;
    let long = format!("-ERR \x1b[2J\u{202e}{}\r\n", "\x07".repeat(5 << 20)).into_bytes();
    for command in ["HMGET", "EVAL", "EVALSHA"] {
        lied.lies(command, long.clone());
        let query = Query { hash: hash("all"), fields: vec![] };
        match command {
            "HMGET" => said(lied.store.read(&writer("w"), vec![query]).await, "u{1b}"),
            "EVAL" => said(lied.attach().await, "u{1b}"),
            _ => said(one_more(&lied.store, None, "m1").await, "u{1b}"),
        }
    }
    lied.lies("INFO", bulk(format!("redis_version:{}", "\x1b[2J6".repeat(1 << 20))));
    said(lied.store.concerns().await, "the server is of version");
    let policy = format!("redis_version:7.0.0\r\nmaxmemory_policy:allkeys\x1b{}\r\n", "x".repeat(1 << 20));
    lied.lies("INFO", bulk(policy));
    for concern in lied.store.concerns().await.unwrap() {
        assert!(concern.text.len() < 6000 && !concern.text.contains(char::is_control), "{concern:?}");
    }
}

#[tokio::test]
async fn what_has_no_end_ends() {
    let lied = Lied::new().await;
    lied.lies("SCAN", array(&[bulk("7"), array(&[bulk("footfall:{demo}:all")])]));
    let dump = lied.store.dump().await.unwrap();
    said(dump.sites().await, "SCAN finds no end");
    lied.lies("SCAN", array(&[bulk("seven"), array(&[])]));
    said(dump.sites().await, "");
    lied.lies("HSCAN", array(&[bulk("7"), array(&["/a", "1"].map(bulk))]));
    let (mut from, mut steps) = (None, 0);
    let ended = loop {
        match dump.scan(&crate::totals::store::tests::stored("all:pages"), from).await {
            Ok((_, next)) => from = Some(next.expect("a cursor")),
            Err(error) => break error,
        }
        steps += 1;
        assert!(steps < 5000);
    };
    said(Err::<(), _>(ended), "HSCAN finds no end");
    assert_eq!(lied.store.top(&hash("all:pages"), 9).await.unwrap().len(), 9);
    // Long before the deadline: what is read of it is bounded, not the time.
    lied.lies("HMGET", Vec::new());
    let query = Query { hash: hash("all"), fields: vec![] };
    said(lied.store.read(&writer("w"), vec![query]).await, "it answers without end");
    lied.lies("", Vec::new());
    assert_eq!(one_more(&lied.store, None, "m1").await.unwrap(), [Outcome::Applied]);
}

/// Speaks TLS in front of a server. Its port.
async fn in_front(server: u16, cert: &str, key: &str) -> u16 {
    let cert = CertificateDer::from_pem_file(cert).unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(vec![cert], key).unwrap()));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut behind = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
                tokio::io::copy_bidirectional(&mut acceptor.accept(stream).await?, &mut behind).await
            });
        }
    });
    port
}

#[tokio::test]
async fn what_has_no_end_ends_within_tls_too() {
    let (lied, dir) = (Lied::new().await, tempfile::tempdir().unwrap());
    let (cert, key) = certificate(dir.path(), "ours");
    let port = in_front(lied.port, &cert, &key).await;
    let config = config(&format!("rediss://127.0.0.1:{port}"));
    let timeout = Duration::from_secs(600);
    let store = open(&StoreConfig { tls_ca_file: Some(cert.into()), timeout, ..config }).await;
    assert_eq!(one_more(&store, None, "m1").await.unwrap(), [Outcome::Applied]);
    lied.lies("HMGET", Vec::new());
    let query = Query { hash: hash("all"), fields: vec![] };
    said(store.read(&writer("w"), vec![query]).await, "it answers without end");
}
