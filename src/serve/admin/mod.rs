//! The admin listener: metrics, probes and the overview for operators.

pub mod control;
mod runbook;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use tokio::time::Instant;

use super::answer::{
    self, Fault, Response,
    routes::{OPERATE, Route, Routes, Target},
};
use super::overview;
use super::overview::health::checks;
use super::parts::Parts;
use crate::metrics::{Bound, Requests, Shown};
use crate::totals::{Figures, Health};

#[derive(Clone, Copy)]
pub enum AdminHandler {
    /// From memory.
    Now(fn(&Parts, &Request<Incoming>) -> Response),
    /// The page of figures, which may have to ask the store.
    Overview,
}

pub const ROUTES: &[Route<AdminHandler>] = &[
    Route { path: "/", methods: OPERATE, handler: AdminHandler::Overview },
    Route { path: "/livez", methods: OPERATE, handler: AdminHandler::Now(livez) },
    Route { path: "/metrics", methods: OPERATE, handler: AdminHandler::Now(metrics) },
    Route { path: "/readyz", methods: OPERATE, handler: AdminHandler::Now(readyz) },
    Route { path: "/runbook", methods: OPERATE, handler: AdminHandler::Now(runbook::runbook) },
];

/// What probes and scrapers ask by whatever name they know. `/metrics` has totals, which a page that has its own name
/// lead here could read: who must not see them is kept out by the network, as for this listener as a whole.
const FOR_ANY_HOST: [&str; 3] = ["/livez", "/metrics", "/readyz"];

/// Most sites whose past is loaded for one reader; the next reading loads more.
const LOADS: usize = 16;

/// The type of the Prometheus text format.
const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

pub struct AdminService {
    parts: Arc<Parts>,
    hosts: Vec<String>,
    routes: Routes<AdminHandler>,
    requests: Requests,
}

impl AdminService {
    /// It answers under these names, and under those that [`is_own`] takes anyway.
    pub fn new(hosts: Vec<String>, parts: Arc<Parts>) -> Self {
        let routes = Routes::new(ROUTES);
        let requests = parts.metrics.requests.of("admin", routes.paths());
        AdminService { parts, hosts, routes, requests }
    }

    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response {
        let began = Instant::now();
        let (route, target) = self.routes.find(request.method(), request.uri().path());
        let response = match target {
            _ if !self.is_asked_by_own_name(&request) => answer::admin_refused(Fault::Misdirected),
            Target::Handler(AdminHandler::Now(handler), _) => handler(&self.parts, &request),
            Target::Handler(AdminHandler::Overview, _) => {
                let others = self.routes.paths().filter(|path| *path != "/");
                show_overview(&self.parts, request.uri(), others).await
            }
            Target::NotAllowed(_, methods) | Target::Preflight(methods) => {
                answer::not_allowed(answer::admin_refused, methods)
            }
            Target::Missing => answer::admin_refused(Fault::NotFound),
        };
        self.requests.answered(route, response.status().as_u16(), began.elapsed());
        response
    }

    /// Whether the name that was asked for is the listener's own. A page of another origin whose name was made to
    /// lead here in the operator's browser (DNS rebinding) asks for its own name.
    fn is_asked_by_own_name(&self, request: &Request<Incoming>) -> bool {
        let named = request.headers().get_all(HOST).iter().map(HeaderValue::as_bytes);
        let mut named = named.chain(request.uri().authority().map(|authority| authority.as_str().as_bytes()));
        FOR_ANY_HOST.contains(&request.uri().path()) || named.all(|host| is_own(host, &self.hosts))
    }
}

/// Whether a `Host` is an address, a name without a dot, one of `hosts`, or ends with one of them that begins with a
/// dot.
fn is_own(host: &[u8], hosts: &[String]) -> bool {
    let host = String::from_utf8_lossy(host).to_ascii_lowercase();
    let port = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let name = port.map_or(host.as_str(), |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name);
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let is = |own: &String| name == own || (own.starts_with('.') && name.ends_with(own.as_str()));
    address.parse::<IpAddr>().is_ok()
        || (!name.is_empty() && name.bytes().all(is_name) && (!name.contains('.') || hosts.iter().any(is)))
}

/// `/`: the page of figures of every site, with links to the `others` of the listener's paths.
async fn show_overview(parts: &Parts, uri: &Uri, others: impl Iterator<Item = &str>) -> Response {
    let sites = parts.sites.load_full();
    for (index, site) in sites.iter().filter(|site| overview::is_due(parts, site)).enumerate() {
        if index < LOADS {
            overview::know(parts, site).await;
        } else {
            parts.metrics.bound(Bound::Loads);
        }
    }
    let sections: String = sites.iter().map(|site| overview::section(parts, site)).collect();
    let links: String = others.map(|path| format!(" · <a href=\"{path}\">{path}</a>")).collect();
    let footer = format!("footfall {}{links}", env!("CARGO_PKG_VERSION"));
    let figures = overview::health::list(parts, true) + &sections;
    let texts = ["footfall overview", "Overview", &figures, &footer];
    overview::answer(answer::admin_page, overview::is_part(uri), texts)
}

/// `/livez`: the process answers.
fn livez(_parts: &Parts, _request: &Request<Incoming>) -> Response {
    answer::admin_text(StatusCode::OK, "ok\n")
}

/// `/metrics`: every series. Gauges that only a scrape needs are set here.
fn metrics(parts: &Parts, request: &Request<Incoming>) -> Response {
    let now = parts.clock.now();
    let sites = parts.sites.load();
    parts.metrics.sites.show(sites.iter().map(|site| {
        let Figures { views, visits, visitors, .. } = parts.totals.look(site.id, now).figures();
        Shown {
            site,
            online: parts.sessions.online(site.id, now),
            views: views.into(),
            visits: visits.into(),
            visitors: visitors.into(),
        }
    }));
    let metrics = &parts.metrics;
    metrics.sessions.set(parts.sessions.held() as i64);
    metrics.used(Bound::Pings, parts.sessions.guests());
    parts.totals.show_waiting();
    for (bound, used) in [
        (Bound::Sessions, &metrics.sessions),
        (Bound::Connections, &metrics.connections),
        (Bound::LiveReaders, &metrics.live_readers),
        (Bound::Journal, &metrics.journal_bytes),
    ] {
        metrics.used(bound, used.get() as usize);
    }
    match parts.metrics.text() {
        Ok(text) => answer::admin_packed(request.headers(), EXPOSITION, text),
        Err(error) => answer::admin_text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// `/readyz`: whether views can be taken and kept. With a store that is down they are.
fn readyz(parts: &Parts, request: &Request<Incoming>) -> Response {
    let verbose =
        request.uri().query().is_some_and(|query| query.split('&').any(|name| name.starts_with("verbose")));
    let (status, text) = readiness(parts.ready.load(Ordering::Acquire), &parts.totals.health(), verbose);
    answer::admin_text(status, text)
}

fn readiness(running: bool, health: &Health, verbose: bool) -> (StatusCode, String) {
    let mut text = String::new();
    let mut ready = true;
    for (check, fault, unready) in checks(running, health) {
        ready &= !(unready && fault.is_some());
        match fault {
            Some(fault) if verbose || unready => text += &format!("[-]{check} {fault}\n"),
            None if verbose => text += &format!("[+]{check} ok\n"),
            _ => {}
        }
    }
    for site in health.troubled.iter().filter(|_| verbose) {
        text += &format!("[-]site {site}\n");
    }
    for concern in health.concerns.iter().filter(|_| verbose) {
        text += &format!("[-]store-settings {concern}\n");
    }
    let (status, last) =
        if ready { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") };
    (status, text + last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_a_name_without_a_dot_or_one_that_is_set() {
        let hosts = ["stats.example".to_owned(), ".svc.cluster.local".to_owned()];
        for host in [
            "127.0.0.1:8081",
            "[::1]:8081",
            "[fe80::1]",
            "10.0.0.7",
            "localhost:8081",
            "LocalHost.",
            "footfall-admin",
            "stats.example:80",
            "Stats.Example.",
            "footfall.news.svc.cluster.local:8081",
        ] {
            assert!(is_own(host.as_bytes(), &hosts), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "x.stats.example",
            "svc.cluster.local.evil.example",
            "footfall.svc.cluster.localx",
            "127.0.0.1@evil.example",
            "evil.example@127.0.0.1",
            "127.1",
            "[::1].evil.example",
            "a b",
            "\u{e9}",
            "",
            ".",
        ] {
            assert!(!is_own(host.as_bytes(), &hosts), "{host}");
        }
    }

    #[test]
    fn readiness_is_whether_views_can_be_kept() {
        let health = |refusing, store_up| {
            let (troubled, concerns) = (Vec::new(), Vec::new());
            Health {
                clock: None,
                refusing,
                store_up,
                held: None,
                troubled,
                failing: None,
                not_reloaded: false,
                lost: None,
                concerns,
            }
        };
        let ask = |running, health, verbose| {
            let (status, text) = readiness(running, &health, verbose);
            (status.as_u16(), text)
        };
        assert_eq!(ask(true, health(None, true), false), (200, "ok\n".into()));
        assert_eq!(ask(true, health(None, false), false), (200, "ok\n".into()), "a store may be down");
        assert_eq!(
            ask(true, health(None, false), true),
            (
                200,
                "[+]service ok\n[+]journal ok\n\
                 [-]store unreachable: views are kept and applied later\nok\n"
                    .into()
            )
        );
        assert_eq!(
            ask(true, health(Some("journal-full"), true), false),
            (503, "[-]journal journal-full\nnot ready\n".into())
        );
        assert_eq!(
            ask(false, health(None, true), false),
            (503, "[-]service starting or stopping\nnot ready\n".into())
        );
    }
}
