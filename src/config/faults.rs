//! What is wrong with a configuration, in words that an operator can act on.

use std::fmt;

use strsim::osa_distance;

use crate::totals::without_secret;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key or variable, or the file that cannot be read.
    pub key: String,
    /// The value as written, secrets hidden; none if there is none or if it may be a secret.
    pub value: Option<String>,
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
    /// Where it is set (`footfall.toml line 12`, a variable); empty where the key says so already.
    pub place: String,
}

impl Fault {
    /// A fault of a key or a file, without value and place.
    pub(super) fn new(key: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (key, problem, remedy) = (key.into(), problem.into(), remedy.into());
        Fault { key, value: None, problem, remedy, place: String::new() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, ": {}; {}", self.problem, self.remedy)?;
        if !self.place.is_empty() {
            write!(f, " ({})", self.place)?;
        }
        Ok(())
    }
}

/// All faults of a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0.len() == 1 { "fault" } else { "faults" };
        write!(f, "the configuration has {} {noun}:", self.0.len())?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for Faults {}

/// What is wrong with one value, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub problem: String,
    pub remedy: String,
}

impl Complaint {
    pub fn err<T>(problem: impl Into<String>, remedy: impl Into<String>) -> Result<T, Complaint> {
        Err(Complaint { problem: problem.into(), remedy: remedy.into() })
    }
}

/// A text, or a URL with a password where none belongs without that.
pub(super) fn without_password(text: &str) -> String {
    if text.contains("://") && text.contains('@') { without_secret(text) } else { text.to_owned() }
}

/// The known name that `unknown` was probably meant to be. A key without its section, or in the wrong one,
/// is found by its last part.
pub(super) fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let wanted = last(unknown);
    known
        .map(|name| (osa_distance(unknown, name).min(osa_distance(&wanted, &last(name)) + 1), name))
        .min()
        .filter(|(distance, _)| *distance <= (wanted.len() / 3).max(1))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_a_misspelt_key_and_nothing_for_an_unlike_one() {
        let known = ["listen", "store.url", "store.flush_interval", "journal.max_bytes"];
        let nearest = |unknown| nearest(unknown, known.into_iter());
        assert_eq!(nearest("listen_"), Some("listen"));
        assert_eq!(nearest("flush_interval"), Some("store.flush_interval"));
        assert_eq!(nearest("jurnal.max_byte"), Some("journal.max_bytes"));
        assert_eq!(nearest("colour"), None);
    }
}
