//! A reader's connection, once its request is answered.
//!
//! hyper keeps buffers and the state of a conversation for each connection, some 20 KiB, and copies each
//! event into them. A reader says nothing more: so the service answers hyper with [`Left`], which ends its
//! part without a byte written, the connection's [`Wire`] gives up the socket as hyper drops it, and
//! [`Streaming`] writes the answer's head and the shared bytes of the events straight to it.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::header::HeaderMap;
use hyper::rt::ReadBufCursor;
use hyper::{StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio_io_timeout::TimeoutStream;

use crate::serve::answer::{Body, Response};
use crate::serve::conn::drain::Course;
use crate::serve::live::Reader;

/// A socket whose writes may stall for so long and no longer.
type Socket = Pin<Box<TimeoutStream<TcpStream>>>;

/// The request is answered, but not by hyper.
#[derive(Debug, thiserror::Error)]
#[error("the connection goes on as a stream of events")]
pub struct Left;

/// What a connection is to go on with.
struct Begun {
    head: Bytes,
    reader: Box<Reader>,
    /// Not for HTTP/1.0, whose answers end with the connection.
    chunked: bool,
}

/// Where a connection's service leaves its answers: those that hyper sends are noted, and what the connection
/// is to go on with instead is kept.
#[derive(Clone)]
pub struct Handover(Arc<Passed>);

struct Passed {
    course: Course,
    begun: Mutex<Option<Begun>>,
}

impl AsRef<Course> for Handover {
    fn as_ref(&self) -> &Course {
        &self.0.course
    }
}

impl Handover {
    pub fn new(course: Course) -> Self {
        Handover(Arc::new(Passed { course, begun: Mutex::default() }))
    }

    /// Passes an answer on to hyper; keeps one that is a stream of events.
    ///
    /// # Errors
    /// [`Left`], where it is one.
    pub fn pass(&self, mut answer: Response, version: Version) -> Result<Response, Left> {
        if !matches!(answer.body(), Body::Events(_)) {
            self.0.course.note(&mut answer);
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        if let Body::Events(reader) = body {
            let chunked = version != Version::HTTP_10;
            let head = head(parts.status, &parts.headers, chunked);
            *self.0.begun.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Begun { head, reader, chunked });
        }
        Err(Left)
    }

    fn take(&self) -> Option<Begun> {
        self.0.begun.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The head of the answer. The connection is of no use to anyone after it.
fn head(status: StatusCode, headers: &HeaderMap, chunked: bool) -> Bytes {
    let mut head = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in headers {
        // All of them are our own text.
        let _ = write!(head, "{name}: {}\r\n", value.to_str().unwrap_or_default());
    }
    head += if chunked { "transfer-encoding: chunked\r\n" } else { "" };
    head += "connection: close\r\n\r\n";
    head.into()
}

/// The socket as hyper uses it.
pub struct Wire {
    /// Taken when hyper is done with it.
    socket: Option<TokioIo<Socket>>,
    handover: Handover,
    streams: UnboundedSender<Streaming>,
}

impl Wire {
    pub fn new(socket: Socket, handover: Handover, streams: UnboundedSender<Streaming>) -> Wire {
        Wire { socket: Some(TokioIo::new(socket)), handover, streams }
    }

    fn socket(&mut self) -> io::Result<Pin<&mut TokioIo<Socket>>> {
        self.socket.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let (Some(begun), Some(socket)) = (self.handover.take(), self.socket.take()) {
            let Begun { head, reader, chunked } = begun;
            let stream = Streaming { socket: socket.into_inner(), reader, unsent: head, chunked };
            // Where nobody takes it any more, the service has stopped.
            let _ = self.streams.send(stream);
        }
    }
}

impl hyper::rt::Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.socket()?.poll_read(cx, into)
    }
}

impl hyper::rt::Write for Wire {
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
pub struct Streaming {
    socket: Socket,
    reader: Box<Reader>,
    /// What is still to be written of the last piece.
    unsent: Bytes,
    chunked: bool,
}

impl Streaming {
    /// Writes events.
    ///
    /// # Errors
    /// The reader took nothing for too long, or the connection broke.
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
            match ready!(self.reader.poll_next(cx)) {
                Some(piece) => self.unsent = if self.chunked { piece.chunk() } else { piece.text() },
                None => return self.socket.as_mut().poll_shutdown(cx),
            }
        }
    }

    /// Whether the peer has closed. What it says is of no interest.
    fn is_gone(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut space = [0; 256];
        loop {
            let mut said = ReadBuf::new(&mut space);
            match self.socket.as_mut().poll_read(cx, &mut said) {
                Poll::Pending => return Ok(false),
                Poll::Ready(read) => read?,
            }
            if said.filled().is_empty() {
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
