//! `completions` and `man`: the command line described for shells and for man.

use std::path::Path;

use clap::Command;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap_complete::Shell;

use super::outcome::Outcome;

/// Reads the name of a shell that is completed for.
pub fn shell() -> impl TypedValueParser<Value = Shell> {
    let shells = [("bash", "Bash, with the package bash-completion"), ("zsh", "Zsh"), ("fish", "Fish")];
    let shells = shells.map(|(name, help)| PossibleValue::new(name).help(help));
    PossibleValuesParser::new(shells).try_map(|name| name.parse::<Shell>())
}

/// A shell's completions.
pub fn completions(mut command: Command, shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "footfall", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// footfall(1); or nothing, where it is written with a page for each command into a directory.
pub fn man(command: Command, into: Option<&Path>) -> Outcome {
    let mut text = Vec::new();
    match into {
        None => clap_mangen::Man::new(command).render(&mut text)?,
        Some(directory) => clap_mangen::generate_to(command, directory)
            .map_err(|error| format!("{}: cannot be written to ({error})", directory.display()))?,
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}
