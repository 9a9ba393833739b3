//! Bodies of beacons, bounded in size and time.

use std::future::poll_fn;
use std::pin::pin;
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
    let mut reading = pin!(read_whole(body));
    match poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await {
        Poll::Ready(read) => read,
        Poll::Pending => tokio::time::timeout(within, reading).await.unwrap_or(Err(Reason::Timeout)),
    }
}

async fn read_whole(mut body: Incoming) -> Result<Bytes, Reason> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let data = frame.map_err(|_| Reason::Malformed)?.into_data().unwrap_or_default();
        if whole.is_empty() && body.is_end_stream() && data.len() <= MAX_BODY {
            return Ok(data);
        }
        whole.extend_from_slice(&data);
        if whole.len() > MAX_BODY {
            discard(&mut body).await;
            return Err(Reason::TooLarge);
        }
    }
    Ok(whole.freeze())
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
