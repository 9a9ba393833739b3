//! G10 at the real binary: a disk that is slow, and one whose syncs fail.
//!
//! A library of a few lines, compiled here and loaded before the C library, stands between the service
//! and the system's calls. It reads from a file, at every call, what it has to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::harness::{Beacon, SITE, Setup, number, until, view};
use crate::support::http::{self, Connection};
use crate::support::load::Load;
use crate::support::service::{Service, my_turn};

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Bytes written since a throttled sync, and the one device that they go to. */
static long unsynced;
static pthread_mutex_t device = PTHREAD_MUTEX_INITIALIZER;

static void transfer(int kib_per_s) {
    pthread_mutex_lock(&device);
    long bytes = __sync_lock_test_and_set(&unsynced, 0);
    usleep(bytes * 1000000 / (kib_per_s * 1024L));
    pthread_mutex_unlock(&device);
}

/* "delay MS PART", "throttle KIB_PER_S PART" or "fail PART": what becomes of a sync of a file whose path
   holds PART. */
static int meddle(int fd) {
    char link[64], path[4096], what[32] = "", part[256] = "";
    int ms = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    FILE *orders = fopen(getenv("SHIM_ORDERS"), "r");
    if (n < 0 || !orders) { if (orders) fclose(orders); return 0; }
    path[n] = 0;
    int read = fscanf(orders, "%31s", what);
    int throttles = read == 1 && !strcmp(what, "throttle");
    if (throttles || (read == 1 && !strcmp(what, "delay"))) read += fscanf(orders, "%d %255s", &ms, part);
    else if (read == 1) read += fscanf(orders, "%255s", part);
    fclose(orders);
    if (read < 2 || !strstr(path, part)) return 0;
    if (throttles) { transfer(ms); return 0; }
    if (ms > 0) { usleep(ms * 1000); return 0; }
    return !strcmp(what, "fail");
}

#define MEDDLED(name) \
    int name(int fd) { \
        static int (*real)(int); \
        if (!real) real = dlsym(RTLD_NEXT, #name); \
        if (meddle(fd)) { errno = EIO; return -1; } \
        return real(fd); \
    }
MEDDLED(fsync)
MEDDLED(fdatasync)

static ssize_t counted(ssize_t written) {
    if (written > 0) __sync_fetch_and_add(&unsynced, written);
    return written;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    return counted(real(fd, bytes, length));
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
    return counted(real(fd, bytes, length, at));
}
"#;

/// The service with the library between it and its disk.
struct Meddled {
    service: Service,
    orders: PathBuf,
    _dir: tempfile::TempDir,
}

impl Meddled {
    fn start(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (source, library, orders) =
            (dir.path().join("shim.c"), dir.path().join("shim.so"), dir.path().join("orders"));
        fs::write(&source, SHIM).unwrap();
        fs::write(&orders, "").unwrap();
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .output()
            .expect("a C compiler, as Rust needs one to link");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let before = format!(
            "export SHIM_ORDERS='{}' LD_PRELOAD='{}'; trap '' XFSZ",
            orders.display(),
            library.display()
        );
        let mut service = Service::prepare(setup).after(&before);
        service.spawn();
        service.until_ready();
        Meddled { service, orders, _dir: dir }
    }

    fn order(&self, order: &str) {
        // Renamed, so that no call reads half of it.
        let fresh = self.orders.with_extension("new");
        fs::write(&fresh, order).unwrap();
        fs::rename(fresh, &self.orders).unwrap();
    }
}

/// Bytes of memory that a process has in use.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Waits for the process to end by itself.
fn until_ended(service: &Service) {
    let state = || fs::read_to_string(format!("/proc/{}/stat", service.pid())).unwrap_or_default();
    until("the process ends", || state().rsplit(") ").next().is_none_or(|rest| rest.starts_with('Z')));
}

#[test]
fn a_slow_disk_refuses_views_once_too_much_is_unsynced_and_holds_nothing_else() {
    let setup = Setup::default().set("journal.max_unsynced", "2s").set("store.flush_interval", "5m");
    let meddled = Meddled::start(setup);
    let service = &meddled.service;
    assert_eq!(http::ask(service.public(), view("/a").bytes()).status, 204);
    meddled.order("delay 15000 /journal/");
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
    let (before, began, mut longest) = (memory(service.pid()), Instant::now(), Duration::ZERO);
    let mut further = 0;
    while began.elapsed() < Duration::from_secs(2) {
        further += u32::from(connection.ask(view("/a").bytes()).unwrap().status != 503);
        let asked = Instant::now();
        assert_eq!(service.counters_now(SITE)["views"]["all"], taken);
        longest = longest.max(asked.elapsed());
    }
    assert_eq!(further, 0, "while one sync takes fifteen seconds");
    assert!(longest < Duration::from_secs(2), "a read took {longest:?}: the event loop was held");
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
        let mut unknown = 0;
        // Under "always" the answer waits for the sync and never comes.
        while let Ok(answer) = connection.ask(view("/a").bytes()) {
            assert_eq!(answer.status, 204);
            taken += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
        unknown += 1;
        until_ended(&meddled.service);
        assert!(meddled.service.log().contains("the process ends"), "{}", meddled.service.log());
        meddled.service.kill9();
        meddled.order("");
        meddled.service.spawn();
        meddled.service.until_ready();
        let counted = meddled.service.page(SITE, "/a");
        assert!((taken..=taken + unknown).contains(&counted), "{taken} were answered 204, {counted} counted");
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

/// Twenty pages, a hundred visitors.
fn next(client: u32, number: u32) -> (String, u32, Beacon) {
    let (page, who) = (format!("/tin/{}", number % 20), (number + client) % 100);
    (page.clone(), who, view(&page).from(&format!("203.0.113.{}", who + 1)))
}

#[test]
fn on_a_disk_of_256_kib_a_second_under_full_load_nothing_is_lost_or_doubled() {
    let _turn = my_turn();
    let seconds = number("FOOTFALL_THROTTLED_SECONDS", 4);
    let mut meddled = Meddled::start(Setup::default().set("journal.max_unsynced", "2s"));
    meddled.order("throttle 256 /data/");
    let load = Load::begin(2, next);
    for _ in 0..2 {
        load.aim(Some(meddled.service.public()));
        std::thread::sleep(Duration::from_secs(seconds) / 2);
        load.aim(None);
        meddled.service.kill9();
        meddled.service.spawn();
        meddled.service.until_ready();
    }
    let account = load.end();
    meddled.order("");
    meddled.service.restart();
    let counters = meddled.service.counters(SITE);
    account.check(counters["views"]["all"].as_u64().unwrap());
    assert_eq!(counters["visits"]["all"], 100);
}
