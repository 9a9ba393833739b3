//! The ids of views counted in the last ten minutes.

use hashbrown::hash_table::HashTable;

use crate::sites::{Shares, SiteId};

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
    shares: Shares,
    /// How many young and old ones each site has.
    counts: [Vec<usize>; 2],
    turned_ms: u64,
}

/// Ids with their sites: those of the younger generation, and of the older.
pub type Generations = [Vec<(u64, SiteId)>; 2];

/// An id with its site, in 10 bytes instead of 16.
#[derive(Clone, Copy)]
#[repr(Rust, packed(2))]
struct Held {
    id: u64,
    site: SiteId,
}

/// The young ids and the old ones. They are keyed hashes already, and hashed no further.
#[derive(Default)]
struct Part([HashTable<Held>; 2]);

pub const YOUNG: usize = 0;
pub const OLD: usize = 1;

impl Part {
    fn holds(&self, id: u64) -> bool {
        self.0.iter().any(|ids| ids.find(id, |held| held.id == id).is_some())
    }
}

impl Ids {
    /// Remembers at most `max` ids.
    pub fn new(max: usize, uptime_ms: u64) -> Self {
        let parts = (0..PARTS).map(|_| Part::default()).collect();
        Ids { parts, shares: Shares::new(max), counts: Default::default(), turned_ms: uptime_ms }
    }

    /// How many are remembered.
    pub fn number(&self) -> usize {
        self.shares.all()
    }

    /// Shares the room among so many sites.
    pub fn share_among(&mut self, sites: usize) {
        self.shares.among(sites);
    }

    /// The part of an id: by bits in its middle, because tables tell ids apart by the highest and the lowest.
    fn part(&mut self, id: u64) -> &mut Part {
        &mut self.parts[(id >> 40) as usize % PARTS]
    }

    /// Whether an id is remembered.
    pub fn knows(&mut self, id: u64) -> bool {
        self.part(id).holds(id)
    }

    /// Takes the id of a view whose group is about to be written.
    pub fn take(&mut self, id: u64, site: SiteId) -> Taken {
        if self.part(id).holds(id) {
            return Taken::Known;
        }
        if !self.shares.take(site.index()) {
            return Taken::NoRoom;
        }
        self.insert(id, site, YOUNG);
        Taken::New
    }

    /// Takes the id of a view that is read back: there was room for it.
    pub fn take_again(&mut self, id: u64, site: SiteId) {
        self.remember(id, site, YOUNG);
    }

    fn remember(&mut self, id: u64, site: SiteId, age: usize) {
        if !self.part(id).holds(id) {
            self.shares.add(site.index());
            self.insert(id, site, age);
        }
    }

    fn insert(&mut self, id: u64, site: SiteId, age: usize) {
        self.part(id).0[age].insert_unique(id, Held { id, site }, |held| held.id);
        let counts = &mut self.counts[age];
        counts.resize(counts.len().max(site.index() + 1), 0);
        counts[site.index()] += 1;
    }

    /// The group was undone.
    pub fn forget(&mut self, id: u64) {
        // It may have grown old meanwhile.
        for age in [YOUNG, OLD] {
            if let Ok(found) = self.part(id).0[age].find_entry(id, |held| held.id == id) {
                let (Held { site, .. }, _) = found.remove();
                self.counts[age][site.index()] -= 1;
                self.shares.give_back(site.index());
            }
        }
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
        let young = std::mem::take(&mut self.counts[YOUNG]);
        self.counts[OLD] = if age < TWICE_MS { young } else { Vec::new() };
        self.shares.hold(self.counts[OLD].clone());
        self.turned_ms = uptime_ms;
    }

    /// Copies the ids of a part that are of a generation.
    pub fn export(&self, part: usize, age: usize) -> Vec<(u64, SiteId)> {
        self.parts[part].0[age].iter().map(|held| (held.id, held.site)).collect()
    }

    /// Takes back what was exported `elapsed_ms` ago.
    pub fn restore(&mut self, [young, old]: Generations, elapsed_ms: u64) {
        let (young, old) = match elapsed_ms {
            ..REMEMBER_MS => (young, old),
            REMEMBER_MS..TWICE_MS => (Vec::new(), young),
            _ => return,
        };
        let young = young.into_iter().map(|id| (id, YOUNG));
        for ((id, site), age) in young.chain(old.into_iter().map(|id| (id, OLD))) {
            self.remember(id, site, age);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn exported(ids: &Ids) -> Generations {
        [YOUNG, OLD].map(|age| (0..PARTS).flat_map(|part| ids.export(part, age)).collect())
    }

    #[test]
    fn an_id_is_known_for_ten_minutes_and_forgotten_after_twenty() {
        let mut ids = Ids::new(10, 0);
        ids.turn(REMEMBER_MS - 1);
        assert_eq!(ids.take(7, SiteId(0)), Taken::New);
        ids.turn(REMEMBER_MS);
        assert_eq!(ids.take(7, SiteId(0)), Taken::Known, "a millisecond later, in the older generation");
        ids.turn(2 * REMEMBER_MS - 1);
        assert_eq!(ids.take(7, SiteId(0)), Taken::Known, "ten minutes later");
        ids.turn(2 * REMEMBER_MS);
        assert_eq!(ids.take(7, SiteId(0)), Taken::New);
    }

    #[test]
    fn an_undone_id_is_free_again_however_old_it_grew() {
        for turned_ms in [0, REMEMBER_MS] {
            let mut ids = Ids::new(10, 0);
            ids.take(7, SiteId(0));
            ids.turn(turned_ms);
            ids.forget(7);
            assert_eq!(ids.take(7, SiteId(0)), Taken::New);
        }
    }

    #[test]
    fn a_full_memory_takes_no_new_one() {
        let mut ids = Ids::new(1, 0);
        assert_eq!(ids.take(1, SiteId(0)), Taken::New);
        assert_eq!(ids.take(2, SiteId(0)), Taken::NoRoom);
        assert_eq!(ids.take(1, SiteId(0)), Taken::Known);
    }

    #[test]
    fn a_site_that_fills_the_memory_leaves_others_their_part() {
        let mut ids = Ids::new(100, 0);
        ids.share_among(2);
        let mut taken = |site, from: u64| {
            (from..from + 100).filter(|id| ids.take(*id, SiteId(site)) == Taken::New).count()
        };
        assert_eq!((taken(0, 0), taken(1, 1000)), (75, 25));
        ids.turn(2 * REMEMBER_MS);
        assert_eq!(ids.shares.all(), 0);
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
                    _ => prop_assert_eq!(ids.take(id, SiteId(0)), model.take(id, max)),
                }
                let held = exported(&ids);
                prop_assert_eq!(ids.shares.all(), held[0].len() + held[1].len());
                let held = held.map(|ids| ids.into_iter().map(|(id, _)| id).collect::<HashSet<_>>());
                prop_assert_eq!(held, model.0.clone());
            }
        }
    }

    #[test]
    fn what_is_restored_keeps_its_age() {
        let mut ids = Ids::new(10, 0);
        ids.take(1, SiteId(0));
        let saved = exported(&ids);
        for (elapsed, then) in
            [(0, Taken::Known), (REMEMBER_MS - 1, Taken::Known), (2 * REMEMBER_MS, Taken::New)]
        {
            let mut later = Ids::new(10, 0);
            later.restore(saved.clone(), elapsed);
            assert_eq!(later.take(1, SiteId(0)), then, "after {elapsed} ms");
        }
    }
}
