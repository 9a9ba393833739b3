//! Commands that change or read what is stored in `data_dir` and the store: sent to the running service through
//! its control socket, or carried out in this process where none runs.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::http;
use super::outcome::{Failure, Outcome};
use crate::app;
use crate::config::Config;
use crate::serve::{CONTROL_SOCKET, socket_at};
use crate::totals::{self, Order};

/// How long to wait for a service that starts or stops: it holds `data_dir` and takes no orders.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest answer, bytes.
const MAX_ANSWER: u64 = 64 << 20;

/// Has an order carried out. What was done.
pub fn carry_out(config: &Config, order: &Order) -> Outcome {
    let dir = &config.totals.data_dir;
    check_dir(dir)?;
    let step = Duration::from_millis(100);
    let mut waited = Duration::ZERO;
    loop {
        let error = match socket_at(dir, CONTROL_SOCKET, |path| UnixStream::connect(path)) {
            Ok(stream) => return ask(stream, order),
            Err(error) => error,
        };
        if !totals::is_in_use(dir) {
            if !matches!(order, Order::Refill { .. } | Order::AcceptEmpty { .. }) {
                check_store(config)?;
            }
            let done = app::obey(config.clone(), order.clone());
            totals::give_to_owner(dir)?;
            return Ok(done.map_err(|error| error.to_string())??);
        }
        if waited >= PATIENCE {
            let (dir, holder) =
                (dir.display(), std::fs::read_to_string(dir.join("LOCK")).unwrap_or_default());
            return Err(Failure::Undone(format!(
                "process {} uses data_dir {dir} and cannot be reached through {dir}/{CONTROL_SOCKET} ({error}); \
                 stop it to have the order carried out without it",
                holder.trim()
            )));
        }
        std::thread::sleep(step);
        waited += step;
    }
}

/// Refuses settings under which another store than the service's would be acted on.
pub fn check_store(config: &Config) -> Result<(), String> {
    match totals::other_kind_in_use(&config.totals) {
        None => Ok(()),
        Some(used) => Err(format!(
            "the service of data_dir {} keeps its totals in the {used} store, and this command was told of {}: give it \
             the settings of the service, such as FOOTFALL_STORE__URL",
            config.totals.data_dir.display(),
            config.totals.store.url
        )),
    }
}

/// Refuses a `data_dir` that holds no data, which would be created, and to anybody but root one of another user, whose
/// service could not write the files that this command makes.
pub fn check_dir(dir: &Path) -> Result<(), String> {
    let shown = dir.display();
    let found = std::fs::metadata(dir).and_then(|_| std::fs::metadata(dir.join("writer")));
    let found = found.map_err(|error| {
        format!(
            "data_dir {shown} holds no data of footfall ({error}); is it the configuration of the service?"
        )
    })?;
    match totals::own_user() {
        // What root makes is given to the owner.
        Some(me) if me != found.uid() && me != 0 => Err(format!(
            "data_dir {shown} belongs to user {}, this command runs as user {me}; run it as that user or as root",
            found.uid(),
        )),
        _ => Ok(()),
    }
}

fn ask(stream: UnixStream, order: &Order) -> Outcome {
    let body = serde_json::to_string(order).map_err(|error| error.to_string())?;
    let head =
        "POST /orders HTTP/1.1\r\nHost: footfall\r\nConnection: close\r\nContent-Type: application/json";
    let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    // No time limit: an order may take long, and the end of the service ends the wait.
    match http::ask(stream, &request, MAX_ANSWER) {
        Ok((200, done)) => Ok(done),
        Ok((_, why)) => Err(why.into()),
        Err(error) => Err(Failure::Undone(format!(
            "the running service ended the conversation ({error}): whether the order was carried out is in its log"
        ))),
    }
}
