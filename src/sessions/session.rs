//! What is kept of a visitor: 20 bytes with the key.

use std::hash::{Hash, Hasher};

use super::presence::{LEAVE_GRACE_S, Place};
use crate::ingest::Page;
use crate::sites::SiteId;

/// Begun by a view. Without this flag, the visitor is online but has no session.
pub(super) const BEGUN: u8 = 1;
/// Its visit is counted.
pub(super) const COUNTED: u8 = 2;
/// Counted in the numbers of its site and page.
pub(super) const ONLINE: u8 = 4;
/// Left, without a sign of life since.
pub(super) const LEAVING: u8 = 8;
/// Has an entry in the wheel of those online.
pub(super) const IN_ONLINE_WHEEL: u8 = 16;
/// Has an entry in the wheel of ends.
pub(super) const IN_END_WHEEL: u8 = 32;
/// Has an entry in the wheel of those who left.
pub(super) const IN_LEAVE_WHEEL: u8 = 64;

/// A visitor's id, aligned so that nothing is lost between it and its session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key([u32; 2]);

impl From<u64> for Key {
    fn from(id: u64) -> Self {
        Key([id as u32, (id >> 32) as u32])
    }
}

impl From<Key> for u64 {
    fn from(Key([low, high]): Key) -> Self {
        u64::from(high) << 32 | u64::from(low)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64((*self).into());
    }
}

/// One visitor's signs of life. Times are [`Moment::uptime_s`](crate::clock::Moment::uptime_s).
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub place: Place,
    pub last_life: u32,
    /// While it is [`LEAVING`]: seconds from the last sign of life until it left.
    pub left_after: u16,
    pub flags: u8,
    /// The lowest bits of its page's key: pages without a place of their own are told apart by these.
    pub page_mark: u8,
}

/// See [`Session::page_mark`].
pub(super) fn mark(page: &Page) -> u8 {
    page.key() as u8
}

impl Session {
    pub fn new(site: SiteId, last_life: u32, flags: u8) -> Self {
        Session { place: Place::of_site(site), last_life, left_after: 0, flags, page_mark: 0 }
    }

    /// Whether it has one of some flags.
    pub fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// When it left, without a sign of life since.
    pub fn left(&self) -> Option<u32> {
        self.is(LEAVING).then(|| self.last_life + u32::from(self.left_after))
    }

    /// Notes that it has left.
    pub fn leave(&mut self, at: u32) {
        self.flags |= LEAVING;
        self.left_after = at.saturating_sub(self.last_life).try_into().unwrap_or(u16::MAX);
    }

    /// When it goes offline, if nothing more is heard.
    pub fn online_until(&self, window_s: u32) -> u32 {
        self.left().map_or(self.last_life + window_s, |left| left + LEAVE_GRACE_S)
    }
}
