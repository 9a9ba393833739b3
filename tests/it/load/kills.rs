//! G1 and G2 under `kill -9`: at any instant, under load, nothing that was answered 204 is lost and
//! nothing is counted twice. `FOOTFALL_KILLS` says how often each test kills.

use std::time::{Duration, Instant};

use crate::support::dice::Dice;
use crate::support::harness::{Beacon, SITE, Setup, number, view};
use crate::support::http;
use crate::support::load::{Account, Fate, Load, Next};
use crate::support::servers::RedisServer;
use crate::support::service::{Service, my_turn};

const CLIENTS: u32 = 4;
const VISITORS: u32 = 40;

fn visitor(number: u32, beacon: Beacon) -> Beacon {
    beacon.from(&format!("203.0.113.{}", number + 1)).header("user-agent", "Mozilla/5.0 (X11; Linux x86_64)")
}

/// Every view has a page of its own, so that a culprit has a name.
fn pages_of_their_own(client: u32, number: u32) -> (String, u32, Beacon) {
    let page = format!("/bai-viet/{client}-{number}");
    let who = number % VISITORS;
    (page.clone(), who, visitor(who, view(&page)))
}

/// Few pages, few visitors, shared by all clients; every third view bears an id.
fn shared_pages(client: u32, number: u32) -> (String, u32, Beacon) {
    let (page, who) = (format!("/tin/{}", number % 7), (number * 3 + client) % VISITORS);
    let beacon = visitor(who, view(&page));
    let beacon = if number.is_multiple_of(3) { beacon.id(&format!("{client}-{number}")) } else { beacon };
    (page, who, beacon)
}

/// Kills the service again and again under load, each time at a moment of its own between 50 and 600 ms
/// after its start.
fn killed_again_and_again(service: &mut Service, next: Next) -> Account {
    let mut dice = Dice::thrown();
    let load = Load::begin(CLIENTS, next);
    let mut starts = Vec::new();
    for _ in 0..number("FOOTFALL_KILLS", 20) {
        let began = Instant::now();
        service.spawn();
        let end = began + Duration::from_millis(50 + dice.below(550));
        let mut serves = None;
        while Instant::now() < end {
            load.aim(service.addresses().map(|(public, _)| public));
            serves = serves.or(service.addresses().map(|_| began.elapsed()));
            std::thread::sleep(Duration::from_millis(2));
        }
        starts.extend(serves);
        service.kill9();
        load.aim(None);
    }
    let account = load.end();
    service.spawn();
    service.until_ready();
    starts.sort_unstable();
    if let (Some(median), Some(longest)) = (starts.get(starts.len() / 2), starts.last()) {
        println!("from kill to serving: median {median:?}, longest {longest:?} of {}", starts.len());
    }
    account
}

fn each_page_once(setup: Setup) {
    let _turn = my_turn();
    let mut service = Service::prepare(setup);
    let account = killed_again_and_again(&mut service, pages_of_their_own);
    let pages: Vec<String> = account.0.iter().map(|sent| sent.page.clone()).collect();
    for again in [false, true] {
        if again {
            service.restart();
        }
        let counted = service.pages(SITE, &pages);
        for (sent, views) in account.0.iter().zip(&counted) {
            let right = match sent.fate {
                Fate::Accepted => *views == 1,
                Fate::Unknown => *views <= 1,
                Fate::Refused => *views == 0,
            };
            assert!(right, "{sent:?} is counted {views} times");
        }
        let views = service.counters(SITE)["views"]["all"].as_u64().unwrap();
        account.check(views);
        assert_eq!(counted.iter().sum::<u64>(), views, "pages and site agree");
    }
}

fn shared_pages_and_visits(store: &str) {
    let _turn = my_turn();
    let mut service = Service::prepare(Setup::default().store(store));
    let account = killed_again_and_again(&mut service, shared_pages);
    assert_eq!(account.visitors(Fate::Accepted).len(), VISITORS as usize, "every visitor was seen");
    for again in [false, true] {
        if again {
            service.restart();
        }
        let counters = service.counters(SITE);
        let views = counters["views"]["all"].as_u64().unwrap();
        account.check(views);
        let pages: Vec<String> = (0..7).map(|page| format!("/tin/{page}")).collect();
        assert_eq!(service.pages(SITE, &pages).iter().sum::<u64>(), views, "pages and site agree");
        assert_eq!(counters["visits"]["all"], VISITORS, "each visitor made one visit");
        assert_eq!(counters["online"], VISITORS);
    }
}

#[test]
fn killed_on_the_embedded_store_each_view_counts_once() {
    each_page_once(Setup::default());
}

#[test]
fn killed_on_redis_each_view_counts_once() {
    let redis = RedisServer::start();
    each_page_once(Setup::default().store(&redis.url()));
}

#[test]
fn killed_while_each_view_is_synced_each_view_counts_once() {
    each_page_once(Setup::default().set("journal.sync", "always"));
}

#[test]
fn killed_on_the_embedded_store_each_visitor_makes_one_visit() {
    shared_pages_and_visits("embedded");
}

#[test]
fn killed_on_redis_each_visitor_makes_one_visit() {
    let redis = RedisServer::start();
    shared_pages_and_visits(&redis.url());
    let mut client = redis.client();
    let stored = client.ask(&[b"HGET", b"footfall:{lamdong}:all", b"visits"]).text();
    assert_eq!(stored, VISITORS.to_string(), "a person can read it");
}

#[test]
fn another_store_is_one_setting_and_the_numbers_stay() {
    let redis = RedisServer::start();
    let mut service = Service::start(Setup::default().set("store.flush_interval", "200ms"));
    for number in 0..30 {
        let beacon = view(&format!("/bai-{}", number % 3)).from(&format!("113.160.2.{}", number % 5));
        let answer = http::ask(service.public(), beacon.bytes());
        assert_eq!(answer.status, 204);
    }
    for url in [redis.url(), redis.url(), "embedded".to_owned()] {
        service.kill9();
        service.set("store.url", &url);
        service.spawn();
        service.until_ready();
        let shown = service.counters(SITE);
        assert_eq!((&shown["views"]["all"], &shown["visits"]["week"]), (&30.into(), &5.into()), "on {url}");
        assert!(!service.log().contains("went back in time"), "{}", service.log());
        assert_eq!(service.metric("footfall_losses_total{cause=\"store\"}"), 0.0);
        for page in 0..3 {
            assert_eq!(service.page(SITE, &format!("/bai-{page}")), 10, "on {url}");
        }
    }
}
