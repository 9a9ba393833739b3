//! A log of frames in numbered segment files: the mechanism under journal and outbox.
//!
//! A segment is named by its number in 16 hex digits and `.seg`. Numbers only grow and every start
//! opens a new one, so a [`Position`] never comes back, even where a power cut took a tail.
//!
//! ```text
//! segment  magic "footfall" · kind u8 · format u8 = 1 · 6 zero bytes · number u64 · frames …
//! frame    length u32 of the payload · CRC-32 u32 of (number u64, offset u64, payload) · payload
//! list     text, checked as in `data_dir`: a line a segment, its number in 16 hex digits
//! ```
//!
//! All integers are little-endian; `offset` is where the frame begins. With the place in the checksum, a
//! frame can only be taken for valid where it was written. A frame that is incomplete at a segment's end
//! is a torn tail: it was never acknowledged. Anything else that does not check is damage, and reading
//! goes on at the next frame that does.
//!
//! The file `list` names the segments that must be there: a segment is listed before the first frame
//! enters it, and struck off before its file is deleted. So one that is missing is found out, be it the
//! first or the last. Where the list itself is gone, only a gap between numbers can be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;

use super::dir::{self, Kept};
use super::files::{File, Folder};
use super::formats::{self, MAGIC};
use super::frame::{FRAME_HEADER, MAX_PAYLOAD, Position, Scan, checksum_at, frame_at, seal, split_header};

const LIST: &str = "list";
/// Bytes of a segment before its first frame.
pub const HEADER: u64 = 24;
/// A wider gap between numbers is not that of segments that were lost.
const MOST_MISSING: u64 = 100_000;

/// What is wrong with a stretch of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// At its end: nobody was promised what stood there.
    TornTail,
    /// It holds no valid frame, and did.
    Unreadable,
    /// The head alone does not check; no frame is touched by it.
    Head,
    /// The whole segment is not there.
    Missing,
}

/// A stretch of a segment that holds no valid frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub at: Position,
    /// Bytes up to the next valid frame, or the end; 0 where the segment is missing.
    pub bytes: u64,
    pub harm: Harm,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}, {} bytes", self.harm, self.at, self.bytes)
    }
}

/// Why an append failed.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Nothing of the frame is left in the file.
    #[error("{0}")]
    Undone(io::Error),
    /// What is left in the file is not known: the process must end, and read it again.
    #[error("{0}; and it could not be cut off again")]
    Unknown(io::Error),
}

/// One task appends; files that are full are never written again.
pub struct Segments {
    folder: Folder,
    kind: u8,
    current: Arc<File>,
    number: u64,
    end: u64,
    /// Bytes of every segment that is kept, the current one included.
    kept: BTreeMap<u64, u64>,
    /// Segments that should be there, and those whose head is damaged.
    harmed: BTreeMap<u64, Harm>,
}

impl Segments {
    /// Opens the log in a folder, whose files bear the letter `kind`: what is there is kept for reading,
    /// and a new segment is begun for writing. Its number is beyond `after` too: the log's files may have
    /// been deleted, the positions that others remember have not. A file of another kind or format is
    /// refused, and left as it is.
    pub fn open(folder: Folder, kind: u8, after: u64) -> io::Result<Self> {
        folder.exist()?;
        let mut kept = BTreeMap::new();
        let mut harmed = BTreeMap::new();
        for number in folder.names()?.iter().filter_map(|name| segment_number(name)) {
            let file = folder.open(&segment_name(number))?;
            // Page-cache contents that never reached the disk must not be taken for durable.
            file.sync_data()?;
            let bytes = file.bytes()?;
            if !has_head(&folder, &file, bytes, kind, number)? {
                harmed.insert(number, Harm::Head);
            }
            kept.insert(number, bytes);
        }
        let should_be = should_be(&folder, &kept, after)?.into_iter();
        harmed.extend(should_be.filter(|n| !kept.contains_key(n)).map(|n| (n, Harm::Missing)));
        let last = kept.keys().chain(harmed.keys()).copied().fold(after, u64::max);
        let number = last.checked_add(1).ok_or_else(|| invalid("no segment number is left"))?;
        let next = Next { folder: folder.clone(), kind, number, listed: kept.keys().copied().collect() };
        let current = Arc::new(next.prepare()?);
        kept.insert(number, HEADER);
        Ok(Segments { folder, kind, current, number, end: HEADER, kept, harmed })
    }

    /// Where the next frame will begin.
    pub fn end(&self) -> Position {
        Position { segment: self.number, offset: self.end }
    }

    /// The file that is written now, to be synced by whoever syncs.
    pub fn current(&self) -> Arc<File> {
        self.current.clone()
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.kept.values().sum()
    }

    /// Writes a frame: `buffer` is [`FRAME_HEADER`] bytes of room and the payload. Where it ends.
    pub fn append(&mut self, buffer: &mut [u8]) -> Result<Position, AppendError> {
        if buffer.len() > FRAME_HEADER + MAX_PAYLOAD as usize {
            return Err(AppendError::Undone(invalid("a frame that would not be believed")));
        }
        let start = self.end();
        seal(buffer, start);
        if let Err(error) = self.current.write_all_at(buffer, self.end) {
            return Err(match self.current.cut(self.end) {
                Ok(()) => AppendError::Undone(error),
                Err(_) => AppendError::Unknown(error),
            });
        }
        self.end += buffer.len() as u64;
        self.kept.insert(self.number, self.end);
        Ok(self.end())
    }

    /// The segment that follows the current one.
    pub fn next(&self) -> Next {
        Next {
            folder: self.folder.clone(),
            kind: self.kind,
            number: self.number + 1,
            listed: self.kept.keys().copied().collect(),
        }
    }

    /// Goes on in the segment that [`Next::prepare`] made. The old one's file is returned, to be synced.
    pub fn install(&mut self, file: File) -> Arc<File> {
        self.number += 1;
        self.end = HEADER;
        self.kept.insert(self.number, HEADER);
        std::mem::replace(&mut self.current, Arc::new(file))
    }

    /// Gives up segments that end at or before a position, never the current one.
    pub fn forget_before(&mut self, position: Position) -> Forgotten {
        let mut numbers = Vec::new();
        while let Some((&number, &bytes)) = self.kept.first_key_value() {
            let ends = Position { segment: number, offset: bytes };
            if number == self.number || !(number < position.segment || ends <= position) {
                break;
            }
            numbers.push(number);
            self.kept.remove(&number);
        }
        Forgotten { folder: self.folder.clone(), numbers, listed: self.kept.keys().copied().collect() }
    }

    /// Deletes all of it, its folder too.
    pub fn delete(mut self) -> io::Result<()> {
        self.forget_before(self.end()).delete()?;
        // Where there is no list no segment is missed.
        self.folder.remove(LIST)?;
        self.folder.remove(&segment_name(self.number))?;
        self.folder.vanish()
    }

    /// Gives up one segment, wherever it is; not the current one.
    pub fn forget(&mut self, number: u64) -> Forgotten {
        self.kept.remove(&number);
        Forgotten {
            folder: self.folder.clone(),
            numbers: vec![number],
            listed: self.kept.keys().copied().collect(),
        }
    }

    /// Reads every frame that begins at or after `from`, in order; `each` is given its payload and where
    /// it begins and ends. What was damaged.
    pub fn replay(
        &self,
        from: Position,
        mut each: impl FnMut(&[u8], Position, Position) -> io::Result<()>,
    ) -> io::Result<Vec<Damage>> {
        let mut damage = Vec::new();
        let kept = self.kept.range(from.segment.min(self.number)..self.number).map(|(number, _)| *number);
        let harmed = self.harmed.range(from.segment..).map(|(number, _)| *number);
        for number in kept.chain(harmed).collect::<BTreeSet<u64>>() {
            if let Some(harm) = self.harmed.get(&number).copied() {
                let bytes = if harm == Harm::Head { HEADER } else { 0 };
                damage.push(Damage { at: Position { segment: number, offset: 0 }, bytes, harm });
            }
            let bytes = self.folder.read(&segment_name(number))?.unwrap_or_default();
            let start = if number == from.segment { from.offset.max(HEADER) } else { HEADER };
            read_segment(number, &bytes, start, &mut damage, &mut each)?;
        }
        Ok(damage)
    }

    /// Reads the payload of the frame that begins at a position; `InvalidData` where no valid one does.
    pub fn read(&self, at: Position) -> io::Result<Vec<u8>> {
        let file = self.folder.open(&segment_name(at.segment))?;
        let mut header = [0; FRAME_HEADER];
        file.read_exact_at(&mut header, at.offset)?;
        let (length, checksum) = split_header(&header);
        if length > MAX_PAYLOAD {
            return Err(invalid("a frame that does not check"));
        }
        let mut payload = vec![0; length as usize];
        file.read_exact_at(&mut payload, at.offset + FRAME_HEADER as u64)?;
        if checksum_at(at, &payload) != checksum {
            return Err(invalid("a frame that does not check"));
        }
        Ok(payload)
    }
}

/// A segment that will follow the current one: made beside appends, for that takes several syncs.
pub struct Next {
    folder: Folder,
    kind: u8,
    number: u64,
    listed: Vec<u64>,
}

impl Next {
    /// Makes it: file, name and its line in the list are on disk before the first frame enters it.
    /// Where that fails nothing of it is left.
    pub fn prepare(mut self) -> io::Result<File> {
        let name = segment_name(self.number);
        self.listed.push(self.number);
        let make = || {
            let file = self.folder.create(&name)?;
            file.write_all_at(&header(self.kind, self.number), 0)?;
            file.sync_data()?;
            self.folder.sync()?;
            write_list(&self.folder, &self.listed)?;
            Ok(file)
        };
        let made: io::Result<File> = make();
        if made.is_err() {
            // Where this fails too an empty segment is left, and one is not missed.
            self.listed.pop();
            write_list(&self.folder, &self.listed).and_then(|()| self.folder.remove(&name)).ok();
        }
        made
    }
}

/// Segments that were given up.
pub struct Forgotten {
    folder: Folder,
    numbers: Vec<u64>,
    listed: Vec<u64>,
}

impl Forgotten {
    /// Deletes their files. Those that are left by a failure are of no account.
    pub fn delete(self) -> io::Result<()> {
        if self.numbers.is_empty() {
            return Ok(());
        }
        write_list(&self.folder, &self.listed)?;
        self.numbers.iter().try_for_each(|number| self.folder.remove(&segment_name(*number)))
    }
}

fn write_list(folder: &Folder, numbers: &[u64]) -> io::Result<()> {
    let text: String = numbers.iter().map(|number| format!("{number:016x}\n")).collect();
    folder.replace(LIST, dir::checked(&text).as_bytes())
}

/// The segments that must be there: those of the list or, where there is none that can be believed, those
/// between the first and the last that are there; where there is nothing at all, the one that others
/// remember.
fn should_be(folder: &Folder, kept: &BTreeMap<u64, u64>, after: u64) -> io::Result<Vec<u64>> {
    if let Kept::Whole(text) = dir::check(folder.read(LIST)?.as_deref())
        && let Some(listed) = text.lines().map(|line| u64::from_str_radix(line, 16).ok()).collect()
    {
        return Ok(listed);
    }
    Ok(match (kept.first_key_value(), kept.last_key_value()) {
        (Some((first, _)), Some((last, _))) if last - first < MOST_MISSING => (*first..*last).collect(),
        (None, _) if after > 0 => vec![after],
        _ => Vec::new(),
    })
}

/// Reads the frames of a segment from an offset on.
fn read_segment(
    number: u64,
    bytes: &[u8],
    start: u64,
    damage: &mut Vec<Damage>,
    each: &mut impl FnMut(&[u8], Position, Position) -> io::Result<()>,
) -> io::Result<()> {
    let mut offset = start as usize;
    let mut scan = None;
    while offset < bytes.len() {
        let at = Position { segment: number, offset: offset as u64 };
        if let Some(payload) = frame_at(bytes, at) {
            let next = offset + FRAME_HEADER + payload.len();
            each(payload, at, Position { offset: next as u64, ..at })?;
            offset = next;
            continue;
        }
        let next = scan.get_or_insert_with(|| Scan::new(number, bytes, offset)).next_frame(offset + 1);
        let until = next.unwrap_or(bytes.len());
        let harm = if next.is_none() { Harm::TornTail } else { Harm::Unreadable };
        damage.push(Damage { at, bytes: (until - offset) as u64, harm });
        offset = until;
    }
    Ok(())
}

fn segment_name(number: u64) -> String {
    format!("{number:016x}.seg")
}

fn segment_number(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_suffix(".seg")?, 16).ok()?;
    (segment_name(number) == name).then_some(number)
}

fn header(kind: u8, number: u64) -> [u8; HEADER as usize] {
    let mut header = [0; HEADER as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8] = kind;
    header[9] = formats::written(kind);
    header[16..].copy_from_slice(&number.to_le_bytes());
    header
}

/// Whether a segment begins with its head. One that is too short for it was never written to; one whose
/// head is damaged is known by the frames that follow.
fn has_head(folder: &Folder, file: &File, bytes: u64, kind: u8, number: u64) -> io::Result<bool> {
    if bytes < HEADER {
        return Ok(true);
    }
    let mut found = [0; HEADER as usize];
    file.read_exact_at(&mut found, 0)?;
    // Where a power cut took what had not been synced yet, no frame had entered it.
    let is_empty = bytes == HEADER && found == [0; HEADER as usize];
    let known = formats::written(kind);
    let (of, path) = (found[9], folder.path.join(segment_name(number)));
    found[9] = known;
    let is_ours = found == header(kind, number);
    if is_empty || is_ours && (1..=known).contains(&of) {
        return Ok(true);
    }
    if found.starts_with(MAGIC) && found[8] == kind && of > known {
        return Err(formats::refused(&path, &of.to_string(), &known.to_string()));
    }
    let bytes = folder.read(&segment_name(number))?.unwrap_or_default();
    if Scan::new(number, &bytes, HEADER as usize).next_frame(HEADER as usize).is_some() {
        return Ok(false);
    }
    Err(invalid(&format!(
        "{} is not a segment of footfall, or is damaged throughout; it is left as it is. Move it away to \
         start without it: what it held is lost then, and that is recorded",
        path.display()
    )))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests;
