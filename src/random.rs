//! Numbers that a seed decides, the same on every machine. Each generator is one stream that seeds of saved results depend
//! on, so none of them may change.

/// SplitMix64 (Steele, Lea and Flood 2014): what k-means chooses its rows by, and made-up data of no consequence.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// From -1 to below 1, with 24 bits.
    pub fn signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / f32::powi(2.0, 23) - 1.0
    }

    /// `count` different numbers below `n`, in ascending order.
    pub fn choose(&mut self, n: usize, count: usize) -> Vec<u32> {
        // Selection by rank: each number is taken with the chance that leaves exactly `count` (Knuth's algorithm S).
        let mut chosen = Vec::with_capacity(count);
        for i in 0..n {
            if self.below(n - i) < count - chosen.len() {
                chosen.push(i as u32);
            }
        }
        chosen
    }
}

/// xorshift64 (Marsaglia 2003): rotations and first centroids of codes.
#[derive(Clone, Debug)]
pub(crate) struct Uniform(u64);

impl Uniform {
    /// Seeds that differ in few bits give states that differ in many (the finish of SplitMix64); there is no state 0.
    pub fn new(seed: u64) -> Uniform {
        let mut state = seed ^ seed >> 30;
        state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ state >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Uniform((state ^ state >> 31).max(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// With this state, which is not 0.
    pub fn of_state(state: u64) -> Uniform {
        Uniform(state.max(1))
    }

    /// From 0 to below 1, with 53 bits.
    pub fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A congruential generator (Knuth's MMIX): the rows that an index is trained with.
#[derive(Clone, Debug)]
pub(crate) struct Stretches(u64);

impl Stretches {
    pub fn new(seed: u64) -> Stretches {
        Stretches(seed.wrapping_add(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below `n`, and 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of each stream; indexes that were trained with a seed depend on them.
    #[test]
    fn streams_are_what_they_were() {
        let mut random = Random::new(1234567);
        // From the reference implementation.
        assert_eq!([random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
        assert_eq!(Random::new(0).choose(10, 10), (0..10).collect::<Vec<u32>>());
        let mut signed = Random::new(1);
        assert!((0..1000).map(|_| signed.signed()).all(|x| (-1.0..1.0).contains(&x)));
        let mut one = Uniform::of_state(1);
        // 1, shifted and combined three times, is 1,082,269,761; its upper 53 bits are left.
        assert_eq!(one.next(), (1_082_269_761u64 >> 11) as f64 / f64::powi(2.0, 53));
        let (mut a, mut b) = (Stretches::new(7), Stretches::new(7));
        assert!((0..100).all(|n| a.below(n) == b.below(n)));
    }
}
