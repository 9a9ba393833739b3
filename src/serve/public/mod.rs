//! The public listener: pages and readers.

pub mod badge;
pub mod beacon;
pub mod context;
pub mod counters;
pub mod demo;
pub mod refusal_log;
pub mod script;
pub mod widget;
