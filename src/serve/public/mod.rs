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
mod privacy;
pub mod script;
mod widget;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::ACCEPT_ENCODING;
use hyper::{Method, Request};
use tokio::time::Instant;

use self::context::{Public, ReadRequest, Reply, bearer};
use super::answer::{
    self, Body, Fault, Response,
    routes::{POST, READ, Route, Routes, Target},
};
use super::parts::{Config, Parts};
use crate::ingest::Reason;
use crate::metrics::Requests;
use crate::sites::{ReadKind, Site};

#[derive(Clone, Copy)]
pub enum PublicHandler {
    /// `POST` of a beacon; its future lives in the connection, without a box.
    Beacon,
    Gif,
    Read(Read),
}

#[derive(Clone, Copy)]
pub enum Read {
    /// Something of a site, for those whom the site lets read it: no such handler is called for others.
    OfSite(ReadKind, fn(ReadRequest<'_>, &Arc<Site>) -> Result<Reply, Fault>),
    /// Something that is not a site's, or that asks for a secret of its own.
    Own(fn(ReadRequest<'_>) -> Result<Reply, Fault>),
}

use PublicHandler::{Beacon, Gif};
use Read::{OfSite, Own};
use ReadKind::{Badge, Counters, Live, Pages, Widget};

pub const ROUTES: &[Route<PublicHandler>] = &[
    Route { path: "/api/v1/beacon", methods: POST, handler: Beacon },
    Route { path: "/api/v1/beacon.gif", methods: READ, handler: Gif },
    read("/api/v1/sites/{site}/counters", OfSite(Counters, counters::counters)),
    read("/api/v1/sites/{site}/live", OfSite(Live, live::live)),
    read("/footfall.{file}", Own(script::script)),
    read("/api/v1/sites/{site}/pages", OfSite(Pages, counters::pages)),
    read("/widget/{site}", OfSite(Widget, widget::widget)),
    read("/widget.css", Own(widget::stylesheet)),
    read("/badge/{site}.svg", OfSite(Badge, badge::badge)),
    read("/newsroom/{site}", Own(newsroom::newsroom)),
    read("/privacy", Own(privacy::privacy)),
    read("/", Own(demo::entrance)),
    read("/demo", Own(demo::article)),
    read("/demo/{article}", Own(demo::article)),
    read("/demo.css", Own(demo::stylesheet)),
    read("/demo.js", Own(demo::script)),
];

const fn read(path: &'static str, handler: Read) -> Route<PublicHandler> {
    Route { path, methods: READ, handler: PublicHandler::Read(handler) }
}

impl Read {
    /// Reads, where the asker may; and whether nobody else may be shown the answer.
    fn of(self, request: ReadRequest<'_>) -> (Result<Reply, Fault>, bool) {
        let (kind, handler) = match self {
            Own(handler) => return (handler(request), false),
            OfSite(kind, handler) => (kind, handler),
        };
        let sites = request.public.parts.sites.load();
        let Some(site) = sites.named(request.name) else {
            return (Err(Reason::UnknownSite.into()), false);
        };
        let may_read = site.readers.may_read(kind, bearer(&request.headers));
        let reply = if may_read { handler(request, site) } else { Err(Fault::Unauthorized) };
        (reply, !site.readers.kept.is_empty())
    }
}

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
            Target::Handler(PublicHandler::Read(read), name) => {
                let accepted = head.headers.get(ACCEPT_ENCODING).cloned();
                let request = ReadRequest { public, peer, uri: &head.uri, name, headers: head.headers };
                let (reply, is_private) = read.of(request);
                let mut response = match reply {
                    Ok(Reply::Now(response)) => response,
                    Ok(Reply::Later(response)) => response.await,
                    Err(fault) => answer::refused(fault),
                };
                if is_private {
                    answer::keep_private(&mut response);
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_of_a_site_is_read_by_its_rule() {
        let mut of_sites = Vec::new();
        for Route { path, handler, .. } in ROUTES.iter().filter(|route| route.path.contains("{site}")) {
            match handler {
                PublicHandler::Read(OfSite(kind, _)) => of_sites.push(kind.word()),
                // It has a token of its own.
                _ => assert_eq!(*path, "/newsroom/{site}"),
            }
        }
        of_sites.sort_unstable();
        let mut all = ReadKind::WORDS.map(|(word, _)| word);
        all.sort_unstable();
        assert_eq!(of_sites, all, "each word of the configuration is that of one route");
    }
}
