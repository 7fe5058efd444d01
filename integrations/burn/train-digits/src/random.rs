//! Random numbers that mean the same in every implementation of the experiment: a seed gives the same initial weights and
//! the same order of the digits in PyTorch, burn and tf.js.

/// SplitMix64 ([Steele, Lea, Flood 2014](https://doi.org/10.1145/2660193.2660195)).
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator in this state.
    pub fn new(state: u64) -> Self {
        Self(state)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`, with 24 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 40) as f64 / f64::from(1 << 24)
    }

    /// `len` weights of a layer whose outputs have `fan_in` inputs: uniform within 1 / sqrt(fan_in), as PyTorch's layers
    /// begin.
    pub fn weights(&mut self, len: usize, fan_in: usize) -> Vec<f32> {
        let bound = 1.0 / (fan_in as f64).sqrt();
        let weights = (0..len).map(|_| ((2.0 * self.uniform() - 1.0) * bound) as f32);
        weights.collect()
    }
}

/// The order of `len` digits in an epoch, counted from 0.
pub fn order(seed: u64, epoch: usize, len: usize) -> Vec<usize> {
    let state = seed.wrapping_add((epoch as u64 + 1) << 32);
    let mut random = SplitMix64::new(state);
    let mut order: Vec<usize> = (0..len).collect();
    for i in (1..len).rev() {
        let j = random.next_u64() % (i as u64 + 1);
        order.swap(i, j as usize);
    }
    order
}
