//! The salts of civil days: drawn a day ahead, shared through the store, kept in `data_dir/salts` so
//! that a start without the store knows its visitors, and deleted two days after use.
//!
//! The file is a checked text that is kept twice: its format (see `formats`), then a line a salt: site, day, 32 hex
//! digits, and whether the store has it
//! (`shared`) or only this instance does (`drawn`).

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use chrono::{Days, NaiveDate};

use crate::ingest::{SaltTable, SiteSalts};
use crate::sites::{SiteId, SiteKey};
use crate::totals::delivery::apply::FlushError;
use crate::totals::disk::dir::{DataDir, Kept};
use crate::totals::disk::formats;
use crate::totals::store::contract::{Store, StoreError, written_day};

const FILE: &str = "salts";

/// How long a salt is kept after its day.
const KEEP: Duration = Duration::from_secs(48 * 3600);

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
}

type ByDay = BTreeMap<(SiteKey, NaiveDate), Salt>;

/// The salts that are kept, and the table of those in force.
pub struct Salts {
    by_day: ByDay,
    id_key: [u8; 16],
    table: Arc<ArcSwap<SaltTable>>,
}

impl Salts {
    /// Reads the file. Where it is damaged and so is its copy, none is known, and `lost` is told what that
    /// costs.
    pub fn open(dir: &DataDir, id_key: [u8; 16], lost: impl FnOnce(&str)) -> io::Result<Self> {
        let known = match dir.read_kept(FILE)? {
            Kept::Whole(text) => formats::body(&text).lines().map(parse).collect(),
            Kept::Absent => Some(BTreeMap::new()),
            Kept::Damaged => None,
        };
        if known.is_none() {
            dir.set_aside(FILE)?;
            lost("it is damaged: a visitor of today whose salt the store lacks too begins another visit");
        }
        let by_day = known.unwrap_or_default();
        Ok(Salts { by_day, id_key, table: Arc::default() })
    }

    /// The table that requests read.
    pub fn table(&self) -> Arc<ArcSwap<SaltTable>> {
        self.table.clone()
    }

    /// Draws what is missing of today's and tomorrow's salts, drops what is too old, and publishes the
    /// rest. `days` is today of every site.
    ///
    /// # Errors
    /// Of the file system: the salts are those that were known before.
    pub fn draw(&mut self, dir: &DataDir, days: &[Today]) -> io::Result<()> {
        let mut anew = self.by_day.clone();
        anew.retain(|(site, day), _| {
            days.iter().any(|today| today.site == *site && *day >= today.day - Days::new(2))
        });
        for (site, day) in days
            .iter()
            .flat_map(|today| [today.day, today.day + Days::new(1)].map(|day| (today.site.clone(), day)))
        {
            let drawn = || Salt { key: crate::random::bytes(), shared: false };
            anew.entry((site, day)).or_insert_with(drawn);
        }
        self.take(anew, dir, days)
    }

    /// Agrees with the store on salts of sites that only this instance has; the sites that the store refuses. Where the store has another one it
    /// is taken, but for a day that has begun here and is in use: that would split its visitors.
    pub async fn share(
        &mut self,
        store: &impl Store,
        dir: &DataDir,
        days: &[Today],
        of: impl Fn(&SiteKey) -> bool,
        in_use: impl Fn(&SiteKey) -> bool,
    ) -> Result<Vec<(SiteKey, StoreError)>, FlushError> {
        let alone = self.by_day.iter().filter(|((site, _), salt)| !salt.shared && of(site));
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
            anew.insert((site, day), Salt { key, shared: true });
        }
        self.take(anew, dir, days)?;
        Ok(refused)
    }

    /// Takes salts in place of those that were known: saved first, then in force. One that was in force unsaved
    /// would be another one after a restart, and its visitors would be new ones.
    fn take(&mut self, anew: ByDay, dir: &DataDir, days: &[Today]) -> io::Result<()> {
        let saved = if anew == self.by_day { Ok(()) } else { save(&anew, dir) };
        if saved.is_ok() {
            self.by_day = anew;
        }
        // Also where it is as it was: a site may have another place.
        self.publish(days);
        saved
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

fn save(by_day: &ByDay, dir: &DataDir) -> io::Result<()> {
    let mut text = formats::first_line();
    for ((site, day), salt) in by_day {
        let word = if salt.shared { "shared" } else { "drawn" };
        text += &format!("{site} {day} {:032x} {word}\n", u128::from_be_bytes(salt.key));
    }
    dir.replace_kept(FILE, &text)
}

fn parse(line: &str) -> Option<((SiteKey, NaiveDate), Salt)> {
    let mut words = line.split(' ');
    let site = SiteKey::new(words.next()?)?;
    let day = written_day(words.next()?)?;
    let key = u128::from_str_radix(words.next()?, 16).ok()?.to_be_bytes();
    Some(((site, day), Salt { key, shared: words.next()? == "shared" }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::totals::disk::faults::Faults;
    use crate::totals::disk::files::Folder;
    use crate::totals::store::model::Model;

    #[test]
    fn a_day_that_no_clock_tells_is_no_day_of_a_salt() {
        let line = |day: &str| format!("lamdong {day} {:032x} shared", 7);
        assert!(parse(&line("2026-11-23")).is_some());
        for day in ["-262143-01-01", "+262142-12-31", "0001-01-01", "1999-12-31", "2026-11-3", ""] {
            assert!(parse(&line(day)).is_none(), "{day}");
        }
    }

    #[tokio::test]
    async fn salts_that_cannot_be_saved_are_not_in_force_and_are_drawn_and_shared_again() {
        let (place, faults) = (tempfile::tempdir().unwrap(), Faults::default());
        let dir = DataDir::lock(Folder::on(place.path(), &faults)).unwrap();
        let (site, day) = (SiteKey::new("lamdong").unwrap(), "2026-11-23".parse::<NaiveDate>().unwrap());
        let days = [Today { id: SiteId(0), site: site.clone(), day }];
        let read = || Salts::open(&dir, [0; 16], |what| panic!("{what}")).unwrap();
        let in_force = |salts: &Salts| salts.table().load().sites[0].days.clone();
        let mut salts = read();
        for _ in 0..2 {
            faults.fail_after(1);
            assert!(salts.draw(&dir, &days).is_err());
            assert_eq!(in_force(&salts), []);
        }
        salts.draw(&dir, &days).unwrap();
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
}
