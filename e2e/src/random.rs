//! Chance that can be repeated: the seed is printed, and `FOGHORN_SEED` brings it back.

use std::env;
use std::time::{Duration, SystemTime};

/// A generator of numbers (xorshift64*): good enough to choose what to do next.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
    /// What it started from.
    pub seed: u64,
}

impl Random {
    /// From `FOGHORN_SEED`, or else from the clock.
    pub fn from_environment() -> Self {
        let given = env::var("FOGHORN_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self::seeded(given.unwrap_or_else(|| clock.map_or(1, |now| u64::from(now.subsec_nanos()))))
    }

    /// From this seed.
    pub fn seeded(seed: u64) -> Self {
        Self {
            // Zero is the one state that it never leaves.
            state: seed.wrapping_add(0x9e37_79b9_7f4a_7c15).max(1),
            seed,
        }
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u16) -> u16 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let [.., high, low] = (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32).to_be_bytes();
        u16::from_be_bytes([high, low]) % bound.max(1)
    }

    /// True once in `count` times.
    pub fn one_in(&mut self, count: u16) -> bool {
        self.below(count) == 0
    }

    /// One of these.
    pub fn choose<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        let count = u16::try_from(choices.len()).unwrap_or(u16::MAX);
        choices.get(usize::from(self.below(count)))
    }

    /// A time shorter than `bound`, in whole milliseconds.
    pub fn shorter_than(&mut self, bound: Duration) -> Duration {
        Duration::from_millis(u64::from(
            self.below(u16::try_from(bound.as_millis()).unwrap_or(u16::MAX)),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_every_number_comes() {
        let numbers = |seed| {
            let mut random = Random::seeded(seed);
            (0..100).map(|_| random.below(5)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        assert!((0..5).all(|number| numbers(7).contains(&number)));
    }
}
