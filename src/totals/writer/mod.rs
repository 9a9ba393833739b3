//! The one task that owns everything durable but the journal: it freezes pending sums into batches, has them
//! delivered to the store, reads the store for those who ask, and writes the checkpoint. It runs on a thread of
//! its own, so that no disk and no store ever holds the event loop. It is asked by messages, and calls nobody
//! who asks.

mod answers;
pub mod checkpoint;
pub mod config;
mod decisions;
mod entries;
pub mod jobs;
pub mod mailbox;
mod reads;
pub mod rows;
mod sites;
pub mod status;
pub mod turn;
mod walks;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use self::checkpoint::Moves;
use self::config::Config;
use self::mailbox::{Inbox, Mailbox, Message};
use self::status::Shared;
use self::turn::{STORE_PATIENCE, Writer};
use crate::sessions::Sessions;
use crate::totals::delivery::{Delivery, Parts};
use crate::totals::disk::frame::Position;
use crate::totals::store::AnyStore;
use crate::totals::store::contract::{Store, StoreError};

/// Why the totals cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or directory.
    #[error("data_dir {0} cannot be used: {1}")]
    Files(String, io::Error),
    /// The store refuses, or its files cannot be used.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// What a writer begins with.
pub struct Start {
    pub config: Config,
    pub shared: Arc<Shared>,
    pub sessions: Arc<Sessions>,
    pub parts: Parts,
    /// Up to where the journal is in batches.
    pub frozen_to: Position,
    /// What pages moved to.
    pub moves: Moves,
}

/// Starts the writer, which opens the store. It has had a chance to answer when this returns.
pub async fn spawn(start: Start) -> Result<Mailbox, OpenError> {
    let data_dir = start.config.data_dir.display().to_string();
    let files = |error| OpenError::Files(data_dir.clone(), error);
    let (life, lives) = watch::channel(());
    let (mailbox, inbox) = Mailbox::new(lives, &start.shared.sites.load());
    let (opened, ready) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(files)?;
    std::thread::Builder::new()
        .name("writer".to_owned())
        .spawn(move || {
            let _life = life;
            runtime.block_on(async {
                let metrics = start.shared.metrics.clone();
                match AnyStore::open(&start.config.store, &start.config.data_dir, Some(metrics)).await {
                    Ok(store) => start.write_into(store, opened, inbox).await,
                    Err(error) => _ = opened.send(Err(error.into())),
                }
            });
        })
        .map_err(files)?;
    ready.await.map_err(|_| files(io::Error::other("the writer did not begin")))??;
    Ok(mailbox)
}

impl Start {
    /// Writes into a store until it is told to stop; says when it has begun.
    async fn write_into(
        self,
        store: impl Store,
        opened: oneshot::Sender<Result<(), OpenError>>,
        inbox: Inbox,
    ) {
        match self.begin(store).await {
            Ok(writer) => {
                opened.send(Ok(())).ok();
                writer.run(inbox).await;
            }
            Err(error) => _ = opened.send(Err(error)),
        }
    }

    /// A writer whose store has had a chance to answer.
    async fn begin<S: Store>(self, store: S) -> Result<Writer<S>, OpenError> {
        let Start { config, shared, sessions, parts, frozen_to, moves } = self;
        let dir = parts.dir.clone();
        let delivery = Delivery::new(parts, store)
            .map_err(|error| OpenError::Files("cannot be written".to_owned(), error))?;
        let mut writer = Writer::new(shared, sessions, dir, config, delivery, frozen_to, moves);
        writer.begin(STORE_PATIENCE).await;
        Ok(writer)
    }
}

impl<S: Store> Writer<S> {
    /// Works until it is told to stop.
    pub async fn run(mut self, mut inbox: Inbox) {
        self.delivery.serves = true;
        let mut ticks = tokio::time::interval(self.config.store.flush_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut next = None;
        let patience = loop {
            let message = match next.take() {
                Some(message) => message,
                None => tokio::select! {
                    biased;
                    _ = ticks.tick() => {
                        self.turn().await;
                        continue;
                    }
                    walk = self.walks.next() => {
                        self.end_walk(walk).await;
                        continue;
                    }
                    message = inbox.recv() => message.unwrap_or(Message::Stop(Duration::ZERO)),
                    // While batches wait it goes on with them, as soon as nobody asks for anything.
                    () = tokio::task::yield_now(), if self.more_waits => {
                        self.send().await;
                        continue;
                    }
                },
            };
            match message {
                Message::Read(first) => {
                    let mut requests = vec![first];
                    while next.is_none()
                        && let Ok(message) = inbox.try_recv()
                    {
                        match message {
                            Message::Read(request) => requests.push(request),
                            other => next = Some(other),
                        }
                    }
                    self.answer(requests).await;
                }
                Message::Order(request) => self.obey(request).await,
                Message::Register(registration) => self.register(registration).await,
                Message::Stop(patience) => break patience,
            }
            // Those who ask all the time must not keep the batches waiting.
            if self.more_waits {
                self.send().await;
            }
        };
        self.end(patience).await;
    }
}
