//! The start: reads back what the last process left, however it ended.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};

use crate::clock::{Clock, Moment};
use crate::ingest::{Page, Visitor, VisitorId};
use crate::metrics::Metrics;
use crate::sessions::Sessions;
use crate::sites::{Registry, SiteId, Sites};
use crate::totals::batch::Batch;
use crate::totals::batch::part::LastParts;
use crate::totals::delivery::identity::Identity;
use crate::totals::delivery::outbox::Outbox;
use crate::totals::delivery::salts::Salts;
use crate::totals::disk::codec::Damaged;
use crate::totals::disk::dir::DataDir;
use crate::totals::disk::formats;
use crate::totals::disk::log::{Damage, Harm, Position};
use crate::totals::disk::losses::{Cause, Losses};
use crate::totals::intake::journal::Journal;
use crate::totals::intake::record::{self, Record};
use crate::totals::store::contract::{Store, StoreError};
use crate::totals::store::measured::Measured;
use crate::totals::store::{self, Opened};
use crate::totals::tally::Ledger;
use crate::totals::writer::answers::Load;
use crate::totals::writer::checkpoint::{self, Checkpoint};
use crate::totals::writer::decisions::Asked;
use crate::totals::writer::sites::Registration;
use crate::totals::writer::turn::{Pace, Writer};
use crate::totals::{Config, LOAD_QUEUE, ORDER_QUEUE, STORE_PATIENCE, Shared, Sync, Totals};

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

/// See [`Totals::open`].
pub async fn open(
    config: Config,
    clock: Clock,
    sites: Arc<Registry>,
    sessions: Arc<Sessions>,
    metrics: Arc<Metrics>,
) -> Result<Arc<Totals>, OpenError> {
    let path = config.data_dir.display().to_string();
    let files = |error| OpenError::Files(path.clone(), error);
    let (stop, stopping) = oneshot::channel();
    let (ended, stopped) = oneshot::channel();
    let dir = DataDir::open(&config.data_dir).map_err(files)?;
    check_formats(&config, &dir).map_err(files)?;
    let (totals, parts) =
        read_back(&config, dir, clock, sites, sessions, metrics, (stop, stopped)).map_err(files)?;
    let (opened, ready) = oneshot::channel();
    std::thread::Builder::new()
        .name("writer".to_owned())
        .spawn(move || {
            if let Err(error) = parts.write_until_told(config, opened, stopping) {
                tracing::error!(%error, "the writer could not begin");
            }
            ended.send(()).ok();
        })
        .map_err(files)?;
    ready.await.map_err(|_| files(io::Error::other("the writer did not begin")))??;
    Ok(Arc::new(totals))
}

/// Refuses files of a newer version before anything is touched.
fn check_formats(config: &Config, dir: &DataDir) -> io::Result<()> {
    formats::check(dir.path())?;
    store::check(&config.store, dir.path()).map_err(io::Error::other)
}

/// Reads back what the last process left, for those who ask and for the writer, which `end` stops.
fn read_back(
    config: &Config,
    dir: DataDir,
    clock: Clock,
    sites: Arc<Registry>,
    sessions: Arc<Sessions>,
    metrics: Arc<Metrics>,
    end: (oneshot::Sender<Duration>, oneshot::Receiver<()>),
) -> io::Result<(Totals, Parts)> {
    let found = Recovered::read(config, dir, &clock, &sites.load(), &sessions, &metrics)?;
    let now_ms = clock.now().unix_ms;
    let lost = |what: &str| found.losses.record(Cause::Salts, now_ms, "salts", what);
    let salts = Salts::open(&found.dir, found.identity.id_key, lost)?;
    let shared = Arc::new(Shared {
        clock,
        sites,
        metrics,
        ledger: Mutex::new(found.ledger),
        journal: found.journal,
        wake: Notify::new(),
        salts: salts.table(),
        store_up: AtomicBool::new(false),
        day_turned: AtomicBool::new(false),
        held: Mutex::new(None),
        serves: AtomicBool::new(false),
        losses: found.losses,
        concerns: Mutex::default(),
    });
    let (loads, queue) = mpsc::channel(LOAD_QUEUE);
    let (orders, asked) = mpsc::channel(ORDER_QUEUE);
    let (registrations, wanted) = mpsc::channel(1);
    let reloads = config.store.url.kind() == "redis";
    let parts = Parts {
        shared: shared.clone(),
        sessions: sessions.clone(),
        dir: found.dir,
        identity: found.identity,
        salts,
        outbox: found.outbox,
        last_parts: found.last_parts,
        loads: queue,
        orders: asked,
        registrations: wanted,
        pace: Pace::after(found.reach),
    };
    Ok((
        Totals { shared, sessions, loads, orders, registrations, reloads, end: Mutex::new(Some(end)) },
        parts,
    ))
}

/// What the writer's thread is given.
struct Parts {
    shared: Arc<Shared>,
    sessions: Arc<Sessions>,
    dir: DataDir,
    identity: Identity,
    salts: Salts,
    outbox: Outbox,
    last_parts: LastParts,
    loads: mpsc::Receiver<Load>,
    orders: mpsc::Receiver<Asked>,
    registrations: mpsc::Receiver<Registration>,
    pace: Pace,
}

impl Parts {
    /// Opens the store, says so, and writes until told to stop.
    fn write_until_told(
        self,
        config: Config,
        opened: oneshot::Sender<Result<(), OpenError>>,
        stopping: oneshot::Receiver<Duration>,
    ) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move {
            let metrics = self.shared.metrics.clone();
            match store::open(&config.store, &config.data_dir).await {
                Ok(Opened::Embedded(store)) => {
                    self.write_into(Measured::new(store, metrics), config, opened, stopping).await;
                }
                Ok(Opened::Redis(store)) => {
                    self.write_into(Measured::new(store, metrics), config, opened, stopping).await;
                }
                Err(error) => opened.send(Err(error.into())).unwrap_or_default(),
            }
        });
        Ok(())
    }

    async fn write_into(
        self,
        store: impl Store,
        config: Config,
        opened: oneshot::Sender<Result<(), OpenError>>,
        stopping: oneshot::Receiver<Duration>,
    ) {
        let mut writer = match self.writer(store, config) {
            Ok(writer) => writer,
            Err(error) => {
                let error = OpenError::Files("cannot be written".to_owned(), error);
                return opened.send(Err(error)).unwrap_or_default();
            }
        };
        writer.begin(STORE_PATIENCE).await;
        opened.send(Ok(())).ok();
        writer.run(stopping).await;
    }

    fn writer<S: Store>(self, store: S, config: Config) -> io::Result<Writer<S>> {
        let Parts { shared, dir, mut identity, outbox, mut last_parts, .. } = self;
        identity.begin_run(&dir, outbox.next_sequence() - 1)?;
        let kind = store.kind();
        last_parts.retain(|hash, last| last.sequence > identity.floor_of(kind, &hash.site));
        Ok(Writer {
            sites: shared.sites.load_full(),
            shared,
            sessions: self.sessions,
            dir,
            config,
            identity,
            salts: self.salts,
            outbox,
            last_parts,
            store,
            loads: self.loads,
            orders: self.orders,
            registrations: self.registrations,
            pace: self.pace,
        })
    }
}

/// What the last process left.
struct Recovered {
    dir: DataDir,
    identity: Identity,
    outbox: Outbox,
    last_parts: LastParts,
    ledger: Ledger,
    journal: Option<Arc<Journal>>,
    losses: Losses,
    /// Up to where the journal is in batches.
    reach: Position,
}

impl Recovered {
    fn read(
        config: &Config,
        dir: DataDir,
        clock: &Clock,
        sites: &Sites,
        sessions: &Sessions,
        metrics: &Arc<Metrics>,
    ) -> io::Result<Self> {
        let identity = Identity::open(&dir)?;
        let now = clock.now();
        let losses = Losses::open(&dir, metrics.clone())?;
        let mut ledger = Ledger::new(config.max_ids, config.max_pages, now, metrics.clone());
        for site in sites.iter() {
            ledger.register(site, now);
        }
        let checkpoint = read_checkpoint(&dir)?;
        restore_checkpoint(&checkpoint, &mut ledger, sessions, now);

        let mut last_parts = checkpoint.last_parts;
        // What lies below the floor is not this identity's to apply.
        let (applied, kind) = (checkpoint.applied.max(identity.floor), config.store.url.kind());
        let mut reach = Position::default();
        let mut newest = 0;
        let folder = dir.folder().within("outbox")?;
        let mut outbox = Outbox::open(folder, config.outbox.clone(), |batch: Batch| {
            (reach, newest) = (batch.reach, batch.sequence);
            if batch.sequence > applied {
                ledger.restore_unapplied(&batch.above(|site| identity.floor_of(kind, site)), now);
            }
            batch.advance(&mut last_parts);
        })?;
        let lost = |what: &str| losses.record(Cause::Outbox, now.unix_ms, "outbox", what);
        tell_of_outbox(&outbox, applied, lost);
        if newest < checkpoint.applied {
            // Its newest batches are gone and were applied: their views must not be counted from the
            // journal. The checkpoint knows of the journal what no batch tells any more.
            reach = reach.max(checkpoint.position);
        }
        outbox.set_applied(applied);

        let after = reach.max(checkpoint.position);
        let folder = dir.folder().within("journal")?;
        let journal =
            Journal::open(folder, after.segment, config.journal.clone(), clock.clone(), metrics.clone())?;
        let from = reach.min(checkpoint.position);
        journal.remove_before(from)?;
        let mut views = 0u64;
        let damage = journal.replay(from, |group, at, _| {
            let each = |view: Record<'_>| {
                if at >= reach {
                    ledger.restore(&view, now);
                    views += 1;
                }
                if at >= checkpoint.position {
                    observe_again(&view, &mut ledger, sites, sessions, now);
                }
            };
            record::decode(group, each).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        })?;
        tell_of_journal(&damage, reach, |segment, what| {
            losses.record(Cause::Journal, now.unix_ms, &format!("journal/{segment:016x}.seg"), what);
        });
        tracing::info!(views, batches = outbox.waiting(), sessions = sessions.len(), "recovered");
        ledger.set_folded(journal.end());
        if views == 0 {
            // Nothing of the old segments is needed any more.
            reach = journal.end();
        }
        let journal = (config.journal.sync != Sync::Memory).then_some(journal);
        Ok(Recovered { dir, identity, outbox, last_parts, ledger, journal, reach, losses })
    }
}

/// A checkpoint that cannot be read is left out: what it costs is said in its module.
fn read_checkpoint(dir: &DataDir) -> io::Result<Checkpoint> {
    let Some(bytes) = dir.read(checkpoint::FILE)? else { return Ok(Checkpoint::default()) };
    match Checkpoint::decode(&bytes) {
        Ok(checkpoint) => Ok(checkpoint),
        Err(Damaged(what)) => {
            tracing::error!(
                what,
                "the checkpoint cannot be read and is set aside: visitors are online anew, counts are complete"
            );
            dir.set_aside(checkpoint::FILE)?;
            Ok(Checkpoint::default())
        }
    }
}

fn restore_checkpoint(checkpoint: &Checkpoint, ledger: &mut Ledger, sessions: &Sessions, now: Moment) {
    let elapsed_ms = now.unix_ms.saturating_sub(checkpoint.written_ms).max(0) as u64;
    ledger.ids.restore(checkpoint.ids.clone(), elapsed_ms);
    let places = checkpoint.places(|key| ledger.site_index(key));
    let place = |site: usize| places.get(site).copied().flatten();
    for (site, stored) in &checkpoint.figures {
        if let Some(site) = place(*site) {
            ledger.load_site(site, stored.clone(), checkpoint.written_ms);
        }
    }
    for known in &checkpoint.pages {
        if let Some(site) = place(known.site) {
            ledger.load_page(site, &known.page, &known.hour, known.figures, 0);
        }
    }
    let here = checkpoint.sessions.with_sites(|site| place(site.index()).map(|index| SiteId(index as u16)));
    sessions.restore(&here, (elapsed_ms / 1000) as u32, now);
}

/// A view after the checkpoint: its visitor is online, its session goes on, its id is known.
fn observe_again(view: &Record<'_>, ledger: &mut Ledger, sites: &Sites, sessions: &Sessions, now: Moment) {
    let age_ms = now.unix_ms.saturating_sub(view.at_ms).max(0) as u64;
    if let Some(id) = view.id {
        ledger.ids.take(id);
    }
    let (Some(site), Some(visitor)) = (sites.get(view.site), view.visitor) else { return };
    let at = Moment { unix_ms: view.at_ms, uptime_ms: now.uptime_ms.saturating_sub(age_ms) };
    let visitor = Visitor { today: VisitorId(visitor), beside: view.beside.map(VisitorId) };
    sessions.observe(Some(visitor), site.id, &Page::trusted(site.id, view.page), at);
}

/// Says what the outbox has lost: batches by their numbers.
fn tell_of_outbox(outbox: &Outbox, applied: u64, lost: impl Fn(&str)) {
    for damage in outbox.damage() {
        match damage.harm {
            Harm::TornTail => tracing::info!(%damage, "an unfinished batch of the outbox is left out"),
            _ => tracing::error!(%damage, "the outbox is damaged"),
        }
    }
    for gap in outbox.gaps(applied) {
        let batches = format!("batches {} to {}", gap.start(), gap.end());
        if *gap.end() <= applied {
            lost(&format!("{batches}: the store has them, and cannot be given them again if it goes back"));
        } else {
            lost(&format!(
                "{batches}: counted only where the store had taken them, as those up to {applied}"
            ));
        }
    }
}

/// Says which segments of the journal have lost what. What lies before `reach` is in batches: of it only
/// who was online is lost.
fn tell_of_journal(damage: &[Damage], reach: Position, lost: impl Fn(u64, &str)) {
    for damage in damage {
        let Damage { at, bytes, harm } = damage;
        let end = if *harm == Harm::Missing { u64::MAX } else { at.offset + bytes };
        let is_counted = Position { offset: end, ..*at } <= reach;
        match harm {
            Harm::TornTail => tracing::info!(%damage, "an unfinished group of the journal is left out"),
            Harm::Head => tracing::error!(%damage, "the journal is damaged; no view is touched by it"),
            _ if is_counted => {
                tracing::error!(%damage, "the journal is damaged; its views were counted before")
            }
            Harm::Unreadable => {
                lost(at.segment, &format!("bytes {} to {end} are damaged: the views in them", at.offset));
            }
            Harm::Missing if at.segment == reach.segment => {
                let kept = reach.offset;
                lost(at.segment, &format!("it is missing: the views in it but for those before byte {kept}"));
            }
            Harm::Missing => lost(at.segment, "it is missing: the views in it"),
        }
    }
}

#[cfg(test)]
mod tests;
