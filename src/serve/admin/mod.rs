//! The admin listener: metrics and probes for operators.

pub mod control;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Request, StatusCode};
use tokio::time::Instant;

use crate::ingest::Reason;
use crate::metrics::{Requests, Shown};
use crate::serve::answer::routes::{ADMIN, Found, Routes, Way};
use crate::serve::answer::{self, Fault, Response};
use crate::serve::{Parts, overview};
use crate::totals::{Figures, Health};

/// Who answers a route of the admin listener.
#[derive(Clone, Copy)]
pub enum AdminHandler {
    /// From memory.
    Now(fn(&Parts, &Request<Incoming>) -> Response),
    /// The page of figures, which may have to ask the store.
    Overview,
}

/// The type of the Prometheus text format.
const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// What the admin handlers work with.
pub struct Admin {
    parts: Arc<Parts>,
    routes: Routes<AdminHandler>,
    requests: Requests,
}

impl Admin {
    /// Sets up.
    pub fn new(parts: Arc<Parts>) -> Self {
        let routes = Routes::new(ADMIN);
        let requests = parts.metrics.requests("admin", routes.paths());
        Admin { parts, routes, requests }
    }

    /// Answers a request.
    pub async fn answer(&self, request: &Request<Incoming>) -> Response {
        let began = Instant::now();
        let Way { route, found } = self.routes.find(request.method(), request.uri().path());
        let response = match found {
            Found::Handler(AdminHandler::Now(handler), _) => handler(&self.parts, request),
            Found::Handler(AdminHandler::Overview, _) => overview::all(&self.parts, request.uri()).await,
            Found::NotAllowed(_, methods) | Found::Preflight(methods) => {
                answer::admin_refused(Reason::MethodNotAllowed.into(), Some(methods))
            }
            Found::Missing => answer::admin_refused(Fault::NotFound, None),
        };
        self.requests.answered(route, response.status().as_u16(), began.elapsed());
        response
    }
}

/// `/livez`: the process answers.
pub fn livez(_parts: &Parts, _request: &Request<Incoming>) -> Response {
    answer::admin_text(StatusCode::OK, "ok\n")
}

/// `/metrics`: every series. Gauges that only a scrape needs are set here.
pub fn metrics(parts: &Parts, request: &Request<Incoming>) -> Response {
    let now = parts.clock.now();
    let sites = parts.sites.load();
    parts.metrics.show_sites(sites.iter().map(|site| {
        let Figures { views, visits, visitors, .. } = parts.totals.figures(site.id, now);
        Shown { site, online: parts.sessions.online(site.id, now), views, visits, visitors }
    }));
    parts.metrics.sessions.set(parts.sessions.len() as i64);
    match parts.metrics.text() {
        Ok(text) => answer::admin_packed(request.headers(), EXPOSITION, text),
        Err(error) => answer::admin_text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// `/readyz`: whether views can be taken and kept. A store that is down costs freshness alone.
pub fn readyz(parts: &Parts, request: &Request<Incoming>) -> Response {
    let verbose =
        request.uri().query().is_some_and(|query| query.split('&').any(|name| name.starts_with("verbose")));
    let (status, text) = readiness(parts.ready.load(Ordering::Acquire), &parts.totals.health(), verbose);
    answer::admin_text(status, text)
}

/// A thing that is looked at, what is wrong with it, and whether no views can be kept then.
pub type Check<'a> = (&'static str, Option<&'a str>, bool);

/// Everything that is looked at. A store that is down costs freshness alone.
pub fn checks(running: bool, health: &Health) -> [Check<'_>; 4] {
    let service = (!running).then_some("starting or stopping");
    let away = "unreachable: views are kept and applied later";
    let store = (!health.store_up).then(|| health.held.as_deref().unwrap_or(away));
    [
        ("service", service, true),
        ("journal", health.refusing, true),
        ("store", store, false),
        ("losses", health.lost.as_deref(), false),
    ]
}

fn readiness(running: bool, health: &Health, verbose: bool) -> (StatusCode, String) {
    let ready = running && health.refusing.is_none();
    let mut text = String::new();
    for (check, fault, unready) in checks(running, health) {
        match fault {
            Some(fault) if verbose || unready => text += &format!("[-]{check} {fault}\n"),
            None if verbose && check == "losses" => {}
            None if verbose => text += &format!("[+]{check} ok\n"),
            _ => {}
        }
    }
    for concern in health.concerns.iter().filter(|_| verbose) {
        text += &format!("[-]store-settings {concern}\n");
    }
    if ready {
        text += "ok\n";
        (StatusCode::OK, text)
    } else {
        text += "not ready\n";
        (StatusCode::SERVICE_UNAVAILABLE, text)
    }
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
