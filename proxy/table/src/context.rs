//! What the table has to know of the node that it is for.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use config::name::NodeName;
use ipnet::IpNet;
use serde::Serialize;

use crate::flow::{Arrival, Flow, Origin};

/// The node, its surroundings, and how the proxy was asked to behave.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeContext {
    /// The node's name, by which its own endpoints are known.
    pub name: NodeName,
    /// The zone that the node is in; without it no topology hint for zones is followed.
    pub zone: Option<Arc<str>>,
    /// The node's own addresses (`InternalIP`).
    pub addresses: Vec<IpAddr>,
    /// The addresses on which NodePorts are offered.
    pub node_port_addresses: BTreeSet<IpAddr>,
    /// How flows of Pods are told from those of outsiders.
    pub pods: PodDetection,
    /// The prefixes that ClusterIPs come from: what goes to an address in them that no Service has is dropped.
    pub service_cidrs: BTreeSet<IpNet>,
    /// Whether every flow to a ClusterIP is masqueraded.
    pub masquerade_all: bool,
    /// Whether `spec.externalIPs` are served (CVE-2020-8554).
    pub allow_external_ips: bool,
    /// The value of the label `service.kubernetes.io/service-proxy-name` of the Services to serve; none for those without it.
    pub service_proxy_name: Option<Arc<str>>,
}

/// How flows of Pods of this cluster are told from those of outsiders.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub enum PodDetection {
    /// They are not: every flow that is not the node's own counts as from outside.
    #[default]
    None,
    /// By the source address: the Pod networks of the cluster, or of this node.
    Networks(Vec<IpNet>),
    /// By the interface they arrive on: that of the bridge with this name.
    Bridge(Arc<str>),
    /// By the interface they arrive on: one whose name begins with this.
    InterfacePrefix(Arc<str>),
}

impl NodeContext {
    /// A context for a node of this name that knows nothing else.
    pub fn new(name: NodeName) -> Self {
        Self {
            name,
            zone: None,
            addresses: Vec::new(),
            node_port_addresses: BTreeSet::new(),
            pods: PodDetection::None,
            service_cidrs: BTreeSet::new(),
            masquerade_all: false,
            allow_external_ips: false,
            service_proxy_name: None,
        }
    }

    /// Whose flow this is.
    pub fn origin(&self, flow: &Flow) -> Origin {
        if self.pods.detects(flow) {
            Origin::Pod
        } else if flow.arrival == Arrival::Node {
            Origin::Node
        } else {
            Origin::Outside
        }
    }
}

impl PodDetection {
    /// Whether the flow is one of a Pod.
    pub fn detects(&self, flow: &Flow) -> bool {
        let interface = match &flow.arrival {
            Arrival::Node => None,
            Arrival::Interface(name) => Some(name),
        };
        match self {
            Self::None => false,
            Self::Networks(networks) => networks.iter().any(|net| net.contains(&flow.source)),
            Self::Bridge(bridge) => interface == Some(bridge),
            Self::InterfacePrefix(prefix) => {
                interface.is_some_and(|name| name.starts_with(&**prefix))
            }
        }
    }
}
