//! Row 3: as many beacons as the server takes when each is synced to the disk before its answer.

use std::fs::File;
use std::io::Write;

use tokio::time::Instant;

use super::{LEAD_IN, saturate};
use crate::report::{Bar, Slices};
use crate::requests::{Headers, Pages, Views, Visitors};
use crate::servers::{Server, Settings, directory};
use crate::{Bench, Fault};

/// Views that wait for one sync.
const CONNECTIONS: usize = 512;

/// Slices of each server.
const ROUNDS: u64 = 4;

/// Syncs before each slice of the server under test.
const SYNCS: usize = 250;

/// What one sync has to bring to the disk: about the records of 512 views.
static GROUP: [u8; 64 * 1024] = [0; 64 * 1024];

/// Measures the row.
pub async fn measure(bench: &Bench) -> Result<Vec<Bar>, Fault> {
    println!("\nrow 3: beacons synced before the answer, on {CONNECTIONS} connections, saturated");
    let views = Views {
        visitors: Visitors::Among(100_000),
        pages: Pages::Uniform(5_000),
        headers: Headers::Few,
        ids: true,
    };
    let requests = views.requests();
    let bare = Server::bare(&bench.cores, 0)?;
    let settings = Settings { sync: "always", ..Settings::default() };
    let tested = Server::under_test(&bench.cores, &bench.under_test, settings)?;
    saturate(&tested, &requests, 0, CONNECTIONS, LEAD_IN).await?;

    let (mut of_bare, mut of_tested, mut syncs) = (Slices::default(), Slices::default(), Vec::new());
    for round in 1..=ROUNDS {
        syncs.extend(syncs_alone()?);
        of_bare.0.push(saturate(&bare, &requests, round, CONNECTIONS, bench.slice).await?);
        of_tested.0.push(saturate(&tested, &requests, round, CONNECTIONS, bench.slice).await?);
        for (slices, name) in [(&of_bare, "bare"), (&of_tested, "footfall")] {
            slices.0.last().into_iter().for_each(|slice| slice.print(name));
        }
    }
    of_bare.print("bare");
    of_tested.print("footfall");
    syncs.sort_unstable_by(f64::total_cmp);
    let sync = syncs.get(syncs.len() * 99 / 100).copied().unwrap_or(f64::NAN);
    println!("  fdatasync alone    p99 {sync:.2} ms");
    let (ratio, p99) = (of_tested.ratio(&of_bare), of_tested.latency().p99);
    let most = ((3.0 * sync + 5.0) * 10.0).round() / 10.0;
    Ok(vec![
        Bar::at_most(3, "beacon, synced: CPU time", ratio, 1.8, "× bare"),
        Bar::at_most(3, "beacon, synced: p99 (3 × fdatasync + 5 ms)", p99, most, "ms"),
        Bar::as_expected(3, "beacon, synced", &of_tested),
    ])
}

/// How long fdatasync takes on the file system of the server's files, while nothing else is written;
/// milliseconds.
fn syncs_alone() -> Result<Vec<f64>, Fault> {
    let directory = directory()?;
    let mut file = File::create(directory.path().join("synced"))?;
    let mut once = || {
        file.write_all(&GROUP)?;
        let begun = Instant::now();
        file.sync_data()?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    };
    (0..SYNCS).map(|_| once()).collect()
}
