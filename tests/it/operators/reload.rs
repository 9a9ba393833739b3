//! SIGHUP: what can change while the service runs does, and no view is lost by it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::support::harness::{Beacon, SITE, Setup, view};
use crate::support::http::{BROWSER, Connection, get, newsroom, request};
use crate::support::servers::RedisServer;
use crate::support::service::Service;
use crate::support::wait::until;

/// The file of the site that comes and goes.
const FILE: &str = "sites.d/20-tin.toml";

const TIN: &str = "[[site]]\nkey = \"tin\"\nhosts = [\"tin.vn\"]\ntime_zone = \"Asia/Ho_Chi_Minh\"\n";

fn of_tin(url: &str) -> Beacon {
    view(url).with("site", "tin")
}

/// What the admin listener tells of a site in the series that a scrape sets.
fn is_shown(service: &Service, site: &str) -> bool {
    get(service.admin(), "/metrics").text().contains(&format!("footfall_online_visitors{{site=\"{site}\"}}"))
}

#[test]
fn a_site_comes_changes_goes_and_comes_back() {
    let service = Service::start(Setup::default());
    assert_eq!(service.send(&of_tin("/a")).outcome(), (404, "unknown-site".to_owned()));

    service.write(FILE, TIN);
    assert!(service.reload());
    service.take(&of_tin("/a"));
    service.take(&of_tin("/a").from("203.0.0.9"));
    service.take(&view("https://tin.vn/b").with("site", "tin"));
    service.take(&view("/a"));
    let counters = service.counters("tin");
    assert_eq!((&counters["views"]["all"], &counters["visits"]["all"]), (&3.into(), &2.into()), "{counters}");
    assert_eq!((&counters["online"], &counters["visitors"]["day"]), (&2.into(), &2.into()), "{counters}");
    assert_eq!(service.metric("footfall_views_total{site=\"tin\"}"), 3.0);
    assert!(is_shown(&service, "tin"));
    assert_eq!(newsroom(service.public(), "tin", "0123456789abcdef").status, 404);

    service.write(FILE, &format!("{TIN}newsroom_token = \"0123456789abcdef\"\nhonour = [\"gpc\"]\n"));
    assert!(service.reload());
    assert_eq!(newsroom(service.public(), "tin", "0123456789abcdef").status, 200);
    service.take(&of_tin("/a"));

    service.remove(FILE);
    assert!(service.reload());
    assert_eq!(service.send(&of_tin("/a")).outcome(), (404, "unknown-site".to_owned()));
    assert_eq!(get(service.public(), "/api/v1/sites/tin/counters").status, 404);
    assert!(!is_shown(&service, "tin"), "no figure that nobody renews");
    assert_eq!(service.counters(SITE)["views"]["all"], 1);

    service.write(FILE, TIN);
    assert!(service.reload());
    service.take(&of_tin("/a"));
    let counters = service.counters("tin");
    assert_eq!((&counters["views"]["all"], &counters["visits"]["all"]), (&5.into(), &2.into()), "{counters}");
    assert!(is_shown(&service, "tin"));
    let mut service = service;
    service.restart();
    assert_eq!(service.counters("tin")["views"]["all"], 5);
}

#[test]
fn words_of_robots_hold_at_once() {
    let setup = Setup::default();
    let with = |words: &str| format!("robots_add = [{words}]\n{}", setup.sites);
    let service = Service::start(setup.clone());
    let reader = view("/a").header("user-agent", &format!("{BROWSER} NewsReader/3"));
    service.take(&reader);
    service.write("footfall.toml", &with("\"newsreader\""));
    assert!(service.reload());
    assert_eq!(service.send(&reader).outcome(), (202, "robot".to_owned()));
    service.take(&view("/a"));
    service.write("footfall.toml", &with("\"gecko\""));
    assert!(!service.reload());
    assert_eq!(service.send(&reader).outcome(), (202, "robot".to_owned()), "the old ones stay in force");
    service.write("footfall.toml", &with(""));
    assert!(service.reload());
    service.take(&reader);
}

/// Sends views until told to stop. Whatever is not accepted is none of the reload's.
fn send_views(address: SocketAddr, site: &str, reader: u32, stop: &AtomicBool, accepted: &AtomicU64) {
    let mut connection = Connection::open(address).unwrap();
    let bytes = view("/a").with("site", site).by(reader).bytes();
    while !stop.load(Ordering::Relaxed) {
        match connection.ask(&bytes).expect("no connection is dropped").outcome() {
            (204, _) => drop(accepted.fetch_add(1, Ordering::Relaxed)),
            (404, reason) if site != SITE && reason == "unknown-site" => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn views_are_counted_and_readers_told_while_sites_come_and_go() {
    let service = Service::start(Setup::default());
    let (stop, accepted) = (AtomicBool::new(false), [AtomicU64::new(0), AtomicU64::new(0)]);
    let mut reader = Connection::open(service.public()).unwrap();
    reader.send(request("GET", "/api/v1/sites/lamdong/live", &[], b"")).unwrap();
    assert_eq!(reader.head().unwrap().status, 200);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (address, stop, which) = (service.public(), &stop, number % 2);
            let accepted = &accepted[which];
            scope.spawn(move || send_views(address, [SITE, "tin"][which], number as u32, stop, accepted));
        }
        for turn in 0..10 {
            match turn % 2 {
                0 => service.write(FILE, TIN),
                _ => service.remove(FILE),
            }
            assert!(service.reload());
            for accepted in &accepted[..2 - turn % 2] {
                let before = accepted.load(Ordering::Relaxed);
                until("further views are accepted", || accepted.load(Ordering::Relaxed) >= before + 50);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    service.write(FILE, TIN);
    assert!(service.reload());
    let accepted = accepted.map(AtomicU64::into_inner);
    for (site, accepted) in [SITE, "tin"].into_iter().zip(accepted) {
        assert_eq!(service.counters(site)["views"]["all"], accepted, "{site}");
        assert_eq!(service.page(site, "/a"), accepted, "{site}");
    }
    // The one reader has been there all along.
    let all = format!("\"all\":{}}}", accepted[0]);
    let mut told = String::new();
    until("the reader is told of every view", || {
        told += std::str::from_utf8(&reader.chunk().unwrap().expect("its events go on")).unwrap();
        told.contains(&all)
    });
}

#[test]
fn a_removed_sites_readers_are_let_go() {
    let service = Service::start(Setup::default().and(TIN));
    let mut reader = Connection::open(service.public()).unwrap();
    reader.send(request("GET", "/api/v1/sites/tin/live", &[], b"")).unwrap();
    assert_eq!(reader.head().unwrap().status, 200);
    service.write("footfall.toml", &Setup::default().sites);
    assert!(service.reload());
    let mut last = String::new();
    while let Some(chunk) = reader.chunk().unwrap() {
        last = String::from_utf8(chunk).unwrap();
    }
    assert!(last.starts_with("retry: "), "{last}");
    until("nobody is counted as a reader", || service.metric("footfall_live_readers") == 0.0);
    assert_eq!(get(service.public(), "/api/v1/sites/tin/live").status, 404);
}

#[test]
fn what_is_invalid_changes_nothing_and_is_told() {
    let service = Service::start(Setup::default().and("newsroom_token = \"0123456789abcdef\""));
    let series = "footfall_config_last_reload_successful";
    assert_eq!(service.metric(series), 1.0);
    service.write(FILE, &TIN.replace("tin.vn", "https://tin.vn").replace("Asia/Ho_Chi_Minh", "Asia/Dalat"));
    service.write("sites.d/30-again.toml", "[[site]]\nkey = \"lamdong\"\nhosts = [\"a.vn\"]\n");
    service.write("sites.d/40-more.toml", "listen = \"127.0.0.1:1\"\n");
    assert!(!service.reload());
    assert!(service.readiness().1.contains("[-]configuration not taken"), "{}", service.readiness().1);
    assert!(get(service.admin(), "/").text().contains("<b>configuration</b> not taken"));
    let log = service.log();
    for said in [
        "site.1.hosts",
        "site.1.time_zone",
        "sites.d/20-tin.toml line 3",
        "site.0 has the same key (footfall.toml line 3)",
        "sites.d/30-again.toml line 2",
        "listen: not a key of a site",
        "sites.d/40-more.toml line 1",
    ] {
        assert!(log.contains(said), "{said} is not in {log}");
    }
    assert!(!log.contains("0123456789abcdef"));
    assert_eq!(service.metric(series), 0.0);
    service.take(&view("/a"));
    let newsroom = newsroom(service.public(), SITE, "0123456789abcdef");
    assert!(newsroom.status == 200 && !newsroom.text().contains("configuration"), "{newsroom:?}");

    service.write(FILE, TIN);
    service.remove("sites.d/30-again.toml");
    service.remove("sites.d/40-more.toml");
    assert!(service.reload());
    assert_eq!(service.metric(series), 1.0);
    service.take(&of_tin("/a"));
    assert_eq!(service.counters(SITE)["views"]["all"], 1);
}

#[test]
fn a_file_that_names_no_site_changes_nothing() {
    let service = Service::start(Setup::default());
    let whole = Setup::default().sites;
    // As it is while it is being written, and with nothing in it.
    for text in ["", "# sites\n", whole.split_once("[[site]]").unwrap().0] {
        service.write("footfall.toml", text);
        assert!(!service.reload());
        service.take(&view("/a"));
        assert_eq!(get(service.public(), "/demo").status, 404);
        service.write("footfall.toml", &whole);
        assert!(service.reload());
    }
    assert!(service.log().contains("it names no [[site]] any more"), "{}", service.log());
}

#[test]
fn the_same_faults_refuse_a_start() {
    let service = Service::prepare(Setup::default());
    service.write(FILE, TIN);
    assert_eq!(service.order(&["check-config"]).0, 0);
    let printed = service.order(&["print-config"]).1;
    assert!(printed.contains("key = \"tin\" # sites.d/20-tin.toml line 2"), "{printed}");
    service.write("sites.d/30-tin.toml", TIN);
    // Neither of these is a file of sites.
    service.write("sites.d/README", "x");
    service.write("sites.d/10-old.toml.bak", "x");
    let (code, said) = service.order(&["serve"]);
    assert_eq!(code, 64, "{said}");
    for said_of in ["sites.d/20-tin.toml line 2", "sites.d/30-tin.toml line 2", "has 1 fault"] {
        assert!(said.contains(said_of), "{said}");
    }
    std::fs::create_dir(service.data_dir().with_file_name("sites.d").join("50-folder.toml")).unwrap();
    let (code, said) = service.order(&["serve"]);
    assert!(code == 64 && said.contains("sites.d/50-folder.toml: cannot be read"), "{said}");
}

#[test]
fn lists_change_and_what_cannot_is_named() {
    let (listen, cut) = ("trusted_proxies = [\"127.0.0.0/8\"]\n", "time_zone = \"Asia/Ho_Chi_Minh\"");
    let setup = Setup::default();
    let sites = setup.sites.clone();
    let service = Service::start(setup.sites(&format!("{listen}{sites}")));
    service.take(&view("/a").from("203.0.0.1"));
    service.take(&view("/a").from("203.0.0.2"));
    assert_eq!(service.counters(SITE)["visits"]["all"], 2);
    let words = "[labels.vi]\nonline = \"Đang xem\"\n";
    let changed = sites.replace(cut, "time_zone = \"UTC\"");
    let other = "trusted_proxies = [\"10.0.0.0/8\"]\n[live]\nmax_readers = 7\n";
    service.write("footfall.toml", &format!("{other}{words}{changed}"));
    assert!(service.reload());
    service.take(&view("/a").from("203.0.0.3"));
    service.take(&view("/a").from("203.0.0.4"));
    let counters = service.counters(SITE);
    assert_eq!(counters["visits"]["all"], 3, "both come from this machine now");
    assert!(counters["at"].as_str().unwrap().ends_with("+07:00"), "{counters}");
    assert_eq!(service.metric("footfall_client_header_ignored_total"), 2.0);
    let block = get(service.public(), "/widget/lamdong").text().to_owned();
    assert!(block.contains("Đang xem"), "{block}");
    let log = service.log();
    let warned = |said: &str| log.lines().any(|line| line.contains("\"WARN\"") && line.contains(said));
    assert!(warned("live.max_readers") && warned("time_zone and week_start"), "{log}");
    assert!(!warned("\"labels") && !warned("\"trusted_proxies\""), "{log}");
}

#[test]
fn a_site_whose_views_waited_unregistered_goes_on_where_it_was() {
    let mut redis = RedisServer::lasting();
    let mut service = Service::start(Setup::default().store(&redis.url()).and(TIN));
    service.take(&of_tin("/a"));
    assert_eq!(service.counters("tin")["views"]["all"], 1);
    redis.kill();
    service.take(&of_tin("/b"));
    service.kill9();
    service.write("footfall.toml", &Setup::default().sites);
    service.begin();
    service.write(FILE, TIN);
    service.write("sites.d/30-more.toml", "[[site]]\nkey = \"more\"\nhosts = [\"more.vn\"]\n");
    assert!(service.reload(), "though the store is away");
    service.take(&of_tin("/b"));
    service.take(&view("/m").with("site", "more"));
    redis.restart();
    assert_eq!(service.counters("tin")["views"]["all"], 3);
    assert_eq!((service.page("tin", "/a"), service.page("tin", "/b")), (1, 2));
    assert_eq!(service.counters("more")["visits"]["all"], 1);
    assert_eq!(service.counters(SITE)["views"]["all"], 0);
}

#[test]
fn instances_agree_on_the_visitors_of_a_site_that_both_are_given() {
    let redis = RedisServer::start();
    let services = [(); 2].map(|()| Service::start(Setup::default().store(&redis.url())));
    for service in &services {
        service.write(FILE, TIN);
        assert!(service.reload());
    }
    for service in &services {
        service.take(&of_tin("/a").from("203.0.0.1"));
    }
    until("both know of both views", || {
        services.iter().all(|service| service.counters("tin")["views"]["all"] == 2)
    });
    until("and that they are one visitor's", || {
        services.iter().all(|service| service.counters("tin")["visitors"]["day"] == 1)
    });
}

/// Opens a pipe that somebody reads.
fn open_for_writing(pipe: &Path) -> File {
    const O_NONBLOCK: i32 = 0o4000;
    let mut opened = None;
    until("the configuration is being read", || {
        opened = OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(pipe).ok();
        opened.is_some()
    });
    opened.unwrap()
}

#[test]
fn a_signal_that_comes_before_it_serves_is_heeded_when_it_does() {
    let setup = Setup::default();
    for signal in ["HUP", "TERM"] {
        let mut service = Service::prepare(setup.clone());
        let pipe = service.data_dir().with_file_name("footfall.toml");
        service.remove("footfall.toml");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        service.spawn();
        let mut writer = open_for_writing(&pipe);
        service.signal(signal);
        writer.write_all(setup.sites.as_bytes()).unwrap();
        drop(writer);
        if signal == "HUP" {
            service.until_ready();
            open_for_writing(&pipe).write_all(setup.sites.as_bytes()).unwrap();
            until("it is read again", || service.log().contains("the configuration is taken"));
            service.stop();
        } else {
            let status = service.until_ended();
            assert!(status.success(), "{status}: {}", service.log());
            service.logged("stopped");
        }
        service.remove("footfall.toml");
        service.write("footfall.toml", &setup.sites);
    }
}
