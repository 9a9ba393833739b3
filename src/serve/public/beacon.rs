//! Takes beacons: reads them, has them decided, and answers once they are kept.

use std::net::IpAddr;

use hyper::body::Incoming;
use hyper::{HeaderMap, Uri};

use super::context::Public;
use super::refusal_log::Refusal;
use crate::clock::Moment;
use crate::ingest::{self, Beacon, Client, Context, Kind, Reason, Said};
use crate::serve::answer::{self, Response};
use crate::serve::conn::body;
use crate::sites::{SiteId, Sites};
use crate::totals::Written;

/// A view with its site, until it is written; a ping or a leave, until the sessions have been told of it.
enum Taken {
    View(SiteId, Written),
    Sign(Option<Written>),
}

pub async fn post(public: &Public, peer: IpAddr, headers: HeaderMap, body: Incoming) -> Response {
    let taken = match body::read(body, &headers, public.config.body_timeout).await {
        Ok(body) => public.take(Said::from_json(&body), peer, &headers),
        Err(reason) => Err((None, reason)),
    };
    match public.kept(taken).await {
        Ok(()) => answer::no_content(headers),
        Err(reason) => answer::refused(reason.into()),
    }
}

pub async fn gif(public: &Public, peer: IpAddr, uri: &Uri, headers: HeaderMap) -> Response {
    let taken = public.take(Said::from_query(uri.query().unwrap_or_default()), peer, &headers);
    let kept = public.kept(taken).await;
    answer::gif(headers, kept.err().map(Into::into))
}

impl Public {
    /// Decides a beacon and has it counted. Never waits.
    fn take(
        &self,
        said: Result<Said<'_>, Reason>,
        peer: IpAddr,
        headers: &HeaderMap,
    ) -> Result<Taken, Refusal> {
        let said = said.map_err(|reason| (None, reason))?;
        let now = self.parts.clock.now();
        let client = self.client(peer, headers, now);
        let salts = self.parts.totals.salts();
        let (sites, spans) = (self.parts.sites.load(), &self.parts.hours);
        let context = Context { sites: &sites, spans, salts: &salts, headers, client, now };
        let beacon = ingest::accept(&said, &context).map_err(|reason| (site_of(&sites, &said), reason))?;
        let site = beacon.site;
        self.keep(beacon).map_err(|reason| (Some(site), reason))
    }

    fn keep(&self, beacon: Beacon) -> Result<Taken, Reason> {
        if beacon.kind == Kind::View {
            return Ok(Taken::View(beacon.site, self.parts.totals.take(beacon)?));
        }
        Ok(Taken::Sign(self.parts.totals.sign(beacon)))
    }

    /// Waits until a beacon is kept; counts it where it is refused.
    async fn kept(&self, taken: Result<Taken, Refusal>) -> Result<(), Reason> {
        let (site, reason) = match taken {
            Err(refusal) => refusal,
            Ok(Taken::Sign(told)) => {
                if let Some(told) = told {
                    // Where the views beside it cannot be kept, the sessions know of it all the same.
                    told.await.ok();
                }
                return Ok(());
            }
            Ok(Taken::View(site, written)) => match written.await {
                Ok(()) => return Ok(()),
                Err(reason) => (Some(site), reason),
            },
        };
        self.refuse((site, reason));
        Err(reason)
    }

    fn client(&self, peer: IpAddr, headers: &HeaderMap, now: Moment) -> Client {
        let client = self.parts.lists.load().proxies.client(peer, headers);
        if client.ignored_header {
            self.parts.metrics.client_header_ignored.inc();
            if self.ignored_header.due(now) {
                tracing::warn!(
                    "the client header of a peer that is no trusted proxy is ignored; \
                     if it is your proxy, add its network to trusted_proxies"
                );
            }
        }
        client
    }
}

/// The site that a refused beacon names, or whose host its URL has.
fn site_of(sites: &Sites, said: &Said<'_>) -> Option<SiteId> {
    match said.site.as_deref() {
        Some(key) => sites.get(key).map(|site| site.id),
        None => {
            let url = url::Url::parse(&said.url).ok()?;
            sites.only_at_host(url.host_str()?).map(|site| site.id)
        }
    }
}
