//! CPU time of the server per request, beside a bare hyper server: same client, same request
//! bytes, same run, alternated. Throughput and latency vary with what else the machine does; the CPU time
//! that a server spends on one request is steady to a few percent, and so is its ratio.
//!
//! `cargo bench --bench http` measures every row in about eight minutes and prints a table of the bars.
//! Rows: 1 beacons, saturated · 2 beacons at a fixed rate with flushes and store commits inside, on the
//! embedded store and on Redis, with the store's work per view (row 5) · 3 beacons that are synced before
//! the answer · 4 counters while beacons arrive · 6 memory per online session · 7 beacons as pages and
//! sessions grow · 8 recovery · 9 readers of live counters · 12 the longest turn of the event loop · 13 work at rest
//! · 14 views that are told the counters of their page, and all requests of a view's first minute
//! · 15 readers while somebody makes up pages
//! · 10 and 11, if asked for: what sites of three sizes need of a machine, in the busiest hour (5 minutes) and after two days (half an
//! hour) · 16, if asked for: ten minutes at 70 % of what the server takes, of everything at once, a tenth of it hostile.
//!
//! `--rows 1,4` chooses, `--seconds` stretches the slices, `--bin` measures another binary, `--check` ends
//! with 1 if a bar is missed (2: nothing could be measured), `--bare-twice` puts the bare server in
//! footfall's place: a run whose ratios must come out at 1, and whose distance from 1 is the error to expect.
//!
//! A slice in which server or client was kept from its core by others is marked `disturbed`: on a busy
//! machine latencies mean little, and CPU time grows because others have emptied the caches.
//!
//! The servers run on one core, the client (and Redis) on another, where there are two cores and
//! `taskset`. Both servers use the same allocator, so that the ratio compares nothing else.
//! Needs Linux: CPU time, memory and written bytes are read from `/proc`.
#![allow(clippy::print_stdout, reason = "the table is what it is run for")]

mod bare;
mod by_hand;
mod load;
mod process;
mod report;
mod requests;
mod rows;
mod servers;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use report::Bar;
use servers::{Cores, UnderTest};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Any failure to measure.
type Fault = Box<dyn Error>;

/// Measures footfall beside a bare hyper server.
#[derive(Parser)]
struct Arguments {
    /// The rows to measure.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3,4,6,7,8,9,12,13,14,15")]
    rows: Vec<u8>,
    /// Length of a slice of rows 1, 3, 4 and 7; row 2 takes 2 (bare), 6 (Redis) and 10 (embedded) times as long.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How long row 16 lasts, seconds.
    #[arg(long, default_value_t = 600)]
    soak: u64,
    /// The binary to measure.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_footfall"))]
    bin: PathBuf,
    /// Ends with 1 if a bar is missed.
    #[arg(long)]
    check: bool,
    /// Measures the bare server in footfall's place.
    #[arg(long)]
    bare_twice: bool,
    /// Added by cargo, and not used.
    #[arg(long, hide = true)]
    bench: bool,
    /// Serves as footfall, with a clock that is set and turns that are timed as standard input says.
    #[arg(long, hide = true, requires = "config")]
    serve_by_hand: bool,
    /// The configuration of that.
    #[arg(long, hide = true)]
    config: Option<PathBuf>,
    /// Serves as the bare server, with bodies of this many bytes.
    #[arg(long, hide = true)]
    serve_bare: Option<usize>,
}

/// What every row needs.
struct Bench {
    /// Where servers and client run.
    cores: Cores,
    /// What is measured beside the bare server.
    under_test: UnderTest,
    /// Length of a slice.
    slice: Duration,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(bars) => {
            let missed = bars.iter().any(|bar| !bar.met);
            ExitCode::from(u8::from(arguments.check && missed))
        }
        Err(fault) => {
            eprintln!("cannot measure: {fault}");
            ExitCode::from(2)
        }
    }
}

/// Builds the one-threaded runtime of client or bare server, and runs it.
fn run(arguments: &Arguments) -> Result<Vec<Bar>, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    if let Some(body) = arguments.serve_bare {
        runtime.block_on(bare::serve(body))?;
        return Ok(Vec::new());
    }
    if let Some(config) = arguments.config.as_deref().filter(|_| arguments.serve_by_hand) {
        runtime.block_on(by_hand::serve(config))?;
        return Ok(Vec::new());
    }
    runtime.block_on(local.run_until(measure(arguments)))
}

/// Measures the rows asked for and prints the table.
async fn measure(arguments: &Arguments) -> Result<Vec<Bar>, Fault> {
    if !(0.1..=600.0).contains(&arguments.seconds) {
        return Err("--seconds: 0.1 to 600".into());
    }
    let cores = Cores::take()?;
    println!("{cores}");
    let under_test = match arguments.bare_twice {
        true => UnderTest::Bare,
        false => UnderTest::Footfall(arguments.bin.clone()),
    };
    let bench = Bench { cores, under_test, slice: Duration::from_secs_f64(arguments.seconds) };
    let mut bars = Vec::new();
    for row in &arguments.rows {
        bars.extend(match row {
            1 => rows::saturated::measure(&bench).await?,
            2 => rows::fixed_rate::measure(&bench).await?,
            3 => rows::synced::measure(&bench).await?,
            4 => rows::reads::measure(&bench).await?,
            6 => rows::memory::measure(&bench).await?,
            7 => rows::growth::measure(&bench).await?,
            8 => rows::recovery::measure(&bench).await?,
            9 => rows::live::measure(&bench).await?,
            10 => rows::capacity::busiest_hours(&bench).await?,
            11 => rows::capacity::days(&bench).await?,
            12 => rows::turns::measure(&bench).await?,
            13 => rows::rest::measure(&bench).await?,
            14 => rows::told::measure(&bench).await?,
            15 => rows::made_up::measure(&bench).await?,
            16 => rows::soak::measure(&bench, Duration::from_secs(arguments.soak)).await?,
            other => return Err(format!("there is no row {other}: 1 to 4, 6 to 16").into()),
        });
    }
    report::print(&bars);
    Ok(bars)
}
