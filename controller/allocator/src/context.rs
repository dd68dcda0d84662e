//! What the addresses of all Services depend on beside the Services.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use config::name::{NodeName, PoolName, ServiceKey};
use config::pool::Pool;
use config::selector::Labels;
use config::snapshot::Snapshot;

/// Pools, namespaces, and the addresses that others have.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Context {
    /// Pools, by name.
    pub pools: BTreeMap<PoolName, Arc<Pool>>,
    /// Labels of the namespaces, by name.
    pub namespaces: BTreeMap<Arc<str>, Arc<Labels>>,
    /// The nodes' own addresses, which no Service gets.
    pub nodes: BTreeMap<IpAddr, NodeName>,
    /// Addresses in our pools that Services of other classes have, as their statuses say.
    pub others: BTreeMap<IpAddr, ServiceKey>,
    /// Addresses that machines on the LAN have which are none of ours, as speakers say.
    pub strangers: BTreeMap<IpAddr, Stranger>,
}

/// A machine that has an address of a pool although nobody gave it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stranger {
    /// Its hardware address.
    pub mac: String,
    /// The node whose speaker heard it.
    pub heard_by: String,
}

impl Context {
    /// The context that a snapshot gives.
    pub fn of(snapshot: &Snapshot) -> Self {
        let nodes = snapshot.nodes().iter().rev().flat_map(|(name, node)| {
            let addresses = node.internal_ips.iter().chain(&node.external_ips);
            addresses.map(|&address| (address, name.clone()))
        });
        Self {
            pools: snapshot.pools().clone(),
            namespaces: snapshot.namespaces().clone(),
            nodes: nodes.collect(),
            others: BTreeMap::new(),
            strangers: BTreeMap::new(),
        }
    }

    /// The same beside Services of other classes with their addresses; those that are in no pool do not matter.
    pub fn beside<'a, A: IntoIterator<Item = IpAddr>>(
        mut self,
        others: impl IntoIterator<Item = (&'a ServiceKey, A)>,
    ) -> Self {
        for (service, addresses) in others {
            for address in addresses {
                if self.pools.values().any(|pool| pool.contains(address)) {
                    let first = self.others.entry(address);
                    let first = first.or_insert_with(|| service.clone());
                    if service < first {
                        first.clone_from(service);
                    }
                }
            }
        }
        self
    }
}
