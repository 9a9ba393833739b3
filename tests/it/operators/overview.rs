//! The page of figures: for operators, and for a newsroom behind a token.

use std::time::Duration;

use footfall::config::Config;

use crate::support::dice::Dice;
use crate::support::harness::{Setup, TestApp, view};
use crate::support::http::{Answer, Connection, ask, get, request};
use crate::support::proxy::Proxy;
use crate::support::servers::RedisServer;
use crate::support::wait::until;

const TOKEN: &str = "0123456789abcdef";
const START: &str = "2026-11-20T09:30:00+07:00";

fn setup() -> Setup {
    Setup::default().sites(&format!(
        "[[site]]\nkey = \"lamdong\"\nhosts = [\"baolamdong.vn\"]\ntime_zone = \"Asia/Ho_Chi_Minh\"\n\
         newsroom_token = \"{TOKEN}\"\n\n[[site]]\nkey = \"closed\"\nhosts = [\"closed.example\"]\n\
         time_zone = \"UTC\"\n"
    ))
}

fn newsroom(app: &TestApp) -> String {
    app.newsroom(TOKEN).text().to_owned()
}

fn read(app: &TestApp, page: &str, times: usize, from: u8) {
    for i in 0..times {
        app.take(&view(&format!("https://baolamdong.vn{page}")).from(&format!("113.160.{from}.{i}")));
    }
}

#[test]
fn figures_of_hours_days_and_pages_are_what_was_accepted_also_after_a_restart() {
    let mut app = TestApp::start_at(START, setup());
    read(&app, "/a", 3, 1);
    app.step_to("2026-11-21T08:10:00+07:00");
    read(&app, "/a", 4, 2);
    app.step_to("2026-11-21T10:10:00+07:00");
    read(&app, "/b", 2, 3);
    app.step_to("2026-11-22T09:10:00+07:00");
    read(&app, "/a", 1, 4);
    read(&app, "/b", 5, 5);
    let right = |page: &str| {
        page.contains("Fri 20 Nov: 3 views, 3 visits")
            && page.contains("Sat 21 Nov: 6 views, 6 visits")
            && page.contains("Sun 22 Nov: 6 views, 6 visits")
            && page.contains("21 Nov 10:00: 2 views, 2 visits")
            && page.contains("22 Nov 09:00: 6 views, 6 visits")
            && page.contains("−100\u{a0}%</span><br>0 by 09:00<br>yesterday 4 by then<br>yesterday 6 in all")
    };
    until("the page tells of the past", || right(&newsroom(&app)));
    until("the most-read pages come in order", || {
        app.pass(Duration::from_secs(11));
        let page = newsroom(&app);
        let (first, second) =
            (page.find("<bdi class=\"p\">/b</bdi>"), page.find("<bdi class=\"p\">/a</bdi>"));
        first.is_some() && second.is_some() && first < second
    });
    app.restart_after(Duration::from_secs(1));
    until("a restart forgets nothing", || right(&newsroom(&app)));
    assert!(right(get(app.admin(), "/").text()), "operators see the same");
}

#[test]
fn the_newsroom_opens_to_its_token_alone() {
    let app = TestApp::start_at(START, setup());
    for target in ["/newsroom/closed", "/newsroom/closed?token=", "/newsroom/nobody?token=0123456789abcdef"] {
        assert_eq!(app.get(target).status, 404, "{target}");
    }
    for query in ["", "?token=", "?token=0123456789abcdeg", "?token=0123456789abcdef0", "?x=0123456789abcdef"]
    {
        let answer = app.get(&format!("/newsroom/lamdong{query}"));
        assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("wrong-token")), "{query}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    }
    // Who opens a wrong link in a browser is told so in the browser's language.
    for (target, status) in [("/newsroom/lamdong?token=x", 403), ("/newsroom/nobody?token=x", 404)] {
        for (language, lang, words) in [
            ("vi-VN,vi;q=0.9,en;q=0.8", "vi", "Liên kết này không mở được trang số liệu"),
            ("de-DE,de;q=0.9,en;q=0.8,vi;q=0.7", "en", "This link does not open the newsroom page"),
            ("fr", "en", "This link does not open the newsroom page"),
        ] {
            let accept = ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8");
            let asked = request("GET", target, &[accept, ("Accept-Language", language)], b"");
            let page = ask(app.public(), asked);
            assert_eq!(
                (page.status, page.header("content-type")),
                (status, Some("text/html; charset=utf-8"))
            );
            assert!(page.text().contains(words), "{}", page.text());
            assert!(page.text().contains(&format!("<html lang=\"{lang}\">")), "{}", page.text());
            assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
        }
    }
    for wrong in ["", "0123456789abcdeg", "0123456789abcdef0", "\"0123456789abcdef\""] {
        assert_eq!(app.newsroom(wrong).outcome(), (403, "wrong-token".into()), "{wrong}");
    }
    let page = app.newsroom(TOKEN);
    assert_eq!(page.status, 200);
    assert_eq!(page.header("set-cookie"), None);
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(page.header("x-robots-tag"), Some("noindex, nofollow"));
    assert!(!page.text().contains(TOKEN) && !page.text().contains("closed"), "of its own site only");
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'nonce-") && !policy.contains("unsafe"));
    let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).expect("a nonce");
    assert_eq!(page.text().matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    let again = app.newsroom(TOKEN);
    assert_ne!(again.header("content-security-policy"), Some(policy), "a nonce is used once");
}

#[test]
fn the_link_is_traded_for_a_cookie_of_the_page() {
    let cookies = |answer: &Answer| -> Vec<String> {
        let set = answer.headers.iter().filter(|(name, _)| name == "set-cookie");
        set.map(|(_, value)| value.clone()).collect()
    };
    let cookie = |path: &str, rest: &str| {
        format!("footfall_newsroom={TOKEN}; Path={path}; Max-Age=31536000; HttpOnly; SameSite=Lax{rest}")
    };
    for (public_url, paths, rest) in [
        ("", &["/newsroom/lamdong"][..], ""),
        ("http://news.example/stats", &["/newsroom/lamdong", "/stats/newsroom/lamdong"], ""),
        ("https://stats.example", &["/newsroom/lamdong"], "; Secure"),
    ] {
        let app = TestApp::start_at(START, setup().set("public_url", public_url));
        let expected: Vec<String> = paths.iter().map(|path| cookie(path, rest)).collect();
        for (target, location) in [
            ("/newsroom/lamdong?token=", "../newsroom/lamdong"),
            ("/Newsroom//lamdong/?part=figures&token=", "../../newsroom/lamdong"),
        ] {
            let answer = app.get(&format!("{target}{TOKEN}"));
            assert_eq!((answer.status, answer.header("location")), (303, Some(location)), "{target}");
            assert_eq!(cookies(&answer), expected);
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
            assert_eq!(answer.body, b"");
        }
        // With the cookie, a wrong link stays a wrong link.
        let headers = [("cookie", format!("footfall_newsroom={TOKEN}"))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        let wrong = ask(app.public(), request("GET", "/newsroom/lamdong?token=x", &headers, b""));
        assert_eq!((wrong.outcome(), cookies(&wrong)), ((403, "wrong-token".into()), Vec::new()));
        assert_eq!(ask(app.public(), request("GET", "/newsroom/closed", &headers, b"")).status, 404);
    }
}

#[test]
fn the_token_is_never_shown_and_may_stand_in_a_file() {
    let site = |token: &str| {
        format!(
            "[[site]]\nkey = \"a\"\nhosts = [\"a.example\"]\ntime_zone = \"UTC\"\nnewsroom_token = {token}\n"
        )
    };
    let load = |token: &str, env: Vec<(String, String)>| {
        Config::load(Some(("footfall.toml", site(token).as_str())), env.into_iter())
    };
    let config = load(&format!("\"{TOKEN}\""), Vec::new()).expect("a token");
    assert!(config.to_toml().contains("newsroom_token = \"***\""), "{}", config.to_toml());
    assert!(!format!("{config:?}{:?}", config.sites.get("a")).contains(TOKEN));
    for wrong in ["\"too-short-secret\".", "\"a secret with spaces\"", "\"too-short\"", "1234567890123456"] {
        let faults = load(wrong, Vec::new()).expect_err(wrong).to_string();
        assert!(
            !faults.contains("secret") && !faults.contains("too-short") && !faults.contains("123456"),
            "{faults}"
        );
    }
    let file = std::env::temp_dir().join(format!("footfall-token-{}", std::process::id()));
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let name = "FOOTFALL_SITE__0__NEWSROOM_TOKEN_FILE".to_owned();
    let config = load("\"\"", vec![(name, file.display().to_string())]).expect("a token in a file");
    std::fs::remove_file(&file).unwrap();
    let token = config.sites.get("a").and_then(|site| site.newsroom_token.clone()).expect("a token");
    assert!(token.is(TOKEN) && !token.is("0123456789abcdeg") && !token.is(""));
}

#[test]
fn a_hostile_page_is_shown_as_text() {
    let app = TestApp::start_at(START, setup());
    app.take(&view("/<script>alert(1)</script>\"'{nonce}"));
    until("the page is listed", || {
        app.pass(Duration::from_secs(11));
        newsroom(&app).contains("alert(1)")
    });
    let page = newsroom(&app);
    assert_eq!(page.matches("<script").count(), 1, "the page's own");
    assert!(!page.contains("<script>alert"));
}

#[test]
fn the_page_says_that_the_store_is_away() {
    let mut redis = RedisServer::start();
    redis.kill();
    let app = TestApp::start_at(START, setup().store(&redis.url()));
    app.take(&view("https://baolamdong.vn/a"));
    for page in [newsroom(&app), get(app.admin(), "/").text().to_owned()] {
        assert!(page.contains("<b>store</b> unreachable: views are kept and applied later"), "{page}");
        assert!(page.contains("are not known yet"), "what is not known is not shown as 0");
    }
    redis.restart();
    until("the store is back", || !app.readiness().1.contains("unreachable"));
}

#[test]
fn hours_and_days_come_from_redis_too() {
    let redis = RedisServer::start();
    let app = TestApp::start_at(START, setup().store(&redis.url()));
    app.until_stale(false);
    read(&app, "/a", 7, 1);
    until("the page tells of it", || {
        app.pass(Duration::from_secs(11));
        let page = newsroom(&app);
        page.contains("Fri 20 Nov: 7 views, 7 visits") && page.contains("<bdi class=\"p\">/a</bdi>")
    });
}

#[test]
fn a_site_without_views_is_shown_with_the_line_to_paste() {
    let setup = setup().set("public_url", "https://stats.example").set("page.script", "stats");
    let app = TestApp::start_at(START, setup.set("store.flush_interval", "100ms"));
    let lines = app.shell("footfall snippet lamdong");
    let line = lines.lines().find(|line| line.starts_with("<script defer src")).expect("a line");
    let shown = line.replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    for page in [newsroom(&app), get(app.admin(), "/").text().to_owned()] {
        assert!(page.contains(&format!("<pre>{shown}</pre>")), "{line}: {page}");
    }
    read(&app, "/a", 1, 1);
    assert!(!newsroom(&app).contains("<pre>"));
}

#[test]
fn what_the_store_has_not_yet_is_said_to_follow() {
    let app = TestApp::start_at(START, setup().set("store.flush_interval", "5m"));
    assert!(newsroom(&app).contains("No page has been read yet."));
    read(&app, "/a", 1, 1);
    assert!(newsroom(&app).contains("Today's pages follow once the store has them."));
    assert!(newsroom(&app).contains("<span>1 view, peak 1</span>"));
}

#[test]
fn the_store_is_asked_once_for_all_who_read_at_once() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.port(), Dice(0));
    // Nobody gives up while answers are held back.
    let app = TestApp::start_at(START, setup().store(&proxy.url()).set("store.timeout", "60s"));
    read(&app, "/a", 3, 1);
    until("the page tells of it", || {
        app.pass(Duration::from_secs(11));
        newsroom(&app).contains("<bdi class=\"p\">/a</bdi>")
    });
    let page = |connection: &mut Connection| connection.send(request("GET", "/", &[], b"")).unwrap();
    let mut readers: Vec<Connection> = (0..40).map(|_| Connection::open(app.admin()).unwrap()).collect();
    for reader in &mut readers {
        page(reader);
        assert_eq!(reader.answer().unwrap().status, 200);
    }
    app.pass(Duration::from_secs(11));
    let (before, connections) = (proxy.asked("HSCAN"), proxy.asked("SETINFO"));
    proxy.set_holds(true);
    readers.iter_mut().for_each(page);
    until("the past is asked for", || proxy.asked("SETINFO") > connections);
    // While the first is being answered the others ask.
    assert_eq!(get(app.admin(), "/livez").status, 200);
    proxy.set_holds(false);
    for reader in &mut readers {
        assert_eq!(reader.answer().unwrap().status, 200);
    }
    until("the pages of both sites are asked for", || proxy.asked("HSCAN") >= before + 2);
    assert_eq!(get(app.admin(), "/").status, 200);
    assert_eq!(proxy.asked("HSCAN"), before + 2, "once for each of the two sites");
}
