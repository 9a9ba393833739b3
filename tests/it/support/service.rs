//! The real binary as a child process, on ports of its own.
//!
//! When it is dropped it is stopped, which brings all to the store, and that is audited: everything agrees, and
//! no view that was taken is missing. A test that breaks the store says so.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::harness::{Beacon, SITE, Setup, metric, readiness, until_tried, view};
use crate::support::http::{self, Answer, encoded};
use crate::support::servers::free_port;
use crate::support::wait::until;

/// Tests that need the machine for themselves take turns. `tests/run` runs them after the others, so that no
/// thread waits for its turn.
static HEAVY: Mutex<()> = Mutex::new(());

/// Waits for the turn of a test that needs the machine.
pub fn my_turn() -> MutexGuard<'static, ()> {
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A service; its data directory outlives restarts.
pub struct Service {
    setup: Setup,
    dir: tempfile::TempDir,
    /// What a shell does before it becomes the service.
    before: String,
    /// A listener that it is started with, as a service manager does.
    handed_over: Option<TcpListener>,
    public: SocketAddr,
    admin: SocketAddr,
    child: Option<Process>,
    starts: u32,
    /// Views of the usual site that were taken.
    taken: AtomicU64,
    breaks_the_store: bool,
}

/// It ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

impl Service {
    /// Starts it and waits until it is ready.
    pub fn start(setup: Setup) -> Self {
        let mut service = Self::prepare(setup);
        service.begin();
        service
    }

    /// Makes its directory and does not start it.
    pub fn prepare(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("footfall.toml"), &setup.sites).unwrap();
        Service {
            setup,
            dir,
            before: String::new(),
            handed_over: None,
            public: free_address(),
            admin: free_address(),
            child: None,
            starts: 0,
            taken: AtomicU64::new(0),
            breaks_the_store: false,
        }
    }

    /// What it leaves in the store is not what was accepted, or does not agree; so it is not compared.
    pub fn breaks_the_store(&mut self) {
        self.breaks_the_store = true;
    }

    /// Has a shell do something first, such as lower a limit.
    pub fn after(mut self, shell: &str) -> Self {
        self.before = format!("{shell}; ");
        self
    }

    /// Hands it a listener for pages, at each start, as descriptor 3 (`sd_listen_fds(3)`).
    pub fn handed(mut self, listener: TcpListener) -> Self {
        self = self.after("exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1");
        self.public = listener.local_addr().unwrap();
        self.handed_over = Some(listener);
        self
    }

    /// Makes a twin that has not been started: the same settings, a copy of the directory as it is now. While
    /// it is copied the service stands still: no file goes between its name being read and its being copied.
    pub fn copied(&self) -> Self {
        let mut twin = Self::prepare(self.setup.clone());
        self.signal("STOP");
        let said = Command::new("cp").arg("-a").arg(self.dir.path().join(".")).arg(twin.dir.path()).status();
        self.signal("CONT");
        assert!(said.is_ok_and(|status| status.success()), "cp");
        (twin.before, twin.starts) = (self.before.clone(), self.starts);
        twin
    }

    /// Runs a command with its settings to its end, as an operator does: exit code and what it said.
    pub fn order(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = self.command(self.dir.path().join("order.log"));
        command.args(arguments);
        Self::said(command)
    }

    /// Runs a line of a shell where it runs, in the same way.
    pub fn shell(&self, line: &str) -> (i32, String) {
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(self.dir.path()).env_clear().env("PATH", "/usr/bin:/bin");
        command.env("FOOTFALL_DATA_DIR", "data").envs(&self.setup.variables);
        Self::said(command)
    }

    fn said(mut command: Command) -> (i32, String) {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut child = Process(child);
        let code = until_ended(&mut child).code().expect("it ends by itself");
        let mut said = String::new();
        child.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (code, said)
    }

    /// Prints its configuration without some of its variables, with these in the file `environment` beside it.
    pub fn with_variables(&self, without: &[&str], environment: &str) -> (i32, String) {
        self.write("environment", environment);
        let mut command = self.command(self.dir.path().join("order.log"));
        without.iter().for_each(|name| _ = command.env_remove(name));
        let printed =
            command.arg("print-config").stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        let said = [printed.stdout, printed.stderr].concat();
        (printed.status.code().expect("it ends by itself"), String::from_utf8(said).unwrap())
    }

    /// Runs a command that reads its standard input, and kills it when it has said a line that begins so, while it
    /// waits for more. That line.
    #[track_caller]
    pub fn killed(&self, arguments: &[&str], input: &str, until: &str) -> String {
        let mut command = self.command(self.dir.path().join("order.log"));
        let child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut child = Process(child);
        let mut stdin = child.0.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        lines.find(|line| line.starts_with(until)).expect("it says so")
    }

    /// Has a command do what it is there for.
    #[track_caller]
    pub fn ordered(&self, arguments: &[&str]) -> String {
        let (code, said) = self.order(arguments);
        assert_eq!(code, 0, "{arguments:?}: {said}");
        said
    }

    /// Starts the process.
    pub fn spawn(&mut self) {
        self.kill9();
        self.starts += 1;
        self.child = Some(Process(self.command(self.log_path()).spawn().unwrap()));
    }

    /// Starts the process, if need be after killing it, and waits until it is ready.
    #[track_caller]
    pub fn begin(&mut self) {
        self.spawn();
        self.until_ready();
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
            .env("FOOTFALL_LISTEN", self.public.to_string())
            .env("FOOTFALL_ADMIN_LISTEN", self.admin.to_string())
            .stdin(
                self.handed_over
                    .as_ref()
                    .map_or_else(Stdio::null, |listener| OwnedFd::from(listener.try_clone().unwrap()).into()),
            )
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log).unwrap());
        command
    }

    /// Has its files end at so many bytes: a disk that is full.
    pub fn limit_files(&self, limit: &str) {
        let status = Command::new("prlimit")
            .args(["--pid", &self.pid().to_string(), &format!("--fsize={limit}:unlimited")])
            .status();
        assert!(status.is_ok_and(|status| status.success()), "prlimit");
    }

    /// Has the next start use another value of a setting.
    pub fn set(&mut self, key: &str, value: &str) {
        self.setup = std::mem::take(&mut self.setup).set(key, value);
    }

    /// Runs a second process beside it, on the same directory and other ports, to its end: its exit code and log.
    pub fn run_beside(&self) -> (Option<i32>, String) {
        let log = self.dir.path().join("beside.log");
        let mut command = self.command(log.clone());
        let ports =
            ["FOOTFALL_LISTEN", "FOOTFALL_ADMIN_LISTEN"].map(|name| (name, free_address().to_string()));
        let mut child = Process(command.envs(ports).spawn().unwrap());
        let status = until_ended(&mut child);
        (status.code(), std::fs::read_to_string(log).unwrap())
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join(format!("stderr.{}", self.starts))
    }

    /// What the running process, or the last one, has written to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The first line of that log with a message, which has fields.
    #[track_caller]
    pub fn logged(&self, message: &str) -> Value {
        let log = self.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["message"] == message).unwrap_or_else(|| panic!("no {message:?} in {log}"))
    }

    /// Who it is to the store.
    pub fn writer(&self) -> String {
        let text = std::fs::read_to_string(self.data_dir().join("writer")).unwrap();
        text.lines().find_map(|line| line.strip_prefix("writer ")).unwrap().to_owned()
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

    /// Has it read its configuration again; whether that was taken. (One that fails is seen by its metric, so it
    /// must not follow another that failed.)
    #[track_caller]
    pub fn reload(&self) -> bool {
        let taken = || self.metric("footfall_config_last_reload_success_timestamp_seconds");
        let fails = || self.metric("footfall_config_last_reload_successful") == 0.0;
        let (before, failed) = (taken(), fails());
        self.signal("HUP");
        until("the configuration is read again", || taken() > before || (!failed && fails()));
        taken() > before
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The files of a folder of its data directory, in order.
    pub fn files(&self, folder: &str) -> Vec<PathBuf> {
        files(&self.data_dir().join(folder))
    }

    /// Where pages and readers come in.
    pub fn public(&self) -> SocketAddr {
        self.public
    }

    /// Where operators come in.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Waits until operators are answered, whatever they are told.
    #[track_caller]
    pub fn until_answers(&self) {
        until("it answers", || std::net::TcpStream::connect(self.admin).is_ok());
    }

    /// Waits until `/readyz` says so. Where somebody else has taken a port it is started again on others, once.
    #[track_caller]
    pub fn until_ready(&mut self) {
        let mut tries = 2;
        until("it is ready", || {
            let ended = self.child.as_mut().expect("it is started").0.try_wait().unwrap();
            if let Some(status) = ended {
                tries -= 1;
                assert!(tries > 0 && self.lost_a_port(), "it ended ({status}):\n{}", self.log());
                (self.public, self.admin) = (free_address(), free_address());
                self.spawn();
            }
            ended.is_none() && is_ready(self.admin)
        });
    }

    fn lost_a_port(&self) -> bool {
        self.handed_over.is_none()
            && [self.public, self.admin].map(TcpListener::bind).iter().any(Result::is_err)
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").0.id()
    }

    /// Ends it at once.
    pub fn kill9(&mut self) {
        self.child = None;
    }

    /// Waits for it to end by itself; how it ended.
    #[track_caller]
    pub fn until_ended(&mut self) -> ExitStatus {
        until_ended(&mut self.child.take().expect("it runs"))
    }

    /// Sends SIGTERM and waits for the end; how it ended and how long that took.
    #[track_caller]
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        self.ask_to_stop();
        (self.until_ended(), began.elapsed())
    }

    /// Stops it in good order.
    #[track_caller]
    pub fn stop(&mut self) {
        let (status, _) = self.terminate();
        assert!(status.success(), "{status}:\n{}", self.log());
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
        self.stop();
        self.begin();
    }

    /// Sends a beacon.
    pub fn send(&self, beacon: &Beacon) -> Answer {
        let answer = http::ask(self.public(), beacon.bytes());
        let counts = answer.status == 204 && beacon.is_new_view_of(SITE);
        self.taken.fetch_add(counts.into(), Ordering::Relaxed);
        answer
    }

    /// Sends a beacon that must be taken.
    #[track_caller]
    pub fn take(&self, beacon: &Beacon) {
        let answer = self.send(beacon);
        assert_eq!(answer.outcome(), (204, String::new()), "{beacon:?}");
    }

    /// Page `/a` is viewed so often, each time by another reader.
    #[track_caller]
    pub fn read(&self, views: u32) {
        (0..views).for_each(|reader| self.take(&view("/a").by(reader)));
    }

    /// Waits until all that was sent is applied: the turn that runs now may have begun before it was.
    #[track_caller]
    pub fn settle(&self) {
        let flushed = || self.metric("footfall_last_flush_timestamp_seconds");
        let turned = || self.metric("footfall_last_turn_timestamp_seconds{part=\"writer\"}");
        for _ in 0..2 {
            let before = (flushed(), turned());
            // While a site is held no flush ends with everything applied.
            let is_held = || self.metric("footfall_flush_held") > 0.0;
            until("a turn ends with everything applied", || {
                flushed() > before.0 || is_held() && turned() > before.1
            });
        }
    }

    /// Waits until the store is looked at once more from the beginning, where that ends in nothing being sent.
    #[track_caller]
    pub fn until_tried(&self) {
        until_tried(self.admin());
    }

    /// Waits until the store answers and has everything.
    #[track_caller]
    pub fn until_applied(&self) {
        until("everything is in the store", || {
            self.metric("footfall_store_up") == 1.0
                && self.metric("footfall_unapplied_batches") == 0.0
                && self.metric("footfall_oldest_unapplied_timestamp_seconds") == 0.0
        });
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
        self.pages(site, &[page.to_owned()])[0]
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
        readiness(self.admin())
    }

    /// Stops it, which brings everything to the store, and audits that.
    fn audit(&mut self) {
        if self.child.is_none() {
            self.begin();
        }
        until("the store is there", || self.metric("footfall_store_up") == 1.0);
        self.stop();
        let audits: Value = serde_json::from_str(&self.ordered(&["verify", "--json"])).unwrap();
        let ours = audits.as_array().unwrap().iter().find(|audit| audit["site"] == SITE);
        // Others may have added to it.
        let stored = ours.map_or(0, |audit| audit["views"].as_u64().unwrap());
        let taken = *self.taken.get_mut();
        assert!(stored >= taken, "{taken} were taken: {audits}");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the log of the service:\n{}", self.log());
        } else if self.starts > 0 && !self.breaks_the_store {
            self.audit();
        }
    }
}

fn is_ready(admin: SocketAddr) -> bool {
    let asked = http::Connection::open(admin)
        .and_then(|mut connection| connection.ask(http::request("GET", "/readyz", &[], b"")));
    asked.is_ok_and(|answer| answer.status == 200)
}

/// How a process ends.
#[track_caller]
fn until_ended(process: &mut Process) -> ExitStatus {
    let mut ended = None;
    until("the process ends", || {
        ended = process.0.try_wait().unwrap();
        ended.is_some()
    });
    ended.unwrap()
}

/// The files of a folder, in order.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// Bytes of memory that a process has in use.
pub fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
