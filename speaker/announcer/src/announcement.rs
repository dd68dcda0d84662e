//! When and how a VIP is announced and probed.

use std::net::IpAddr;
use std::time::Duration;

use crate::configuration::Timing;
use crate::packet::arp::Arp;
use crate::packet::ndp::{Ndp, multicast_mac};
use crate::packet::{Body, Frame, MacAddr};
use crate::random::Random;
use crate::time::Time;

/// The frames that announce that `mac` has `vip`: gratuitous ARP as a request and as a reply, or an unsolicited
/// Neighbor Advertisement.
pub fn announcements(mac: MacAddr, vip: IpAddr) -> Vec<Frame> {
    match vip {
        IpAddr::V4(vip) => [
            Arp::announcement(mac, vip),
            Arp::announcement_as_reply(mac, vip),
        ]
        .into_iter()
        .map(|arp| Frame {
            source: mac,
            destination: MacAddr::broadcast(),
            body: Body::Arp(arp),
        })
        .collect(),
        IpAddr::V6(vip) => vec![ndp_frame(mac, Ndp::announcement(mac, vip))],
    }
}

/// The frame that asks whether anybody has `vip`, from an interface that does not have it yet.
pub fn probe(mac: MacAddr, vip: IpAddr) -> Frame {
    match vip {
        IpAddr::V4(vip) => Frame {
            source: mac,
            destination: MacAddr::broadcast(),
            body: Body::Arp(Arp::probe(mac, vip)),
        },
        IpAddr::V6(vip) => ndp_frame(mac, Ndp::probe(vip)),
    }
}

/// A frame to the multicast group that is the message's destination.
pub(crate) fn ndp_frame(mac: MacAddr, ndp: Ndp) -> Frame {
    Frame {
        source: mac,
        destination: multicast_mac(ndp.destination),
        body: Body::Ndp(ndp),
    }
}

/// When an owned VIP is announced next: at once, a few times more within seconds, then rarely for ever.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Schedule {
    step: usize,
    next: Time,
}

impl Schedule {
    /// The schedule of a VIP that is owned from `now` on.
    pub fn start(now: Time) -> Self {
        Self { step: 0, next: now }
    }

    /// When the next announcement is due.
    pub fn next(&self) -> Time {
        self.next
    }

    /// Whether the next announcement is the first, which must not wait.
    pub fn is_first(&self) -> bool {
        self.step == 0
    }

    /// Announces twice more, from `now` on: somebody may have missed who owns the VIP.
    pub fn again(&mut self, now: Time) {
        self.step = self.step.min(BURST.len() - 1);
        self.next = self.next.min(now);
    }

    /// Says nothing before `then`.
    pub fn postpone(&mut self, then: Time) {
        self.next = self.next.max(then);
    }

    /// An announcement was made at `now`: the next one follows.
    pub(crate) fn made(&mut self, timing: &Timing, random: &mut Random, now: Time) {
        let (shortest, longest) = timing.announce_rarely;
        let gap = BURST.get(self.step).map_or_else(
            || random.between(shortest, longest),
            |&milliseconds| Duration::from_millis(milliseconds),
        );
        self.step = (self.step + 1).min(BURST.len());
        self.next = now + gap;
    }
}

/// A measure of frames per second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    left: u32,
    filled: Time,
}

impl Budget {
    pub(crate) fn new(now: Time) -> Self {
        Self {
            left: BUDGET,
            filled: now,
        }
    }

    /// Takes this many frames if they are left.
    pub(crate) fn take(&mut self, frames: u32, now: Time) -> bool {
        let milliseconds = u32::try_from(now.since(self.filled).as_millis()).unwrap_or(BUDGET);
        if milliseconds > 0 {
            self.left = self
                .left
                .saturating_add(milliseconds.saturating_mul(FRAMES_PER_MILLISECOND))
                .min(BUDGET);
            self.filled = now;
        }
        let enough = self.left >= frames;
        if enough {
            self.left -= frames;
        }
        enough
    }
}

/// Milliseconds from one of the first announcements to the next.
///
/// RFC 5227 §1.1 has two announcements, two seconds apart; hosts and switches lose some, and every one that is lost
/// costs a client its connection, so there are more, sooner.
const BURST: [u64; 6] = [20, 80, 400, 500, 1000, 2000];
/// Announcements after the first ones, of all VIPs together, in one go.
const BUDGET: u32 = 1024;
/// Announcements after the first ones, of all VIPs together, in the long run.
const FRAMES_PER_MILLISECOND: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn times(schedule: &mut Schedule, count: usize) -> Vec<u128> {
        let mut random = Random::new(1);
        (0..count)
            .map(|_| {
                let due = schedule.next();
                schedule.made(&Timing::default(), &mut random, due);
                due.since_start().as_millis()
            })
            .collect()
    }

    #[test]
    fn first_often_then_rarely_for_ever() {
        let mut schedule = Schedule::start(Time::from_millis(1000));
        assert_eq!(
            times(&mut schedule, 7),
            [1000, 1020, 1100, 1500, 2000, 3000, 5000]
        );
        let later = times(&mut schedule, 5);
        for pair in later.windows(2) {
            assert!((30_000..60_000).contains(&(pair[1] - pair[0])), "{later:?}");
        }
    }

    #[test]
    fn again_means_two_announcements_and_no_new_burst() {
        let mut schedule = Schedule::start(Time::from_millis(0));
        times(&mut schedule, 7);
        schedule.again(Time::from_millis(10_000));
        assert_eq!(times(&mut schedule, 2), [10_000, 12_000]);
        assert!(schedule.next() >= Time::from_millis(42_000));
    }

    #[test]
    fn the_budget_fills_with_time() {
        let mut budget = Budget::new(Time::START);
        assert!(budget.take(BUDGET, Time::START));
        assert!(!budget.take(2, Time::from_millis(1)));
        assert!(budget.take(2, Time::from_millis(2)));
        assert!(!budget.take(BUDGET + 1, Time::from_millis(1_000_000)));
    }
}
