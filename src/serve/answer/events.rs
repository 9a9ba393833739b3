//! Server-sent events, in pieces that many readers share.

use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};

/// Where the pieces of a body of events come from.
pub trait EventSource: Send {
    /// The next piece to send; none at the end.
    fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Option<Piece>>;
}

/// Some of a body as a chunk (RFC 9112, 7.1), made once and shared by all who are sent it.
#[derive(Clone)]
pub struct Piece {
    chunk: Bytes,
    /// Where the text begins in it; two bytes follow the text.
    text_at: usize,
}

impl Piece {
    /// A comment, which readers ignore: it tells the proxies between that the connection is in use.
    pub const HEARTBEAT: Piece = Piece { chunk: Bytes::from_static(b"3\r\n:\n\n\r\n"), text_at: 3 };

    pub const END: Piece = Piece { chunk: Bytes::from_static(b"0\r\n\r\n"), text_at: 3 };

    pub fn of(texts: &[&[u8]]) -> Piece {
        let length: usize = texts.iter().map(|text| text.len()).sum();
        let size = format!("{length:x}\r\n");
        let mut chunk = BytesMut::with_capacity(size.len() + length + 2);
        chunk.put_slice(size.as_bytes());
        texts.iter().for_each(|text| chunk.put_slice(text));
        chunk.put_slice(b"\r\n");
        Piece { chunk: chunk.freeze(), text_at: size.len() }
    }

    /// As it is sent in chunks.
    pub fn chunk(&self) -> Bytes {
        self.chunk.clone()
    }

    /// As it is sent without.
    pub fn text(&self) -> Bytes {
        self.chunk.slice(self.text_at..self.chunk.len() - 2)
    }
}
