//! The page script: every released file, byte for byte, and the names it is served under.
//!
//! `footfall.js`, `more.js`, `rare.js` and `debug.js` in this folder are the sources; `tests/browser/build.mjs` makes the small
//! forms in `released/` from them, also packed by brotli and gzip. A released file is never changed, so its URL is
//! immutable and a hash in a page stays right: `released/integrity` holds the hashes, and `tests/it/page_script.rs`
//! freezes them.
//!
//! `/footfall.js`, `/footfall.more.js` and `/footfall.rare.js` are the latest version, kept by browsers for an hour;
//! `/footfall.v1.js` and its like are version 1 for ever.

use std::borrow::Cow;

use bytes::Bytes;
use hyper::header::{ACCEPT_ENCODING, HeaderValue};

use super::context::{ReadRequest, Reply};
use crate::serve::answer::{self, Fault, etag, names::LATEST, packed};

/// A file that was released, with its packed forms, the shortest first.
struct Released {
    /// What follows `footfall.` in its URL.
    name: &'static str,
    tag: &'static str,
    text: &'static [u8],
    packed: [(&'static str, &'static [u8]); 2],
}

macro_rules! released {
    ($name:literal) => {
        Released {
            name: $name,
            tag: concat!("\"", $name, "\""),
            text: include_bytes!(concat!("released/", $name)),
            packed: [
                ("br", include_bytes!(concat!("released/", $name, ".br"))),
                ("gzip", include_bytes!(concat!("released/", $name, ".gz"))),
            ],
        }
    };
}

/// Every file that was ever released.
const FILES: [Released; 4] =
    [released!("v1.js"), released!("v1.more.js"), released!("v1.rare.js"), released!("v1.debug.js")];

/// A line a file: what follows `footfall.` in its URL, a space, and its value of `integrity`.
const INTEGRITY: &str = include_str!("released/integrity");

/// `Cache-Control` of a file that never changes.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

pub fn script(request: ReadRequest<'_>) -> Result<Reply, Fault> {
    let (name, cache) = match request.name {
        "js" | "more.js" | "rare.js" | "debug.js" => {
            (Cow::from(format!("{LATEST}.{}", request.name)), answer::AN_HOUR)
        }
        name => (Cow::from(name), IMMUTABLE),
    };
    let file = FILES.into_iter().find(|file| file.name == name).ok_or(Fault::NotFound)?;
    let tag = HeaderValue::from_static(file.tag);
    let body = (!etag::is_held(&request.headers, &tag)).then(|| Bytes::from_static(file.text));
    let accepted = request.headers.get(ACCEPT_ENCODING);
    let packed = file.packed.into_iter().find(|(coding, _)| packed::takes(accepted, coding));
    let packed = packed.filter(|_| body.is_some());
    let mut response = answer::tagged(request.headers, body, tag, answer::JAVASCRIPT, cache);
    if let Some((coding, text)) = packed {
        answer::encode(&mut response, coding, Bytes::from_static(text));
    }
    Ok(Reply::Now(answer::shared(response)))
}

/// The value of `integrity` for a released file, named by what follows `footfall.` in its URL.
pub fn integrity(file: &str) -> Option<&'static str> {
    INTEGRITY.lines().find_map(|line| line.strip_prefix(file)?.strip_prefix(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_its_hash_and_the_latest_version_is_among_them() {
        for Released { name, text, .. } in FILES {
            assert!(integrity(name).is_some_and(|hash| hash.starts_with("sha384-")), "{name}");
            assert!(!text.is_empty());
        }
        assert_eq!(INTEGRITY.lines().count(), FILES.len());
        for file in ["js", "more.js", "rare.js", "debug.js"] {
            assert!(integrity(&format!("{LATEST}.{file}")).is_some());
        }
        assert_eq!(integrity("v1"), None);
    }
}
