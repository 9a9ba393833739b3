//! Row 13: work at rest. What a hundred sites with three years behind them ask of Redis while nobody reads, and how
//! long a start on them takes.

use chrono::{Days, NaiveDate, Utc};
use tokio::time::{Instant, sleep};

use crate::report::Bar;
use crate::servers::{Redis, Server, Settings, site_key};
use crate::{Bench, Fault};

const SITES: u32 = 100;

const DAYS: u64 = 3 * 365;

/// Visitors of a day and a site: so many that Redis keeps each day's sketch in full (12 KiB of 1.2 GiB, shared by
/// copies of one value).
const VISITORS: u32 = 3000;

/// Measures the row; nothing where there is no Redis.
pub async fn measure(bench: &Bench) -> Result<Vec<Bar>, Fault> {
    println!("\nrow 13: {SITES} sites with {DAYS} days behind them, at rest on Redis");
    let Some(redis) = Redis::start()? else {
        println!("  not measured, no redis-server on PATH");
        return Ok(Vec::new());
    };
    let settings = Settings { redis: Some(&redis), sites: SITES, ..Settings::default() };
    // It makes what else a site has in Redis.
    drop(Server::under_test(&bench.cores, &bench.under_test, settings)?);
    let today = Utc::now().date_naive();
    for site in 0..SITES {
        fill(&redis, &site_key(site), today)?;
    }
    let began = Instant::now();
    let server = Server::under_test(&bench.cores, &bench.under_test, settings)?;
    let start = began.elapsed().as_secs_f64();
    println!("  ready {start:.2} s after the start");
    // What a start still has to do is done.
    sleep(5 * bench.slice).await;
    let (before, began) = (redis.commands()?, Instant::now());
    sleep(15 * bench.slice).await;
    let commands = (redis.commands()? - before) as f64 / began.elapsed().as_secs_f64();
    drop(server);
    Ok(vec![
        Bar::at_most(13, "at rest: store commands a second", commands, 100.0, ""),
        Bar::at_most(13, "at rest: start until the store's figures are read", start, 2.0, "s"),
    ])
}

/// Three years of a site.
fn fill(redis: &Redis, site: &str, today: NaiveDate) -> Result<(), Fault> {
    let key = |name: &str| format!("footfall:{{{site}}}:{name}");
    let sketch = key("sketch");
    let mut commands = vec![format!("HSET {} since {}", key("meta"), today - Days::new(DAYS))];
    let visitors: Vec<String> = (0..VISITORS).map(|n| n.to_string()).collect();
    commands.push(format!("PFADD {sketch} {}", visitors.join(" ")));
    for day in (1..=DAYS).map(|days| today - Days::new(days)) {
        commands.push(format!("HSET {} views 9000 visits 4000", key(&format!("day:{day}"))));
        commands.push(format!("COPY {sketch} {}", key(&format!("day:{day}:visitors"))));
    }
    commands.push(format!("DEL {sketch}"));
    redis.carry_out(&commands)
}
