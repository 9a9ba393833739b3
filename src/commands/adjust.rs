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
        let Correction { site, intent } = of;
        let row = Row { line: 0, site, total, period: "day".to_owned(), bucket, page, value };
        let rows = Rows(vec![row]);
        Order::Enter(Entering { rows, adds: true, rolls_up: true, intent, ..Entering::default() })
    }
}
