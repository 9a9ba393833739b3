//! The only reader of wall time. Everything else is handed a [`Moment`].
//!
//! A moment carries both clocks, read together: the wall decides civil days and is shown to people;
//! the monotonic one decides how long ago something was, so that a step of the wall clock ends no session and
//! deletes nothing. It goes on while the machine is suspended, and from one process to the next until the machine
//! is started anew: a [`Stamp`] tells a later process when something was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The uptime when the machine started. It is not zero, so that sessions from before a start have times before it.
const ORIGIN_MS: u64 = 90 * 24 * 3600 * 1000;

const MINUTE_MS: u64 = 60_000;

/// Names the time since the machine was started.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Seconds since the Unix epoch at which this program was not made yet: the date of its commit where the build is told
/// of it, as those of the package and of the image are.
const MADE_S: i64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(told) => match i64::from_str_radix(told, 10) {
        // Some builds are told of 1980.
        Ok(told_s) if told_s > WRITTEN_S => told_s,
        _ => WRITTEN_S,
    },
    None => WRITTEN_S,
};

/// The same of all of this source: 2026-11-27.
const WRITTEN_S: i64 = 1_795_737_600;

/// 9999-12-31, seconds since the Unix epoch: from then on the wall clock says nothing that an answer can be dated with.
const BEYOND_S: u64 = 253_402_214_400;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Wall time, milliseconds since the Unix epoch.
    pub unix_ms: i64,
    /// Monotonic time in milliseconds. Comparable until the machine is started anew.
    pub uptime_ms: u64,
}

impl Moment {
    /// Monotonic time in whole seconds: the resolution of sessions.
    pub fn uptime_s(self) -> u32 {
        (self.uptime_ms / 1000) as u32
    }
}

/// A moment for a later process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The moment.
    pub at: Moment,
    /// The start of the machine since which its uptime counts; 0: not known.
    pub boot: u128,
}

/// Reads the time: the system's, or one set by hand in tests.
///
/// Between two calls of [`Clock::set_wall`], wall time is calculated from the monotonic clock: a reading costs
/// one call of the system, and within a second the two cannot drift apart.
#[derive(Clone)]
pub struct Clock {
    /// Whether the dial is moved by hand and not by the system's clock.
    by_hand: bool,
    boot: u128,
    /// Both clocks when the machine started.
    dial: Arc<Dial>,
}

struct Dial {
    unix_ms: AtomicI64,
    uptime_ms: AtomicU64,
    /// The wall clock is wrong where it says less.
    least_ms: AtomicI64,
    /// The wall clock says a date that no answer can have.
    is_beyond: AtomicBool,
}

impl Dial {
    fn at(unix_ms: i64, uptime_ms: u64) -> Arc<Dial> {
        let [unix_ms, least_ms] = [unix_ms, i64::MIN].map(AtomicI64::new);
        let (uptime_ms, is_beyond) = (AtomicU64::new(uptime_ms), AtomicBool::default());
        Arc::new(Dial { unix_ms, uptime_ms, least_ms, is_beyond })
    }
}

/// Milliseconds since the machine was started, those included in which it was suspended.
#[expect(clippy::disallowed_methods, reason = "this is the one reader of time")]
fn since_boot_ms() -> u64 {
    let since = clock_gettime(ClockId::Boottime);
    since.tv_sec as u64 * 1000 + since.tv_nsec as u64 / 1_000_000
}

impl Clock {
    /// The clocks of this machine.
    pub fn system() -> Self {
        let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        let boot = u128::from_str_radix(&boot.trim().replace('-', ""), 16).unwrap_or(0);
        let clock = Clock { by_hand: false, boot, dial: Dial::at(0, ORIGIN_MS) };
        clock.set_wall();
        clock.must_be_after(MADE_S * 1000);
        clock
    }

    /// Reads the wall clock again. It is called once a second, so that a step is noticed.
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of time")]
    pub fn set_wall(&self) {
        if !self.by_hand {
            let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let is_beyond = since_epoch.as_ref().map_or(true, |since| since.as_secs() >= BEYOND_S);
            self.dial.is_beyond.store(is_beyond, Ordering::Release);
            let since_epoch = since_epoch.unwrap_or_default();
            let at_boot = since_epoch.as_millis() as i64 - since_boot_ms() as i64;
            self.dial.unix_ms.store(at_boot, Ordering::Release);
        }
    }

    /// Whether the wall clock, when it was last read, was before 1970 or after the year 9999: HTTP has no dates there.
    pub fn is_beyond(&self) -> bool {
        self.dial.is_beyond.load(Ordering::Acquire)
    }

    /// A clock that moves only when its [`Hand`] is moved; it starts at `unix_ms`. All of these are of one machine,
    /// which has been up since 1970.
    pub fn by_hand(unix_ms: i64) -> (Self, Hand) {
        let dial = Dial::at(unix_ms, ORIGIN_MS + unix_ms.max(0) as u64);
        (Clock { by_hand: true, boot: 1, dial: dial.clone() }, Hand(dial))
    }

    /// Reads both clocks.
    pub fn now(&self) -> Moment {
        let elapsed_ms = if self.by_hand { 0 } else { since_boot_ms() };
        Moment {
            unix_ms: self.dial.unix_ms.load(Ordering::Acquire) + elapsed_ms as i64,
            uptime_ms: self.dial.uptime_ms.load(Ordering::Acquire) + elapsed_ms,
        }
    }

    /// It has been so late already: a wall clock that says less is wrong, unless it is set by hand.
    pub fn must_be_after(&self, unix_ms: i64) {
        if !self.by_hand {
            self.dial.least_ms.fetch_max(unix_ms, Ordering::AcqRel);
        }
    }

    /// What the wall clock should say at least, where it was wrong at a moment.
    pub fn was_behind(&self, at: Moment) -> Option<i64> {
        let least_ms = self.dial.least_ms.load(Ordering::Relaxed);
        (at.unix_ms < least_ms).then_some(least_ms)
    }

    /// The same for a moment of this process.
    pub fn stamp(&self, at: Moment) -> Stamp {
        Stamp { at, boot: self.boot }
    }

    /// Whether the machine has not been started anew since.
    pub fn is_of_this_boot(&self, then: Stamp) -> bool {
        then.boot == self.boot && self.boot != 0
    }

    /// How long ago something was that another process may have seen, milliseconds. While the machine has not been
    /// started anew both clocks tell, and the one that says less is believed: what is dropped as too old does not
    /// come back when the other clock is set right. Else the wall clock alone tells.
    pub fn since_ms(&self, then: Stamp) -> u64 {
        let now = self.now();
        let by_wall = now.unix_ms.saturating_sub(then.at.unix_ms).max(0) as u64;
        if self.is_of_this_boot(then) {
            by_wall.min(now.uptime_ms.saturating_sub(then.at.uptime_ms))
        } else {
            by_wall
        }
    }
}

/// Moves a clock made by [`Clock::by_hand`].
#[derive(Clone)]
pub struct Hand(Arc<Dial>);

impl Hand {
    /// Lets time pass: both clocks move on.
    pub fn advance(&self, by: Duration) {
        self.0.unix_ms.fetch_add(by.as_millis() as i64, Ordering::AcqRel);
        self.0.uptime_ms.fetch_add(by.as_millis() as u64, Ordering::AcqRel);
    }

    /// Steps the wall clock alone, as an operator or NTP does.
    pub fn step_to(&self, unix_ms: i64) {
        self.0.unix_ms.store(unix_ms, Ordering::Release);
    }
}

/// Lets one message through a minute. Holds the uptime of the last one, which is never 0.
#[derive(Default)]
pub struct OnceAMinute(AtomicU64);

impl OnceAMinute {
    /// Whether a message is due; then the next one is due in a minute.
    pub fn due(&self, now: Moment) -> bool {
        let (last, now) = (self.0.load(Ordering::Relaxed), now.uptime_ms);
        let due = last == 0 || now.saturating_sub(last) >= MINUTE_MS;
        due && self.0.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_due_at_once_and_the_next_after_a_minute() {
        let (clock, hand) = Clock::by_hand(0);
        let message = OnceAMinute::default();
        assert!(message.due(clock.now()) && !message.due(clock.now()));
        hand.advance(Duration::from_millis(59_999));
        assert!(!message.due(clock.now()));
        hand.advance(Duration::from_millis(1));
        assert!(message.due(clock.now()) && !message.due(clock.now()));
    }

    #[test]
    fn uptime_goes_on_while_the_machine_is_suspended_and_from_process_to_process() {
        // The first number of this file counts suspended time too, in hundredths of a second.
        let up_ms = || {
            let text = std::fs::read_to_string("/proc/uptime").unwrap();
            let (whole, rest) = text.split(' ').next().unwrap().split_once('.').unwrap();
            whole.parse::<u64>().unwrap() * 1000 + rest.parse::<u64>().unwrap() * 10
        };
        let (before, now, after) = (up_ms(), Clock::system().now().uptime_ms - ORIGIN_MS, up_ms());
        assert!((before..after + 10).contains(&now), "{before} {now} {after}");
        assert!(Clock::system().is_of_this_boot(Clock::system().stamp(Moment::default())));
        assert!(!Clock::system().is_of_this_boot(Stamp::default()));
    }

    #[test]
    fn of_two_clocks_the_one_that_says_less_is_believed() {
        let (clock, hand) = Clock::by_hand(1_000_000);
        let then = clock.stamp(clock.now());
        hand.advance(Duration::from_millis(500));
        assert_eq!(clock.since_ms(then), 500);
        hand.step_to(9_000_000);
        assert_eq!(clock.since_ms(then), 500);
        assert_eq!(clock.since_ms(Stamp { boot: 0, ..then }), 8_000_000);
        hand.step_to(0);
        assert_eq!((clock.since_ms(then), clock.since_ms(Stamp { boot: 0, ..then })), (0, 0));
    }
}
