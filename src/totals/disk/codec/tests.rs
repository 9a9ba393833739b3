use proptest::prelude::*;

use super::*;
use crate::ingest::Reason;
use crate::totals::batch::part::Sums;

/// Any hour that a calendar can give.
pub(in crate::totals) fn any_hour() -> impl Strategy<Value = CivilHour> {
    (1..3_000_000i32, 0..24u8, -93_600..93_600i32, 0..7u64).prop_map(|(day, hour, offset_s, since)| {
        let day = NaiveDate::from_num_days_from_ce_opt(day).unwrap();
        CivilHour { day, hour, offset_s, week: day - chrono::Days::new(since) }
    })
}

/// Any number that a store can count up to, and any number of a batch.
pub(in crate::totals) fn any_sum() -> impl Strategy<Value = u64> {
    prop_oneof![0..1u64 << 53, Just((1 << 53) - 1), 0..300u64]
}

/// Any time that a clock can tell.
pub(in crate::totals) fn any_instant() -> impl Strategy<Value = i64> {
    -253_402_300_799_999..253_402_300_800_000i64
}

pub(in crate::totals) fn any_sums() -> impl Strategy<Value = Sums> {
    let some = prop::collection::vec(prop_oneof![Just(0), any_sum()], Reason::FILTERED.len());
    let filtered = prop_oneof![Just(Vec::new()), some].prop_map(|some| some.try_into().unwrap_or_default());
    (any_sum(), any_sum(), filtered).prop_map(|(views, visits, filtered)| Sums { views, visits, filtered })
}

/// Bytes cut short anywhere, and with any one byte altered, must be read or refused.
pub(in crate::totals) fn survives<T>(bytes: &[u8], read: impl Fn(&[u8]) -> T) {
    for cut in 0..bytes.len() {
        read(&bytes[..cut]);
    }
    let mut altered = bytes.to_vec();
    for place in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            altered[place] = value;
            read(&altered);
        }
        altered[place] = bytes[place];
    }
}

proptest! {
    #[test]
    fn everything_comes_back(
        numbers in (any::<u8>(), any::<u32>(), any::<u64>(), any::<i64>()),
        varints in prop::collection::vec(prop_oneof![any::<u64>(), 0..300u64, Just(u64::MAX)], 0..8),
        text in ".{0,40}",
        hour in any_hour(),
    ) {
        let mut bytes = Vec::new();
        bytes.put_u8(numbers.0);
        bytes.put_u32(numbers.1);
        bytes.put_u64(numbers.2);
        bytes.put_i64(numbers.3);
        varints.iter().for_each(|n| bytes.put_varint(*n));
        bytes.put_text(&text);
        bytes.put_hour(&hour);
        let mut take = Take(&bytes);
        prop_assert_eq!((take.u8()?, take.u32()?, take.u64()?, take.i64()?), numbers);
        for n in &varints {
            prop_assert_eq!(take.varint()?, *n);
        }
        prop_assert_eq!(take.text()?, text);
        prop_assert_eq!(take.hour()?, hour);
        prop_assert_eq!(take.end(), Ok(()));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        for read in [
            |take: &mut Take<'_>| take.hour().map(|_| ()),
            |take: &mut Take<'_>| take.text().map(|_| ()),
            |take: &mut Take<'_>| take.varint().map(|_| ()),
            |take: &mut Take<'_>| take.count(3).map(|_| ()),
        ] {
            let mut take = Take(&bytes);
            while !take.0.is_empty() && read(&mut take).is_ok() {}
        }
    }
}

/// The right checksum makes no number right.
#[test]
fn what_no_clock_and_no_count_can_be_is_damaged() {
    let eight = |n: u64| n.to_le_bytes();
    for n in [1 << 53, u64::MAX - 1, u64::MAX] {
        let mut sum = Vec::new();
        sum.put_varint(n);
        assert!(Take(&sum).sum().is_err(), "{n}");
        assert!(Take(&eight(n)).at_most((1 << 53) - 1).is_err(), "{n}");
        assert!(Take(&[eight(n), eight(u64::MAX)].concat()).position().is_err(), "{n}");
    }
    for ms in [i64::MIN, i64::MAX, -253_402_300_800_000, 253_402_300_800_000] {
        assert!(Take(&ms.to_le_bytes()).instant().is_err(), "{ms}");
    }
    for (year, offset_s) in
        [(0, 0), (-262_142, 0), (10_000, 0), (262_142, 0), (2026, i32::MIN), (2026, 93_601)]
    {
        let day = NaiveDate::from_ymd_opt(year, 6, 1).unwrap();
        let mut bytes = Vec::new();
        bytes.put_hour(&CivilHour { day, hour: 0, offset_s, week: day });
        assert!(Take(&bytes).hour().is_err(), "{year} {offset_s}");
    }
}

#[test]
fn a_count_of_more_than_can_follow_is_refused_before_room_is_made() {
    let mut bytes = Vec::new();
    bytes.put_varint(u64::MAX);
    bytes.put(&[0; 30]);
    assert!(Take(&bytes).count(1).is_err());
    assert!(Take(&bytes).text().is_err());
    let mut bytes = Vec::new();
    bytes.put_varint(10);
    bytes.put(&[0; 30]);
    assert_eq!(Take(&bytes).count(3), Ok(10));
    assert!(Take(&bytes).count(4).is_err());
}
