//! Many addresses without a long list: chains of chains, by prefix.
//!
//! A packet is compared with the prefixes of 4096 addresses each, then with those of 16 addresses in its one, then with the
//! rules of those 16. A change touches the chain of its 16 addresses and no other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Ruleset, Table, jump, names};
use crate::rule::Rule;

/// Which address of packets a tree is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    Source,
    Destination,
}

/// Where a tree stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tree {
    pub(crate) table: Table,
    /// What the names of its chains begin with.
    pub(crate) name: &'static str,
    /// The chain at its root.
    pub(crate) root: &'static str,
    pub(crate) end: End,
}

impl Tree {
    /// Adds the chains of the tree, and rules that lead to them to the end of its root.
    pub(crate) fn grow(self, leaves: BTreeMap<IpAddr, Vec<Rule>>, rules: &mut Ruleset) {
        let mut latest: [Option<IpNet>; 2] = [None; 2];
        for (address, leaf) in leaves {
            let mut parent = Arc::from(self.root);
            for (level, latest) in LEVELS.into_iter().zip(&mut latest) {
                let network = prefix(address, level);
                let chain = names::network(self.name, network);
                if latest.replace(network) != Some(network) {
                    let rule = jump(&chain);
                    let rule = match self.end {
                        End::Source => rule.source(network),
                        End::Destination => rule.destination(network),
                    };
                    rules.append(self.table, &parent, [rule]);
                }
                parent = chain;
            }
            rules.append(self.table, &parent, leaf);
        }
    }
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

/// Free bits at each level.
const LEVELS: [u8; 2] = [12, 4];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::Target;

    #[test]
    fn addresses_share_the_chains_of_their_prefixes() {
        let tree = Tree {
            table: Table::Nat,
            name: "D",
            root: "FOGHORN-SERVICES",
            end: End::Destination,
        };
        let leaf = |address: &str| {
            let address: IpAddr = address.parse().unwrap();
            (
                address,
                vec![Rule::to(Target::Drop).destination(address.into())],
            )
        };
        let addresses = ["10.96.0.1", "10.96.0.15", "10.96.0.16", "10.96.16.0"];
        let mut rules = Ruleset::default();
        tree.grow(addresses.map(leaf).into(), &mut rules);
        let sizes: Vec<_> = rules
            .chains
            .iter()
            .map(|((_, name), rules)| (&**name, rules.len()))
            .collect();
        assert_eq!(
            sizes,
            [
                ("FOGHORN-D-10.96.0.0-20", 2),
                ("FOGHORN-D-10.96.0.0-28", 2),
                ("FOGHORN-D-10.96.0.16-28", 1),
                ("FOGHORN-D-10.96.16.0-20", 1),
                ("FOGHORN-D-10.96.16.0-28", 1),
                ("FOGHORN-SERVICES", 2),
            ]
        );
    }
}
