//! `completions` and `man`: the command line described for shells and for man.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::Arguments;

/// The shells that are completed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Completed {
    /// Bash, with the package bash-completion
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
}

/// Prints a shell's completions.
pub fn completions(shell: Completed, out: &mut impl Write) -> io::Result<ExitCode> {
    let shell = match shell {
        Completed::Bash => Shell::Bash,
        Completed::Zsh => Shell::Zsh,
        Completed::Fish => Shell::Fish,
    };
    // The generator panics if it cannot write, so it writes into memory.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "footfall", &mut text);
    out.write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints footfall(1), or writes it and a page for each command into a directory.
pub fn man(into: Option<&Path>, out: &mut impl Write) -> io::Result<ExitCode> {
    let command = Arguments::command();
    let Some(directory) = into else {
        clap_mangen::Man::new(command).render(out)?;
        return Ok(ExitCode::SUCCESS);
    };
    match clap_mangen::generate_to(command, directory) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(fault) => {
            eprintln!("footfall: {}: cannot be written to ({fault})", directory.display());
            Ok(ExitCode::FAILURE)
        }
    }
}
