//! The integration tests, in one binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "the deadlines of tests are measured here")]
#![allow(clippy::print_stdout, reason = "numbers of a run and the seed to repeat it are printed")]

mod alarms;
mod bad_input;
mod bad_starts;
mod beacons;
mod bounds;
mod browser;
mod civil_days;
mod config;
mod connections;
mod copies;
mod dashboards;
mod dice;
mod disk;
mod failing_disk;
mod formats;
mod harness;
mod http;
mod kills;
mod live;
mod load;
mod never_back;
mod newspaper;
mod operators;
mod orders;
mod overview;
mod packages;
mod page_script;
mod presence;
mod prometheus;
mod proxy;
mod reads;
mod redis_settings;
mod reload;
mod restarts;
mod servers;
mod service;
mod stopping;
mod store_away;
mod store_faults;
mod store_orders;
mod tidy;
mod widget;
mod writers;
