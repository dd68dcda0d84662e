//! A session: sequence numbers without repetition, and how long a peer may be quiet.

use std::time::Duration;

use crate::configuration::Timing;
use crate::heartbeat::Heartbeat;
use crate::heartbeat::rejection::Rejection;
use crate::packet::MacAddr;
use crate::time::Time;

/// The heartbeats of one peer over one pair of links.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) sequence: u64,
    /// Which of the 64 sequence numbers up to `sequence` were received: bit `n` for `sequence - n` (as RFC 4303 §3.4.3).
    pub(super) received: u64,
    pub(super) mac: MacAddr,
    pub(super) interval: Duration,
    pub(super) jitter: Duration,
    pub(super) last: Time,
    pub(super) deadline: Time,
    pub(super) heard: bool,
}

impl Session {
    pub(super) fn new(heartbeat: &Heartbeat, timing: &Timing, now: Time) -> Self {
        let mut session = Self {
            sequence: heartbeat.sequence,
            received: 1,
            mac: heartbeat.mac,
            interval: heartbeat.interval,
            jitter: Duration::ZERO,
            last: now,
            deadline: now,
            heard: true,
        };
        session.extend(timing, now);
        session
    }

    /// Takes in a heartbeat if it is none of the past; says whether it is the newest.
    pub(super) fn receive(
        &mut self,
        heartbeat: &Heartbeat,
        timing: &Timing,
        now: Time,
    ) -> Result<bool, Rejection> {
        let newest = match heartbeat.sequence.checked_sub(self.sequence) {
            Some(0) => return Err(Rejection::Replayed),
            Some(ahead) => {
                self.received = shift(self.received, ahead) | 1;
                self.sequence = heartbeat.sequence;
                self.mac = heartbeat.mac;
                self.interval = heartbeat.interval;
                true
            }
            None => {
                let bit = shift(1, self.sequence - heartbeat.sequence);
                if bit == 0 || self.received & bit != 0 {
                    return Err(Rejection::Replayed);
                }
                self.received |= bit;
                false
            }
        };
        if newest {
            if self.heard {
                let late = now.since(self.last).saturating_sub(self.interval);
                self.jitter = (self.jitter * 15 / 16).max(late.min(self.interval));
            }
            self.last = now;
            self.heard = true;
            self.extend(timing, now);
        }
        Ok(newest)
    }

    /// The multiplier times the interval, and up to one interval more where heartbeats were late lately.
    fn extend(&mut self, timing: &Timing, now: Time) {
        self.deadline = now + self.interval * timing.multiplier + self.jitter.min(self.interval);
    }
}

fn shift(bits: u64, by: u64) -> u64 {
    u32::try_from(by)
        .ok()
        .and_then(|by| bits.checked_shl(by))
        .unwrap_or(0)
}
