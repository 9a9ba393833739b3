//! What a store replies, and what may go wrong with it.

use std::fmt::{self, Display};
use std::ops::Deref;

/// Most characters of a [`StoreText`].
const LONGEST: usize = 500;

/// A text that may hold words of a store. It reaches the log, `/readyz` and pages, so it is short, and no
/// character in it moves a cursor or hides another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreText(String);

impl<T: AsRef<str>> From<T> for StoreText {
    fn from(text: T) -> Self {
        let mut kept = String::new();
        for (n, c) in text.as_ref().chars().enumerate() {
            match c {
                _ if n == LONGEST => {
                    kept.push('…');
                    break;
                }
                '"' | '\'' | '\\' => kept.push(c),
                _ => kept.extend(c.escape_debug()),
            }
        }
        StoreText(kept)
    }
}

impl Deref for StoreText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Display for StoreText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A fault of the store. The texts never hold a password.
///
/// Which of them a fault is, is decided in one function of each backend:
/// `embedded::file::fault`, `redis::connection::fault`.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It did not answer, or not in time: whether it acted is not known. Trying again may help.
    #[error("the store does not answer: {0}")]
    Unreachable(StoreText),
    /// Its own file could not be read or written: the disk is full, broken or read-only. Trying again may help, once
    /// somebody has seen to that.
    #[error("the file of the store cannot be read or written: {0}")]
    File(StoreText),
    /// It refuses, and will until someone acts (format of another version, wrong type, no rights, a word that
    /// no store of ours says).
    #[error("the store refuses: {0}")]
    Refused(StoreText),
    /// The data set is no longer the one attached, or another process holds the writer: nothing was written.
    /// Attach anew.
    #[error("the data set or the bearer of the writer has changed")]
    Detached,
}

impl StoreError {
    /// It did not answer.
    pub fn unreachable(text: impl AsRef<str>) -> Self {
        StoreError::Unreachable(text.into())
    }

    /// It refuses.
    pub fn refused(text: impl AsRef<str>) -> Self {
        StoreError::Refused(text.into())
    }

    /// The same fault, with a file or a key in front of its text.
    pub fn within(self, place: impl Display) -> Self {
        self.map_text(|text| format!("{place}: {text}"))
    }

    /// The same fault with another text.
    pub fn map_text(self, change: impl FnOnce(&str) -> String) -> Self {
        match self {
            StoreError::Unreachable(text) => Self::unreachable(change(&text)),
            StoreError::File(text) => StoreError::File(change(&text).into()),
            StoreError::Refused(text) => Self::refused(change(&text)),
            StoreError::Detached => StoreError::Detached,
        }
    }
}

/// The reply of a store, which may be awaited on any thread.
pub trait Reply<T>: Future<Output = Result<T, StoreError>> + Send {}

impl<T, F: Future<Output = Result<T, StoreError>> + Send> Reply<T> for F {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_a_store_is_short_and_printable() {
        let told = StoreText::from("ERR \x1b[2J\u{202e}it\r\nis “số” 'x' \\");
        assert_eq!(&*told, r"ERR \u{1b}[2J\u{202e}it\r\nis “số” 'x' \");
        assert_eq!(StoreText::from(&*told), told, "made once or twice");
        let fault = StoreError::refused("\x07".repeat(5 << 20)).within("footfall:{demo}:all");
        assert!(fault.to_string().chars().count() < 700, "{fault}");
    }
}
