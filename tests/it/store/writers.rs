//! Who applies batches: copies of one directory on one Redis, instances that are drained, writers that are gone.

use std::time::Duration;

use crate::support::harness::{Beacon, Setup, until, view};
use crate::support::http;
use crate::support::load::Load;
use crate::support::servers::{RedisServer, Reply};
use crate::support::service::{Service, my_turn};

const LASTING: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

fn send(service: &Service, views: u32) {
    for reader in 0..views {
        let beacon = view("/a").from(&format!("203.0.113.{}", reader % 200 + 1));
        assert_eq!(http::ask(service.public(), beacon.bytes()).status, 204);
    }
}

fn stored(redis: &RedisServer) -> u64 {
    match redis.client().ask(&[b"HGET", b"footfall:{lamdong}:all", b"views"]) {
        Reply::Bytes(Some(bytes)) => String::from_utf8(bytes).unwrap().parse().unwrap(),
        _ => 0,
    }
}

/// The day's and the page's sums are those of all time, and a moment later still are.
#[track_caller]
fn until_stored(redis: &RedisServer, views: u64) {
    until(&format!("{views} views are stored, after {}", stored(redis)), || stored(redis) == views);
    std::thread::sleep(Duration::from_millis(500));
    let mut client = redis.client();
    let day = client.ask(&[b"KEYS", b"footfall:{lamdong}:day:????-??-??"]);
    let Reply::Array(days) = day else { panic!("{day:?}") };
    let mut of_days = 0;
    for day in days {
        of_days += client.ask(&[b"HGET", &day.bytes(), b"views"]).text().parse::<u64>().unwrap();
    }
    let page = client.ask(&[b"HGET", b"footfall:{lamdong}:all:pages", b"/a"]).text();
    assert_eq!((stored(redis), of_days, page), (views, views, views.to_string()));
}

/// Waits until all that was sent is applied: the turn that runs now may have begun before it was.
fn quiet(service: &Service) {
    let flushed = || service.metric("footfall_last_flush_timestamp_seconds");
    for _ in 0..2 {
        let before = flushed();
        until("a turn ends with everything applied", || flushed() > before);
    }
}

fn writer(service: &Service) -> String {
    let text = std::fs::read_to_string(service.data_dir().join("writer")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("writer ")).unwrap().to_owned()
}

/// Fields of the hash of all time that are markers.
fn markers(redis: &RedisServer) -> Vec<String> {
    let fields = redis.client().ask(&[b"HKEYS", b"footfall:{lamdong}:all"]);
    let Reply::Array(fields) = fields else { panic!("{fields:?}") };
    fields.into_iter().map(Reply::text).filter(|field| field.starts_with('#')).collect()
}

#[test]
fn of_two_copies_of_a_directory_one_takes_a_new_identity_and_every_view_counts_once() {
    for ahead in [0, 7] {
        let redis = RedisServer::start_with(&LASTING);
        let first = Service::start(Setup::default().store(&redis.url()));
        send(&first, 10);
        quiet(&first);
        let mut second = first.copied();
        // Whether their positions agree or not.
        send(&first, ahead);
        quiet(&first);
        second.spawn();
        second.until_ready();
        let mut sent = 10 + u64::from(ahead);
        for round in 1..=3 {
            send(&second, round);
            send(&first, 2 * round);
            sent += u64::from(3 * round);
        }
        until_stored(&redis, sent);
        assert_ne!(writer(&first), writer(&second));
        let changes = [&first, &second]
            .map(|service| service.metric("footfall_identity_changes_total"))
            .iter()
            .sum::<f64>();
        assert!(changes >= 1.0);
        // Restarted, both are who they are now.
        let identities = (writer(&first), writer(&second));
        for mut service in [first, second] {
            service.restart();
            send(&service, 4);
            sent += 4;
            until_stored(&redis, sent);
            assert_eq!(service.metric("footfall_identity_changes_total"), 0.0);
            assert!(identities.0 == writer(&service) || identities.1 == writer(&service));
        }
    }
}

#[test]
fn batches_that_waited_when_the_directory_was_copied_count_once() {
    for second_first in [false, true] {
        let mut redis = RedisServer::start_with(&LASTING);
        let mut first = Service::start(Setup::default().store(&redis.url()));
        send(&first, 10);
        quiet(&first);
        redis.kill();
        send(&first, 5);
        // At a start all that is in the journal becomes a batch.
        first.kill9();
        first.spawn();
        first.until_ready();
        assert!(first.metric("footfall_unapplied_batches") >= 1.0);
        let mut second = first.copied();
        send(&first, 4);
        second.spawn();
        second.until_ready();
        send(&second, 3);
        // Who reaches the store first is a matter of luck, unless one of them sleeps.
        let (sleeper, other) = if second_first { (&first, &second) } else { (&second, &first) };
        let signal = |signal: &str| {
            let status =
                std::process::Command::new("kill").args([signal, &sleeper.pid().to_string()]).status();
            assert!(status.is_ok_and(|status| status.success()));
        };
        signal("-STOP");
        redis.restart();
        until("one has applied its batches", || stored(&redis) > 10);
        quiet(other);
        signal("-CONT");
        until_stored(&redis, 10 + 5 + 4 + 3);
        assert_ne!(writer(&first), writer(&second));
    }
}

fn next(client: u32, number: u32) -> (String, u32, Beacon) {
    let who = (number + client) % 100;
    ("/a".to_owned(), who, view("/a").from(&format!("203.0.113.{}", who + 1)))
}

#[test]
fn copied_while_it_runs_under_load_both_ledgers_agree_with_the_store() {
    let _turn = my_turn();
    let redis = RedisServer::start_with(&LASTING);
    let first = Service::start(Setup::default().store(&redis.url()));
    let load = Load::begin(2, next);
    load.aim(Some(first.public()));
    until("views are stored", || stored(&redis) > 200);
    let mut second = first.copied();
    second.spawn();
    second.until_ready();
    let seconds = Load::begin(2, next);
    seconds.aim(Some(second.public()));
    let before = stored(&redis);
    until("both go on", || stored(&redis) > before + 1000);
    let counted = |account: &crate::support::load::Account| {
        account.0.iter().filter(|sent| sent.fate == crate::support::load::Fate::Accepted).count() as u64
    };
    let sent = counted(&load.end()) + counted(&seconds.end());
    quiet(&first);
    quiet(&second);
    std::thread::sleep(Duration::from_millis(500));
    // What was in no batch when the directory was copied is in both journals, and nothing else is counted twice.
    let log = second.log();
    let recovered =
        log.split("\"message\":\"recovered\",\"views\":").nth(1).unwrap().split(',').next().unwrap();
    let overlap =
        stored(&redis).checked_sub(sent).unwrap_or_else(|| panic!("lost of {sent}: {}", stored(&redis)));
    println!("{sent} views were accepted, {overlap} of them counted by both, {recovered} were in no batch");
    assert!(overlap <= recovered.parse().unwrap(), "{overlap}");
    assert_ne!(writer(&first), writer(&second));
    until_stored(&redis, sent + overlap);
}

#[test]
fn a_copy_with_the_embedded_store_is_a_service_of_its_own() {
    let first = Service::start(Setup::default());
    send(&first, 10);
    quiet(&first);
    let mut second = first.copied();
    second.spawn();
    second.until_ready();
    send(&first, 1);
    send(&second, 2);
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
        send(&service, 3);
        assert_eq!(service.terminate().0.code(), Some(0));
        assert_eq!(markers(&redis).len(), 1);
        let (code, said) = service.order(&["drain"]);
        assert_eq!(code, 0, "{said}");
        assert_eq!((stored(&redis), markers(&redis)), (3 * round, Vec::new()));
    }
}

#[test]
fn a_writer_that_is_gone_is_retired_and_a_living_one_only_by_force() {
    let redis = RedisServer::start();
    let setup = Setup::default().store(&redis.url());
    let mut gone = Service::start(setup.clone());
    send(&gone, 3);
    quiet(&gone);
    gone.kill9();
    let service = Service::start(setup);
    send(&service, 4);
    until_stored(&redis, 7);
    let (who, own) = (writer(&gone), writer(&service));
    let (code, said) = service.order(&["retire", &own]);
    assert_eq!((code, said.contains("footfall drain")), (1, true), "{said}");
    let (code, said) = service.order(&["retire", "0000000000000000"]);
    assert_eq!((code, said.contains("knows no writer")), (1, true), "{said}");
    let (code, said) = service.order(&["retire", &who]);
    assert_eq!((code, said.contains("may live")), (1, true), "{said}");
    assert_eq!(markers(&redis).len(), 2);
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
    gone.spawn();
    gone.until_ready();
    send(&gone, 2);
    send(&service, 1);
    until_stored(&redis, 10);
    assert_ne!(writer(&gone), who);
}

#[test]
fn writers_that_came_and_went_leave_the_hashes_as_they_were() {
    let redis = RedisServer::start();
    let mut service = Service::start(Setup::default().store(&redis.url()));
    send(&service, 3);
    quiet(&service);
    let mut client = redis.client();
    let Reply::Array(time) = client.ask(&[b"TIME"]) else { panic!() };
    let now: i64 = time[0].clone().text().parse().unwrap();
    let (long_ago, lately) = ((now - 41 * 86_400).to_string(), (now - 30 * 86_400).to_string());
    for number in 0..150 {
        let marker = format!("{number:020}.0000.00000000000000aa");
        let id = format!("{number:016x}");
        let seen = if number == 0 { &lately } else { &long_ago };
        for hash in ["all", "day:2020-01-01", "all:pages"] {
            let key = format!("footfall:{{lamdong}}:{hash}");
            client.ask(&[b"HSET", key.as_bytes(), format!("#{id}").as_bytes(), marker.as_bytes()]);
        }
        let (meta, field) = ("footfall:{lamdong}:meta", format!("writer:{id}"));
        client.ask(&[b"HSET", meta.as_bytes(), field.as_bytes(), seen.as_bytes()]);
    }
    // Some at a time, each time the store is attached.
    for left in [51, 2] {
        service.restart();
        quiet(&service);
        assert_eq!(markers(&redis).len(), left);
    }
    assert!(markers(&redis).contains(&format!("#{:016x}", 0)), "one seen lately stays");
    assert_eq!(client.ask(&[b"HLEN", b"footfall:{lamdong}:day:2020-01-01"]).int(), 1);
    assert_eq!(stored(&redis), 3);
    client.ask(&[b"DEL", b"footfall:{lamdong}:day:2020-01-01"]);
    send(&service, 2);
    until_stored(&redis, 5);
}
