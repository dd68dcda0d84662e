//! From the snapshot to what the machine is told: which VIPs, which candidates, which interfaces. Pure.

mod backing;
mod scope;
mod selection;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::address::IpFamily;
use config::annotation::Requests;
use config::name::{NodeName, ServiceKey};
use config::node::Node;
use config::service::{Service, ServiceKind, TrafficPolicy};
use config::snapshot::{Dirty, Snapshot};
use speaker_announcer::candidates::{Contender, rank};
use speaker_announcer::{Configuration, Ineligible, PlacementKey, Vip};

use backing::Backing;
pub use scope::Scope;
use selection::Selection;

/// What the operator decided for all speakers by arguments.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// The node of this speaker.
    pub node: NodeName,
    /// The values of `spec.loadBalancerClass` that are announced.
    pub classes: BTreeSet<String>,
    /// Whether Services that name no class are announced too.
    pub unnamed_class: bool,
    /// Whether nodes with the label that excludes them from load balancers announce all the same.
    pub ignore_exclude_label: bool,
    /// Whether cordoned nodes announce nothing.
    pub leave_cordoned: bool,
}

/// Keeps the machine's configuration as the snapshot says.
///
/// Only what was touched is computed again: the VIPs of the Services that changed; all of them when a pool, an
/// advertisement, or something about a node changed that decides.
///
/// Invariant: whatever the order of changes, it holds what a new one would compute from the same snapshot.
#[derive(Clone, Debug)]
pub struct Compiler {
    settings: Settings,
    nodes: BTreeMap<NodeName, NodeView>,
    /// The addresses that are announced for each Service.
    addresses: BTreeMap<ServiceKey, BTreeSet<IpAddr>>,
    services: BTreeMap<IpAddr, BTreeSet<ServiceKey>>,
    vips: BTreeMap<IpAddr, Vip>,
    scope: Scope,
}

/// What of a node decides about candidates.
#[derive(Clone, Debug, Eq, PartialEq)]
struct NodeView {
    labels: config::selector::Labels,
    /// Its own, which nobody may announce, whatever the status of a Service says.
    addresses: BTreeSet<IpAddr>,
    obstacle: Option<Ineligible>,
}

impl Compiler {
    /// Nothing is announced yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            nodes: BTreeMap::new(),
            addresses: BTreeMap::new(),
            services: BTreeMap::new(),
            vips: BTreeMap::new(),
            scope: Scope::default(),
        }
    }

    /// Takes in what was touched; whether the machine must be told.
    pub fn sync(&mut self, snapshot: &Snapshot, dirty: &Dirty) -> bool {
        let nodes_changed = self.sync_nodes(snapshot, dirty);
        let everything = dirty.configuration || nodes_changed;
        let mut touched = BTreeSet::new();
        if dirty.configuration {
            let known: BTreeSet<_> = self.addresses.keys().cloned().collect();
            let there = snapshot.services().map(|service| service.key.clone());
            for key in known.into_iter().chain(there) {
                self.sync_addresses(snapshot, &key, &mut touched);
            }
        } else {
            for key in &dirty.services {
                self.sync_addresses(snapshot, key, &mut touched);
            }
        }
        if everything {
            touched.extend(self.services.keys());
        }
        let mut changed = nodes_changed;
        for address in touched {
            changed |= self.sync_vip(snapshot, address);
        }
        let scope = Scope::of(snapshot, &self.settings.node, self.vips.keys().copied());
        changed |= scope != self.scope;
        self.scope = scope;
        changed
    }

    fn sync_nodes(&mut self, snapshot: &Snapshot, dirty: &Dirty) -> bool {
        let mut changed = false;
        for name in &dirty.nodes {
            let view = snapshot.node(name).map(|node| self.settings.view(node));
            if self.nodes.get(name) == view.as_ref() {
                continue;
            }
            changed = true;
            match view {
                Some(view) => self.nodes.insert(name.clone(), view),
                None => self.nodes.remove(name),
            };
        }
        changed
    }

    /// Finds out which addresses are announced for a Service; adds those that may be different now to `touched`.
    fn sync_addresses(
        &mut self,
        snapshot: &Snapshot,
        key: &ServiceKey,
        touched: &mut BTreeSet<IpAddr>,
    ) {
        let service = snapshot.service(key);
        let now: BTreeSet<_> = service
            .into_iter()
            .flat_map(|service| self.settings.announced(snapshot, service))
            .collect();
        let before = self.addresses.remove(key).unwrap_or_default();
        for address in before.difference(&now) {
            if let Some(keys) = self.services.get_mut(address) {
                keys.remove(key);
                if keys.is_empty() {
                    self.services.remove(address);
                }
            }
        }
        for address in now.difference(&before) {
            self.services
                .entry(*address)
                .or_default()
                .insert(key.clone());
        }
        touched.extend(before);
        touched.extend(&now);
        if !now.is_empty() {
            self.addresses.insert(key.clone(), now);
        }
    }

    fn sync_vip(&mut self, snapshot: &Snapshot, address: IpAddr) -> bool {
        let services: Vec<_> = self
            .services_of(address)
            .filter_map(|key| snapshot.service(key))
            .collect();
        match self.vip(snapshot, address, &services) {
            Some(vip) if self.vips.get(&address) == Some(&vip) => false,
            Some(vip) => {
                self.vips.insert(address, vip);
                true
            }
            None => self.vips.remove(&address).is_some(),
        }
    }

    fn vip(&self, snapshot: &Snapshot, address: IpAddr, services: &[&Arc<Service>]) -> Option<Vip> {
        let placement = placement(services.first()?);
        let views: Vec<_> = services
            .iter()
            .map(|service| View {
                selection: Selection::of(snapshot, service, address),
                backing: Backing::of(snapshot, service, IpFamily::of(address)),
                policy: service.external_policy,
            })
            .collect();
        let mut nodes = self.nodes.values();
        let unless_of_a_node = if nodes.any(|node| node.addresses.contains(&address)) {
            Err(Ineligible::NodeAddress)
        } else {
            Ok(())
        };
        let contenders = self.nodes.iter().map(|(name, node)| {
            let eligibility = views.iter().map(|view| view.eligibility(name, node));
            Contender {
                node: name.clone(),
                preference: views
                    .iter()
                    .map(|view| view.selection.preference(&node.labels))
                    .max()
                    .unwrap_or(0),
                // Services that share an address go together: what one of them can serve is served.
                eligibility: eligibility
                    .reduce(Result::or)
                    .unwrap_or(Err(Ineligible::NotSelected))
                    .and(unless_of_a_node),
            }
        });
        let requested = services
            .iter()
            .find_map(|service| Requests::of(service).preferred_node)
            .filter(|node| self.nodes.contains_key(node));
        let contenders = contenders.map(|contender| Contender {
            preference: if requested.as_ref() == Some(&contender.node) {
                u32::MAX
            } else {
                contender.preference
            },
            ..contender
        });
        let candidates = rank(&placement, contenders);
        let own = self.nodes.get(&self.settings.node);
        let first = &views.first()?.selection;
        Some(Vip {
            placement,
            candidates,
            requested,
            failback: first.failback(),
            partition: first.partition(),
            links: first.links(own.map(|node| &node.labels)),
        })
    }

    /// What the machine is told.
    pub fn configuration(&self) -> Configuration {
        Configuration {
            vips: self.vips.clone(),
            speakers: self.nodes.keys().cloned().collect(),
        }
    }

    /// Which interfaces matter.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The Services that an address is announced for.
    pub fn services_of(&self, address: IpAddr) -> impl Iterator<Item = &ServiceKey> {
        self.services.get(&address).into_iter().flatten()
    }

    /// All addresses that are announced by some node.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.vips.keys().copied()
    }
}

impl Settings {
    fn view(&self, node: &Node) -> NodeView {
        let obstacle = if node.excluded_from_load_balancers() && !self.ignore_exclude_label {
            Some(Ineligible::Excluded)
        } else if node.being_deleted || node.drained {
            Some(Ineligible::Draining)
        } else if node.unschedulable && self.leave_cordoned {
            Some(Ineligible::Cordoned)
        } else {
            None
        };
        let addresses = node.internal_ips.iter().chain(&node.external_ips);
        NodeView {
            labels: node.labels.clone(),
            addresses: addresses.copied().collect(),
            obstacle,
        }
    }

    /// The addresses of a Service that speakers of ours announce: those in its status that are in a pool of ours, or
    /// that it holds through us although no pool has them any more.
    fn announced(&self, snapshot: &Snapshot, service: &Service) -> Vec<IpAddr> {
        let class = service.load_balancer_class.as_ref();
        let served = class.map_or(self.unnamed_class, |class| self.classes.contains(class));
        if service.kind != ServiceKind::LoadBalancer || !served {
            return Vec::new();
        }
        let is_ours = |address: &IpAddr| {
            class.is_some()
                || service.assigned_by_us
                || snapshot
                    .pools()
                    .values()
                    .any(|pool| pool.contains(*address))
        };
        service.vips().filter(is_ours).collect()
    }
}

/// What one of the Services of an address says about it.
struct View<'a> {
    selection: Selection<'a>,
    backing: Backing,
    policy: TrafficPolicy,
}

impl View<'_> {
    fn eligibility(&self, name: &NodeName, node: &NodeView) -> Result<(), Ineligible> {
        if !self.selection.selects(&node.labels) {
            return Err(Ineligible::NotSelected);
        }
        if let Some(obstacle) = node.obstacle {
            return Err(obstacle);
        }
        match self.policy {
            _ if self.backing.nodes.is_empty() && !self.backing.elsewhere => {
                Err(Ineligible::NoReadyEndpoint)
            }
            TrafficPolicy::Local if !self.backing.nodes.contains(name) => {
                Err(Ineligible::NoReadyLocalEndpoint)
            }
            _ => Ok(()),
        }
    }
}

fn placement(service: &Service) -> PlacementKey {
    match Requests::of(service).sharing_key {
        Some(key) => PlacementKey::Sharing(key.to_string()),
        None => PlacementKey::Service(service.key.clone()),
    }
}

#[cfg(test)]
mod tests;
