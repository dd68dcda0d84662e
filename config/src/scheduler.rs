//! How IPVS chooses among endpoints.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// A scheduler of IPVS.
///
/// All endpoints weigh the same, so those that go by weight do what their namesakes without it do, but leave out endpoints
/// that end.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Scheduler {
    /// `rr`: one after the other.
    #[default]
    RoundRobin,
    /// `wrr`.
    WeightedRoundRobin,
    /// `lc`: the one with the fewest connections.
    LeastConnection,
    /// `wlc`.
    WeightedLeastConnection,
    /// `lblc`: for caches, by the address of the frontend.
    LocalityBasedLeastConnection,
    /// `lblcr`: the same, among several.
    LocalityBasedLeastConnectionWithReplication,
    /// `sh`: by the client's address.
    SourceHashing,
    /// `dh`: by the address of the frontend.
    DestinationHashing,
    /// `sed`: the shortest expected delay.
    ShortestExpectedDelay,
    /// `nq`: one without connections, else as `sed`.
    NeverQueue,
    /// `fo`: all to one, as long as it is there.
    WeightedFailover,
    /// `ovf`: all to one, up to its weight.
    WeightedOverflow,
    /// `mh`: by the client's address, and few clients change when endpoints come and go (Maglev).
    MaglevHashing,
}

/// The text names no scheduler.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "\"{0}\" is no scheduler of IPVS: write one of rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, fo, ovf, mh"
)]
pub struct UnknownScheduler(pub String);

impl Scheduler {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::RoundRobin,
        Self::WeightedRoundRobin,
        Self::LeastConnection,
        Self::WeightedLeastConnection,
        Self::LocalityBasedLeastConnection,
        Self::LocalityBasedLeastConnectionWithReplication,
        Self::SourceHashing,
        Self::DestinationHashing,
        Self::ShortestExpectedDelay,
        Self::NeverQueue,
        Self::WeightedFailover,
        Self::WeightedOverflow,
        Self::MaglevHashing,
    ];

    /// The kernel's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "rr",
            Self::WeightedRoundRobin => "wrr",
            Self::LeastConnection => "lc",
            Self::WeightedLeastConnection => "wlc",
            Self::LocalityBasedLeastConnection => "lblc",
            Self::LocalityBasedLeastConnectionWithReplication => "lblcr",
            Self::SourceHashing => "sh",
            Self::DestinationHashing => "dh",
            Self::ShortestExpectedDelay => "sed",
            Self::NeverQueue => "nq",
            Self::WeightedFailover => "fo",
            Self::WeightedOverflow => "ovf",
            Self::MaglevHashing => "mh",
        }
    }
}

impl FromStr for Scheduler {
    type Err = UnknownScheduler;

    fn from_str(text: &str) -> Result<Self, UnknownScheduler> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|scheduler| scheduler.name() == text.trim());
        found.ok_or_else(|| UnknownScheduler(crate::excerpt::excerpt(text)))
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The annotation of a Service that names its scheduler.
pub const SCHEDULER_ANNOTATION: &str = "foghorn.dev/ipvs-scheduler";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_known_by_the_kernel_s_name() {
        for scheduler in Scheduler::ALL {
            assert_eq!(scheduler.to_string().parse(), Ok(scheduler));
        }
        assert_eq!(" mh\n".parse(), Ok(Scheduler::MaglevHashing));
        let refused = "round-robin".parse::<Scheduler>().unwrap_err();
        assert_eq!(
            refused.to_string(),
            "\"round-robin\" is no scheduler of IPVS: write one of rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, fo, ovf, mh"
        );
    }
}
