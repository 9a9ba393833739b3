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
