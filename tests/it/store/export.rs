//! All totals as rows: what is exported reads the same where it is imported.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::support::harness::{SITE, Setup, TestApp, view};
use crate::support::servers::RedisServer;
use crate::support::service::Service;
use crate::support::wait::until;

const TOKEN: &str = "0123456789abcdef";

/// Pages that are read, and one of which only the past is known; some would need care in a file.
const PAGES: [&str; 6] = ["/a", "/tin/,\"x\";", "/b", "/+c", "/past", "/ends%20"];

fn app(url: &str) -> TestApp {
    let setup = Setup::default().store(url).and(&format!("newsroom_token = \"{TOKEN}\""));
    let mut app = TestApp::start_at("2023-08-30T10:00:00+07:00", setup);
    // Of what is imported no view was taken.
    app.breaks_the_store();
    app.compares_pages = false;
    app
}

fn read(app: &TestApp, page: &str, times: u32, from: u32) {
    (from..from + times).for_each(|reader| app.take(&view(page).by(reader)));
}

/// All that is shown, but who is online and when it changed. Time passes, after which the newsroom's page is read anew.
fn shown(app: &TestApp) -> (Value, Vec<Value>, Vec<String>) {
    let mut counters = app.counters();
    for member in ["online", "at"] {
        counters[member].take();
    }
    let pages = PAGES.map(|page| app.page(page)["views"].take()).into();
    app.pass(Duration::from_secs(11));
    let newsroom = app.newsroom(TOKEN).text().to_owned();
    let sums =
        newsroom.split(['<', '>', '"']).filter(|text| text.contains(" view") && text.contains(" visit"));
    // A page, and its views.
    let read = newsroom.split("<bdi class=\"p\">").skip(1).filter_map(|item| {
        let (page, rest) = item.split_once("</bdi>")?;
        Some(format!("{page} {}", rest.split_once("<b>")?.1.split_once("</b>")?.0))
    });
    (counters, pages, sums.map(str::to_owned).chain(read).collect())
}

#[test]
fn what_is_exported_reads_the_same_where_it_is_imported() {
    let redis = RedisServer::start();
    let (first, second) = ("embedded", redis.url());
    for (from, to, format) in [(first, second.as_str(), "csv"), (second.as_str(), first, "jsonl")] {
        redis.client().ask(&[b"FLUSHALL"]);
        let one = app(from);
        read(&one, PAGES[0], 3, 1);
        one.step_to("2023-09-13T23:30:00+07:00");
        read(&one, PAGES[0], 2, 11);
        read(&one, PAGES[1], 1, 21);
        one.step_to("2023-09-15T08:19:00+07:00");
        read(&one, PAGES[1], 4, 31);
        read(&one, PAGES[2], 2, 41);
        read(&one, PAGES[3], 1, 51);
        read(&one, PAGES[5], 1, 61);
        let entered = one.write(
            "entered.csv",
            "total,period,bucket,page,value\nvisits,all,,,900\nvisits,year,2023,,500\nvisits,day,2023-09-14,,20\n\
             visitors,day,2023-09-14,,30\nvisitors,all,,,70\nviews,all,,/past,40\nviews,week,current,/past,8\n\
             views,year,current,/a,25\nviews,all,,/a,30\nviews,day,2023-09-15,/past,3\nviews,day,2023-09-15,/b,1\n\
             views,all,,(other),9\nvisits,hour,2023-09-14T08+07:00,,6\n",
        );
        one.ordered(&["import", &entered, "--site", SITE]);
        let file = one.write("all", "");
        let said = one.ordered(&["export", &file, "--format", format]);
        assert!(said.ends_with(" rows are exported\n"), "{said}");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!one.data_dir().join("export").exists());
        let other = app(to);
        other.step_to("2023-09-15T08:19:00+07:00");
        other.until_stale(false);
        other.ordered(&["import", &file]);
        let mut page = shown(&one);
        until("all is shown", || {
            page = shown(&one);
            let has = |text: &str| page.2.iter().any(|line| line.ends_with(text));
            page.0["views"]["all"] == 14
                && page.0["visits"]["all"] == 900
                && has("/past 3")
                && has(": 0 views, 20 visits")
        });
        until("the same is shown", || shown(&other) == page);
        // To the same place it changes nothing.
        one.ordered(&["import", &file]);
        until("it is as before", || shown(&one) == page);
        // Of the copy everything is entered.
        let values = |text: &str| -> BTreeSet<String> {
            let value = |line: &str| line.rsplit_once(',').map(|(value, _)| value.to_owned());
            text.lines().filter_map(value).collect()
        };
        let again = other.ordered(&["export", "--site", SITE]);
        if format == "csv" {
            assert_eq!(values(&again), values(&text));
            assert!(text.contains("\nlamdong,visits,all,all,,900,886\n"), "{text}");
            assert!(text.contains("\nlamdong,visitors,month,2023-09,,11,0\n"), "{text}");
            assert!(text.contains("\nlamdong,views,week,2023-W37,\"/tin/,\"\"x\"\";\",5,0\n"), "{text}");
            assert!(again.contains("\nlamdong,visits,all,all,,900,900\n"), "{again}");
        } else {
            assert!(text.contains(
                "\"total\":\"visits\",\"period\":\"all\",\"bucket\":\"all\",\"page\":\"\",\"value\":900"
            ));
            assert_eq!(again.lines().count(), text.lines().count() + 1);
        }
    }
}

#[test]
fn a_service_that_is_stopped_is_exported_and_imported_into() {
    let mut services = [Service::start(Setup::default()), Service::start(Setup::default())];
    services[0].read(3);
    services.iter_mut().for_each(|service| service.stop());
    let [mut one, mut other] = services;
    assert!(one.ordered(&["export", "all.csv"]).contains(" rows are exported"));
    let all = one.data_dir().parent().unwrap().join("all.csv");
    other.breaks_the_store();
    other.ordered(&["import", all.to_str().unwrap()]);
    [&mut one, &mut other].into_iter().for_each(Service::begin);
    for member in ["views", "visits", "visitors"] {
        assert_eq!(one.counters(SITE)[member], other.counters(SITE)[member]);
    }
    let (code, said) = one.order(&["export", "--site", "nobody"]);
    assert!(code == 1 && said.contains("site \"nobody\" is not configured"), "{said}");
}

#[test]
fn what_is_of_a_calendar_that_the_site_had_is_exported_and_imported_too() {
    let redis = RedisServer::start();
    let with_calendar = |zone: &str, week_start: &str| {
        let hosts = "hosts = [\"baolamdong.vn\"]";
        format!(
            "[[site]]\nkey = \"{SITE}\"\n{hosts}\ntime_zone = \"{zone}\"\nweek_start = \"{week_start}\"\n"
        )
    };
    let (before, now) = (with_calendar("Asia/Ho_Chi_Minh", "monday"), with_calendar("Asia/Tokyo", "sunday"));
    let (first, second) = ("embedded", redis.url());
    for (from, to) in [(first, second.as_str()), (second.as_str(), first)] {
        redis.client().ask(&[b"FLUSHALL"]);
        // A Saturday, and the Wednesday after it.
        let setup = |url, sites: &str| Setup::default().store(url).sites(sites);
        let mut one = TestApp::start_at("2026-11-14T12:00:00+07:00", setup(from, &before));
        read(&one, PAGES[0], 3, 1);
        one.step_to("2026-11-18T12:00:00+07:00");
        read(&one, PAGES[0], 2, 11);
        one.set_sites(&now);
        one.restart_after(Duration::from_secs(60));
        read(&one, PAGES[2], 4, 21);
        let file = one.write("all.csv", &one.ordered(&["export"]));
        let mut other = TestApp::start_at("2026-11-18T14:01:00+09:00", setup(to, &now));
        other.breaks_the_store();
        other.compares_pages = false;
        other.until_stale(false);
        let (code, said) = other.order(&["import", &file]);
        for bucket in ["week 2026-W46", "week 2026-W47", "hour 2026-11-14T12+07:00"] {
            assert!(code == 1 && said.contains(&format!("the site's calendar has no {bucket}")), "{said}");
        }
        assert!(
            said.contains("--former-calendar") && said.trim_end().ends_with("nothing is entered"),
            "{said}"
        );
        other.ordered(&["import", &file, "--former-calendar"]);
        let values = |app: &TestApp| -> BTreeSet<String> {
            let text = app.ordered(&["export"]);
            text.lines().map(|line| line.rsplit_once(',').unwrap().0.to_owned()).collect()
        };
        let all = values(&one);
        for row in
            ["visits,week,2026-W46,,3", "visits,hour,2026-11-18T12+07:00,,2", "visits,week,2026-11-15/P7D,,6"]
        {
            assert!(all.contains(&format!("{SITE},{row}")), "{row}: {all:?}");
        }
        assert_eq!(values(&other), all);
        for member in ["views", "visits", "visitors", "buckets"] {
            assert_eq!(one.counters()[member], other.counters()[member]);
        }
    }
}
