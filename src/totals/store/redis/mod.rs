//! Totals on Redis ≥ 7.0 or Valkey.
//!
//! A hash holds its sums, a field `#<writer>` with each writer's marker, `#revision` where that is not 0, and `+<field>`
//! beside a sum with what was entered (`<signed number> <number of the entry> <writer>`);
//! `apply.lua` changes them together.
//!
//! A call that was given up may still be carried out by the server, later or at the same time as its repetition.
//! Everything that is sent here allows for that.

mod connection;
mod dump;
mod keys;
mod retire;
mod settings;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::NaiveDate;
use redis::{FromRedisValue, Pipeline, RedisResult, Script, Value};
use tokio::time::Instant;

use self::connection::Connection;
pub use self::connection::check_authorities;
pub use self::dump::Keyspace;
use self::keys::{hash_key, key, marker_field, stored_key};
use super::contract::{
    Attached, Claim, Concern, Fold, Found, Outcome, Query, Standing, Store, StoreConfig, StoreError,
    StoreText, TOP_FOR, TOP_OF, Top, WriterId, check, is_id, written_day,
};
use super::dump::{Fields, Fill, REVISION, STEP, StoredName, seen_as_seconds};
use super::progress::Progress;
use crate::random;
use crate::sites::SiteKey;
use crate::totals::batch::part::{
    self, Entry, HashName, MAX_SUM, Part, PartId, SketchPart, Sums, field_beside,
};
use crate::totals::batch::sketch::Sketch;

/// The layout of the keys.
pub const FORMAT: &str = "1";
/// Most scripts or whole sketches in one round trip, so that it does not hold up the server's other
/// clients for long (a script of 1,000 fields takes about 0.8 ms).
const LARGE_TRIP: usize = 100;
/// Most small commands in one round trip.
const SMALL_TRIP: usize = 1000;
/// After this the server forgets a sketch whose merging was broken off.
const MERGE_EXPIRY_S: u32 = 600;

/// By site what was attached: the data set and the run.
type Claims = HashMap<SiteKey, (Arc<str>, Arc<str>)>;

/// The Redis store.
pub struct Redis {
    connection: Box<Connection>,
    apply: Source,
    attach: Source,
    /// Calls of `apply` are held to it.
    claims: Mutex<Claims>,
}

/// A script and its SHA-1.
struct Source {
    text: &'static str,
    sha: String,
}

impl Redis {
    /// Takes the settings; does not connect. A URL or a CA file that cannot be used is `Refused`.
    pub fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        Ok(Redis {
            connection: Box::new(Connection::new(config)?),
            apply: Source::new(include_str!("apply.lua")),
            attach: Source::new(include_str!("attach.lua")),
            claims: Mutex::default(),
        })
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn apply_some(&self, writer: &WriterId, parts: &[Part]) -> Result<Vec<Outcome>, StoreError> {
        let pipe = |command, script| apply_pipe(command, script, writer, parts, &self.claims());
        let mut replies = self.connection.ask(pipe("EVALSHA", &self.apply.sha)).await?;
        if replies.iter().flat_map(|reply| reply.as_ref().err()).any(|err| err.code() == Some("NOSCRIPT")) {
            // In a pipeline the parts after the refused one have run. All are sent again, in order:
            // the markers keep what was applied from being applied twice, its outcome stands.
            let again = self.connection.ask(pipe("EVAL", self.apply.text)).await?;
            for (reply, again) in replies.iter_mut().zip(again) {
                if !matches!(reply, Ok(Value::Int(_))) {
                    *reply = again;
                }
            }
        }
        let outcome = |(part, reply): (&Part, RedisResult<Value>)| match self.told(&part.hash, reply)? {
            Value::Int(1) => Ok(Outcome::Applied),
            Value::Int(0) => Ok(Outcome::Already),
            found => Ok(Outcome::Found(marker(&part.hash, self.read_as(&part.hash, found)?)?)),
        };
        parts.iter().zip(replies).map(outcome).collect()
    }

    /// What the script does for parts: no marker guards a sketch.
    async fn check_claims(&self, writer: &WriterId, sketches: &[SketchPart]) -> Result<(), StoreError> {
        let mut sites: Vec<&SiteKey> = sketches.iter().map(|part| &part.name.site).collect();
        sites.dedup();
        for site in sites {
            let Some((dataset, run)) = self.claims().get(site).cloned() else { continue };
            let mut get = redis::cmd("HMGET");
            get.arg(key(site, "meta")).arg("dataset").arg(format!("run:{}", writer.0));
            let held: (Option<String>, Option<String>) = self.connection.only(&get).await?;
            let same = |held: Option<String>, ours: &str| ours.is_empty() || held.as_deref() == Some(ours);
            if !(same(held.0, &dataset) && same(held.1, &run)) {
                return Err(StoreError::Detached);
            }
        }
        Ok(())
    }

    /// Merges sketches through keys of their own. No transaction around it: a torn `MULTI` at the end
    /// of the append file is what Redis recovers from worst, and merging twice changes nothing.
    async fn merge(&self, sketches: &[SketchPart]) -> Result<(), StoreError> {
        // A name never used before: what is left of a call that was given up cannot come between.
        let once = random::id();
        let mut pipe = redis::pipe();
        for (n, part) in sketches.iter().enumerate() {
            let mut sketch = Sketch::new();
            sketch.raise(&part.registers);
            let part_key = key(&part.name.site, format!("merge:{once}:{n}"));
            pipe.cmd("SET").arg(&part_key).arg(sketch.to_bytes()).arg("EX").arg(MERGE_EXPIRY_S);
            pipe.cmd("PFMERGE").arg(hash_key(&part.name)).arg(&part_key);
            pipe.cmd("DEL").arg(&part_key);
        }
        let mut replies = self.connection.ask(pipe).await?.into_iter();
        for part in sketches {
            for reply in replies.by_ref().take(3) {
                self.told(&part.name, reply)?;
            }
        }
        Ok(())
    }

    fn found(&self, query: &Query, reply: RedisResult<Value>) -> Result<Found, StoreError> {
        let values: Vec<Option<String>> = self.read_as(&query.hash, self.told(&query.hash, reply)?)?;
        let mut values = values.into_iter();
        let marker = values.next().flatten().map_or(Ok(None), |text| marker(&query.hash, text))?;
        let sum = |(field, value): (&str, Option<String>)| {
            let Some(value) = value else { return Ok(None) };
            let name = hash_key(&query.hash);
            let text = || StoreError::refused(format!("{name}: the sum of {field} is not a plain number"));
            part::sum(&value).map(Some).ok_or_else(text)
        };
        let revision = sum((REVISION, values.next().flatten()))?.unwrap_or_default();
        let fields = query.fields.iter().map(|field| &**field);
        let sums = fields.clone().zip(values.by_ref()).map(sum).collect::<Result<_, _>>()?;
        let entry = |(field, value): (&str, Option<String>)| {
            let text = || format!("{}: no entry stands beside {field}", hash_key(&query.hash));
            value.map(|value| Entry::beside_sum(&value).map_err(|_| StoreError::refused(text()))).transpose()
        };
        let entries = fields.zip(values).map(entry).collect::<Result<_, _>>()?;
        Ok(Found { marker, sums, entries, revision })
    }

    /// Asks one thing of each name.
    async fn ask_each<T>(
        &self,
        command: &str,
        trip: usize,
        names: &[HashName],
        read: impl Fn(&HashName, Value) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut answers = Vec::with_capacity(names.len());
        for some in names.chunks(trip) {
            let mut pipe = redis::pipe();
            for name in some {
                pipe.cmd(command).arg(hash_key(name));
            }
            for (name, reply) in some.iter().zip(self.connection.ask(pipe).await?) {
                answers.push(read(name, self.told(name, reply)?)?);
            }
        }
        Ok(answers)
    }

    /// What the server told of a hash.
    fn told(&self, hash: &HashName, reply: RedisResult<Value>) -> Result<Value, StoreError> {
        reply.map_err(|err| self.connection.fault(&err).within(hash_key(hash)))
    }

    fn read_as<T: FromRedisValue>(&self, hash: &HashName, value: Value) -> Result<T, StoreError> {
        self.connection.read_as(value).map_err(|fault| fault.within(hash_key(hash)))
    }
}

impl Store for Redis {
    type Dump = Keyspace;

    fn kind(&self) -> &'static str {
        "redis"
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn generation(&self) -> u64 {
        self.connection.made()
    }

    async fn concerns(&self) -> Result<Vec<Concern>, StoreError> {
        settings::concerns(&self.connection).await
    }

    async fn attach(
        &self,
        site: &SiteKey,
        zone: &str,
        writer: &WriterId,
        today: NaiveDate,
        claim: &Claim,
    ) -> Result<Attached, StoreError> {
        let mut call = redis::cmd("EVAL");
        call.arg(self.attach.text).arg(1).arg(key(site, "meta"));
        let birth = claim.birth.as_deref().map_or_else(random::id, str::to_owned);
        call.arg(FORMAT).arg(claim.dataset.as_deref().unwrap_or("")).arg(birth);
        call.arg(today.to_string()).arg(zone).arg(&*writer.0);
        // Beside each run where the next one began; the last has none.
        let next = claim.runs.iter().skip(1).map(|run| run.base.to_string()).chain([String::new()]);
        for (run, base) in claim.runs.iter().zip(next) {
            call.arg(&*run.id).arg(base);
        }
        let told: [String; 5] = self.connection.only(&call).await?;
        let attached = attached(&told, today).map_err(|fault| fault.within(key(site, "meta")))?;
        if matches!(attached.standing, Standing::Born | Standing::Ours) {
            let run = claim.runs.last().map_or_else(|| "".into(), |run| run.id.clone());
            self.claims().insert(site.clone(), (attached.dataset.clone(), run));
        }
        Ok(attached)
    }

    async fn writers(&self, site: &SiteKey) -> Result<Vec<(WriterId, i64)>, StoreError> {
        retire::writers(&self.connection, site).await
    }

    async fn retire(
        &self,
        site: &SiteKey,
        writers: &[WriterId],
        today: NaiveDate,
    ) -> Result<u64, StoreError> {
        retire::retire(&self.connection.another(), site, writers, today).await
    }

    async fn progress(&self, site: &SiteKey, writer: &WriterId) -> Result<Option<Progress>, StoreError> {
        let mut get = redis::cmd("HGET");
        get.arg(key(site, "meta")).arg(format!("runs:{}", writer.0));
        let runs: Option<String> = self.connection.only(&get).await?;
        Progress::read(site, &runs.unwrap_or_default()).map_err(|fault| fault.within(key(site, "meta")))
    }

    async fn apply(
        &self,
        writer: &WriterId,
        parts: Vec<Part>,
        sketches: Vec<SketchPart>,
    ) -> Result<Vec<Outcome>, StoreError> {
        check(&parts)?;
        if !sketches.is_empty() {
            self.check_claims(writer, &sketches).await?;
        }
        for some in sketches.chunks(LARGE_TRIP) {
            self.merge(some).await?;
        }
        let mut outcomes = Vec::with_capacity(parts.len());
        for some in parts.chunks(LARGE_TRIP) {
            outcomes.append(&mut self.apply_some(writer, some).await?);
        }
        Ok(outcomes)
    }

    async fn note_calendar(
        &self,
        calendar: &str,
        at: &str,
        week: HashName,
        days: Vec<HashName>,
    ) -> Result<Option<String>, StoreError> {
        let mut call = redis::cmd("EVAL");
        call.arg(include_str!("calendar.lua")).arg(2 + days.len());
        call.arg(key(&week.site, "meta")).arg(hash_key(&week));
        days.iter().for_each(|day| _ = call.arg(hash_key(day)));
        call.arg(calendar).arg(at);
        Sums::fields().iter().for_each(|field| _ = call.arg(&**field));
        let before: Option<String> = self.connection.only(&call).await?;
        Ok(before.map(|before| StoreText::from(before).to_string()))
    }

    async fn read(&self, writer: &WriterId, queries: Vec<Query>) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::with_capacity(queries.len());
        for some in queries.chunks(SMALL_TRIP) {
            let mut pipe = redis::pipe();
            for query in some {
                pipe.cmd("HMGET").arg(hash_key(&query.hash)).arg(marker_field(writer)).arg(REVISION);
                query.fields.iter().for_each(|field| _ = pipe.arg(&**field));
                query.fields.iter().for_each(|field| _ = pipe.arg(&*field_beside(field)));
            }
            for (query, reply) in some.iter().zip(self.connection.ask(pipe).await?) {
                found.push(self.found(query, reply)?);
            }
        }
        Ok(found)
    }

    async fn next_entry(&self, site: &SiteKey, known: u64) -> Result<Option<u64>, StoreError> {
        let mut call = redis::cmd("EVAL");
        call.arg(include_str!("entry.lua")).arg(1).arg(key(site, "meta")).arg(known);
        let told: String = self.connection.only(&call).await?;
        if told == "0" {
            return Ok(None);
        }
        let number = part::sequence(&told).filter(|number| *number > known).map(Some);
        number.ok_or_else(|| StoreError::refused(format!("{}: entry is {told:?}", key(site, "meta"))))
    }

    async fn prune(
        &self,
        site: &SiteKey,
        held: Option<NaiveDate>,
        days: Range<NaiveDate>,
    ) -> Result<Option<NaiveDate>, StoreError> {
        let all = days.start.iter_days().take_while(|day| *day < days.end);
        let hashes: Vec<HashName> = all.flat_map(|day| HashName::pruned_with(site, day)).collect();
        let mut call = redis::cmd("EVAL");
        call.arg(include_str!("prune.lua")).arg(1 + hashes.len()).arg(key(site, "meta"));
        hashes.iter().for_each(|hash| _ = call.arg(hash_key(hash)));
        let dataset = self.claims().get(site).map_or_else(|| "".into(), |(dataset, _)| dataset.clone());
        call.arg(&*dataset)
            .arg(held.map_or_else(String::new, |day| day.to_string()))
            .arg(days.end.to_string());
        let told: String = self.connection.only(&call).await?;
        noted_day(&told).map_err(|fault| fault.within(key(site, "meta")))
    }

    async fn remove(&self, site: &SiteKey) -> Result<(), StoreError> {
        let meta = key(site, "meta");
        let connection = self.connection.another();
        let _: u64 = connection.only(redis::cmd("UNLINK").arg(meta)).await?;
        let keys: Vec<String> = connection.keys(&key(site, "*")).await?.into_iter().collect();
        for some in keys.chunks(LARGE_TRIP) {
            let _: u64 = connection.only(redis::cmd("UNLINK").arg(some)).await?;
        }
        Ok(())
    }

    async fn fold(&self, fold: Fold) -> Result<u64, StoreError> {
        let mut call = redis::cmd("EVAL");
        call.arg(include_str!("fold.lua")).arg(fold.hashes.len() + fold.days.len());
        fold.hashes.iter().chain(&fold.days).for_each(|hash| _ = call.arg(hash_key(hash)));
        call.arg(fold.hashes.len()).arg(fold.below.map_or_else(String::new, |below| below.to_string()));
        fold.fields.iter().for_each(|field| _ = call.arg(&**field));
        self.connection.only(&call).await
    }

    async fn top(&self, hash: &HashName, most: usize) -> Result<Vec<(String, u64)>, StoreError> {
        let (mut top, mut from) = (Top::new(most), Some(None));
        let (connection, began) = (self.connection.another(), Instant::now());
        for _ in 0..TOP_OF / STEP {
            let Some(cursor) = from.filter(|_| began.elapsed() < TOP_FOR) else { break };
            let (fields, next) = connection.fields(&hash_key(hash), cursor).await?;
            from = next.map(Some);
            for (field, text) in fields.into_iter().filter(|(field, _)| !field.starts_with('#')) {
                top.tell_entry(&field, &text);
                let Some(sum) = part::sum(&text) else { continue };
                top.tell(field, sum);
            }
        }
        Ok(top.sorted())
    }

    async fn sketches(&self, names: Vec<HashName>) -> Result<Vec<Option<Sketch>>, StoreError> {
        let read = |name: &HashName, reply| {
            let bytes: Option<Vec<u8>> = self.read_as(name, reply)?;
            let sketch = bytes.map(|bytes| Sketch::from_bytes(&bytes)).transpose();
            sketch.map_err(|err| StoreError::refused(format!("{}: {err}", hash_key(name))))
        };
        self.ask_each("GET", LARGE_TRIP, &names, read).await
    }

    async fn visitors(&self, names: Vec<HashName>) -> Result<Vec<u64>, StoreError> {
        let read = |name: &HashName, reply| {
            let told: i64 = self.read_as(name, reply)?;
            let visitors = u64::try_from(told).ok().filter(|visitors| *visitors <= MAX_SUM);
            visitors.ok_or_else(|| StoreError::refused(format!("{}: {told} visitors", hash_key(name))))
        };
        self.ask_each("PFCOUNT", SMALL_TRIP, &names, read).await
    }

    async fn salt(
        &self,
        site: &SiteKey,
        day: NaiveDate,
        proposed: [u8; 16],
        keep: Duration,
    ) -> Result<[u8; 16], StoreError> {
        let key = key(site, format!("salt:{day}"));
        let hex = format!("{:032x}", u128::from_be_bytes(proposed));
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(hex).arg("NX").arg("GET").arg("EX").arg(keep.as_secs().max(1));
        let Some(held) = self.connection.only::<Option<String>>(&set).await? else { return Ok(proposed) };
        match u128::from_str_radix(&held, 16) {
            Ok(salt) if held.len() == 32 && !held.starts_with('+') => Ok(salt.to_be_bytes()),
            _ => Err(StoreError::refused(format!("{key} is not 32 hex digits"))),
        }
    }

    async fn dump(&self) -> Result<Keyspace, StoreError> {
        Ok(Keyspace(self.connection.another()))
    }
}

impl Fill for Redis {
    async fn put_all(&self, hashes: Vec<(StoredName, Fields)>) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        for (hash, fields) in hashes.iter().filter(|(_, fields)| !fields.is_empty()) {
            pipe.cmd("HSET").arg(stored_key(hash));
            for (field, value) in fields {
                pipe.arg(field).arg(value);
            }
        }
        self.connection.all(pipe).await.map(drop)
    }

    async fn put_sketches(&self, sketches: Vec<(StoredName, Vec<u8>)>) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        for (name, bytes) in &sketches {
            pipe.cmd("SET").arg(stored_key(name)).arg(bytes);
        }
        self.connection.all(pipe).await.map(drop)
    }

    async fn put_meta(&self, site: &SiteKey, meta: Fields) -> Result<(), StoreError> {
        let meta = meta.into_iter().map(|(name, value)| {
            let value = if name.starts_with("writer:") { seen_as_seconds(&value) } else { value };
            (name, value)
        });
        self.connection.note(site, meta).await
    }
}

impl Source {
    fn new(text: &'static str) -> Self {
        Source { text, sha: Script::new(text).get_hash().to_owned() }
    }
}

/// Reads the day before which pages are pruned.
fn noted_day(told: &str) -> Result<Option<NaiveDate>, StoreError> {
    let day = written_day(told);
    if day.is_some() || told.is_empty() {
        Ok(day)
    } else {
        Err(StoreError::refused(format!("pruned is {told:?}")))
    }
}

/// Reads what `attach.lua` answers.
fn attached(
    [dataset, since, standing, pruned, fork]: &[String; 5],
    today: NaiveDate,
) -> Result<Attached, StoreError> {
    let not_ours = |what: &str, told: &str| Err(StoreError::refused(format!("{what} is {told:?}")));
    let standing = match standing.as_str() {
        "born" => Standing::Born,
        "ours" => Standing::Ours,
        "twin" => Standing::Twin,
        "retired" => Standing::Retired,
        "other" => Standing::Other,
        _ => return not_ours("the standing", standing),
    };
    let is_attached = matches!(standing, Standing::Born | Standing::Ours);
    if !is_id(dataset) && (is_attached || !dataset.is_empty()) {
        return not_ours("dataset", dataset);
    }
    let since = match written_day(since).filter(|since| *since <= today) {
        Some(since) => since,
        None if is_attached => return not_ours("since", since),
        None => today,
    };
    let pruned = noted_day(pruned)?;
    let known = part::sequence(fork);
    if known.is_none() && !fork.is_empty() {
        return not_ours("the fork", fork);
    }
    Ok(Attached { dataset: dataset.as_str().into(), since, pruned, standing, fork: known })
}

/// One script call for each part.
fn apply_pipe(command: &str, script: &str, writer: &WriterId, parts: &[Part], claims: &Claims) -> Pipeline {
    let mut pipe = redis::pipe();
    for part in parts {
        pipe.cmd(command).arg(script).arg(2).arg(hash_key(&part.hash)).arg(key(&part.hash.site, "meta"));
        pipe.arg(marker_field(writer)).arg(part.prev.map_or_else(String::new, |prev| prev.to_string()));
        let (dataset, run) = claims.get(&part.hash.site).map_or(("", ""), |(set, run)| (set, run));
        pipe.arg(part.id.to_string()).arg(dataset).arg(run);
        pipe.arg(part.revision.map_or_else(String::new, |revision| revision.to_string()));
        pipe.arg(part.hash.prunes_with().map_or_else(String::new, |day| day.format("%Y%m%d").to_string()));
        for (field, add) in &part.sums {
            pipe.arg(&**field).arg(add);
        }
        for (field, entry) in &part.entries {
            pipe.arg(&**field).arg(entry.to_string());
        }
    }
    pipe
}

/// Reads the marker that a hash bears; an empty text stands for none.
fn marker(hash: &HashName, text: String) -> Result<Option<PartId>, StoreError> {
    if text.is_empty() {
        return Ok(None);
    }
    let foreign = |_| StoreError::refused(format!("{}: a marker is {text:?}", hash_key(hash)));
    text.parse().map(Some).map_err(foreign)
}

#[cfg(test)]
mod tests;
