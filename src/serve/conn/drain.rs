//! A stop that takes nothing from anybody: what has been said is answered, and that it is the last answer.
//!
//! A server that closes a connection cannot know what is on its way to it. A connection on which nothing has
//! been answered yet was opened to say something: it is waited for. One that has been answered before is only
//! idle, and who uses one again must be ready to find it closed: it is closed after a short while in which
//! nothing came. Whatever comes meanwhile is answered with `Connection: close`.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::Service;
use tokio::sync::Notify;

use crate::serve::answer::Response;

/// How long the first request of a connection is waited for.
const FIRST: Duration = Duration::from_secs(1);

/// How long a further request is waited for: a proxy that is busy sends one on each connection.
const FURTHER: Duration = Duration::from_millis(100);

/// Tells open connections to end.
pub struct Drain {
    begun: AtomicBool,
    told: Notify,
    /// How long the first request of a connection is waited for.
    first: Duration,
}

/// What the answers of one connection and its end know of each other.
pub struct Course {
    drain: Arc<Drain>,
    answered: AtomicBool,
}

impl Drain {
    /// One that may take so long as a whole.
    pub fn within(limit: Duration) -> Self {
        Drain { begun: AtomicBool::default(), told: Notify::default(), first: FIRST.min(limit / 2) }
    }

    /// From now on each answer is the last of its connection.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.told.notify_waiters();
    }
}

impl Course {
    pub fn new(drain: Arc<Drain>) -> Self {
        Course { drain, answered: AtomicBool::default() }
    }

    /// Notes an answer, and marks it where it is the last.
    pub fn note(&self, answer: &mut Response) {
        self.answered.store(true, Ordering::Relaxed);
        if self.drain.begun.load(Ordering::Acquire) {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Runs a connection to its end.
///
/// # Errors
/// What ended it otherwise.
pub async fn run<I, S, E>(course: impl AsRef<Course>, connection: http1::Connection<I, S>) -> Result<(), E>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: Service<Request<Incoming>, Response = Response>,
    S::Error: std::error::Error + Send + Sync + 'static,
    E: From<hyper::Error>,
{
    let course = course.as_ref();
    let drain = &course.drain;
    let mut connection = pin!(connection);
    let mut told = pin!(drain.told.notified());
    // To be told means to be woken, and a task's waker stays good: it is left there once, and not
    // anew whenever a request comes in.
    poll_fn(|context| Poll::Ready(told.as_mut().poll(context).is_ready())).await;
    let ended = poll_fn(|context| match drain.begun.load(Ordering::Acquire) {
        true => Poll::Ready(None),
        false => connection.as_mut().poll(context).map(Some),
    });
    if let Some(ended) = ended.await {
        return Ok(ended?);
    }
    let patience = match course.answered.load(Ordering::Relaxed) {
        true => FURTHER.min(drain.first),
        false => drain.first,
    };
    if let Ok(ended) = tokio::time::timeout(patience, connection.as_mut()).await {
        return Ok(ended?);
    }
    connection.as_mut().graceful_shutdown();
    Ok(connection.await?)
}
