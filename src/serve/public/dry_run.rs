//! Beacons that ask what would become of them, and count nothing: "my visit was not counted".

use std::net::IpAddr;

use hyper::{HeaderMap, StatusCode, Uri};
use serde_json::json;

use super::context::Public;
use crate::ingest::{Beacon, Reason, Refusal, Said};
use crate::serve::answer::{self, Fault, Response};
use crate::sites::Identity;

/// Whether a query has `dry_run`.
pub fn is_asked(uri: &Uri) -> bool {
    let is_dry = |pair| matches!(pair, "dry_run" | "dry_run=" | "dry_run=1" | "dry_run=true");
    uri.query().is_some_and(|query| query.split('&').any(is_dry))
}

/// Decides a beacon as any other, and answers with what was decided and why.
pub fn tell(
    public: &Public,
    peer: IpAddr,
    mut headers: HeaderMap,
    said: Result<Said<'_>, Refusal>,
) -> Response {
    // Who opens it in a browser's address bar asks of a page's beacon, by which no browser goes anywhere.
    headers.remove("sec-fetch-mode");
    let headers = &headers;
    let (parts, lists) = (&public.parts, public.parts.lists.load());
    let client = lists.proxies.client(peer, headers);
    let kind = said.as_ref().ok().map(|said| said.kind.word());
    let has_id = said.as_ref().is_ok_and(|said| said.visitor.is_some());
    let decided = public.decide(said, client, headers, true).and_then(|decided| {
        let beacon = decided.beacon;
        let outcome = parts.totals.foretell(&beacon).map_err(|reason| reason.of(beacon.site))?;
        Ok((outcome, beacon))
    });
    let (beacon, site, outcome, status, why) = match &decided {
        Ok((outcome, beacon)) => {
            let robot = || (Reason::Robot.word(), Fault::from(Reason::Robot).detail(None));
            let why = beacon.is_shadow.then(robot);
            (Some(beacon), Some(beacon.site), outcome.word(), StatusCode::NO_CONTENT, why)
        }
        Err(Refusal { site, reason, cause, .. }) => {
            let fault = Fault::from(*reason);
            let outcome = if fault.status().is_success() { "filtered" } else { "refused" };
            (None, *site, outcome, fault.status(), Some((reason.word(), fault.detail(cause.as_ref()))))
        }
    };
    let sites = parts.sites.load();
    let site = site.and_then(|site| sites.at(site));
    let identity = site.map(|site| match site.identity {
        _ if beacon.is_some_and(|beacon| beacon.visitor.is_none()) => Identity::None,
        Identity::Browser if !has_id => Identity::Address,
        identity => identity,
    });
    let (reason, detail) = why.unzip();
    let body = json!({
        "dry_run": true,
        "outcome": outcome,
        "status": status.as_u16(),
        "reason": reason,
        "detail": detail,
        "site": site.map(|site| site.key.as_str()),
        "page": beacon.map(|beacon: &Beacon| beacon.page.as_str()),
        "kind": kind,
        "identity": identity.map(Identity::word),
        "client": lists.proxies.source(peer, client).word(),
        "day": beacon.map(|beacon| beacon.hour.day.to_string()),
    });
    answer::figures(body.to_string().into())
}
