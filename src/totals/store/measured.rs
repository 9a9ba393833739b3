//! Counts and times what is asked of a store.

use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;

use super::contract::{Attached, Claim, Concern, Found, Outcome, Query, Store, StoreError, WriterId};
use crate::metrics::{Metrics, Operation};
use crate::sites::SiteKey;
use crate::totals::batch::part::{HashName, Part, SketchPart};
use crate::totals::batch::sketch::Sketch;

/// A store whose operations are counted and timed. What keeps house in the data of a site (calendar, writers) is
/// counted with attaching.
pub struct Measured<S> {
    store: S,
    metrics: Arc<Metrics>,
}

impl<S: Store> Measured<S> {
    pub fn new(store: S, metrics: Arc<Metrics>) -> Self {
        Measured { store, metrics }
    }

    async fn watch<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.metrics.store.watch(operation, work).await
    }
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

    async fn concerns(&self) -> Result<Vec<Concern>, StoreError> {
        self.watch(Operation::Attach, self.store.concerns()).await
    }

    async fn attach(
        &self,
        site: &SiteKey,
        zone: &str,
        writer: &WriterId,
        today: NaiveDate,
        claim: &Claim,
    ) -> Result<Attached, StoreError> {
        self.watch(Operation::Attach, self.store.attach(site, zone, writer, today, claim)).await
    }

    async fn writers(&self, site: &SiteKey) -> Result<Vec<(WriterId, i64)>, StoreError> {
        self.watch(Operation::Attach, self.store.writers(site)).await
    }

    async fn retire(&self, site: &SiteKey, writers: &[WriterId]) -> Result<u64, StoreError> {
        self.watch(Operation::Attach, self.store.retire(site, writers)).await
    }

    async fn apply(
        &self,
        writer: &WriterId,
        parts: Vec<Part>,
        sketches: Vec<SketchPart>,
    ) -> Result<Vec<Outcome>, StoreError> {
        self.watch(Operation::Apply, self.store.apply(writer, parts, sketches)).await
    }

    async fn note_calendar(
        &self,
        calendar: &str,
        at: &str,
        week: HashName,
        days: Vec<HashName>,
    ) -> Result<Option<String>, StoreError> {
        self.watch(Operation::Attach, self.store.note_calendar(calendar, at, week, days)).await
    }

    async fn read(&self, writer: &WriterId, queries: Vec<Query>) -> Result<Vec<Found>, StoreError> {
        self.watch(Operation::Read, self.store.read(writer, queries)).await
    }

    async fn top(&self, hash: &HashName, most: usize) -> Result<Vec<(String, u64)>, StoreError> {
        self.watch(Operation::Read, self.store.top(hash, most)).await
    }

    async fn sketches(&self, names: Vec<HashName>) -> Result<Vec<Option<Sketch>>, StoreError> {
        self.watch(Operation::Read, self.store.sketches(names)).await
    }

    async fn visitors(&self, names: Vec<HashName>) -> Result<Vec<u64>, StoreError> {
        self.watch(Operation::Read, self.store.visitors(names)).await
    }

    async fn salt(
        &self,
        site: &SiteKey,
        day: NaiveDate,
        proposed: [u8; 16],
        keep: Duration,
    ) -> Result<[u8; 16], StoreError> {
        self.watch(Operation::Salt, self.store.salt(site, day, proposed, keep)).await
    }

    /// Not measured: it is read beside the writer's work, by tools.
    async fn dump(&self) -> Result<S::Dump, StoreError> {
        self.store.dump().await
    }
}
