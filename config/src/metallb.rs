//! The custom resources of MetalLB (`metallb.io/v1beta1`) that mean something here, read as they are.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::crd;
use crate::crd::{PreferenceSpec, ServiceAllocationSpec};

/// The group of MetalLB's custom resources.
pub const GROUP: &str = "metallb.io";
/// The version of the custom resources of MetalLB that are read.
pub const VERSION: &str = "v1beta1";

/// The spec of MetalLB's IPAddressPool.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolSpec {
    /// Ranges and prefixes.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Whether Services that ask for no pool are served.
    #[serde(default)]
    pub auto_assign: Option<bool>,
    /// Whether .0 and .255 are skipped.
    #[serde(default, rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: Option<bool>,
    /// Which Services are served.
    #[serde(default)]
    pub service_allocation: Option<ServiceAllocationSpec>,
}

/// The spec of MetalLB's L2Advertisement.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct L2AdvertisementSpec {
    /// Names of the pools.
    #[serde(default, rename = "ipAddressPools")]
    pub ip_address_pools: Vec<String>,
    /// Pools by their labels.
    #[serde(default, rename = "ipAddressPoolSelectors")]
    pub ip_address_pool_selectors: Vec<LabelSelector>,
    /// Nodes by their labels.
    #[serde(default)]
    pub node_selectors: Vec<LabelSelector>,
    /// Services by their labels.
    #[serde(default)]
    pub service_selectors: Vec<LabelSelector>,
    /// Nodes that are better than others.
    #[serde(default)]
    pub preferred_node_selectors: Vec<PreferenceSpec>,
    /// Interfaces to announce on.
    #[serde(default)]
    pub interfaces: Vec<String>,
}

impl From<IPAddressPoolSpec> for crd::IPAddressPoolSpec {
    /// The same pool in our words; MetalLB ignores the bits of an address after the prefix.
    fn from(spec: IPAddressPoolSpec) -> Self {
        Self {
            addresses: spec.addresses.into_iter().map(without_host_bits).collect(),
            auto_assign: spec.auto_assign.unwrap_or(true),
            avoid_buggy_ips: spec.avoid_buggy_ips.unwrap_or(false),
            service_allocation: spec.service_allocation,
            ..Self::default()
        }
    }
}

fn without_host_bits(text: String) -> String {
    match text.trim().parse::<ipnet::IpNet>() {
        Ok(network) => network.trunc().to_string(),
        Err(_) => text,
    }
}

impl From<L2AdvertisementSpec> for crd::L2AdvertisementSpec {
    fn from(spec: L2AdvertisementSpec) -> Self {
        Self {
            ip_address_pools: spec.ip_address_pools,
            ip_address_pool_selectors: spec.ip_address_pool_selectors,
            service_selectors: spec.service_selectors,
            node_selectors: spec.node_selectors,
            preferred_node_selectors: spec.preferred_node_selectors,
            interfaces: spec.interfaces,
            ..Self::default()
        }
    }
}
