//! A command acts on what the service uses, and a service on the data set that it wrote to last; or they say that
//! they do not.

use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use crate::support::harness::{SITE, Setup};
use crate::support::servers::RedisServer;
use crate::support::service::Service;
use crate::support::wait::until;

fn until_held(service: &Service, says: &str) {
    until("the site is held", || {
        let (status, text) = service.readiness();
        assert_eq!(status, 200, "it keeps accepting");
        text.lines().any(|line| line.starts_with("[-]site lamdong: the data set") && line.contains(says))
    });
}

fn until_free(service: &Service) {
    until("no site is held", || service.metric("footfall_flush_held") == 0.0);
}

#[test]
fn a_store_that_lacks_what_was_restored_is_held_until_it_is_copied_there() {
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("backup").display().to_string();
    let (redis, service) = (RedisServer::start(), Service::start(Setup::default()));
    service.read(5);
    service.ordered(&["backup", &backup]);

    // In a shell that lacks the service's URL.
    let mut restored = Service::prepare(Setup::default());
    let said = restored.ordered(&["restore", &backup]);
    assert!(said.contains("restored into data/totals.redb"), "{said}");
    restored.breaks_the_store();
    restored.set("store.url", &redis.url());
    restored.begin();
    restored.read(2);
    until_held(
        &restored,
        "it was in the embedded store, and store.url names redis; `footfall migrate` copies it",
    );
    restored.until_tried();
    assert!(redis.is_empty());
    let said = restored.ordered(&["migrate", "embedded", "store"]);
    assert!(said.contains(&format!("the same is in data/totals.redb and {}", redis.url())), "{said}");
    until("all of it is there", || redis.views() == 7);
    until_free(&restored);
    assert_eq!(restored.counters(SITE)["views"]["all"], 7);
}

#[test]
fn another_kind_of_store_is_held_until_somebody_says_that_it_is_meant() {
    let redis = RedisServer::start();
    let mut service = Service::start(Setup::default());
    service.breaks_the_store();
    service.read(3);
    service.settle();
    service.terminate();
    service.set("store.url", &redis.url());
    service.begin();
    service.read(2);
    until_held(&service, "it was in the embedded store");
    until("the last known are shown", || service.counters_now(SITE)["views"]["all"] == 5);
    assert_eq!(service.counters_now(SITE)["stale"], true);
    let (code, said) = service.order(&["verify"]);
    assert!(code == 1 && said.contains("it holds nothing of what the service wrote"), "{said}");
    assert!(redis.is_empty());
    let said = service.ordered(&["store", "accept-empty"]);
    assert!(said.contains(&format!("the store is up to date: {}", redis.url())), "{said}");
    until("what waited is there", || redis.views() == 2);
    service.ordered(&["verify"]);
    service.terminate();

    // As where the variable is forgotten.
    service.set("store.url", "embedded");
    service.begin();
    until_held(&service, "it was in the redis store, and store.url names embedded");
    service.read(1);
    let (code, said) = service.order(&["verify"]);
    assert!(code == 1 && said.contains("is not the one that the service wrote to"), "{said}");
    service.terminate();
    service.set("store.url", &redis.url());
    service.begin();
    until("what waited is there", || redis.views() == 3);
    until_free(&service);
    assert_eq!(service.counters(SITE)["views"]["all"], 3);
}

#[test]
fn a_command_with_other_settings_than_the_stopped_service_does_nothing() {
    let redis = RedisServer::start();
    let mut service = Service::start(Setup::default().store(&redis.url()));
    service.read(3);
    service.terminate();
    service.set("store.url", "embedded");
    for order in [&["drain"][..], &["verify"], &["backup", "copy"], &["entries"]] {
        let (code, said) = service.order(order);
        assert!(code == 1 && said.contains("keeps its totals in the redis store"), "{order:?}: {said}");
    }
    assert!(!service.data_dir().join("totals.redb").exists());
    // What the service is given is beside its configuration, and the process's own variables win.
    let url = redis.url();
    service.write("environment", &format!("# secrets\nPATH=\"/bin\nFOOTFALL_STORE__URL_FILE=\"{url}\"\n"));
    let (_, printed) = service.order(&["print-config"]);
    assert!(printed.contains("url = \"embedded\""), "{printed}");
    let unset = |variables: &str| service.with_variables(&["FOOTFALL_STORE__URL"], variables);
    let (code, said) = unset(&format!("FOOTFALL_STORE__URL='{url}'\nFOOTFALL_LISTEN=127.0.0.1:1\n"));
    assert!(code == 0 && said.contains(&format!("url = \"{url}\" # FOOTFALL_STORE__URL")), "{said}");
    assert!(!said.contains("127.0.0.1:1\""), "{said}");
    let (code, said) = unset("\nFOOTFALL_STORE__URL=\"redis://\\\n");
    assert!(code == 64 && said.contains("environment: line 2: a value with quotes in it"), "{said}");
    service.remove("environment");
    service.set("store.url", &url);
}

#[test]
fn a_store_is_not_copied_onto_itself() {
    let mut service = Service::start(Setup::default());
    service.read(3);
    let own = service.data_dir().join("totals.redb");
    for running in [true, false] {
        for [from, to] in
            [["store", "embedded"], ["embedded", "store"], ["store", &format!("embedded:{}", own.display())]]
        {
            let (code, said) = service.order(&["migrate", from, to]);
            assert!(
                code == 1 && said.contains("data/totals.redb is source and target"),
                "{running} {to}: {said}"
            );
        }
        if running {
            service.terminate();
        }
    }
}

/// Gives everything in a directory to a user.
fn give(path: &Path, user: u32) {
    lchown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path(), user));
    }
}

/// Who owns what is in a directory.
fn owners(path: &Path) -> Vec<u32> {
    let mut found = vec![path.symlink_metadata().unwrap().uid()];
    if path.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| found.extend(owners(&entry.unwrap().path())));
    }
    found
}

#[test]
fn what_root_makes_is_the_services() {
    let dir = tempfile::tempdir().unwrap();
    if dir.path().metadata().unwrap().uid() != 0 {
        return; // Who is not root makes nothing of root's.
    }
    let backup = dir.path().join("backup").display().to_string();
    let mut service = Service::start(Setup::default());
    service.read(3);
    service.ordered(&["backup", &backup]);
    service.kill9();
    give(&service.data_dir(), 1234);
    // It writes a batch, a checkpoint and a new segment of the journal.
    service.ordered(&["drain"]);
    assert_eq!(owners(&service.data_dir()).into_iter().find(|owner| *owner != 1234), None);
    give(&service.data_dir(), 0);
    let restored = Service::prepare(Setup::default());
    std::fs::create_dir(restored.data_dir()).unwrap();
    give(&restored.data_dir(), 1234);
    restored.ordered(&["restore", &backup]);
    let owners = owners(&restored.data_dir());
    assert!(owners.len() >= 4 && owners.iter().all(|owner| *owner == 1234), "{owners:?}");
}
