//! Who applies batches: copies of one directory on one Redis, instances that are drained, writers that are gone.

use std::time::Duration;

use crate::support::harness::{Setup, TestApp};
use crate::support::servers::{RedisServer, Reply};
use crate::support::service::Service;
use crate::support::wait::until;

/// The day's and the page's sums are those of all time, and still are when all have looked at the store again.
#[track_caller]
fn until_stored(redis: &RedisServer, views: u64, services: &[&Service]) {
    until(&format!("{views} views are stored, after {}", redis.views()), || redis.views() == views);
    services.iter().for_each(|service| service.settle());
    let mut client = redis.client();
    let day = client.ask(&[b"KEYS", b"footfall:{lamdong}:day:????-??-??"]);
    let Reply::Array(days) = day else { panic!("{day:?}") };
    let mut of_days = 0;
    for day in days {
        of_days += client.ask(&[b"HGET", &day.bytes(), b"views"]).text().parse::<u64>().unwrap();
    }
    assert_eq!((redis.views(), of_days, redis.sum("all:pages", "/a")), (views, views, Some(views)));
}

const A_DAY: Duration = Duration::from_secs(24 * 3600);

/// Fields of the hash of all time that are markers.
fn markers(redis: &RedisServer) -> Vec<String> {
    let fields = redis.client().ask(&[b"HKEYS", b"footfall:{lamdong}:all"]);
    let Reply::Array(fields) = fields else { panic!("{fields:?}") };
    fields.into_iter().map(Reply::text).filter(|field| field.starts_with('#')).collect()
}

#[test]
fn of_two_copies_of_a_directory_one_takes_a_new_identity_and_every_view_counts_once() {
    for ahead in [0, 7] {
        let redis = RedisServer::lasting();
        let first = Service::start(Setup::default().store(&redis.url()));
        first.read(10);
        first.settle();
        let mut second = first.copied();
        // Whether their positions agree or not.
        first.read(ahead);
        first.settle();
        second.begin();
        let mut sent = 10 + u64::from(ahead);
        for round in 1..=3 {
            second.read(round);
            first.read(2 * round);
            sent += u64::from(3 * round);
        }
        until_stored(&redis, sent, &[&first, &second]);
        assert_ne!(first.writer(), second.writer());
        let changes = [&first, &second]
            .map(|service| service.metric("footfall_identity_changes_total"))
            .iter()
            .sum::<f64>();
        assert!(changes >= 1.0);
        // Restarted, both are who they are now.
        let identities = (first.writer(), second.writer());
        for mut service in [first, second] {
            service.restart();
            service.read(4);
            sent += 4;
            until_stored(&redis, sent, &[&service]);
            assert_eq!(service.metric("footfall_identity_changes_total"), 0.0);
            assert!(identities.0 == service.writer() || identities.1 == service.writer());
        }
    }
}

#[test]
fn batches_that_waited_when_the_directory_was_copied_count_once() {
    for second_first in [false, true] {
        let mut redis = RedisServer::lasting();
        let mut first = Service::start(Setup::default().store(&redis.url()));
        first.read(10);
        first.settle();
        redis.kill();
        first.read(5);
        // At a start all that is in the journal becomes a batch.
        first.begin();
        assert!(first.metric("footfall_unapplied_batches") >= 1.0);
        let mut second = first.copied();
        first.read(4);
        second.begin();
        second.read(3);
        // Who reaches the store first is a matter of luck, unless one of them sleeps.
        let (sleeper, other) = if second_first { (&first, &second) } else { (&second, &first) };
        sleeper.signal("STOP");
        redis.restart();
        until("one has applied its batches", || redis.views() > 10);
        other.settle();
        sleeper.signal("CONT");
        until_stored(&redis, 10 + 5 + 4 + 3, &[&first, &second]);
        assert_ne!(first.writer(), second.writer());
    }
}

#[test]
fn a_copy_with_the_embedded_store_is_a_service_of_its_own() {
    let first = Service::start(Setup::default());
    first.read(10);
    first.settle();
    let mut second = first.copied();
    second.begin();
    first.read(1);
    second.read(2);
    for (service, views) in [(&first, 11), (&second, 12)] {
        assert_eq!(service.counters("lamdong")["views"]["all"], views);
        assert_eq!(service.metric("footfall_identity_changes_total"), 0.0);
    }
}

#[test]
fn drained_instances_leave_no_marker_behind() {
    let redis = RedisServer::start();
    let setup = Setup::default().store(&redis.url());
    for round in 1..=5 {
        let mut service = Service::start(setup.clone());
        service.read(3);
        assert_eq!(service.terminate().0.code(), Some(0));
        assert_eq!(markers(&redis).len(), 1);
        let (code, said) = service.order(&["drain"]);
        assert_eq!(code, 0, "{said}");
        assert_eq!((redis.views(), markers(&redis)), (3 * round, Vec::new()));
    }
}

#[test]
fn a_writer_that_is_gone_is_retired_and_a_living_one_only_by_force() {
    let redis = RedisServer::start();
    let setup = Setup::default().store(&redis.url());
    let mut gone = Service::start(setup.clone());
    gone.read(3);
    gone.settle();
    gone.kill9();
    let service = Service::start(setup);
    service.read(4);
    until_stored(&redis, 7, &[&service]);
    let (who, own) = (gone.writer(), service.writer());
    let (code, said) = service.order(&["retire", &own]);
    assert_eq!((code, said.contains("footfall drain")), (1, true), "{said}");
    let (code, said) = service.order(&["retire", "0000000000000000"]);
    assert_eq!((code, said.contains("knows no writer")), (1, true), "{said}");
    let (code, said) = service.order(&["retire", &who]);
    assert_eq!((code, said.contains("may live")), (1, true), "{said}");
    assert_eq!(markers(&redis).len(), 2);
    let (code, said) = service.order(&["doctor"]);
    for found in ["[+]instances 1 beside this one", "[+]proxies 127.0.0.1 named clients, and are trusted"] {
        assert!(said.contains(found), "{code}: {found} is not in {said}");
    }
    // An hour later.
    let Reply::Array(time) = redis.client().ask(&[b"TIME"]) else { panic!() };
    let seen = (time[0].clone().text().parse::<i64>().unwrap() - 3600).to_string();
    redis.client().ask(&[
        b"HSET",
        b"footfall:{lamdong}:meta",
        format!("writer:{who}").as_bytes(),
        seen.as_bytes(),
    ]);
    let (code, said) = service.order(&["retire", &who]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(markers(&redis), [format!("#{own}")]);
    // It was not gone after all: it comes back as somebody else, and counts nothing twice.
    gone.begin();
    gone.read(2);
    service.read(1);
    until_stored(&redis, 10, &[&gone, &service]);
    assert_ne!(gone.writer(), who);
}

#[test]
fn a_retired_writer_stays_retired_wherever_its_totals_go() {
    for by_file in [false, true] {
        let (one, two) = (RedisServer::start(), RedisServer::start());
        let setup = Setup::default().store(&one.url());
        let mut gone = Service::start(setup.clone());
        gone.read(100);
        gone.settle();
        gone.kill9();
        let mut service = Service::start(setup);
        service.read(51);
        until_stored(&one, 151, &[&service]);
        let who = gone.writer();
        service.ordered(&["retire", &who, "--force"]);
        service.terminate();
        let (dir, mut from) = (tempfile::tempdir().unwrap(), one.url());
        if by_file {
            let file = format!("embedded:{}", dir.path().join("between.redb").display());
            service.ordered(&["migrate", &from, &file]);
            from = file;
        }
        service.ordered(&["migrate", &from, &two.url()]);
        for service in [&mut gone, &mut service] {
            service.set("store.url", &two.url());
            service.begin();
        }
        gone.read(2);
        service.read(1);
        until_stored(&two, 154, &[&gone, &service]);
        assert_ne!(gone.writer(), who);
    }
}

#[test]
fn a_retired_writer_is_refused_by_the_files_that_its_totals_went_to() {
    let redis = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("backup");
    let setup = Setup::default().store(&redis.url());
    let mut gone = Service::start(setup.clone());
    gone.read(10);
    gone.settle();
    gone.kill9();
    let mut service = Service::start(setup);
    service.read(5);
    until_stored(&redis, 15, &[&service]);
    let who = gone.writer();
    service.ordered(&["retire", &who, "--force"]);
    service.ordered(&["backup", backup.to_str().unwrap()]);
    service.terminate();
    std::fs::copy(backup.join("totals.redb"), gone.data_dir().join("totals.redb")).unwrap();
    gone.set("store.url", "embedded");
    gone.begin();
    gone.read(2);
    gone.settle();
    assert_eq!(gone.counters("lamdong")["views"]["all"], 17);
    assert_ne!(gone.writer(), who);
}

#[test]
fn writers_that_came_and_went_leave_the_hashes_as_they_were() {
    let redis = RedisServer::start();
    let mut client = redis.client();
    let Reply::Array(time) = client.ask(&[b"TIME"]) else { panic!() };
    let now: i64 = time[0].clone().text().parse().unwrap();
    let started = chrono::DateTime::from_timestamp(now, 0).unwrap().to_rfc3339();
    let app = TestApp::start_at(&started, Setup::default().store(&redis.url()));
    app.read(3);
    until("they are stored", || redis.views() == 3);
    let (long_ago, lately) = ((now - 41 * 86_400).to_string(), (now - 30 * 86_400).to_string());
    let day =
        chrono::DateTime::from_timestamp(now - 20 * 86_400, 0).unwrap().format("day:%Y-%m-%d").to_string();
    for number in 0..150 {
        let marker = format!("{number:020}.0000.00000000000000aa");
        let id = format!("{number:016x}");
        let seen = if number == 0 { &lately } else { &long_ago };
        for hash in ["all", &day, "all:pages"] {
            let key = format!("footfall:{{lamdong}}:{hash}");
            client.ask(&[b"HSET", key.as_bytes(), format!("#{id}").as_bytes(), marker.as_bytes()]);
        }
        let (meta, field) = ("footfall:{lamdong}:meta", format!("writer:{id}"));
        client.ask(&[b"HSET", meta.as_bytes(), field.as_bytes(), seen.as_bytes()]);
    }
    // Watched for a day, some at a time, each time the store is attached: the last that is done then shares salts.
    let mut days = 0;
    let mut pass = || {
        app.pass(A_DAY);
        days += 1;
        // In Saigon.
        let tomorrow = chrono::DateTime::from_timestamp(now + (days + 1) * 86_400 + 7 * 3600, 0).unwrap();
        let salt = RedisServer::key(&tomorrow.format("salt:%Y-%m-%d").to_string());
        until("it is attached", || redis.client().ask(&[b"EXISTS", salt.as_bytes()]).int() == 1);
    };
    pass();
    for left in [51, 2] {
        pass();
        assert!(markers(&redis).len() <= left, "some are retired");
    }
    assert_eq!(markers(&redis).len(), 2);
    assert!(markers(&redis).contains(&format!("#{:016x}", 0)), "one seen lately stays");
    let day = RedisServer::key(&day);
    assert_eq!(client.ask(&[b"HLEN", day.as_bytes()]).int(), 1);
    assert_eq!(redis.views(), 3);
    client.ask(&[b"DEL", day.as_bytes()]);
    app.read(2);
    until("all are stored", || redis.views() == 5);
}

/// An instance whose clock is far ahead takes no living writer for gone, as they are seen by the clock of Redis; nor
/// does it where that is ahead: they are seen again.
#[test]
fn a_clock_that_is_ahead_retires_nobody() {
    let redis = RedisServer::start();
    let mut client = redis.client();
    let Reply::Array(time) = client.ask(&[b"TIME"]) else { panic!() };
    let now: i64 = time[0].clone().text().parse().unwrap();
    let meta = b"footfall:{lamdong}:meta";
    let mut seen = |field: &str, days: i64| {
        let at = (now - days * 86_400).to_string();
        client.ask(&[b"HSET", meta, format!("writer:{field}").as_bytes(), at.as_bytes()]);
    };
    seen("lately", 30);
    seen("gone", 42);
    seen("lives", 42);
    let app = TestApp::start_at("2090-06-01T08:19:00+07:00", Setup::default().store(&redis.url()));
    app.until_stale(false);
    seen("lives", 41);
    let knows = |field: &str| {
        redis.client().ask(&[b"HEXISTS", meta, format!("writer:{field}").as_bytes()]).int() == 1
    };
    assert!(knows("gone"), "it was not watched yet");
    app.pass(A_DAY);
    until("it is retired", || !knows("gone"));
    assert!(knows("lately") && knows("lives"));
}
