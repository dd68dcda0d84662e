//! From frontends to elements.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use config::address::IpFamily;
use ipnet::IpNet;
use proxy_table::{
    Endpoint, EndpointSet, Frontend, FrontendKey, FrontendKind, Masquerade, Outcome, Place,
    UndefinedPort,
};

use crate::program::Forwarder;
use crate::program::item::{
    Class, EndpointName, Item, Key, MOST_ENDPOINTS, Masqueraded, Side, Slot, Value,
};

/// All elements that belong to one frontend reached at `key`, each once.
pub(crate) fn frontend_elements(
    key: Key,
    frontend: &Frontend,
    forwarder: &Forwarder,
    mut each: impl FnMut(Item, Value),
) {
    let left = match forwarder {
        Forwarder::Rules => None,
        Forwarder::Ipvs { .. } => left_to_ipvs(frontend).map(|(flows, _)| flows),
    };
    let keeps = frontend.affinity_seconds;
    let names = match (keeps, left) {
        (None, _) | (_, Some(LeftFlows::All)) => BTreeMap::new(),
        _ => names(frontend),
    };
    let mut outcome = |side, outcome: &Outcome| {
        let class = match outcome {
            Outcome::Reject => Class::Reject,
            Outcome::Drop => Class::Drop,
            Outcome::Forward(_) if left.is_some_and(|left| left.are_of(side)) => Class::Leave,
            Outcome::Forward(endpoints) => {
                for (slot, endpoint) in slots(side, used(endpoints)) {
                    match names.get(&endpoint) {
                        None => each(Item::Endpoint(key, slot), Value::Endpoint(endpoint)),
                        Some(name) => each(Item::AffinitySlot(key, slot), Value::Name(*name)),
                    }
                }
                Class::pick(endpoints.len(), keeps)
            }
        };
        each(Item::Frontend(side, key), Value::Class(class));
    };
    outcome(Side::All, &frontend.inside);
    if frontend.outside != frontend.inside {
        outcome(Side::Outside, &frontend.outside);
    }
    for (endpoint, name) in names {
        each(Item::AffinityEndpoint(key, name), Value::Endpoint(endpoint));
    }
    if let Some(masqueraded) = masqueraded(frontend, forwarder) {
        each(Item::Masquerade(masqueraded, key), Value::Member);
    }
    if let Some(sources) = &frontend.sources {
        each(Item::Guarded(key), Value::Member);
        for network in disjoint(sources.iter(), IpFamily::of(key.address)) {
            each(Item::Source(key, network), Value::Member);
        }
    }
}

/// Which flows to a frontend IPVS serves. One server of it has one list of endpoints: where Pods and outsiders have different
/// ones (`externalTrafficPolicy: Local`), the rules serve those from inside.
#[expect(missing_docs, reason = "the names say it")]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LeftFlows {
    All,
    Inside,
    Outside,
}

impl LeftFlows {
    fn are_of(self, side: Side) -> bool {
        match self {
            Self::All => true,
            Self::Inside => side == Side::All,
            Self::Outside => side == Side::Outside,
        }
    }
}

/// Which flows to a frontend the rules leave to IPVS, and where it sends them; none if it sends none.
pub fn left_to_ipvs(frontend: &Frontend) -> Option<(LeftFlows, &EndpointSet)> {
    match (&frontend.inside, &frontend.outside) {
        (Outcome::Forward(set), outside) if frontend.inside == *outside => {
            Some((LeftFlows::All, set))
        }
        (_, Outcome::Forward(set)) => Some((LeftFlows::Outside, set)),
        (Outcome::Forward(set), _) => Some((LeftFlows::Inside, set)),
        _ => None,
    }
}

/// The address that the node has only for a frontend reached at `key`, where IPVS forwards and these are its own addresses;
/// none where it has no address of the family but those of the loopback interface, which may have it where no other has.
pub fn bound(key: Key, frontend: &Frontend, own: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let family = IpFamily::of(key.address);
    let mut beyond = own.iter().filter(|address| !address.is_loopback());
    let has_family = beyond.any(|address| IpFamily::of(*address) == family);
    let elsewhere = frontend.kind != FrontendKind::NodePort && !own.contains(&key.address);
    (has_family && elsewhere).then_some(key.address)
}

impl Forwarder {
    /// The address that the node has only for a frontend reached at `key`, if it has such addresses.
    pub(crate) fn bound(&self, key: Key, frontend: &Frontend) -> Option<IpAddr> {
        match self {
            Self::Rules => None,
            Self::Ipvs { own } => bound(key, frontend, own),
        }
    }
}

/// The endpoints that a frontend may send flows to: each may meet itself (hairpin).
pub(crate) fn hairpins(frontend: &Frontend) -> impl Iterator<Item = Endpoint> {
    let inside = used(frontend.inside.endpoints());
    let outside = match frontend.outside == frontend.inside {
        true => &[],
        false => used(frontend.outside.endpoints()),
    };
    let further = outside
        .iter()
        .filter(|endpoint| inside.binary_search(endpoint).is_err());
    inside.iter().chain(further).copied()
}

/// Where a frontend is reached, given the addresses that NodePorts are offered on.
pub(crate) fn places<'a>(
    key: &FrontendKey,
    node_addresses: impl Iterator<Item = &'a IpAddr>,
) -> Vec<Key> {
    let at = |address| Key {
        address,
        protocol: key.protocol,
        port: key.port,
    };
    match key.place {
        Place::Address(address) => vec![at(address)],
        Place::Node(family) => node_addresses
            .filter(|address| IpFamily::of(**address) == family)
            .map(|address| at(*address))
            .collect(),
    }
}

/// The element that says what becomes of undefined ports of a ClusterIP.
pub(crate) fn cluster_ip(address: IpAddr, undefined: UndefinedPort) -> Item {
    match undefined {
        UndefinedPort::Reject => Item::ClusterIp(address),
        UndefinedPort::Leave => Item::LeftAlone(address),
    }
}

/// The same addresses in as few prefixes of this family as can be; no two overlap.
pub(crate) fn disjoint<'a>(
    networks: impl Iterator<Item = &'a IpNet>,
    family: IpFamily,
) -> Vec<IpNet> {
    let of_family = networks.filter(|network| IpFamily::of(network.addr()) == family);
    IpNet::aggregate(&of_family.map(IpNet::trunc).collect())
}

fn masqueraded(frontend: &Frontend, forwarder: &Forwarder) -> Option<Masqueraded> {
    let forwards = [&frontend.inside, &frontend.outside]
        .iter()
        .any(|outcome| !outcome.endpoints().is_empty());
    if !forwards {
        return None;
    }
    match frontend.masquerade {
        Masquerade::Always => Some(Masqueraded::Always),
        Masquerade::UnlessPod => Some(Masqueraded::UnlessPod),
        Masquerade::OnlyNode => Some(Masqueraded::OnlyNode),
        Masquerade::OnlyHairpin => match forwarder {
            Forwarder::Rules => None,
            Forwarder::Ipvs { .. } => Some(Masqueraded::OnlyHairpin),
        },
    }
}

/// Those of the endpoints that there are slots for.
fn used(endpoints: &[Endpoint]) -> &[Endpoint] {
    let most = usize::try_from(MOST_ENDPOINTS).unwrap_or(usize::MAX);
    endpoints.get(..most).unwrap_or(endpoints)
}

fn slots(side: Side, endpoints: &[Endpoint]) -> impl Iterator<Item = (Slot, Endpoint)> {
    (0..)
        .zip(endpoints)
        .map(move |(index, endpoint)| (Slot { side, index }, *endpoint))
}

/// Names for all endpoints of a frontend: a hash of each, or the next free number where two have the same.
fn names(frontend: &Frontend) -> BTreeMap<Endpoint, EndpointName> {
    let mut names: BTreeMap<_, _> = hairpins(frontend)
        .map(|endpoint| (endpoint, EndpointName(hash(&endpoint))))
        .collect();
    let mut taken = HashSet::with_capacity(names.len());
    for EndpointName(name) in names.values_mut() {
        while !taken.insert(*name) {
            *name = *name % (u32::MAX - 1) + 1;
        }
    }
    names
}

/// A hash that is the same in every version of ours: FNV-1a. Neither 0 nor the greatest number, which `nft` has words for.
fn hash(endpoint: &Endpoint) -> u32 {
    let fnv = |octets: &[u8], start: u32| {
        octets.iter().fold(start, |hash, octet| {
            (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193)
        })
    };
    let start = fnv(&endpoint.port.get().to_be_bytes(), 0x811c_9dc5);
    let hash = match endpoint.address {
        IpAddr::V4(address) => fnv(&address.octets(), start),
        IpAddr::V6(address) => fnv(&address.octets(), start),
    };
    hash % (u32::MAX - 1) + 1
}
