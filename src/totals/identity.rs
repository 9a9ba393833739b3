//! Who this data directory is to the store: its writer, the key of its view ids, and the data sets it
//! has written to. In `data_dir/writer`, text: a line a word and its value.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::data_dir::DataDir;
use super::salts::random;
use super::store::WriterId;
use crate::sites::SiteKey;

const FILE: &str = "writer";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The writer.
    pub writer: WriterId,
    /// The key that view ids are hashed with.
    pub id_key: [u8; 16],
    /// The data sets that this writer has written to, by kind of store and site. By kind, because another
    /// kind of store is chosen on purpose; another data set behind the same setting is not.
    pub datasets: BTreeMap<(String, SiteKey), Arc<str>>,
}

impl Identity {
    /// Reads it, or is born.
    ///
    /// # Errors
    /// Of the file system; `InvalidData` for a file that is damaged.
    pub fn open(dir: &DataDir) -> io::Result<Self> {
        if let Some(bytes) = dir.read(FILE)? {
            let damaged = || {
                let what = format!(
                    "{}/{FILE} is damaged; restore it from a backup, or move the directory away \
                     to begin with a new identity",
                    dir.path().display()
                );
                io::Error::new(io::ErrorKind::InvalidData, what)
            };
            return std::str::from_utf8(&bytes).ok().and_then(parse).ok_or_else(damaged);
        }
        let writer = format!("{:016x}", u64::from_be_bytes(random()));
        let identity =
            Identity { writer: WriterId(writer.into()), id_key: random(), datasets: BTreeMap::new() };
        identity.save(dir)?;
        Ok(identity)
    }

    /// Writes it.
    ///
    /// # Errors
    /// Of the file system.
    pub fn save(&self, dir: &DataDir) -> io::Result<()> {
        let mut text =
            format!("writer {}\nid-key {:032x}\n", self.writer.0, u128::from_be_bytes(self.id_key));
        for ((kind, site), dataset) in &self.datasets {
            text += &format!("dataset {kind} {site} {dataset}\n");
        }
        dir.replace(FILE, text.as_bytes())
    }
}

fn parse(text: &str) -> Option<Identity> {
    let (mut writer, mut id_key, mut datasets) = (None, None, BTreeMap::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["writer", id] => writer = Some(WriterId((*id).into())),
            ["id-key", key] => id_key = Some(u128::from_str_radix(key, 16).ok()?.to_be_bytes()),
            ["dataset", kind, site, id] => {
                datasets.insert(((*kind).to_owned(), SiteKey::new(site)?), (*id).into());
            }
            _ => return None,
        }
    }
    Some(Identity { writer: writer?, id_key: id_key?, datasets })
}
