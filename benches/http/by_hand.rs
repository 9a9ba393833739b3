//! footfall with a clock that is set by hand, so that a day passes as quickly as its views can be sent; and with an
//! event loop whose turns are timed.

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use footfall::app::App;
use footfall::clock::Clock;
use footfall::config::Config;
use rustix::time::{ClockId, clock_gettime};

use crate::Fault;

/// 2026-11-23T00:00+07:00.
const BEGINS_MS: i64 = 1_795_366_800_000;

/// What asks for the longest turn since it was asked for last.
pub const LONGEST_TURN: &str = "longest turn";

/// CPU time of the event loop's thread, nanoseconds.
static LONGEST: AtomicU64 = AtomicU64::new(0);

/// Times the turns of the event loop that it runs on: it has its turn once in each, and so the loop never sleeps.
#[expect(clippy::disallowed_methods, reason = "not the machine's time, but that of a thread")]
async fn time_turns() -> bool {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
    loop {
        let began = now();
        tokio::task::yield_now().await;
        LONGEST.fetch_max((now() - began).as_nanos() as u64, Ordering::Relaxed);
    }
}

/// Serves until its standard input ends. Each line of it is a number of milliseconds to advance by, or
/// [`LONGEST_TURN`], which is answered in nanoseconds on the standard output.
pub async fn serve(config: &Path) -> Result<(), Fault> {
    let config = Config::of_process(Some(config))?;
    let (clock, hand) = Clock::by_hand(BEGINS_MS);
    let app = App::build(config, clock).await?;
    let (ended, end) = tokio::sync::oneshot::channel();
    let (asked, is_asked) = tokio::sync::oneshot::channel();
    // A loop that never sleeps would cost what other rows measure.
    tokio::spawn(async { is_asked.await.is_ok() && time_turns().await });
    std::thread::spawn(move || {
        let mut asked = Some(asked);
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if line == LONGEST_TURN {
                asked.take().map(|asked| asked.send(()));
                writeln!(io::stdout(), "{}", LONGEST.swap(0, Ordering::Relaxed)).ok();
            } else {
                let Ok(ms) = line.parse() else { break };
                hand.advance(Duration::from_millis(ms));
            }
        }
        ended.send(())
    });
    app.run(async { end.await.unwrap_or_default() }).await?;
    Ok(())
}
