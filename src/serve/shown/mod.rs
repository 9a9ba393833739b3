//! What a reader is shown: figures, their labels, and the bodies that they are sent in.

pub mod figure;
pub mod hour;
pub mod json;
pub mod labels;
pub mod prefix;
