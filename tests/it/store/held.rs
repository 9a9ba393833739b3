//! G12: a site whose data is spoiled waits alone; all others go on into the store.

use crate::support::harness::{Beacon, Setup, view};
use crate::support::http::get;
use crate::support::servers::{RedisServer, Reply};
use crate::support::service::Service;
use crate::support::wait::until;

const SITES: &str = "[[site]]\nkey = \"tin\"\nhosts = [\"tin.vn\"]\ntime_zone = \"Asia/Ho_Chi_Minh\"\n\
                     [[site]]\nkey = \"bao\"\nhosts = [\"bao.vn\"]\ntime_zone = \"Asia/Ho_Chi_Minh\"\n";

fn of(site: &str, reader: u32) -> Beacon {
    view("/a").with("site", site).by(reader)
}

fn read(service: &Service, site: &str, views: u32) {
    (0..views).for_each(|reader| service.take(&of(site, reader)));
}

/// Asks for something of a site.
fn ask(redis: &RedisServer, site: &str, words: &[&str]) -> Reply {
    let words: Vec<String> =
        words.iter().map(|word| word.replace("SITE", &format!("footfall:{{{site}}}"))).collect();
    redis.client().ask(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>())
}

/// All views ever of a site, as the store holds them.
fn stored(redis: &RedisServer, site: &str) -> String {
    ask(redis, site, &["HGET", "SITE:all", "views"]).text()
}

fn until_held(service: &Service, site: &str, says: &str) {
    until("it is held", || {
        let (status, text) = service.readiness();
        assert_eq!(status, 200, "it keeps accepting");
        text.lines().any(|line| line.starts_with(&format!("[-]site {site}: ")) && line.contains(says))
    });
}

fn is_stale(service: &Service, site: &str, views: u64) -> bool {
    let shown = service.counters_now(site);
    shown["stale"] == true && shown["views"]["all"] == views
}

#[test]
fn a_spoiled_sum_holds_its_site_alone_over_a_kill_until_it_is_repaired() {
    let redis = RedisServer::start();
    let mut service = Service::start(Setup::default().store(&redis.url()).and(SITES));
    service.read(4);
    read(&service, "tin", 5);
    service.settle();
    ask(&redis, "tin", &["HSET", "SITE:all", "views", "spoiled"]);
    read(&service, "tin", 3);
    service.read(2);
    until_held(&service, "tin", "footfall:{tin}:all");
    until("the other is stored", || redis.views() == 6);
    assert_eq!(service.counters("lamdong")["views"]["all"], 6);
    until("it is shown as it was known", || is_stale(&service, "tin", 8));
    assert_eq!((service.metric("footfall_flush_held"), service.metric("footfall_store_up")), (1.0, 1.0));
    service.kill9();
    service.begin();
    read(&service, "tin", 2);
    service.read(1);
    until_held(&service, "tin", "footfall:{tin}:all");
    until("the other is stored", || redis.views() == 7);
    assert_eq!(service.counters("lamdong")["views"]["all"], 7);
    until("it is shown as it was known", || is_stale(&service, "tin", 10));
    ask(&redis, "tin", &["HSET", "SITE:all", "views", "5"]);
    until("all of it is stored", || stored(&redis, "tin") == "10");
    assert_eq!(service.counters("tin")["views"]["all"], 10);
    until("it is not held", || service.metric("footfall_flush_held") == 0.0);
    assert_eq!(service.metric("footfall_losses_total{cause=\"store\"}"), 0.0);
}

#[test]
fn a_backup_says_of_which_sites_something_waits() {
    let redis = RedisServer::start();
    let mut service = Service::start(Setup::default().store(&redis.url()).and(SITES));
    service.breaks_the_store();
    read(&service, "tin", 5);
    service.settle();
    ask(&redis, "tin", &["DEL", "SITE:meta"]);
    read(&service, "tin", 3);
    until_held(&service, "tin", "has vanished");
    let place = tempfile::tempdir().unwrap();
    let said = service.ordered(&["backup", place.path().join("backup").to_str().unwrap()]);
    assert!(said.contains("which are held, is not in it: tin"), "{said}");
}

#[test]
fn what_waits_of_a_held_site_when_its_writer_is_retired_counts_when_that_comes_back() {
    let redis = RedisServer::start();
    let setup = Setup::default().store(&redis.url()).and(SITES);
    let mut gone = Service::start(setup.clone());
    gone.read(4);
    read(&gone, "tin", 5);
    gone.settle();
    ask(&redis, "tin", &["HSET", "SITE:all", "views", "spoiled"]);
    read(&gone, "tin", 50);
    gone.read(2);
    until_held(&gone, "tin", "footfall:{tin}:all");
    until("the other is stored", || redis.views() == 6);
    let who = gone.writer();
    gone.terminate();
    let service = Service::start(setup);
    service.ordered(&["retire", &who, "--force"]);
    ask(&redis, "tin", &["HSET", "SITE:all", "views", "5"]);
    gone.begin();
    gone.read(1);
    until("all of it is stored", || (stored(&redis, "tin"), redis.views()) == ("55".to_owned(), 7));
    assert_eq!(gone.counters("tin")["views"]["all"], 55);
    assert_ne!(gone.writer(), who);
    assert_eq!(gone.metric("footfall_losses_total{cause=\"store\"}"), 0.0);
}

#[test]
fn metrics_tell_of_what_waits_for_a_held_site() {
    let redis = RedisServer::start();
    let mut service = Service::start(Setup::default().store(&redis.url()).and(SITES));
    read(&service, "tin", 5);
    service.read(1);
    let metric = |service: &Service, name: &str| service.metric(&format!("footfall_{name}"));
    let waiting = |service: &Service| {
        ["unapplied_batches", "oldest_unapplied_timestamp_seconds"].map(|name| metric(service, name))
    };
    until("nothing waits", || waiting(&service) == [0.0, 0.0] && redis.views() == 1);
    ask(&redis, "tin", &["HSET", "SITE:all", "views", "spoiled"]);
    read(&service, "tin", 1);
    until_held(&service, "tin", "footfall:{tin}:all");
    until("it is told of", || waiting(&service)[0] >= 1.0);
    let (flushed, oldest) = (metric(&service, "last_flush_timestamp_seconds"), waiting(&service)[1]);
    assert!(oldest > 0.0);
    for views in 2..5 {
        service.read(1);
        until("the other is stored", || redis.views() == views);
    }
    until("all since then is told of", || waiting(&service)[0] >= 4.0);
    assert_eq!((metric(&service, "last_flush_timestamp_seconds"), waiting(&service)[1]), (flushed, oldest));
    service.kill9();
    service.begin();
    until_held(&service, "tin", "");
    until("it is told of", || waiting(&service)[0] >= 4.0 && waiting(&service)[1] == oldest);
    ask(&redis, "tin", &["HSET", "SITE:all", "views", "5"]);
    until("all of it is stored", || stored(&redis, "tin") == "6");
    until("nothing waits", || waiting(&service) == [0.0, 0.0]);
    until("a flush is told of", || metric(&service, "last_flush_timestamp_seconds") > flushed);
}

#[test]
fn a_spoiled_day_of_the_past_is_said_once_and_holds_nothing() {
    let redis = RedisServer::start();
    let service = Service::start(Setup::default().store(&redis.url()));
    service.read(4);
    service.until_applied();
    let days = redis.client().ask(&[b"KEYS", b"footfall:{lamdong}:day:????-??-??"]);
    let Reply::Array(mut days) = days else { panic!("{days:?}") };
    let today = days.remove(0).text();
    let today: jiff::civil::Date = today.rsplit(':').next().unwrap().parse().unwrap();
    let yesterday = format!("SITE:day:{}", today.yesterday().unwrap());
    ask(&redis, "lamdong", &["HSET", &yesterday, "views", "spoiled"]);
    let look = || _ = get(service.admin(), "/");
    let says = "[-]site lamdong: hours, days and most-read pages cannot be shown: the store refuses: footfall:{lamdong}:day:";
    until("it is named", || {
        look();
        service.readiness().1.contains(says)
    });
    for _ in 0..3 {
        service.read(1);
        service.until_applied();
        look();
        service.counters("lamdong");
    }
    let text = service.readiness().1;
    assert!(text.contains(says) && !text.contains("are kept"), "{text}");
    assert_eq!(service.log().matches("cannot be read").count(), 1, "{}", service.log());
    assert_eq!(service.counters_now("lamdong")["stale"], false);
    assert_eq!((service.metric("footfall_flush_held"), redis.views()), (0.0, 7));
    ask(&redis, "lamdong", &["DEL", &yesterday]);
    until("it is named no more", || {
        look();
        !service.readiness().1.contains("[-]site")
    });
}

#[test]
fn what_waits_of_a_held_site_when_its_directory_is_copied_counts_once() {
    // The site is spoiled before the directory is copied, or after. Where the first goes on, the second bears their
    // identity, sees that it is another's, and sends what both have all the same.
    for (before, goes_on) in [(true, false), (false, true), (true, true)] {
        let redis = RedisServer::start();
        let mut first = Service::start(Setup::default().store(&redis.url()).and(SITES));
        first.breaks_the_store();
        read(&first, "tin", 5);
        first.settle();
        let spoil = |views: &str| _ = ask(&redis, "tin", &["HSET", "SITE:all", "views", views]);
        let reads = |service: &Service, views: u32| {
            read(service, "tin", views);
            service.read(1);
            service.settle();
        };
        if before {
            spoil("spoiled");
            reads(&first, 3);
        }
        let mut second = first.copied();
        if !before {
            reads(&first, 3);
            spoil("spoiled");
        }
        if goes_on {
            reads(&first, 4);
            until_held(&first, "tin", "footfall:{tin}:all");
        }
        second.breaks_the_store();
        second.begin();
        reads(&second, 2);
        until_held(&second, "tin", "footfall:{tin}:all");
        if !goes_on {
            reads(&first, 4);
        }
        reads(&first, 1);
        until("one has become another", || first.writer() != second.writer());
        spoil(if before { "5" } else { "8" });
        until("all is stored", || stored(&redis, "tin") == "15");
        until("none is held", || [&first, &second].iter().all(|s| s.metric("footfall_flush_held") == 0.0));
        [&first, &second].iter().for_each(|service| service.settle());
        for (site, views) in [("tin", 15), ("lamdong", 4)] {
            let Reply::Array(hours) = ask(&redis, site, &["KEYS", "SITE:hour:*"]) else { panic!() };
            let hours = hours.into_iter().map(|hour| redis.client().ask(&[b"HGET", &hour.bytes(), b"views"]));
            let all: u64 = hours.map(|views| views.text().parse::<u64>().unwrap()).sum();
            assert_eq!(
                (all, stored(&redis, site)),
                (views, views.to_string()),
                "{site}, {before}, {goes_on}"
            );
        }
    }
}

#[test]
fn two_sites_in_different_trouble_are_held_at_once_and_the_third_goes_on() {
    let redis = RedisServer::start();
    let mut service = Service::start(Setup::default().store(&redis.url()).and(SITES));
    // What a page lost by the repair is not among the pages' sums.
    service.breaks_the_store();
    for (spoil, says, repair) in [
        // The data set has vanished.
        (
            vec![vec!["RENAME", "SITE:meta", "SITE:away"]],
            "has vanished",
            vec![vec!["RENAME", "SITE:away", "SITE:meta"]],
        ),
        // Another type stands there.
        (
            vec![vec!["RENAME", "SITE:all", "SITE:away"], vec!["SET", "SITE:all", "x"]],
            "WRONGTYPE",
            vec![vec!["DEL", "SITE:all"], vec!["RENAME", "SITE:away", "SITE:all"]],
        ),
        // A page's sum is more than a sum can be.
        (
            vec![vec!["HSET", "SITE:all:pages", "/a", "9007199254740991"]],
            "footfall:{tin}:all:pages",
            vec![vec!["HDEL", "SITE:all:pages", "/a"]],
        ),
        // Figures cannot be read, sums can be added to.
        (
            vec![vec!["HSET", "SITE:all", "#revision", "x"]],
            "#revision",
            vec![vec!["HDEL", "SITE:all", "#revision"]],
        ),
    ] {
        let (before, others) = (redis.views(), service.readiness().1);
        assert!(!others.contains("[-]site"), "{others}");
        for site in ["tin", "bao"] {
            read(&service, site, 3);
        }
        service.read(1);
        service.settle();
        for site in ["tin", "bao"] {
            spoil.iter().for_each(|words| _ = ask(&redis, site, words));
            read(&service, site, 2);
        }
        service.read(2);
        for site in ["tin", "bao"] {
            until_held(&service, site, &says.replace("{tin}", &format!("{{{site}}}")));
        }
        until("the third is stored", || redis.views() == before + 3);
        assert_eq!(service.counters("lamdong")["stale"], false);
        assert_eq!(service.metric("footfall_flush_held"), 2.0, "{says}");
        for site in ["tin", "bao"] {
            repair.iter().for_each(|words| _ = ask(&redis, site, words));
        }
        until("they are not held", || service.metric("footfall_flush_held") == 0.0);
        let expected = |site: &str| service.counters(site)["views"]["all"].to_string();
        for site in ["tin", "bao"] {
            until("all is stored", || stored(&redis, site) == expected(site));
        }
    }
}
