//! The one task that owns everything durable but the journal.

pub mod answers;
pub mod checkpoint;
pub mod decisions;
pub mod jobs;
pub mod sites;
pub mod turn;
