//! How a site moves here from another counter: the recipes of `config/import`, each run on tables as that counter keeps
//! them, and the steps of the handbook.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::harness::{SITE, Setup, TestApp, view};
use crate::support::servers::RedisServer;

fn recipe(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/import").join(name)
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recipes").join(name)
}

/// What a program prints.
#[track_caller]
fn printed(program: &mut Command) -> String {
    let told = program.output().unwrap_or_else(|error| panic!("{program:?}: {error}; or use tests/run"));
    assert!(told.status.success(), "{program:?}: {}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8(told.stdout).unwrap()
}

/// What SQLite says; the same statements are run by MariaDB and MySQL.
#[track_caller]
fn sqlite(statements: [String; 2]) -> String {
    printed(Command::new("sqlite3").args(["-bail", "-tabs", ":memory:"]).args(statements))
}

/// Has rows imported into an empty service.
#[track_caller]
fn imported(rows: &str, how: &[&str]) -> TestApp {
    let mut app = TestApp::start(Setup::default());
    app.compares_pages = false;
    app.until_stale(false);
    let file = app.write("rows", rows);
    let how = [&["import", &file, "--site", SITE][..], how].concat();
    let said = app.ordered(&how);
    assert!(said.contains("values are entered, as 1"), "{said}");
    app
}

fn views(app: &TestApp, page: &str) -> Value {
    app.page(page)["views"]["all"].clone()
}

#[test]
fn nukeviet_shows_the_same_as_before() {
    let read = |path: PathBuf| format!(".read {}", path.display());
    let app = imported(&sqlite([read(fixture("nukeviet.sql")), read(recipe("nukeviet.sql"))]), &[]);
    let visits = &app.counters()["visits"];
    assert_eq!([&visits["all"], &visits["year"], &visits["month"]], [1_316_656, 634_697, 53_735]);
    assert_eq!(views(&app, "/news/thoi-su/mua-lon-gio-manh-17.html"), 12);
}

#[test]
fn wp_postviews_shows_the_same_as_before() {
    let read = |path: PathBuf| format!(".read {}", path.display());
    let app = imported(&sqlite([read(fixture("wp-postviews.sql")), read(recipe("wp-postviews.sql"))]), &[]);
    assert_eq!(app.counters()["views"]["all"], 1_200_362);
    assert_eq!(views(&app, "/2021/02/03/mua-lon"), 1_200_345);
    assert_eq!(views(&app, "/2022/11/30/cho-phiên/"), 17);
}

#[test]
fn goatcounters_export_becomes_days() {
    let load = format!(".import --csv {} hits", fixture("goatcounter.csv").display());
    let rows = sqlite([load, format!(".read {}", recipe("goatcounter.sql").display())]);
    let app = imported(&rows, &["--add", "--roll-up"]);
    let shown = app.counters();
    assert_eq!([&shown["views"]["all"], &shown["visits"]["week"], &shown["visitors"]["all"]], [4, 2, 3]);
    assert_eq!([views(&app, "/tin/1.html"), views(&app, "/tin/2.html")], [2, 2]);
    assert!(rows.contains("visits\tday\t2023-09-12\t\t1"), "a session is a visit of its first day: {rows}");
}

#[test]
fn busuanzis_keys_are_found_by_the_paths_of_a_sitemap() {
    let redis = RedisServer::start();
    let mut client = redis.client();
    let digest = |text: &str| {
        let mut sum = Command::new("sh");
        printed(sum.args(["-c", "printf %s \"$0\" | md5sum | cut -c -32", text])).trim().to_owned()
    };
    assert_eq!(digest(""), "d41d8cd98f00b204e9800998ecf8427e");
    let site = digest("baolamdong.vn");
    let (total, pages) = (format!("bsz:site_pv:{site}"), format!("bsz:page_pv:{site}"));
    client.ask(&[b"SET", total.as_bytes(), b"5000"]);
    client.ask(&[b"ZADD", pages.as_bytes(), b"12", digest("/bai-viet/1.html").as_bytes()]);
    client.ask(&[b"ZADD", pages.as_bytes(), b"7", digest("baolamdong.vn&/a,b/").as_bytes()]);
    let paths = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(paths.path(), "/bai-viet/1.html\n/never-read\n/a,b/\n").unwrap();
    let stdin = Stdio::from(std::fs::File::open(paths.path()).unwrap());
    let rows = printed(
        Command::new("sh").arg(recipe("busuanzi.sh")).args(["baolamdong.vn", &redis.url()]).stdin(stdin),
    );
    let app = imported(&rows, &[]);
    assert_eq!(app.counters()["views"]["all"], 5000);
    assert_eq!([views(&app, "/bai-viet/1.html"), views(&app, "/a,b")], [12, 7]);
}

/// The commands of a section of README.md, each with what it prints there.
fn steps(section: &str) -> Vec<(String, String)> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, section) = readme.split_once(&format!("\n## {section}\n")).expect("the section is there");
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut steps: Vec<(String, String)> = Vec::new();
    let mut goes_on = false;
    for line in section.lines() {
        let Some(line) = line.strip_prefix("    ") else {
            goes_on = false;
            continue;
        };
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push((command.to_owned(), String::new()));
            goes_on = true;
        } else if let Some((_, printed)) = steps.last_mut().filter(|_| goes_on) {
            *printed += &format!("{line}\n");
        }
    }
    steps
}

#[test]
fn the_steps_of_the_readme_lead_from_the_old_counter_to_the_new_block() {
    let mut app = TestApp::start(Setup::default());
    app.compares_pages = false;
    app.until_stale(false);
    let steps = steps("Move from another counter");
    assert_eq!(steps.len(), 7, "{steps:?}");
    for (command, printed) in steps {
        if let Some(file) = command.strip_prefix("cat ") {
            app.write(file, &printed);
        } else if let Some(url) = command.strip_prefix("curl -s 'http://localhost:8080") {
            assert_eq!(app.get(url.trim_end_matches('\'')).text().trim(), printed.trim(), "{command}");
        } else if command.ends_with("--dry-run") {
            assert!(app.shell(&command).contains("lamdong: visits all: 1316656 is entered"));
            assert_eq!(app.counters()["visits"]["all"], 0);
        } else {
            let said = app.shell(&command).replace(&format!("{}/", app.data_dir().display()), "data/");
            assert_eq!(said, printed, "{command}");
        }
        if command.contains("--why 'the counter before'") {
            for reader in 0..61 {
                let page = if reader == 7 { "/bai-viet/1.html" } else { "/" };
                app.take(&view(page).by(reader));
            }
        }
    }
    assert_eq!(views(&app, "/bai-viet/1.html"), 13);
}
