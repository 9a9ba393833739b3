//! What a command reads from files, and a line on the terminal that says how far it is.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

/// How far long work is. Nothing is shown where the standard error is no terminal.
pub fn progress() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{elapsed} {wide_bar} {bytes} of {total_bytes}, {eta} more {msg}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Opens a file, or the standard input by the name `-`; `progress` follows what is read of it.
pub fn open(name: &str, progress: &ProgressBar) -> io::Result<Box<dyn Read>> {
    if name == "-" {
        return Ok(Box::new(progress.wrap_read(io::stdin())));
    }
    let file = File::open(name)?;
    progress.inc_length(file.metadata()?.len());
    Ok(Box::new(progress.wrap_read(file)))
}

/// A path without its folders, for the list of entries.
pub fn file_name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Names what is entered.
pub fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let digits = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", digits.collect::<String>())
}
