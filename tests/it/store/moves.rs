//! Pages that moved: they are counted and shown under their new names.

use std::time::Duration;

use crate::support::harness::{SITE, Setup, TestApp, view};
use crate::support::http::get;
use crate::support::servers::RedisServer;
use crate::support::service::Service;
use crate::support::wait::until;

#[track_caller]
fn refused(app: &TestApp, arguments: &[&str], why: &str) {
    let (code, said) = app.order(arguments);
    assert!(code == 1 && said.contains(why), "{arguments:?}: {said}");
}

fn views(app: &TestApp, pages: [&str; 3]) -> [u64; 3] {
    pages.map(|page| app.page(page)["views"]["all"].as_u64().unwrap())
}

const PAGES: [&str; 3] = ["/a", "/b", "/c"];

fn move_of<'a>(pages: &[&'a str]) -> Vec<&'a str> {
    [&["pages", "move", "--site", SITE], pages].concat()
}

#[test]
fn a_page_that_moved_is_counted_and_shown_under_its_new_name() {
    let redis = RedisServer::start();
    for url in ["embedded".to_owned(), redis.url()] {
        let mut app = TestApp::start(Setup::default().store(&url));
        app.compares_pages = false;
        app.until_stale(false);
        app.read(3);
        app.take(&view("/b").by(7));
        app.take(&view("/a").by(1).id("once"));
        assert_eq!(views(&app, PAGES), [4, 1, 0]);
        let said = app.ordered(&move_of(&["/a", "/b", "--dry-run"]));
        assert!(said.contains("lamdong: /a is shown as /b\nnothing is changed"), "{said}");
        assert_eq!(views(&app, PAGES), [4, 1, 0]);
        app.ordered(&move_of(&["/a", "https://www.baolamdong.vn/b", "--why", "renamed"]));
        assert_eq!(views(&app, PAGES), [5, 5, 0], "shown at once");
        assert_eq!(app.page("/a"), app.page("/b"));
        (20..24).for_each(|reader| app.take(&view("/d").by(reader)));
        until("it is listed once, with the sum", || {
            app.pass(Duration::from_secs(11));
            let page = get(app.admin(), "/").text().to_owned();
            let of = |name: &str| page.find(&format!("<bdi class=\"p\">{name}</bdi>"));
            of("/a").is_none() && of("/b").is_some() && of("/b") < of("/d")
        });
        app.take(&view("/a").by(8));
        // The same view again: it was taken before the page moved.
        app.take(&view("/a").by(1).id("once"));
        assert_eq!(views(&app, PAGES), [6, 6, 0]);
        assert_eq!(app.page("/b")["online"], 2, "on the old name they were before");
        app.ordered(&move_of(&["/b", "/c"]));
        assert_eq!(views(&app, PAGES), [6, 6, 6], "over two moves");
        assert!(
            app.ordered(&["pages", "list"])
                .contains("lamdong: /a is shown as /b\nlamdong: /b is shown as /c")
        );
        assert!(app.ordered(&["entries"]).contains("pages move  1 values: renamed"));
        refused(&app, &move_of(&["/c", "/a"]), "/c would be shown as itself");
        refused(&app, &move_of(&["/d", "/d"]), "/d would be shown as itself");
        refused(&app, &move_of(&["/a", "/d"]), "/a is shown as /b: undo that first");
        refused(&app, &move_of(&["--undo", "/d"]), "/d is shown as itself");
        refused(&app, &move_of(&["/d", "https://elsewhere.example/"]), "is neither a path nor a URL");
        refused(
            &app,
            &["pages", "move", "--site", "nobody", "/d", "/e"],
            "site \"nobody\" is not configured",
        );
        refused(&app, &["entries", "undo", "1"], "pages are moved back with");
        assert!(app.ordered(&move_of(&["/a", "/b"])).contains("nothing changes"));
        let said = app.ordered(&[
            "import",
            &app.write("shows.csv", "total,period,page,value\nviews,all,/a,20\n"),
            "--site",
            SITE,
        ]);
        assert!(said.contains("1 values are entered"), "{said}");
        assert_eq!(views(&app, PAGES), [20; 3], "what it shall show, whichever name says so");
        app.kill_and_begin_after(Duration::from_secs(3));
        assert_eq!(views(&app, PAGES), [20; 3]);
        app.restart_after(Duration::from_secs(3));
        app.take(&view("/a").by(9));
        assert_eq!(views(&app, PAGES), [21; 3]);
        app.ordered(&move_of(&["--undo", "/b"]));
        assert_eq!(views(&app, PAGES), [6, 6, 15]);
        app.ordered(&move_of(&["--undo", "/a"]));
        assert_eq!(views(&app, PAGES), [4, 2, 15], "nothing was moved in the store");
        assert!(app.ordered(&["pages", "list"]).contains("no page has moved"));
        assert!(app.ordered(&["verify"]).contains("everything agrees"));
    }
}

#[test]
fn an_erased_page_is_shown_with_nothing_and_counted_for_other() {
    let redis = RedisServer::start();
    for url in ["embedded".to_owned(), redis.url()] {
        let mut app = TestApp::start(Setup::default().store(&url));
        app.compares_pages = false;
        app.until_stale(false);
        app.read(3);
        app.take(&view("/b").by(7));
        app.take(&view("/c").by(8));
        app.ordered(&["adjust", "--site", SITE, "--day", "current", "--page", "/c", "views", "5"]);
        let erase = ["erase", "--site", SITE, "--page", "/c"];
        let said = app.ordered(&[&erase[..], &["--dry-run"]].concat());
        assert!(
            said.contains("lamdong: /c is shown as nothing: its 1 views become part of (other)")
                && said.contains("a dry run"),
            "{said}"
        );
        assert_eq!(views(&app, PAGES), [3, 1, 6]);
        app.ordered(&erase);
        assert_eq!(views(&app, PAGES), [3, 1, 0]);
        refused(&app, &move_of(&["/b", "/c"]), "/b would be shown as itself, as a page that was erased");
        let adjust = ["adjust", "--site", SITE, "--day", "current", "--page", "/c", "views", "1"];
        refused(&app, &adjust, "/c was erased");
        app.take(&view("/c").by(3));
        app.restart_after(Duration::from_secs(3));
        assert_eq!(views(&app, PAGES), [3, 1, 0]);
        assert!(app.ordered(&["verify"]).contains("everything agrees"));
        app.ordered(&move_of(&["--undo", "/c"]));
        app.take(&view("/c").by(4));
        assert_eq!(views(&app, PAGES), [3, 1, 1], "it begins anew");
    }
}

#[test]
fn pages_are_shown_as_they_moved_at_a_start_while_the_store_is_away() {
    let mut redis = RedisServer::lasting();
    let mut app = TestApp::start(Setup::default().store(&redis.url()));
    app.compares_pages = false;
    app.until_stale(false);
    app.read(3);
    app.take(&view("/b").by(7));
    app.take(&view("/c").by(8));
    app.ordered(&move_of(&["/a", "/b"]));
    app.ordered(&["erase", "--site", SITE, "--page", "/c"]);
    assert_eq!(views(&app, PAGES), [4, 4, 0]);
    app.restart_after(Duration::from_secs(1));
    redis.kill();
    app.restart_after(Duration::from_secs(1));
    app.until_stale(true);
    assert_eq!(app.page("/a"), app.page("/b"));
    assert_eq!(app.page("/b")["views"]["all"], 4);
    for page in ["/a", "/c"] {
        app.take(&view(page).by(9));
    }
    assert_eq!(app.page("/b")["views"]["all"], 5, "they are counted so, too");
    redis.restart();
    app.until_stale(false);
    assert_eq!(views(&app, PAGES), [5, 5, 0]);
}

#[test]
fn a_list_of_pages_moves_as_a_whole_or_not_at_all() {
    let mut service = Service::start(Setup::default());
    service.read(2);
    service.write(
        "moved.csv",
        "\u{feff}/a;/x/a\n\n\"/b;b\";/x/b\n/c;/x/a\nhttps://elsewhere.example/;/e\n/e;/a\n/x/a;/e\n",
    );
    let (code, said) = service.order(&move_of(&["--file", "moved.csv"]));
    assert_eq!(code, 1, "{said}");
    for fault in [
        "line 5: \"https://elsewhere",
        "line 1: /a would",
        "line 4: /c would",
        "line 6: /e would",
        "line 7: /x/a would",
    ] {
        assert!(said.contains(fault), "{fault} in {said}");
    }
    assert!(
        !said.contains("line 3") && service.ordered(&["pages", "list"]).contains("no page has moved"),
        "{said}"
    );
    service.write("moved.csv", "/a;/x/a;/b\n/c;/x/c\n/d;\n");
    let (code, said) = service.order(&move_of(&["--file", "moved.csv"]));
    for line in [1, 3] {
        let fault = format!("line {line}: not an old and a new page");
        assert!(code == 1 && said.contains(&fault) && !said.contains("line 2"), "{said}");
    }
    let many: String = (0..=10_000).map(|n| format!("/old/{n},/new/{n}\n")).collect();
    service.write("moved.csv", &many);
    let (code, said) = service.order(&move_of(&["--file", "moved.csv"]));
    assert!(code == 1 && said.contains("more than 10000 pages of site lamdong"), "{said}");
    service.write("moved.csv", &many[..many.find("/old/500,").unwrap()]);
    let steps: String = (0..16).map(|n| format!("/step/{n},/step/{}\n", n + 1)).collect();
    service.write("steps.csv", &steps);
    service.ordered(&move_of(&["--file", "steps.csv"]));
    let (code, said) = service.order(&move_of(&["/step/16", "/step/17"]));
    assert!(
        code == 1 && said.contains(" /step/0 would be shown as itself") && !said.contains("/step/1 "),
        "{said}"
    );
    service.ordered(&move_of(&["--undo", "/step/0"]));
    service.stop();
    service.ordered(&move_of(&["--file", "moved.csv"]));
    service.begin();
    service.take(&view("/old/499"));
    assert_eq!(service.page(SITE, "/new/499"), 1);
    assert_eq!(service.ordered(&["pages", "list", "--site", SITE]).lines().count(), 515);
    let full: String = (516..10_000).map(|n| format!("/full/{n},/new/{n}\n")).collect();
    service.write("moved.csv", &full);
    service.ordered(&move_of(&["--file", "moved.csv"]));
    let (code, said) = service.order(&move_of(&["/more", "/b"]));
    assert!(code == 1 && said.contains("more than 10000 pages"), "{said}");
    service.ordered(&["erase", "--site", SITE, "--page", "/more"]);
    assert_eq!(service.page(SITE, "/more"), 0);
}

#[test]
fn all_instances_see_what_moved_and_copies_keep_it() {
    let (mut redis, other) = (RedisServer::start(), RedisServer::start());
    let setup = Setup::default().store(&redis.url());
    let [mut first, second] = [Service::start(setup.clone()), Service::start(setup)];
    first.read(2);
    second.take(&view("/b").by(9));
    [&first, &second].into_iter().for_each(Service::until_applied);
    first.ordered(&move_of(&["/a", "/b"]));
    until("the other one shows it", || second.page(SITE, "/a") == 3);
    second.take(&view("/a").by(10));
    second.until_applied();
    until("both count it", || [&first, &second].iter().all(|service| service.page(SITE, "/b") == 4));
    // A server that lost it is given it again.
    let mut client = redis.client();
    ["aliases", "entries"]
        .iter()
        .for_each(|hash| _ = client.ask(&[b"DEL", RedisServer::key(hash).as_bytes()]));
    client.ask(&[b"SAVE"]);
    redis.restart();
    let moved = RedisServer::key("aliases");
    until("it is healed", || redis.client().ask(&[b"HEXISTS", moved.as_bytes(), b"+/a"]).int() == 1);
    first.until_applied();
    assert_eq!(first.page(SITE, "/a"), 4);
    first.ordered(&["migrate", "store", &other.url()]);
    first.stop();
    drop(second);
    first.set("store.url", &other.url());
    first.begin();
    assert_eq!(first.page(SITE, "/a"), 4);
    assert!(first.ordered(&["pages", "list"]).contains("lamdong: /a is shown as /b"));
}

#[test]
fn an_erased_page_does_not_come_back() {
    let mut redis = RedisServer::start();
    let setup = Setup::default().store(&redis.url());
    let slow = setup.clone().set("store.flush_interval", "60s");
    let [first, mut second] = [Service::start(setup), Service::start(slow)];
    first.read(3);
    first.ordered(&["adjust", "--site", SITE, "--day", "current", "--page", "/a", "views", "5"]);
    first.until_applied();
    // It has not brought this yet when the page is erased.
    second.take(&view("/a").by(10));
    second.kill9();
    let saved = |redis: &RedisServer| {
        redis.client().ask(&[b"SAVE"]);
        std::fs::read(redis.dir().join("dump.rdb")).unwrap()
    };
    let before = saved(&redis);
    let said = first.ordered(&["erase", "--site", SITE, "--page", "/a", "--why", "asked by its author"]);
    assert!(said.contains("in the outbox of each instance for 72 hours"), "{said}");
    let all = RedisServer::key("all:pages");
    let is_gone = |redis: &RedisServer, other| {
        let has_entry = redis.client().ask(&[b"HEXISTS", all.as_bytes(), b"+/a"]).int() == 1;
        redis.sum("all:pages", "(other)") == Some(other)
            && redis.sum("all:pages", "/a").is_none()
            && !has_entry
    };
    until("its views have no name", || is_gone(&redis, 3));
    assert_eq!(first.page(SITE, "/a"), 0);
    assert!(!first.ordered(&["entries", "show", "1"]).contains("/a"), "nor have its entries");
    first.take(&view("/a").by(11));
    until("nor has what is counted from then on", || is_gone(&redis, 4));
    let after = saved(&redis);
    second.set("store.flush_interval", "1s");
    second.begin();
    until("nor has what was on its way", || is_gone(&redis, 5));
    // It goes back to where the page was erased already, and to where it was not.
    for image in [after, before] {
        redis.kill();
        std::fs::write(redis.dir().join("dump.rdb"), image).unwrap();
        redis.restart();
        until("nor has what is brought again", || is_gone(&redis, 5));
    }
    for service in [&first, &second] {
        service.until_applied();
        assert_eq!(service.page(SITE, "/a"), 0);
        until("the site's own are all there", || service.counters(SITE)["views"]["all"] == 5);
    }
    assert!(first.ordered(&["verify"]).contains("everything agrees"));
}

const OTHER_SITE: &str = "[[site]]\nkey = \"tin\"\nhosts = [\"tin.vn\"]\ntime_zone = \"Asia/Ho_Chi_Minh\"\n";

#[test]
fn an_erased_site_begins_anew_and_does_not_come_back() {
    let mut redis = RedisServer::start();
    for url in ["embedded".to_owned(), redis.url()] {
        let is_redis = url != "embedded";
        let mut app = TestApp::start(Setup::default().store(&url).and(OTHER_SITE));
        app.until_stale(false);
        app.read(5);
        app.take(&view("/x").with("site", "tin").by(1));
        let all = |app: &TestApp, site: &str| app.counters_of(site)["views"]["all"].clone();
        until("all is applied", || app.metric("footfall_oldest_unapplied_timestamp_seconds") == 0.0);
        if is_redis {
            redis.client().ask(&[b"SAVE"]);
        }
        let erase = ["erase", "--site", SITE, "--whole-site"];
        let said = app.ordered(&[&erase[..], &["--dry-run"]].concat());
        assert!(said.contains("lamdong: 5 views and 5 visits of all time would be erased"), "{said}");
        assert_eq!(all(&app, SITE), 5);
        let said = app.ordered(&[&erase[..], &["--why", "contract ended"]].concat());
        assert!(said.contains("they remain in the outbox of each instance for 72 hours"), "{said}");
        app.forget_what_was_accepted();
        assert_eq!((all(&app, SITE), all(&app, "tin")), (0.into(), 1.into()));
        assert_eq!(app.page("/")["views"]["all"], 0);
        assert!(app.ordered(&["entries", "--site", SITE]).contains("erase"));
        app.take(&view("/").by(9));

        match is_redis {
            true => app.restart_after(Duration::from_secs(3)),
            false => app.kill_and_begin_after(Duration::from_secs(3)),
        }
        until("what came after is there", || all(&app, SITE) == 1);
        assert_eq!(all(&app, "tin"), 1);
        app.ordered(&["verify"]);
        if is_redis {
            until("all is applied", || app.metric("footfall_oldest_unapplied_timestamp_seconds") == 0.0);
            // It goes back to before: what it holds of the site is another data set, and nobody is shown it.
            redis.client().ask(&[b"CONFIG", b"SET", b"save", b""]);
            redis.restart();
            until("the site waits for a word", || app.readiness().1.contains("lamdong: "));
            assert_eq!((all(&app, SITE), all(&app, "tin")), (1.into(), 1.into()));
            app.ordered(&["store", "accept-empty"]);
        }
        app.forget_what_was_accepted();
    }
}
