//! Settings of the server that endanger counts.

use super::connection::Connection;
use crate::totals::store::contract::{Concern, StoreError, StoreText};

/// The first version that runs scripts with a shebang, and `SET` with `NX` and `GET`.
const OLDEST_VERSION: u32 = 7;

/// Those of the settings that `INFO` does not tell.
const ASKED: [&str; 2] = ["save", "appendfsync"];

/// Asks the server for its settings, and judges them.
pub async fn concerns(connection: &Connection) -> Result<Vec<Concern>, StoreError> {
    let mut info = String::new();
    for section in ["server", "memory", "persistence", "replication"] {
        info += &connection.only::<String>(redis::cmd("INFO").arg(section)).await?;
    }
    check_version(&info)?;
    let mut told = [None, None];
    for (name, place) in ASKED.iter().zip(&mut told) {
        *place = match connection.only::<Vec<String>>(redis::cmd("CONFIG").arg("GET").arg(*name)).await {
            Ok(pair) => pair.into_iter().nth(1),
            // Managed servers and careful users forbid it.
            Err(StoreError::Refused(_)) => None,
            Err(error) => return Err(error),
        };
    }
    let [save, appendfsync] = told;
    Ok(judge(&info, save.as_deref(), appendfsync.as_deref()))
}

/// Refuses a server that lacks what is asked of it.
pub fn check_version(info: &str) -> Result<(), StoreError> {
    // Valkey says which Redis it stands in for.
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("unknown");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major >= OLDEST_VERSION) {
        return Ok(());
    }
    Err(StoreError::refused(format!(
        "the server is of version {version}, footfall needs {OLDEST_VERSION}.0 or newer"
    )))
}

/// Judges what `INFO` and, where it was allowed, `CONFIG GET` told.
pub fn judge(info: &str, save: Option<&str>, appendfsync: Option<&str>) -> Vec<Concern> {
    let told =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let mut concerns = Vec::new();
    let mut say =
        |refused, text: &str| concerns.push(Concern { refused, text: StoreText::from(text).to_string() });
    if told("role") == Some("slave") {
        let text = "the server is a replica, whose data its primary replaces; name the primary in store.url";
        say(true, text);
    }
    let bounded = told("maxmemory").is_some_and(|bytes| bytes != "0");
    match told("maxmemory_policy") {
        Some(policy) if policy.starts_with("allkeys") || policy.starts_with("volatile") && bounded => {
            let what = match (policy.starts_with("allkeys"), bounded) {
                (true, true) => "a full server would delete totals",
                (true, false) => "once maxmemory is set, totals are deleted",
                // Totals never expire; the salts of visitors do.
                (false, _) => "a full server would delete the salts that visitors are told apart with",
            };
            let refused = bounded && policy.starts_with("allkeys");
            say(refused, &format!("maxmemory-policy is {policy}: {what}; set it to noeviction"));
        }
        Some(_) => {}
        None => say(false, "the server does not tell its maxmemory-policy; it must be noeviction"),
    }
    match (told("aof_enabled"), save, appendfsync) {
        (Some("1"), _, Some("no")) => say(
            false,
            "appendfsync is no: a power cut may take more than the outbox can bring back at once; set it to \
             always or everysec",
        ),
        (Some("1"), _, _) => {}
        (_, Some(""), _) => say(
            false,
            "the server keeps nothing on disk: a restart empties it, and what the outbox does not reach is \
             lost; set appendonly to yes",
        ),
        (Some("0"), Some(_), _) => say(
            false,
            "the server writes snapshots only: each crash takes minutes, which the outbox brings back as far as it \
             reaches; set appendonly to yes",
        ),
        _ => say(
            false,
            "the server does not tell how it keeps data on disk (CONFIG GET is not allowed); it should be \
             appendonly yes",
        ),
    }
    concerns
}
