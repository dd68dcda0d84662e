//! Pools of addresses that the operator gives to Services.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::{AddressRange, IpFamily};
use crate::name::{PoolName, ServiceKey};
use crate::selector::{LabelSelector, Labels, any_matches};

/// An `IPAddressPool`: addresses, and the rules by which Services get them.
#[derive(Clone, Debug, Eq, PartialEq)]
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
}

/// `spec.serviceAllocation` of a pool.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
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
#[derive(Clone, Debug, Eq, PartialEq)]
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
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
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
