//! The text of a value becomes the value, or a complaint. Pure.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytesize::ByteSize;
use hyper::header::HeaderName;
use ipnet::IpNet;
use url::{Host, Url};

use super::faults::Complaint;
use crate::calendar::Zone;
use crate::ingest::ClientHeader;
use crate::serve::Names;
use crate::sites::{Signal, SiteKey, Token};

type Read<T> = Result<T, Complaint>;

/// One of the named choices.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Read<T> {
    let found = choices.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        Complaint { problem: format!("not one of {}", names.join(", ")), remedy: "choose one".into() }
    })
}

/// A duration with a unit, from `least` to `most` (written the same way).
pub(super) fn duration(text: &str, least: &str, most: &str) -> Read<Duration> {
    let parse = |text: &str| humantime::parse_duration(text).ok();
    match (parse(text), parse(least), parse(most)) {
        (Some(value), Some(low), Some(high)) if (low..=high).contains(&value) => Ok(value),
        (Some(_), ..) => out_of_range(least, most),
        (None, ..) => {
            Complaint::err("not a duration with a unit", r#"write it like "500ms", "10s", "30m" or "72h""#)
        }
    }
}

/// A size with a unit, from `least` to `most` (written the same way), in bytes.
pub(super) fn size(text: &str, least: &str, most: &str) -> Read<u64> {
    let parse = |text: &str| {
        let has_unit = text.ends_with(|last: char| last.is_ascii_alphabetic());
        text.parse::<ByteSize>().ok().filter(|_| has_unit).map(|size| size.as_u64())
    };
    match (parse(text), parse(least), parse(most)) {
        (Some(value), Some(low), Some(high)) if (low..=high).contains(&value) => Ok(value),
        (Some(_), ..) => out_of_range(least, most),
        (None, ..) => Complaint::err("not a size with a unit", r#"write it like "64 MiB" or "1 GiB""#),
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
    text.parse().or_else(|_| {
        Complaint::err(
            "not an address with a port",
            r#"write it like "127.0.0.1:8080", "0.0.0.0:8080" or "[::1]:8080""#,
        )
    })
}

/// Empty, or an http(s) URL without query and fragment; a slash at its end is dropped.
pub(super) fn public_url(text: &str) -> Read<String> {
    let whole = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    };
    match Url::parse(text) {
        _ if text.is_empty() => Ok(String::new()),
        Ok(url) if whole(&url) => Ok(url.as_str().trim_end_matches('/').to_owned()),
        _ => Complaint::err(
            "not an http or https URL without query",
            r#"write it like "https://stats.example.org", or leave it empty"#,
        ),
    }
}

/// The path of a URL that [`public_url`] has read.
pub(super) fn path_of(public_url: &str) -> String {
    Url::parse(public_url).map_or(String::new(), |url| url.path().trim_end_matches('/').to_owned())
}

/// A word or some, to be shown to readers.
pub(super) fn word(text: &str) -> Read<String> {
    if text.trim().is_empty() || text.chars().count() > 64 || text.contains(char::is_control) {
        return Complaint::err("not 1 to 64 characters of one line", "write what readers are to see");
    }
    Ok(text.to_owned())
}

/// What stands between groups of digits.
pub(super) fn group(text: &str) -> Read<String> {
    if text.chars().count() > 1 || text.contains(|c: char| c.is_control() || c.is_alphanumeric()) {
        return Complaint::err("not one sign or none", r#"write ".", "," or a space"#);
    }
    Ok(text.to_owned())
}

/// A secret, or nothing.
pub(super) fn token(text: &str) -> Read<Option<Token>> {
    match Token::new(text) {
        None if !text.is_empty() => Complaint::err(
            "not 16 or more visible characters of ASCII",
            "choose a long random text, such as `openssl rand -hex 16` prints",
        ),
        token => Ok(token),
    }
}

/// A text that is not empty.
pub(super) fn filled(text: &str) -> Read<String> {
    if text.trim().is_empty() {
        return Complaint::err("empty", "name a directory");
    }
    Ok(text.to_owned())
}

/// A network in CIDR notation or one address.
pub(super) fn network(text: &str) -> Read<IpNet> {
    let one = text.parse::<IpAddr>().map(IpNet::from).ok();
    match one.or_else(|| text.parse::<IpNet>().ok()) {
        Some(network) => Ok(network.trunc()),
        None => Complaint::err(
            format!("{text:?} is not a network"),
            r#"write it like "10.0.0.0/8" or "192.0.2.7""#,
        ),
    }
}

/// The header that names the client.
pub(super) fn client_header(text: &str) -> Read<ClientHeader> {
    match text.to_ascii_lowercase().as_str() {
        "none" => Ok(ClientHeader::None),
        "forwarded" => Ok(ClientHeader::Forwarded),
        name => match HeaderName::from_bytes(name.as_bytes()) {
            Ok(header) => Ok(ClientHeader::List(header)),
            Err(_) => Complaint::err(
                "not the name of a header",
                r#"write "x-forwarded-for", "forwarded", another header's name, or "none""#,
            ),
        },
    }
}

/// `embedded`, or the URL of a Redis server.
pub(super) fn store_url(text: &str) -> Read<String> {
    if text == "embedded" {
        return Ok(text.to_owned());
    }
    let scheme = text.split("://").next().unwrap_or_default();
    if matches!(scheme, "redis+cluster" | "rediss+cluster" | "redis+sentinel" | "rediss+sentinel") {
        return Complaint::err(
            format!("{scheme} is not supported yet"),
            r#"name one server as "redis://host:6379" or "rediss://host:6379", or write "embedded""#,
        );
    }
    let remedy = r#"write "embedded", "redis://[user:password@]host:6379[/database]" or the same with rediss://; in a password, write what is neither letter nor digit as %XX"#;
    let url = match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "redis" | "rediss") => url,
        Ok(_) => return Complaint::err("not the URL of a store", remedy),
        Err(fault) => return Complaint::err(format!("not the URL of a store ({fault})"), remedy),
    };
    if !url.has_host() || url.fragment().is_some() {
        return Complaint::err("not the URL of one server", remedy);
    }
    let database = url.path().trim_start_matches('/');
    if !database.is_empty() && database.parse::<u32>().is_err() {
        return Complaint::err("what stands after the host is not the number of a database", remedy);
    }
    Ok(text.to_owned())
}

/// A store's URL with everything hidden that may be a secret: the user, the password, the query.
pub(super) fn without_secret(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        // A URL with a slip in its beginning may hold a password all the same.
        return if url.contains(['@', ':']) { "***".into() } else { url.to_owned() };
    };
    let hidden = format!("{scheme}://***");
    match Url::parse(url) {
        Ok(parsed) => {
            let signed = !parsed.username().is_empty() || parsed.password().is_some();
            // An `@` that ends no user name: a password with a bare `/` or `#` in it.
            if rest.contains('@') != signed {
                return hidden;
            }
            let user = if signed { "***@" } else { "" };
            let host = parsed.host_str().unwrap_or_default();
            let port = parsed.port().map(|port| format!(":{port}")).unwrap_or_default();
            let query = if parsed.query().is_some() { "?***" } else { "" };
            format!("{scheme}://{user}{host}{port}{}{query}", parsed.path())
        }
        Err(_) if rest.contains(['@', '?']) => hidden,
        Err(_) => url.to_owned(),
    }
}

/// The key of a site.
pub(super) fn site_key(text: &str) -> Read<SiteKey> {
    match SiteKey::new(text) {
        Some(key) => Ok(key),
        None => Complaint::err("not a site's key", r#"use 1 to 32 of a-z, 0-9 and "-""#),
    }
}

/// What stands for `footfall` in the names of the page script.
pub(super) fn script_name(text: &str) -> Read<String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if !(1..=64).contains(&text.len()) || !text.bytes().all(legal) {
        return Complaint::err(
            "not a bare file name",
            r#"use 1 to 64 letters, digits, "-" and "_", like "stats""#,
        );
    }
    Ok(text.to_owned())
}

/// The path of the beacon, without a slash at its begin; no other route's.
pub(super) fn beacon_path(text: &str) -> Read<String> {
    let first = text.split('/').next().unwrap_or_default();
    if ["api", "badge", "demo", "widget"].contains(&first) && text != Names::BEACON {
        return Complaint::err(format!("/{first} is another route's"), r#"choose another, like "collect""#);
    }
    if text.len() > 64 || text.split('/').any(|segment| script_name(segment).is_err()) {
        return Complaint::err(
            "not a path of letters, digits, \"-\" and \"_\"",
            r#"write it without a slash at its begin and end, like "collect""#,
        );
    }
    Ok(text.to_owned())
}

/// A wish that browsers tell.
pub(super) fn signal(text: &str) -> Read<Signal> {
    choice(text, &[("gpc", Signal::Gpc), ("dnt", Signal::Dnt)])
}

/// A host in lower case and IDNA-encoded, as it stands in a parsed URL.
pub(super) fn host(text: &str) -> Read<String> {
    let remedy = r#"write the bare host, like "www.example.org""#;
    let about = |problem: &str| format!("{text:?} {problem}");
    if text.contains("://") {
        return Complaint::err(about("has a scheme"), remedy);
    }
    if text.contains('*') {
        return Complaint::err(about("is a pattern"), "list each host by its name");
    }
    if let Ok(IpAddr::V6(address)) = text.parse() {
        return Ok(format!("[{address}]"));
    }
    let port = text.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    if port.is_some() {
        return Complaint::err(about("has a port"), remedy);
    }
    match Host::parse(text.strip_suffix('.').unwrap_or(text)) {
        Ok(host) => Ok(host.to_string()),
        Err(_) => Complaint::err(about("is not a host"), remedy),
    }
}

/// A host whose pages may send a site's beacons, or `null`.
pub(super) fn origin(text: &str) -> Read<String> {
    if text == "null" { Ok(text.to_owned()) } else { host(text) }
}

/// A zone of the bundled database.
pub(super) fn zone(text: &str) -> Read<Zone> {
    match Zone::named(text) {
        Some(zone) => Ok(zone),
        None => Complaint::err(
            "not a time zone of the IANA database",
            r#"write it like "Asia/Ho_Chi_Minh", "Europe/Paris" or "UTC""#,
        ),
    }
}

/// A BCP 47 language tag, by its shape.
pub(super) fn locale(text: &str) -> Read<String> {
    let (language, rest) = text.split_once('-').map_or((text, None), |(l, rest)| (l, Some(rest)));
    let shaped = (2..=3).contains(&language.len())
        && language.bytes().all(|b| b.is_ascii_alphabetic())
        && rest.is_none_or(|rest| {
            rest.split('-')
                .all(|tag| (1..=8).contains(&tag.len()) && tag.bytes().all(|b| b.is_ascii_alphanumeric()))
        });
    if shaped {
        Ok(text.to_owned())
    } else {
        Complaint::err("not a BCP 47 language tag", r#"write it like "vi", "en" or "pt-BR""#)
    }
}

/// A name of a URL's query.
pub(super) fn query_name(text: &str) -> Read<String> {
    if text.is_empty() || text.contains(['&', '=', '#', '?', ' ']) {
        return Complaint::err(
            format!("{text:?} is not a query's name"),
            r#"write the bare name, like "id""#,
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stores_url_is_shown_without_its_secret() {
        for (url, shown) in [
            ("embedded", "embedded"),
            ("redis://127.0.0.1:6379/2", "redis://127.0.0.1:6379/2"),
            ("redis://user:secret@cache:6379/2", "redis://***@cache:6379/2"),
            ("rediss://:secret@cache", "rediss://***@cache"),
            ("rediss://:secret@cache?password=secret", "rediss://***@cache?***"),
            ("redis+unix:///run/redis.sock?pass=secret", "redis+unix:///run/redis.sock?***"),
            ("redis://secret@cache", "redis://***@cache"),
            ("redis://:sec/secret@cache", "redis://***"),
            ("redis://u:12/secret@cache", "redis://***"),
            ("redis://:se#secret@cache", "redis://***"),
            ("redis+cluster://:secret@a:7000,b:7000", "redis+cluster://***"),
            ("redis:/:secret@cache", "***"),
            (":secret@cache", "***"),
        ] {
            assert_eq!(without_secret(url), shown, "{url}");
        }
    }

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
