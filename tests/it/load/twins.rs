//! A data directory that is copied while its service takes views: both go on, as two writers of one Redis.

use crate::support::harness::{SITE, Setup};
use crate::support::load::{Fate, Load};
use crate::support::servers::RedisServer;
use crate::support::service::{Service, my_turn};
use crate::support::wait::until;

#[test]
fn copied_while_it_runs_under_load_both_ledgers_agree_with_the_store() {
    let _turn = my_turn();
    let redis = RedisServer::lasting();
    let first = Service::start(Setup::default().store(&redis.url()));
    let load = Load { clients: 2, ..Load::default() }.begin(&first);
    until("views are stored", || redis.views() > 200);
    let mut second = first.copied();
    second.begin();
    let seconds = Load { pages: "/second", clients: 2, ..Load::default() }.begin(&second);
    let before = redis.views();
    until("both go on", || redis.views() > before + 1000);
    let (account, of_second) = (load.end(), seconds.end());
    assert_eq!((account.number(Fate::Unknown), of_second.number(Fate::Unknown)), (0, 0));
    for service in [&first, &second, &first] {
        service.settle();
    }
    of_second.check_pages(&second);
    // What was in no batch when the directory was copied is in both journals, and nothing else is counted twice.
    let pages: Vec<String> = account.0.iter().map(|sent| sent.page.clone()).collect();
    let counted = first.pages(SITE, &pages);
    assert!(counted.iter().all(|views| [1, 2].contains(views)), "{counted:?}");
    let overlap = counted.iter().filter(|views| **views == 2).count() as u64;
    let recovered = second.logged("recovered")["views"].as_u64().unwrap();
    let sent = account.and(of_second).number(Fate::Accepted);
    println!("{sent} views were accepted, {overlap} of them counted by both, {recovered} were in no batch");
    assert!(overlap <= recovered);
    assert_eq!(redis.views(), sent + overlap);
    assert_ne!(first.writer(), second.writer());
}
