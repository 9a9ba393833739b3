//! Orders that walk through the whole store: `verify`, `backup`, `export`, `migrate`, `retire`. They run beside the writer's
//! turns.
//!
//! Of the embedded store they read a snapshot, and nobody waits. A Redis is read while this service sends it
//! nothing: views are taken and kept in the outbox until the copy has ended.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use tokio::sync::oneshot;

use super::config::Config;
use super::mailbox::{Answer, Job, OrderRequest};
use super::turn::Writer;
use crate::calendar::Calendar;
use crate::sites::SiteKey;
use crate::totals::delivery::Reason;
use crate::totals::delivery::identity::{Dataset, Identity};
use crate::totals::disk::dir::{self, DataDir};
use crate::totals::store::AnyDump;
use crate::totals::store::contract::{Store, StoreConfig, StoreError, WriterId};
use crate::totals::store::dump::Dump;
use crate::totals::store::url::StoreUrl;
use crate::totals::upkeep::audit::{self, Audit};
use crate::totals::upkeep::backup;
use crate::totals::upkeep::copy::{self, Manner};
use crate::totals::upkeep::export;

/// How often a store that does not answer is asked before a copy of it is given up, and the pause in between.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(300);

impl<S: Store> Writer<S> {
    /// Begins a job, which goes on by itself and answers when it has ended.
    pub async fn begin_job(&mut self, job: Job, done: oneshot::Sender<Answer>) {
        let (dump, quiet) = match self.begin_reading(&job).await {
            Ok(begun) => begun,
            Err(why) => return OrderRequest::answer(done, Err(why.to_string())),
        };
        let (store, data_dir) = (self.config.store.clone(), self.dir.path().to_owned());
        let without: Vec<&str> = self.delivery.outbox.held().keys().map(SiteKey::as_str).collect();
        let without = match without.join(", ") {
            sites if sites.is_empty() || matches!(job, Job::Verify { .. }) => String::new(),
            sites => format!("\nwhat waits of these sites, which are held, is not in it: {sites}"),
        };
        let made = Calendar::utc().rfc3339(self.shared.clock.now().unix_ms);
        let (shared, is_backup) = (self.shared.clone(), matches!(job, Job::Backup { .. }));
        tokio::spawn(async move {
            let answer = carry_out(job, dump, store, &data_dir, &made).await;
            if is_backup && answer.is_ok() {
                shared.metrics.last_backup.set(shared.clock.now().unix_ms as f64 / 1000.0);
            }
            // The store is written to again from here on.
            drop(quiet);
            OrderRequest::answer(
                done,
                answer.map(|said| said + &without).map_err(|reason| reason.to_string()),
            );
        });
    }

    /// Begins to remove the markers of a writer that is gone, which goes on by itself: of many old sites it takes long.
    pub async fn begin_retiring(&mut self, writer: WriterId, force: bool, done: oneshot::Sender<Answer>) {
        let may = self.delivery.may_retire(&writer, force).await;
        let today = match may.and_then(|()| Ok(self.delivery.today()?)) {
            Ok(today) => today,
            Err(why) => return OrderRequest::answer(done, Err(why.to_string())),
        };
        let sites: Vec<SiteKey> = self.delivery.sites.all().map(|site| site.key.clone()).collect();
        let store = self.delivery.store.clone();
        tokio::spawn(async move {
            let removed = retire(&*store, &sites, &writer, today).await.map_err(|error| error.to_string());
            let said = |n| format!("writer {} is retired: {n} markers are removed", writer.0);
            OrderRequest::answer(done, removed.map(said));
        });
    }

    /// What the store holds, and what keeps it so: for a copy with all that was counted until now, while an
    /// audit takes it as it is.
    async fn begin_reading(&mut self, job: &Job) -> Result<(S::Dump, Option<Arc<()>>), Reason> {
        let mut quiet = None;
        if !matches!(job, Job::Verify { .. }) {
            self.bring_everything().await?;
            self.copying = Arc::downgrade(quiet.insert(Arc::new(())));
        }
        if let Job::Migrate { to, .. } = job {
            self.delivery.welcome_copy_in(to.kind())?;
        }
        Ok((self.delivery.store.dump().await?, quiet))
    }

    /// Brings to the store all that was counted until now.
    pub(super) async fn bring_everything(&mut self) -> Result<(), String> {
        if self.copying.strong_count() > 0 {
            return Err("another command copies the store; wait for its end".to_owned());
        }
        let counted = self.shared.tally().folded;
        self.freeze().await;
        for _ in 0..TRIES {
            self.delivery.retry_now();
            self.send().await;
            if self.delivery.outbox.waiting() == 0 || self.delivery.stopped().is_some() {
                break;
            }
            if !self.more_waits {
                tokio::time::sleep(PAUSE).await;
            }
        }
        let waiting = self.delivery.outbox.waiting();
        if waiting > 0 || self.frozen_to < counted { Err(self.not_brought(waiting)) } else { Ok(()) }
    }
}

/// Removes a writer's markers from sites. How many.
async fn retire(
    store: &impl Store,
    sites: &[SiteKey],
    writer: &WriterId,
    today: NaiveDate,
) -> Result<u64, StoreError> {
    let mut removed = 0;
    for site in sites {
        removed += store.retire(site, std::slice::from_ref(writer), today).await?;
    }
    Ok(removed)
}

async fn carry_out(
    job: Job,
    dump: impl Dump,
    store: StoreConfig,
    data_dir: &Path,
    made: &str,
) -> Result<String, Reason> {
    match job {
        Job::Verify { site } => {
            check_datasets(&dump, data_dir).await?;
            Ok(serde_json::to_string(&audit(&dump, site.as_deref()).await?)?)
        }
        Job::Backup { into } => {
            let audits = backup::backup(&dump, &into, made).await?;
            Ok(format!("{}{} holds all that was counted before", told(&audits), into.display()))
        }
        Job::Export { site, format, into } => {
            let rows = export::export(&dump, site.as_deref(), format, &into).await?;
            Ok(format!("{rows} rows are exported"))
        }
        Job::Migrate { to, resumes } => {
            let manner = Manner { resumes, with_salts: true };
            let audits = copy::copy(&dump, &store.at(to.clone()), data_dir, manner).await?;
            Ok(format!(
                "{}the same is in {} and {}; now set store.url to the new one and restart the service: what it counts \
                 until then follows from its outbox",
                told(&audits),
                store.url.place(data_dir),
                to.place(data_dir)
            ))
        }
    }
}

/// Copies the totals of one store into another, neither of which a service of this `data_dir` writes to.
pub async fn migrate(config: &Config, from: &StoreUrl, to: &StoreUrl, resumes: bool) -> Answer {
    let dir = &config.data_dir;
    let places = format!("{} and {}", from.place(dir), to.place(dir));
    let (from, to) = (config.store.at(from.clone()), config.store.at(to.clone()));
    let manner = Manner { resumes, with_salts: true };
    let in_words = |error: StoreError| error.to_string();
    // A service that starts meanwhile would write to a file of that name.
    let _locked = match to.url {
        StoreUrl::Embedded => {
            Some(DataDir::open(dir).map_err(|error| format!("{}: {error}", dir.display()))?)
        }
        _ => None,
    };
    let from = AnyDump::open(&from, dir).await.map_err(in_words)?;
    let audits = copy::copy(&from, &to, dir, manner).await;
    Ok(format!("{}the same is in {places}", told(&audits.map_err(|error| error.to_string())?)))
}

/// Audits the store of a URL; none where only the service that runs on it can be asked.
pub async fn audit_of(
    config: &Config,
    url: &StoreUrl,
    site: Option<&str>,
) -> Result<Option<Vec<Audit>>, StoreError> {
    let is_the_services = *url == StoreUrl::Embedded && config.store.url == StoreUrl::Embedded;
    if is_the_services && dir::is_in_use(&config.data_dir) {
        return Ok(None);
    }
    let dump = AnyDump::open(&config.store.at(url.clone()), &config.data_dir).await?;
    if *url == config.store.url {
        check_datasets(&dump, &config.data_dir).await?;
    }
    audit(&dump, site).await.map(Some)
}

/// Refuses a store that has other data sets than the service of a directory wrote to last, or none of its sites.
async fn check_datasets(dump: &impl Dump, data_dir: &Path) -> Result<(), StoreError> {
    let Some(identity) = Identity::peek(data_dir) else { return Ok(()) };
    let sites = dump.sites().await?;
    for site in &sites {
        let Some((_, last)) = identity.last_dataset(site) else { continue };
        if dump.dataset(site).await? != *last.id {
            let why = format!("its data set of site {site} is not the one that the service wrote to");
            return Err(StoreError::refused(why));
        }
    }
    match identity.datasets.keys().all(|(site, _)| !sites.contains(site)) && !identity.datasets.is_empty() {
        true => Err(StoreError::refused("it holds nothing of what the service wrote")),
        false => Ok(()),
    }
}

/// The kind of store that the service of this `data_dir` has its totals in, where the settings name another kind.
pub fn other_kind_in_use(config: &Config) -> Option<String> {
    Identity::peek(&config.data_dir)?.other_kind_than(config.store.url.kind()).map(str::to_owned)
}

/// Audits one site or all.
async fn audit(dump: &impl Dump, site: Option<&str>) -> Result<Vec<Audit>, StoreError> {
    let mut sites = dump.sites().await?;
    if let Some(named) = site {
        sites.retain(|site| site.as_str() == named);
        if sites.is_empty() {
            return Err(StoreError::refused(format!("the store has no site {named}")));
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
pub async fn restore(config: &Config, from: &Path) -> Answer {
    let (store, data_dir) = (&config.store, &config.data_dir);
    let audits = backup::restore(store, data_dir, from).await.map_err(|error| error.to_string())?;
    note_restored(config)
        .await
        .map_err(|fault| format!("restored, but the next start cannot know it: {fault}"))?;
    let place = store.url.place(data_dir);
    Ok(format!("{}restored into {place}; the next start of the service goes on from here", told(&audits)))
}

/// Has the next start know the data sets that were restored: another store is not taken for theirs.
async fn note_restored(config: &Config) -> Result<(), Reason> {
    let dir = DataDir::open(&config.data_dir)?;
    let dump = AnyDump::open(&config.store, &config.data_dir).await?;
    let mut datasets = Vec::new();
    for site in dump.sites().await? {
        datasets.push((dump.dataset(&site).await?, site));
    }
    let kind = config.store.url.kind();
    Ok(Identity::open(&dir)?.change(&dir, |anew| {
        datasets
            .into_iter()
            .for_each(|(id, site)| anew.take_dataset(kind, &site, Dataset { id: id.into(), floor: 0 }));
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::totals::store::tests::config as store_at;
    use crate::totals::{JournalConfig, OutboxConfig, Sync};

    #[tokio::test]
    async fn no_service_starts_on_what_a_migration_fills() {
        let dir = tempfile::tempdir().unwrap();
        // A source that is connected to and never answers.
        let source = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let from = store_at(&format!("redis://{}", source.local_addr().unwrap())).url;
        let config = Config {
            data_dir: dir.path().to_owned(),
            journal: JournalConfig { sync: Sync::Always, max_unsynced: PAUSE, max_bytes: 1 },
            outbox: OutboxConfig { retention: PAUSE, max_bytes: 1 },
            store: store_at("embedded"),
            max_pages: 1,
            page_days: 62,
            fold_below: 0,
            max_ids: 1,
            checkpoint_interval: PAUSE,
        };
        let used = DataDir::open(dir.path()).unwrap();
        let refused = migrate(&config, &from, &StoreUrl::Embedded, false).await.unwrap_err();
        assert!(refused.contains("another footfall uses it"), "{refused}");
        drop(used);
        tokio::select! {
            biased;
            _ = async {
                source.accept().await.unwrap();
                assert!(dir::is_in_use(dir.path()), "as long as it is copied");
            } => {}
            done = migrate(&config, &from, &StoreUrl::Embedded, false) => panic!("{done:?}"),
        }
        assert!(!dir::is_in_use(dir.path()));
    }
}
