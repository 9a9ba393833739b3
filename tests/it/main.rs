//! The integration tests, in one binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "the deadlines of tests are measured here")]
#![allow(clippy::print_stdout, reason = "numbers of a run and the seed to repeat it are printed")]

/// What tests start, say and wait with.
mod support {
    pub mod dice;
    pub mod harness;
    pub mod http;
    pub mod load;
    pub mod meddled;
    pub mod node;
    pub mod prometheus;
    pub mod proxy;
    pub mod servers;
    pub mod service;
    pub mod wait;
}

/// What is counted, and what is not.
mod counting {
    mod bad_input;
    mod beacons;
    mod bounds;
    mod civil_days;
    mod clocks;
    mod dry_run;
    mod left_out;
    mod limits;
    mod logs;
    mod newspaper;
    mod presence;
}

/// The store: away, gone back, foreign, copied.
mod store {
    mod away;
    mod copies;
    pub mod entries;
    mod export;
    mod held;
    mod lies;
    mod moves;
    mod orders;
    mod places;
    mod recipes;
    mod retention;
    mod rows;
    mod settings;
    mod writers;
}

/// The data directory.
mod disk {
    mod directory;
    mod failing;
    mod formats;
    mod privacy;
}

/// What pages and readers are answered.
mod http {
    mod asked_of_beacons;
    mod browser;
    mod compressed;
    pub mod connections;
    mod guards;
    mod live;
    mod page_script;
    mod readers;
    mod reads;
    mod widget;
}

/// What operators set, see and order.
mod operators {
    mod alarms;
    mod bad_starts;
    mod commands;
    mod config;
    mod dashboards;
    mod doctor;
    mod documents;
    mod metrics;
    mod overview;
    mod packages;
    mod refusals;
    mod reload;
}

/// Under load: killed, stopped and started, with a store that breaks.
mod load {
    mod full_outbox;
    mod imports;
    mod kills;
    mod never_back;
    mod restarts;
    mod stopping;
    mod store_faults;
    mod twins;
}

mod tidy;
