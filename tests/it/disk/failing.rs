//! G10 at the real binary: a disk that is slow, and one whose syncs fail.

use std::time::Duration;

use crate::support::harness::{SITE, Setup, number, view};
use crate::support::http::Connection;
use crate::support::load::Load;
use crate::support::meddled::Meddled;
use crate::support::servers::RedisServer;
use crate::support::service::{memory, my_turn};
use crate::support::wait::until;

#[test]
fn a_slow_disk_refuses_views_once_too_much_is_unsynced_and_holds_nothing_else() {
    let setup = Setup::default().set("journal.max_unsynced", "2s").set("store.flush_interval", "5m");
    let meddled = Meddled::start(setup);
    let service = &meddled.service;
    service.take(&view("/a"));
    meddled.order("hold /journal/");
    let mut connection = Connection::open(service.public()).unwrap();
    let (mut taken, mut refused) = (1, 0);
    until("views are refused", || {
        let answer = connection.ask(view("/a").bytes()).unwrap();
        match answer.outcome() {
            (204, _) => taken += 1,
            outcome => {
                assert_eq!(outcome, (503, "overloaded".to_owned()));
                assert!(answer.header("retry-after").is_some());
                refused += 1;
            }
        }
        refused > 0
    });
    let before = memory(service.pid());
    for _ in 0..500 {
        assert_eq!(connection.ask(view("/a").bytes()).unwrap().status, 503, "while the sync goes on");
        assert_eq!(service.counters_now(SITE)["views"]["all"], taken, "the event loop is not held");
    }
    let grown = memory(service.pid()).saturating_sub(before);
    assert!(grown < 8 << 20, "it grew by {grown} bytes");
    assert!(service.metric("footfall_bounds_reached_total{bound=\"unsynced\"}") > 0.0);
    assert!(service.readiness().1.contains("[-]journal overloaded"), "{:?}", service.readiness());
    meddled.order("");
    until("views are taken again", || connection.ask(view("/b").bytes()).unwrap().status == 204);
    assert_eq!(service.counters_now(SITE)["views"]["all"], taken + 1);
}

/// A sync of a file below `part` fails: the process ends, and the next one has everything that was answered.
fn ends_and_recovers(setup: Setup, part: &str) {
    let mut meddled = Meddled::start(setup);
    let mut taken = 0;
    for _ in 0..2 {
        let address = meddled.service.public();
        let mut connection = Connection::open(address).unwrap();
        for _ in 0..20 {
            assert_eq!(connection.ask(view("/a").bytes()).unwrap().status, 204);
            taken += 1;
        }
        meddled.order(&format!("fail {part}"));
        // Under "always" the answer waits for the sync and never comes.
        until("the last view is not answered", || match connection.ask(view("/a").bytes()) {
            Ok(answer) => {
                assert_eq!(answer.status, 204);
                taken += 1;
                false
            }
            Err(_) => true,
        });
        let status = meddled.service.until_ended();
        assert!(!status.success(), "{status}");
        meddled.order("");
        meddled.service.begin();
        let counted = meddled.service.page(SITE, "/a");
        assert!((taken..=taken + 1).contains(&counted), "{taken} were answered 204, {counted} counted");
        taken = counted;
    }
    meddled.service.restart();
    assert_eq!(meddled.service.page(SITE, "/a"), taken);
    assert_eq!(meddled.service.counters(SITE)["visits"]["all"], 1);
    assert!(!meddled.service.readiness().1.contains("losses"), "{:?}", meddled.service.readiness());
}

#[test]
fn a_sync_of_the_journal_that_fails_ends_the_process_and_loses_nothing() {
    ends_and_recovers(Setup::default(), "/journal/");
}

#[test]
fn an_answer_that_waits_for_a_sync_is_not_given_when_it_fails() {
    ends_and_recovers(Setup::default().set("journal.sync", "always"), "/journal/");
}

#[test]
fn a_sync_of_the_outbox_that_fails_ends_the_process_and_loses_nothing() {
    ends_and_recovers(Setup::default(), "/outbox/");
}

#[test]
fn what_cannot_be_saved_is_said_of_data_dir_and_not_of_the_store_and_is_tried_again() {
    let redis = RedisServer::start();
    let mut meddled = Meddled::start(Setup::default().store(&redis.url()));
    let service = &meddled.service;
    service.read(3);
    service.settle();
    let stored = || redis.client().ask(&[b"EXISTS", b"footfall:{tin}:all"]).int();
    let new_site = "[[site]]\nkey = \"tin\"\nhosts = [\"tin.vn\"]\ntime_zone = \"Asia/Ho_Chi_Minh\"\n";
    service.write("sites.d/20-tin.toml", new_site);
    meddled.order("fail /writer.new");
    assert!(service.reload());
    until("it says so", || service.readiness().1.contains("[-]store a file of data_dir cannot be"));
    assert_eq!(service.metric("footfall_flush_held"), 1.0);
    service.take(&view("/a").with("site", "tin"));
    assert_eq!(service.metric("footfall_store_up"), 1.0, "the store is not at fault");
    assert_eq!(stored(), 0, "nothing is sent");
    meddled.order("");
    until("all is stored", || stored() == 1);
    until("it is not held", || service.metric("footfall_flush_held") == 0.0);
    assert!(service.readiness().1.contains("[+]store ok"), "{:?}", service.readiness());
    meddled.service.restart();
    assert_eq!(meddled.service.counters("tin")["views"]["all"], 1);
}

#[test]
fn on_a_disk_of_256_kib_a_second_under_full_load_nothing_is_lost_or_doubled() {
    let _turn = my_turn();
    let views = number("FOOTFALL_THROTTLED_VIEWS", 5_000);
    // A quick machine takes more than 100,000 views, each with a page of its own.
    let setup = Setup::default().set("journal.max_unsynced", "2s").set("totals.max_pages", "10000000");
    let mut meddled = Meddled::start(setup);
    meddled.order("throttle 256 /data/");
    let load = Load { clients: 2, rest: Duration::ZERO, ..Load::default() }.begin(&meddled.service);
    for _ in 0..2 {
        load.until_accepted(views);
        meddled.service.begin();
    }
    let account = load.end();
    meddled.order("");
    meddled.service.restart();
    account.check(&meddled.service);
}
