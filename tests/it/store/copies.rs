//! `verify`, `backup`, `restore` and `migrate`, of a service that takes views meanwhile.

use std::path::Path;
use std::time::Duration;

use crate::support::dice::Dice;
use crate::support::harness::{SITE, Setup};
use crate::support::load::{Fate, Load};
use crate::support::servers::RedisServer;
use crate::support::service::{Service, files, my_turn};
use crate::support::wait::{pause, until};

fn views(service: &Service) -> u64 {
    service.counters(SITE)["views"]["all"].as_u64().unwrap()
}

/// A load whose pages no other has.
fn load(pages: &'static str) -> Load {
    Load { pages, ..Load::default() }
}

#[track_caller]
fn agrees(service: &Service) {
    let said = service.ordered(&["verify"]);
    assert!(said.contains("everything agrees"), "{said}");
}

#[test]
fn a_store_that_is_written_to_is_audited_and_agrees() {
    let _turn = my_turn();
    let redis = RedisServer::start();
    for url in ["embedded".to_owned(), redis.url()] {
        let mut service = Service::start(Setup::default().store(&url));
        let load = load("/tin").begin(&service);
        for _ in 0..5 {
            load.until_accepted(200);
            agrees(&service);
        }
        let account = load.end();
        service.settle();
        account.check(&service);
        let said = service.ordered(&["verify", "--json"]);
        let audits: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(audits[0]["views"], views(&service));
        service.kill9();
        // Without a service it is read where it lies.
        let alone = service.ordered(&["verify", "--json"]);
        assert_eq!(audits, serde_json::from_str::<serde_json::Value>(&alone).unwrap());
        let (code, said) = service.order(&["verify", "--site", "nobody"]);
        assert_eq!(code, 1);
        assert!(said.contains("no site nobody"), "{said}");
    }
    redis.client().ask(&[b"HINCRBY", b"footfall:{lamdong}:all", b"visits", b"1"]);
    // Without the data_dir, from another machine.
    let elsewhere = Service::prepare(Setup::default());
    let (code, said) = elsewhere.order(&["verify", "--store", &redis.url()]);
    assert_eq!(code, 1);
    assert!(said.contains("lamdong: all visits: expected 100, the sum of its years; found 101"), "{said}");
}

/// A backup made under load is restored into another directory: all that was counted before is in it, and
/// nothing twice.
fn backed_up_and_restored(store: &str, into: &str) {
    let _turn = my_turn();
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("backup");
    let backup = backup.to_str().unwrap();
    let mut service = Service::start(Setup::default().store(store).set("store.flush_interval", "5s"));
    let before = load("/truoc").run(&service, 1000);
    let meanwhile = load("/tin").begin(&service);
    meanwhile.until_accepted(200);
    let said = service.ordered(&["backup", backup]);
    assert!(said.contains("holds all that was counted before"), "{said}");
    meanwhile.until_accepted(200);
    let meanwhile = meanwhile.end();
    let (code, said) = service.order(&["backup", backup]);
    assert!(code == 1 && said.contains("is not empty"), "{said}");

    let mut restored = Service::prepare(Setup::default().store(into));
    restored.ordered(&["restore", backup]);
    restored.begin();
    let (counted, accepted) = (views(&restored), before.number(Fate::Accepted));
    assert_eq!((before.check_pages(&restored), before.number(Fate::Unknown)), (accepted, 0));
    let all = before.and(meanwhile);
    println!("accepted before {accepted}, restored {counted}, in the end {}", all.number(Fate::Accepted));
    assert!(accepted < counted, "what was counted meanwhile is in it too");
    assert!(counted < all.number(Fate::Accepted), "the load went on after it");
    assert_eq!(restored.counters(SITE)["visits"]["all"], 100);
    let after = load("/sau").run(&restored, 200);
    restored.until_applied();
    assert_eq!(after.check_pages(&restored), after.number(Fate::Accepted));
    assert_eq!(views(&restored), counted + after.number(Fate::Accepted));
    agrees(&restored);
    assert_ne!(service.writer(), restored.writer());
    // The original goes on, as if nothing had been.
    all.check(&service);
    service.restart();
    all.check(&service);
    agrees(&service);
    let (code, said) = restored.order(&["restore", backup]);
    assert!(code == 1 && said.contains("is not empty"), "{said}");
}

#[test]
fn an_embedded_store_is_backed_up_under_load_and_restored() {
    backed_up_and_restored("embedded", "embedded");
}

#[test]
fn redis_is_backed_up_under_load_and_restored_into_another() {
    let (from, into) = (RedisServer::lasting(), RedisServer::lasting());
    backed_up_and_restored(&from.url(), &into.url());
}

#[test]
fn redis_is_backed_up_under_load_and_restored_into_files() {
    let from = RedisServer::lasting();
    backed_up_and_restored(&from.url(), "embedded");
}

#[test]
fn a_backup_holds_no_salt_and_only_a_whole_one_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("backup");
    let mut service = Service::start(Setup::default());
    load("/tin").run(&service, 100);
    // What a backup that was broken off left behind is no obstacle.
    std::fs::create_dir(dir.path().join("backup.unfinished")).unwrap();
    std::fs::write(dir.path().join("backup.unfinished/totals.redb.unfinished"), "half").unwrap();
    service.ordered(&["backup", backup.to_str().unwrap()]);
    let names: Vec<_> = files(&backup);
    assert_eq!(names, [backup.join("MANIFEST"), backup.join("totals.redb")]);
    let salts = std::fs::read_to_string(service.data_dir().join("salts")).unwrap();
    let totals = std::fs::read(backup.join("totals.redb")).unwrap();
    for hex in salts.lines().filter_map(|line| line.split(' ').nth(2)) {
        let salt = u128::from_str_radix(hex, 16).unwrap().to_be_bytes();
        assert!(!totals.windows(16).any(|window| window == salt), "a salt is in the backup");
    }
    service.terminate();

    let fresh = Service::prepare(Setup::default());
    let refused = |said: &str, why: &str| {
        let (code, found) = fresh.order(&["restore", backup.to_str().unwrap()]);
        assert!(code == 1 && found.contains(why), "{said}: {found}");
        assert!(!fresh.data_dir().exists(), "{said}: nothing is made");
    };
    let manifest = std::fs::read_to_string(backup.join("MANIFEST")).unwrap();
    std::fs::write(backup.join("MANIFEST"), manifest.replace("footfall backup 1", "footfall backup 2"))
        .unwrap();
    refused("a newer one", "it is of format 2, this version of footfall (0.1.0) reads format 1");
    std::fs::write(backup.join("MANIFEST"), &manifest).unwrap();
    let mut flipped = totals.clone();
    flipped[5000] ^= 1;
    std::fs::write(backup.join("totals.redb"), &flipped).unwrap();
    refused("a flipped bit", "it is damaged");
    std::fs::write(backup.join("totals.redb"), &totals[..totals.len() - 4096]).unwrap();
    refused("a cut one", "it is damaged");
    std::fs::write(backup.join("totals.redb"), &totals).unwrap();
    fresh.ordered(&["restore", backup.to_str().unwrap()]);
    assert_eq!(std::fs::read(fresh.data_dir().join("totals.redb")).unwrap(), totals);
    assert_eq!(std::fs::read(backup.join("totals.redb")).unwrap(), totals, "reading left it as it was");
}

/// Migrates under load, with a kill in between, and goes on with the new store.
fn migrated(from: &str, to: &str) {
    let _turn = my_turn();
    let mut dice = Dice::thrown();
    let mut service = Service::start(Setup::default().store(from));
    let load = Load { resends: true, ..Load::default() }.begin(&service);
    load.until_accepted(1000);
    for _ in 0..3 {
        let (code, said) = std::thread::scope(|scope| {
            let command = scope.spawn(|| service.order(&["migrate", "store", to, "--resume"]));
            pause(Duration::from_millis(dice.below(250)));
            // By its number: the command runs beside it.
            service.signal("KILL");
            command.join().unwrap()
        });
        println!("killed meanwhile: {code} {said}");
        service.begin();
        if code == 0 {
            break;
        }
    }
    let (code, said) = service.order(&["migrate", from, to, "--resume"]);
    // The last one may have ended just before the kill.
    assert!(code == 0 || said.contains("already") || said.contains("move it away"), "{said}");
    load.until_accepted(200);
    service.set("store.url", to);
    service.begin();
    load.until_accepted(200);
    let account = load.end();
    for again in [false, true] {
        if again {
            service.restart();
        }
        service.until_applied();
        account.check(&service);
        agrees(&service);
    }
    let (code, said) = service.order(&["migrate", to, from]);
    assert!(code == 1 && (said.contains("already") || said.contains("move it away")), "{said}");
}

#[test]
fn totals_move_from_files_to_redis_under_load() {
    let redis = RedisServer::lasting();
    migrated("embedded", &redis.url());
}

#[test]
fn totals_move_from_redis_to_files_under_load() {
    let redis = RedisServer::lasting();
    migrated(&redis.url(), "embedded");
}

#[test]
fn totals_move_from_redis_to_redis_under_load() {
    let (from, to) = (RedisServer::lasting(), RedisServer::lasting());
    migrated(&from.url(), &to.url());
}

#[test]
fn a_half_filled_redis_is_no_store_and_is_taken_up_only_when_asked() {
    let (from, to) = (RedisServer::start(), RedisServer::start());
    let mut service = Service::start(Setup::default().store(&from.url()));
    load("/tin").run(&service, 100);
    service.until_applied();
    let dataset = from.client().ask(&[b"HGET", b"footfall:{lamdong}:meta", b"dataset"]).bytes();
    // As a migration leaves it that was broken off at once.
    let meta: &[u8] = b"footfall:{lamdong}:meta";
    let mut client = to.client();
    client.ask(&[b"HSET", meta, b"format", b"unfinished (footfall migrate)", b"dataset", &dataset]);
    client.ask(&[b"HSET", b"footfall:{lamdong}:all", b"views", b"3"]);
    let mut other = Service::start(Setup::default().store(&to.url()));
    load("/khac").run(&other, 100);
    until("it says so", || other.readiness().1.contains("of format unfinished (footfall migrate)"));
    other.until_tried();
    assert_eq!(to.views(), 3, "nothing is sent");
    other.kill9();
    other.breaks_the_store();
    let (code, said) = service.order(&["migrate", &from.url(), &to.url()]);
    assert!(code == 1 && said.contains("--resume"), "{said}");
    service.kill9();
    // Without a service the command has the totals opened itself.
    service.ordered(&["migrate", &from.url(), &to.url(), "--resume"]);
    assert_eq!(client.ask(&[b"HGET", meta, b"format"]).text(), "1");
    assert_eq!(from.views(), to.views());
    assert!(Path::new(&service.data_dir()).join("writer").exists());
}

#[test]
fn totals_move_to_redis_where_the_service_once_had_others() {
    let (once, now) = (RedisServer::start(), RedisServer::start());
    let mut service = Service::start(Setup::default().store(&once.url()));
    let first = load("/a").run(&service, 400);
    service.until_applied();
    service.set("store.url", "embedded");
    service.begin();
    service.ordered(&["store", "refill"]);
    let second = load("/b").run(&service, 400);
    service.ordered(&["migrate", "embedded", &now.url()]);
    let third = load("/c").run(&service, 400);
    service.set("store.url", &now.url());
    service.begin();
    service.until_applied();
    first.and(second).and(third).check(&service);
    agrees(&service);
}

#[test]
fn a_redis_that_is_lost_is_filled_from_a_backup_and_the_outbox() {
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("backup");
    let (mut lost, new) = (RedisServer::start(), RedisServer::start());
    let mut service = Service::start(Setup::default().store(&lost.url()));
    let first = load("/a").run(&service, 400);
    service.ordered(&["backup", backup.to_str().unwrap()]);
    let second = load("/b").run(&service, 400);
    service.until_applied();
    lost.kill();
    let third = load("/c").run(&service, 400);
    service.kill9();
    service.set("store.url", &new.url());
    let from = format!("embedded:{}", backup.join("totals.redb").display());
    // So no password need be an argument.
    let file = dir.path().join("url");
    std::fs::write(&file, new.url() + "\n").unwrap();
    let (code, said) = service.order(&["migrate", &from, "@/nowhere"]);
    assert!(code == 1 && said.contains("/nowhere"), "{said}");
    service.ordered(&["migrate", &from, &format!("@{}", file.display())]);
    service.begin();
    service.until_applied();
    first.and(second).and(third).check(&service);
    agrees(&service);
}
