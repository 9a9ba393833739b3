//! Orders about entries: to enter values, to take them back, to list what was entered.
//!
//! A **row** says what a bucket shall show, or what shall be added to what was entered there. From it and from what
//! the store holds follows the register of a **name** (a field of a hash). All names of an order go with one batch
//! into the outbox, with a record of what they were before: all of it is entered, or nothing.
//!
//! | | |
//! |---|---|
//! | `names.rs` | what a row names, and which buckets are longer than its |
//! | `weigh.rs` | what is counted and entered of names, and what they become |
//! | `record.rs` | the audit: who entered what, when and why |
//! | `enter.rs` | the orders |
//! | `moves.rs` | pages that are shown as others |

mod enter;
mod moves;
mod names;
mod record;
mod weigh;

pub use enter::Meanwhile;
