//! A log of frames in numbered segment files: the mechanism under journal and outbox.
//!
//! A segment is named by its number in 16 hex digits and `.seg`. Numbers only grow and every start
//! opens a new one, so a [`Position`] never comes back, even where a power cut took a tail.
//!
//! ```text
//! segment  magic "footfall" · kind u8 · format u8 = 1 · 6 zero bytes · number u64 · frames …
//! frame    length u32 of the payload · CRC-32 u32 of (number u64, offset u64, payload) · payload
//! ```
//!
//! All integers are little-endian; `offset` is where the frame begins. With the place in the checksum, a
//! frame can only be taken for valid where it was written. A frame that is incomplete at a segment's end
//! is a torn tail: it was never acknowledged. Anything else that does not check is damage, and reading
//! goes on at the next frame that does.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::data_dir::sync_dir;

const MAGIC: &[u8; 8] = b"footfall";
const FORMAT: u8 = 1;
const HEADER: u64 = 24;
/// Length and checksum before a payload.
pub const FRAME_HEADER: usize = 8;
/// The longest payload that is believed on reading.
const MAX_PAYLOAD: u32 = 1 << 30;

/// A place in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Number of the segment.
    pub segment: u64,
    /// Byte in it.
    pub offset: u64,
}

/// A stretch of a segment that holds no valid frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins.
    pub at: Position,
    /// Bytes up to the next valid frame, or the end.
    pub bytes: u64,
    /// At the end of a segment, so nobody was promised what stood there.
    pub torn_tail: bool,
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

/// See the module. One task appends; files that are full are never written again.
pub struct Segments {
    dir: PathBuf,
    current: Arc<File>,
    number: u64,
    end: u64,
    /// Bytes of every segment that is kept, the current one included.
    kept: BTreeMap<u64, u64>,
}

impl Segments {
    /// Opens the log in `dir`, whose files bear the letter `kind`: what is there is kept for reading,
    /// and a new segment is begun for writing. Its number is beyond `after` too: the log's files may have
    /// been deleted, the positions that others remember have not.
    ///
    /// # Errors
    /// Of the file system; or a file of another kind or format, which is left as it is.
    pub fn open(dir: &Path, kind: u8, after: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut kept = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let Some(number) = segment_number(&path) else { continue };
            let file = File::open(&path)?;
            // Page-cache contents that never reached the disk must not be taken for durable.
            file.sync_all()?;
            let bytes = file.metadata()?.len();
            check_header(&file, bytes, kind, number, &path)?;
            kept.insert(number, bytes);
        }
        let last = kept.last_key_value().map_or(0, |(last, _)| *last).max(after);
        let number = last.checked_add(1).ok_or_else(|| invalid("no segment number is left"))?;
        let current = Arc::new(create(dir, kind, number)?);
        kept.insert(number, HEADER);
        Ok(Segments { dir: dir.to_owned(), current, number, end: HEADER, kept })
    }

    /// Where the next frame will begin.
    pub fn end(&self) -> Position {
        Position { segment: self.number, offset: self.end }
    }

    /// Whether no frame stands before a position in its segment.
    pub fn is_empty_at(&self, position: Position) -> bool {
        position.offset <= HEADER
    }

    /// The file that is written now, to be synced by whoever syncs.
    pub fn current(&self) -> Arc<File> {
        self.current.clone()
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.kept.values().sum()
    }

    /// Bytes of the current segment.
    pub fn current_bytes(&self) -> u64 {
        self.end
    }

    /// Writes a frame: `buffer` is [`FRAME_HEADER`] bytes of room and the payload. Where it ends.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(&mut self, buffer: &mut [u8]) -> Result<Position, AppendError> {
        if buffer.len() > FRAME_HEADER + MAX_PAYLOAD as usize {
            return Err(AppendError::Undone(invalid("a frame that would not be believed")));
        }
        let start = self.end();
        seal(buffer, start);
        let written = (&*self.current).write_all(buffer);
        if let Err(error) = written {
            return Err(
                match self.current.set_len(self.end).and_then(|()| seek_to(&self.current, self.end)) {
                    Ok(()) => AppendError::Undone(error),
                    Err(_) => AppendError::Unknown(error),
                },
            );
        }
        self.end += buffer.len() as u64;
        self.kept.insert(self.number, self.end);
        Ok(self.end())
    }

    /// Makes the segment that will be written next. Slow: two syncs; may run beside appends.
    ///
    /// # Errors
    /// Of the file system.
    pub fn prepare(dir: &Path, kind: u8, number: u64) -> io::Result<File> {
        create(dir, kind, number)
    }

    /// The number of the segment that follows the current one.
    pub fn next_number(&self) -> u64 {
        self.number + 1
    }

    /// Goes on in a prepared segment. The old one's file is returned, to be synced.
    pub fn install(&mut self, file: File) -> Arc<File> {
        self.number += 1;
        self.end = HEADER;
        self.kept.insert(self.number, HEADER);
        std::mem::replace(&mut self.current, Arc::new(file))
    }

    /// Gives up segments that end at or before a position, never the current one. Their files, to be
    /// deleted.
    pub fn forget_before(&mut self, position: Position) -> Vec<PathBuf> {
        let mut files = Vec::new();
        while let Some((&number, &bytes)) = self.kept.first_key_value() {
            let ends = Position { segment: number, offset: bytes };
            if number == self.number || !(number < position.segment || ends <= position) {
                break;
            }
            files.push(self.dir.join(segment_name(number)));
            self.kept.remove(&number);
        }
        files
    }

    /// Reads every frame that begins at or after `from`, in order; `each` is given its payload and where
    /// it begins and ends. What was damaged.
    ///
    /// # Errors
    /// Of the file system, or of `each`.
    pub fn replay(
        &self,
        from: Position,
        mut each: impl FnMut(&[u8], Position, Position) -> io::Result<()>,
    ) -> io::Result<Vec<Damage>> {
        let mut damage = Vec::new();
        for (&number, _) in self.kept.range(from.segment..self.number) {
            let bytes = fs::read(self.dir.join(segment_name(number)))?;
            let start = if number == from.segment { from.offset.max(HEADER) } else { HEADER };
            let mut offset = start as usize;
            while offset < bytes.len() {
                let at = Position { segment: number, offset: offset as u64 };
                if let Some(payload) = frame_at(&bytes, at) {
                    let next = offset + FRAME_HEADER + payload.len();
                    each(payload, at, Position { offset: next as u64, ..at })?;
                    offset = next;
                    continue;
                }
                let next = (offset + 1..bytes.len())
                    .find(|&o| frame_at(&bytes, Position { segment: number, offset: o as u64 }).is_some());
                let until = next.unwrap_or(bytes.len());
                damage.push(Damage { at, bytes: (until - offset) as u64, torn_tail: next.is_none() });
                offset = until;
            }
        }
        Ok(damage)
    }

    /// Reads the payload of the frame that begins at a position.
    ///
    /// # Errors
    /// Of the file system; `InvalidData` where no valid frame stands.
    pub fn read(&self, at: Position) -> io::Result<Vec<u8>> {
        let file = File::open(self.dir.join(segment_name(at.segment)))?;
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

fn seal(buffer: &mut [u8], at: Position) {
    let (header, payload) = buffer.split_at_mut(FRAME_HEADER);
    let checksum = checksum_at(at, payload);
    header[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[4..].copy_from_slice(&checksum.to_le_bytes());
}

fn split_header(header: &[u8; FRAME_HEADER]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = *header;
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

fn frame_at(bytes: &[u8], at: Position) -> Option<&[u8]> {
    let rest = bytes.get(at.offset as usize..)?;
    let (header, rest) = rest.split_first_chunk::<FRAME_HEADER>()?;
    let (length, checksum) = split_header(header);
    let payload = rest.get(..length as usize)?;
    (length > 0 && length <= MAX_PAYLOAD && checksum_at(at, payload) == checksum).then_some(payload)
}

fn checksum_at(at: Position, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&at.segment.to_le_bytes());
    hasher.update(&at.offset.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

fn segment_name(number: u64) -> String {
    format!("{number:016x}.seg")
}

fn segment_number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let number = u64::from_str_radix(name.strip_suffix(".seg")?, 16).ok()?;
    (segment_name(number) == name).then_some(number)
}

fn header(kind: u8, number: u64) -> [u8; HEADER as usize] {
    let mut header = [0; HEADER as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8] = kind;
    header[9] = FORMAT;
    header[16..].copy_from_slice(&number.to_le_bytes());
    header
}

/// The file and its name are on disk before the first frame enters it.
fn create(dir: &Path, kind: u8, number: u64) -> io::Result<File> {
    let path = dir.join(segment_name(number));
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    let written =
        file.write_all(&header(kind, number)).and_then(|()| file.sync_all()).and_then(|()| sync_dir(dir));
    if let Err(error) = written {
        fs::remove_file(&path).ok();
        return Err(error);
    }
    Ok(file)
}

/// A segment that is too short for its header was never written to.
fn check_header(file: &File, bytes: u64, kind: u8, number: u64, path: &Path) -> io::Result<()> {
    if bytes < HEADER {
        return Ok(());
    }
    let mut found = [0; HEADER as usize];
    file.read_exact_at(&mut found, 0)?;
    if found == header(kind, number) {
        return Ok(());
    }
    let of_ours = found.starts_with(MAGIC) && found[8] == kind && found[9] != FORMAT;
    let what = if of_ours {
        format!("is of format {}, this version reads {FORMAT}", found[9])
    } else {
        "is not a segment of footfall, or its head is damaged".to_owned()
    };
    Err(invalid(&format!("{} {what}; it is left as it is", path.display())))
}

fn seek_to(mut file: &File, offset: u64) -> io::Result<()> {
    io::Seek::seek(&mut file, io::SeekFrom::Start(offset)).map(|_| ())
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests;
