//! Over which family heartbeats go.
//!
//! IPv6 is preferred: it needs no address of the operator. But there are links without it, and switches that snoop
//! MLD without a querier and lose it, while every switch floods 224.0.0.0/24 (RFC 4541 §2.1.2). So IPv4 is used too
//! while a link is new, every so often for ever, and fully for as long as some peer is heard by it alone.

use std::time::Duration;

use speaker_announcer::Time;

/// Chooses the families for the heartbeats on one link.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    both_until: Time,
    sent: u32,
}

impl Route {
    /// The route of a link that came up at `now`.
    pub fn new(now: Time) -> Self {
        Self {
            both_until: now + TRIAL,
            sent: 0,
        }
    }

    /// A heartbeat came by IPv4 that had not come by IPv6 before.
    pub fn handle_heard_by_v4_alone(&mut self, now: Time) {
        self.both_until = self.both_until.max(now + TRIAL);
    }

    /// Whether the heartbeat that is sent at `now` goes over IPv4 too.
    pub fn also_v4(&mut self, now: Time) -> bool {
        self.sent = self.sent.wrapping_add(1);
        now < self.both_until || self.sent.is_multiple_of(RARELY)
    }
}

/// How long both families are used after there was a reason to.
const TRIAL: Duration = Duration::from_secs(5);
/// One of so many heartbeats goes over both families without any reason.
const RARELY: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn by_v4(route: &mut Route, milliseconds: std::ops::Range<u64>) -> usize {
        milliseconds
            .step_by(50)
            .filter(|&now| route.also_v4(Time::from_millis(now)))
            .count()
    }

    #[test]
    fn both_at_first_then_rarely_then_both_for_a_peer_that_has_only_one() {
        let mut route = Route::new(Time::START);
        assert_eq!(by_v4(&mut route, 0..5000), 100);
        assert_eq!(by_v4(&mut route, 5000..9000), 10);
        route.handle_heard_by_v4_alone(Time::from_millis(9000));
        assert_eq!(by_v4(&mut route, 9000..14_000), 100);
        assert_eq!(by_v4(&mut route, 14_000..18_000), 10);
    }
}
