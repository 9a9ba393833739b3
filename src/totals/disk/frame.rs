//! A frame of a log: a payload with its length and a checksum of it and of its place. How one is sealed,
//! checked, and found behind damage.

use std::fmt;

/// Length and checksum before a payload.
pub const FRAME_HEADER: usize = 8;
/// The longest payload that is believed on reading.
pub const MAX_PAYLOAD: u32 = 1 << 30;
/// A place in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub segment: u64,
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{}", self.segment, self.offset)
    }
}

pub fn seal(buffer: &mut [u8], at: Position) {
    let (header, payload) = buffer.split_at_mut(FRAME_HEADER);
    let checksum = checksum_at(at, payload);
    header[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[4..].copy_from_slice(&checksum.to_le_bytes());
}

pub fn split_header(header: &[u8; FRAME_HEADER]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = *header;
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

pub fn frame_at(bytes: &[u8], at: Position) -> Option<&[u8]> {
    let rest = bytes.get(at.offset as usize..)?;
    let (header, rest) = rest.split_first_chunk::<FRAME_HEADER>()?;
    let (length, checksum) = split_header(header);
    let payload = rest.get(..length as usize)?;
    (length > 0 && length <= MAX_PAYLOAD && checksum_at(at, payload) == checksum).then_some(payload)
}

pub fn checksum_at(at: Position, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&at.segment.to_le_bytes());
    hasher.update(&at.offset.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Finds the next valid frame behind damage, in time that grows with the bytes and not with their square:
/// the checksum of any stretch follows from those of two prefixes (CRC-32 is linear), so a length that
/// garbage claims costs no pass over what it claims.
pub struct Scan<'a> {
    number: u64,
    bytes: &'a [u8],
    from: usize,
    /// CRC-32 of `bytes[from..from + i]`.
    prefixes: Vec<u32>,
}

impl<'a> Scan<'a> {
    /// Prepares to look for frames of segment `number` from an offset on.
    pub fn new(number: u64, bytes: &'a [u8], from: usize) -> Self {
        let rest = bytes.get(from..).unwrap_or_default();
        let mut prefixes = Vec::with_capacity(rest.len() + 1);
        let mut crc = crc32fast::Hasher::new();
        prefixes.push(0);
        for byte in rest.chunks(1) {
            crc.update(byte);
            prefixes.push(crc.clone().finalize());
        }
        Scan { number, bytes, from, prefixes }
    }

    /// Where the next valid frame begins, at `offset` or later.
    pub fn next_frame(&self, offset: usize) -> Option<usize> {
        (offset..self.bytes.len()).find(|offset| {
            let at = Position { segment: self.number, offset: *offset as u64 };
            // What is told by the prefixes is checked once more by the usual way.
            self.may_begin(at) && frame_at(self.bytes, at).is_some()
        })
    }

    fn may_begin(&self, at: Position) -> bool {
        let offset = at.offset as usize;
        let header = self.bytes.get(offset..).and_then(|rest| rest.first_chunk::<FRAME_HEADER>());
        let Some((length, checksum)) = header.map(split_header) else { return false };
        let start = offset + FRAME_HEADER;
        let prefix = |offset: usize| self.prefixes.get(offset.checked_sub(self.from)?).copied();
        let (Some(before), Some(after)) = (prefix(start), prefix(start.saturating_add(length as usize)))
        else {
            return false;
        };
        // The payload's own checksum behind that of the place.
        let told = append(checksum_at(at, &[]) ^ before, length) ^ after;
        length > 0 && length <= MAX_PAYLOAD && told == checksum
    }
}

/// The CRC-32 of bytes with that of `crc` followed by `zeros` bytes that add nothing of their own.
fn append(crc: u32, zeros: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(crc);
    hasher.combine(&crc32fast::Hasher::new_with_initial_len(0, zeros.into()));
    hasher.finalize()
}
