use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Cursor, Write};
use std::time::Duration;

use chrono::{DateTime, FixedOffset, Weekday};
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::calendar::{Calendar, Zone};
use crate::ingest::read_page;
use crate::sites::{Filter, Identity, OriginCheck, PageRules, RobotRule, SiteId, SiteKey};

const TIMEOUT_S: i64 = 1800;

fn site(zone: &str) -> Site {
    Site {
        id: SiteId(3),
        key: SiteKey::new("lamdong").unwrap(),
        hosts: vec!["baolamdong.vn".to_owned(), "www.baolamdong.vn".to_owned()],
        origins: vec![],
        calendar: Calendar { zone: Zone::named(zone).unwrap(), week_start: Weekday::Mon },
        locale: "vi".to_owned(),
        identity: Identity::Address,
        pages: PageRules { query: vec!["id".to_owned()], ..PageRules::default() },
        origin_check: OriginCheck::Strict,
        honour: Vec::new(),
        filter: Filter { robots: RobotRule::Count, ..Filter::default() },
        require_consent: false,
        readers: Default::default(),
        limits: Default::default(),
        newsroom_token: None,
    }
}

fn sessions(max_sessions: usize, max_pages: usize) -> sessions::Config {
    sessions::Config {
        online_window: Duration::from_secs(300),
        visit_timeout: Duration::from_secs(TIMEOUT_S as u64),
        max_sessions,
        max_pages,
    }
}

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

fn source(name: &str, bytes: Vec<u8>) -> Source {
    Source::of(name, Cursor::new(bytes)).unwrap()
}

/// Read by a machine whose clock shows 2026-11-30.
fn past(site: &Site, logs: Vec<Source>, until: Option<NaiveDate>) -> Past {
    let now = Moment { unix_ms: 1_795_996_800_000, uptime_ms: 0 };
    Past::new(site, sessions(100_000, 1000), logs, until, now, Robots::new(&[]).unwrap(), [7; 16]).unwrap()
}

/// All days, what is left out, and how reading ended.
fn read(mut past: Past) -> (Vec<Day>, Rest, Result<(), String>) {
    let mut days: Vec<Day> = Vec::new();
    let end = loop {
        match past.next_day() {
            Ok(Some(day)) => {
                // What is entered names pages as texts, which are read as those of a person are.
                for (page, _) in day.pages.iter().filter(|(page, _)| &**page != OTHER) {
                    assert_eq!(read_page(&past.rules.site, page).unwrap().as_str(), &**page);
                }
                days.push(day);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    (days, past.rest().clone(), end)
}

fn read_text(text: &str) -> (Vec<Day>, BTreeMap<&'static str, u64>) {
    let (days, rest, end) = read(past(&site("UTC"), vec![source("a.log", text.into())], None));
    end.unwrap();
    (days, rest.lines)
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

/// `at` is `day/month time`, all of 2026.
fn line(at: &str, client: u8, request: &str, status: u16) -> String {
    let (day, time) = at.split_once(' ').unwrap();
    format!("198.51.100.{client} - - [{day}/2026:{time} +0000] \"{request}\" {status} 1 \"-\" \"agent\"\n")
}

fn view(at: &str, client: u8, path: &str) -> String {
    line(at, client, &format!("GET {path} HTTP/1.1"), 200)
}

/// One view, as the plain model sees it.
#[derive(Clone, Debug)]
struct Seen {
    at_s: i64,
    client: u8,
    agent: u8,
    page: u8,
    host: u8,
    /// How long after it its line was written, less than [`DISORDER_MS`].
    late_s: i64,
    log: Index,
    format: u8,
    offset_h: i32,
    noise: bool,
}

/// A zone with an instant at which its clocks change, and its offsets before and after that, seconds.
const ZONES: [(&str, &str, i64, i64); 4] = [
    ("Europe/Berlin", "2026-03-29T01:00:00Z", 3600, 7200),
    ("Europe/Berlin", "2025-10-26T01:00:00Z", 7200, 3600),
    // Set back at 00:01: a minute of the new day is followed by an hour of the day before.
    ("America/St_Johns", "2006-10-29T02:31:00Z", -9000, -12600),
    // A whole day was left out.
    ("Pacific/Apia", "2011-12-30T10:00:00Z", -36000, 50400),
];

fn seen() -> impl Strategy<Value = Vec<Seen>> {
    let one = (
        // Near the change, or near one of the midnights and the end of the sessions around it.
        (
            prop_oneof![-4000..4000i64, -90_000..90_000i64, Just(0i64)],
            select(vec![0, 0, 0, 1, -1, 4]),
            0..60i64,
        ),
        (0..6u8, 0..2u8, 0..5u8, 0..3u8),
        (any::<Index>(), 0..4u8, -11..12i32, any::<bool>()),
    );
    let one = one.prop_map(
        |((near_s, days, late_s), (client, agent, page, host), (log, format, offset_h, noise))| {
            let at_s = near_s + days * 86_400;
            Seen { at_s, client, agent, page, host, late_s, log, format, offset_h, noise }
        },
    );
    prop::collection::vec(one, 1..120)
}

const HOSTS: [&str; 3] = ["baolamdong.vn", "www.baolamdong.vn", ""];

impl Seen {
    fn line(&self) -> String {
        let offset = FixedOffset::east_opt(self.offset_h * 3600).unwrap();
        let at = DateTime::from_timestamp(self.at_s, 0).unwrap().with_timezone(&offset);
        let (client, agent) = (format!("203.0.113.{}", self.client), format!("agent/{}", self.agent));
        let target = format!("/tin/{}.html?x={}&id=1", self.page, self.offset_h);
        let host = HOSTS[usize::from(self.host)];
        let combined = || {
            let at = at.format("%d/%b/%Y:%H:%M:%S %z");
            format!("{client} - - [{at}] \"GET {target} HTTP/1.1\" 200 5 \"http://other.vn/\" \"{agent}\"")
        };
        let named = if host.is_empty() { "" } else { ":80 " };
        let mut text = match self.format {
            0 => combined(),
            1 => format!("{host}{named}{}", combined()),
            2 => serde_json::json!({"time_iso8601": at.to_rfc3339(), "remote_addr": client, "host": host,
                "request": format!("GET {target} HTTP/2.0"), "status": "304", "http_user_agent": agent})
            .to_string(),
            _ => serde_json::json!({"ts": self.at_s as f64, "status": 200, "request": {"method": "GET",
                "client_ip": client, "host": host, "uri": target, "headers": {"User-Agent": [agent]}}})
            .to_string(),
        };
        text.push('\n');
        if self.noise {
            let other = text.replacen("/tin/", "/anh/", 1).replacen(".html", ".JPG", 1);
            text.push_str(&other);
            text.push_str(&combined().replace("\" 200 ", "\" 404 "));
            text.push_str("\nnot a line\n");
        }
        text
    }
}

#[derive(Default)]
struct Plain {
    first_s: i64,
    views: u64,
    visits: u64,
    visitors: BTreeSet<(u8, u8)>,
    pages: BTreeMap<Box<str>, u64>,
}

/// What the views add up to, counted without any of the service's own.
fn model(
    seen: &[Seen],
    (change_s, before_s, after_s): (i64, i64, i64),
    until: Option<NaiveDate>,
) -> Vec<Day> {
    let day = |at_s: i64| {
        let offset_s = if at_s < change_s { before_s } else { after_s };
        DateTime::from_timestamp(at_s + offset_s, 0).unwrap().date_naive()
    };
    let mut seen: Vec<&Seen> = seen.iter().collect();
    seen.sort_by_key(|seen| seen.at_s);
    let mut alive = HashMap::new();
    let mut days: BTreeMap<NaiveDate, Plain> = BTreeMap::new();
    for view in &seen {
        let visitor = (view.client, view.agent);
        let last = alive.insert(visitor, view.at_s);
        let sums = days.entry(day(view.at_s)).or_default();
        sums.first_s = if sums.views == 0 { view.at_s } else { sums.first_s.min(view.at_s) };
        sums.views += 1;
        sums.visits += u64::from(last.is_none_or(|last| view.at_s - last > TIMEOUT_S));
        sums.visitors.insert(visitor);
        *sums.pages.entry(format!("/tin/{}.html?id=1", view.page).into()).or_default() += 1;
    }
    let latest = seen.last().map(|view| day(view.at_s)).unwrap();
    let is_closed = |day: &NaiveDate| until.map_or(*day < latest, |until| *day <= until);
    let counted = days.into_iter().filter(|(day, _)| is_closed(day));
    let counted = counted.map(|(day, Plain { first_s, views, visits, visitors, pages })| {
        let (visitors, pages) = (visitors.len() as u64, pages.into_iter().collect());
        Day { day, first_ms: first_s * 1000, views, visits, visitors, pages }
    });
    counted.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_log_of_known_views_adds_up_to_what_a_plain_model_counts(
        seen in seen(),
        zone in select(&ZONES[..]),
        logs in 1..4usize,
        zips: bool,
        until in prop::option::of(-5..6i64),
    ) {
        let (name, change, before_s, after_s) = zone;
        let change_s = DateTime::parse_from_rfc3339(change).unwrap().timestamp();
        let mut seen = seen;
        seen.iter_mut().for_each(|seen| seen.at_s += change_s);
        let first = DateTime::from_timestamp(change_s, 0).unwrap().date_naive();
        let until = until.map(|days| first + chrono::Duration::days(days));

        // Each log in the order in which its lines were written.
        let mut written = seen.clone();
        written.sort_by_key(|seen| seen.at_s + seen.late_s);
        let mut texts = vec![String::new(); logs];
        for view in &written {
            texts[view.log.index(logs)].push_str(&view.line());
        }
        let logs = texts.into_iter().map(|text| {
            let bytes = if zips { zipped(text.as_bytes()) } else { text.into_bytes() };
            source("a.log", bytes)
        });
        let (days, rest, end) = read(past(&site(name), logs.collect(), until));
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!(&days, &model(&seen, (change_s, before_s, after_s), until));

        let noise = seen.iter().filter(|seen| seen.noise).count() as u64;
        let lines = |why: LeftOut| rest.lines.get(why.word()).copied().unwrap_or_default();
        prop_assert_eq!(lines(LeftOut::Asset), noise);
        prop_assert_eq!(lines(LeftOut::OtherStatus), noise);
        prop_assert_eq!(lines(LeftOut::MalformedLine), noise);
        let late = lines(LeftOut::DayNotClosed) + lines(LeftOut::AfterUntil);
        prop_assert_eq!(late + days.iter().map(|day| day.views).sum::<u64>(), seen.len() as u64);
    }

    #[test]
    fn any_bytes_are_read_to_their_end(bytes: Vec<u8>, cut: Index, at: Index, byte: u8, zips: bool) {
        let mut text = [&view("23/Nov 08:19:00", 1, "/a?\\x22"), &view("24/Nov 08:19:00", 1, "/a")]
            .map(String::as_bytes)
            .join(&bytes[..]);
        let spoiled = at.index(text.len());
        if zips {
            text = zipped(&text);
            text.truncate(cut.index(text.len()).max(2));
        } else {
            text[spoiled] = byte;
        }
        for logs in [vec![source("a", text.clone())], vec![source("a", text), source("b", bytes)]] {
            let _ = read(past(&site("UTC"), logs, Some(day("2026-11-29"))));
        }
    }
}

#[test]
fn every_line_is_counted_or_left_out_for_a_reason() {
    let at = "23/Nov 08:19:00";
    let text = [
        view(at, 1, "/tin/?utm_source=x"),
        view(at, 1, "/tin"),
        line(at, 2, "GET /tin HTTP/1.1", 304),
        line(at, 2, "GET http://www.baolamdong.vn/tin/index.html HTTP/1.1", 200),
        line(at, 2, "GET /tin HTTP/1.1", 301),
        line(at, 2, "\\x16\\x03", 400),
        line(at, 2, "POST /tin HTTP/1.1", 200),
        line(at, 2, "HEAD /tin HTTP/1.1", 200),
        view(at, 2, "/main.css?v=1.html"),
        view(at, 2, "/robots.txt"),
        view(at, 2, "/a.b/css"),
        view(at, 2, "/tin/.js"),
        view(at, 2, "/version-2.0"),
        view(at, 2, "*"),
        line(at, 2, "GET http://other.vn/tin HTTP/1.1", 200),
        format!("other.vn:443 {}", view(at, 2, "/tin")),
        "what is this\n\n".to_owned(),
        view("23/Nov 08:18:30", 3, "/tin"),
        view("30/Dec 08:18:30", 3, "/tin"),
        view("24/Nov 00:00:00", 3, "/tin"),
    ];
    let (days, lines) = read_text(&text.concat());
    let pages = [("/a.b/css", 1), ("/tin", 5), ("/version-2.0", 1)];
    let pages = pages.map(|(page, views)| (page.into(), views)).to_vec();
    assert_eq!(
        days,
        [Day { day: day("2026-11-23"), first_ms: days[0].first_ms, views: 7, visits: 3, visitors: 3, pages }]
    );
    let expected = [
        ("absurd-time", 1),
        ("asset", 3),
        ("bad-url", 1),
        ("day-not-closed", 1),
        ("malformed-line", 2),
        ("other-method", 2),
        ("other-status", 2),
        ("wrong-origin", 2),
    ];
    assert_eq!(lines, expected.into());
}

#[test]
fn a_malformed_line_is_shown_with_its_place() {
    let text = format!("{}nothing\n", view("23/Nov 08:19:00", 1, "/")).repeat(9);
    let (_, rest, _) = read(past(&site("UTC"), vec![source("web/a.log", text.into())], None));
    assert_eq!(rest.malformed.len(), SHOWN);
    assert_eq!(rest.malformed[1], "web/a.log:4");
}

#[test]
fn a_log_that_is_cut_off_ends_with_its_name_and_line() {
    let text: String = (10..60).map(|n| view(&format!("23/Nov 08:19:{n}"), n, "/")).collect();
    let gz = zipped(text.as_bytes());
    let whole = source("whole.gz", [zipped(b""), gz.clone(), gz.clone()].concat());
    let (days, _, end) = read(past(&site("UTC"), vec![whole], Some(day("2026-11-23"))));
    assert_eq!((days[0].views, end), (100, Ok(())), "of one that was appended to");
    for spoiled in [gz[..gz.len() - 9].to_vec(), [&gz[..], b"rest"].concat()] {
        let (days, _, end) =
            read(past(&site("UTC"), vec![source("cut.gz", spoiled)], Some(day("2026-11-23"))));
        let end = end.unwrap_err();
        assert!(days.is_empty() && end.starts_with("cut.gz:") && end.contains(" line "), "{end}");
    }
}

#[test]
fn a_line_that_leaps_is_believed_if_the_next_one_is_not_before_it() {
    let week = |leaps: &str| {
        let days = (10..17).map(|n| view(&format!("{n}/Nov 08:19:00"), 1, "/"));
        let days: Vec<String> = days.collect();
        [&days[..3], &[leaps.to_owned()], &days[3..]].concat().concat()
    };
    let (plain, _) = read_text(&week(""));
    assert_eq!(plain.len(), 6);
    let (days, lines) = read_text(&week(&view("28/Nov 08:19:00", 2, "/")));
    assert_eq!((days, lines.get("absurd-time")), (plain.clone(), Some(&1)));
    let (days, lines) = read_text(&week(&view("09/Nov 08:19:00", 2, "/")));
    assert_eq!((days, lines.get("out-of-order")), (plain, Some(&1)));
    let leap =
        [view("01/Nov 08:19:00", 1, "/"), view("05/Nov 08:19:00", 1, "/"), view("09/Nov 08:19:00", 1, "/")];
    let (days, lines) = read_text(&leap.concat());
    assert_eq!((days.len(), lines), (2, [("day-not-closed", 1)].into()));
}

#[test]
fn a_line_far_out_of_order_counts_while_its_day_is_open() {
    let text =
        ["23/Nov 23:00:00", "24/Nov 12:00:00", "23/Nov 12:00:00", "24/Nov 11:00:00", "25/Nov 00:00:00"];
    let (days, lines) = read_text(&text.map(|at| view(at, 1, "/")).concat());
    assert_eq!(days.iter().map(|day| day.views).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(lines, [("day-not-closed", 1)].into());
}

#[test]
fn paths_are_those_that_a_browser_would_send() {
    let at = "23/Nov 08:19:00";
    let mut text = Vec::new();
    for path in ["/%C4%91%C3%A0", "/\\xC4\\x91\\xC3\\xA0", "/đà", "//đa\u{300}", "/a\\x22b", "/%22"] {
        text.extend(view(at, 1, path).into_bytes());
    }
    let odd = line(at, 1, "GET /? HTTP/1.1", 200).into_bytes();
    text.extend(odd.into_iter().map(|b| if b == b'?' { 0xff } else { b }));
    text.extend(view("24/Nov 08:19:00", 1, &format!("/{}", "x".repeat(1 << 20))).into_bytes());
    text.extend(view("24/Nov 08:19:00", 1, "/").into_bytes());
    let (days, rest, end) = read(past(&site("UTC"), vec![source("a.log", text)], None));
    end.unwrap();
    let pages: Vec<_> = days[0].pages.iter().map(|(page, views)| (&**page, *views)).collect();
    assert_eq!(pages, [("/\"", 1), ("/%FF", 1), ("/a\"b", 1), ("/đà", 4)]);
    assert_eq!(rest.lines, [("day-not-closed", 1), ("malformed-line", 1)].into());
}

#[test]
fn bounds_are_kept_and_said() {
    let text: String = (0..60).map(|n| view(&format!("23/Nov 08:19:{n:02}"), n, &format!("/{n}"))).collect();
    let now = Moment { unix_ms: 1_795_996_800_000, uptime_ms: 0 };
    let logs = vec![source("a.log", text.into())];
    let mut past = Past::new(
        &site("UTC"),
        sessions(40, 10),
        logs,
        Some(day("2026-11-23")),
        now,
        Robots::new(&[]).unwrap(),
        [7; 16],
    )
    .unwrap();
    let counted = past.next_day().unwrap().unwrap();
    assert_eq!((counted.views, counted.visits, counted.pages.len()), (60, 40, 11));
    assert!(counted.pages.contains(&(OTHER.into(), 50)));
    assert_eq!(past.rest().without_room, 20);
}
