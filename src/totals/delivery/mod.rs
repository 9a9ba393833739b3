//! Batches reach the store, each exactly once: through the [`outbox`], under an [`identity`] that the store
//! knows ([`attach`]), by the markers that its hashes bear ([`apply`]).
//!
//! It reports by what it returns and knows nothing of who counts, or of who reads what is stored.

pub mod apply;
mod attach;
mod calendars;
mod decide;
pub mod held;
pub mod identity;
pub mod outbox;
mod prune;
pub mod salts;
pub mod send;
mod state;

pub use decide::Reason;
pub use state::{Delivery, Parts};
