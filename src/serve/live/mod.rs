//! Live counters: who follows what.

mod hub;
mod topic;

pub use hub::{Config, Live, live};
pub use topic::Reader;
