//! Each release reads the files of those before it, and leaves those of a newer one as they are.
//!
//! `tests/fixtures/<version>/` is what a release left behind: `embedded/`, the data directory of a service
//! on the embedded store; `redis/`, that of one on Redis, and `dump.rdb`, that Redis; each with views in the
//! store, in the outbox and in the journal, some of them in one of these only. `expected.json` is what the
//! service showed then. To make those of the version at hand (before a release, and never again after it):
//!
//! ```text
//! FOOTFALL_MAKE_FIXTURES=1 cargo test --locked --test it disk::formats::the_files_of_this_version
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::harness::{SITE, Setup, TestApp, copy_files, counters_with, view};
use crate::support::servers::RedisServer;
use crate::support::service::{Service, files};
use crate::support::wait::until;

const AT: &str = "2023-09-15T08:19:00+07:00";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn send(app: &TestApp, from: u32, number: u32) {
    for view_number in from..from + number {
        let page = format!("/bai-{}", view_number % 3);
        let beacon = view(&page).from(&format!("203.0.113.{}", view_number % 7 + 1));
        app.take(&beacon.id(&format!("id-{view_number}")));
    }
}

/// What a service shows, but for the time of its last change.
fn shown(app: &TestApp) -> Value {
    let pages: Vec<Value> = (0..3)
        .map(|page| {
            let page = format!("/bai-{page}");
            app.page(&page);
            app.get(&counters_with(SITE, &page)).json()["page"].take()
        })
        .collect();
    let counters = app.counters();
    let [online, views, visits, visitors] =
        ["online", "views", "visits", "visitors"].map(|member| counters[member].clone());
    json!({ "online": online, "views": views, "visits": visits, "visitors": visitors, "pages": pages })
}

fn bytes_of(folder: &Path) -> u64 {
    files(folder).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

/// A service whose last views are in the journal alone.
fn make_embedded(dir: &Path) -> Value {
    let mut app = TestApp::start_at(AT, Setup::default());
    send(&app, 0, 20);
    app.stop();
    app.set("store.flush_interval", "5m");
    let written =
        |app: &TestApp| fs::metadata(app.data_dir().join("checkpoint")).unwrap().modified().unwrap();
    let old = written(&app);
    app.restart_after(std::time::Duration::from_secs(1));
    // Its first turn, which freezes, is over when it has written its checkpoint.
    until("the first turn is over", || written(&app) > old);
    send(&app, 20, 9);
    copy_files(&app.data_dir(), dir);
    assert!(bytes_of(&dir.join("journal")) > 24 * 10, "the journal holds views");
    let shown = shown(&app);
    app.ids_are_forgotten();
    shown
}

/// A service whose store went away.
fn make_redis(dir: &Path, dump: &Path) -> Value {
    let mut redis = RedisServer::start();
    let app = TestApp::start_at(AT, Setup::default().store(&redis.url()));
    send(&app, 0, 20);
    shown(&app);
    until("all is stored", || redis.views() == 20);
    let checkpoint = || fs::metadata(app.data_dir().join("checkpoint")).map_or(0, |file| file.len());
    until("the checkpoint holds sessions, figures and pages", || checkpoint() > 800);
    redis.client().ask(&[b"SAVE"]);
    fs::copy(redis.dir().join("dump.rdb"), dump).unwrap();
    redis.kill();
    send(&app, 20, 6);
    until("a batch waits", || app.metric("footfall_unapplied_batches") > 0.0);
    let frozen = app.metric("footfall_outbox_bytes");
    send(&app, 26, 3);
    copy_files(&app.data_dir(), dir);
    assert_eq!(app.metric("footfall_outbox_bytes"), frozen, "the last views are in no batch");
    let shown = shown(&app);
    redis.restart();
    app.until_stale(false);
    shown
}

fn make(dir: &Path) {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).unwrap();
    let embedded = make_embedded(&dir.join("embedded"));
    let redis = make_redis(&dir.join("redis"), &dir.join("dump.rdb"));
    let expected = json!({ "embedded": embedded, "redis": redis });
    fs::write(dir.join("expected.json"), serde_json::to_string_pretty(&expected).unwrap() + "\n").unwrap();
}

/// A Redis with what another left.
fn redis_of(dump: &Path) -> RedisServer {
    let mut redis = RedisServer::start();
    fs::copy(dump, redis.dir().join("dump.rdb")).unwrap();
    redis.restart();
    redis
}

/// Starts from files of a release, and compares.
#[track_caller]
fn check(dir: &Path) {
    let expected: Value = serde_json::from_slice(&fs::read(dir.join("expected.json")).unwrap()).unwrap();
    let redis = redis_of(&dir.join("dump.rdb"));
    // Files of a service on Redis hold all of it: with another store it begins from the outbox, where that is meant.
    for (name, url) in [("embedded", "embedded"), ("redis", &redis.url()), ("redis", "embedded")] {
        let mut app = TestApp::start_with(AT, Setup::default().store(url), &dir.join(name));
        for again in [false, true] {
            if again {
                app.restart_after(std::time::Duration::ZERO);
            }
            if (name, url, again) == ("redis", "embedded", false) {
                let (code, said) = app.order(&["store", "refill"]);
                assert_eq!(code, 0, "{said}");
            }
            app.until_stale(false);
            assert_eq!(shown(&app), expected[name], "{} {name} on {url}", dir.display());
        }
        assert_eq!(expected[name]["views"]["all"], 29);
        // Its ids are known: nothing is counted anew.
        for number in 20..29 {
            let beacon = view(&format!("/bai-{}", number % 3)).from(&format!("203.0.113.{}", number % 7 + 1));
            assert_eq!(app.send(&beacon.id(&format!("id-{number}"))).status, 204);
        }
        assert_eq!(app.counters()["views"]["all"], 29);
        // It did not accept them, an earlier release did.
        app.forget_what_was_accepted();
    }
}

#[test]
fn the_files_of_this_version_are_read_by_it() {
    let version = fixtures().join(env!("CARGO_PKG_VERSION"));
    let made = tempfile::tempdir().unwrap();
    let dir = match std::env::var_os("FOOTFALL_MAKE_FIXTURES") {
        Some(_) => version,
        None => made.path().join("fixture"),
    };
    make(&dir);
    check(&dir);
}

#[test]
fn the_files_of_every_release_are_read() {
    let mut releases = files(&fixtures());
    // Files of other counters.
    releases.retain(|dir| !dir.ends_with("recipes"));
    assert!(releases.contains(&fixtures().join("0.1.0")), "{releases:?}");
    releases.iter().for_each(|dir| check(dir));
}

/// Every file below a directory, with its bytes.
pub fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for path in files(dir) {
        match path.is_dir() {
            true => found.extend(contents(&path)),
            // One that is gone by now, or is a socket, is none.
            false => found.extend(fs::read(&path).ok().map(|bytes| (path, bytes))),
        }
    }
    found.retain(|path, _| !path.ends_with("LOCK"));
    found
}

/// Makes a file one of format 9.
fn make_newer(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    if bytes.starts_with(b"footfall") {
        bytes[9] = 9;
    } else {
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("format 1\n"), "{}", path.display());
        bytes = text.replacen("format 1\n", "format 9\n", 1).into_bytes();
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_newer_file_stops_the_start_and_is_left_as_it_is() {
    let fixture = fixtures().join("0.1.0/embedded");
    let first = |folder: &str| files(&fixture.join(folder)).remove(0);
    let segments = [first("journal"), first("outbox")];
    let segments = segments.iter().map(|path| path.strip_prefix(&fixture).unwrap().to_owned());
    let names = ["checkpoint", "writer", "salts", "totals.redb"].map(PathBuf::from);
    for name in names.into_iter().chain(segments) {
        let service = Service::prepare(Setup::default());
        copy_files(&fixture, &service.data_dir());
        let path = service.data_dir().join(&name);
        if name.ends_with("totals.redb") {
            let database = redb::Database::open(&path).unwrap();
            let tx = database.begin_write().unwrap();
            let meta = redb::TableDefinition::<&str, &str>::new("meta");
            tx.open_table(meta).unwrap().insert("format", "9").unwrap();
            tx.commit().unwrap();
        } else {
            make_newer(&path);
        }
        let before = contents(&service.data_dir());
        let (code, log) = service.run_beside();
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(&name.display().to_string()), "{log}");
        assert!(
            log.contains("of format 9, this version of footfall") && log.contains("reads format "),
            "{log}"
        );
        assert!(contents(&service.data_dir()) == before, "{} or another file was changed", name.display());
    }
}

#[test]
fn a_newer_redis_is_sent_nothing_and_views_are_kept() {
    let fixture = fixtures().join("0.1.0");
    let redis = redis_of(&fixture.join("dump.rdb"));
    let meta: &[u8] = b"footfall:{lamdong}:meta";
    redis.client().ask(&[b"HSET", meta, b"format", b"2"]);
    let everything = || {
        let names = redis.client().ask(&[b"KEYS", b"*"]);
        let all = redis.client().ask(&[b"HGETALL", b"footfall:{lamdong}:all"]);
        (format!("{names:?}").len(), all, redis.client().ask(&[b"HGETALL", meta]))
    };
    let before = everything();
    let setup = Setup::default().store(&redis.url());
    let mut app = TestApp::start_with(AT, setup, &fixture.join("redis"));
    until("it says so", || app.readiness().1.contains("format 2, this version of footfall reads format 1"));
    send(&app, 100, 5);
    app.until_tried();
    assert_eq!(everything(), before);
    // The newer version is gone again.
    redis.client().ask(&[b"HSET", meta, b"format", b"1"]);
    app.until_stale(false);
    assert_eq!(app.counters()["views"]["all"], 34);
    app.stop();
    app.forget_what_was_accepted();
}
