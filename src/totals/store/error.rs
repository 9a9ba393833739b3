//! What a store replies, and what may go wrong with it.

use std::fmt::Display;

/// A fault of the store. The texts never hold a password.
///
/// Whether a fault is `Unreachable` or `Refused` is decided in one function of each backend:
/// `embedded::file::fault`, `redis::connection::fault`.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It did not answer, or not in time: whether it acted is not known. Trying again may help.
    #[error("the store does not answer: {0}")]
    Unreachable(String),
    /// It refuses, and will until someone acts (format of another version, wrong type, no rights).
    #[error("the store refuses: {0}")]
    Refused(String),
    /// The data set is no longer the one attached, or another process holds the writer: nothing was written.
    /// Attach anew.
    #[error("the data set or the bearer of the writer has changed")]
    Detached,
}

impl StoreError {
    /// The same fault, with a file or a key in front of its text.
    pub fn within(self, place: impl Display) -> Self {
        self.map_text(|text| format!("{place}: {text}"))
    }

    /// The same fault with another text.
    pub fn map_text(self, change: impl FnOnce(String) -> String) -> Self {
        match self {
            StoreError::Unreachable(text) => StoreError::Unreachable(change(text)),
            StoreError::Refused(text) => StoreError::Refused(change(text)),
            StoreError::Detached => StoreError::Detached,
        }
    }
}

/// The reply of a store, which may be awaited on any thread.
pub trait Reply<T>: Future<Output = Result<T, StoreError>> + Send {}

impl<T, F: Future<Output = Result<T, StoreError>> + Send> Reply<T> for F {}
