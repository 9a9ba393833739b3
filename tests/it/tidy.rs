//! The rules of the house that neither the compiler nor clippy checks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Who stands above whom: a part imports parts of a lower rank only.
///
/// `metrics` stands above `sites` and `ingest`: its labels are the sites' keys and the reasons'
/// codes, so that both are written once.
const RANKS: [(&str, u8); 12] = [
    ("clock", 0),
    ("calendar", 0),
    ("sites", 1),
    ("ingest", 2),
    ("metrics", 3),
    ("sessions", 4),
    ("totals", 5),
    ("serve", 6),
    ("config", 7),
    ("app", 8),
    ("commands", 9),
    ("main", 10),
];

/// What may stand at the top of the repository beside dotfiles; `target` and `data` are made by
/// building and by running.
const TOP: [&str; 12] = [
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "benches",
    "config",
    "data",
    "src",
    "target",
    "tests",
];

const BANNED_MODULES: [&str; 4] = ["utils", "helpers", "common", "core"];

const MAX_LINES: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()))
}

/// Every file under a folder of the repository, relative to it, but for packages that were installed there;
/// none if there is no such folder.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true if path.ends_with("node_modules") => {}
                true => open.push(path),
                false => found.push(path.strip_prefix(root()).unwrap().to_owned()),
            }
        }
    }
    found.sort();
    found
}

/// The Rust files of the program itself, without its tests.
fn sources() -> Vec<PathBuf> {
    let is_source = |path: &PathBuf| {
        path.extension().is_some_and(|e| e == "rs") && path.file_stem().is_some_and(|s| s != "tests")
    };
    let found: Vec<PathBuf> = files("src").into_iter().filter(is_source).collect();
    assert!(found.len() > 10, "the sources are not where this test looks");
    found
}

/// A file's code without comments and without the tests at its end.
fn code(path: &Path) -> String {
    let text = read(&root().join(path));
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The part that a file belongs to: `src/totals/store.rs` to `totals`.
fn part(path: &Path) -> String {
    let first = path.components().nth(1).unwrap();
    Path::new(&first).file_stem().unwrap().to_string_lossy().into_owned()
}

/// The first names of all paths that begin with `start`, also those in braces: for
/// `use crate::{a, b::{c, d}};` they are `a` and `b`.
fn imports(code: &str, start: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(start) {
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let rest = &code[at + start.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut item = String::new();
        for c in list.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    found.insert(word(&item));
                    item.clear();
                    continue;
                }
                _ => {}
            }
            item.push(c);
        }
        found.insert(word(&item));
    }
    found.remove("");
    found
}

/// The longest chain of `super::` in a code, and how long one may be before it leaves the part.
fn climbs(path: &Path, code: &str) -> (usize, usize) {
    let longest = (1..9).take_while(|n| code.contains(&"super::".repeat(*n))).count();
    let folders = path.components().count().saturating_sub(2);
    let allowed = if path.ends_with("mod.rs") { folders.saturating_sub(1) } else { folders };
    (longest, allowed)
}

#[test]
fn imports_go_down_by_rank() {
    let rank = |part: &str| RANKS.iter().find(|(name, _)| *name == part).map(|(_, rank)| *rank);
    let mut wrong = Vec::new();
    for path in sources().into_iter().filter(|path| !path.ends_with("lib.rs")) {
        let (part, code) = (part(&path), code(&path));
        let Some(own) = rank(&part) else {
            wrong.push(format!("{}: {part} has no rank", path.display()));
            continue;
        };
        let start = if part == "main" { "footfall::" } else { "crate::" };
        for import in imports(&code, start).into_iter().filter(|import| *import != part) {
            if rank(&import).is_none_or(|rank| rank >= own) {
                wrong.push(format!("{}: {part} imports {import}", path.display()));
            }
        }
        let (longest, allowed) = climbs(&path, &code);
        if longest > allowed {
            wrong.push(format!("{}: `super::` leaves the part; write `crate::`", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_found_in_every_spelling() {
    let code =
        "use crate::{a, b::{c, d},\n  e::F as G};\nuse crate::h::i;\n fn x() { crate::j::k(); mycrate::l() }";
    let found: Vec<String> = imports(code, "crate::").into_iter().collect();
    assert_eq!(found, ["a", "b", "e", "h", "j"]);
}

#[test]
fn the_top_of_the_repository_holds_what_is_agreed_and_nothing_else() {
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(name.starts_with('.') || TOP.contains(&name.as_str()), "{name} has no place at the top");
    }
}

#[test]
fn files_are_short() {
    for path in sources().into_iter().chain(files("benches")) {
        let lines = read(&root().join(&path)).lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines, more than {MAX_LINES}", path.display());
    }
}

#[test]
fn no_module_is_named_after_nothing() {
    for path in ["src", "tests", "benches"].into_iter().flat_map(files) {
        for name in
            path.components().map(|c| Path::new(&c).file_stem().unwrap().to_string_lossy().into_owned())
        {
            assert!(!BANNED_MODULES.contains(&name.as_str()), "{}: name its subject", path.display());
        }
    }
}

#[test]
fn nothing_is_left_over() {
    // Split, so that this file does not find itself.
    let markers = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("to", "do!(")]
        .into_iter()
        .chain([concat!("unimple", "mented!("), concat!("#[ig", "nore")]);
    let markers: Vec<&str> = markers.collect();
    for path in ["src", "tests", "benches", "config"].into_iter().flat_map(files) {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            for marker in &markers {
                assert!(!line.contains(marker), "{}:{}: {marker}", path.display(), number + 1);
            }
        }
    }
}

/// A sleep that stands for an event is too short on a busy machine and too long on any other.
#[test]
fn tests_wait_with_their_support_alone() {
    let support = ["tests/it/support", "tests/browser/service.mjs", "tests/browser/support.mjs"];
    for path in files("tests").into_iter().filter(|path| !support.iter().any(|own| path.starts_with(own))) {
        if path.extension().is_none_or(|extension| extension != "rs" && extension != "mjs") {
            continue;
        }
        for (number, line) in read(&root().join(&path)).lines().enumerate() {
            let sleeps =
                [concat!("sle", "ep("), concat!("setTime", "out(")].iter().any(|call| line.contains(call));
            assert!(!sleeps, "{}:{}: wait for what must happen", path.display(), number + 1);
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for path in sources().into_iter().chain(files("benches")) {
        if path.extension().is_some_and(|e| e == "rs") {
            let text = read(&root().join(&path));
            assert!(text.starts_with("//! "), "{} does not begin with its subject", path.display());
        }
    }
}

#[test]
fn every_dependency_says_what_it_is_for() {
    let text = read(&root().join("Cargo.toml"));
    let (mut inside, mut above, mut seen) = (false, "", 0);
    for line in text.lines() {
        if line.starts_with('[') {
            inside = line.contains("dependencies");
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            assert!(above.starts_with("# "), "Cargo.toml: {line}: say above it what it is for");
            seen += 1;
        }
        above = line;
    }
    assert!(seen > 10, "the dependencies are not where this test looks");
}

/// The lines that each hunk of a patch takes out or leaves, by file.
fn hunks(patch: &str) -> Vec<(String, Vec<&str>)> {
    let mut found: Vec<(String, Vec<&str>)> = Vec::new();
    let mut file = String::new();
    for line in patch.lines() {
        if let Some(path) = line.strip_prefix("--- a/") {
            file = path.to_owned();
        } else if line.starts_with("@@ ") {
            found.push((file.clone(), Vec::new()));
        } else if let (Some((_, lines)), Some(old)) =
            (found.last_mut(), line.strip_prefix(' ').or(line.strip_prefix('-')))
        {
            lines.push(old);
        }
    }
    found
}

#[test]
fn every_broken_variant_still_applies_and_names_a_test() {
    let (tests, readme) = (sources_and_tests(), read(&root().join("README.md")));
    let patches: Vec<PathBuf> = files("tests/broken")
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "patch"))
        .collect();
    assert!(patches.len() >= 10, "the broken variants are not where this test looks");
    for path in patches {
        let (patch, name) = (read(&root().join(&path)), path.display());
        let listed = format!("| `{}` |", path.file_stem().unwrap().to_string_lossy());
        assert!(readme.contains(&listed), "{name} is not in the table of README.md");
        let caught_by = patch.lines().find_map(|line| line.strip_prefix("Caught by: "));
        let test = caught_by.and_then(|by| by.rsplit([' ', ':']).next()).unwrap_or_default();
        let is_there =
            |text: &String| text.contains(&format!("fn {test}")) || text.contains(&format!("mod {test};"));
        assert!(!test.is_empty() && tests.iter().any(is_there), "{name} is caught by no test: {caught_by:?}");
        let hunks = hunks(&patch);
        assert!(!hunks.is_empty(), "{name} changes nothing");
        for (file, old) in hunks {
            let text = read(&root().join(&file));
            let lines: Vec<&str> = text.lines().collect();
            let places = lines.windows(old.len()).filter(|window| *window == old).count();
            assert_eq!(places, 1, "{name}: its lines in {file} have changed; make the patch anew");
        }
    }
}

fn sources_and_tests() -> Vec<String> {
    let all = ["src", "tests"].into_iter().flat_map(files);
    all.filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| read(&root().join(path)))
        .collect()
}
