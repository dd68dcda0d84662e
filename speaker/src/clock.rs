//! The clock that the machine lives by.

use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use speaker_announcer::Time;

/// Time since a start, on the clock that goes on while the machine is suspended.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Duration,
}

impl Clock {
    /// A clock that starts now.
    ///
    /// # Errors
    /// If the kernel has no `CLOCK_BOOTTIME`.
    pub fn start() -> nix::Result<Self> {
        Ok(Self { start: reading()? })
    }

    /// The time now.
    pub fn now(&self) -> Time {
        // It worked at the start; a clock that stands still harms less than a panic.
        let now = reading().unwrap_or(self.start);
        Time::after_start(now.saturating_sub(self.start))
    }

    /// What the kernel's clock shows at `time`.
    pub fn absolute(&self, time: Time) -> TimeSpec {
        TimeSpec::from_duration(self.start + time.since_start())
    }
}

fn reading() -> nix::Result<Duration> {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from)
}
