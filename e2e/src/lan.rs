//! The wires: one bridge, the nodes and the client on it, and the router.

use std::fs;

use anyhow::{Result, bail};

use crate::faults::Faults;
use crate::machine::{FORWARDING, HOST, plug_in};
use crate::namespace::{Namespace, ip};
use crate::node::Node;
use crate::topology::{
    BRIDGE, CLIENT, CLIENT_IPV4, CLIENT_IPV6, INTERFACE, OTHER_ROUTER_IPV4, OTHER_ROUTER_IPV6,
    REMOTE, REMOTE_IPV4, REMOTE_IPV6, ROUTER_IPV4, ROUTER_IPV6, nodes,
};

/// A LAN with nodes on which nothing runs yet.
#[derive(Debug)]
pub struct Lan {
    /// The nodes, in the order of their numbers.
    pub nodes: Vec<Node>,
    /// The outside machine.
    pub client: Namespace,
    /// Faults of the LAN.
    pub faults: Faults,
    /// The router's network.
    pub outer: Namespace,
}

impl Lan {
    /// Builds it with so many nodes in the network namespace of this program, which must be one of its own.
    pub fn build(node_count: u8) -> Result<Self> {
        refuse_the_machine_itself()?;
        build_bridge(node_count)?;
        let client = plug_in(
            CLIENT,
            "port-client",
            "02:00:00:00:01:00",
            &format!("{CLIENT_IPV4}/24"),
            &format!("{CLIENT_IPV6}/64"),
        )?;
        let nodes = nodes(node_count)
            .map(Node::plug_in)
            .collect::<Result<_>>()?;
        Ok(Self {
            nodes,
            client,
            faults: Faults::prepare()?,
            outer: Namespace::outer(),
        })
    }
}

/// Makes a network namespace for a machine that is not on the LAN: it reaches it by the router.
pub fn plug_in_beyond_the_router() -> Result<Namespace> {
    const OTHER_PORT: &str = "port-remote";
    let namespace = Namespace::create(REMOTE)?;
    ip(&[
        "link", "add", OTHER_PORT, "type", "veth", "peer", "name", INTERFACE, "netns", REMOTE,
    ])?;
    namespace.set_parameters(HOST)?;
    Namespace::outer().configure(&format!(
        "addr add {OTHER_ROUTER_IPV4}/24 dev {OTHER_PORT}
         addr add {OTHER_ROUTER_IPV6}/64 dev {OTHER_PORT} nodad
         link set {OTHER_PORT} up"
    ))?;
    namespace.configure(&format!(
        "link set lo up
         addr add {REMOTE_IPV4}/24 dev {INTERFACE}
         addr add {REMOTE_IPV6}/64 dev {INTERFACE} nodad
         link set {INTERFACE} up
         route add default via {OTHER_ROUTER_IPV4}
         route add default via {OTHER_ROUTER_IPV6}"
    ))?;
    Ok(namespace)
}

fn build_bridge(node_count: u8) -> Result<()> {
    let outer = Namespace::outer();
    outer.set_parameters(HOST)?;
    outer.set_parameters(FORWARDING)?;
    ip(&[
        "link",
        "add",
        BRIDGE,
        "address",
        "02:00:00:00:00:01",
        "type",
        "bridge",
        "forward_delay",
        "0",
        "stp_state",
        "0",
        "mcast_snooping",
        "0",
    ])?;
    let mut lines = format!(
        "addr add {ROUTER_IPV4}/24 dev {BRIDGE}
         addr add {ROUTER_IPV6}/64 dev {BRIDGE} nodad
         link set {BRIDGE} up\n"
    );
    // As a home router would have them, so that Pods reach the LAN with their own addresses.
    for node in nodes(node_count) {
        lines.push_str(&format!(
            "route add {} via {}\nroute add {} via {}\n",
            node.pod_network_ipv4(),
            node.ipv4(),
            node.pod_network_ipv6(),
            node.ipv6()
        ));
    }
    outer.configure(&lines)
}

/// Whether this network namespace has only what every new one has, or also what `tools/in-kernel` gives an emulated machine.
fn is_a_new_network() -> Result<bool> {
    let devices = fs::read_to_string("/proc/self/net/dev")?;
    let mut names = devices
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim()));
    Ok(names.all(|name| ["lo", UPLINK].contains(&name)))
}

fn refuse_the_machine_itself() -> Result<()> {
    // In a user namespace made for one user, the map has one line for one ID.
    let map = fs::read_to_string("/proc/self/uid_map")?;
    if map.split_whitespace().nth(2) != Some("1") && !is_a_new_network()? {
        bail!(
            "the lab is built only inside namespaces of its own: start this program by tools/in-namespaces"
        );
    }
    Ok(())
}

/// The way out of an emulated machine.
const UPLINK: &str = "uplink";
