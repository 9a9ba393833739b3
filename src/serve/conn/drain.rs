//! A stop that loses no request: what arrives until the end is answered, with `Connection: close`.
//!
//! A server that closes a connection cannot know whether a request is on its way. A connection without an
//! answer yet was opened to send one: it is waited for. A connection that was answered before is only idle,
//! and a client that uses it again must expect to find it closed: it is closed after a short wait.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::sync::Notify;

/// How long the first request of a connection is waited for.
const FIRST: Duration = Duration::from_secs(1);

/// How long a further request is waited for: a busy proxy sends one on each connection.
const FURTHER: Duration = Duration::from_millis(100);

/// Tells open connections to end.
pub struct Drain {
    begun: AtomicBool,
    told: Notify,
    /// How long the first request of a connection is waited for.
    first: Duration,
}

/// What is known of a connection when it is to end.
pub struct ConnectionState {
    drain: Arc<Drain>,
    answered: AtomicBool,
}

impl Drain {
    /// A drain that may take so long as a whole.
    pub fn within(limit: Duration) -> Self {
        Drain { begun: AtomicBool::default(), told: Notify::default(), first: FIRST.min(limit / 2) }
    }

    /// From now on each answer is the last of its connection.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.told.notify_waiters();
    }
}

impl ConnectionState {
    pub fn new(drain: Arc<Drain>) -> Self {
        ConnectionState { drain, answered: AtomicBool::default() }
    }

    /// Notes an answer, and marks it where it is the last.
    pub fn note<B>(&self, answer: &mut Response<B>) {
        self.answered.store(true, Ordering::Relaxed);
        if self.drain.begun.load(Ordering::Acquire) {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Runs a connection to its end, or to what broke it.
pub async fn run<I, S, E>(
    state: impl AsRef<ConnectionState>,
    connection: http1::Connection<I, S>,
) -> Result<(), E>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>>,
    S::Error: std::error::Error + Send + Sync + 'static,
    E: From<hyper::Error>,
{
    let state = state.as_ref();
    let drain = &state.drain;
    let mut connection = pin!(connection);
    let mut told = pin!(drain.told.notified());
    // The task's waker is left with `told` once; it stays good, so that no request has to do it again.
    poll_fn(|context| Poll::Ready(told.as_mut().poll(context).is_ready())).await;
    let ended = poll_fn(|context| match drain.begun.load(Ordering::Acquire) {
        true => Poll::Ready(None),
        false => connection.as_mut().poll(context).map(Some),
    });
    if let Some(ended) = ended.await {
        return Ok(ended?);
    }
    let patience = match state.answered.load(Ordering::Relaxed) {
        true => FURTHER.min(drain.first),
        false => drain.first,
    };
    if let Ok(ended) = tokio::time::timeout(patience, connection.as_mut()).await {
        return Ok(ended?);
    }
    connection.as_mut().graceful_shutdown();
    Ok(connection.await?)
}
