//! The ids of views counted in the last ten minutes.

use hashbrown::HashSet;

/// How long an id is remembered at least.
const REMEMBER_MS: u64 = 10 * 60 * 1000;

/// What [`Ids::take`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is remembered from now on.
    New,
    /// A view with this id was counted, or is about to be.
    Known,
    /// It is new, and there is no room to remember it.
    NoRoom,
}

type Set = HashSet<u64, foldhash::fast::RandomState>;

/// Two generations: the young one takes new ids, the old one is dropped whole when the young one is ten
/// minutes old. So an id is remembered for ten to twenty minutes and none is ever looked for to expire it.
pub struct Ids {
    young: Set,
    old: Set,
    turned_ms: u64,
    max: usize,
}

impl Ids {
    /// Remembers at most `max` ids.
    pub fn new(max: usize, uptime_ms: u64) -> Self {
        Ids { young: Set::default(), old: Set::default(), turned_ms: uptime_ms, max }
    }

    /// Takes the id of a view whose group is about to be written.
    pub fn take(&mut self, id: u64) -> Taken {
        if self.old.contains(&id) {
            return Taken::Known;
        }
        if self.young.len() + self.old.len() >= self.max {
            return if self.young.contains(&id) { Taken::Known } else { Taken::NoRoom };
        }
        if self.young.insert(id) { Taken::New } else { Taken::Known }
    }

    /// The group was undone.
    pub fn forget(&mut self, id: u64) {
        // It may have grown old meanwhile.
        if !self.young.remove(&id) {
            self.old.remove(&id);
        }
    }

    /// Drops what is old enough.
    pub fn turn(&mut self, uptime_ms: u64) {
        let age = uptime_ms.saturating_sub(self.turned_ms);
        if age < REMEMBER_MS {
            return;
        }
        let young = std::mem::take(&mut self.young);
        self.old = if age < 2 * REMEMBER_MS { young } else { Set::default() };
        self.turned_ms = uptime_ms;
    }

    /// Ids for the checkpoint: younger, older. Those of groups that are not yet written are among them.
    pub fn export(&self) -> (Vec<u64>, Vec<u64>) {
        (self.young.iter().copied().collect(), self.old.iter().copied().collect())
    }

    /// Takes back what was exported `elapsed_ms` ago.
    pub fn restore(&mut self, (young, old): (Vec<u64>, Vec<u64>), elapsed_ms: u64) {
        if elapsed_ms < REMEMBER_MS {
            self.young.extend(young);
            self.old.extend(old);
        } else if elapsed_ms < 2 * REMEMBER_MS {
            self.old.extend(young);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_for_ten_minutes_and_forgotten_after_twenty() {
        let mut ids = Ids::new(10, 0);
        ids.turn(REMEMBER_MS - 1);
        assert_eq!(ids.take(7), Taken::New);
        ids.turn(REMEMBER_MS);
        assert_eq!(ids.take(7), Taken::Known, "a millisecond later, in the older generation");
        ids.turn(2 * REMEMBER_MS - 1);
        assert_eq!(ids.take(7), Taken::Known, "ten minutes later");
        ids.turn(2 * REMEMBER_MS);
        assert_eq!(ids.take(7), Taken::New);
    }

    #[test]
    fn an_undone_id_is_free_again_however_old_it_grew() {
        for turned_ms in [0, REMEMBER_MS] {
            let mut ids = Ids::new(10, 0);
            ids.take(7);
            ids.turn(turned_ms);
            ids.forget(7);
            assert_eq!(ids.take(7), Taken::New);
        }
    }

    #[test]
    fn a_full_memory_sheds_the_newcomer() {
        let mut ids = Ids::new(1, 0);
        assert_eq!(ids.take(1), Taken::New);
        assert_eq!(ids.take(2), Taken::NoRoom);
        assert_eq!(ids.take(1), Taken::Known);
    }

    #[test]
    fn what_is_restored_keeps_its_age() {
        let mut ids = Ids::new(10, 0);
        ids.take(1);
        let saved = ids.export();
        for (elapsed, then) in
            [(0, Taken::Known), (REMEMBER_MS - 1, Taken::Known), (2 * REMEMBER_MS, Taken::New)]
        {
            let mut later = Ids::new(10, 0);
            later.restore(saved.clone(), elapsed);
            assert_eq!(later.take(1), then, "after {elapsed} ms");
        }
    }
}
