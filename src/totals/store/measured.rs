//! Counts and times what is asked of a store.

use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;

use super::contract::{Attached, Claim, Concern, Found, Outcome, Query, Store, StoreError, WriterId};
use crate::metrics::{Metrics, Operation};
use crate::sites::SiteKey;
use crate::totals::batch::part::{HashName, Part, SketchPart};
use crate::totals::batch::sketch::Sketch;

/// A store whose operations are counted and timed.
pub struct Measured<S> {
    store: S,
    metrics: Arc<Metrics>,
}

impl<S: Store> Measured<S> {
    pub fn new(store: S, metrics: Arc<Metrics>) -> Self {
        Measured { store, metrics }
    }
}

/// Methods that are passed on, each under the operation that it is counted as.
macro_rules! counted {
    ($($operation:ident: $name:ident($($argument:ident: $type:ty),*) -> $reply:ty;)*) => {$(
        async fn $name(&self, $($argument: $type),*) -> Result<$reply, StoreError> {
            self.metrics.store.watch(Operation::$operation, self.store.$name($($argument),*)).await
        }
    )*};
}

impl<S: Store> Store for Measured<S> {
    type Dump = S::Dump;

    fn kind(&self) -> &'static str {
        self.store.kind()
    }

    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    fn generation(&self) -> u64 {
        self.store.generation()
    }

    counted! {
        Attach: concerns() -> Vec<Concern>;
        Attach: attach(site: &SiteKey, zone: &str, writer: &WriterId, today: NaiveDate, claim: &Claim) -> Attached;
        Attach: writers(site: &SiteKey) -> Vec<(WriterId, i64)>;
        Attach: retire(site: &SiteKey, writers: &[WriterId]) -> u64;
        Attach: note_calendar(calendar: &str, at: &str, week: HashName, days: Vec<HashName>) -> Option<String>;
        Apply: apply(writer: &WriterId, parts: Vec<Part>, sketches: Vec<SketchPart>) -> Vec<Outcome>;
        Read: read(writer: &WriterId, queries: Vec<Query>) -> Vec<Found>;
        Read: top(hash: &HashName, most: usize) -> Vec<(String, u64)>;
        Read: sketches(names: Vec<HashName>) -> Vec<Option<Sketch>>;
        Read: visitors(names: Vec<HashName>) -> Vec<u64>;
        Salt: salt(site: &SiteKey, day: NaiveDate, proposed: [u8; 16], keep: Duration) -> [u8; 16];
    }

    /// Not counted: tools read it beside the writer's work.
    async fn dump(&self) -> Result<S::Dump, StoreError> {
        self.store.dump().await
    }
}
