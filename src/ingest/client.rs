//! The client's address: that of the socket's peer, or the one that a trusted proxy names.
//!
//! Each proxy appends the address it was called from, so the header is read from its right end: while an
//! address is trusted, the one to its left is believed. The first address that is not trusted is the client.
//! What is further left was written by that client, and is ignored.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderName};
use ipnet::IpNet;

/// The client of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address; IPv4-mapped IPv6 is shown as IPv4.
    pub address: IpAddr,
    /// The peer is not trusted, yet it sent the forwarding header (which was ignored).
    pub ignored_header: bool,
}

words! {
    /// Where a client's address came from.
    pub enum ClientSource {
        /// The socket: nothing in between named another.
        Peer = "peer",
        /// The client header of a trusted proxy.
        Header = "header",
        /// The socket, though its peer sent the client header: it is not in `trusted_proxies`.
        IgnoredHeader = "ignored-header",
        /// It is that of a trusted proxy, which named nobody: all its readers are one visitor.
        Proxy = "proxy",
    }
}

/// How the one configured client header is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientHeader {
    /// A comma-separated list of addresses, nearest last (`x-forwarded-for`), or one address
    /// (`x-real-ip`, `cf-connecting-ip`).
    List(HeaderName),
    /// RFC 7239 `forwarded`.
    Forwarded,
    /// No header: the peer is the client.
    None,
}

/// The proxies that are believed when they name the client.
#[derive(Clone, Debug)]
pub struct Proxies {
    /// The one header that is read.
    pub header: ClientHeader,
    /// Networks of trusted proxies.
    pub trusted: Vec<IpNet>,
}

impl Proxies {
    /// Finds the client: if the peer is trusted, the rightmost address in the header that is not; else the
    /// peer. At an address that cannot be read, the last good one is taken.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Client {
        let peer = peer.to_canonical();
        let name = match &self.header {
            ClientHeader::List(name) => name,
            ClientHeader::Forwarded => &FORWARDED,
            ClientHeader::None => return Client { address: peer, ignored_header: false },
        };
        if !self.trusts(peer) {
            return Client { address: peer, ignored_header: headers.contains_key(name) };
        }
        let values = headers.get_all(name).iter().rev().map(|value| value.as_bytes());
        // An element without anything in it is none (RFC 9110, 5.6.1).
        let is_said = |element: &&[u8]| !element.trim_ascii().is_empty();
        let address = match self.header {
            ClientHeader::Forwarded => {
                let elements = values.flat_map(|value| divided(value, b','));
                self.walk(peer, elements.filter(is_said).map(forwarded_for))
            }
            _ => {
                let elements = values.flat_map(|value| value.rsplit(|b| *b == b','));
                self.walk(peer, elements.filter(is_said).map(node))
            }
        };
        Client { address, ignored_header: false }
    }

    /// Where the address of a client came from, which was found for this peer.
    pub fn source(&self, peer: IpAddr, client: Client) -> ClientSource {
        match client {
            Client { ignored_header: true, .. } => ClientSource::IgnoredHeader,
            Client { address, .. } if address != peer.to_canonical() => ClientSource::Header,
            Client { address, .. } if self.header != ClientHeader::None && self.trusts(address) => {
                ClientSource::Proxy
            }
            _ => ClientSource::Peer,
        }
    }

    /// Whether an address is a trusted proxy's.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// From the nearest hop outwards.
    fn walk(&self, peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut last_good = peer;
        for hop in hops {
            let Some(address) = hop else { break };
            last_good = address;
            if !self.trusts(address) {
                break;
            }
        }
        last_good
    }
}

/// The pieces between separators, from the right. One in quotes is no separator.
fn divided(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    value.rsplit(move |b| {
        quoted ^= *b == b'"';
        *b == separator && !quoted
    })
}

/// The address of the `for` of an element, if it has exactly one.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    for pair in divided(element, b';').map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_at_checked(pair.iter().position(|b| *b == b'=')?)?;
        if name.eq_ignore_ascii_case(b"for") {
            if found.is_some() {
                return None;
            }
            found = value.get(1..);
        }
    }
    let value = found?;
    node(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
}

/// An address with or without a port: `1.2.3.4`, `1.2.3.4:567`, `::1`, `[::1]`, `[::1]:80`. The zone of an IPv6 address,
/// `fe80::1%eth0`, is dropped: it is a name of the proxy's for one of its interfaces.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    // Nearly always it is one of these, and nothing beside it.
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Some(IpAddr::V4(address));
    }
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let port_is_good = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return v6(address).filter(|_| port_is_good);
    }
    match text.split_once(':') {
        Some((address, port)) if is_port(port) && address.contains('.') => {
            address.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
        }
        _ => v6(text),
    }
}

fn v6(text: &str) -> Option<IpAddr> {
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    address.parse::<Ipv6Addr>().ok().map(|v6| v6.to_canonical())
}

/// A port's number, or RFC 7239's hidden one (`_` and a token).
fn is_port(text: &str) -> bool {
    let hidden = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    match text.strip_prefix('_') {
        Some(name) => hidden(name),
        None => text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok(),
    }
}

#[cfg(test)]
mod tests;
