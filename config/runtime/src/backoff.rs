//! Waiting longer after each failure.

use std::time::Duration;

/// Times to wait between attempts: doubling from `shortest` to `longest`, each cut by up to half at random, so that
/// many programs that lost the same server do not come back to it together.
#[derive(Clone, Debug)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits from `shortest` to `longest`.
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        Self {
            shortest,
            longest,
            next: shortest,
        }
    }

    /// An attempt succeeded: the next failure is a first one.
    pub fn reset(&mut self) {
        self.next = self.shortest;
    }

    /// How long to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = delay.saturating_mul(2).min(self.longest);
        delay.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_longest_and_starts_over() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(4));
        for expected in [1, 2, 4, 4] {
            let delay = backoff.next_delay();
            assert!(
                delay <= seconds(expected) && delay >= seconds(expected) / 2,
                "{delay:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next_delay() <= seconds(1));
    }
}
