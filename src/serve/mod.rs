//! Serves: HTTP and nothing that is not HTTP.
//!
//! Connections come in by [`conn`]. A request finds its handler in the table of its listener, [`public`] or
//! [`admin`], and is answered in the forms of [`answer`]. What a reader is [`shown`] is written once for all
//! readers; [`live`] knows who follows it as it changes; [`overview`] is a page of it for people.
//!
//! hyper itself refuses what is no HTTP, before a handler sees it: that is counted by kind only. Of a
//! request with both `Transfer-Encoding` and `Content-Length` it reads the first alone and closes the
//! connection after the answer (RFC 9112, 6.3), so nothing can be smuggled behind it. A line of the head may end with
//! a line feed alone (2.2). An `Upgrade` is ignored: the connection stays HTTP/1.1, as clients that merely offer h2c expect.

mod addresses;
mod admin;
mod answer;
mod conn;
mod crowds;
mod live;
mod overview;
mod parts;
mod proxies;
mod public;
mod refusals;
mod shown;
#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request};

pub use admin::control::{ControlSocket, SOCKET as CONTROL_SOCKET, at as socket_at, serve_control};
pub use answer::{
    html::filled,
    names::{LATEST, Names},
};
pub use conn::{Listener, bind};
pub use live::Config as LiveConfig;
pub use parts::{Config, Kept, Lists, Parts};
pub use public::demo::SITE as DEMO_SITE;
pub use public::script::integrity;
pub use shown::labels::{Labels, Languages};

use self::addresses::Addresses;
use self::answer::routes::{Routes, Target};
use self::conn::Admission;
use self::{admin::AdminService, conn::Acceptor, public::PublicService};

/// Most connections of the admin listener: a few scrapers, probes and people.
pub const MAX_ADMIN_CONNECTIONS: usize = 128;

/// The longest that one of them may be idle: who asks has his request ready.
const ADMIN_HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a route of the public listener begins with this.
pub fn is_routed(first: &str) -> bool {
    public::ROUTES.iter().any(|route| route.path.split('/').nth(1) == Some(first))
}

/// Whether a path of the public listener, with this mount left before it, is that of another route.
pub fn is_hidden_below(mount: &str, names: &Names) -> bool {
    let routes = Routes::new(public::ROUTES);
    let own = [format!("/{}", names.beacon), format!("/{}.js", names.script)];
    let mut paths = routes.paths().map(str::to_owned).chain(own);
    let is_routed = |path: String| {
        let path = format!("{mount}{path}");
        !matches!(routes.find(&Method::GET, &names.standard(&path)).1, Target::Missing)
    };
    !mount.is_empty() && paths.any(is_routed)
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
    let (addresses, admitted) = (Addresses::new(config.max_connections_per_address), parts.clone());
    let admit = move |peer| addresses.take(admitted.lists.load().counted(peer));
    let acceptor = acceptor(&config, &parts, Admission::Bounded(config.max_connections, Box::new(admit)));
    let service = Arc::new(PublicService::new(config, parts));
    let answer = {
        let service = service.clone();
        move |peer: IpAddr, request: Request<Incoming>| service.clone().answer(peer, request)
    };
    let public = &service.public;
    let stop = async {
        stop.await;
        public.live.end();
    };
    let served = tokio::select! {
        served = acceptor.serve(listener, answer, stop, drain) => served,
        () = public.report_refusals() => Ok(()),
        () = public::live::tell(public) => Ok(()),
    };
    public.report_remaining_refusals();
    served
}

/// The paths of the admin listener.
#[cfg(test)]
pub fn admin_paths() -> impl Iterator<Item = &'static str> {
    admin::ROUTES.iter().map(|route| route.path)
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
    let mut acceptor = acceptor(&config, &parts, Admission::Newest(MAX_ADMIN_CONNECTIONS));
    acceptor.header_timeout = config.header_timeout.min(ADMIN_HEADER_TIMEOUT);
    let service = Arc::new(AdminService::new(config.admin_hosts, parts));
    let answer = move |_: IpAddr, request: Request<Incoming>| service.clone().answer(request);
    acceptor.serve(listener, answer, stop, drain).await
}

fn acceptor(config: &Config, parts: &Parts, admission: Admission) -> Acceptor {
    Acceptor {
        admission,
        header_timeout: config.header_timeout,
        write_timeout: config.write_timeout,
        clock: parts.clock.clone(),
        metrics: parts.metrics.clone(),
    }
}
