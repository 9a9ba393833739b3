//! The servers as child processes: footfall, the bare server, Redis.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::Fault;
use crate::requests::HOST;

/// How long a server may take to become ready.
const START_TIMEOUT: Duration = Duration::from_secs(15);

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
}

/// Where footfall's totals rest.
#[derive(Clone, Copy)]
pub enum Store<'a> {
    /// In its own files.
    Embedded,
    /// In this Redis.
    Redis(&'a Redis),
}

/// A running server. Ends when dropped.
pub struct Server {
    process: Running,
    /// Where it takes beacons and answers reads.
    pub address: SocketAddr,
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
        Ok(Server { process, address: loopback(port) })
    }

    /// Starts what is under test and waits until it is ready.
    pub fn under_test(
        cores: &Cores,
        what: &UnderTest,
        store: Store<'_>,
        max_sessions: u32,
    ) -> Result<Server, Fault> {
        match what {
            UnderTest::Bare => Server::bare(cores, 640),
            UnderTest::Footfall(binary) => Server::footfall(cores, binary, store, max_sessions),
        }
    }

    fn footfall(cores: &Cores, binary: &Path, store: Store<'_>, max_sessions: u32) -> Result<Server, Fault> {
        let directory = directory()?;
        let (public, admin) = (free_port()?, free_port()?);
        let url = match store {
            Store::Embedded => "embedded".to_owned(),
            Store::Redis(redis) => format!("redis://127.0.0.1:{}", redis.port),
        };
        let data = directory.path().join("data");
        let config = format!(
            "listen = \"127.0.0.1:{public}\"\nadmin_listen = \"127.0.0.1:{admin}\"\ndata_dir = {data:?}\n\
             trusted_proxies = [\"127.0.0.0/8\"]\n\n[store]\nurl = \"{url}\"\n\n\
             [sessions]\nmax_sessions = {max_sessions}\n\n[totals]\nmax_pages = 100000\n\n\
             [[site]]\nkey = \"bench\"\nhosts = [\"{HOST}\"]\ntime_zone = \"Asia/Ho_Chi_Minh\"\n"
        );
        let file = directory.path().join("footfall.toml");
        std::fs::write(&file, config)?;
        let log = directory.path().join("log");
        let mut command = cores.server(binary);
        command.arg("--config").arg(&file).stdin(Stdio::null());
        command.stdout(File::create(&log)?).stderr(File::options().append(true).open(&log)?);
        let mut process = Running::start(&mut command)?;
        process.directory = Some(directory);
        process
            .wait_until(&log, || get(loopback(admin), "/readyz").is_ok_and(|(status, _)| status == 200))?;
        Ok(Server { process, address: loopback(public) })
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

    /// Bytes of the append files.
    pub fn append_bytes(&self) -> Result<u64, Fault> {
        let directory = self.process.directory.as_ref().ok_or("no directory")?.path().join("appendonlydir");
        let mut bytes = 0;
        for file in std::fs::read_dir(directory)? {
            bytes += file?.metadata()?.len();
        }
        Ok(bytes)
    }
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
    let mut stream = TcpStream::connect(from)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: stats.bench.example\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n").ok_or("no answer")?;
    let status = std::str::from_utf8(answer.get(9..12).ok_or("no status")?)?.parse()?;
    Ok((status, answer.split_off(head + 4)))
}

/// A directory on the disk that the build uses: the machine's own for temporary files may be memory,
/// where nothing is ever written or synced.
fn directory() -> Result<TempDir, Fault> {
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
