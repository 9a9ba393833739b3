//! Fewer visitors than the views of an hour can be of: something between the readers and the service, such as a CDN
//! before nginx, stands for all of them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Moment;
use crate::metrics::Metrics;
use crate::sessions::Sessions;
use crate::sites::{Identity, Site, SiteId, Sites};

/// Nobody reads more pages in an hour, over all visitors of a site.
const BELIEVABLE: u64 = 50;

/// Of fewer visitors, one may be a person at work on the site or a probe.
const FEW: u64 = 3;

const HOUR_MS: u64 = 3_600_000;

/// The views and visitors of hours, counted from the start of the process.
#[derive(Default)]
pub struct Crowds(Mutex<Hours>);

#[derive(Default)]
struct Hours {
    began_ms: Option<u64>,
    /// When the hour began: views and visits counted, and visitors online.
    before: HashMap<SiteId, (u64, u64, u64)>,
    /// What was beyond belief in the last hour, a sentence each.
    concerns: Vec<String>,
}

impl Crowds {
    /// To be called once a second: looks back where an hour is over.
    pub fn look(&self, sites: &Sites, metrics: &Metrics, sessions: &Sessions, now: Moment) {
        let hours = &mut *self.hours();
        let began_ms = *hours.began_ms.get_or_insert(now.uptime_ms);
        if now.uptime_ms.saturating_sub(began_ms) < HOUR_MS {
            return;
        }
        hours.began_ms = Some(now.uptime_ms);
        hours.concerns.clear();
        metrics.sites.begin_hour();
        for site in sites.iter().filter(|site| site.identity != Identity::None) {
            let (views, visits) = metrics.sites.counts(site.id);
            let then = hours.before.insert(site.id, (views, visits, sessions.online(site.id, now)));
            let (views_then, visits_then, online) = then.unwrap_or_default();
            // Who is online when the hour begins goes on with a visit that is counted before.
            let (views, visitors) = (views - views_then, visits - visits_then + online);
            metrics.sites.hour(site, views / visitors.max(1));
            if views > BELIEVABLE * visitors.max(FEW) {
                hours.concerns.push(concern(site, views, visitors));
            }
        }
        for concern in &hours.concerns {
            tracing::warn!("{concern}");
        }
    }

    /// What is beyond belief, a sentence a site.
    pub fn concerns(&self) -> Vec<String> {
        self.hours().concerns.clone()
    }

    fn hours(&self) -> MutexGuard<'_, Hours> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn concern(site: &Site, views: u64, visitors: u64) -> String {
    format!(
        "site {}: {views} views of {visitors} visitors within an hour: a proxy or CDN seems to stand for its readers; \
         have it name them, and see trusted_proxies and client_header",
        site.key
    )
}
