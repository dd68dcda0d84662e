//! Sentences that several answers have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::service::{Service, TrafficPolicy};
use controller_allocator::Obstacle;
use serde::Serialize;

use crate::cluster::Cluster;

/// The endpoints of a Service on one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeEndpoints {
    /// The node; empty if the endpoints name none.
    pub node: String,
    /// Endpoints that are ready.
    pub ready: usize,
    /// Endpoints that are not.
    pub unready: usize,
}

/// The endpoints of a Service by node; an endpoint counts once however many ports and slices it has.
pub fn endpoints(cluster: &Cluster, service: &Service) -> Vec<NodeEndpoints> {
    let mut nodes: BTreeMap<String, BTreeMap<IpAddr, bool>> = BTreeMap::new();
    for slice in cluster.snapshot.slices(&service.key) {
        // A Pod has an endpoint in the slices of each family: those of the first one are counted.
        if service
            .families
            .first()
            .is_some_and(|family| *family != slice.family)
        {
            continue;
        }
        for endpoint in &slice.endpoints {
            let node = endpoint
                .node
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            let ready = nodes
                .entry(node)
                .or_default()
                .entry(endpoint.address)
                .or_default();
            *ready |= endpoint.ready;
        }
    }
    let count = |(node, endpoints): (String, BTreeMap<IpAddr, bool>)| {
        let ready = endpoints.values().filter(|ready| **ready).count();
        NodeEndpoints {
            node,
            ready,
            unready: endpoints.len() - ready,
        }
    };
    nodes.into_iter().map(count).collect()
}

/// Which advertisements announce the addresses of a Service that come from a pool.
pub fn advertisements(cluster: &Cluster, service: &Service, address: IpAddr) -> Advertised {
    let pools: Vec<_> = cluster
        .snapshot
        .pools()
        .values()
        .filter(|pool| pool.contains(address))
        .collect();
    let about: Vec<_> = cluster
        .snapshot
        .advertisements()
        .values()
        .filter(|advertisement| pools.iter().any(|pool| advertisement.selects_pool(pool)))
        .collect();
    if about.is_empty() {
        return Advertised::Everywhere;
    }
    let selecting: Vec<_> = about
        .iter()
        .filter(|advertisement| advertisement.selects_service(&service.labels))
        .collect();
    if selecting.is_empty() {
        let names = about
            .iter()
            .map(|advertisement| advertisement.name.to_string());
        return Advertised::Nowhere(names.collect());
    }
    let nodes = cluster.snapshot.nodes().iter().filter(|(_, node)| {
        let mut selecting = selecting.iter();
        selecting.any(|advertisement| advertisement.selects_node(&node.labels))
    });
    Advertised::By {
        names: selecting
            .iter()
            .map(|found| found.name.to_string())
            .collect(),
        nodes: nodes.map(|(name, _)| name.to_string()).collect(),
    }
}

/// Where an address may be announced, by advertisements.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Advertised {
    /// No advertisement is about its pool: every node may.
    Everywhere,
    /// Advertisements are about its pool, none of them selects the Service.
    Nowhere(Vec<String>),
    /// These advertisements select it, and these nodes.
    By {
        /// Names of the advertisements.
        names: Vec<String>,
        /// Names of the nodes.
        nodes: BTreeSet<String>,
    },
}

impl Advertised {
    /// Why nobody may announce the address, and what to do; none if somebody may.
    pub fn obstacle(&self) -> Option<(String, &'static str)> {
        match self {
            Self::Everywhere => None,
            Self::Nowhere(names) => Some((
                format!(
                    "no advertisement selects the Service: {} of its pool {} other labels",
                    names.join(", "),
                    if names.len() == 1 { "wants" } else { "want" }
                ),
                "change the advertisement's serviceSelectors, or the labels of the Service",
            )),
            Self::By { names, nodes } if nodes.is_empty() => Some((
                format!("the advertisement {} selects no node", names.join(", ")),
                "change the advertisement's nodeSelectors, or label a node",
            )),
            Self::By { .. } => None,
        }
    }
}

/// An obstacle in a sentence that has named the address already.
pub fn about(address: IpAddr, obstacle: &Obstacle) -> String {
    let text = obstacle.to_string();
    let rest = text.strip_prefix(&format!("{address} "));
    rest.map_or_else(|| text.clone(), |rest| format!("it {rest}"))
}

/// Names of things as one lists them: `a, b and c`.
pub fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

/// What `externalTrafficPolicy` means for who may announce.
pub fn is_local(service: &Service) -> bool {
    service.external_policy == TrafficPolicy::Local
}
