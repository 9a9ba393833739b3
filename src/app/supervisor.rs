//! systemd, or another service manager: sockets that it hands over, and what it is told.
//!
//! Protocols: `sd_listen_fds(3)` (variables `LISTEN_PID`, `LISTEN_FDS`) and `sd_notify(3)` (`NOTIFY_SOCKET`,
//! `WATCHDOG_USEC`). Without these variables, nothing happens here.

use std::io;
use std::time::Duration;

use listenfd::ListenFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;

use crate::serve::Listener;

/// The listeners handed over: the public one first, then the admin one; either may be missing. They
/// outlive this process, so that a restart refuses no connection. For `write_timeout` see
/// [`serve::bind`](crate::serve::bind). Anything but a listening TCP socket is an error.
pub fn listeners(write_timeout: Duration) -> io::Result<[Option<Listener>; 2]> {
    let mut handed_over = ListenFd::from_env();
    let mut take = |index| match index < handed_over.len() {
        true => {
            let listener = handed_over.take_tcp_listener(index)?;
            listener.map(|listener| Listener::inherited(listener, write_timeout)).transpose()
        }
        false => Ok(None),
    };
    Ok([take(0)?, take(1)?])
}

/// Has this process open as many files as it may, and says how many; none where there is no limit. Many systems begin
/// with a low one, for programs of long ago that every process may raise.
pub fn most_open_files() -> Option<usize> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = setrlimit(Resource::Nofile, raised).map_or(limit, |()| raised);
    now.current.map(|files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// Tells that the configuration is read again.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the service manager cannot be told"),
    }
}

/// Tells, as often as the manager asks for, that the event loop is running. Runs until it is dropped.
pub async fn keep_watchdog_quiet() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut ticks = tokio::time::interval((limit / 3).max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

/// Tells it. If it cannot be told, its own time limits decide.
pub fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}
