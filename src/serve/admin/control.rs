//! The control socket, `data_dir/control.sock`: how commands reach a running service. It is never TCP, and
//! its mode lets in the service's own user alone.
//!
//! `GET /state` for `doctor`. `POST /orders` with the JSON of an [`Order`]: 200 and what was done, or 409 and why not, as text.

use std::convert::Infallible;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::task::JoinSet;

use crate::calendar::Calendar;
use crate::serve::answer::{self, Body, Response};
use crate::serve::conn::head_timer::HeadTimer;
use crate::serve::parts::Parts;
use crate::totals::{Order, Totals};

/// Its name in the data directory.
pub const SOCKET: &str = "control.sock";

/// Most commands at a time; a further one is closed at once.
const MAX_CONNECTIONS: usize = 16;

/// A long import has some hundred thousand rows. Nobody but the service's own user can send one.
const MAX_ORDER: usize = 64 << 20;

/// A connection without a complete head for so long is closed, and an order whose body takes longer is refused.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest path of a socket that the system takes, bytes: `sun_path` without its closing 0.
const MAX_PATH: usize = 107;

/// A bound socket; its file is removed when this is dropped.
pub struct ControlSocket {
    path: PathBuf,
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the control socket stays behind");
        }
    }
}

impl ControlSocket {
    /// Binds the socket of a data directory, whose lock the caller holds: a file that is there already
    /// was left behind by a process that was killed.
    ///
    /// # Errors
    /// Of the file system; some take no sockets.
    pub fn bind(data_dir: &Path) -> io::Result<(ControlSocket, UnixListener)> {
        // It is made in a directory that nobody else may enter, given its mode, and only then moved here.
        let private = data_dir.join("control.new");
        match fs::remove_dir_all(&private) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::DirBuilder::new().mode(0o700).create(&private)?;
        let listener = at(&private, "s", |path| UnixListener::bind(path))?;
        fs::set_permissions(private.join("s"), Permissions::from_mode(0o600))?;
        let path = data_dir.join(SOCKET);
        fs::rename(private.join("s"), &path)?;
        fs::remove_dir(&private)?;
        listener.set_nonblocking(true)?;
        Ok((ControlSocket { path }, listener))
    }
}

/// Calls `with` the path of a socket in a directory. One too long for the system is named through a
/// descriptor of the directory.
///
/// # Errors
/// Of the file system, and what `with` says.
pub fn at<T>(dir: &Path, name: &str, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = dir.join(name);
    if path.as_os_str().len() <= MAX_PATH {
        return with(&path);
    }
    let dir = File::open(dir)?;
    with(&Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name))
}

/// Takes orders until it is dropped.
///
/// # Errors
/// The listener cannot be watched by this runtime.
pub async fn serve_control(listener: UnixListener, parts: Arc<Parts>) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let mut open = JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a command could not be let in");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        while open.try_join_next().is_some() {}
        if open.len() >= MAX_CONNECTIONS {
            continue;
        }
        let mut http = http1::Builder::new();
        http.timer(HeadTimer::new(REQUEST_TIMEOUT)).header_read_timeout(REQUEST_TIMEOUT);
        let parts = parts.clone();
        let service = service_fn(move |request| {
            let parts = parts.clone();
            async move { Ok::<_, Infallible>(answer(&parts, request).await.map(Body::whole)) }
        });
        open.spawn(http.serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(parts: &Parts, request: Request<Incoming>) -> Response {
    let (status, text) = match (request.uri().path(), request.method()) {
        ("/orders", &Method::POST) => order(&parts.totals, request.into_body()).await,
        ("/state", &Method::GET) => (StatusCode::OK, state(parts)),
        ("/orders", _) => (StatusCode::METHOD_NOT_ALLOWED, "orders are POSTed".to_owned()),
        _ => (StatusCode::NOT_FOUND, "orders go to /orders".to_owned()),
    };
    answer::admin_text(status, text + "\n")
}

/// What `doctor` asks for, as JSON.
fn state(parts: &Parts) -> String {
    let now = parts.clock.now();
    let state = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "now": Calendar::utc().rfc3339(now.unix_ms),
        "settings": **parts.settings.load(),
        "refusals": parts.refusals.of_last_hour(&parts.sites.load(), now),
        "concerns": parts.crowds.concerns(),
        "ignored_headers": parts.metrics.client_header_ignored.get(),
        "proxies": parts.proxies.named(true),
        "ignored_proxies": parts.proxies.named(false),
        "instances": parts.totals.instances(),
    });
    state.to_string()
}

async fn order(totals: &Totals, body: Incoming) -> (StatusCode, String) {
    let body = Limited::new(body, MAX_ORDER).collect();
    let body = match tokio::time::timeout(REQUEST_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return (StatusCode::BAD_REQUEST, error.to_string()),
        Err(late) => return (StatusCode::REQUEST_TIMEOUT, late.to_string()),
    };
    match serde_json::from_slice::<Order>(&body) {
        Err(error) => (StatusCode::BAD_REQUEST, format!("not an order: {error}")),
        Ok(order) => match totals.order(order).await {
            Ok(done) => (StatusCode::OK, done.to_string()),
            Err(why) => (StatusCode::CONFLICT, why.to_string()),
        },
    }
}
