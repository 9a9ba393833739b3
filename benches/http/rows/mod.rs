//! The rows of the table of bars: what is sent, and what is made of the answers.

pub mod capacity;
pub mod fixed_rate;
pub mod growth;
pub mod live;
pub mod made_up;
pub mod memory;
pub mod reads;
pub mod recovery;
pub mod rest;
pub mod saturated;
pub mod soak;
pub mod synced;
pub mod told;
pub mod turns;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Fault;
use crate::load::{CONNECTIONS, Load, Plan};
use crate::process::CpuTime;
use crate::report::Slice;
use crate::requests::Requests;
use crate::servers::Server;

/// Views a second where the rate is fixed.
const RATE: f64 = 5000.0;

/// Connections and caches settle before a slice begins.
const LEAD_IN: Duration = Duration::from_millis(500);

/// The first request's number of the n-th slice: far enough apart that no number is sent twice to a server.
fn first(slice: u64) -> u64 {
    (slice + 1) << 32
}

/// Measures one slice of a running load.
async fn watch(server: &Server, load: &Load, length: Duration) -> Result<Slice, Fault> {
    sleep(LEAD_IN).await;
    load.take()?;
    let own = std::process::id();
    let begun = Instant::now();
    let before = (CpuTime::of(server.pid())?, CpuTime::of(own)?);
    sleep(length).await;
    let after = (CpuTime::of(server.pid())?, CpuTime::of(own)?);
    let cpu = after.0.since(before.0);
    let waited = after.0.waited_since(before.0).max(after.1.waited_since(before.1));
    Ok(Slice { length: begun.elapsed(), cpu, waited, tally: load.take()? })
}

/// One slice of as many views as a server takes.
async fn saturate(
    server: &Server,
    requests: &Requests,
    number: u64,
    connections: usize,
    length: Duration,
) -> Result<Slice, Fault> {
    let (to, requests) = (server.address, requests.clone());
    let plan = Plan { to, requests, first: first(number), count: None, connections, expect: 204 };
    let load = Load::closed_loop(plan).await?;
    let slice = watch(server, &load, length).await?;
    load.stop().await;
    Ok(slice)
}

/// Sends a number of views and waits for the answers, all 204.
async fn send(server: &Server, requests: &Requests, first: u64, count: u64) -> Result<(), Fault> {
    let (to, requests) = (server.address, requests.clone());
    let plan = Plan { to, requests, first, count: Some(count), connections: CONNECTIONS, expect: 204 };
    let answered = Load::closed_loop(plan).await?.done().await?;
    match answered.unexpected.first_key_value() {
        None => Ok(()),
        Some((status, count)) => Err(format!("{count} views were answered {status}").into()),
    }
}
