//! The real binary as a child process.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::harness::{Setup, counters_with, metric, until};
use crate::support::http::{self, encoded};

/// Tests that keep both processors busy take turns.
static HEAVY: Mutex<()> = Mutex::new(());

/// Waits for the turn of a test that needs the machine.
pub fn my_turn() -> MutexGuard<'static, ()> {
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module. Its data directory outlives restarts.
pub struct Service {
    setup: Setup,
    dir: tempfile::TempDir,
    /// What a shell does before it becomes the service.
    before: String,
    /// A listener that it is started with, as a service manager does.
    handed_over: Option<TcpListener>,
    child: Option<Child>,
    starts: u32,
}

impl Service {
    /// Starts it and waits until it is ready.
    pub fn start(setup: Setup) -> Self {
        let mut service = Self::prepare(setup);
        service.spawn();
        service.until_ready();
        service
    }

    /// Makes its directory and does not start it.
    pub fn prepare(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("footfall.toml"), &setup.sites).unwrap();
        Service { setup, dir, before: String::new(), handed_over: None, child: None, starts: 0 }
    }

    /// Has a shell do something first, such as lower a limit.
    pub fn after(mut self, shell: &str) -> Self {
        self.before = format!("{shell}; ");
        self
    }

    /// Hands it a listener for pages, at each start, as descriptor 3 (`sd_listen_fds(3)`).
    pub fn handed(self, listener: TcpListener) -> Self {
        let mut service = self.after("exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1");
        service.handed_over = Some(listener);
        service
    }

    /// Makes a twin that has not been started: the same settings, a copy of the directory as it is now.
    pub fn copied(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let said = Command::new("cp").arg("-a").arg(self.dir.path().join(".")).arg(dir.path()).status();
        assert!(said.is_ok_and(|status| status.success()), "cp");
        let (setup, before) = (self.setup.clone(), self.before.clone());
        Service { setup, dir, before, handed_over: None, child: None, starts: self.starts }
    }

    /// Runs a command with its settings to its end, as an operator does: exit code and what it said.
    pub fn order(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = self.command(self.dir.path().join("order.log"));
        let mut child =
            command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let code = ends_within(&mut child, Duration::from_secs(60)).and_then(|status| status.code());
        let (mut said, mut complaint) = (String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
        (code.unwrap_or_else(|| panic!("{arguments:?} does not end: {said}{complaint}")), said + &complaint)
    }

    /// Starts the process.
    pub fn spawn(&mut self) {
        self.starts += 1;
        self.child = Some(self.command(self.log_path()).spawn().unwrap());
    }

    fn command(&self, log: PathBuf) -> Command {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("{}exec \"$0\" \"$@\"", self.before))
            .arg(env!("CARGO_BIN_EXE_footfall"))
            .current_dir(self.dir.path())
            .env_clear()
            .env("FOOTFALL_CONFIG", "footfall.toml")
            .env("FOOTFALL_DATA_DIR", "data")
            .env("FOOTFALL_LOG__FORMAT", "json")
            .envs(&self.setup.variables)
            .stdin(
                self.handed_over
                    .as_ref()
                    .map_or_else(Stdio::null, |listener| OwnedFd::from(listener.try_clone().unwrap()).into()),
            )
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log).unwrap());
        command
    }

    /// Has the next start use another value of a setting.
    pub fn set(&mut self, key: &str, value: &str) {
        self.setup = std::mem::take(&mut self.setup).set(key, value);
    }

    /// Runs a second process beside it, on the same directory, to its end: its exit code and log.
    pub fn run_beside(&self) -> (Option<i32>, String) {
        let log = self.dir.path().join("beside.log");
        let mut child = self.command(log.clone()).spawn().unwrap();
        let ended = ends_within(&mut child, Duration::from_secs(20));
        let code = ended.unwrap_or_else(|| {
            let _ = child.kill();
            panic!("it goes on: {}", std::fs::read_to_string(&log).unwrap())
        });
        (code.code(), std::fs::read_to_string(log).unwrap())
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join(format!("stderr.{}", self.starts))
    }

    /// What the running process, or the last one, has written to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Writes a file beside its configuration file, which is `footfall.toml`.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Takes such a file away.
    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.dir.path().join(name)).unwrap();
    }

    /// Has it read its configuration again; whether that was taken.
    #[track_caller]
    pub fn reload(&self) -> bool {
        let said = || ["is taken\"", "is not taken"].map(|ending| self.log().matches(ending).count());
        let before = said();
        self.signal("HUP");
        until("it says what became of the reload", || said() != before);
        said()[0] > before[0]
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The files of a folder of its data directory, in order.
    pub fn files(&self, folder: &str) -> Vec<PathBuf> {
        files(&self.data_dir().join(folder))
    }

    /// Where pages and operators come in, once it says so.
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        let log = self.log();
        let after = |mark: &str| -> Option<SocketAddr> {
            let rest = &log[log.find(mark)? + mark.len()..];
            rest[..rest.find([',', '"'])?].parse().ok()
        };
        Some((after("serving pages on http://")?, after("operators on http://")?))
    }

    /// Waits until `/readyz` says so.
    #[track_caller]
    pub fn until_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let ended = self.child.as_mut().expect("it is started").try_wait().unwrap();
            assert!(ended.is_none(), "it ended ({ended:?}):\n{}", self.log());
            if self.addresses().is_some_and(|(_, admin)| is_ready(admin)) {
                return;
            }
            assert!(Instant::now() < deadline, "it is never ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn public(&self) -> SocketAddr {
        self.addresses().expect("it serves").0
    }

    pub fn admin(&self) -> SocketAddr {
        self.addresses().expect("it serves").1
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Ends it at once.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends SIGTERM and waits for the end; how it ended and how long that took.
    #[track_caller]
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        self.ask_to_stop();
        let ended = ends_within(self.child.as_mut().unwrap(), Duration::from_secs(30));
        let status = ended.unwrap_or_else(|| panic!("it does not stop:\n{}", self.log()));
        self.child = None;
        (status, began.elapsed())
    }

    /// Sends SIGTERM.
    pub fn ask_to_stop(&self) {
        self.signal("TERM");
    }

    /// Sends a signal, by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()));
    }

    /// Stops it in good order and starts it again.
    #[track_caller]
    pub fn restart(&mut self) {
        let (status, _) = self.terminate();
        assert!(status.success(), "{status}:\n{}", self.log());
        self.spawn();
        self.until_ready();
    }

    /// The counters of a site, once nothing of them is stale.
    #[track_caller]
    pub fn counters(&self, site: &str) -> Value {
        let mut shown = Value::Null;
        until("counters are known and not stale", || {
            let answer = http::get(self.public(), &format!("/api/v1/sites/{site}/counters"));
            shown = if answer.status == 200 { answer.json() } else { Value::Null };
            shown["stale"] == false
        });
        shown
    }

    /// The counters of a site as they are shown now.
    #[track_caller]
    pub fn counters_now(&self, site: &str) -> Value {
        http::get(self.public(), &format!("/api/v1/sites/{site}/counters")).json()
    }

    /// All views ever of a page.
    #[track_caller]
    pub fn page(&self, site: &str, page: &str) -> u64 {
        let mut views = None;
        until("the figures of a page are known", || {
            views =
                http::get(self.public(), &counters_with(site, page)).json()["page"]["views"]["all"].as_u64();
            views.is_some()
        });
        views.unwrap()
    }

    /// All views ever of pages, asked for by the hundred.
    #[track_caller]
    pub fn pages(&self, site: &str, pages: &[String]) -> Vec<u64> {
        let mut views = Vec::new();
        for some in pages.chunks(100) {
            let query: Vec<String> = some.iter().map(|page| format!("page={}", encoded(page))).collect();
            let target = format!("/api/v1/sites/{site}/pages?{}", query.join("&"));
            let mut found = Vec::new();
            until("the figures of pages are known", || {
                let shown = http::get(self.public(), &target).json();
                let items = shown["pages"].as_array().unwrap_or_else(|| panic!("{shown}"));
                found = items.iter().filter_map(|item| item["views"]["all"].as_u64()).collect();
                found.len() == some.len()
            });
            views.extend(found);
        }
        views
    }

    pub fn metric(&self, series: &str) -> f64 {
        metric(self.admin(), series)
    }

    /// `/readyz?verbose`
    pub fn readiness(&self) -> (u16, String) {
        let answer = http::get(self.admin(), "/readyz?verbose");
        (answer.status, answer.text().to_owned())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            println!("the log of the service:\n{}", self.log());
        }
    }
}

fn is_ready(admin: SocketAddr) -> bool {
    let asked = http::Connection::open(admin)
        .and_then(|mut connection| connection.ask(http::request("GET", "/readyz", &[], b"")));
    asked.is_ok_and(|answer| answer.status == 200)
}

/// How a process ends, if it does in time.
fn ends_within(child: &mut Child, time: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + time;
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return Some(status),
            None if Instant::now() > deadline => return None,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// The files of a folder, in order.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}
