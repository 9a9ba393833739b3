//! What is entered while services are killed, while Redis goes back in time, and by two of them at once.

use std::thread;
use std::time::Duration;

use crate::support::dice::Dice;
use crate::support::harness::{SITE, Setup, number};
use crate::support::servers::RedisServer;
use crate::support::service::{Service, my_turn};
use crate::support::wait::{pause, until};

/// Some years, an opening balance and pages, in one file: `times` tells the files apart.
fn rows(times: u64) -> String {
    let mut rows = String::from("total,period,bucket,page,value\n");
    let mut all = 0;
    for year in 2015..2025 {
        all += times * year;
        rows += &format!("views,year,{year},,{}\n", times * year);
    }
    rows += &format!("views,all,all,,{all}\n");
    (0..2_500).for_each(|page| rows += &format!("views,all,all,/old/{page},{}\n", times * 7 + page));
    rows
}

fn shows(service: &Service, times: u64) {
    let all: u64 = (2015..2025).map(|year| times * year).sum();
    until("what was entered is shown", || service.counters(SITE)["views"]["all"] == all);
    let pages: Vec<String> = [0, 1, 999, 2_499].map(|page| format!("/old/{page}")).into();
    let expected = [0, 1, 999, 2_499].map(|page| times * 7 + page);
    until("pages show it", || service.pages(SITE, &pages) == expected);
}

/// Wherever the service is killed in it, all of a file is entered or nothing; given again, it is entered once.
#[test]
fn an_import_cut_off_at_any_point_is_whole_or_not_there() {
    let _turn = my_turn();
    let (mut dice, mut whole) = (Dice::thrown(), 0);
    for on_redis in [false, true] {
        let redis = RedisServer::lasting();
        let setup = if on_redis { Setup::default().store(&redis.url()) } else { Setup::default() };
        let mut service = Service::start(setup);
        for times in 1..=number("FOOTFALL_IMPORTS", 4) {
            service.write("rows.csv", &rows(times));
            thread::scope(|scope| {
                let import = scope.spawn(|| service.order(&["import", "rows.csv", "--site", SITE]));
                pause(Duration::from_millis(dice.below(400)));
                service.signal("KILL");
                whole += u64::from(import.join().unwrap().0 == 0);
            });
            service.until_ended();
            service.begin();
            let before = service.counters(SITE)["views"]["all"].as_u64().unwrap();
            let of = |times: u64| (2015..2025).map(|year| times * year).sum::<u64>();
            assert!([of(times - 1), of(times)].contains(&before), "{before}, of file {times}");
            let said = service.ordered(&["import", "rows.csv", "--site", SITE]);
            let is_there = before == of(times);
            assert!(said.contains(if is_there { "nothing changes" } else { "are entered" }), "{said}");
            shows(&service, times);
        }
        service.settle();
    }
    println!("{whole} imports were answered before the kill");
}

/// Both agree on whose file is the later one, and so does the store after it went back.
#[test]
fn two_services_that_import_at_once_show_the_same_in_the_end() {
    let _turn = my_turn();
    let mut redis = RedisServer::lasting();
    let setup = Setup::default().store(&redis.url());
    let (first, second) = (Service::start(setup.clone()), Service::start(setup));
    for round in 0..number("FOOTFALL_IMPORTS", 4) {
        thread::scope(|scope| {
            for (service, times) in [(&first, 2 * round + 1), (&second, 2 * round + 2)] {
                service.write("rows.csv", &rows(times));
                scope.spawn(|| service.ordered(&["import", "rows.csv", "--site", SITE]));
            }
        });
        if round % 2 == 1 {
            // It forgets what both entered.
            let mut client = redis.client();
            client.ask(&[
                b"DEL",
                RedisServer::key("all").as_bytes(),
                RedisServer::key("all:pages").as_bytes(),
            ]);
            client.ask(&[b"SAVE"]);
            redis.restart();
        }
        let shown = |service: &Service| {
            let years = service.counters(SITE)["views"]["all"].as_u64().unwrap();
            (years, service.pages(SITE, &["/old/5".to_owned()]))
        };
        let of = |times: u64| ((2015..2025).map(|year| times * year).sum::<u64>(), vec![times * 7 + 5]);
        let possible = [of(2 * round + 1), of(2 * round + 2)];
        until("both show one of them", || {
            let (a, b) = (shown(&first), shown(&second));
            a == b && possible.contains(&a)
        });
    }
}

/// What one adds to a month does not take the place of what the other adds to it at the same time.
#[test]
fn two_services_that_enter_days_of_one_month_at_once_lose_none() {
    let _turn = my_turn();
    let redis = RedisServer::lasting();
    let setup = Setup::default().store(&redis.url());
    let services = [Service::start(setup.clone()), Service::start(setup)];
    let last = number("FOOTFALL_IMPORTS", 10).min(15);
    thread::scope(|scope| {
        for (service, first) in services.iter().zip(1..) {
            scope.spawn(move || {
                for day in (first..=2 * last).step_by(2) {
                    let row = format!("total,period,bucket,value\nviews,day,2020-03-{day:02},{day}\n");
                    service.write("rows.csv", &row);
                    service.ordered(&["import", "rows.csv", "--site", SITE, "--roll-up"]);
                }
            });
        }
    });
    for service in &services {
        until("all days are in the sum of all", || {
            service.counters(SITE)["views"]["all"] == (1..=2 * last).sum::<u64>()
        });
    }
}
