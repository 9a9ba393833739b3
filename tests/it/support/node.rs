//! The tests of `tests/browser`, run by Node in real browsers.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the first of some programs is on the PATH.
fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|path| path.is_file())
}

/// Runs files of them to their end.
#[track_caller]
pub fn run_in_a_browser(files: &[&str], variables: &[(&str, &str)]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let node =
        program(&["node", "nodejs"]).expect("Node 18 or newer is needed: install nodejs, or use tests/run");
    let browser = program(&["chromium", "chromium-browser", "google-chrome"])
        .expect("Chromium is needed: install chromium, or use tests/run");
    let firefox = program(&["firefox-esr", "firefox"])
        .expect("Firefox is needed: install firefox-esr, or use tests/run");
    assert!(
        folder.join("node_modules/puppeteer-core").exists(),
        "the packages of tests/browser are needed: run `npm ci` there, or use tests/run"
    );
    let run = Command::new(node)
        .arg("--test")
        .args(files)
        .current_dir(&folder)
        .env("FOOTFALL_BINARY", env!("CARGO_BIN_EXE_footfall"))
        .env("FOOTFALL_BROWSER", browser)
        .env("FOOTFALL_FIREFOX", firefox)
        .envs(variables.iter().copied())
        .output()
        .expect("Node runs");
    let (said, complained) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    println!("{said}");
    assert!(run.status.success(), "the browser tests failed:\n{said}\n{complained}");
}
