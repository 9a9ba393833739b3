//! Orders of operators, carried out by the writer between two of its turns: it alone owns what they
//! change, and a service that runs goes on taking views meanwhile.
//!
//! An order comes from a command, through the control socket of a running service or, where none runs, from
//! the command's own process, which has opened the totals itself. Both end in [`Totals::order`].
//!
//! To add one: a variant of [`Order`], whose fields are its JSON, and an arm in [`Writer::obey`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::jobs::Copying;
use super::turn::Writer;
use crate::sites::SiteKey;
use crate::totals::Totals;
use crate::totals::delivery::identity::{Change, Dataset};
use crate::totals::disk::losses::Cause;
use crate::totals::store::contract::{Standing, Store, WriterId};

/// A writer that attached so recently is taken to live: a running one attaches each minute. Seconds.
const LIVES_S: i64 = 15 * 60;

/// What an operator may order. As JSON: `{"order":"drain"}`, `{"order":"refill","dry_run":true}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Order {
    /// The data set has vanished: put back what the outbox holds.
    Refill {
        /// Say only what would be done.
        dry_run: bool,
    },
    /// The data set is another one: begin anew on it, with what was not applied yet.
    AcceptEmpty {
        /// Say only what would be done.
        dry_run: bool,
    },
    /// Bring everything to the store and give up this directory's identity: it may be deleted then.
    Drain,
    /// Remove the markers of a writer that is gone for good.
    Retire {
        /// Its id.
        writer: String,
        /// Even if it was seen a moment ago.
        force: bool,
    },
    /// Read the whole store.
    #[serde(untagged)]
    Copy(Copying),
}

/// What was done, in words for the operator; or why it was not.
pub type Answer = Result<String, String>;

/// An order on its way to the writer.
pub struct Asked {
    /// What to do.
    pub order: Order,
    /// Where the answer goes.
    pub done: oneshot::Sender<Answer>,
}

impl Asked {
    /// Says how an order ended, in the log and to whoever gave it.
    pub fn answer(done: oneshot::Sender<Answer>, answer: Answer) {
        match &answer {
            Ok(_) => tracing::info!("the order is carried out"),
            Err(why) => tracing::warn!(why, "the order is not carried out"),
        }
        // Whoever asked may have gone.
        done.send(answer).ok();
    }
}

impl Totals {
    /// Has the writer carry out an order. It waits for the writer's turn to end, and as long as the order takes.
    ///
    /// # Errors
    /// Why it was not carried out, in words.
    pub async fn order(&self, order: Order) -> Answer {
        let (done, answer) = oneshot::channel();
        let gone = || "the service is stopping".to_owned();
        self.orders.send(Asked { order, done }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// A site whose data set is not the one that was written to.
struct Strayed {
    site: SiteKey,
    ours: Arc<str>,
    /// The one that is there; none if there is none.
    found: Option<Arc<str>>,
}

impl<S: Store> Writer<S> {
    /// Carries out an order.
    pub async fn obey(&mut self, asked: Asked) {
        tracing::info!(order = ?asked.order, "an operator orders");
        let answer = match asked.order.clone() {
            Order::Refill { dry_run } => self.refill(dry_run).await,
            Order::AcceptEmpty { dry_run } => self.accept_empty(dry_run).await,
            Order::Drain => self.drain().await,
            Order::Retire { writer, force } => self.retire(WriterId(writer.into()), force).await,
            Order::Copy(copying) => return self.begin_copying(copying, asked).await,
        };
        Asked::answer(asked.done, answer);
    }

    /// The sites whose data set is not the one that was written to. Writes nothing to those.
    async fn strayed(&mut self) -> Result<Vec<Strayed>, String> {
        let mut strayed = Vec::new();
        for site in self.sites.clone().all() {
            let place = (self.store.kind().to_owned(), site.key.clone());
            let Some(ours) = self.identity.datasets.get(&place).map(|dataset| dataset.id.clone()) else {
                continue;
            };
            let told = self.claim(&site.key, Some(ours.clone()), None).await.map_err(|e| e.to_string())?;
            if let (Standing::Other, found, _) = told {
                let found = (!found.is_empty()).then_some(found);
                strayed.push(Strayed { site: site.key.clone(), ours, found });
            }
        }
        match strayed.is_empty() {
            true => {
                Err("the store holds the data set that was written to: nothing is to be decided".to_owned())
            }
            false => Ok(strayed),
        }
    }

    async fn refill(&mut self, dry_run: bool) -> Answer {
        let strayed = self.strayed().await?;
        let held = self.held_of(&strayed).map_err(|error| error.to_string())?;
        let mut said = String::new();
        for Strayed { site, ours, found } in &strayed {
            let into = found.as_ref().map_or("no data".to_owned(), |id| format!("data set {id}"));
            let (batches, views) = held.get(site).copied().unwrap_or_default();
            said += &format!("{site}: the store holds {into}; {batches} batches with {views} views ");
            said += if dry_run { "would be sent\n" } else { "are sent\n" };
            if dry_run {
                continue;
            }
            // Born again under its old id: other instances on this store know it then, and refill it too.
            let told =
                self.claim(site, found.clone(), Some(ours.clone())).await.map_err(|e| e.to_string())?;
            let place = (self.store.kind().to_owned(), site.clone());
            let dataset = Dataset { id: told.1, floor: self.identity.floor_of(self.store.kind(), site) };
            self.identity.datasets.insert(place, dataset);
        }
        let reach = humantime::format_duration(std::time::Duration::from_secs(self.outbox.reach_ms() / 1000));
        said += &format!("what lies before that ({reach} back) is not in the outbox");
        if dry_run { Ok(said) } else { self.go_on(said + ", and recorded as lost").await }
    }

    async fn accept_empty(&mut self, dry_run: bool) -> Answer {
        let strayed = self.strayed().await?;
        let (applied, waiting) = (self.outbox.applied(), self.outbox.waiting());
        let mut said = String::new();
        for Strayed { site, ours, found } in &strayed {
            let into = found.as_ref().map_or("a new data set".to_owned(), |id| format!("data set {id}"));
            said += &format!("{site}: {into} takes the place of {ours}\n");
            if dry_run {
                continue;
            }
            let told = self.claim(site, found.clone(), None).await.map_err(|e| e.to_string())?;
            let place = (self.store.kind().to_owned(), site.clone());
            self.identity.datasets.insert(place, Dataset { id: told.1, floor: applied });
            self.last_parts.retain(|hash, last| hash.site != *site || last.sequence > applied);
            let now_ms = self.shared.clock.now().unix_ms;
            let extent = format!("batches up to {applied}, given up by order of the operator");
            self.shared.losses.record(Cause::Store, now_ms, site.as_str(), &extent);
        }
        said += &format!("{waiting} batches that were not applied yet ");
        said += if dry_run {
            "would be applied; what was applied before would not be in it"
        } else {
            "are applied"
        };
        if dry_run { Ok(said) } else { self.go_on(said).await }
    }

    /// Saves what was decided, and brings the store up to date.
    async fn go_on(&mut self, mut said: String) -> Answer {
        self.identity.save(&self.dir).map_err(|error| error.to_string())?;
        self.pace.attached = false;
        self.pace.loaded = false;
        self.pace.retry_now();
        self.send().await;
        said += &match self
            .shared
            .held()
            .or_else(|| (self.pace.failures > 0).then(|| "the store is away".into()))
        {
            Some(why) => format!("\nthat is not done yet: {why}"),
            None => "\nthe store is up to date".to_owned(),
        };
        Ok(said)
    }

    /// What the outbox holds of sites: batches and views.
    fn held_of(&self, sites: &[Strayed]) -> std::io::Result<BTreeMap<SiteKey, (u64, u64)>> {
        let mut held: BTreeMap<SiteKey, (u64, u64)> = BTreeMap::new();
        let Some(first) = self.outbox.first_sequence() else { return Ok(held) };
        for sequence in first..self.outbox.next_sequence() {
            let Some(batch) = self.outbox.get(sequence)? else { continue };
            for sums in batch.sums.iter().filter(|sums| sites.iter().any(|strayed| strayed.site == sums.site))
            {
                if sequence > self.identity.floor_of(self.store.kind(), &sums.site) {
                    let (batches, views) = held.entry(sums.site.clone()).or_default();
                    *batches += 1;
                    *views += sums.sums.views;
                }
            }
        }
        Ok(held)
    }

    async fn drain(&mut self) -> Answer {
        if self.shared.serves.load(Ordering::Acquire) {
            return Err("a service runs on this data_dir and goes on taking views; stop it first".to_owned());
        }
        self.freeze().await;
        self.pace.retry_now();
        self.send().await;
        let waiting = self.outbox.waiting();
        if waiting > 0 || self.pace.failures > 0 || self.shared.ledger().oldest_ms().is_some() {
            let held = self.shared.held().unwrap_or_else(|| "the store does not answer".to_owned());
            return Err(format!("{waiting} batches cannot be brought to the store: {held}"));
        }
        // First it is somebody else, then the markers go: in between a crash changes nothing.
        let anew = self.identity.begin_anew(&self.dir, self.outbox.applied(), Change::Drained);
        let former = anew.map_err(|error| error.to_string())?;
        self.last_parts.clear();
        let dir = self.dir.path().display().to_string();
        let done = format!(
            "everything is in the store, and {dir} may be deleted: it holds nothing more of writer {}",
            former.0
        );
        self.pace.attached = false;
        match self.attach().await {
            Ok(()) => Ok(done),
            Err(error) => Ok(format!("{done}, whose markers are removed at the next start ({error})")),
        }
    }

    async fn retire(&mut self, writer: WriterId, force: bool) -> Answer {
        if writer == self.identity.writer {
            return Err("this is the writer of this data_dir; `footfall drain` gives it up".to_owned());
        }
        let now_s = self.shared.clock.now().unix_ms / 1000;
        let mut seen: Option<i64> = None;
        for site in self.sites.all() {
            let known = self.store.writers(&site.key).await.map_err(|error| error.to_string())?;
            seen = seen.max(known.into_iter().find(|(id, _)| *id == writer).map(|(_, seen)| seen));
        }
        let Some(seen) = seen else {
            return Err(format!("the store knows no writer {}", writer.0));
        };
        if now_s - seen < LIVES_S && !force {
            return Err(format!(
                "writer {} was seen {} s ago and may live; drain it, or retire it with --force once it is gone \
                 for good: what it still holds would be counted anew",
                writer.0,
                now_s - seen
            ));
        }
        let removed = self.retire_everywhere(&writer).await.map_err(|error| error.to_string())?;
        Ok(format!("writer {} is retired: {removed} markers are removed", writer.0))
    }
}
