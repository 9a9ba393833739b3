//! Finds the next valid frame behind damage, in time that grows with the bytes and not with their square:
//! the checksum of any stretch follows from those of two prefixes (CRC-32 is linear), so a length that
//! garbage claims costs no pass over what it claims.

use super::frame::{FRAME_HEADER, MAX_PAYLOAD, Position, frame_at, split_header};

/// See the module.
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
        let mut crc = !0u32;
        prefixes.push(0);
        for byte in rest {
            crc = TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
            prefixes.push(!crc);
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
        let mut place = crc32fast::Hasher::new();
        place.update(&at.segment.to_le_bytes());
        place.update(&at.offset.to_le_bytes());
        // The payload's own checksum behind that of the place.
        let told = append(place.finalize() ^ before, length) ^ after;
        length > 0 && length <= MAX_PAYLOAD && told == checksum
    }
}

/// The CRC-32 of bytes with that of `crc` followed by `zeros` bytes that add nothing of their own.
fn append(crc: u32, zeros: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(crc);
    hasher.combine(&crc32fast::Hasher::new_with_initial_len(0, zeros.into()));
    hasher.finalize()
}

/// CRC-32 (reflected 0x04C11DB7) of one byte.
const TABLE: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut n = 0;
    while n < 256 {
        let (mut crc, mut bit) = (n as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xEDB8_8320 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};
