//! How a command ends.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

use crate::config::Faults;

/// Exit code of a configuration or a command line that is refused (`EX_USAGE`).
pub const EXIT_REFUSED: u8 = 64;

/// What a command says on the standard output, or why it ends otherwise than well.
pub type Outcome = Result<String, Failure>;

/// How a command ends that does not end well.
#[derive(Debug)]
pub enum Failure {
    /// The configuration or the arguments are refused: [`EXIT_REFUSED`]. Why is for the standard error.
    Refused(String),
    /// It is not done: exit code 1. Why is for the standard error.
    Undone(String),
    /// What was asked for is not so: exit code 1, and an answer for the standard output.
    No(String),
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Failure::Refused(faults.to_string())
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Failure::Undone(why)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Undone(error.to_string())
    }
}

/// Prints an outcome. The exit code of the process.
pub fn print(outcome: Outcome) -> ExitCode {
    let (said, code) = match outcome {
        Ok(text) => (Ok(text), 0),
        Err(Failure::No(text)) => (Ok(text), 1),
        Err(Failure::Undone(why)) => (Err(why), 1),
        Err(Failure::Refused(why)) => (Err(why), EXIT_REFUSED),
    };
    match said.map(for_terminal).map_err(for_terminal) {
        Ok(text) => {
            let mut out = io::stdout().lock();
            if let Err(fault) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                return not_printed(&fault);
            }
        }
        // If it cannot be printed, nobody can be told.
        Err(why) => {
            let priority = if is_journal() { "<3>" } else { "" };
            let lines = why.trim_end().replace('\n', &format!("\n{priority}"));
            _ = writeln!(io::stderr(), "{priority}footfall: {lines}");
        }
    }
    ExitCode::from(code)
}

/// A text that moves no cursor and turns nothing round: some of it may come from a store that others write to.
fn for_terminal(text: String) -> String {
    let is_odd = |c: char| {
        !matches!(c, '\n' | '\t')
            && (c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
    };
    if !text.contains(is_odd) {
        return text;
    }
    let piece = |c: char| if is_odd(c) { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars().map(piece).collect()
}

/// Whether the standard error goes to the journal of systemd, which takes a line's priority from its begin.
pub fn is_journal() -> bool {
    let stderr = io::stderr().as_fd().try_clone_to_owned().and_then(|copy| File::from(copy).metadata());
    let told = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    stderr.is_ok_and(|stderr| told == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// Says that the standard output took not all of what was asked for: exit code 1.
pub fn not_printed(fault: &io::Error) -> ExitCode {
    print(Err(Failure::Undone(format!("cannot write to the standard output ({fault})"))))
}
