//! What is counted and entered of names, and what they become by it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{Datelike, NaiveDate};

use super::names::{Name, longer, parts, within};
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
    /// What was counted of it, before the day that rows speak of.
    pub counted: i64,
    /// What is entered.
    pub entered: i64,
    /// By which entry.
    pub stamp: Option<Stamp>,
    /// What is to be entered.
    pub becomes: i64,
}

impl Weighed {
    /// Why it cannot become what it is to: what it shows is known where it was counted.
    fn fault(&self, name: &Name, is_counted: bool) -> Option<String> {
        let shown = self.counted + self.becomes;
        let is_possible = !is_counted || (0..=MAX_SUM as i64).contains(&shown);
        (!is_possible || self.becomes.unsigned_abs() > MAX_SUM)
            .then(|| format!("{} would show {shown}", name.told()))
    }
}

/// Names, each once.
pub type Names = BTreeMap<Name, Weighed>;

/// A question for a field: for which name, and how often what was counted there counts.
struct Ask {
    field: Arc<str>,
    name: Name,
    times: i64,
}

impl<S: Store> Writer<S> {
    /// Reads what is counted before a day of names that have rows, or of `all`, and what is entered.
    pub(super) async fn weigh(
        &mut self,
        names: &mut Names,
        as_of: Option<NaiveDate>,
        all: bool,
    ) -> Result<(), Reason> {
        let mut rest = std::mem::take(names).into_iter().peekable();
        // Of each a field of every day since then may be asked for.
        while rest.peek().is_some() {
            let mut some: Names = rest.by_ref().take(MAX_FIELDS).collect();
            self.weigh_some(&mut some, as_of, all).await?;
            names.extend(some);
        }
        Ok(())
    }

    async fn weigh_some(
        &mut self,
        names: &mut Names,
        as_of: Option<NaiveDate>,
        all: bool,
    ) -> Result<(), Reason> {
        let (mut asks, mut days) = (BTreeMap::<HashName, Vec<Ask>>::new(), BTreeMap::<_, Vec<Name>>::new());
        for (name, weighed) in names.iter() {
            let site = self.delivery.sites.known(&name.hash.site);
            let aliases = site.and_then(|site| site.pages.aliases.as_ref());
            let mut ask = |bucket, times| {
                let hash = HashName { bucket, ..name.hash.clone() };
                let beside = aliases.filter(|_| hash.kind == HashKind::Pages);
                let beside = beside.map_or(&[][..], |aliases| aliases.beside(&name.field));
                let fields = [&name.field].into_iter().chain(beside).cloned();
                let ask = |field| Ask { field, name: name.clone(), times };
                asks.entry(hash).or_default().extend(fields.map(ask));
            };
            let (first, last) = name.hash.bucket.days().unwrap_or((NaiveDate::MIN, NaiveDate::MAX));
            let is_counted = (all || weighed.row.is_some()) && as_of.is_none_or(|day| first < day);
            let today = self.today(&name.hash.site);
            if &*name.field == Total::Visitors.word() {
                ask(name.hash.bucket, 0);
                let since = self.delivery.since.get(&name.hash.site).copied().unwrap_or(today);
                let until = as_of.and_then(|day| day.pred_opt()).unwrap_or(today).min(today).min(last);
                let counted = first.max(since).iter_days().take_while(|day| is_counted && *day <= until);
                counted.for_each(|day| {
                    let sketch = HashName::new(&name.hash.site, Bucket::Day(day), HashKind::Visitors);
                    days.entry(sketch).or_default().push(name.clone());
                });
                continue;
            }
            let parts = parts(name);
            ask(name.hash.bucket, i64::from(is_counted && parts == [name.hash.bucket]));
            if !is_counted {
                continue;
            }
            parts.into_iter().filter(|part| *part != name.hash.bucket).for_each(|part| ask(part, 1));
            if let Some(day) = as_of {
                let after = day.iter_days().take_while(|day| *day <= today.min(last));
                after.for_each(|day| ask(Bucket::Day(day), -1));
            }
        }
        self.read_asked(asks, names).await?;
        let days: Vec<(HashName, Vec<Name>)> = days.into_iter().collect();
        for some in days.chunks(MAX_FIELDS) {
            let sketches = some.iter().map(|(sketch, _)| sketch.clone()).collect();
            for ((_, of), visitors) in some.iter().zip(self.delivery.store.visitors(sketches).await?) {
                for name in of {
                    names.entry(name.clone()).or_default().counted += visitors as i64;
                }
            }
        }
        Ok(())
    }

    async fn read_asked(
        &mut self,
        asks: BTreeMap<HashName, Vec<Ask>>,
        names: &mut Names,
    ) -> Result<(), Reason> {
        let mut queries = Vec::new();
        for (hash, asks) in &asks {
            queries.extend(asks.chunks(MAX_FIELDS).map(|some| (hash, some)));
        }
        for some in queries.chunks(QUERIES) {
            let query = |(hash, asks): &(&HashName, &[Ask])| Query {
                hash: HashName::clone(hash),
                fields: asks.iter().map(|ask| ask.field.clone()).collect(),
            };
            let found =
                self.delivery.store.read(&self.delivery.identity.writer, some.iter().map(query).collect());
            let found = found.await?;
            let bears =
                some.iter().zip(&found).map(|((hash, _), found)| (HashName::clone(hash), found.marker));
            let bears: Vec<_> = bears.collect();
            if !self.delivery.check(&bears).await? {
                return Err("the store went back in time, and is being healed; try again".into());
            }
            for ((hash, asks), found) in some.iter().zip(found) {
                for (ask, (sum, entry)) in asks.iter().zip(found.sums.into_iter().zip(found.entries)) {
                    let weighed = names.entry(ask.name.clone()).or_default();
                    weighed.counted += ask.times * sum.unwrap_or_default() as i64;
                    let Some(entry) = entry.filter(|_| **hash == ask.name.hash) else { continue };
                    let amount = entry.amount().unwrap_or_default();
                    if ask.field == ask.name.field {
                        (weighed.entered, weighed.stamp) = (amount, Some(entry.stamp));
                    } else {
                        // Of a page that is shown as this one.
                        weighed.counted += amount;
                    }
                }
            }
        }
        for weighed in names.values_mut() {
            weighed.becomes = weighed.entered;
        }
        Ok(())
    }

    /// The running day of a site.
    pub(super) fn today(&self, site: &SiteKey) -> NaiveDate {
        let now_ms = self.shared.clock.now().unix_ms;
        let site = self.delivery.sites.known(site);
        site.map_or(NaiveDate::MIN, |site| site.calendar.span(now_ms).hour.day)
    }

    /// The names that are longer than these, to be looked at beside them.
    pub(super) fn add_longer(&self, names: &mut Names) {
        let mut more = BTreeSet::new();
        for name in names.keys() {
            let Some(site) = self.delivery.sites.known(&name.hash.site) else { continue };
            more.extend(longer(&site.calendar, name.hash.bucket).into_iter().map(|bucket| name.of(bucket)));
        }
        more.into_iter().for_each(|name| _ = names.entry(name).or_default());
    }

    /// Has names become what rows say; those that one of these entries named last stay as they are. What is wrong
    /// with it, by lines.
    pub(super) fn decide(
        &self,
        names: &mut Names,
        entering: &Entering,
        same: &BTreeSet<Stamp>,
    ) -> Vec<(usize, String)> {
        let (mut faults, mut risen) = (Vec::new(), Vec::new());
        for (name, weighed) in names.iter_mut() {
            let Some((line, value)) = weighed.row else { continue };
            if weighed.stamp.as_ref().is_some_and(|stamp| same.contains(stamp)) {
                weighed.row = None;
                continue;
            }
            let before = weighed.entered;
            weighed.becomes = if entering.adds { before + value } else { value - weighed.counted };
            faults.extend(weighed.fault(name, true).map(|fault| (line, fault)));
            risen.push((name.clone(), line, weighed.becomes - before));
        }
        if entering.rolls_up {
            faults.extend(self.roll_up(names, &risen, entering.adds));
        }
        let is_compared = |_: &&(Name, usize, i64)| !(entering.is_part && entering.dry_run);
        for (name, line, _) in risen.iter().filter(is_compared) {
            faults.extend(self.not_nested(names, name).map(|fault| (*line, fault)));
        }
        faults
    }

    /// Adds to the longer buckets of days what they rise by. What is wrong with it, by lines; what they show is known
    /// where it `is_counted`.
    pub(super) fn roll_up(
        &self,
        names: &mut Names,
        risen: &[(Name, usize, i64)],
        is_counted: bool,
    ) -> Vec<(usize, String)> {
        let longer_than = |name: &Name| {
            let site = self.delivery.sites.known(&name.hash.site);
            site.map_or(Vec::new(), |site| longer(&site.calendar, name.hash.bucket))
        };
        for (name, _, rise) in risen {
            for longer in longer_than(name) {
                names.entry(name.of(longer)).or_default().becomes += rise;
            }
        }
        let fault = |(name, line, _): &(Name, usize, i64)| {
            let of = |longer| names.get(&name.of(longer))?.fault(&name.of(longer), is_counted);
            Some((*line, longer_than(name).into_iter().find_map(of)?))
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
        if of_day().any(|(_, weighed)| weighed.counted > 0) {
            let of_site = of_day().filter(|(name, _)| name.hash.kind == HashKind::Sums);
            let counted = of_site.map(|(name, weighed)| format!("{} {}", weighed.counted, name.field));
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
        for (name, weighed) in names.iter().filter(|(_, weighed)| !is_of_day(&weighed.stamp)) {
            let parts = match name.hash.bucket {
                Bucket::Day(_) => continue,
                Bucket::All => (1990..=self.today(&name.hash.site).year()).map(Bucket::Year).collect(),
                bucket => within(bucket),
            };
            let mut parts: Names =
                parts.into_iter().map(|part| (name.of(part), Weighed::default())).collect();
            self.weigh(&mut parts, None, false).await?;
            let (of_bucket, of_parts) =
                (weighed.entered, parts.values().map(|part| part.entered).sum::<i64>());
            if of_bucket > of_parts {
                return Ok(Some(format!(
                    "{} has {of_bucket} entered, and what it is made of {of_parts}: the rest may be of this day; \
                     undo that entry first, and enter it again afterwards",
                    name.told()
                )));
            }
        }
        Ok(None)
    }

    /// What is entered of a week, a month, a year is part of what is entered of the longer buckets.
    fn not_nested(&self, names: &Names, name: &Name) -> Option<String> {
        let site = self.delivery.sites.known(&name.hash.site)?;
        let bucket = name.hash.bucket;
        if bucket.period() == Period::Day {
            return None;
        }
        let becomes = names.get(name)?.becomes;
        let of = |longer: Bucket| names.get(&name.of(longer)).map_or(0, |weighed| weighed.becomes);
        let longer =
            longer(&site.calendar, bucket).into_iter().find(|longer| becomes > 0 && becomes > of(*longer))?;
        Some(format!(
            "{} would have {becomes} entered, and {longer}, which holds it, only {}",
            name.told(),
            of(longer)
        ))
    }
}

/// Rows by the names that they are of: the last of each, or the sum of all where they add. What is wrong with rows,
/// by lines.
pub fn by_name(
    rows: &[Row],
    adds: bool,
    name_of: impl Fn(&Row) -> Result<Name, String>,
) -> (Names, Vec<(usize, String)>) {
    let (mut names, mut faults) = (Names::new(), Vec::new());
    for row in rows {
        let is_possible = row.value.unsigned_abs() <= MAX_SUM && (adds || row.value >= 0);
        let name = match name_of(row) {
            _ if !is_possible => Err(format!("no bucket shows {}", row.value)),
            name => name,
        };
        match name {
            Ok(name) => {
                let weighed = names.entry(name).or_default();
                let before = weighed.row.filter(|_| adds).map_or(0, |(_, value)| value);
                weighed.row = Some((row.line, before.saturating_add(row.value)));
            }
            Err(fault) => faults.push((row.line, fault)),
        }
    }
    (names, faults)
}
