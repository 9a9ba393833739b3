//! Orders that read the whole store: `verify`, `backup`, `migrate`. They run beside the writer's turns.
//!
//! Of the embedded store they read a snapshot, and nobody waits. A Redis is read while this service sends it
//! nothing: views are taken and kept in the outbox until the copy has ended.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::decisions::{Answer, Asked};
use super::turn::Writer;
use crate::calendar::Calendar;
use crate::totals::store::contract::{Store, StoreConfig, StoreError};
use crate::totals::store::dump::Dump;
use crate::totals::store::url::StoreUrl;
use crate::totals::store::{Keyspace, Snapshot};
use crate::totals::upkeep::audit::{self, Audit};
use crate::totals::upkeep::backup;
use crate::totals::upkeep::copy::{self, Manner};
use crate::totals::{Config, is_in_use};

/// How often a store that does not answer is asked before a copy of it is given up, and the rest in between.
const TRIES: u32 = 10;
const REST: Duration = Duration::from_millis(300);

/// An order that reads the whole store. As JSON: `{"copy":"backup","into":"/backup/today"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "copy", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Copying {
    /// Audit it; the answer is a list of [`Audit`] in JSON.
    Verify {
        /// One site, or all.
        site: Option<String>,
    },
    /// Copy it into a new directory.
    Backup {
        /// The directory, from the root on.
        into: PathBuf,
    },
    /// Copy it into another store.
    Migrate {
        /// The other store's URL.
        to: StoreUrl,
        /// Take up a copy that was broken off.
        resumes: bool,
    },
}

impl<S: Store> Writer<S> {
    /// Begins what is ordered, which goes on by itself and answers when it has ended.
    pub async fn begin_copying(&mut self, copying: Copying, asked: Asked) {
        let (dump, quiet) = match self.begin_reading(&copying).await {
            Ok(begun) => begun,
            Err(why) => return Asked::answer(asked.done, Err(why)),
        };
        let (store, data_dir) = (self.config.store.clone(), self.dir.path().to_owned());
        let made = Calendar::utc().rfc3339(self.shared.clock.now().unix_ms);
        tokio::spawn(async move {
            let answer = carry_out(copying, dump, store, &data_dir, &made).await;
            // The store is written to again from here on.
            drop(quiet);
            Asked::answer(asked.done, answer);
        });
    }

    /// What the store holds, and what keeps it so: for a copy with all that was counted until now, while an
    /// audit takes it as it is.
    async fn begin_reading(&mut self, copying: &Copying) -> Result<(S::Dump, Option<Arc<()>>), String> {
        let quiet = match copying {
            Copying::Verify { .. } => None,
            Copying::Backup { .. } | Copying::Migrate { .. } => {
                self.bring_everything().await?;
                let quiet = Arc::new(());
                self.pace.copying = Arc::downgrade(&quiet);
                Some(quiet)
            }
        };
        if let Copying::Migrate { to, .. } = copying {
            self.welcome_in(to).map_err(|error| error.to_string())?;
        }
        let dump = self.store.dump().await.map_err(|error| error.to_string())?;
        Ok((dump, quiet))
    }

    /// The copy will not be taken for a data set that came in place of the one this service had in a store of
    /// that kind.
    fn welcome_in(&mut self, to: &StoreUrl) -> io::Result<()> {
        let (ours, kind) = (self.store.kind(), to.kind());
        if kind == ours { Ok(()) } else { self.identity.copy_datasets(&self.dir, ours, kind) }
    }

    /// Brings to the store all that was counted until now.
    async fn bring_everything(&mut self) -> Result<(), String> {
        if self.pace.copying.strong_count() > 0 {
            return Err("another command copies the store; wait for its end".to_owned());
        }
        let counted = self.shared.ledger().folded();
        self.freeze().await;
        for _ in 0..TRIES {
            self.pace.retry_now();
            self.send().await;
            if self.outbox.waiting() == 0 || self.shared.held().is_some() {
                break;
            }
            tokio::time::sleep(REST).await;
        }
        let waiting = self.outbox.waiting();
        if waiting > 0 || !self.pace.has_frozen(counted) {
            let held = self.shared.held().unwrap_or_else(|| "the store does not answer".to_owned());
            return Err(format!("{waiting} batches cannot be brought to the store: {held}"));
        }
        Ok(())
    }

    /// Whether the store must stay as it is.
    pub fn rests(&self) -> bool {
        self.pace.copying.strong_count() > 0 && self.store.is_shared()
    }
}

async fn carry_out(
    copying: Copying,
    dump: impl Dump,
    store: StoreConfig,
    data_dir: &Path,
    made: &str,
) -> Answer {
    match copying {
        Copying::Verify { site } => {
            let audits = audit(&dump, site.as_deref()).await.map_err(|error| error.to_string())?;
            serde_json::to_string(&audits).map_err(|error| error.to_string())
        }
        Copying::Backup { into } => {
            let audits = backup::backup(&dump, &into, made).await.map_err(|error| error.to_string())?;
            Ok(format!("{}{} holds all that was counted before", told(&audits), into.display()))
        }
        Copying::Migrate { to, resumes } => {
            let manner = Manner { resumes, with_salts: true };
            let audits = copy::copy(&dump, &store.at(to), data_dir, manner).await;
            let audits = audits.map_err(|error| error.to_string())?;
            Ok(format!(
                "{}the same is in both stores; now set store.url to the new one and restart the service: what \
                 it counts until then follows from its outbox",
                told(&audits)
            ))
        }
    }
}

/// Copies the totals of one store into another, neither of which a service of this `data_dir` writes to.
///
/// # Errors
/// In words.
pub async fn migrate(config: &Config, from: &StoreUrl, to: &StoreUrl, resumes: bool) -> Answer {
    let (from, to, dir) = (config.store.at(from.clone()), config.store.at(to.clone()), &config.data_dir);
    let manner = Manner { resumes, with_salts: true };
    let in_words = |error: StoreError| error.to_string();
    let audits = match from.url.file(dir) {
        Some(path) => copy::copy(&Snapshot::of_file(&path).await.map_err(in_words)?, &to, dir, manner).await,
        None => copy::copy(&Keyspace::open(&from).map_err(in_words)?, &to, dir, manner).await,
    };
    Ok(format!("{}the same is in both stores", told(&audits.map_err(|error| error.to_string())?)))
}

/// Audits the store of a URL; none where only the service that runs on it can be asked.
///
/// # Errors
/// See [`StoreError`].
pub async fn audit_of(
    config: &Config,
    url: &StoreUrl,
    site: Option<&str>,
) -> Result<Option<Vec<Audit>>, StoreError> {
    let is_the_services = *url == StoreUrl::Embedded && config.store.url == StoreUrl::Embedded;
    if is_the_services && is_in_use(&config.data_dir) {
        return Ok(None);
    }
    match url.file(&config.data_dir) {
        Some(path) => audit(&Snapshot::of_file(&path).await?, site).await.map(Some),
        None => audit(&Keyspace::open(&config.store.at(url.clone()))?, site).await.map(Some),
    }
}

/// Audits one site or all.
async fn audit(dump: &impl Dump, site: Option<&str>) -> Result<Vec<Audit>, StoreError> {
    let mut sites = dump.sites().await?;
    if let Some(named) = site {
        sites.retain(|site| site.as_str() == named);
        if sites.is_empty() {
            return Err(StoreError::Refused(format!("the store has no site {named}")));
        }
    }
    let mut audits = Vec::new();
    for site in &sites {
        audits.push(audit::audit(dump, site).await?);
    }
    Ok(audits)
}

/// A line for each site.
fn told(audits: &[Audit]) -> String {
    let line = |audit: &Audit| {
        let Audit { site, views, visits, buckets, pages, .. } = audit;
        format!("{site}: {views} views, {visits} visits, {buckets} buckets, {pages} pages\n")
    };
    audits.iter().map(line).collect()
}

/// Restores a backup; see [`backup::restore`].
///
/// # Errors
/// In words.
pub async fn restore(config: &Config, from: &Path) -> Answer {
    let audits = backup::restore(config, from).await.map_err(|error| error.to_string())?;
    Ok(format!("{}restored; the next start of the service goes on from here", told(&audits)))
}
