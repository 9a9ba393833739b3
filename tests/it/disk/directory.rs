//! The data directory: damaged, foreign, in use, or full.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::support::harness::{SITE, Setup, view};
use crate::support::http::Connection;
use crate::support::servers::RedisServer;
use crate::support::service::Service;
use crate::support::wait::until;

/// Views stay in the journal: neither flush nor checkpoint is due.
fn late() -> Setup {
    Setup::default().set("store.flush_interval", "5m").set("checkpoint_interval", "1h")
}

/// Sends views of a page one after the other; how many are answered 204, and the other outcomes.
fn send(service: &Service, page: &str, number: usize) -> (u64, Vec<(u16, String)>) {
    let mut connection = Connection::open(service.public()).unwrap();
    let answers = (0..number).map(|_| connection.ask(view(page).bytes()).unwrap());
    let (taken, refused): (Vec<_>, Vec<_>) =
        answers.map(|answer| answer.outcome()).partition(|(status, _)| *status == 204);
    (taken.len() as u64, refused)
}

fn last_segment(service: &Service) -> std::path::PathBuf {
    let with_frames = |path: &std::path::PathBuf| {
        path.extension().is_some_and(|end| end == "seg") && fs::metadata(path).unwrap().len() > 24
    };
    service.files("journal").into_iter().rfind(with_frames).expect("a segment that holds something")
}

#[test]
fn garbage_behind_the_last_group_of_the_journal_is_left_out() {
    let mut service = Service::start(late());
    assert_eq!(send(&service, "/a", 50).0, 50);
    service.kill9();
    fs::OpenOptions::new()
        .append(true)
        .open(last_segment(&service))
        .and_then(|mut file| file.write_all(b"\x10\0\0\0garbage that looks like the head of a group"))
        .unwrap();
    service.begin();
    assert_eq!(service.page(SITE, "/a"), 50);
    assert!(service.log().contains("an unfinished group of the journal"), "{}", service.log());
    assert_eq!(send(&service, "/a", 5).0, 5);
    service.restart();
    assert_eq!(service.page(SITE, "/a"), 55);
}

#[test]
fn a_last_group_that_is_cut_off_is_left_out_alone() {
    let mut service = Service::start(late());
    assert_eq!(send(&service, "/a", 50).0, 50);
    service.kill9();
    let segment = last_segment(&service);
    let length = fs::metadata(&segment).unwrap().len();
    fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(length - 3).unwrap();
    service.begin();
    assert_eq!(service.page(SITE, "/a"), 49);
    assert_eq!(service.counters(SITE)["visits"]["all"], 1);
    service.restart();
    assert_eq!(service.page(SITE, "/a"), 49);
}

#[test]
fn a_checkpoint_that_is_damaged_costs_no_count() {
    let mut service = Service::start(Setup::default());
    assert_eq!(send(&service, "/a", 50).0, 50);
    until("there is a checkpoint", || service.data_dir().join("checkpoint").exists());
    service.kill9();
    fs::write(service.data_dir().join("checkpoint"), b"footfallc\x01nonsense").unwrap();
    service.begin();
    assert_eq!(service.page(SITE, "/a"), 50);
    assert!(service.log().contains("checkpoint cannot be read"), "{}", service.log());
    assert_eq!(send(&service, "/a", 5).0, 5);
    service.restart();
    assert_eq!(service.page(SITE, "/a"), 55);
}

/// A start that must fail: one clear line, exit code 1, every file as it was.
#[track_caller]
fn is_refused(service: &Service, file: &Path, says: &str) {
    let before = fs::read(file).unwrap();
    let (code, log) = service.run_beside();
    assert_eq!(code, Some(1), "{log}");
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("\"ERROR\"")).collect();
    assert!(errors.len() == 1 && errors[0].contains(says), "{says}: {log}");
    assert!(fs::read(file).unwrap() == before, "{} is left as it was", file.display());
}

/// The loss is said in the log once, and in `/readyz?verbose`, the metric and `data_dir/losses` over starts to
/// come too, until the file is moved away.
#[track_caller]
fn is_recorded(service: &mut Service, cause: &str, place: &str, extent: &str) {
    let says = "something is lost";
    assert!(service.log().contains(says), "{}", service.log());
    let series = format!("footfall_losses_total{{cause=\"{cause}\"}}");
    for again in [false, true] {
        if again {
            service.restart();
            assert!(!service.log().contains(says), "it is said once");
        }
        let (status, text) = service.readiness();
        assert_eq!(status, 200, "it takes views");
        let loss = format!("{cause} {place} {extent}");
        assert!(text.contains("[-]losses 1 recorded") && text.contains(&loss), "{text}");
        assert_eq!(service.metric(&series), 1.0);
    }
    let losses = service.data_dir().join("losses");
    let text = fs::read_to_string(&losses).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    fs::remove_file(losses).unwrap();
    service.restart();
    assert_eq!(service.metric(&series), 0.0);
}

/// As a segment of the journal is named.
fn place(segment: &Path) -> String {
    format!("journal/{}", segment.file_name().unwrap().to_str().unwrap())
}

#[test]
fn a_damaged_stretch_of_the_journal_is_named_and_the_rest_is_counted() {
    let mut service = Service::start(late());
    assert_eq!(send(&service, "/a", 50).0, 50);
    service.kill9();
    let segment = last_segment(&service);
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segment, bytes).unwrap();
    service.begin();
    assert_eq!(service.page(SITE, "/a"), 49);
    is_recorded(&mut service, "journal", &place(&segment), "bytes ");
    assert_eq!(service.page(SITE, "/a"), 49);
}

#[test]
fn a_journal_segment_that_is_missing_is_named() {
    let mut service = Service::start(late());
    assert_eq!(send(&service, "/a", 50).0, 50);
    service.kill9();
    let segment = last_segment(&service);
    fs::remove_file(&segment).unwrap();
    service.begin();
    // The first checkpoint may have begun another segment meanwhile.
    let left = service.page(SITE, "/a");
    assert!(left < 50);
    assert_eq!(send(&service, "/a", 5).0, 5);
    assert_eq!(service.page(SITE, "/a"), left + 5);
    is_recorded(&mut service, "journal", &place(&segment), "it is missing");
    assert_eq!(service.page(SITE, "/a"), left + 5);
}

#[test]
fn an_outbox_whose_batches_are_gone_is_named_by_them_and_counts_nothing_twice() {
    let mut service = Service::start(Setup::default());
    for part in 1..=3 {
        assert_eq!(send(&service, "/a", 10).0, 10);
        until("it is in the store", || service.metric("footfall_oldest_unapplied_timestamp_seconds") == 0.0);
        assert_eq!(service.page(SITE, "/a"), part * 10);
    }
    service.stop();
    fs::remove_dir_all(service.data_dir().join("outbox")).unwrap();
    service.begin();
    assert_eq!(service.page(SITE, "/a"), 30);
    assert_eq!(send(&service, "/a", 10).0, 10);
    is_recorded(&mut service, "outbox", "outbox", "batches 1 to ");
    assert_eq!(service.page(SITE, "/a"), 40);
    assert_eq!(service.counters(SITE)["visits"]["all"], 1);
}

#[test]
fn the_file_that_says_who_it_is_is_told_by_its_copy_and_refused_without() {
    let mut service = Service::start(Setup::default());
    assert_eq!(send(&service, "/a", 10).0, 10);
    service.stop();
    let (writer, copy) = (service.data_dir().join("writer"), service.data_dir().join("writer.copy"));
    let ours = fs::read(&writer).unwrap();
    let mut flipped = ours.clone();
    flipped[10] ^= 1;
    fs::write(&writer, &flipped).unwrap();
    service.begin();
    assert!(service.log().contains("its copy is taken"), "{}", service.log());
    assert_eq!(send(&service, "/a", 10).0, 10);
    assert_eq!(service.page(SITE, "/a"), 20);
    service.stop();
    let ours = fs::read(&copy).unwrap();
    assert!(fs::read(&writer).unwrap() == ours, "it is mended");
    fs::write(&writer, &flipped).unwrap();
    fs::write(&copy, &flipped).unwrap();
    is_refused(&service, &writer, "restore one of them from a backup");
    fs::remove_file(&copy).unwrap();
    fs::remove_file(&writer).unwrap();
    // Under a new name what the store has would be counted again.
    let (code, log) = service.run_beside();
    assert!(code == Some(1) && log.contains("restore one of them from a backup"), "{log}");
    fs::write(&copy, &ours).unwrap();
    service.begin();
    assert_eq!(service.page(SITE, "/a"), 20);
}

#[test]
fn salts_that_are_damaged_are_said_and_the_store_has_them() {
    let mut service = Service::start(Setup::default());
    assert_eq!(send(&service, "/a", 10).0, 10);
    service.stop();
    for name in ["salts", "salts.copy"] {
        fs::write(service.data_dir().join(name), "nonsense").unwrap();
    }
    service.begin();
    assert_eq!(send(&service, "/a", 10).0, 10);
    let counters = service.counters(SITE);
    assert_eq!((&counters["views"]["all"], &counters["visits"]["all"]), (&20.into(), &1.into()));
    is_recorded(&mut service, "salts", "salts", "it is damaged");
}

#[test]
fn a_store_of_another_version_is_refused_and_left_as_it_is() {
    let mut service = Service::start(Setup::default());
    assert_eq!(send(&service, "/a", 5).0, 5);
    service.stop();
    let file = service.data_dir().join("totals.redb");
    let meta = redb::TableDefinition::<&str, &str>::new("meta");
    let format = |value: &str| {
        let database = redb::Database::open(&file).unwrap();
        let change = database.begin_write().unwrap();
        change.open_table(meta).unwrap().insert("format", value).unwrap();
        change.commit().unwrap();
    };
    format("99");
    is_refused(&service, &file, "format 99");
    format("1");
    service.begin();
    assert_eq!(service.page(SITE, "/a"), 5, "nothing was lost by it");
}

#[test]
fn a_store_that_is_not_ours_is_refused_and_left_as_it_is() {
    let mut service = Service::start(Setup::default());
    service.stop();
    let file = service.data_dir().join("totals.redb");
    fs::write(&file, "somebody's diary\n".repeat(1000)).unwrap();
    service.breaks_the_store();
    is_refused(&service, &file, "totals.redb");
}

#[test]
fn a_journal_of_another_version_is_refused_and_left_as_it_is() {
    let mut service = Service::start(late());
    assert_eq!(send(&service, "/a", 5).0, 5);
    service.kill9();
    let segment = last_segment(&service);
    let mut bytes = fs::read(&segment).unwrap();
    let ours = bytes.clone();
    bytes[9] = 99;
    fs::write(&segment, &bytes).unwrap();
    is_refused(&service, &segment, "format 99");
    fs::write(&segment, ours).unwrap();
    service.begin();
    assert_eq!(service.page(SITE, "/a"), 5);
}

#[test]
fn a_second_process_on_the_same_directory_is_refused_with_one_line() {
    let service = Service::start(Setup::default());
    assert_eq!(send(&service, "/a", 5).0, 5);
    let (code, log) = service.run_beside();
    assert_eq!(code, Some(1), "{log}");
    let line = format!("another footfall uses it (process {})", service.pid());
    assert_eq!(log.lines().filter(|l| l.contains("\"ERROR\"")).count(), 1, "{log}");
    assert!(log.contains(&line), "{log}");
    assert_eq!(send(&service, "/a", 5).0, 5, "the first one goes on");
    assert_eq!(service.page(SITE, "/a"), 10);
}

#[test]
fn with_a_full_disk_views_are_refused_and_count_again_when_there_is_room() {
    let redis = RedisServer::start();
    // Files end at 40 KiB: the journal's first segment fills up.
    let mut service = Service::prepare(late().store(&redis.url())).after("trap '' XFSZ; ulimit -S -f 80");
    service.begin();
    let mut taken = 0;
    until("the journal is full", || {
        let (some, refused) = send(&service, "/a", 100);
        taken += some;
        !refused.is_empty()
    });
    let (some, refused) = send(&service, "/a", 100);
    assert_eq!((some, refused), (0, vec![(503, "journal-full".to_owned()); 100]));
    let refused = service.send(&view("/a"));
    assert_eq!(refused.header("retry-after"), Some("30"));
    assert!(service.metric("footfall_journal_write_errors_total") > 0.0);
    assert_eq!(service.counters(SITE)["views"]["all"], taken, "nothing is counted for a refused view");
    service.limit_files("unlimited");
    assert_eq!(send(&service, "/a", 50).0, 50);
    taken += 50;
    assert_eq!(service.counters(SITE)["views"]["all"], taken);
    service.kill9();
    let mut service = service.after(":");
    service.begin();
    assert_eq!(service.page(SITE, "/a"), taken);
    assert_eq!(service.counters(SITE)["visits"]["all"], 1);
}

/// The writer has met the full disk: the store takes nothing, or two turns have ended that had nothing for it, as
/// no batch could be made.
fn until_met(service: &Service) {
    let flushed = || service.metric("footfall_last_flush_timestamp_seconds");
    for _ in 0..2 {
        let before = flushed();
        until("the writer has its turn", || flushed() > before || service.metric("footfall_store_up") == 0.0);
    }
}

/// Nothing at all can be written: journal, outbox, store, checkpoint, nor the log.
fn no_file_can_grow(setup: Setup) {
    let mut service = Service::prepare(setup).after("trap '' XFSZ");
    service.begin();
    let mut taken = send(&service, "/a", 50).0;
    for _ in 0..2 {
        service.limit_files("0");
        let (some, refused) = send(&service, "/a", 200);
        assert_eq!((some, refused.len()), (0, 200));
        assert!(refused.iter().all(|(status, code)| (*status, code.as_str()) == (503, "journal-full")));
        until_met(&service);
        assert_eq!(service.counters_now(SITE)["views"]["all"], taken);
        service.limit_files("unlimited");
        taken += send(&service, "/a", 50).0;
        assert_eq!(service.counters(SITE)["views"]["all"], taken);
    }
    assert_eq!(taken, 150);
    service.until_applied();
    // It can also be stopped then, with views that no batch can be made of.
    taken += send(&service, "/a", 50).0;
    service.limit_files("0");
    let (status, took) = service.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(took < std::time::Duration::from_secs(100), "it took {took:?}");
    service.begin();
    assert_eq!(
        (service.page(SITE, "/a"), service.counters(SITE)["visits"]["all"].as_u64()),
        (taken, Some(1))
    );
}

#[test]
fn with_a_full_disk_the_embedded_store_loses_and_doubles_nothing() {
    no_file_can_grow(Setup::default());
}

#[test]
fn with_a_full_disk_and_redis_nothing_is_lost_or_doubled() {
    let redis = RedisServer::start();
    no_file_can_grow(Setup::default().store(&redis.url()));
}
