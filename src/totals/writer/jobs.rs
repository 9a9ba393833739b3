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
use crate::totals::store::dump::Contents;
use crate::totals::store::url::StoreUrl;
use crate::totals::upkeep::audit::{self, Audit};
use crate::totals::upkeep::backup;
use crate::totals::upkeep::copy::{self, CopyError, Target};
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

impl Writer {
    /// Begins what is ordered, which goes on by itself and answers when it has ended.
    pub async fn begin_copying(&mut self, copying: Copying, asked: Asked) {
        let (contents, quiet) = match self.begin_reading(&copying).await {
            Ok(begun) => begun,
            Err(why) => return Asked::answer(asked.done, Err(why)),
        };
        let (store, data_dir) = (self.config.store.clone(), self.dir.path().to_owned());
        let made = Calendar::utc().rfc3339(self.shared.clock.now().unix_ms);
        tokio::spawn(async move {
            let answer = carry_out(copying, contents, store, &data_dir, &made).await;
            // The store is written to again from here on.
            drop(quiet);
            Asked::answer(asked.done, answer);
        });
    }

    /// What the store holds, and what keeps it so: for a copy with all that was counted until now, while an
    /// audit takes it as it is.
    async fn begin_reading(&mut self, copying: &Copying) -> Result<(Contents, Option<Arc<()>>), String> {
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
        let contents = match &self.store {
            Store::Embedded(store) => Contents::of(store).await,
            Store::Redis(_) => Contents::open(&self.config.store, self.dir.path()).await,
            #[cfg(test)]
            Store::Model(model) => Err(model.is_not_copied()),
        };
        Ok((contents.map_err(|error| error.to_string())?, quiet))
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
        self.pace.copying.strong_count() > 0 && matches!(self.store, Store::Redis(_))
    }
}

async fn carry_out(
    copying: Copying,
    contents: Contents,
    store: StoreConfig,
    data_dir: &Path,
    made: &str,
) -> Answer {
    match copying {
        Copying::Verify { site } => {
            let audits = audit(&contents, site.as_deref()).await.map_err(|error| error.to_string())?;
            serde_json::to_string(&audits).map_err(|error| error.to_string())
        }
        Copying::Backup { into } => {
            let audits =
                backup::backup(&contents, &store, &into, made).await.map_err(|error| error.to_string())?;
            Ok(format!("{}{} holds all that was counted before", told(&audits), into.display()))
        }
        Copying::Migrate { to, resumes } => {
            let audits = migrate_into(&contents, store.at(to), data_dir, resumes).await;
            let audits = audits.map_err(|error| error.to_string())?;
            Ok(format!(
                "{}the same is in both stores; now set store.url to the new one and restart the service: what \
                 it counts until then follows from its outbox",
                told(&audits)
            ))
        }
    }
}

async fn migrate_into(
    contents: &Contents,
    to: StoreConfig,
    data_dir: &Path,
    resumes: bool,
) -> Result<Vec<Audit>, CopyError> {
    copy::copy(contents, Target::open(to, data_dir, resumes).await?, true).await
}

/// Copies the totals of one store into another, neither of which a service of this `data_dir` writes to.
///
/// # Errors
/// In words.
pub async fn migrate(config: &Config, from: &StoreUrl, to: &StoreUrl, resumes: bool) -> Answer {
    let contents = Contents::open(&config.store.at(from.clone()), &config.data_dir).await;
    let contents = contents.map_err(|error| error.to_string())?;
    let to = config.store.at(to.clone());
    let audits = migrate_into(&contents, to, &config.data_dir, resumes).await;
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
    let contents = Contents::open(&config.store.at(url.clone()), &config.data_dir).await?;
    audit(&contents, site).await.map(Some)
}

/// Audits one site or all.
async fn audit(contents: &Contents, site: Option<&str>) -> Result<Vec<Audit>, StoreError> {
    let mut sites = contents.sites().await?;
    if let Some(named) = site {
        sites.retain(|site| site.as_str() == named);
        if sites.is_empty() {
            return Err(StoreError::Refused(format!("the store has no site {named}")));
        }
    }
    let mut audits = Vec::new();
    for site in &sites {
        audits.push(audit::audit(contents, site).await?);
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
