//! Reads the sums of a site's buckets, and compares them with what they are made of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use chrono::{Days, NaiveDate};
use serde::{Deserialize, Serialize};

use crate::calendar::{Bucket, Period};
use crate::sites::SiteKey;
use crate::totals::batch::entry::Total;
use crate::totals::batch::part::{self, Entry, HashKind, HashName, PartId, Sums};
use crate::totals::batch::sketch::Sketch;
use crate::totals::store::contract::{StoreError, StoreText, written_day};
use crate::totals::store::dump::{Dump, HASHES, Held, REVISION, StoredName};

/// How often what does not agree is read again, and the pause before each time.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_millis(100);

/// The most suspicions of a site that are looked into, and the most disagreements that are told one by one.
const MOST: usize = 20_000;

/// What an audit found of a site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// The site's key.
    pub site: String,
    /// Views and visits of all time, as kept.
    pub views: u64,
    /// Visits of all time, as kept.
    pub visits: u64,
    /// Buckets whose sums were compared.
    pub buckets: usize,
    /// Pages in the bucket of all time.
    pub pages: usize,
    /// What stands beside the sums: name, field, value.
    pub beside: Vec<(String, String, String)>,
    /// What does not agree.
    pub disagreements: Vec<Disagreement>,
    /// Further ones that are not told.
    pub untold: usize,
}

/// Two things that do not agree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Disagreement {
    /// The hash or sketch: `day:2026-11-23`, `all:pages`.
    pub bucket: String,
    /// A field of it, or what of it.
    pub what: String,
    /// What should stand there, and why.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Disagreement { bucket, what, expected, found } = self;
        write!(f, "{bucket} {what}: expected {expected}; found {found}")
    }
}

/// The sums that a longer bucket should be made of.
#[derive(Clone, Copy)]
pub(super) enum Relation {
    Exactly,
    /// A week that `week_start` cut.
    AtMost,
}

/// What did not agree at first.
pub(super) enum Suspicion {
    /// A sum of a bucket and of those it is made of.
    Sums(Bucket, &'static str),
    /// Views of a page, of the same.
    Page(Bucket, String),
    /// Views of a bucket and of its pages.
    Pages(Bucket),
}

/// Audits one site.
pub async fn audit(dump: &impl Dump, site: &SiteKey) -> Result<Audit, StoreError> {
    let mut auditor = Auditor {
        dump,
        site,
        sums: BTreeMap::new(),
        parts: BTreeMap::new(),
        paged: BTreeSet::new(),
        pruned: None,
        suspicions: Vec::new(),
        audit: Audit { site: site.to_string(), ..Audit::default() },
    };
    auditor.read().await?;
    auditor.suspect_sums();
    auditor.suspect_pages().await?;
    auditor.look_into().await?;
    let mut audit = auditor.audit;
    audit.beside.sort();
    audit.disagreements.sort();
    audit.disagreements.dedup();
    Ok(audit)
}

pub(super) struct Auditor<'a, D> {
    pub(super) dump: &'a D,
    pub(super) site: &'a SiteKey,
    pub(super) sums: BTreeMap<Bucket, Sums>,
    /// The buckets that a longer one is made of.
    pub(super) parts: BTreeMap<Bucket, (Relation, Vec<Bucket>)>,
    /// Buckets with sums of pages.
    paged: BTreeSet<Bucket>,
    /// The day before which pages are pruned.
    pub(super) pruned: Option<NaiveDate>,
    suspicions: Vec<Suspicion>,
    pub(super) audit: Audit,
}

impl<D: Dump> Auditor<'_, D> {
    fn stored(&self, name: &str) -> StoredName {
        StoredName { site: self.site.clone(), name: name.into() }
    }

    pub(super) fn hash(&self, bucket: Bucket, kind: HashKind) -> StoredName {
        StoredName::from(&HashName::new(self.site, bucket, kind))
    }

    pub(super) fn tell(
        &mut self,
        bucket: &str,
        what: &str,
        expected: impl AsRef<str>,
        found: impl AsRef<str>,
    ) {
        if self.audit.disagreements.len() >= MOST {
            self.audit.untold += 1;
            return;
        }
        self.audit.disagreements.push(Disagreement {
            bucket: StoreText::from(bucket).to_string(),
            what: StoreText::from(what).to_string(),
            expected: StoreText::from(expected).to_string(),
            found: StoreText::from(found).to_string(),
        });
    }

    pub(super) fn suspect(&mut self, suspicion: Suspicion) {
        if self.suspicions.len() < MOST {
            self.suspicions.push(suspicion);
        } else {
            self.audit.untold += 1;
        }
    }

    /// Reads what is small, and checks how everything is written.
    async fn read(&mut self) -> Result<(), StoreError> {
        let meta = self.dump.meta(self.site).await?;
        let pruned = meta.iter().find(|(field, _)| field == "pruned");
        self.pruned = pruned.and_then(|(_, day)| written_day(day));
        let (mut hashes, mut sketches, mut others) = (Vec::new(), Vec::new(), Vec::new());
        // Of weeks and years no views of pages are kept, but what was entered is.
        let mut entered = Vec::new();
        for name in self.dump.names(self.site).await? {
            let stored = self.stored(&name);
            match HashName::parse(self.site, &name).map(|hash| (hash.kind, hash.bucket)) {
                Some((HashKind::Sums, bucket)) => hashes.push((bucket, stored)),
                Some((HashKind::Pages, bucket @ (Bucket::Day(_) | Bucket::Month(..) | Bucket::All))) => {
                    self.paged.insert(bucket);
                }
                Some((HashKind::Visitors, _)) => sketches.push(stored),
                Some((HashKind::Pages | HashKind::Entries | HashKind::Aliases, _)) => entered.push(stored),
                _ => others.push(stored),
            }
        }
        for some in hashes.chunks(HASHES) {
            let names: Vec<StoredName> = some.iter().map(|(_, hash)| hash.clone()).collect();
            for ((bucket, hash), held) in some.iter().zip(self.dump.whole(&names).await?) {
                let sums = self.sums_in(&hash.name, held);
                self.sums.insert(*bucket, sums);
            }
        }
        for some in sketches.chunks(HASHES) {
            for (name, held) in some.iter().zip(self.dump.sketches(some).await?) {
                let fault = match held {
                    Ok(bytes) => Sketch::from_bytes(&bytes.unwrap_or_default()).err().map(|e| e.to_string()),
                    Err(fault) => Some(fault),
                };
                if let Some(fault) = fault {
                    self.tell(&name.name, "sketch", "a HyperLogLog", fault);
                }
            }
        }
        for hash in entered {
            self.read_entered(&hash).await?;
        }
        for hash in others {
            let (fields, _) = match self.dump.scan(&hash, None).await {
                Err(StoreError::Refused(what)) => (vec![("(not a hash)".to_owned(), what.to_string())], None),
                step => step?,
            };
            let beside = fields.into_iter().map(|(field, value)| (hash.name.to_string(), field, value));
            self.audit.beside.extend(beside);
        }
        let all = self.sums.get(&Bucket::All).copied().unwrap_or_default();
        (self.audit.views, self.audit.visits) = (all.views, all.visits);
        self.audit.buckets = self.sums.len();
        Ok(())
    }

    /// Reads a hash that holds entries alone.
    async fn read_entered(&mut self, hash: &StoredName) -> Result<(), StoreError> {
        let (dump, mut total) = (self.dump, 0);
        let told = |field: String, value: String| match field.starts_with('#') {
            true => self.check_marker(&hash.name, &field, &value),
            false if hash.name.ends_with(":pages") => total += self.entered(&hash.name, &field, &value),
            // Of the audit what was done; what was changed has the name of a hash behind it.
            false if hash.name.ends_with("entries") && !field.contains(' ') => {
                self.show_beside(&hash.name, &field, &value)
            }
            false => {}
        };
        dump.each(hash, told).await?;
        self.show_entered_pages(&hash.name, total);
        Ok(())
    }

    fn show_beside(&mut self, name: &str, field: &str, value: &str) {
        self.audit.beside.push((name.to_owned(), field.to_owned(), value.to_owned()));
    }

    /// Shows what is entered of a hash's pages, in one.
    pub(super) fn show_entered_pages(&mut self, name: &str, total: i64) {
        if total != 0 {
            self.show_beside(name, "+ (all pages)", &total.to_string());
        }
    }

    /// What is entered beside a sum, as it should be written.
    pub(super) fn entered(&mut self, name: &str, field: &str, value: &str) -> i64 {
        match Entry::beside_sum(value) {
            Ok(entry) if field.starts_with('+') => return entry.amount(),
            _ => self.tell(name, field, "an entry: a number and its stamp", value),
        }
        0
    }

    fn sums_in(&mut self, name: &str, held: Held) -> Sums {
        let mut sums = Sums::default();
        let fields = held.unwrap_or_else(|fault| {
            self.tell(name, "hash", "a hash of sums", fault);
            Vec::new()
        });
        for (field, value) in fields {
            let sum = match sums.number_mut(&field) {
                Some(sum) => sum,
                None if field.starts_with('#') => {
                    self.check_marker(name, &field, &value);
                    continue;
                }
                None if Total::WORDS.iter().any(|(total, _)| field.strip_prefix('+') == Some(total)) => {
                    let amount = self.entered(name, &field, &value);
                    self.show_beside(name, &field, &amount.to_string());
                    continue;
                }
                None => {
                    self.tell(name, &field, "sums, entries and markers only", value);
                    continue;
                }
            };
            match part::sum(&value) {
                Some(number) => *sum = number,
                None => self.tell(name, &field, "a plain number", value),
            }
        }
        sums
    }

    pub(super) fn check_marker(&mut self, name: &str, field: &str, marker: &str) {
        if field == REVISION {
            if part::sum(marker).is_none() {
                self.tell(name, field, "a plain number", marker);
            }
            return;
        }
        let is_writer = |id: &str| id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit());
        if !field.strip_prefix('#').is_some_and(is_writer) {
            self.tell(name, field, "# and the 16 hex digits of a writer", field);
        }
        if marker.parse::<PartId>().is_err() {
            self.tell(name, field, "a marker", marker);
        }
    }

    /// Says what each bucket is made of, and suspects those that are not.
    fn suspect_sums(&mut self) {
        let mut parts: BTreeMap<Bucket, (Relation, Vec<Bucket>)> = BTreeMap::new();
        let mut add = |whole, part: Option<Bucket>| {
            let (_, of) = parts.entry(whole).or_insert((Relation::Exactly, Vec::new()));
            of.extend(part);
        };
        // A bucket that is missing is made of its parts all the same: days that only hours are kept of.
        let mut known: BTreeSet<Bucket> =
            self.sums.keys().copied().chain(self.paged.iter().copied()).collect();
        for period in [Period::Hour, Period::Day, Period::Month, Period::Year, Period::All] {
            let of_period: Vec<_> = known.iter().filter(|b| b.period() == period).copied().collect();
            for bucket in of_period {
                if period != Period::Hour {
                    add(bucket, None);
                }
                if let Some(longer) = longer(bucket) {
                    add(longer, Some(bucket));
                    known.insert(longer);
                }
            }
        }
        self.parts = parts;
        self.add_weeks(&known);
        let wholes: Vec<Bucket> = self.parts.keys().copied().collect();
        for whole in wholes {
            let Some((relation, of)) = self.parts.get(&whole) else { continue };
            let (relation, mut expected) = (*relation, Sums::default());
            of.iter().filter_map(|part| self.sums.get(part)).for_each(|part| expected += *part);
            let found = self.sums.get(&whole).copied().unwrap_or_default();
            let pairs = found.by_field().zip(expected.by_field());
            for ((field, _), _) in pairs.filter(|((_, found), (_, sum))| !relation.holds(*found, *sum)) {
                self.suspect(Suspicion::Sums(whole, field));
            }
        }
    }

    /// Weeks are made of the days in them. Days that no week holds make up one that is missing.
    fn add_weeks(&mut self, known: &BTreeSet<Bucket>) {
        let weeks: Vec<NaiveDate> =
            known.iter().filter_map(|b| if let Bucket::Week(w) = b { Some(*w) } else { None }).collect();
        let cut = |week: NaiveDate| {
            weeks.iter().any(|other| *other != week && (*other - week).num_days().abs() < 7)
        };
        for week in &weeks {
            let relation = if cut(*week) { Relation::AtMost } else { Relation::Exactly };
            self.parts.insert(Bucket::Week(*week), (relation, Vec::new()));
        }
        for bucket in known {
            let Bucket::Day(day) = bucket else { continue };
            let mut held = false;
            for first in (0..7).filter_map(|n| day.checked_sub_days(Days::new(n))) {
                if let Some((_, days)) = self.parts.get_mut(&Bucket::Week(first)) {
                    days.push(*bucket);
                    held = true;
                }
            }
            if !held {
                let monday = day.week(chrono::Weekday::Mon).first_day();
                let missing = self.parts.entry(Bucket::Week(monday));
                missing.or_insert((Relation::Exactly, Vec::new())).1.push(*bucket);
            }
        }
    }

    /// Reads again what is suspected, until it agrees or is found to disagree.
    async fn look_into(&mut self) -> Result<(), StoreError> {
        let mut suspicions = std::mem::take(&mut self.suspicions);
        let tries = if self.dump.stands_still() { 1 } else { TRIES };
        for last in (0..tries).rev() {
            let mut left = Vec::new();
            for suspicion in suspicions {
                if let Some(disagreement) = self.confirm(&suspicion).await? {
                    match last {
                        0 => self.audit.disagreements.push(disagreement),
                        _ => left.push(suspicion),
                    }
                }
            }
            suspicions = left;
            if suspicions.is_empty() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    pub(super) fn months(&self) -> Vec<Bucket> {
        self.parts.keys().filter(|bucket| bucket.period() == Period::Month).copied().collect()
    }

    async fn confirm(&mut self, suspicion: &Suspicion) -> Result<Option<Disagreement>, StoreError> {
        match suspicion {
            Suspicion::Sums(whole, field) => self.confirm_sum(*whole, HashKind::Sums, field).await,
            Suspicion::Page(whole, page) => self.confirm_sum(*whole, HashKind::Pages, page).await,
            Suspicion::Pages(bucket) => self.confirm_pages(*bucket).await,
        }
    }

    /// Reads a field of a bucket and of those it is made of together.
    async fn confirm_sum(
        &self,
        whole: Bucket,
        kind: HashKind,
        field: &str,
    ) -> Result<Option<Disagreement>, StoreError> {
        let Some((relation, of)) = self.parts.get(&whole) else { return Ok(None) };
        // Years keep no pages.
        let of = if kind == HashKind::Pages && whole == Bucket::All { &self.months() } else { of };
        let hashes: Vec<StoredName> =
            of.iter().chain([&whole]).map(|bucket| self.hash(*bucket, kind)).collect();
        let mut values = self.dump.field(&hashes, field).await?;
        let found = values.pop().flatten();
        let expected = values.iter().map(|v| v.as_deref().and_then(part::sum).unwrap_or(0)).sum();
        let number = found.as_deref().and_then(part::sum).unwrap_or(0);
        let disagrees = !relation.holds(number, expected);
        Ok(disagrees.then(|| Disagreement {
            bucket: HashName::new(self.site, whole, kind).to_string(),
            what: field.to_owned(),
            expected: relation.expects(expected, of.first().map_or(Period::All, |part| part.period())),
            found: found.unwrap_or_else(|| "nothing".to_owned()),
        }))
    }
}

impl Relation {
    fn holds(self, found: u64, expected: u64) -> bool {
        match self {
            Relation::Exactly => found == expected,
            Relation::AtMost => found <= expected,
        }
    }

    fn expects(self, expected: u64, of: Period) -> String {
        let bound = if matches!(self, Relation::AtMost) { "at most " } else { "" };
        match of {
            Period::All => format!("{bound}{expected}: nothing shorter is kept"),
            of => format!("{bound}{expected}, the sum of its {}s", of.word()),
        }
    }
}

/// The bucket that one is a part of, weeks aside.
fn longer(bucket: Bucket) -> Option<Bucket> {
    use chrono::Datelike;
    match bucket {
        Bucket::Hour(day, ..) => Some(Bucket::Day(day)),
        Bucket::Day(day) => Some(Bucket::Month(day.year(), day.month() as u8)),
        Bucket::Month(year, _) => Some(Bucket::Year(year)),
        Bucket::Year(_) => Some(Bucket::All),
        Bucket::Week(_) | Bucket::All => None,
    }
}

#[cfg(test)]
mod tests;
