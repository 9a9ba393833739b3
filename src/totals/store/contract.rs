//! What a store does. It is implemented by the embedded store, by Redis, and in tests by a model.
//!
//! Totals are stored in **hashes**: a site, a name (`day:2026-11-23`, `day:2026-11-23:pages`, `all`) and in it fields
//! (`views`, `visits`, `filtered:robot`, a page) with sums, beside each what was **entered** (`+views`, a register:
//! of two the later one holds), and one **marker** for each writer. A marker names the last part of a batch that its
//! writer applied to that hash. It is part of the hash, so that it is lost together with the sums, never without
//! them. Beside them stands the hash's **revision**, which rises where its sums were changed otherwise than by adding
//! to them: what is read under a higher one takes the place of what was read before, though it be less. It is part of
//! the hash, too.
//!
//! | | embedded | Redis |
//! |---|---|---|
//! | atomic together | a whole [`apply`](Store::apply) | one part |
//! | on disk when `Ok` is returned | yes | as the server's `appendfsync` says |
//! | may go back in time | only with its file | killed, failed over, restored: markers show it |
//! | several writers | yes, one process at a time | yes |

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;

use super::dump::Dump;
use super::error::Reply;
pub use super::error::{StoreError, StoreText};
use super::progress::Progress;
use super::url::StoreUrl;
use crate::calendar::Calendar;
use crate::clock::Clock;
use crate::ingest::MAX_PAGE;
use crate::sites::SiteKey;
use crate::totals::batch::part::{Entry, HashName, MAX_SUM, Part, PartId, SketchPart};
use crate::totals::batch::sketch::Sketch;

/// Settings of the store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Which store.
    pub url: StoreUrl,
    /// A PEM file of the authorities that a `rediss://` server is checked against, instead of the
    /// public ones.
    pub tls_ca_file: Option<std::path::PathBuf>,
    /// Time between flushes.
    pub flush_interval: Duration,
    /// How long one store operation may take.
    pub timeout: Duration,
}

impl StoreConfig {
    /// The same settings for another store.
    pub fn at(&self, url: StoreUrl) -> StoreConfig {
        let tls_ca_file = self.tls_ca_file.clone().filter(|_| url.is_encrypted());
        StoreConfig { url, tls_ca_file, ..self.clone() }
    }
}

/// The identity that applies batches: 16 hex digits, born with a `data_dir`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct WriterId(pub Arc<str>);

/// What became of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The hash held the marker `prev`: the sums were added, and its marker is the part now.
    Applied,
    /// Its marker was the part already, or the hash is pruned: nothing was written.
    Already,
    /// Its marker was another one, or it had none: nothing was written.
    Found(Option<PartId>),
}

/// A question for a hash.
#[derive(Clone, Debug)]
pub struct Query {
    pub hash: HashName,
    pub fields: Vec<Arc<str>>,
}

/// The answer to a [`Query`], read at one instant: the sums hold exactly what the marker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The asking writer's marker.
    pub marker: Option<PartId>,
    /// One for each field, in order; none where the hash lacks it.
    pub sums: Vec<Option<u64>>,
    /// What is entered beside each.
    pub entries: Vec<Option<Entry>>,
    /// The hash's revision, which is 0 at first.
    pub revision: u64,
}

/// One run of a process on a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// 16 hex digits, drawn when it began.
    pub id: Arc<str>,
    /// The last batch that was frozen before it began.
    pub base: u64,
}

/// What a writer expects of a site's data when it attaches. Nothing, by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The data set; none: whichever is there.
    pub dataset: Option<Arc<str>>,
    /// The id of the data set if it is born; none: a random one.
    pub birth: Option<Arc<str>>,
    /// The runs of the writer's directory, oldest first; the last is this process. Redis lets one run hold
    /// a writer, the last that attached, and lets it go to a later run of the same directory only. Empty:
    /// anyone may apply as this writer. One that was retired is let go to nobody, in either store.
    pub runs: Vec<Run>,
}

/// How a writer stands to a site's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The data was born just now.
    Born,
    /// It is what was expected.
    Ours,
    /// It is another data set than the one expected, or gone. Nothing was written.
    Other,
    /// A run of another directory holds the writer: a copy of this one. Nothing was written.
    Twin,
    /// The writer was retired. Nothing was written.
    Retired,
}

/// What a store says of a site's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The id that the data set was born with.
    pub dataset: Arc<str>,
    /// The first civil day that was ever attached: visitors of `all` are summed from here.
    pub since: NaiveDate,
    /// The day before which pages of days are pruned, if any are.
    pub pruned: Option<NaiveDate>,
    /// How the writer stands to it.
    pub standing: Standing,
    /// Where the writer passed from one run to another that need not be of the same directory, or is held
    /// by a twin: batches up to this one are the same in both. Of a retired writer: its last batch.
    pub fork: Option<u64>,
}

/// Why the clock of this machine is wrong, if it is. It says the same as long as that is so.
pub fn clock_fault(clock: &Clock) -> Option<String> {
    let (now, utc) = (clock.now(), Calendar::utc());
    let day = utc.span(now.unix_ms).hour.day;
    match clock.was_behind(now).map(|least_ms| utc.rfc3339(least_ms)) {
        Some(least) => Some(format!(
            "the clock of this machine is wrong: it was {least} already when this ran last, or was made; set it right \
             (if it was ahead then, stop this, move the file `checkpoint` out of data_dir, and start it again)"
        )),
        None if day > EARLIEST_DAY => None,
        None => Some(format!("the clock of this machine says {day} and is not set")),
    }
}

/// No data set began before this day: a store that says so is not believed, and no day before it is asked for.
pub const EARLIEST_DAY: NaiveDate = NaiveDate::from_ymd_opt(2000, 1, 1).expect("a day of the calendar");

/// Reads a day as a store or a file writes it.
pub fn written_day(text: &str) -> Option<NaiveDate> {
    let day: NaiveDate = text.parse().ok().filter(|day| *day >= EARLIEST_DAY)?;
    (text.len() == 10 && day.to_string() == text).then_some(day)
}

/// Whether a text can be the id of a data set or of a writer: such ids become words of files.
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Fields that shall be folded into `(other)`.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    /// The hashes that they go from.
    pub hashes: Vec<HashName>,
    /// Pages, and entries with their `+`.
    pub fields: Vec<Arc<str>>,
    /// Only pages go that have fewer views in the first of the hashes, no entry beside them there, and are in none of
    /// `days`.
    pub below: Option<u64>,
    pub days: Vec<HashName>,
}

/// A setting of the store's server that endangers counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concern {
    /// Nothing may be sent while it is so.
    pub refused: bool,
    /// What it is and what to do, in a sentence.
    pub text: String,
}

/// A store.
///
/// Methods may be called from several tasks at once, and `retire` and `top`, which may take long, hold up no other; for
/// one writer, `apply` is called by one task
/// only, and waits for its answer before it is called again. Nothing blocks the caller's thread.
/// A call whose future is dropped may or may not have been carried out, as with `Unreachable`.
///
/// How long a call takes: Redis answers each round trip, connecting included, within
/// [`StoreConfig::timeout`] or the call fails; the embedded store takes as long as the disk does.
///
/// Every method may be tried again after [`StoreError::Unreachable`] and [`StoreError::File`]: parts are guarded by markers, and
/// merging sketches, attaching, retiring and asking for a salt change nothing the second time. Nothing that a
/// store says is used as it comes: what is not as it should be written (a sum that is not plain digits or above
/// [`MAX_SUM`], a marker that names no part, bytes that are no sketch, a day before [`EARLIEST_DAY`]) is `Refused`.
pub trait Store: Send + Sync + 'static {
    /// All that it holds, for tools.
    type Dump: Dump;

    /// What kind of store it is, in a word.
    fn kind(&self) -> &'static str;

    /// Whether other instances may write to it too, and whether it may be away while this process runs.
    fn is_shared(&self) -> bool;

    /// Changes whenever what answers may be another server, or the same one started anew.
    fn generation(&self) -> u64;

    /// What in the server's settings endangers counts. A server that is too old is `Refused`.
    fn concerns(&self) -> impl Reply<Vec<Concern>>;

    /// Registers the writer with a site's data, which is born if there is none. With an empty `zone` the one
    /// that is there stays.
    ///
    /// Keeps the earliest `today` ever attached as `since`, and the zone and the writer's last sign of
    /// life for people to read. May be called again at any time, by several writers at once: one of
    /// them is told that the data was `Born`, all are told the same data set. Redis holds later calls of
    /// `apply` on the site to the claim. Data of another format is `Refused`.
    fn attach(
        &self,
        site: &SiteKey,
        zone: &str,
        writer: &WriterId,
        today: NaiveDate,
        claim: &Claim,
    ) -> impl Reply<Attached>;

    /// The writers that a site's data knows, and when each last attached: Unix seconds.
    fn writers(&self, site: &SiteKey) -> impl Reply<Vec<(WriterId, i64)>>;

    /// Removes writers' markers from every hash of a site up to `today`, and has the process of one, should it come
    /// back, be told so: here, and in whatever store the site is copied to. How many markers.
    fn retire(&self, site: &SiteKey, writers: &[WriterId], today: NaiveDate) -> impl Reply<u64>;

    /// How far a writer had come with a site when it was retired; none where its hashes tell it themselves.
    fn progress(&self, site: &SiteKey, writer: &WriterId) -> impl Reply<Option<Progress>>;

    /// Applies parts in order, each atomically with its marker. On return with `Ok`, each outcome is
    /// what the store did, and the embedded store has it on disk. Sketches are merged too, before the
    /// parts.
    ///
    /// A part that does not fit (see [`Outcome::Found`]) holds up no other; several parts may follow
    /// one another on one hash, each with the marker of the one before it as its `prev`. On
    /// `Unreachable` any of the parts may have been applied (the embedded store: all or none): send
    /// the same parts again, those that were applied answer [`Outcome::Already`].
    ///
    /// An entry takes the place of one with an earlier stamp only.
    ///
    /// A sum that would pass [`MAX_SUM`], and a part that breaks the rules
    /// of [`Part`], are `Refused`; then Redis may have applied other parts of the call, the embedded store has
    /// applied none.
    fn apply(
        &self,
        writer: &WriterId,
        parts: Vec<Part>,
        sketches: Vec<SketchPart>,
    ) -> impl Reply<Vec<Outcome>>;

    /// Notes the calendar of a site, as `<zone> <first day of the week>`, with a mark of the change at an
    /// instant, if it was another one, which is answered. Where its weeks begin on another day the hash of the
    /// running week is made the sum of its days. In one step.
    fn note_calendar(
        &self,
        calendar: &str,
        at: &str,
        week: HashName,
        days: Vec<HashName>,
    ) -> impl Reply<Option<String>>;

    /// Removes the pages of some days (see [`HashName::pruned_with`]) and notes, together with that, that those before
    /// the end of them are pruned; where the day that is noted is not `held`, nothing. The embedded store goes on with
    /// few days only where these have many pages. The day that is noted then. What comes later for what is pruned is
    /// answered [`Outcome::Already`], and sums of a longer time keep all that was in it.
    fn prune(
        &self,
        site: &SiteKey,
        held: Option<NaiveDate>,
        days: Range<NaiveDate>,
    ) -> impl Reply<Option<NaiveDate>>;

    /// Removes fields of hashes, in one step; sums among them become part of that of `(other)`, hash by hash, so that
    /// longer sums stay what they are. It may be done again at any time. How many there were, hash by hash.
    fn fold(&self, fold: Fold) -> impl Reply<u64>;

    /// Reads sums, each hash at one instant. The answers are in the order of the queries.
    fn read(&self, writer: &WriterId, queries: Vec<Query>) -> impl Reply<Vec<Found>>;

    /// Counts an entry of a site. Its number is above `known`, that of the last entry whose writing was seen, and above
    /// every one that was answered before, as far as the store did not go back. None where another writer was answered
    /// a later number just now: what it enters is to be seen first.
    fn next_entry(&self, site: &SiteKey, known: u64) -> impl Reply<Option<u64>>;

    /// Removes all that is stored of a site, its data set first. It may be done again at any time.
    fn remove(&self, site: &SiteKey) -> impl Reply<()>;

    /// The fields of a hash that show most, sums and entries together, at most `most`: largest first, and those that
    /// show the same by name. Only about [`TOP_OF`] fields of the hash are read, and of Redis no more after
    /// [`TOP_FOR`], however many pages there are.
    fn top(&self, hash: &HashName, most: usize) -> impl Reply<Vec<(String, u64)>>;

    /// Reads sketches, in the order of the names; none where there is none.
    fn sketches(&self, names: Vec<HashName>) -> impl Reply<Vec<Option<Sketch>>>;

    /// Estimates of sketches, in the order of the names, without sending their registers; 0 where
    /// there is none.
    fn visitors(&self, names: Vec<HashName>) -> impl Reply<Vec<u64>>;

    /// The salt of a site's civil day: the one that is there, else the proposed one, which is kept
    /// from now for `keep`. Of several writers that propose at once, one is heard by all.
    ///
    /// Redis deletes the salt after `keep` by itself. The embedded store has no clock: it keeps the
    /// salt of a day until the end of that day (UTC) and `keep` have passed, and deletes it when it is
    /// next asked for the salt of a day that begins after that, of any site.
    fn salt(
        &self,
        site: &SiteKey,
        day: NaiveDate,
        proposed: [u8; 16],
        keep: Duration,
    ) -> impl Reply<[u8; 16]>;

    /// All that it holds: the embedded store as it is now, Redis over a connection of its own.
    fn dump(&self) -> impl Reply<Self::Dump>;
}

/// Fields that [`Store::top`] reads.
pub const TOP_OF: usize = 200_000;

/// After so long [`Store::top`] answers with what it has read.
pub const TOP_FOR: Duration = Duration::from_secs(10);

/// The fields that show most, of any number told one after another.
pub struct Top {
    most: usize,
    /// Those with the largest sums, the smallest of them first.
    heap: BinaryHeap<Reverse<(u64, Reverse<String>)>>,
    /// What is entered beside sums.
    entered: HashMap<String, i64>,
}

impl Top {
    pub fn new(most: usize) -> Self {
        Top { most, heap: BinaryHeap::new(), entered: HashMap::new() }
    }

    /// What can be no page and no sum of one is left out.
    pub fn tell(&mut self, field: String, sum: u64) {
        if is_no_page(&field) || field.starts_with('+') || sum > MAX_SUM {
            return;
        }
        self.heap.push(Reverse((sum, Reverse(field))));
        if self.heap.len() > self.most {
            self.heap.pop();
        }
    }

    /// What stands in a field that begins with `+`.
    pub fn tell_entry(&mut self, field: &str, text: &str) {
        let amount = Entry::beside_sum(text).map_or(0, |entry| entry.amount());
        if let Some(page) = field.strip_prefix('+').filter(|page| amount != 0 && !is_no_page(page)) {
            self.entered.insert(page.to_owned(), amount);
        }
    }

    /// The largest first. Of a field that is not among those with the largest sums what is entered counts alone.
    pub fn sorted(mut self) -> Vec<(String, u64)> {
        let counted = std::mem::take(&mut self.heap).into_iter().map(|Reverse((sum, Reverse(field)))| {
            let entered = self.entered.remove(&field).unwrap_or_default();
            (field, sum.saturating_add_signed(entered))
        });
        let mut shown: Vec<(String, u64)> = counted.collect();
        shown.extend(self.entered.into_iter().filter_map(|(field, sum)| Some((field, sum.try_into().ok()?))));
        shown.sort_by(|(a, more), (b, less)| less.cmp(more).then_with(|| a.cmp(b)));
        shown.truncate(self.most);
        shown
    }
}

fn is_no_page(field: &str) -> bool {
    field.len() > MAX_PAGE || field.contains(char::is_control)
}

/// Refuses parts that break the rules.
pub fn check(parts: &[Part]) -> Result<(), StoreError> {
    let fault = parts.iter().find_map(|part| Some((part, part.fault()?)));
    fault.map_or(Ok(()), |(Part { hash, .. }, fault)| {
        Err(StoreError::refused(format!("a part of {} {hash} has {fault}", hash.site)))
    })
}

#[cfg(test)]
mod tests {
    use super::Top;

    #[test]
    fn the_largest_come_first_and_ties_in_order() {
        let mut top = Top::new(10);
        (0..50u64).for_each(|i| top.tell(format!("/{i:02}"), i / 2));
        let fields: Vec<String> = top.sorted().into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields.len(), 10);
        assert_eq!((&*fields[0], &*fields[1], &*fields[9]), ("/48", "/49", "/41"));
    }

    #[test]
    fn what_is_entered_counts_whenever_it_is_told() {
        let mut top = Top::new(3);
        let entry = |amount: i64| format!("{amount} 1 0123456789abcdef");
        top.tell_entry("+/a", &entry(10));
        for (page, sum) in [("/a", 5), ("/b", 14), ("/c", 20), ("/d", 1)] {
            top.tell(page.to_owned(), sum);
        }
        for (page, amount) in [("+/b", 2), ("+/c", -18), ("+/e", 12), ("+/f", 0), ("+/g", -9)] {
            top.tell_entry(page, &entry(amount));
        }
        top.tell_entry("+/h", "x");
        let shown = [("/b", 16), ("/a", 15), ("/e", 12)].map(|(page, sum)| (page.to_owned(), sum));
        assert_eq!(top.sorted(), shown);
    }
}
