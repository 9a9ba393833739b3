//! The orders about entries.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use chrono::NaiveDate;

use super::names::Name;
use super::record::{self, Audit, Record};
use super::weigh::{Names, Read, Weighed};
use crate::sites::SiteKey;
use crate::totals::batch::Frozen;
use crate::totals::batch::entry::Entered;
use crate::totals::batch::part::Stamp;
use crate::totals::delivery::Reason;
use crate::totals::store::contract::Store;
use crate::totals::writer::rows::{Entering, Intent, MAX_ROWS};
use crate::totals::writer::turn::Writer;

/// How far back rows may speak of: all days since then are read for each of them.
const AS_OF_DAYS: i64 = 400;

/// The most values, and the most faults, that are told one by one.
pub const MOST_TOLD: usize = 200;

/// Another instance was answered a number just now: what it enters is to be seen first.
#[derive(Debug, thiserror::Error)]
#[error("another instance is entering something")]
pub struct Meanwhile;

impl<S: Store> Writer<S> {
    /// Enters what rows say, all of it or, where anything is wrong with them, nothing.
    pub async fn enter(&mut self, entering: &Entering) -> Result<String, Reason> {
        let rows = &entering.rows.0;
        if rows.len() > MAX_ROWS {
            return Err(format!("{} rows; give at most {MAX_ROWS} at a time", rows.len()).into());
        }
        let Read { mut names, mut faults, not_kept } = self.by_name(entering);
        let of_sites: BTreeSet<SiteKey> = names.keys().map(|name| name.hash.site.clone()).collect();
        let ago = |site: &SiteKey, day: NaiveDate| (self.today(site) - day).num_days();
        if let Some(day) = entering.as_of
            && let Some(site) = of_sites.iter().find(|site| !(0..=AS_OF_DAYS).contains(&ago(site, day)))
        {
            let fault = "lies in the future, or more than 400 days back";
            return Err(format!("--as-of {fault}, of site {site}").into());
        }
        if !faults.is_empty() {
            return Err(listed(&mut faults).into());
        }
        let audits = self.look_at(of_sites).await?;
        let order = order_of(entering);
        let is_same = |record: &Record| {
            !record.intent.digest.is_empty()
                && record.intent.digest == entering.intent.digest
                && record.order == order
        };
        let same = stamps(&audits, is_same);
        // What was added does not show in what is entered last.
        if (entering.adds || entering.rolls_up)
            && entering.day.is_none()
            && let Some(stamp) = same.last()
        {
            return Ok(nothing_changes(stamp));
        }
        self.add_longer(&mut names);
        let rises = entering.adds && entering.rolls_up;
        self.weigh(&mut names, entering.as_of.filter(|_| !entering.adds), rises).await?;
        if let Some(day) = entering.day
            && let Some(why) = self.covered(&names, day, &of_days(&audits)).await?
        {
            return Ok(format!("left out: {why}"));
        }
        let mut faults = self.decide(&mut names, entering, &same);
        faults.extend(self.not_nested(&names).await?);
        if !faults.is_empty() {
            return Err(listed(&mut faults).into());
        }
        if entering.day.is_some() && entering.intent.dry_run {
            return Ok("would be entered: nothing is counted of it".to_owned());
        }
        names.retain(|_, weighed| weighed.row.is_some() || weighed.becomes != weighed.entered);
        if let (true, Some(stamp)) = (names.is_empty(), same.last()) {
            return Ok(nothing_changes(stamp));
        }
        let intent = entering.intent.clone();
        let record = Record { order, intent, day: entering.day, ..Record::default() };
        let said = self.commit(names, audits, record).await?;
        Ok(match not_kept {
            0 => said,
            rows => format!(
                "left out: {rows} rows of pages by day or week before totals.page_days; give their months\n{said}"
            ),
        })
    }

    /// Enters what was there before an entry, where what it entered is there still.
    pub async fn undo(&mut self, site: Option<&str>, number: u64, intent: Intent) -> Result<String, Reason> {
        let audits = self.look_at(self.named(site)?.into_iter().collect()).await?;
        let mut have = audits.iter().filter(|(site, _)| one(&audits, site, number).is_ok());
        let site = match (have.next(), have.next()) {
            (Some((site, _)), None) => site.clone(),
            (None, _) => return Err(no_entry(number).into()),
            _ => return Err(format!("several sites have an entry {number}: name one with --site").into()),
        };
        let audits = BTreeMap::from_iter(audits.into_iter().filter(|(of, _)| *of == site));
        let (stamp, Record { day, .. }) = one(&audits, &site, number)?;
        let changes = record::changes(&self.delivery.store.dump().await?, &site, stamp, *day).await?;
        if changes.is_empty() {
            let why = "pages are moved back with `footfall pages move --undo`, and an erased site is gone";
            return Err(format!("{number} entered no values: {why}").into());
        }
        let of = |name: &Name| (name.clone(), Weighed::default());
        let mut names: Names = changes.keys().map(of).collect();
        self.add_longer(&mut names);
        self.weigh(&mut names, None, false).await?;
        let since = self.pages_since(&site);
        let mut risen = Vec::new();
        for (name, (before, after)) in changes {
            if let Some(weighed) = names.get_mut(&name) {
                // What was entered of these is gone, and stays so.
                if name.hash.is_pruned(Some(&since)) {
                    weighed.entered = after;
                }
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
            self.roll_up(&mut names, &risen);
        }
        let mut faults = self.not_nested(&names).await?;
        if !faults.is_empty() {
            return Err(listed(&mut faults).into());
        }
        names.retain(|_, weighed| weighed.becomes != weighed.entered);
        let record = Record { order: format!("undo {number}"), intent, day, ..Record::default() };
        self.commit(names, audits, record).await
    }

    /// Lists the entries of sites, or what one of them changed.
    pub async fn entries(&mut self, site: Option<&str>, number: Option<u64>) -> Result<String, Reason> {
        let audits = self.look_at(self.named(site)?.into_iter().collect()).await?;
        let mut said = String::new();
        for (site, audit) in &audits {
            for (stamp, record) in audit.iter().filter(|(stamp, _)| number.is_none_or(|n| n == stamp.number))
            {
                let Record { at, order, values, intent: Intent { who, source, digest, why, .. }, .. } =
                    record;
                let number = stamp.number;
                let why = if why.is_empty() { String::new() } else { format!(": {why}") };
                let mut what = [order, source, digest].map(String::as_str).to_vec();
                what.retain(|text| !text.is_empty());
                writeln!(said, "{site} {number}  {at}  {who}  {}  {values} values{why}", what.join(" "))?;
            }
            let Some((stamp, record)) = number.and_then(|number| one(&audits, site, number).ok()) else {
                continue;
            };
            let changes =
                record::changes(&self.delivery.store.dump().await?, site, stamp, record.day).await?;
            for (name, (before, after)) in changes {
                writeln!(said, "  {} {before} became {after}", name.told())?;
            }
        }
        match number {
            Some(number) if said.is_empty() => Err(no_entry(number).into()),
            _ if said.is_empty() => Ok("nothing was entered".to_owned()),
            _ => Ok(said),
        }
    }

    /// The sites of an order: one by its key, or all.
    pub(super) fn named(&self, site: Option<&str>) -> Result<Vec<SiteKey>, String> {
        match site {
            Some(key) => Ok(vec![self.delivery.sites.configured(key)?.key.clone()]),
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
        mut names: Names,
        audits: BTreeMap<SiteKey, Audit>,
        record: Record,
    ) -> Result<String, Reason> {
        let dry_run = record.intent.dry_run;
        let (mut said, mut entries) = (String::new(), Vec::new());
        for (site, audit) in audits {
            let names: Names = names.extract_if(.., |name, _| name.hash.site == site).collect();
            if dry_run {
                said += &told(&names);
            }
            if dry_run || names.is_empty() {
                continue;
            }
            let stamps = names.values().flat_map(|weighed| &weighed.stamp).chain(audit.keys());
            let record = Record { values: names.len(), ..record.clone() };
            let (stamp, record) = self.number(&site, stamps, record).await?;
            let since = self.pages_since(&site);
            entries.extend(record::entered(&site, &stamp, &record, &names, since));
            writeln!(said, "{site}: {} values are entered, as {}", record.values, stamp.number)?;
        }
        if dry_run {
            return Ok(said + "nothing is entered: this is a dry run");
        }
        if entries.is_empty() { Ok("nothing changes".to_owned()) } else { self.put(entries, said).await }
    }

    /// An entry's stamp, later than others, and its record with the time.
    pub(super) async fn number(
        &self,
        site: &SiteKey,
        others: impl Iterator<Item = &Stamp>,
        record: Record,
    ) -> Result<(Stamp, Record), Reason> {
        let after = others.map(|stamp| stamp.number).max().unwrap_or_default();
        let number = self.delivery.store.next_entry(site, after).await?.ok_or(Meanwhile)?;
        let now_ms = self.shared.clock.now().unix_ms;
        let at = self.delivery.sites.known(site).map(|site| site.calendar.rfc3339(now_ms));
        let stamp = Stamp { number, writer: self.delivery.identity.writer.0.clone() };
        let mut intent = record.intent;
        for text in [&mut intent.who, &mut intent.source, &mut intent.why] {
            // They are shown on terminals.
            *text = text.replace(char::is_control, " ");
        }
        Ok((stamp, Record { at: at.unwrap_or_default(), intent, ..record }))
    }

    /// The first day of which pages of a site are kept by day.
    fn pages_since(&self, site: &SiteKey) -> NaiveDate {
        let site = self.delivery.sites.known(site);
        site.map_or(NaiveDate::MIN, |site| self.delivery.pages_since(site, self.config.page_days))
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

/// The stamps of some entries that stand: they were not undone, or that was undone itself.
fn stamps(audits: &BTreeMap<SiteKey, Audit>, is: impl Fn(&Record) -> bool) -> BTreeSet<Stamp> {
    let mut stamps = BTreeSet::new();
    for audit in audits.values() {
        let mut undone = BTreeSet::new();
        for (stamp, record) in audit.iter().rev() {
            if undone.contains(&stamp.number) {
                continue;
            }
            undone.extend(record.order.strip_prefix("undo ").and_then(|number| number.parse::<u64>().ok()));
            stamps.extend(is(record).then(|| stamp.clone()));
        }
    }
    stamps
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
    audit.rev().find(|(stamp, _)| stamp.number == number).ok_or_else(|| no_entry(number))
}

fn no_entry(number: u64) -> String {
    format!("there is no entry {number}")
}

fn nothing_changes(stamp: &Stamp) -> String {
    let number = stamp.number;
    format!("nothing changes: the same was entered as {number}; to enter it anew, undo that first")
}

/// How an entry was ordered: the same rows ordered otherwise are another entry.
fn order_of(entering: &Entering) -> String {
    if let Some(day) = entering.day {
        return format!("backfill {day}");
    }
    if entering.intent.source.is_empty() {
        return "adjust".to_owned();
    }
    let as_of = entering.as_of.as_ref().map(|day| format!(" --as-of {day}")).unwrap_or_default();
    let adds = if entering.adds { " --add" } else { "" };
    format!("import{as_of}{adds}{}", if entering.rolls_up { " --roll-up" } else { "" })
}

fn told(names: &Names) -> String {
    let line = |(name, weighed): (&Name, &Weighed)| {
        let Weighed { entered, becomes, .. } = weighed;
        let shown = weighed.shown().map_or_else(String::new, |shown| format!(", shows {shown}"));
        format!("{}: {becomes} is entered, {entered} was{shown}\n", name.told())
    };
    some(names.iter().map(line), "")
}

/// Faults in order of their lines.
pub fn listed(faults: &mut [(usize, String)]) -> String {
    faults.sort();
    let line = |(line, fault): &(usize, String)| match line {
        0 => format!("{fault}\n"),
        line => format!("line {line}: {fault}\n"),
    };
    some(faults.iter().map(line), " faults") + "nothing is entered"
}

/// The first lines, and how many more there are.
fn some(lines: impl ExactSizeIterator<Item = String>, what: &str) -> String {
    let more = lines.len().saturating_sub(MOST_TOLD);
    let lines: String = lines.take(MOST_TOLD).collect();
    if more > 0 { format!("{lines}and {more} more{what}\n") } else { lines }
}
