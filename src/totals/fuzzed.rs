//! The readers of what is on disk, for [`crate::fuzzed`]: a checksum that is right does not make the bytes behind it ours.

use super::batch::Batch;
use super::disk::frame::{Position, Scan, frame_at};
use super::intake::record;
use super::writer::checkpoint::Checkpoint;

/// A segment of the journal or the outbox, and the records of a group.
pub fn journal(bytes: &[u8]) {
    // Of the head of a segment: a frame's checksum is that of its place, too.
    let segment = bytes.get(9..17).and_then(|number| number.try_into().ok()).map_or(1, u64::from_le_bytes);
    let scan = Scan::new(segment, bytes, 0);
    let mut offset = 0;
    while let Some(found) = scan.next_frame(offset) {
        let frame = frame_at(bytes, Position { segment, offset: found as u64 });
        frame.into_iter().for_each(|payload| _ = record::decode(payload, |_| {}));
        offset = found + 1;
    }
    let _ = record::decode(bytes, |record| drop(record.page.to_owned()));
}

/// A batch, which is written as it was read.
pub fn outbox(bytes: &[u8]) {
    let Ok(batch) = Batch::decode(bytes) else { return };
    let mut written = Vec::new();
    batch.encode(&mut written);
    assert_eq!(Batch::decode(&written).as_ref(), Ok(&batch));
    assert!(batch.parts().len() <= u32::MAX as usize);
}

/// A checkpoint, with the checksum that it should have.
pub fn checkpoint(bytes: &[u8]) {
    let _ = Checkpoint::decode(bytes);
    let mut whole = bytes.to_vec();
    whole.extend(crc32fast::hash(bytes).to_le_bytes());
    let _ = Checkpoint::decode(&whole);
}
