//! `verify`, `backup`, `restore` and `migrate`, of a service that takes views meanwhile.

use std::path::Path;
use std::time::Duration;

use crate::support::dice::Dice;
use crate::support::harness::{Beacon, SITE, Setup, until, view};
use crate::support::load::{Account, Fate, Load, Next};
use crate::support::servers::RedisServer;
use crate::support::service::{Service, my_turn};

const LASTING: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

fn next(client: u32, number: u32) -> (String, u32, Beacon) {
    let page = format!("/tin/{}", number * 7 % 3001);
    let who = (number + client) % 100;
    (page.clone(), who, view(&page).from(&format!("203.0.113.{}", who + 1)))
}

/// Pages that the others never have.
fn earlier(client: u32, number: u32) -> (String, u32, Beacon) {
    let page = format!("/truoc/{}", (number + client) % 50);
    let who = (number + client) % 100;
    (page.clone(), who, view(&page).from(&format!("203.0.113.{}", who + 1)))
}

fn load(service: &Service, time: Duration) -> Account {
    load_of(next, service, time)
}

fn load_of(next: Next, service: &Service, time: Duration) -> Account {
    let load = Load::begin(4, next);
    load.aim(Some(service.public()));
    std::thread::sleep(time);
    load.end()
}

fn until_applied(service: &Service) {
    until("everything is in the store", || {
        service.metric("footfall_oldest_unapplied_timestamp_seconds") == 0.0
            && service.metric("footfall_unapplied_batches") == 0.0
    });
}

#[track_caller]
fn ordered(service: &Service, arguments: &[&str]) -> String {
    let (code, said) = service.order(arguments);
    assert_eq!(code, 0, "{arguments:?}: {said}");
    said
}

fn views(service: &Service) -> u64 {
    service.counters(SITE)["views"]["all"].as_u64().unwrap()
}

/// Lists two accounts as one.
fn both(mut one: Account, other: Account) -> Account {
    one.0.extend(other.0);
    one
}

#[test]
fn a_store_that_is_written_to_is_audited_and_agrees() {
    let _turn = my_turn();
    let redis = RedisServer::start();
    for url in ["embedded".to_owned(), redis.url()] {
        let mut service = Service::start(Setup::default().store(&url));
        let load = Load::begin(4, next);
        load.aim(Some(service.public()));
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(200));
            let said = ordered(&service, &["verify", "--site", SITE]);
            assert!(said.contains("everything agrees"), "{said}");
        }
        let account = load.end();
        until_applied(&service);
        let said = ordered(&service, &["verify", "--json"]);
        let audits: serde_json::Value = serde_json::from_str(&said).unwrap();
        account.check(audits[0]["views"].as_u64().unwrap());
        service.kill9();
        // Without a service it is read where it lies.
        let alone = ordered(&service, &["verify", "--json"]);
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
    let before = load_of(earlier, &service, Duration::from_millis(1500));
    let meanwhile = Load::begin(4, next);
    meanwhile.aim(Some(service.public()));
    std::thread::sleep(Duration::from_millis(300));
    let said = ordered(&service, &["backup", backup]);
    assert!(said.contains("holds all that was counted before"), "{said}");
    std::thread::sleep(Duration::from_millis(200));
    let meanwhile = meanwhile.end();
    let (code, said) = service.order(&["backup", backup]);
    assert!(code == 1 && said.contains("is not empty"), "{said}");

    let mut restored = Service::prepare(Setup::default().store(into));
    ordered(&restored, &["restore", backup]);
    restored.spawn();
    restored.until_ready();
    let counted = views(&restored);
    let pages: Vec<String> = (0..50).map(|page| format!("/truoc/{page}")).collect();
    let of_before: u64 = restored.pages(SITE, &pages).iter().sum();
    assert_eq!((of_before, before.number(Fate::Unknown)), (before.number(Fate::Accepted), 0));
    let (accepted, all) = (before.number(Fate::Accepted), both(before, meanwhile));
    println!("accepted before {accepted}, restored {counted}, in the end {}", all.number(Fate::Accepted));
    assert!(accepted >= 1000 && accepted < counted, "what was counted meanwhile is in it too");
    assert!(counted < all.number(Fate::Accepted), "the load went on after it");
    assert_eq!(restored.counters(SITE)["visits"]["all"], 100);
    let after = load(&restored, Duration::from_millis(300));
    until_applied(&restored);
    let sum = counted + after.number(Fate::Accepted);
    assert_eq!((views(&restored), after.number(Fate::Unknown)), (sum, 0));
    assert!(ordered(&restored, &["verify"]).contains("everything agrees"));
    let identity = |service: &Service| std::fs::read_to_string(service.data_dir().join("writer")).unwrap();
    assert_ne!(identity(&service), identity(&restored));
    // The original goes on, as if nothing had been.
    all.check(views(&service));
    service.restart();
    all.check(views(&service));
    assert!(ordered(&service, &["verify"]).contains("everything agrees"));
    let (code, said) = restored.order(&["restore", backup]);
    assert!(code == 1 && said.contains("is not empty"), "{said}");
}

#[test]
fn an_embedded_store_is_backed_up_under_load_and_restored() {
    backed_up_and_restored("embedded", "embedded");
}

#[test]
fn redis_is_backed_up_under_load_and_restored_into_another() {
    let (from, into) = (RedisServer::start_with(&LASTING), RedisServer::start_with(&LASTING));
    backed_up_and_restored(&from.url(), &into.url());
}

#[test]
fn redis_is_backed_up_under_load_and_restored_into_files() {
    let from = RedisServer::start_with(&LASTING);
    backed_up_and_restored(&from.url(), "embedded");
}

#[test]
fn a_backup_holds_no_salt_and_only_a_whole_one_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("backup");
    let mut service = Service::start(Setup::default());
    load(&service, Duration::from_millis(100));
    // What a backup that was broken off left behind is no obstacle.
    std::fs::create_dir(dir.path().join("backup.unfinished")).unwrap();
    std::fs::write(dir.path().join("backup.unfinished/totals.redb.unfinished"), "half").unwrap();
    ordered(&service, &["backup", backup.to_str().unwrap()]);
    let names: Vec<_> = crate::support::service::files(&backup);
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
    ordered(&fresh, &["restore", backup.to_str().unwrap()]);
    assert_eq!(std::fs::read(fresh.data_dir().join("totals.redb")).unwrap(), totals);
    assert_eq!(std::fs::read(backup.join("totals.redb")).unwrap(), totals, "reading left it as it was");
}

/// Migrates under load, with a kill in between, and goes on with the new store.
fn migrated(from: &str, to: &str) {
    let _turn = my_turn();
    let mut dice = Dice::thrown();
    let mut service = Service::start(Setup::default().store(from));
    let before = load(&service, Duration::from_millis(1000));
    let meanwhile = Load::begin(4, next);
    meanwhile.aim(Some(service.public()));
    std::thread::sleep(Duration::from_millis(200));
    for _ in 0..3 {
        let (code, said) = std::thread::scope(|scope| {
            let command = scope.spawn(|| service.order(&["migrate", "store", to, "--resume"]));
            std::thread::sleep(Duration::from_millis(dice.below(250)));
            // By its number: the command runs beside it.
            let killed = std::process::Command::new("kill").args(["-9", &service.pid().to_string()]).status();
            assert!(killed.unwrap().success());
            command.join().unwrap()
        });
        println!("killed meanwhile: {code} {said}");
        meanwhile.aim(None);
        service.kill9();
        service.spawn();
        service.until_ready();
        meanwhile.aim(Some(service.public()));
        if code == 0 {
            break;
        }
    }
    let (code, said) = service.order(&["migrate", from, to, "--resume"]);
    // The last one may have ended just before the kill.
    assert!(code == 0 || said.contains("already") || said.contains("move it away"), "{said}");
    std::thread::sleep(Duration::from_millis(300));
    meanwhile.aim(None);
    service.kill9();
    service.set("store.url", to);
    service.spawn();
    service.until_ready();
    meanwhile.aim(Some(service.public()));
    std::thread::sleep(Duration::from_millis(300));
    let all = both(before, meanwhile.end());
    for again in [false, true] {
        if again {
            service.restart();
        }
        until_applied(&service);
        all.check(views(&service));
        assert_eq!(service.counters(SITE)["visits"]["all"], 100);
        assert!(ordered(&service, &["verify"]).contains("everything agrees"));
    }
    let pages: Vec<String> = (0..3001).map(|page| format!("/tin/{page}")).collect();
    assert_eq!(service.pages(SITE, &pages).iter().sum::<u64>(), views(&service));
    let (code, said) = service.order(&["migrate", to, from]);
    assert!(code == 1 && (said.contains("already") || said.contains("move it away")), "{said}");
}

#[test]
fn totals_move_from_files_to_redis_under_load() {
    let redis = RedisServer::start_with(&LASTING);
    migrated("embedded", &redis.url());
}

#[test]
fn totals_move_from_redis_to_files_under_load() {
    let redis = RedisServer::start_with(&LASTING);
    migrated(&redis.url(), "embedded");
}

#[test]
fn totals_move_from_redis_to_redis_under_load() {
    let (from, to) = (RedisServer::start_with(&LASTING), RedisServer::start_with(&LASTING));
    migrated(&from.url(), &to.url());
}

#[test]
fn a_half_filled_redis_is_no_store_and_is_taken_up_only_when_asked() {
    let (from, to) = (RedisServer::start(), RedisServer::start());
    let mut service = Service::start(Setup::default().store(&from.url()));
    load(&service, Duration::from_millis(100));
    until_applied(&service);
    let dataset = from.client().ask(&[b"HGET", b"footfall:{lamdong}:meta", b"dataset"]).bytes();
    // As a migration leaves it that was broken off at once.
    let meta: &[u8] = b"footfall:{lamdong}:meta";
    let mut client = to.client();
    client.ask(&[b"HSET", meta, b"format", b"unfinished (footfall migrate)", b"dataset", &dataset]);
    client.ask(&[b"HSET", b"footfall:{lamdong}:all", b"views", b"3"]);
    let mut other = Service::start(Setup::default().store(&to.url()));
    load(&other, Duration::from_millis(100));
    until("it says so", || other.log().contains("of format unfinished (footfall migrate)"));
    assert_eq!(client.ask(&[b"HGET", b"footfall:{lamdong}:all", b"views"]).text(), "3", "nothing is sent");
    other.kill9();
    let (code, said) = service.order(&["migrate", &from.url(), &to.url()]);
    assert!(code == 1 && said.contains("--resume"), "{said}");
    service.kill9();
    // Without a service the command has the totals opened itself.
    ordered(&service, &["migrate", &from.url(), &to.url(), "--resume"]);
    assert_eq!(client.ask(&[b"HGET", meta, b"format"]).text(), "1");
    let everything = |server: &RedisServer, name: &str| {
        let key = format!("footfall:{{lamdong}}:{name}");
        server.client().ask(&[b"HGET", key.as_bytes(), b"views"]).text()
    };
    assert_eq!(everything(&from, "all"), everything(&to, "all"));
    assert!(Path::new(&service.data_dir()).join("writer").exists());
}

#[test]
fn totals_move_to_redis_where_the_service_once_had_others() {
    let (once, now) = (RedisServer::start(), RedisServer::start());
    let mut service = Service::start(Setup::default().store(&once.url()));
    let mut all = load(&service, Duration::from_millis(200));
    until_applied(&service);
    service.kill9();
    service.set("store.url", "embedded");
    service.spawn();
    service.until_ready();
    all = both(all, load(&service, Duration::from_millis(200)));
    ordered(&service, &["migrate", "embedded", &now.url()]);
    all = both(all, load(&service, Duration::from_millis(200)));
    service.kill9();
    service.set("store.url", &now.url());
    service.spawn();
    service.until_ready();
    until_applied(&service);
    all.check(views(&service));
    assert!(ordered(&service, &["verify"]).contains("everything agrees"));
}

#[test]
fn a_redis_that_is_lost_is_filled_from_a_backup_and_the_outbox() {
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("backup");
    let mut lost = RedisServer::start();
    let mut service = Service::start(Setup::default().store(&lost.url()));
    let mut all = load(&service, Duration::from_millis(300));
    ordered(&service, &["backup", backup.to_str().unwrap()]);
    all = both(all, load(&service, Duration::from_millis(300)));
    until_applied(&service);
    lost.kill();
    all = both(all, load(&service, Duration::from_millis(300)));
    service.kill9();
    let new = RedisServer::start();
    service.set("store.url", &new.url());
    let from = format!("embedded:{}", backup.join("totals.redb").display());
    // So no password need be an argument.
    let file = dir.path().join("url");
    std::fs::write(&file, new.url() + "\n").unwrap();
    let (code, said) = service.order(&["migrate", &from, "@/nowhere"]);
    assert!(code == 1 && said.contains("/nowhere"), "{said}");
    ordered(&service, &["migrate", &from, &format!("@{}", file.display())]);
    service.spawn();
    service.until_ready();
    until_applied(&service);
    all.check(views(&service));
    assert_eq!(service.counters(SITE)["visits"]["all"], 100);
    assert!(ordered(&service, &["verify"]).contains("everything agrees"));
}
