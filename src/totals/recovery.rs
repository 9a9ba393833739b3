//! The start: reads back what the last process left, however it ended.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::{io, mem};

use tokio::sync::Notify;

use crate::calendar::Bucket;
use crate::clock::{Clock, Moment, OnceAMinute};
use crate::ingest::{Beacon, Kind, Page, Visitor, VisitorId};
use crate::metrics::Metrics;
use crate::sessions::{Sessions, Sighting};
use crate::sites::{Aliases, Registry, SiteId, SiteKey, Sites};
use crate::totals::batch::Batch;
use crate::totals::delivery::Parts;
use crate::totals::delivery::identity::Identity;
use crate::totals::delivery::outbox::Outbox;
use crate::totals::delivery::salts::Salts;
use crate::totals::disk::codec::Damaged;
use crate::totals::disk::dir::DataDir;
use crate::totals::disk::formats;
use crate::totals::disk::frame::Position;
use crate::totals::disk::log::{Damage, Harm, Segments};
use crate::totals::disk::losses::{Cause, Losses};
use crate::totals::intake::ids::{self, Ids};
use crate::totals::intake::journal::{self, Journal, Sync};
use crate::totals::intake::record::{self, Record};
use crate::totals::intake::{Full, Intake};
use crate::totals::store;
use crate::totals::tally::running::Stored;
use crate::totals::tally::{CountedView, Tally};
use crate::totals::writer::Start;
use crate::totals::writer::checkpoint::{self, Checkpoint};
use crate::totals::writer::config::Config;
use crate::totals::writer::status::{Shared, StoreStatus};

/// By so much a clock that was ahead may be set back between two processes. What is older than a checkpoint by more is
/// taken for wrong.
const CLOCK_SET_BACK_MS: i64 = 10 * 60 * 1000;

/// Refuses files of a newer version before anything is touched.
pub fn check_formats(config: &Config, dir: &DataDir) -> io::Result<()> {
    formats::check(dir.path())?;
    store::check(&config.store, dir.path()).map_err(io::Error::other)
}

/// Reads back what the last process left, for those who ask and for the writer.
pub fn read_back(
    config: Config,
    dir: DataDir,
    clock: Clock,
    sites: Arc<Registry>,
    sessions: Arc<Sessions>,
    metrics: Arc<Metrics>,
) -> io::Result<Start> {
    let dir = Arc::new(dir);
    let (identity, now) = (Identity::open(&dir)?, clock.now());
    let losses = Arc::new(Losses::open(&dir, metrics.clone())?);
    let checkpoint = read_checkpoint(&dir)?;
    clock.must_be_after(checkpoint.written.at.unix_ms.saturating_sub(CLOCK_SET_BACK_MS));
    let mut found = Recovered {
        tally: Tally::new(config.max_pages, metrics.clone()),
        ids: Ids::new(config.max_ids, now.uptime_ms),
        sessions: &sessions,
        sites: sites.load_full(),
        now,
        elapsed_ms: clock.since_ms(checkpoint.written),
        checkpoint,
        reach: Position::default(),
        views: 0,
        last_site: None,
    };
    found.ids.share_among(found.sites.iter().len());
    sessions.share_among(found.sites.iter().len());
    found.restore_checkpoint(&identity);
    // Ahead of what is counted again: that would have a day begin at 0 of which more is known than is shown.
    found.note_days();
    let outbox = found.read_outbox(&config, &dir, &identity, &losses)?;
    let after = found.reach.max(found.checkpoint.position).segment;
    let mut log = Segments::open(dir.folder.within("journal"), journal::KIND, after)?;
    found.read_journal(&mut log, &losses)?;
    // Of sites that had no place before, too.
    found.note_days();
    for (site, moved) in &found.checkpoint.moves {
        let moved = moved.iter().map(|(page, entry)| (page.clone(), entry.text.clone())).collect();
        let aliases = Aliases::new(&moved, 0);
        sites.rcu(|sites| Arc::new(sites.with_aliases(site, aliases.clone())));
    }
    let Recovered { tally, ids, checkpoint, reach: frozen_to, views, .. } = found;
    tracing::info!(views, batches = outbox.waiting(), sessions = sessions.held(), "recovered");

    let lost = |what: &str| losses.note(Cause::Salts, clock.now().unix_ms, "salts", what);
    let salts = Salts::open(&dir, identity.id_key, clock.clone(), lost)?;
    losses.save()?;
    let journal = Journal::open(log, config.journal.clone(), clock.clone(), metrics.clone())?;
    journal.share_among(sites.load().iter().len());
    let journal = (config.journal.sync != Sync::Memory).then_some(journal);
    let intake = Intake {
        journal,
        ids: Mutex::new(ids),
        clock: clock.clone(),
        sites: sites.clone(),
        metrics: metrics.clone(),
        open: Mutex::default(),
        wake: Notify::new(),
        undone: OnceAMinute::default(),
        full: Full::default(),
    };
    let shared = Arc::new(Shared {
        intake,
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
    let Checkpoint { last_parts, moves, .. } = checkpoint;
    let parts = Parts { dir, identity, outbox, last_parts, salts, sites, clock, metrics, losses };
    Ok(Start { config, shared, sessions, parts, frozen_to, moves })
}

/// A checkpoint that cannot be read is left out: what it costs is said in its module.
fn read_checkpoint(dir: &DataDir) -> io::Result<Checkpoint> {
    let Some(bytes) = dir.folder.read(checkpoint::FILE)? else { return Ok(Checkpoint::default()) };
    Checkpoint::decode(&bytes).or_else(|Damaged(what)| {
        tracing::error!(
            what,
            "the checkpoint cannot be read and is set aside: visitors are online anew, counts are complete"
        );
        dir.set_aside(checkpoint::FILE)?;
        Ok(Checkpoint::default())
    })
}

/// What is read back into memory.
struct Recovered<'a> {
    tally: Tally,
    ids: Ids,
    sessions: &'a Sessions,
    sites: Arc<Sites>,
    now: Moment,
    /// Since the checkpoint.
    elapsed_ms: u64,
    /// The last one, except what has been restored of it; its last parts are those of the outbox too.
    checkpoint: Checkpoint,
    /// Up to where the journal is in batches.
    reach: Position,
    /// Views of the journal that are in no batch.
    views: u64,
    /// The site of the view that was read last, and its place.
    last_site: Option<(SiteKey, SiteId)>,
}

impl Recovered<'_> {
    fn restore_checkpoint(&mut self, identity: &Identity) {
        // Figures of a data set in whose place another was accepted since are not those of the store.
        let Checkpoint { sites, figures, pages, moves, .. } = &mut self.checkpoint;
        let replaced = |(site, stored): &(usize, Stored)| {
            let accepted = sites.get(*site).and_then(|key| identity.last_dataset(key));
            let (read, accepted) = (stored.dataset.as_ref()?, &accepted?.1.id);
            (read != accepted).then_some(*site)
        };
        let replaced: Vec<usize> = figures.iter().filter_map(replaced).collect();
        figures.retain(|(site, _)| !replaced.contains(site));
        pages.retain(|known| !replaced.contains(&known.site));
        replaced.iter().filter_map(|site| sites.get(*site)).for_each(|key| _ = moves.remove(key));
        let Recovered { tally, checkpoint, now, .. } = self;
        self.sites.iter().for_each(|site| _ = tally.place(site, *now));
        let (written_ms, elapsed_ms) = (checkpoint.written.at.unix_ms, self.elapsed_ms);
        let places = checkpoint.places(|key| tally.site_id(key));
        let place = |site: usize| places.get(site).copied().flatten();
        let here = |(id, site): (u64, SiteId)| Some((id, place(site.index())?));
        let ids = mem::take(&mut checkpoint.ids).map(|ids| ids.into_iter().filter_map(here).collect());
        self.ids.restore(ids, elapsed_ms);
        for (site, stored) in mem::take(&mut checkpoint.figures) {
            if let Some(site) = place(site) {
                tally.learn_site(site, stored, written_ms);
            }
        }
        for known in mem::take(&mut checkpoint.pages) {
            if let Some(site) = place(known.site) {
                tally.restore_page(site, &known.page, &known.hour, known.figures);
            }
        }
        let here = mem::take(&mut checkpoint.sessions).with_sites(|site| place(site.index()));
        self.sessions.restore(&here, (elapsed_ms / 1000) as u32, *now);
    }

    /// Notes the days on which something was counted: the wall clock may have been ahead before or be behind now, and a
    /// site may have moved to another zone.
    fn note_days(&mut self) {
        for hash in self.checkpoint.last_parts.keys() {
            if let Bucket::Day(day) = hash.bucket {
                self.tally.note_day(&hash.site, day);
            }
        }
    }

    fn read_outbox(
        &mut self,
        config: &Config,
        dir: &DataDir,
        identity: &Identity,
        losses: &Losses,
    ) -> io::Result<Outbox> {
        // What lies below the floor is not this identity's to apply.
        let (applied, kind) = (self.checkpoint.applied.max(identity.floor), config.store.url.kind());
        let (mut newest, held) = (0, mem::take(&mut self.checkpoint.held));
        let mut waiting = Vec::new();
        let folder = dir.folder.within("outbox");
        let mut outbox = Outbox::open(folder, config.outbox.clone(), |batch: Batch| {
            (self.reach, newest) = (self.reach.max(batch.reach), batch.sequence.max(newest));
            let applied_to = |site: &SiteKey| held.get(site).copied().unwrap_or(applied);
            let floor = |site: &SiteKey| identity.floor_of(kind, site).max(applied_to(site));
            let unapplied = batch.above(floor);
            for sums in batch.sums.iter().filter(|sums| batch.sequence <= floor(&sums.site)) {
                self.tally.note_day(&sums.site, sums.hour.day);
            }
            if !unapplied.sums.is_empty() {
                self.tally.restore_unapplied(&unapplied, self.now);
            }
            batch.advance(&mut self.checkpoint.last_parts);
            if batch.sequence > applied {
                waiting.push((batch.sequence, batch.weights()));
            }
        })?;
        tell_of_outbox(&outbox, applied, |what| {
            losses.note(Cause::Outbox, self.now.unix_ms, "outbox", what);
        });
        losses.save()?;
        if newest < self.checkpoint.applied {
            // Its newest batches are gone and were applied: their views must not be counted from the
            // journal. The checkpoint knows of the journal what no batch tells any more.
            self.reach = self.reach.max(self.checkpoint.position);
        }
        outbox.resume(applied, held);
        waiting.into_iter().for_each(|(sequence, weights)| outbox.weigh(sequence, weights));
        Ok(outbox)
    }

    fn read_journal(&mut self, log: &mut Segments, losses: &Losses) -> io::Result<()> {
        let (reach, position) = (self.reach, self.checkpoint.position);
        let from = reach.min(position);
        log.forget_before(from).delete()?;
        let damage = log.replay(from, |group, at, _| {
            let (uncounted, unseen) = (at >= reach, at >= position);
            let each = |record: Record<'_>| self.take_again(&record, uncounted, unseen);
            record::decode(group, each).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        })?;
        tell_of_journal(&damage, reach, |segment, what| {
            let place = format!("journal/{segment:016x}.seg");
            losses.note(Cause::Journal, self.now.unix_ms, &place, what);
        });
        losses.save()?;
        (self.tally.folded, self.tally.written) = (log.end(), log.end());
        if self.views == 0 {
            // Nothing of the old segments is needed any more.
            self.reach = log.end();
        }
        Ok(())
    }

    /// A beacon of the journal. Uncounted: it is in no batch. Unseen: of after the checkpoint, so that its visitor is
    /// online, its session goes on, its id is known.
    fn take_again(&mut self, record: &Record<'_>, uncounted: bool, unseen: bool) {
        let uncounted = uncounted && record.kind == Kind::View;
        self.views += u64::from(uncounted);
        let Some(site) = self.site_of(record.site, uncounted) else { return };
        let age_ms = self.age_ms(record.at_ms);
        if unseen
            && age_ms < ids::REMEMBER_MS
            && let Some(id) = record.id
        {
            self.ids.take_again(id, site);
        }
        let at = Moment { unix_ms: record.at_ms, uptime_ms: self.now.uptime_ms.saturating_sub(age_ms) };
        let view = beacon_of(record, site, at);
        if unseen && self.sites.at(site).is_some() {
            self.sessions.observe_again(&view, record.sighting, self.now);
        }
        if uncounted {
            let visit = record.sighting == Sighting::Visit;
            self.tally.count_run(&[CountedView { view, visit }], true);
        }
    }

    /// How long ago a view of after the checkpoint was taken. The wall clock may have been another one then, or be
    /// another one now: what it says is believed as far as it agrees with the time since the checkpoint.
    fn age_ms(&self, at_ms: i64) -> u64 {
        let elapsed_ms = i64::try_from(self.elapsed_ms).unwrap_or(i64::MAX);
        let now_by_checkpoint = self.checkpoint.written.at.unix_ms.saturating_add(elapsed_ms);
        let ages = [self.now.unix_ms, now_by_checkpoint].map(|now_ms| now_ms.saturating_sub(at_ms));
        let agrees = ages.into_iter().find(|age_ms| (0..=elapsed_ms).contains(age_ms));
        agrees.unwrap_or(ages[0].clamp(0, elapsed_ms)) as u64
    }

    /// The place of a site, which one that is not registered is given only for the views to be counted.
    fn site_of(&mut self, key: &str, uncounted: bool) -> Option<SiteId> {
        // Views of one site follow each other nearly always.
        if let Some((_, place)) = self.last_site.as_ref().filter(|(last, _)| last.as_str() == key) {
            return Some(*place);
        }
        let key = SiteKey::new(key)?;
        let known = self.tally.site_id(&key);
        let place = known.or_else(|| uncounted.then(|| self.tally.place_of(&key, self.now)))?;
        self.last_site = Some((key, place));
        Some(place)
    }
}

/// A beacon of the journal as it was taken.
fn beacon_of(record: &Record<'_>, site: SiteId, at: Moment) -> Beacon {
    let beside = record.beside.map(VisitorId);
    Beacon {
        kind: record.kind,
        site,
        page: Page::trusted(site, record.page),
        visitor: record.visitor.map(|today| Visitor { today: VisitorId(today), beside }),
        id: record.id,
        at,
        hour: record.hour,
        is_shadow: false,
    }
}

/// Says what the outbox has lost: batches by their numbers.
fn tell_of_outbox(outbox: &Outbox, applied: u64, lost: impl Fn(&str)) {
    for damage in outbox.damage() {
        match damage.harm {
            Harm::TornTail => tracing::info!(%damage, "an unfinished batch of the outbox is left out"),
            _ => tracing::error!(%damage, "the outbox is damaged"),
        }
    }
    for (site, damage) in outbox.aside_damage().filter(|(_, damage)| damage.harm != Harm::TornTail) {
        lost(&format!("what waited of site {site}, {damage}"));
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
