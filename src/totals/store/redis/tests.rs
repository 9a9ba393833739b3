//! What is Redis' own: keys, faults, connections.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use redis::{ErrorKind, RedisError};
use tokio::time::Instant;

use super::settings::check_version;
use super::*;
use crate::totals::store::contract::Run;
use crate::totals::store::tests::servers::{RedisServer, Reply, free_port};
use crate::totals::store::tests::{config, day, hash, id, marker, part, read, site, writer};

async fn open(config: &StoreConfig) -> Redis {
    Redis::open(config).unwrap()
}

/// One more view, after the marker that the hash bears.
async fn one_more(store: &Redis, prev: Option<&str>, then: &str) -> Result<Vec<Outcome>, StoreError> {
    store.apply(&writer("w"), vec![part("all", prev, then, &[("views", 1)])], vec![]).await
}

#[track_caller]
fn unreachable<T: std::fmt::Debug>(outcome: Result<T, StoreError>, said: &str) {
    let Err(StoreError::Unreachable(text)) = outcome else { panic!("{outcome:?}") };
    assert!(text.contains(said), "{text}");
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, StoreError>, said: &str) {
    let Err(StoreError::Refused(text)) = outcome else { panic!("{outcome:?}") };
    assert!(text.contains(said), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn an_entry_waits_for_one_that_was_counted_just_now() {
    let server = RedisServer::start();
    let (store, mut redis) = (open(&config(&server.url())).await, server.client());
    let next = async |known| store.next_entry(&site(), known).await.unwrap();
    assert_eq!([next(0).await, next(0).await, next(1).await], [Some(1), None, Some(2)]);
    // It does not come any more.
    redis.ask(&[b"HINCRBY", b"footfall:{demo}:meta", b"entry_ms", b"-2000"]);
    assert_eq!(next(1).await, Some(3));
    // The clock was set back.
    redis.ask(&[b"HINCRBY", b"footfall:{demo}:meta", b"entry_ms", b"600000"]);
    assert_eq!(next(2).await, Some(4));
}

#[tokio::test]
async fn keys_are_as_people_read_them() {
    let server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = open(&config(&server.url())).await;
    let sketch = SketchPart { name: hash("day:2026-11-23:visitors"), registers: vec![(5, 3)] };
    one_more(&store, None, "m1").await.unwrap();
    store.apply(&writer("w"), vec![part("all:pages", None, "m1", &[("/", 2)])], vec![sketch]).await.unwrap();
    store
        .attach(&site(), "Asia/Ho_Chi_Minh", &writer("w"), day("2026-11-23"), &Claim::default())
        .await
        .unwrap();
    let keep = Duration::from_secs(48 * 3600);
    store.salt(&site(), day("2026-11-23"), [0xab; 16], keep).await.unwrap();

    let mut redis = server.client();
    let Reply::Array(keys) = redis.ask(&[b"KEYS", b"*"]) else { panic!() };
    let mut keys: Vec<String> = keys.into_iter().map(Reply::text).collect();
    keys.sort();
    let expected = ["all", "all:pages", "day:2026-11-23:visitors", "meta", "salt:2026-11-23"];
    assert_eq!(keys, expected.map(|name| format!("footfall:{{demo}}:{name}")));
    let mut field = |name: &[u8], field: &[u8]| redis.ask(&[b"HGET", name, field]).text();
    assert_eq!(field(b"footfall:{demo}:all", b"views"), "1");
    assert_eq!(field(b"footfall:{demo}:all", b"#w"), id("m1").to_string());
    assert_eq!(field(b"footfall:{demo}:all:pages", b"/"), "2");
    assert_eq!(field(b"footfall:{demo}:meta", b"format"), "1");
    assert_eq!(field(b"footfall:{demo}:meta", b"zone"), "Asia/Ho_Chi_Minh");
    assert_eq!(field(b"footfall:{demo}:meta", b"since"), "2026-11-23");
    assert_eq!(field(b"footfall:{demo}:meta", b"dataset").len(), 16);
    assert!(field(b"footfall:{demo}:meta", b"writer:w").parse::<u64>().unwrap() > 1_700_000_000);
    assert_eq!(redis.ask(&[b"GET", b"footfall:{demo}:salt:2026-11-23"]).text(), "ab".repeat(16));
    let left = redis.ask(&[b"TTL", b"footfall:{demo}:salt:2026-11-23"]).int();
    assert!((keep.as_secs() as i64 - 60..=keep.as_secs() as i64).contains(&left));
    assert_eq!(redis.ask(&[b"PFCOUNT", b"footfall:{demo}:day:2026-11-23:visitors"]).int(), 1);
    // One bare command for each script: nothing in the append file is torn within a MULTI.
    let aof = std::fs::read(server.dir().join("appendonlydir/appendonly.aof.1.incr.aof")).unwrap();
    let aof = String::from_utf8_lossy(&aof);
    assert!(aof.contains("HSET") && !aof.contains("MULTI"), "{aof}");
}

#[tokio::test]
async fn a_script_cache_that_was_emptied_is_not_seen() {
    let server = RedisServer::start();
    let store = open(&config(&server.url())).await;
    let mut redis = server.client();
    for (prev, then) in [(None, "m1"), (Some("m1"), "m2"), (Some("m2"), "m3")] {
        assert_eq!(one_more(&store, prev, then).await.unwrap(), [Outcome::Applied]);
        redis.ask(&[b"SCRIPT", b"FLUSH"]);
    }
    assert_eq!(read(&store, "w", "all", &["views"]).await.sums, [Some(3)]);
}

#[tokio::test]
async fn a_script_cache_that_is_emptied_all_the_time_neither_reorders_nor_repeats() {
    let server = RedisServer::start();
    let store = Arc::new(open(&config(&server.url())).await);
    let mut redis = server.client();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flusher = std::thread::spawn({
        let stop = stop.clone();
        move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                redis.ask(&[b"SCRIPT", b"FLUSH"]);
            }
        }
    });
    let marked = |n: u64| format!("m{n}");
    for round in 0..30 {
        let chain = |n| {
            let prev = (n > 0).then(|| marked(n));
            part("all", prev.as_deref(), &marked(n + 1), &[("views", 1)])
        };
        let parts = (round * 40..round * 40 + 40).map(chain).collect();
        let outcomes = store.apply(&writer("w"), parts, vec![]).await.unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Applied), "{outcomes:?}");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    flusher.join().unwrap();
    let sums = read(&*store, "w", "all", &["views"]).await;
    assert_eq!((sums.marker, sums.sums), (Some(marker("m1200")), vec![Some(1200)]));
}

#[tokio::test]
async fn wrong_types_are_refused_by_name_and_hold_up_no_other() {
    let server = RedisServer::start();
    let store = open(&config(&server.url())).await;
    let mut redis = server.client();
    redis.ask(&[b"SET", b"footfall:{demo}:all", b"a string"]);
    redis.ask(&[b"HSET", b"footfall:{demo}:day:2026-11-24:visitors", b"a", b"hash"]);
    redis.ask(&[b"SET", b"footfall:{demo}:salt:2026-11-23", b"no salt"]);
    let parts =
        vec![part("all", None, "m1", &[("views", 1)]), part("year:2026", None, "m1", &[("views", 1)])];
    refused(store.apply(&writer("w"), parts, vec![]).await, "footfall:{demo}:all: WRONGTYPE");
    assert_eq!(read(&store, "w", "year:2026", &["views"]).await.sums, [Some(1)]);
    let query = Query { hash: hash("all"), fields: vec![] };
    refused(store.read(&writer("w"), vec![query]).await, "footfall:{demo}:all: WRONGTYPE");
    let sketch = SketchPart { name: hash("day:2026-11-24:visitors"), registers: vec![(1, 1)] };
    refused(store.apply(&writer("w"), vec![], vec![sketch]).await, "day:2026-11-24:visitors: WRONGTYPE");
    refused(store.visitors(vec![hash("day:2026-11-24:visitors")]).await, "WRONGTYPE");
    refused(store.sketches(vec![hash("day:2026-11-24:visitors")]).await.map(drop), "WRONGTYPE");
    redis.ask(&[b"SET", b"footfall:{demo}:day:2026-11-25:visitors", b"HYLL"]);
    refused(store.sketches(vec![hash("day:2026-11-25:visitors")]).await.map(drop), "not a sketch");
    let salt = store.salt(&site(), day("2026-11-23"), [0; 16], Duration::from_secs(9)).await;
    refused(salt, "is not 32 hex digits");
}

#[tokio::test]
async fn a_sum_that_is_no_plain_number_stops_its_part_before_any_write() {
    let server = RedisServer::start();
    let store = open(&config(&server.url())).await;
    let mut redis = server.client();
    for wrong in ["", "-1", "1.5", "1e3", "0x10", " 1", "nan", "+1"] {
        redis.ask(&[b"DEL", b"footfall:{demo}:all"]);
        redis.ask(&[b"HSET", b"footfall:{demo}:all", b"visits", wrong.as_bytes(), b"views", b"5"]);
        let part = part("all", None, "m1", &[("views", 1), ("visits", 1)]);
        let outcome = store.apply(&writer("w"), vec![part], vec![]).await;
        refused(outcome, "the sum of visits is not a plain number");
        assert_eq!(redis.ask(&[b"HGET", b"footfall:{demo}:all", b"views"]).text(), "5", "{wrong:?}");
        assert_eq!(redis.ask(&[b"HLEN", b"footfall:{demo}:all"]).int(), 2, "no marker");
        let query = Query { hash: hash("all"), fields: vec!["visits".into()] };
        refused(store.read(&writer("w"), vec![query]).await, "the sum of visits is not a plain number");
    }
}

#[tokio::test]
async fn data_of_another_format_and_old_servers_are_refused() {
    let server = RedisServer::start();
    let store = open(&config(&server.url())).await;
    server.client().ask(&[b"HSET", b"footfall:{demo}:meta", b"format", b"2", b"dataset", b"theirs"]);
    let attached = store.attach(&site(), "UTC", &writer("w"), day("2026-11-23"), &Claim::default()).await;
    refused(attached, "the data of this site is of format 2, this version of footfall reads format 1");
    assert_eq!(server.client().ask(&[b"HLEN", b"footfall:{demo}:meta"]).int(), 2, "left as it is");

    refused(check_version("# Server\r\nredis_version:6.2.14\r\n"), "of version 6.2.14, footfall needs 7.0");
    refused(check_version("# Server\r\n"), "unknown");
    check_version("# Server\r\nredis_version:7.0.0\r\n").unwrap();
    check_version("server_name:valkey\r\nredis_version:7.2.4\r\nvalkey_version:9.1.2\r\n").unwrap();
    check_version("redis_version:10.1.0\r\n").unwrap();
}

#[tokio::test]
async fn a_first_day_that_is_no_date_is_refused_and_left_as_it_is() {
    let server = RedisServer::start();
    let (store, mut client) = (open(&config(&server.url())).await, server.client());
    let attach =
        async || store.attach(&site(), "UTC", &writer("w"), day("2026-11-23"), &Claim::default()).await;
    attach().await.unwrap();
    for spoiled in
        ["spoiled", "", "2024-1-1", "2099-13-01", "2027-02-29", "2099-11-00", "2099-04-31", "0000-00-00"]
    {
        client.ask(&[b"HSET", b"footfall:{demo}:meta", b"since", spoiled.as_bytes()]);
        let refused = attach().await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{spoiled}: {refused:?}");
        assert_eq!(client.ask(&[b"HGET", b"footfall:{demo}:meta", b"since"]).text(), spoiled);
    }
    client.ask(&[b"HSET", b"footfall:{demo}:meta", b"since", b"2024-02-29"]);
    assert_eq!(attach().await.unwrap().since, day("2024-02-29"));
}

#[tokio::test]
async fn a_server_that_is_down_is_unreachable_in_time_and_found_again() {
    let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let timeout = Duration::from_millis(600);
    let store = open(&StoreConfig { timeout, ..config(&server.url()) }).await;
    one_more(&store, None, "m1").await.unwrap();
    server.kill();
    for _ in 0..3 {
        let began = Instant::now();
        unreachable(one_more(&store, Some("m1"), "m2").await, "");
        assert!(began.elapsed() < timeout * 2, "{:?}", began.elapsed());
    }
    server.restart();
    assert_eq!(one_more(&store, Some("m1"), "m2").await.unwrap(), [Outcome::Applied]);
    // Gone and back between two calls: the broken connection is replaced without a fault.
    server.restart();
    assert_eq!(one_more(&store, Some("m2"), "m3").await.unwrap(), [Outcome::Applied]);
    assert_eq!(read(&store, "w", "all", &["views"]).await.sums, [Some(3)]);
}

#[tokio::test]
async fn a_store_opens_while_its_server_is_down() {
    let port = free_port();
    let store = open(&config(&format!("redis://127.0.0.1:{port}"))).await;
    unreachable(one_more(&store, None, "m1").await, "refused");
}

#[tokio::test]
async fn a_server_that_hangs_is_unreachable_in_time() {
    let server = RedisServer::start();
    let timeout = Duration::from_millis(300);
    // While it does not hang it has as long as a busy machine needs.
    let store = open(&config(&server.url())).await;
    let hasty = open(&StoreConfig { timeout, ..config(&server.url()) }).await;
    one_more(&store, None, "m1").await.unwrap();
    server.pause();
    for _ in 0..2 {
        let began = Instant::now();
        unreachable(one_more(&hasty, Some("m1"), "m2").await, "no answer within 300ms");
        assert!(began.elapsed() < timeout * 30, "{:?}", began.elapsed());
    }
    server.resume();
    // What was given up may have been carried out since: either way it counts once.
    let outcome = one_more(&store, Some("m1"), "m2").await.unwrap();
    assert!(matches!(outcome[..], [Outcome::Applied | Outcome::Already]), "{outcome:?}");
    assert_eq!(one_more(&store, Some("m2"), "m3").await.unwrap(), [Outcome::Applied]);
    assert_eq!(read(&store, "w", "all", &["views"]).await.sums, [Some(3)]);

    // Something that takes connections and never says a word.
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("redis://:hunter2@{}", mute.local_addr().unwrap());
    let store = open(&StoreConfig { timeout, ..config(&url) }).await;
    unreachable(one_more(&store, None, "m1").await, "no answer within 300ms");
}

#[tokio::test]
async fn states_that_pass_are_waited_for() {
    let server = RedisServer::start();
    let store = open(&config(&server.url())).await;
    let mut redis = server.client();
    one_more(&store, None, "m1").await.unwrap();
    let states = [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM"),
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0", "NOREPLICAS"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "READONLY"),
    ];
    let words = |line: &'static str| line.split(' ').map(str::as_bytes).collect::<Vec<_>>();
    for (n, (begin, end, said)) in states.into_iter().enumerate() {
        let (prev, then) = (format!("m{}", n + 1), format!("m{}", n + 2));
        redis.ask(&words(begin));
        unreachable(one_more(&store, Some(&prev), &then).await, said);
        redis.ask(&words(end));
        assert_eq!(one_more(&store, Some(&prev), &then).await.unwrap(), [Outcome::Applied], "{said}");
    }
    // Another client's script keeps the server busy for longer than it allows.
    redis.ask(&[b"CONFIG", b"SET", b"busy-reply-threshold", b"1"]);
    let mut other = server.client();
    let busy = std::thread::spawn(move || other.ask(&[b"EVAL", b"while true do end", b"0"]));
    while !matches!(redis.ask(&[b"PING"]), Reply::Error(text) if text.starts_with("BUSY")) {
        std::thread::sleep(Duration::from_millis(1));
    }
    unreachable(one_more(&store, Some("m4"), "m5").await, "BUSY");
    redis.ask(&[b"SCRIPT", b"KILL"]);
    busy.join().unwrap();
    assert_eq!(one_more(&store, Some("m4"), "m5").await.unwrap(), [Outcome::Applied]);
}

#[tokio::test]
async fn passwords_users_and_databases() {
    let server = RedisServer::start_with(&["--requirepass", "hunter2 %/@"]);
    let at = format!("127.0.0.1:{}", server.port());
    let store = open(&config(&format!("redis://:hunter2%20%25%2F%40@{at}/3"))).await;
    assert_eq!(one_more(&store, None, "m1").await.unwrap(), [Outcome::Applied]);
    let mut redis = server.client();
    redis.ask(&[b"AUTH", b"hunter2 %/@"]);
    redis.ask(&[b"SELECT", b"3"]);
    assert_eq!(redis.ask(&[b"HGET", b"footfall:{demo}:all", b"views"]).text(), "1");

    let wrong = open(&config(&format!("redis://:hunter22@{at}"))).await;
    refused(one_more(&wrong, None, "m1").await, "uthentication");
    // Once the server takes the password, the same store works.
    redis.ask(&[b"CONFIG", b"SET", b"requirepass", b"hunter22"]);
    assert_eq!(one_more(&wrong, None, "m1").await.unwrap(), [Outcome::Applied]);
    let nobody = open(&config(&format!("redis://{at}"))).await;
    let attached = nobody.attach(&site(), "UTC", &writer("w"), day("2026-11-23"), &Claim::default()).await;
    refused(attached, "NOAUTH");
    let far = open(&config(&format!("redis://:hunter22@{at}/99"))).await;
    refused(one_more(&far, None, "m1").await, "");

    redis.ask(&[b"ACL", b"SETUSER", b"reader", b"on", b">hunter2", b"~footfall:*", b"+@read", b"+info"]);
    let reader = open(&config(&format!("redis://reader:hunter2@{at}"))).await;
    assert_eq!(read(&reader, "w", "all", &["views"]).await.sums, [Some(1)]);
    refused(one_more(&reader, None, "m1").await, "NOPERM");
}

#[tokio::test]
async fn a_server_that_repeats_the_password_is_not_quoted() {
    let server = RedisServer::start_with(&["--rename-command", "AUTH", ""]);
    let store = open(&config(&format!("redis://:hunter2@127.0.0.1:{}", server.port()))).await;
    refused(one_more(&store, None, "m1").await, "");
    // The texts of the faults of single answers, too.
    let quoted = RedisError::from((ErrorKind::Client, "unknown command", "AUTH 'hunter2'".to_owned()));
    refused(store.told(&hash("all"), Err(quoted)), "AUTH '(password)'");
}

/// A certificate for 127.0.0.1, signed by itself, and its key: paths of the PEM files.
fn certificate(dir: &std::path::Path, name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let path = |end: &str| dir.join(format!("{name}.{end}")).display().to_string();
    std::fs::write(path("crt"), made.cert.pem()).unwrap();
    std::fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
    (path("crt"), path("key"))
}

#[tokio::test]
async fn tls_is_checked_against_the_given_authority() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path(), "ours");
    let (other, _) = certificate(dir.path(), "other");
    let tls_port = free_port();
    let server = RedisServer::start_with(&[
        "--tls-port",
        &tls_port.to_string(),
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
        "--requirepass",
        "hunter2",
    ]);
    let url = format!("rediss://:hunter2@127.0.0.1:{tls_port}/1");
    let with = |ca: Option<&str>| StoreConfig { tls_ca_file: ca.map(Into::into), ..config(&url) };
    let store = open(&with(Some(&cert))).await;
    assert_eq!(one_more(&store, None, "m1").await.unwrap(), [Outcome::Applied]);
    for ca in [None, Some(&*other)] {
        unreachable(one_more(&open(&with(ca)).await, None, "m1").await, "certificate");
    }
    let plain = StoreConfig { tls_ca_file: Some(cert.clone().into()), ..config(&server.url()) };
    for (settings, said) in [
        (with(Some(&key)), "no certificate in PEM"),
        (with(Some("/nonexistent/ca.pem")), "/nonexistent/ca.pem"),
        (plain, "rediss:// only"),
    ] {
        refused(Redis::open(&settings).map(drop), said);
    }
}

#[tokio::test]
async fn the_script_is_refused_as_a_whole_where_memory_is_short() {
    let server = RedisServer::start();
    let store = open(&config(&server.url())).await;
    one_more(&store, None, "m1").await.unwrap();
    let mut redis = server.client();
    redis.ask(&[b"CONFIG", b"SET", b"maxmemory", b"1"]);
    let fields: Vec<String> = (0..900).map(|n| format!("/{n}")).collect();
    let sums: Vec<(&str, u64)> = fields.iter().map(|field| (field.as_str(), 1)).collect();
    let large = part("all", Some("m1"), "m2", &sums);
    unreachable(store.apply(&writer("w"), vec![large.clone()], vec![]).await, "OOM");
    assert_eq!(redis.ask(&[b"HLEN", b"footfall:{demo}:all"]).int(), 2, "the view and the marker");
    redis.ask(&[b"CONFIG", b"SET", b"maxmemory", b"0"]);
    assert_eq!(store.apply(&writer("w"), vec![large], vec![]).await.unwrap(), [Outcome::Applied]);
}

#[tokio::test]
async fn two_copies_are_the_same_up_to_the_earlier_end_of_the_run_they_share() {
    let server = RedisServer::start();
    let store = open(&config(&server.url())).await;
    let run = |(id, base): (&str, u64)| Run { id: id.into(), base };
    let attach = async |runs: &[(&str, u64)]| {
        let claim = Claim { runs: runs.iter().copied().map(run).collect(), ..Claim::default() };
        let attached = store.attach(&site(), "UTC", &writer("w"), day("2026-11-23"), &claim).await.unwrap();
        (attached.standing, attached.fork)
    };
    assert_eq!(attach(&[("a1", 5)]).await, (Standing::Born, None));
    // Copied at batch 10, the first of the two goes on to batch 20 before it is started anew.
    assert_eq!(attach(&[("a1", 5), ("a2", 20)]).await, (Standing::Ours, Some(20)));
    assert_eq!(attach(&[("a1", 5), ("b1", 10)]).await, (Standing::Twin, Some(10)));
}

mod lies;
