//! The settings of the totals.

use std::path::PathBuf;
use std::time::Duration;

use crate::totals::delivery::outbox::OutboxConfig;
use crate::totals::intake::journal::JournalConfig;
use crate::totals::store::contract::StoreConfig;

/// Settings of the totals.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where journal, outbox, checkpoint, salts and the embedded store live.
    pub data_dir: PathBuf,
    /// The journal.
    pub journal: JournalConfig,
    /// The outbox.
    pub outbox: OutboxConfig,
    /// The store.
    pub store: StoreConfig,
    /// Most pages of a site in memory; views of further ones count in `(other)`.
    pub max_pages: usize,
    /// How many days views of pages are kept by day.
    pub page_days: u64,
    /// Pages with fewer views of all time, and none on a day that is kept, are folded into `(other)`.
    pub fold_below: u64,
    /// Most view ids remembered.
    pub max_ids: usize,
    /// Time between checkpoints of sessions, ids and known totals.
    pub checkpoint_interval: Duration,
}
