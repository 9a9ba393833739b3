//! The whole service in this process, its clock set by hand, and what every test says to it.
//!
//! A [`TestApp`] keeps account of every view that was answered 204 and, when it is dropped, compares
//! with what the service says it counted and with what the store holds of each civil day, and audits the store.
//! A test that breaks the store says so.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use footfall::app::App;
use footfall::clock::{Clock, Hand};
use footfall::config::Config;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::support::http::{self, Answer, encoded, request};
use crate::support::servers::{RedisClient, Reply};
use crate::support::wait::until;

/// The site that most tests count.
pub const SITE: &str = "lamdong";

const SITES: &str = r#"
[[site]]
key = "lamdong"
hosts = ["baolamdong.vn", "www.baolamdong.vn"]
time_zone = "Asia/Ho_Chi_Minh"
locale = "vi"
"#;

/// How often something is done: what a variable says, as the full tier has it, or else `usually`.
pub fn number(variable: &str, usually: u64) -> u64 {
    std::env::var(variable).map_or(usually, |text| text.parse().expect("a number"))
}

/// Unix milliseconds of an RFC 3339 text.
pub fn ms(rfc3339: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(rfc3339).unwrap().timestamp_millis()
}

/// A configuration: sites as TOML and variables as the environment would set them.
#[derive(Clone)]
pub struct Setup {
    pub sites: String,
    pub variables: BTreeMap<String, String>,
}

impl Default for Setup {
    fn default() -> Self {
        let setup = Setup { sites: SITES.to_owned(), variables: BTreeMap::new() };
        setup
            .set("listen", "127.0.0.1:0")
            .set("admin_listen", "127.0.0.1:0")
            .set("admin_hosts", "stats.example")
            // What comes `by` a reader is not limited: a few of them stand for many.
            .set("limits.exempt", "203.0.0.0/8")
            .set("store.flush_interval", "100ms")
            .set("store.timeout", "5s")
            .set("checkpoint_interval", "1s")
    }
}

impl Setup {
    /// Sets a key, named as in the file.
    pub fn set(mut self, key: &str, value: impl Into<String>) -> Self {
        let key = if key == "checkpoint_interval" { "totals.checkpoint_interval" } else { key };
        self.variables.insert(format!("FOOTFALL_{}", key.to_uppercase().replace('.', "__")), value.into());
        self
    }

    /// Has the totals in a store other than the embedded one.
    pub fn store(self, url: &str) -> Self {
        self.set("store.url", url)
    }

    /// Adds lines to the last site, or further sites.
    pub fn and(mut self, toml: &str) -> Self {
        self.sites += toml;
        self.sites.push('\n');
        self
    }

    /// Has other sites.
    pub fn sites(mut self, toml: &str) -> Self {
        self.sites = toml.to_owned();
        self
    }
}

/// A beacon to be sent.
#[derive(Clone, Debug)]
pub struct Beacon {
    body: serde_json::Map<String, Value>,
    headers: Vec<(String, String)>,
}

/// A view of a page of the usual site.
pub fn view(url: &str) -> Beacon {
    Beacon { body: serde_json::Map::new(), headers: Vec::new() }.with("site", SITE).with("url", url)
}

impl Beacon {
    /// Sets a member.
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.body.insert(member.to_owned(), value.into());
        self
    }

    pub fn ping(self) -> Self {
        self.with("kind", "ping")
    }

    pub fn leave(self) -> Self {
        self.with("kind", "leave")
    }

    pub fn id(self, id: &str) -> Self {
        self.with("id", id)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Comes from one of many readers.
    pub fn by(self, reader: u32) -> Self {
        self.from(&format!("203.{}.{}.{}", reader >> 16 & 255, reader >> 8 & 255, reader & 255))
    }

    /// Comes from an address, through the trusted proxy on this machine.
    pub fn from(self, address: &str) -> Self {
        self.header("x-forwarded-for", address)
    }

    /// The bytes of the request.
    pub fn bytes(&self) -> Vec<u8> {
        let headers: Vec<(&str, &str)> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        request("POST", "/api/v1/beacon", &headers, json!(self.body).to_string().as_bytes())
    }

    /// Whether it is a view of a site that bears no id, or is the first to bear it.
    pub fn is_new_view_of(&self, site: &str) -> bool {
        let kind = self.said("kind").unwrap_or_else(|| "view".to_owned());
        kind == "view" && self.said("site").as_deref() == Some(site) && self.said("id").is_none()
    }

    fn said(&self, member: &str) -> Option<String> {
        self.body.get(member)?.as_str().map(str::to_owned)
    }
}

/// A view that was answered 204: site, url, id, how often ids had been forgotten by then, and its civil day.
type Accepted = (String, String, Option<String>, u32, String);

/// Views by site, civil day, and page; an empty page stands for the whole site.
type Days = BTreeMap<(String, String, String), u64>;

/// See the module.
pub struct TestApp {
    setup: Setup,
    dir: tempfile::TempDir,
    clock: Clock,
    hand: Hand,
    running: Option<Running>,
    accepted: RefCell<Vec<Accepted>>,
    forgotten: Cell<u32>,
    /// Whether pages are compared as well as sites.
    pub compares_pages: bool,
    breaks_the_store: bool,
}

struct Running {
    public: SocketAddr,
    admin: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), String>>,
}

impl TestApp {
    /// Starts at 15 September 2023, 08:19 in Đà Lạt.
    pub fn start(setup: Setup) -> Self {
        Self::start_at("2023-09-15T08:19:00+07:00", setup)
    }

    /// Starts at an instant.
    pub fn start_at(rfc3339: &str, setup: Setup) -> Self {
        let mut app = Self::prepare_at(rfc3339, setup);
        app.begin();
        app
    }

    /// Starts at an instant with a copy of the files of another data directory.
    pub fn start_with(rfc3339: &str, setup: Setup, files: &Path) -> Self {
        let mut app = Self::prepare_at(rfc3339, setup);
        copy_files(files, &app.data_dir());
        app.begin();
        app
    }

    fn prepare_at(rfc3339: &str, setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (clock, hand) = Clock::by_hand(ms(rfc3339));
        let (accepted, forgotten) = (RefCell::default(), Cell::new(0));
        TestApp {
            setup,
            dir,
            clock,
            hand,
            running: None,
            accepted,
            forgotten,
            compares_pages: true,
            breaks_the_store: false,
        }
    }

    /// What it leaves in the store is not what was accepted, or there is no store: only what it shows is compared.
    pub fn breaks_the_store(&mut self) {
        self.breaks_the_store = true;
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Has the next start use another value of a setting.
    pub fn set(&mut self, key: &str, value: &str) {
        self.setup = std::mem::take(&mut self.setup).set(key, value);
    }

    fn begin(&mut self) {
        let sites = Some(("footfall.toml", self.setup.sites.as_str()));
        let config =
            Config::load(sites, self.variables().into_iter()).unwrap_or_else(|faults| panic!("{faults}"));
        self.running = Some(run(config, self.clock.clone()));
        // Until it has read its store, or knows that it cannot, it need not know a figure.
        until("the store is looked at", || {
            self.is_away()
                || self.metric("footfall_store_up") == 1.0
                || self.metric("footfall_flush_held") == 1.0
                || store_failed(self.admin())
        });
    }

    fn store_url(&self) -> &str {
        self.setup.variables.get("FOOTFALL_STORE__URL").map_or("embedded", String::as_str)
    }

    /// Whether nobody listens where its Redis should be.
    fn is_away(&self) -> bool {
        let Some(rest) = self.store_url().strip_prefix("redis://") else { return false };
        let host = rest.rsplit('@').next().and_then(|rest| rest.split('/').next()).unwrap_or_default();
        TcpStream::connect(host).is_err()
    }

    fn variables(&self) -> BTreeMap<String, String> {
        let mut variables = self.setup.variables.clone();
        variables.insert("FOOTFALL_DATA_DIR".to_owned(), self.data_dir().display().to_string());
        variables
    }

    /// Has the next start use other sites.
    pub fn set_sites(&mut self, toml: &str) {
        self.setup.sites = toml.to_owned();
    }

    /// Stops it as SIGTERM does.
    pub fn stop(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.stop.send(()).ok();
        running.thread.join().expect("the service does not panic").expect("it runs to its end");
        // A process would end here; in this one, a writer that was not done in time goes on for a while.
        until("its directory is free", || !footfall::totals::is_in_use(&self.data_dir()));
    }

    /// Stops it, lets time pass, and starts it again on the same machine.
    pub fn restart_after(&mut self, pause: Duration) {
        self.stop();
        self.begin_after(pause);
    }

    /// Kills it, lets time pass, and starts it again. What a kill leaves is copied while it runs: nothing but views
    /// may be written meanwhile, and its store must be among its files.
    pub fn kill_and_begin_after(&mut self, pause: Duration) {
        let left = tempfile::tempdir().unwrap();
        copy_files(&self.data_dir(), left.path());
        self.stop();
        std::fs::remove_dir_all(self.data_dir()).unwrap();
        copy_files(left.path(), &self.data_dir());
        self.begin_after(pause);
    }

    fn begin_after(&mut self, pause: Duration) {
        self.hand.advance(pause);
        self.begin();
    }

    /// Lets time pass. The journal is synced by the machine's own clock, and what is unsynced has suddenly
    /// become old: it refuses until that is done.
    pub fn pass(&self, by: Duration) {
        self.hand.advance(by);
        until("it is ready", || http::get(self.admin(), "/readyz").status == 200);
    }

    /// Steps the wall clock alone.
    pub fn step_to(&self, rfc3339: &str) {
        self.hand.step_to(ms(rfc3339));
    }

    /// Where pages and readers come in.
    pub fn public(&self) -> SocketAddr {
        self.running.as_ref().expect("it runs").public
    }

    /// Where operators come in.
    pub fn admin(&self) -> SocketAddr {
        self.running.as_ref().expect("it runs").admin
    }

    /// Sends a beacon and notes what was accepted.
    pub fn send(&self, beacon: &Beacon) -> Answer {
        let answer = http::ask(self.public(), beacon.bytes());
        let is_view = beacon.said("kind").is_none_or(|kind| kind == "view");
        if is_view && matches!(answer.status, 200 | 204) {
            let site = beacon.said("site").unwrap_or_else(|| SITE.to_owned());
            self.note(&site, &beacon.said("url").unwrap(), beacon.said("id"));
        }
        answer
    }

    /// Notes a view that was accepted otherwise.
    pub fn note(&self, site: &str, url: &str, id: Option<String>) {
        let now = jiff::Timestamp::from_millisecond(self.clock.now().unix_ms).unwrap();
        let day = now.in_tz(&zone(&self.setup.sites, site)).unwrap().date().to_string();
        let view = (site.to_owned(), url.to_owned(), id, self.forgotten.get(), day);
        self.accepted.borrow_mut().push(view);
    }

    /// Sends a beacon that must be taken.
    #[track_caller]
    pub fn take(&self, beacon: &Beacon) {
        let answer = self.send(beacon);
        assert_eq!(answer.status, 204, "{beacon:?}: {answer:?}");
    }

    /// Page `/a` is viewed so often, each time by another reader.
    #[track_caller]
    pub fn read(&self, views: u32) {
        (0..views).for_each(|reader| self.take(&view("/a").by(reader)));
    }

    /// Another process accepted what this one shows: nothing is compared.
    pub fn forget_what_was_accepted(&self) {
        self.accepted.borrow_mut().clear();
    }

    /// From here on a known id counts again: so much time has passed.
    pub fn ids_are_forgotten(&self) {
        self.forgotten.set(self.forgotten.get() + 1);
    }

    /// Runs a command beside it to its end, as an operator does: exit code and what it said.
    pub fn order(&self, arguments: &[&str]) -> (i32, String) {
        let file = self.dir.path().join("footfall.toml");
        std::fs::write(&file, &self.setup.sites).unwrap();
        let mut order = Command::new(env!("CARGO_BIN_EXE_footfall"));
        order.arg("--config").arg(file).args(arguments).env_clear().envs(self.variables());
        let said = order.output().unwrap();
        let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        (said.status.code().expect("it ends by itself"), text)
    }

    /// Has a command do what must be done. What it says.
    #[track_caller]
    pub fn ordered(&self, arguments: &[&str]) -> String {
        let (code, said) = self.order(arguments);
        assert_eq!(code, 0, "{arguments:?}: {said}");
        said
    }

    /// Runs a line of shell with the same settings, in the directory of the files for commands; what it prints.
    #[track_caller]
    pub fn shell(&self, line: &str) -> String {
        let file = self.dir.path().join("footfall.toml");
        std::fs::write(&file, &self.setup.sites).unwrap();
        let beside = Path::new(env!("CARGO_BIN_EXE_footfall")).parent().unwrap().display();
        let path = format!("{beside}:{}", std::env::var("PATH").unwrap_or_default());
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir(self.dir.path()).env_clear().envs(self.variables());
        let said = shell.env("PATH", path).env("FOOTFALL_CONFIG", file).output().unwrap();
        assert!(said.status.success(), "{line}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap()
    }

    /// Writes a file for commands to read; its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// `GET` on the public listener.
    pub fn get(&self, target: &str) -> Answer {
        http::get(self.public(), target)
    }

    /// The newsroom's page of the usual site, as a browser that has opened the link with a token has it.
    pub fn newsroom(&self, token: &str) -> Answer {
        http::newsroom(self.public(), SITE, token)
    }

    /// The counters of a site.
    #[track_caller]
    pub fn counters_of(&self, site: &str) -> Value {
        let answer = self.get(&format!("/api/v1/sites/{site}/counters"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// The counters of the usual site.
    #[track_caller]
    pub fn counters(&self) -> Value {
        self.counters_of(SITE)
    }

    /// A page of a site as `counters` shows it, once its figures are known.
    #[track_caller]
    pub fn page_of(&self, site: &str, page: &str) -> Value {
        let mut shown = Value::Null;
        until("the figures of a page are known", || {
            shown = self.get(&counters_with(site, page)).json()["page"].take();
            shown.get("views").is_some()
        });
        shown
    }

    /// A page of the usual site.
    #[track_caller]
    pub fn page(&self, page: &str) -> Value {
        self.page_of(SITE, page)
    }

    /// Visitors online on the usual site.
    pub fn online(&self) -> u64 {
        self.counters()["online"].as_u64().unwrap()
    }

    /// The value of a series, labels included, as `/metrics` shows it.
    pub fn metric(&self, series: &str) -> f64 {
        metric(self.admin(), series)
    }

    /// `/readyz?verbose`
    pub fn readiness(&self) -> (u16, String) {
        readiness(self.admin())
    }

    /// Waits until the store is looked at once more from the beginning, where that ends in nothing being sent.
    #[track_caller]
    pub fn until_tried(&self) {
        until_tried(self.admin());
    }

    /// Waits until the store is known to answer, or known not to.
    pub fn until_stale(&self, stale: bool) {
        until("stale", || self.get(&format!("/api/v1/sites/{SITE}/counters")).json()["stale"] == stale);
    }

    /// Stops it, which brings all to the store. The days of which pages of the usual site are stored.
    pub fn stored_page_days(&mut self) -> Vec<String> {
        self.stop();
        let prefix = format!("{SITE}/day:");
        let is_day = |name: String| Some(name.strip_prefix(&prefix)?.strip_suffix(":pages")?.to_owned());
        let mut days: Vec<String> = match self.store_url() {
            "embedded" => {
                let sums = redb::TableDefinition::<&[u8], u64>::new("sums");
                let database = redb::Database::open(self.data_dir().join("totals.redb")).unwrap();
                let sums = redb::ReadableDatabase::begin_read(&database).unwrap().open_table(sums).unwrap();
                let names =
                    redb::ReadableTable::iter(&sums).unwrap().map(|sum| sum.unwrap().0.value().to_owned());
                let name =
                    |key: Vec<u8>| String::from_utf8(key).unwrap().split('\0').next().unwrap().to_owned();
                names.map(name).filter_map(is_day).collect()
            }
            url => {
                let port = url.strip_prefix("redis://127.0.0.1:").unwrap().parse().unwrap();
                let keys = RedisClient::connect(port).unwrap().ask(&[b"KEYS", b"*:pages"]);
                let Reply::Array(keys) = keys else { panic!("{keys:?}") };
                let name = |key: Reply| key.text().replace("footfall:{", "").replace("}:", "/");
                keys.into_iter().map(name).filter_map(is_day).collect()
            }
        };
        days.sort();
        days.dedup();
        days
    }

    /// Compares what was accepted with what was counted. What the store should hold of each day.
    #[track_caller]
    pub fn compare(&self) -> Days {
        let mut days = Days::new();
        let mut pages: BTreeMap<(String, String), u64> = BTreeMap::new();
        let mut sites: BTreeMap<String, u64> = BTreeMap::new();
        let mut names = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for (site, url, id, era, day) in self.accepted.borrow().iter() {
            let key = (site.clone(), url.clone());
            let page = names.entry(key).or_insert_with(|| self.page_name(site, url));
            let id = id.clone().filter(|id| !id.is_empty());
            if id.is_some_and(|id| !ids.insert((site.clone(), page.clone(), id, *era))) {
                continue;
            }
            *pages.entry((site.clone(), page.clone())).or_default() += 1;
            *sites.entry(site.clone()).or_default() += 1;
            for page in [page.as_str(), ""] {
                *days.entry((site.clone(), day.clone(), page.to_owned())).or_default() += 1;
            }
        }
        for (site, accepted) in sites {
            until(&format!("{site} has counted {accepted}: {}", self.counters_of(&site)), || {
                self.counters_of(&site)["views"]["all"].as_u64() == Some(accepted)
            });
        }
        for ((site, page), accepted) in pages.into_iter().filter(|_| self.compares_pages) {
            assert_eq!(self.page_of(&site, &page)["views"]["all"], accepted, "{site} {page}");
        }
        // Of older days no pages need be stored.
        let kept =
            self.setup.variables.get("FOOTFALL_TOTALS__PAGE_DAYS").map_or(62, |days| days.parse().unwrap());
        let now = jiff::Timestamp::from_millisecond(self.clock.now().unix_ms).unwrap();
        let since = |site: &str| {
            let today = now.in_tz(&zone(&self.setup.sites, site)).unwrap().date();
            (today - jiff::Span::new().days(kept)).to_string()
        };
        days.retain(|(site, day, page), _| page.is_empty() || self.compares_pages && *day >= since(site));
        days
    }

    /// Stops it, which brings all to the store; that agrees, and holds of each day what was accepted on it.
    fn compare_stored(&mut self, days: &Days) {
        until("the store is there", || self.metric("footfall_store_up") == 1.0);
        self.stop();
        let stored = stored_days(self.store_url(), &self.data_dir(), days);
        assert!(stored.as_ref().is_none_or(|stored| stored == days), "by day: {stored:?} and not {days:?}");
        let file = self.dir.path().join("footfall.toml");
        std::fs::write(&file, &self.setup.sites).unwrap();
        let mut verify = Command::new(env!("CARGO_BIN_EXE_footfall"));
        verify.arg("--config").arg(file).arg("verify").env_clear().envs(self.variables());
        // Some tests have a store that is slow to answer; this one need not be quick.
        verify.env("FOOTFALL_STORE__TIMEOUT", "60s");
        let said = verify.output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&[said.stdout, said.stderr].concat()));
    }

    fn page_name(&self, site: &str, url: &str) -> String {
        let shown = self.get(&counters_with(site, url)).json();
        shown["page"]["page"].as_str().unwrap_or_else(|| panic!("{url}: {shown}")).to_owned()
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if self.running.is_none() {
            self.begin();
        }
        let days = self.compare();
        match self.breaks_the_store {
            true => self.stop(),
            false => self.compare_stored(&days),
        }
    }
}

/// The zone of a site, as the configuration names it.
fn zone(sites: &str, key: &str) -> String {
    let table: toml::Table = sites.parse().unwrap();
    let sites = table.get("site").and_then(|sites| sites.as_array()).into_iter().flatten();
    let is = |site: &&toml::Value| site.get("key").and_then(|v| v.as_str()) == Some(key);
    let zone = sites.into_iter().find(is).and_then(|site| site.get("time_zone")?.as_str());
    zone.unwrap_or("UTC").to_owned()
}

/// What a store holds of days; none where this test cannot read it.
fn stored_days(url: &str, data_dir: &Path, days: &Days) -> Option<Days> {
    let of = |(site, day, page): &(String, String, String)| match page.as_str() {
        "" => (site.clone(), format!("day:{day}"), "views".to_owned()),
        page => (site.clone(), format!("day:{day}:pages"), page.to_owned()),
    };
    if url == "embedded" {
        let sums = redb::TableDefinition::<&[u8], u64>::new("sums");
        let database = redb::Database::open(data_dir.join("totals.redb")).unwrap();
        let sums = redb::ReadableDatabase::begin_read(&database).unwrap().open_table(sums).unwrap();
        let sum = |day| {
            let (site, hash, field) = of(day);
            let key = format!("{site}/{hash}\0{field}");
            sums.get(key.as_bytes()).unwrap().map_or(0, |sum| sum.value())
        };
        return Some(days.keys().map(|day| (day.clone(), sum(day))).collect());
    }
    let port = url.strip_prefix("redis://127.0.0.1:")?.parse().ok()?;
    let mut redis = RedisClient::connect(port).ok()?;
    let mut sum = |day| {
        let (site, hash, field) = of(day);
        let key = format!("footfall:{{{site}}}:{hash}");
        match redis.ask(&[b"HGET", key.as_bytes(), field.as_bytes()]) {
            Reply::Bytes(None) => 0,
            sum => sum.text().parse().unwrap(),
        }
    };
    Some(days.keys().map(|day| (day.clone(), sum(day))).collect())
}

/// Copies a data directory, without what belongs to a process that runs.
pub fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if path.is_dir() {
            copy_files(&path, &to.join(name));
        } else if name != "LOCK" && name != "control.sock" {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// The target of the counters of a site with a page.
pub fn counters_with(site: &str, page: &str) -> String {
    format!("/api/v1/sites/{site}/counters?page={}", encoded(page))
}

/// The value of a series as `/metrics` of an admin listener shows it; the sum of all that bear these labels.
pub fn metric(admin: SocketAddr, series: &str) -> f64 {
    let text = http::get(admin, "/metrics");
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let wanted: Vec<&str> =
        labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect();
    let is_one = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && wanted.iter().all(|label| line.contains(label))
            && (wanted.is_empty() != line.contains('{'))
    };
    let mut values = text.text().lines().filter(is_one).map(|line| line.rsplit(' ').next().unwrap());
    let value = |value: &str| value.parse::<f64>().unwrap();
    let first = value(values.next().unwrap_or_else(|| panic!("no {series}")));
    values.map(value).fold(first, |sum, value| sum + value)
}

/// `/readyz?verbose` of an admin listener.
pub fn readiness(admin: SocketAddr) -> (u16, String) {
    let answer = http::get(admin, "/readyz?verbose");
    (answer.status, answer.text().to_owned())
}

/// Waits until a service has looked at its store once more from the beginning: a look that began before may be
/// going on, and each asks twice.
#[track_caller]
pub fn until_tried(admin: SocketAddr) {
    let before = attaches(admin);
    until("the store is tried again", || attaches(admin) >= before + 4.0);
}

/// What a service has asked its store to find out whether it is its own: twice each time, if it answers.
fn attaches(admin: SocketAddr) -> f64 {
    metric(admin, "footfall_store_operation_duration_seconds_count{operation=\"attach\"}")
}

/// Whether anything that a service asked of its store has failed.
fn store_failed(admin: SocketAddr) -> bool {
    let text = http::get(admin, "/metrics");
    let mut failures = text.text().lines().filter(|line| {
        line.starts_with("footfall_store_operations_total{") && line.contains("outcome=\"error\"")
    });
    failures.any(|line| !line.ends_with(" 0"))
}

/// Runs a service on a thread and a runtime of its own.
fn run(config: Config, clock: Clock) -> Running {
    let (stop, stopped) = oneshot::channel::<()>();
    let (built, addresses) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let app = App::build(config, clock).await.map_err(|error| error.to_string())?;
            built.send((app.public_addr(), app.admin_addr())).unwrap();
            let stop = async { stopped.await.unwrap_or_default() };
            app.run(stop).await.map_err(|error| error.to_string())
        })
    });
    match addresses.recv() {
        Ok((public, admin)) => Running { public, admin, stop, thread },
        Err(_) => panic!("the service does not start: {:?}", thread.join().unwrap()),
    }
}
