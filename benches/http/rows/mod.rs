//! The rows of the table of bars: what is sent, and what is made of the answers.

pub mod fixed_rate;
pub mod memory;
pub mod reads;
pub mod saturated;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Fault;
use crate::load::Load;
use crate::process::ProcessorTime;
use crate::report::Slice;
use crate::servers::Server;

/// Views a second where the rate is fixed.
const RATE: f64 = 5000.0;

/// Most sessions, where their memory is not the question.
const MAX_SESSIONS: u32 = 1_000_000;

/// Connections and caches settle before a slice begins.
const LEAD_IN: Duration = Duration::from_millis(500);

/// The first request's number of the n-th slice: far enough apart that no number is sent twice to a server.
fn first(slice: u64) -> u64 {
    (slice + 1) << 32
}

/// Watches one slice of a running load.
async fn watch(server: &Server, load: &Load, length: Duration) -> Result<Slice, Fault> {
    sleep(LEAD_IN).await;
    load.take()?;
    let own = std::process::id();
    let begun = Instant::now();
    let before = (ProcessorTime::of(server.pid())?, ProcessorTime::of(own)?);
    sleep(length).await;
    let after = (ProcessorTime::of(server.pid())?, ProcessorTime::of(own)?);
    let processor = after.0.since(before.0);
    let waited = after.0.waited_since(before.0).max(after.1.waited_since(before.1));
    Ok(Slice { length: begun.elapsed(), processor, waited, tally: load.take()? })
}
