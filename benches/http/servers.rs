//! The servers as child processes: footfall, the bare server, Redis.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::Fault;
use crate::by_hand::LONGEST_TURN;
use crate::requests::HOST;

/// How long a server may take to become ready.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Which core is whose.
pub struct Cores {
    pinned: bool,
}

impl Cores {
    /// Moves this process to the client's core, where there are two cores and `taskset`.
    pub fn take() -> Result<Cores, Fault> {
        let pinned = std::thread::available_parallelism()?.get() >= 2 && on_path("taskset");
        if pinned {
            let own = std::process::id().to_string();
            let moved = Command::new("taskset").args(["-acp", "1", &own]).stdout(Stdio::null()).status()?;
            if !moved.success() {
                return Err("taskset refused".into());
            }
        }
        Ok(Cores { pinned })
    }

    /// A command on the servers' core.
    fn server(&self, program: &Path) -> Command {
        if !self.pinned {
            return Command::new(program);
        }
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(program);
        command
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.pinned {
            true => "servers on core 0, client and Redis on core 1",
            false => "one core or no taskset: servers and client share what there is",
        })
    }
}

/// What is measured beside the bare server.
pub enum UnderTest {
    /// This binary.
    Footfall(PathBuf),
    /// The bare server once more.
    Bare,
    /// This crate's service with a clock that is set by hand.
    ByHand,
}

/// What the rows set of footfall's configuration.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// Where totals are stored; none: in files of its own.
    pub redis: Option<&'a Redis>,
    /// `journal.sync`.
    pub sync: &'static str,
    /// `store.flush_interval`.
    pub flush_interval: &'static str,
    /// `outbox.max_bytes`.
    pub outbox: &'static str,
    /// `sessions.max_sessions`.
    pub max_sessions: u32,
    /// `totals.max_pages`.
    pub max_pages: u32,
    /// `totals.checkpoint_interval`.
    pub checkpoint_interval: &'static str,
    /// How many there are.
    pub sites: u32,
}

impl Default for Settings<'_> {
    fn default() -> Self {
        Settings {
            redis: None,
            sync: "every-second",
            flush_interval: "auto",
            outbox: "2 GiB",
            max_sessions: 1_000_000,
            max_pages: 100_000,
            checkpoint_interval: "60s",
            sites: 1,
        }
    }
}

/// The key of the n-th site.
pub fn site_key(n: u32) -> String {
    if n == 0 { "bench".to_owned() } else { format!("bench{n}") }
}

/// The n-th site's part of a configuration.
fn section(n: u32) -> String {
    let (key, before) = (site_key(n), if n == 0 { String::new() } else { format!("www{n}.") });
    format!("[[site]]\nkey = \"{key}\"\nhosts = [\"{before}{HOST}\"]\ntime_zone = \"Asia/Ho_Chi_Minh\"\n\n")
}

/// A running server. Ends when dropped.
pub struct Server {
    process: Running,
    /// Where it takes beacons and answers reads.
    pub address: SocketAddr,
    /// Where it says whether it is ready; the bare server does not.
    admin: SocketAddr,
}

impl Server {
    /// Starts the bare server, whose GETs answer `body` bytes.
    pub fn bare(cores: &Cores, body: usize) -> Result<Server, Fault> {
        let mut command = cores.server(&std::env::current_exe()?);
        command.arg("--serve-bare").arg(body.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Running::start(&mut command)?;
        let mut line = String::new();
        let output = process.child.stdout.take().ok_or("no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let port: u16 = line.trim().parse().map_err(|_| "the bare server did not start")?;
        Ok(Server { process, address: loopback(port), admin: loopback(port) })
    }

    /// Starts what is under test and waits until it is ready.
    pub fn under_test(cores: &Cores, what: &UnderTest, settings: Settings<'_>) -> Result<Server, Fault> {
        match what {
            UnderTest::Bare => Server::bare(cores, 640),
            UnderTest::Footfall(binary) => {
                Server::footfall(settings, |directory| footfall_in(directory, cores, binary))
            }
            UnderTest::ByHand => Server::footfall(settings, |directory| {
                let mut command = footfall_in(directory, cores, &std::env::current_exe()?)?;
                command.arg("--serve-by-hand").stdin(Stdio::piped()).stdout(Stdio::piped());
                Ok(command)
            }),
        }
    }

    fn footfall(
        settings: Settings<'_>,
        command: impl FnOnce(&Path) -> Result<Command, Fault>,
    ) -> Result<Server, Fault> {
        let directory = directory()?;
        let (public, admin) = (free_port()?, free_port()?);
        let Settings { redis, sync, flush_interval, outbox, max_sessions, .. } = settings;
        let Settings { max_pages, checkpoint_interval, sites, .. } = settings;
        let url =
            redis.map_or_else(|| "embedded".to_owned(), |redis| format!("redis://127.0.0.1:{}", redis.port));
        let data = directory.path().join("data");
        let config = format!(
            "listen = \"127.0.0.1:{public}\"\nadmin_listen = \"127.0.0.1:{admin}\"\ndata_dir = {data:?}\n\
             trusted_proxies = [\"127.0.0.0/8\"]\n\n[http]\nmax_connections = 20000\n\n\
             [live]\nmax_readers = 15000\n\n[journal]\nsync = \"{sync}\"\n\n\
             [outbox]\nmax_bytes = \"{outbox}\"\n\n\
             [store]\nurl = \"{url}\"\nflush_interval = \"{flush_interval}\"\n\n\
             [sessions]\nmax_sessions = {max_sessions}\n\n[totals]\nmax_pages = {max_pages}\n\
             checkpoint_interval = \"{checkpoint_interval}\"\n\n{}",
            (0..sites).map(section).collect::<String>()
        );
        let file = directory.path().join("footfall.toml");
        std::fs::write(&file, config)?;
        let mut process = Running::start(&mut command(directory.path())?)?;
        let log = directory.path().join("log");
        process.directory = Some(directory);
        let (address, admin) = (loopback(public), loopback(admin));
        process.wait_until(&log, || get(admin, "/readyz").is_ok_and(|(status, _)| status == 200))?;
        Ok(Server { process, address, admin })
    }

    /// Starts a program of others on a free port, with the configuration that is made for it in a directory of its own;
    /// none where it is not installed.
    #[allow(dead_code, reason = "the bench `peers` alone has others")]
    pub fn of_others(
        cores: &Cores,
        program: &str,
        flags: &[&str],
        config: impl Fn(u16, &Path) -> String,
    ) -> Result<Option<Server>, Fault> {
        if !on_path(program) {
            return Ok(None);
        }
        let (directory, port) = (directory()?, free_port()?);
        let (file, log) = (directory.path().join("config"), directory.path().join("log"));
        std::fs::write(&file, config(port, directory.path()))?;
        let (mut command, to) = (cores.server(Path::new(program)), File::create(&log)?);
        command.args(flags).arg(&file).stdin(Stdio::null()).stdout(to.try_clone()?).stderr(to);
        let mut process = Running::start(&mut command)?;
        process.directory = Some(directory);
        process.wait_until(&log, || TcpStream::connect(loopback(port)).is_ok())?;
        Ok(Some(Server { process, address: loopback(port), admin: loopback(port) }))
    }

    /// Sets its clock forward, and waits until what was not synced by then is: it has suddenly become old.
    pub fn advance(&mut self, by: Duration) -> Result<(), Fault> {
        let clock = self.process.child.stdin.as_mut().ok_or("its clock is the machine's")?;
        writeln!(clock, "{}", by.as_millis())?;
        std::thread::sleep(Duration::from_millis(20));
        let (admin, log) = (self.admin, self.directory()?.join("log"));
        self.process.wait_until(&log, || get(admin, "/readyz").is_ok_and(|(status, _)| status == 200))
    }

    /// The longest turn of its event loop since this was asked for last, as CPU time of its thread.
    pub fn longest_turn(&mut self) -> Result<Duration, Fault> {
        let Child { stdin, stdout, .. } = &mut self.process.child;
        writeln!(stdin.as_mut().ok_or("its turns are not timed")?, "{LONGEST_TURN}")?;
        let mut line = String::new();
        // One line for each question: nothing of a second one is read with it.
        BufReader::new(stdout.as_mut().ok_or("no output")?).read_line(&mut line)?;
        Ok(Duration::from_nanos(line.trim().parse()?))
    }

    /// A value of its own metrics.
    pub fn metric(&self, series: &str) -> Result<f64, Fault> {
        let text = String::from_utf8(get(self.admin, "/metrics")?.1)?;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        Ok(value.ok_or("there is no such series")?.parse()?)
    }

    /// Bytes of the embedded store's file.
    pub fn store_bytes(&self) -> Result<u64, Fault> {
        Ok(std::fs::metadata(self.directory()?.join("data").join("totals.redb"))?.len())
    }

    fn directory(&self) -> Result<&Path, Fault> {
        Ok(self.process.directory.as_ref().ok_or("no directory")?.path())
    }

    /// Kills footfall, starts it anew on what it left, and sends one view until it is answered 204. How long
    /// that took from the kill on.
    pub fn kill_and_recover(&mut self, cores: &Cores, binary: &Path, view: &[u8]) -> Result<Duration, Fault> {
        let directory = self.process.directory.take().ok_or("no directory")?;
        let mut command = footfall_in(directory.path(), cores, binary)?;
        let killed = Instant::now();
        self.process.child.kill()?;
        self.process.child.wait()?;
        self.process = Running::start(&mut command)?;
        self.process.directory = Some(directory);
        while killed.elapsed() < START_TIMEOUT {
            if status(self.address, view).is_ok_and(|status| status == 204) {
                return Ok(killed.elapsed());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(format!("no view was taken within {START_TIMEOUT:?} after the kill").into())
    }

    /// Bytes of the outbox' files.
    pub fn outbox_bytes(&self) -> Result<u64, Fault> {
        bytes_in(&self.directory()?.join("data").join("outbox"))
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }
}

/// A Redis of its own, which appends every write to a file and syncs it every second.
pub struct Redis {
    process: Running,
    port: u16,
}

impl Redis {
    /// Starts it on a free port; none where there is no `redis-server`.
    pub fn start() -> Result<Option<Redis>, Fault> {
        if !on_path("redis-server") {
            return Ok(None);
        }
        let directory = directory()?;
        let port = free_port()?;
        let log = directory.path().join("log");
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()]);
        command.args(["--appendonly", "yes", "--appendfsync", "everysec"]);
        // A rewrite would make the append file shorter while it is measured.
        command.args(["--auto-aof-rewrite-percentage", "0", "--dir"]).arg(directory.path());
        command.stdin(Stdio::null()).stdout(File::create(&log)?);
        let mut process = Running::start(&mut command)?;
        process.directory = Some(directory);
        process.wait_until(&log, || TcpStream::connect(loopback(port)).is_ok())?;
        Ok(Some(Redis { process, port }))
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Where it listens.
    #[allow(dead_code, reason = "the bench `peers` alone has others")]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops it from answering, or lets it go on: its process stays, and its connections.
    pub fn halt(&self, halt: bool) -> Result<(), Fault> {
        let signal = if halt { "-STOP" } else { "-CONT" };
        let told = Command::new("kill").args([signal, &self.pid().to_string()]).status()?;
        told.success().then_some(()).ok_or_else(|| "kill refused".into())
    }

    /// Bytes of memory that its data takes.
    pub fn data_bytes(&self) -> Result<u64, Fault> {
        self.info("used_memory_dataset:")
    }

    /// Commands that it was ever asked.
    pub fn commands(&self) -> Result<u64, Fault> {
        self.info("total_commands_processed:")
    }

    fn info(&self, name: &str) -> Result<u64, Fault> {
        let mut stream = connect(loopback(self.port))?;
        stream.write_all(b"INFO\r\n")?;
        let mut answer = BufReader::new(stream).lines();
        loop {
            let line = answer.next().ok_or("no answer")??;
            if let Some(value) = line.strip_prefix(name) {
                return Ok(value.trim().parse()?);
            }
        }
    }

    /// Carries out commands that are each answered by one line, all as they should be.
    pub fn carry_out(&self, commands: &[String]) -> Result<(), Fault> {
        let mut stream = connect(loopback(self.port))?;
        let answers = BufReader::new(stream.try_clone()?);
        for command in commands {
            stream.write_all(command.as_bytes())?;
            stream.write_all(b"\r\n")?;
        }
        let refused = |line: &String| line.starts_with('-');
        for line in answers.lines().take(commands.len()) {
            line.map(|line| if refused(&line) { Err(line) } else { Ok(()) })??;
        }
        Ok(())
    }

    /// Bytes of the append files.
    pub fn append_bytes(&self) -> Result<u64, Fault> {
        bytes_in(&self.process.directory.as_ref().ok_or("no directory")?.path().join("appendonlydir"))
    }
}

/// Bytes of a directory's files. One that is deleted meanwhile is none of them.
fn bytes_in(directory: &Path) -> Result<u64, Fault> {
    let files = std::fs::read_dir(directory)?.filter_map(|file| file.ok()?.metadata().ok());
    Ok(files.map(|file| file.len()).sum())
}

/// A child process with its directory; killed, waited for and removed when dropped.
struct Running {
    child: Child,
    directory: Option<TempDir>,
}

impl Running {
    fn start(command: &mut Command) -> Result<Running, Fault> {
        let child = command.spawn().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
        Ok(Running { child, directory: None })
    }

    /// Waits until it is ready; shows the end of its log if it never is.
    fn wait_until(&mut self, log: &Path, ready: impl Fn() -> bool) -> Result<(), Fault> {
        let pause = Duration::from_millis(50);
        for _ in 0..START_TIMEOUT.as_millis() / pause.as_millis() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the server ended before it was ready, {status}{}", tail(log)).into());
            }
            if ready() {
                return Ok(());
            }
            std::thread::sleep(pause);
        }
        Err(format!("the server was not ready in {START_TIMEOUT:?}{}", tail(log)).into())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of a log, each on a line of its own.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(10).collect();
    lines.into_iter().rev().map(|line| format!("\n  {line}")).collect()
}

/// Asks once over a connection of its own: status and body.
pub fn get(from: SocketAddr, target: &str) -> Result<(u16, Vec<u8>), Fault> {
    let mut stream = connect(from)?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: stats.bench.example\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n").ok_or("no answer")?;
    Ok((status_of(&answer)?, answer.split_off(head + 4)))
}

/// Sends one request over a connection of its own; the status of the answer.
fn status(from: SocketAddr, request: &[u8]) -> Result<u16, Fault> {
    let mut stream = connect(from)?;
    stream.write_all(request)?;
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    status_of(&line)
}

fn connect(to: SocketAddr) -> Result<TcpStream, Fault> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

fn status_of(answer: &[u8]) -> Result<u16, Fault> {
    Ok(std::str::from_utf8(answer.get(9..12).ok_or("no status")?)?.parse()?)
}

/// The command that serves what is configured in a directory.
fn footfall_in(directory: &Path, cores: &Cores, binary: &Path) -> Result<Command, Fault> {
    let log = File::options().append(true).create(true).open(directory.join("log"))?;
    let mut command = cores.server(binary);
    command.arg("--config").arg(directory.join("footfall.toml")).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    Ok(command)
}

/// A directory on the disk that the build uses: the machine's own for temporary files may be memory,
/// where nothing is ever written or synced.
pub fn directory() -> Result<TempDir, Fault> {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(parent)?;
    Ok(tempfile::Builder::new().prefix("bench-").tempdir_in(parent)?)
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16, Fault> {
    Ok(TcpListener::bind(loopback(0))?.local_addr()?.port())
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
