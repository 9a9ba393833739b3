//! Settings of Redis that endanger counts.

use crate::support::harness::{Setup, TestApp, view};
use crate::support::http;
use crate::support::servers::{RedisServer, Reply};
use crate::support::wait::until;

const RECOMMENDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/redis/redis.conf");

fn readiness(app: &TestApp) -> String {
    app.readiness().1
}

fn counts(app: &TestApp, redis: &RedisServer, views: u64) {
    app.take(&view("/a"));
    until("it is stored", || redis.views() == views);
    until("figures are known", || app.get("/api/v1/sites/lamdong/counters").status == 200);
}

#[test]
fn the_recommended_settings_give_no_cause_for_concern() {
    let redis = RedisServer::start_with(&["--include", RECOMMENDED]);
    let policy = redis.client().ask(&[b"CONFIG", b"GET", b"appendfsync"]);
    let Reply::Array(policy) = policy else { panic!("{policy:?}") };
    assert_eq!(policy[1].clone().text(), "always", "the file is in force");
    // The user that it proposes can do all that footfall does.
    let text = std::fs::read_to_string(RECOMMENDED).unwrap();
    let user = text.lines().find_map(|line| line.strip_prefix("# user ")).expect("a user is proposed");
    let words: Vec<&[u8]> = user.split(' ').map(str::as_bytes).collect();
    let said = redis.client().ask(&[&[b"ACL".as_slice(), b"SETUSER"], words.as_slice()].concat());
    assert_eq!(said, Reply::Status("OK".to_owned()));
    let url = format!("redis://footfall:change-me@127.0.0.1:{}/0", redis.port());
    // At its end the app is audited as that user, too.
    let app = TestApp::start(Setup::default().store(&url));
    counts(&app, &redis, 1);
    assert_eq!(app.metric("footfall_store_settings_unsafe"), 0.0);
    assert!(!readiness(&app).contains("store-settings"), "{}", readiness(&app));
}

#[test]
fn what_would_delete_totals_holds_the_flush_until_it_is_changed() {
    let redis = RedisServer::start_with(&[
        "--appendonly",
        "yes",
        "--maxmemory",
        "100mb",
        "--maxmemory-policy",
        "allkeys-lru",
    ]);
    let app = TestApp::start(Setup::default().store(&redis.url()));
    app.take(&view("/a"));
    until("it says so", || readiness(&app).contains("[-]store maxmemory-policy is allkeys-lru"));
    assert_eq!(http::get(app.admin(), "/readyz").status, 200, "views are taken");
    assert_eq!((app.metric("footfall_flush_held"), redis.is_empty()), (1.0, true));
    redis.client().ask(&[b"CONFIG", b"SET", b"maxmemory-policy", b"noeviction"]);
    counts(&app, &redis, 2);
    until("nothing is held", || app.metric("footfall_flush_held") == 0.0);
    assert!(!readiness(&app).contains("store-settings"));
}

#[test]
fn a_replica_is_no_store() {
    let (primary, replica) = (RedisServer::start(), RedisServer::start_with(&["--replica-read-only", "no"]));
    let port = primary.port().to_string();
    replica.client().ask(&[b"REPLICAOF", b"127.0.0.1", port.as_bytes()]);
    let app = TestApp::start(Setup::default().store(&replica.url()));
    app.take(&view("/a"));
    until("it says so", || readiness(&app).contains("[-]store the server is a replica"));
    assert_eq!(replica.client().ask(&[b"EXISTS", b"footfall:{lamdong}:meta"]).int(), 0);
    replica.client().ask(&[b"REPLICAOF", b"NO", b"ONE"]);
    counts(&app, &replica, 2);
}

#[test]
fn what_weakens_the_store_is_said_and_nothing_held() {
    let redis = RedisServer::start();
    let app = TestApp::start(Setup::default().store(&redis.url()));
    counts(&app, &redis, 1);
    assert!(
        readiness(&app).contains("[-]store-settings the server keeps nothing on disk"),
        "{}",
        readiness(&app)
    );
    assert_eq!(app.metric("footfall_store_settings_unsafe"), 1.0);
    drop(app);
    let weak: [(&[&str], &str); 4] = [
        (&["--appendonly", "yes", "--appendfsync", "no"], "appendfsync is no"),
        (&["--save", "3600 1"], "snapshots only"),
        (&["--appendonly", "yes", "--maxmemory-policy", "allkeys-lfu"], "once maxmemory is set"),
        (&["--rename-command", "CONFIG", ""], "CONFIG GET is not allowed"),
    ];
    for (arguments, said) in weak {
        let redis = RedisServer::start_with(arguments);
        let app = TestApp::start(Setup::default().store(&redis.url()));
        counts(&app, &redis, 1);
        assert!(readiness(&app).contains(said), "{said}: {}", readiness(&app));
    }
}
