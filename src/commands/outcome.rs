//! How a command ends.

use std::io::{self, Write};
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
    match said {
        Ok(text) => {
            let mut out = io::stdout().lock();
            if let Err(fault) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                return not_printed(&fault);
            }
        }
        // If it cannot be printed, nobody can be told.
        Err(why) => _ = writeln!(io::stderr(), "footfall: {}", why.trim_end()),
    }
    ExitCode::from(code)
}

/// Says that the standard output took not all of what was asked for: exit code 1.
pub fn not_printed(fault: &io::Error) -> ExitCode {
    print(Err(Failure::Undone(format!("cannot write to the standard output ({fault})"))))
}
