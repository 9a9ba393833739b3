//! The footer block, the badge, the demo, and all of it below a path.

use std::time::Duration;

use crate::support::harness::{Setup, TestApp, view};
use crate::support::http::{Answer, ask, request};
use crate::support::servers::{NOBODY, RedisServer};
use crate::support::wait::until;

const CACHED: &str = "public, max-age=30, stale-while-revalidate=30, stale-if-error=86400";

/// The figures of the newspaper as a store of the past would hold them: this week, month, year and ever.
const PAST: [(&str, u64); 5] = [
    ("day:2023-09-15", 0),
    ("week:2023-W37", 10_194 - 61),
    ("month:2023-09", 53_796 - 61),
    ("year:2023", 634_758 - 61),
    ("all", 1_316_717 - 61),
];

/// Runs the newspaper on the day of the article: its past is in Redis, and 61 readers come.
fn newspaper(redis: &RedisServer, setup: Setup) -> TestApp {
    let mut app = TestApp::start(setup.store(&redis.url()));
    app.until_stale(false);
    app.take(&view("/").from("113.160.0.1"));
    app.stop();
    let mut client = redis.client();
    for (bucket, visits) in PAST {
        let key = format!("footfall:{{lamdong}}:{bucket}");
        client.ask(&[b"HINCRBY", key.as_bytes(), b"visits", visits.to_string().as_bytes()]);
    }
    app.restart_after(Duration::from_secs(1));
    app.until_stale(false);
    for reader in 1..61 {
        app.take(&view("/").from(&format!("113.160.1.{reader}")));
    }
    until("the past is read", || app.counters()["visits"]["all"] == 1_316_717);
    app
}

const BLOCK: &str = "Thống kê truy cập
  • 001316717
  • Đang online: 61
  • Trong tuần: 10.194
  • Trong tháng: 53.796
  • Trong năm: 634.758
";

const ENGLISH: &str = "Visits
  • 001316717
  • Online now: 61
  • This week: 10,194
  • This month: 53,796
  • This year: 634,758
";

/// What a reader sees of HTML: text without tags, one line a block.
fn seen(html: &str) -> String {
    let body = html.split_once("<body>").map_or(html, |(_, body)| body);
    let text: String =
        body.split('<').map(|piece| piece.split_once('>').map_or(piece, |(_, text)| text)).collect();
    text.lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_newspapers_block_comes_out_to_the_character_in_every_form() {
    let redis = RedisServer::start();
    let mut app = newspaper(&redis, Setup::default());
    app.breaks_the_store();
    let text = app.get("/widget/lamdong?format=text");
    assert_eq!(text.text(), BLOCK);
    assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(text.header("cache-control"), Some(CACHED));
    assert_eq!(app.get("/widget/lamdong?format=text&lang=en-US").text(), ENGLISH);
    let lines = BLOCK.replace("  • ", "");
    for form in ["fragment", "html"] {
        let html = app.get(&format!("/widget/lamdong?format={form}"));
        assert_eq!(seen(html.text()), lines.trim_end(), "{form}");
        assert_eq!(html.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(html.text().contains("aria-label=\"Tổng lượt truy cập: 1.316.717\""));
    }
    let json = app.get("/widget/lamdong?format=json").json();
    assert_eq!(json["lines"][0]["text"], "001316717");
    assert_eq!(json["lines"][0]["value"], 1_316_717);
    assert_eq!(json["lines"][2]["text"], "10.194");
    assert_eq!((&json["lang"], &json["title"]), (&"vi".into(), &"Thống kê truy cập".into()));
    for (figure, shown) in [
        ("visits.all&pad=9", "001316717"),
        ("visits.week", "10.194"),
        ("online", "61"),
        ("views.day", "61"),
        ("page.views.all&page=/", "61"),
        ("page.views.all&page=/never", "0"),
        ("page.views.all", ""),
    ] {
        let target = format!("/widget/lamdong?format=text&figure={figure}");
        assert_eq!(app.get(&target).text(), shown, "{figure}");
    }
}

#[test]
fn a_document_is_framed_by_the_sites_pages_alone_and_runs_nothing_of_its_own() {
    let app = TestApp::start(Setup::default());
    let html = app.get("/widget/lamdong?theme=dark");
    let policy = html.header("content-security-policy").unwrap();
    assert!(
        policy.ends_with(
            "frame-ancestors 'self' https://baolamdong.vn:* http://baolamdong.vn:* \
             https://www.baolamdong.vn:* http://www.baolamdong.vn:*"
        ),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"));
    assert!(html.text().contains("<html lang=\"vi\" data-theme=\"dark\">"));
    for own in ["<script>", "<style", " style=", " onload"] {
        assert!(!html.text().contains(own), "{own}");
    }
    let css = app.get("/widget.css");
    assert_eq!(css.header("content-type"), Some("text/css; charset=utf-8"));
    assert!(css.text().contains("[data-theme=\"dark\"]"));
}

#[test]
fn who_has_the_block_is_told_so_and_what_cannot_be_shown_is_refused() {
    let app = TestApp::start(Setup::default());
    for target in ["/widget/lamdong", "/widget/lamdong?format=text", "/badge/lamdong.svg", "/widget.css"] {
        let tag = app.get(target).header("etag").unwrap().to_owned();
        let again = ask(app.public(), request("GET", target, &[("if-none-match", &tag)], b""));
        assert_eq!((again.status, again.body.len()), (304, 0), "{target}");
    }
    for (target, status, code) in [
        ("/widget/camau", 404, "unknown-site"),
        ("/widget/lamdong?format=xml", 400, "malformed"),
        ("/widget/lamdong?theme=pink", 400, "malformed"),
        ("/widget/lamdong?format=text&figure=hits", 400, "malformed"),
        ("/widget/lamdong?format=text&figure=online&pad=99", 400, "malformed"),
        ("/widget/lamdong?format=text&figure=page.views.all&page=tin", 400, "bad-url"),
        ("/badge/camau.svg", 404, "unknown-site"),
        ("/badge/lamdong.svg?total=hits", 400, "malformed"),
        ("/badge/lamdong.svg?period=hour", 400, "malformed"),
        ("/badge/lamdong", 404, "not-found"),
        ("/demo", 404, "not-found"),
        ("/", 404, "not-found"),
    ] {
        assert_eq!(app.get(target).outcome(), (status, code.into()), "{target}");
    }
}

#[test]
fn a_figure_that_is_not_known_is_left_out_and_kept_by_no_cache() {
    let mut app = TestApp::start(Setup::default().store(&format!("redis://{NOBODY}/0")));
    app.breaks_the_store();
    let text = app.get("/widget/lamdong?format=text");
    assert_eq!(text.text(), "Thống kê truy cập\n  • Đang online: 0\n");
    assert_eq!(text.header("cache-control"), Some("no-store"));
    assert_eq!(app.get("/widget/lamdong?format=text&figure=visits.all").text(), "");
    assert_eq!(app.get("/widget/lamdong?format=json").outcome(), (503, "store-unreachable".into()));
    let badge = app.get("/badge/lamdong.svg");
    assert!(badge.text().contains("<title>Tổng lượt truy cập: –</title>"), "{}", badge.text());
    assert_eq!(badge.header("cache-control"), Some("no-store"));
}

#[test]
fn a_badge_shows_its_figure_anywhere() {
    let app = TestApp::start(Setup::default());
    for reader in 1..=3 {
        app.take(&view("/a").from(&format!("203.0.113.{reader}")));
    }
    app.page("/a");
    let title = |query: &str| {
        let image = app.get(&format!("/badge/lamdong.svg?{query}"));
        assert_eq!(image.header("content-type"), Some("image/svg+xml; charset=utf-8"));
        assert_eq!(image.header("cross-origin-resource-policy"), Some("cross-origin"));
        assert_eq!(image.header("cache-control"), Some(CACHED));
        let (_, rest) = image.text().split_once("<title>").unwrap();
        rest.split_once("</title>").unwrap().0.to_owned()
    };
    assert_eq!(title(""), "Tổng lượt truy cập: 3");
    assert_eq!(title("total=visits&period=week&lang=en"), "This week: 3");
    assert_eq!(title("total=online"), "Đang online: 3");
    assert_eq!(title("page=/a"), "Lượt xem: 3");
    assert_eq!(title("label=%3Cscript%3E%22%26"), "&lt;script&gt;&quot;&amp;: 3");
}

#[test]
fn a_site_has_words_of_its_own_and_a_language_can_be_added() {
    let sites = r#"
[labels.fr]
title = "Fréquentation"
total = "Visites"
online = "En ligne"
day = "Aujourd'hui"
week = "Cette semaine"
month = "Ce mois"
year = "Cette année"
views = "Lectures"
group = " "
[labels.vi-x-lamdong]
title = "Bạn đọc & chúng tôi"
[[site]]
key = "lamdong"
hosts = ["baolamdong.vn"]
locale = "vi-x-lamdong"
[[site]]
key = "camau"
hosts = ["baocamau.vn"]
locale = "fr-CA"
"#;
    let app = TestApp::start(Setup::default().sites(sites));
    let text = |site: &str| app.get(&format!("/widget/{site}?format=text")).text().to_owned();
    assert_eq!(text("lamdong").lines().next(), Some("Bạn đọc & chúng tôi"));
    assert!(text("lamdong").contains("Đang online: 0"), "the rest is the language's: {}", text("lamdong"));
    assert!(
        text("camau").starts_with("Fréquentation\n  • 000000000\n  • En ligne: 0\n"),
        "{}",
        text("camau")
    );
    let html = app.get("/widget/lamdong?format=fragment");
    assert!(html.text().contains("Bạn đọc &amp; chúng tôi"));
}

#[test]
fn everything_is_there_below_a_path_whether_the_proxy_takes_it_off_or_not() {
    let sites = r#"
[[site]]
key = "demo"
hosts = ["localhost"]
"#;
    let setup = Setup::default().sites(sites).set("public_url", "https://news.example/stats/");
    let app = TestApp::start(setup);
    for target in [
        "/api/v1/sites/demo/counters",
        "/widget/demo",
        "/badge/demo.svg",
        "/widget.css",
        "/demo",
        "/demo/cau-treo",
        "/demo.css",
        "/demo.js",
    ] {
        for prefix in ["", "/stats"] {
            assert_eq!(app.get(&format!("{prefix}{target}")).status, 200, "{prefix}{target}");
        }
        for stranger in ["/stat", "/statss", "/stats/stats"] {
            assert_eq!(app.get(&format!("{stranger}{target}")).status, 404, "{stranger}{target}");
        }
    }
    let beacon = br#"{"site":"demo","url":"/a"}"#;
    assert_eq!(ask(app.public(), request("POST", "/stats/api/v1/beacon", &[], beacon)).status, 204);
    app.note("demo", "/a", None);
    let leads_to = |target: &str| app.get(target).header("location").map(str::to_owned);
    assert_eq!(leads_to("/stats").as_deref(), Some("/stats/demo"));
    assert_eq!(leads_to("/stats/").as_deref(), Some("demo"));
    assert_eq!(leads_to("/").as_deref(), Some("demo"));
}

#[test]
fn a_path_that_begins_like_a_route_loses_no_beacon_whether_the_proxy_takes_it_off_or_not() {
    for (mount, own) in [("/api", "collect"), ("/stats", "stats"), ("/api/v1", "c"), ("/badge", "b")] {
        let setup = Setup::default().set("public_url", format!("https://x.vn{mount}"));
        let app = TestApp::start(setup.set("page.beacon", own).set("page.script", "stats"));
        let beacon = br#"{"site":"lamdong","url":"/a"}"#;
        for prefix in ["", mount] {
            for path in ["/api/v1/beacon", &format!("/{own}")] {
                let asked = format!("{prefix}{path}");
                assert_eq!(ask(app.public(), request("POST", &asked, &[], beacon)).status, 204, "{asked}");
            }
            for path in ["/stats.js", "/footfall.js", "/widget/lamdong", "/api/v1/sites/lamdong/counters"] {
                assert_eq!(app.get(&format!("{prefix}{path}")).status, 200, "{prefix}{path}");
            }
        }
    }
}

/// What the attributes of a page point at, as a browser resolves it.
fn links(page: &Answer, at: &str) -> Vec<String> {
    let base = url::Url::parse(&format!("http://localhost{at}")).unwrap();
    let text = page.text();
    let targets = ["href=\"", "src=\""].into_iter().flat_map(|name| text.split(name).skip(1));
    targets
        .filter_map(|rest| rest.split('"').next())
        .filter(|target| !target.starts_with("data:"))
        .map(|target| base.join(&target.replace("&amp;", "&")).unwrap())
        .map(|url| url.path().to_owned() + &url.query().map_or(String::new(), |query| format!("?{query}")))
        .collect()
}

#[test]
fn the_demo_uses_all_there_is_under_a_strict_policy() {
    let demo = "[[site]]\nkey = \"demo\"\nhosts = [\"localhost\"]\n";
    let app = TestApp::start(Setup::default().sites(demo));
    assert_eq!(app.get("/").header("location"), Some("demo"));
    for at in ["/demo", "/demo/cho-phien", "/demo/cau-treo", "/demo/thu-vien"] {
        app.take(&view(at).with("site", "demo"));
        app.page_of("demo", at);
        let page = app.get(at);
        assert_eq!((page.status, page.header("cache-control")), (200, Some("no-store")), "{at}");
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        for own in ["<script>", "<style", " style=", " onclick", "{title}", "{root}", "{body}"] {
            assert!(!page.text().contains(own), "{at}: {own}");
        }
        assert!(page.text().contains("Lượt xem: <strong data-footfall=\"page.views.all\">1</strong>"));
        assert!(page.text().contains(&format!("data-page=\"{at}\"")));
        for words in [
            "<span>Không tính lượt xem từ trình duyệt này</span><span>Tính lại lượt xem từ trình duyệt này</span>",
            "Cũng khối này, nhúng bằng iframe",
            "Một con số dưới dạng huy hiệu",
        ] {
            assert!(page.text().contains(words), "{words}");
        }
        for link in links(&page, at).into_iter().filter(|link| link != "/footfall.js") {
            assert_eq!(app.get(&link).status, 200, "{at} leads to {link}");
        }
    }
    assert_eq!(app.get("/demo/nowhere").outcome(), (404, "not-found".into()));
    let in_language = |target: &str, language: &str| {
        let accept = ("Accept", "text/html,*/*;q=0.8");
        ask(app.public(), request("GET", target, &[accept, ("Accept-Language", language)], b""))
    };
    for at in ["/demo", "/demo/cho-phien", "/demo/cau-treo", "/demo/thu-vien"] {
        let page = in_language(at, "de-DE,de;q=0.9,en;q=0.8");
        let text = page.text();
        assert!(text.contains("<html lang=\"en\">") && text.contains("<h1>"), "{at}: {text}");
        assert!(text.contains("Views: <strong data-footfall=\"page.views.all\">1</strong>"), "{at}: {text}");
        // The name of the other language alone is not English.
        let others = text.replace("Tiếng Việt", "");
        assert!(!others.contains(|c: char| ('\u{1ea0}'..='\u{1ef9}').contains(&c)), "{at}: {others}");
        assert!(in_language(at, "vi").text().contains("<html lang=\"vi\">"), "{at}");
        // What was chosen holds, also on the pages that it leads to.
        let chosen = format!("{at}?lang=en");
        let page = in_language(&chosen, "vi");
        let others = |link: &String| {
            link.starts_with("/demo")
                && !["/demo.css", "/demo.js"].contains(&&**link)
                && link != &format!("{at}?lang=vi")
        };
        let articles: Vec<_> = links(&page, &chosen).into_iter().filter(others).collect();
        assert!(
            articles.len() >= 3 && articles.iter().all(|link| link.ends_with("?lang=en")),
            "{articles:?}"
        );
        for link in links(&page, &chosen).into_iter().filter(|link| link != "/footfall.js") {
            assert_eq!(app.get(&link).status, 200, "{chosen} leads to {link}");
        }
    }
    // A person who opens a path that nobody serves is told what this is.
    for nowhere in ["/demo/nowhere", "/nowhere", "/favicon.png"] {
        let page = in_language(nowhere, "vi");
        assert_eq!((page.status, page.header("footfall-reason")), (404, Some("not-found")), "{nowhere}");
        assert!(page.text().contains("Đây là footfall, dịch vụ đếm lượt truy cập"), "{}", page.text());
        assert!(in_language(nowhere, "en").text().contains("This is footfall, a service that counts"));
        assert!(app.get(nowhere).json()["detail"].as_str().unwrap().contains("counts the visits"));
    }
    let counters = app.counters_of("demo");
    assert_eq!(counters["views"]["all"], 4);
}

#[test]
fn a_server_that_assembles_pages_names_the_page_by_a_header() {
    let app = TestApp::start(Setup::default().and("page_query = [\"id\"]"));
    for page in ["/a+b", "/a%2Bb", "/a%2Bb", "/tin tức?id=1", "/tin tức?id=1", "/tin tức?id=1"] {
        app.take(&view(page));
    }
    let shown = |page: &[(&str, &str)], query: &str| {
        let target = format!("/widget/lamdong?format=text&figure=page.views.all{query}");
        ask(app.public(), request("GET", &target, page, b""))
    };
    for (page, query, views, cache) in [
        ("/a+b", "", "1", "no-store"),
        ("/a%2Bb", "", "2", "no-store"),
        ("/tin%20t%E1%BB%A9c?x=1&id=1", "", "3", "no-store"),
        ("/a+b", "&page=/a%252Bb", "2", CACHED),
        ("//elsewhere.vn/", "", "", "no-store"),
        ("\u{1ec7}", "", "", "no-store"),
    ] {
        let page = [("footfall-page", page)];
        until("the page is known", || shown(&page, query).text() == views);
        assert_eq!(shown(&page, query).header("cache-control"), Some(cache), "{page:?} {query}");
    }
}
