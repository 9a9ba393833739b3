//! Tools over a whole store: its audit, copies of it, backups, all of it as rows.

pub mod audit;
pub mod backup;
pub mod copy;
pub mod export;
