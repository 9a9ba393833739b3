//! Files that survive: a directory of one's own, a log of framed records, and what was lost of them.

pub mod codec;
pub mod dir;
pub mod fatal;
#[cfg(test)]
pub mod faults;
pub mod files;
pub mod formats;
pub mod frame;
pub mod log;
pub mod losses;
mod scan;
