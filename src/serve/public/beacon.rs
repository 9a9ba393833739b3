//! Takes beacons: reads them, has them decided, and answers once they are kept.

use std::net::IpAddr;

use hyper::body::Incoming;
use hyper::http::request::Parts as Head;
use hyper::{HeaderMap, Method};

use super::context::{Public, bearer};
use super::{counters, dry_run};
use crate::ingest::{self, Asking, Beacon, Client, Context, Kind, OTHER, Page, Reason, Refusal, Said};
use crate::serve::answer::{self, Response};
use crate::serve::conn::body;
use crate::sites::{ReadKind, SiteId};
use crate::totals::Written;

/// A beacon that is to be counted.
pub struct Decided {
    pub beacon: Beacon,
    told: Told,
    /// What the limits are to forget if it cannot be kept.
    noted: Option<u64>,
}

/// A beacon on its way.
struct Taken {
    site: SiteId,
    kind: Kind,
    /// A view until it is written; a ping or a leave until the sessions have been told of it.
    written: Option<Written>,
    told: Told,
    noted: Option<u64>,
}

/// The page of whose figures a beacon wants to be told.
type Told = Option<(SiteId, Page)>;

pub async fn post(
    public: &Public,
    peer: IpAddr,
    is_dry: bool,
    headers: HeaderMap,
    body: Incoming,
) -> Response {
    let taken = match body::read(body, &headers, public.config.body_timeout).await {
        Ok(body) => {
            let said = Said::from_json(&body);
            if is_dry || said.as_ref().is_ok_and(|said| said.dry_run) {
                return dry_run::tell(public, peer, headers, said);
            }
            let decided = public.decide(said, public.noted_client(peer, &headers), &headers, false);
            decided.and_then(|decided| public.keep(decided))
        }
        Err(reason) => Err(reason.into()),
    };
    match public.kept(taken).await {
        Ok(None) => answer::no_content(),
        Ok(Some((site, page))) => match counters::told(public, site, page).await {
            Some(figures) => answer::figures(figures),
            None => answer::no_content(),
        },
        Err(Refusal { reason, cause, .. }) => answer::refused_for(reason.into(), cause.as_ref()),
    }
}

pub async fn gif(public: &Public, peer: IpAddr, Head { method, uri, headers, .. }: Head) -> Response {
    let said = Said::from_query(uri.query().unwrap_or_default());
    if dry_run::is_asked(&uri) {
        return dry_run::tell(public, peer, headers, said);
    }
    let is_head = method == Method::HEAD;
    let decided = public.decide(said, public.noted_client(peer, &headers), &headers, is_head);
    if is_head {
        return answer::gif(headers, decided.err().map(|refusal| refusal.reason.into()));
    }
    let kept = public.kept(decided.and_then(|decided| public.keep(decided))).await;
    answer::gif(headers, kept.err().map(|refusal| refusal.reason.into()))
}

impl Public {
    /// Decides a beacon, and which page it asks to be told of. One that `is_dry` uses up nothing of the limits.
    pub fn decide(
        &self,
        said: Result<Said<'_>, Refusal>,
        client: Client,
        headers: &HeaderMap,
        is_dry: bool,
    ) -> Result<Decided, Refusal> {
        let said = said?;
        let now = self.parts.clock.now();
        let salts = self.parts.totals.salts();
        let (sites, spans, lists) = (self.parts.sites.load(), &self.parts.hours, self.parts.lists.load());
        let robots = &lists.robots;
        let context = Context { sites: &sites, spans, salts: &salts, robots, headers, client, now };
        let mut beacon = ingest::accept(&said, &context)?;
        let site = beacon.site;
        let told = said.counters.then(|| {
            // Who may not ask for the counters is not told of them either.
            let readers = &sites.at(site)?.readers;
            if !readers.may_read(ReadKind::Counters, bearer(headers)) {
                return None;
            }
            // One that was erased is told of by its own name, as to every other reader.
            let page = match beacon.page.as_str() {
                OTHER => ingest::read_page(sites.at(site)?, &said.url).ok()?,
                _ => beacon.page.clone(),
            };
            Some((site, page))
        });
        let mut noted = None;
        if let Some(of) = sites.at(site) {
            let is_free = lists.proxies.trusts(client.address) || lists.limits.exempts(client.address);
            let Beacon { kind, ref page, visitor, id, hour, .. } = beacon;
            let asking = Asking {
                site: of,
                kind,
                page,
                visitor,
                address: (!is_free).then_some(client.address),
                now,
                is_dry,
                has_page: &|| self.parts.totals.has_place(site, page),
                is_repeated: &|| id.is_some_and(|id| self.parts.totals.knows(id)),
            };
            let judged = self.limits.judge(&lists.limits, &asking);
            let admission = judged.map_err(|refusal| {
                let left_out_in = (refusal.reason == Reason::Reload).then_some(hour);
                Refusal { left_out_in, ..refusal }
            })?;
            noted = admission.noted;
            if !admission.page {
                // Before it is written: what is read back at start is the same.
                beacon.page = Page::trusted(site, OTHER);
            }
        }
        Ok(Decided { beacon, told: told.flatten(), noted })
    }

    /// Has a beacon counted. Never waits.
    fn keep(&self, Decided { beacon, told, noted }: Decided) -> Result<Taken, Refusal> {
        let (site, kind, totals) = (beacon.site, beacon.kind, &self.parts.totals);
        let written = match kind {
            Kind::View => Some(totals.take(beacon).map_err(|reason| {
                self.limits.forget(noted);
                reason.of(site)
            })?),
            _ => totals.sign(beacon),
        };
        Ok(Taken { site, kind, written, told, noted })
    }

    /// Waits until a beacon is kept; counts it where it is refused. The page of which it wants to be told.
    async fn kept(&self, taken: Result<Taken, Refusal>) -> Result<Told, Refusal> {
        let refusal = match taken {
            Err(refusal) => refusal,
            Ok(Taken { site, kind, written, told, noted }) => {
                let ended = if let Some(written) = written { written.await } else { Ok(()) };
                match ended {
                    Err(reason) if kind == Kind::View => {
                        self.limits.forget(noted);
                        reason.of(site)
                    }
                    // Where the views beside a ping cannot be kept, the sessions know of it all the same.
                    _ => return Ok(told),
                }
            }
        };
        self.refuse(refusal.clone());
        Err(refusal)
    }

    /// The client of a request that counts.
    fn noted_client(&self, peer: IpAddr, headers: &HeaderMap) -> Client {
        let client = self.parts.lists.load().proxies.client(peer, headers);
        if client.address != peer {
            self.parts.proxies.trusted(peer);
        }
        if client.ignored_header {
            self.parts.proxies.ignored(peer);
            self.parts.metrics.client_header_ignored.inc();
            if self.ignored_header.due(self.parts.clock.now()) {
                tracing::warn!(
                    "the client header of a peer that is no trusted proxy is ignored; \
                     if it is your proxy, add its network to trusted_proxies"
                );
            }
        }
        client
    }
}
