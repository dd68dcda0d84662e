//! Nodes of the cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as api;
use serde::Serialize;

use crate::name::NodeName;
use crate::selector::Labels;

/// A node, as far as anything of ours decides from it.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Labels of the object.
    pub labels: Labels,
    /// Addresses of the type `InternalIP`, in order.
    pub internal_ips: Vec<IpAddr>,
    /// Addresses of the type `ExternalIP`, in order.
    pub external_ips: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// `spec.unschedulable`: cordoned.
    pub unschedulable: bool,
    /// The annotation [`DRAIN`] says that announced addresses are to leave it.
    pub drained: bool,
    /// The node is about to be deleted (taint `ToBeDeletedByClusterAutoscaler`).
    pub being_deleted: bool,
    /// The condition `Ready` is true.
    pub ready: bool,
}

/// The annotation by which a node is made to hand announced addresses over while another node can take them: `"true"`.
pub const DRAIN: &str = "foghorn.dev/drain";
/// The label by which a node is kept from serving external load balancers.
pub const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const BEING_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

impl Node {
    /// Reads a node as the API server sends it; none if it has no name.
    pub fn from_api(node: &api::Node) -> Option<(NodeName, Self)> {
        let name = NodeName::new(node.metadata.name.as_deref()?);
        let spec = node.spec.clone().unwrap_or_default();
        let status = node.status.clone().unwrap_or_default();
        let addresses = |kind: &str| {
            let addresses = status.addresses.iter().flatten();
            addresses
                .filter(|address| address.type_ == kind)
                .filter_map(|address| address.address.parse().ok())
                .collect()
        };
        let node = Self {
            labels: node.metadata.labels.clone().unwrap_or_default(),
            internal_ips: addresses("InternalIP"),
            external_ips: addresses("ExternalIP"),
            pod_cidrs: pod_cidrs(&spec),
            unschedulable: spec.unschedulable.unwrap_or(false),
            drained: is_true(node.metadata.annotations.as_ref(), DRAIN),
            being_deleted: spec
                .taints
                .iter()
                .flatten()
                .any(|taint| taint.key == BEING_DELETED_TAINT),
            ready: status
                .conditions
                .iter()
                .flatten()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        };
        Some((name, node))
    }

    /// Whether the node is kept from serving external load balancers (label [`EXCLUDE_LABEL`], KEP-1143).
    pub fn excluded_from_load_balancers(&self) -> bool {
        self.labels.contains_key(EXCLUDE_LABEL)
    }

    /// The zone that the node is in, if it says so.
    pub fn zone(&self) -> Option<Arc<str>> {
        self.labels.get(ZONE_LABEL).map(|zone| zone.as_str().into())
    }
}

fn is_true(annotations: Option<&BTreeMap<String, String>>, name: &str) -> bool {
    annotations.is_some_and(|annotations| annotations.get(name).is_some_and(|text| text == "true"))
}

fn pod_cidrs(spec: &api::NodeSpec) -> Vec<IpNet> {
    let all = spec.pod_cidrs.iter().flatten();
    let texts: Vec<&String> = all.chain(spec.pod_cidr.iter()).collect();
    let mut cidrs: Vec<IpNet> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    cidrs.sort_unstable();
    cidrs.dedup();
    cidrs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_api_server_sends() {
        let (name, node) = Node::from_api(
            &serde_json::from_value(serde_json::json!({
                "metadata": {"name": "node-1", "labels": {"topology.kubernetes.io/zone": "a"}},
                "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "2001:db8::/64"],
                    "taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]},
                "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"},
                    {"type": "Hostname", "address": "node-1"}],
                    "conditions": [{"type": "Ready", "status": "True"}]},
            }))
            .unwrap(),
        )
        .unwrap();
        assert_eq!(name.as_str(), "node-1");
        assert_eq!(node.zone().as_deref(), Some("a"));
        assert_eq!(node.internal_ips, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(node.pod_cidrs.len(), 2);
        assert!(node.ready && node.being_deleted && !node.excluded_from_load_balancers());
    }

    #[test]
    fn a_node_is_drained_while_its_annotation_is_true() {
        for (value, expected) in [("true", true), ("false", false), ("", false)] {
            let node = serde_json::json!({"metadata": {"name": "a", "annotations": {"foghorn.dev/drain": value}}});
            let (_, node) = Node::from_api(&serde_json::from_value(node).unwrap()).unwrap();
            assert_eq!(node.drained, expected, "{value}");
        }
    }
}
