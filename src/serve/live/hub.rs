//! Live counters: Server-Sent Events of the body of `counters`, on change, at most once a second.
//!
//! Readers of one site and page share a [`Topic`]. One task, [`Live::tell`], looks at every topic once a
//! second and has its counters written once; where they differ from what was sent last, it wakes the
//! topic's readers, each of which sends the same shared bytes. So nothing at all is added to the path of
//! a beacon, and a reader costs no timer. A thousand wakes in a row would keep beacons waiting: the task
//! gives way to them every [`STEP`] readers.
//!
//! A reader that takes nothing is let go by the limits of its connection (`http.write_timeout`, a small
//! send buffer): meanwhile it holds back nobody, since what it has missed is not kept for it; it goes on
//! with the newest event.
//!
//! ```text
//! retry: 5213                  first of all, another number for each reader, so that they do not come
//!                              back all at once
//! id: 4f0c…                    the entity tag of the body, without its quotes
//! event: counters
//! data: {"site":…}
//!
//! :                            after `live.heartbeat` without an event
//! ```

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::HeaderName;
use tokio::time::MissedTickBehavior;

use super::topic::{Reader, Topic};
use crate::clock::Moment;
use crate::ingest::Page;
use crate::metrics::Bound;
use crate::serve::answer::{self, Fault, Response};
use crate::serve::public::context::{Asked, Public, Reply};
use crate::serve::public::counters;
use crate::sites::{Site, SiteId};

/// Time between two looks at the counters: no reader is sent more than one event in it.
const INTERVAL: Duration = Duration::from_secs(1);

/// Topics looked at, or readers woken, before others get their turn.
const STEP: usize = 32;

/// When a reader whose connection broke comes back, milliseconds: from the first, spread over the second.
const RETRY_MS: (u64, u64) = (4_000, 2_000);

/// The same where the service has stopped: it needs a while to come back, and everybody is waiting.
const RETRY_AFTER_STOP_MS: (u64, u64) = (1_000, 9_000);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Settings of the live counters.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most readers at once; a further one is refused.
    pub max_readers: usize,
    /// A reader is sent a comment after this long without an event, so that proxies keep the connection.
    pub heartbeat: Duration,
}

/// A site, and the key of a page of it.
pub type Key = (SiteId, Option<u64>);

/// All readers.
pub struct Live {
    config: Config,
    topics: Mutex<HashMap<Key, Arc<Topic>>>,
    readers: AtomicUsize,
    ending: AtomicBool,
    jitter: foldhash::quality::RandomState,
}

/// `GET /api/v1/sites/{site}/live[?page=]`.
pub fn live(asked: Asked<'_>) -> Reply {
    let (site, page) = match counters::site_and_page(&asked) {
        Ok(understood) => understood,
        Err(reason) => return Reply::Now(answer::refused(reason.into())),
    };
    counters::once_known(asked, site, page, |ready, site, page| {
        follow(&ready.public, site, page.cloned(), &ready.headers)
    })
}

/// Begins the events of a reader, or says why not.
fn follow(public: &Arc<Public>, site: &Arc<Site>, page: Option<Page>, headers: &HeaderMap) -> Response {
    let Some(counters) = counters::counters_now(public, site, page.as_ref()) else {
        return answer::refused(Fault::StoreUnreachable);
    };
    let held = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    match public.follow(site, page, &counters, held) {
        Some(reader) => answer::events(reader, public.parts.clock.now().unix_ms),
        None => {
            public.parts.metrics.bound(Bound::LiveReaders);
            answer::refused(Fault::LiveFull)
        }
    }
}

impl Public {
    /// A new reader of a topic with its counters and their tag as they are now; none where there is no room.
    fn follow(
        self: &Arc<Self>,
        site: &Arc<Site>,
        page: Option<Page>,
        counters: &(String, Bytes),
        held: Option<&str>,
    ) -> Option<Reader> {
        let live = &self.live;
        let number = live.readers.fetch_add(1, Ordering::Relaxed);
        if number >= live.config.max_readers {
            live.readers.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        self.parts.metrics.live_readers.set(number as i64 + 1);
        let mut topics = live.topics();
        let key = (site.id, page.as_ref().map(Page::key));
        let topic = topics.entry(key).or_insert_with(|| Arc::new(Topic::new(site.clone(), page)));
        topic.set(counters);
        Some(Reader::new(self.clone(), topic, live.retry(RETRY_MS, number), held))
    }

    /// A reader has gone.
    pub fn unfollow(&self, topic: &Arc<Topic>, seat: u32) {
        let live = &self.live;
        let mut topics = live.topics();
        // One that has ended may have a successor.
        let is_there = topics.get(&topic.key()).is_some_and(|there| Arc::ptr_eq(there, topic));
        if topic.leave(seat) && is_there {
            topics.remove(&topic.key());
        }
        let before = live.readers.fetch_sub(1, Ordering::Relaxed);
        self.parts.metrics.live_readers.set(before as i64 - 1);
    }
}

impl Live {
    /// No readers yet.
    pub fn new(config: Config) -> Self {
        Live {
            config,
            topics: Mutex::default(),
            readers: AtomicUsize::new(0),
            ending: AtomicBool::new(false),
            jitter: foldhash::quality::RandomState::default(),
        }
    }

    /// Tells readers what has changed, once a second, for as long as it is polled.
    pub async fn tell(&self, public: &Public) {
        let mut looks = tokio::time::interval(INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let mut step = Step::default();
            let mut unknown = Unknown::default();
            let topics: Vec<Arc<Topic>> = self.topics().values().cloned().collect();
            for topic in topics {
                step.take(1).await;
                let is_registered = public.parts.sites.load().get(topic.site.key.as_str()).is_some();
                if !is_registered {
                    self.close(&topic);
                }
                if !is_registered || self.look(public, &topic, &mut unknown) {
                    step.wake_all(&topic).await;
                }
            }
            unknown.load(public);
        }
    }

    /// Looks at a topic; whether its readers are to be woken.
    fn look(&self, public: &Public, topic: &Topic, unknown: &mut Unknown) -> bool {
        // The last event of a page stands until its figures are back.
        if !unknown.note(public, topic, public.parts.clock.now())
            && let Some(counters) = counters::counters_now(public, &topic.site, topic.page.as_ref())
        {
            topic.set(&counters);
        }
        topic.has_news(self.config.heartbeat)
    }

    /// Nobody follows a topic any more: its site has been removed. Who comes back begins another.
    fn close(&self, topic: &Topic) {
        self.topics().remove(&topic.key());
        topic.end();
    }

    /// Ends the events of all readers: the service stops.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Release);
        let topics: Vec<Arc<Topic>> = self.topics().values().cloned().collect();
        for topic in topics {
            let mut woken = Vec::new();
            topic.take_wakers(0, usize::MAX, &mut woken);
            woken.into_iter().for_each(Waker::wake);
        }
    }

    /// The last word to a reader, once the service stops or its topic has `ended`.
    pub fn farewell(&self, seat: u32, ended: bool) -> Option<u64> {
        let ends = ended || self.ending.load(Ordering::Acquire);
        ends.then(|| self.retry(RETRY_AFTER_STOP_MS, seat as usize))
    }

    fn retry(&self, (from, spread): (u64, u64), number: usize) -> u64 {
        from + self.jitter.hash_one(number) % spread
    }

    fn topics(&self) -> MutexGuard<'_, HashMap<Key, Arc<Topic>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Work done since others last had their turn.
#[derive(Default)]
struct Step {
    done: usize,
    woken: Vec<Waker>,
}

impl Step {
    /// Before so much work: gives way where it is time.
    async fn take(&mut self, work: usize) {
        if self.done >= STEP {
            self.done = 0;
            tokio::task::yield_now().await;
        }
        self.done += work;
    }

    /// Wakes all who wait at a topic.
    async fn wake_all(&mut self, topic: &Topic) {
        let mut seat = Some(0);
        while let Some(from) = seat {
            seat = topic.take_wakers(from, STEP, &mut self.woken);
            let woken = self.woken.len();
            self.woken.drain(..).for_each(Waker::wake);
            self.take(woken).await;
        }
    }
}

/// Pages that somebody follows and whose figures had to make room for others'.
#[derive(Default)]
struct Unknown(HashMap<SiteId, Vec<Page>>);

impl Unknown {
    /// Whether a topic's page is one whose figures can be had again.
    fn note(&mut self, public: &Public, topic: &Topic, now: Moment) -> bool {
        let totals = &public.parts.totals;
        let Some(page) = topic.page.as_ref().filter(|_| !totals.stale()) else { return false };
        let unknown = totals.page(page, topic.site.id, now).is_none();
        if unknown {
            self.0.entry(topic.site.id).or_default().push(page.clone());
        }
        unknown
    }

    /// Asks the store for them, for the next look.
    fn load(self, public: &Public) {
        for (site, pages) in self.0 {
            let totals = public.parts.totals.clone();
            tokio::spawn(async move { totals.load_pages(site, pages).await });
        }
    }
}
