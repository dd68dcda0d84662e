//! Many addresses without a long list: chains of chains, by prefix.
//!
//! A packet is compared with the prefixes of 4096 addresses each, then with those of 16 addresses in its one, then with the
//! rules of those 16. A change touches the chain of its 16 addresses and no other.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Ruleset, Table, jump, names};
use crate::rule::Rule;

/// Which address of packets a tree is about.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum End {
    Source,
    Destination,
}

/// Where a tree stands.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Tree {
    pub(crate) table: Table,
    /// What the names of its chains begin with.
    pub(crate) name: &'static str,
    /// The chain at its root.
    pub(crate) root: &'static str,
    pub(crate) end: End,
}

impl Tree {
    /// The trees of frontends.
    pub(crate) const DESTINATIONS: [Self; 4] = [SERVICES, OUTPUT, REFUSED, OUTSIDE];
    /// All trees.
    pub(crate) const ALL: [Self; 5] = [SERVICES, OUTPUT, REFUSED, OUTSIDE, ANSWERS];

    /// The chain of a network.
    pub(crate) fn chain(self, network: IpNet) -> Arc<str> {
        names::network(self.name, network)
    }

    /// The rule that leads to the chain of a network.
    pub(crate) fn jump(self, network: IpNet) -> Rule {
        let rule = jump(&self.chain(network));
        match self.end {
            End::Source => rule.source(network),
            End::Destination => rule.destination(network),
        }
    }
}

/// The network of an address at the leaves.
pub(crate) fn leaf_network(address: IpAddr) -> IpNet {
    prefix(address, LEAF_BITS)
}

/// The network of an address between root and leaves.
pub(crate) fn branch_network(address: IpAddr) -> IpNet {
    prefix(address, BRANCH_BITS)
}

/// The first address of the network at the leaves.
pub(crate) fn leaf(address: IpAddr) -> IpAddr {
    leaf_network(address).network()
}

/// The first address of the network between root and leaves.
pub(crate) fn branch(address: IpAddr) -> IpAddr {
    branch_network(address).network()
}

/// The first and the last address of a network.
pub(crate) fn span(network: IpNet) -> (IpAddr, IpAddr) {
    (network.network(), network.broadcast())
}

impl Ruleset {
    /// Appends rules to a chain, which is made if it is not there.
    pub(crate) fn append(
        &mut self,
        table: Table,
        chain: &Arc<str>,
        rules: impl IntoIterator<Item = Rule>,
    ) {
        let chain = self.chains.entry((table, Arc::clone(chain))).or_default();
        chain.extend(rules);
    }
}

/// The network of an address in which `host_bits` are free.
fn prefix(address: IpAddr, host_bits: u8) -> IpNet {
    let whole = IpNet::from(address);
    let length = whole.prefix_len().saturating_sub(host_bits);
    IpNet::new(address, length).map_or(whole, |network| network.trunc())
}

/// From packets to Services.
pub(crate) const SERVICES: Tree = Tree {
    table: Table::Nat,
    name: "D",
    root: names::SERVICES,
    end: End::Destination,
};
/// The same for packets of the node itself, where that is something else.
pub(crate) const OUTPUT: Tree = Tree {
    table: Table::Nat,
    name: "O",
    root: names::OUTPUT,
    end: End::Destination,
};
/// What `nat` left alone.
pub(crate) const REFUSED: Tree = Tree {
    table: Table::Filter,
    name: "D",
    root: names::SERVICES,
    end: End::Destination,
};
/// The same for packets from outside of the node, where that is something else.
pub(crate) const OUTSIDE: Tree = Tree {
    table: Table::Filter,
    name: "X",
    root: names::OUTSIDE,
    end: End::Destination,
};
/// Answers outside of their connections.
pub(crate) const ANSWERS: Tree = Tree {
    table: Table::Filter,
    name: "S",
    root: names::ANSWERS,
    end: End::Source,
};
/// Free bits in the networks between root and leaves, and at the leaves.
const BRANCH_BITS: u8 = 12;
const LEAF_BITS: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_share_the_chains_of_their_prefixes() {
        let names = |address: &str| {
            let address: IpAddr = address.parse().unwrap();
            let networks = [branch_network(address), leaf_network(address)];
            networks.map(|network| SERVICES.chain(network).to_string())
        };
        for (address, branch, leaf) in [
            ("10.96.0.1", "10.96.0.0-20", "10.96.0.0-28"),
            ("10.96.0.15", "10.96.0.0-20", "10.96.0.0-28"),
            ("10.96.0.16", "10.96.0.0-20", "10.96.0.16-28"),
            ("10.96.16.0", "10.96.16.0-20", "10.96.16.0-28"),
        ] {
            let expected = [branch, leaf].map(|network| format!("FOGHORN-D-{network}"));
            assert_eq!(names(address), expected, "{address}");
        }
        let (first, last) = span(leaf_network("2001:db8::17".parse().unwrap()));
        assert_eq!(
            [first, last].map(|address| address.to_string()),
            ["2001:db8::10", "2001:db8::1f"]
        );
    }
}
