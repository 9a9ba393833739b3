//! Walks through the pages of a site's day, for those that are read most. They go on beside the writer's turns.

use std::sync::Arc;

use chrono::NaiveDate;
use tokio::task::JoinSet;

use super::mailbox::Asker;
use super::reads;
use crate::sites::{Site, SiteId};
use crate::totals::store::contract::{Store, StoreError};

/// Sites whose pages are walked through at the same time.
const WALKS_AT_A_TIME: usize = 4;

/// The pages that are read most on the day of a site, or why they were not found.
pub struct Walk {
    pub site: SiteId,
    pub day: NaiveDate,
    pub found: Result<Vec<Arc<str>>, StoreError>,
}

/// Those who want the recent past of a site.
pub struct Waiting {
    pub site: SiteId,
    pub has_begun: bool,
    askers: Vec<Asker>,
}

/// What is walked through beside the writer's turns.
#[derive(Default)]
pub struct Walks {
    under_way: JoinSet<Walk>,
    /// In the order in which they are begun.
    pub waiting: Vec<Waiting>,
}

impl Walks {
    /// The next walk that ends.
    pub async fn next(&mut self) -> Walk {
        loop {
            match self.under_way.join_next().await {
                Some(Ok(walk)) => return walk,
                // It broke off, and does not say whose it was: all ask again.
                Some(Err(_)) => self.waiting.clear(),
                None => std::future::pending().await,
            }
        }
    }

    /// Notes who wants the recent past of a site.
    pub fn wait(&mut self, site: SiteId, asker: Asker) {
        match self.waiting.iter_mut().find(|waiting| waiting.site == site) {
            Some(waiting) => waiting.askers.push(asker),
            None => self.waiting.push(Waiting { site, has_begun: false, askers: vec![asker] }),
        }
    }

    /// Begins a walk that somebody waits for, unless it has begun or there are too many.
    pub fn begin(
        &mut self,
        waiting: &mut Waiting,
        store: &Arc<impl Store>,
        site: &Arc<Site>,
        day: NaiveDate,
    ) {
        if !waiting.has_begun && self.under_way.len() < WALKS_AT_A_TIME {
            waiting.has_begun = true;
            let (store, site) = (store.clone(), site.clone());
            self.under_way.spawn(async move {
                Walk { site: site.id, day, found: reads::most_read(&*store, &site, day).await }
            });
        }
    }

    /// Those who waited for the walk of a site, which has ended.
    pub fn no_more(&mut self, site: SiteId) -> Vec<Asker> {
        let ended = self.waiting.extract_if(.., |waiting| waiting.has_begun && waiting.site == site);
        ended.flat_map(|waiting| waiting.askers).collect()
    }
}
