//! The documents: their links hold, each is of its length; and what the program prints of itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documents of the repository.
fn documents() -> Vec<PathBuf> {
    let named = [
        "README.md",
        "CHANGELOG.md",
        "config/README.md",
        "config/HUONG-DAN.md",
        "config/prometheus/README.md",
    ];
    named.map(|name| root().join(name)).to_vec()
}

/// The anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The anchors of a document's headings. What is indented or fenced is none of them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let headings = text.lines().filter(|line| {
        fenced ^= line.starts_with("```");
        !fenced && line.starts_with('#')
    });
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut seen = 0;
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(file.exists(), "{}: {target}", path.display());
            if !heading.is_empty() {
                let there = anchors(&std::fs::read_to_string(&file).unwrap());
                assert!(there.contains(heading), "{}: {target}", path.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 60, "{seen} links");
}

#[test]
fn the_first_page_is_for_the_first_hour() {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(text.lines().count() <= 350, "{} lines", text.lines().count());
    for picture in ["demo", "overview"] {
        let picture = root().join(format!("config/pictures/{picture}.png"));
        assert!(picture.metadata().unwrap().len() <= 100_000, "{}", picture.display());
    }
}

/// What the program prints.
fn printed(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_footfall"))
        .args(arguments)
        .current_dir(std::env::temp_dir())
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn manual_pages_have_the_sections_that_people_look_for() {
    let dir = tempfile::tempdir().unwrap();
    printed(&["man", "--into", dir.path().to_str().unwrap()]);
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let main = read("man1/footfall.1");
    assert_eq!(main, printed(&["man"]));
    for section in
        ["NAME", "SYNOPSIS", "OPTIONS", "\"FILES\"", "\"ENVIRONMENT\"", "\"EXIT STATUS\"", "EXAMPLES"]
    {
        assert_eq!(main.matches(&format!("\n.SH {section}\n")).count(), 1, "{section}: {main}");
    }
    let mut pages = 0;
    for page in std::fs::read_dir(dir.path().join("man1")).unwrap() {
        let (text, name) =
            (std::fs::read_to_string(page.as_ref().unwrap().path()).unwrap(), page.unwrap().file_name());
        assert!(text.contains(".SH SYNOPSIS\n") && text.contains(".SH \"SEE ALSO\"\n"), "{name:?}: {text}");
        assert!(!text.contains(".SH EXTRA") && !text.contains("[\\-h|"), "{name:?}: {text}");
        pages += 1;
    }
    assert!(pages > 20, "{pages} pages");
    // Every key of the commented defaults has its paragraph, with what is said of it.
    let settings = read("man5/footfall.toml.5");
    let defaults = std::fs::read_to_string(root().join("config/footfall.toml")).unwrap();
    for line in defaults.lines().filter(|line| !line.is_empty()) {
        let said = line
            .trim_start_matches(['#', ' '])
            .replace('\\', "\\\\")
            .replace('-', "\\-")
            .replace('\'', "\\*(Aq");
        assert!(settings.contains(&said), "{line}");
    }
}

#[test]
fn help_and_completions_say_each_thing_once() {
    let long = "/etc/footfall/footfall.toml, else";
    assert_eq!(printed(&["--help"]).matches(long).count(), 1);
    assert_eq!(printed(&["verify", "--help"]).matches(long).count(), 0);
    for shell in ["bash", "zsh", "fish"] {
        let text = printed(&["completions", shell]);
        assert!(text.contains("check-config"), "{shell}");
        assert!(!text.contains(long) && !text.contains("seen_subcommand_from help"), "{shell}: {text}");
        assert!(!text.contains("footfall__help") && !text.contains("subcommand help"), "{shell}: {text}");
    }
}
