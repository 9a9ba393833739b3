//! Starts real servers for tests. Standard library only, so that unit tests may include it too.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Where nobody listens: ports below 1024 are no test's, and this one is no service's.
pub const NOBODY: &str = "127.0.0.1:1";

/// A redis-server on a free port of 127.0.0.1 with a directory of its own; killed when dropped.
pub struct RedisServer {
    child: Child,
    port: u16,
    args: Vec<String>,
    dir: tempfile::TempDir,
}

impl RedisServer {
    /// Starts a server that keeps nothing on disk.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server that keeps every write.
    pub fn lasting() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// Starts a server with further arguments (`["--appendonly", "yes"]`).
    ///
    /// # Panics
    /// If it does not answer.
    pub fn start_with(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory for redis-server");
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let spawned = |port| spawn(port, dir.path(), &args);
        match on_a_free_port(spawned, |port| answers(port, dir.path())) {
            Some((child, port)) => RedisServer { child, port, args, dir },
            None => panic!("redis-server {args:?} does not answer:\n{}", log(dir.path())),
        }
    }

    /// Starts a replica of this server, which follows at once, and waits until it holds as much.
    ///
    /// # Panics
    /// If it does not follow.
    pub fn replica(&self) -> Self {
        self.client().ask(&[b"CONFIG", b"SET", b"repl-diskless-sync-delay", b"0"]);
        let replica = Self::start_with(&["--replicaof", "127.0.0.1", &self.port.to_string()]);
        let mut client = self.client();
        // The replicas that have all that was written until now.
        let follow = client.ask(&[b"WAIT", b"1", b"50000"]).int();
        assert!(follow >= 1, "the replica does not follow:\n{}", log(replica.dir()));
        replica
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `redis://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A connection of one's own.
    pub fn client(&self) -> RedisClient {
        RedisClient::connect(self.port).expect("redis-server answered a moment ago")
    }

    /// What it holds of the site that most tests count: a field of a bucket's hash (`all`, `all:pages`).
    pub fn sum(&self, bucket: &str, field: &str) -> Option<u64> {
        match self.client().ask(&[b"HGET", Self::key(bucket).as_bytes(), field.as_bytes()]) {
            Reply::Bytes(None) => None,
            sum => Some(sum.text().parse().expect("a number")),
        }
    }

    /// The views of all time of that site.
    pub fn views(&self) -> u64 {
        self.sum("all", "views").unwrap_or_default()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.client().ask(&[b"DBSIZE"]).int() == 0
    }

    /// The key of a hash of that site.
    pub fn key(hash: &str) -> String {
        format!("footfall:{{lamdong}}:{hash}")
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, if need be after killing it, on the same port and directory.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.port, self.dir.path(), &self.args);
        let dir = self.dir.path();
        assert!(is_up(&mut self.child, || answers(self.port, dir)), "it does not come back:\n{}", log(dir));
    }

    /// Stops it without ending it, as a stuck disk or a long fork does.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it run again.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill {signal}");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK` and the like.
    Status(String),
    /// An error, with its code first.
    Error(String),
    /// A number.
    Int(i64),
    /// Bytes, or none.
    Bytes(Option<Vec<u8>>),
    /// Several.
    Array(Vec<Reply>),
}

impl Reply {
    /// The number.
    pub fn int(self) -> i64 {
        match self {
            Reply::Int(number) => number,
            other => panic!("not a number: {other:?}"),
        }
    }

    /// The bytes.
    pub fn bytes(self) -> Vec<u8> {
        match self {
            Reply::Bytes(Some(bytes)) => bytes,
            other => panic!("not bytes: {other:?}"),
        }
    }

    /// The bytes as text.
    pub fn text(self) -> String {
        String::from_utf8(self.bytes()).expect("text")
    }
}

/// A plain connection that asks one thing at a time (RESP2).
pub struct RedisClient(BufReader<TcpStream>);

impl RedisClient {
    /// Connects to a port of this machine.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_nodelay(true)?;
        Ok(RedisClient(BufReader::new(stream)))
    }

    /// Sends a command and reads its answer.
    ///
    /// # Panics
    /// If the connection fails.
    pub fn ask(&mut self, args: &[&[u8]]) -> Reply {
        self.try_ask(args).expect("redis-server answers")
    }

    fn try_ask(&mut self, args: &[&[u8]]) -> std::io::Result<Reply> {
        let mut request = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            request.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            request.extend_from_slice(arg);
            request.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&request)?;
        self.reply()
    }

    fn reply(&mut self) -> std::io::Result<Reply> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let rest = line.get(1..).unwrap_or_default().trim_end();
        let number = || rest.parse::<i64>().map_err(std::io::Error::other);
        Ok(match line.as_bytes()[0] {
            b'+' => Reply::Status(rest.to_owned()),
            b'-' => Reply::Error(rest.to_owned()),
            b':' => Reply::Int(number()?),
            b'$' if rest == "-1" => Reply::Bytes(None),
            b'$' => {
                let mut bytes = vec![0; number()? as usize + 2];
                self.0.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Reply::Bytes(Some(bytes))
            }
            b'*' => Reply::Array((0..number()?).map(|_| self.reply()).collect::<Result<_, _>>()?),
            _ => return Err(std::io::Error::other(line)),
        })
    }
}

/// A port of 127.0.0.1 for a server. It is below those that the system gives to connections, so that none
/// takes it before the server does or while the server is down; and every process of tests begins elsewhere.
pub fn free_port() -> u16 {
    const MANY: u32 = 12_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest = range.split_whitespace().next().and_then(|lowest| lowest.parse().ok()).unwrap_or(32_768);
    let first = u32::max(lowest, 1024 + MANY) - MANY;
    loop {
        let number = std::process::id().wrapping_mul(509).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = (first + number % MANY) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn spawn(port: u16, dir: &Path, args: &[String]) -> Child {
    let _ = std::fs::remove_file(dir.join("redis.log"));
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--logfile", "redis.log"])
        .arg("--dir")
        .arg(dir)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|_| panic!("these tests need redis-server: apt-get install redis-server"))
}

/// Whether the server answers. Its log is asked first: on a port that another was faster to take, that one would
/// answer.
fn answers(port: u16, dir: &Path) -> bool {
    let pong = || RedisClient::connect(port).and_then(|mut client| client.try_ask(&[b"PING"]));
    log(dir).contains("Ready to accept connections")
        && match pong() {
            Ok(Reply::Status(_)) => true,
            Ok(Reply::Error(error)) => error.starts_with("NOAUTH"),
            _ => false,
        }
}

/// Starts a server on a free port and waits until it answers: once more on another one, where somebody took the
/// first before it did. None if it does not answer.
pub fn on_a_free_port(spawn: impl Fn(u16) -> Child, answers: impl Fn(u16) -> bool) -> Option<(Child, u16)> {
    for port in [free_port(), free_port()] {
        let mut child = spawn(port);
        if is_up(&mut child, || answers(port)) {
            return Some((child, port));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    None
}

/// Waits until a server answers; false if it ended, or took longer than it ever does.
fn is_up(child: &mut Child, answers: impl Fn() -> bool) -> bool {
    for _ in 0..10_000 {
        if !matches!(child.try_wait(), Ok(None)) {
            return false;
        }
        if answers() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

fn log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("redis.log")).unwrap_or_default()
}

/// What a liar answers in place of the server behind it.
pub enum Lie {
    /// These bytes.
    Says(Vec<u8>),
    /// A text that never ends, as long as somebody reads.
    NeverEnds,
}

/// A text as a server answers it.
pub fn bulk(text: impl AsRef<[u8]>) -> Vec<u8> {
    encoded(Reply::Bytes(Some(text.as_ref().to_vec())))
}

/// Several answers as one.
pub fn array(answers: &[Vec<u8>]) -> Vec<u8> {
    [format!("*{}\r\n", answers.len()).into_bytes(), answers.concat()].concat()
}

fn encoded(reply: Reply) -> Vec<u8> {
    match reply {
        Reply::Status(text) => format!("+{text}\r\n").into_bytes(),
        Reply::Error(text) => format!("-{text}\r\n").into_bytes(),
        Reply::Int(number) => format!(":{number}\r\n").into_bytes(),
        Reply::Bytes(None) => b"$-1\r\n".to_vec(),
        Reply::Bytes(Some(bytes)) => {
            [format!("${}\r\n", bytes.len()).as_bytes(), bytes.as_slice(), b"\r\n"].concat()
        }
        Reply::Array(all) => array(&all.into_iter().map(encoded).collect::<Vec<_>>()),
    }
}

/// Stands before a server, and answers some of what is asked itself: `lies` is given the words of each command.
/// Its port.
pub fn liar(server: u16, lies: impl Fn(&[String]) -> Option<Lie> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("a port").port();
    let lies = std::sync::Arc::new(lies);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (lies, server) = (lies.clone(), RedisClient::connect(server));
            std::thread::spawn(move || lie_to(client, server?, &*lies));
        }
    });
    port
}

fn lie_to(
    mut client: TcpStream,
    mut server: RedisClient,
    lies: &dyn Fn(&[String]) -> Option<Lie>,
) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut asked = RedisClient(BufReader::new(client.try_clone()?));
    loop {
        // What is asked has the form of an answer.
        let Reply::Array(words) = asked.reply()? else { return Ok(()) };
        let words: Vec<Vec<u8>> = words.into_iter().map(Reply::bytes).collect();
        let texts: Vec<String> =
            words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        match lies(&texts) {
            Some(Lie::Says(bytes)) => client.write_all(&bytes)?,
            Some(Lie::NeverEnds) => {
                client.write_all(b"$9000000000\r\n")?;
                loop {
                    client.write_all(&[b'x'; 1 << 16])?;
                }
            }
            None => {
                let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                client.write_all(&encoded(server.try_ask(&words)?))?;
            }
        }
    }
}
