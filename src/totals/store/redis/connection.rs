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
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo, Pipeline, RedisError, RedisResult, Value,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::keys::key;
use crate::sites::SiteKey;
use crate::totals::store::contract::{StoreConfig, StoreError};
use crate::totals::store::dump::{Fields, STEP};
use crate::totals::store::url::StoreUrl;

/// The longest answer to what was asked at once; the longest that is asked for is a few MB. The client library
/// gathers an answer in memory before it is read.
const LONGEST_REPLY: usize = 8 << 20;

/// Most steps of a scan: of a thousand million names, or of as many fields of a hash.
const MOST_STEPS: usize = 1 << 20;

/// Most names that a scan gathers: a site of a hundred years has as many.
const MOST_NAMES: usize = 1 << 20;

/// The connection to the server, which is made anew after a fault.
pub struct Connection {
    server: ConnectionInfo,
    /// What a server that is asked over TLS is checked with.
    tls: Option<TlsConnector>,
    timeout: Duration,
    /// Most steps of a scan.
    pub(super) most_steps: usize,
    /// The password, to keep it out of texts.
    secret: Option<String>,
    slot: Mutex<Slot>,
    made: AtomicU64,
    /// Bytes that the server has told since it was asked last.
    told: Arc<AtomicUsize>,
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
        let server = config.url.reveal().into_connection_info().map_err(|err| unusable(&err))?;
        let tls = tls(config).map_err(StoreError::refused)?;
        Ok(Self::with(server, tls, config.timeout, MOST_STEPS))
    }

    /// Another one to the same server, for work that must not hold up this one.
    pub fn another(&self) -> Self {
        Self::with(self.server.clone(), self.tls.clone(), self.timeout, self.most_steps)
    }

    fn with(server: ConnectionInfo, tls: Option<TlsConnector>, timeout: Duration, most_steps: usize) -> Self {
        let secret = server.redis_settings().password();
        let secret = secret.filter(|secret| !secret.is_empty()).map(str::to_owned);
        let (slot, made, told) = Default::default();
        Connection { server, tls, timeout, most_steps, secret, slot, made, told }
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
        self.told.store(0, Ordering::Relaxed);
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
                    if retried || !err.is_io_error() || self.overran() {
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
        for _ in 0..self.most_steps {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(STEP);
            let (next, keys): (u64, Vec<String>) = self.only(&scan).await?;
            found.extend(keys);
            if next == 0 {
                return Ok(found);
            }
            if found.len() > MOST_NAMES {
                break;
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
        let steps = steps.parse().unwrap_or(self.most_steps) + 1;
        let mut scan = redis::cmd("HSCAN");
        let (next, fields): (u64, _) = self.only(scan.arg(key).arg(cursor).arg("COUNT").arg(STEP)).await?;
        if steps > self.most_steps {
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
        let (host, port, tls) = match (self.server.addr(), &self.tls) {
            (ConnectionAddr::Tcp(host, port), None) => (host, port, None),
            (ConnectionAddr::TcpTls { host, port, .. }, Some(tls)) => (host, port, Some(tls)),
            _ => return Err((ErrorKind::InvalidClientConfig, "not the address of a server").into()),
        };
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        let connection = match tls {
            None => self.speak(stream, &mut slot).await?,
            Some(tls) => {
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                self.speak(tls.connect(name, stream).await?, &mut slot).await?
            }
        };
        slot.number += 1;
        self.made.store(slot.number, Ordering::Release);
        slot.connection = Some(connection.clone());
        Ok((slot.number, connection))
    }

    /// Speaks with the server over a stream, on which it may tell only so much.
    async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        slot: &mut Slot,
    ) -> RedisResult<MultiplexedConnection> {
        // The caller's deadline bounds both.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let stream = Bounded { stream, told: self.told.clone() };
        let settings = self.server.redis_settings();
        let (connection, driver) = MultiplexedConnection::new_with_config(settings, stream, config).await?;
        slot.driver.spawn(driver);
        Ok(connection)
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
        if self.overran() { StoreError::refused("it answers without end") } else { self.fault(err) }
    }

    /// Whether what the server told is longer than anything that is asked for.
    fn overran(&self) -> bool {
        self.told.load(Ordering::Relaxed) > LONGEST_REPLY
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

/// A stream on which the server may tell so much before it is asked again, and no more.
struct Bounded<S> {
    stream: S,
    told: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.told.load(Ordering::Relaxed) > LONGEST_REPLY {
            return Poll::Ready(Err(io::Error::other("too long")));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.told.fetch_add(buffer.filled().len() - before, Ordering::Relaxed);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
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
        (Some(path), StoreUrl::Redis(_)) if config.url.is_encrypted() => authorities(path).map(drop),
        (Some(_), StoreUrl::Redis(_)) => Err("store.url is redis://, which is not encrypted".to_owned()),
        _ => Ok(()),
    }
}

/// What the server is checked with, where it is asked over TLS.
fn tls(config: &StoreConfig) -> Result<Option<TlsConnector>, String> {
    let trusted = match &config.tls_ca_file {
        Some(_) if !config.url.is_encrypted() => {
            return Err("store.tls_ca_file is for rediss:// only".to_owned());
        }
        _ if !config.url.is_encrypted() => return Ok(None),
        Some(path) => authorities(path).map_err(|why| format!("{}: {why}", path.display()))?,
        None => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
    };
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(|err| err.to_string())?;
    Ok(Some(Arc::new(config.with_root_certificates(trusted).with_no_client_auth()).into()))
}

/// The authorities of a file, or what is wrong with the file.
fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let pem = std::fs::read(path).map_err(|err| format!("cannot be read ({err})"))?;
    if !pem.windows(27).any(|window| window == b"-----BEGIN CERTIFICATE-----") {
        return Err("holds no certificate in PEM".to_owned());
    }
    let mut trusted = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let added = certificate.map_err(|err| err.to_string());
        let added = added.and_then(|certificate| trusted.add(certificate).map_err(|err| err.to_string()));
        added.map_err(|why| format!("holds no certificate that can be used ({why})"))?;
    }
    Ok(trusted)
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
