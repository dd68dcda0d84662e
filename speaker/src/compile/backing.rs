//! Where the endpoints of a Service are.

use std::collections::BTreeSet;

use config::address::IpFamily;
use config::endpoint::Endpoint;
use config::name::NodeName;
use config::service::Service;
use config::snapshot::Snapshot;

/// Where the endpoints of one family are that traffic is sent to.
///
/// Those that are ready; if there are none, those that still serve while they end (KEP-1669), as proxies do it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Backing {
    /// The nodes that run endpoints.
    pub(super) nodes: BTreeSet<NodeName>,
    /// Whether there are endpoints that are on no node.
    pub(super) elsewhere: bool,
}

impl Backing {
    pub(super) fn of(snapshot: &Snapshot, service: &Service, family: IpFamily) -> Self {
        let endpoints: Vec<_> = snapshot
            .slices(&service.key)
            .filter(|slice| slice.family == family)
            .flat_map(|slice| &slice.endpoints)
            .collect();
        let of = |serves: fn(&Endpoint) -> bool| {
            let mut backing = Self::default();
            for endpoint in endpoints.iter().filter(|endpoint| serves(endpoint)) {
                match &endpoint.node {
                    Some(node) => {
                        backing.nodes.insert(node.clone());
                    }
                    None => backing.elsewhere = true,
                }
            }
            backing
        };
        let ready = of(|endpoint| endpoint.ready);
        if ready == Self::default() {
            of(|endpoint| endpoint.serving && endpoint.terminating)
        } else {
            ready
        }
    }
}
