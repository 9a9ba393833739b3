use proptest::prelude::*;

use super::*;
use crate::totals::store::tests::servers::RedisServer;

/// Evenly distributed hashes: splitmix64 over a counter.
fn hashes(seed: u64, count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |n| {
        let mut x = (seed << 32 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    })
}

fn sketch_of(seed: u64, count: u64) -> Sketch {
    let mut sketch = Sketch::new();
    for hash in hashes(seed, count) {
        sketch.insert(hash);
    }
    sketch
}

fn recounted(sketch: &Sketch) -> [u16; MAX_RANK + 1] {
    let mut histogram = [0; MAX_RANK + 1];
    sketch.ranks.iter().for_each(|&rank| histogram[usize::from(rank)] += 1);
    histogram
}

#[test]
fn register_and_rank_follow_from_the_hash() {
    let mut sketch = Sketch::new();
    assert_eq!(sketch.insert(0b1 << 14 | 5), Some((5, 1)));
    assert_eq!(sketch.insert(0b100 << 14 | 5), Some((5, 3)));
    assert_eq!(sketch.insert(0b10 << 14 | 5), None, "a lower rank raises nothing");
    assert_eq!(sketch.insert(16_383), Some((16_383, 51)), "all rank bits zero");
    assert_eq!(sketch.histogram, recounted(&sketch));
}

#[test]
fn raising_leaves_out_what_no_hash_can_reach() {
    let mut sketch = Sketch::new();
    sketch.raise(&[(16_384, 3), (u16::MAX, 1), (7, 52), (7, 255), (7, 0)]);
    assert_eq!(sketch, Sketch::new());
    sketch.raise(&[(7, 51), (7, 4)]);
    assert_eq!(sketch.ranks[7], 51);
}

#[test]
fn an_empty_sketch_is_the_one_that_redis_makes() {
    let bytes = Sketch::new().to_bytes();
    assert_eq!(bytes, b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80\x7f\xff");
    assert_eq!(Sketch::new().estimate(), 0);
}

#[test]
fn estimates_stay_within_three_percent() {
    for (seed, count) in [(1, 100), (2, 1_000), (3, 10_000), (4, 50_000), (5, 200_000)] {
        let estimate = sketch_of(seed, count).estimate();
        assert!(estimate.abs_diff(count) * 100 <= count * 3, "{estimate} for {count}");
    }
}

#[test]
fn raised_registers_carry_all_that_was_inserted() {
    let mut here = Sketch::new();
    let raised: Registers = hashes(9, 5_000).filter_map(|hash| here.insert(hash)).collect();
    let mut there = Sketch::new();
    there.raise(&raised);
    assert_eq!(there, here);
}

#[test]
fn merging_is_the_union() {
    let mut left = sketch_of(1, 3_000);
    let right = sketch_of(2, 4_000);
    left.merge(&right);
    let mut both = sketch_of(1, 3_000);
    for hash in hashes(2, 4_000) {
        both.insert(hash);
    }
    assert_eq!(left, both);
    assert_eq!(left.histogram, recounted(&left));
}

#[test]
fn damaged_bytes_are_named() {
    let dense = sketch_of(1, 100_000).to_bytes();
    assert_eq!(dense.len(), DENSE_LEN);
    let sparse = sketch_of(1, 10).to_bytes();
    assert_eq!(sparse[4], SPARSE);
    let altered = |bytes: &[u8], at: usize, to: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = to;
        Sketch::from_bytes(&bytes).unwrap_err().0
    };
    assert_eq!(Sketch::from_bytes(&dense[..15]).unwrap_err().0, "shorter than its header");
    assert_eq!(altered(&dense, 0, b'X'), "it does not begin with HYLL");
    assert_eq!(altered(&dense, 4, 2), "of an unknown encoding");
    assert_eq!(altered(&dense, 16, 0x3f), "a rank is above 51");
    assert_eq!(Sketch::from_bytes(&dense[..DENSE_LEN - 1]).unwrap_err().0, "dense, but not 12,304 bytes");
    let cut = Sketch::from_bytes(&sparse[..sparse.len() - 1]).unwrap_err().0;
    assert!(cut.starts_with("it"), "{cut}");
    let mut long = sparse.clone();
    long.push(0);
    assert_eq!(Sketch::from_bytes(&long).unwrap_err().0, "its runs go past the last register");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::totals::cases(128)))]

    /// Few registers give sparse bytes, many or high ranks dense ones; both come back as they were.
    #[test]
    fn bytes_come_back_as_they_were(
        raised in prop_oneof![
            prop::collection::vec((0u16..16_384, 1u8..=32), 0..3_000),
            prop::collection::vec((0u16..16_384, 1u8..=51), 0..30_000),
        ],
        runs in prop::collection::vec((0u16..16_384, 1u16..200, 1u8..=33), 0..5),
    ) {
        let mut sketch = Sketch::new();
        sketch.raise(&raised);
        for (first, len, rank) in runs {
            for register in first..first + len {
                sketch.lift(register, rank);
            }
        }
        let bytes = sketch.to_bytes();
        prop_assert!(bytes.len() <= DENSE_LEN);
        prop_assert_eq!(sketch.to_dense().len(), DENSE_LEN);
        for bytes in [bytes, sketch.to_dense()] {
            let back = Sketch::from_bytes(&bytes).unwrap();
            prop_assert_eq!(&back.histogram, &recounted(&back));
            prop_assert_eq!(&back, &sketch);
        }
    }

    /// No bytes make the reader panic, and what it takes it writes again.
    #[test]
    fn arbitrary_bytes_are_read_or_refused(
        encoding in 0u8..3,
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..600),
            prop::collection::vec(any::<u8>(), DENSE_LEN - HEADER_LEN),
            prop::collection::vec(0x80u8..0x84, 4_096..=4_100),
        ],
        cut in 0usize..40,
    ) {
        let mut bytes = header(encoding, 0);
        bytes.extend_from_slice(&body);
        for bytes in [&bytes[..], &bytes[..cut.min(bytes.len())], &body[..]] {
            if let Ok(sketch) = Sketch::from_bytes(bytes) {
                prop_assert_eq!(Sketch::from_bytes(&sketch.to_bytes()), Ok(sketch));
            }
        }
    }
}

#[test]
fn redis_counts_the_same() {
    let server = RedisServer::start();
    let mut redis = server.client();
    for (seed, count) in [(1, 0), (2, 1), (3, 2), (4, 77), (5, 1_500), (6, 12_000), (7, 90_000), (8, 400_000)]
    {
        let sketch = sketch_of(seed, count);
        redis.ask(&[b"SET", b"ours", &sketch.to_bytes()]);
        assert_eq!(redis.ask(&[b"PFCOUNT", b"ours"]).int(), sketch.estimate() as i64, "{count}");
        redis.ask(&[b"SET", b"dense", &sketch.to_dense()]);
        assert_eq!(redis.ask(&[b"PFCOUNT", b"dense"]).int(), sketch.estimate() as i64, "{count}, dense");
    }
    // Registers that random hashes hardly fill: all of the highest rank, and long runs of one rank.
    let mut odd = Sketch::new();
    for register in 0..9_000 {
        odd.lift(register, 51);
    }
    redis.ask(&[b"SET", b"odd", &odd.to_bytes()]);
    assert_eq!(redis.ask(&[b"PFCOUNT", b"odd"]).int(), odd.estimate() as i64);
}

#[test]
fn redis_merges_our_bytes_and_we_read_its() {
    let server = RedisServer::start();
    let mut redis = server.client();
    let mut whole = Sketch::new();
    for (seed, count) in [(1, 40), (2, 700), (3, 2_500), (4, 60_000)] {
        let part = sketch_of(seed, count);
        redis.ask(&[b"SET", b"part", &part.to_bytes()]);
        redis.ask(&[b"PFMERGE", b"whole", b"part"]);
        whole.merge(&part);
        let stored = redis.ask(&[b"GET", b"whole"]).bytes();
        assert_eq!(Sketch::from_bytes(&stored), Ok(whole.clone()), "{count}");
        assert_eq!(redis.ask(&[b"PFCOUNT", b"whole"]).int(), whole.estimate() as i64, "{count}");
    }
    // And what Redis makes of visitors of its own, sparse and dense.
    for visitors in [10, 20_000] {
        for n in 0..visitors {
            redis.ask(&[b"PFADD", b"its", format!("visitor {n}").as_bytes()]);
        }
        let sketch = Sketch::from_bytes(&redis.ask(&[b"GET", b"its"]).bytes()).unwrap();
        assert_eq!(redis.ask(&[b"PFCOUNT", b"its"]).int(), sketch.estimate() as i64);
    }
}
