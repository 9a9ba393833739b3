//! What is counted and entered of names, and what they become by it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::NaiveDate;
use foldhash::{HashMap, HashMapExt};

use super::names::{FIRST_YEAR, Faults, Name};
use crate::calendar::{Bucket, Period};
use crate::sites::SiteKey;
use crate::totals::batch::entry::Total;
use crate::totals::batch::part::{HashKind, HashName, MAX_FIELDS, MAX_SUM, Stamp};
use crate::totals::delivery::Reason;
use crate::totals::store::contract::{Query, Store};
use crate::totals::writer::rows::{Entering, Row};
use crate::totals::writer::turn::Writer;

/// Hashes read in one call of the store.
const QUERIES: usize = 100;

/// What stands of a name, and what it becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weighed {
    /// The row that says so, and its value; none of a name that is only looked at, or that rows add to.
    pub row: Option<(usize, i64)>,
    /// What was counted of it, before the day that rows speak of; none where that is not looked at.
    pub counted: Option<i64>,
    /// What is entered.
    pub entered: i64,
    /// By which entry.
    pub stamp: Option<Stamp>,
    /// What is to be entered.
    pub becomes: i64,
}

impl Weighed {
    /// What it is to show, where that is known.
    pub fn shown(&self) -> Option<i64> {
        self.counted.map(|counted| counted + self.becomes)
    }

    /// Why it cannot become what it is to.
    fn fault(&self, name: &Name) -> Option<String> {
        let shown = self.shown().unwrap_or(self.becomes.abs());
        let is_possible = (0..=MAX_SUM as i64).contains(&shown) && self.becomes.unsigned_abs() <= MAX_SUM;
        (!is_possible).then(|| format!("{} would show {shown}", name.told()))
    }
}

/// Names, each once.
pub type Names = BTreeMap<Name, Weighed>;

/// What rows say.
#[derive(Default)]
pub struct Read {
    /// By the names that they are of.
    pub names: Names,
    /// What is wrong with others.
    pub faults: Faults,
    /// How many are of days of pages that are not kept any more.
    pub not_kept: usize,
}

impl<S: Store> Writer<S> {
    /// Rows by the names that they are of: of each the last, or the sum of all where they add.
    pub(super) fn by_name(&self, entering: &Entering) -> Read {
        let (mut read, mut spelled) = (Read::default(), HashMap::new());
        // Logs may name a page as it was before it moved, too.
        let adds = entering.adds || entering.day.is_some();
        for row in &entering.rows.0 {
            let name = match self.name(row, entering) {
                Ok(Some(name)) => name,
                Ok(None) => {
                    read.not_kept += 1;
                    continue;
                }
                Err(fault) => {
                    read.faults.push((row.line, fault));
                    continue;
                }
            };
            if !adds && !row.page.is_empty() {
                let Row { line, page, .. } = *spelled.entry(name.clone()).or_insert(row);
                if *page != row.page {
                    let fault = format!("{} is the same page as {page} in line {line}", row.page);
                    let remedy = "give one row with the sum of both, or have all rows added with --add";
                    read.faults.push((row.line, format!("{fault}: {remedy}")));
                }
            }
            let of_name = &mut read.names.entry(name).or_default().row;
            let before = of_name.filter(|_| adds).map_or(0, |(_, value)| value);
            *of_name = Some((row.line, before.saturating_add(row.value)));
        }
        read
    }

    /// Reads what is entered of names, and what is counted before a day of those that have rows, or of `all`.
    pub(super) async fn weigh(
        &mut self,
        names: &mut Names,
        as_of: Option<NaiveDate>,
        all: bool,
    ) -> Result<(), Reason> {
        let mut by_hash = BTreeMap::<&HashName, Vec<(&Arc<str>, &mut Weighed)>>::new();
        for (name, weighed) in names.iter_mut() {
            weighed.counted = (all || weighed.row.is_some()).then_some(0);
            by_hash.entry(&name.hash).or_default().push((&name.field, weighed));
        }
        for (hash, mut fields) in by_hash {
            for some in fields.chunks_mut(MAX_FIELDS) {
                self.weigh_fields(hash, some, as_of).await?;
            }
        }
        Ok(())
    }

    async fn weigh_fields(
        &mut self,
        hash: &HashName,
        names: &mut [(&Arc<str>, &mut Weighed)],
        as_of: Option<NaiveDate>,
    ) -> Result<(), Reason> {
        let (first, last) = hash.bucket.days().unwrap_or((NaiveDate::MIN, NaiveDate::MAX));
        let today = self.today(&hash.site);
        // How often what is counted in a hash counts.
        let mut times = BTreeMap::from([(hash.clone(), 0)]);
        if as_of.is_none_or(|day| first < day) && names.iter().any(|(_, weighed)| weighed.counted.is_some()) {
            hash.summed().into_iter().for_each(|hash| *times.entry(hash).or_default() += 1);
            let after = as_of.into_iter().flat_map(|day| day.iter_days());
            for day in after.take_while(|day| *day <= today.min(last)).map(Bucket::Day) {
                *times.entry(HashName { bucket: day, ..hash.clone() }).or_default() -= 1;
            }
            let visitors = names.iter_mut().find(|(field, _)| ***field == *Total::Visitors.word());
            if let Some(counted) = visitors.and_then(|(_, weighed)| weighed.counted.as_mut()) {
                let since = self.delivery.since.get(&hash.site).copied().unwrap_or(today);
                let until = as_of.and_then(|day| day.pred_opt()).unwrap_or(today).min(today).min(last);
                let days = first.max(since).iter_days().take_while(|day| *day <= until);
                let sketch = |day| HashName::new(&hash.site, Bucket::Day(day), HashKind::Visitors);
                let sketches = self.delivery.store.visitors(days.map(sketch).collect()).await?;
                *counted += sketches.iter().sum::<u64>() as i64;
            }
        }
        let site = self.delivery.sites.known(&hash.site);
        let aliases = site.map(|site| site.pages.aliases.clone()).unwrap_or_default();
        let mut fields = Vec::new();
        for (at, (field, _)) in names.iter().enumerate() {
            let beside = if hash.kind == HashKind::Pages { aliases.beside(field) } else { &[] };
            fields.extend([*field].into_iter().chain(beside).map(|field| (at, field.clone())));
        }
        let times: Vec<(HashName, i64)> = times.into_iter().collect();
        for some in times.chunks(QUERIES) {
            let fields_of = || fields.iter().map(|(_, field)| field.clone()).collect();
            let queries =
                some.iter().map(|(hash, _)| Query { hash: hash.clone(), fields: fields_of() }).collect();
            let found = self.delivery.store.read(&self.delivery.identity.writer, queries).await?;
            let bears = some.iter().zip(&found).map(|((hash, _), found)| (hash.clone(), found.marker));
            if !self.delivery.check(&bears.collect::<Vec<_>>()).await? {
                return Err("the store went back in time, and is being healed; try again".into());
            }
            for ((part, times), found) in some.iter().zip(found) {
                for ((at, field), (sum, entry)) in
                    fields.iter().zip(found.sums.into_iter().zip(found.entries))
                {
                    let (own, weighed) = &mut names[*at];
                    let mut counted = times * sum.unwrap_or_default() as i64;
                    if let Some(entry) = entry.filter(|_| part == hash) {
                        let amount = entry.amount();
                        if field == *own {
                            (weighed.entered, weighed.becomes) = (amount, amount);
                            weighed.stamp = Some(entry.stamp);
                        } else {
                            // Of a page that is shown as this one.
                            counted += amount;
                        }
                    }
                    weighed.counted = weighed.counted.map(|before| before + counted);
                }
            }
        }
        Ok(())
    }

    /// The running day of a site.
    pub(super) fn today(&self, site: &SiteKey) -> NaiveDate {
        let now_ms = self.shared.clock.now().unix_ms;
        let site = self.delivery.sites.known(site);
        site.map_or(NaiveDate::MIN, |site| site.calendar.span(now_ms).hour.day)
    }

    /// Adds the names that are longer than these, to be looked at beside them.
    pub(super) fn add_longer(&self, names: &mut Names) {
        let longer: Vec<Name> = names.keys().flat_map(|name| self.longer(name)).collect();
        longer.into_iter().for_each(|name| _ = names.entry(name).or_default());
    }

    /// Has names become what rows say; those that one of these entries named last stay as they are. What is wrong
    /// with it, by lines.
    pub(super) fn decide(&self, names: &mut Names, entering: &Entering, same: &BTreeSet<Stamp>) -> Faults {
        let (mut faults, mut risen) = (Vec::new(), Vec::new());
        for (name, weighed) in names.iter_mut() {
            let Some((line, value)) = weighed.row else { continue };
            if weighed.stamp.as_ref().is_some_and(|stamp| same.contains(stamp)) {
                weighed.row = None;
                continue;
            }
            let kept = if entering.adds { weighed.entered } else { -weighed.counted.unwrap_or_default() };
            weighed.becomes = kept + value;
            faults.extend(weighed.fault(name).map(|fault| (line, fault)));
            risen.push((name.clone(), line, weighed.becomes - weighed.entered));
        }
        if entering.rolls_up {
            faults.extend(self.roll_up(names, &risen));
        }
        faults
    }

    /// Adds to the longer buckets of days what they rise by. What is wrong with it, by lines.
    pub(super) fn roll_up(&self, names: &mut Names, risen: &[(Name, usize, i64)]) -> Faults {
        for (name, _, rise) in risen {
            for longer in self.longer(name) {
                names.entry(longer).or_default().becomes += rise;
            }
        }
        let fault = |(name, line, _): &(Name, usize, i64)| {
            let fault =
                self.longer(name).into_iter().find_map(|longer| names.get(&longer)?.fault(&longer))?;
            Some((*line, fault))
        };
        risen.iter().filter_map(fault).collect()
    }

    /// Why a day is not to be entered from its logs; none where nothing of it is counted or entered yet. What days had
    /// entered is told by `days`.
    pub(super) async fn covered(
        &mut self,
        names: &Names,
        day: NaiveDate,
        days: &BTreeSet<Stamp>,
    ) -> Result<Option<String>, Reason> {
        let of_day = || names.iter().filter(|(_, weighed)| weighed.row.is_some());
        if of_day().any(|(name, _)| self.today(&name.hash.site) <= day) {
            return Ok(Some("it is not over".to_owned()));
        }
        let counted = |weighed: &Weighed| weighed.counted.unwrap_or_default();
        if of_day().any(|(_, weighed)| counted(weighed) > 0) {
            let of_site = of_day().filter(|(name, _)| name.hash.kind == HashKind::Sums);
            let counted = of_site.map(|(name, weighed)| format!("{} {}", counted(weighed), name.field));
            return Ok(Some(format!("beacons counted {}", counted.collect::<Vec<_>>().join(", "))));
        }
        let entry = of_day()
            .filter(|(_, weighed)| weighed.entered != 0)
            .find_map(|(_, weighed)| weighed.stamp.as_ref());
        match entry {
            Some(stamp) => Ok(Some(format!("entry {} covers it", stamp.number))),
            None => self.opening(names, days).await,
        }
    }

    /// Says into which longer bucket more is entered than into those that it is made of: that may be of any of its
    /// days. Where a day was entered last, that was looked at.
    pub(super) async fn opening(
        &mut self,
        names: &Names,
        days: &BTreeSet<Stamp>,
    ) -> Result<Option<String>, Reason> {
        let is_of_day = |stamp: &Option<Stamp>| stamp.as_ref().is_none_or(|stamp| days.contains(stamp));
        let others: Vec<_> = names.iter().filter(|(_, weighed)| !is_of_day(&weighed.stamp)).collect();
        for some in others.chunks(MAX_FIELDS) {
            let parts = some.iter().flat_map(|(name, _)| self.parts(name));
            let mut parts: Names = parts.map(|part| (part, Weighed::default())).collect();
            self.weigh(&mut parts, None, false).await?;
            for (name, Weighed { entered, .. }) in some {
                let of_parts = self.parts(name).iter().map(|part| parts[part].entered).sum();
                if *entered > of_parts {
                    return Ok(Some(format!(
                        "{} has {entered} entered, and what it is made of {of_parts}: the rest may be of this day; \
                         undo that entry first, and enter it again afterwards",
                        name.told()
                    )));
                }
            }
        }
        Ok(None)
    }

    /// What of names would not nest any more, by lines: what is entered of a week, a month, a year is part of what is
    /// entered of the buckets that hold it.
    pub(super) async fn not_nested(&mut self, names: &Names) -> Result<Faults, Reason> {
        let mut faults = Faults::new();
        let changed: Vec<_> = names.iter().filter(|(_, of)| of.becomes != of.entered).collect();
        for some in changed.chunks(MAX_FIELDS) {
            let lowered = some.iter().filter(|(_, of)| of.becomes < of.entered);
            let parts = lowered.flat_map(|(name, _)| self.compared_with(name));
            let mut parts: Names = parts.map(|part| (part, Weighed::default())).collect();
            self.weigh(&mut parts, None, false).await?;
            let becomes =
                |name: &Name| names.get(name).or_else(|| parts.get(name)).map_or(0, |of| of.becomes);
            let fault = |part: &Name, whole: &Name| {
                let (of_part, of_whole) = (becomes(part), becomes(whole));
                (of_part > of_whole.max(0)).then(|| {
                    let (told, bucket) = (part.told(), whole.hash.bucket);
                    format!(
                        "{told} would have {of_part} entered, and {bucket}, which holds it, only {of_whole}"
                    )
                })
            };
            for (name, weighed) in some {
                let is_day = name.hash.bucket.period() == Period::Day;
                let holding = if is_day { Vec::new() } else { self.longer(name) };
                let held =
                    if weighed.becomes < weighed.entered { self.compared_with(name) } else { Vec::new() };
                let above = holding.iter().find_map(|whole| fault(name, whole));
                let found = above.or_else(|| held.iter().find_map(|part| fault(part, name)));
                faults.extend(found.map(|fault| (weighed.row.map_or(0, |(line, _)| line), fault)));
            }
        }
        Ok(faults)
    }

    /// The names of which no more may be entered than of one that holds them.
    fn compared_with(&self, name: &Name) -> Vec<Name> {
        let mut parts = match name.hash.bucket {
            Bucket::Year(_) | Bucket::All => self.parts(name),
            _ => Vec::new(),
        };
        let site = self.delivery.sites.known(&name.hash.site);
        // Of pages these would be some thousand fields for each.
        if let (Bucket::All, HashKind::Sums, Some(site)) = (name.hash.bucket, name.hash.kind, site) {
            let first = NaiveDate::from_ymd_opt(FIRST_YEAR, 1, 1).unwrap_or_default();
            let today = self.today(&name.hash.site);
            let weeks = first.iter_weeks().take_while(|day| *day <= today);
            parts.extend(weeks.map(|day| name.of(Bucket::Week(site.calendar.week_of(day)))));
        }
        parts
    }
}
