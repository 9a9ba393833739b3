//! What the parts behind a decided view cost: the session table, the journal, the way to the store.
//!
//! `observe` is one look into a table of 100,000 sessions. `journal` is views from their admission until
//! they are written, in groups as 64 connections make them. `apply` is the stop of a service that holds
//! 5,000 views of some 2,000 pages: freeze, outbox, store, checkpoint; on Redis too where there is a
//! `redis-server` on the PATH. `metrics` is what a request pays for being counted, and what a scrape costs.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use chrono::Weekday;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use footfall::calendar::{Calendar, Zone};
use footfall::clock::{Clock, Moment};
use footfall::ingest::{Beacon, Kind, Page, Visitor, VisitorId};
use footfall::metrics::{Metrics, Shown};
use footfall::sessions::{self, Sessions};
use footfall::sites::{Identity, OriginCheck, PageRules, Registry, Site, SiteId, SiteKey, Sites};
use footfall::totals::{self, JournalConfig, OutboxConfig, StoreConfig, Sync, Totals, Written};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// 2026-11-23T08:19:00+07:00.
const MORNING_MS: i64 = 1_795_396_740_000;

const SITE: SiteId = SiteId(0);

/// Sessions in the table while it is measured.
const SESSIONS: u64 = 100_000;

/// New visitors that a table takes before it is built anew, so that it stays of one size.
const NEWCOMERS: u64 = 10_000;

/// Views of a group: one of each connection.
const GROUP: u64 = 64;

fn site() -> Site {
    Site {
        id: SITE,
        key: SiteKey::new("lamdong").expect("a legal key"),
        hosts: vec!["baolamdong.vn".to_owned()],
        origins: vec![],
        calendar: Calendar {
            zone: Zone::named("Asia/Ho_Chi_Minh").expect("a zone of the bundled database"),
            week_start: Weekday::Mon,
        },
        locale: "vi".to_owned(),
        identity: Identity::Address,
        pages: PageRules::default(),
        origin_check: OriginCheck::Lenient,
        honour: Vec::new(),
        filter: footfall::sites::Filter::default(),
        require_consent: false,
        readers: Default::default(),
        limits: Default::default(),
        newsroom_token: None,
    }
}

/// Pages of the length that news sites have.
fn pages(count: u64) -> Vec<Page> {
    let path = |n| format!("/kinh-te/202611/lam-dong-day-manh-xuat-khau-rau-hoa-{n:07x}");
    (0..count).map(|n| Page::trusted(SITE, &path(n))).collect()
}

/// One of some pages.
fn nth(pages: &[Page], n: u64) -> &Page {
    &pages[(n % pages.len() as u64) as usize]
}

/// A visitor as salted hashes are: spread over all 64 bits.
fn visitor(n: u64) -> Visitor {
    Visitor { today: VisitorId((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)), beside: None }
}

fn table(now: Moment) -> (Arc<Sessions>, Arc<Metrics>, Arc<Registry>) {
    let config = sessions::Config {
        online_window: Duration::from_secs(300),
        visit_timeout: Duration::from_secs(1800),
        max_sessions: 1_000_000,
        max_pages: 100_000,
    };
    let sites = Arc::new(Registry::from_pointee(Sites::new(vec![site()])));
    let metrics = Arc::new(Metrics::new(&sites.load(), config.max_sessions).expect("series"));
    (Arc::new(Sessions::new(config, 1, metrics.clone(), now)), metrics, sites)
}

/// A table in which visitor n is online on page n.
fn full_table(pages: &[Page], now: Moment) -> Arc<Sessions> {
    let (sessions, ..) = table(now);
    for n in 0..SESSIONS {
        sessions.observe(Some(visitor(n)), SITE, nth(pages, n), now);
    }
    sessions
}

fn observing(c: &mut Criterion) {
    let (clock, _hand) = Clock::by_hand(MORNING_MS);
    let (now, pages) = (clock.now(), pages(5_000));
    let sessions = full_table(&pages, now);
    let mut group = c.benchmark_group("observe");
    let mut n = 0;
    group.bench_function("a known visitor, same page", |b| {
        b.iter(|| {
            n = (n + 1) % SESSIONS;
            sessions.observe(Some(visitor(n)), SITE, nth(&pages, n), now)
        });
    });
    // Each round finds every visitor one page further on.
    let mut step = 0;
    group.bench_function("a known visitor, another page", |b| {
        b.iter(|| {
            step += 1;
            sessions.observe(
                Some(visitor(step % SESSIONS)),
                SITE,
                nth(&pages, step + step / SESSIONS + 1),
                now,
            )
        });
    });
    group.bench_function("a new visitor", |b| {
        b.iter_custom(|iterations| {
            let (mut left, mut spent) = (iterations, Duration::ZERO);
            while left > 0 {
                let some = left.min(NEWCOMERS);
                let sessions = full_table(&pages, now);
                let begun = Instant::now();
                for n in SESSIONS..SESSIONS + some {
                    sessions.observe(Some(visitor(n)), SITE, nth(&pages, n), now);
                }
                spent += begun.elapsed();
                left -= some;
            }
            spent
        });
    });
    group.finish();
}

/// Totals on a directory, with the task that writes their groups.
struct Open {
    totals: Arc<Totals>,
    committing: tokio::task::JoinHandle<()>,
    view: Beacon,
    visitors: u64,
}

impl Open {
    /// Opens them, and waits until the writer has nothing more to do for five minutes.
    async fn on(directory: &Path, store: &str) -> Open {
        // The clock does not advance, so no view waits too long for a sync, which is not measured here.
        let (clock, _hand) = Clock::by_hand(MORNING_MS);
        let (sessions, metrics, sites) = table(clock.now());
        let config = totals::Config {
            data_dir: directory.to_owned(),
            journal: JournalConfig {
                sync: Sync::EverySecond,
                max_unsynced: Duration::from_secs(5),
                max_bytes: 1 << 40,
            },
            outbox: OutboxConfig { retention: Duration::from_secs(72 * 3600), max_bytes: 2 << 30 },
            store: StoreConfig {
                url: store.parse().expect("the URL of a store"),
                tls_ca_file: None,
                flush_interval: Duration::from_secs(300),
                timeout: Duration::from_secs(2),
            },
            max_pages: 100_000,
            page_days: 62,
            fold_below: 0,
            max_ids: 1000,
            checkpoint_interval: Duration::from_secs(3600),
        };
        let before = inode(directory);
        let now = clock.now();
        let totals = Totals::open(config, clock, sites, sessions, metrics).await.expect("totals");
        // The first turn of the writer ends with a checkpoint, which replaces the file.
        for _ in 0..1000 {
            if inode(directory) != before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_ne!(inode(directory), before, "the writer's first turn has ended");
        assert!(!totals.stale(SiteId(0)), "the store answers");
        let committing = tokio::spawn({
            let totals = totals.clone();
            async move { totals.commit_groups().await }
        });
        let hour = site().calendar.span(now.unix_ms).hour;
        let page = Page::trusted(SITE, "/");
        let (visitor, id, is_shadow) = (None, None, false);
        let view = Beacon { kind: Kind::View, site: SITE, page, visitor, id, at: now, hour, is_shadow };
        Open { totals, committing, view, visitors: 0 }
    }

    /// Records views of one page after another as one group, and waits until it is written.
    async fn record(&mut self, pages: &[Page], views: u64) {
        let mut written: Vec<Written> = Vec::with_capacity(views as usize);
        for _ in 0..views {
            self.visitors += 1;
            let n = self.visitors;
            self.view.page = nth(pages, n).clone();
            self.view.visitor = Some(visitor(n % SESSIONS));
            written.push(self.totals.take(self.view.clone()).expect("room for a view"));
        }
        for view in written {
            view.await.expect("a group that is written");
        }
    }

    /// Stops them. How long that took.
    async fn stop(self) -> Duration {
        let begun = Instant::now();
        self.totals.stop(Duration::from_secs(60)).await;
        let took = begun.elapsed();
        assert!(!self.totals.stale(SiteId(0)), "the store has taken everything");
        self.committing.abort();
        self.committing.await.ok();
        took
    }
}

/// The checkpoint's place on the disk, which is another one whenever it is written.
fn inode(directory: &Path) -> Option<u64> {
    fs::metadata(directory.join("checkpoint")).ok().map(|file| file.ino())
}

fn journalling(c: &mut Criterion) {
    let (runtime, directory, pages) = (runtime(), directory(), pages(5_000));
    let mut open = runtime.block_on(Open::on(directory.path(), "embedded"));
    let mut group = c.benchmark_group("journal");
    group.throughput(Throughput::Elements(GROUP));
    // Some hundred megabytes of journal are written in this time.
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group.bench_function("a group of 64 views, taken until written", |b| {
        b.iter(|| runtime.block_on(open.record(&pages, GROUP)));
    });
    group.finish();
    runtime.block_on(open.stop());
}

fn applying(c: &mut Criterion) {
    const VIEWS: u64 = 5_000;
    let (runtime, pages) = (runtime(), pages(2_000));
    let mut group = c.benchmark_group("apply");
    group.throughput(Throughput::Elements(VIEWS));
    group.sample_size(20);
    let mut measure = |name: &str, store: &str| {
        // The same directory each time, as of a service that is restarted: the pages are there.
        let directory = directory();
        let once = async || {
            let mut open = Open::on(directory.path(), store).await;
            for first in (0..VIEWS).step_by(GROUP as usize) {
                open.record(&pages, GROUP.min(VIEWS - first)).await;
            }
            open.stop().await
        };
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| (0..iterations).map(|_| runtime.block_on(once())).sum());
        });
    };
    measure("5,000 views of 2,000 pages, embedded", "embedded");
    match Redis::start() {
        Some(redis) => measure("5,000 views of 2,000 pages, Redis", &redis.url()),
        None => eprintln!("Redis: not measured, no redis-server that starts on the PATH"),
    }
    group.finish();
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A directory on the disk that the build uses: that for temporary files may be memory.
fn directory() -> TempDir {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(parent).expect("the build's own directory");
    tempfile::Builder::new().prefix("bench-").tempdir_in(parent).expect("a directory")
}

/// A Redis of its own, in memory. Ends when dropped.
struct Redis {
    process: Child,
    port: u16,
}

impl Redis {
    /// Starts it; none if it does not answer.
    fn start() -> Option<Redis> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?.local_addr().ok()?.port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--save", "", "--appendonly", "no"]);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().ok()?;
        let redis = Redis { process, port };
        let up = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        up.then_some(redis)
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a request pays for being counted, and what a scrape of a hundred sites costs.
fn counting(c: &mut Criterion) {
    let sites = (0..100).map(|n| Site { id: SiteId(n), key: key(n), ..site() });
    let sites = Sites::new(sites.collect());
    let metrics = Metrics::new(&sites, 1).expect("series");
    let requests = metrics.requests.of("public", ["/api/v1/beacon"].into_iter());
    let mut group = c.benchmark_group("metrics");
    group.bench_function("a request, with both readings of the clock", |b| {
        b.iter(|| {
            let began = Instant::now();
            requests.answered(0, 204, began.elapsed());
        });
    });
    group.bench_function("the text of 100 sites", |b| {
        b.iter(|| {
            let totals = [Some(1_234_567); 5];
            let shown = |site| Shown { site, online: 321, views: totals, visits: totals, visitors: totals };
            metrics.sites.show(sites.iter().map(|site| shown(site)));
            metrics.text().expect("text")
        });
    });
    group.finish();
}

fn key(n: u16) -> SiteKey {
    SiteKey::new(&format!("site-{n}")).expect("a legal key")
}

criterion_group!(paths, observing, journalling, applying, counting);
criterion_main!(paths);
