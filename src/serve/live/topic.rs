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
    /// Nothing follows: the site is not registered any more, or the service stops.
    ended: bool,
    /// The newest event, as it is sent.
    event: Piece,
    id: String,
    /// The turn of the newest event.
    event_turn: u64,
    /// Moves with every event and every heartbeat.
    turn: u64,
    /// When it last moved.
    moved: Instant,
    /// Whether it has moved since the waiting readers were last woken.
    has_news: bool,
    /// By seat: who waits for the next turn.
    waiting: Vec<Option<Waker>>,
    free: Vec<u32>,
}

/// A reader's place at a topic, and the turn that it has been sent.
pub struct Seat {
    pub number: u32,
    turn: u64,
}

impl Topic {
    pub fn new(site: Arc<Site>, page: Option<Page>) -> Self {
        let state = State {
            ended: false,
            event: Piece::HEARTBEAT,
            id: String::new(),
            event_turn: 0,
            turn: 0,
            moved: Instant::now(),
            has_news: false,
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
            state.move_on();
            state.event_turn = state.turn;
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
        std::mem::take(&mut state.has_news)
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
        (Seat { number, turn: state.turn }, first)
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

    /// What is new to a reader, an event or a heartbeat; none at the end of its events.
    pub fn poll_news(&self, seat: &mut Seat, cx: &Context<'_>) -> Poll<Option<Piece>> {
        let mut state = self.state();
        if state.ended {
            return Poll::Ready(None);
        }
        if seat.turn != state.turn {
            let is_event = std::mem::replace(&mut seat.turn, state.turn) < state.event_turn;
            return Poll::Ready(Some(if is_event { state.event.clone() } else { Piece::HEARTBEAT }));
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
        self.has_news = true;
    }
}
