//! Who has which address on the lab's LAN.
//!
//! ```text
//!  outer 192.168.1.1 ── lan (bridge) ─┬─ node-1 192.168.1.11   Pods 10.244.1.0/24
//!  (control plane, router)            ├─ node-2 192.168.1.12   Pods 10.244.2.0/24
//!                                     ├─ node-3 192.168.1.13   Pods 10.244.3.0/24
//!                                     └─ client 192.168.1.100  knows nothing of Kubernetes
//! ```
//!
//! Beyond the router there may be another machine, `remote` 203.0.113.100.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The numbers of the nodes that a lab has unless it asks for more.
pub const NODES: [NodeNumber; 3] = [NodeNumber(1), NodeNumber(2), NodeNumber(3)];

/// The most nodes that a lab may have: addresses and names have one digit for them.
pub const MOST_NODES: u8 = 9;

/// The numbers of this many nodes, at most [`MOST_NODES`].
pub fn nodes(count: u8) -> impl Iterator<Item = NodeNumber> {
    (1..=count.min(MOST_NODES)).map(NodeNumber)
}

/// The name of the bridge that is the LAN.
pub const BRIDGE: &str = "lan";

/// The client's network namespace.
pub const CLIENT: &str = "client";

/// The interface that a node or the client has on the LAN.
pub const INTERFACE: &str = "eth0";

/// The network namespace of a machine beyond the router.
pub const REMOTE: &str = "remote";

/// The router and control plane, IPv4.
pub const ROUTER_IPV4: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
/// The router and control plane, IPv6.
pub const ROUTER_IPV6: Ipv6Addr = lan_ipv6(0x1);
/// The outside client, IPv4.
pub const CLIENT_IPV4: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 100);
/// The outside client, IPv6.
pub const CLIENT_IPV6: Ipv6Addr = lan_ipv6(0x100);

/// The router as the machine beyond it sees it, IPv4.
pub const OTHER_ROUTER_IPV4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The router as the machine beyond it sees it, IPv6.
pub const OTHER_ROUTER_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1);
/// The machine beyond the router, IPv4.
pub const REMOTE_IPV4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 100);
/// The machine beyond the router, IPv6.
pub const REMOTE_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 0x100);

/// The network of the nodes, IPv4.
pub const LAN_IPV4: &str = "192.168.1.0/24";
/// The network of the nodes, IPv6.
pub const LAN_IPV6: &str = "fd12:3456:789a:1::/64";

/// What pools may give away, IPv4: nothing else of the lab lies in it.
pub const POOL_IPV4: &str = "192.168.1.128-192.168.1.254";
/// What pools may give away, IPv6.
pub const POOL_IPV6: &str = "fd12:3456:789a:1::f:0/120";

/// The network of ClusterIPs, IPv4, unless a lab asks for another one.
pub const SERVICE_NETWORK_IPV4: &str = "10.96.0.0/16";
/// The network of ClusterIPs, IPv6.
pub const SERVICE_NETWORK_IPV6: &str = "fd12:3456:789a:10::/112";

/// The network of all Pods, IPv4.
pub const POD_NETWORK_IPV4: &str = "10.244.0.0/16";
/// The network of all Pods, IPv6.
pub const POD_NETWORK_IPV6: &str = "fd12:3456:789a:f400::/56";
/// The networks of all Pods, IPv4 and IPv6.
pub const CLUSTER_CIDR: &str = "10.244.0.0/16,fd12:3456:789a:f400::/56";

/// One of the two IP families.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// IPv4
    Ipv4,
    /// IPv6
    Ipv6,
}

impl Family {
    /// Both, IPv4 first.
    pub const BOTH: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// Which of the nodes: 1, 2, 3, ...
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeNumber(u8);

impl NodeNumber {
    /// The name, also of its network namespace: `node-1`.
    pub fn name(self) -> String {
        format!("node-{}", self.0)
    }

    /// The node of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        nodes(MOST_NODES).find(|node| node.name() == name)
    }

    /// The bridge's port that the node's cable is plugged into.
    pub fn port(self) -> String {
        format!("port-{}", self.0)
    }

    /// The MAC address on the LAN: its last octet reads like the last part of the IP addresses.
    pub fn mac(self) -> String {
        format!("02:00:00:00:00:1{}", self.0)
    }

    /// The address on the LAN, IPv4.
    pub const fn ipv4(self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 1, 10 + self.0)
    }

    /// The address on the LAN, IPv6: `::11` for node 1, as a person would choose it.
    pub const fn ipv6(self) -> Ipv6Addr {
        lan_ipv6(0x10 + self.0 as u16)
    }

    /// The address on the LAN of one family.
    pub const fn address(self, family: Family) -> IpAddr {
        match family {
            Family::Ipv4 => IpAddr::V4(self.ipv4()),
            Family::Ipv6 => IpAddr::V6(self.ipv6()),
        }
    }

    /// The network of its Pods, IPv4.
    pub fn pod_network_ipv4(self) -> String {
        format!("10.244.{}.0/24", self.0)
    }

    /// The network of its Pods, IPv6.
    pub fn pod_network_ipv6(self) -> String {
        format!("fd12:3456:789a:f40{}::/64", self.0)
    }
}

impl fmt::Display for NodeNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "node-{}", self.0)
    }
}

const fn lan_ipv6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd12, 0x3456, 0x789a, 1, 0, 0, 0, last)
}
