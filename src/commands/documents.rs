//! `completions` and `man`: the command line described for shells and for man.

use std::path::Path;
use std::{fs, io};

use clap::Command;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::outcome::Outcome;
use crate::config::DEFAULTS;

/// What stands at the foot of a manual page in place of a date.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Reads the name of a shell that is completed for.
pub fn shell() -> impl TypedValueParser<Value = Shell> {
    let shells = [("bash", "Bash, with the package bash-completion"), ("zsh", "Zsh"), ("fish", "Fish")];
    let shells = shells.map(|(name, help)| PossibleValue::new(name).help(help));
    PossibleValuesParser::new(shells).try_map(|name| name.parse::<Shell>())
}

/// A shell's completions. Those of `help` would be each command once more.
pub fn completions(command: Command, shell: Shell) -> String {
    let mut text = Vec::new();
    let mut command = command.disable_help_subcommand(true);
    clap_complete::generate(shell, &mut command, "footfall", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// footfall(1); or nothing, where it is written below a directory with footfall.toml(5) and a page for each command.
pub fn man(command: Command, into: Option<&Path>) -> Outcome {
    let mut command = command.disable_help_subcommand(true).disable_help_flag(true);
    command.build();
    let Some(directory) = into else { return Ok(page(&command)?) };
    let mut pages = vec![("man5/footfall.toml.5".to_owned(), settings())];
    let mut open = vec![command];
    while let Some(command) = open.pop() {
        let name = command.get_display_name().unwrap_or("footfall");
        pages.push((format!("man1/{name}.1"), page(&command)?));
        open.extend(command.get_subcommands().cloned());
    }
    let make = |section| fs::create_dir_all(directory.join(section));
    make("man1")
        .and_then(|()| make("man5"))
        .and_then(|()| pages.iter().try_for_each(|(name, text)| fs::write(directory.join(name), text)))
        .map_err(|error| format!("{}: cannot be written to ({error})", directory.display()))?;
    Ok(String::new())
}

/// The page of a command: what the end of its help says of files and the like are sections of their own.
fn page(command: &Command) -> io::Result<String> {
    let usage = command.clone().render_usage().to_string();
    let man = Man::new(command.clone().override_usage(usage.trim_start_matches("Usage: ").to_owned()));
    let man = man.date(VERSION).source("footfall").manual("footfall");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    man.render_extra_section(&mut text)?;
    let mut text = String::from_utf8_lossy(&text).replace("\n.SH EXTRA\nExamples:\n", "\n.SH EXTRA\n");
    text = text.replace("\n.SH EXTRA\n", "\n.SH EXAMPLES\n");
    for section in ["Files", "Environment", "Exit status"] {
        text = text.replace(&format!("\n{section}: "), &format!("\n.SH \"{}\"\n", section.to_uppercase()));
    }
    Ok(text + ".SH \"SEE ALSO\"\nfootfall(1), footfall.toml(5)\n")
}

/// footfall.toml(5): the commented defaults, each key before what is said of it.
fn settings() -> String {
    let mut roff = Roff::new();
    roff.control("TH", ["footfall.toml", "5", VERSION, "footfall", "footfall"]);
    roff.control("SH", ["NAME"]).text([roman("footfall.toml - settings of footfall")]);
    roff.control("SH", ["DESCRIPTION"]);
    let mut said = Vec::new();
    for line in DEFAULTS.lines() {
        match line.strip_prefix('#') {
            Some(comment) => said.push(comment.strip_prefix(' ').unwrap_or(comment)),
            None => {
                match line {
                    "" => roff.control("PP", []),
                    section if section.starts_with('[') => roff.control("SH", [section]),
                    key => roff.control("TP", []).text([bold(key)]),
                };
                said.drain(..).for_each(|text| {
                    // What is set in is a list.
                    (text.starts_with(' ') || text.is_empty()).then(|| roff.control("br", []));
                    roff.text([roman(text)]);
                });
            }
        }
    }
    roff.control("SH", ["SEE ALSO"]).text([roman("footfall(1)")]);
    roff.render()
}
