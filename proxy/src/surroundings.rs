//! What the proxy was asked to do, and what the table has to know of the node.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use config::name::NodeName;
use config::node::Node;
use ipnet::IpNet;
use proxy_table::{NodeContext, PodDetection};

use crate::arguments::{Arguments, DetectLocalMode};
use crate::mode::{Mode, UnknownMode};

/// What the proxy was asked to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// What in the kernel forwards.
    pub mode: Mode,
    /// The Node object of this machine.
    pub node_name: NodeName,
    /// Where NodePorts are offered.
    pub node_ports: NodePorts,
    /// How Pods are told from outsiders.
    pub pods: Pods,
    /// Whether every flow to a ClusterIP is masqueraded.
    pub masquerade_all: bool,
    /// Whether `spec.externalIPs` are served.
    pub allow_external_ips: bool,
    /// Value of the label of the Services to serve.
    pub service_proxy_name: Option<Arc<str>>,
}

/// Where NodePorts are offered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NodePorts {
    /// On the node's InternalIPs.
    Primary,
    /// On the machine's addresses in these prefixes, but no loopback ones.
    In(Vec<IpNet>),
}

/// How Pods are told from outsiders.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Pods {
    /// As the table does.
    Fixed(PodDetection),
    /// By the node's podCIDRs.
    OfNode,
}

/// Why the arguments do not say what to do.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    Mode(#[from] UnknownMode),
    #[error("--node-name is missing: give the name of the Node object of this machine")]
    NodeName,
    #[error(
        "--nodeport-addresses has \"{0}\": write primary alone, or prefixes such as 192.0.2.0/24"
    )]
    NodePortAddress(String),
    #[error("--detect-local-mode {mode} needs {argument}")]
    Missing {
        mode: &'static str,
        argument: &'static str,
    },
}

impl TryFrom<&Arguments> for Settings {
    type Error = SettingsError;

    fn try_from(arguments: &Arguments) -> Result<Self, SettingsError> {
        let mode = arguments.dataplane.parse()?;
        let node_name = arguments.node_name.as_deref();
        let node_name = node_name.filter(|name| !name.is_empty());
        Ok(Self {
            mode,
            node_name: node_name
                .map(NodeName::from)
                .ok_or(SettingsError::NodeName)?,
            node_ports: node_ports(&arguments.nodeport_addresses)?,
            pods: pods(arguments)?,
            masquerade_all: arguments.masquerade_all,
            allow_external_ips: arguments.allow_external_ips,
            service_proxy_name: arguments.service_proxy_name.as_deref().map(Arc::from),
        })
    }
}

impl Settings {
    /// What the table has to know, from the Node object, the machine's addresses and the ServiceCIDRs.
    pub fn context<'a>(
        &self,
        node: Option<&Node>,
        local: &BTreeSet<IpAddr>,
        service_cidrs: impl IntoIterator<Item = &'a IpNet>,
    ) -> NodeContext {
        let internal = node.map_or(&[][..], |node| &node.internal_ips);
        let node_port_addresses = match &self.node_ports {
            NodePorts::Primary => internal.iter().copied().collect(),
            NodePorts::In(prefixes) => {
                let offered = |address: &&IpAddr| {
                    !address.is_loopback() && prefixes.iter().any(|net| net.contains(*address))
                };
                local.iter().filter(offered).copied().collect()
            }
        };
        let pods = match &self.pods {
            Pods::Fixed(pods) => pods.clone(),
            Pods::OfNode => match node.map(|node| node.pod_cidrs.clone()) {
                Some(cidrs) if !cidrs.is_empty() => PodDetection::Networks(cidrs),
                _ => PodDetection::None,
            },
        };
        NodeContext {
            zone: node.and_then(Node::zone),
            addresses: internal.to_vec(),
            node_port_addresses,
            pods,
            service_cidrs: service_cidrs.into_iter().copied().collect(),
            masquerade_all: self.masquerade_all,
            allow_external_ips: self.allow_external_ips,
            service_proxy_name: self.service_proxy_name.clone(),
            ..NodeContext::new(self.node_name.clone())
        }
    }
}

fn node_ports(texts: &[String]) -> Result<NodePorts, SettingsError> {
    if let [text] = texts
        && text == "primary"
    {
        return Ok(NodePorts::Primary);
    }
    let prefix = |text: &String| {
        text.trim()
            .parse()
            .map_err(|_| SettingsError::NodePortAddress(text.clone()))
    };
    texts
        .iter()
        .map(prefix)
        .collect::<Result<_, _>>()
        .map(NodePorts::In)
}

fn pods(arguments: &Arguments) -> Result<Pods, SettingsError> {
    let clusters = &arguments.cluster_cidr;
    let by_cluster = || PodDetection::Networks(clusters.clone());
    let missing = |mode, argument| SettingsError::Missing { mode, argument };
    Ok(match arguments.detect_local_mode {
        None if clusters.is_empty() => Pods::OfNode,
        Some(DetectLocalMode::ClusterCidr) if clusters.is_empty() => {
            return Err(missing("ClusterCIDR", "--cluster-cidr"));
        }
        None | Some(DetectLocalMode::ClusterCidr) => Pods::Fixed(by_cluster()),
        Some(DetectLocalMode::NodeCidr) => Pods::OfNode,
        Some(DetectLocalMode::BridgeInterface) => {
            let bridge = arguments.pod_bridge_interface.as_deref();
            let bridge = bridge.ok_or(missing("BridgeInterface", "--pod-bridge-interface"))?;
            Pods::Fixed(PodDetection::Bridge(bridge.into()))
        }
        Some(DetectLocalMode::InterfaceNamePrefix) => {
            let prefix = arguments.pod_interface_name_prefix.as_deref();
            let argument = "--pod-interface-name-prefix";
            let prefix = prefix.ok_or(missing("InterfaceNamePrefix", argument))?;
            Pods::Fixed(PodDetection::InterfacePrefix(prefix.into()))
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn settings(arguments: &str) -> Result<Settings, String> {
        let words = arguments.split_whitespace();
        let arguments = Arguments::try_parse_from(std::iter::once("foghorn-proxy").chain(words));
        let arguments = arguments.map_err(|error| error.to_string())?;
        Settings::try_from(&arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn says_which_argument_is_missing_or_wrong() {
        for (arguments, expected) in [
            (
                "--masquerade-all",
                "--node-name is missing: give the name of the Node object of this machine",
            ),
            (
                "--node-name a --dataplane ebpf",
                "--dataplane ebpf is not built in: write auto, nftables, iptables or ipvs",
            ),
            (
                "--node-name a --nodeport-addresses primary,192.0.2.0/24",
                "--nodeport-addresses has \"primary\": write primary alone, or prefixes such as 192.0.2.0/24",
            ),
            (
                "--node-name a --detect-local-mode ClusterCIDR",
                "--detect-local-mode ClusterCIDR needs --cluster-cidr",
            ),
            (
                "--node-name a --detect-local-mode BridgeInterface",
                "--detect-local-mode BridgeInterface needs --pod-bridge-interface",
            ),
        ] {
            assert_eq!(settings(arguments), Err(expected.to_owned()));
        }
    }

    fn node() -> Node {
        Node {
            internal_ips: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
            ..Node::default()
        }
    }

    #[test]
    fn node_ports_are_offered_on_the_node_s_addresses_or_where_it_was_asked() {
        let local: BTreeSet<IpAddr> = [
            "127.0.0.1",
            "192.0.2.1",
            "198.51.100.1",
            "::1",
            "2001:db8::1",
        ]
        .map(|text| text.parse().unwrap())
        .into();
        for (arguments, expected) in [
            ("--node-name a", &["192.0.2.1", "2001:db8::1"][..]),
            (
                "--node-name a --nodeport-addresses 198.51.100.0/24",
                &["198.51.100.1"],
            ),
            (
                "--node-name a --nodeport-addresses 0.0.0.0/0",
                &["192.0.2.1", "198.51.100.1"],
            ),
        ] {
            let context = settings(arguments)
                .unwrap()
                .context(Some(&node()), &local, []);
            let offered: Vec<String> = context
                .node_port_addresses
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(offered, expected, "{arguments}");
        }
    }

    #[test]
    fn pods_are_told_by_the_cluster_s_networks_or_else_by_the_node_s() {
        let networks = |text: &str| PodDetection::Networks(vec![text.parse().unwrap()]);
        for (arguments, expected) in [
            ("--node-name a", networks("10.244.1.0/24")),
            (
                "--node-name a --cluster-cidr 10.244.0.0/16",
                networks("10.244.0.0/16"),
            ),
            (
                "--node-name a --cluster-cidr 10.244.0.0/16 --detect-local-mode NodeCIDR",
                networks("10.244.1.0/24"),
            ),
            (
                "--node-name a --detect-local-mode InterfaceNamePrefix --pod-interface-name-prefix veth",
                PodDetection::InterfacePrefix("veth".into()),
            ),
        ] {
            let context = settings(arguments)
                .unwrap()
                .context(Some(&node()), &BTreeSet::new(), []);
            assert_eq!(context.pods, expected, "{arguments}");
        }
        let unknown = settings("--node-name a")
            .unwrap()
            .context(None, &BTreeSet::new(), []);
        assert_eq!(unknown.pods, PodDetection::None);
    }
}
