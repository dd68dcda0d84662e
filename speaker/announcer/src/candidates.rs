//! Which nodes may own a VIP, in which order, and why the others may not.
//!
//! A pure function of the snapshot: every speaker computes the same order from the same snapshot, and nothing about
//! the local node enters it.

use std::cmp::Reverse;
use std::fmt;

use config::name::{NodeName, ServiceKey};
use sha2::{Digest, Sha256};

/// What keeps VIPs on one node: the Service, so that both its families stay together, or the sharing key of several.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum PlacementKey {
    /// The VIPs of one Service.
    Service(ServiceKey),
    /// The VIPs that Services with this sharing key have together.
    Sharing(String),
}

impl fmt::Display for PlacementKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(key) => write!(formatter, "service {key}"),
            Self::Sharing(key) => write!(formatter, "sharing key {key}"),
        }
    }
}

/// Why a node may not own a VIP now.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, thiserror::Error)]
pub enum Ineligible {
    #[error("no advertisement selects this node")]
    NotSelected,
    #[error("the node is labelled node.kubernetes.io/exclude-from-external-load-balancers")]
    Excluded,
    #[error("it is the address of a node, which answers for it itself")]
    NodeAddress,
    #[error("no endpoint of the Service is ready")]
    NoReadyEndpoint,
    #[error("no endpoint on this node is ready, and externalTrafficPolicy is Local")]
    NoReadyLocalEndpoint,
    #[error("the node is cordoned")]
    Cordoned,
    #[error(
        "no interface of the node is in the subnet of the address, or has a name that the advertisement gives"
    )]
    NoLink,
    #[error("every interface that could announce the address is down or without carrier")]
    LinkDown,
    #[error("the service proxy of the node is not healthy")]
    ProxyUnhealthy,
    #[error("the service proxy of the node does not forward the address yet")]
    NotProgrammed,
    #[error("the node is being drained")]
    Draining,
    #[error("the speaker has just started and listens")]
    Starting,
    #[error("the speaker is shutting down")]
    ShuttingDown,
    #[error("another machine on the link has the address")]
    Conflict,
    #[error("the node hears no majority of the speakers, and the partition policy is Strict")]
    NoMajority,
    #[error("its speaker does not say that it stands")]
    NotStanding,
    #[error("its speaker is not heard")]
    Silent,
}

impl Ineligible {
    /// The reason as a label of a metric or the reason of a condition.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotSelected => "NotSelected",
            Self::Excluded => "Excluded",
            Self::NodeAddress => "NodeAddress",
            Self::NoReadyEndpoint => "NoReadyEndpoint",
            Self::NoReadyLocalEndpoint => "NoReadyLocalEndpoint",
            Self::Cordoned => "Cordoned",
            Self::NoLink => "NoLink",
            Self::LinkDown => "LinkDown",
            Self::ProxyUnhealthy => "ProxyUnhealthy",
            Self::NotProgrammed => "NotProgrammed",
            Self::Draining => "Draining",
            Self::Starting => "Starting",
            Self::ShuttingDown => "ShuttingDown",
            Self::Conflict => "Conflict",
            Self::NoMajority => "NoMajority",
            Self::NotStanding => "NotStanding",
            Self::Silent => "Silent",
        }
    }
}

/// A node in the order for a VIP, and whether the configuration lets it own the VIP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// The node.
    pub node: NodeName,
    /// Whether it may, as far as the snapshot says.
    pub eligibility: Result<(), Ineligible>,
}

/// A node before it is ranked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Contender {
    /// The node.
    pub node: NodeName,
    /// The sum of the weights of the preferences that it meets; more is better.
    pub preference: u32,
    /// Whether it may own the VIP, as far as the snapshot says.
    pub eligibility: Result<(), Ineligible>,
}

/// Orders nodes for the VIPs of a placement key: eligible before others, then by preference, then by rendezvous hash.
///
/// The hash gives each key an order of its own, so that VIPs spread over the nodes, and a node that comes or goes
/// changes the first candidate of its own share only. Equal sets give equal orders, whatever order they come in.
pub fn rank(
    placement: &PlacementKey,
    contenders: impl IntoIterator<Item = Contender>,
) -> Vec<Candidate> {
    let mut contenders: Vec<_> = contenders
        .into_iter()
        .map(|contender| (rendezvous(placement, &contender.node), contender))
        .collect();
    contenders.sort_by(|(hash, contender), (other_hash, other)| {
        let key = |hash: &u64, contender: &Contender| {
            (
                contender.eligibility.is_err(),
                Reverse(contender.preference),
                Reverse(*hash),
            )
        };
        key(hash, contender)
            .cmp(&key(other_hash, other))
            .then_with(|| contender.node.cmp(&other.node))
    });
    contenders
        .into_iter()
        .map(|(_, contender)| Candidate {
            node: contender.node,
            eligibility: contender.eligibility,
        })
        .collect()
}

/// The first eight octets, big endian, of the SHA-256 of `node NUL kind NUL key`, where `kind` is `service` or
/// `sharing`, and the key of a Service is `namespace/name`. Part of the protocol: it must never change.
pub fn rendezvous(placement: &PlacementKey, node: &NodeName) -> u64 {
    let (kind, key) = match placement {
        PlacementKey::Service(key) => ("service", key.to_string()),
        PlacementKey::Sharing(key) => ("sharing", key.clone()),
    };
    first_octets(&Sha256::digest(format!("{node}\0{kind}\0{key}")))
}

pub(crate) fn first_octets(digest: &[u8]) -> u64 {
    digest
        .iter()
        .take(8)
        .fold(0, |bits, &octet| (bits << 8) | u64::from(octet))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn service(name: &str) -> PlacementKey {
        PlacementKey::Service(ServiceKey::new("default", name))
    }

    fn contender(node: &str, preference: u32, eligibility: Result<(), Ineligible>) -> Contender {
        Contender {
            node: node.into(),
            preference,
            eligibility,
        }
    }

    fn first(placement: &PlacementKey, nodes: &[&str]) -> String {
        let contenders = nodes.iter().map(|node| contender(node, 0, Ok(())));
        rank(placement, contenders)
            .first()
            .unwrap()
            .node
            .to_string()
    }

    /// `printf 'a\0service\0default/web' | sha256sum | cut -c -16`
    #[test]
    fn the_hash_is_the_documented_one() {
        assert_eq!(
            rendezvous(&service("web"), &"a".into()),
            0x5c38_71a2_17bc_f0e8
        );
        assert_eq!(
            rendezvous(&PlacementKey::Sharing("web".to_owned()), &"a".into()),
            0xd347_2a71_3433_84fd
        );
    }

    #[test]
    fn eligible_nodes_come_first_then_preferred_ones() {
        let ranked = rank(
            &service("web"),
            [
                contender("excluded", 100, Err(Ineligible::Excluded)),
                contender("plain", 0, Ok(())),
                contender("liked", 10, Ok(())),
                contender("loved", 11, Ok(())),
            ],
        );
        let names: Vec<_> = ranked
            .iter()
            .map(|candidate| candidate.node.as_str())
            .collect();
        assert_eq!(names, ["loved", "liked", "plain", "excluded"]);
        assert_eq!(ranked[3].eligibility, Err(Ineligible::Excluded));
    }

    #[test]
    fn vips_spread_over_the_nodes() {
        let mut count: BTreeMap<String, u32> = BTreeMap::new();
        for number in 0..300 {
            *count
                .entry(first(&service(&format!("s{number}")), &["a", "b", "c"]))
                .or_default() += 1;
        }
        assert!(
            count.values().all(|&share| (70..=130).contains(&share)),
            "{count:?}"
        );
    }

    proptest! {
        #[test]
        fn a_node_that_goes_moves_only_its_own_share(name in "[a-z]{1,8}") {
            let key = service(&name);
            let with = first(&key, &["a", "b", "c", "d"]);
            let without = first(&key, &["a", "b", "c"]);
            prop_assert!(with == without || with == "d");
        }

        #[test]
        fn the_order_does_not_depend_on_the_order_of_the_input(name in "[a-z]{1,8}", preferences in [0..3_u32, 0..3, 0..3]) {
            let contenders: Vec<_> = ["a", "b", "c"]
                .iter()
                .zip(preferences)
                .map(|(node, preference)| contender(node, preference, Ok(())))
                .collect();
            let backwards = contenders.iter().rev().cloned();
            prop_assert_eq!(rank(&service(&name), contenders.clone()), rank(&service(&name), backwards));
        }
    }
}
