//! What the readers of one site and page share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::ingest::Page;
use crate::serve::answer::events::Piece;
use crate::sites::{Site, SiteId};

/// A site, and the key of a page of it.
pub type TopicKey = (SiteId, Option<u64>);

pub struct Snapshot {
    /// The entity tag of the body, without its quotes.
    pub id: String,
    /// The body of `counters`: one line, since JSON has no bare line ends.
    pub body: Bytes,
}

/// The counters of a site, with those of a page or without, and who follows them.
pub struct Topic {
    pub site: Arc<Site>,
    pub page: Option<Page>,
    state: Mutex<State>,
}

struct State {
    /// The site is not registered any more.
    ended: bool,
    /// The newest event, as it is sent.
    event: Piece,
    id: String,
    /// Moves with every event.
    events: u64,
    /// Moves with every event and every heartbeat.
    turn: u64,
    /// The turn that the waiting readers were last woken for.
    told: u64,
    /// When it last moved.
    moved: Instant,
    /// By seat: who waits for the next turn.
    waiting: Vec<Option<Waker>>,
    free: Vec<u32>,
}

/// A reader's place at a topic, and what it has been sent.
pub struct Seat {
    pub number: u32,
    events: u64,
    turn: u64,
}

impl Topic {
    pub fn new(site: Arc<Site>, page: Option<Page>) -> Self {
        let state = State {
            ended: false,
            event: Piece::HEARTBEAT,
            id: String::new(),
            events: 0,
            turn: 0,
            told: 0,
            moved: Instant::now(),
            waiting: Vec::new(),
            free: Vec::new(),
        };
        Topic { site, page, state: Mutex::new(state) }
    }

    pub fn key(&self) -> TopicKey {
        (self.site.id, self.page.as_ref().map(Page::key))
    }

    /// Takes the counters as they are now. Waiting readers are woken at the next look.
    pub fn set(&self, Snapshot { id, body }: &Snapshot) {
        let mut state = self.state();
        if state.id != *id {
            state.event = Piece::of(&[b"id: ", id.as_bytes(), b"\nevent: counters\ndata: ", body, b"\n\n"]);
            state.id.clone_from(id);
            state.events += 1;
            state.move_on();
        }
    }

    /// Ends the events of its readers, once they are woken.
    pub fn end(&self) {
        self.state().ended = true;
    }

    /// Makes a heartbeat due where nothing has moved for so long. Whether the waiting readers are to be woken.
    pub fn has_news(&self, heartbeat: Duration) -> bool {
        let mut state = self.state();
        if state.moved.elapsed() >= heartbeat {
            state.move_on();
        }
        let turn = state.turn;
        std::mem::replace(&mut state.told, turn) != turn
    }

    /// Takes the wakers of up to `most` waiting readers, from a seat on. The seat to go on from; none at the
    /// end.
    pub fn take_wakers(&self, from: usize, most: usize, woken: &mut Vec<Waker>) -> Option<usize> {
        let mut state = self.state();
        for (seat, waiting) in state.waiting.iter_mut().enumerate().skip(from) {
            if woken.len() == most {
                return Some(seat);
            }
            woken.extend(waiting.take());
        }
        None
    }

    /// A seat for a new reader, who is sent the newest event first unless it names that as `held`.
    pub fn join(&self, held: Option<&str>) -> (Seat, Bytes) {
        let mut state = self.state();
        let first = if held == Some(state.id.as_str()) { Bytes::new() } else { state.event.text() };
        let number = state.free.pop().unwrap_or_else(|| {
            state.waiting.push(None);
            (state.waiting.len() - 1) as u32
        });
        (Seat { number, events: state.events, turn: state.turn }, first)
    }

    /// Frees a reader's seat; whether it was the last reader.
    pub fn leave(&self, seat: u32) -> bool {
        let mut state = self.state();
        if let Some(waiting) = state.waiting.get_mut(seat as usize) {
            *waiting = None;
            state.free.push(seat);
        }
        state.free.len() == state.waiting.len()
    }

    /// What is new to a reader: an event, a heartbeat, or the end of its events and after how many milliseconds
    /// it is to come back. `retry_ms` decides on the end, knowing whether the topic has ended; it is asked under
    /// the lock, so that no reader starts to wait after the last wake.
    pub fn poll_news(
        &self,
        seat: &mut Seat,
        cx: &Context<'_>,
        retry_ms: impl FnOnce(bool) -> Option<u64>,
    ) -> Poll<Result<Piece, u64>> {
        let mut state = self.state();
        if let Some(retry_ms) = retry_ms(state.ended) {
            return Poll::Ready(Err(retry_ms));
        }
        if seat.turn != state.turn {
            seat.turn = state.turn;
            let is_event = std::mem::replace(&mut seat.events, state.events) != state.events;
            return Poll::Ready(Ok(if is_event { state.event.clone() } else { Piece::HEARTBEAT }));
        }
        match state.waiting.get_mut(seat.number as usize) {
            Some(Some(waker)) if waker.will_wake(cx.waker()) => {}
            Some(waiting) => *waiting = Some(cx.waker().clone()),
            None => {}
        }
        Poll::Pending
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn move_on(&mut self) {
        self.turn += 1;
        self.moved = Instant::now();
    }
}
