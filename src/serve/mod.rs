//! Serves: HTTP and nothing that is not HTTP.
//!
//! A connection enters by `accept`, a request finds its handler in the tables of `routes`, and
//! `public` (or `admin`) calls it: `beacon` takes beacons, `read` answers figures, `live` goes on answering
//! them as they change, `widget` and `badge` show them to people, `demo` is a page that uses all of it.
//! `reply` knows what
//! every answer carries.
//!
//! hyper refuses by itself, before a handler sees it, what is no HTTP: counted by kind only. Of a
//! request with both `Transfer-Encoding` and `Content-Length` it hands on the first alone and closes
//! the connection after the answer (RFC 9112, 6.3), so nothing can be smuggled behind it. An
//! `Upgrade` is ignored: the connection stays HTTP/1.1, as clients that merely offer h2c expect.

mod admin;
mod answer;
mod conn;
mod live;
mod overview;
mod public;
mod shown;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;

pub use admin::control::{ControlSocket, SOCKET as CONTROL_SOCKET, at as socket_at, serve_control};
pub use conn::{Listener, bind};
pub use live::Config as LiveConfig;
pub use public::demo::SITE as DEMO_SITE;
pub use public::script::{LATEST, Names, integrity};
pub use shown::labels::{Languages, Words};

use crate::clock::Clock;
use crate::ingest::{Proxies, Spans};
use crate::metrics::Metrics;
use crate::sessions::Sessions;
use crate::sites::Registry;
use crate::totals::Totals;

/// Most connections of the admin listener: a few scrapers, probes and people.
const MAX_ADMIN_CONNECTIONS: usize = 128;

/// Settings of the listeners.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where pages and readers come in.
    pub listen: SocketAddr,
    /// Where operators come in: metrics and probes.
    pub admin_listen: SocketAddr,
    /// Most open connections of the public listener; a further one is closed at once.
    pub max_connections: usize,
    /// Longest time until a request's head is complete, an idle connection's wait for it included.
    pub header_timeout: Duration,
    /// Longest time until a request's body is complete.
    pub body_timeout: Duration,
    /// A connection whose peer takes nothing of an answer for this long is closed.
    pub write_timeout: Duration,
    /// What a reload changes.
    pub lists: Lists,
    /// Further names of the page script and the beacon.
    pub names: Names,
    /// The live counters.
    pub live: LiveConfig,
    /// The path below which browsers reach the public listener: empty, or `/` and what follows it, without
    /// a slash at its end. Requests may come with it, or without where a proxy has taken it off.
    pub mount: String,
}

/// Settings that a reload changes, beside the sites.
#[derive(Clone, Debug)]
pub struct Lists {
    /// Whose word on the client's address is taken.
    pub proxies: Proxies,
    /// The words of the footer block.
    pub languages: Languages,
}

/// What the handlers work with.
pub struct Parts {
    /// The time.
    pub clock: Clock,
    /// The registered sites.
    pub sites: Arc<Registry>,
    /// The lists in force.
    pub lists: ArcSwap<Lists>,
    /// The civil hours of the sites.
    pub spans: Spans,
    /// Who is online.
    pub sessions: Arc<Sessions>,
    /// The totals.
    pub totals: Arc<Totals>,
    /// All series.
    pub metrics: Arc<Metrics>,
    /// False while the service starts and stops.
    pub ready: Arc<AtomicBool>,
}

/// Serves pages and readers until `stop`, then lets open requests end for at most `drain`.
///
/// # Errors
/// The listener cannot be watched by this runtime.
pub async fn serve_public(
    listener: Listener,
    config: Config,
    parts: Arc<Parts>,
    stop: impl Future<Output = ()>,
    drain: Duration,
) -> io::Result<()> {
    let door = conn::Door {
        max_connections: config.max_connections,
        header_timeout: config.header_timeout,
        write_timeout: config.write_timeout,
        public: true,
        clock: parts.clock.clone(),
        metrics: parts.metrics.clone(),
    };
    let public = Arc::new(public::context::Public::new(&config, parts));
    let service = |peer, handover: conn::takeover::Handover| {
        let public = public.clone();
        service_fn(move |request: Request<Incoming>| {
            let (public, handover, version) = (public.clone(), handover.clone(), request.version());
            async move { handover.pass(public.answer(peer, request).await, version) }
        })
    };
    let stop = async {
        stop.await;
        public.live.end();
    };
    let served = tokio::select! {
        served = door.serve(listener, service, stop, drain) => served,
        () = public.report_refusals() => Ok(()),
        () = public.live.tell(&public) => Ok(()),
    };
    public.report_rest();
    served
}

/// Serves operators until `stop`, then lets open requests end for at most `drain`.
///
/// # Errors
/// The listener cannot be watched by this runtime.
pub async fn serve_admin(
    listener: Listener,
    config: Config,
    parts: Arc<Parts>,
    stop: impl Future<Output = ()>,
    drain: Duration,
) -> io::Result<()> {
    let door = conn::Door {
        max_connections: MAX_ADMIN_CONNECTIONS,
        header_timeout: config.header_timeout,
        write_timeout: config.write_timeout,
        public: false,
        clock: parts.clock.clone(),
        metrics: parts.metrics.clone(),
    };
    let admin = Arc::new(admin::Admin::new(parts));
    let service = |_peer, handover: conn::takeover::Handover| {
        let admin = admin.clone();
        service_fn(move |request: Request<Incoming>| {
            let (admin, handover, version) = (admin.clone(), handover.clone(), request.version());
            async move { handover.pass(admin.answer(&request).await, version) }
        })
    };
    door.serve(listener, service, stop, drain).await
}
