//! Row 4: counters read while beacons arrive.

use tokio::time::Instant;

use super::{RATE, first, watch};
use crate::load::{CONNECTIONS, Load, Plan};
use crate::report::{Bar, Slice, Slices, median, micros};
use crate::requests::{self, Headers, Pages, Requests, Views, Visitors};
use crate::servers::{Server, Settings, get};
use crate::{Bench, Fault};

/// Pages that are viewed and read.
const PAGES: u64 = 10_000;

/// Slices of each server.
const ROUNDS: u64 = 4;

/// Measures the row.
pub async fn measure(bench: &Bench) -> Result<Vec<Bar>, Fault> {
    println!(
        "\nrow 4: counters over {PAGES} pages on {CONNECTIONS} connections, saturated, beside {RATE} beacons/s"
    );
    let views = Views {
        visitors: Visitors::Among(100_000),
        pages: Pages::Uniform(PAGES),
        headers: Headers::Few,
        ids: true,
    };
    let row = Reads { bench, views: views.requests(), reads: requests::reads(PAGES) };
    let tested = Server::under_test(&bench.cores, &bench.under_test, Settings::default())?;
    // Every page, so that a read finds something, and the body has its usual length.
    row.send(&tested, &row.views, 4 * PAGES, 204).await?;
    row.send(&tested, &row.reads, 4 * PAGES, 200).await?;
    let body = typical_body(&tested)?;
    println!("  a body of {body} bytes");
    let bare = Server::bare(&bench.cores, body)?;
    row.send(&bare, &row.reads, 4 * PAGES, 200).await?;

    let (mut of_bare, mut of_tested) = (Side::default(), Side::default());
    for round in 1..=ROUNDS {
        row.round(&bare, "bare", round, &mut of_bare).await?;
        row.round(&tested, "footfall", round, &mut of_tested).await?;
    }
    of_bare.reads.print("bare");
    of_tested.reads.print("footfall");
    let ratios = of_tested.costs.iter().zip(&of_bare.costs).map(|(tested, bare)| tested / bare);
    let ratio = median(ratios.collect());
    Ok(vec![
        Bar::at_most(4, format!("counters beside {RATE} beacons/s: CPU time"), ratio, 1.25, "× bare"),
        Bar::as_expected(4, "counters", &of_tested.reads),
        Bar::as_expected(4, "beacons before and beside them", &of_tested.beacons),
    ])
}

/// What one server did.
#[derive(Default)]
struct Side {
    /// CPU time per read, microseconds, the beacons' share taken off.
    costs: Vec<f64>,
    /// The reads; their CPU time is that of reads and beacons.
    reads: Slices,
    /// The beacons, alone and beside the reads.
    beacons: Slices,
}

struct Reads<'a> {
    bench: &'a Bench,
    views: Requests,
    reads: Requests,
}

impl Reads<'_> {
    /// One slice of beacons alone, then one of beacons and reads, both saturated. Of the second, each
    /// beacon is taken off at its cost in the first. (At 5,000/s alone, a beacon pays for a wake-up of
    /// the server, several times its own cost; among reads the server is awake.)
    async fn round(&self, server: &Server, name: &str, round: u64, side: &mut Side) -> Result<(), Fault> {
        let load = Load::closed_loop(self.plan(server, &self.views, 2 * round, 204)).await?;
        let alone = watch(server, &load, self.bench.slice).await?;
        load.stop().await;

        let beacons = Load::scheduled(self.plan(server, &self.views, 2 * round + 1, 204), RATE).await?;
        let reads = Load::closed_loop(self.plan(server, &self.reads, round, 200)).await?;
        let begun = Instant::now();
        let both = watch(server, &reads, self.bench.slice).await?;
        let beside = Slice { length: begun.elapsed(), tally: beacons.take()?, ..Slice::default() };
        reads.stop().await;
        beacons.stop().await;

        // The beacons were counted from the lead-in on.
        let among = beside.answers() * both.length.div_duration_f64(beside.length);
        let cost = (micros(both.cpu) - alone.cost() * among) / both.answers();
        alone.print(&format!("{name}, beacons"));
        both.print(&format!("{name}, both"));
        println!("  {:<18} {cost:>20.2} µs a read", "");
        side.costs.push(cost);
        side.beacons.0.extend([alone, beside]);
        side.reads.0.push(both);
        Ok(())
    }

    /// Sends a number of requests and waits for the answers.
    async fn send(&self, to: &Server, requests: &Requests, count: u64, expect: u16) -> Result<(), Fault> {
        let plan = Plan { count: Some(count), ..self.plan(to, requests, 0, expect) };
        let answered = Load::closed_loop(plan).await?.done().await?;
        match answered.unexpected.first_key_value() {
            None => Ok(()),
            Some((status, _)) => Err(format!("expected {expect}, was answered {status}").into()),
        }
    }

    fn plan(&self, to: &Server, requests: &Requests, number: u64, expect: u16) -> Plan {
        let (to, requests) = (to.address, requests.clone());
        Plan { to, requests, first: first(number), count: None, connections: CONNECTIONS, expect }
    }
}

/// The mean length of the body over some pages.
fn typical_body(server: &Server) -> Result<usize, Fault> {
    const ASKED: u64 = 100;
    let mut bytes = 0;
    for n in 0..ASKED {
        let (status, body) = get(server.address, &requests::counters(n * (PAGES / ASKED)))?;
        if status != 200 {
            return Err(format!("counters were answered {status}").into());
        }
        bytes += body.len();
    }
    Ok(bytes / usize::try_from(ASKED)?)
}
