//! `adjust`: adds to a day's total, and to the longer buckets that hold it.

use super::entries::Correction;
use crate::totals::{Entering, Order, Row, Rows};

/// What is added to what.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Adjust {
    #[command(flatten)]
    of: Correction,
    /// The civil day, as 2026-11-24; `current` is the running one
    #[arg(long, value_name = "DAY")]
    day: String,
    /// A path or URL: of this page alone
    #[arg(long, value_name = "PAGE", default_value = "")]
    page: String,
    /// views, visits or visitors
    total: String,
    /// How many more, or with a minus, fewer
    #[arg(allow_negative_numbers = true)]
    by: i64,
}

impl Adjust {
    /// What is ordered by it.
    pub fn order(self) -> Order {
        let Adjust { of, day: bucket, page, total, by: value } = self;
        let (reason, dry_run) = (of.reason(), of.dry_run);
        let row = Row { line: 0, site: of.site, total, period: "day".to_owned(), bucket, page, value };
        let (rows, as_of) = (Rows(vec![row]), None);
        let (day, is_part) = (None, false);
        Order::Enter(Entering { rows, as_of, adds: true, rolls_up: true, day, dry_run, is_part, reason })
    }
}
