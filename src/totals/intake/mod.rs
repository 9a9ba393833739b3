//! Accepted views are on disk before they are answered.

pub mod group;
pub mod ids;
pub mod journal;
pub mod record;
