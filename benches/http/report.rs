//! What came out: slices while they are measured, bars at the end.

use std::time::Duration;

use crate::load::Tally;

/// What one server did in one slice.
#[derive(Default)]
pub struct Slice {
    /// Its length.
    pub length: Duration,
    /// CPU time of the server.
    pub cpu: Duration,
    /// The longer of how long the server and how long the client was kept from its core by others.
    pub waited: Duration,
    /// What was answered.
    pub tally: Tally,
}

impl Slice {
    /// Answers as expected.
    pub fn answers(&self) -> f64 {
        self.tally.latencies.len() as f64
    }

    /// Microseconds of CPU time per answer.
    pub fn cost(&self) -> f64 {
        micros(self.cpu) / self.answers()
    }

    /// One line.
    pub fn print(&self, label: &str) {
        let seconds = self.length.as_secs_f64();
        let rate = self.answers() / seconds;
        let busy = 100.0 * self.cpu.as_secs_f64() / seconds;
        let cost = self.cost();
        let waited = 100.0 * self.waited.div_duration_f64(self.length);
        let noise = if waited > 3.0 { format!("  disturbed {waited:.0} %") } else { String::new() };
        println!("  {label:<18} {rate:>8.0}/s  {cost:>7.2} µs each  core {busy:>3.0} % busy{noise}");
    }
}

/// All slices of one server, in order.
#[derive(Default)]
pub struct Slices(pub Vec<Slice>);

impl Slices {
    /// The median ratio of the cost of an answer to that in the neighbouring slice of another server:
    /// what drifts with the machine drifts in both.
    pub fn ratio(&self, other: &Slices) -> f64 {
        median(self.0.iter().zip(&other.0).map(|(own, other)| own.cost() / other.cost()).collect())
    }

    /// Answers that were not as expected, by status.
    pub fn unexpected(&self) -> Option<String> {
        let mut counts = std::collections::BTreeMap::<u16, u64>::new();
        for (status, count) in self.0.iter().flat_map(|slice| &slice.tally.unexpected) {
            *counts.entry(*status).or_default() += count;
        }
        let words: Vec<String> =
            counts.iter().map(|(status, count)| format!("{count} answers {status}")).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }

    /// p50, p99 and p99.9 of all slices together, milliseconds.
    pub fn latency(&self) -> Latency {
        let mut all: Vec<u32> = self.0.iter().flat_map(|slice| &slice.tally.latencies).copied().collect();
        all.sort_unstable();
        let at = |share: f64| {
            let rank = (share * all.len() as f64).ceil() as usize;
            all.get(rank.saturating_sub(1)).map_or(f64::NAN, |&micros| f64::from(micros) / 1000.0)
        };
        Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }

    /// One line of latencies, and one of unexpected answers.
    pub fn print(&self, label: &str) {
        let Latency { p50, p99, p999 } = self.latency();
        println!("  {label:<18} latency p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms");
        if let Some(unexpected) = self.unexpected() {
            println!("  {label:<18} UNEXPECTED: {unexpected}");
        }
    }
}

/// Latencies, milliseconds.
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
}

/// A bar and how it was met.
pub struct Bar {
    /// The row of the table of bars.
    pub row: u8,
    /// What was measured.
    pub what: String,
    /// The outcome in words.
    pub measured: String,
    /// The bar in words.
    pub bar: String,
    /// Whether it is met.
    pub met: bool,
}

impl Bar {
    /// A quantity that must not be above `most`. What is not a number does not meet it.
    pub fn at_most(row: u8, what: impl Into<String>, measured: f64, most: f64, unit: &str) -> Bar {
        Bar {
            row,
            what: what.into(),
            measured: format!("{measured:.2} {unit}"),
            bar: format!("≤ {most} {unit}"),
            met: measured <= most,
        }
    }

    /// A quantity that must not be below `least`.
    pub fn at_least(row: u8, what: impl Into<String>, measured: f64, least: f64, unit: &str) -> Bar {
        Bar {
            bar: format!("≥ {least} {unit}"),
            met: measured >= least,
            ..Bar::at_most(row, what, measured, least, unit)
        }
    }

    /// Every answer was the expected one.
    pub fn as_expected(row: u8, what: &str, slices: &Slices) -> Bar {
        let unexpected = slices.unexpected();
        Bar {
            row,
            what: format!("{what}: answers as expected"),
            met: unexpected.is_none(),
            measured: unexpected.unwrap_or_else(|| "all".into()),
            bar: "all".into(),
        }
    }
}

/// Prints the table of bars.
pub fn print(bars: &[Bar]) {
    println!("\n{:<4}{:<58}{:>22}  {:<16}", "row", "what", "measured", "bar");
    for Bar { row, what, measured, bar, met } in bars {
        let verdict = if *met { "met" } else { "MISSED" };
        println!("{row:<4}{what:<58}{measured:>22}  {bar:<16}{verdict}");
    }
}

/// Microseconds.
pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The middle one; of an even number, the mean of the middle two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.get(half) {
        None => f64::NAN,
        Some(upper) if values.len() % 2 == 1 => *upper,
        Some(upper) => f64::midpoint(*upper, values[half - 1]),
    }
}
