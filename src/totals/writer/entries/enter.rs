//! The orders about entries.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::names::Name;
use super::record::{self, Audit, Record};
use super::weigh::{Names, Weighed};
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

impl<S: Store> Writer<S> {
    /// Enters what rows say, all of it or, where anything is wrong with them, nothing.
    pub async fn enter(&mut self, entering: Entering) -> Result<String, Reason> {
        let rows = &entering.rows.0;
        if rows.len() > MAX_ROWS {
            return Err(format!("{} rows; give at most {MAX_ROWS} at a time", rows.len()).into());
        }
        let (mut names, mut faults) = self.by_name(&entering);
        let of_sites: BTreeSet<SiteKey> = names.keys().map(|name| name.hash.site.clone()).collect();
        let ago = |site: &SiteKey, day: chrono::NaiveDate| (self.today(site) - day).num_days();
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
        self.add_longer(&mut names);
        let rises = entering.adds && entering.rolls_up;
        self.weigh(&mut names, entering.as_of.filter(|_| !entering.adds), rises).await?;
        if let Some(day) = entering.day
            && let Some(why) = self.covered(&names, day, &of_days(&audits)).await?
        {
            return Ok(format!("left out: {why}"));
        }
        let order = order_of(&entering);
        let is_same = |record: &Record| {
            !record.intent.digest.is_empty()
                && record.intent.digest == entering.intent.digest
                && record.order == order
        };
        let same = stamps(&audits, is_same);
        let mut faults = self.decide(&mut names, &entering, &same);
        if !faults.is_empty() {
            return Err(listed(&mut faults).into());
        }
        if entering.day.is_some() && entering.intent.dry_run {
            return Ok("would be entered: nothing is counted of it".to_owned());
        }
        names.retain(|_, weighed| weighed.row.is_some() || weighed.becomes != weighed.entered);
        if let (true, Some(stamp)) = (names.is_empty(), same.last()) {
            let number = stamp.number;
            return Ok(format!(
                "nothing changes: the same was entered as {number}; to enter it anew, undo that first"
            ));
        }
        let record = Record { order, intent: entering.intent, day: entering.day, ..Record::default() };
        self.commit(names, audits, record).await
    }

    /// Enters what was there before an entry, where what it entered is there still.
    pub async fn undo(&mut self, site: Option<&str>, number: u64, intent: Intent) -> Result<String, Reason> {
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
            self.roll_up(&mut names, &risen);
        }
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
            entries.extend(record::entered(&site, &stamp, &record, &names));
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
        let number = self.delivery.store.next_entry(site, after).await?;
        let now_ms = self.shared.clock.now().unix_ms;
        let at = self.delivery.sites.known(site).map(|site| site.calendar.rfc3339(now_ms));
        let stamp = Stamp { number, writer: self.delivery.identity.writer.0.clone() };
        Ok((stamp, Record { at: at.unwrap_or_default(), ..record }))
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
