//! The public listener's requests: to a handler, or to the answer that there is none.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Uri};
use tokio::time::Instant;

use crate::ingest::Reason;
use crate::metrics::Requests;
use crate::serve::answer::routes::{Found, PUBLIC, Routes, Way};
use crate::serve::answer::{self, Fault, Response};
use crate::serve::conn::OnceAMinute;
use crate::serve::live::Live;
use crate::serve::public::beacon;
use crate::serve::public::refusal_log::Refusals;
use crate::serve::public::script::Names;
use crate::serve::shown::hour::Labels;
use crate::serve::shown::prefix::Fronts;
use crate::serve::{Config, Parts};
use crate::sites::SiteId;

/// How often the log of refusals is looked through.
const REFUSALS_EVERY: Duration = Duration::from_secs(5);

/// What the public handlers work with.
pub struct Public {
    pub parts: Arc<Parts>,
    pub body_timeout: Duration,
    pub labels: Labels,
    pub fronts: Fronts,
    pub live: Live,
    pub mount: String,
    pub refusals: Refusals,
    pub ignored_header: OnceAMinute,
    names: Names,
    routes: Routes<PublicHandler>,
    requests: Requests,
}

/// Who answers a public route.
#[derive(Clone, Copy)]
pub enum PublicHandler {
    /// `POST` of a beacon; its future lives in the connection, without a box.
    Beacon,
    /// A beacon as a GIF.
    Gif,
    /// Everything without a body.
    Read(fn(Asked<'_>) -> Reply),
}

/// A request without a body.
pub struct Asked<'a> {
    /// What to work with.
    pub public: &'a Arc<Public>,
    /// The target.
    pub uri: &'a Uri,
    /// What stands in the path for the name in braces.
    pub name: &'a str,
    /// The request's headers.
    pub headers: HeaderMap,
}

/// What a handler gives.
pub enum Reply {
    /// The answer, from memory.
    Now(Response),
    /// The answer, once something is waited for.
    Later(Pin<Box<dyn Future<Output = Response> + Send>>),
}

impl Public {
    /// Sets up.
    pub fn new(config: &Config, parts: Arc<Parts>) -> Self {
        let sites = parts.sites.load().room();
        let routes = Routes::new(PUBLIC);
        Public {
            requests: parts.metrics.requests("public", routes.paths()),
            parts,
            labels: Labels::new(sites),
            fronts: Fronts::new(sites),
            live: Live::new(config.live.clone()),
            mount: config.mount.clone(),
            body_timeout: config.body_timeout,
            refusals: Refusals::default(),
            ignored_header: OnceAMinute::default(),
            names: config.names.clone(),
            routes,
        }
    }

    /// Answers a request.
    pub async fn answer(self: Arc<Self>, peer: IpAddr, request: Request<Incoming>) -> Response {
        let began = Instant::now();
        let (head, body) = request.into_parts();
        let path = self.names.standard(self.below_mount(head.uri.path()));
        let Way { route, found } = self.routes.find(&head.method, &path);
        let response = match found {
            Found::Handler(PublicHandler::Beacon, _) => beacon::post(&self, peer, head.headers, body).await,
            Found::Handler(PublicHandler::Gif, _) => beacon::gif(&self, peer, &head.uri, head.headers).await,
            Found::Handler(PublicHandler::Read(handler), name) => {
                match handler(Asked { public: &self, uri: &head.uri, name, headers: head.headers }) {
                    Reply::Now(response) => response,
                    Reply::Later(response) => response.await,
                }
            }
            Found::Preflight(methods) => answer::preflight(methods),
            Found::NotAllowed(handler, methods) => {
                if matches!(handler, PublicHandler::Beacon | PublicHandler::Gif) {
                    self.refuse(None, Reason::MethodNotAllowed);
                }
                answer::not_allowed(methods)
            }
            Found::Missing => answer::refused(Fault::NotFound),
        };
        self.requests.answered(route, response.status().as_u16(), began.elapsed());
        response
    }

    /// A path as the routes name it: without what the proxy in front may have left of its own.
    fn below_mount<'p>(&self, path: &'p str) -> &'p str {
        match path.strip_prefix(self.mount.as_str()) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => path,
        }
    }

    /// Counts a refused beacon and notes it for the log.
    pub fn refuse(&self, site: Option<SiteId>, reason: Reason) {
        self.parts.metrics.refused(reason);
        self.refusals.note(&self.parts.sites.load(), site, reason, self.parts.clock.now());
    }

    /// Writes the log of refusals for as long as it is polled.
    pub async fn report_refusals(&self) {
        loop {
            tokio::time::sleep(REFUSALS_EVERY).await;
            self.refusals.write_due(&self.parts.sites.load(), self.parts.clock.now());
        }
    }

    /// Writes what is left of it.
    pub fn report_rest(&self) {
        self.refusals.write_rest(&self.parts.sites.load());
    }
}
