//! The page script in a real browser: the tests in `tests/browser`, run by Node on this very binary.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::service::my_turn;

/// Where the first of some programs is on the PATH.
fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|path| path.is_file())
}

#[test]
fn pages_count_and_are_filled_in_a_real_browser() {
    let _turn = my_turn();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let node =
        program(&["node", "nodejs"]).expect("Node 18 or newer is needed: install nodejs, or use tests/run");
    let browser = program(&["chromium", "chromium-browser", "google-chrome"])
        .expect("Chromium is needed: install chromium, or use tests/run");
    assert!(
        folder.join("node_modules/playwright-core").exists(),
        "the packages of tests/browser are needed: run `npm ci` there, or use tests/run"
    );
    let run = Command::new(node)
        .args(["--test", "page.test.mjs", "more.test.mjs", "demo.test.mjs", "overview.test.mjs"])
        .current_dir(&folder)
        .env("FOOTFALL_BINARY", env!("CARGO_BIN_EXE_footfall"))
        .env("FOOTFALL_BROWSER", browser)
        .output()
        .expect("Node runs");
    let (said, complained) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    println!("{said}");
    assert!(run.status.success(), "the browser tests failed:\n{said}\n{complained}");
}
