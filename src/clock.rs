//! The only reader of wall time. Everything else is handed a [`Moment`].
//!
//! A moment carries both clocks, read together: the wall decides civil days and is shown to people;
//! the monotonic one decides how long ago something was, so that a clock step ends no session.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// The uptime at the start. It is not zero, so that sessions from before a restart have times before the start.
const ORIGIN_MS: u64 = 90 * 24 * 3600 * 1000;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Wall time, milliseconds since the Unix epoch.
    pub unix_ms: i64,
    /// Monotonic time in milliseconds. Comparable within one process only.
    pub uptime_ms: u64,
}

impl Moment {
    /// Monotonic time in whole seconds: the resolution of sessions.
    pub fn uptime_s(self) -> u32 {
        (self.uptime_ms / 1000) as u32
    }
}

/// Reads the time: the system's, or one set by hand in tests.
///
/// Between two calls of [`Clock::set_wall`], wall time is calculated from the monotonic clock: a reading costs
/// one call of the system, and within a second the two cannot drift apart.
#[derive(Clone)]
pub struct Clock {
    /// When the system's clock was made; none of one that is set by hand.
    origin: Option<std::time::Instant>,
    /// Both clocks at the origin.
    dial: Arc<Dial>,
}

struct Dial {
    unix_ms: AtomicI64,
    uptime_ms: AtomicU64,
}

impl Dial {
    fn at(unix_ms: i64) -> Arc<Dial> {
        Arc::new(Dial { unix_ms: AtomicI64::new(unix_ms), uptime_ms: AtomicU64::new(ORIGIN_MS) })
    }
}

impl Clock {
    /// The clocks of this machine.
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of time")]
    pub fn system() -> Self {
        let clock = Clock { origin: Some(std::time::Instant::now()), dial: Dial::at(0) };
        clock.set_wall();
        clock
    }

    /// Reads the wall clock again. It is called once a second, so that a step is noticed.
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of time")]
    pub fn set_wall(&self) {
        if let Some(origin) = self.origin {
            let since_epoch =
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let at_origin = since_epoch.as_millis() as i64 - origin.elapsed().as_millis() as i64;
            self.dial.unix_ms.store(at_origin, Ordering::Release);
        }
    }

    /// A clock that moves only when its [`Hand`] is moved; both start at `unix_ms`.
    pub fn by_hand(unix_ms: i64) -> (Self, Hand) {
        let dial = Dial::at(unix_ms);
        (Clock { origin: None, dial: dial.clone() }, Hand(dial))
    }

    /// Reads both clocks.
    pub fn now(&self) -> Moment {
        let elapsed_ms = self.origin.map_or(0, |origin| origin.elapsed().as_millis() as u64);
        Moment {
            unix_ms: self.dial.unix_ms.load(Ordering::Acquire) + elapsed_ms as i64,
            uptime_ms: self.dial.uptime_ms.load(Ordering::Acquire) + elapsed_ms,
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
