//! The public listener: where pages and readers come in.

pub mod badge;
mod beacon;
mod context;
mod counters;
pub mod demo;
mod dry_run;
mod known;
pub mod live;
mod newsroom;
pub mod script;
mod widget;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::ACCEPT_ENCODING;
use hyper::{Method, Request};
use tokio::time::Instant;

use self::context::{Public, ReadRequest, Reply};
use super::answer::{
    self, Body, Fault, Response,
    routes::{POST, READ, Route, Routes, Target},
};
use super::parts::{Config, Parts};
use crate::ingest::Reason;
use crate::metrics::Requests;

#[derive(Clone, Copy)]
pub enum PublicHandler {
    /// `POST` of a beacon; its future lives in the connection, without a box.
    Beacon,
    Gif,
    Read(fn(ReadRequest<'_>) -> Result<Reply, Fault>),
}

use PublicHandler::{Beacon, Gif, Read};

pub const ROUTES: &[Route<PublicHandler>] = &[
    Route { path: "/api/v1/beacon", methods: POST, handler: Beacon },
    Route { path: "/api/v1/beacon.gif", methods: READ, handler: Gif },
    Route { path: "/api/v1/sites/{site}/counters", methods: READ, handler: Read(counters::counters) },
    Route { path: "/api/v1/sites/{site}/live", methods: READ, handler: Read(live::live) },
    Route { path: "/footfall.{file}", methods: READ, handler: Read(script::script) },
    Route { path: "/api/v1/sites/{site}/pages", methods: READ, handler: Read(counters::pages) },
    Route { path: "/widget/{site}", methods: READ, handler: Read(widget::widget) },
    Route { path: "/widget.css", methods: READ, handler: Read(widget::stylesheet) },
    Route { path: "/badge/{site}.svg", methods: READ, handler: Read(badge::badge) },
    Route { path: "/newsroom/{site}", methods: READ, handler: Read(newsroom::newsroom) },
    Route { path: "/", methods: READ, handler: Read(demo::entrance) },
    Route { path: "/demo", methods: READ, handler: Read(demo::article) },
    Route { path: "/demo/{article}", methods: READ, handler: Read(demo::article) },
    Route { path: "/demo.css", methods: READ, handler: Read(demo::stylesheet) },
    Route { path: "/demo.js", methods: READ, handler: Read(demo::script) },
];

/// A path as the routes have theirs: without empty segments, single dots, and a slash at its end.
fn plainly_written(path: &str) -> String {
    let segments = path.split('/').filter(|segment| !matches!(*segment, "" | "."));
    format!("/{}", segments.collect::<Vec<_>>().join("/"))
}

pub struct PublicService {
    pub public: Arc<Public>,
    routes: Routes<PublicHandler>,
    requests: Requests,
}

impl PublicService {
    pub fn new(config: Config, parts: Arc<Parts>) -> Self {
        let routes = Routes::new(ROUTES);
        PublicService {
            requests: parts.metrics.requests.of("public", routes.paths()),
            public: Arc::new(Public::new(config, parts)),
            routes,
        }
    }

    pub async fn answer(self: Arc<Self>, peer: IpAddr, request: Request<Incoming>) -> Response {
        let began = Instant::now();
        let public = &self.public;
        let (head, body) = request.into_parts();
        let (asked, names) = (head.uri.path(), &public.config.names);
        let (path, below);
        path = names.standard(asked);
        let mut found = self.routes.find(&head.method, &path);
        if matches!(found.1, Target::Missing) {
            let plain = plainly_written(asked);
            below = names.standard(public.below_mount(&plain)).to_ascii_lowercase();
            found = self.routes.find(&head.method, &below);
        }
        let (route, target) = found;
        let response = match target {
            Target::Handler(Beacon, _) => {
                let is_dry = dry_run::is_asked(&head.uri);
                beacon::post(public, peer, is_dry, head.headers, body).await
            }
            Target::Handler(Gif, _) => beacon::gif(public, peer, head).await,
            Target::Handler(Read(handler), name) => {
                let accepted = head.headers.get(ACCEPT_ENCODING).cloned();
                let response =
                    match handler(ReadRequest { public, uri: &head.uri, name, headers: head.headers }) {
                        Ok(Reply::Now(response)) => response,
                        Ok(Reply::Later(response)) => response.await,
                        Err(fault) => answer::refused(fault),
                    };
                match response.body() {
                    // Of events there is the head alone.
                    Body::Events(_) if head.method == Method::HEAD => {
                        response.map(|_| Body::Whole(Bytes::new()))
                    }
                    _ => answer::pack(response, accepted.as_ref()),
                }
            }
            Target::Preflight(methods) => answer::preflight(methods, &head.headers),
            Target::NotAllowed(handler, methods) => {
                if matches!(handler, Beacon | Gif) {
                    public.refuse(Reason::MethodNotAllowed.into());
                }
                answer::not_allowed(answer::refused, methods)
            }
            Target::Missing => answer::refused_to(&head.headers, Fault::NotFound, demo::NOTHING),
        };
        self.requests.answered(route, response.status().as_u16(), began.elapsed());
        response
    }
}
