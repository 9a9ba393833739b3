//! All topics and their readers.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use super::topic::{Seat, Snapshot, Topic, TopicKey};
use crate::ingest::Page;
use crate::metrics::{Bound, Metrics};
use crate::serve::addresses::{Addresses, Held};
use crate::serve::answer::events::{EventSource, Piece};
use crate::sites::{Shares, Site};

/// When a reader whose connection broke comes back, milliseconds: from the first, spread over the second.
const RETRY_MS: (u64, u64) = (4_000, 2_000);

/// The same where the service has stopped: it takes a while to start, and every reader comes back then.
const RETRY_AFTER_STOP_MS: (u64, u64) = (1_000, 9_000);

/// Settings of the live counters.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most readers at once; a further one is refused.
    pub max_readers: usize,
    /// The most of them of one client's address.
    pub max_readers_per_address: usize,
    /// A reader is sent a comment after this long without an event, so that proxies keep the connection.
    pub heartbeat: Duration,
}

pub struct Hub {
    config: Config,
    metrics: Arc<Metrics>,
    seats: Mutex<Seats>,
    addresses: Arc<Addresses>,
    ending: AtomicBool,
    jitter: foldhash::quality::RandomState,
}

/// Who follows what, and how the sites share the room for readers.
struct Seats {
    topics: HashMap<TopicKey, Arc<Topic>>,
    shares: Shares,
}

impl Hub {
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Self {
        Hub {
            seats: Mutex::new(Seats { topics: HashMap::new(), shares: Shares::new(config.max_readers) }),
            addresses: Addresses::new(config.max_readers_per_address),
            config,
            metrics,
            ending: AtomicBool::default(),
            jitter: foldhash::quality::RandomState::default(),
        }
    }

    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.lock().topics.values().cloned().collect()
    }

    /// A new reader, from an address that is counted or none, of one of `sites` sites and a page, whose counters are
    /// these; none where there are too many readers. One that comes back names the event that it holds, which is not sent
    /// again.
    pub fn join(
        self: &Arc<Self>,
        from: Option<IpAddr>,
        site: &Arc<Site>,
        sites: usize,
        page: Option<Page>,
        snapshot: &Snapshot,
        held: Option<&str>,
    ) -> Option<Reader> {
        let Some(place) = self.addresses.take(from) else {
            self.metrics.bound(Bound::AddressReaders);
            return None;
        };
        let Seats { topics, shares } = &mut *self.lock();
        shares.among(sites);
        if !shares.take(site.id.index()) {
            self.metrics.bound(Bound::LiveReaders);
            return None;
        }
        self.metrics.live_readers.set(shares.all() as i64);
        let key = (site.id, page.as_ref().map(Page::key));
        let topic = topics.entry(key).or_insert_with(|| Arc::new(Topic::new(site.clone(), page))).clone();
        topic.set(snapshot);
        if self.ending.load(Ordering::Relaxed) {
            topic.end();
        }
        // Under the lock: a topic without readers is removed.
        let (seat, event) = topic.join(held);
        let next = Some(Piece::of(&[self.retry(RETRY_MS, shares.all()).as_bytes(), &event]));
        Some(Reader { hub: self.clone(), topic, seat, next, ended: false, _place: place })
    }

    fn leave(&self, topic: &Arc<Topic>, seat: u32) {
        let Seats { topics, shares } = &mut *self.lock();
        // A closed topic may have a successor under the same key.
        let is_there = topics.get(&topic.key()).is_some_and(|there| Arc::ptr_eq(there, topic));
        if topic.leave(seat) && is_there {
            topics.remove(&topic.key());
        }
        shares.give_back(topic.site.id.index());
        self.metrics.live_readers.set(shares.all() as i64);
    }

    /// Whether the readers of a topic are to be woken.
    pub fn has_news(&self, topic: &Topic) -> bool {
        topic.has_news(self.config.heartbeat)
    }

    /// Ends a topic whose site has been removed. Readers that come back begin another.
    pub fn close(&self, topic: &Topic) {
        self.lock().topics.remove(&topic.key());
        topic.end();
    }

    /// Ends the events of all readers: the service stops.
    pub fn end(&self) {
        // First, so that a topic that is not among these yet is ended by its first reader.
        self.ending.store(true, Ordering::Relaxed);
        for topic in self.topics() {
            topic.end();
            let mut woken = Vec::new();
            topic.take_wakers(0, usize::MAX, &mut woken);
            woken.into_iter().for_each(Waker::wake);
        }
    }

    /// When a reader is to come back.
    fn retry(&self, (from, spread): (u64, u64), number: usize) -> String {
        format!("retry: {}\n\n", from + self.jitter.hash_one(number) % spread)
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One reader's events. They end when the service stops, or when the site is not registered any more.
pub struct Reader {
    hub: Arc<Hub>,
    topic: Arc<Topic>,
    seat: Seat,
    /// What is sent before anything new.
    next: Option<Piece>,
    ended: bool,
    /// Among those of its address.
    _place: Held,
}

impl EventSource for Reader {
    fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Option<Piece>> {
        if self.next.is_some() || self.ended {
            return Poll::Ready(self.next.take());
        }
        let news = ready!(self.topic.poll_news(&mut self.seat, cx));
        Poll::Ready(news.or_else(|| {
            self.ended = true;
            self.next = Some(Piece::END);
            let retry = self.hub.retry(RETRY_AFTER_STOP_MS, self.seat.number as usize);
            Some(Piece::of(&[retry.as_bytes()]))
        }))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.hub.leave(&self.topic, self.seat.number);
    }
}
