//! A frame of a log: a payload with its length and a checksum of it and of its place.

use std::fmt;

/// Length and checksum before a payload.
pub const FRAME_HEADER: usize = 8;
/// The longest payload that is believed on reading.
pub const MAX_PAYLOAD: u32 = 1 << 30;
/// A place in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Number of the segment.
    pub segment: u64,
    /// Byte in it.
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
