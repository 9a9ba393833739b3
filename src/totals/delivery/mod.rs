//! Batches reach the store, each exactly once.

pub mod apply;
pub mod attach;
pub mod calendars;
pub mod identity;
pub mod outbox;
pub mod salts;
