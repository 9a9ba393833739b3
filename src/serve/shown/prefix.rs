//! What the body of `counters` begins with, kept as bytes while nothing of the site moves.
//!
//! The figures of a site move once a turn of the event loop at most, when a group of views is counted; a
//! turn answers many reads. Then one copy takes the place of some twenty numbers and their names. What is
//! the asked page's stands at the end of the body and is written for each read.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::HeaderValue;

use crate::serve::answer::etag;
use crate::sites::SiteId;

/// What a front is made of: it is the same while this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Whose it is.
    pub site: SiteId,
    /// That of the site's figures, see [`crate::totals::Look::revision`].
    pub revision: u64,
    /// Visitors online.
    pub online: u64,
    /// When their number last changed, Unix milliseconds.
    pub online_changed_ms: i64,
}

/// The front of one site.
#[derive(Default)]
pub struct Front {
    /// None while the text is not a front.
    version: Option<Version>,
    text: Vec<u8>,
    hash: u64,
}

/// The fronts of all sites.
pub struct Fronts(Vec<Mutex<Front>>);

impl Fronts {
    /// A place for each of `sites` sites.
    pub fn new(sites: usize) -> Self {
        Fronts((0..sites.max(1)).map(|_| Mutex::default()).collect())
    }

    /// The front of a site. Sites beyond the number said share a place, which costs them time only.
    pub fn of(&self, site: SiteId) -> MutexGuard<'_, Front> {
        self.0[site.index() % self.0.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Front {
    /// Whether it is of this version.
    pub fn is(&self, version: &Version) -> bool {
        self.version.as_ref() == Some(version)
    }

    /// Has it written anew.
    pub fn write(&mut self, version: Version, write: impl FnOnce(&mut Vec<u8>)) {
        self.version = None;
        self.text.clear();
        write(&mut self.text);
        self.hash = etag::hash(&self.text);
        self.version = Some(version);
    }

    /// The tag of the body whose end `write` appends, and the body, but for an asker that holds it.
    pub fn complete(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>),
        asker: &HeaderMap,
    ) -> (HeaderValue, Option<Bytes>) {
        let (version, front) = (self.version.take(), self.text.len());
        write(&mut self.text);
        let tag = etag::of(self.hash, &self.text[front..]);
        let body = (!etag::holds(asker, &tag)).then(|| Bytes::copy_from_slice(&self.text));
        self.text.truncate(front);
        self.version = version;
        (tag, body)
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::IF_NONE_MATCH;

    use super::*;

    const VERSION: Version = Version { site: SiteId(0), revision: 1, online: 2, online_changed_ms: 3 };

    fn completed(front: &mut Front, end: &str, asker: &HeaderMap) -> (HeaderValue, Option<Bytes>) {
        front.complete(|text| text.extend_from_slice(end.as_bytes()), asker)
    }

    #[test]
    fn a_front_is_written_once_a_version_and_ends_as_each_read_wants() {
        let (fronts, anyone) = (Fronts::new(2), HeaderMap::new());
        let mut front = fronts.of(VERSION.site);
        assert!(!front.is(&VERSION));
        front.write(VERSION, |text| text.extend_from_slice(b"front "));
        let (tag, body) = completed(&mut front, "a", &anyone);
        assert_eq!(body.as_deref(), Some(&b"front a"[..]));
        let (other, body) = completed(&mut front, "b", &anyone);
        assert_eq!(body.as_deref(), Some(&b"front b"[..]));
        assert_ne!(tag, other);
        assert!(front.is(&VERSION));
        for moved in [
            Version { site: SiteId(2), ..VERSION },
            Version { revision: 2, ..VERSION },
            Version { online: 1, ..VERSION },
            Version { online_changed_ms: 4, ..VERSION },
        ] {
            assert!(!front.is(&moved), "{moved:?}");
        }
        front.write(VERSION, |text| text.extend_from_slice(b"other "));
        assert_ne!(completed(&mut front, "a", &anyone).0, tag);
        front.write(VERSION, |text| text.extend_from_slice(b"front "));
        assert_eq!(completed(&mut front, "a", &anyone).0, tag, "as in every other process");
    }

    #[test]
    fn who_holds_the_body_is_not_given_it_again() {
        let fronts = Fronts::new(1);
        let mut front = fronts.of(SiteId(7));
        front.write(VERSION, |text| text.push(b'{'));
        let (tag, _) = completed(&mut front, "}", &HeaderMap::new());
        let mut again = HeaderMap::new();
        again.insert(IF_NONE_MATCH, tag.clone());
        assert_eq!(completed(&mut front, "}", &again), (tag, None));
        assert!(completed(&mut front, " }", &again).1.is_some());
    }
}
