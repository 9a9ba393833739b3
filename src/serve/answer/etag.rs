//! Entity tags of bodies.

use std::hash::BuildHasher;

use bytes::Bytes;
use foldhash::quality::FixedState;
use hyper::HeaderMap;
use hyper::header::{HeaderValue, IF_NONE_MATCH};

/// The hash of a text that many bodies begin with.
pub fn hash(beginning: &[u8]) -> u64 {
    FixedState::default().hash_one(beginning)
}

/// The strong tag of a body, from the hash of its beginning and from its rest: quoted hex digits, the same in
/// every process of a release.
pub fn of(beginning: u64, rest: &[u8]) -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let hash = FixedState::with_seed(beginning).hash_one(rest);
    let mut tag = [b'"'; 18];
    for (place, digit) in tag[1..17].iter_mut().enumerate() {
        *digit = HEX[(hash >> (60 - 4 * place)) as usize & 15];
    }
    HeaderValue::from_bytes(&tag).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Whether `If-None-Match` names a tag.
pub fn is_held(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    held(headers, tag).is_some()
}

/// The tag as `If-None-Match` names it (weak comparison, RFC 9110, 13.1.2): that of the body itself, or of one of its
/// packed forms.
pub fn held(headers: &HeaderMap, tag: &HeaderValue) -> Option<HeaderValue> {
    let own = tag.as_bytes().strip_suffix(b"\"")?;
    let mut candidates =
        headers.get_all(IF_NONE_MATCH).iter().flat_map(|list| list.as_bytes().split(|b| *b == b','));
    candidates.find_map(|candidate| {
        let candidate = candidate.trim_ascii();
        let candidate = candidate.strip_prefix(b"W/").unwrap_or(candidate);
        let is_it = matches!(candidate.strip_prefix(own), Some(b"\"" | b"-gzip\"" | b"-br\""));
        let named = if candidate == b"*" { tag.as_bytes() } else { candidate };
        (is_it || candidate == b"*").then(|| HeaderValue::from_bytes(named).ok())?
    })
}

/// The tag of a body, and the body unless the asker has this very one.
pub fn unless_held(asker: &HeaderMap, body: Vec<u8>) -> (HeaderValue, Option<Bytes>) {
    let tag = of(0, &body);
    let body = (!is_held(asker, &tag)).then(|| body.into());
    (tag, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IF_NONE_MATCH, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn tags_are_quoted_hex_of_both_parts() {
        let tag = of(1, b"{}");
        assert_eq!(tag, of(1, b"{}"));
        assert_ne!(tag, of(1, b"{ }"));
        assert_ne!(tag, of(2, b"{}"));
        let hex = tag.to_str().unwrap().strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap();
        assert!(hex.len() == 16 && u64::from_str_radix(hex, 16).is_ok(), "{hex}");
    }

    #[test]
    fn if_none_match_takes_lists_stars_and_weak_tags() {
        let tag = HeaderValue::from_static("\"abc\"");
        for held in [
            &["\"abc\""][..],
            &["W/\"abc\""],
            &["*"],
            &["\"x\", \"abc\""],
            &["\"x\" ,W/\"abc\" "],
            &["\"x\"", "\"abc\""],
            &["\"abc-gzip\""],
            &["W/\"abc-br\""],
        ] {
            assert!(is_held(&asking(held), &tag), "{held:?}");
        }
        for other in [
            &[][..],
            &["\"ab\""],
            &["abc"],
            &["W/abc"],
            &[""],
            &["\"abcd\", \"ab\""],
            &["\"abc-\""],
            &["\"abc-x\""],
        ] {
            assert!(!is_held(&asking(other), &tag), "{other:?}");
        }
    }
}
