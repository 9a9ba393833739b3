//! What reads the bytes of others, as a fuzzer calls it: no bytes may make it panic, or break what it promises of all
//! that it reads. `tests/fuzz/run` looks for bytes that do; the test below has each reader read what is kept in
//! `tests/fuzz/corpus`.

use std::iter::empty;
use std::sync::LazyLock;

use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderName, HeaderValue, ORIGIN, USER_AGENT};

use crate::clock::Moment;
use crate::config::Config;
use crate::ingest::{
    Client, ClientHeader, Context, MAX_PAGE, Page, Proxies, Robots, Said, SaltTable, Spans, accept,
    named_page,
};
use crate::logs;
use crate::sites::{PageCase, PageRules, SiteId, Sites};
use crate::totals::fuzzed::{checkpoint, journal, outbox};

/// Reads any bytes.
pub type Reader = fn(&[u8]);

/// Each reader by its name.
pub const READERS: [(&str, Reader); 8] = [
    ("beacon", beacon),
    ("page", page),
    ("client", client),
    ("journal", journal),
    ("outbox", outbox),
    ("checkpoint", checkpoint),
    ("log-line", logs::read_any_line),
    ("config", config),
];

const SITES: &str = "[[site]]\nkey = \"a\"\nhosts = [\"a.vn\", \"*.a.vn\"]\norigins = [\"null\", \"capacitor://localhost\"]\n\
    [[site]]\nkey = \"b\"\nhosts = [\"b.vn\"]\npage_query = [\"id\"]\npage_case = \"fold\"\nidentity = \"browser\"\n\
    exclude_pages = [\"/admin/*\"]\nhonour = [\"gpc\", \"dnt\"]\n";

static REGISTERED: LazyLock<Sites> = LazyLock::new(|| {
    let loaded = Config::load([("sites", SITES)], empty());
    loaded.unwrap_or_else(|faults| panic!("{faults}")).sites
});
static ROBOTS: LazyLock<Robots> =
    LazyLock::new(|| Robots::new(&[]).unwrap_or_else(|fault| panic!("{fault:?}")));

/// A first line with `Origin`, a second with the user agent, and the body, which is read as a query, too.
fn beacon(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |b| *b == b'\n');
    let mut headers = HeaderMap::new();
    for name in [ORIGIN, USER_AGENT] {
        let value = parts.next().and_then(|value| HeaderValue::from_bytes(value).ok());
        value.into_iter().for_each(|value| _ = headers.insert(name.clone(), value));
    }
    let body = parts.next().unwrap_or_default();
    let client = Client { address: [203, 0, 113, 9].into(), ignored_header: false };
    let (spans, salts): (Spans, _) = (Spans::new(&REGISTERED), SaltTable::default());
    let now = Moment { unix_ms: 1_700_000_000_000, uptime_ms: 1_000 };
    let context = Context {
        sites: &REGISTERED,
        spans: &spans,
        salts: &salts,
        robots: &ROBOTS,
        headers: &headers,
        client,
        now,
    };
    let query = String::from_utf8_lossy(body);
    for said in [Said::from_json(body), Said::from_query(&query)].into_iter().flatten() {
        let Ok(beacon) = accept(&said, &context) else { continue };
        let (site, page) = (REGISTERED.at(beacon.site), beacon.page.as_str());
        // A page's name names that page, to readers and to beacons.
        let named = site.map(|site| named_page(site, page));
        assert_eq!(named, Some(Ok(beacon.page.clone())), "{page:?}");
    }
}

fn page(bytes: &[u8]) {
    let path = format!("/{}", String::from_utf8_lossy(bytes));
    for case in [PageCase::Keep, PageCase::Fold] {
        for query in [vec![], vec!["id".to_owned(), "trang".to_owned()]] {
            let rules = PageRules { query, case, ..PageRules::default() };
            let page = Page::normalise(SiteId(0), &rules, &path);
            let text = page.as_str();
            assert!(text.starts_with('/') && text.len() <= MAX_PAGE, "{text:?}");
            assert!(!text.contains(char::is_control), "{text:?}");
            assert_eq!(Page::normalise(SiteId(0), &rules, text), page, "{path:?}");
        }
    }
}

/// Lines of a header that names the client.
fn client(bytes: &[u8]) {
    let name = HeaderName::from_static("x-forwarded-for");
    let trusted = vec!["127.0.0.0/8".parse().unwrap_or_else(|fault| panic!("{fault}"))];
    let list = Proxies { header: ClientHeader::List(name.clone()), trusted };
    let forwarded = Proxies { header: ClientHeader::Forwarded, ..list.clone() };
    let mut headers = HeaderMap::new();
    for value in bytes.split(|b| *b == b'\n').filter_map(|value| HeaderValue::from_bytes(value).ok()) {
        headers.append(name.clone(), value.clone());
        headers.append(FORWARDED, value);
    }
    for proxies in [list, forwarded] {
        let from = |peer: [u8; 4]| proxies.client(peer.into(), &headers);
        assert_eq!(from([203, 0, 113, 9]).address.to_string(), "203.0.113.9", "nobody trusts it");
        let found = from([127, 0, 0, 1]);
        assert_eq!(found.address, found.address.to_canonical());
    }
}

fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Config::load([("footfall.toml", text.as_ref())], empty()) {
        Ok(config) => assert_eq!(config.to_toml(), config.to_toml()),
        Err(faults) => assert!(!faults.to_string().is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_without_a_fault() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
        for (name, read) in READERS {
            let files =
                std::fs::read_dir(corpus.join(name)).unwrap_or_else(|fault| panic!("{name}: {fault}"));
            let read_one = |file: std::io::Result<std::fs::DirEntry>| {
                read(&std::fs::read(file.unwrap().path()).unwrap())
            };
            assert!(files.map(read_one).count() > 0, "{name}");
        }
    }
}
