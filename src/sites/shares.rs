//! How sites share one bound: half of it is kept for them in equal parts, and the other half is taken by who
//! comes first. So a site that takes all it can get leaves each other one its part.

/// What each site, by the index of its id, holds of a bound.
#[derive(Debug)]
pub struct Shares {
    max: usize,
    sites: usize,
    /// By site.
    held: Vec<usize>,
    all: usize,
    /// What sites hold beyond their parts.
    beyond: usize,
}

impl Shares {
    /// Of a bound of which nothing is held, for one site.
    pub fn new(max: usize) -> Self {
        Shares { max, sites: 1, held: Vec::new(), all: 0, beyond: 0 }
    }

    /// What may be.
    pub fn most(&self) -> usize {
        self.max
    }

    /// The part that is kept for each site.
    fn part(&self) -> usize {
        self.max / 2 / self.sites
    }

    /// Shares the bound among so many sites from now on.
    pub fn among(&mut self, sites: usize) {
        self.sites = sites.max(1);
        let part = self.part();
        self.beyond = self.held.iter().map(|held| held.saturating_sub(part)).sum();
    }

    /// Whether there is room for one more of a site.
    pub fn has_room(&self, site: usize) -> bool {
        self.all < self.max && !self.is_over(site)
    }

    /// Whether a site holds its part, and nothing is left of what is for who comes first.
    pub fn is_over(&self, site: usize) -> bool {
        let part = self.part();
        let is_within = self.held.get(site).is_none_or(|held| *held < part);
        !is_within && self.beyond >= self.max - part * self.sites
    }

    /// One more of a site, if there is room for it.
    pub fn take(&mut self, site: usize) -> bool {
        let has_room = self.has_room(site);
        if has_room {
            self.add(site);
        }
        has_room
    }

    /// One more of a site, whatever the room.
    pub fn add(&mut self, site: usize) {
        self.add_many(site, 1);
    }

    /// So many more of a site, whatever the room.
    pub fn add_many(&mut self, site: usize, number: usize) {
        self.held.resize(self.held.len().max(site + 1), 0);
        let part = self.part();
        if let Some(held) = self.held.get_mut(site) {
            let before = held.saturating_sub(part);
            *held += number;
            self.beyond += held.saturating_sub(part) - before;
            self.all += number;
        }
    }

    /// Of all that is held only a part is, in the same proportion of each site.
    pub fn shrink(&mut self, to: usize) {
        let all = self.all.max(1) as u128;
        let left = |held: &usize| (*held as u128 * to.min(self.all) as u128 / all) as usize;
        self.hold(self.held.iter().map(left).collect());
    }

    /// One fewer of a site.
    pub fn give_back(&mut self, site: usize) {
        let part = self.part();
        if let Some(held) = self.held.get_mut(site).filter(|held| **held > 0) {
            *held -= 1;
            self.all -= 1;
            self.beyond -= usize::from(*held >= part);
        }
    }

    /// Each site holds so much instead.
    pub fn hold(&mut self, held: Vec<usize>) {
        (self.all, self.held) = (held.iter().sum(), held);
        self.among(self.sites);
    }

    /// What all sites hold.
    pub fn all(&self) -> usize {
        self.all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn many_count_as_one_by_one_and_shrink_in_proportion() {
        let (mut one, mut many) = (Shares::new(100), Shares::new(100));
        for (site, number) in [(0, 30), (1, 5), (0, 35)] {
            many.add_many(site, number);
            (0..number).for_each(|_| one.add(site));
        }
        assert_eq!(format!("{one:?}"), format!("{many:?}"));
        many.shrink(14);
        assert_eq!(many.held, [13, 1]);
        many.shrink(50);
        assert_eq!(many.all(), 14, "nothing comes back");
        many.shrink(0);
        assert_eq!(many.all(), 0);
    }

    proptest! {
        /// However sites come, take and give back: nobody takes the part of another, and one alone gets all.
        #[test]
        fn each_site_gets_its_part_whatever_the_others_take(
            max in 1..60usize,
            steps in prop::collection::vec((0..6u8, 0..5u16), 0..300),
            sites in 1..5u16,
        ) {
            let mut shares = Shares::new(max);
            shares.among(sites.into());
            let part = max / 2 / usize::from(sites);
            let mut held = [0usize; 5];
            for (step, site) in steps {
                let site = site % sites;
                let mine = &mut held[usize::from(site)];
                if step == 0 && *mine > 0 {
                    shares.give_back(site.into());
                    *mine -= 1;
                } else {
                    let got = shares.take(site.into());
                    prop_assert!(got || *mine >= part, "{} of {} are kept for it", mine, part);
                    *mine += usize::from(got);
                    prop_assert!(got || held.iter().sum::<usize>() + part * usize::from(sites) >= max);
                }
                prop_assert_eq!(shares.all(), held.iter().sum::<usize>());
                prop_assert!(shares.all() <= max);
            }
            let (mut one, site) = (Shares::new(max), 3);
            prop_assert_eq!((0..2 * max).filter(|_| one.take(site)).count(), max);
        }

        /// The number of sites changes while they hold something, even more than the bound.
        #[test]
        fn what_is_beyond_the_parts_is_known(steps in prop::collection::vec((0..8u8, 0..4u16), 0..200)) {
            let mut shares = Shares::new(20);
            for (step, site) in steps {
                match step {
                    0 => shares.among(site.into()),
                    1 | 2 => shares.give_back(site.into()),
                    3 => shares.add(site.into()),
                    _ => _ = shares.take(site.into()),
                }
                let part = 20 / 2 / shares.sites;
                prop_assert_eq!(shares.beyond, shares.held.iter().map(|n| n.saturating_sub(part)).sum::<usize>());
                prop_assert_eq!(shares.all, shares.held.iter().sum::<usize>());
            }
        }
    }
}
