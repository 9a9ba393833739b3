//! The ids of views counted in the last ten minutes.

use hashbrown::hash_table::{HashTable, OccupiedEntry};

/// How long an id is remembered at least.
pub const REMEMBER_MS: u64 = 10 * 60 * 1000;

/// And at most.
const TWICE_MS: u64 = 2 * REMEMBER_MS;

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

/// Parts of the table, so that no view waits for the whole of it to grow or to be copied.
pub const PARTS: usize = 256;

/// Two generations: the young one takes new ids, the old one is dropped whole when the young one is ten
/// minutes old. So an id is remembered for ten to twenty minutes and none is ever looked for to expire it.
pub struct Ids {
    parts: Vec<Part>,
    held: usize,
    turned_ms: u64,
    max: usize,
}

/// The young ids and the old ones. They are keyed hashes already, and hashed no further.
#[derive(Default)]
struct Part([HashTable<u64>; 2]);

const YOUNG: usize = 0;
const OLD: usize = 1;

impl Part {
    fn holds(&self, id: u64) -> bool {
        self.0.iter().any(|ids| ids.find(id, |known| *known == id).is_some())
    }
}

impl Ids {
    /// Remembers at most `max` ids.
    pub fn new(max: usize, uptime_ms: u64) -> Self {
        let parts = (0..PARTS).map(|_| Part::default()).collect();
        Ids { parts, held: 0, turned_ms: uptime_ms, max }
    }

    /// The part of an id: by bits in its middle, because tables tell ids apart by the highest and the lowest.
    fn part(&mut self, id: u64) -> &mut Part {
        &mut self.parts[(id >> 40) as usize % PARTS]
    }

    /// Takes the id of a view whose group is about to be written.
    pub fn take(&mut self, id: u64) -> Taken {
        let is_full = self.held >= self.max;
        let part = self.part(id);
        if part.holds(id) {
            return Taken::Known;
        }
        if is_full {
            return Taken::NoRoom;
        }
        self.remember(id, YOUNG);
        Taken::New
    }

    /// Takes the id of a view that is read back: there was room for it.
    pub fn take_again(&mut self, id: u64) {
        self.remember(id, YOUNG);
    }

    fn remember(&mut self, id: u64, age: usize) {
        let part = self.part(id);
        if !part.holds(id) {
            part.0[age].insert_unique(id, id, |id| *id);
            self.held += 1;
        }
    }

    /// The group was undone.
    pub fn forget(&mut self, id: u64) {
        let part = self.part(id);
        // It may have grown old meanwhile.
        let found = part.0.iter_mut().find_map(|ids| ids.find_entry(id, |known| *known == id).ok());
        let gone = found.map(OccupiedEntry::remove);
        self.held -= usize::from(gone.is_some());
    }

    /// Drops what is old enough.
    pub fn turn(&mut self, uptime_ms: u64) {
        let age = uptime_ms.saturating_sub(self.turned_ms);
        if age < REMEMBER_MS {
            return;
        }
        for part in &mut self.parts {
            let young = std::mem::take(&mut part.0[YOUNG]);
            part.0[OLD] = if age < TWICE_MS { young } else { HashTable::new() };
        }
        self.held = self.parts.iter().map(|part| part.0[OLD].len()).sum();
        self.turned_ms = uptime_ms;
    }

    /// Copies the younger and the older ids of a part.
    pub fn export(&self, part: usize, (young, old): &mut (Vec<u64>, Vec<u64>)) {
        young.extend(&self.parts[part].0[YOUNG]);
        old.extend(&self.parts[part].0[OLD]);
    }

    /// Takes back what was exported `elapsed_ms` ago.
    pub fn restore(&mut self, (young, old): (Vec<u64>, Vec<u64>), elapsed_ms: u64) {
        let (young, old) = match elapsed_ms {
            ..REMEMBER_MS => (young, old),
            REMEMBER_MS..TWICE_MS => (Vec::new(), young),
            _ => return,
        };
        let young = young.into_iter().map(|id| (id, YOUNG));
        for (id, age) in young.chain(old.into_iter().map(|id| (id, OLD))) {
            self.remember(id, age);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn exported(ids: &Ids) -> (Vec<u64>, Vec<u64>) {
        let mut all = (Vec::new(), Vec::new());
        (0..PARTS).for_each(|part| ids.export(part, &mut all));
        all
    }

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
    fn a_full_memory_takes_no_new_one() {
        let mut ids = Ids::new(1, 0);
        assert_eq!(ids.take(1), Taken::New);
        assert_eq!(ids.take(2), Taken::NoRoom);
        assert_eq!(ids.take(1), Taken::Known);
    }

    /// The same in two plain sets.
    #[derive(Default)]
    struct Model([HashSet<u64>; 2]);

    impl Model {
        fn take(&mut self, id: u64, max: usize) -> Taken {
            let [young, old] = &mut self.0;
            match young.contains(&id) || old.contains(&id) {
                true => Taken::Known,
                false if young.len() + old.len() >= max => Taken::NoRoom,
                false => {
                    young.insert(id);
                    Taken::New
                }
            }
        }
    }

    proptest! {
        #[test]
        fn it_remembers_what_two_sets_would(
            steps in prop::collection::vec((0_u8..20, 0_u64..300, 0_u64..3), 0..600),
            max in 50_usize..250,
        ) {
            let (mut ids, mut model, mut now) = (Ids::new(max, 0), Model::default(), 0);
            for (step, n, turns) in steps {
                // Few parts, and many ids that want the same place.
                let id = ((n % 3) << 40) | ((n / 3) << 20);
                match step {
                    0 => {
                        now += turns * REMEMBER_MS;
                        ids.turn(now);
                        let young = std::mem::take(&mut model.0[0]);
                        model.0 = match turns {
                            0 => [young, std::mem::take(&mut model.0[1])],
                            1 => [HashSet::new(), young],
                            _ => Default::default(),
                        };
                    }
                    1 | 2 => {
                        ids.forget(id);
                        model.0.iter_mut().for_each(|set| _ = set.remove(&id));
                    }
                    3 => {
                        let mut later = Ids::new(max, now);
                        later.restore(exported(&ids), 0);
                        ids = later;
                    }
                    _ => prop_assert_eq!(ids.take(id), model.take(id, max)),
                }
                let (young, old) = exported(&ids);
                prop_assert_eq!(ids.held, young.len() + old.len());
                prop_assert_eq!([young, old].map(HashSet::from_iter), model.0.clone());
            }
        }
    }

    #[test]
    fn what_is_restored_keeps_its_age() {
        let mut ids = Ids::new(10, 0);
        ids.take(1);
        let saved = exported(&ids);
        for (elapsed, then) in
            [(0, Taken::Known), (REMEMBER_MS - 1, Taken::Known), (2 * REMEMBER_MS, Taken::New)]
        {
            let mut later = Ids::new(10, 0);
            later.restore(saved.clone(), elapsed);
            assert_eq!(later.take(1), then, "after {elapsed} ms");
        }
    }
}
