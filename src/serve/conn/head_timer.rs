//! hyper's limit on the time of a request's head, without a timer for each request.
//!
//! hyper makes a sleep for every head and drops it when the head is there. With tokio's sleeps each of them
//! enters the timer wheel and leaves it again. Here a connection has one [`Alarm`]: a later deadline leaves it
//! where it is, so that it fires early, and only then it is set to the deadline that holds.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

type Alarm = Arc<Mutex<Pin<Box<tokio::time::Sleep>>>>;

pub struct HeadTimer(Alarm);

impl HeadTimer {
    /// A timer whose alarm first fires after `wait`.
    pub fn new(wait: Duration) -> Self {
        HeadTimer(Arc::new(Mutex::new(Box::pin(tokio::time::sleep(wait)))))
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Wait { alarm: self.0.clone(), deadline })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

struct Wait {
    alarm: Alarm,
    deadline: Instant,
}

impl Sleep for Wait {}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline.into();
        let mut alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        if alarm.deadline() > deadline {
            alarm.as_mut().reset(deadline);
        }
        loop {
            ready!(alarm.as_mut().poll(cx));
            if alarm.deadline() >= deadline {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_wait_ends_at_its_own_deadline() {
        let timer = HeadTimer::new(Duration::from_secs(5));
        let began = timer.now();
        for (wait, at) in [(3, 3), (10, 13), (1, 14), (4, 18)] {
            timer.sleep(Duration::from_secs(wait)).await;
            assert_eq!((timer.now() - began).as_secs(), at);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_wait_leaves_the_next_one_alone() {
        let timer = HeadTimer::new(Duration::from_secs(5));
        let began = timer.now();
        for _ in 0..3 {
            let cut_off =
                tokio::time::timeout(Duration::from_secs(4), timer.sleep(Duration::from_secs(5))).await;
            assert!(cut_off.is_err());
        }
        timer.sleep(Duration::from_secs(5)).await;
        assert_eq!((timer.now() - began).as_secs(), 17);
    }
}
