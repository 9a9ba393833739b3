use std::path::Path;
use std::time::Duration;

use super::*;
use crate::totals::batch::Frozen;
use crate::totals::batch::part::LastParts;
use crate::totals::batch::tests::sums_of;

const HOUR_MS: i64 = 3_600_000;

fn settings(retention_h: u64, max_bytes: u64) -> OutboxConfig {
    OutboxConfig { retention: Duration::from_secs(retention_h * 3600), max_bytes }
}

fn batch(sequence: u64, frozen_ms: i64, pages: usize) -> Batch {
    let sums = vec![sums_of("demo", "2026-11-23", 8, pages)];
    let reach = Position { segment: 1, offset: sequence };
    Batch::freeze(
        sequence,
        sequence,
        frozen_ms,
        Frozen { sums, reach, oldest_ms: frozen_ms - 5, ..Frozen::default() },
        &mut LastParts::new(),
    )
}

fn open(dir: &Path, config: OutboxConfig) -> (Outbox, Vec<u64>) {
    let mut read = Vec::new();
    let outbox = Outbox::open(dir, config, |batch| read.push(batch.sequence)).unwrap();
    (outbox, read)
}

fn kept(outbox: &Outbox) -> Vec<u64> {
    (0..outbox.next_sequence() + 2).filter(|s| outbox.get(*s).unwrap().is_some()).collect()
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

#[test]
fn batches_are_kept_in_order_over_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let (mut outbox, read) = open(dir.path(), settings(72, 1 << 30));
    assert!(read.is_empty());
    assert_eq!((outbox.next_sequence(), outbox.next_waiting(), outbox.first_sequence()), (1, None, None));
    let batches: Vec<_> = (1..=5).map(|n| batch(n, n as i64 * 1000, n as usize)).collect();
    batches.iter().for_each(|batch| outbox.add(batch).unwrap());
    assert_eq!((outbox.next_waiting(), outbox.waiting()), (Some((1, 995)), 5));
    outbox.set_applied(3);
    outbox.set_applied(2);
    assert_eq!((outbox.applied(), outbox.waiting(), outbox.next_waiting()), (3, 2, Some((4, 3995))));
    drop(outbox);
    let (mut outbox, read) = open(dir.path(), settings(72, 1 << 30));
    assert_eq!(read, [1, 2, 3, 4, 5]);
    assert_eq!((outbox.waiting(), outbox.next_sequence(), outbox.first_sequence()), (5, 6, Some(1)));
    for batch in &batches {
        assert_eq!(outbox.get(batch.sequence).unwrap().as_ref(), Some(batch));
    }
    outbox.set_applied(5);
    assert_eq!((outbox.next_waiting(), outbox.waiting(), outbox.next_sequence()), (None, 0, 6));
    // A checkpoint that knows of more than the outbox.
    outbox.set_applied(9);
    assert_eq!((outbox.waiting(), outbox.next_sequence(), outbox.get(9).unwrap()), (0, 10, None));
}

/// Segments of 16 KiB, which hold some twenty batches of a hundred pages.
fn short() -> OutboxConfig {
    settings(24, 64 << 10)
}

fn hour(n: u64) -> u64 {
    n * HOUR_MS as u64
}

fn add_now(outbox: &mut Outbox, sequence: u64) {
    let clock_ms = outbox.clock_ms();
    outbox.add(&batch(sequence, clock_ms, 100)).unwrap();
}

#[test]
fn what_is_applied_is_kept_for_the_retention_and_what_waits_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let (mut outbox, _) = open(dir.path(), short());
    outbox.trim(hour(1000), true).unwrap();
    for n in 1..=100 {
        add_now(&mut outbox, n);
        outbox.set_applied(n);
        outbox.trim(hour(1000 + n), true).unwrap();
        let first = outbox.first_sequence().unwrap();
        assert!(first <= n.saturating_sub(23).max(1), "batch {first} is the first after {n} hours");
        assert!(n < first + 24 + 32, "batch {first} is the first after {n} hours: older ones go by segments");
        assert!(outbox.reach_ms() >= hour(n.min(24)), "{} ms after {n} hours", outbox.reach_ms());
    }
    (101..=120).for_each(|n| add_now(&mut outbox, n));
    outbox.trim(hour(9999), true).unwrap();
    let remain = kept(&outbox);
    assert!(remain.len() < 40 && remain.ends_with(&(101..=120).collect::<Vec<_>>()), "{remain:?}");
    // The newest stays when it is applied: a start goes on from its sequence and its reach.
    outbox.set_applied(120);
    outbox.trim(hour(99_999), true).unwrap();
    let remain = kept(&outbox);
    assert!(remain.len() < 20 && remain.last() == Some(&120), "{remain:?}");
    assert_eq!(outbox.next_sequence(), 121);
}

#[test]
fn what_is_not_kept_is_not_on_the_disk_either() {
    let dir = tempfile::tempdir().unwrap();
    let (mut outbox, _) = open(dir.path(), short());
    for n in 1..=200 {
        add_now(&mut outbox, n);
        outbox.set_applied(n);
        outbox.trim(hour(n), true).unwrap();
        if n % 7 == 0 {
            let remain = kept(&outbox);
            drop(outbox);
            let (after, read) = open(dir.path(), short());
            assert_eq!((&read, &kept(&after)), (&remain, &remain), "after {n} hours");
            outbox = after;
            outbox.set_applied(n);
            outbox.trim(hour(n), true).unwrap();
        }
    }
    assert!(outbox.first_sequence().unwrap() > 100);
}

#[test]
fn retention_does_not_run_while_the_store_is_away_or_no_process_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (mut outbox, _) = open(dir.path(), short());
    outbox.trim(hour(0), true).unwrap();
    (1..=40).for_each(|n| add_now(&mut outbox, n));
    outbox.set_applied(40);
    let all: Vec<u64> = (1..=40).collect();
    outbox.trim(hour(10), true).unwrap();
    for n in 11..500 {
        outbox.trim(hour(n), false).unwrap();
    }
    outbox.trim(hour(499), true).unwrap();
    assert_eq!((kept(&outbox), outbox.reach_ms()), (all.clone(), hour(10)), "ten hours have been counted");
    outbox.trim(hour(499 + 14), true).unwrap();
    assert_eq!(kept(&outbox), all);
    add_now(&mut outbox, 41);
    drop(outbox);

    let (mut outbox, _) = open(dir.path(), short());
    outbox.set_applied(41);
    outbox.trim(hour(5000), true).unwrap();
    assert_eq!((outbox.first_sequence(), outbox.reach_ms()), (Some(1), hour(24)));
    outbox.trim(hour(5001), true).unwrap();
    assert_eq!(kept(&outbox), [41], "a start puts the newest into a segment of its own");
}

#[test]
fn the_oldest_applied_go_when_it_is_too_large_and_their_files_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let max = 16 << 20;
    let (mut outbox, _) = open(dir.path(), settings(72, max));
    // 20,000 pages make about 200 KiB.
    for n in 1..=200 {
        outbox.add(&batch(n, 0, 20_000)).unwrap();
        outbox.set_applied(n);
        outbox.trim(0, true).unwrap();
        assert!(outbox.bytes() <= max + SEGMENT_BYTES + (1 << 20), "{} bytes", outbox.bytes());
    }
    let first = outbox.first_sequence().unwrap();
    assert!(first > 50, "the oldest are gone");
    assert_eq!(kept(&outbox), (first..=200).collect::<Vec<_>>());
    assert!(outbox.bytes() > max / 2, "no more went than must");
    assert!(files(dir.path()) <= 6);
    assert!(!outbox.is_full(), "what is applied makes room");
    drop(outbox);
    let (_, read) = open(dir.path(), settings(72, max));
    assert_eq!(read, (first..=200).collect::<Vec<_>>());
}

#[test]
fn it_is_full_when_what_waits_fills_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut outbox, _) = open(dir.path(), settings(72, 1 << 20));
    let mut n = 0;
    outbox.add(&batch(1, 0, 1)).unwrap();
    outbox.set_applied(1);
    while !outbox.is_full() {
        n += 1;
        outbox.add(&batch(n + 1, 0, 20_000)).unwrap();
        outbox.trim(0, true).unwrap();
        assert!(n < 100, "it never becomes full");
    }
    assert!(outbox.bytes() >= 1 << 20);
    assert_eq!(outbox.waiting(), n, "nothing that waits is dropped");
    assert_eq!(outbox.next_waiting().map(|(sequence, _)| sequence), Some(2));
    outbox.set_applied(n + 1);
    outbox.trim(0, true).unwrap();
    assert!(!outbox.is_full());
}

#[test]
fn a_torn_batch_was_never_there() {
    let dir = tempfile::tempdir().unwrap();
    let (mut outbox, _) = open(dir.path(), settings(72, 1 << 30));
    outbox.add(&batch(1, 0, 3)).unwrap();
    let whole = outbox.bytes();
    outbox.add(&batch(2, 0, 3)).unwrap();
    drop(outbox);
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("0000000000000001.seg")).unwrap();
    file.set_len(whole + 20).unwrap();
    let (mut outbox, read) = open(dir.path(), settings(72, 1 << 30));
    assert_eq!((read, outbox.next_sequence()), (vec![1], 2));
    outbox.add(&batch(2, 7, 4)).unwrap();
    assert_eq!(outbox.get(2).unwrap(), Some(batch(2, 7, 4)));
}

#[test]
fn batches_that_are_missing_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (mut outbox, _) = open(dir.path(), settings(72, 1 << 30));
    let mut ends = vec![outbox.bytes()];
    for n in 1..=6 {
        outbox.add(&batch(n, 0, 3)).unwrap();
        ends.push(outbox.bytes());
    }
    drop(outbox);
    let path = dir.path().join("0000000000000001.seg");
    let whole = std::fs::read(&path).unwrap();
    let harmed = |batches: &[usize]| {
        let mut bytes = whole.clone();
        batches.iter().for_each(|batch| bytes[ends[batch - 1] as usize + 20] ^= 4);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("0000000000000001.seg"), bytes).unwrap();
        let (outbox, read) = open(dir.path(), settings(72, 1 << 30));
        let gaps = [0, 4, 6, 8].map(|applied| outbox.gaps(applied));
        (read, outbox.damage().len(), gaps)
    };
    assert_eq!(harmed(&[]), (vec![1, 2, 3, 4, 5, 6], 0, [vec![], vec![], vec![], vec![7..=8]]));
    assert_eq!(
        harmed(&[3]),
        (vec![1, 2, 4, 5, 6], 1, [vec![3..=3], vec![3..=3], vec![3..=3], vec![3..=3, 7..=8]])
    );
    let (read, _, gaps) = harmed(&[2, 3, 5, 6]);
    assert_eq!((read, &gaps[0], &gaps[2]), (vec![1, 4], &vec![2..=3], &vec![2..=3, 5..=6]));
    assert_eq!(harmed(&[1, 2, 3, 4, 5, 6]).2[1], [1..=4]);
}

#[test]
fn the_newest_batch_is_copied_at_every_start_and_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = settings(72, 1 << 30);
    let (mut outbox, _) = open(dir.path(), config.clone());
    (1..=3).for_each(|n| outbox.add(&batch(n, 0, 5)).unwrap());
    drop(outbox);
    for start in 2..=6 {
        let (mut outbox, read) = open(dir.path(), config.clone());
        assert_eq!(read, [1, 2, 3]);
        assert_eq!(outbox.places.back().unwrap().at.segment, start);
        assert_eq!(outbox.get(3).unwrap(), Some(batch(3, 0, 5)));
        outbox.set_applied(3);
        if start == 6 {
            outbox.trim(0, true).unwrap();
            outbox.trim(u64::MAX / 4, true).unwrap();
            assert_eq!(kept(&outbox), [3]);
            assert_eq!(files(dir.path()), 2, "one segment and the list");
        }
    }
}

/// Each start copies the newest batch. The one that waits alone is there twice at most, and nothing else is dropped.
#[test]
fn starts_that_follow_each_other_take_no_more_of_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (mut outbox, _) = open(dir.path(), short());
    (1..=3).for_each(|n| add_now(&mut outbox, n));
    drop(outbox);
    let (outbox, _) = open(dir.path(), short());
    let bytes = outbox.bytes();
    drop(outbox);
    for starts in 0..5 {
        let (outbox, read) = open(dir.path(), short());
        assert_eq!((read, kept(&outbox)), (vec![1, 2, 3], vec![1, 2, 3]));
        // A segment that only has a head may stay until the next start.
        assert!(
            outbox.bytes() <= bytes + 24,
            "{} and then {} bytes after {starts} starts",
            bytes,
            outbox.bytes()
        );
    }
}
