//! When a data plane that is told nothing looks whether somebody else changed what the kernel holds of ours.

use std::time::{Duration, Instant};

/// Looking is due every so often, and takes one part in fifty of the time at most: the more there is to read, the more
/// seldom it is read.
///
/// A machine without IO: the time is an argument.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Look {
    interval: Duration,
    /// None as long as nothing was read that somebody could have changed.
    due: Option<Instant>,
}

impl Look {
    /// With nothing to look at yet; `interval` lies between two looks as long as they are quick.
    pub fn every(interval: Duration) -> Self {
        Self {
            interval,
            due: None,
        }
    }

    /// What the kernel holds was read `now`, which took so long.
    pub fn handle_read(&mut self, took: Duration, now: Instant) {
        self.due = Some(now + self.interval.max(took.saturating_mul(SHARE)));
    }

    /// Whether it is time to read again.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }
}

/// Looking takes one part in so many of the time at most.
const SHARE: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_every_so_often_and_more_seldom_where_it_takes_long() {
        let start = Instant::now();
        let seconds = Duration::from_secs;
        let mut look = Look::every(seconds(10));
        assert!(!look.is_due(start + seconds(3600)), "nothing was read");
        for (took_ms, due_after) in [(0, 10), (200, 10), (1000, 50), (60_000, 3000)] {
            look.handle_read(Duration::from_millis(took_ms), start);
            let due = start + seconds(due_after);
            assert!(!look.is_due(due - Duration::from_millis(1)), "{took_ms}");
            assert!(look.is_due(due), "{took_ms}");
        }
    }
}
