//! The beginning of the body of `counters`, kept as bytes while nothing of the site changes.
//!
//! The figures of a site change once a turn of the event loop at most, when a group of views is counted, and
//! a turn answers many reads. For all but the first of them one copy takes the place of some twenty numbers
//! and their names. What is of the page asked for stands at the end of the body and is written for each read.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::HeaderValue;

use crate::serve::answer::etag;
use crate::sites::SiteId;

/// What a prefix is made of: it stays the same while this does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub site: SiteId,
    /// That of the site's figures, see [`crate::totals::Look::revision`].
    pub revision: u64,
    pub online: u64,
    /// When their number last changed, Unix milliseconds.
    pub online_changed_ms: i64,
}

#[derive(Default)]
pub struct BodyPrefix {
    /// None while the text is not a complete prefix.
    version: Option<Version>,
    text: Vec<u8>,
    hash: u64,
}

pub struct BodyPrefixes(Vec<Mutex<BodyPrefix>>);

impl BodyPrefixes {
    /// A place for each of `sites` sites.
    pub fn new(sites: usize) -> Self {
        BodyPrefixes((0..sites.max(1)).map(|_| Mutex::default()).collect())
    }

    /// The prefix of a site. Sites beyond the number given share a place, which costs time only.
    pub fn of(&self, site: SiteId) -> MutexGuard<'_, BodyPrefix> {
        self.0[site.index() % self.0.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BodyPrefix {
    pub fn is(&self, version: &Version) -> bool {
        self.version.as_ref() == Some(version)
    }

    /// Writes it anew.
    pub fn write(&mut self, version: Version, write: impl FnOnce(&mut Vec<u8>)) {
        self.version = None;
        self.text.clear();
        write(&mut self.text);
        self.hash = etag::hash(&self.text);
        self.version = Some(version);
    }

    /// The tag of the body that ends with what `write` appends, for an asker, and the body unless the asker has it.
    pub fn complete(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>),
        asker: Option<&HeaderMap>,
    ) -> (Option<HeaderValue>, Option<Bytes>) {
        let (version, length) = (self.version.take(), self.text.len());
        write(&mut self.text);
        let tag = asker.map(|_| etag::of(self.hash, &self.text[length..]));
        let is_held = asker.zip(tag.as_ref()).is_some_and(|(asker, tag)| etag::is_held(asker, tag));
        let body = (!is_held).then(|| Bytes::copy_from_slice(&self.text));
        self.text.truncate(length);
        self.version = version;
        (tag, body)
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::IF_NONE_MATCH;

    use super::*;

    const VERSION: Version = Version { site: SiteId(0), revision: 1, online: 2, online_changed_ms: 3 };

    fn completed(prefix: &mut BodyPrefix, end: &str, asker: &HeaderMap) -> (HeaderValue, Option<Bytes>) {
        let (tag, body) = prefix.complete(|text| text.extend_from_slice(end.as_bytes()), Some(asker));
        (tag.unwrap(), body)
    }

    #[test]
    fn a_beginning_is_written_once_a_version_and_ends_as_each_read_wants() {
        let (prefixes, anyone) = (BodyPrefixes::new(2), HeaderMap::new());
        let mut prefix = prefixes.of(VERSION.site);
        assert!(!prefix.is(&VERSION));
        prefix.write(VERSION, |text| text.extend_from_slice(b"begin "));
        let (tag, body) = completed(&mut prefix, "a", &anyone);
        assert_eq!(body.as_deref(), Some(&b"begin a"[..]));
        let (other, body) = completed(&mut prefix, "b", &anyone);
        assert_eq!(body.as_deref(), Some(&b"begin b"[..]));
        assert_ne!(tag, other);
        assert!(prefix.is(&VERSION));
        for moved in [
            Version { site: SiteId(2), ..VERSION },
            Version { revision: 2, ..VERSION },
            Version { online: 1, ..VERSION },
            Version { online_changed_ms: 4, ..VERSION },
        ] {
            assert!(!prefix.is(&moved), "{moved:?}");
        }
        prefix.write(VERSION, |text| text.extend_from_slice(b"other "));
        assert_ne!(completed(&mut prefix, "a", &anyone).0, tag);
        prefix.write(VERSION, |text| text.extend_from_slice(b"begin "));
        assert_eq!(completed(&mut prefix, "a", &anyone).0, tag, "as in every other process");
    }

    #[test]
    fn who_holds_the_body_is_not_given_it_again() {
        let prefixes = BodyPrefixes::new(1);
        let mut prefix = prefixes.of(SiteId(7));
        prefix.write(VERSION, |text| text.push(b'{'));
        let (tag, _) = completed(&mut prefix, "}", &HeaderMap::new());
        let mut again = HeaderMap::new();
        again.insert(IF_NONE_MATCH, tag.clone());
        assert_eq!(completed(&mut prefix, "}", &again), (tag, None));
        assert!(completed(&mut prefix, " }", &again).1.is_some());
    }
}
