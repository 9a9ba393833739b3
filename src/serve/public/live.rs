//! Live counters: server-sent events of the body of `counters`, on change, at most once a second.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use hyper::header::HeaderName;
use tokio::time::MissedTickBehavior;

use super::context::{Public, ReadRequest, Reply};
use super::counters::snapshot;
use super::known::SiteRead;
use crate::ingest::Page;
use crate::metrics::Bound;
use crate::serve::answer::{self, Fault, Response};
use crate::serve::live::Topic;
use crate::sites::{Site, SiteId};

/// Time between two looks at the counters: no reader is sent more than one event in it.
const INTERVAL: Duration = Duration::from_secs(1);

/// Topics looked at, or readers woken, before other tasks get their turn: a thousand wakes in a row would
/// keep beacons waiting.
const STEP: usize = 32;

/// Pages of a site that the store is asked for at a time: anybody can follow as many as he likes.
const UNKNOWN_AT_A_TIME: usize = 256;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub fn live(request: ReadRequest<'_>, site: &Arc<Site>) -> Result<Reply, Fault> {
    let lists = request.public.parts.lists.load();
    let from = lists.counted(lists.proxies.client(request.peer, &request.headers).address);
    Ok(SiteRead::of(request, site)?
        .once_known(move |read| follow(read, from).unwrap_or_else(answer::refused)))
}

/// Begins the events of a reader, or says why not.
fn follow(read: SiteRead, from: Option<IpAddr>) -> Result<Response, Fault> {
    let SiteRead { public, site, page, headers, absent } = read;
    let snapshot = snapshot(&public, &site, page.as_ref(), &absent).ok_or(Fault::StoreUnreachable)?;
    let held = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let sites = public.parts.sites.load().iter().len();
    let reader = public.live.join(from, &site, sites, page, &snapshot, held).ok_or(Fault::LiveFull)?;
    Ok(answer::events(Box::new(reader), public.parts.clock.now().unix_ms))
}

/// Tells readers what has changed, once a second, for as long as it is polled.
pub async fn tell(public: &Public) {
    let mut looks = tokio::time::interval(INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let mut pace = Pace::default();
        let mut unknown: HashMap<SiteId, Vec<Page>> = HashMap::new();
        for topic in public.live.topics() {
            pace.before(1).await;
            let is_registered = public.parts.sites.load().get(topic.site.key.as_str()).is_some();
            if !is_registered {
                public.live.close(&topic);
            } else if let Some(page) = unknown_page(public, &topic) {
                let pages = unknown.entry(topic.site.id).or_default();
                if pages.len() < UNKNOWN_AT_A_TIME {
                    pages.push(page);
                } else {
                    public.parts.metrics.bound(Bound::Loads);
                }
            } else if let Some(snapshot) = snapshot(public, &topic.site, topic.page.as_ref(), &[]) {
                topic.set(&snapshot);
            }
            if !is_registered || public.live.has_news(&topic) {
                pace.wake_all(&topic).await;
            }
        }
        for (site, pages) in unknown {
            let totals = public.parts.totals.clone();
            tokio::spawn(async move { totals.fetch_pages(site, pages).await });
        }
    }
}

/// The page of a topic, if its figures had to make room for those of other pages and can be loaded: it keeps
/// its last event until they are.
fn unknown_page(public: &Public, topic: &Topic) -> Option<Page> {
    let (totals, now) = (&public.parts.totals, public.parts.clock.now());
    let is_unknown =
        |page: &&Page| !totals.stale(topic.site.id) && totals.look(topic.site.id, now).page(page).is_none();
    topic.page.as_ref().filter(is_unknown).cloned()
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
