//! What is asked of the writer, and the way to it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use super::rows::{Entering, Intent, Moving};
use crate::ingest::Page;
use crate::sites::{NoPlace, Shares, SiteId, Sites};
use crate::totals::store::url::StoreUrl;
use crate::totals::upkeep::export::Format;

/// Reads that may wait for an answer; more where there are so many sites that a share would be less than one.
const READS: usize = 512;

/// Other messages that may wait for the writer, whatever reads do.
const OTHERS: usize = 64;

/// A message to the writer.
pub enum Message {
    /// Read figures.
    Read(ReadRequest),
    /// Carry out an order.
    Order(OrderRequest),
    /// Put other sites in force.
    Register(Registration),
    /// Bring to the store what can be brought within so long, write a checkpoint, and end.
    Stop(Duration),
}

/// A request for figures that are not known, or old.
pub struct ReadRequest {
    pub site: SiteId,
    pub wanted: Wanted,
    /// Told, or let go of, when the tally has the answer, or when there is none.
    pub done: oneshot::Sender<Absent>,
    /// None where nothing bounds those who ask.
    pub place: Option<Place>,
}

/// Keys of pages of a site that the store was found not to have, in order. The tally remembers few of those, so whoever
/// waited for them is told.
pub type Absent = Arc<[u64]>;

/// Who asked, and the place among those who wait.
pub type Asker = (oneshot::Sender<Absent>, Option<Place>);

/// The place of a read among those that wait. It is free when this is dropped.
pub struct Place {
    site: SiteId,
    reads: Arc<Mutex<Shares>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.reads).give_back(self.site.index());
    }
}

fn lock(reads: &Mutex<Shares>) -> MutexGuard<'_, Shares> {
    // No change under this lock can be left half done by a panic.
    reads.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What figures are wanted of a site.
pub enum Wanted {
    /// The running ones.
    Figures,
    /// Those of pages.
    Pages(Vec<Page>),
    /// Hours, days, and the pages read most today.
    Recent,
}

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
    /// Enter values beside what is counted.
    Enter(Entering),
    /// Enter what was entered before an entry.
    Undo {
        /// Of which site.
        site: Option<String>,
        /// The entry's number.
        number: u64,
        /// How, by whom and why.
        intent: Intent,
    },
    /// List what was entered.
    Entries {
        /// Of one site, or all.
        site: Option<String>,
        /// One entry with all that it changed, or all.
        number: Option<u64>,
    },
    /// Show pages as others.
    Move(Moving),
    /// Remove everything that is stored of a site.
    EraseSite {
        /// Its key.
        site: String,
        /// How, by whom and why.
        intent: Intent,
    },
    /// List the pages that are shown as others.
    Moves {
        /// Of one site, or all.
        site: Option<String>,
    },
    /// Read the whole store.
    #[serde(untagged)]
    Job(Job),
}

/// An order that reads the whole store. As JSON: `{"copy":"backup","into":"/backup/today"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "copy", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Job {
    /// Audit it; the answer is a list of [`Audit`](crate::totals::Audit) in JSON.
    Verify {
        /// One site, or all.
        site: Option<String>,
    },
    /// Copy it into a new directory.
    Backup {
        /// The directory, from the root on.
        into: PathBuf,
    },
    /// Write it into a file, as rows that [`Order::Enter`] takes.
    Export {
        /// One site, or all.
        site: Option<String>,
        /// How.
        format: Format,
        /// The file, from the root on.
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

/// What was done, in words for the operator; or why it was not.
pub type Answer = Result<String, String>;

/// An order on its way to the writer.
pub struct OrderRequest {
    pub order: Order,
    /// Where the answer goes.
    pub done: oneshot::Sender<Answer>,
}

impl OrderRequest {
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

/// Sites on their way to the writer.
pub struct Registration {
    pub wanted: Sites,
    /// Where the answer goes.
    pub done: oneshot::Sender<Result<(), NoPlace>>,
}

/// Messages as the writer takes them.
pub type Inbox = mpsc::Receiver<Message>;

/// The way to the writer, and the word that it has ended.
pub struct Mailbox {
    messages: mpsc::Sender<Message>,
    /// How the sites share the room for reads.
    reads: Arc<Mutex<Shares>>,
    lives: watch::Receiver<()>,
}

impl Mailbox {
    /// A mailbox and where its messages arrive. The writer holds the sender of `lives` until it has ended.
    pub fn new(lives: watch::Receiver<()>, sites: &Sites) -> (Self, Inbox) {
        // Half of them are shared in equal parts.
        let most = READS.max(2 * sites.room());
        let mut reads = Shares::new(most);
        reads.among(sites.iter().len());
        let (messages, inbox) = mpsc::channel(most + OTHERS);
        (Mailbox { messages, reads: Arc::new(Mutex::new(reads)), lives }, inbox)
    }

    /// Resolves when the writer has ended, in whatever way.
    pub async fn ended(&self) {
        self.lives.clone().wait_for(|()| false).await.ok();
    }

    /// Asks for figures. What is returned resolves when they are read or cannot be; none where as many reads wait
    /// as may, those of the site or of all.
    pub fn fetch(&self, site: SiteId, wanted: Wanted) -> Option<oneshot::Receiver<Absent>> {
        let has_room = lock(&self.reads).take(site.index());
        let place = has_room.then(|| Place { site, reads: self.reads.clone() })?;
        let (done, answered) = oneshot::channel();
        let request = Message::Read(ReadRequest { site, wanted, done, place: Some(place) });
        self.messages.try_send(request).ok().map(|()| answered)
    }

    /// How many reads wait, and how many may.
    pub fn reads(&self) -> (usize, usize) {
        let reads = lock(&self.reads);
        (reads.all(), reads.most())
    }

    /// Has an order carried out. It waits for the writer's turn to end, and as long as the order takes.
    pub async fn order(&self, order: Order) -> Answer {
        let (done, answer) = oneshot::channel();
        let gone = || "the service is stopping, or could not end the order: its log says which".to_owned();
        self.messages.send(Message::Order(OrderRequest { order, done })).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Puts sites in force.
    ///
    /// # Errors
    /// Too many were added: nothing has changed.
    pub async fn register(&self, wanted: Sites) -> Result<(), NoPlace> {
        let (done, answer) = oneshot::channel();
        let number = wanted.iter().len();
        // Without a writer the service stops, and needs no sites.
        self.messages.send(Message::Register(Registration { wanted, done })).await.ok();
        answer.await.unwrap_or(Ok(()))?;
        lock(&self.reads).among(number);
        Ok(())
    }

    /// Has the writer end within `patience`, and waits for it.
    pub async fn stop(&self, patience: Duration) {
        // One that has ended already takes no message.
        self.messages.send(Message::Stop(patience)).await.ok();
        self.ended().await;
    }
}
