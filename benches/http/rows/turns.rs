//! Row 12: the longest turn of the event loop, which is how long a beacon may have to wait for it.

use std::time::Duration;

use super::{RATE, first, send, watch};
use crate::load::{CONNECTIONS, Load, Plan};
use crate::report::Bar;
use crate::requests::{Headers, Pages, Requests, Views, Visitors};
use crate::servers::{Server, Settings, UnderTest};
use crate::{Bench, Fault};

/// Sessions, and ids that are remembered.
const VISITORS: u64 = 1_000_000;

/// Of them came in each second.
const A_SECOND: u64 = 10_000;

const PAGES: u64 = 100_000;

/// What happens while turns are timed, and by how much the clock is set forward for it.
const WHILE: [(&str, Duration); 4] = [
    ("flushes and checkpoints", Duration::ZERO),
    ("online readers leave", Duration::from_secs(6 * 60)),
    ("ids are forgotten", Duration::from_secs(15 * 60)),
    ("visits end", Duration::from_secs(20 * 60)),
];

/// Measures the row: a full service, a fixed rate of views, and in turn all that is done to many sessions, ids or
/// pages at once.
pub async fn measure(bench: &Bench) -> Result<Vec<Bar>, Fault> {
    println!("\nrow 12: the longest turn; {VISITORS} sessions and ids, {PAGES} pages, {RATE} views/s");
    let settings = Settings {
        max_sessions: 1_100_000,
        checkpoint_interval: "5s",
        max_pages: 200_000,
        ..Settings::default()
    };
    let mut server = Server::under_test(&bench.cores, &UnderTest::ByHand, settings)?;
    let views = |visitors| {
        Views { visitors, pages: Pages::Uniform(PAGES), headers: Headers::Few, ids: true }.requests()
    };
    let each = views(Visitors::Distinct);
    for came in (0..VISITORS).step_by(A_SECOND as usize) {
        send(&server, &each, came, A_SECOND).await?;
        server.advance(Duration::from_secs(1))?;
    }
    let requests = views(Visitors::Among(VISITORS));
    let mut longest = Duration::ZERO;
    for (number, (what, later)) in (0..).zip(WHILE) {
        server.longest_turn()?;
        server.advance(later)?;
        slice(&server, &requests, number, 6 * bench.slice).await?;
        let turn = server.longest_turn()?;
        println!("  {what:<26} {:>6.2} ms", turn.as_secs_f64() * 1000.0);
        longest = longest.max(turn);
    }
    let longest = longest.as_secs_f64() * 1000.0;
    Ok(vec![Bar::at_most(12, "longest turn of the event loop: its thread's CPU time", longest, 5.0, "ms")])
}

async fn slice(server: &Server, requests: &Requests, number: u64, length: Duration) -> Result<(), Fault> {
    let (to, requests) = (server.address, requests.clone());
    let plan =
        Plan { to, requests, first: first(number), count: None, connections: CONNECTIONS, expect: 204 };
    let load = Load::scheduled(plan, RATE).await?;
    watch(server, &load, length).await?;
    load.stop().await;
    Ok(())
}
