//! Where totals are stored: the contract, and the embedded store and Redis, which keep it.

mod any;
pub mod contract;
pub mod dump;
mod embedded;
mod error;
#[cfg(test)]
pub mod model;
pub mod progress;
mod redis;
#[cfg(test)]
pub mod tests;
pub mod url;

use std::path::Path;

pub use self::any::{AnyDump, AnyStore};
use self::embedded::Embedded;
pub use self::redis::{FORMAT as REDIS_FORMAT, check_authorities};
use contract::{StoreConfig, StoreError};

/// Refuses a store file of another format before anything beside it is touched. One that was not closed properly
/// is looked at when it is opened.
pub fn check(config: &StoreConfig, data_dir: &Path) -> Result<(), StoreError> {
    config.url.file(data_dir).map_or(Ok(()), |path| Embedded::check(&path))
}
