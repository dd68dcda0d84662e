//! What the cluster says at one moment, and what a change of it touches.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::advertisement::L2Advertisement;
use crate::endpoint::EndpointSlice;
use crate::name::{AdvertisementName, NodeName, PoolName, ServiceKey, SliceName};
use crate::node::Node;
use crate::pool::Pool;
use crate::selector::Labels;
use crate::service::Service;

/// Everything known of the cluster and its configuration.
///
/// The values are shared, so that a copy of a part costs no copy of its content. Whoever watches applies each
/// [`Change`] and hands on what [`Snapshot::apply`] says it touched.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    services: HashMap<ServiceKey, Arc<Service>>,
    slices: HashMap<ServiceKey, BTreeMap<SliceName, Arc<EndpointSlice>>>,
    nodes: BTreeMap<NodeName, Arc<Node>>,
    namespaces: BTreeMap<Arc<str>, Arc<Labels>>,
    pools: BTreeMap<PoolName, Arc<Pool>>,
    advertisements: BTreeMap<AdvertisementName, Arc<L2Advertisement>>,
    service_cidrs: BTreeMap<Arc<str>, Vec<ipnet::IpNet>>,
}

/// One object came, changed, or went (`None`).
#[expect(missing_docs, reason = "each variant names its object")]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    Service(ServiceKey, Option<Arc<Service>>),
    Slice(ServiceKey, SliceName, Option<Arc<EndpointSlice>>),
    Node(NodeName, Option<Arc<Node>>),
    /// A namespace, with its labels.
    Namespace(Arc<str>, Option<Arc<Labels>>),
    Pool(PoolName, Option<Arc<Pool>>),
    Advertisement(AdvertisementName, Option<Arc<L2Advertisement>>),
    /// A ServiceCIDR (KEP-1880), with its prefixes.
    ServiceCidr(Arc<str>, Option<Vec<ipnet::IpNet>>),
}

/// What changes touched since somebody last looked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Dirty {
    /// Services that changed, or whose endpoints did.
    pub services: BTreeSet<ServiceKey>,
    /// Nodes that changed.
    pub nodes: BTreeSet<NodeName>,
    /// A pool, an advertisement or a namespace changed.
    pub configuration: bool,
    /// A ServiceCIDR changed.
    pub service_cidrs: bool,
}

impl Dirty {
    /// Whether nothing was touched.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes what `other` touched too.
    pub fn merge(&mut self, other: Self) {
        self.services.extend(other.services);
        self.nodes.extend(other.nodes);
        self.configuration |= other.configuration;
        self.service_cidrs |= other.service_cidrs;
    }
}

/// As JSON, for people who look into a running program; sorted, so that two can be compared.
impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut all = serializer.serialize_struct("Snapshot", 7)?;
        all.serialize_field(
            "services",
            &self.services.iter().collect::<BTreeMap<_, _>>(),
        )?;
        all.serialize_field("slices", &self.slices.iter().collect::<BTreeMap<_, _>>())?;
        all.serialize_field("nodes", &self.nodes)?;
        all.serialize_field("namespaces", &self.namespaces)?;
        all.serialize_field("pools", &self.pools)?;
        all.serialize_field("advertisements", &self.advertisements)?;
        all.serialize_field("serviceCidrs", &self.service_cidrs)?;
        all.end()
    }
}

impl Snapshot {
    /// Takes a change in and adds what it touched to `dirty`; a change that says nothing new touches nothing.
    pub fn apply(&mut self, change: Change, dirty: &mut Dirty) {
        match change {
            Change::Service(key, service) => {
                if replace_hashed(&mut self.services, key.clone(), service) {
                    dirty.services.insert(key);
                }
            }
            Change::Slice(key, name, slice) => {
                if self.replace_slice(&key, name, slice) {
                    dirty.services.insert(key);
                }
            }
            Change::Node(name, node) => {
                if replace(&mut self.nodes, name.clone(), node) {
                    dirty.nodes.insert(name);
                }
            }
            Change::Namespace(name, labels) => {
                dirty.configuration |= replace(&mut self.namespaces, name, labels);
            }
            Change::Pool(name, pool) => {
                dirty.configuration |= replace(&mut self.pools, name, pool);
            }
            Change::Advertisement(name, advertisement) => {
                dirty.configuration |= replace(&mut self.advertisements, name, advertisement);
            }
            Change::ServiceCidr(name, prefixes) => {
                dirty.service_cidrs |= replace(&mut self.service_cidrs, name, prefixes);
            }
        }
    }

    fn replace_slice(
        &mut self,
        key: &ServiceKey,
        name: SliceName,
        slice: Option<Arc<EndpointSlice>>,
    ) -> bool {
        let slices = self.slices.entry(key.clone()).or_default();
        let changed = replace(slices, name, slice);
        if slices.is_empty() {
            self.slices.remove(key);
        }
        changed
    }

    /// The Service with this key.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// All Services, in no particular order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The endpoint slices of a Service, by name.
    pub fn slices(&self, key: &ServiceKey) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.slices.get(key).into_iter().flat_map(BTreeMap::values)
    }

    /// The node with this name.
    pub fn node(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> &BTreeMap<NodeName, Arc<Node>> {
        &self.nodes
    }

    /// The labels of a namespace; none if it is not known.
    pub fn namespace_labels(&self, name: &str) -> Option<&Arc<Labels>> {
        self.namespaces.get(name)
    }

    /// All namespaces with their labels.
    pub fn namespaces(&self) -> &BTreeMap<Arc<str>, Arc<Labels>> {
        &self.namespaces
    }

    /// All pools, by name.
    pub fn pools(&self) -> &BTreeMap<PoolName, Arc<Pool>> {
        &self.pools
    }

    /// All advertisements, by name.
    pub fn advertisements(&self) -> &BTreeMap<AdvertisementName, Arc<L2Advertisement>> {
        &self.advertisements
    }

    /// The prefixes that ClusterIPs come from.
    pub fn service_cidrs(&self) -> impl Iterator<Item = &ipnet::IpNet> {
        self.service_cidrs.values().flatten()
    }
}

/// Puts a value in or takes it out; whether anything is different now.
fn replace<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> bool {
    match value {
        Some(value) if map.get(&key) == Some(&value) => false,
        Some(value) => {
            map.insert(key, value);
            true
        }
        None => map.remove(&key).is_some(),
    }
}

/// As [`replace`], for the map that is large.
fn replace_hashed<K: std::hash::Hash + Eq, V: PartialEq>(
    map: &mut HashMap<K, V>,
    key: K,
    value: Option<V>,
) -> bool {
    match value {
        Some(value) if map.get(&key) == Some(&value) => false,
        Some(value) => {
            map.insert(key, value);
            true
        }
        None => map.remove(&key).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_touches_what_it_is_about_and_only_once() {
        let mut snapshot = Snapshot::default();
        let node = Arc::new(Node::default());
        let arrived = Change::Node("node-1".into(), Some(Arc::clone(&node)));
        let gone = Change::Node("node-1".into(), None);
        for (change, expected) in [
            (arrived.clone(), vec!["node-1"]),
            (arrived, vec![]),
            (gone.clone(), vec!["node-1"]),
            (gone, vec![]),
        ] {
            let mut dirty = Dirty::default();
            snapshot.apply(change, &mut dirty);
            let touched: Vec<_> = dirty.nodes.iter().map(NodeName::as_str).collect();
            assert_eq!(touched, expected);
        }
        assert_eq!(snapshot, Snapshot::default());
    }
}
