//! Row 1: as many beacons as the server takes.

use std::time::Duration;

use super::saturate;
use crate::load::CONNECTIONS;
use crate::report::{Bar, Slices};
use crate::requests::{Headers, Pages, Views, Visitors};
use crate::servers::{Server, Settings};
use crate::{Bench, Fault};

/// Slices of each server.
const ROUNDS: u64 = 6;

const WARM_UP: Duration = Duration::from_secs(2);

/// Measures the row.
pub async fn measure(bench: &Bench) -> Result<Vec<Bar>, Fault> {
    println!("\nrow 1: beacons on {CONNECTIONS} connections, saturated; 100,000 visitors, 5,000 pages");
    let views = Views {
        visitors: Visitors::Among(100_000),
        pages: Pages::Uniform(5_000),
        headers: Headers::Few,
        ids: true,
    };
    let requests = views.requests();
    let bare = Server::bare(&bench.cores, 0)?;
    let tested = Server::under_test(&bench.cores, &bench.under_test, Settings::default())?;
    for server in [&bare, &tested] {
        saturate(server, &requests, 0, CONNECTIONS, WARM_UP).await?;
    }
    let (mut of_bare, mut of_tested) = (Slices::default(), Slices::default());
    for round in 1..=ROUNDS {
        of_bare.0.push(saturate(&bare, &requests, round, CONNECTIONS, bench.slice).await?);
        of_tested.0.push(saturate(&tested, &requests, round, CONNECTIONS, bench.slice).await?);
        for (slices, name) in [(&of_bare, "bare"), (&of_tested, "footfall")] {
            slices.0.last().into_iter().for_each(|slice| slice.print(name));
        }
    }
    of_bare.print("bare");
    of_tested.print("footfall");
    Ok(vec![
        Bar::at_most(1, "beacon, saturated: CPU time", of_tested.ratio(&of_bare), 1.25, "× bare"),
        Bar::as_expected(1, "beacon, saturated", &of_tested),
    ])
}
