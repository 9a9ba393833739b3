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
    until("the file is named", || service.readiness().1.contains("[-]data_dir cannot be written: writer\n"));
    service.take(&view("/a").with("site", "tin"));
    assert_eq!(service.metric("footfall_store_up"), 1.0, "the store is not at fault");
    assert_eq!(stored(), 0, "nothing is sent");
    meddled.order("");
    until("all is stored", || stored() == 1);
    until("it is not held", || service.metric("footfall_flush_held") == 0.0);
    until("it is saved", || service.metric("footfall_file_failing{file=\"writer\"}") == 0.0);
    assert!(service.readiness().1.contains("[+]store ok"), "{:?}", service.readiness());
    meddled.service.restart();
    assert_eq!(meddled.service.counters("tin")["views"]["all"], 1);
}

/// Of what is tried again: the order to the disk, the file as it is named, and what the log says.
const FAILING: [(&str, &str, &str); 6] = [
    ("fail /checkpoint.new", "checkpoint", "the checkpoint cannot be written; the last one is kept"),
    ("unwritable /checkpoint.new", "checkpoint", "the checkpoint cannot be written; the last one is kept"),
    ("fail /journal/list.new", "journal", "the journal cannot be shortened"),
    ("unwritable /outbox/", "outbox", "the outbox cannot be written; views stay in the journal"),
    ("fail /salts.new", "salts", "the salts cannot be written, and are drawn anew with the next turn"),
    ("full /salts.new", "salts", "the salts cannot be written, and are drawn anew with the next turn"),
];

#[test]
fn what_cannot_be_written_is_named_until_it_can_and_nothing_is_lost_by_it() {
    let redis = RedisServer::start();
    let mut meddled = Meddled::start(Setup::default().store(&redis.url()));
    let service = &meddled.service;
    let mut taken = 0;
    for (number, (order, file, says)) in FAILING.into_iter().enumerate() {
        let failing = || service.metric(&format!("footfall_file_failing{{file=\"{file}\"}}"));
        let told = || service.log().matches(says).count();
        let before = told();
        meddled.order(order);
        if file == "salts" {
            // Salts are drawn for a day, and for a site that is new.
            let site = format!(
                "[[site]]\nkey = \"new-{number}\"\nhosts = [\"new-{number}.vn\"]\ntime_zone = \"UTC\"\n"
            );
            service.write(&format!("sites.d/{number}.toml"), &site);
            assert!(service.reload());
        }
        until("it is named by the metric", || {
            service.take(&view("/a"));
            taken += 1;
            failing() == 1.0
        });
        assert!(told() > before, "{order}: {}", service.log());
        let (status, text) = service.readiness();
        assert!(
            status == 200 && text.contains(&format!("[-]data_dir cannot be written: {file}\n")),
            "{text}"
        );
        meddled.order("");
        until("it is written", || failing() == 0.0);
        assert!(!service.readiness().1.contains("[-]data_dir"), "{order}");
    }
    service.until_applied();
    meddled.service.begin();
    assert_eq!(meddled.service.page(SITE, "/a"), taken);
    assert_eq!(meddled.service.counters(SITE)["visits"]["all"], 1);
    meddled.service.stop();
    assert_eq!(redis.views(), taken);
}

#[test]
fn a_journal_that_cannot_be_written_makes_it_unready_until_it_can() {
    let mut meddled = Meddled::start(Setup::default());
    let service = &meddled.service;
    service.take(&view("/a"));
    for (order, reason) in [("unwritable /journal/", "overloaded"), ("full /journal/", "journal-full")] {
        meddled.order(order);
        let before = service.metric("footfall_journal_write_errors_total");
        assert_eq!(service.send(&view("/a").id(order)).outcome(), (503, reason.to_owned()));
        let (status, text) = service.readiness();
        assert!(status == 503 && text.contains(&format!("[-]journal {reason}\n")), "{text}");
        assert_eq!(service.metric("footfall_journal_write_errors_total"), before + 1.0);
        (0..20).for_each(|_| assert_eq!(service.send(&view("/a")).status, 503));
        meddled.order("");
        service.take(&view("/a").id(order));
        assert_eq!(service.readiness().0, 200, "a view that is written shows that it can");
    }
    assert_eq!(service.log().matches("groups cannot be written").count(), 1, "once a minute");
    meddled.service.begin();
    assert_eq!(meddled.service.page(SITE, "/a"), 3);
    assert_eq!(meddled.service.counters(SITE)["visits"]["all"], 1);
}

#[test]
fn a_batch_that_cannot_be_read_is_said_of_data_dir_and_is_sent_when_it_can() {
    let mut redis = RedisServer::lasting();
    let mut meddled = Meddled::start(Setup::default().store(&redis.url()));
    meddled.service.read(3);
    meddled.service.until_applied();
    redis.kill();
    meddled.service.read(2);
    // The next process knows the batch from the disk alone.
    meddled.service.begin();
    meddled.order("unreadable /outbox/");
    redis.restart();
    let service = &meddled.service;
    until("it says so", || service.readiness().1.contains("[-]store a file of data_dir cannot be read"));
    assert_eq!(service.metric("footfall_flush_held"), 1.0);
    assert!(service.log().contains("the flush is held"), "{}", service.log());
    service.read(1);
    assert_eq!(redis.views(), 3);
    meddled.order("");
    service.until_applied();
    assert_eq!((redis.views(), service.metric("footfall_flush_held")), (6, 0.0));
}

#[test]
fn an_embedded_store_that_cannot_be_written_is_given_later_what_it_missed() {
    let mut meddled = Meddled::start(Setup::default());
    let mut taken = 0;
    for (order, fault) in [
        ("unwritable /totals.redb", "Input/output error"),
        ("full /totals.redb", "No space left on device"),
        ("fail /totals.redb", "Input/output error"),
    ] {
        let service = &meddled.service;
        meddled.order(order);
        until("the store is known not to take it", || {
            service.take(&view("/a"));
            taken += 1;
            service.metric("footfall_store_up") == 0.0
        });
        until("the file and its fault are named", || {
            let (status, text) = service.readiness();
            let says = |line: &str| {
                line.starts_with("[-]store the file of the store cannot be read or written: ")
                    && line.contains(&format!("totals.redb: {fault}"))
            };
            let is_named = text.contains("[-]data_dir cannot be written: totals\n");
            assert_eq!(status, 200, "views are taken");
            is_named && text.lines().any(says)
        });
        let failing = || service.metric("footfall_file_failing{file=\"totals\"}");
        assert_eq!(failing(), 1.0, "{order}");
        assert!(service.log().contains("the store cannot be brought up to date"), "{}", service.log());
        assert_eq!(service.counters_now(SITE)["views"]["all"], taken, "{order}");
        meddled.order("");
        until("it takes it again", || service.metric("footfall_store_up") == 1.0);
        assert_eq!(failing(), 0.0, "{order}");
        meddled.service.begin();
        assert_eq!(meddled.service.page(SITE, "/a"), taken, "{order}");
    }
    meddled.service.restart();
    assert_eq!(meddled.service.page(SITE, "/a"), taken);
    assert_eq!(meddled.service.counters(SITE)["visits"]["all"], 1);
}

#[test]
fn a_start_that_cannot_read_or_sync_a_file_says_so_and_leaves_all_as_it_was() {
    let mut meddled = Meddled::start(Setup::default().set("store.flush_interval", "5m"));
    meddled.service.read(5);
    until("there is a checkpoint", || meddled.service.data_dir().join("checkpoint").exists());
    meddled.service.kill9();
    for order in [
        "unreadable /journal/",
        "unreadable /outbox/",
        "unreadable /data/checkpoint",
        "unreadable /data/writer",
        "unreadable /data/salts",
        "unreadable /totals.redb",
        "fail /journal/",
        "fail /outbox/",
        "fail /data/writer",
    ] {
        meddled.order(order);
        let (code, log) = meddled.service.run_beside();
        let errors: Vec<&str> = log.lines().filter(|line| line.contains("\"ERROR\"")).collect();
        assert!(code != Some(0) && errors.len() == 1, "{order}: {code:?} {log}");
        assert!(errors[0].contains("os error 5"), "{order}: {log}");
    }
    meddled.order("");
    meddled.service.begin();
    assert_eq!(meddled.service.page(SITE, "/a"), 5);
    assert_eq!(meddled.service.counters(SITE)["visits"]["all"], 5);
    assert!(!meddled.service.readiness().1.contains("losses"), "{:?}", meddled.service.readiness());
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
