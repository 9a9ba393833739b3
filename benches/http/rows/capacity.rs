//! Rows 10 and 11: what a site needs of a machine, by its views a day.
//!
//! A day's course is that of a newspaper: 1 % of its views in the quietest hour, 10 % in the busiest. A visit is
//! three views. Pages are read by Zipf's law, a twentieth of them new each day. Row 10: the CPU time in
//! half a minute of the busiest hour, in which each view brings two reads of the counters and a ping, as from the
//! page script. Row 11: memory and disk after two days, which pass as quickly as their views can be sent.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{LEAD_IN, first, send};
use crate::load::{CONNECTIONS, Load, Plan};
use crate::process::{CpuTime, resident_bytes};
use crate::report::Bar;
use crate::requests::{Headers, Pages, Requests, Views, Visitors, pings, reads};
use crate::servers::{Redis, Server, Settings, UnderTest};
use crate::{Bench, Fault};

/// Hundredths of the day's views, by the hour.
const COURSE: [u64; 24] = [1, 1, 1, 1, 1, 2, 4, 6, 7, 6, 5, 6, 7, 5, 4, 4, 4, 5, 6, 8, 10, 3, 2, 1];

/// Days that pass.
const DAYS: u64 = 2;

/// How long the busiest hour is watched.
const WATCHED: Duration = Duration::from_secs(30);

const HOUR: Duration = Duration::from_secs(3600);

struct Size {
    views: u64,
    pages: u32,
    /// Steps that an hour passes in: as many views between two as its ids have room for.
    steps: u64,
}

const SIZES: [Size; 3] = [
    Size { views: 100_000, pages: 5_000, steps: 2 },
    Size { views: 1_000_000, pages: 20_000, steps: 2 },
    Size { views: 20_000_000, pages: 100_000, steps: 6 },
];

/// How long what was counted may take to be in the outbox.
const FROZEN: Duration = Duration::from_secs(12);

/// Measures row 10 and prints it: it has no bars.
pub async fn busiest_hours(bench: &Bench) -> Result<Vec<Bar>, Fault> {
    println!("\nrow 10: the busiest hour of sites of three sizes");
    for size in &SIZES {
        for redis in [None, Redis::start()?] {
            size.busiest_hour(bench, redis.as_ref()).await?;
        }
    }
    Ok(Vec::new())
}

/// Measures row 11 and prints it: it has no bars.
pub async fn days(bench: &Bench) -> Result<Vec<Bar>, Fault> {
    println!("\nrow 11: {DAYS} days of sites of three sizes");
    for size in &SIZES {
        for redis in [None, Redis::start()?] {
            size.days(bench, redis.as_ref()).await?;
        }
    }
    Ok(Vec::new())
}

impl Size {
    /// The views of a day. The pages of a day are those of the day before except for the oldest.
    fn requests(&self, day: u64) -> Requests {
        let (visitors, headers) = (Visitors::EachFor(3), Headers::Browser);
        let pages = Pages::zipf(self.pages).from(day * u64::from(self.pages) / 20);
        Views { visitors, pages, headers, ids: true }.requests()
    }

    fn label(&self, redis: Option<&Redis>) -> String {
        format!("{} views a day, {} pages, {}", self.views, self.pages, redis.map_or("embedded", |_| "Redis"))
    }

    /// The CPU time in the busiest hour, as a share of one core, and the outbox' growth.
    async fn busiest_hour(&self, bench: &Bench, redis: Option<&Redis>) -> Result<(), Fault> {
        let server =
            Server::under_test(&bench.cores, &bench.under_test, Settings { redis, ..Settings::default() })?;
        let rate = self.views as f64 / 10.0 / HOUR.as_secs_f64();
        let pages = u64::from(self.pages);
        let mut loads = Vec::new();
        for (requests, rate, expect) in [
            (self.requests(0), rate, 204),
            (reads(pages), 2.0 * rate, 200),
            (pings(self.views / 60), rate, 204),
        ] {
            // Few enough that none idles for so long that the server closes it.
            let (to, connections) = (server.address, (rate as usize).clamp(1, CONNECTIONS));
            let plan = Plan { to, requests, first: first(1), count: None, connections, expect };
            loads.push(Load::scheduled(plan, rate).await?);
        }
        sleep(LEAD_IN).await;
        let (begun, before) = (Instant::now(), CpuTime::of(server.pid())?);
        let of_redis = || redis.map_or(Ok(None), |redis| CpuTime::of(redis.pid()).map(Some));
        let redis_before = of_redis()?;
        sleep(WATCHED).await;
        let watched = begun.elapsed();
        let share = |spent: Duration| 100.0 * spent.div_duration_f64(watched);
        let spent = CpuTime::of(server.pid())?.since(before);
        let redis_spent = of_redis()?.zip(redis_before).map(|(after, before)| after.since(before));
        for load in loads {
            if let Some((status, number)) = load.take()?.unexpected.first_key_value() {
                return Err(format!("{number} requests were answered {status}").into());
            }
            load.stop().await;
        }
        sleep(FROZEN).await;
        let views = server.metric("footfall_views_total{site=\"bench\"}")?;
        println!(
            "  {}: {rate:.1} views/s, {:.2} % of a core{}; outbox {:.0} B a view",
            self.label(redis),
            share(spent),
            redis_spent.map_or(String::new(), |spent| format!(", Redis {:.2} %", share(spent))),
            server.outbox_bytes()? as f64 / views
        );
        Ok(())
    }

    /// Memory and disk after some days.
    async fn days(&self, bench: &Bench, redis: Option<&Redis>) -> Result<(), Fault> {
        let settings = Settings { redis, flush_interval: "1s", ..Settings::default() };
        let mut server = Server::under_test(&bench.cores, &UnderTest::ByHand, settings)?;
        let (mut sent, mut resident) = (0, resident_bytes(server.pid())?);
        let mut stored = vec![redis.map_or(Ok(0), Redis::data_bytes)?];
        for day in 0..DAYS {
            let requests = self.requests(day);
            for step in 0..24 * self.steps {
                let views = self.views * COURSE[(step / self.steps) as usize] / 100 / self.steps;
                send(&server, &requests, sent, views).await?;
                sent += views;
                resident = resident.max(resident_bytes(server.pid())?);
                server.advance(HOUR / self.steps as u32)?;
            }
            while server.metric("footfall_unapplied_batches")? > 0.0 {
                sleep(Duration::from_millis(100)).await;
            }
            stored.push(redis.map_or_else(|| server.store_bytes(), Redis::data_bytes)?);
        }
        let first = (stored[1] - stored[0]) as f64;
        let further = (stored[2] - stored[1]) as f64;
        println!(
            "  {}: memory at most {:.0} MiB; stored {:.1} MB after a day, {:.1} MB more after the next",
            self.label(redis),
            resident as f64 / f64::from(1 << 20),
            first / 1e6,
            further / 1e6
        );
        Ok(())
    }
}
