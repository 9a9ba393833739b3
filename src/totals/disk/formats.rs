//! The formats of the files in `data_dir`: read before anything is touched, so that a file of a newer
//! version of footfall stops the start and is left as it is.
//!
//! | file | where its format stands | described in |
//! |---|---|---|
//! | `journal/*.seg`, `outbox/*.seg` | byte 9 | `segments`, and `record` and `batch` of what is in the frames |
//! | `checkpoint` | byte 9 | `checkpoint` |
//! | `writer`, `salts` | first line, `format <n>`; none is 1 | `identity`, `salts` |
//! | `totals.redb` | `format` of the table `meta`; checked by `embedded`, which opens it for reading first, and before that by `recovery` | `embedded` |
//!
//! In Redis it is `format` of each site's `meta`, checked by `attach.lua`: the flush is held then.
//!
//! A change of what one of them holds raises its number, and this table of what is known, and adds to
//! `tests/fixtures` the files of the release before.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::files::if_there;

/// How a magic number and a letter begin a file: the format is the byte that follows.
pub const MAGIC: &[u8] = b"footfall";

/// Letters of the binary files, and the format of each that this version writes. It reads that and those before.
const BINARY: [(u8, u8); 3] = [(b'j', 2), (b'o', 2), (b'c', 2)];

/// The format that this version writes of the files that bear a letter.
pub const fn written(letter: u8) -> u8 {
    let mut at = 0;
    while at < BINARY.len() && BINARY[at].0 != letter {
        at += 1;
    }
    BINARY[at].1
}

/// The format of `writer` and `salts`.
pub const TEXT: &str = "1";

/// The first line of a text file of the current format.
pub fn first_line() -> String {
    format!("format {TEXT}\n")
}

/// A text file without its first line; the first release wrote none.
pub fn body(text: &str) -> &str {
    text.strip_prefix(&first_line()).unwrap_or(text)
}

/// Checks every file of a data directory; `InvalidData` for one of another format, with its name, what it is
/// and what is known.
pub fn check(dir: &Path) -> io::Result<()> {
    let mut files = vec![dir.join("checkpoint")];
    let mut folders = vec![dir.join("journal"), dir.join("outbox")];
    while let Some(folder) = folders.pop() {
        for entry in if_there(fs::read_dir(folder))?.into_iter().flatten() {
            let path = entry?.path();
            // What is set aside for a site is in a folder of its own.
            if path.is_dir() { &mut folders } else { &mut files }.push(path);
        }
    }
    files.iter().try_for_each(|path| check_binary(path))?;
    ["writer", "salts"].iter().try_for_each(|name| check_text(&dir.join(name)))
}

fn check_binary(path: &Path) -> io::Result<()> {
    let mut head = Vec::new();
    let Some(file) = if_there(File::open(path))? else { return Ok(()) };
    file.take(10).read_to_end(&mut head)?;
    // What is no file of ours, or damaged, is told of where it is read.
    let Some([letter, found]) = head.strip_prefix(MAGIC) else { return Ok(()) };
    match BINARY.iter().find(|(known, _)| known == letter) {
        Some((_, known)) if !(1..=*known).contains(found) => {
            Err(refused(path, &found.to_string(), &known.to_string()))
        }
        _ => Ok(()),
    }
}

fn check_text(path: &Path) -> io::Result<()> {
    let bytes = if_there(fs::read(path))?.unwrap_or_default();
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match first.strip_prefix(b"format ").map(String::from_utf8_lossy) {
        Some(found) if found != TEXT => Err(refused(path, &found, TEXT)),
        _ => Ok(()),
    }
}

pub fn refused(path: &Path, found: &str, known: &str) -> io::Error {
    let what = unknown(found, known);
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
}

/// What is said of a format that is not known.
pub fn unknown(found: &str, known: &str) -> String {
    format!(
        "it is of format {found}, this version of footfall ({}) reads format {known}; it is left as it is",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests;
