//! G8: no figure of a bucket goes back, and none counts a view twice while its batch is on its way. One
//! asks all the time while Redis and the service are killed, stand still and go back in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::support::dice::Dice;
use crate::support::harness::{SITE, Setup, counters_with};
use crate::support::http::{Connection, request};
use crate::support::load::{Fate, Load, Tally};
use crate::support::servers::RedisServer;
use crate::support::service::{Service, my_turn};
use crate::support::wait::{pause, until};

const READERS: u32 = 50;
const PAGE: &str = "/doc-nhieu";

/// Reads the figures of the site and of its one page, again and again.
struct Watch {
    stop: Arc<AtomicBool>,
    times: Arc<AtomicU64>,
    reader: JoinHandle<()>,
}

impl Watch {
    fn begin(service: &Service, tally: Arc<Tally>) -> Self {
        let (stop, times) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (until, counted, address) = (stop.clone(), times.clone(), service.public());
        let reader = std::thread::spawn(move || {
            let (mut last, mut open) = (Value::Null, None);
            while !until.load(Ordering::Acquire) {
                let Some(mut connection) = open.take().or_else(|| Connection::open(address).ok()) else {
                    // The next process knows of its page what its last checkpoint held.
                    last["page_is_known"] = false.into();
                    pause(Duration::from_millis(2));
                    continue;
                };
                if read(&mut connection, &tally, &mut last).is_ok() {
                    counted.fetch_add(1, Ordering::AcqRel);
                    open = Some(connection);
                }
            }
        });
        Watch { stop, times, reader }
    }

    /// Ends it: how often figures were read.
    fn end(self) -> u64 {
        until("figures are read", || self.times.load(Ordering::Acquire) >= 200 || self.reader.is_finished());
        self.stop.store(true, Ordering::Release);
        self.reader.join().unwrap();
        self.times.load(Ordering::Acquire)
    }
}

/// Every figure is at least what it was, and what had been accepted when it was asked for; and at most
/// what had been sent when it was answered. None that was known is missing.
fn read(connection: &mut Connection, tally: &Tally, last: &mut Value) -> std::io::Result<()> {
    let accepted = tally.accepted();
    let answer = connection.ask(request("GET", &counters_with(SITE, PAGE), &[], b"")).inspect_err(|_| {
        last["page_is_known"] = false.into();
    })?;
    let sent = tally.sent();
    assert_eq!(answer.status, 200, "what was known stays known: {answer:?}");
    let mut shown = answer.json();
    for total in ["views", "visits", "visitors"] {
        no_less(total, &last[total], &last["buckets"], &shown[total], &shown["buckets"]);
    }
    if shown["page"]["views"].is_object() {
        no_less("page", &last["page"]["views"], &last["buckets"], &shown["page"]["views"], &shown["buckets"]);
        shown["page_is_known"] = true.into();
    } else {
        assert_ne!(last["page_is_known"], true, "the page was known: {shown}");
        shown["page"] = last["page"].take();
    }
    for views in [&shown["views"]["all"], &shown["page"]["views"]["all"]] {
        let views = views.as_u64().unwrap_or_else(|| panic!("nothing is known of all time: {shown}"));
        assert!(views <= sent, "{sent} were sent: {shown}");
        assert!(views >= accepted || shown["page_is_known"] != true, "{accepted} were accepted: {shown}");
    }
    assert!(shown["visits"]["all"].as_u64().unwrap() <= READERS.into(), "{shown}");
    *last = shown;
    Ok(())
}

/// Compares the buckets that are still the same ones.
#[track_caller]
fn no_less(total: &str, before: &Value, named_before: &Value, now: &Value, named_now: &Value) {
    for (bucket, figure) in before.as_object().into_iter().flatten() {
        let is_another = named_before[bucket] != named_now[bucket];
        let no_less = now[bucket].as_u64().is_some_and(|now| now >= figure.as_u64().unwrap());
        assert!(is_another || no_less, "{total} of the {bucket} went from {figure} to {}", now[bucket]);
    }
}

/// Watches while `trouble` is made eight times, then compares with what was sent.
fn watched(setup: Setup, mut trouble: impl FnMut(&mut Service, u64)) {
    let _turn = my_turn();
    let mut dice = Dice::thrown();
    let mut service = Service::start(setup);
    let hot = Load { clients: 3, readers: READERS, hot_page: Some(PAGE), resends: true, ..Load::default() };
    let load = hot.begin(&service);
    load.until_accepted(100);
    assert!(service.page(SITE, PAGE) > 0);
    // From here on a process that is killed leaves to the next one what it knew of the site.
    let is_kept = || service.data_dir().join("checkpoint").metadata().map_or(0, |file| file.len()) > 800;
    until("the checkpoint holds figures", is_kept);
    let watch = Watch::begin(&service, load.tally.clone());
    for round in 0..8 {
        load.until_accepted(50 + dice.below(200));
        trouble(&mut service, round);
    }
    // While views arrive there may always be some that wait.
    let account = load.end();
    service.until_applied();
    let read = watch.end();
    let accepted = account.number(Fate::Accepted);
    println!("accepted {accepted}, figures read {read} times");
    assert_eq!(service.counters(SITE)["views"]["all"], accepted, "each is sent until it is accepted");
    assert_eq!(service.page(SITE, PAGE), accepted);
}

fn until_up(service: &Service, up: bool) {
    until("the store is known to answer, or not to", || {
        service.metric("footfall_store_up") == f64::from(u8::from(up))
    });
}

#[test]
fn while_the_service_is_killed_on_the_embedded_store() {
    watched(Setup::default(), |service, _| service.begin());
}

#[test]
fn while_the_service_is_stopped_and_started_on_the_embedded_store() {
    watched(Setup::default(), |service, _| service.restart());
}

#[test]
fn while_redis_is_killed_and_stands_still() {
    let mut redis = RedisServer::lasting();
    let setup = Setup::default().store(&redis.url()).set("store.timeout", "500ms");
    watched(setup, |service, round| {
        // Where it stands still it does all the same what it was asked, and answers nobody.
        let stands_still = round % 2 == 0;
        if stands_still {
            redis.pause()
        } else {
            redis.kill()
        }
        until_up(service, false);
        if stands_still {
            redis.resume()
        } else {
            redis.restart()
        }
        until_up(service, true);
    });
}

#[test]
fn while_the_service_and_redis_are_killed_in_turn() {
    let mut redis = RedisServer::lasting();
    watched(Setup::default().store(&redis.url()), |service, round| match round % 4 {
        0 | 2 => service.begin(),
        1 => redis.kill(),
        _ => redis.restart(),
    });
}

#[test]
fn while_redis_goes_back_in_time() {
    // Only what was saved outlives it, as with a replica that lagged behind.
    let mut redis = RedisServer::start();
    let setup = Setup::default().store(&redis.url());
    watched(setup, |service, round| {
        if round == 0 || round % 3 == 1 {
            redis.client().ask(&[b"SAVE"]);
            return;
        }
        redis.restart();
        if round % 3 == 2 {
            service.begin();
        }
    });
}
