//! G8: no figure of a bucket goes back, and none counts a view twice while its batch is on its way. One
//! asks all the time while Redis and the service are killed, stand still and go back in time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::support::dice::Dice;
use crate::support::harness::{SITE, Setup, counters_with, until, view};
use crate::support::http::{Connection, request};
use crate::support::servers::RedisServer;
use crate::support::service::{Service, my_turn};

const LASTING: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
const VISITORS: u64 = 50;
const PAGE: &str = "/doc-nhieu";

/// Views on their way in, and those that were answered 204.
#[derive(Default)]
struct Tally {
    sent: AtomicU64,
    accepted: AtomicU64,
}

/// Sends views of one page, and reads its figures and the site's.
struct Watch {
    target: Arc<Mutex<Option<SocketAddr>>>,
    stop: Arc<AtomicBool>,
    tally: Arc<Tally>,
    senders: Vec<JoinHandle<()>>,
    reader: JoinHandle<u64>,
}

impl Watch {
    fn begin() -> Self {
        let (target, stop, tally) =
            (Arc::<Mutex<Option<SocketAddr>>>::default(), Arc::default(), Arc::<Tally>::default());
        let with = |client: u64| {
            let (target, stop, tally) = (target.clone(), Arc::<AtomicBool>::clone(&stop), tally.clone());
            std::thread::spawn(move || send(client, &target, &stop, &tally))
        };
        let senders = (0..3).map(with).collect();
        let reader = {
            let (target, stop, tally) = (target.clone(), stop.clone(), tally.clone());
            std::thread::spawn(move || read(&target, &stop, &tally))
        };
        Watch { target, stop, tally, senders, reader }
    }

    fn aim(&self, service: Option<&Service>) {
        *self.target.lock().unwrap() = service.map(Service::public);
    }

    /// Ends it: views that were accepted, and sent; how often figures were read.
    fn end(self) -> (u64, u64, u64) {
        self.stop.store(true, Ordering::Release);
        self.senders.into_iter().for_each(|sender| sender.join().unwrap());
        let read = self.reader.join().unwrap();
        (self.tally.accepted.load(Ordering::Acquire), self.tally.sent.load(Ordering::Acquire), read)
    }
}

fn send(client: u64, target: &Mutex<Option<SocketAddr>>, stop: &AtomicBool, tally: &Tally) {
    let mut number = client;
    each(target, stop, |connection| {
        number += 1;
        let beacon = view(PAGE).from(&format!("203.0.113.{}", number % VISITORS + 1));
        tally.sent.fetch_add(1, Ordering::AcqRel);
        let answer = connection.ask(beacon.bytes())?;
        if answer.status == 204 {
            tally.accepted.fetch_add(1, Ordering::AcqRel);
        }
        std::thread::sleep(Duration::from_micros(500));
        Ok(())
    });
}

/// Every figure is at least what it was, and what had been accepted when it was asked for; and at most
/// what had been sent when it was answered.
fn read(target: &Mutex<Option<SocketAddr>>, stop: &AtomicBool, tally: &Tally) -> u64 {
    let (mut last, mut times) = (Value::Null, 0);
    each(target, stop, |connection| {
        let accepted = tally.accepted.load(Ordering::Acquire);
        let answer = connection.ask(request("GET", &counters_with(SITE, PAGE), &[], b""))?;
        let sent = tally.sent.load(Ordering::Acquire);
        if answer.status != 200 {
            assert_eq!(answer.outcome(), (503, "store-unreachable".into()));
            return Ok(());
        }
        let shown = answer.json();
        for total in ["views", "visits", "visitors"] {
            no_less(total, &last[total], &last["buckets"], &shown[total], &shown["buckets"]);
        }
        no_less("page", &last["page"]["views"], &last["buckets"], &shown["page"]["views"], &shown["buckets"]);
        for views in [&shown["views"]["all"], &shown["page"]["views"]["all"]] {
            // A page that the store was not asked for yet is not shown.
            let Some(views) = views.as_u64() else { continue };
            assert!(views >= accepted, "{accepted} were accepted: {shown}");
            assert!(views <= sent, "{sent} were sent: {shown}");
        }
        assert!(shown["visits"]["all"].as_u64().unwrap() <= VISITORS, "{shown}");
        // What was known stays known, also of the page.
        if shown["page"]["views"].is_object() || last.is_null() {
            last = shown;
        }
        times += 1;
        Ok(())
    });
    times
}

/// Compares the buckets that are still the same ones.
fn no_less(total: &str, before: &Value, named_before: &Value, now: &Value, named_now: &Value) {
    for (bucket, figure) in before.as_object().into_iter().flatten() {
        let (same, now) = (named_before[bucket] == named_now[bucket], now[bucket].as_u64());
        let back = now.is_some_and(|now| now < figure.as_u64().unwrap());
        assert!(!(same && back), "{total} of the {bucket} went back from {figure} to {now:?}");
    }
}

/// Does one thing again and again with a connection to where it shall go.
fn each(
    target: &Mutex<Option<SocketAddr>>,
    stop: &AtomicBool,
    mut once: impl FnMut(&mut Connection) -> std::io::Result<()>,
) {
    let mut open: Option<(SocketAddr, Connection)> = None;
    while !stop.load(Ordering::Acquire) {
        let aim = *target.lock().unwrap();
        let kept = open.take().filter(|(address, _)| Some(*address) == aim);
        let kept = kept.or_else(|| Some((aim?, Connection::open(aim?).ok()?)));
        let Some((address, mut connection)) = kept else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        if once(&mut connection).is_ok() {
            open = Some((address, connection));
        }
    }
}

/// Watches while `trouble` is made eight times, then compares with what was sent.
fn watched(setup: Setup, mut trouble: impl FnMut(&mut Service, &Watch, u64)) {
    let _turn = my_turn();
    let mut dice = Dice::thrown();
    let mut service = Service::start(setup);
    let watch = Watch::begin();
    watch.aim(Some(&service));
    for round in 0..8 {
        std::thread::sleep(Duration::from_millis(150 + dice.below(400)));
        trouble(&mut service, &watch, round);
    }
    std::thread::sleep(Duration::from_millis(500));
    until("everything is in the store", || {
        service.metric("footfall_store_up") == 1.0 && service.metric("footfall_unapplied_batches") == 0.0
    });
    let (accepted, sent, read) = watch.end();
    let views = service.counters(SITE)["views"]["all"].as_u64().unwrap();
    println!("accepted {accepted}, sent {sent}, counted {views}, figures read {read} times");
    assert!(accepted > 500 && read > 200, "with so little nothing is tested");
    assert!((accepted..=sent).contains(&views));
}

fn killed(service: &mut Service, watch: &Watch) {
    watch.aim(None);
    service.kill9();
    service.spawn();
    service.until_ready();
    watch.aim(Some(service));
}

#[test]
fn while_the_service_is_killed_on_the_embedded_store() {
    watched(Setup::default(), |service, watch, _| killed(service, watch));
}

#[test]
fn while_the_service_is_stopped_and_started_on_the_embedded_store() {
    watched(Setup::default(), |service, watch, _| {
        watch.aim(None);
        service.restart();
        watch.aim(Some(service));
    });
}

#[test]
fn while_redis_is_killed_and_stands_still() {
    let mut redis = RedisServer::start_with(&LASTING);
    watched(Setup::default().store(&redis.url()), |_, _, round| {
        if round % 2 == 0 {
            // Longer than a store operation may take: what it did is answered to nobody.
            redis.pause();
            std::thread::sleep(Duration::from_millis(700));
            redis.resume();
        } else {
            redis.kill();
            std::thread::sleep(Duration::from_millis(200));
            redis.restart();
        }
    });
}

#[test]
fn while_the_service_and_redis_are_killed_in_turn() {
    let mut redis = RedisServer::start_with(&LASTING);
    watched(Setup::default().store(&redis.url()), |service, watch, round| match round % 4 {
        0 | 2 => killed(service, watch),
        1 => redis.kill(),
        _ => redis.restart(),
    });
}

#[test]
fn while_redis_goes_back_in_time() {
    // Only what was saved outlives it, as with a replica that lagged behind.
    let mut redis = RedisServer::start();
    let setup = Setup::default().store(&redis.url());
    watched(setup, |service, watch, round| {
        if round == 0 || round % 3 == 1 {
            redis.client().ask(&[b"SAVE"]);
            return;
        }
        redis.restart();
        if round % 3 == 2 {
            killed(service, watch);
        }
    });
}
