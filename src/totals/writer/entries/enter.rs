//! The orders about entries.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use chrono::NaiveDate;

use super::names::{Name, Reading, known};
use super::record::{self, Audit, Record};
use super::weigh::{Names, Weighed, by_name};
use crate::sites::{Site, SiteKey};
use crate::totals::batch::Frozen;
use crate::totals::batch::entry::Entered;
use crate::totals::batch::part::{HashKind, Stamp};
use crate::totals::delivery::Reason;
use crate::totals::store::contract::Store;
use crate::totals::writer::rows::{Entering, EntryReason, MAX_ROWS};
use crate::totals::writer::turn::Writer;

/// How far back rows may speak of: all days since then are read for each of them.
const AS_OF_DAYS: i64 = 400;

/// The most values, and the most faults, that are told one by one.
pub const MOST_TOLD: usize = 200;

impl<S: Store> Writer<S> {
    /// Enters what rows say, all of it or, where anything is wrong with them, nothing.
    pub async fn enter(&mut self, entering: Entering) -> Result<String, Reason> {
        let rows = &entering.rows.0;
        if rows.len() > MAX_ROWS {
            return Err(format!("{} rows; give at most {MAX_ROWS} at a time", rows.len()).into());
        }
        let day = |day: &String| day.parse().map_err(|_| format!("--as-of {day:?} is no day"));
        let as_of = entering.as_of.as_ref().map(day).transpose()?;
        let sites = self.delivery.sites.clone();
        let now_ms = self.shared.clock.now().unix_ms;
        let reading = Reading { sites: &sites, now_ms, as_of, rolls_up: entering.rolls_up };
        let (mut names, mut faults) = by_name(rows, entering.adds, |row| {
            let (site, name) = reading.name(row)?;
            // A day of logs is entered once, and its pages count in the longer buckets.
            let fault = self.not_pruned(&site, &name, as_of).filter(|_| entering.day.is_none());
            fault.map_or(Ok(name), Err)
        });
        let of_sites: BTreeSet<SiteKey> = names.keys().map(|name| name.hash.site.clone()).collect();
        let is_known =
            |site: &SiteKey, day: NaiveDate| (0..=AS_OF_DAYS).contains(&(self.today(site) - day).num_days());
        if let Some(site) = of_sites.iter().find(|site| as_of.is_some_and(|day| !is_known(site, day))) {
            let fault = "lies in the future, or more than 400 days back";
            return Err(format!("--as-of {fault}, of site {site}").into());
        }
        if !faults.is_empty() {
            return Err(listed(&mut faults).into());
        }
        let audits = self.look_at(of_sites).await?;
        self.add_longer(&mut names);
        let rises = entering.adds && entering.rolls_up;
        self.weigh(&mut names, as_of.filter(|_| !entering.adds), rises).await?;
        if let Some(day) = entering.day
            && let Some(why) = self.covered(&names, day, &of_days(&audits)).await?
        {
            return Ok(format!("left out: {why}"));
        }
        let order = order_of(&entering);
        let is_same = |record: &Record| {
            !record.reason.digest.is_empty()
                && record.reason.digest == entering.reason.digest
                && record.order == order
        };
        let same = stamps(&audits, is_same);
        let mut faults = self.decide(&mut names, &entering, &same);
        if !faults.is_empty() {
            return Err(listed(&mut faults).into());
        }
        if entering.day.is_some() && entering.dry_run {
            return Ok("would be entered: nothing is counted of it".to_owned());
        }
        names.retain(|_, weighed| weighed.row.is_some() || weighed.becomes != weighed.entered);
        if let (true, Some(stamp)) = (names.is_empty(), same.last()) {
            let number = stamp.number;
            return Ok(format!(
                "nothing changes: the same was entered as {number}; to enter it anew, undo that first"
            ));
        }
        self.commit(names, audits, (&order, entering.day), entering.reason, entering.dry_run).await
    }

    /// Enters what was there before an entry, where what it entered is there still.
    pub async fn undo(
        &mut self,
        site: Option<&str>,
        number: u64,
        reason: EntryReason,
        dry_run: bool,
    ) -> Result<String, Reason> {
        let [site] =
            self.named(site)?.try_into().map_err(|_| "several sites have entries: name one with --site")?;
        let audits = self.look_at([site.clone()].into()).await?;
        let (stamp, Record { day, .. }) = one(&audits, &site, number)?;
        let changes = record::changes(&self.delivery.store.dump().await?, &site, stamp, *day).await?;
        if changes.is_empty() {
            return Err(format!(
                "{number} entered no values: pages are moved back with `footfall pages move --undo`"
            )
            .into());
        }
        let of = |name: &Name| (name.clone(), Weighed::default());
        let mut names: Names = changes.keys().map(of).collect();
        if day.is_some() {
            self.add_longer(&mut names);
        }
        let pruned = self.delivery.pruned.get(&site).copied();
        // What was entered of these is gone, and stays so.
        names.retain(|name, _| !name.hash.is_pruned(pruned.as_ref()));
        self.weigh(&mut names, None, false).await?;
        let mut risen = Vec::new();
        for (name, (before, after)) in changes {
            if let Some(weighed) = names.get_mut(&name) {
                if weighed.entered != after {
                    let (name, later) = (name.told(), weighed.stamp.as_ref().map_or(0, |stamp| stamp.number));
                    return Err(format!("{name} was entered anew as {later}: undo that first").into());
                }
                weighed.becomes = before;
            }
            risen.push((name, 0, before - after));
        }
        let day = *day;
        if day.is_some() {
            if let Some(why) = self.opening(&names, &of_days(&audits)).await? {
                return Err(why.into());
            }
            self.roll_up(&mut names, &risen, false);
        }
        self.commit(names, audits, (&format!("undo {number}"), day), reason, dry_run).await
    }

    /// Lists the entries of sites, or what one of them changed.
    pub async fn entries(&mut self, site: Option<&str>, number: Option<u64>) -> Result<String, Reason> {
        let audits = self.look_at(self.named(site)?.into_iter().collect()).await?;
        let mut said = String::new();
        for (site, audit) in &audits {
            for (stamp, record) in audit.iter().filter(|(stamp, _)| number.is_none_or(|n| n == stamp.number))
            {
                let Record { at, order, reason, values, .. } = record;
                let EntryReason { who, source, digest, why } = reason;
                let number = stamp.number;
                let why = if why.is_empty() { String::new() } else { format!(": {why}") };
                let what: Vec<&str> = [order, source, digest]
                    .into_iter()
                    .map(|text| text.as_str())
                    .filter(|t| !t.is_empty())
                    .collect();
                writeln!(said, "{site} {number}  {at}  {who}  {}  {values} values{why}", what.join(" "))?;
            }
            let Some(number) = number else { continue };
            let (stamp, record) = one(&audits, site, number)?;
            let changes =
                record::changes(&self.delivery.store.dump().await?, site, stamp, record.day).await?;
            for (name, (before, after)) in changes {
                writeln!(said, "  {} {before} became {after}", name.told())?;
            }
        }
        Ok(if said.is_empty() { "nothing was entered".to_owned() } else { said })
    }

    /// What is wrong with a row that speaks of views of pages by day which are not kept.
    fn not_pruned(&self, site: &Site, name: &Name, as_of: Option<NaiveDate>) -> Option<String> {
        let since = self.delivery.pages_since(site, self.config.page_days);
        let days = name.hash.prunes_with().and(name.hash.bucket.days());
        let is_old = |day: NaiveDate| name.hash.kind == HashKind::Pages && day < since;
        let remedy = match (days, as_of) {
            (Some((first, _)), _) if is_old(first) => "give the page's month",
            (_, Some(day)) if is_old(day) => "give a later --as-of",
            _ => return None,
        };
        Some(format!("views of pages are kept by day from {since} on (totals.page_days): {remedy}"))
    }

    /// The sites of an order: one by its key, or all.
    pub(super) fn named(&self, site: Option<&str>) -> Result<Vec<SiteKey>, String> {
        match site {
            Some(key) => Ok(vec![known(&self.delivery.sites, key)?.key.clone()]),
            None => Ok(self.delivery.sites.iter().map(|site| site.key.clone()).collect()),
        }
    }

    /// Brings to the store all that was counted until now, and reads what was entered before.
    pub(super) async fn look_at(
        &mut self,
        sites: BTreeSet<SiteKey>,
    ) -> Result<BTreeMap<SiteKey, Audit>, Reason> {
        self.bring_everything().await?;
        let dump = self.delivery.store.dump().await?;
        let mut audits = BTreeMap::new();
        for site in sites {
            if self.delivery.is_held(&site) {
                let why = self.delivery.why_held().unwrap_or_default();
                return Err(format!("what is brought to site {site} waits: {why}").into());
            }
            audits.insert(site.clone(), record::read(&dump, &site).await?);
        }
        Ok(audits)
    }

    /// Has names become what they are to.
    async fn commit(
        &mut self,
        names: Names,
        audits: BTreeMap<SiteKey, Audit>,
        (order, day): (&str, Option<NaiveDate>),
        reason: EntryReason,
        dry_run: bool,
    ) -> Result<String, Reason> {
        let (mut said, mut entries) = (String::new(), Vec::new());
        for (site, audit) in audits {
            let of_site = names.iter().filter(|(name, _)| name.hash.site == site);
            let names: Names = of_site.map(|(name, weighed)| (name.clone(), weighed.clone())).collect();
            if dry_run {
                said += &told(&names);
            }
            if dry_run || names.is_empty() {
                continue;
            }
            let stamps = names.values().flat_map(|weighed| &weighed.stamp).chain(audit.keys());
            let values = names.len();
            let (stamp, record) = self.record(&site, stamps, (order, day), reason.clone(), values).await?;
            entries.extend(record::entered(&site, &stamp, &record, &names));
            writeln!(said, "{site}: {values} values are entered, as {}", stamp.number)?;
        }
        if dry_run {
            return Ok(said + "nothing is entered: this is a dry run");
        }
        if entries.is_empty() { Ok("nothing changes".to_owned()) } else { self.put(entries, said).await }
    }

    /// The stamp and the record of an entry that is later than others.
    pub(super) async fn record(
        &self,
        site: &SiteKey,
        others: impl Iterator<Item = &Stamp>,
        (order, day): (&str, Option<NaiveDate>),
        reason: EntryReason,
        values: usize,
    ) -> Result<(Stamp, Record), Reason> {
        let after = others.map(|stamp| stamp.number).max().unwrap_or_default();
        let number = self.delivery.store.next_entry(site, after).await?;
        let now_ms = self.shared.clock.now().unix_ms;
        let at = self.delivery.sites.known(site).map(|site| site.calendar.rfc3339(now_ms));
        let stamp = Stamp { number, writer: self.delivery.identity.writer.0.clone() };
        Ok((stamp, Record { at: at.unwrap_or_default(), order: order.to_owned(), reason, values, day }))
    }

    /// Puts into the outbox what is entered, and brings it to the store.
    pub(super) async fn put(&mut self, entries: Vec<Entered>, said: String) -> Result<String, Reason> {
        let now_ms = self.shared.clock.now().unix_ms;
        let frozen = Frozen { entries, reach: self.frozen_to, oldest_ms: now_ms, ..Frozen::default() };
        if self.delivery.outbox.is_full() || self.delivery.add(frozen).is_err() {
            return Err("the outbox is full or cannot be written: nothing is entered".into());
        }
        let said = self.go_on(Ok(said.trim_end().to_owned()), false).await;
        // What is shown now is shown after a restart too, though the store be away then.
        self.checkpoint().await;
        said
    }
}

/// The stamps of some entries.
fn stamps(audits: &BTreeMap<SiteKey, Audit>, is: impl Fn(&Record) -> bool) -> BTreeSet<Stamp> {
    audits.values().flatten().filter(|(_, record)| is(record)).map(|(stamp, _)| stamp.clone()).collect()
}

/// Those of days that were entered as a whole.
fn of_days(audits: &BTreeMap<SiteKey, Audit>) -> BTreeSet<Stamp> {
    stamps(audits, |record| record.day.is_some())
}

/// The entry of a number.
fn one<'a>(
    audits: &'a BTreeMap<SiteKey, Audit>,
    site: &SiteKey,
    number: u64,
) -> Result<(&'a Stamp, &'a Record), String> {
    let audit = audits.get(site).into_iter().flatten();
    audit
        .rev()
        .find(|(stamp, _)| stamp.number == number)
        .ok_or_else(|| format!("site {site} has no entry {number}"))
}

/// How an entry was ordered: the same rows ordered otherwise are another entry.
fn order_of(entering: &Entering) -> String {
    if let Some(day) = entering.day {
        return format!("backfill {day}");
    }
    if entering.reason.source.is_empty() {
        return "adjust".to_owned();
    }
    let as_of = entering.as_of.as_ref().map(|day| format!(" --as-of {day}")).unwrap_or_default();
    let adds = if entering.adds { " --add" } else { "" };
    format!("import{as_of}{adds}{}", if entering.rolls_up { " --roll-up" } else { "" })
}

fn told(names: &Names) -> String {
    let line = |(name, weighed): (&Name, &Weighed)| {
        let Weighed { row, counted, entered, becomes, .. } = weighed;
        let is_counted = row.is_some() || *counted > 0;
        let shown = if is_counted { format!(", shows {}", counted + becomes) } else { String::new() };
        format!("{}: {becomes} is entered, {entered} was{shown}\n", name.told())
    };
    let more = names.len().saturating_sub(MOST_TOLD);
    let lines: String = names.iter().take(MOST_TOLD).map(line).collect();
    if more > 0 { format!("{lines}and {more} more\n") } else { lines }
}

/// Faults in order of their lines.
pub fn listed(faults: &mut [(usize, String)]) -> String {
    faults.sort();
    let line = |(line, fault): &(usize, String)| match line {
        0 => format!("{fault}\n"),
        line => format!("line {line}: {fault}\n"),
    };
    let more = faults.len().saturating_sub(MOST_TOLD);
    let lines: String = faults.iter().take(MOST_TOLD).map(line).collect();
    let more = if more > 0 { format!("and {more} more faults\n") } else { String::new() };
    format!("{lines}{more}nothing is entered")
}
