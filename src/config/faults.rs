//! What is wrong with a configuration, in words that an operator can act on.

use std::fmt;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key or variable, or the file that cannot be read.
    pub key: String,
    /// The value as written, secrets hidden; none where there is none or it may be a secret.
    pub value: Option<String>,
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
    /// Where it stands (`footfall.toml line 12`, a variable); empty where the key says so already.
    pub place: String,
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

/// What a reader of one value says of it: the problem and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub problem: String,
    pub remedy: String,
}

impl Complaint {
    /// A complaint as a result.
    pub fn err<T>(problem: impl Into<String>, remedy: impl Into<String>) -> Result<T, Complaint> {
        Err(Complaint { problem: problem.into(), remedy: remedy.into() })
    }
}

/// The known name that `unknown` was probably meant to be. A key that only lacks its section, or
/// stands in the wrong one, is found by its last part.
pub(super) fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let wanted = last(unknown);
    known
        .map(|name| (distance(unknown, name).min(distance(&wanted, &last(name)) + 1), name))
        .min()
        .filter(|(distance, _)| *distance <= (wanted.len() / 3).max(1))
        .map(|(_, name)| name)
}

/// Levenshtein's distance: insertions, deletions and replacements that turn one text into the other.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (b, above) in to.chars().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal + usize::from(a != b);
            diagonal = *above;
            left = replaced.min(left + 1).min(diagonal + 1);
            *above = left;
        }
    }
    // The row holds one cell more than `to` has characters, so there is a last one.
    if to.is_empty() { from.chars().count() } else { row.last().copied().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (from, to, edits) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("hosts", "host", 1)]
        {
            assert_eq!(distance(from, to), edits, "{from} {to}");
        }
    }

    #[test]
    fn nearest_finds_the_slip_and_leaves_strangers_alone() {
        let known = ["listen", "store.url", "store.flush_interval", "journal.max_bytes"];
        let nearest = |unknown| nearest(unknown, known.into_iter());
        assert_eq!(nearest("listen_"), Some("listen"));
        assert_eq!(nearest("flush_interval"), Some("store.flush_interval"));
        assert_eq!(nearest("jurnal.max_byte"), Some("journal.max_bytes"));
        assert_eq!(nearest("colour"), None);
    }
}
