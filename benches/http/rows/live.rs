//! Row 9: readers of live counters, their memory and the CPU time of an event.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{CONNECTIONS, LEAD_IN, first, watch};
use crate::load::{Load, Plan};
use crate::process::resident_bytes;
use crate::report::{Bar, Slices, micros};
use crate::requests::{Headers, Pages, Views, Visitors};
use crate::servers::{Server, Settings};
use crate::{Bench, Fault};

/// Readers at once.
const READERS: u64 = 10_000;

/// Views a second while they read: enough that every second has its event.
const VIEWS: f64 = 50.0;

/// Longest wait for all readers to have their first event.
const PATIENCE: Duration = Duration::from_secs(60);

/// How an event begins, as a browser reads it.
const EVENT: &[u8] = b"\nevent: counters\n";

const REQUEST: &str = "GET /api/v1/sites/bench/live?page=/0 HTTP/1.1\r\nhost: stats.example\r\n\
    accept: text/event-stream\r\naccept-language: vi-VN,vi;q=0.9,en;q=0.6\r\ncache-control: no-cache\r\n\
    origin: https://news.example\r\nreferer: https://news.example/\r\n\
    user-agent: Mozilla/5.0 (Linux; Android 13; SM-A135F) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/140.0.0.0 Mobile Safari/537.36\r\n\r\n";

/// Measures the row. The CPU time of the events is all that the server spends while they are sent,
/// less what it spends on the same views without readers.
pub async fn measure(bench: &Bench) -> Result<Vec<Bar>, Fault> {
    println!("\nrow 9: {READERS} readers of live counters, {VIEWS} views/s beside");
    let views = Views {
        visitors: Visitors::Among(100_000),
        pages: Pages::Uniform(100),
        headers: Headers::Browser,
        ids: true,
    };
    let server = Server::under_test(&bench.cores, &bench.under_test, Settings::default())?;
    let (to, requests) = (server.address, views.requests());
    let plan = Plan { to, requests, first: first(0), count: None, connections: CONNECTIONS, expect: 204 };
    let load = Load::scheduled(plan, VIEWS).await?;
    let alone = watch(&server, &load, 3 * bench.slice).await?;
    let empty = resident_bytes(server.pid())?;

    let events = Rc::new(Cell::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        follow(&server, &events, &mut readers).await?;
    }
    let deadline = Instant::now() + PATIENCE;
    while events.get() < READERS && Instant::now() < deadline {
        sleep(LEAD_IN).await;
    }
    // Some events later all buffers have been used.
    sleep(3 * bench.slice).await;
    let each = resident_bytes(server.pid())?.saturating_sub(empty) as f64 / READERS as f64 / 1024.0;
    let counted = async {
        sleep(LEAD_IN).await;
        let before = events.get();
        sleep(3 * bench.slice).await;
        (events.get() - before) as f64
    };
    let (beside, sent) = tokio::join!(watch(&server, &load, 3 * bench.slice), counted);
    let beside = beside?;
    let gone = READERS - readers.len() as u64;
    load.stop().await;
    readers.shutdown().await;

    let spent =
        micros(beside.cpu) - micros(alone.cpu) * beside.length.as_secs_f64() / alone.length.as_secs_f64();
    println!("  {each:.1} KiB a reader; {sent:.0} events in {:.1} s", beside.length.as_secs_f64());
    Slices(vec![alone]).print("views alone");
    Slices(vec![beside]).print("beside readers");
    let enough = 0.9 * READERS as f64 * 3.0 * bench.slice.as_secs_f64();
    if sent < enough {
        return Err(format!("{sent:.0} events are fewer than one a second for each reader").into());
    }
    Ok(vec![
        Bar::at_most(9, "memory per live reader", each, 16.0, "KiB"),
        Bar::at_most(9, "CPU time per live reader and event", spent / sent, 10.0, "µs"),
        Bar::at_most(9, "live readers that were cut off", gone as f64, 0.0, "readers"),
    ])
}

/// Begins to read, and counts the events.
pub async fn follow(server: &Server, events: &Rc<Cell<u64>>, readers: &mut JoinSet<()>) -> Result<(), Fault> {
    let mut stream = TcpStream::connect(server.address).await?;
    stream.write_all(REQUEST.as_bytes()).await?;
    let events = events.clone();
    readers.spawn_local(async move {
        let mut piece = vec![0; 2048];
        while let Ok(length @ 1..) = stream.read(&mut piece).await {
            let found = piece[..length].windows(EVENT.len()).filter(|window| *window == EVENT).count();
            events.set(events.get() + found as u64);
        }
    });
    Ok(())
}
