//! G7: who reads is kept nowhere. Files, Redis and log are searched as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use siphasher::sip::SipHasher13;

use crate::disk::formats::contents;
use crate::support::harness::{SITE, Setup, TestApp, view};
use crate::support::http::{self, BROWSER};
use crate::support::servers::{RedisServer, Reply};
use crate::support::service::Service;
use crate::support::wait::until;

const HOUR: Duration = Duration::from_secs(3600);

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|part| part == needle)
}

/// The files below a directory that hold some bytes, by their paths in it.
fn with(dir: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let files = contents(dir).into_iter().filter(|(_, bytes)| holds(bytes, needle));
    files.map(|(path, _)| path.strip_prefix(dir).unwrap().to_owned()).collect()
}

/// A Redis that keeps in files whatever it is asked to write.
fn on_disk() -> RedisServer {
    RedisServer::start_with(&["--appendonly", "yes"])
}

/// An address in every form that a program writes: as text, as bytes in both orders, and as digits.
fn forms(address: &str) -> Vec<Vec<u8>> {
    let bytes = match address.parse().unwrap() {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let digits = |separator: &str, pair: usize| {
        let pairs = bytes.chunks(pair).map(|pair| pair.iter().map(|b| format!("{b:02x}")).collect());
        pairs.collect::<Vec<String>>().join(separator)
    };
    let texts = [address.to_owned(), digits("", 1), digits("", 1).to_uppercase(), digits(":", 2)];
    let back = bytes.iter().rev().copied().collect();
    texts.map(String::into_bytes).into_iter().chain([bytes, back]).collect()
}

#[test]
fn nothing_that_tells_a_reader_rests_in_a_file_in_the_store_or_in_the_log() {
    const TIN: &str = "[[site]]\nkey = \"tin\"\nhosts = [\"tin.vn\"]\ntime_zone = \"Asia/Ho_Chi_Minh\"\n\
                       identity = \"browser\"";
    let addresses = ["203.0.113.77", "2001:db8:4d2:77::a1b2"];
    let texts = [
        "Mozilla/5.0 (Lynx-with-a-name) Gecko/1",
        "browser-with-a-name",
        "view-with-a-name",
        "from-where",
        "cookie-of-its-own",
    ];
    let [agent, browser, id, referrer, cookie] = texts;
    let redis = on_disk();
    for url in ["embedded", &redis.url()] {
        let setup = Setup::default().and(TIN).store(url).set("log.level", "trace");
        let mut service = Service::start(setup);
        let sent = |site: &str, host: &str, url: &str, address: &str| {
            let beacon = view(url).with("site", site).with("visitor", browser).id(id).from(address);
            let referrer = format!("https://{host}/a?{referrer}");
            let beacon = beacon.header("user-agent", agent).header("referer", &referrer);
            service.send(&beacon.header("cookie", cookie)).status
        };
        for address in addresses {
            for (site, host) in [(SITE, "baolamdong.vn"), ("tin", "tin.vn")] {
                assert_eq!(sent(site, host, "/a", address), 204);
                assert_eq!(sent(site, host, "https://elsewhere.vn/", address), 403);
                assert_eq!(sent(site, "elsewhere.vn", "/a", address), 403);
            }
        }
        let search = |service: &Service, when: &str| {
            let dirs = [service.data_dir(), redis.dir().to_owned()];
            let files = dirs.iter().flat_map(|dir| contents(dir));
            let log = ("log".into(), service.log().into_bytes());
            let places: Vec<(PathBuf, Vec<u8>)> = files.chain([log]).collect();
            let texts = texts.map(|text| text.as_bytes().to_vec());
            for needle in addresses.iter().flat_map(|address| forms(address)).chain(texts) {
                let found = places.iter().find(|(_, bytes)| holds(bytes, &needle));
                assert!(
                    found.is_none(),
                    "{:?} in {:?} {when}",
                    needle.escape_ascii().to_string(),
                    found.unwrap().0
                );
            }
            places
                .into_iter()
                .filter(|(_, bytes)| holds(bytes, SITE.as_bytes()))
                .map(|(path, _)| path)
                .collect()
        };
        service.until_applied();
        until("there is a checkpoint", || service.data_dir().join("checkpoint").exists());
        service.kill9();
        let searched: Vec<PathBuf> = search(&service, "after a kill");
        service.begin();
        for page in ["/", "/metrics", "/readyz?verbose"] {
            let shown = http::get(service.admin(), page);
            assert!(texts.iter().all(|text| !holds(&shown.body, text.as_bytes())), "{page}");
        }
        service.stop();
        search(&service, "after a stop");
        let store = if url == "embedded" { "totals.redb" } else { "appendonlydir" };
        for place in ["journal", "outbox", "checkpoint", "salts", "log", store] {
            let is_there = searched.iter().any(|path| path.to_string_lossy().contains(place));
            assert!(is_there, "the search looks at {place}: {searched:?}");
        }
    }
}

/// The id of a visitor, calculated as its documents say and with the salt that the service has drawn.
fn visitor_id(data_dir: &Path, day: &str, address: [u8; 4], agent: &str) -> Vec<u8> {
    let salts = fs::read_to_string(data_dir.join("salts")).unwrap();
    let of_day = format!("{SITE} {day} ");
    let digits = salts.lines().find_map(|line| line.strip_prefix(&of_day)?.split(' ').next()).unwrap();
    let salt = u128::from_str_radix(digits, 16).unwrap().to_be_bytes();
    let fields = [SITE.as_bytes(), &address, agent.as_bytes()];
    let lengths = [1, SITE.len(), address.len(), agent.len()].map(|number| (number as u32).to_le_bytes());
    let bytes = [lengths.concat(), fields.concat()].concat();
    SipHasher13::new_with_key(&salt).hash(&bytes).to_le_bytes().to_vec()
}

const LYNX: &str = "Mozilla/5.0 (Lynx) Gecko/1";

#[test]
fn the_id_of_a_visitor_is_on_disk_for_as_long_as_the_session_and_never_in_the_store() {
    let redis = on_disk();
    for url in ["embedded", &redis.url()] {
        let mut app = TestApp::start(Setup::default().store(url));
        let reader = view("/a").from("203.0.113.77").header("user-agent", LYNX);
        app.take(&reader);
        let data_dir = app.data_dir();
        let id = visitor_id(&data_dir, "2023-09-15", [203, 0, 113, 77], LYNX);
        let places = || with(&data_dir, &id);
        assert!(!places().is_empty(), "the id is what this test takes it for");
        until("it leaves the journal", || places() == [Path::new("checkpoint")]);
        app.pass(29 * HOUR / 60);
        app.take(&view("/a").by(1));
        until("a checkpoint is written after that", || {
            let other = visitor_id(&data_dir, "2023-09-15", [203, 0, 0, 1], BROWSER);
            with(&data_dir, &other) == [Path::new("checkpoint")]
        });
        assert_eq!(places(), [Path::new("checkpoint")], "the session may go on");
        app.pass(2 * HOUR / 60);
        until("it leaves the checkpoint", || places().is_empty());
        // A session that ends while no process runs.
        app.take(&reader);
        until("it is in the checkpoint alone", || places() == [Path::new("checkpoint")]);
        app.restart_after(31 * HOUR / 60);
        until("the first checkpoint is without it", || places().is_empty());
        app.stop();
        let stored = with(redis.dir(), &id);
        assert!(stored.is_empty() && places().is_empty(), "{stored:?}");
    }
}

/// The days whose salts are in the store.
fn salted_days(app: &TestApp, redis: Option<&RedisServer>) -> Vec<String> {
    let mut days: Vec<String> = match redis {
        Some(redis) => {
            let Reply::Array(names) = redis.client().ask(&[b"KEYS", b"footfall:{lamdong}:salt:*"]) else {
                panic!("names")
            };
            names.into_iter().map(|name| name.text().rsplit(':').next().unwrap().to_owned()).collect()
        }
        None => {
            let table = redb::TableDefinition::<&str, (i64, [u8; 16])>::new("salts");
            let database = redb::Database::open(app.data_dir().join("totals.redb")).unwrap();
            let salts = redb::ReadableDatabase::begin_read(&database).unwrap().open_table(table).unwrap();
            let names = redb::ReadableTable::iter(&salts).unwrap();
            names.map(|salt| salt.unwrap().0.value().rsplit('/').next().unwrap().to_owned()).collect()
        }
    };
    days.sort();
    days
}

#[test]
fn a_salt_is_gone_two_days_after_its_day() {
    let redis = RedisServer::start();
    for redis in [None, Some(&redis)] {
        let url = redis.map_or("embedded".to_owned(), RedisServer::url);
        let mut app = TestApp::start(Setup::default().store(&url));
        app.take(&view("/a"));
        let file = |name: &str| fs::read_to_string(app.data_dir().join(name)).unwrap();
        let kept =
            |day: &str| ["salts", "salts.copy"].map(|name| file(name).contains(&format!("{SITE} {day} ")));
        let first = "2023-09-15";
        let mut salt = String::new();
        until("it is shared", || {
            let text = file("salts");
            let line = text.lines().find(|line| line.starts_with(&format!("{SITE} {first} "))).unwrap();
            salt = line.split(' ').nth(2).unwrap().to_owned();
            line.contains(" shared ")
        });
        for day in ["2023-09-16", "2023-09-17", "2023-09-18", "2023-09-19"] {
            // Hour by hour, as time passes; in the last of them it is noon.
            (0..24).for_each(|_| app.pass(HOUR));
            app.take(&view("/a"));
            until("the salts of the day are drawn", || kept(day) == [true, true]);
            match day {
                "2023-09-16" => assert_eq!(kept(first), [true, true], "visitors of yesterday may still read"),
                "2023-09-19" => until("it is deleted", || kept(first) == [false, false]),
                _ => {}
            }
        }
        let digits = salt.as_bytes();
        let bytes = u128::from_str_radix(&salt, 16).unwrap().to_be_bytes();
        app.stop();
        match redis {
            // What is freed in the file is overwritten some time.
            None => {
                assert_eq!(with(&app.data_dir(), digits), Vec::<PathBuf>::new());
                let left = with(&app.data_dir(), &bytes);
                assert!(left.iter().all(|path| path.ends_with("totals.redb")), "{left:?}");
            }
            // Redis deletes by its own clock: at the latest when a day, the day before it and two more are over.
            Some(redis) => {
                let key = format!("footfall:{{lamdong}}:salt:{first}");
                let left = redis.client().ask(&[b"TTL", key.as_bytes()]).int();
                assert!((1..=96 * 3600).contains(&left), "{left} s");
            }
        }
        let days = salted_days(&app, redis);
        assert!(days.contains(&"2023-09-19".to_owned()), "{days:?}");
        assert!(redis.is_some() || !days.contains(&first.to_owned()), "{days:?}");
    }
}

#[test]
fn the_statement_is_that_of_the_settings_in_force() {
    let tin = "[[site]]\nkey = \"tin\"\nhosts = [\"tin.vn\"]\ntime_zone = \"UTC\"\nidentity = \"browser\"\n\
               honour = [\"gpc\", \"dnt\"]\nrequire_consent = true\npublic = [\"counters\"]\nread_tokens = []";
    let setup = || Setup::default().and(tin);
    let app = TestApp::start(setup());
    let answer = app.get("/privacy");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let told = answer.json();
    for nothing in ["address_stored", "user_agent_stored", "referrer_stored", "cookies_for_readers"] {
        assert_eq!(told[nothing], false, "{nothing}");
    }
    let row = |told: &serde_json::Value, data: &str| {
        let rows = told["stored"].as_array().unwrap();
        rows.iter().find(|row| row["data"] == data).cloned().unwrap_or_default()
    };
    assert_eq!(row(&told, "totals")["where"], "totals.redb in data_dir");
    assert!(row(&told, "totals")["until"].as_str().unwrap().contains("62 days"), "{told}");
    assert_eq!(
        (&row(&told, "sessions")["seconds"], &row(&told, "batches")["seconds"]),
        (&1800.into(), &259_200.into())
    );
    assert!(row(&told, "accepted views, pings and leaves")["fields"].to_string().contains("salted hash"));
    let of_tin = serde_json::json!({
        "site": "tin", "time_zone": "UTC", "identity": "browser", "stored_in_browser": "a random id, anew each civil day",
        "honour": ["gpc", "dnt"], "honour_as": "leave-out", "require_consent": true, "public": ["counters"],
    });
    assert_eq!(told["sites"][1], of_tin);
    assert_eq!(
        (&told["sites"][0]["identity"], &told["sites"][0]["stored_in_browser"]),
        (&"address".into(), &"nothing".into())
    );

    let redis = RedisServer::start();
    let other =
        setup().store(&redis.url()).set("totals.page_days", "30").set("sessions.visit_timeout", "20m");
    let told = TestApp::start(other.set("outbox.retention", "24h").set("journal.sync", "memory"))
        .get("/privacy")
        .json();
    assert_eq!(row(&told, "totals")["where"], "Redis");
    assert!(row(&told, "totals")["until"].as_str().unwrap().contains("30 days"), "{told}");
    assert_eq!(
        (&row(&told, "sessions")["seconds"], &row(&told, "batches")["seconds"]),
        (&1200.into(), &86_400.into())
    );
    assert!(row(&told, "accepted views, pings and leaves").is_null(), "{told}");
}
