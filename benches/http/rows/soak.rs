//! Row 16: ten minutes at 70 % of what the server takes, of everything at once, a tenth of it hostile.

use std::io::Write as _;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::live::follow;
use super::{first, watch};
use crate::load::{CONNECTIONS, Load, Plan};
use crate::process::resident_bytes;
use crate::report::{Bar, Slice, Slices};
use crate::requests::{self, Headers, Pages, Requests, Views, Visitors, mix};
use crate::servers::{Server, Settings, get};
use crate::{Bench, Fault};

/// Readers of live counters beside it.
const READERS: u64 = 500;

/// Of what the server takes at most.
const SHARE: f64 = 0.7;

/// Memory is flat if it grows by no more from the first third on: what is allocated anew has its own noise.
const MOST_GROWTH: f64 = 1.1;

/// What request number `k` is, of a hundred.
fn class(k: u64) -> u64 {
    mix(k ^ 0x50a7) % 100
}

/// Measures the row.
pub async fn measure(bench: &Bench, length: Duration) -> Result<Vec<Bar>, Fault> {
    println!("\nrow 16: views, pings, reads, {READERS} live readers and a tenth that is hostile");
    let server = Server::under_test(&bench.cores, &bench.under_test, Settings::default())?;
    let mut most = 0.0;
    // The first fills the tables.
    for number in 0..2 {
        let load = Load::closed_loop(plan(&server, number, None)).await?;
        let slice = watch(&server, &load, 2 * bench.slice).await?;
        load.stop().await;
        most = all(&slice) as f64 / slice.length.as_secs_f64();
    }
    println!("  at most {most:.0} requests/s");
    // What was on its way when a load was stopped is counted, or not.
    sleep(bench.slice).await;
    let before = views(&server)?;

    let (events, mut readers) = (Rc::default(), JoinSet::new());
    for _ in 0..READERS {
        follow(&server, &events, &mut readers).await?;
    }
    let count = (SHARE * most * length.as_secs_f64()) as u64;
    let begun = Instant::now();
    let mut load = Load::scheduled(plan(&server, 2, Some(count)), SHARE * most).await?;
    let settled = async {
        sleep(length / 3).await;
        resident_bytes(server.pid())
    };
    let (settled, tally) = tokio::join!(settled, load.done());
    let (settled, end) = (settled?, resident_bytes(server.pid())?);
    let slice = Slice { length: begun.elapsed(), tally: tally?, ..Slice::default() };
    println!(
        "  {:.0} s; {} MiB after a third of it, {} MiB at the end; {} events; other answers than 204: {:?}",
        slice.length.as_secs_f64(),
        settled >> 20,
        end >> 20,
        events.get(),
        slice.tally.unexpected
    );
    let growth = end as f64 / settled as f64;
    let gone = READERS - readers.len() as u64;
    readers.shutdown().await;
    let mut bars = judge(slice, count, views(&server)? - before);
    bars.push(Bar::at_most(16, "soak: memory from the first third on", growth, MOST_GROWTH, "×"));
    bars.push(Bar::at_most(16, "soak: live readers that were cut off", gone as f64, 0.0, "readers"));
    Ok(bars)
}

fn plan(server: &Server, number: u64, count: Option<u64>) -> Plan {
    let (to, requests) = (server.address, mixed());
    Plan { to, requests, first: first(number), count, connections: CONNECTIONS, expect: 204 }
}

/// What became of so many requests, of which so many views were counted.
fn judge(slice: Slice, count: u64, counted: u64) -> Vec<Bar> {
    let told = slice.tally.unexpected.get(&200).copied().unwrap_or_default();
    let numbers = first(2)..first(2) + count;
    // Pings and reads are answered as views are, and count nothing.
    let counts_nothing = |k: &u64| PINGS.contains(&class(*k)) || READS.contains(&class(*k));
    let accepted = slice.tally.latencies.len() as u64 + told - numbers.filter(counts_nothing).count() as u64;
    let failed: u64 = slice.tally.unexpected.range(500..).map(|(_, count)| count).sum();
    println!("  {accepted} views accepted, {counted} counted");
    Slices(vec![slice]).print("views and pings");
    let differ = accepted.abs_diff(counted) as f64;
    vec![
        Bar::at_most(16, "soak: answers 5xx", failed as f64, 0.0, "answers"),
        Bar::at_most(16, "soak: views accepted and not counted, or twice", differ, 0.0, "views"),
    ]
}

/// All answers of a slice.
fn all(slice: &Slice) -> u64 {
    slice.tally.latencies.len() as u64 + slice.tally.unexpected.values().sum::<u64>()
}

/// All views of the site, once they are shown.
fn views(server: &Server) -> Result<u64, Fault> {
    let (_, body) = get(server.address, "/api/v1/sites/bench/counters")?;
    let counters: Value = serde_json::from_slice(&body)?;
    Ok(counters["views"]["all"].as_u64().unwrap_or_default())
}

const VIEWS: std::ops::Range<u64> = 0..60;
const TOLD: std::ops::Range<u64> = 60..70;
const PINGS: std::ops::Range<u64> = 70..75;
const READS: std::ops::Range<u64> = 75..90;

/// Everything, each request by its number.
fn mixed() -> Requests {
    let of = |visitors, pages| Views { visitors, pages, headers: Headers::Browser, ids: true }.requests();
    let views = of(Visitors::Among(100_000), Pages::zipf(20_000));
    let (told, pings, reads) =
        (requests::told(100_000, 20_000, false), requests::pings(100_000), requests::reads(20_000));
    Rc::new(move |k, out| match class(k) {
        kind if VIEWS.contains(&kind) => views(k, out),
        kind if TOLD.contains(&kind) => told(k, out),
        kind if PINGS.contains(&kind) => pings(k, out),
        kind if READS.contains(&kind) => reads(k, out),
        kind => hostile(kind, k, out),
    })
}

/// A view of a made-up page, or what is refused or left out, on a connection that goes on.
fn hostile(kind: u64, k: u64, out: &mut Vec<u8>) {
    let (mut method, mut path, mut agent) =
        ("POST", "/api/v1/beacon", "Mozilla/5.0 (X11; rv:140.0) Gecko/20100101 Firefox/140.0");
    let mut origin = format!("https://{}", requests::HOST);
    let mut body = format!(r#"{{"site":"bench","url":"/{k:x}"}}"#);
    let [_, a, b, c] = (mix(k) as u32).to_be_bytes();
    let mut address = format!("10.{a}.{b}.{c}");
    match kind {
        // One that makes up pages, and nobody else is.
        90..93 => address = "203.0.113.9".to_owned(),
        93 => body.truncate(body.len() / 2),
        94 => body = body.replace("bench", "nobody"),
        95 => origin = "https://elsewhere.example".to_owned(),
        96 => agent = "Mozilla/5.0 (compatible; Xbot/2.1; +http://x.example/bot.html)",
        97 => body = body.replace("\"/", "\"ftp://"),
        98 => path = "/wp-login.php",
        _ => method = "PUT",
    }
    let length = body.len();
    // Writing into memory cannot fail.
    let _ = write!(
        out,
        "{method} {path} HTTP/1.1\r\nHost: stats.bench.example\r\nX-Forwarded-For: {address}\r\n\
         User-Agent: {agent}\r\nOrigin: {origin}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
}
