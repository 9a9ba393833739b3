//! Messages that are let through once a minute.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Moment;

const MINUTE_MS: u64 = 60_000;

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
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

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
}
