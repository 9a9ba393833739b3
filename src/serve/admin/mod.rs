//! The admin listener: metrics, probes and the overview for operators.

pub mod control;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Request, StatusCode, Uri};
use tokio::time::Instant;

use super::answer::{
    self, Fault, Response,
    routes::{OPERATE, Route, Routes, Target},
};
use super::overview;
use super::overview::health::checks;
use super::parts::Parts;
use crate::metrics::{Requests, Shown};
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
];

/// Most sites whose past is loaded for one reader; the next reading loads more.
const LOADS: usize = 16;

/// The type of the Prometheus text format.
const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

pub struct AdminService {
    parts: Arc<Parts>,
    routes: Routes<AdminHandler>,
    requests: Requests,
}

impl AdminService {
    pub fn new(parts: Arc<Parts>) -> Self {
        let routes = Routes::new(ROUTES);
        let requests = parts.metrics.requests.of("admin", routes.paths());
        AdminService { parts, routes, requests }
    }

    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response {
        let began = Instant::now();
        let (route, target) = self.routes.find(request.method(), request.uri().path());
        let response = match target {
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
}

/// `/`: the page of figures of every site, with links to the `others` of the listener's paths.
async fn show_overview(parts: &Parts, uri: &Uri, others: impl Iterator<Item = &str>) -> Response {
    let sites = parts.sites.load_full();
    for site in sites.iter().filter(|site| overview::is_due(parts, site)).take(LOADS) {
        overview::know(parts, site).await;
    }
    let sections: String = sites.iter().map(|site| overview::section(parts, site)).collect();
    let links: String = others.map(|path| format!(" · <a href=\"{path}\">{path}</a>")).collect();
    let footer = format!("footfall {}{links}", env!("CARGO_PKG_VERSION"));
    let figures = overview::health::list(parts, true) + &sections;
    overview::answer(overview::is_part(uri), "footfall overview", "Overview", &figures, &footer)
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
    parts.metrics.sessions.set(parts.sessions.held() as i64);
    parts.totals.show_waiting();
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
    let ready = running && health.refusing.is_none();
    let mut text = String::new();
    for (check, fault, unready) in checks(running, health) {
        match fault {
            Some(fault) if verbose || unready => text += &format!("[-]{check} {fault}\n"),
            None if verbose => text += &format!("[+]{check} ok\n"),
            _ => {}
        }
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
    fn readiness_is_whether_views_can_be_kept() {
        let health =
            |refusing, store_up| Health { refusing, store_up, held: None, lost: None, concerns: Vec::new() };
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
