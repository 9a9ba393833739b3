//! The salts of civil days: drawn a day ahead, shared through the store, kept in `data_dir/salts` so
//! that a start without the store knows its visitors, and deleted two days after their last use. Those are days that
//! have passed, and not what the wall clock says: a salt that is dropped because that is ahead for a moment does not
//! come back, and its visitors would be new ones.
//!
//! The file is a checked text that is kept twice: its format (see `formats`), then a line a salt: site, day, 32 hex
//! digits, whether the store has it (`shared`) or only this instance does (`drawn`), and when it was last used: Unix
//! time and uptime in milliseconds, and the start of the machine since which that counts. Version 0.1.0 wrote no such
//! time: it is that of the start then.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use chrono::{Days, NaiveDate};

use crate::clock::{Clock, Moment, Stamp};
use crate::ingest::{SaltTable, SiteSalts};
use crate::sites::{SiteId, SiteKey};
use crate::totals::delivery::apply::FlushError;
use crate::totals::disk::dir::{DataDir, Kept};
use crate::totals::disk::formats;
use crate::totals::store::contract::{EARLIEST_DAY, Store, StoreError, written_day};

const FILE: &str = "salts";

/// How long a salt is kept after its day.
const KEEP: Duration = Duration::from_secs(48 * 3600);

/// Before the machine was started anew nobody but the wall clock knows how much time has passed. It is believed up
/// to a day, which deletes no salt that was just in use.
const BELIEVED_MS: u64 = 24 * 3600 * 1000;

/// The running civil day of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Today {
    /// Its place in the table.
    pub id: SiteId,
    pub site: SiteKey,
    pub day: NaiveDate,
}

#[derive(Clone, Copy, PartialEq)]
struct Salt {
    key: [u8; 16],
    shared: bool,
    /// When it was last known to be in use; uptime.
    used_ms: u64,
}

type ByDay = BTreeMap<(SiteKey, NaiveDate), Salt>;

/// The salts that are kept, and the table of those in force.
pub struct Salts {
    by_day: ByDay,
    id_key: [u8; 16],
    clock: Clock,
    /// When those that were drawn last were last in use; uptime.
    in_use_ms: u64,
    table: Arc<ArcSwap<SaltTable>>,
}

impl Salts {
    /// Reads the file. Where it is damaged and so is its copy, none is known, and `lost` is told what that
    /// costs.
    pub fn open(dir: &DataDir, id_key: [u8; 16], clock: Clock, lost: impl FnOnce(&str)) -> io::Result<Self> {
        let known: Option<Vec<_>> = match dir.read_kept(FILE)? {
            Kept::Whole(text) => formats::body(&text).lines().map(|line| parse(line, &clock)).collect(),
            Kept::Absent => Some(Vec::new()),
            Kept::Damaged => None,
        };
        if known.is_none() {
            dir.set_aside(FILE)?;
            lost("it is damaged: a visitor of today whose salt the store lacks too begins another visit");
        }
        let by_day: ByDay = known.unwrap_or_default().into_iter().flatten().collect();
        Ok(Salts { by_day, id_key, clock, in_use_ms: 0, table: Arc::default() })
    }

    /// The table that requests read.
    pub fn table(&self) -> Arc<ArcSwap<SaltTable>> {
        self.table.clone()
    }

    /// Draws what is missing of today's and tomorrow's salts, drops what is too old, and publishes the
    /// rest. `days` is today of every site, and `before` what it was until now. Those of today are shared anew: the
    /// store may have dropped one by its own clock.
    ///
    /// # Errors
    /// Of the file system: the salts are those that were known before.
    pub fn draw(&mut self, dir: &DataDir, days: &[Today], before: &[Today]) -> io::Result<()> {
        let mut anew = self.by_day.clone();
        let now_ms = self.clock.now().uptime_ms;
        let before_ms = std::mem::replace(&mut self.in_use_ms, now_ms);
        let used = before.iter().map(|today| (today, before_ms));
        for (today, used_ms) in used.chain(days.iter().map(|today| (today, now_ms))) {
            for day in [today.day, today.day + Days::new(1)] {
                let drawn = || Salt { key: crate::random::bytes(), shared: false, used_ms };
                anew.entry((today.site.clone(), day)).or_insert_with(drawn).used_ms = used_ms;
            }
        }
        for today in days.iter().filter(|today| !before.contains(today)) {
            if let Some(salt) = anew.get_mut(&(today.site.clone(), today.day)) {
                salt.shared = false;
            }
        }
        anew.retain(|_, salt| !self.is_old(salt));
        self.take(anew, dir, days)
    }

    /// Those that were drawn last are still in use. Whether another one is to be dropped.
    pub fn still_in_use(&mut self) -> bool {
        self.in_use_ms = self.clock.now().uptime_ms;
        self.by_day.values().any(|salt| self.is_old(salt))
    }

    fn is_old(&self, salt: &Salt) -> bool {
        u128::from(self.clock.now().uptime_ms.saturating_sub(salt.used_ms)) >= KEEP.as_millis()
    }

    /// Agrees with the store on salts that only this instance has. Where the store has another one it
    /// is taken, but for a day that has begun here and is in use: that would split its visitors.
    pub async fn share(
        &mut self,
        store: &impl Store,
        dir: &DataDir,
        days: &[Today],
        of: impl Fn(&SiteKey) -> bool,
        in_use: impl Fn(&SiteKey) -> bool,
    ) -> Result<Vec<(SiteKey, StoreError)>, FlushError> {
        let is_due = |(site, day): &(SiteKey, NaiveDate)| *day >= EARLIEST_DAY && of(site);
        let alone = self.by_day.iter().filter(|(key, salt)| !salt.shared && is_due(key));
        let alone: Vec<_> = alone.map(|(k, s)| (k.clone(), *s)).collect();
        let mut refused = Vec::new();
        if alone.is_empty() {
            return Ok(refused);
        }
        let mut anew = self.by_day.clone();
        for ((site, day), salt) in alone {
            let theirs = match store.salt(&site, day, salt.key, KEEP).await {
                Err(error @ StoreError::Refused(_)) => {
                    refused.push((site, error));
                    continue;
                }
                theirs => theirs?,
            };
            let begun = days.iter().any(|today| today.site == site && today.day >= day);
            let key = if begun && in_use(&site) { salt.key } else { theirs };
            anew.insert((site, day), Salt { key, shared: true, ..salt });
        }
        self.take(anew, dir, days)?;
        Ok(refused)
    }

    /// Takes salts in place of those that were known: saved first, then in force. One that was in force unsaved
    /// would be another one after a restart, and its visitors would be new ones.
    fn take(&mut self, anew: ByDay, dir: &DataDir, days: &[Today]) -> io::Result<()> {
        let saved = if anew == self.by_day { Ok(()) } else { self.save(&anew, dir) };
        if saved.is_ok() {
            self.by_day = anew;
        }
        // Also where it is as it was: a site may have another place.
        self.publish(days);
        saved
    }

    fn save(&self, by_day: &ByDay, dir: &DataDir) -> io::Result<()> {
        let (mut text, now) = (formats::first_line(), self.clock.now());
        // Those of a clock that was not set yet are of no use after a restart.
        for ((site, day), Salt { key, shared, used_ms }) in
            by_day.iter().filter(|((_, day), _)| *day >= EARLIEST_DAY)
        {
            let (key, word) = (u128::from_be_bytes(*key), if *shared { "shared" } else { "drawn" });
            let unix_ms = now.unix_ms.saturating_sub_unsigned(now.uptime_ms.saturating_sub(*used_ms));
            let boot = self.clock.stamp(now).boot;
            text += &format!("{site} {day} {key:032x} {word} {unix_ms} {used_ms} {boot:x}\n");
        }
        dir.replace_kept(FILE, &text)
    }

    fn publish(&self, days: &[Today]) {
        let of = |site: &SiteKey| {
            let salts = self.by_day.iter().filter(|((key, _), _)| key == site);
            SiteSalts { days: salts.map(|((_, day), salt)| (*day, salt.key)).collect() }
        };
        let room = days.iter().map(|today| today.id.index() + 1).max().unwrap_or(0);
        let mut sites = vec![SiteSalts::default(); room];
        days.iter().for_each(|today| sites[today.id.index()] = of(&today.site));
        self.table.store(Arc::new(SaltTable { sites, id_key: self.id_key }));
    }
}

/// The salt of a line, if it is of a day that there can be.
fn parse(line: &str, clock: &Clock) -> Option<Option<((SiteKey, NaiveDate), Salt)>> {
    let mut words = line.split(' ');
    let site = SiteKey::new(words.next()?)?;
    let day = written_day(words.next()?);
    let key = u128::from_str_radix(words.next()?, 16).ok()?.to_be_bytes();
    let shared = words.next()? == "shared";
    let used = match words.next() {
        Some(unix_ms) => {
            let at = Moment { unix_ms: unix_ms.parse().ok()?, uptime_ms: words.next()?.parse().ok()? };
            Stamp { at, boot: u128::from_str_radix(words.next()?, 16).ok()? }
        }
        None => clock.stamp(clock.now()),
    };
    let believed_ms = if clock.is_of_this_boot(used) { u64::MAX } else { BELIEVED_MS };
    let used_ms = clock.now().uptime_ms.saturating_sub(clock.since_ms(used).min(believed_ms));
    Some(day.map(|day| ((site, day), Salt { key, shared, used_ms })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::totals::disk::faults::Faults;
    use crate::totals::disk::files::Folder;
    use crate::totals::store::model::Model;

    #[test]
    fn a_day_that_no_clock_tells_is_no_day_of_a_salt() {
        let (clock, _hand) = Clock::by_hand(0);
        let read = |day: &str| parse(&format!("lamdong {day} {:032x} shared", 7), &clock).unwrap();
        assert!(read("2026-11-23").is_some());
        for day in ["-262143-01-01", "+262142-12-31", "0001-01-01", "1999-12-31", "2026-11-3", ""] {
            assert!(read(day).is_none(), "{day}");
        }
    }

    #[tokio::test]
    async fn salts_of_a_clock_that_is_not_set_are_in_no_file_and_cost_no_other_that_is() {
        let (place, store) = (tempfile::tempdir().unwrap(), Model::default());
        let (dir, (clock, _hand)) = (DataDir::open(place.path()).unwrap(), Clock::by_hand(0));
        let (site, read) = (SiteKey::new("lamdong").unwrap(), || {
            Salts::open(&dir, [0; 16], clock.clone(), |what| panic!("{what}")).unwrap()
        });
        let today = |day: &str| [Today { id: SiteId(0), site: site.clone(), day: day.parse().unwrap() }];
        let (before, after) = (today("1970-01-01"), today("2026-11-23"));
        let mut salts = read();
        salts.draw(&dir, &before, &[]).unwrap();
        assert_eq!(salts.table().load().sites[0].days.len(), 2, "readers are told apart");
        assert!(read().by_day.is_empty());
        salts.draw(&dir, &after, &before).unwrap();
        assert_eq!(salts.share(&store, &dir, &after, |_| true, |_| true).await.unwrap().len(), 0);
        assert_eq!(store.data().salts.keys().filter(|(_, day)| *day < EARLIEST_DAY).count(), 0);
        let kept: ByDay =
            salts.by_day.clone().into_iter().filter(|((_, day), _)| *day >= EARLIEST_DAY).collect();
        assert!(kept.len() == 2 && read().by_day == kept);
        // As a release before wrote them.
        let text = format!("{}lamdong 1970-01-01 {:032x} drawn\n", formats::first_line(), 1);
        let line = format!("lamdong 2026-11-23 {:032x} shared\n", 7);
        dir.replace_kept(FILE, &(text + &line)).unwrap();
        assert_eq!(read().by_day.values().map(|salt| salt.key[15]).collect::<Vec<_>>(), [7]);
    }

    #[tokio::test]
    async fn salts_that_cannot_be_saved_are_not_in_force_and_are_drawn_and_shared_again() {
        let (place, faults) = (tempfile::tempdir().unwrap(), Faults::default());
        let dir = DataDir::lock(Folder::on(place.path(), &faults)).unwrap();
        let (site, day) = (SiteKey::new("lamdong").unwrap(), "2026-11-23".parse::<NaiveDate>().unwrap());
        let days = [Today { id: SiteId(0), site: site.clone(), day }];
        let (clock, _hand) = Clock::by_hand(0);
        let read = || Salts::open(&dir, [0; 16], clock.clone(), |what| panic!("{what}")).unwrap();
        let in_force = |salts: &Salts| salts.table().load().sites[0].days.clone();
        let mut salts = read();
        for _ in 0..2 {
            faults.fail_after(1);
            assert!(salts.draw(&dir, &days, &[]).is_err());
            assert_eq!(in_force(&salts), []);
        }
        salts.draw(&dir, &days, &[]).unwrap();
        assert_eq!(in_force(&salts).len(), 2);
        assert!(read().by_day == salts.by_day);

        let (store, tomorrow) = (Model::default(), day + Days::new(1));
        store.salt(&site, tomorrow, [9; 16], KEEP).await.unwrap();
        let drawn = in_force(&salts);
        for _ in 0..2 {
            faults.fail_after(1);
            let shared = salts.share(&store, &dir, &days, |_| true, |_| false).await;
            assert!(matches!(shared, Err(FlushError::DataDir(_))), "it is no fault of the store");
            assert_eq!(in_force(&salts), drawn);
        }
        let refused = salts.share(&store, &dir, &days, |_| true, |_| false).await.unwrap();
        assert!(refused.is_empty());
        assert_eq!(in_force(&salts), [drawn[0], (tomorrow, [9; 16])]);
        assert!(read().by_day == salts.by_day && salts.by_day.values().all(|salt| salt.shared));
    }

    #[test]
    fn how_long_a_salt_was_not_used_is_known_to_a_later_process() {
        const HOUR_MS: u64 = 3_600_000;
        let (clock, _hand) = Clock::by_hand(1000 * HOUR_MS as i64);
        let now_ms = clock.now().uptime_ms;
        let idle_h = |used: &str| {
            let line = format!("lamdong 2026-11-23 {:032x} shared{used}", 7);
            parse(&line, &clock).flatten().map(|(_, salt)| (now_ms - salt.used_ms) / HOUR_MS)
        };
        assert_eq!(idle_h(""), Some(0), "as version 0.1.0 wrote it");
        let (unix_ms, uptime_ms) = (900 * HOUR_MS, now_ms - 100 * HOUR_MS);
        assert_eq!(idle_h(&format!(" {unix_ms} {uptime_ms} 1")), Some(100));
        assert_eq!(idle_h(&format!(" {unix_ms} {now_ms} 1")), Some(0), "the wall clock is ahead");
        assert_eq!(idle_h(&format!(" {unix_ms} {uptime_ms} 2")), Some(24), "the machine was started anew");
        assert_eq!(idle_h(" 900 x 1"), None);
    }
}
