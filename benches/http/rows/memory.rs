//! Row 6: memory per online session.

use std::time::Duration;

use super::send;
use crate::process::resident_bytes;
use crate::report::Bar;
use crate::requests::{Headers, Pages, Views, Visitors};
use crate::servers::{Server, Settings};
use crate::{Bench, Fault};

/// Room for all of them: the table is not full at the end.
const MAX_SESSIONS: u32 = 2_100_000;

/// Sessions that are there before the first look: buffers, threads and tables have been touched.
const WARM_UP: u64 = 10_000;

/// Sessions at which memory is read, beyond those of the warm-up.
const STEPS: [u64; 4] = [250_000, 500_000, 1_000_000, 2_000_000];

/// How long nothing more is sent before the second look.
const REST: Duration = Duration::from_secs(15);

/// Measures the row: views of one page without ids, each by a new visitor. Resident memory holds all
/// that the process keeps, so journal buffers and sketches count as sessions' too.
pub async fn measure(bench: &Bench) -> Result<Vec<Bar>, Fault> {
    println!("\nrow 6: memory of up to 2,000,000 sessions");
    let views =
        Views { visitors: Visitors::Distinct, pages: Pages::Uniform(1), headers: Headers::Few, ids: false };
    let requests = views.requests();
    let settings = Settings { max_sessions: MAX_SESSIONS, ..Settings::default() };
    let server = Server::under_test(&bench.cores, &bench.under_test, settings)?;
    send(&server, &requests, 0, WARM_UP).await?;
    let empty = resident_bytes(server.pid())?;
    println!("  {:>9} sessions: {:>6.1} MiB resident", WARM_UP, mebibytes(empty));
    let mut bars = Vec::new();
    let mut sent = 0;
    for step in STEPS {
        send(&server, &requests, WARM_UP + sent, step - sent).await?;
        sent = step;
        let look = |when: &str| -> Result<f64, Fault> {
            let resident = resident_bytes(server.pid())?;
            let each = resident.saturating_sub(empty) as f64 / step as f64;
            let (sessions, mebibytes) = (WARM_UP + step, mebibytes(resident));
            println!("  {sessions:>9} sessions {when}: {mebibytes:>6.1} MiB resident, {each:.1} B each");
            Ok(each)
        };
        let growing = look("while growing")?;
        if step >= 1_000_000 {
            bars.push(Bar::at_most(6, format!("memory per session, growing to {step}"), growing, 96.0, "B"));
            // The allocator gives the tables back that were too small some seconds later.
            tokio::time::sleep(REST).await;
            bars.push(Bar::at_most(6, format!("memory per session at {step}"), look("at rest")?, 64.0, "B"));
        }
    }
    Ok(bars)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
