//! Live counters: server-sent events of the body of `counters`, on change, at most once a second.

use std::collections::HashMap;
use std::task::Waker;
use std::time::Duration;

use hyper::header::HeaderName;
use tokio::time::MissedTickBehavior;

use super::context::{Public, ReadRequest, Reply};
use super::counters::snapshot;
use super::known::SiteRead;
use crate::ingest::Page;
use crate::serve::answer::{self, Fault, Response};
use crate::serve::live::{Reader, Topic};
use crate::sites::SiteId;

/// Time between two looks at the counters: no reader is sent more than one event in it.
const INTERVAL: Duration = Duration::from_secs(1);

/// Topics looked at, or readers woken, before other tasks get their turn: a thousand wakes in a row would
/// keep beacons waiting.
const STEP: usize = 32;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub fn live(request: ReadRequest<'_>) -> Result<Reply, Fault> {
    Ok(SiteRead::of(request)?.once_known(|read| follow(read).unwrap_or_else(answer::refused)))
}

/// Begins the events of a reader, or says why not.
fn follow(read: SiteRead) -> Result<Response, Fault> {
    let SiteRead { public, site, page, headers } = read;
    let snapshot = snapshot(&public, &site, page.as_ref()).ok_or(Fault::StoreUnreachable)?;
    let held = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let reader = Reader::join(&public.live, &site, page, &snapshot, held).ok_or(Fault::LiveFull)?;
    Ok(answer::events(Box::new(reader), public.parts.clock.now().unix_ms))
}

/// Tells readers what has changed, once a second, for as long as it is polled.
pub async fn tell(public: &Public) {
    let mut looks = tokio::time::interval(INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let mut pace = Pace::default();
        let mut unknown = UnknownPages::default();
        for topic in public.live.topics() {
            pace.before(1).await;
            let is_registered = public.parts.sites.load().get(topic.site.key.as_str()).is_some();
            if !is_registered {
                public.live.close(&topic);
            }
            if !is_registered || has_news(public, &topic, &mut unknown) {
                pace.wake_all(&topic).await;
            }
        }
        unknown.load(public);
    }
}

/// Looks at a topic; whether its readers are to be woken.
fn has_news(public: &Public, topic: &Topic, unknown: &mut UnknownPages) -> bool {
    // A page whose figures are unknown keeps its last event until they are loaded.
    if !unknown.note(public, topic)
        && let Some(snapshot) = snapshot(public, &topic.site, topic.page.as_ref())
    {
        topic.set(&snapshot);
    }
    public.live.has_news(topic)
}

/// Gives way to other tasks every [`STEP`].
#[derive(Default)]
struct Pace {
    done: usize,
    woken: Vec<Waker>,
}

impl Pace {
    /// Called before so much work; gives way when it is time.
    async fn before(&mut self, work: usize) {
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
            self.before(woken).await;
        }
    }
}

/// Pages that somebody follows and whose figures had to make room for those of other pages.
#[derive(Default)]
struct UnknownPages(HashMap<SiteId, Vec<Page>>);

impl UnknownPages {
    /// Notes a topic's page if its figures are unknown and can be loaded; whether they are.
    fn note(&mut self, public: &Public, topic: &Topic) -> bool {
        let totals = &public.parts.totals;
        let Some(page) = topic.page.as_ref().filter(|_| !totals.stale()) else { return false };
        let unknown = totals.look(topic.site.id, public.parts.clock.now()).page(page).is_none();
        if unknown {
            self.0.entry(topic.site.id).or_default().push(page.clone());
        }
        unknown
    }

    /// Loads their figures for the next look.
    fn load(self, public: &Public) {
        for (site, pages) in self.0 {
            let totals = public.parts.totals.clone();
            tokio::spawn(async move { totals.fetch_pages(site, pages).await });
        }
    }
}
