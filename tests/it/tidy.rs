//! The rules of the house that neither the compiler nor clippy checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Who stands above whom: in a folder of `src`, a file or a folder imports those of a lower rank only.
///
/// Of the whole: `metrics` stands above `sites` and `ingest`, since its labels are the sites' keys and the
/// reasons' codes, so that both are written once.
const RANKS: &[(&str, &[(&str, u8)])] = &[
    (
        "",
        &[
            ("words", 0),
            ("clock", 0),
            ("random", 0),
            ("calendar", 0),
            ("sites", 1),
            ("ingest", 2),
            ("metrics", 3),
            ("sessions", 4),
            ("totals", 5),
            ("serve", 6),
            ("logs", 6),
            ("config", 7),
            ("fuzzed", 8),
            ("app", 8),
            ("commands", 9),
            ("main", 10),
            ("lib", 11),
        ],
    ),
    (
        "totals",
        &[
            ("disk", 0),
            ("batch", 1),
            ("store", 2),
            ("tally", 2),
            ("intake", 3),
            ("delivery", 3),
            ("upkeep", 3),
            ("writer", 4),
            ("fuzzed", 5),
            ("recovery", 5),
            ("mod", 6),
        ],
    ),
    (
        "serve",
        &[
            ("addresses", 0),
            ("answer", 0),
            ("conn", 1),
            ("live", 1),
            ("shown", 1),
            ("refusals", 1),
            ("crowds", 1),
            ("proxies", 1),
            ("parts", 2),
            ("overview", 3),
            ("public", 4),
            ("admin", 4),
            ("mod", 5),
        ],
    ),
];

/// What never imports what, though its rank would allow it.
const NEVERS: &[(&str, &str)] = &[
    ("totals/delivery", "totals/tally"),
    ("totals/store", "totals/disk/log"),
    ("totals/tally", "totals/store"),
    ("totals/upkeep", "totals/delivery"),
    ("serve/overview", "serve/conn"),
    ("serve/overview", "serve/live"),
];

/// Where threads and tasks begin, how many, and what comes of the end of one.
const SPAWNS: &[(&str, usize, &str)] = &[
    ("src/app.rs", 3, "the service ends with it"),
    ("src/app/reload.rs", 1, "the configuration is not taken"),
    ("src/commands/healthcheck.rs", 1, "the command says that nobody answers"),
    ("src/serve/admin/control.rs", 1, "the command that gave the order has no answer"),
    ("src/serve/conn/mod.rs", 3, "its connection ends, which is counted and logged"),
    ("src/serve/public/live.rs", 1, "the pages are fetched in the next second"),
    ("src/totals/intake/journal.rs", 1, "the service ends with it"),
    ("src/totals/mod.rs", 1, "it is that of writer/mod.rs"),
    ("src/totals/store/embedded/dump.rs", 2, "the copy or the audit is told to have failed"),
    ("src/totals/store/embedded/file.rs", 1, "the store's file is told to be damaged"),
    ("src/totals/store/redis/connection.rs", 1, "the connection is broken, and made anew"),
    ("src/totals/upkeep/backup.rs", 1, "the backup is told to have failed"),
    ("src/totals/writer/jobs.rs", 2, "the order is told to have failed"),
    ("src/totals/writer/mod.rs", 1, "the service ends with it"),
    ("src/totals/writer/walks.rs", 1, "those who wait for it are let go of, and ask again"),
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
                true if ["node_modules", ".venv"].iter().any(|name| path.ends_with(name)) => {}
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
        let is_test = path.with_extension("").iter().any(|part| part == "tests");
        path.extension().is_some_and(|e| e == "rs") && !is_test
    };
    let found: Vec<PathBuf> = files("src").into_iter().filter(is_source).collect();
    assert!(found.len() > 10, "the sources are not where this test looks");
    found
}

/// A file's code without comments and without the tests at its end.
fn code(path: &Path) -> String {
    let text = read(&root().join(path));
    let tests = text.match_indices("#[cfg(test)]\n").map(|(at, found)| (at, &text[at + found.len()..]));
    let mut inline =
        tests.filter(|(_, rest)| rest.lines().next().is_some_and(|line| line.ends_with("mod tests {")));
    let code = &text[..inline.next().map_or(text.len(), |(at, _)| at)];
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The place of a file below `src`, as a module: `["totals", "store"]` of `src/totals/store.rs` and of
/// `src/totals/store/mod.rs`, nothing of `src/lib.rs`.
fn module(path: &Path) -> Vec<String> {
    let below = path.strip_prefix("src").unwrap().with_extension("");
    let mut names: Vec<String> = below.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|name| name == "mod") || names == ["lib"] {
        names.pop();
    }
    names
}

/// The file of each module.
fn modules() -> BTreeMap<Vec<String>, PathBuf> {
    sources().into_iter().map(|path| (module(&path), path)).collect()
}

/// All paths in a code that begin with `start`, names in braces written out: for
/// `use crate::{a, b::{c, d}};` they are `a`, `b::c` and `b::d`.
fn paths(code: &str, start: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(start) {
        let is_inside = |before: char| before.is_alphanumeric() || before == '_' || before == ':';
        if !code[..at].ends_with(is_inside) {
            tree(&code[at + start.len()..], &mut Vec::new(), &mut found);
        }
    }
    found
}

/// Finds the paths that a text begins with, below the names `above`. What follows them.
fn tree<'c>(text: &'c str, above: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'c str {
    let text = text.trim_start();
    if let Some(mut list) = text.strip_prefix('{') {
        while !list.trim_start().starts_with('}') && !list.is_empty() {
            let rest = tree(list, above, found);
            // What is imported under another name is imported.
            list = &rest[rest.find([',', '}']).unwrap_or(rest.len())..];
            list = list.strip_prefix(',').unwrap_or(list);
        }
        return list.trim_start().strip_prefix('}').unwrap_or_default();
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    above.push(name.to_owned());
    let goes_on = |rest: &&str| rest.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '{');
    let rest = match rest.strip_prefix("::").filter(goes_on) {
        Some(rest) => tree(rest, above, found),
        None => {
            found.push(above.clone());
            rest
        }
    };
    above.pop();
    rest
}

/// The modules that a module's code names: its children, and those that its paths lead through at last.
fn imported(own: &[String], code: &str, modules: &BTreeMap<Vec<String>, PathBuf>) -> BTreeSet<Vec<String>> {
    let is_module = |path: &[String]| modules.contains_key(path);
    let longest = |path: &[String]| {
        (0..=path.len()).rev().map(|length| path[..length].to_vec()).find(|path| is_module(path)).unwrap()
    };
    let mut found = BTreeSet::new();
    // Names that stand for modules: children, and what is imported as a whole.
    let mut aliases = BTreeMap::new();
    for line in code.lines().filter_map(|line| line.trim().strip_suffix(';')) {
        let child = line.split(' ').collect::<Vec<_>>();
        if let [.., "mod", name] = child[..] {
            aliases.insert(name.to_owned(), [own, &[name.to_owned()]].concat());
        }
    }
    found.extend(aliases.values().filter(|path| is_module(path)).cloned());
    let parent = &own[..own.len().saturating_sub(1)];
    let starts = [("crate::", &[][..]), ("footfall::", &[]), ("self::", own), ("super::", parent)];
    for (start, from) in starts {
        for path in paths(code, start) {
            let climbs = path.iter().take_while(|name| *name == "super").count();
            let path = [&from[..from.len() - climbs.min(from.len())], &path[climbs..]].concat();
            let path: Vec<String> = path.into_iter().take_while(|name| name != "self").collect();
            if is_module(&path)
                && let Some(name) = path.last()
            {
                aliases.insert(name.clone(), path.clone());
            }
            found.insert(longest(&path));
        }
    }
    for (name, alias) in &aliases {
        for path in paths(code, &format!("{name}::")) {
            found.insert(longest(&[&alias[..], &path].concat()));
        }
    }
    found.remove(own);
    found
}

/// The files that each file imports.
fn imports() -> BTreeMap<PathBuf, BTreeSet<PathBuf>> {
    let modules = modules();
    let of = |(own, path): (&Vec<String>, &PathBuf)| {
        let found = imported(own, &code(path), &modules);
        (path.clone(), found.iter().map(|module| modules[module].clone()).collect())
    };
    modules.iter().map(of).collect()
}

/// What a file belongs to in a folder of `src`, if it is in it: `store` for `src/totals/store/redis.rs` in
/// `totals`.
fn room(path: &Path, folder: &str) -> Option<String> {
    let first = path.strip_prefix(Path::new("src").join(folder)).ok()?.iter().next()?;
    Some(Path::new(first).file_stem()?.to_string_lossy().into_owned())
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
    let mut wrong = Vec::new();
    for (path, imported) in imports() {
        for (folder, ranks) in RANKS {
            let rank = |room: &str| ranks.iter().find(|(name, _)| *name == room).map(|(_, rank)| *rank);
            let Some(own) = room(&path, folder) else { continue };
            let Some(own_rank) = rank(&own) else {
                wrong.push(format!("{}: {own} has no rank", path.display()));
                continue;
            };
            for import in imported.iter().filter_map(|import| room(import, folder)) {
                if import != own && rank(&import).is_none_or(|rank| rank >= own_rank) {
                    wrong.push(format!("{}: {own} imports {import}", path.display()));
                }
            }
        }
        let (longest, allowed) = climbs(&path, &code(&path));
        if longest > allowed {
            wrong.push(format!("{}: `super::` leaves the part; write `crate::`", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn some_never_import_others() {
    let is_in = |path: &Path, room: &str| path.with_extension("").starts_with(Path::new("src").join(room));
    for (path, imported) in imports() {
        for (own, never) in NEVERS.iter().filter(|(own, _)| is_in(&path, own)) {
            let found = imported.iter().find(|import| is_in(import, never));
            assert!(found.is_none(), "{}: {own} never imports {never}", path.display());
        }
    }
    for room in NEVERS.iter().flat_map(|(own, never)| [own, never]) {
        assert!(sources().iter().any(|path| is_in(path, room)), "{room} is not where this test looks");
    }
}

#[test]
fn no_two_files_import_each_other_in_a_loop() {
    let imports = imports();
    let reached = |from: &PathBuf| {
        let mut reached = BTreeSet::new();
        let mut open = vec![from];
        while let Some(path) = open.pop() {
            open.extend(imports[path].iter().filter(|import| reached.insert((*import).clone())));
        }
        reached
    };
    let looping: Vec<String> = imports
        .keys()
        .filter(|path| reached(path).contains(*path))
        .map(|path| path.display().to_string())
        .collect();
    assert!(looping.is_empty(), "these are in loops:\n{}", looping.join("\n"));
}

#[test]
fn of_each_thread_and_task_it_is_known_what_comes_of_its_end() {
    let is_of_tests = |path: &PathBuf| path.iter().any(|part| part == "tests");
    for path in sources().into_iter().filter(|path| !is_of_tests(path)) {
        let code = code(&path);
        let calls = ["::spawn(", ".spawn(", "::spawn_blocking(", ".spawn_blocking(", "::spawn_local("];
        let found: usize = calls.iter().map(|call| code.matches(call).count()).sum();
        let known = SPAWNS.iter().find(|(of, ..)| Path::new(of) == path).map_or(0, |(_, number, _)| *number);
        assert_eq!(found, known, "{}: what comes of the end of each? say it in SPAWNS", path.display());
    }
}

#[test]
fn imports_are_found_in_every_spelling() {
    let code = "use crate::{a, b::{c, d as x},\n  e::F as G};\nuse crate::h::{self, i};\nmod child;\n\
                fn x() { crate::j::k(); mycrate::l(); h::m::n(); h::<u8>(); super::super::o::p() }";
    let spelled: Vec<String> = paths(code, "crate::").iter().map(|path| path.join(" ")).collect();
    assert_eq!(spelled, ["a", "b c", "b d", "e F", "h self", "h i", "j k"]);

    let file = |path: &str| (module(Path::new(path)), PathBuf::from(path));
    let files =
        ["src/lib.rs", "src/a.rs", "src/b/mod.rs", "src/b/c.rs", "src/h.rs", "src/h/m.rs", "src/q/r/s.rs"];
    let modules =
        files.map(file).into_iter().chain([file("src/q/r/s/child.rs"), file("src/q/o.rs")]).collect();
    let own = module(Path::new("src/q/r/s.rs"));
    let found: Vec<String> = imported(&own, code, &modules).iter().map(|path| path.join("/")).collect();
    // That which no file has is of the crate's own.
    assert_eq!(found, ["", "a", "b", "b/c", "h", "h/m", "q/o", "q/r/s/child"]);
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

/// Salts and keys are 16 bytes, and what holds them cannot be printed.
#[test]
fn no_salt_and_no_key_can_be_printed() {
    let mut seen = 0;
    for path in sources() {
        let code = code(&path);
        for (at, _) in code.match_indices("[u8; 16]") {
            let Some(begin) = code[..at].rfind("\npub struct ").max(code[..at].rfind("\nstruct ")) else {
                continue;
            };
            let is_inside = !code[begin..at].contains("\n}") && !code[begin..at].contains(';');
            let derived = code[..begin].lines().rev().take_while(|line| line.starts_with('#'));
            seen += usize::from(is_inside);
            let printed = is_inside && derived.into_iter().any(|line| line.contains("Debug"));
            assert!(
                !printed,
                "{}: a struct with 16 bytes that may be a secret derives Debug",
                path.display()
            );
        }
    }
    assert!(seen > 3, "what holds salts and keys is not where this test looks");
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
    let tests = sources_and_tests();
    let patches: Vec<PathBuf> = files("tests/broken")
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "patch"))
        .collect();
    assert!(patches.len() >= 10, "the broken variants are not where this test looks");
    for path in patches {
        let (patch, name) = (read(&root().join(&path)), path.display());
        assert!(
            patch.lines().next().is_some_and(|what| what.ends_with('.')),
            "{name} does not say what is broken"
        );
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
