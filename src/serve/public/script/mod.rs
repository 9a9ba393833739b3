//! The page script: every released file, byte for byte, and the names it is served under.
//!
//! `footfall.js` and `more.js` in this folder are the sources; `tests/browser/build.mjs` makes the small
//! forms in `released/` from them. A released file is never changed, so its URL is immutable and a hash
//! in a page stays right: `released/integrity` holds the hashes, and `tests/it/page_script.rs` freezes them.
//!
//! `/footfall.js` and `/footfall.more.js` are the latest version, kept by browsers for an hour;
//! `/footfall.v1.js` and `/footfall.v1.more.js` are version 1 for ever.

use std::borrow::Cow;

use bytes::Bytes;
use hyper::header::HeaderValue;

use super::context::{ReadRequest, Reply};
use crate::serve::answer::{self, Fault, etag};

/// The latest version.
pub const LATEST: &str = "v1";

/// What follows `footfall.` in the URL, the tag, and the text of every file that was ever released.
const FILES: &[(&str, &str, &[u8])] = &[
    ("v1.js", "\"v1.js\"", include_bytes!("released/v1.js")),
    ("v1.more.js", "\"v1.more.js\"", include_bytes!("released/v1.more.js")),
];

/// A line a file: what follows `footfall.` in its URL, a space, and its value of `integrity`.
const INTEGRITY: &str = include_str!("released/integrity");

/// `Cache-Control` of a file that never changes.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

pub fn script(request: ReadRequest<'_>) -> Result<Reply, Fault> {
    let (name, cache) = match request.name {
        "js" | "more.js" => (Cow::from(format!("{LATEST}.{}", request.name)), answer::AN_HOUR),
        name => (Cow::from(name), IMMUTABLE),
    };
    let (_, tag, text) = FILES.iter().find(|(file, ..)| *file == name).ok_or(Fault::NotFound)?;
    let tag = HeaderValue::from_static(tag);
    let body = (!etag::is_held(&request.headers, &tag)).then(|| Bytes::from_static(text));
    let response = answer::tagged(request.headers, body, tag, answer::JAVASCRIPT, cache);
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
        for (file, tag, text) in FILES {
            assert_eq!(*tag, format!("\"{file}\""));
            assert!(integrity(file).is_some_and(|hash| hash.starts_with("sha384-")), "{file}");
            assert!(!text.is_empty());
        }
        assert_eq!(INTEGRITY.lines().count(), FILES.len());
        for file in ["js", "more.js"] {
            assert!(integrity(&format!("{LATEST}.{file}")).is_some());
        }
        assert_eq!(integrity("v1"), None);
    }
}
