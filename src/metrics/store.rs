//! Series of what is asked of the store.

use prometheus::{Histogram, IntCounter};
use tokio::time::Instant;

use super::register::Register;

words! {
    /// What is asked of the store.
    pub enum Operation {
        /// Looking at the server, and joining a data set.
        Attach = "attach",
        /// Adding parts of batches.
        Apply = "apply",
        /// Reading totals or markers.
        Read = "read",
        /// The salt of a day.
        Salt = "salt",
    }
}

/// The series.
pub struct StoreOperations([OperationSeries; Operation::WORDS.len()]);

struct OperationSeries {
    ok: IntCounter,
    failed: IntCounter,
    seconds: Histogram,
}

impl StoreOperations {
    pub(super) fn new(r: &Register<'_>) -> Result<Self, prometheus::Error> {
        let counts = r.counters(
            "footfall_store_operations_total",
            &["operation", "outcome"],
            "Store operations by outcome.",
        )?;
        let seconds = r.seconds_by(
            "footfall_store_operation_duration_seconds",
            &["operation"],
            "Time of store operations that succeeded.",
        )?;
        Ok(StoreOperations(Operation::WORDS.map(|(operation, _)| OperationSeries {
            ok: counts.with_label_values(&[operation, "ok"]),
            failed: counts.with_label_values(&[operation, "error"]),
            seconds: seconds.with_label_values(&[operation]),
        })))
    }

    /// Counts and times an operation, and returns what it does.
    pub async fn watch<T, E>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let series = &self.0[operation as usize];
        let began = Instant::now();
        let done = work.await;
        match done {
            Ok(_) => {
                series.ok.inc();
                series.seconds.observe(began.elapsed().as_secs_f64());
            }
            Err(_) => series.failed.inc(),
        }
        done
    }
}
