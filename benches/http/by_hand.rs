//! footfall with a clock that is set by hand, so that a day passes as quickly as its views can be sent.

use std::io::BufRead;
use std::path::Path;
use std::time::Duration;

use footfall::app::App;
use footfall::clock::Clock;
use footfall::config::Config;

use crate::Fault;

/// 2026-11-23T00:00+07:00.
const BEGINS_MS: i64 = 1_795_366_800_000;

/// Serves until its standard input ends. Each line of it is a number of milliseconds to advance by.
pub async fn serve(config: &Path) -> Result<(), Fault> {
    let config = Config::of_process(Some(config))?;
    let (clock, hand) = Clock::by_hand(BEGINS_MS);
    let app = App::build(config, clock).await?;
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Some(ms) = line.ok().and_then(|line| line.parse().ok()) else { break };
            hand.advance(Duration::from_millis(ms));
        }
        ended.send(())
    });
    app.run(async { end.await.unwrap_or_default() }).await?;
    Ok(())
}
