//! The way to the server: one connection, shared by all calls.
//!
//! It is made when it is first needed and dropped at any fault, a missed deadline included: a server
//! that vanished without a word (a failover behind one address) is not waited for twice, and a server
//! that turned the login down is asked anew the next time. A connection found broken is made again once
//! within the same deadline, so that a restart of the server between two calls is not seen.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo, Pipeline, RedisError, RedisResult, TlsCertificates, Value,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::keys::key;
use crate::sites::SiteKey;
use crate::totals::store::contract::{StoreConfig, StoreError};
use crate::totals::store::dump::{Fields, STEP};
use crate::totals::store::url::StoreUrl;

/// The longest answer to what was asked at once; the longest that is asked for is a few MB. The client library
/// gathers an answer in memory before it is read.
const LONGEST_REPLY: usize = 32 << 20;

/// Most steps of a scan: of a thousand million names, or of as many fields of a hash.
const MOST_STEPS: usize = if cfg!(test) { 1 << 10 } else { 1 << 20 };

/// The connection to the server, which is made anew after a fault.
pub struct Connection {
    client: Client,
    timeout: Duration,
    /// The password, to keep it out of texts.
    secret: Option<String>,
    slot: Mutex<Slot>,
    made: AtomicU64,
    /// A reply has been longer than any that was asked for.
    overran: Arc<AtomicBool>,
}

/// The connection, if there is one, and which one it is.
#[derive(Default)]
struct Slot {
    number: u64,
    connection: Option<MultiplexedConnection>,
    /// What reads and writes it, where that is ours: ended with it, else a reply without end is read on.
    driver: JoinSet<()>,
}

/// An answer for each command.
pub type Replies = Vec<RedisResult<Value>>;

impl Connection {
    /// Takes the settings; does not connect.
    pub fn new(config: &StoreConfig) -> Result<Self, StoreError> {
        // Another part of the process may have installed it before: the result does not matter.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self::with(client(config)?, config.timeout))
    }

    /// Another one to the same server, for work that must not hold up this one.
    pub fn another(&self) -> Self {
        Self::with(self.client.clone(), self.timeout)
    }

    fn with(client: Client, timeout: Duration) -> Self {
        let secret = client.get_connection_info().redis_settings().password();
        let secret = secret.filter(|secret| !secret.is_empty()).map(str::to_owned);
        let (slot, made, overran) = Default::default();
        Connection { client, timeout, secret, slot, made, overran }
    }

    /// How many connections have been made.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Acquire)
    }

    /// Sends one command and reads its answer.
    pub async fn only<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let mut pipe = Pipeline::with_capacity(1);
        pipe.add_command(command.clone());
        let reply = self.ask(pipe).await?.pop().unwrap_or(Ok(Value::Nil));
        reply.map_err(|err| self.fault(&err)).and_then(|value| self.read_as(value))
    }

    /// One round trip: an answer for each command, in order.
    pub async fn ask(&self, mut pipe: Pipeline) -> Result<Replies, StoreError> {
        if pipe.is_empty() {
            return Ok(Vec::new());
        }
        pipe.ignore_errors();
        let deadline = Instant::now() + self.timeout;
        let mut retried = false;
        loop {
            let linked = timeout_at(deadline, self.connection()).await;
            let (number, mut connection) =
                linked.map_err(|_| self.late())?.map_err(|err| self.broken(&err))?;
            match timeout_at(deadline, pipe.query_async::<Replies>(&mut connection)).await {
                Ok(Ok(replies)) => {
                    if replies.iter().any(is_elsewhere) {
                        self.forget(number).await;
                    }
                    return Ok(replies);
                }
                Ok(Err(err)) => {
                    self.forget(number).await;
                    if retried || !err.is_io_error() || self.overran.load(Ordering::Acquire) {
                        return Err(self.broken(&err));
                    }
                    retried = true;
                }
                Err(_) => {
                    self.forget(number).await;
                    return Err(self.late());
                }
            }
        }
    }

    /// Sends commands of which none may fail.
    pub async fn all(&self, pipe: Pipeline) -> Result<Vec<Value>, StoreError> {
        let replies = self.ask(pipe).await?.into_iter();
        replies.map(|reply| reply.map_err(|err| self.fault(&err))).collect()
    }

    /// Sets what is known of a site beside its sums.
    pub async fn note(
        &self,
        site: &SiteKey,
        meta: impl Iterator<Item = (String, String)>,
    ) -> Result<(), StoreError> {
        let mut set = redis::cmd("HSET");
        set.arg(key(site, "meta"));
        let any = meta.fold(false, |_, (field, value)| {
            set.arg(field).arg(value);
            true
        });
        if any { self.only::<i64>(&set).await.map(drop) } else { Ok(()) }
    }

    /// The keys that match a pattern. For tools: it walks all keys of the server.
    pub async fn keys(&self, pattern: &str) -> Result<BTreeSet<String>, StoreError> {
        let (mut found, mut cursor) = (BTreeSet::new(), 0u64);
        for _ in 0..MOST_STEPS {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(STEP);
            let (next, keys): (u64, Vec<String>) = self.only(&scan).await?;
            found.extend(keys);
            if next == 0 {
                return Ok(found);
            }
            cursor = next;
        }
        Err(endless("SCAN"))
    }

    /// About [`STEP`] fields of a hash, and where to go on: the server's cursor and the steps that were taken.
    pub async fn fields(
        &self,
        key: &str,
        from: Option<String>,
    ) -> Result<(Fields, Option<String>), StoreError> {
        let from = from.as_deref().and_then(|from| from.split_once(' '));
        let (cursor, steps) = from.unwrap_or(("0", "0"));
        let steps = steps.parse().unwrap_or(MOST_STEPS) + 1;
        let mut scan = redis::cmd("HSCAN");
        let (next, fields): (u64, _) = self.only(scan.arg(key).arg(cursor).arg("COUNT").arg(STEP)).await?;
        if steps > MOST_STEPS {
            return Err(endless("HSCAN"));
        }
        Ok((fields, (next != 0).then(|| format!("{next} {steps}"))))
    }

    /// The connection and its number, made if there is none. One task makes it, others wait for it.
    async fn connection(&self) -> RedisResult<(u64, MultiplexedConnection)> {
        let mut slot = self.slot.lock().await;
        if let Some(connection) = &slot.connection {
            return Ok((slot.number, connection.clone()));
        }
        // The caller's deadline bounds both.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connection = match self.client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                let redis = self.client.get_connection_info().redis_settings();
                let stream = Bounded { stream, told: 0, overran: self.overran.clone() };
                let (connection, driver) =
                    MultiplexedConnection::new_with_config(redis, stream, config).await?;
                slot.driver.spawn(driver);
                connection
            }
            // Within TLS the library reads for itself: only the deadline bounds a reply.
            _ => self.client.get_multiplexed_async_connection_with_config(&config).await?,
        };
        slot.number += 1;
        self.made.store(slot.number, Ordering::Release);
        slot.connection = Some(connection.clone());
        Ok((slot.number, connection))
    }

    /// Drops a connection, unless another took its place.
    async fn forget(&self, number: u64) {
        let mut slot = self.slot.lock().await;
        if slot.number == number {
            *slot = Slot { number, ..Slot::default() };
        }
    }

    /// Why a connection broke.
    fn broken(&self, err: &RedisError) -> StoreError {
        match self.overran.swap(false, Ordering::AcqRel) {
            true => StoreError::refused("it answers without end"),
            false => self.fault(err),
        }
    }

    fn late(&self) -> StoreError {
        StoreError::unreachable(format!("no answer within {}", humantime::format_duration(self.timeout)))
    }

    /// What a fault means for the store, in words without the password: a server repeats the
    /// arguments of a command it does not know, `AUTH` for one.
    pub fn fault(&self, err: &RedisError) -> StoreError {
        fault(err, |text| self.without_secret(text))
    }

    /// Reads what the server told; it refuses where that is something else.
    pub fn read_as<T: FromRedisValue>(&self, value: Value) -> Result<T, StoreError> {
        T::from_redis_value(value).map_err(|err| StoreError::refused(self.without_secret(err.to_string())))
    }

    fn without_secret(&self, text: String) -> String {
        match &self.secret {
            Some(secret) => text.replace(secret, "(password)"),
            None => text,
        }
    }
}

/// A connection whose server may tell so much before it is asked again, and no more.
struct Bounded {
    stream: TcpStream,
    told: usize,
    overran: Arc<AtomicBool>,
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.told > LONGEST_REPLY {
            self.overran.store(true, Ordering::Release);
            return Poll::Ready(Err(io::Error::other("too long")));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.told += buffer.filled().len() - before;
        read
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.told = 0;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Whether `store.tls_ca_file` can be used with `store.url`, or what is wrong with it in words. Nobody is asked.
pub fn check_authorities(config: &StoreConfig) -> Result<(), String> {
    match (&config.tls_ca_file, &config.url) {
        (Some(path), StoreUrl::Redis(_)) if config.url.is_encrypted() => {
            let info = connection_info(config).map_err(|error| error.to_string())?;
            trusting(info, path).map(drop)
        }
        (Some(_), StoreUrl::Redis(_)) => Err("store.url is redis://, which is not encrypted".to_owned()),
        _ => Ok(()),
    }
}

fn client(config: &StoreConfig) -> Result<Client, StoreError> {
    let info = connection_info(config)?;
    let Some(path) = &config.tls_ca_file else {
        return Client::open(info).map_err(|err| unusable(&err));
    };
    if !config.url.is_encrypted() {
        return Err(StoreError::refused("store.tls_ca_file is for rediss:// only"));
    }
    trusting(info, path).map_err(|why| StoreError::refused(format!("{}: {why}", path.display())))
}

fn connection_info(config: &StoreConfig) -> Result<ConnectionInfo, StoreError> {
    let info = config.url.reveal().into_connection_info().map_err(|err| unusable(&err))?;
    Ok(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

/// A client that trusts the authorities of a file, or what is wrong with the file.
fn trusting(info: ConnectionInfo, authorities: &Path) -> Result<Client, String> {
    let pem = std::fs::read(authorities).map_err(|err| format!("cannot be read ({err})"))?;
    if !pem.windows(27).any(|window| window == b"-----BEGIN CERTIFICATE-----") {
        return Err("holds no certificate in PEM".to_owned());
    }
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
    Client::build_with_tls(info, certificates).map_err(|err| {
        format!("holds no certificate that can be used ({})", err.detail().unwrap_or("damaged"))
    })
}

/// A URL that cannot be used. Only the kind of the fault is told: its detail may hold the password.
fn unusable(err: &RedisError) -> StoreError {
    let text = err.to_string();
    let what = text.split(" - ").next().unwrap_or_default();
    StoreError::refused(format!("store.url cannot be used: {what}"))
}

/// Whether the server says that it is not, or no longer, the one to ask.
fn is_elsewhere(reply: &RedisResult<Value>) -> bool {
    let codes = ["READONLY", "MASTERDOWN", "CLUSTERDOWN"];
    reply.as_ref().is_err_and(|err| err.code().is_some_and(|code| codes.contains(&code)))
}

fn endless(scan: &str) -> StoreError {
    StoreError::refused(format!("{scan} finds no end"))
}

/// Decides whether a fault may pass.
fn fault(err: &RedisError, clean: impl FnOnce(String) -> String) -> StoreError {
    // What a server says of itself for a while; NOREPLICAS is min-replicas-to-write.
    const PASSING: [&str; 9] = [
        "LOADING",
        "BUSY",
        "READONLY",
        "MISCONF",
        "OOM",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "MASTERDOWN",
        "NOREPLICAS",
    ];
    let text = match (err.code(), err.detail()) {
        (Some(code), detail) => format!("{code} {}", detail.unwrap_or_default()),
        (None, _) => err.to_string(),
    };
    if err.code() == Some("DETACHED") {
        return StoreError::Detached;
    }
    let passing = match (err.kind(), err.code()) {
        (ErrorKind::Io | ErrorKind::Parse, _) => true,
        (_, Some("ERR")) => text.contains("max number of clients"),
        (_, code) => code.is_some_and(|code| PASSING.contains(&code)),
    };
    let text = clean(text);
    if passing { StoreError::unreachable(text) } else { StoreError::refused(text) }
}
