//! Variables that are no settings, though their names begin like those of settings.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::values::as_written;

/// Whether a variable is one that Kubernetes or Docker makes for a service whose name begins with `footfall`:
/// `FOOTFALL_SERVICE_HOST` and with it `…_SERVICE_PORT` and `…_SERVICE_PORT_HTTP`, `FOOTFALL_PORT`,
/// `FOOTFALL_PORT_8080_TCP`, `…_TCP_PROTO`, `…_TCP_PORT`, `…_TCP_ADDR`. Their values tell them from keys that
/// are misspelt.
pub(super) fn is_made_for_a_service(name: &str, value: &str, env: &BTreeMap<String, String>) -> bool {
    let is_number = |text: &str| as_written::<u16>(text).is_some();
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
    let is_url = |text: &str| ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme));
    let is_protocol = |text: &str| ["tcp", "udp", "sctp"].contains(&text);
    let of_service = |service: &str, rest: &str| match rest {
        "HOST" => is_address(value),
        _ if rest == "PORT" || rest.starts_with("PORT_") => {
            is_number(value)
                && env.get(&format!("{service}_SERVICE_HOST")).is_some_and(|host| is_address(host))
        }
        _ => false,
    };
    let of_port = |rest: &str| match rest.split('_').collect::<Vec<_>>()[..] {
        [""] => is_url(value),
        ["", number, protocol, ref rest @ ..]
            if is_number(number) && is_protocol(&protocol.to_ascii_lowercase()) =>
        {
            match rest {
                [] => is_url(value),
                ["PROTO"] => is_protocol(value),
                ["PORT"] => is_number(value),
                ["ADDR"] => is_address(value),
                _ => false,
            }
        }
        _ => false,
    };
    let split = |word: &str| {
        name.match_indices(word).map(|(at, word)| (&name[..at], &name[at + word.len()..])).collect::<Vec<_>>()
    };
    split("_SERVICE_").iter().any(|(service, rest)| of_service(service, rest))
        || split("_PORT").iter().any(|(_, rest)| of_port(rest))
}
