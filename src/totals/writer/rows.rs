//! What is ordered to be entered. An order comes from another process, as JSON.

use std::fmt;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

/// Most rows of an order: the batch and the record that it becomes are in memory as a whole.
pub const MAX_ROWS: usize = 200_000;

/// What shall be entered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entering {
    /// Of one name the last row holds; where they add, all do.
    pub rows: Rows,
    /// Rows say what shall have been shown when this civil day began; none: what shall be shown now.
    pub as_of: Option<NaiveDate>,
    /// Rows say what to add to what was entered.
    pub adds: bool,
    /// All rows are of days; what they change is added to the longer buckets.
    pub rolls_up: bool,
    /// Rows may be of weeks and hours that another calendar of the site had.
    pub former_calendar: bool,
    /// Rows are all that is known of this civil day. They are entered where neither beacons nor an entry cover it.
    pub day: Option<NaiveDate>,
    /// How, by whom and why.
    pub intent: Intent,
}

/// Who enters something, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
pub struct Intent {
    /// Say only what would be done
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// The user.
    #[arg(skip = user())]
    pub who: String,
    /// What it comes from: a file's name; empty where it is of no file.
    #[arg(skip)]
    pub source: String,
    /// The digest of that, of a part of it with its number. What it named once it does not change again.
    #[arg(skip)]
    pub digest: String,
    /// The reason, for the list of entries
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub why: String,
}

/// Who runs this process.
fn user() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    named.unwrap_or_else(|| "?".to_owned())
}

/// A value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Where it stands, for faults; 0: in no file.
    pub line: usize,
    /// The site's key.
    pub site: String,
    /// `views`, `visits` or `visitors`.
    pub total: String,
    /// `hour` to `all`.
    pub period: String,
    /// A bucket's name, or `current`.
    pub bucket: String,
    /// A path or URL; empty: of the whole site.
    pub page: String,
    /// What the bucket shall show, or what is added.
    pub value: i64,
}

/// Pages of a site that shall be shown as others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moving {
    /// The site's key.
    pub site: String,
    /// One after another.
    pub moves: Rows<Move>,
    /// How, by whom and why.
    pub intent: Intent,
}

/// A page that moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Where it stands, for faults; 0: in no file.
    pub line: usize,
    /// A path or URL.
    pub page: String,
    /// The same of what it is shown as from now on; empty: itself again; `(other)`: it is erased.
    pub to: String,
}

/// Rows, which a log does not show one by one.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rows<T = Row>(pub Vec<T>);

impl<T> fmt::Debug for Rows<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows", self.0.len())
    }
}
