//! The interfaces of this node.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::packet::MacAddr;

/// The index that the kernel gave an interface; it stays the same when the interface is renamed.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LinkIndex(pub u32);

impl fmt::Display for LinkIndex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// An interface of this node that leads to a LAN.
///
/// The shell leaves out interfaces that never do: loopback, the Pods' end of veth pairs, tunnels.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// Its index.
    pub index: LinkIndex,
    /// Its name, which advertisements may mention.
    pub name: String,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Whether it is up and has carrier (`IFF_UP` and `IFF_LOWER_UP`).
    pub up: bool,
    /// Its addresses with their prefix lengths.
    pub addresses: Vec<IpNet>,
}

impl Link {
    /// Whether one of its addresses is in the same subnet as `address`.
    pub fn reaches(&self, address: IpAddr) -> bool {
        self.addresses
            .iter()
            .any(|subnet| subnet.contains(&address))
    }
}

/// On which interfaces a VIP may be announced.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Links {
    /// On those with an address in its subnet.
    #[default]
    InSubnet,
    /// On those with these names, whatever their subnets are (`interfaces` of the advertisement).
    Named(BTreeSet<String>),
}

impl Links {
    /// Whether a VIP may be announced on `link`, be that up or not.
    pub fn allow(&self, link: &Link, vip: IpAddr) -> bool {
        match self {
            Self::InSubnet => link.reaches(vip),
            Self::Named(names) => names.contains(&link.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vip_is_announced_where_its_subnet_is_or_where_the_operator_says() {
        let link = Link {
            index: LinkIndex(2),
            name: "eth0".to_owned(),
            mac: MacAddr::new(2, 0, 0, 0, 0, 1),
            up: true,
            addresses: vec![
                "192.0.2.5/24".parse().unwrap(),
                "2001:db8::5/64".parse().unwrap(),
            ],
        };
        let named = |name: &str| Links::Named([name.to_owned()].into());
        for (links, vip, expected) in [
            (Links::InSubnet, "192.0.2.240", true),
            (Links::InSubnet, "198.51.100.1", false),
            (Links::InSubnet, "2001:db8::1:2", true),
            (Links::InSubnet, "2001:db8:1::1", false),
            (named("eth0"), "198.51.100.1", true),
            (named("eth1"), "192.0.2.240", false),
        ] {
            assert_eq!(
                links.allow(&link, vip.parse().unwrap()),
                expected,
                "{links:?} {vip}"
            );
        }
    }
}
