use std::net::IpAddr;
use std::sync::Arc;

use chrono::{NaiveDate, Weekday};
use hyper::header::{HeaderName, USER_AGENT};
use proptest::prelude::*;

use super::*;
use crate::calendar::{Calendar, Period, Zone};
use crate::sites::{Aliases, Excluded, Filter, Honour, Identity, PageRules, Signal, SiteKey};

const HOUR_MS: i64 = 3_600_000;

fn ms(rfc3339: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(rfc3339).unwrap().timestamp_millis()
}

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

fn site(id: u16, key: &str, hosts: &[&str], zone: &str) -> Site {
    Site {
        id: SiteId(id),
        key: SiteKey::new(key).unwrap(),
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        origins: vec![],
        calendar: Calendar { zone: Zone::named(zone).unwrap(), week_start: Weekday::Mon },
        locale: "vi".to_owned(),
        identity: Identity::Address,
        pages: PageRules { query: vec!["id".to_owned()], ..PageRules::default() },
        origin_check: OriginCheck::Lenient,
        honour: Vec::new(),
        filter: Filter { robots: RobotRule::Count, ..Filter::default() },
        require_consent: false,
        readers: Default::default(),
        limits: Default::default(),
        newsroom_token: None,
    }
}

/// Three sites; the last two share a host.
fn sites() -> Vec<Site> {
    vec![
        site(0, "lamdong", &["baolamdong.vn", "www.baolamdong.vn"], "Asia/Ho_Chi_Minh"),
        site(1, "angiang", &["shared.vn", "angiang.vn"], "UTC"),
        site(2, "camau", &["shared.vn"], "America/New_York"),
    ]
}

/// Salts of a site: the first byte tells which day's.
fn salts(days: &[&str]) -> SiteSalts {
    SiteSalts { days: (1..).zip(days).map(|(salt, date)| (day(date), [salt; 16])).collect() }
}

struct World {
    sites: Sites,
    spans: Spans,
    salts: SaltTable,
    robots: Robots,
    headers: HeaderMap,
    address: IpAddr,
    now: Moment,
}

impl World {
    fn new(list: Vec<Site>) -> Self {
        let sites = Sites::new(list);
        let days = salts(&["2026-11-22", "2026-11-23"]);
        World {
            spans: Spans::new(&sites),
            salts: SaltTable { sites: vec![days.clone(), days.clone(), days], id_key: [9; 16] },
            sites,
            robots: Robots::new(&[]).unwrap(),
            headers: HeaderMap::new(),
            address: IpAddr::from([203, 0, 113, 9]),
            now: Moment { unix_ms: ms("2026-11-23T08:19:00+07:00"), uptime_ms: 5 },
        }
        .header(USER_AGENT, "Mozilla/5.0")
    }

    fn header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    fn at(mut self, rfc3339: &str) -> Self {
        self.now.unix_ms = ms(rfc3339);
        self
    }

    fn said(&self, said: &Said<'_>) -> Result<Beacon, Reason> {
        self.decided(said).map_err(|refusal| refusal.reason)
    }

    fn decided(&self, said: &Said<'_>) -> Result<Beacon, Refusal> {
        let World { sites, spans, salts, robots, headers, .. } = self;
        let client = Client { address: self.address, ignored_header: false };
        accept(said, &Context { sites, spans, salts, robots, headers, client, now: self.now })
    }

    fn accept(&self, body: &str) -> Result<Beacon, Reason> {
        self.said(&Said::from_json(body.as_bytes()).map_err(|refusal| refusal.reason)?)
    }

    fn url(&self, url: &str) -> Result<Beacon, Reason> {
        let said = Said { site: Some("lamdong".into()), url: url.into(), ..Said::default() };
        self.said(&said)
    }

    fn visitor(&self, body: &str) -> Option<Visitor> {
        self.accept(body).unwrap().visitor
    }
}

#[test]
fn a_refusal_names_its_cause_and_what_to_add() {
    let (origin, referer) = (hyper::header::ORIGIN, hyper::header::REFERER);
    let strict = || {
        let mut sites = sites();
        sites[0].origin_check = OriginCheck::Strict;
        World::new(sites)
    };
    let usual = || World::new(sites());
    let long = format!(r#"{{"site":"{}","url":"/"}}"#, "x".repeat(500));
    for (world, body, name, remedy) in [
        (usual(), r#"{"site":"lamdnog","url":"/"}"#, "lamdnog", "did you mean lamdong?"),
        (usual(), r#"{"site":"caamu","url":"/"}"#, "caamu", "did you mean camau?"),
        (usual(), r#"{"site":"LamDong","url":"/"}"#, "LamDong", "did you mean lamdong?"),
        (usual(), r#"{"site":"nobody","url":"/"}"#, "nobody", "add it as a [[site]]"),
        (usual(), r#"{"site":"a\u0007\"<","url":"/"}"#, r#"a\u{7}\"<"#, "No site has the key"),
        (usual(), r#"{"url":"https://m.baolamdong.vn/a"}"#, "m.baolamdong.vn", "add it to hosts"),
        (usual(), r#"{"url":"https://shared.vn/a"}"#, "shared.vn", "name the site"),
        (usual(), r#"{"url":"/a"}"#, "no host", "name the site"),
        (
            usual(),
            r#"{"site":"lamdong","url":"https://m.baolamdong.vn/secret"}"#,
            "m.baolamdong.vn",
            "hosts of site lamdong",
        ),
        (
            usual().header(origin.clone(), "https://app.vn:8443"),
            VIEW,
            "app.vn",
            "hosts or origins of site lamdong",
        ),
        (usual().header(origin, "null"), VIEW, "null", "origins"),
        (usual().header(referer, "https://app.vn/secret?token=1"), VIEW, "app.vn", "origins"),
        (strict(), VIEW, "no Origin", "origin_check of site lamdong is strict"),
    ] {
        let cause = world.decided(&Said::from_json(body.as_bytes()).unwrap()).unwrap_err().cause.unwrap();
        assert_eq!(cause.name, name, "{body}");
        assert!(cause.remedy.contains(remedy) && !cause.remedy.contains("secret"), "{cause:?}");
    }
    let cause = usual().decided(&Said::from_json(long.as_bytes()).unwrap()).unwrap_err().cause.unwrap();
    assert_eq!(cause.name.len(), 80, "it is bounded");
}

const VIEW: &str = r#"{"site":"lamdong","url":"https://baolamdong.vn/bai-viet/1.html"}"#;

#[test]
fn a_view() {
    let world = World::new(sites());
    let beacon = world
        .accept(r#"{"site":"lamdong","url":"https://www.baolamdong.vn/tin/?id=7&fbclid=x#a","kind":"leave","id":"z"}"#)
        .unwrap();
    assert_eq!((beacon.kind, beacon.site, beacon.page.as_str()), (Kind::Leave, SiteId(0), "/tin?id=7"));
    assert_eq!(beacon.hour.bucket(Period::Hour).to_string(), "2026-11-23T08+07:00");
    assert_eq!(beacon.at, world.now);
    assert!(beacon.id.is_some() && beacon.visitor.is_some());
    let bare = world.accept(r#"{"site":"lamdong","url":"/"}"#).unwrap();
    assert_eq!((bare.kind, bare.page.as_str(), bare.id), (Kind::View, "/", None));
}

#[test]
fn malformed() {
    assert_eq!(World::new(sites()).accept("{}").unwrap_err(), Reason::Malformed);
}

#[test]
fn bad_url() {
    let world = World::new(sites());
    for url in
        ["", "tin", "ftp://baolamdong.vn/", "//baolamdong.vn/", "/\\baolamdong.vn", "https://", "mailto:a@b"]
    {
        assert_eq!(world.url(url).unwrap_err(), Reason::BadUrl, "{url}");
    }
    assert_eq!(world.accept(r#"{"url":"javascript:0"}"#).unwrap_err(), Reason::BadUrl);
    for url in [" /tin\r\n", "\t/tin ", "\n https://baolamdong.vn/tin \n"] {
        assert_eq!(world.url(url).unwrap().page.as_str(), "/tin", "{url:?}");
    }
}

#[test]
fn unknown_site() {
    let world = World::new(sites());
    for body in [
        r#"{"site":"nobody","url":"https://baolamdong.vn/"}"#,
        r#"{"site":"LAMDONG","url":"/"}"#,
        r#"{"url":"/tin"}"#,
        r#"{"url":"https://nobody.vn/"}"#,
        r#"{"url":"https://shared.vn/"}"#,
    ] {
        assert_eq!(world.accept(body).unwrap_err(), Reason::UnknownSite, "{body}");
    }
}

#[test]
fn the_site_of_a_host() {
    let world = World::new(sites());
    for (body, site) in [
        (r#"{"url":"https://www.baolamdong.vn/"}"#, 0),
        (r#"{"url":"http://ANGIANG.vn.:8080/"}"#, 1),
        (r#"{"site":"camau","url":"https://shared.vn/"}"#, 2),
        (r#"{"site":"","url":"https://angiang.vn/"}"#, 1),
    ] {
        assert_eq!(world.accept(body).unwrap().site, SiteId(site), "{body}");
    }
}

#[test]
fn wrong_origin_by_url() {
    let world = World::new(sites());
    for url in [
        "https://evil.vn/",
        "https://baolamdong.vn.evil.vn/",
        "https://baolamdong.vn@evil.vn/",
        "https://angiang.vn/",
    ] {
        assert_eq!(world.url(url).unwrap_err(), Reason::WrongOrigin, "{url}");
    }
    for url in ["https://me@BAOLAMDONG.vn.:444/a", "http://www.baolamdong.vn/a", "/a"] {
        assert_eq!(world.url(url).unwrap().page.as_str(), "/a", "{url}");
    }
}

/// `Origin`, `Referer`, and whether a lenient and a strict site take the beacon. The site also lists
/// the origin `amp.example`.
#[test]
fn wrong_origin_by_header() {
    let home = "https://baolamdong.vn";
    let rows: &[(&[&str], &[&str], bool, bool)] = &[
        (&[], &[], true, false),
        (&[], &[""], true, false),
        (&[home], &[], true, true),
        (&["https://www.baolamdong.vn:8443"], &[], true, true),
        (&["HTTP://BAOLAMDONG.VN"], &[], true, true),
        (&["https://amp.example"], &[], true, true),
        (&["https://evil.vn"], &[], false, false),
        (&["https://evil.vn"], &[home], false, false),
        (&["https://angiang.vn"], &[], false, false),
        (&["null"], &[], false, false),
        (&["null"], &["https://baolamdong.vn/tin?x=1"], true, true),
        (&["null"], &["https://evil.vn/"], false, false),
        (&["null"], &[home, "https://evil.vn/"], false, false),
        (&["null", "https://evil.vn"], &[home], false, false),
        (&[""], &[], false, false),
        (&["baolamdong.vn"], &[], false, false),
        (&["file://"], &[], false, false),
        (&["\u{fffd}"], &[], false, false),
        (&[home, "https://evil.vn"], &[], false, false),
        (&[home], &["https://evil.vn/"], true, true),
        (&[], &["https://baolamdong.vn/tin?x=1"], true, true),
        (&[], &["https://amp.example/x"], true, true),
        (&[], &["https://evil.vn/?https://baolamdong.vn/"], false, false),
        (&[], &["null"], false, false),
        (&[], &["about:blank"], false, false),
    ];
    for (origins, referers, lenient, strict) in rows {
        for (check, taken) in [(OriginCheck::Lenient, lenient), (OriginCheck::Strict, strict)] {
            let mut list = sites();
            list[0].origins = vec!["amp.example".to_owned()];
            list[0].origin_check = check;
            let world = World::new(list);
            let world = origins.iter().fold(world, |world, origin| world.header(ORIGIN, origin));
            let world = referers.iter().fold(world, |world, referer| world.header(REFERER, referer));
            for body in [VIEW, r#"{"site":"lamdong","url":"/tin"}"#] {
                let outcome = world.accept(body).map(|_| ());
                let expected = if *taken { Ok(()) } else { Err(Reason::WrongOrigin) };
                assert_eq!(outcome, expected, "{origins:?} {referers:?} {check:?}");
            }
        }
    }
}

#[test]
fn a_listed_null_origin() {
    let mut list = sites();
    list[0].origins = vec!["null".to_owned()];
    let world = World::new(list).header(ORIGIN, "null");
    assert!(world.accept(VIEW).is_ok());
}

/// The remaining reasons are given where requests are read and views are kept; every word is its own.
#[test]
fn every_reason_has_its_word() {
    let codes = [
        "malformed",
        "bad-url",
        "wrong-origin",
        "unknown-site",
        "no-consent",
        "opted-out",
        "robot",
        "prefetch",
        "excluded-address",
        "excluded-page",
        "reload",
        "rate-limited",
        "method-not-allowed",
        "timeout",
        "too-large",
        "overloaded",
        "journal-full",
        "clock-wrong",
    ];
    assert_eq!(Reason::WORDS.map(|(_, reason)| reason.word()), codes);
}

#[test]
fn a_browsers_wish_holds_where_the_site_honours_it() {
    let (gpc, dnt) = (HeaderName::from_static("sec-gpc"), HeaderName::from_static("dnt"));
    for (honoured, name, value, taken) in [
        (vec![], &gpc, "1", true),
        (vec![Signal::Gpc], &gpc, "1", false),
        (vec![Signal::Gpc], &gpc, "0", true),
        (vec![Signal::Gpc], &dnt, "1", true),
        (vec![Signal::Dnt], &gpc, "1", true),
        (vec![Signal::Gpc, Signal::Dnt], &dnt, "1", false),
        (vec![Signal::Gpc, Signal::Dnt], &dnt, "", true),
    ] {
        let mut list = sites();
        list[0].honour = honoured;
        let outcome = World::new(list).header(name.clone(), value).accept(VIEW).map(|_| ());
        assert_eq!(outcome, if taken { Ok(()) } else { Err(Reason::OptedOut) }, "{name} {value:?}");
    }
}

#[test]
fn who_honours_a_wish_without_identity_counts_the_view_alone() {
    let mut list = sites();
    list[0].honour = vec![Signal::Gpc];
    list[0].filter.honour_as = Honour::WithoutIdentity;
    let world = World::new(list);
    assert!(world.visitor(VIEW).is_some());
    let world = world.header(HeaderName::from_static("sec-gpc"), "1");
    assert_eq!(world.visitor(VIEW), None);
}

/// What a browser of Chrome's kin sends beside a beacon.
const CHROME: [(&str, &str); 3] = [
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36"),
    ("sec-ch-ua", "\"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\""),
    ("sec-fetch-mode", "no-cors"),
];

/// The reason for which a view of `/tin/1` with other headers is left out, and the rule that is named.
fn left_out(filter: &Filter, headers: &[(&'static str, &str)]) -> Option<(Reason, String)> {
    let mut list = sites();
    list[0].filter = filter.clone();
    let mut world = World::new(list);
    for (name, value) in CHROME.iter().chain(headers) {
        world.headers.insert(*name, HeaderValue::from_str(value).unwrap());
    }
    let said = Said { site: Some("lamdong".into()), url: "/tin/1".into(), ..Said::default() };
    let refusal = world.decided(&said).err()?;
    assert_eq!(refusal.left_out_in.map(|hour| hour.day), Some(day("2026-11-23")));
    Some((refusal.reason, refusal.cause.map_or(String::new(), |cause| cause.remedy)))
}

#[test]
fn each_rule_leaves_out_what_it_is_for_and_is_named() {
    let usual = Filter::default();
    let with = |change: fn(&mut Filter)| {
        let mut filter = Filter::default();
        change(&mut filter);
        filter
    };
    let allows = with(|filter| filter.robots_allow = vec!["myapp/".to_owned()]);
    let network = with(|filter| filter.addresses = vec!["203.0.113.0/24".parse().unwrap()]);
    let other = with(|filter| filter.addresses = vec!["203.0.114.0/24".parse().unwrap()]);
    let pages = with(|filter| filter.pages = vec![Excluded("/tin/*".to_owned())]);
    let counts = with(|filter| filter.robots = RobotRule::Count);
    let robot = |rule: &str| Some((Reason::Robot, rule.to_owned()));
    let ahead = Some((Reason::Prefetch, String::new()));
    for (filter, headers, told) in [
        (&usual, &[][..], None),
        (&usual, &[("user-agent", "curl/8.5")], robot("The user agent does not begin as a browser's.")),
        (&usual, &[("user-agent", "Mozilla/5.0 (x; Xbot/1)")], robot("The user agent contains \"bot\".")),
        (&usual, &[("sec-ch-ua", "\"Chromium\";v=\"96\"")], robot("Sec-CH-UA contradicts the user agent.")),
        (
            &usual,
            &[("sec-fetch-mode", "navigate")],
            robot("Sec-Fetch-Mode is that of a page, not of a beacon."),
        ),
        (&usual, &[("sec-purpose", "prefetch")], ahead.clone()),
        (&usual, &[("sec-purpose", "prefetch;prerender"), ("sec-fetch-dest", "image")], ahead.clone()),
        (&usual, &[("sec-purpose", "prefetch;prerender"), ("sec-fetch-dest", "empty")], None),
        (&usual, &[("purpose", "Preview")], ahead.clone()),
        (&usual, &[("x-moz", "prefetch")], ahead.clone()),
        (&usual, &[("sec-purpose", "")], None),
        (&counts, &[("user-agent", "curl/8.5")], None),
        (&counts, &[("purpose", "prefetch")], ahead),
        (&allows, &[("user-agent", "MyApp/3 Xbot")], None),
        (&allows, &[("user-agent", "Other/3 Xbot")], robot("The user agent contains \"bot\".")),
        (
            &network,
            &[],
            Some((Reason::ExcludedAddress, "By 203.0.113.0/24 in exclude_addresses.".to_owned())),
        ),
        (&other, &[], None),
        (&pages, &[], Some((Reason::ExcludedPage, "By /tin/* in exclude_pages.".to_owned()))),
    ] {
        let found = left_out(filter, headers);
        assert_eq!(found, told, "{filter:?} {headers:?}");
    }
}

#[test]
fn robots_are_counted_to_compare_where_the_site_says_so() {
    let mut list = sites();
    list[0].filter.robots = RobotRule::Shadow;
    let mut world = World::new(list);
    assert!(world.accept(VIEW).unwrap().is_shadow, "a user agent that names no engine");
    world.headers.insert(USER_AGENT, HeaderValue::from_static(CHROME[0].1));
    assert!(!world.accept(VIEW).unwrap().is_shadow);
}

#[test]
fn what_tells_visitors_apart() {
    let world = World::new(sites());
    let one = world.visitor(VIEW).unwrap();
    assert_eq!(world.visitor(VIEW), Some(one), "the same again");
    assert_eq!(world.visitor(r#"{"site":"lamdong","url":"/other","visitor":"ignored"}"#), Some(one));

    let mut others = vec![one.today];
    let mut elsewhere = World::new(sites());
    elsewhere.address = IpAddr::from([203, 0, 113, 10]);
    others.push(elsewhere.visitor(VIEW).unwrap().today);
    let mut other_agent = World::new(sites());
    other_agent.headers.insert(USER_AGENT, HeaderValue::from_static("Mozilla/5.1"));
    others.push(other_agent.visitor(VIEW).unwrap().today);
    let mut no_agent = World::new(sites());
    no_agent.headers.remove(USER_AGENT);
    others.push(no_agent.visitor(VIEW).unwrap().today);
    others.push(world.visitor(r#"{"site":"angiang","url":"/"}"#).unwrap().today);
    others.push(World::new(sites()).at("2026-11-22T08:00:00+07:00").visitor(VIEW).unwrap().today);
    let distinct: std::collections::HashSet<_> = others.iter().collect();
    assert_eq!(distinct.len(), others.len());
}

#[test]
fn a_browsers_own_id() {
    let mut list = sites();
    list[0].identity = Identity::Browser;
    let (world, by_address) = (World::new(list.clone()), World::new(sites()));
    let with = |id: &str| format!(r#"{{"site":"lamdong","url":"/","visitor":"{id}"}}"#);
    let mut elsewhere = World::new(list);
    elsewhere.address = IpAddr::from([203, 0, 113, 10]);
    assert_eq!(world.visitor(&with("a")), elsewhere.visitor(&with("a")));
    assert_ne!(world.visitor(&with("a")), world.visitor(&with("b")));
    assert_eq!(world.visitor(&with("")), by_address.visitor(VIEW), "without one, the address");
    assert_eq!(world.visitor(VIEW), by_address.visitor(VIEW));
}

#[test]
fn nobody_is_told_apart() {
    let mut list = sites();
    list[0].identity = Identity::None;
    assert_eq!(World::new(list).visitor(VIEW), None);
}

/// The salt's day decides, not the moment: each id is the one that day's salt alone would give.
#[test]
fn which_salts_are_used() {
    let visitor = |days: &[&str], at: &str| {
        let mut world = World::new(sites()).at(at);
        world.salts.sites = vec![salts(days)];
        world.visitor(VIEW)
    };
    let under = |salt: u8| {
        let mut world = World::new(sites());
        world.salts.sites = vec![SiteSalts { days: vec![(day("2026-11-23"), [salt; 16])] }];
        world.visitor(VIEW).unwrap().today
    };
    let (noon, night) = ("2026-11-23T12:00:00+07:00", "2026-11-23T00:10:00+07:00");
    let both = ["2026-11-22", "2026-11-23"];
    let known = |today, beside| Some(Visitor { today, beside });
    assert_eq!(visitor(&both, noon), known(under(2), None));
    assert_eq!(visitor(&both, night), known(under(2), Some(under(1))));
    assert_eq!(visitor(&both, "2026-11-23T02:59:59+07:00"), known(under(2), Some(under(1))));
    assert_eq!(visitor(&both, "2026-11-23T03:00:00+07:00"), known(under(2), None));
    assert_eq!(
        visitor(&["2026-11-20", "2026-11-23"], night),
        known(under(2), None),
        "an older one is not yesterday's"
    );
    assert_eq!(visitor(&["2026-11-22"], noon), known(under(1), None), "the only one there is");
    assert_eq!(visitor(&["2026-11-24", "2026-11-25"], noon), known(under(1), None), "the nearest");
    assert_eq!(visitor(&["2026-11-22"], night), known(under(1), None), "one id, not the same one twice");
    assert_eq!(visitor(&["2026-11-22", "2026-11-23", "2026-11-24"], night), known(under(2), Some(under(1))));
    let three = ["2026-11-23", "2026-11-24", "2026-11-25"];
    let last_hour = "2026-11-23T23:00:00+07:00";
    assert_eq!(visitor(&three[..2], "2026-11-23T22:59:59+07:00"), known(under(1), None));
    assert_eq!(visitor(&three[..2], last_hour), known(under(1), Some(under(2))), "the next day may be known");
    assert_eq!(visitor(&three[..1], last_hour), known(under(1), None));
    assert_eq!(visitor(&three, noon), known(under(1), Some(under(2))), "the next day has begun");
    assert_eq!(visitor(&[], noon), None);
}

/// Visitor ids and view ids rest in journal, checkpoint and sketches: a new release must find the same.
#[test]
fn the_hashes_are_the_same_everywhere() {
    let beacon = World::new(sites()).accept(r#"{"site":"lamdong","url":"/","id":"a"}"#).unwrap();
    let hash = |key: [u8; 16], lengths: [u32; 4], fields: &[&[u8]]| {
        let input = [lengths.map(u32::to_le_bytes).concat(), fields.concat()].concat();
        siphasher::sip::SipHasher13::new_with_key(&key).hash(&input)
    };
    let told: [&[u8]; 3] = [b"lamdong", &[203, 0, 113, 9], b"Mozilla/5.0"];
    assert_eq!(beacon.visitor.unwrap().today, VisitorId(hash([2; 16], [1, 7, 4, 11], &told)));
    assert_eq!(beacon.id, Some(hash([9; 16], [3, 7, 1, 1], &[b"lamdong", b"/", b"a"])));
}

proptest! {
    /// An id names a view of one page of one site, wherever the boundary between the fields lies.
    #[test]
    fn ids_are_of_a_site_and_a_page(
        one in ("(lamdong|angiang)", "/[ab]{0,3}", "[ab]{1,3}"),
        other in ("(lamdong|angiang)", "/[ab]{0,3}", "[ab]{1,3}"),
    ) {
        let world = World::new(sites());
        let id = |(site, url, id): &(String, String, String)| {
            world.accept(&format!(r#"{{"site":"{site}","url":"{url}","id":"{id}"}}"#)).unwrap().id
        };
        prop_assert_eq!(id(&one) == id(&other), one == other);
    }

    /// However time moves, the remembered hour is the calendar's.
    #[test]
    fn hours_are_the_calendars(steps in proptest::collection::vec((0..3_usize, -3 * HOUR_MS..3 * HOUR_MS), 1..40)) {
        let sites = Sites::new(sites());
        let spans = Spans::new(&sites);
        // The morning on which New York's clocks go back.
        let mut now_ms = ms("2026-11-01T00:00:00-04:00");
        for (which, step_ms) in steps {
            now_ms += step_ms / 4;
            let site = sites.at(SiteId(which as u16)).unwrap();
            prop_assert_eq!(spans.at(site, now_ms).span, site.calendar.span(now_ms));
            prop_assert_eq!(spans.span(site, now_ms), site.calendar.span(now_ms));
        }
    }
}

#[test]
fn a_replaced_site_has_its_own_hour() {
    let (before, mut list) = (Sites::new(sites()), sites());
    list[0].calendar.zone = Zone::named("Asia/Tokyo").unwrap();
    list.push(site(3, "new", &["new.vn"], "Asia/Tokyo"));
    let after = Sites::new(list);
    let (spans, now_ms) = (Spans::new(&before), ms("2026-11-23T08:19:00+07:00"));
    let hour = |site: &Arc<Site>| spans.span(site, now_ms).hour.hour;
    assert_eq!(hour(before.get("lamdong").unwrap()), 8);
    assert_eq!(hour(after.get("lamdong").unwrap()), 10);
    assert_eq!(hour(after.get("new").unwrap()), 10);
    assert_eq!(hour(before.get("lamdong").unwrap()), 8);
}

#[test]
fn a_page_that_moved_is_accepted_and_read_as_its_new_one() {
    let moved = [("/a", "/b"), ("/gone", OTHER)].map(|(page, to)| (page.into(), to.into()));
    let world = |aliases: Aliases| {
        let mut site = site(0, "lamdong", &["baolamdong.vn"], "UTC");
        site.pages.aliases = Arc::new(aliases);
        World::new(vec![site])
    };
    let (before, after) = (world(Aliases::default()), world(Aliases::new(&moved.into(), 1)));
    let beacon = |world: &World, page| {
        let body = format!(r#"{{"site":"lamdong","url":"{page}","id":"x"}}"#);
        let beacon = world.accept(&body).unwrap();
        (beacon.page.as_str().to_owned(), beacon.id)
    };
    for (page, to) in [("/a", "/b"), ("/gone", OTHER), ("/c", "/c")] {
        let ((own, id), (shown, again)) = (beacon(&before, page), beacon(&after, page));
        assert_eq!((&*own, &*shown), (page, to));
        assert_eq!(id, again, "a view that is sent again after the page moved is the same");
    }
    let site = after.sites.get("lamdong").unwrap();
    let read = |said| read_page(site, said).map(|page| page.as_str().to_owned());
    assert_eq!(read("https://baolamdong.vn/a?x=1"), Ok("/b".to_owned()));
    assert_eq!(read("/gone"), Ok("/gone".to_owned()), "not with the figures of other pages");
}
