//! Time as the machine sees it: a number that only grows.

use std::fmt;
use std::ops::{Add, AddAssign};
use std::time::Duration;

/// A moment, as the time passed since a start that the shell chooses (say, that of the program).
///
/// Must come from a monotonic clock, best one that goes on while the machine is suspended (`CLOCK_BOOTTIME`): an owner
/// that was asleep must notice. Wall-clock time never enters the machine.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Time(Duration);

impl Time {
    /// The start.
    pub const START: Self = Self(Duration::ZERO);

    /// The moment that is `elapsed` after the start.
    pub const fn after_start(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// The moment that is this many milliseconds after the start.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// The time since the start.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl fmt::Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.3}s", self.0.as_secs_f64())
    }
}
