//! The ids of views counted in the last ten minutes.

/// How long an id is remembered at least.
const REMEMBER_MS: u64 = 10 * 60 * 1000;

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

/// Parts of the table, chosen by an id's highest bits. Each grows by itself, so that no view waits for
/// the whole table to be copied.
pub const PARTS: usize = 256;

/// Two generations: the young one takes new ids, the old one is dropped whole when the young one is ten
/// minutes old. So an id is remembered for ten to twenty minutes and none is ever looked for to expire it.
///
/// An id is a keyed hash already. It is kept as it is, except its highest bit, which tells whether the
/// generation's number is odd: so a look-up waits for memory once, whatever it finds.
pub struct Ids {
    parts: Vec<Part>,
    /// The number of the young generation.
    generation: u64,
    young: usize,
    old: usize,
    turned_ms: u64,
    max: usize,
}

/// Ids in open addressing with linear probing: the word 0 is a free place.
#[derive(Default)]
struct Part {
    words: Box<[u64]>,
    held: usize,
    /// The young generation when it was last rid of what is forgotten.
    generation: u64,
}

/// The bit that is set in ids of a generation with an odd number.
const ODD: u64 = 1 << 63;

/// An id without that bit, never 0.
fn bare(id: u64) -> u64 {
    match id & !ODD {
        0 => ODD >> 1,
        bare => bare,
    }
}

/// An id as a word of a generation.
fn word(id: u64, generation: u64) -> u64 {
    bare(id) | generation << 63
}

/// Whether a word is of a generation, rather than of the one beside it.
fn is_of(word: u64, generation: u64) -> bool {
    word >> 63 == generation & 1
}

impl Part {
    /// Where a bare id is, or where it would be put. The part is not full.
    fn place(&self, bare: u64) -> usize {
        let mask = self.words.len() - 1;
        let mut place = bare as usize & mask;
        while self.words[place] & !ODD != bare && self.words[place] != 0 {
            place = (place + 1) & mask;
        }
        place
    }

    /// The words of generations that are remembered, `generation` being the young one now.
    fn remembered(&self, generation: u64) -> impl Iterator<Item = u64> {
        let age = generation - self.generation;
        self.words
            .iter()
            .copied()
            .filter(move |word| *word != 0 && (age == 0 || (age == 1 && is_of(*word, self.generation))))
    }

    /// Keeps what is remembered and `keep` wants, with room for one more.
    fn rebuild(&mut self, generation: u64, keep: impl Fn(u64) -> bool) {
        let words: Vec<u64> = self.remembered(generation).filter(|word| keep(*word)).collect();
        let room = ((words.len() + 1) * 2).next_power_of_two().max(8);
        *self = Part { words: vec![0; room].into(), held: words.len(), generation };
        for word in words {
            let place = self.place(word & !ODD);
            self.words[place] = word;
        }
    }
}

impl Ids {
    /// Remembers at most `max` ids.
    pub fn new(max: usize, uptime_ms: u64) -> Self {
        let parts = (0..PARTS).map(|_| Part::default()).collect();
        Ids { parts, generation: 0, young: 0, old: 0, turned_ms: uptime_ms, max }
    }

    /// The part of an id, ready to be looked into and to take one more.
    fn part(&mut self, id: u64) -> &mut Part {
        let part = &mut self.parts[(bare(id) >> 55) as usize];
        if part.generation != self.generation || part.held * 4 >= part.words.len() * 3 {
            part.rebuild(self.generation, |_| true);
        }
        part
    }

    /// Takes the id of a view whose group is about to be written.
    pub fn take(&mut self, id: u64) -> Taken {
        let (young, full) = (self.generation, self.young + self.old >= self.max);
        let part = self.part(id);
        let place = part.place(bare(id));
        if part.words[place] != 0 {
            return Taken::Known;
        }
        if full {
            return Taken::NoRoom;
        }
        part.words[place] = word(id, young);
        part.held += 1;
        self.young += 1;
        Taken::New
    }

    /// Puts an id into a generation, unless it is in one.
    fn put(&mut self, id: u64, young: bool) {
        let generation = if young { self.generation } else { self.generation + 1 };
        let part = self.part(id);
        let place = part.place(bare(id));
        if part.words[place] == 0 {
            part.words[place] = word(id, generation);
            part.held += 1;
            let held = if young { &mut self.young } else { &mut self.old };
            *held += 1;
        }
    }

    /// The group was undone.
    pub fn forget(&mut self, id: u64) {
        let generation = self.generation;
        let part = self.part(id);
        let gone = part.words[part.place(bare(id))];
        if gone == 0 {
            return;
        }
        part.rebuild(generation, |word| word != gone);
        // It may have grown old meanwhile.
        let held = if is_of(gone, generation) { &mut self.young } else { &mut self.old };
        *held -= 1;
    }

    /// Drops what is old enough. A part lets go of it when it is next looked into.
    pub fn turn(&mut self, uptime_ms: u64) {
        let age = uptime_ms.saturating_sub(self.turned_ms);
        if age < REMEMBER_MS {
            return;
        }
        let both = age >= TWICE_MS;
        self.generation += if both { 2 } else { 1 };
        self.old = if both { 0 } else { self.young };
        self.young = 0;
        self.turned_ms = uptime_ms;
    }

    /// Copies the younger and the older ids of a part.
    pub fn export(&self, part: usize, (young, old): &mut (Vec<u64>, Vec<u64>)) {
        for word in self.parts[part].remembered(self.generation) {
            if is_of(word, self.generation) { young.push(word) } else { old.push(word) }
        }
    }

    /// Takes back what was exported `elapsed_ms` ago.
    pub fn restore(&mut self, (young, old): (Vec<u64>, Vec<u64>), elapsed_ms: u64) {
        let (young, old) = match elapsed_ms {
            ..REMEMBER_MS => (young, old),
            REMEMBER_MS..TWICE_MS => (Vec::new(), young),
            _ => return,
        };
        young.into_iter().for_each(|id| self.put(id, true));
        old.into_iter().for_each(|id| self.put(id, false));
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
                let id = ((n % 3) << 56) | ((n / 3) << 20);
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
                        model.0.iter_mut().for_each(|set| _ = set.remove(&bare(id)));
                    }
                    3 => {
                        let mut later = Ids::new(max, now);
                        later.restore(exported(&ids), 0);
                        ids = later;
                    }
                    _ => prop_assert_eq!(ids.take(id), model.take(bare(id), max)),
                }
                prop_assert_eq!([ids.young, ids.old], model.0.each_ref().map(HashSet::len));
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
