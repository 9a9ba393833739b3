//! Row 8: the start after a kill.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::{saturate, send};
use crate::load::CONNECTIONS;
use crate::report::Bar;
use crate::requests::{Headers, Pages, Requests, Views, Visitors};
use crate::servers::{Redis, Server, Settings, UnderTest};
use crate::{Bench, Fault};

/// Views in the journal, none of them in a batch.
const RECORDS: u64 = 2_000_000;

/// Bytes at which the outbox counts as full, and what it is allowed.
const FULL: u64 = 120 << 20;
const OUTBOX: &str = "128 MiB";

/// The longest time for filling it.
const PATIENCE: Duration = Duration::from_secs(180);

/// Measures the row: the time from a kill to the first 204. What a long journal adds to it is the time that
/// its records take.
pub async fn measure(bench: &Bench) -> Result<Vec<Bar>, Fault> {
    println!("\nrow 8: from a kill to the first 204");
    let UnderTest::Footfall(binary) = &bench.under_test else {
        println!("  not measured: the bare server has nothing to recover");
        return Ok(Vec::new());
    };
    let mut bars = vec![journal(bench, binary).await?];
    match Redis::start()? {
        Some(redis) => bars.push(outbox(bench, binary, &redis).await?),
        None => println!("  a full outbox: not measured, no redis-server on PATH"),
    }
    Ok(bars)
}

/// Starts with a journal of which nothing is in a batch.
async fn journal(bench: &Bench, binary: &Path) -> Result<Bar, Fault> {
    let settings = Settings { flush_interval: "5m", ..Settings::default() };
    let mut server = Server::under_test(&bench.cores, &bench.under_test, settings)?;
    let little = recover(bench, binary, &mut server, "little to recover")?;
    send(&server, &views(10_000), 0, RECORDS).await?;
    let much = recover(bench, binary, &mut server, &format!("{RECORDS} views in the journal"))?;
    let rate = RECORDS as f64 / (much - little) / 1e6;
    Ok(Bar::at_least(8, "recovery: journal records", rate, 2.0, "million/s"))
}

/// Starts with an outbox that is full of batches, because the store was away; it is back at the start.
async fn outbox(bench: &Bench, binary: &Path, redis: &Redis) -> Result<Bar, Fault> {
    // Views come twenty times as fast as elsewhere: with checkpoints that much closer, those after the last
    // one are about as many.
    let settings = Settings {
        redis: Some(redis),
        outbox: OUTBOX,
        max_pages: 2_000_000,
        checkpoint_interval: "3s",
        ..Settings::default()
    };
    let mut server = Server::under_test(&bench.cores, &bench.under_test, settings)?;
    redis.halt(true)?;
    let filled = fill_outbox(&server).await;
    redis.halt(false)?;
    filled?;
    let took = recover(bench, binary, &mut server, &format!("an outbox of {OUTBOX}, full"))?;
    Ok(Bar::at_most(8, format!("kill to first 204, {OUTBOX} of outbox"), took, 2.0, "s"))
}

fn views(pages: u64) -> Requests {
    let (visitors, pages) = (Visitors::Among(100_000), Pages::Uniform(pages));
    Views { visitors, pages, headers: Headers::Few, ids: true }.requests()
}

/// Kills a server, once: then what it recovered is in a batch, or applied. The time to the first 204, seconds.
fn recover(bench: &Bench, binary: &Path, server: &mut Server, what: &str) -> Result<f64, Fault> {
    let mut view = Vec::new();
    views(1)(u64::MAX, &mut view);
    let took = server.kill_and_recover(&bench.cores, binary, &view)?.as_secs_f64();
    println!("  {what:<34} {took:>6.2} s");
    Ok(took)
}

/// Sends views of a million pages, for a batch names every page once, until the outbox is full.
async fn fill_outbox(server: &Server) -> Result<(), Fault> {
    let (requests, begun) = (views(1_000_000), Instant::now());
    for slice in 0.. {
        if server.outbox_bytes()? >= FULL {
            break;
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("the outbox was not full within {PATIENCE:?}").into());
        }
        saturate(server, &requests, slice, CONNECTIONS, Duration::from_secs(2)).await?;
    }
    Ok(())
}
