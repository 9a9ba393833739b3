//! Live counters: who follows which site and page.
//!
//! Readers of one site and page share a [`Topic`]. Once a second a task looks at every topic and has its
//! counters written once; where they differ from what was sent last, the topic's readers are woken, and each
//! sends the same shared bytes. So nothing is added to the path of a beacon, and a reader needs no timer.
//!
//! A reader that takes nothing is cut off by the limits of its connection (`http.write_timeout`, a small
//! send buffer). Until then nobody waits for it: what it has missed is not kept, and it goes on with the
//! newest event.
//!
//! ```text
//! retry: 5213                  first of all, another number for each reader, so that they do not come
//!                              back all at once
//! id: 4f0c…                    the entity tag of the body, without its quotes
//! event: counters
//! data: {"site":…}
//!
//! :                            after `live.heartbeat` without an event
//! ```

mod hub;
mod reader;
mod topic;

pub use hub::{Config, Hub};
pub use reader::Reader;
pub use topic::{Snapshot, Topic};
