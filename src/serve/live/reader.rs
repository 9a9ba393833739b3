//! One reader of live counters.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::hub::Hub;
use super::topic::{News, Seat, Snapshot, Topic};
use crate::ingest::Page;
use crate::serve::answer::events::{EventSource, Piece};
use crate::sites::Site;

/// One reader's events. They end when the service stops, or when the site is not registered any more.
pub struct Reader {
    hub: Arc<Hub>,
    topic: Arc<Topic>,
    seat: Seat,
    next: Next,
}

/// What a reader is sent next.
enum Next {
    /// What it begins with.
    First(Piece),
    /// What is new.
    News,
    /// The end: it has been told when to come back.
    End,
    /// Nothing.
    Ended,
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
        let next = Next::First(Piece::of(&[retry(retry_ms).as_bytes(), &event]));
        Some(Reader { hub: hub.clone(), topic, seat, next })
    }
}

impl EventSource for Reader {
    fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Option<Piece>> {
        match std::mem::replace(&mut self.next, Next::News) {
            Next::First(piece) => return Poll::Ready(Some(piece)),
            Next::News => {}
            next @ (Next::End | Next::Ended) => {
                self.next = Next::Ended;
                return Poll::Ready(matches!(next, Next::End).then_some(Piece::END));
            }
        }
        let (hub, seat) = (&self.hub, self.seat.number);
        match self.topic.news(&mut self.seat, cx, |ended| hub.retry_after_end(seat, ended)) {
            News::None => Poll::Pending,
            News::Piece(piece) => Poll::Ready(Some(piece)),
            News::End(retry_ms) => {
                self.next = Next::End;
                Poll::Ready(Some(Piece::of(&[retry(retry_ms).as_bytes()])))
            }
        }
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
