//! G3 and G5: the store is away until there is no more room for views.

use crate::support::harness::{SITE, Setup, view};
use crate::support::http::Connection;
use crate::support::load::{ENDLESS, fill};
use crate::support::servers::RedisServer;
use crate::support::service::{Service, my_turn};
use crate::support::wait::until;

/// Views are taken until outbox and journal are full, and none of these is lost, though the process is killed again and
/// again.
#[test]
fn a_full_outbox_refuses_views_and_gives_all_it_has_to_the_store_that_comes_back() {
    let _turn = my_turn();
    let mut redis = RedisServer::start();
    redis.kill();
    let setup = Setup::default()
        .store(&redis.url())
        // Batches are as large as they can be.
        .set("store.timeout", "60s")
        .set("outbox.max_bytes", "16 MiB")
        .set("journal.max_bytes", "16 MiB")
        .set("journal.max_unsynced", "5m")
        // The first one of each process, and one when the journal is full, are all that there are.
        .set("checkpoint_interval", "1h");
    let mut service = Service::start(setup);
    let outbox = |service: &Service| service.metric("footfall_outbox_bytes");
    let mut taken = fill(&service, "some", ENDLESS, 4_000);
    // While the store is away a batch is made every ten seconds, and at each start: that is quicker.
    while {
        service.begin();
        outbox(&service) < f64::from(16 << 20)
    } {
        until("what is in a batch leaves the journal", || {
            service.metric("footfall_journal_bytes") < f64::from(1 << 20)
        });
        taken += fill(&service, "many", ENDLESS, ENDLESS);
    }
    let full = outbox(&service);
    taken += fill(&service, "more", 400, ENDLESS);
    for kills in 0..4 {
        if kills > 0 {
            service.spawn();
            until("it answers", || Connection::open(service.admin()).is_ok());
        }
        until("the outbox takes no more", || {
            service.metric("footfall_bounds_reached_total{bound=\"outbox\"}") > 0.0
        });
        let refused = service.send(&view("/a"));
        assert_eq!(refused.outcome(), (503, "journal-full".to_owned()), "killed {kills} times");
        assert_eq!(refused.header("retry-after"), Some("30"));
        let (status, text) = service.readiness();
        assert!(status == 503 && text.contains("[-]journal journal-full"), "{text}");
        assert!(service.metric("footfall_bounds_reached_total{bound=\"journal\"}") > 0.0);
        let bytes = outbox(&service);
        assert!(bytes >= full, "nothing that waits is dropped");
        assert!(
            bytes < 2.0 * full,
            "killed {kills} times: the newest batch is there once more, and no oftener"
        );
    }
    redis.restart();
    until("views are taken again", || service.send(&view("/a")).status == 204);
    taken += 1;
    service.until_applied();
    assert_eq!(service.counters(SITE)["views"]["all"], taken);
    service.stop();
    assert_eq!(redis.views(), taken, "what was answered 204 is in the store, once");
}
