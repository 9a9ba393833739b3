//! How far a writer had come with a site when it was retired.
//!
//! As `runs:<id>` of `meta` tells it: `retired=17 whole=9 all=<marker> day:2026-11-23=<marker>`. Version 0.1.0 wrote
//! `retired=17` alone: all of that batch counts as applied.

use std::fmt;

use super::dump::RETIRED;
use super::error::StoreError;
use crate::sites::SiteKey;
use crate::totals::batch::part::{self, HashName, PartId};

/// Most markers that are noted. A batch writes to nine hashes of a site, to sixteen where a year ends in it.
const MOST: usize = 16;

/// How far a writer had come with a site when it was retired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last batch of which any hash bore a marker.
    pub last: u64,
    /// Hashes that are not named bore markers of batches up to this one.
    pub whole: u64,
    /// What hashes bore of later batches.
    pub markers: Vec<(HashName, PartId)>,
}

impl Progress {
    /// Reads what `meta` tells; none where the writer is not retired, or had applied nothing.
    pub fn read(site: &SiteKey, runs: &str) -> Result<Option<Self>, StoreError> {
        let Some(text) = runs.strip_prefix(RETIRED).and_then(|rest| rest.strip_prefix('=')) else {
            return Ok(None);
        };
        let unreadable = || StoreError::refused(format!("what a retired writer had applied is {runs:?}"));
        parse(site, text).map(Some).ok_or_else(unreadable)
    }

    /// Notes the marker of a hash: of all only the last are kept.
    pub fn note(&mut self, hash: HashName, id: PartId) {
        self.last = self.last.max(id.sequence);
        self.markers.retain(|(named, _)| *named != hash);
        self.markers.push((hash, id));
        if self.markers.len() > MOST {
            let first = self.markers.iter().map(|(_, id)| id.sequence).min();
            self.whole = self.whole.max(first.unwrap_or_default());
        }
        self.markers.retain(|(_, id)| id.sequence > self.whole);
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{RETIRED}={} whole={} ", self.last, self.whole)?;
        self.markers.iter().try_for_each(|(hash, id)| write!(f, "{hash}={id} "))
    }
}

fn parse(site: &SiteKey, text: &str) -> Option<Progress> {
    let mut words = text.split_ascii_whitespace();
    let last = part::sequence(words.next()?)?;
    let whole = words.next().map_or(Some(last), |word| part::sequence(word.strip_prefix("whole=")?))?;
    let marker = |word: &str| {
        let (hash, id) = word.split_once('=')?;
        Some((HashName::parse(site, hash)?, id.parse().ok()?))
    };
    Some(Progress { last, whole, markers: words.map(marker).collect::<Option<_>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::totals::store::tests::{hash, id, site};

    #[test]
    fn what_is_noted_is_read_and_what_the_first_release_noted_too() {
        let read = |text: &str| Progress::read(&site(), text);
        let (last, whole) = (17, 17);
        assert_eq!(read("retired=17 ").unwrap(), Some(Progress { last, whole, ..Progress::default() }));
        assert_eq!(read("00aa=17 ").unwrap(), None, "runs of one that is not retired");
        for spoiled in
            ["retired=", "retired=x", "retired=17 16", "retired=17 whole=16 all=1", "retired=17 whole=1 x=1"]
        {
            assert!(read(spoiled).is_err(), "{spoiled}");
        }
        let mut progress = Progress::default();
        let days: Vec<HashName> = (1..25).map(|day| hash(&format!("day:2026-11-{day:02}"))).collect();
        for (sequence, day) in days.iter().enumerate() {
            progress.note(day.clone(), id(&format!("m{sequence}")));
        }
        assert_eq!((progress.last, progress.whole, progress.markers.len()), (23, 7, 16));
        assert_eq!(progress.markers[0], (days[8].clone(), id("m8")));
        assert_eq!(read(&progress.to_string()).unwrap().as_ref(), Some(&progress));
        let before = progress.clone();
        progress.note(days[3].clone(), id("m3"));
        assert_eq!(progress, before);
    }

    #[test]
    fn more_hashes_than_are_named_count_as_whole() {
        let mut progress = Progress::default();
        progress.note(hash("all"), id("m4"));
        for day in 1..25 {
            progress.note(hash(&format!("day:2026-11-{day:02}")), id("m5"));
        }
        assert_eq!((progress.last, progress.whole), (5, 5));
        assert_eq!(progress.markers, []);
    }
}
