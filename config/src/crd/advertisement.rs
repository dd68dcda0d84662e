//! The custom resource `L2Advertisement`, and what it means.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube_derive::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{is_default, item, selectors};
use crate::advertisement::{
    Failback, L2Advertisement as Advertisement, PartitionPolicy, Preference,
};
use crate::name::{AdvertisementName, PoolName};
use crate::pool::Origin;
use crate::refusal::{FieldError, Reason};
use crate::selector::LabelSelector as Selector;

/// From which nodes and interfaces the addresses of pools are announced by ARP and NDP.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[kube(
    group = "foghorn.dev",
    version = "v1alpha1",
    kind = "L2Advertisement",
    doc = "From which nodes and interfaces the addresses of pools are announced by ARP and NDP",
    plural = "l2advertisements",
    singular = "l2advertisement",
    category = "foghorn",
    status = "L2AdvertisementStatus",
    derive = "PartialEq",
    crates(kube_core = "::kube_core"),
    printcolumn(
        name = "Pools",
        type_ = "string",
        json_path = ".spec.ipAddressPools",
        description = "Which pools it is about; all if empty"
    ),
    printcolumn(
        name = "Interfaces",
        type_ = "string",
        json_path = ".spec.interfaces",
        description = "Where it is announced; on every fitting interface if empty"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status",
        description = "Whether the advertisement is in force as written"
    ),
    printcolumn(
        name = "Effective",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Effective\")].status",
        description = "Whether it selects pools and nodes"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct L2AdvertisementSpec {
    /// The pools it is about, by name. One match here or in `ipAddressPoolSelectors` is enough; it is about all if neither is
    /// written.
    #[serde(
        default,
        rename = "ipAddressPools",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(length(max = 512), inner(length(max = 253)))]
    pub ip_address_pools: Vec<String>,

    /// The pools it is about, by their labels.
    #[serde(
        default,
        rename = "ipAddressPoolSelectors",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(length(max = 64))]
    pub ip_address_pool_selectors: Vec<LabelSelector>,

    /// The Services it is about, by their labels; all if it is not written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub service_selectors: Vec<LabelSelector>,

    /// The nodes that may announce, by their labels; all if it is not written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub node_selectors: Vec<LabelSelector>,

    /// Nodes that are better than others; the weights of all that match add up. Between equals a hash decides, so that addresses
    /// spread.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub preferred_node_selectors: Vec<PreferenceSpec>,

    /// Names of the interfaces to announce on, of at most 15 characters; every one that has the subnet of the address if it is
    /// not written. One that is named need not have the subnet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 15)))]
    pub interfaces: Vec<String>,

    /// Whether an address goes back to a better node that returned. `Never` moves nothing while the owner is fit. `Always` moves
    /// once the better node has stood for 10 s. `Idle` does the same, but waits until no connection goes through the address (in
    /// the connection tracking of the node that has it, asked by Foghorn's proxy; with another proxy it does what `Never` does).
    #[serde(default, skip_serializing_if = "is_default")]
    pub failback: Failback,

    /// What nodes do that cannot hear the others. `Available` lets each side serve its clients; with `Strict` only a majority of
    /// the speakers serves.
    #[serde(default, skip_serializing_if = "is_default")]
    pub partition: PartitionPolicy,
}

/// Nodes that are better than others.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct PreferenceSpec {
    /// How much better, from 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i64,

    /// The nodes, by their labels.
    pub preference: LabelSelector,
}

/// Whether an advertisement is in force as written.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct L2AdvertisementStatus {
    /// `Accepted`: in force as written. `Effective`: it selects pools and nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

impl L2AdvertisementSpec {
    /// What the spec means, or everything that is wrong with it.
    ///
    /// # Errors
    /// One for each field that cannot be followed.
    pub fn to_advertisement(
        &self,
        name: &str,
        origin: Origin,
    ) -> Result<Advertisement, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut read = |field, list| selectors(field, list, &mut errors);
        let advertisement = Advertisement {
            name: AdvertisementName::new(name),
            origin,
            pools: self
                .ip_address_pools
                .iter()
                .map(|name| PoolName::new(name.as_str()))
                .collect(),
            pool_selectors: read(
                "spec.ipAddressPoolSelectors",
                &self.ip_address_pool_selectors,
            ),
            service_selectors: read("spec.serviceSelectors", &self.service_selectors),
            node_selectors: read("spec.nodeSelectors", &self.node_selectors),
            preferred_node_selectors: preferences(&self.preferred_node_selectors, &mut errors),
            interfaces: self.interfaces.clone(),
            failback: self.failback,
            partition: self.partition,
        };
        if errors.is_empty() {
            Ok(advertisement)
        } else {
            Err(errors)
        }
    }
}

fn preferences(specs: &[PreferenceSpec], errors: &mut Vec<FieldError>) -> Vec<Preference> {
    let mut preferences = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let field = item("spec.preferredNodeSelectors", index);
        let weight = u8::try_from(spec.weight).ok();
        let weight = weight.filter(|weight| (1..=100).contains(weight));
        if weight.is_none() {
            let reason = Reason::Weight(spec.weight);
            errors.push(FieldError::new(format!("{field}.weight"), reason));
        }
        match Selector::from_api(&spec.preference) {
            Ok(selector) => {
                preferences.extend(weight.map(|weight| Preference { weight, selector }))
            }
            Err(reason) => errors.push(FieldError::new(format!("{field}.preference"), reason)),
        }
    }
    preferences
}
