//! A clock of the machine that is wrong: no view counts on a day that is over.

use crate::support::harness::{Setup, readiness, view};
use crate::support::http::{Connection, get, request};
use crate::support::meddled::Meddled;
use crate::support::servers::RedisServer;
use crate::support::wait::until;

const DAY_S: i64 = 24 * 3600;

/// Its clock is wrong by so many seconds from now on.
fn wrong_by(meddled: &Meddled, seconds: i64) {
    meddled.order(&format!("clock {seconds}"));
}

fn until_told(meddled: &Meddled, wrong: bool) {
    until("the clock is read", || {
        let (status, text) = meddled.service.readiness();
        let told = text.contains("[-]clock the clock of this machine is wrong: it was 20");
        (status == 503, told) == (wrong, wrong)
    });
}

#[test]
fn a_clock_before_the_programs_own_date_counts_nothing_until_it_is_right() {
    let redis = RedisServer::start();
    let mut meddled = Meddled::start(Setup::default().store(&redis.url()));
    meddled.service.terminate();
    redis.client().ask(&[b"FLUSHALL"]);
    std::fs::remove_dir_all(meddled.service.data_dir()).unwrap();
    wrong_by(&meddled, -7 * 365 * DAY_S);
    meddled.service.spawn();
    meddled.service.until_answers();
    until_told(&meddled, true);
    let (_, text) = readiness(meddled.service.admin());
    assert!(
        text.contains("[-]store the clock of this machine is wrong") && text.contains("nothing is sent"),
        "{text}"
    );
    for _ in 0..3 {
        assert_eq!(meddled.service.send(&view("/a")).outcome(), (503, "clock-wrong".to_owned()));
    }
    assert!(redis.is_empty());
    wrong_by(&meddled, 0);
    until_told(&meddled, false);
    meddled.service.read(2);
    until("they are stored", || redis.views() == 2);
}

#[test]
fn a_clock_before_the_last_checkpoint_is_wrong_and_leaves_it_as_it_is() {
    let mut meddled = Meddled::start(Setup::default());
    meddled.service.breaks_the_store();
    wrong_by(&meddled, 30 * DAY_S);
    meddled.service.read(3);
    meddled.service.settle();
    meddled.service.terminate();
    // A few minutes are no fault, and are forgiven.
    for (set_back_s, is_wrong) in
        [(30 * DAY_S - 300, false), (29 * DAY_S, true), (0, true), (30 * DAY_S, false)]
    {
        wrong_by(&meddled, set_back_s);
        meddled.service.spawn();
        meddled.service.until_answers();
        until_told(&meddled, is_wrong);
        let answer = meddled.service.send(&view("/b"));
        assert_eq!(answer.status, if is_wrong { 503 } else { 204 }, "{set_back_s}");
        meddled.service.terminate();
    }
    // Where the checkpoint was ahead.
    std::fs::remove_file(meddled.service.data_dir().join("checkpoint")).unwrap();
    wrong_by(&meddled, 0);
    meddled.service.begin();
    meddled.service.read(1);
}

#[test]
fn a_clock_beyond_all_dates_is_refused_by_name_until_it_is_right() {
    let meddled = Meddled::start(Setup::default());
    let service = &meddled.service;
    service.read(1);
    for years in [9_000, -100, 250_000] {
        let mut kept = Connection::open(service.public()).unwrap();
        assert_eq!(kept.ask(request("GET", "/footfall.js", &[], b"")).unwrap().status, 200);
        wrong_by(&meddled, years * 365 * DAY_S);
        for _ in 0..3 {
            let answer = service.send(&view("/a"));
            assert_eq!(answer.outcome(), (503, "clock-wrong".to_owned()), "{years}");
            assert_eq!(answer.header("retry-after"), Some("5"));
            assert_eq!(get(service.admin(), "/readyz").outcome(), (503, "clock-wrong".to_owned()));
        }
        // One that is open already is ended when it asks again.
        assert!(kept.ask(request("GET", "/footfall.js", &[], b"")).is_err());
        wrong_by(&meddled, 0);
        service.read(1);
    }
}
