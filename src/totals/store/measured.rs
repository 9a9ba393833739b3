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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sites::Sites;
    use crate::totals::store::model::Model;
    use crate::totals::store::tests::{day, hash, site, writer};

    #[tokio::test]
    async fn every_operation_is_counted_and_timed() {
        let metrics = Arc::new(Metrics::new(&Sites::default(), 1).unwrap());
        let model = Model::default();
        let store = Measured::new(model.clone(), metrics.clone());
        let all = async || {
            let (site, by, day) = (site(), writer("w"), day("2026-11-23"));
            [
                store.concerns().await.is_ok(),
                store.attach(&site, "UTC", &by, day, &Claim::default()).await.is_ok(),
                store.writers(&site).await.is_ok(),
                store.retire(&site, &[]).await.is_ok(),
                store.note_calendar("UTC monday", "", hash("week:2026-W48"), vec![]).await.is_ok(),
                store.apply(&by, vec![], vec![]).await.is_ok(),
                store.read(&by, vec![]).await.is_ok(),
                store.top(&hash("all:pages"), 1).await.is_ok(),
                store.sketches(vec![]).await.is_ok(),
                store.visitors(vec![]).await.is_ok(),
                store.salt(&site, day, [1; 16], Duration::from_secs(1)).await.is_ok(),
            ]
        };
        assert_eq!(all().await, [true; 11]);
        model.set_down(true);
        assert!(!all().await[5]);
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        for line in [
            "operation_seconds_count{operation=\"salt\"} 1",
            "operations_total{operation=\"apply\",outcome=\"error\"} 1",
            "operations_total{operation=\"apply\",outcome=\"ok\"} 1",
            "operations_total{operation=\"salt\",outcome=\"error\"} 1",
        ] {
            assert!(text.contains(&format!("footfall_store_{line}\n")), "{line} is not in {text}");
        }
        let sum = |operation: &str| -> u64 {
            let begins = format!("footfall_store_operations_total{{operation=\"{operation}\"");
            let counts = text.lines().filter_map(|line| line.strip_prefix(&begins)?.split(' ').nth(1));
            counts.map(|count| count.parse::<u64>().unwrap()).sum()
        };
        assert_eq!(["attach", "apply", "read", "salt"].map(sum), [10, 2, 8, 2]);
    }
}
