//! What `/proc` says of a process.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::Fault;

/// A clock tick of `/proc/<pid>/stat` (USER_HZ is 100 on every Linux).
const TICK: Duration = Duration::from_millis(10);

/// CPU time of a process up to one instant, by both of the kernel's accounts.
#[derive(Clone, Copy)]
pub struct CpuTime {
    /// The living threads, exact to the nanosecond.
    exact: Duration,
    /// How long they were ready to run and did not, because something else did.
    waited: Duration,
    /// All threads that ever lived, in ticks: user and system, each rounded down.
    coarse: Duration,
}

impl CpuTime {
    /// Reads both accounts.
    pub fn of(pid: u32) -> Result<Self, Fault> {
        let (mut exact, mut waited) = (0, 0);
        for task in fs::read_dir(entry(pid, "task"))? {
            match fs::read_to_string(task?.path().join("schedstat")) {
                Ok(text) => {
                    exact += nth(&text, 0)?;
                    waited += nth(&text, 1)?;
                }
                // The thread ended meanwhile, or the kernel keeps no such account.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        let stat = fs::read_to_string(entry(pid, "stat"))?;
        // The name, in parentheses, may hold anything; state is the first field behind it.
        let (_, fields) = stat.rsplit_once(')').ok_or("unreadable stat")?;
        let ticks = nth(fields, 11)? + nth(fields, 12)?;
        let coarse = TICK.saturating_mul(u32::try_from(ticks)?);
        let (exact, waited) = (Duration::from_nanos(exact), Duration::from_nanos(waited));
        Ok(CpuTime { exact, waited, coarse })
    }

    /// What was spent since `earlier`: the exact account, unless it missed threads that ended.
    pub fn since(self, earlier: CpuTime) -> Duration {
        let coarse = self.coarse.saturating_sub(earlier.coarse);
        match self.exact.checked_sub(earlier.exact) {
            Some(exact) if exact.abs_diff(coarse) <= 3 * TICK => exact,
            _ => coarse,
        }
    }

    /// How long threads were kept from running since `earlier`.
    pub fn waited_since(self, earlier: CpuTime) -> Duration {
        self.waited.saturating_sub(earlier.waited)
    }
}

/// Bytes that the process made the kernel write to disk: whole pages as they became dirty.
pub fn written_bytes(pid: u32) -> Result<u64, Fault> {
    labelled(pid, "io", "write_bytes:")
}

/// Resident memory, bytes.
pub fn resident_bytes(pid: u32) -> Result<u64, Fault> {
    Ok(labelled(pid, "status", "VmRSS:")? * 1024)
}

fn entry(pid: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

/// The number behind a label of a file of lines.
fn labelled(pid: u32, file: &str, label: &str) -> Result<u64, Fault> {
    let text = fs::read_to_string(entry(pid, file))?;
    let rest = text.lines().find_map(|line| line.strip_prefix(label)).ok_or("label not found")?;
    nth(rest, 0)
}

/// The n-th word as a number.
fn nth(text: &str, n: usize) -> Result<u64, Fault> {
    Ok(text.split_ascii_whitespace().nth(n).ok_or("too few fields")?.parse()?)
}
