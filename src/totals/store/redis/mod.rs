//! Totals on Redis ≥ 7.0 or Valkey.
//!
//! Every key of a site begins `footfall:{<site>}:`, so that one site is one slot. A hash holds its sums
//! and a field `#<writer>` with each writer's marker; `apply.lua` changes them together.
//!
//! A call that was given up may still be carried out by the server, later and beside its repetition:
//! everything sent here bears that.

pub mod connection;
pub mod dump;
mod retire;
mod settings;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::NaiveDate;
use redis::{FromRedisValue, Pipeline, RedisResult, Script, Value};

use self::connection::Link;
pub use self::connection::check_authorities;
use super::contract::{
    Attached, Claim, Found, Marker, Outcome, Query, Standing, StoreConfig, StoreError, WriterId, random_id,
};
use crate::sites::SiteKey;
use crate::totals::batch::part::{HashName, Part, SketchPart};
use crate::totals::batch::sketch::Sketch;

/// The layout of the keys.
pub const FORMAT: &str = "1";
/// The first version that runs scripts with a shebang, and `SET` with `NX` and `GET`.
const OLDEST_VERSION: u32 = 7;
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
    pub link: Box<Link>,
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
    /// Takes the settings; does not connect.
    ///
    /// # Errors
    /// `Refused` for a URL or a CA file that cannot be used.
    pub fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        Ok(Redis {
            link: Box::new(Link::new(config)?),
            apply: Source::new(include_str!("apply.lua")),
            attach: Source::new(include_str!("attach.lua")),
            claims: Mutex::default(),
        })
    }

    /// See [`Store::attach`](super::contract::Store::attach).
    pub async fn attach(
        &self,
        site: &SiteKey,
        zone: &str,
        writer: &WriterId,
        today: NaiveDate,
        claim: &Claim,
    ) -> Result<Attached, StoreError> {
        let mut pipe = redis::pipe();
        pipe.cmd("INFO").arg("server");
        let info: String = self.link.only(pipe).await?;
        check_version(&info)?;

        let mut pipe = redis::pipe();
        pipe.cmd("EVAL").arg(self.attach.text).arg(1).arg(key(site, "meta"));
        let birth = claim.birth.as_deref().map_or_else(random_id, |id| Ok(id.to_owned()))?;
        pipe.arg(FORMAT).arg(claim.dataset.as_deref().unwrap_or("")).arg(birth);
        pipe.arg(today.to_string()).arg(zone).arg(&*writer.0);
        // Beside each run where the next one began; the last has none.
        let next = claim.runs.iter().skip(1).map(|run| run.base.to_string()).chain([String::new()]);
        for (run, base) in claim.runs.iter().zip(next) {
            pipe.arg(&*run.id).arg(base);
        }
        let told: (String, String, String, String) = self.link.only(pipe).await?;
        let attached = attached(&told)?;
        if matches!(attached.standing, Standing::Born | Standing::Ours) {
            let run = claim.runs.last().map_or_else(|| "".into(), |run| run.id.clone());
            self.claims().insert(site.clone(), (attached.dataset.clone(), run));
        }
        Ok(attached)
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Store::generation`](super::contract::Store::generation).
    pub fn generation(&self) -> u64 {
        self.link.made()
    }

    /// See [`Store::apply`](super::contract::Store::apply).
    pub async fn apply(
        &self,
        writer: &WriterId,
        parts: Vec<Part>,
        sketches: Vec<SketchPart>,
    ) -> Result<Vec<Outcome>, StoreError> {
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

    /// See [`Store::note_calendar`](super::contract::Store::note_calendar).
    pub async fn note_calendar(
        &self,
        calendar: &str,
        at: &str,
        week: &HashName,
        days: &[HashName],
    ) -> Result<Option<String>, StoreError> {
        let mut pipe = redis::pipe();
        pipe.cmd("EVAL").arg(include_str!("calendar.lua")).arg(2 + days.len());
        pipe.arg(key(&week.site, "meta")).arg(hash_key(week));
        days.iter().for_each(|day| _ = pipe.arg(hash_key(day)));
        self.link.only(pipe.arg(calendar).arg(at).clone()).await
    }

    async fn apply_some(&self, writer: &WriterId, parts: &[Part]) -> Result<Vec<Outcome>, StoreError> {
        let pipe = |command, script| apply_pipe(command, script, writer, parts, &self.claims());
        let mut replies = self.link.ask(pipe("EVALSHA", &self.apply.sha)).await?;
        if replies.iter().any(lacks_script) {
            // In a pipeline the parts after the refused one have run. All are sent again, in order:
            // the markers keep what was applied from being applied twice, its outcome stands.
            let again = self.link.ask(pipe("EVAL", self.apply.text)).await?;
            for (reply, again) in replies.iter_mut().zip(again) {
                if !matches!(reply, Ok(Value::Int(_))) {
                    *reply = again;
                }
            }
        }
        let outcome = |(part, reply): (&Part, RedisResult<Value>)| match self.told(&part.hash, reply)? {
            Value::Int(1) => Ok(Outcome::Applied),
            Value::Int(0) => Ok(Outcome::Already),
            found => Ok(Outcome::Found(marker(self.read_as(&part.hash, found)?))),
        };
        parts.iter().zip(replies).map(outcome).collect()
    }

    /// What the script does for parts: no marker guards a sketch.
    async fn check_claims(&self, writer: &WriterId, sketches: &[SketchPart]) -> Result<(), StoreError> {
        let mut sites: Vec<&SiteKey> = sketches.iter().map(|part| &part.name.site).collect();
        sites.dedup();
        for site in sites {
            let Some((dataset, run)) = self.claims().get(site).cloned() else { continue };
            let mut pipe = redis::pipe();
            pipe.cmd("HMGET").arg(key(site, "meta")).arg("dataset").arg(format!("run:{}", writer.0));
            let held: (Option<String>, Option<String>) = self.link.only(pipe).await?;
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
        let once = random_id()?;
        let mut pipe = redis::pipe();
        for (n, part) in sketches.iter().enumerate() {
            let mut sketch = Sketch::new();
            sketch.raise(&part.registers);
            let part_key = key(&part.name.site, &format!("merge:{once}:{n}"));
            pipe.cmd("SET").arg(&part_key).arg(sketch.to_bytes()).arg("EX").arg(MERGE_EXPIRY_S);
            pipe.cmd("PFMERGE").arg(hash_key(&part.name)).arg(&part_key);
            pipe.cmd("DEL").arg(&part_key);
        }
        let mut replies = self.link.ask(pipe).await?.into_iter();
        for part in sketches {
            for reply in replies.by_ref().take(3) {
                self.told(&part.name, reply)?;
            }
        }
        Ok(())
    }

    /// See [`Store::read`](super::contract::Store::read).
    pub async fn read(&self, writer: &WriterId, queries: Vec<Query>) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::with_capacity(queries.len());
        for some in queries.chunks(SMALL_TRIP) {
            let mut pipe = redis::pipe();
            for query in some {
                pipe.cmd("HMGET").arg(hash_key(&query.hash)).arg(marker_field(writer));
                for field in &query.fields {
                    pipe.arg(&**field);
                }
            }
            for (query, reply) in some.iter().zip(self.link.ask(pipe).await?) {
                found.push(self.found(query, reply)?);
            }
        }
        Ok(found)
    }

    fn found(&self, query: &Query, reply: RedisResult<Value>) -> Result<Found, StoreError> {
        let values: Vec<Option<String>> = self.read_as(&query.hash, self.told(&query.hash, reply)?)?;
        let mut values = values.into_iter();
        let marker = values.next().flatten().and_then(marker);
        let sum = |(field, value): (_, Option<String>)| {
            let Some(value) = value else { return Ok(None) };
            let digits = value.bytes().all(|b| b.is_ascii_digit());
            let sum = value.parse().ok().filter(|_| digits);
            let name = hash_key(&query.hash);
            let text = || StoreError::Refused(format!("{name}: the sum of {field} is not a plain number"));
            sum.map(Some).ok_or_else(text)
        };
        let sums = query.fields.iter().zip(values).map(sum).collect::<Result<_, _>>()?;
        Ok(Found { marker, sums })
    }

    /// See [`Store::sketches`](super::contract::Store::sketches).
    pub async fn sketches(&self, names: Vec<HashName>) -> Result<Vec<Option<Sketch>>, StoreError> {
        let read = |name: &HashName, reply| {
            let bytes: Option<Vec<u8>> = self.read_as(name, reply)?;
            let sketch = bytes.map(|bytes| Sketch::from_bytes(&bytes)).transpose();
            sketch.map_err(|err| StoreError::Refused(format!("{}: {err}", hash_key(name))))
        };
        self.ask_each("GET", LARGE_TRIP, &names, read).await
    }

    /// See [`Store::visitors`](super::contract::Store::visitors).
    pub async fn visitors(&self, names: Vec<HashName>) -> Result<Vec<u64>, StoreError> {
        self.ask_each("PFCOUNT", SMALL_TRIP, &names, |name, reply| self.read_as(name, reply)).await
    }

    /// See [`Store::salt`](super::contract::Store::salt).
    pub async fn salt(
        &self,
        site: &SiteKey,
        day: NaiveDate,
        proposed: [u8; 16],
        keep: Duration,
    ) -> Result<[u8; 16], StoreError> {
        let key = key(site, &format!("salt:{day}"));
        let hex = format!("{:032x}", u128::from_be_bytes(proposed));
        let mut pipe = redis::pipe();
        pipe.cmd("SET").arg(&key).arg(hex).arg("NX").arg("GET").arg("EX").arg(keep.as_secs().max(1));
        let Some(held) = self.link.only::<Option<String>>(pipe).await? else { return Ok(proposed) };
        match u128::from_str_radix(&held, 16) {
            Ok(salt) if held.len() == 32 => Ok(salt.to_be_bytes()),
            _ => Err(StoreError::Refused(format!("{key} is not 32 hex digits"))),
        }
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
            for (name, reply) in some.iter().zip(self.link.ask(pipe).await?) {
                answers.push(read(name, self.told(name, reply)?)?);
            }
        }
        Ok(answers)
    }

    /// What the server told of a hash.
    fn told(&self, hash: &HashName, reply: RedisResult<Value>) -> Result<Value, StoreError> {
        reply.map_err(|err| of_hash(hash, self.link.fault(&err)))
    }

    fn read_as<T: FromRedisValue>(&self, hash: &HashName, value: Value) -> Result<T, StoreError> {
        T::from_redis_value(value).map_err(|err| of_hash(hash, self.link.fault(&err.into())))
    }
}

impl Source {
    fn new(text: &'static str) -> Self {
        Source { text, sha: Script::new(text).get_hash().to_owned() }
    }
}

/// Reads what `attach.lua` answers.
fn attached(
    (dataset, since, standing, fork): &(String, String, String, String),
) -> Result<Attached, StoreError> {
    let standing = match standing.as_str() {
        "born" => Standing::Born,
        "ours" => Standing::Ours,
        "twin" => Standing::Twin,
        _ => Standing::Other,
    };
    let since = since.parse().map_err(|_| StoreError::Refused(format!("since is {since:?}")))?;
    Ok(Attached { dataset: dataset.as_str().into(), since, standing, fork: fork.parse().ok() })
}

fn check_version(info: &str) -> Result<(), StoreError> {
    // Valkey says which Redis it stands in for.
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("unknown");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major >= OLDEST_VERSION) {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "the server is of version {version}, footfall needs {OLDEST_VERSION}.0 or newer"
    )))
}

/// One script call for each part.
fn apply_pipe(command: &str, script: &str, writer: &WriterId, parts: &[Part], claims: &Claims) -> Pipeline {
    let mut pipe = redis::pipe();
    for part in parts {
        pipe.cmd(command).arg(script).arg(2).arg(hash_key(&part.hash)).arg(key(&part.hash.site, "meta"));
        pipe.arg(marker_field(writer)).arg(part.prev.map_or_else(String::new, |prev| prev.to_string()));
        let (dataset, run) = claims.get(&part.hash.site).map_or(("", ""), |(set, run)| (set, run));
        pipe.arg(part.id.to_string()).arg(dataset).arg(run);
        for (field, add) in &part.sums {
            pipe.arg(&**field).arg(add);
        }
    }
    pipe
}

pub fn key(site: &SiteKey, name: &str) -> String {
    format!("footfall:{{{site}}}:{name}")
}

pub fn hash_key(hash: &HashName) -> String {
    key(&hash.site, &hash.to_string())
}

fn marker_field(writer: &WriterId) -> String {
    format!("#{}", writer.0)
}

fn marker(text: String) -> Option<Marker> {
    (!text.is_empty()).then(|| Marker::from(text.as_str()))
}

fn lacks_script(reply: &RedisResult<Value>) -> bool {
    reply.as_ref().is_err_and(|err| err.code() == Some("NOSCRIPT"))
}

fn of_hash(hash: &HashName, fault: StoreError) -> StoreError {
    let key = hash_key(hash);
    match fault {
        StoreError::Unreachable(text) => StoreError::Unreachable(format!("{key}: {text}")),
        StoreError::Refused(text) => StoreError::Refused(format!("{key}: {text}")),
        StoreError::Detached => StoreError::Detached,
    }
}

#[cfg(test)]
mod tests;
