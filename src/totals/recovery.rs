//! The start: reads back what the last process left, however it ended.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use crate::clock::{Clock, Moment};
use crate::ingest::{Beacon, Kind, Page, Visitor, VisitorId};
use crate::metrics::Metrics;
use crate::sessions::Sessions;
use crate::sites::{Registry, SiteId, SiteKey, Sites};
use crate::totals::batch::Batch;
use crate::totals::batch::part::LastParts;
use crate::totals::delivery::Parts;
use crate::totals::delivery::identity::Identity;
use crate::totals::delivery::outbox::Outbox;
use crate::totals::delivery::salts::Salts;
use crate::totals::disk::codec::Damaged;
use crate::totals::disk::dir::DataDir;
use crate::totals::disk::formats;
use crate::totals::disk::frame::Position;
use crate::totals::disk::log::{Damage, Harm};
use crate::totals::disk::losses::{Cause, Losses};
use crate::totals::intake::Intake;
use crate::totals::intake::ids::Ids;
use crate::totals::intake::journal::{Journal, Sync};
use crate::totals::intake::record::{self, Record};
use crate::totals::store;
use crate::totals::tally::{CountedView, Tally};
use crate::totals::writer::checkpoint::{self, Checkpoint};
use crate::totals::writer::config::Config;
use crate::totals::writer::mailbox::Mailbox;
use crate::totals::writer::status::{Shared, StoreStatus};
use crate::totals::writer::{self, OpenError, Start};

/// Reads back what the last process left, and starts the writer.
pub async fn open(
    config: Config,
    clock: Clock,
    sites: Arc<Registry>,
    sessions: Arc<Sessions>,
    metrics: Arc<Metrics>,
) -> Result<(Arc<Shared>, Mailbox), OpenError> {
    let path = config.data_dir.display().to_string();
    let files = |error| OpenError::Files(path.clone(), error);
    let dir = DataDir::open(&config.data_dir).map_err(files)?;
    check_formats(&config, &dir).map_err(files)?;
    let start = read_back(config, dir, clock, sites, sessions, metrics).map_err(files)?;
    let shared = start.shared.clone();
    Ok((shared, writer::spawn(start).await?))
}

/// Reads back what the last process left, for those who ask and for the writer.
fn read_back(
    config: Config,
    dir: DataDir,
    clock: Clock,
    sites: Arc<Registry>,
    sessions: Arc<Sessions>,
    metrics: Arc<Metrics>,
) -> io::Result<Start> {
    let found = Recovered::read(&config, dir, &clock, &sites.load(), &sessions, &metrics)?;
    let Recovered { dir, identity, outbox, last_parts, tally, ids, journal, reach, losses } = found;
    let (dir, losses) = (Arc::new(dir), Arc::new(losses));
    let lost = |what: &str| losses.record(Cause::Salts, clock.now().unix_ms, "salts", what);
    let salts = Salts::open(&dir, identity.id_key, lost)?;
    let shared = Arc::new(Shared {
        intake: Intake::new(journal, ids, clock.clone(), sites.clone(), metrics.clone()),
        clock: clock.clone(),
        sites: sites.clone(),
        metrics: metrics.clone(),
        tally: Mutex::new(tally),
        salts: salts.table(),
        losses: losses.clone(),
        day_turned: AtomicBool::new(false),
        serves: AtomicBool::new(false),
        store: StoreStatus::default(),
    });
    let parts = Parts { dir, identity, outbox, last_parts, salts, sites, clock, metrics, losses };
    Ok(Start { config, shared, sessions, parts, frozen_to: reach })
}

/// Refuses files of a newer version before anything is touched.
fn check_formats(config: &Config, dir: &DataDir) -> io::Result<()> {
    formats::check(dir.path())?;
    store::check(&config.store, dir.path()).map_err(io::Error::other)
}

/// What the last process left.
struct Recovered {
    dir: DataDir,
    identity: Identity,
    outbox: Outbox,
    last_parts: LastParts,
    tally: Tally,
    ids: Ids,
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
        let mut tally = Tally::new(config.max_pages, metrics.clone());
        let mut ids = Ids::new(config.max_ids, now.uptime_ms);
        for site in sites.iter() {
            tally.place(site, now);
        }
        let checkpoint = read_checkpoint(&dir)?;
        restore_checkpoint(&checkpoint, &mut tally, &mut ids, sessions, now);

        let mut last_parts = checkpoint.last_parts;
        // What lies below the floor is not this identity's to apply.
        let (applied, kind) = (checkpoint.applied.max(identity.floor), config.store.url.kind());
        let mut reach = Position::default();
        let mut newest = 0;
        let folder = dir.folder().within("outbox")?;
        let mut outbox = Outbox::open(folder, config.outbox.clone(), |batch: Batch| {
            (reach, newest) = (batch.reach, batch.sequence);
            if batch.sequence > applied {
                tally.restore_unapplied(&batch.above(|site| identity.floor_of(kind, site)), now);
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
                    count_again(&view, &mut tally, now);
                    views += 1;
                }
                if at >= checkpoint.position {
                    observe_again(&view, &mut ids, sites, sessions, now);
                }
            };
            record::decode(group, each).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        })?;
        tell_of_journal(&damage, reach, |segment, what| {
            losses.record(Cause::Journal, now.unix_ms, &format!("journal/{segment:016x}.seg"), what);
        });
        tracing::info!(views, batches = outbox.waiting(), sessions = sessions.len(), "recovered");
        tally.folded = journal.end();
        if views == 0 {
            // Nothing of the old segments is needed any more.
            reach = journal.end();
        }
        let journal = (config.journal.sync != Sync::Memory).then_some(journal);
        Ok(Recovered { dir, identity, outbox, last_parts, tally, ids, journal, reach, losses })
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

fn restore_checkpoint(
    checkpoint: &Checkpoint,
    tally: &mut Tally,
    ids: &mut Ids,
    sessions: &Sessions,
    now: Moment,
) {
    let elapsed_ms = now.unix_ms.saturating_sub(checkpoint.written_ms).max(0) as u64;
    ids.restore(checkpoint.ids.clone(), elapsed_ms);
    let places = checkpoint.places(|key| tally.site_id(key));
    let place = |site: usize| places.get(site).copied().flatten();
    for (site, stored) in &checkpoint.figures {
        if let Some(site) = place(*site) {
            tally.learn_site(site, stored.clone(), checkpoint.written_ms);
        }
    }
    for known in &checkpoint.pages {
        if let Some(site) = place(known.site) {
            tally.learn_page(site, &known.page, &known.hour, known.figures, 0);
        }
    }
    let here = checkpoint.sessions.with_sites(|site| place(site.index()));
    sessions.restore(&here, (elapsed_ms / 1000) as u32, now);
}

/// A view of the journal as it was taken.
fn view_of(record: &Record<'_>, site: SiteId, now: Moment) -> Beacon {
    let age_ms = now.unix_ms.saturating_sub(record.at_ms).max(0) as u64;
    let beside = record.beside.map(VisitorId);
    Beacon {
        kind: Kind::View,
        site,
        page: Page::trusted(site, record.page),
        visitor: record.visitor.map(|today| Visitor { today: VisitorId(today), beside }),
        id: record.id,
        at: Moment { unix_ms: record.at_ms, uptime_ms: now.uptime_ms.saturating_sub(age_ms) },
        hour: record.hour,
    }
}

/// A view that is in no batch.
fn count_again(record: &Record<'_>, tally: &mut Tally, now: Moment) {
    let Some(key) = SiteKey::new(record.site) else { return };
    let view = view_of(record, tally.place_of(&key, now), now);
    tally.count_again(&CountedView { view, visit: record.visit });
}

/// A view after the checkpoint: its visitor is online, its session goes on, its id is known.
fn observe_again(record: &Record<'_>, ids: &mut Ids, sites: &Sites, sessions: &Sessions, now: Moment) {
    if let Some(id) = record.id {
        ids.take(id);
    }
    let Some(site) = sites.get(record.site) else { return };
    let view = view_of(record, site.id, now);
    sessions.observe(view.visitor, view.site, &view.page, view.at);
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
