//! Faults as an operator meets them: which alert fires, and which panel shows why.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use crate::operators::dashboards::{dashboards, filled_for, list, panels, rules};
use crate::support::harness::{Setup, view};
use crate::support::prometheus::Prometheus;
use crate::support::servers::RedisServer;
use crate::support::service::{Service, my_turn};
use crate::support::wait::{until, until_none_missing};

/// The rules with every minute as two seconds.
fn hurried(rules: &str) -> String {
    let mut hurried = String::new();
    for line in rules.lines() {
        let mut rest = line;
        let is_code = line.contains("expr:") || line.contains("for:") || line.contains('(');
        while let Some(at) = rest.find(|c: char| c.is_ascii_digit()).filter(|_| is_code) {
            let digits = rest[at..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - at);
            let (number, after) = rest[at..].split_at(digits);
            let ends = |text: &str| !text.starts_with(|c: char| c.is_alphanumeric());
            // Not in a rule's name: `rate5m`.
            let begins = !rest[..at].ends_with(|c: char| c.is_alphanumeric());
            let minutes = after.strip_prefix('m').filter(|after| begins && ends(after));
            hurried += &rest[..at];
            match (number.parse::<u64>(), minutes) {
                (Ok(number), Some(after)) => (hurried, rest) = (format!("{hurried}{}s", 2 * number), after),
                (Ok(600), None) => (hurried, rest) = (hurried + "20", after),
                _ => (hurried, rest) = (hurried + number, after),
            }
        }
        hurried += rest;
        hurried.push('\n');
    }
    hurried
}

/// A service with a fault.
struct Faulty {
    service: Service,
    /// The alerts that must fire, and no other.
    alerts: &'static [&'static str],
    /// Panels and a word of a series that must be above zero there.
    shown_by: &'static [(&'static str, &'static str)],
}

/// The series above zero that the queries of a panel find for an instance.
fn shown(prometheus: &Prometheus, title: &str, instance: SocketAddr) -> String {
    let dashboards = dashboards();
    let mut panels = dashboards.iter().flat_map(|(_, dashboard)| panels(dashboard));
    let panel = panels.find(|panel| panel["title"] == title).expect("a panel of this title");
    let above = |found: &Value| {
        found["value"][1].as_str().is_some_and(|value| value.parse::<f64>().is_ok_and(|value| value > 0.0))
    };
    let found = list(panel, "targets").iter().flat_map(|target| {
        let expr = filled_for(target["expr"].as_str().unwrap(), &instance.to_string());
        prometheus.query(&expr).unwrap_or_else(|fault| panic!("{expr}: {fault}"))
    });
    found.filter(above).map(|found| found["metric"].to_string()).collect()
}

fn faulty(redis: &[RedisServer; 2]) -> [Faulty; 4] {
    let on = |redis: &RedisServer| Service::start(Setup::default().store(&redis.url()));
    let late = Setup::default().set("store.flush_interval", "5m").set("checkpoint_interval", "1h");
    [
        Faulty {
            service: on(&redis[0]),
            alerts: &["FootfallStoreUnreachable", "FootfallFlushStalled"],
            shown_by: &[("Oldest view not in the store", ""), ("Store operations", "")],
        },
        Faulty {
            service: on(&redis[1]),
            alerts: &["FootfallFlushHeld", "FootfallFlushStalled"],
            shown_by: &[("Oldest view not in the store", ""), ("Batches not applied", "")],
        },
        Faulty {
            service: {
                // As on a disk that is full, which sends no signal.
                let mut service = Service::prepare(late).after("trap '' XFSZ");
                service.begin();
                service
            },
            alerts: &[
                "FootfallRefusingBeacons",
                "FootfallJournalWriteErrors",
                "FootfallHighErrorRatio",
                // A flush every five minutes is late where ten minutes are twenty seconds.
                "FootfallFlushStalled",
            ],
            shown_by: &[("Refused by reason", "journal-full"), ("Beacons not promised", "")],
        },
        Faulty {
            service: Service::start(Setup::default().set("sessions.max_sessions", "1000")),
            alerts: &["FootfallBoundReached", "FootfallBoundNear"],
            shown_by: &[("Bounds reached", "sessions"), ("Bounds in use", "sessions")],
        },
    ]
}

/// A few views, each of another client.
fn read_by(service: &Service, number: u32) {
    for reader in 0..number {
        service.send(&view("/a").by(reader));
    }
}

#[test]
fn an_operator_finds_the_cause_of_each_fault() {
    let _turn = my_turn();
    let safe = || RedisServer::start_with(&["--appendonly", "yes"]);
    let mut redis = [safe(), safe()];
    let mut faulty = faulty(&redis);
    let healthy = Service::start(Setup::default());
    let services: Vec<&Service> = faulty.iter().map(|faulty| &faulty.service).chain([&healthy]).collect();
    let targets: Vec<SocketAddr> = services.iter().map(|service| service.admin()).collect();
    let rules: Vec<String> = rules().iter().map(|rules| hurried(rules)).collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let prometheus = Prometheus::scraping(&targets, &rules);
    services.iter().for_each(|service| read_by(service, 10));
    until("all are scraped and well", || {
        let firing = targets.iter().flat_map(|target| prometheus.firing(*target)).count();
        prometheus.value("sum(up)") == Some(targets.len() as f64) && firing == 0
    });

    redis[0].kill();
    redis[1].client().ask(&[b"FLUSHALL"]);
    let full = Command::new("prlimit")
        .args(["--pid", &faulty[2].service.pid().to_string(), "--fsize=4096:unlimited"])
        .status();
    assert!(full.is_ok_and(|status| status.success()), "prlimit");
    let mut seen: Vec<BTreeSet<String>> = vec![BTreeSet::new(); faulty.len()];
    until_none_missing(|| {
        services.iter().for_each(|service| read_by(service, 300));
        read_by(&faulty[3].service, 2000);
        for (Faulty { service, .. }, seen) in faulty.iter().zip(&mut seen) {
            seen.extend(prometheus.firing(service.admin()));
        }
        let missing = faulty.iter().zip(&seen).enumerate().flat_map(|(number, (faulty, seen))| {
            let missing = faulty.alerts.iter().filter(|name| !seen.contains(**name));
            missing.map(move |name| format!("fault {number}: {name}"))
        });
        missing.collect()
    });
    for (Faulty { service, alerts, shown_by }, seen) in faulty.iter().zip(&seen) {
        assert_eq!(*seen, alerts.iter().map(|&name| name.to_owned()).collect(), "no other alert");
        for (panel, word) in *shown_by {
            let shown = shown(&prometheus, panel, service.admin());
            assert!(!shown.is_empty() && shown.contains(word), "{panel} shows {shown:?}, not {word:?}");
        }
    }
    assert_eq!(prometheus.firing(healthy.admin()), BTreeSet::new(), "a healthy one alerts nobody");
    faulty.iter_mut().for_each(|faulty| faulty.service.breaks_the_store());
}
