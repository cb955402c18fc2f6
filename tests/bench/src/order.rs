//! In which order the variants of a round are measured: by chance, and the same in each run.
//!
//! With one fixed order a variant would always come after the same other one, and inherit its
//! caches, its clock speed and its timer ticks.

/// The orders of round after round.
#[derive(Debug, Clone)]
pub struct Order {
    state: u64,
}

impl Order {
    /// Orders that follow from a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The numbers below `count`, each once (Fisher and Yates).
    pub fn round(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }

    /// splitmix64; the bias of the remainder does not matter for a handful of variants.
    fn below(&mut self, bound: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let remainder = (mixed ^ (mixed >> 31)) % u64::try_from(bound).unwrap_or(u64::MAX);
        usize::try_from(remainder).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_once_and_every_place_is_taken() {
        let mut order = Order::new(1);
        let mut first = [0; 4];
        for _ in 0..400 {
            let mut round = order.round(4);
            first[round[0]] += 1;
            round.sort_unstable();
            assert_eq!(round, [0, 1, 2, 3]);
        }
        assert!(first.iter().all(|&count| count > 50), "{first:?}");
    }

    #[test]
    fn nothing_and_one_have_one_order() {
        let mut order = Order::new(7);
        assert_eq!(order.round(0), [0; 0]);
        assert_eq!(order.round(1), [0]);
    }
}
