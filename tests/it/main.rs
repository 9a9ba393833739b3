//! The integration tests, in one binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "the deadlines of tests are measured here")]
#![allow(clippy::print_stdout, reason = "numbers of a run and the seed to repeat it are printed")]

mod alarms;
mod bad_input;
mod beacons;
mod civil_days;
mod config;
mod connections;
mod dashboards;
mod disk;
mod harness;
mod http;
mod kills;
mod load;
mod newspaper;
mod operators;
mod packages;
mod presence;
mod prometheus;
mod reads;
mod servers;
mod service;
mod stopping;
mod store_away;
mod tidy;
