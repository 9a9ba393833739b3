//! What processor time a line of an access log costs until its day is summed up: read, decided, put in order, its
//! session found. Beside it, where it is installed, what GoAccess takes to count the same file.
//!
//! A log of two days of 20,000 visitors on 5,000 pages; of five lines one is the view of a page, as on news sites, or
//! each.

use std::fmt::Write;
use std::io::Cursor;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use chrono::{DateTime, Weekday};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use footfall::calendar::{Calendar, Zone};
use footfall::clock::Moment;
use footfall::ingest::Robots;
use footfall::logs::{Past, Source};
use footfall::sessions;
use footfall::sites::{Filter, Identity, OriginCheck, PageRules, Site, SiteId, SiteKey};
use rustix::time::{ClockId, clock_gettime};

/// 2026-11-23T08:19:00+07:00.
const MORNING_S: u64 = 1_795_396_740;

const LINES: u64 = 200_000;

const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";

fn site() -> Site {
    Site {
        id: SiteId(0),
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
        filter: Filter::default(),
        require_consent: false,
        readers: Default::default(),
        limits: Default::default(),
        newsroom_token: None,
    }
}

/// Two lines a second.
fn log(a_view_in: u64, line: impl Fn(DateTime<chrono::Utc>, &str, &str) -> String) -> &'static [u8] {
    let mut log = String::new();
    for n in 0..LINES {
        let at = DateTime::from_timestamp((MORNING_S + n / 2) as i64, 0).expect("a date");
        let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let (visitor, page) = (random % 20_000, random % 5_000);
        let address = format!("113.161.{}.{}", visitor >> 8, visitor & 255);
        let target = match n % a_view_in {
            0 => format!("/kinh-te/202611/lam-dong-day-manh-xuat-khau-rau-hoa-{page:07x}/"),
            _ => format!("/media/202611/images/anh-minh-hoa-rau-hoa-{page:07x}-900x600.jpg?v=3"),
        };
        writeln!(log, "{}", line(at, &address, &target)).expect("memory");
    }
    log.leak().as_bytes()
}

fn combined(at: DateTime<chrono::Utc>, address: &str, target: &str) -> String {
    let at = at.format("%d/%b/%Y:%H:%M:%S +0000");
    format!(
        r#"{address} - - [{at}] "GET {target} HTTP/1.1" 200 41230 "https://baolamdong.vn/kinh-te/" "{AGENT}""#
    )
}

fn nginx(at: DateTime<chrono::Utc>, address: &str, target: &str) -> String {
    let at = at.to_rfc3339();
    format!(
        r#"{{"time":"{at}","remote_addr":"{address}","request_method":"GET","request_uri":"{target}","status":"200","body_bytes_sent":"41230","request_time":"0.003","http_referer":"https://baolamdong.vn/kinh-te/","http_user_agent":"{AGENT}","http_host":"baolamdong.vn"}}"#
    )
}

fn caddy(at: DateTime<chrono::Utc>, address: &str, target: &str) -> String {
    let at = at.timestamp();
    format!(
        r#"{{"level":"info","ts":{at}.5241024,"logger":"http.log.access.log0","msg":"handled request","request":{{"remote_ip":"{address}","remote_port":"41342","client_ip":"{address}","proto":"HTTP/2.0","method":"GET","host":"baolamdong.vn","uri":"{target}","headers":{{"User-Agent":["{AGENT}"],"Accept":["*/*"],"Accept-Encoding":["gzip, deflate, br"]}},"tls":{{"resumed":false,"version":772,"cipher_suite":4865,"proto":"h2","server_name":"baolamdong.vn"}}}},"bytes_read":0,"user_id":"","duration":0.000929675,"size":41230,"status":200,"resp_headers":{{"Server":["Caddy"],"Content-Type":["text/html; charset=utf-8"]}}}}"#
    )
}

fn counting(c: &mut Criterion) {
    let site = site();
    let sessions = sessions::Config {
        online_window: Duration::from_secs(300),
        visit_timeout: Duration::from_secs(1800),
        max_sessions: 1_000_000,
        max_pages: 100_000,
    };
    let mut group = c.benchmark_group("logs");
    group.throughput(Throughput::Elements(LINES)).sample_size(10);
    for (name, log) in [
        ("combined, each line a view", log(1, combined)),
        ("combined, one line of five a view", log(5, combined)),
        ("nginx JSON, one line of five a view", log(5, nginx)),
        ("Caddy JSON, one line of five a view", log(5, caddy)),
    ] {
        let past = || {
            let log = Source::of("a log", Cursor::new(log)).expect("bytes in memory");
            let now = Moment { unix_ms: MORNING_S as i64 * 2000, uptime_ms: 0 };
            let robots = Robots::new(&[]).expect("words that can be looked for");
            Past::new(&site, sessions.clone(), vec![log], None, now, robots, [7; 16]).expect("metrics")
        };
        let days = |mut past: Past| {
            let day = past.next_day().expect("a log that is whole").expect("a day");
            assert!(day.views > 1000 && !past.rest().lines.contains_key("malformed-line"));
            while past.next_day().expect("a log that is whole").is_some() {}
        };
        let timed = |past| {
            let began = processor_time();
            days(past);
            processor_time() - began
        };
        group.bench_function(name, |b| b.iter_custom(|times| (0..times).map(|_| timed(past())).sum()));
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("access.log");
    std::fs::write(&file, log(5, combined)).expect("room for the log");
    if goaccess(&file).is_some() {
        group.bench_function("GoAccess on the second of them", |b| {
            b.iter_custom(|times| (0..times).filter_map(|_| goaccess(&file)).sum());
        });
    }
    group.finish();
}

#[expect(clippy::disallowed_methods, reason = "not the machine's time, but that of a thread")]
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// The processor time in which GoAccess counts a log; none where it is not installed.
fn goaccess(log: &Path) -> Option<Duration> {
    // The second line that `times` writes is of what the shell waited for: `0m1.230s 0m0.040s`.
    let shell = r#"goaccess "$0" --log-format=COMBINED --no-global-config -o "$0.json" >&2 && times"#;
    let counted = Command::new("bash").args(["-c", shell]).arg(log).output().ok()?;
    let times = String::from_utf8(counted.stdout).ok()?;
    let seconds = |time: &str| {
        let (minutes, seconds) = time.strip_suffix('s')?.split_once('m')?;
        Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
    };
    let times = times.lines().nth(1)?.split(' ').map(seconds);
    times.sum::<Option<f64>>().map(Duration::from_secs_f64)
}

criterion_group!(logs, counting);
criterion_main!(logs);
