//! Random numbers that a seed determines, on every machine and in every version.

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine and in every version.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The generator in this state.
    pub fn new(state: u64) -> Self {
        Self(state)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Uniform numbers and random orders.
pub(crate) struct Random(SplitMix64);

impl Random {
    /// The sequence of a seed. Seeds that follow one another give unlike sequences.
    pub(crate) fn new(seed: u64) -> Self {
        // Neighboring states would give the same numbers, shifted by one.
        Self(SplitMix64::new(SplitMix64::new(seed).next_u64()))
    }

    /// Uniform in 0..bound, without the bias of a plain remainder.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // Lemire 2019: the high half of a product, with the few values rejected that would come up too often.
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.0.next_u64()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// 0..count in random order (Fisher–Yates).
    pub(crate) fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            order.swap(i, self.below(i as u64 + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_its_published_sequence() {
        // First outputs for seed 1234567, as in the Rosetta Code task "Pseudo-random numbers/Splitmix64".
        let mut random = SplitMix64::new(1_234_567);
        assert_eq!(
            [random.next_u64(), random.next_u64(), random.next_u64()],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn numbers_are_even_and_orders_are_complete() {
        let mut random = Random::new(3);
        let mut counts = [0; 5];
        (0..50_000).for_each(|_| counts[random.below(5) as usize] += 1);
        // σ = √(50000 · 0.2 · 0.8) = 89; five of them.
        assert!(counts.iter().all(|&n: &i32| (n - 10_000).abs() < 450), "{counts:?}");
        let mut order = Random::new(4).order(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
        assert_eq!(Random::new(4).order(100), Random::new(4).order(100));
    }
}
