//! What the readers of one site and page share, and one reader.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::Instant;

use super::hub::Key;
use crate::ingest::Page;
use crate::serve::public::context::Public;
use crate::sites::Site;

/// A comment: nothing to those who listen, a sign of life to those between.
const HEARTBEAT: Piece = Piece { chunk: Bytes::from_static(b"3\r\n:\n\n\r\n"), text_at: 3 };

/// The end of an answer in chunks.
const END: Piece = Piece { chunk: Bytes::from_static(b"0\r\n\r\n"), text_at: 3 };

/// Some of a stream as a chunk (RFC 9112, 7.1), made once and shared by all who are sent it.
#[derive(Clone)]
pub struct Piece {
    chunk: Bytes,
    /// Where the text begins in it; two bytes follow the text.
    text_at: usize,
}

impl Piece {
    fn of(texts: &[&[u8]]) -> Piece {
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
    /// The id of the newest event.
    id: String,
    /// Moves with every event.
    events: u64,
    /// Moves with every event and every heartbeat.
    turn: u64,
    /// The turn that those who waited were last woken for.
    told: u64,
    /// When it last moved.
    moved: Instant,
    /// By seat: who waits for the next turn.
    waiting: Vec<Option<Waker>>,
    free: Vec<u32>,
}

impl Topic {
    pub fn new(site: Arc<Site>, page: Option<Page>) -> Self {
        let state = State {
            ended: false,
            event: HEARTBEAT,
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

    pub fn key(&self) -> Key {
        (self.site.id, self.page.as_ref().map(Page::key))
    }

    /// Takes the counters as they are now. Who waits is not woken before the next look.
    pub fn set(&self, (id, body): &(String, Bytes)) {
        let mut state = self.state();
        if state.id != *id {
            state.event = event(id, body);
            state.id.clone_from(id);
            state.events += 1;
            state.turn += 1;
            state.moved = Instant::now();
        }
    }

    /// Ends the events of its readers: they are told once they are woken.
    pub fn end(&self) {
        self.state().ended = true;
    }

    /// Moves on to a heartbeat where nothing has moved for so long. Whether there is something to wake
    /// those for who wait.
    pub fn has_news(&self, heartbeat: Duration) -> bool {
        let mut state = self.state();
        if state.moved.elapsed() >= heartbeat {
            state.turn += 1;
            state.moved = Instant::now();
        }
        let turn = state.turn;
        std::mem::replace(&mut state.told, turn) != turn
    }

    /// Takes up to `most` of those who wait, from a seat on. The seat to go on from; none at the end.
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

    /// A reader gets up; whether it was the last.
    pub fn leave(&self, seat: u32) -> bool {
        let mut state = self.state();
        if let Some(waiting) = state.waiting.get_mut(seat as usize) {
            *waiting = None;
            state.free.push(seat);
        }
        state.free.len() == state.waiting.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn sit(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.waiting.push(None);
            (self.waiting.len() - 1) as u32
        })
    }
}

/// An event. The body is one line: JSON has no bare line ends.
fn event(id: &str, body: &[u8]) -> Piece {
    Piece::of(&[b"id: ", id.as_bytes(), b"\nevent: counters\ndata: ", body, b"\n\n"])
}

fn retry(ms: u64) -> String {
    format!("retry: {ms}\n\n")
}

/// One reader's events: a body that ends when the service stops, or counts the site no more.
pub struct Reader {
    public: Arc<Public>,
    topic: Arc<Topic>,
    seat: u32,
    /// What it was last sent.
    events: u64,
    turn: u64,
    next: Next,
}

/// What comes next to a reader.
enum Next {
    /// What it begins with.
    First(Piece),
    /// What is new.
    News,
    /// The end: it has been told to come back later.
    End,
    /// Nothing.
    Ended,
}

impl Reader {
    /// A reader who comes back names the id of the event that it holds: that one is not sent again.
    pub fn new(public: Arc<Public>, topic: &Arc<Topic>, retry_ms: u64, held: Option<&str>) -> Reader {
        let mut state = topic.state();
        let event = if held == Some(state.id.as_str()) { Bytes::new() } else { state.event.text() };
        let begin = Piece::of(&[retry(retry_ms).as_bytes(), &event]);
        let (seat, events, turn) = (state.sit(), state.events, state.turn);
        let next = Next::First(begin);
        Reader { public, topic: topic.clone(), seat, events, turn, next }
    }

    /// The next piece to send; none at the end.
    pub fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Option<Piece>> {
        match std::mem::replace(&mut self.next, Next::News) {
            Next::First(piece) => return Poll::Ready(Some(piece)),
            Next::News => {}
            Next::End => {
                self.next = Next::Ended;
                return Poll::Ready(Some(END));
            }
            Next::Ended => {
                self.next = Next::Ended;
                return Poll::Ready(None);
            }
        }
        let mut state = self.topic.state();
        // Asked under the lock: who asks too early is woken.
        if let Some(retry_ms) = self.public.live.farewell(self.seat, state.ended) {
            self.next = Next::End;
            return Poll::Ready(Some(Piece::of(&[retry(retry_ms).as_bytes()])));
        }
        if self.turn != state.turn {
            self.turn = state.turn;
            let news = std::mem::replace(&mut self.events, state.events) != state.events;
            return Poll::Ready(Some(if news { state.event.clone() } else { HEARTBEAT }));
        }
        if let Some(waiting) = state.waiting.get_mut(self.seat as usize) {
            match waiting {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                _ => *waiting = Some(cx.waker().clone()),
            }
        }
        Poll::Pending
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.public.unfollow(&self.topic, self.seat);
    }
}
