//! Rows 2 and 5: a fixed rate of views with flushes and store commits inside, and the store's work for
//! them.

use std::time::Duration;

use super::{LEAD_IN, RATE, first, watch};
use crate::load::{CONNECTIONS, Load, Plan};
use crate::process::{CpuTime, written_bytes};
use crate::report::{Bar, Slice, Slices, median, micros};
use crate::requests::{Headers, Pages, Requests, Views, Visitors};
use crate::servers::{Redis, Server, Settings};
use crate::{Bench, Fault};

/// Slices of each server.
const ROUNDS: u64 = 2;

/// Measures the rows. Each slice of a tested server is between two of the bare one.
pub async fn measure(bench: &Bench) -> Result<Vec<Bar>, Fault> {
    println!("\nrow 2: {RATE} views/s on {CONNECTIONS} connections; 100,000 visitors, 20,000 pages (Zipf)");
    let views = Views {
        visitors: Visitors::Among(100_000),
        pages: Pages::zipf(20_000),
        headers: Headers::Browser,
        ids: true,
    };
    let bare = Server::bare(&bench.cores, 0)?;
    let row = FixedRate { bench, requests: views.requests(), bare };
    let mut bars = row.embedded().await?;
    match Redis::start()? {
        Some(redis) => bars.extend(row.redis(&redis).await?),
        None => println!("  Redis: not measured, no redis-server on PATH"),
    }
    Ok(bars)
}

struct FixedRate<'a> {
    bench: &'a Bench,
    requests: Requests,
    bare: Server,
}

/// The results of all rounds of one store.
struct Rounds {
    /// Of the server under test.
    tested: Slices,
    /// CPU time beside the bare server's slices before and after; the mean.
    ratio: f64,
    /// Views that were sent, those of the lead-ins included.
    views: f64,
}

impl FixedRate<'_> {
    /// The embedded store, in slices of two of its flush intervals of ten seconds.
    async fn embedded(&self) -> Result<Vec<Bar>, Fault> {
        let Bench { cores, under_test, slice } = self.bench;
        let server = Server::under_test(cores, under_test, Settings::default())?;
        self.slice(&server, "embedded, warm-up", 0, *slice).await?;
        let before = written_bytes(server.pid())?;
        let rounds = self.rounds(&server, "embedded", 10 * *slice).await?;
        let written = (written_bytes(server.pid())? - before) as f64 / rounds.views;
        let mut bars = rounds.bars("embedded");
        // The kernel counts per process: the journal's and the outbox' bytes cannot be told from the store's.
        bars.push(Bar::at_most(
            5,
            "embedded, with journal and outbox: written per view",
            written,
            500.0,
            "B",
        ));
        Ok(bars)
    }

    /// Redis, and its own work.
    async fn redis(&self, redis: &Redis) -> Result<Vec<Bar>, Fault> {
        let Bench { cores, under_test, slice } = self.bench;
        let server =
            Server::under_test(cores, under_test, Settings { redis: Some(redis), ..Settings::default() })?;
        self.slice(&server, "Redis, warm-up", 0, *slice).await?;
        let (before, appended) = (CpuTime::of(redis.pid())?, redis.append_bytes()?);
        let rounds = self.rounds(&server, "Redis", 6 * *slice).await?;
        let work = micros(CpuTime::of(redis.pid())?.since(before)) / rounds.views;
        let append = (redis.append_bytes()? - appended) as f64 / rounds.views;
        let mut bars = rounds.bars("Redis");
        bars.push(Bar::at_most(5, "Redis: its CPU time per view", work, 4.0, "µs"));
        bars.push(Bar::at_most(5, "Redis: append file per view", append, 150.0, "B"));
        Ok(bars)
    }

    /// Alternates the bare server and the one under test, the bare one first and last.
    async fn rounds(&self, server: &Server, store: &str, length: Duration) -> Result<Rounds, Fault> {
        let mut bare = vec![self.bare_slice(0).await?];
        let mut tested = Slices::default();
        for round in 1..=ROUNDS {
            tested.0.push(self.slice(server, store, round, length).await?);
            bare.push(self.bare_slice(round).await?);
        }
        let beside = bare.windows(2).map(|pair| median(pair.iter().map(Slice::cost).collect()));
        let ratios = tested.0.iter().zip(beside).map(|(slice, bare)| slice.cost() / bare).collect();
        Slices(bare).print("bare");
        tested.print(store);
        let with_lead_in = |slice: &Slice| slice.answers() * (1.0 + LEAD_IN.div_duration_f64(slice.length));
        let views = tested.0.iter().map(with_lead_in).sum();
        Ok(Rounds { tested, ratio: median(ratios), views })
    }

    async fn bare_slice(&self, number: u64) -> Result<Slice, Fault> {
        self.slice(&self.bare, "bare", number, 2 * self.bench.slice).await
    }

    /// One slice of one server.
    async fn slice(
        &self,
        server: &Server,
        label: &str,
        number: u64,
        length: Duration,
    ) -> Result<Slice, Fault> {
        let plan = Plan {
            to: server.address,
            requests: self.requests.clone(),
            first: first(number),
            count: None,
            connections: CONNECTIONS,
            expect: 204,
        };
        let load = Load::scheduled(plan, RATE).await?;
        let slice = watch(server, &load, length).await?;
        load.stop().await;
        slice.print(label);
        Ok(slice)
    }
}

impl Rounds {
    /// The bars of row 2 for one store.
    fn bars(&self, store: &str) -> Vec<Bar> {
        let what = format!("beacon at {RATE}/s, {store}");
        let latency = self.tested.latency().p999;
        vec![
            Bar::at_most(2, format!("{what}: CPU time"), self.ratio, 1.5, "× bare"),
            Bar::at_most(2, format!("{what}: p99.9 from due"), latency, 25.0, "ms"),
            Bar::as_expected(2, &what, &self.tested),
        ]
    }
}
