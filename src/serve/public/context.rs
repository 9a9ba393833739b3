//! What the public handlers are given, and what they give back.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, Uri};

use crate::clock::OnceAMinute;
use crate::ingest::{Limits, Refusal};
use crate::serve::answer::Response;
use crate::serve::live::Hub;
use crate::serve::parts::{Config, Parts};
use crate::serve::shown::prefix::BodyPrefixes;

/// How often it is looked whether lines of the log of refusals are due.
const REFUSALS_EVERY: Duration = Duration::from_secs(5);

/// What the public handlers work with.
pub struct Public {
    pub parts: Arc<Parts>,
    pub config: Config,
    pub prefixes: BodyPrefixes,
    pub live: Arc<Hub>,
    pub limits: Limits,
    /// When the warning that a client header is ignored is due.
    pub ignored_header: OnceAMinute,
}

/// A request without a body.
pub struct ReadRequest<'a> {
    pub public: &'a Arc<Public>,
    pub peer: IpAddr,
    pub uri: &'a Uri,
    /// What is in the path in place of the route's name in braces.
    pub name: &'a str,
    pub headers: HeaderMap,
}

impl<'a> ReadRequest<'a> {
    pub fn query(&self) -> &'a str {
        self.uri.query().unwrap_or_default()
    }
}

/// The token that a request shows (RFC 6750, 2.1).
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
}

pub enum Reply {
    /// The answer, from memory.
    Now(Response),
    /// The answer, once something is waited for.
    Later(Pin<Box<dyn Future<Output = Response> + Send>>),
}

impl Public {
    pub fn new(config: Config, parts: Arc<Parts>) -> Self {
        Public {
            prefixes: BodyPrefixes::new(parts.sites.load().room()),
            live: Arc::new(Hub::new(config.live.clone(), parts.metrics.clone())),
            limits: Limits::new(parts.clock.now()),
            ignored_header: OnceAMinute::default(),
            parts,
            config,
        }
    }

    /// A path that is no route's, as the routes name it: without the mount, which a proxy may have left in it.
    pub fn below_mount<'p>(&self, path: &'p str) -> &'p str {
        match path.strip_prefix(self.config.mount.as_str()) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => path,
        }
    }

    /// Counts a beacon that was refused or left out, and notes it for the log.
    pub fn refuse(&self, refusal: Refusal) {
        let (parts, now) = (&self.parts, self.parts.clock.now());
        parts.metrics.sites.refused(refusal.site, refusal.reason);
        if let Some((site, hour)) = refusal.site.zip(refusal.left_out_in) {
            parts.totals.leave_out(site, &hour, refusal.reason, now);
        }
        parts.refusals.note(&parts.sites.load(), refusal, now);
    }

    /// Writes the log of refusals for as long as it is polled.
    pub async fn report_refusals(&self) {
        loop {
            tokio::time::sleep(REFUSALS_EVERY).await;
            self.parts.refusals.write_due(&self.parts.sites.load(), self.parts.clock.now());
        }
    }

    /// Writes what is left of it: the service stops.
    pub fn report_remaining_refusals(&self) {
        self.parts.refusals.write_remaining(&self.parts.sites.load());
    }
}
