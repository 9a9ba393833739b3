//! Taking a connection over from hyper, once its request is answered with a stream of events.
//!
//! hyper keeps buffers and the state of a conversation for each connection, some 20 KiB, and copies each
//! event into them. A reader of events sends nothing more. So the service answers hyper with the error
//! [`TakenOver`], at which hyper gives up without writing a byte. Its socket goes on as an [`EventStream`],
//! which writes the answer's head and then the shared bytes of the events straight to it.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutStream;

use super::drain::{Drain, FIRST};
use crate::ingest::Reason;
use crate::serve::answer::{
    self, Body, Response,
    events::{EventSource, Piece},
};

/// A socket whose peer may take nothing for a limited time.
pub type Socket = Pin<Box<TimeoutStream<TcpStream>>>;

/// The request is answered, but not by hyper.
#[derive(Debug, thiserror::Error)]
#[error("the connection goes on as a stream of events")]
pub struct TakenOver;

/// A connection as its service sees it, with the answer that hyper does not send.
pub struct Takeover {
    drain: Arc<Drain>,
    answered: AtomicBool,
    events: Mutex<Option<EventStream>>,
}

impl Takeover {
    pub fn new(drain: Arc<Drain>) -> Self {
        Takeover { drain, answered: AtomicBool::default(), events: Mutex::default() }
    }

    /// Passes an answer on to hyper; a stream of events is kept instead, and hyper is told to give up.
    pub fn pass(
        &self,
        answer: Response,
        version: Version,
    ) -> Result<hyper::Response<Full<Bytes>>, TakenOver> {
        let (parts, body) = answer.into_parts();
        match body {
            Body::Whole(body) => {
                let mut answer = hyper::Response::from_parts(parts, Full::new(body));
                self.answered.store(true, Ordering::Relaxed);
                self.drain.mark(&mut answer);
                Ok(answer)
            }
            Body::Events(source) => {
                let chunked = version != Version::HTTP_10;
                let unsent = head(parts.status, &parts.headers, chunked);
                *self.events() = Some(EventStream { unsent, source, chunked });
                Err(TakenOver)
            }
        }
    }

    /// Runs a connection until it ends or goes on as a stream of events.
    pub async fn run<S>(
        &self,
        mut connection: http1::Connection<TokioIo<Socket>, S>,
    ) -> hyper::Result<Option<(EventStream, Socket)>>
    where
        S: Service<Request<Incoming>, Response = hyper::Response<Full<Bytes>>, Error = TakenOver>,
    {
        let ended = self.drain.run(&mut connection, &self.answered).await;
        match self.events().take() {
            Some(events) => Ok(Some((events, connection.into_parts().io.into_inner()))),
            None => ended.map(|()| None),
        }
    }

    fn events(&self) -> MutexGuard<'_, Option<EventStream>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The head of the answer, after which the connection ends.
fn head(status: StatusCode, headers: &HeaderMap, chunked: bool) -> Bytes {
    let mut head = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in headers {
        // All of them are our own text, which is ASCII.
        let _ = write!(head, "{name}: {}\r\n", value.to_str().unwrap_or_default());
    }
    head += if chunked { "transfer-encoding: chunked\r\n" } else { "" };
    head += "connection: close\r\n\r\n";
    head.into()
}

/// Events that are written to a socket until there are no more, or nobody reads them.
pub struct EventStream {
    /// What is still to be written of the head or the last piece.
    unsent: Bytes,
    source: Box<dyn EventSource>,
    /// Not for HTTP/1.0, whose answers end with the connection.
    chunked: bool,
}

impl EventStream {
    /// Writes events until there are no more, or the reader has taken nothing for too long.
    pub async fn send(mut self, mut socket: Socket) -> io::Result<()> {
        poll_fn(|cx| self.poll(&mut socket, cx)).await
    }

    fn poll(&mut self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if is_gone(socket, cx)? {
            return Poll::Ready(Ok(()));
        }
        loop {
            while !self.unsent.is_empty() {
                let written = ready!(socket.as_mut().poll_write(cx, &self.unsent))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.unsent.advance(written);
            }
            match ready!(self.source.poll_next(cx)) {
                Some(piece) => self.unsent = if self.chunked { piece.chunk() } else { piece.text() },
                None => return socket.as_mut().poll_shutdown(cx),
            }
        }
    }
}

/// Answers whatever is asked with a refusal, without hyper.
pub async fn refuse(socket: Socket, reason: Reason) -> io::Result<()> {
    // A connection that is closed before its request is read is reset, and the answer with it.
    let _ = tokio::time::timeout(FIRST, socket.get_ref().readable()).await;
    let (mut parts, body) = answer::refused(reason.into()).into_parts();
    let Body::Whole(body) = body else { return Ok(()) };
    parts.headers.insert(CONTENT_LENGTH, body.len().into());
    let unsent = [head(parts.status, &parts.headers, false), body].concat().into();
    EventStream { unsent, source: Box::new(Nothing), chunked: false }.send(socket).await
}

/// No events.
struct Nothing;

impl EventSource for Nothing {
    fn poll_next(&mut self, _: &Context<'_>) -> Poll<Option<Piece>> {
        Poll::Ready(None)
    }
}

/// Whether the peer has closed. What it sends is read and ignored.
fn is_gone(socket: &mut Socket, cx: &mut Context<'_>) -> io::Result<bool> {
    let mut space = [0; 256];
    loop {
        let mut read = ReadBuf::new(&mut space);
        match socket.as_mut().poll_read(cx, &mut read) {
            Poll::Pending => return Ok(false),
            Poll::Ready(result) => result?,
        }
        if read.filled().is_empty() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_of_its_version() {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "text/event-stream".parse().unwrap());
        let text = |chunked| String::from_utf8(head(StatusCode::OK, &headers, chunked).to_vec()).unwrap();
        assert_eq!(
            text(true),
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\
             connection: close\r\n\r\n"
        );
        assert!(!text(false).contains("chunked"));
    }
}
