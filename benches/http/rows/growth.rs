//! Row 7: what a beacon costs as pages and sessions grow from thousands to millions.

use super::{first, saturate, send};
use crate::load::CONNECTIONS;
use crate::report::{Bar, Slices};
use crate::requests::{Headers, Pages, Requests, Views, Visitors};
use crate::servers::{Server, Settings};
use crate::{Bench, Fault};

/// Slices of each server.
const ROUNDS: u64 = 4;

/// Visitors and pages.
const FEW: (u64, u64) = (5_000, 2_000);
const MANY: (u64, u64) = (2_000_000, 1_000_000);

/// Measures the row: two servers, each filled before. All visitors and pages are equally likely, so that
/// hardly anything that a beacon needs of the large tables is in the CPU's caches. No flush falls into
/// the slices: what the store has to do grows with the pages that are viewed between two, and is row 5's.
pub async fn measure(bench: &Bench) -> Result<Vec<Bar>, Fault> {
    println!("\nrow 7: beacons on {CONNECTIONS} connections, saturated, as pages and sessions grow");
    let (few, of_few) = filled(bench, FEW).await?;
    let (many, of_many) = filled(bench, MANY).await?;
    let (mut with_few, mut with_many) = (Slices::default(), Slices::default());
    for round in 1..=ROUNDS {
        with_few.0.push(saturate(&few, &of_few, round, CONNECTIONS, bench.slice).await?);
        with_many.0.push(saturate(&many, &of_many, round, CONNECTIONS, bench.slice).await?);
        for (slices, name) in [(&with_few, "thousands"), (&with_many, "millions")] {
            slices.0.last().into_iter().for_each(|slice| slice.print(name));
        }
    }
    let ratio = with_many.ratio(&with_few);
    Ok(vec![
        Bar::at_most(7, "beacon, millions beside thousands: CPU time", ratio, 1.2, "×"),
        Bar::as_expected(7, "beacon, millions", &with_many),
    ])
}

/// A server that has seen every visitor, and most of the pages.
async fn filled(bench: &Bench, (visitors, pages): (u64, u64)) -> Result<(Server, Requests), Fault> {
    let settings = Settings {
        flush_interval: "5m",
        max_sessions: 3_000_000,
        max_pages: 2_000_000,
        ..Settings::default()
    };
    let server = Server::under_test(&bench.cores, &bench.under_test, settings)?;
    let views = |visitors, ids| {
        Views { visitors, pages: Pages::Uniform(pages), headers: Headers::Few, ids }.requests()
    };
    // The slices' requests, one after another.
    send(&server, &views(Visitors::Distinct, false), 0, visitors).await?;
    println!("  {visitors} visitors, {pages} pages: filled");
    let requests = views(Visitors::Among(visitors), true);
    send(&server, &requests, first(0), 100_000).await?;
    Ok((server, requests))
}
