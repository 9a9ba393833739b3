//! Where totals are stored: the contract, and the embedded store and Redis, which keep it.

pub mod contract;
pub mod dump;
mod embedded;
mod error;
pub mod measured;
#[cfg(test)]
pub mod model;
mod redis;
#[cfg(test)]
pub mod tests;
pub mod url;

use std::path::Path;

pub use self::embedded::{Embedded, Snapshot};
pub use self::redis::{FORMAT as REDIS_FORMAT, Keyspace, Redis, check_authorities};
use contract::{StoreConfig, StoreError};

/// The store that the settings name. It is matched once, at the start: what works on a store is generic over it.
pub enum Opened {
    /// On local files.
    Embedded(Embedded),
    /// Redis or Valkey.
    Redis(Redis),
}

/// Opens the store that the settings name. Redis need not be up.
pub async fn open(config: &StoreConfig, data_dir: &Path) -> Result<Opened, StoreError> {
    match config.url.file(data_dir) {
        Some(path) => Embedded::open(&path).await.map(Opened::Embedded),
        None => Redis::open(config).map(Opened::Redis),
    }
}

/// Refuses a store file of another format before anything beside it is touched. One that was not closed properly
/// is looked at when it is opened.
pub fn check(config: &StoreConfig, data_dir: &Path) -> Result<(), StoreError> {
    config.url.file(data_dir).map_or(Ok(()), |path| Embedded::check(&path))
}
