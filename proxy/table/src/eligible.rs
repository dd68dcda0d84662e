//! Which endpoints of a Service's port may be chosen.

use std::collections::BTreeSet;
use std::sync::Arc;

use config::address::IpFamily;
use config::endpoint::{Endpoint as Reported, EndpointSlice};
use config::name::NodeName;
use config::service::{Service, ServicePort};

use crate::context::NodeContext;
use crate::frontend::{Endpoint, EndpointSet, FrontendKey, Place};

/// The endpoints that a port may use, in one family.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Eligible {
    /// Those for `Cluster` policies.
    pub(crate) cluster: Option<EndpointSet>,
    /// Those for `Local` policies.
    pub(crate) local: Option<EndpointSet>,
}

impl Eligible {
    /// Chooses among the endpoints of all slices of the Service.
    pub(crate) fn of(
        port: &ServicePort,
        family: IpFamily,
        slices: &[Arc<EndpointSlice>],
        context: &NodeContext,
        suspects: &BTreeSet<NodeName>,
    ) -> Self {
        let candidates = candidates(port, family, slices);
        let cluster = spare_suspects(usable(&candidates, |_| true), suspects);
        let cluster = narrow_to_topology(cluster, context);
        let local = usable(&candidates, |reported| {
            reported.node.as_ref() == Some(&context.name)
        });
        let cluster = set(&cluster);
        let local = set(&local);
        // The same list is kept once: most often where every endpoint is on this node.
        let local = match (&cluster, local) {
            (Some(cluster), Some(local)) if *cluster == local => Some(cluster.clone()),
            (_, local) => local,
        };
        Self { cluster, local }
    }
}

/// The endpoints that connections of a frontend may stay on: all that serve, whoever is chosen for new ones.
///
/// Those on nodes that fell silent are no place to stay.
pub fn serving_endpoints<'a>(
    service: &Service,
    slices: impl IntoIterator<Item = &'a Arc<EndpointSlice>>,
    suspects: &BTreeSet<NodeName>,
    frontend: FrontendKey,
) -> BTreeSet<Endpoint> {
    let slices: Vec<Arc<EndpointSlice>> = slices.into_iter().cloned().collect();
    let ports = service.ports.iter().filter(|port| {
        let number = match frontend.place {
            Place::Address(_) => Some(port.port),
            Place::Node(_) => port.node_port,
        };
        port.protocol == frontend.protocol && number == Some(frontend.port)
    });
    let candidates = ports.flat_map(|port| candidates(port, frontend.family(), &slices));
    let trusted = |reported: &Reported| {
        let node = reported.node.as_ref();
        node.is_none_or(|node| !suspects.contains(node))
    };
    candidates
        .filter(|(_, reported)| (reported.ready || reported.serving) && trusted(reported))
        .map(|(endpoint, _)| endpoint)
        .collect()
}

type Candidate<'a> = (Endpoint, &'a Reported);

/// All endpoints with a port of this name and protocol, the same address and port once: the most usable report of it.
fn candidates<'a>(
    port: &ServicePort,
    family: IpFamily,
    slices: &'a [Arc<EndpointSlice>],
) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::new();
    for slice in slices.iter().filter(|slice| slice.family == family) {
        let named = slice
            .ports
            .iter()
            .filter(|found| found.name == port.name && found.protocol == port.protocol);
        for found in named {
            candidates.extend(slice.endpoints.iter().map(|reported| {
                let endpoint = Endpoint {
                    address: reported.address,
                    port: found.port,
                };
                (endpoint, reported)
            }));
        }
    }
    // While an endpoint moves from one slice to another both report it, for a moment perhaps differently.
    candidates.sort_by_key(|&(endpoint, reported)| {
        let unusable = !(reported.serving && reported.terminating);
        (endpoint, !reported.ready, unusable, reported)
    });
    candidates.dedup_by_key(|(endpoint, _)| *endpoint);
    candidates
}

/// The ready ones; if there are none, those that still serve while they terminate (KEP-1669).
fn usable<'a>(
    candidates: &[Candidate<'a>],
    admit: impl Fn(&Reported) -> bool,
) -> Vec<Candidate<'a>> {
    let only = |usable: fn(&Reported) -> bool| -> Vec<Candidate<'a>> {
        let admitted = candidates.iter().filter(|(_, reported)| admit(reported));
        admitted
            .filter(|(_, reported)| usable(reported))
            .copied()
            .collect()
    };
    let ready = only(|reported| reported.ready);
    if ready.is_empty() {
        only(|reported| reported.serving && reported.terminating)
    } else {
        ready
    }
}

/// Those with a hint for this node (KEP-3015), or else for its zone (KEP-2433). A hint counts only if every ready
/// endpoint has one and somebody remains.
fn narrow_to_topology<'a>(usable: Vec<Candidate<'a>>, context: &NodeContext) -> Vec<Candidate<'a>> {
    let all = |hinted: fn(&Reported) -> bool| {
        usable
            .iter()
            .all(|(_, reported)| reported.ready && hinted(reported))
    };
    let only = |hints: &dyn Fn(&Reported) -> bool| -> Vec<Candidate<'a>> {
        let hinted = usable.iter().filter(|(_, reported)| hints(reported));
        hinted.copied().collect()
    };
    if all(|reported| !reported.hint_nodes.is_empty()) {
        let near = only(&|reported| reported.hint_nodes.contains(&context.name));
        if !near.is_empty() {
            return near;
        }
    }
    if let Some(zone) = &context.zone
        && all(|reported| !reported.hint_zones.is_empty())
    {
        let near = only(&|reported| reported.hint_zones.contains(zone));
        if !near.is_empty() {
            return near;
        }
    }
    usable
}

/// Leaves out the endpoints on nodes that fell silent, as long as others remain.
fn spare_suspects<'a>(
    usable: Vec<Candidate<'a>>,
    suspects: &BTreeSet<NodeName>,
) -> Vec<Candidate<'a>> {
    if suspects.is_empty() {
        return usable;
    }
    let trusted: Vec<Candidate<'a>> = usable
        .iter()
        .filter(|(_, reported)| {
            let node = reported.node.as_ref();
            node.is_none_or(|node| !suspects.contains(node))
        })
        .copied()
        .collect();
    if trusted.is_empty() { usable } else { trusted }
}

fn set(candidates: &[Candidate<'_>]) -> Option<EndpointSet> {
    EndpointSet::new(candidates.iter().map(|&(endpoint, _)| endpoint))
}
