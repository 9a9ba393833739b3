//! What befalls calls of the model, and the model as a whole.

/// What befalls a call to come.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// So many calls pass before it.
    pub calls: u32,
    /// So many parts of the call are applied in its first step (of a call that has fewer: all).
    pub parts: usize,
    pub ends: Ends,
}

/// How a call ends that a fault befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ends {
    /// It fails after the first step.
    Failing,
    /// No answer ever comes; its second step is on its way.
    Silent,
    /// Its second step is done when others have done what they like.
    Slow,
    /// Its caller waits as long as it may; its second step is on its way.
    GivenUp,
}

/// How much of the store goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Back {
    /// All, as a server does that is started anew.
    Whole,
    /// The same, to the middle of a call: some hashes had it, others not.
    Within,
    /// One hash, which no connection notices.
    Hash,
}

impl super::Model {
    /// Goes back to a state it was in. Where a server is started anew its connections are new ones: what was on its
    /// way is gone, and `cuts` says whether the next call on each notices. `pick(n)` chooses one of n. What it was
    /// until now is remembered, too.
    pub fn go_back(&self, to: usize, back: Back, cuts: bool, mut pick: impl FnMut(usize) -> usize) {
        let mut state = self.state();
        let (now, earlier) = (state.data.clone(), state.past[to].clone());
        let later = state.past.get(to + 1).unwrap_or(&now).clone();
        state.data = match back {
            Back::Whole => earlier,
            Back::Within => {
                let mut data = earlier.clone();
                let some = later.unlike(&earlier).into_iter().filter(|_| pick(2) == 0);
                some.for_each(|name| data.take(&name, &later));
                data
            }
            Back::Hash => {
                let (mut data, names) = (now.clone(), now.unlike(&earlier));
                let one = (!names.is_empty()).then(|| pick(names.len()));
                one.into_iter().for_each(|one| data.take(&names[one], &earlier));
                data
            }
        };
        state.past.push(now);
        if back != Back::Hash {
            state.went_back += 1;
            state.cuts = cuts;
            state.late.clear();
        }
    }
}
