//! Tools over a whole store: its audit, copies of it, backups.

pub mod audit;
pub mod backup;
pub mod copy;
