//! Addresses that two objects have: pools with each other, with nodes, with Pod and Service networks.
//!
//! A conflict stops nothing. It is a condition on the pool that came later, and names both places.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;

use crate::address::AddressRange;
use crate::name::{NodeName, PoolName};
use crate::pool::{Origin, Pool};
use crate::snapshot::Snapshot;

/// A range of a pool that something else has too.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Conflict {
    /// The range, as the pool has it.
    pub range: AddressRange,
    /// Where the pool was written.
    pub origin: Origin,
    /// What has its addresses too.
    pub with: Other,
}

/// What a pool conflicts with.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Other {
    Pool {
        name: PoolName,
        range: AddressRange,
        origin: Origin,
    },
    Node {
        name: NodeName,
        address: std::net::IpAddr,
    },
    PodNetwork {
        node: NodeName,
        network: IpNet,
    },
    ServiceNetwork(IpNet),
}

impl fmt::Display for Conflict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            range,
            origin,
            with,
        } = self;
        write!(formatter, "{range} ({origin}) ")?;
        match with {
            Other::Pool {
                name,
                range,
                origin,
            } => write!(
                formatter,
                "overlaps {range} of pool {name} ({origin}): take the common addresses out of one of them"
            ),
            Other::Node { name, address } => write!(
                formatter,
                "contains {address}, which is an address of node {name}: take it out of the pool"
            ),
            Other::PodNetwork { node, network } => write!(
                formatter,
                "overlaps {network}, from which node {node} gives addresses to Pods: choose addresses of the LAN"
            ),
            Other::ServiceNetwork(network) => write!(
                formatter,
                "overlaps {network}, from which ClusterIPs come: choose addresses of the LAN"
            ),
        }
    }
}

/// The conflicts of every pool that has any.
///
/// Of two pools the later one has the conflict: the one whose origin is later (cluster, MetalLB, files), and of two of
/// the same origin the one whose name is later. Of each pair only the first common range is named.
pub fn conflicts(snapshot: &Snapshot) -> BTreeMap<PoolName, Vec<Conflict>> {
    let mut conflicts: BTreeMap<PoolName, Vec<Conflict>> = BTreeMap::new();
    let mut add = |pool: &Pool, range: AddressRange, with: Other| {
        let conflict = Conflict {
            range,
            origin: pool.origin.clone(),
            with,
        };
        conflicts
            .entry(pool.name.clone())
            .or_default()
            .push(conflict);
    };
    between_pools(snapshot, &mut add);
    with_networks(snapshot, &mut add);
    for list in conflicts.values_mut() {
        list.sort_unstable();
        list.dedup();
    }
    conflicts
}

/// Finds pairs in one pass over all ranges in order of their first address.
fn between_pools(snapshot: &Snapshot, add: &mut impl FnMut(&Pool, AddressRange, Other)) {
    let pools = snapshot.pools().values();
    let mut ranges: Vec<(AddressRange, &Pool)> = pools
        .flat_map(|pool| pool.ranges.iter().map(move |&range| (range, &**pool)))
        .collect();
    ranges.sort_unstable_by(|one, other| (one.0, &one.1.name).cmp(&(other.0, &other.1.name)));
    let mut open: Vec<(AddressRange, &Pool)> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (range, pool) in ranges {
        open.retain(|(other, _)| other.intersection(&range).is_some());
        for &(other_range, other) in open.iter().filter(|(_, other)| other.name != pool.name) {
            let one = ((class(&pool.origin), &pool.name), pool, range);
            let two = ((class(&other.origin), &other.name), other, other_range);
            let (first, later) = if one.0 < two.0 {
                (one, two)
            } else {
                (two, one)
            };
            if seen.insert((later.1.name.clone(), first.1.name.clone())) {
                let with = Other::Pool {
                    name: first.1.name.clone(),
                    range: first.2,
                    origin: first.1.origin.clone(),
                };
                add(later.1, later.2, with);
            }
        }
        open.push((range, pool));
    }
}

fn class(origin: &Origin) -> u8 {
    match origin {
        Origin::Cluster => 0,
        Origin::MetalLb(_) => 1,
        Origin::File { .. } => 2,
    }
}

fn with_networks(snapshot: &Snapshot, add: &mut impl FnMut(&Pool, AddressRange, Other)) {
    for pool in snapshot.pools().values() {
        let common = |network: IpNet| {
            let network = AddressRange::from(network);
            let mut ranges = pool.ranges.iter();
            ranges
                .find(|range| range.intersection(&network).is_some())
                .copied()
        };
        for (name, node) in snapshot.nodes() {
            for &address in node.internal_ips.iter().chain(&node.external_ips) {
                let range = pool.ranges.iter().find(|range| range.contains(address));
                if let Some(&range) = range {
                    let name = name.clone();
                    add(pool, range, Other::Node { name, address });
                }
            }
            for &network in &node.pod_cidrs {
                if let Some(range) = common(network) {
                    let node = name.clone();
                    add(pool, range, Other::PodNetwork { node, network });
                }
            }
        }
        for &network in snapshot.service_cidrs() {
            if let Some(range) = common(network) {
                add(pool, range, Other::ServiceNetwork(network));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::declaration::{Group, Object, read};
    use crate::node::Node;
    use crate::refusal::Kind;
    use crate::snapshot::{Change, Dirty};

    fn pool(name: &str, origin: Origin, addresses: &[&str]) -> Change {
        let spec = serde_json::json!({"addresses": addresses});
        let labels = crate::selector::Labels::new();
        match read(Group::Foghorn, Kind::Pool, name, labels, spec, origin).unwrap() {
            Object::Pool(pool) => Change::Pool(name.into(), Some(pool)),
            Object::Advertisement(_) => unreachable!("a pool was asked for"),
        }
    }

    #[track_caller]
    fn check(changes: Vec<Change>, expected: &[(&str, &str)]) {
        let mut snapshot = Snapshot::default();
        for change in changes {
            snapshot.apply(change, &mut Dirty::default());
        }
        let found: Vec<(String, String)> = conflicts(&snapshot)
            .into_iter()
            .flat_map(|(pool, list)| {
                list.into_iter()
                    .map(move |conflict| (pool.to_string(), conflict.to_string()))
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|&(pool, text)| (pool.to_owned(), text.to_owned()))
            .collect();
        assert_eq!(found, expected);
    }

    fn file(line: u32) -> Origin {
        Origin::File {
            path: "lan.yaml".into(),
            line,
        }
    }

    #[test]
    fn the_later_pool_has_the_conflict_and_names_both_places() {
        check(
            vec![
                pool("a", file(7), &["198.51.100.1", "192.0.2.10-192.0.2.20"]),
                pool("b", Origin::Cluster, &["192.0.2.0/28"]),
                pool("c", Origin::Cluster, &["192.0.2.21"]),
            ],
            &[(
                "a",
                "192.0.2.10-192.0.2.20 (lan.yaml:7) overlaps 192.0.2.0-192.0.2.15 of pool b (the cluster): take the common addresses out of one of them",
            )],
        );
    }

    #[test]
    fn a_wide_range_conflicts_with_everything_inside() {
        check(
            vec![
                pool("wide", file(1), &["192.0.2.0/24"]),
                pool("x", file(9), &["192.0.2.1"]),
                pool("y", file(12), &["192.0.2.250"]),
            ],
            &[
                (
                    "x",
                    "192.0.2.1 (lan.yaml:9) overlaps 192.0.2.0-192.0.2.255 of pool wide (lan.yaml:1): take the common addresses out of one of them",
                ),
                (
                    "y",
                    "192.0.2.250 (lan.yaml:12) overlaps 192.0.2.0-192.0.2.255 of pool wide (lan.yaml:1): take the common addresses out of one of them",
                ),
            ],
        );
    }

    #[test]
    fn networks_of_the_cluster_are_not_for_pools() {
        let node = Node {
            internal_ips: vec!["192.0.2.5".parse().unwrap()],
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
            ..Node::default()
        };
        let prefixes = vec!["10.96.0.0/16".parse().unwrap()];
        check(
            vec![
                Change::Node("n1".into(), Some(Arc::new(node))),
                Change::ServiceCidr("kubernetes".into(), Some(prefixes)),
                pool("a", file(1), &["192.0.2.0/28", "10.0.0.0/8"]),
                pool("b", file(9), &["192.0.2.16/28", "2001:db8::/64"]),
            ],
            &[
                (
                    "a",
                    "10.0.0.0-10.255.255.255 (lan.yaml:1) overlaps 10.244.1.0/24, from which node n1 gives addresses to Pods: choose addresses of the LAN",
                ),
                (
                    "a",
                    "10.0.0.0-10.255.255.255 (lan.yaml:1) overlaps 10.96.0.0/16, from which ClusterIPs come: choose addresses of the LAN",
                ),
                (
                    "a",
                    "192.0.2.0-192.0.2.15 (lan.yaml:1) contains 192.0.2.5, which is an address of node n1: take it out of the pool",
                ),
            ],
        );
    }
}
