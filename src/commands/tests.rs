use clap::{CommandFactory, Parser};

use super::Arguments;

/// The lines of a command's help that begin with its two spaces: what is to be typed.
fn examples(command: &clap::Command) -> Vec<String> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    help.lines().filter_map(|line| line.strip_prefix("  ").map(str::to_owned)).collect()
}

/// The part of an example that is footfall's: without variables before it, and up to what the shell reads
/// (`>`, `&&`) or a remark (two spaces).
fn own_words(line: &str) -> Vec<&str> {
    let line = line.split(" > ").next().unwrap_or_default();
    let line = line.split("   ").next().unwrap_or_default();
    let mut parts = line.split("&&").filter(|part| !part.trim_start().starts_with("systemctl "));
    let part = parts.find(|part| part.split_whitespace().any(|word| word == "footfall"));
    part.unwrap_or_default().split_whitespace().skip_while(|word| *word != "footfall").collect()
}

#[test]
fn every_command_has_examples_and_they_are_of_that_command() {
    let mut commands = vec![(String::new(), Arguments::command())];
    let mut seen = 0;
    while let Some((path, command)) = commands.pop() {
        for sub in command.get_subcommands() {
            commands.push((format!("{path} {}", sub.get_name()), sub.clone()));
        }
        if command.has_subcommands() && !path.is_empty() {
            continue;
        }
        let lines = examples(&command);
        assert!(!lines.is_empty(), "{path:?} has no example");
        for line in &lines {
            let words = own_words(line);
            let parsed = Arguments::try_parse_from(&words);
            assert!(parsed.is_ok(), "{line:?} is refused: {}", parsed.unwrap_err());
            let named = path.split_whitespace().all(|word| words.contains(&word));
            assert!(named, "{line:?} is no example of {path:?}");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen} examples");
}

#[test]
fn the_command_line_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn arguments_show_no_password() {
    let said = ["footfall", "migrate", "redis://:hunter2@a", "redis://u:hunter2@b"];
    let shown = format!("{:?}", Arguments::try_parse_from(said).unwrap());
    assert!(shown.contains("redis://***@a") && !shown.contains("hunter2"), "{shown}");
}
