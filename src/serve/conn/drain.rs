//! A stop that loses no request: what arrives until the end is answered, with `Connection: close`.
//!
//! A server that closes a connection cannot know whether a request is on its way. A connection without an
//! answer yet was opened to send one: it is waited for. A connection that was answered before is only idle,
//! and a client that uses it again must expect to find it closed: it is closed after a short wait.

use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::sync::Notify;

use crate::clock::Clock;

/// How long the first request of a connection is waited for.
pub const FIRST: Duration = Duration::from_secs(1);

/// How long a further request is waited for: a busy proxy sends one on each connection.
const FURTHER: Duration = Duration::from_millis(100);

/// Tells open connections to end.
pub struct Drain {
    begun: AtomicBool,
    told: Notify,
    clock: Clock,
    /// How long the first request of a connection is waited for.
    first: Duration,
}

impl Drain {
    /// A drain that may take so long as a whole.
    pub fn within(limit: Duration, clock: Clock) -> Self {
        Drain { begun: AtomicBool::default(), told: Notify::default(), clock, first: FIRST.min(limit / 2) }
    }

    /// From now on each answer is the last of its connection.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    /// Marks an answer where it is the last.
    pub fn mark<B>(&self, answer: &mut Response<B>) {
        if self.begun.load(Ordering::Acquire) {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// Runs a connection to its end; its service says whether any of its requests was `answered`.
    pub async fn run<I, S>(
        &self,
        connection: &mut http1::Connection<I, S>,
        answered: &AtomicBool,
    ) -> hyper::Result<()>
    where
        I: Read + Write + Unpin,
        S: Service<Request<Incoming>, Response = Response<Full<Bytes>>>,
        S::Error: Error + Send + Sync + 'static,
    {
        let mut connection = Pin::new(connection);
        let mut told = pin!(self.told.notified());
        // The task's waker is left with `told` once; it stays good, so that no request has to do it again.
        poll_fn(|context| Poll::Ready(told.as_mut().poll(context).is_ready())).await;
        let ended = poll_fn(|context| match self.begun.load(Ordering::Acquire) {
            true => Poll::Ready(None),
            // hyper cannot date an answer, and panics.
            false if self.clock.is_beyond() => Poll::Ready(Some(Ok(()))),
            false => connection.as_mut().poll(context).map(Some),
        });
        if let Some(ended) = ended.await {
            return ended;
        }
        let patience = match answered.load(Ordering::Relaxed) {
            true => FURTHER.min(self.first),
            false => self.first,
        };
        if let Ok(ended) = tokio::time::timeout(patience, connection.as_mut()).await {
            return ended;
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }
}
