//! What a batch is made of: parts, which add sums to hashes of the store, and how hashes and parts are named.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use chrono::{Days, NaiveDate};

use super::sketch::Registers;
use crate::calendar::Bucket;
use crate::ingest::Reason;
use crate::sites::SiteKey;
use crate::totals::disk::codec::{Damaged, Put, Take};

/// Most fields of a part: 1,000 take Redis 7.0.15 about 0.8 ms; Lua's stack ends at 3,998 pairs.
pub const MAX_FIELDS: usize = 1000;

/// The largest sum: Redis' scripts count in doubles, which are exact up to here.
pub const MAX_SUM: u64 = (1 << 53) - 1;

/// The highest number of a batch: one a second for 285 million years. Whoever names a higher one makes it up.
pub const MAX_SEQUENCE: u64 = 1 << 53;

/// Reads the number of a batch.
pub fn sequence(text: &str) -> Option<u64> {
    plain(text).filter(|sequence| *sequence <= MAX_SEQUENCE)
}

/// Reads a sum as a store keeps it: plain digits.
pub fn sum(text: &str) -> Option<u64> {
    plain(text).filter(|sum| *sum <= MAX_SUM)
}

fn plain(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The field of a hash in which the entry of a sum stands.
pub fn field_beside(sum: &str) -> Arc<str> {
    format!("+{sum}").into()
}

/// Tells which of two entries is the later one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// What the store's data of a site counts its entries by.
    pub number: u64,
    /// Who made it: where a store went back two may bear one number.
    pub writer: Arc<str>,
}

/// A register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub text: Arc<str>,
    pub stamp: Stamp,
}

impl Entry {
    /// Reads one that stands beside a sum.
    ///
    /// # Errors
    /// It is not written as an entry is, or is no number.
    pub fn beside_sum(stored: &str) -> Result<Self, Damaged> {
        let entry: Entry = stored.parse()?;
        entry.number().is_some().then_some(entry).ok_or(Damaged("the number of an entry"))
    }

    /// What is added to the sum that it stands beside.
    pub fn amount(&self) -> i64 {
        self.number().unwrap_or_default()
    }

    /// Puts it into a field, unless a later one is there.
    pub fn put(self, into: &mut BTreeMap<Arc<str>, Entry>, field: &Arc<str>) {
        if into.get(field).is_none_or(|held| held.stamp < self.stamp) {
            into.insert(field.clone(), self);
        }
    }

    fn number(&self) -> Option<i64> {
        let digits = self.text.strip_prefix('-').unwrap_or(&self.text);
        let size = i64::try_from(sum(digits)?).ok()?;
        Some(if digits.len() < self.text.len() { -size } else { size })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.text, self.stamp.number, self.stamp.writer)
    }
}

impl FromStr for Entry {
    type Err = Damaged;

    fn from_str(stored: &str) -> Result<Self, Damaged> {
        let entry = || {
            let (rest, writer) = stored.rsplit_once(' ')?;
            let (text, number) = rest.rsplit_once(' ')?;
            let stamp = Stamp { number: sequence(number)?, writer: writer.into() };
            Some(Entry { text: text.into(), stamp })
        };
        let is_ours = |entry: &Entry| entry.to_string() == stored && is_writer(&entry.stamp.writer);
        entry().filter(is_ours).ok_or(Damaged("an entry"))
    }
}

fn is_writer(id: &str) -> bool {
    id.len() == 16 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Views and visits, and views that were left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Views.
    pub views: u64,
    /// Visits.
    pub visits: u64,
    /// Views that were left out, by their reasons in order of [`Reason::FILTERED`].
    pub filtered: [u64; Reason::FILTERED.len()],
}

/// The fields of sums in a hash, in order of their names: `filtered:robot` and its kin before `views` and `visits`.
static FIELDS: LazyLock<Vec<Arc<str>>> = LazyLock::new(|| {
    let filtered = Reason::FILTERED.map(|reason| format!("filtered:{}", reason.word()).into());
    filtered.into_iter().chain(["views".into(), "visits".into()]).collect()
});

impl Sums {
    /// The fields that they are kept under.
    pub fn fields() -> &'static [Arc<str>] {
        &FIELDS
    }

    /// One view that was left out.
    pub fn left_out(reason: Reason) -> Self {
        Sums { filtered: Reason::FILTERED.map(|other| u64::from(other == reason)), ..Sums::default() }
    }

    /// Each field and its number.
    pub fn by_field(&self) -> impl Iterator<Item = (&'static Arc<str>, u64)> + use<> {
        FIELDS.iter().zip(self.filtered.into_iter().chain([self.views, self.visits]))
    }

    /// The number of a field.
    pub fn number_mut(&mut self, field: &str) -> Option<&mut u64> {
        let numbers = self.filtered.iter_mut().chain([&mut self.views, &mut self.visits]);
        FIELDS.iter().zip(numbers).find(|(name, _)| ***name == *field).map(|(_, number)| number)
    }

    /// Appends what was left out: how many fields, and each with its number.
    pub fn put_filtered(&self, out: &mut impl Put) {
        let filtered = || self.by_field().take(self.filtered.len()).filter(|(_, views)| *views > 0);
        out.put_varint(filtered().count() as u64);
        for (field, views) in filtered() {
            out.put_text(field);
            out.put_sum(views);
        }
    }

    /// Reads what [`Sums::put_filtered`] wrote.
    pub fn take_filtered(&mut self, take: &mut Take<'_>) -> Result<(), Damaged> {
        for _ in 0..take.count(2)? {
            let number = self.number_mut(take.text()?).ok_or(Damaged("a reason"))?;
            *number = take.sum()?;
        }
        Ok(())
    }

    /// Makes one of two, number by number.
    pub fn with(self, other: Self, numbers: impl Fn(u64, u64) -> u64) -> Self {
        let filtered = std::array::from_fn(|place| numbers(self.filtered[place], other.filtered[place]));
        let (views, visits) = (numbers(self.views, other.views), numbers(self.visits, other.visits));
        Sums { views, visits, filtered }
    }
}

impl std::ops::AddAssign for Sums {
    fn add_assign(&mut self, other: Sums) {
        *self = self.with(other, u64::saturating_add);
    }
}

/// What the store keeps of a bucket, each under a name of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HashKind {
    /// A hash of [`Sums`].
    Sums,
    /// A hash of views by page.
    Pages,
    /// A sketch of visitors.
    Visitors,
    /// The audit of a site's entries; of a day, what it became when it was entered as a whole.
    Entries,
    /// What pages are shown as; of no bucket but all.
    Aliases,
}

impl HashKind {
    fn suffix(self) -> &'static str {
        match self {
            HashKind::Sums => "",
            HashKind::Pages => ":pages",
            HashKind::Visitors => ":visitors",
            HashKind::Entries => ":entries",
            HashKind::Aliases => ":aliases",
        }
    }
}

/// What is of no bucket, by its name.
const OF_NO_BUCKET: [(&str, HashKind); 2] = [("entries", HashKind::Entries), ("aliases", HashKind::Aliases)];

/// Names a hash or a sketch of the store. Displays as its name within the site: `day:2026-11-23`,
/// `day:2026-11-23:pages`, `all`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HashName {
    pub site: SiteKey,
    pub bucket: Bucket,
    pub kind: HashKind,
}

impl HashName {
    /// Names what is kept of a site's bucket.
    pub fn new(site: &SiteKey, bucket: Bucket, kind: HashKind) -> Self {
        HashName { site: site.clone(), bucket, kind }
    }

    /// The hashes whose sums make up what is counted of it: of a page's week and year none of their own are kept.
    pub fn summed(&self) -> Vec<Self> {
        let parts = match (self.kind, self.bucket) {
            (HashKind::Pages, bucket @ (Bucket::Week(_) | Bucket::Year(_))) => bucket.parts(),
            (_, bucket) => vec![bucket],
        };
        parts.into_iter().map(|bucket| HashName { bucket, ..self.clone() }).collect()
    }

    /// What is pruned of a site when a day is: its pages, and those of the week that ends with it, in which only
    /// entries stand.
    pub fn pruned_with(site: &SiteKey, day: NaiveDate) -> Vec<Self> {
        let week = day.checked_sub_days(Days::new(6)).map(Bucket::Week);
        let buckets = [Some(Bucket::Day(day)), week].into_iter().flatten();
        buckets.map(|bucket| HashName::new(site, bucket, HashKind::Pages)).collect()
    }

    /// The day with which it is pruned; none of what is kept for ever.
    pub fn prunes_with(&self) -> Option<NaiveDate> {
        let is_kept =
            self.kind != HashKind::Pages || !matches!(self.bucket, Bucket::Day(_) | Bucket::Week(_));
        self.bucket.days().filter(|_| !is_kept).map(|(_, last)| last)
    }

    /// Whether it is pruned where the pages of days before one are.
    pub fn is_pruned(&self, before: Option<&NaiveDate>) -> bool {
        self.prunes_with().zip(before).is_some_and(|(day, before)| day < *before)
    }

    /// Reads a name of a site, as it is displayed.
    pub fn parse(site: &SiteKey, name: &str) -> Option<Self> {
        if let Some((_, kind)) = OF_NO_BUCKET.iter().find(|(of_none, _)| *of_none == name) {
            return Some(HashName::new(site, Bucket::All, *kind));
        }
        let kinds = [HashKind::Pages, HashKind::Visitors, HashKind::Entries, HashKind::Sums];
        let (text, kind) =
            kinds.into_iter().find_map(|kind| Some((name.strip_suffix(kind.suffix())?, kind)))?;
        let bucket = text.split_once(':').map_or(text, |(_, bucket)| bucket).parse().ok()?;
        let hash = HashName { site: site.clone(), bucket, kind };
        (hash.to_string() == name).then_some(hash)
    }
}

impl fmt::Display for HashName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_no_bucket = OF_NO_BUCKET.iter().find(|(_, kind)| *kind == self.kind);
        if let (Some((name, _)), Bucket::All) = (of_no_bucket, self.bucket) {
            return f.write_str(name);
        }
        if self.bucket != Bucket::All {
            write!(f, "{}:", self.bucket.period().word())?;
        }
        write!(f, "{}{}", self.bucket, self.kind.suffix())
    }
}

/// Names a part of a batch. As text (`<sequence:020>.<part:04>.<tag:016x>`) it is the marker that a hash bears
/// once the part is applied to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartId {
    pub sequence: u64,
    /// The part of it.
    pub part: u32,
    /// Drawn when the batch was frozen: two writers with one identity never agree on it.
    pub tag: u64,
}

impl PartId {
    /// Whether this part was frozen before another.
    pub fn is_before(self, other: PartId) -> bool {
        (self.sequence, self.part) < (other.sequence, other.part)
    }

    /// Appends an id, or that there is none.
    pub fn put(id: Option<PartId>, out: &mut impl Put) {
        out.put_u8(id.is_some().into());
        if let Some(id) = id {
            out.put_u64(id.sequence);
            out.put_u32(id.part);
            out.put_u64(id.tag);
        }
    }

    /// Reads what [`PartId::put`] wrote.
    pub fn take(take: &mut Take<'_>) -> Result<Option<PartId>, Damaged> {
        match take.u8()? {
            0 => Ok(None),
            1 => {
                let sequence = take.at_most(MAX_SEQUENCE)?;
                Ok(Some(PartId { sequence, part: take.u32()?, tag: take.u64()? }))
            }
            _ => Err(Damaged("the id of a part")),
        }
    }
}

impl fmt::Display for PartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}.{:04}.{:016x}", self.sequence, self.part, self.tag)
    }
}

impl FromStr for PartId {
    type Err = Damaged;

    /// Strict: a text that this type would write otherwise was written by something else.
    fn from_str(marker: &str) -> Result<Self, Damaged> {
        let mut pieces = marker.split('.');
        let mut next = |radix| {
            let piece = pieces.next().ok_or(Damaged("a marker"))?;
            u64::from_str_radix(piece, radix).map_err(|_| Damaged("a marker"))
        };
        let id = PartId { sequence: next(10)?, part: next(10)? as u32, tag: next(16)? };
        let is_ours = id.to_string() == marker && id.sequence <= MAX_SEQUENCE;
        if is_ours { Ok(id) } else { Err(Damaged("a marker")) }
    }
}

/// Something for each of some fields.
pub type ByField<T> = Vec<(Arc<str>, T)>;

/// The last part frozen for each hash.
pub type LastParts = HashMap<HashName, PartId>;

/// Additions and entries to one hash: at most [`MAX_FIELDS`] distinct fields, those of additions beginning with neither
/// `#` nor `+`, those of entries with `+`. Frozen: every
/// try sends the same. Without fields it moves the marker alone. Both stores write best when the
/// fields are in order, within a part and from part to part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub hash: HashName,
    /// The part that the hash must bear as its marker; none where this writer never wrote to it.
    pub prev: Option<PartId>,
    /// The marker that it bears afterwards.
    pub id: PartId,
    /// Fields and what to add.
    pub sums: ByField<u64>,
    /// Fields and the registers that take the place of earlier ones there.
    pub entries: ByField<Entry>,
    /// Where the hash may be shown with less than was read from it, since sums are lost or something is entered: its
    /// revision becomes this, or the one after its own if that is more. Else it stays.
    pub revision: Option<u64>,
}

impl Part {
    /// Says what a store could not apply as it is meant: it would lose a sum or a marker.
    pub fn fault(&self) -> Option<&'static str> {
        let entered = || self.entries.iter().map(|(field, _)| &**field);
        let distinct = || {
            let mut fields: Vec<&str> =
                self.sums.iter().map(|(field, _)| &**field).chain(entered()).collect();
            fields.sort_unstable();
            fields.windows(2).all(|pair| pair[0] < pair[1])
        };
        let is_sorted = self.entries.is_empty() && self.sums.is_sorted_by(|a, b| a.0 < b.0);
        if self.sums.len() + self.entries.len() > MAX_FIELDS {
            Some("more than 1,000 fields")
        } else if self.sums.iter().any(|(field, _)| field.starts_with(['#', '+'])) {
            Some("a field that begins with #, as markers do, or with +, as entries do")
        } else if entered().any(|field| !field.starts_with('+')) {
            Some("an entry whose field does not begin with +")
        } else if !(is_sorted || distinct()) {
            Some("a field twice")
        } else {
            None
        }
    }
}

/// Distinct visitors to merge into a sketch of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SketchPart {
    pub name: HashName,
    /// Registers to raise. Raising again changes nothing: no marker guards it.
    pub registers: Registers,
}
