//! CPU time per request of footfall beside servers that people count with: nginx that only answers, nginx with three
//! counters in Lua, and webdis before a Redis; and beside the bare hyper server. The same client, alternated, in one run.
//!
//! `cargo bench --bench peers` takes two minutes; `--bin` measures another binary, such as the packaged one. On Debian:
//! apt-get install nginx libnginx-mod-http-lua webdis redis-server. What is not installed is named and left out. None of
//! the others keeps a view whose server dies, tells visitors apart, or knows weeks: the figures say what that costs.
#![allow(clippy::print_stdout, reason = "the table is what it is run for")]
#![allow(dead_code, reason = "the harness is that of the bench `http`, which uses all of it")]

mod bare;
mod by_hand;
mod load;
mod process;
mod report;
mod requests;
mod servers;

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use tokio::time::{Instant, sleep};

use load::{CONNECTIONS, Load, Plan};
use process::CpuTime;
use report::{Slice, Slices};
use requests::{Headers, Pages, Requests, Views, Visitors};
use servers::{Cores, Redis, Server, Settings, UnderTest};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Any failure to measure.
type Fault = Box<dyn Error>;

/// Slices of each server.
const ROUNDS: u64 = 6;

/// Where Debian puts modules of nginx.
const MODULES: &str = "/usr/lib/nginx/modules";

/// Measures footfall beside others.
#[derive(Parser)]
struct Arguments {
    /// Length of a slice.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// The binary to measure.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_footfall"))]
    bin: PathBuf,
    /// Added by cargo, and not used.
    #[arg(long, hide = true)]
    bench: bool,
    /// Serves as the bare server, with bodies of this many bytes.
    #[arg(long, hide = true)]
    serve_bare: Option<usize>,
}

/// A server with what it is asked and answers.
struct Peer {
    name: &'static str,
    server: Server,
    /// The Redis behind it, whose CPU time is part of its own.
    redis: Option<u32>,
    requests: Requests,
    expect: u16,
    slices: Slices,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("cannot measure: {fault}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(body) = arguments.serve_bare {
        return runtime.block_on(bare::serve(body));
    }
    runtime.block_on(tokio::task::LocalSet::new().run_until(measure(arguments)))
}

/// nginx with one worker, which answers as `location` says.
fn nginx(cores: &Cores, location: &str, has_lua: bool) -> Result<Option<Server>, Fault> {
    let modules = ["ndk_http_module.so", "ngx_http_lua_module.so"].map(|name| Path::new(MODULES).join(name));
    if has_lua && modules.iter().any(|module| !module.exists()) {
        return Ok(None);
    }
    let load: String = modules.iter().map(|module| format!("load_module {};\n", module.display())).collect();
    let (load, counts) = if has_lua { (load, "lua_shared_dict counts 64m;") } else { Default::default() };
    Server::of_others(cores, "nginx", &["-c"], |port, directory| {
        let at = directory.display();
        format!(
            "{load}daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/log;\n\
             events {{ worker_connections 1024; }}\nhttp {{\naccess_log off;\nkeepalive_requests 1000000000;\n{counts}\n\
             client_body_temp_path {at}/body;\nproxy_temp_path {at}/p;\nfastcgi_temp_path {at}/f;\n\
             uwsgi_temp_path {at}/u;\nscgi_temp_path {at}/s;\n\
             server {{\nlisten 127.0.0.1:{port};\nlocation / {{\n{location}\n}}\n}}\n}}\n"
        )
    })
}

/// Three counters of a page in memory: of all time, of the day, and of the site.
const LUA: &str = "content_by_lua_block {
    ngx.req.read_body()
    local page = string.match(ngx.req.get_body_data() or '', '\"url\":\"([^\"]*)\"') or ''
    local counts = ngx.shared.counts
    counts:incr(page, 1, 0)
    counts:incr('day:' .. ngx.today() .. page, 1, 0)
    counts:incr('all', 1, 0)
    ngx.exit(204)
}";

/// One increment in Redis a request.
fn increments() -> Requests {
    Rc::new(|k, out| {
        let page = requests::mix(k) % 5_000;
        let _ = write!(out, "GET /HINCRBY/pages/{page}/1 HTTP/1.1\r\nHost: stats.bench.example\r\n\r\n");
    })
}

async fn measure(arguments: &Arguments) -> Result<(), Fault> {
    let cores = Cores::take()?;
    println!("{cores}\n{CONNECTIONS} connections, saturated; 100,000 visitors, 5,000 pages");
    let views = || {
        let (visitors, pages) = (Visitors::Among(100_000), Pages::Uniform(5_000));
        Views { visitors, pages, headers: Headers::Few, ids: true }.requests()
    };
    let redis = Redis::start()?;
    let webdis = match &redis {
        None => None,
        Some(redis) => Server::of_others(&cores, "webdis", &[], |port, directory| {
            let (to, at) = (redis.port(), directory.display());
            format!(
                r#"{{"redis_host":"127.0.0.1","redis_port":{to},"http_host":"127.0.0.1","http_port":{port},"threads":1,"pool_size":1,"daemonize":false,"verbosity":1,"logfile":"{at}/webdis.log"}}"#
            )
        })?,
    };
    let footfall = |redis| {
        let settings = Settings { redis, ..Settings::default() };
        Server::under_test(&cores, &UnderTest::Footfall(arguments.bin.clone()), settings).map(Some)
    };
    let mut peers = Vec::new();
    let behind = redis.as_ref().map(Redis::pid);
    for (name, server, requests, redis) in [
        ("bare hyper", Some(Server::bare(&cores, 0)?), views(), None),
        ("nginx, 204 alone", nginx(&cores, "return 204;", false)?, views(), None),
        ("nginx, Lua", nginx(&cores, LUA, true)?, views(), None),
        ("webdis, Redis", webdis, increments(), behind),
        ("footfall, Redis", if redis.is_some() { footfall(redis.as_ref())? } else { None }, views(), behind),
        ("footfall, embedded", footfall(None)?, views(), None),
    ] {
        let expect = if name.starts_with("webdis") { 200 } else { 204 };
        match server {
            Some(server) => {
                peers.push(Peer { name, server, redis, requests, expect, slices: Slices::default() });
            }
            None => println!("{name}: left out, for it is not installed"),
        }
    }
    let slice = Duration::from_secs_f64(arguments.seconds);
    for round in 0..=ROUNDS {
        for peer in &mut peers {
            let measured = saturate(peer, round, slice).await?;
            // The first warms up.
            if round > 0 {
                measured.print(peer.name);
                peer.slices.0.push(measured);
            }
        }
    }
    println!("\n{:<20} {:>8} {:>9}", "", "× bare", "a second");
    for peer in &peers {
        let rate = peer.slices.0.iter().map(|slice| slice.answers() / slice.length.as_secs_f64());
        let most = rate.fold(0.0, f64::max);
        let unexpected = peer.slices.unexpected().map_or(String::new(), |text| format!("  {text}"));
        println!("{:<20} {:>8.2} {most:>9.0}{unexpected}", peer.name, peer.slices.ratio(&peers[0].slices));
    }
    Ok(())
}

/// One slice of as many requests as a server takes.
async fn saturate(peer: &Peer, round: u64, length: Duration) -> Result<Slice, Fault> {
    let (to, requests, expect) = (peer.server.address, peer.requests.clone(), peer.expect);
    let plan = Plan { to, requests, first: round << 32, count: None, connections: CONNECTIONS, expect };
    let load = Load::closed_loop(plan).await?;
    sleep(Duration::from_millis(500)).await;
    load.take()?;
    let pids: Vec<u32> = [peer.server.pid()].into_iter().chain(peer.redis).collect();
    let times = || pids.iter().map(|pid| CpuTime::of(*pid)).collect::<Result<Vec<_>, _>>();
    let (begun, before, own) = (Instant::now(), times()?, CpuTime::of(std::process::id())?);
    sleep(length).await;
    let (after, client) = (times()?, CpuTime::of(std::process::id())?);
    let cpu = after.iter().zip(&before).map(|(after, before)| after.since(*before)).sum();
    let waited = after[0].waited_since(before[0]).max(client.waited_since(own));
    let (length, tally) = (begun.elapsed(), load.take()?);
    load.stop().await;
    Ok(Slice { length, cpu, waited, tally })
}
