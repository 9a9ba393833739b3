//! Bytes of the files in `data_dir`: little-endian integers, varints (LEB128) and length-prefixed
//! text. Reading checks every length; what does not fit is [`Damaged`].

use chrono::{Datelike, NaiveDate};

use super::frame::Position;
use crate::calendar::CivilHour;

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged: {0}")]
pub struct Damaged(pub &'static str);

/// Appends to a buffer.
pub trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, n: u8) {
        self.put(&[n]);
    }
    fn put_u32(&mut self, n: u32) {
        self.put(&n.to_le_bytes());
    }
    fn put_u64(&mut self, n: u64) {
        self.put(&n.to_le_bytes());
    }
    fn put_i64(&mut self, n: i64) {
        self.put(&n.to_le_bytes());
    }
    fn put_varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.put_u8(n as u8 | 0x80);
            n >>= 7;
        }
        self.put_u8(n as u8);
    }
    /// A varint that [`Take::sum`] reads: what is more than a store can hold is written as the most.
    fn put_sum(&mut self, n: u64) {
        self.put_varint(n.min((1 << 53) - 1));
    }
    /// Length as a varint, then the bytes.
    fn put_text(&mut self, text: &str) {
        self.put_varint(text.len() as u64);
        self.put(text.as_bytes());
    }
    /// Days from the common era (i32), hour (u8), offset in seconds (i32), days since the week began (u8).
    fn put_hour(&mut self, hour: &CivilHour) {
        self.put(&hour.day.num_days_from_ce().to_le_bytes());
        self.put_u8(hour.hour);
        self.put(&hour.offset_s.to_le_bytes());
        self.put_u8((hour.day - hour.week).num_days() as u8);
    }
}

impl Put for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Reads from a slice, from its front.
pub struct Take<'a>(pub &'a [u8]);

impl<'a> Take<'a> {
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Damaged> {
        let (front, rest) = self.0.split_at_checked(len).ok_or(Damaged("it ends too early"))?;
        self.0 = rest;
        Ok(front)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        self.bytes(N)?.try_into().map_err(|_| Damaged("it ends too early"))
    }
    pub fn u8(&mut self) -> Result<u8, Damaged> {
        Ok(u8::from_le_bytes(self.array()?))
    }
    pub fn u32(&mut self) -> Result<u32, Damaged> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub fn u64(&mut self) -> Result<u64, Damaged> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    pub fn u128(&mut self) -> Result<u128, Damaged> {
        Ok(u128::from_le_bytes(self.array()?))
    }
    pub fn i64(&mut self) -> Result<i64, Damaged> {
        Ok(i64::from_le_bytes(self.array()?))
    }
    pub fn varint(&mut self) -> Result<u64, Damaged> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            n |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(Damaged("a number that is too long"))
    }
    /// A number that is never larger where it was written.
    pub fn at_most(&mut self, most: u64) -> Result<u64, Damaged> {
        Some(self.u64()?).filter(|n| *n <= most).ok_or(Damaged("a number that cannot be"))
    }
    /// A varint that can be a sum: doubles are exact up to 2^53.
    pub fn sum(&mut self) -> Result<u64, Damaged> {
        Some(self.varint()?).filter(|n| *n < 1 << 53).ok_or(Damaged("a sum that cannot be"))
    }
    /// Milliseconds of a clock, before the year 10000.
    pub fn instant(&mut self) -> Result<i64, Damaged> {
        let ms = self.i64()?;
        if ms.unsigned_abs() < 253_402_300_800_000 { Ok(ms) } else { Err(Damaged("a time that cannot be")) }
    }
    pub fn position(&mut self) -> Result<Position, Damaged> {
        Ok(Position { segment: self.at_most(1 << 53)?, offset: self.at_most(1 << 53)? })
    }
    /// A varint that counts things of at least `each` bytes that follow: never more than can be there.
    pub fn count(&mut self, each: usize) -> Result<usize, Damaged> {
        let n = self.varint()? as usize;
        if n > self.0.len() / each.max(1) { Err(Damaged("a count that cannot be")) } else { Ok(n) }
    }
    pub fn text(&mut self) -> Result<&'a str, Damaged> {
        let len = self.count(1)?;
        std::str::from_utf8(self.bytes(len)?).map_err(|_| Damaged("text that is not UTF-8"))
    }
    pub fn hour(&mut self) -> Result<CivilHour, Damaged> {
        let day = NaiveDate::from_num_days_from_ce_opt(i32::from_le_bytes(self.array()?));
        let (hour, offset_s, since) = (self.u8()?, i32::from_le_bytes(self.array()?), self.u8()?);
        let day = day.ok_or(Damaged("a day that cannot be"))?;
        let week =
            day.checked_sub_days(chrono::Days::new(since.into())).ok_or(Damaged("a week that cannot be"))?;
        if hour > 23 || since > 6 || offset_s.unsigned_abs() > 26 * 3600 || !(1..=9999).contains(&day.year())
        {
            return Err(Damaged("an hour or a week that cannot be"));
        }
        Ok(CivilHour { day, hour, offset_s, week })
    }
    /// Whether all has been read.
    pub fn end(&self) -> Result<(), Damaged> {
        if self.0.is_empty() { Ok(()) } else { Err(Damaged("more than there should be")) }
    }
}

#[cfg(test)]
pub mod tests;
