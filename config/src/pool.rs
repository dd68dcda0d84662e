//! Pools of addresses that the operator gives to Services.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::{AddressRange, IpFamily};
use crate::name::{PoolName, ServiceKey};
use crate::selector::{LabelSelector, Labels, any_matches};

/// An `IPAddressPool`: addresses, and the rules by which Services get them.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// Name; unique over all origins, the first origin wins.
    pub name: PoolName,
    /// Where it was written.
    pub origin: Origin,
    /// Labels of the object, by which advertisements may select it.
    pub labels: Labels,
    /// `spec.addresses`, in the order written, which is the order they are given in.
    pub ranges: Vec<AddressRange>,
    /// `spec.autoAssign`: whether a Service that asks for no pool may get an address.
    pub auto_assign: bool,
    /// `spec.avoidBuggyIPs`: never gives .0 and .255 of an IPv4 /24.
    pub avoid_buggy_ips: bool,
    /// `spec.disabled`: gives nothing to Services that hold nothing.
    pub disabled: bool,
    /// `spec.serviceAllocation`, if written: the pool serves only the Services it selects.
    pub allocation: Option<ServiceAllocation>,
    /// `spec.reservations`: addresses kept for one Service each.
    pub reservations: Vec<Reservation>,
    /// `spec.onInUse`: what happens to an address in use that an edit takes out of the pool.
    pub on_in_use: OnInUse,
    /// `spec.quota.perNamespace`: addresses of each family that the Services of one namespace may have.
    pub quota: Option<NonZeroU32>,
    /// `spec.holdAfterDeletion`: how long an address of a deleted Service is held for one of the same name.
    pub hold_after_deletion: Option<HoldTime>,
}

/// How long the address of a deleted Service is held, in whole seconds; at least one, at most a year.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct HoldTime(u32);

/// Why a text is not a [`HoldTime`], and what to write instead.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, thiserror::Error)]
#[error(
    "\"{found}\" is not a time from 1s to 8760h: write hours, minutes and seconds, such as 10m or 1h30m"
)]
pub struct HoldTimeError {
    found: String,
}

/// `spec.serviceAllocation` of a pool.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAllocation {
    /// Pools with a lower number are tried first; 0 means last.
    pub priority: u32,
    /// Namespaces that may have addresses; with `namespace_selectors` empty too, all of them.
    pub namespaces: Vec<String>,
    /// Selectors of namespaces by their labels.
    pub namespace_selectors: Vec<LabelSelector>,
    /// Selectors of Services by their labels; empty means all.
    pub service_selectors: Vec<LabelSelector>,
}

/// An address that only one Service may have, which need not exist yet.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    /// The address.
    pub address: IpAddr,
    /// Who may have it.
    pub service: ServiceKey,
}

/// What happens to an address in use that an edit takes out of the pool.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Deserialize,
    Eq,
    Hash,
    JsonSchema,
    Ord,
    PartialEq,
    PartialOrd,
    Serialize,
)]
pub enum OnInUse {
    /// The Service keeps it until it goes; condition and Event say so.
    #[default]
    Keep,
    /// The Service gets another one.
    Reassign,
}

/// Where an object was written.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Origin {
    /// A custom resource of ours in the cluster.
    Cluster,
    /// A `metallb.io` custom resource in the cluster, in this namespace.
    MetalLb(Arc<str>),
    /// A document of a file.
    File {
        /// Path of the file.
        path: Arc<str>,
        /// Line of the document's first key, from 1.
        line: u32,
    },
}

impl HoldTime {
    /// The time in seconds.
    pub fn seconds(self) -> u32 {
        self.0
    }
}

impl FromStr for HoldTime {
    type Err = HoldTimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const LONGEST_SECONDS: u32 = 8760 * 3600;
        let error = || HoldTimeError {
            found: crate::excerpt::excerpt(text),
        };
        let (mut rest, mut seconds) = (text.trim(), 0_u32);
        for (unit, length) in [('h', 3600), ('m', 60), ('s', 1_u32)] {
            if let Some((number, after)) = rest.split_once(unit) {
                let digits = number.bytes().all(|byte| byte.is_ascii_digit());
                let number = number.parse::<u32>().ok().filter(|_| digits);
                let part = number.and_then(|number| number.checked_mul(length));
                let sum = part.and_then(|part| seconds.checked_add(part));
                seconds = sum.ok_or_else(error)?;
                rest = after;
            }
        }
        let fits = rest.is_empty() && (1..=LONGEST_SECONDS).contains(&seconds);
        fits.then_some(Self(seconds)).ok_or_else(error)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => formatter.write_str("the cluster"),
            Self::MetalLb(namespace) => {
                write!(formatter, "metallb.io in the namespace {namespace}")
            }
            Self::File { path, line } => write!(formatter, "{path}:{line}"),
        }
    }
}

impl Pool {
    /// Whether `address` is one of the pool's.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }

    /// Whether the pool has addresses of this family.
    pub fn has_family(&self, family: IpFamily) -> bool {
        self.ranges.iter().any(|range| range.family() == family)
    }

    /// Who an address of the pool is reserved for.
    pub fn reserved_for(&self, address: IpAddr) -> Option<&ServiceKey> {
        self.reservations
            .iter()
            .find(|reservation| reservation.address == address)
            .map(|reservation| &reservation.service)
    }
}

impl ServiceAllocation {
    /// Whether a namespace with this name and these labels may have addresses.
    pub fn admits_namespace(&self, name: &str, labels: &Labels) -> bool {
        let (names, selectors) = (&self.namespaces, &self.namespace_selectors);
        (names.is_empty() && selectors.is_empty())
            || names.iter().any(|admitted| admitted == name)
            || selectors.iter().any(|selector| selector.matches(labels))
    }

    /// Whether a Service with these labels may have addresses.
    pub fn admits_service(&self, labels: &Labels) -> bool {
        any_matches(&self.service_selectors, labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_time_is_hours_minutes_and_seconds_in_this_order() {
        for (text, seconds) in [
            ("10m", 600),
            ("1h30m", 5400),
            ("1s", 1),
            ("8760h", 31_536_000),
        ] {
            assert_eq!(
                text.parse::<HoldTime>().unwrap().seconds(),
                seconds,
                "{text}"
            );
        }
        for text in [
            "",
            "10",
            "m",
            "0s",
            "-5m",
            "+5m",
            "30m1h",
            "8761h",
            "9999999999h",
            "1m1m",
            "1ms",
            "1.5h",
            "10 m",
        ] {
            let error = text.parse::<HoldTime>().unwrap_err().to_string();
            assert!(error.contains(&format!("\"{text}\"")), "{error}");
        }
    }
}
