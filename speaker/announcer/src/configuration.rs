//! What the machine is told: VIPs, candidates, policies and the schedule.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use config::name::NodeName;

use crate::candidates::{Candidate, Ineligible, PlacementKey};
use crate::link::Links;

/// Everything that the cluster says about announcing, as it follows from one snapshot.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Configuration {
    /// The VIPs by address.
    pub vips: BTreeMap<IpAddr, Vip>,
    /// The nodes that should run a speaker: all nodes of the cluster that are not excluded by where speakers run.
    ///
    /// Counts for the majority of [`Partition::Strict`] and for the interval of heartbeats.
    pub speakers: BTreeSet<NodeName>,
}

/// One address to announce.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Vip {
    /// What keeps VIPs together: those with the same key have the same order of candidates.
    pub placement: PlacementKey,
    /// Every node of the cluster in the order of [`crate::candidates::rank`], with those that may not own the VIP and why.
    pub candidates: Vec<Candidate>,
    /// The node that was asked for: the VIP goes there as soon as it stands, whatever [`Self::failback`] says. It is the
    /// first of the candidates.
    pub requested: Option<NodeName>,
    /// Whether the VIP goes back to a better candidate.
    pub failback: Failback,
    /// What happens when the segment is cut in two.
    pub partition: Partition,
    /// On which interfaces it may be announced.
    pub links: Links,
}

impl Vip {
    /// The place of `node` among the candidates, or one past the last.
    pub fn position(&self, node: &NodeName) -> usize {
        self.candidates
            .iter()
            .position(|candidate| candidate.node == *node)
            .unwrap_or(self.candidates.len())
    }

    /// Whether the configuration lets `node` own the VIP.
    ///
    /// # Errors
    /// The reason why not.
    pub fn eligibility(&self, node: &NodeName) -> Result<(), Ineligible> {
        self.candidates
            .iter()
            .find(|candidate| candidate.node == *node)
            .map_or(Err(Ineligible::NotSelected), |candidate| {
                candidate.eligibility
            })
    }
}

/// Whether a VIP goes back to a better candidate that returns.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Failback {
    /// It stays where it is as long as its owner is fit.
    #[default]
    Never,
    /// Once the better candidate has stood for [`Timing::failback_hold`], and no connection goes through it
    /// ([`crate::Announcer::handle_idle`]).
    Idle,
    /// Once the better candidate has stood for [`Timing::failback_hold`].
    Always,
}

/// What happens when speakers do not hear each other.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Partition {
    /// Each side serves its clients.
    #[default]
    Available,
    /// Only a side with a majority of the speakers serves: rather none than two.
    Strict,
}

/// Whether this node can serve, apart from its links: what the shell knows of the node itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fitness {
    /// Why it should own nothing now, if so: [`Ineligible::ProxyUnhealthy`] or [`Ineligible::Draining`].
    ///
    /// An owner hands its VIPs over, and keeps those that nobody else can take.
    pub unfit: Option<Ineligible>,
}

/// What the service proxy of this node forwards, as far as it says so.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Programmed {
    /// Nobody says it: then it keeps no VIP from this node.
    Unknown,
    /// These VIPs and no others.
    Only(BTreeSet<IpAddr>),
    /// What it said before, with these in addition and without those.
    Changed {
        /// Forwarded from now on.
        added: BTreeSet<IpAddr>,
        /// Not forwarded any more.
        removed: BTreeSet<IpAddr>,
    },
}

/// The schedule of the machine. The defaults are what design and measurement recommend.
///
/// # What a failover costs
/// The last heartbeat of the dead owner was up to one `interval` ago; `multiplier` intervals after it the owner counts
/// as dead (100 to 150 ms after its death), then `takeover_probes` spaced by `takeover_probe_gap`, the last one
/// followed by a gap for its answer: 40 ms. Together 140 to 190 ms, and up to one more interval where the network
/// has shown jitter.
///
/// # Where this is shorter than RFC 5227
/// The RFC wants three probes one to two seconds apart and two seconds of silence (§1.1), for hosts on slow links that
/// take an address for days. An address that nobody has owned yet is probed three times within 300 ms; one that a
/// peer owned is probed twice within 40 ms, because the probe only has to find out whether that peer still lives.
/// Everything else of the RFC holds: nothing is announced before the probes, conflicts are looked for for ever.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Timing {
    /// Time between two heartbeats on a link in small segments.
    pub interval: Duration,
    /// Heartbeats per second that all speakers of a segment send together at most; the interval grows beyond.
    pub segment_rate: u32,
    /// How many heartbeats of a peer must be missing in a row before it is silent.
    pub multiplier: u32,
    /// Time between two probes for a VIP that had an owner.
    pub takeover_probe_gap: Duration,
    /// Probes for a VIP that had an owner.
    pub takeover_probes: u8,
    /// Time between two probes for a VIP that had none.
    pub fresh_probe_gap: Duration,
    /// Probes for a VIP that had none (RFC 5227 §1.1, `PROBE_NUM`).
    pub fresh_probes: u8,
    /// Time to wait after the old owner has answered a probe, before the next one.
    pub fence_retry: Duration,
    /// How long peers that still hear a silent owner are believed more than unanswered probes.
    ///
    /// After that the segment counts as cut between the owner and this node, and each side serves its clients.
    pub witness_patience: Duration,
    /// Time before an address with a conflict is probed again; doubles up to `quarantine_longest`.
    pub quarantine: Duration,
    /// The longest time between two probes of an address with a conflict.
    pub quarantine_longest: Duration,
    /// Least time between two defences of an address (RFC 5227 §1.1, `DEFEND_INTERVAL`).
    pub defend_interval: Duration,
    /// Time after which an owner that may not own a VIP any more stops, although nobody has taken it.
    pub hand_over_longest: Duration,
    /// How long a better candidate must stand before a VIP goes back to it.
    pub failback_hold: Duration,
    /// How long an owner whose proxy does not forward a VIP any more waits before it wants to be rid of it: the proxy may
    /// just have heard sooner that the VIP is gone.
    pub programming_patience: Duration,
    /// Least and greatest time between two announcements after the first ones, for ever.
    pub announce_rarely: (Duration, Duration),
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(50),
            segment_rate: 1000,
            multiplier: 3,
            takeover_probe_gap: Duration::from_millis(20),
            takeover_probes: 2,
            fresh_probe_gap: Duration::from_millis(100),
            fresh_probes: 3,
            fence_retry: Duration::from_secs(1),
            witness_patience: Duration::from_secs(2),
            quarantine: Duration::from_secs(1),
            quarantine_longest: Duration::from_secs(60),
            defend_interval: Duration::from_secs(10),
            hand_over_longest: Duration::from_secs(1),
            failback_hold: Duration::from_secs(10),
            programming_patience: Duration::from_secs(1),
            announce_rarely: (Duration::from_secs(30), Duration::from_secs(60)),
        }
    }
}

impl Timing {
    /// Time between two heartbeats on a segment with this many speakers.
    pub fn interval_among(&self, speakers: usize) -> Duration {
        let speakers = u32::try_from(speakers).unwrap_or(u32::MAX).max(1);
        let capped = Duration::from_secs(1).saturating_mul(speakers) / self.segment_rate.max(1);
        self.interval.max(capped).min(LONGEST_INTERVAL)
    }
}

/// The longest interval between heartbeats that is ever used or believed.
const LONGEST_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_grows_so_that_the_segment_carries_no_more_than_its_rate() {
        let timing = Timing::default();
        for (speakers, milliseconds) in [(0, 50), (1, 50), (50, 50), (100, 100), (1000, 1000)] {
            assert_eq!(
                timing.interval_among(speakers),
                Duration::from_millis(milliseconds),
                "{speakers}"
            );
        }
    }
}
