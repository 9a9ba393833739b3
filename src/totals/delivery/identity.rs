//! Who this data directory is to the store: its writer, the runs of its processes, the key of its view ids,
//! and the data sets it has written to. In `data_dir/writer`, a checked text that is kept twice: a line a word
//! and its values.
//!
//! ```text
//! format 1                            of this file (see `formats`)
//! writer 0123456789abcdef             applies batches under this name
//! id-key <32 hex digits>              view ids are hashed with it
//! floor 17                            batches up to 17 were another identity's to apply
//! left 89abcdef01234567 40            who this was before, while parts of batches may bear its markers; up to which
//!                                     batch what it applied was also this directory's
//! former 89abcdef01234567             who this was before, while its markers are to be removed
//! settled redis                       the kind of store that was last brought up to date whole
//! run 0011223344556677 17             a process, and the last batch that was frozen before it began
//! dataset redis lamdong <id> 0        a data set, and up to which batch this identity brings nothing to it
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::random;
use crate::sites::SiteKey;
use crate::totals::batch::part;
use crate::totals::disk::dir::{self, DataDir, Kept};
use crate::totals::disk::formats;
use crate::totals::store::contract::{Run, WriterId};

const FILE: &str = "writer";

/// Most runs remembered.
const MAX_RUNS: usize = 64;

/// A data set that was written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// The id that it was born with.
    pub id: Arc<str>,
    /// Batches up to this one are not in it, by the operator's word, or were applied as another writer.
    pub floor: u64,
}

/// Who this data directory is to the store.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub writer: WriterId,
    /// The key that view ids are hashed with.
    pub id_key: [u8; 16],
    /// The data sets that this directory has written to, by site and kind of store: one that was copied is in several
    /// kinds, and has a floor in each.
    pub datasets: BTreeMap<(SiteKey, String), Dataset>,
    /// Batches up to this one were another identity's to apply: this one never sends them.
    pub floor: u64,
    /// Writers before, oldest first, until it is known which parts of batches after the floor were applied as they;
    /// and up to which batch what each applied was also this directory's.
    pub superseded: Vec<(WriterId, u64)>,
    /// Writers before, whose markers are to be removed.
    pub to_retire: Vec<WriterId>,
    /// The kind of store that was last known to hold all that the outbox can bring to it.
    pub caught_up_with: Option<String>,
    /// The processes that ran on this directory, oldest first; the last is this one.
    pub runs: Vec<Run>,
    /// The last change could not be saved.
    pub is_unsaved: bool,
}

impl Identity {
    /// Reads it, or is born.
    ///
    /// # Errors
    /// Of the file system; `InvalidData` where it is damaged, or gone though an outbox is there.
    pub fn open(dir: &DataDir) -> io::Result<Self> {
        let damaged = || {
            let what = format!(
                "{0}/{FILE} and its copy are damaged; restore one of them from a backup. Without, views in {0} \
                 that the store lacks cannot be told from those it holds: move the directory away to begin \
                 with a new identity",
                dir.path().display()
            );
            io::Error::new(io::ErrorKind::InvalidData, what)
        };
        match dir.read_kept(FILE)? {
            Kept::Whole(text) => return parse(&text).ok_or_else(damaged),
            Kept::Damaged => return Err(damaged()),
            // A batch knows what its writer wrote before it: sent by another, it would count twice.
            Kept::Absent if dir.path().join("outbox").exists() => return Err(damaged()),
            Kept::Absent => {}
        }
        let identity = Identity {
            writer: WriterId(random::id().into()),
            id_key: random::bytes(),
            ..Identity::default()
        };
        identity.save(dir)?;
        Ok(identity)
    }

    /// Reads that of a directory that another process may be using; none where there is none that can be read.
    pub fn peek(data_dir: &Path) -> Option<Self> {
        match dir::check(std::fs::read(data_dir.join(FILE)).ok().as_deref()) {
            Kept::Whole(text) => parse(&text),
            _ => None,
        }
    }

    /// Changes it: what is saved is believed, and nothing else. The disk is left alone where nothing changes.
    ///
    /// # Errors
    /// Of the file system: it is what it was, and the change can be tried again.
    pub fn change(&mut self, dir: &DataDir, change: impl FnOnce(&mut Identity)) -> io::Result<()> {
        self.is_unsaved = false;
        let mut anew = self.clone();
        change(&mut anew);
        if anew != *self {
            self.is_unsaved = true;
            anew.save(dir)?;
            *self = anew;
        }
        Ok(())
    }

    /// A process begins, with a last batch in the outbox.
    pub fn begin_run(&mut self, dir: &DataDir, base: u64) -> io::Result<()> {
        self.change(dir, |anew| {
            anew.runs.push(Run { id: random::id().into(), base });
            let excess = anew.runs.len().saturating_sub(MAX_RUNS);
            anew.runs.drain(..excess);
        })
    }

    /// Becomes another writer, whose first batch is the one after `floor`, and in each data set after what was
    /// applied to it (by kind of store and site) before. What was applied beyond that as the writer that it was is
    /// found out before anything else is sent. Who it was.
    ///
    /// # Errors
    /// Of the file system: it is who it was.
    pub fn begin_anew(
        &mut self,
        dir: &DataDir,
        floor: u64,
        applied_to: impl Fn(&str, &SiteKey) -> u64,
        change: Change,
    ) -> io::Result<WriterId> {
        let former = self.writer.clone();
        self.change(dir, |anew| {
            (anew.writer, anew.floor) = (WriterId(random::id().into()), floor.max(anew.floor));
            for ((site, kind), dataset) in &mut anew.datasets {
                dataset.floor = applied_to(kind, site).max(dataset.floor);
            }
            match change {
                Change::Twin { fork: same } | Change::Retired { last: same } => {
                    anew.superseded.push((former.clone(), same));
                }
                Change::Drained => {
                    anew.superseded.clear();
                    anew.to_retire.push(former.clone());
                }
            }
        })?;
        Ok(former)
    }

    /// What a kind of store had of this writer is given up: the data sets of another kind are copied there.
    pub fn copy_datasets(&mut self, dir: &DataDir, from: &str, to: &str) -> io::Result<()> {
        let of_source = self.datasets.iter().filter(|((_, kind), _)| kind == from);
        let copied: Vec<_> =
            of_source.map(|((site, _), dataset)| ((site.clone(), to.to_owned()), dataset.clone())).collect();
        self.change(dir, |anew| {
            anew.datasets.retain(|(_, kind), _| kind != to);
            anew.datasets.extend(copied);
        })
    }

    /// Batches of a site up to this one are not in a store, and not missed there.
    pub fn floor_of(&self, kind: &str, site: &SiteKey) -> u64 {
        self.dataset_of(kind, site).map_or(0, |dataset| dataset.floor).max(self.floor)
    }

    /// The data set of a site in a kind of store.
    pub fn dataset_of(&self, kind: &str, site: &SiteKey) -> Option<&Dataset> {
        self.datasets.get(&(site.clone(), kind.to_owned()))
    }

    /// The data set of a site that the last figures came from, and the kind of store that it was in. A store of whatever
    /// kind that lacks it is not the one that was written to.
    pub fn last_dataset(&self, site: &SiteKey) -> Option<(&str, &Dataset)> {
        let from = (site.clone(), String::new());
        let of_site = self.datasets.range(from..).take_while(|((of, _), _)| of == site);
        // Before, each kind could have another one.
        let is_last = |kind: &str| self.caught_up_with.as_deref() == Some(kind);
        of_site.map(|((_, kind), dataset)| (kind.as_str(), dataset)).max_by_key(|(kind, _)| is_last(kind))
    }

    /// The kind of store that data sets are in, where none is in one of this kind.
    pub fn other_kind_than(&self, kind: &str) -> Option<&str> {
        let other = self.datasets.keys().next().map(|(_, kind)| kind.as_str());
        other.filter(|_| self.datasets.keys().all(|(_, other)| other != kind))
    }

    /// Takes a data set of a kind of store for that of a site, and knows no other any more.
    pub fn take_dataset(&mut self, kind: &str, site: &SiteKey, dataset: Dataset) {
        self.datasets.retain(|(of, _), known| of != site || known.id == dataset.id);
        self.datasets.insert((site.clone(), kind.to_owned()), dataset);
    }

    /// Writes it.
    fn save(&self, dir: &DataDir) -> io::Result<()> {
        let mut text = format!(
            "{}writer {}\nid-key {:032x}\n",
            formats::first_line(),
            self.writer.0,
            u128::from_be_bytes(self.id_key)
        );
        text += &format!("floor {}\n", self.floor);
        let words = self.superseded.iter().map(|(left, fork)| format!("left {} {fork}\n", left.0));
        let words = words.chain(self.to_retire.iter().map(|former| format!("former {}\n", former.0)));
        let words = words.chain(self.caught_up_with.iter().map(|kind| format!("settled {kind}\n")));
        let words = words.chain(self.runs.iter().map(|run| format!("run {} {}\n", run.id, run.base)));
        text.extend(words);
        for ((site, kind), dataset) in &self.datasets {
            text += &format!("dataset {kind} {site} {} {}\n", dataset.id, dataset.floor);
        }
        dir.replace_kept(FILE, &text)
    }
}

/// Why an identity is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A copy of the directory bears it too, whose batches up to the fork are the same.
    Twin { fork: u64 },
    /// It was retired: nobody else has its batches, of which this was the last.
    Retired { last: u64 },
    /// All of it is applied.
    Drained,
}

fn parse(text: &str) -> Option<Identity> {
    let mut identity = Identity::default();
    let mut id_key = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["format", _] => {}
            ["writer", id] => identity.writer = WriterId((*id).into()),
            ["id-key", key] => id_key = Some(u128::from_str_radix(key, 16).ok()?.to_be_bytes()),
            ["floor", sequence] => identity.floor = part::sequence(sequence)?,
            // The first release wrote no fork.
            ["left", id, fork @ ..] => {
                let fork = fork.first().map_or(Some(0), |fork| part::sequence(fork))?;
                identity.superseded.push((WriterId((*id).into()), fork));
            }
            ["former", id] => identity.to_retire.push(WriterId((*id).into())),
            ["settled", kind] => identity.caught_up_with = Some((*kind).to_owned()),
            ["run", id, base] => {
                identity.runs.push(Run { id: (*id).into(), base: part::sequence(base)? });
            }
            // The first release wrote no floor.
            ["dataset", kind, site, id, floor @ ..] => {
                let floor = floor.first().map_or(Some(0), |floor| part::sequence(floor))?;
                let dataset = Dataset { id: (*id).into(), floor };
                identity.datasets.insert((SiteKey::new(site)?, (*kind).to_owned()), dataset);
            }
            _ => return None,
        }
    }
    (!identity.writer.0.is_empty()).then_some(())?;
    Some(Identity { id_key: id_key?, ..identity })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::totals::disk::faults::Faults;
    use crate::totals::disk::files::Folder;

    #[test]
    fn what_is_written_is_read_and_what_the_first_release_wrote_too() {
        let place = tempfile::tempdir().unwrap();
        let dir = DataDir::open(place.path()).unwrap();
        let old = "writer 0123456789abcdef\nid-key 000102030405060708090a0b0c0d0e0f\n\
                   dataset redis lamdong 00000000000000aa\n";
        dir.folder.replace(FILE, old.as_bytes()).unwrap();
        let mut identity = Identity::open(&dir).unwrap();
        assert_eq!((&*identity.writer.0, identity.floor), ("0123456789abcdef", 0));
        let site = SiteKey::new("lamdong").unwrap();
        assert_eq!(identity.floor_of("redis", &site), 0);
        for base in 0..70 {
            identity.begin_run(&dir, base).unwrap();
        }
        assert_eq!((identity.runs.len(), identity.runs[0].base), (MAX_RUNS, 6));
        let applied_to = |_: &str, _: &SiteKey| 69;
        let before = identity.begin_anew(&dir, 60, applied_to, Change::Twin { fork: 60 }).unwrap();
        assert_eq!((identity.floor, identity.floor_of("redis", &site)), (60, 69));
        let then = identity.begin_anew(&dir, 0, |_, _| 0, Change::Retired { last: 75 }).unwrap();
        assert_eq!((identity.floor, identity.floor_of("redis", &site)), (60, 69));
        assert_eq!(identity.superseded, [(before, 60), (then, 75)], "both, while a site is held");
        assert!(Identity::open(&dir).unwrap() == identity);
        let first = parse("writer 1\nid-key 00\nleft 2\n").unwrap();
        assert_eq!(first.superseded, [(WriterId("2".into()), 0)], "as the first release wrote it");
        identity.change(&dir, |anew| anew.caught_up_with = Some("redis".to_owned())).unwrap();
        let drained = identity.begin_anew(&dir, 70, |_, _| 0, Change::Drained).unwrap();
        assert_eq!((identity.superseded.len(), identity.to_retire.as_slice()), (0, &[drained][..]));
        assert!(Identity::open(&dir).unwrap() == identity);
        dir.replace_kept(FILE, "writer 1\nid-key 00\nfuture x\n").unwrap();
        assert!(Identity::open(&dir).is_err(), "a word of a later release is not dropped");
    }

    #[test]
    fn of_several_data_sets_of_a_site_the_last_is_the_one_that_was_settled_with() {
        let site = SiteKey::new("lamdong").unwrap();
        let text = "writer 1\nid-key 00\nsettled redis\ndataset embedded lamdong aa 0\ndataset redis lamdong bb 0\n\
                    dataset redis lamdonh cc 0\n";
        let mut identity = parse(text).unwrap();
        let last = |identity: &Identity| {
            identity.last_dataset(&site).map(|(kind, dataset)| (kind.to_owned(), dataset.id.to_string()))
        };
        assert_eq!(last(&identity), Some(("redis".to_owned(), "bb".to_owned())));
        identity.caught_up_with = Some("embedded".to_owned());
        assert_eq!(last(&identity), Some(("embedded".to_owned(), "aa".to_owned())));
        identity.take_dataset("redis", &site, Dataset { id: "dd".into(), floor: 3 });
        assert_eq!(last(&identity), Some(("redis".to_owned(), "dd".to_owned())));
        assert_eq!((identity.datasets.len(), identity.other_kind_than("embedded")), (2, Some("redis")));
        identity.take_dataset("embedded", &site, Dataset { id: "dd".into(), floor: 0 });
        assert_eq!((identity.datasets.len(), identity.other_kind_than("embedded")), (3, None), "a copy");
    }

    #[test]
    fn what_cannot_be_saved_is_not_believed_and_is_tried_again() {
        let (place, faults) = (tempfile::tempdir().unwrap(), Faults::default());
        let dir = DataDir::lock(Folder::on(place.path(), &faults)).unwrap();
        let mut identity = Identity::open(&dir).unwrap();
        let changes: [fn(&mut Identity, &DataDir) -> io::Result<()>; 5] = [
            |identity, dir| identity.begin_run(dir, 3),
            |identity, dir| {
                let place = (SiteKey::new("lamdong").unwrap(), "redis".to_owned());
                let born = Dataset { id: "00000000000000aa".into(), floor: 0 };
                identity.change(dir, |anew| _ = anew.datasets.insert(place, born))
            },
            |identity, dir| identity.copy_datasets(dir, "redis", "embedded"),
            |identity, dir| identity.begin_anew(dir, 5, |_, _| 0, Change::Twin { fork: 5 }).map(drop),
            |identity, dir| identity.begin_anew(dir, 6, |_, _| 0, Change::Drained).map(drop),
        ];
        for change in changes {
            let before = identity.clone();
            for _ in 0..2 {
                faults.fail_after(1);
                assert!(change(&mut identity, &dir).is_err());
                assert!(identity == Identity { is_unsaved: true, ..before.clone() });
            }
            change(&mut identity, &dir).unwrap();
            assert!(identity != before);
            assert!(Identity::open(&dir).unwrap() == identity);
        }
        faults.fail_after(1);
        identity.change(&dir, |_| {}).unwrap();
        assert_eq!(faults.failed().len(), 2 * changes.len(), "where nothing changes nothing is written");
    }
}
