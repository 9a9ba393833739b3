//! What it costs to decide a beacon, from the body's bytes on.

use std::hint::black_box;

use chrono::{NaiveDate, Weekday};
use criterion::{Criterion, criterion_group, criterion_main};
use footfall::calendar::{Calendar, Zone};
use footfall::clock::Moment;
use footfall::ingest::{
    Client, ClientHeader, Context, Page, Proxies, Robots, Said, SaltTable, SiteSalts, Spans, accept,
};
use footfall::sites::{Filter, Identity, OriginCheck, PageRules, Site, SiteId, SiteKey, Sites};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue, ORIGIN, REFERER, USER_AGENT};

/// 2026-11-23T08:19:00+07:00.
const MORNING_MS: i64 = 1_795_396_740_000;

const BODY: &str = r#"{"site":"lamdong","url":"https://baolamdong.vn/kinh-te/202611/lam-dong-day-manh-xuat-khau-rau-hoa-5c2137a/","kind":"view","id":"f3b9c1d25e7a4408"}"#;

const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";

const BRANDS: &[u8] = br#""Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99""#;

fn calendar() -> Calendar {
    let zone = Zone::named("Asia/Ho_Chi_Minh").expect("a zone of the bundled database");
    Calendar { zone, week_start: Weekday::Mon }
}

fn sites() -> Sites {
    Sites::new(vec![Site {
        id: SiteId(0),
        key: SiteKey::new("lamdong").expect("a legal key"),
        hosts: vec!["baolamdong.vn".to_owned(), "www.baolamdong.vn".to_owned()],
        origins: vec![],
        calendar: calendar(),
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
    }])
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(ORIGIN, HeaderValue::from_static("https://baolamdong.vn"));
    headers.insert(REFERER, HeaderValue::from_static("https://baolamdong.vn/"));
    headers.insert("x-forwarded-for", HeaderValue::from_static("113.161.72.19"));
    headers
}

fn deciding(c: &mut Criterion) {
    let (sites, headers) = (sites(), headers());
    let spans = Spans::new(&sites);
    let day = NaiveDate::from_ymd_opt(2026, 11, 23).expect("a date");
    let salts = SaltTable { sites: vec![SiteSalts { days: vec![(day, [7; 16])] }], id_key: [9; 16] };
    let proxies = Proxies {
        header: ClientHeader::List(HeaderName::from_static("x-forwarded-for")),
        trusted: vec!["127.0.0.0/8".parse().expect("a network")],
    };
    let peer = [127, 0, 0, 1].into();
    let now = Moment { unix_ms: MORNING_MS, uptime_ms: 1 };
    let robots = Robots::new(&[]).expect("words that can be looked for");
    let context = |client: Client| Context {
        sites: &sites,
        spans: &spans,
        salts: &salts,
        robots: &robots,
        headers: &headers,
        client,
        now,
    };
    let client = proxies.client(peer, &headers);
    let said = Said::from_json(BODY.as_bytes()).expect("a beacon");

    c.bench_function("body to beacon, client found", |b| {
        b.iter(|| {
            let client = proxies.client(black_box(peer), &headers);
            let said = Said::from_json(black_box(BODY.as_bytes())).expect("a beacon");
            accept(&said, &context(client)).expect("a view")
        });
    });
    c.bench_function("from_json", |b| b.iter(|| Said::from_json(black_box(BODY.as_bytes()))));
    c.bench_function("client", |b| b.iter(|| proxies.client(black_box(peer), &headers)));
    c.bench_function("accept", |b| b.iter(|| accept(black_box(&said), &context(client))));
    let bare = Said { id: None, ..said.clone() };
    c.bench_function("accept without id", |b| b.iter(|| accept(black_box(&bare), &context(client))));
}

fn normalising(c: &mut Criterion) {
    let kept = PageRules { query: vec!["id".to_owned()], ..PageRules::default() };
    let plain = PageRules::default();
    let cases = [
        ("page, plain", &plain, "/kinh-te/202611/lam-dong-day-manh-xuat-khau-rau-hoa-5c2137a/"),
        ("page, query kept", &kept, "/bai-viet/chi-tiet.aspx?utm_source=fb&id=20261123&fbclid=IwAR0x"),
        ("page, escaped", &plain, "/tin-t%E1%BB%A9c/%C4%91%C3%A0-l%E1%BA%A1t-m%C3%B9a-hoa"),
    ];
    // As many names as a beacon has room for, and parameters.
    let three = ["id", "trang", "chuyên-mục"].map(str::to_owned);
    let three = PageRules { query: three.to_vec(), ..PageRules::default() };
    let hostile = ["&a=b", "&%CC%81", "&id=b", ";a=b", ";sid="].map(|part| {
        let first = if part.starts_with('&') { "/a?" } else { "/a" };
        first.to_owned() + &part.repeat(3900 / part.len())
    });
    let hostile = hostile.each_ref().map(|path| (&path[..8], &three, &path[..]));
    for (name, rules, path) in cases.into_iter().chain(hostile) {
        c.bench_function(name, |b| b.iter(|| Page::normalise(SiteId(0), rules, black_box(path))));
    }
}

/// A user agent that was seen before, and one that was not.
fn robots(c: &mut Criterion) {
    let robots = Robots::new(&[]).expect("words that can be looked for");
    c.bench_function("user agent, seen", |b| {
        b.iter(|| robots.mark(black_box(AGENT.as_bytes()), BRANDS).is_some())
    });
    let mut agents: Vec<String> =
        (0..100_000).map(|n| AGENT.replace("142.0.0.0", &format!("142.0.{n}.0"))).collect();
    agents.push("curl/8.11.1".to_owned());
    let mut next = agents.iter().cycle();
    c.bench_function("user agent, not seen", |b| {
        b.iter(|| robots.mark(next.next().map_or(b"", |agent| agent.as_bytes()), BRANDS).is_some());
    });
}

fn hours(c: &mut Criterion) {
    let calendar = calendar();
    c.bench_function("span, not remembered", |b| b.iter(|| calendar.span(black_box(MORNING_MS))));
}

criterion_group!(ingest, deciding, normalising, robots, hours);
criterion_main!(ingest);
