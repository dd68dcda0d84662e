//! Whether the proxy does its work: what `/healthz` and `/livez` answer.

use std::time::{Duration, Instant};

/// When the kernel was last as the cluster says, and since when it is not.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Liveness {
    pending_since: Option<Instant>,
    last_synced: Option<Instant>,
}

impl Liveness {
    /// Something changed that the kernel does not hold yet.
    pub fn handle_change(&mut self, now: Instant) {
        self.pending_since.get_or_insert(now);
    }

    /// The kernel holds everything that was known before `started`, when the sync began.
    pub fn handle_synced(&mut self, started: Instant, now: Instant) {
        self.last_synced = Some(now);
        if self.pending_since.is_some_and(|since| since <= started) {
            self.pending_since = None;
        }
    }

    /// Whether the kernel held everything once, and nothing waits for longer than [`PATIENCE`].
    pub fn is_healthy(&self, now: Instant) -> bool {
        let waited = self
            .pending_since
            .map(|since| now.saturating_duration_since(since));
        self.last_synced.is_some() && waited.is_none_or(|waited| waited < PATIENCE)
    }

    /// When the kernel last held everything.
    pub fn last_synced(&self) -> Option<Instant> {
        self.last_synced
    }
}

/// How long a change may wait before the proxy counts as stuck: twice kube-proxy's sync period.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_healthy_from_the_first_sync_until_a_change_waits_too_long() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut liveness = Liveness::default();
        assert!(!liveness.is_healthy(at(0)));
        liveness.handle_synced(at(0), at(1));
        assert!(liveness.is_healthy(at(10_000)));
        liveness.handle_change(at(100));
        liveness.handle_change(at(150));
        assert!(liveness.is_healthy(at(159)));
        assert!(!liveness.is_healthy(at(160)));
        // A sync that began before the change does not cover it.
        liveness.handle_synced(at(99), at(161));
        assert!(!liveness.is_healthy(at(161)));
        liveness.handle_synced(at(161), at(162));
        assert!(liveness.is_healthy(at(1000)));
        assert_eq!(liveness.last_synced(), Some(at(162)));
    }
}
