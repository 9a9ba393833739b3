//! Settings that do not fit one another.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use crate::ingest::ClientHeader;
use crate::sites::{Readers, Site, Sites};
use crate::totals::{self, REMEMBER_MS, StoreUrl, Sync};
use crate::{serve, sessions};

/// The settings of each part.
pub(super) struct Parts<'a> {
    pub serve: &'a serve::Config,
    pub sessions: &'a sessions::Config,
    pub totals: &'a totals::Config,
}

/// Networks and paths that a request does not come from or to as they say: whether that is so, and how.
pub(super) fn of_addresses(
    serve: &serve::Config,
    changed: impl Fn(&str) -> bool,
) -> [(bool, &'static str); 5] {
    let proxies = &serve.lists.proxies;
    // Addresses of IPv4 are looked for as such, in whatever form they come.
    let ipv4_in_ipv6 =
        |network: &IpNet| network.contains(&IpAddr::V6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()));
    let all_ipv4 = IpNet::from(Ipv4Net::default());
    // The widest networks that belong to one owner have 8 bits (IPv4) and 7 (those of IPv6 for private use).
    let is_too_wide = |network: &IpNet| network.prefix_len() < if network.addr().is_ipv4() { 8 } else { 7 };
    [
        (
            proxies.trusted.iter().any(is_too_wide),
            "trusted_proxies holds a network of strangers: any client can name any address as its own, also through \
             a proxy of yours; name the networks of your proxies alone, such as \"10.0.0.0/8\"",
        ),
        (
            proxies.header == ClientHeader::None && changed("trusted_proxies"),
            "trusted_proxies has no effect while client_header is \"none\"",
        ),
        (
            proxies.trusted.is_empty() && proxies.header != ClientHeader::None && changed("client_header"),
            "client_header has no effect while trusted_proxies is empty",
        ),
        (
            proxies.trusted.iter().any(ipv4_in_ipv6) && !proxies.trusted.contains(&all_ipv4),
            "trusted_proxies has a network of IPv6 around that of all IPv4 addresses (::ffff:0:0/96): it holds \
             addresses of IPv6 alone; name networks of IPv4 too, if they were meant",
        ),
        (
            serve::is_hidden_below(&serve.mount, &serve.names),
            "the path of public_url begins like a path of the service's own: what comes with it is taken for \
             that; have the proxy take it off, or choose another",
        ),
    ]
}

/// Bounds of which one makes another one useless: whether that is so, and how.
pub(super) fn contradictions(parts: &Parts<'_>, stop_timeout: Duration) -> [(bool, &'static str); 6] {
    let Parts { serve, sessions, totals } = parts;
    // Each session begins with an id, which is remembered for so long.
    let share = (REMEMBER_MS as f64 / sessions.visit_timeout.as_millis() as f64).min(1.0);
    let ids_of_sessions = sessions.max_sessions as f64 * share;
    [
        (
            serve.live.max_readers >= serve.max_connections,
            "live.max_readers is not below http.max_connections: readers of live counters can take every \
             connection, and beacons find none",
        ),
        (
            totals.outbox.max_bytes < totals.journal.max_bytes && totals.journal.sync != Sync::Memory,
            "outbox.max_bytes is below journal.max_bytes: a start brings what the journal holds into the \
             outbox, which may have no room for it",
        ),
        (
            totals.outbox.retention < totals.store.flush_interval,
            "outbox.retention is shorter than store.flush_interval: applied batches are gone before the next \
             flush, and a store that went back is not brought up to date",
        ),
        (
            (totals.max_ids as f64) < ids_of_sessions,
            "totals.max_ids is too small for sessions.max_sessions: that many sessions begin with more views \
             than are remembered, and one that is sent twice counts twice",
        ),
        (
            totals.store.timeout >= stop_timeout && totals.store.url != StoreUrl::Embedded,
            "stop_timeout is not longer than store.timeout: a stop is over before the store has failed to \
             answer, and brings nothing to it",
        ),
        (
            serve.body_timeout > stop_timeout,
            "stop_timeout is shorter than http.body_timeout: a stop cuts off requests that may still come",
        ),
    ]
}

/// Bounds that sites share, and of which no part is left for each.
pub(super) fn without_parts(parts: &Parts<'_>, sites: usize) -> impl Iterator<Item = String> + use<> {
    let Parts { serve, sessions, totals } = parts;
    let shared = [
        ("sessions.max_sessions", sessions.max_sessions),
        ("totals.max_ids", totals.max_ids),
        ("live.max_readers", serve.live.max_readers),
    ];
    let without = shared.into_iter().filter(move |(_, bound)| *bound > 0 && bound / 2 < sites);
    without.map(|(key, _)| {
        format!("{key} is below two for each site: no part of it is kept for a site, and one can take all")
    })
}

/// Sites that have a host without its `www`, whose beacons are refused.
pub(super) fn without_www(sites: &Sites) -> impl Iterator<Item = String> {
    let is_known = |host: &str| sites.iter().any(|site| site.takes_from(host));
    let hosts = sites.iter().flat_map(|site| site.hosts.iter().map(move |host| (site, host)));
    hosts.filter(move |(_, host)| is_apex(host) && !is_known(&format!("www.{host}"))).map(|(site, host)| {
        format!(
            "site {} has the host {host} and not www.{host}, whose beacons are refused: add it to hosts if there \
             are pages under it",
            site.key
        )
    })
}

/// Whether a host is probably the name that was registered: `bao.vn`, `bao.com.vn`.
fn is_apex(host: &str) -> bool {
    // An address of IPv4 ends with a number, and names of examples are nobody's (RFC 6761).
    let is_registered = |end: &str| {
        end.starts_with(|c: char| c.is_ascii_alphabetic()) && !["example", "invalid", "test"].contains(&end)
    };
    match host.split('.').collect::<Vec<_>>()[..] {
        [name, end] => !name.contains('*') && is_registered(end),
        [name, kind, country] => !["*", "www"].contains(&name) && kind.len() <= 3 && country.len() == 2,
        _ => false,
    }
}

/// Reads that nobody is let do, and tokens that nobody needs.
pub(super) fn of_readers(Site { key, readers: Readers { kept, tokens }, .. }: &Site) -> Option<String> {
    match (kept.is_empty(), tokens.is_empty()) {
        (false, true) => Some(format!(
            "site {key} keeps reads for those who have a token, and read_tokens is empty: nobody reads them"
        )),
        (true, false) => {
            Some(format!("site {key} has read_tokens, which nobody needs: all that is read of it is public"))
        }
        _ => None,
    }
}
