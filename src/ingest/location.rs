//! Where a URL points: its host, and its path with the query.

use std::borrow::Cow;

use url::{Position, Url};

/// The parts of a URL that name a page. Scheme, userinfo, port and fragment are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location<'a> {
    /// The host in lower case, IDNA-encoded, without a trailing dot; none for a bare path.
    pub host: Option<Cow<'a, str>>,
    /// Path and query as written; [`super::Page::normalise`] makes the page of them.
    pub path: Cow<'a, str>,
}

impl<'a> Location<'a> {
    /// Reads an absolute http(s) URL, or a path that begins with `/`.
    pub fn of(url: &'a str) -> Option<Self> {
        match url.strip_prefix('/') {
            // To a browser, `//host`, `/\host` and even `/<tab>/host` are URLs of another host.
            Some(rest) if rest.trim_start_matches(['\t', '\n', '\r']).starts_with(['/', '\\']) => None,
            Some(_) => Some(Location { host: None, path: url.into() }),
            None => Self::absolute(url),
        }
    }

    /// Reads an absolute http(s) URL as browsers do (WHATWG).
    pub fn absolute(url: &'a str) -> Option<Self> {
        Self::plain(url).or_else(|| Self::parsed(url))
    }

    /// The quick way for nearly every beacon: a scheme, a host of plain names in lower case, no port, and
    /// nothing that the URL parser would change except by percent-encoding it.
    fn plain(url: &'a str) -> Option<Self> {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
        let end = plain_host(rest.as_bytes())?;
        let (host, path) = rest.split_at_checked(end)?;
        let begins = path.is_empty() || path.starts_with(['/', '?', '#']);
        // Without an early exit, the compiler makes this a few vector instructions.
        let odd = path.bytes().fold(false, |odd, b| odd | (b <= b' ') | (b == b'\\'));
        (begins && !odd).then_some(Location { host: Some(host.into()), path: path.into() })
    }

    fn parsed(url: &str) -> Option<Self> {
        let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        let host = url.host_str()?;
        let host = host.strip_suffix('.').unwrap_or(host).to_owned();
        let path = url[Position::BeforePath..Position::AfterQuery].to_owned();
        Some(Location { host: Some(host.into()), path: path.into() })
    }
}

/// The length of the host if it is plain: labels of `a-z`, `0-9` and single `-` (a double one may mark an
/// encoded label), of which the last begins with a letter (otherwise it may be an IPv4 address).
fn plain_host(rest: &[u8]) -> Option<usize> {
    let (mut before, mut label) = (b'.', b'.');
    for (at, &b) in rest.iter().enumerate() {
        match b {
            b'a'..=b'z' | b'0'..=b'9' => {}
            b'-' if before != b'-' => {}
            b'.' if before != b'.' => {}
            b'-' | b'.' => return None,
            _ => return (before != b'.' && label.is_ascii_lowercase()).then_some(at),
        }
        if before == b'.' {
            label = b;
        }
        before = b;
    }
    (before != b'.' && label.is_ascii_lowercase()).then_some(rest.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Page;
    use super::*;
    use crate::sites::{PageCase, PageRules, SiteId};

    /// Wherever the quick way answers, it answers as the URL parser does.
    fn check(url: &str) -> Result<(), TestCaseError> {
        let Some(quick) = Location::plain(url) else { return Ok(()) };
        let Some(parsed) = Location::parsed(url) else {
            return Err(TestCaseError::fail(format!("{url:?} is no URL")));
        };
        prop_assert_eq!(&quick.host, &parsed.host, "{:?}", url);
        for case in [PageCase::Keep, PageCase::Fold] {
            for query in [vec![], vec!["id".to_owned(), "ệ".to_owned()]] {
                let rules = PageRules { query, case, ..PageRules::default() };
                let page = |path| Page::normalise(SiteId(0), &rules, path);
                prop_assert_eq!(page(&quick.path), page(&parsed.path), "{:?}", url);
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn the_quick_way_is_the_parsers(
            scheme in "(https?|HTTP|ftp)://",
            host in "([a-z0-9-]{1,9}\\.){0,3}(vn|com|x-1|1|0x7f|[a-z0-9-]{1,70})\\.?",
            port in "(:[0-9]{0,5}|@[a-z]{1,3})?",
            path in "([/?#&=.;%\\\\|\"<>^`{}'\\[\\]~ \t]|%2[eEfF]|%[0-9a-fA-F]{2}|id=|\\PC|[a-zA-Z0-9.-]{1,9}){0,20}",
        ) {
            check(&format!("{scheme}{host}{port}{path}"))?;
            check(&format!("{scheme}{host}/{path}"))?;
        }

        #[test]
        fn any_character_in_path_and_query(c: char, other: char) {
            check(&format!("https://h.vn/a{c}{other}b?id={other}{c}"))?;
        }

        #[test]
        fn anything_is_read_or_refused(url: String) {
            let _ = Location::of(&url);
        }
    }

    #[test]
    fn the_quick_way_is_taken() {
        for url in [
            "https://baolamdong.vn/bai-viet/1.html",
            "http://www.a-b.com.vn",
            "https://h.vn?id=1",
            "https://localhost/#top",
            "https://a1.b2c/tin/%C4%91%C3%A0?x=1",
        ] {
            assert!(Location::plain(url).is_some(), "{url}");
            check(url).unwrap();
        }
    }

    #[test]
    fn hosts_by_example() {
        let host = |url| Location::of(url).and_then(|location| location.host).map(Cow::into_owned);
        for (url, expected) in [
            ("https://Baolamdong.VN/a", Some("baolamdong.vn")),
            ("https://baolamdong.vn./a", Some("baolamdong.vn")),
            ("https://user:word@h.vn:8443/a", Some("h.vn")),
            ("https://h.vn@evil.example/a", Some("evil.example")),
            ("https://h.vn\\@evil.example/a", Some("h.vn")),
            ("https:h.vn/a", Some("h.vn")),
            ("https:\\\\h.vn\\a", Some("h.vn")),
            (" https://h.vn/a", Some("h.vn")),
            ("https://báo.vn/", Some("xn--bo-mia.vn")),
            ("https://xn--bo-mia.vn/", Some("xn--bo-mia.vn")),
            ("http://127.1:8080/", Some("127.0.0.1")),
            ("http://[::1]:8080/", Some("[::1]")),
            ("https://a..b/", Some("a..b")),
            ("https:///a", Some("a")),
            ("ftp://h.vn/a", None),
            ("javascript:alert(1)", None),
            ("https://", None),
            ("https://exa mple/", None),
            ("h.vn/a", None),
            ("//h.vn/a", None),
            ("/\\h.vn/a", None),
            ("/\t/h.vn/a", None),
            ("\\\\h.vn/a", None),
            ("", None),
            ("?a", None),
            ("a", None),
        ] {
            assert_eq!(host(url).as_deref(), expected, "{url:?}");
        }
        assert_eq!(Location::of("/a//b?c").unwrap(), Location { host: None, path: "/a//b?c".into() });
    }
}
