//! Each reads the text of one setting: the value, or what is wrong with the text. No I/O.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use hyper::header::HeaderName;
use ipnet::IpNet;
use url::{Host, Url};

use super::faults::{Complaint, without_password};
use crate::calendar::Zone;
use crate::ingest::ClientHeader;
use crate::serve::{Names, is_routed};
use crate::sites::{SiteKey, Token, TokenHash};
use crate::totals::{HIDDEN, StoreUrl, UrlFault};

pub(super) type Read<T> = Result<T, Complaint>;

/// The value, or the complaint if there is none.
pub(super) fn or_complaint<T>(
    value: Option<T>,
    problem: impl Into<String>,
    remedy: impl Into<String>,
) -> Read<T> {
    value.map_or_else(|| Complaint::err(problem, remedy), Ok)
}

/// The text itself if it is good, or the complaint.
pub(super) fn text_if(
    text: &str,
    good: bool,
    problem: impl Into<String>,
    remedy: impl Into<String>,
) -> Read<String> {
    or_complaint(good.then(|| text.to_owned()), problem, remedy)
}

/// A number in the one way that it is written: without a sign before it, and zeros.
pub(super) fn as_written<T: FromStr + ToString>(text: &str) -> Option<T> {
    text.parse().ok().filter(|number: &T| number.to_string() == text)
}

/// One of the named choices.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Read<T> {
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    or_complaint(chosen, format!("not one of {}", names.join(", ")), "choose one")
}

/// A duration with a unit, from `least` to `most` (written the same way).
pub(super) fn duration(text: &str, least: &str, most: &str) -> Read<Duration> {
    let remedy = r#"write it like "500ms", "10s", "30m" or "72h""#;
    let read =
        |text: &str| or_complaint(humantime::parse_duration(text).ok(), "not a duration with a unit", remedy);
    between(text, least, most, read)
}

/// A duration of whole seconds, where parts of them would be dropped.
pub(super) fn seconds(text: &str, least: &str, most: &str) -> Read<Duration> {
    let whole = |duration: &Duration| duration.subsec_nanos() == 0;
    let read = duration(text, least, most)?;
    or_complaint(Some(read).filter(whole), "not whole seconds", r#"write it like "10s" or "30m""#)
}

/// A size with a unit, from `least` to `most` (written the same way), in bytes.
pub(super) fn size(text: &str, least: &str, most: &str) -> Read<u64> {
    let read = |text: &str| {
        let has_unit = text.ends_with(|last: char| last.is_ascii_alphabetic());
        let size = text.parse::<ByteSize>().ok().filter(|_| has_unit).map(|size| size.as_u64());
        or_complaint(size, "not a size with a unit", r#"write it like "64 MiB" or "1 GiB""#)
    };
    between(text, least, most, read)
}

fn between<T: PartialOrd + Copy>(
    text: &str,
    least: &str,
    most: &str,
    read: impl Fn(&str) -> Read<T>,
) -> Read<T> {
    match (read(text)?, read(least), read(most)) {
        (value, Ok(low), Ok(high)) if (low..=high).contains(&value) => Ok(value),
        _ => out_of_range(least, most),
    }
}

/// A whole number from `least` to `most`.
pub(super) fn number(value: i64, least: i64, most: i64) -> Read<usize> {
    match usize::try_from(value) {
        Ok(number) if (least..=most).contains(&value) => Ok(number),
        _ => out_of_range(&least.to_string(), &most.to_string()),
    }
}

fn out_of_range<T>(least: &str, most: &str) -> Read<T> {
    Complaint::err("out of range", format!("choose a value from {least} to {most}"))
}

/// The address and port of a listener.
pub(super) fn listener(text: &str) -> Read<SocketAddr> {
    or_complaint(
        text.parse().ok(),
        "not an address with a port",
        r#"write it like "127.0.0.1:8080", "0.0.0.0:8080" or "[::1]:8080""#,
    )
}

/// Empty, or an http(s) URL without query and fragment; a slash at its end is dropped.
pub(super) fn public_url(text: &str) -> Read<String> {
    let whole = |url: &Url| {
        let unsigned = url.username().is_empty() && url.password().is_none();
        let bare = url.query().is_none() && url.fragment().is_none();
        matches!(url.scheme(), "http" | "https") && url.has_host() && unsigned && bare
    };
    let url = match text {
        "" => Some(String::new()),
        text => Url::parse(text).ok().filter(whole).map(|url| url.as_str().trim_end_matches('/').to_owned()),
    };
    or_complaint(
        url,
        "not an http or https URL without query",
        r#"write it like "https://stats.example.org", or leave it empty"#,
    )
}

/// A label: what readers are shown.
pub(super) fn label(text: &str) -> Read<String> {
    let good = !text.trim().is_empty() && text.chars().count() <= 64 && !text.contains(char::is_control);
    text_if(text, good, "not 1 to 64 characters of one line", "write what readers are to see")
}

/// What is written between groups of digits.
pub(super) fn group(text: &str) -> Read<String> {
    let good = text.chars().count() <= 1 && !text.contains(|c: char| c.is_control() || c.is_alphanumeric());
    text_if(text, good, "not one sign or none", r#"write ".", "," or a space"#)
}

/// A secret, or nothing.
pub(super) fn token(text: &str) -> Read<Option<Token>> {
    if text.is_empty() {
        return Ok(None);
    }
    if text == HIDDEN {
        let remedy = "write the text itself, or name its file in the variable …__NEWSROOM_TOKEN_FILE";
        return Complaint::err("stands where print-config hides a secret", remedy);
    }
    let remedy = "choose a long random text, such as `openssl rand -hex 16` prints";
    or_complaint(Token::new(text), "not 16 or more letters, digits, \"-\", \".\", \"_\" and \"~\"", remedy)
        .map(Some)
}

/// The hash of a token.
pub(super) fn token_hash(text: &str) -> Read<TokenHash> {
    let remedy = r#"write "sha256:" and the digits that `printf %s TOKEN | sha256sum` prints"#;
    or_complaint(TokenHash::read(text), "not sha256: and 64 hex digits", remedy)
}

/// The name of a directory.
pub(super) fn directory(text: &str) -> Read<String> {
    text_if(text, !text.trim().is_empty(), "empty", "name a directory")
}

/// A network in CIDR notation or one address. One of IPv4 in IPv6 form becomes IPv4, as the addresses that are
/// looked for in it do.
pub(super) fn network(text: &str) -> Read<IpNet> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let network = address.parse::<IpAddr>().ok().and_then(|address| match bits {
        None => Some(IpNet::from(address)),
        Some(bits) => IpNet::new(address, as_written(bits)?).ok(),
    });
    let canonical = |network: IpNet| match (network.addr().to_canonical(), network.prefix_len()) {
        (address @ IpAddr::V4(_), bits @ 96..) => IpNet::new(address, bits - 96).unwrap_or(network),
        _ => network,
    };
    or_complaint(
        network.map(|network| canonical(network.trunc())),
        format!("{text:?} is not a network"),
        r#"write it like "10.0.0.0/8" or "192.0.2.7""#,
    )
}

/// The headers in which CDNs that reach the service without a proxy of yours name the client.
const CLIENT_HEADERS: [(&str, &str); 4] = [
    ("akamai", "true-client-ip"),
    ("azure", "x-azure-clientip"),
    ("cloudflare", "cf-connecting-ip"),
    ("fastly", "fastly-client-ip"),
];

/// The header that names the client.
pub(super) fn client_header(text: &str) -> Read<ClientHeader> {
    let text = text.to_ascii_lowercase();
    let preset = CLIENT_HEADERS.iter().find(|(name, _)| *name == text);
    match preset.map_or(text.as_str(), |(_, header)| header) {
        "none" => Ok(ClientHeader::None),
        "forwarded" => Ok(ClientHeader::Forwarded),
        name => or_complaint(
            HeaderName::from_bytes(name.as_bytes()).ok().map(ClientHeader::List),
            "not the name of a header",
            r#"write "x-forwarded-for", "forwarded", another header's name, or "none""#,
        ),
    }
}

/// `embedded`, or the URL of a Redis server.
pub(super) fn store_url(text: &str) -> Read<StoreUrl> {
    let read = match text.parse() {
        // The service's own is in data_dir.
        Ok(StoreUrl::EmbeddedFile(_)) => Err(UrlFault::not_a_store()),
        read => read,
    };
    read.or_else(|UrlFault { problem, remedy }| Complaint::err(problem, remedy))
}

/// The key of a site.
pub(super) fn site_key(text: &str) -> Read<SiteKey> {
    or_complaint(SiteKey::new(text), "not a site's key", r#"use 1 to 32 of a-z, 0-9 and "-""#)
}

/// The page script's name, in place of `footfall`.
pub(super) fn script_name(text: &str) -> Read<String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let good = (1..=64).contains(&text.len()) && text.bytes().all(legal);
    text_if(text, good, "not a bare file name", r#"use 1 to 64 letters, digits, "-" and "_", like "stats""#)
}

/// The path of the beacon, without a slash at its start; not that of another route.
pub(super) fn beacon_path(text: &str) -> Read<String> {
    let first = text.split('/').next().unwrap_or_default();
    if is_routed(first) && text != Names::BEACON {
        return Complaint::err(format!("/{first} is another route's"), r#"choose another, like "collect""#);
    }
    text_if(
        text,
        text.len() <= 64 && text.split('/').all(|segment| script_name(segment).is_ok()),
        "not a path of letters, digits, \"-\" and \"_\"",
        r#"write it without a slash at its begin and end, like "collect""#,
    )
}

/// A site's host, or `*.` and what its hosts end with.
pub(super) fn site_host(text: &str) -> Read<String> {
    match text.strip_prefix("*.") {
        // More than one label, or it would be half of the world.
        Some(end) if end.trim_end_matches('.').contains('.') => host(end).map(|end| format!("*.{end}")),
        _ => host(text),
    }
}

/// A host in lower case and IDNA-encoded, as in a parsed URL.
pub(super) fn host(text: &str) -> Read<String> {
    let remedy = r#"write the bare host, like "www.example.org""#;
    let about = |problem: &str| format!("{:?} {problem}", without_password(text));
    if text.contains("://") {
        return Complaint::err(about("has a scheme"), remedy);
    }
    if text.contains('*') {
        return Complaint::err(
            about("is a pattern"),
            "list each host by its name, or those of a site as \"*.example.org\"",
        );
    }
    if let Ok(IpAddr::V6(address)) = text.parse() {
        return Ok(format!("[{address}]"));
    }
    let port = text.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    if port.is_some() {
        return Complaint::err(about("has a port"), remedy);
    }
    let host = Host::parse(text.strip_suffix('.').unwrap_or(text)).ok();
    or_complaint(host.map(|host| host.to_string()), about("is not a host"), remedy)
}

/// A host of the admin listener, or the end of several, which begins with a dot.
pub(super) fn admin_host(text: &str) -> Read<String> {
    match text.strip_prefix('.') {
        Some(end) => host(end).map(|end| format!(".{end}")),
        None => host(text),
    }
}

/// A host whose pages may send a site's beacons, `null`, or an origin of another scheme than the web's.
pub(super) fn origin(text: &str) -> Read<String> {
    let of_app = |(scheme, rest): (&str, &str)| {
        let is_scheme = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let is_host = rest.bytes().all(|b| b.is_ascii_graphic() && !b"/\\?#*@".contains(&b));
        is_scheme && is_host && !["", "http", "https"].contains(&&*scheme.to_ascii_lowercase())
    };
    match text {
        "null" => Ok(text.to_owned()),
        _ if text.split_once("://").is_some_and(of_app) => Ok(text.to_ascii_lowercase()),
        _ => site_host(text),
    }
}

/// A zone of the bundled database.
pub(super) fn zone(text: &str) -> Read<Zone> {
    or_complaint(
        Zone::named(text),
        "not a time zone of the IANA database",
        r#"write it like "Asia/Ho_Chi_Minh", "Europe/Paris" or "UTC""#,
    )
}

/// A BCP 47 language tag, by its shape.
pub(super) fn locale(text: &str) -> Read<String> {
    let (language, subtags) = text.split_once('-').map_or((text, None), |(l, rest)| (l, Some(rest)));
    let subtag = |tag: &str| (1..=8).contains(&tag.len()) && tag.bytes().all(|b| b.is_ascii_alphanumeric());
    let good = (2..=3).contains(&language.len())
        && language.bytes().all(|b| b.is_ascii_alphabetic())
        && subtags.is_none_or(|subtags| subtags.split('-').all(subtag));
    text_if(text, good, "not a BCP 47 language tag", r#"write it like "vi", "en" or "pt-BR""#)
}

/// A name of a URL's query.
pub(super) fn query_name(text: &str) -> Read<String> {
    let is_escape = |two: &str| two.len() == 2 && two.bytes().all(|b| b.is_ascii_hexdigit());
    // A name is compared with what the query's own means.
    let is_escaped = text.split('%').skip(1).any(|rest| rest.get(..2).is_some_and(is_escape));
    let good = !text.is_empty() && !text.contains(['&', '=', '#', '?', ' ', '+']) && !is_escaped;
    let remedy = r#"write the bare name, without %XX and "+", like "id""#;
    text_if(text, good, format!("{text:?} is not a query's name"), remedy)
}

/// Drops repeats and keeps the order.
pub(super) fn dedup(names: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_become_what_a_parsed_url_says() {
        for written in ["Example.ORG", "báo.vn", "例え.jp", "127.0.0.1", "localhost", "[::1]"] {
            let url = Url::parse(&format!("https://{written}:8443/x")).unwrap();
            assert_eq!(host(written).unwrap(), url.host_str().unwrap());
        }
        assert_eq!(host("::1").unwrap(), "[::1]");
        assert_eq!(host("example.org.").unwrap(), "example.org");
    }
}
