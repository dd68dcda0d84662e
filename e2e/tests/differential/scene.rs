//! How the two proxies are asked to behave, and what the node is.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use config::name::NodeName;
use e2e::mode::Mode;
use e2e::random::Random;
use e2e::topology::{CLUSTER_CIDR, SERVICE_NETWORK_IPV4, SERVICE_NETWORK_IPV6};
use proxy_table::{NodeContext, PodDetection};
use serde_json::{Value, json};

use crate::network::{NODE, NODE_ADDRESSES, POD_GATEWAYS, own_vips};

/// The settings of both proxies and the node's zone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Scene {
    /// Of both proxies.
    pub(crate) mode: Mode,
    pub(crate) detection: Detection,
    pub(crate) node_ports: NodePorts,
    pub(crate) masquerade_all: bool,
    pub(crate) zone: Option<&'static str>,
    /// Only foghorn-proxy can be asked: kube-proxy always serves them.
    pub(crate) allow_external_ips: bool,
}

/// How Pods are told from outsiders.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Detection {
    ClusterCidr,
    NodeCidr,
    Bridge,
    InterfacePrefix,
}

/// Where NodePorts are offered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NodePorts {
    Primary,
    /// On the addresses in these prefixes: the node's towards its Pods, and IPv6 on the LAN.
    Prefixes,
    Everywhere,
}

impl Scene {
    /// The scene with this number: the first few are all kinds of detection, with the usual settings first.
    pub(crate) fn nth(number: usize, mode: Mode, random: &mut Random) -> Self {
        let detections = [
            Detection::ClusterCidr,
            Detection::NodeCidr,
            Detection::Bridge,
            Detection::InterfacePrefix,
        ];
        if number == 0 {
            return Self {
                mode,
                detection: Detection::ClusterCidr,
                node_ports: NodePorts::Primary,
                masquerade_all: false,
                zone: Some(ZONES[0]),
                allow_external_ips: true,
            };
        }
        let places = match mode {
            // kube-proxy has a virtual server for each NodePort at each address: under qemu that takes it many minutes.
            Mode::Ipvs => &[NodePorts::Primary, NodePorts::Prefixes][..],
            Mode::Nftables | Mode::Iptables => &[
                NodePorts::Primary,
                NodePorts::Prefixes,
                NodePorts::Everywhere,
            ],
        };
        let zones = [None, Some(ZONES[0]), Some(ZONES[1])];
        Self {
            mode,
            detection: detections[number % detections.len()],
            node_ports: *random.choose(places).unwrap_or(&NodePorts::Primary),
            masquerade_all: random.one_in(4),
            zone: *random.choose(&zones).unwrap_or(&None),
            // Each second one, so that what it changes is seen in each run.
            allow_external_ips: number.is_multiple_of(2),
        }
    }

    /// What the specification has to know of the node.
    pub(crate) fn context(&self) -> NodeContext {
        let networks = |text: &str| text.split(',').filter_map(|net| net.parse().ok()).collect();
        let addresses: Vec<IpAddr> = NODE_ADDRESSES.to_vec();
        let everywhere = || {
            NODE_ADDRESSES
                .into_iter()
                .chain(POD_GATEWAYS)
                .chain(own_vips())
        };
        let node_port_addresses: BTreeSet<IpAddr> = match self.node_ports {
            NodePorts::Primary => addresses.iter().copied().collect(),
            NodePorts::Prefixes => [POD_GATEWAYS[0], NODE_ADDRESSES[1]].into(),
            NodePorts::Everywhere => everywhere().collect(),
        };
        let pods = match self.detection {
            Detection::ClusterCidr => PodDetection::Networks(networks(CLUSTER_CIDR)),
            Detection::NodeCidr => PodDetection::Networks(networks(NODE_CIDRS)),
            Detection::Bridge => PodDetection::Bridge("cbr0".into()),
            Detection::InterfacePrefix => PodDetection::InterfacePrefix("veth".into()),
        };
        let service_networks = format!("{SERVICE_NETWORK_IPV4},{SERVICE_NETWORK_IPV6}");
        NodeContext {
            zone: self.zone.map(Arc::from),
            addresses,
            node_port_addresses,
            pods,
            service_cidrs: networks(&service_networks).into_iter().collect(),
            masquerade_all: self.masquerade_all,
            allow_external_ips: self.allow_external_ips,
            ..NodeContext::new(NodeName::from(NODE))
        }
    }

    /// The configuration file of kube-proxy, which foghorn-proxy reads too.
    pub(crate) fn configuration(&self, kubeconfig: &Path) -> Value {
        let (mode, cluster_cidr, bridge, prefix) = match self.detection {
            Detection::ClusterCidr => ("ClusterCIDR", CLUSTER_CIDR, "", ""),
            Detection::NodeCidr => ("NodeCIDR", "", "", ""),
            Detection::Bridge => ("BridgeInterface", "", "cbr0", ""),
            Detection::InterfacePrefix => ("InterfaceNamePrefix", "", "", "veth"),
        };
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": self.mode.name(),
            "hostnameOverride": NODE,
            "clientConnection": {"kubeconfig": kubeconfig},
            "conntrack": {
                "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
            },
            "clusterCIDR": cluster_cidr,
            "detectLocalMode": mode,
            "detectLocal": {"bridgeInterface": bridge, "interfaceNamePrefix": prefix},
            "nodePortAddresses": self.node_port_addresses(),
            "nftables": {"masqueradeAll": self.masquerade_all, "minSyncPeriod": "1ms"},
            // IPVS goes by it too.
            "iptables": {"masqueradeAll": self.masquerade_all, "minSyncPeriod": "1ms"},
            "ipvs": {"minSyncPeriod": "1ms"},
        })
    }

    fn node_port_addresses(&self) -> Vec<&'static str> {
        match self.node_ports {
            NodePorts::Primary => vec!["primary"],
            NodePorts::Prefixes => vec!["10.244.1.0/24", "fd12:3456:789a:1::/64"],
            NodePorts::Everywhere => vec!["0.0.0.0/0", "::/0"],
        }
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            mode,
            detection,
            node_ports,
            masquerade_all,
            zone,
            allow_external_ips,
        } = self;
        write!(
            formatter,
            "{}, Pods by {detection:?}, NodePorts {node_ports:?}, {}, masquerade all: {masquerade_all}, external IPs: {allow_external_ips}",
            mode.name(),
            zone.unwrap_or("no zone")
        )
    }
}

/// The zones of the cluster.
pub(crate) const ZONES: [&str; 2] = ["zone-1", "zone-2"];
const NODE_CIDRS: &str = "10.244.1.0/24,fd12:3456:789a:f401::/64";
