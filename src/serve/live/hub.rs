//! All topics and the number of their readers.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;

use super::topic::{Seat, Snapshot, Topic, TopicKey};
use crate::ingest::Page;
use crate::metrics::{Bound, Metrics};
use crate::sites::Site;

/// When a reader whose connection broke comes back, milliseconds: from the first, spread over the second.
const RETRY_MS: (u64, u64) = (4_000, 2_000);

/// The same where the service has stopped: it takes a while to start, and every reader comes back then.
const RETRY_AFTER_STOP_MS: (u64, u64) = (1_000, 9_000);

/// Settings of the live counters.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most readers at once; a further one is refused.
    pub max_readers: usize,
    /// A reader is sent a comment after this long without an event, so that proxies keep the connection.
    pub heartbeat: Duration,
}

pub struct Hub {
    config: Config,
    metrics: Arc<Metrics>,
    topics: Mutex<HashMap<TopicKey, Arc<Topic>>>,
    readers: AtomicUsize,
    ending: AtomicBool,
    jitter: foldhash::quality::RandomState,
}

impl Hub {
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Self {
        Hub {
            config,
            metrics,
            topics: Mutex::default(),
            readers: AtomicUsize::new(0),
            ending: AtomicBool::new(false),
            jitter: foldhash::quality::RandomState::default(),
        }
    }

    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.lock().values().cloned().collect()
    }

    /// A seat at a topic whose counters are these, and how long its reader waits before it comes back,
    /// milliseconds; none where there are too many readers. `held` is the event that the reader has.
    pub(super) fn join(
        &self,
        site: &Arc<Site>,
        page: Option<Page>,
        snapshot: &Snapshot,
        held: Option<&str>,
    ) -> Option<(Arc<Topic>, (Seat, Bytes), u64)> {
        let number = self.readers.fetch_add(1, Ordering::Relaxed);
        if number >= self.config.max_readers {
            self.readers.fetch_sub(1, Ordering::Relaxed);
            self.metrics.bound(Bound::LiveReaders);
            return None;
        }
        self.metrics.live_readers.set(number as i64 + 1);
        let mut topics = self.lock();
        let key = (site.id, page.as_ref().map(Page::key));
        let topic = topics.entry(key).or_insert_with(|| Arc::new(Topic::new(site.clone(), page)));
        topic.set(snapshot);
        // Under the lock: a topic without readers is removed.
        Some((topic.clone(), topic.join(held), self.retry_ms(RETRY_MS, number)))
    }

    pub(super) fn leave(&self, topic: &Arc<Topic>, seat: u32) {
        let mut topics = self.lock();
        // A closed topic may have a successor under the same key.
        let is_there = topics.get(&topic.key()).is_some_and(|there| Arc::ptr_eq(there, topic));
        if topic.leave(seat) && is_there {
            topics.remove(&topic.key());
        }
        let before = self.readers.fetch_sub(1, Ordering::Relaxed);
        self.metrics.live_readers.set(before as i64 - 1);
    }

    /// Whether the readers of a topic are to be woken.
    pub fn has_news(&self, topic: &Topic) -> bool {
        topic.has_news(self.config.heartbeat)
    }

    /// Ends a topic whose site has been removed. Readers that come back begin another.
    pub fn close(&self, topic: &Topic) {
        self.lock().remove(&topic.key());
        topic.end();
    }

    /// Ends the events of all readers: the service stops.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Release);
        for topic in self.topics() {
            let mut woken = Vec::new();
            topic.take_wakers(0, usize::MAX, &mut woken);
            woken.into_iter().for_each(Waker::wake);
        }
    }

    /// When a reader is to come back, milliseconds, if its events end: the service stops, or its topic has
    /// `ended`.
    pub(super) fn retry_after_end(&self, seat: u32, ended: bool) -> Option<u64> {
        let ends = ended || self.ending.load(Ordering::Acquire);
        ends.then(|| self.retry_ms(RETRY_AFTER_STOP_MS, seat as usize))
    }

    fn retry_ms(&self, (from, spread): (u64, u64), number: usize) -> u64 {
        from + self.jitter.hash_one(number) % spread
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TopicKey, Arc<Topic>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
