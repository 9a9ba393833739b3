//! Taking a connection over from hyper, once its request is answered with a stream of events.
//!
//! hyper keeps buffers and the state of a conversation for each connection, some 20 KiB, and copies each
//! event into them. A reader of events sends nothing more. So the service answers hyper with the error
//! [`TakenOver`], at which hyper gives up without writing a byte and drops the connection's
//! [`TakeoverSocket`]. That gives the socket to an [`EventStream`], which writes the answer's head and then
//! the shared bytes of the events straight to it.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body_util::Full;
use hyper::header::HeaderMap;
use hyper::rt::ReadBufCursor;
use hyper::{StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio_io_timeout::TimeoutStream;

use super::drain::ConnectionState;
use crate::serve::answer::{Body, Response, events::EventSource};

/// A socket whose peer may take nothing for a limited time.
type Socket = Pin<Box<TimeoutStream<TcpStream>>>;

/// The request is answered, but not by hyper.
#[derive(Debug, thiserror::Error)]
#[error("the connection goes on as a stream of events")]
pub struct TakenOver;

/// An answer that a connection is to go on with.
struct Events {
    head: Bytes,
    source: Box<dyn EventSource>,
    /// Not for HTTP/1.0, whose answers end with the connection.
    chunked: bool,
}

/// What the service of a connection shares with its socket: the answer that hyper does not send.
#[derive(Clone)]
pub struct Takeover(Arc<Shared>);

struct Shared {
    state: ConnectionState,
    events: Mutex<Option<Events>>,
}

impl AsRef<ConnectionState> for Takeover {
    fn as_ref(&self) -> &ConnectionState {
        &self.0.state
    }
}

impl Takeover {
    pub fn new(state: ConnectionState) -> Self {
        Takeover(Arc::new(Shared { state, events: Mutex::default() }))
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
                let mut answer = hyper::Response::from_parts(parts, body);
                self.0.state.note(&mut answer);
                Ok(answer)
            }
            Body::Events(source) => {
                let chunked = version != Version::HTTP_10;
                let head = head(parts.status, &parts.headers, chunked);
                *self.events() = Some(Events { head, source, chunked });
                Err(TakenOver)
            }
        }
    }

    fn events(&self) -> MutexGuard<'_, Option<Events>> {
        self.0.events.lock().unwrap_or_else(PoisonError::into_inner)
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

/// The socket as hyper uses it. When hyper drops it and there are events to send, it goes on as a stream.
pub struct TakeoverSocket {
    /// None only while it is dropped.
    socket: Option<TokioIo<Socket>>,
    takeover: Takeover,
    streams: UnboundedSender<EventStream>,
}

impl TakeoverSocket {
    pub fn new(socket: Socket, takeover: Takeover, streams: UnboundedSender<EventStream>) -> Self {
        TakeoverSocket { socket: Some(TokioIo::new(socket)), takeover, streams }
    }

    fn socket(&mut self) -> io::Result<Pin<&mut TokioIo<Socket>>> {
        self.socket.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for TakeoverSocket {
    fn drop(&mut self) {
        let events = self.takeover.events().take();
        if let (Some(events), Some(socket)) = (events, self.socket.take()) {
            let Events { head, source, chunked } = events;
            let stream = EventStream { socket: socket.into_inner(), source, unsent: head, chunked };
            // It fails only once the service has stopped.
            let _ = self.streams.send(stream);
        }
    }
}

impl hyper::rt::Read for TakeoverSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.socket()?.poll_read(cx, into)
    }
}

impl hyper::rt::Write for TakeoverSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.socket()?.poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_shutdown(cx)
    }
}

/// A socket that events are written to until there are no more, or nobody reads them.
pub struct EventStream {
    socket: Socket,
    source: Box<dyn EventSource>,
    /// What is still to be written of the last piece.
    unsent: Bytes,
    chunked: bool,
}

impl EventStream {
    /// Writes events until there are no more, or the reader has taken nothing for too long.
    pub async fn run(mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_gone(cx)? {
            return Poll::Ready(Ok(()));
        }
        loop {
            while !self.unsent.is_empty() {
                let written = ready!(self.socket.as_mut().poll_write(cx, &self.unsent))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.unsent.advance(written);
            }
            match ready!(self.source.poll_next(cx)) {
                Some(piece) => self.unsent = if self.chunked { piece.chunk() } else { piece.text() },
                None => return self.socket.as_mut().poll_shutdown(cx),
            }
        }
    }

    /// Whether the peer has closed. What it sends is read and ignored.
    fn is_gone(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut space = [0; 256];
        loop {
            let mut read = ReadBuf::new(&mut space);
            match self.socket.as_mut().poll_read(cx, &mut read) {
                Poll::Pending => return Ok(false),
                Poll::Ready(result) => result?,
            }
            if read.filled().is_empty() {
                return Ok(true);
            }
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
