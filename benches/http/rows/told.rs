//! Row 14: beacons that are answered with the counters of their page, as the page script sends them.

use super::{first, watch};
use crate::load::{CONNECTIONS, Load, Plan};
use crate::report::{Bar, Slice, Slices};
use crate::requests::{self, Requests};
use crate::servers::{Server, Settings, get};
use crate::{Bench, Fault};

/// Pages that are viewed, and visitors who view them, as in row 1.
const PAGES: u64 = 5_000;
const VISITORS: u64 = 100_000;

/// Slices of each server and kind of request.
const ROUNDS: u64 = 6;

/// Requests of a view's first minute: the view, and half a minute later a ping.
const OF_A_MINUTE: f64 = 2.0;

/// Measures the row.
pub async fn measure(bench: &Bench) -> Result<Vec<Bar>, Fault> {
    println!("\nrow 14: beacons that are told the counters, on {CONNECTIONS} connections, saturated");
    let views = requests::told(VISITORS, PAGES, false);
    let minutes = requests::told(VISITORS, PAGES, true);
    let tested = Server::under_test(&bench.cores, &bench.under_test, Settings::default())?;
    slice(bench, &tested, &views, 0).await?;
    let (status, body) = get(tested.address, &requests::counters(0))?;
    println!("  {status}, a body of {} bytes", body.len());
    let bare = Server::bare(&bench.cores, body.len())?;
    slice(bench, &bare, &views, 0).await?;
    let [mut of_bare, mut of_views, mut of_minutes] = [(); 3].map(|()| Slices::default());
    for round in 1..=ROUNDS {
        of_bare.0.push(slice(bench, &bare, &views, 2 * round).await?);
        of_views.0.push(slice(bench, &tested, &views, 2 * round).await?);
        of_minutes.0.push(slice(bench, &tested, &minutes, 2 * round + 1).await?);
        for (slices, name) in [(&of_bare, "bare"), (&of_views, "views"), (&of_minutes, "views and pings")] {
            slices.0.last().into_iter().for_each(|slice| slice.print(name));
        }
    }
    of_views.print("views");
    let minute = OF_A_MINUTE * of_minutes.ratio(&of_bare);
    Ok(vec![
        Bar::at_most(14, "view told its counters: CPU time", of_views.ratio(&of_bare), 1.3, "× bare"),
        Bar::as_expected(14, "views", &of_views),
        Bar::at_most(14, "a view's first minute: CPU time", minute, 2.6, "× a bare request"),
        Bar::as_expected(14, "views and pings", &of_minutes),
    ])
}

async fn slice(bench: &Bench, to: &Server, requests: &Requests, number: u64) -> Result<Slice, Fault> {
    let (to_address, requests) = (to.address, requests.clone());
    let connections = CONNECTIONS;
    let plan = Plan { to: to_address, requests, first: first(number), count: None, connections, expect: 200 };
    let load = Load::closed_loop(plan).await?;
    let slice = watch(to, &load, bench.slice).await?;
    load.stop().await;
    Ok(slice)
}
