//! Waiting. Tests sleep nowhere else: they wait for what must happen, and no moment stands for it.

use std::time::{Duration, Instant};

/// Ten times what anything takes on a machine with nothing else to do, and more.
const PATIENCE: Duration = Duration::from_secs(120);

/// Polls until a condition holds.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    until_none_missing(|| if condition() { Vec::new() } else { vec![what.to_owned()] });
}

/// Polls until nothing is missing any more.
#[track_caller]
pub fn until_none_missing(mut missing: impl FnMut() -> Vec<String>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let missing = missing();
        if missing.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "it never came true: {missing:#?}");
        pause(Duration::from_millis(5));
    }
}

/// Slows a load down, or lets a fault strike at a moment of chance. Nothing is concluded from it.
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
