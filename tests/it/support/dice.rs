//! Chance that can be had again. Standard library only, so that unit tests may include it too.
#![allow(dead_code, reason = "each test binary uses a part")]

/// Numbers that look random and can be had again from their seed (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    /// Seeded by the variable `FOOTFALL_TEST_SEED`, else by the time; the seed is printed.
    #[allow(clippy::disallowed_methods, reason = "any number will do")]
    pub fn thrown() -> Self {
        let now =
            || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = std::env::var("FOOTFALL_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(now);
        println!("FOOTFALL_TEST_SEED={seed}");
        Dice(seed)
    }

    /// A number below another.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}
