//! Bodies of beacons, bounded in size and time.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Body, Incoming};
use hyper::header::EXPECT;

use crate::ingest::{MAX_BODY, Reason};

/// Bytes of a body too large that are read and thrown away: closing on unread bytes resets the
/// connection, and the reset can overtake the answer.
const DISCARDED: usize = 64 * 1024;

/// Reads a beacon's body. Nearly always it came with the head: then no timer is made and nothing is copied.
///
/// # Errors
/// `too-large`, `timeout`, or `malformed` where the body breaks off.
pub async fn read(mut body: Incoming, headers: &HeaderMap, within: Duration) -> Result<Bytes, Reason> {
    if body.size_hint().lower() > MAX_BODY as u64 {
        // A client that waits for `100 Continue` has sent nothing yet; reading would have hyper send that.
        if !headers.contains_key(EXPECT) {
            let _ = tokio::time::timeout(within, discard(&mut body)).await;
        }
        return Err(Reason::TooLarge);
    }
    let arrived = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx))).await;
    let first = match arrived {
        Poll::Ready(None) => return Ok(Bytes::new()),
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        Poll::Ready(Some(Err(_))) => return Err(Reason::Malformed),
        Poll::Pending => Bytes::new(),
    };
    if body.is_end_stream() && first.len() <= MAX_BODY {
        return Ok(first);
    }
    tokio::time::timeout(within, read_on(first, body)).await.unwrap_or(Err(Reason::Timeout))
}

async fn read_on(first: Bytes, mut body: Incoming) -> Result<Bytes, Reason> {
    let mut whole = BytesMut::from(first);
    loop {
        if whole.len() > MAX_BODY {
            discard(&mut body).await;
            return Err(Reason::TooLarge);
        }
        match body.frame().await {
            None => return Ok(whole.freeze()),
            Some(Ok(frame)) => whole.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Some(Err(_)) => return Err(Reason::Malformed),
        }
    }
}

async fn discard(body: &mut Incoming) {
    let mut discarded = 0;
    while discarded < DISCARDED {
        match body.frame().await {
            Some(Ok(frame)) => discarded += frame.data_ref().map_or(0, Bytes::len),
            _ => return,
        }
    }
}
