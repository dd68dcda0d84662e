//! How and from where addresses are announced.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::{AdvertisementName, PoolName};
use crate::pool::{Origin, Pool};
use crate::selector::{LabelSelector, Labels, any_matches};

/// An `L2Advertisement`: which pools are announced from which nodes and interfaces.
///
/// A pool that no advertisement selects is announced from every eligible node.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct L2Advertisement {
    /// Name; unique over all origins.
    pub name: AdvertisementName,
    /// Where it was written.
    pub origin: Origin,
    /// `spec.ipAddressPools`; with `pool_selectors` empty too, all pools.
    pub pools: Vec<PoolName>,
    /// `spec.ipAddressPoolSelectors`.
    pub pool_selectors: Vec<LabelSelector>,
    /// `spec.serviceSelectors`; empty means all.
    pub service_selectors: Vec<LabelSelector>,
    /// `spec.nodeSelectors`; empty means all.
    pub node_selectors: Vec<LabelSelector>,
    /// `spec.preferredNodeSelectors`.
    pub preferred_node_selectors: Vec<Preference>,
    /// `spec.interfaces`; empty means every interface that has the address's subnet.
    pub interfaces: Vec<String>,
    /// `spec.failback`.
    pub failback: Failback,
    /// `spec.partition`.
    pub partition: PartitionPolicy,
}

/// A node selector that adds to a node's rank.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preference {
    /// What the selected nodes gain, 1 to 100.
    pub weight: u8,
    /// The nodes.
    pub selector: LabelSelector,
}

/// Whether an address goes back to a better node that returned.
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
pub enum Failback {
    /// The owner keeps it for as long as it is fit.
    #[default]
    Never,
    /// It moves when the owner has had no traffic for it for a while.
    Idle,
    /// It moves at once.
    Always,
}

/// What a part of the nodes does that cannot hear the rest.
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
pub enum PartitionPolicy {
    /// Each side serves its clients.
    #[default]
    Available,
    /// Only a majority of the speakers serves.
    Strict,
}

impl L2Advertisement {
    /// Whether the advertisement is about addresses of this pool.
    pub fn selects_pool(&self, pool: &Pool) -> bool {
        let (names, selectors) = (&self.pools, &self.pool_selectors);
        (names.is_empty() && selectors.is_empty())
            || names.contains(&pool.name)
            || selectors
                .iter()
                .any(|selector| selector.matches(&pool.labels))
    }

    /// Whether the advertisement is about a Service with these labels.
    pub fn selects_service(&self, labels: &Labels) -> bool {
        any_matches(&self.service_selectors, labels)
    }

    /// Whether a node with these labels may announce.
    pub fn selects_node(&self, labels: &Labels) -> bool {
        any_matches(&self.node_selectors, labels)
    }

    /// The sum of the weights of the preferences that select a node with these labels.
    pub fn preference(&self, labels: &Labels) -> u32 {
        self.preferred_node_selectors
            .iter()
            .filter(|preference| preference.selector.matches(labels))
            .map(|preference| u32::from(preference.weight))
            .sum()
    }
}
