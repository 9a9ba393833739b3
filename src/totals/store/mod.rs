//! Where totals are stored: the contract, and the embedded store and Redis, which keep it.

pub mod contract;
pub mod dump;
pub mod embedded;
#[cfg(test)]
pub mod model;
pub mod redis;
#[cfg(test)]
pub mod tests;
pub mod url;
