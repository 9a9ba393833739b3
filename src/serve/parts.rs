//! What the handlers are given, and the settings of the listeners.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::answer::names::Names;
use super::crowds::Crowds;
use super::live;
use super::proxies::SeenProxies;
use super::refusals::Refusals;
use super::shown::{hour::Hour, labels::Languages};
use crate::clock::Clock;
use crate::ingest::{Proxies, Rates, Robots};
use crate::metrics::Metrics;
use crate::sessions::Sessions;
use crate::sites::{Hours, Registry};
use crate::totals::Totals;

/// Settings of the listeners.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where pages and readers come in.
    pub listen: SocketAddr,
    /// Where operators come in: metrics and probes.
    pub admin_listen: SocketAddr,
    /// Names, or ends of names that begin with a dot, under which operators come in, besides addresses and names
    /// without a dot.
    pub admin_hosts: Vec<String>,
    /// Most open connections of the public listener; a further one is closed at once.
    pub max_connections: usize,
    /// The most of them of one client's address.
    pub max_connections_per_address: usize,
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
    pub live: live::Config,
    /// The path below which browsers reach the public listener: empty, or `/` and what follows it, without
    /// a slash at its end. Requests may come with it, or without where a proxy has taken it off.
    pub mount: String,
}

/// Settings that a reload changes, beside the sites.
#[derive(Clone, Debug)]
pub struct Lists {
    /// The proxies that are trusted to tell the client's address.
    pub proxies: Proxies,
    /// Networks of which an address may hold as many connections and live readers as it likes.
    pub exempt: Vec<IpNet>,
    /// What robots are known by.
    pub robots: Robots,
    /// The labels of the footer block, by language.
    pub languages: Languages,
    /// How often a client is taken.
    pub limits: Rates,
}

impl Lists {
    /// A client's address, if there is a limit to what it may hold. Behind a trusted proxy's there are many clients.
    pub fn counted(&self, address: IpAddr) -> Option<IpAddr> {
        let address = address.to_canonical();
        let is_exempt = self.exempt.iter().any(|network| network.contains(&address));
        (!is_exempt && !self.proxies.trusts(address)).then_some(address)
    }
}

/// What is kept, where and how long, as far as settings decide it that take effect at a start.
pub struct Kept {
    /// The kind of store, in a word.
    pub store: &'static str,
    /// Whether views are written to a journal.
    pub has_journal: bool,
    /// How long batches stay in the outbox, seconds.
    pub outbox_s: u64,
    /// How long a session lasts without a sign, seconds.
    pub visit_s: u64,
    /// How many days the days of pages stay.
    pub page_days: u64,
}

/// What the handlers work with.
pub struct Parts {
    /// The time.
    pub clock: Clock,
    /// The registered sites.
    pub sites: Arc<Registry>,
    /// The names of page script and beacon.
    pub names: Names,
    /// The public listener's URL as browsers see it.
    pub base: String,
    /// The lists in force.
    pub lists: ArcSwap<Lists>,
    /// The running hour of each site, in words.
    pub hours: Hours<Hour>,
    /// Who is online.
    pub sessions: Arc<Sessions>,
    /// The totals.
    pub totals: Arc<Totals>,
    /// All series.
    pub metrics: Arc<Metrics>,
    /// What is kept, and how long.
    pub kept: Kept,
    /// The settings in force, as `print-config` prints them.
    pub settings: ArcSwap<String>,
    /// Whether the visitors of the last hour can be so few.
    pub crowds: Crowds,
    /// The proxies that requests come through.
    pub proxies: SeenProxies,
    /// The refusals of the last hour.
    pub refusals: Refusals,
    /// False while the service starts and stops.
    pub ready: Arc<AtomicBool>,
}
