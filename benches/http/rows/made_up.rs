//! Row 15: readers while somebody makes up pages.

use std::rc::Rc;

use super::{RATE, first, watch};
use crate::load::{CONNECTIONS, Load, Plan};
use crate::report::{Bar, Slices};
use crate::requests::{self, Headers, Pages, Views, Visitors};
use crate::servers::{Server, Settings};
use crate::{Bench, Fault};

/// Views a second of pages that nobody else reads, all from one address.
const MADE_UP: f64 = 20_000.0;

/// Slices with and without them.
const ROUNDS: u64 = 2;

/// Measures the row. Each slice is one flush interval of the embedded store, of ten seconds.
pub async fn measure(bench: &Bench) -> Result<Vec<Bar>, Fault> {
    println!("\nrow 15: {RATE} views/s of 20,000 pages (Zipf), and beside them {MADE_UP}/s of made-up pages");
    let views = Views {
        visitors: Visitors::Among(100_000),
        pages: Pages::zipf(20_000),
        headers: Headers::Browser,
        ids: true,
    };
    let readers = views.requests();
    let made_up: requests::Requests = Rc::new(requests::made_up);
    let server = Server::under_test(&bench.cores, &bench.under_test, Settings::default())?;
    let plan = |requests: &requests::Requests, number, expect| Plan {
        to: server.address,
        requests: requests.clone(),
        first: first(number),
        count: None,
        connections: CONNECTIONS,
        expect,
    };
    let (mut alone, mut beside) = (Slices::default(), Slices::default());
    // In the first round the service learns the pages, and the other one's first ones are taken.
    for round in 0..=ROUNDS {
        for (number, slices) in (2 * round..).zip([&mut alone, &mut beside]) {
            let load = Load::scheduled(plan(&readers, 2 * number, 204), RATE).await?;
            let mut attack = None;
            if number % 2 == 1 {
                attack = Some(Load::scheduled(plan(&made_up, 2 * number + 1, 429), MADE_UP).await?);
            }
            let slice = watch(&server, &load, 5 * bench.slice).await?;
            load.stop().await;
            if let Some(attack) = attack {
                attack.stop().await;
            }
            if round > 0 {
                slices.0.push(slice);
            }
        }
    }
    alone.print("alone");
    beside.print("beside made-up");
    let more = beside.latency().p99 - alone.latency().p99;
    Ok(vec![
        Bar::at_most(15, "beacon beside made-up pages: p99 more than alone", more, 25.0, "ms"),
        Bar::as_expected(15, "beacon beside made-up pages", &beside),
    ])
}
