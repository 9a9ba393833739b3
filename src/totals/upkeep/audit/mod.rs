//! Audits a store: whether the sums of shorter buckets make up the longer ones (G9), whether pages make up
//! views, and whether everything is written as it should be.
//!
//! | checked | against |
//! |---|---|
//! | views, visits and what was left out of a day | its hours |
//! | of a week, of a month | their days |
//! | of a year; of all | its months; the years |
//! | views of a day, a month, of all | their pages, `(other)` included |
//! | views of a page in a month, of all | its days, where none of them is pruned; the months |
//! | each field | a plain number, or a marker of a writer |
//! | each sketch | a HyperLogLog |
//!
//! A week that overlaps another, because `week_start` was changed in it, holds at most what its days hold.
//! What stands beside the sums (entries, and names of which nothing is known) is shown, and is no part of them.
//!
//! A store that is written to meanwhile never stands still, and a batch reaches it hash by hash. So what
//! does not agree at first is read again for some seconds, and is a disagreement if it never agrees.
//!
//! In memory are the names and sums of one site's buckets, and eight bytes or two of eight for each page
//! of a month and of all.

mod auditor;
mod pages;

pub use self::auditor::{Audit, Disagreement, audit};
