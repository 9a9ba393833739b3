//! One reader of live counters.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::hub::Hub;
use super::topic::{Seat, Snapshot, Topic};
use crate::ingest::Page;
use crate::serve::answer::events::{EventSource, Piece};
use crate::sites::Site;

/// One reader's events. They end when the service stops, or when the site is not registered any more.
pub struct Reader {
    hub: Arc<Hub>,
    topic: Arc<Topic>,
    seat: Seat,
    /// What is sent before anything new.
    next: Option<Piece>,
    ended: bool,
}

impl Reader {
    /// A new reader of a site and page whose counters are these; none where there are too many readers. One
    /// that comes back names the event that it holds, which is not sent again.
    pub fn join(
        hub: &Arc<Hub>,
        site: &Arc<Site>,
        page: Option<Page>,
        snapshot: &Snapshot,
        held: Option<&str>,
    ) -> Option<Reader> {
        let (topic, (seat, event), retry_ms) = hub.join(site, page, snapshot, held)?;
        let next = Some(Piece::of(&[retry(retry_ms).as_bytes(), &event]));
        Some(Reader { hub: hub.clone(), topic, seat, next, ended: false })
    }
}

impl EventSource for Reader {
    fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Option<Piece>> {
        if self.next.is_some() || self.ended {
            return Poll::Ready(self.next.take());
        }
        let (hub, seat) = (&self.hub, self.seat.number);
        let news = ready!(self.topic.poll_news(&mut self.seat, cx, |ended| hub.retry_after_end(seat, ended)));
        Poll::Ready(Some(news.unwrap_or_else(|retry_ms| {
            self.ended = true;
            self.next = Some(Piece::END);
            Piece::of(&[retry(retry_ms).as_bytes()])
        })))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.hub.leave(&self.topic, self.seat.number);
    }
}

fn retry(ms: u64) -> String {
    format!("retry: {ms}\n\n")
}
