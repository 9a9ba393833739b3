//! What a reader is shown.

pub mod hour;
pub mod json;
pub mod labels;
pub mod prefix;
