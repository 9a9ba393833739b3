//! Copies the totals of one store into another that is empty, of whatever kind the two are: what `migrate`,
//! `backup` and `restore` have in common.
//!
//! Sums are copied with the markers of those who wrote them, so a writer goes on where it stood: what it
//! applied is known to be applied, and what it applied to the old store after the copy is sent to the new
//! one from its outbox, as to any store that went back in time.
//!
//! A site is copied in rounds, each of which copies what differs; the last finds nothing. Of a hash of pages
//! the markers are compared, and written last: one that was copied by half has none. All of it is set,
//! never added, so a copy that was broken off is taken up again by doing it again.
//!
//! Until all is copied and compared nobody takes the target for a store: the file has a name of its own
//! (`….unfinished`), in Redis the `format` of each site is [`UNFINISHED`], which no service reads.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::audit::{self, Audit};
use crate::sites::SiteKey;
use crate::totals::disk::files::sync_dir;
use crate::totals::store::contract::{Store, StoreConfig, StoreError};
use crate::totals::store::dump::{Dump, Fields, Fill, HASHES, RETIRED, REVISION, STEP, StoredName};
use crate::totals::store::{AnyDump, AnyStore, REDIS_FORMAT};

/// The `format` of a site in Redis whose data is not yet whole.
const UNFINISHED: &str = "unfinished (footfall migrate)";

/// Rounds after which a source is said to be written to.
const ROUNDS: u32 = 20;

/// How often a hash of pages is read anew because it changed meanwhile.
const TRIES: u32 = 20;

/// Why a copy did not come to its end. The source is as it was.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One of the two.
    #[error("{0} {1}")]
    Store(&'static str, StoreError),
    /// The target's file.
    #[error("{path}: {fault}", path = .0.display(), fault = .1)]
    File(PathBuf, io::Error),
    /// Something is there already.
    #[error("{0}")]
    NotEmpty(String),
    /// Somebody goes on writing to the source.
    #[error("site {0}: another instance goes on writing to the store; stop it for the time of the copy")]
    Moves(SiteKey),
    /// What was copied is not what should be.
    #[error("site {site}: the copy is not like the original: {what}")]
    Differs { site: SiteKey, what: String },
}

fn source(error: StoreError) -> CopyError {
    CopyError::Store("the source:", error)
}

fn target(error: StoreError) -> CopyError {
    CopyError::Store("the target:", error)
}

/// A store that is being filled.
struct Target {
    store: AnyStore,
    /// The file as it is called now, and in the end.
    file: Option<(PathBuf, PathBuf)>,
    resumes: bool,
}

/// How a copy is made.
#[derive(Clone, Copy, Default)]
pub struct Manner {
    /// Takes up a copy that was broken off.
    pub resumes: bool,
    /// Salts are copied too.
    pub with_salts: bool,
}

/// Copies every site into the store of a URL, compares, and makes the target a store, which it is not where this
/// fails. What it holds then.
pub async fn copy(
    from: &impl Dump,
    to: &StoreConfig,
    data_dir: &Path,
    manner: Manner,
) -> Result<Vec<Audit>, CopyError> {
    if let Some(path) = to.url.file(data_dir) {
        return copy_into_file(from, path, manner).await;
    }
    let store = AnyStore::open(to, data_dir, None).await.map_err(target)?;
    Target { store, file: None, resumes: manner.resumes }.fill(from, manner.with_salts).await
}

/// The same into a file, which is not there yet.
pub async fn copy_into_file(
    from: &impl Dump,
    path: PathBuf,
    Manner { resumes, with_salts }: Manner,
) -> Result<Vec<Audit>, CopyError> {
    let mut unfinished = path.clone().into_os_string();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    is_free(&path)?;
    if unfinished.exists() && !resumes {
        return Err(CopyError::NotEmpty(format!(
            "{} is there: a migration was broken off; take it up again with --resume, or delete it",
            unfinished.display()
        )));
    }
    let store = AnyStore::open_file(&unfinished).await.map_err(target)?;
    Target { store, file: Some((unfinished, path)), resumes }.fill(from, with_salts).await
}

/// Refuses to replace a file.
fn is_free(path: &Path) -> Result<(), CopyError> {
    match path.exists() {
        true => Err(CopyError::NotEmpty(format!("{} is there already: move it away", path.display()))),
        false => Ok(()),
    }
}

impl Target {
    async fn dump(&self) -> Result<AnyDump, CopyError> {
        self.store.dump().await.map_err(target)
    }

    /// Whether a site was copied before, in a copy that was broken off at its very end. Refuses a site of which
    /// the target has anything except what such a copy left.
    async fn has(&self, site: &SiteKey, dataset: &str) -> Result<bool, CopyError> {
        let here = self.dump().await?;
        let meta = here.meta(site).await.map_err(target)?;
        let (found, format) = (value(&meta, "dataset"), value(&meta, "format"));
        let is_unfinished = self.file.is_some() || format == Some(UNFINISHED);
        match found {
            Some(found) if self.resumes && found == dataset => return Ok(!is_unfinished),
            Some(_) if is_unfinished => {
                return Err(CopyError::NotEmpty(format!(
                    "site {site}: a migration was broken off here; take it up again with --resume, or delete \
                     the keys footfall:{{{site}}}:*"
                )));
            }
            Some(_) => {}
            None if here.names(site).await.map_err(target)?.is_empty() => return Ok(false),
            None => {}
        }
        Err(CopyError::NotEmpty(format!("the target has totals of site {site} already")))
    }

    async fn put_meta(&self, site: &SiteKey, mut meta: Fields, format: &str) -> Result<(), CopyError> {
        // Which process holds a writer concerns only the store that it is attached to. That nobody holds it any
        // more, and how far it came, is true wherever its totals are.
        let is_of_a_process = |(name, value): &(String, String)| {
            (name.starts_with("run:") || name.starts_with("runs:")) && !value.starts_with(RETIRED)
        };
        meta.retain(|field| field.0 != "format" && !is_of_a_process(field));
        meta.push(("format".to_owned(), format.to_owned()));
        self.store.put_meta(site, meta).await.map_err(target)
    }

    /// Copies every site and compares, then gives everything its name.
    async fn fill(self, from: &impl Dump, with_salts: bool) -> Result<Vec<Audit>, CopyError> {
        let (mut metas, mut sites) = (Vec::new(), 0);
        for site in from.sites().await.map_err(source)? {
            let meta = from.meta(&site).await.map_err(source)?;
            sites += 1;
            if !self.has(&site, value(&meta, "dataset").unwrap_or_default()).await? {
                metas.push((site, meta));
            }
        }
        if metas.is_empty() && sites > 0 {
            return Err(CopyError::NotEmpty("the target has the totals of every site already".to_owned()));
        }
        if metas.is_empty() {
            return Err(CopyError::Store("the source:", StoreError::refused("it holds no site")));
        }
        let mut audits = Vec::new();
        for (site, meta) in &metas {
            self.put_meta(site, meta.clone(), UNFINISHED).await?;
            let copier = Copier { from, to: &self.store, site };
            copier.copy(meta).await?;
            if with_salts {
                copier.copy_salts().await?;
            }
            let audit = compare(from, &self.dump().await?, site).await?;
            tracing::info!(%site, views = audit.views, visits = audit.visits, "copied and compared");
            audits.push(audit);
        }
        for (site, _) in metas {
            // Read again: the markers of a writer that was retired meanwhile may not have been copied.
            let meta = from.meta(&site).await.map_err(source)?;
            self.put_meta(&site, meta, REDIS_FORMAT).await?;
        }
        self.name_file()?;
        Ok(audits)
    }

    /// Gives the file its name.
    fn name_file(self) -> Result<(), CopyError> {
        drop(self.store);
        let Some((unfinished, path)) = self.file else { return Ok(()) };
        let at = |error| CopyError::File(path.clone(), error);
        fs::File::open(&unfinished).and_then(|file| file.sync_all()).map_err(at)?;
        is_free(&path)?;
        fs::rename(&unfinished, &path).map_err(at)?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_dir(dir).map_err(at)
    }
}

/// Copies one site.
struct Copier<'a, D> {
    from: &'a D,
    to: &'a AnyStore,
    site: &'a SiteKey,
}

impl<D: Dump> Copier<'_, D> {
    async fn copy(&self, meta: &Fields) -> Result<(), CopyError> {
        // The revision stands beside the markers, and changes without them.
        let beside = meta.iter().filter_map(|(name, _)| name.strip_prefix("writer:"));
        let writers: Vec<String> = beside.chain(REVISION.strip_prefix('#')).map(str::to_owned).collect();
        for _ in 0..ROUNDS {
            // Of the embedded store a new snapshot for each round.
            let there = self.to.dump().await.map_err(target)?;
            if self.round(&there, &writers).await? == 0 {
                return Ok(());
            }
        }
        Err(CopyError::Moves(self.site.clone()))
    }

    /// Copies what differs. How many hashes and sketches did.
    async fn round(&self, there: &AnyDump, writers: &[String]) -> Result<usize, CopyError> {
        let (mut small, mut sketches, mut large) = (Vec::new(), Vec::new(), Vec::new());
        for name in self.from.names(self.site).await.map_err(source)? {
            let of = match &*name {
                name if name.ends_with(":visitors") => &mut sketches,
                // The audit of entries has a field for each value of a long import.
                name if name.ends_with(":pages") || name.ends_with("entries") || name == "aliases" => {
                    &mut large
                }
                _ => &mut small,
            };
            of.push(StoredName { site: self.site.clone(), name });
        }
        let mut copied = 0;
        for some in small.chunks(HASHES) {
            copied += self.copy_small(there, some).await?;
        }
        for some in sketches.chunks(HASHES) {
            copied += self.copy_sketches(there, some).await?;
        }
        for hash in &large {
            let ours = self.from.markers(hash, writers).await.map_err(source)?;
            if ours.is_empty() || there.markers(hash, writers).await.map_err(target)? != ours {
                copied += usize::from(self.copy_large(there, hash, writers).await?);
            }
        }
        Ok(copied)
    }

    async fn copy_small(&self, there: &AnyDump, hashes: &[StoredName]) -> Result<usize, CopyError> {
        let ours = self.from.whole(hashes).await.map_err(source)?;
        let theirs = there.whole(hashes).await.map_err(target)?;
        let mut differing = Vec::new();
        for ((hash, ours), theirs) in hashes.iter().zip(ours).zip(theirs) {
            let mut ours = ours.map_err(|what| source(StoreError::refused(what).within(&hash.name)))?;
            let mut theirs = theirs.unwrap_or_default();
            ours.sort();
            theirs.sort();
            if ours != theirs {
                differing.push((hash.clone(), ours));
            }
        }
        let number = differing.len();
        self.to.put_all(differing).await.map_err(target)?;
        Ok(number)
    }

    async fn copy_sketches(&self, there: &AnyDump, names: &[StoredName]) -> Result<usize, CopyError> {
        let ours = self.from.sketches(names).await.map_err(source)?;
        let theirs = there.sketches(names).await.map_err(target)?;
        let mut differing = Vec::new();
        for ((name, ours), theirs) in names.iter().zip(ours).zip(theirs) {
            let ours = ours.map_err(|what| source(StoreError::refused(what).within(&name.name)))?;
            if let Some(bytes) = ours.filter(|ours| !theirs.is_ok_and(|theirs| theirs.as_ref() == Some(ours)))
            {
                differing.push((name.clone(), bytes));
            }
        }
        let number = differing.len();
        self.to.put_sketches(differing).await.map_err(target)?;
        Ok(number)
    }

    /// Copies a hash of pages in steps, as it stands at one instant: between two readings of its markers
    /// that agree nobody wrote to it. Whether anything of it differed.
    async fn copy_large(
        &self,
        there: &AnyDump,
        hash: &StoredName,
        writers: &[String],
    ) -> Result<bool, CopyError> {
        let mut differed = false;
        for _ in 0..TRIES {
            let before = self.from.markers(hash, writers).await.map_err(source)?;
            let mut markers = Fields::new();
            let mut from = Some(None);
            while let Some(cursor) = from {
                let (fields, next) = self.from.scan(hash, cursor).await.map_err(source)?;
                from = next.map(Some);
                let (marks, sums): (Fields, Fields) =
                    fields.into_iter().partition(|(field, _)| field.starts_with('#'));
                markers.extend(marks);
                differed |= self.put_differing(there, hash, sums).await?;
            }
            if self.from.markers(hash, writers).await.map_err(source)? == before {
                differed |= self.put_differing(there, hash, markers).await?;
                return Ok(differed);
            }
        }
        Err(CopyError::Moves(self.site.clone()))
    }

    async fn put_differing(
        &self,
        there: &AnyDump,
        hash: &StoredName,
        ours: Fields,
    ) -> Result<bool, CopyError> {
        let mut differs = false;
        for some in ours.chunks(STEP) {
            let fields: Vec<String> = some.iter().map(|(field, _)| field.clone()).collect();
            let theirs = there.fields(hash, &fields).await.map_err(target)?;
            let same = some.iter().zip(theirs).all(|((_, ours), theirs)| theirs.as_ref() == Some(ours));
            if !same {
                self.to.put(hash, some.to_vec()).await.map_err(target)?;
                differs = true;
            }
        }
        Ok(differs)
    }

    async fn copy_salts(&self) -> Result<(), CopyError> {
        for (day, salt, keep) in self.from.salts(self.site).await.map_err(source)? {
            self.to.salt(self.site, day, salt, keep).await.map_err(target)?;
        }
        Ok(())
    }
}

/// Whether the copy is like the original: the same names and the same sums, and nothing in it disagrees
/// that did not before.
async fn compare(from: &impl Dump, to: &impl Dump, site: &SiteKey) -> Result<Audit, CopyError> {
    let differs = |what: String| CopyError::Differs { site: site.clone(), what };
    let original = audit::audit(from, site).await.map_err(source)?;
    let copy = audit::audit(to, site).await.map_err(target)?;
    let names = from.names(site).await.map_err(source)?;
    let there = to.names(site).await.map_err(target)?;
    if let Some(missing) = names.symmetric_difference(&there).next() {
        return Err(differs(format!("{missing} is in one of them only")));
    }
    if let Some(new) = copy.disagreements.iter().find(|one| !original.disagreements.contains(one)) {
        return Err(differs(new.to_string()));
    }
    if original != copy {
        return Err(differs(format!(
            "{} views, {} visits, {} pages became {}, {}, {}",
            original.views, original.visits, original.pages, copy.views, copy.visits, copy.pages
        )));
    }
    Ok(copy)
}

fn value<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests;
