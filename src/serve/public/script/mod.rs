//! The page script: every released file, byte for byte, and the names it is served under.
//!
//! `footfall.js` and `more.js` in this folder are the sources; `tests/browser/build.mjs` makes the small
//! forms in `released/` from them. A released file is never changed, so its URL is immutable and a hash
//! in a page stays right: `released/integrity` holds the hashes, and `tests/it/page_script.rs` freezes them.
//!
//! `/footfall.js` and `/footfall.more.js` are the latest version, kept by browsers for an hour;
//! `/footfall.v1.js` and `/footfall.v1.more.js` are version 1 for ever.

use std::borrow::Cow;

use hyper::header::HeaderValue;

use crate::serve::answer::etag;
use crate::serve::answer::{self, Fault};
use crate::serve::public::context::{Asked, Reply};

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
/// `Cache-Control` of a file that changes with the version.
const LATEST_FOR_AN_HOUR: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// `GET /footfall.{file}`.
pub fn script(asked: Asked<'_>) -> Reply {
    let (name, cache) = match asked.name {
        "js" | "more.js" => (Cow::from(format!("{LATEST}.{}", asked.name)), LATEST_FOR_AN_HOUR),
        name => (Cow::from(name), IMMUTABLE),
    };
    let Some((_, tag, text)) = FILES.iter().find(|(file, ..)| *file == name) else {
        return Reply::Now(answer::refused(Fault::NotFound));
    };
    let tag = HeaderValue::from_static(tag);
    let body = (!etag::holds(&asked.headers, &tag)).then_some(*text);
    Reply::Now(answer::script(asked.headers, body, tag, cache))
}

/// The value of `integrity` for a released file, named by what follows `footfall.` in its URL.
pub fn integrity(file: &str) -> Option<&'static str> {
    INTEGRITY.lines().find_map(|line| line.strip_prefix(file)?.strip_prefix(' '))
}

/// Names of the page script and of the beacon that a deployment has chosen. The standard ones go on
/// beside them, so that no page that was pasted before stops counting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// What stands for `footfall` in `/footfall.js` and its kin.
    pub script: String,
    /// The path of the beacon, without a slash at its begin: stands for `api/v1/beacon`.
    pub beacon: String,
}

impl Names {
    /// What stands for the script where nothing is chosen.
    pub const SCRIPT: &str = "footfall";
    /// The beacon's path where nothing is chosen.
    pub const BEACON: &str = "api/v1/beacon";

    /// The standard path for a path as it came.
    pub fn standard<'p>(&self, path: &'p str) -> Cow<'p, str> {
        let rest = |name: &str| path.strip_prefix('/')?.strip_prefix(name);
        if self.beacon != Names::BEACON
            && let Some(rest @ ("" | ".gif")) = rest(&self.beacon)
        {
            return format!("/{}{rest}", Names::BEACON).into();
        }
        if self.script != Names::SCRIPT
            && let Some(rest) =
                rest(&self.script).filter(|rest| rest.starts_with('.') && rest.ends_with(".js"))
        {
            return format!("/{}{rest}", Names::SCRIPT).into();
        }
        path.into()
    }
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

    #[test]
    fn chosen_names_lead_to_the_standard_paths_and_those_stay() {
        let names = Names { script: "stats".into(), beacon: "collect/page".into() };
        for (path, standard) in [
            ("/stats.js", "/footfall.js"),
            ("/stats.v1.more.js", "/footfall.v1.more.js"),
            ("/footfall.js", "/footfall.js"),
            ("/collect/page", "/api/v1/beacon"),
            ("/collect/page.gif", "/api/v1/beacon.gif"),
            ("/api/v1/beacon", "/api/v1/beacon"),
            ("/collect/pages", "/collect/pages"),
            ("/statsx.js", "/statsx.js"),
            ("/stats.css", "/stats.css"),
            ("/x/stats.js", "/x/stats.js"),
            ("", ""),
        ] {
            assert_eq!(names.standard(path), standard);
        }
        let unchanged = Names { script: Names::SCRIPT.into(), beacon: Names::BEACON.into() };
        assert!(matches!(unchanged.standard("/api/v1/beacon"), Cow::Borrowed("/api/v1/beacon")));
    }
}
