//! Pages of a site that are shown as others, since they moved.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashMap;

/// Most pages of a site that are or were shown as others.
pub const MAX_MOVED: usize = 10_000;

/// Most pages that may be erased beyond those.
pub const MAX_ERASED: usize = 10_000;

/// The most moves from a page to the one that it is shown as.
const MAX_STEPS: usize = 16;

/// By pages those that they moved to; empty: shown as itself again.
pub type Moved = BTreeMap<Arc<str>, Arc<str>>;

/// What pages are shown as, over all their moves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aliases {
    /// That of the data it was read from.
    pub revision: u64,
    shown_as: HashMap<Arc<str>, Arc<str>>,
    beside: HashMap<Arc<str>, Vec<Arc<str>>>,
}

impl Aliases {
    /// Follows moves. Those in a circle, and those over too many pages, lead nowhere.
    pub fn new(moved: &Moved, revision: u64) -> Self {
        let next = |page: &Arc<str>| moved.get(page).filter(|to| !to.is_empty());
        let mut aliases = Aliases { revision, ..Aliases::default() };
        for page in moved.keys().filter(|page| next(page).is_some()) {
            let end = (0..=MAX_STEPS).try_fold(page, |page, _| next(page).ok_or(page));
            if let Err(end) = end {
                aliases.shown_as.insert(page.clone(), end.clone());
                aliases.beside.entry(end.clone()).or_default().push(page.clone());
            }
        }
        aliases
    }

    /// What a page is shown as, if not as itself.
    pub fn shown_as(&self, page: &str) -> Option<&Arc<str>> {
        self.shown_as.get(page)
    }

    /// Whether pages are shown as by others.
    pub fn shows_as(&self, others: &Aliases) -> bool {
        self.shown_as == others.shown_as
    }

    /// The pages that are shown as one.
    pub fn beside(&self, page: &str) -> &[Arc<str>] {
        self.beside.get(page).map_or(&[], Vec::as_slice)
    }

    /// How many pages are shown as others.
    pub fn number(&self) -> usize {
        self.shown_as.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved<'a>(moves: impl IntoIterator<Item = (&'a str, &'a str)>) -> Aliases {
        let moves = moves.into_iter().map(|(page, to)| (page.into(), to.into()));
        Aliases::new(&moves.collect(), 0)
    }

    #[test]
    fn chains_are_followed_and_circles_lead_nowhere() {
        let aliases =
            moved([("/a", "/b"), ("/b", "/c"), ("/x", ""), ("/1", "/2"), ("/2", "/1"), ("/3", "/2")]);
        let shown = |page| aliases.shown_as(page).map(|to| &**to);
        assert_eq!((shown("/a"), shown("/b"), shown("/c")), (Some("/c"), Some("/c"), None));
        assert_eq!((shown("/x"), shown("/1"), shown("/3")), (None, None, None));
        assert_eq!((aliases.beside("/c"), aliases.number()), (&["/a".into(), "/b".into()][..], 2));
        let names: Vec<String> = (0..=MAX_STEPS + 1).map(|n| format!("/{n:02}")).collect();
        let long = moved(names.windows(2).map(|pair| (&*pair[0], &*pair[1])));
        assert_eq!((long.shown_as("/00"), long.number()), (None, MAX_STEPS), "a step too many");
    }

    proptest::proptest! {
        #[test]
        fn whatever_moved_is_shown_as_a_page_that_did_not(
            moves in proptest::collection::btree_map(0u8..12, 0u8..12, 0..12),
        ) {
            let name = |page: u8| Arc::<str>::from(format!("/{page}"));
            let moves: Moved = moves.into_iter().map(|(page, to)| (name(page), name(to))).collect();
            let aliases = Aliases::new(&moves, 0);
            for page in moves.keys() {
                if let Some(to) = aliases.shown_as(page) {
                    proptest::prop_assert!(!moves.contains_key(to) && aliases.beside(to).contains(page));
                }
            }
        }
    }
}
