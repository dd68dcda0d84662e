//! Which interfaces matter: sockets are opened on no others, and heartbeats sent on no others.

use std::collections::BTreeSet;
use std::net::IpAddr;

use config::address::AddressRange;
use config::name::NodeName;
use config::snapshot::Snapshot;
use ipnet::IpNet;
use speaker_announcer::Link;

/// Which interfaces matter.
///
/// Those with an address in the subnet of a pool, so that sockets are ready before the first Service comes; those that
/// an advertisement names; and the one with the node's own address, over which its silence is noticed even where it
/// announces nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Scope {
    ranges: Vec<AddressRange>,
    addresses: BTreeSet<IpAddr>,
    names: BTreeSet<String>,
    own: BTreeSet<IpAddr>,
}

impl Scope {
    /// What the snapshot says, for one node.
    pub(super) fn of(
        snapshot: &Snapshot,
        node: &NodeName,
        vips: impl Iterator<Item = IpAddr>,
    ) -> Self {
        let pools = snapshot.pools().values();
        let ranges: Vec<_> = pools.flat_map(|pool| &pool.ranges).copied().collect();
        let in_a_range = |vip: &IpAddr| ranges.iter().any(|range| range.contains(*vip));
        let advertisements = snapshot.advertisements().values();
        Self {
            addresses: vips.filter(|vip| !in_a_range(vip)).collect(),
            names: advertisements
                .flat_map(|advertisement| &advertisement.interfaces)
                .cloned()
                .collect(),
            own: snapshot
                .node(node)
                .into_iter()
                .flat_map(|node| &node.internal_ips)
                .copied()
                .collect(),
            ranges,
        }
    }

    /// A scope of these addresses only.
    pub fn of_addresses(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            addresses: addresses.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Whether sockets are needed on an interface.
    pub fn concerns(&self, link: &Link) -> bool {
        self.names.contains(&link.name) || link.addresses.iter().any(|subnet| self.reaches(subnet))
    }

    fn reaches(&self, subnet: &IpNet) -> bool {
        if self.own.contains(&subnet.addr())
            || self.addresses.iter().any(|vip| subnet.contains(vip))
        {
            return true;
        }
        // An address alone, perhaps even out of the pool, makes no LAN.
        let is_a_network = subnet.prefix_len() < subnet.max_prefix_len();
        is_a_network
            && self.ranges.iter().any(|range| {
                range.first() <= subnet.broadcast()
                    && subnet.network() <= range.last()
                    && range.first().is_ipv4() == subnet.network().is_ipv4()
            })
    }
}
