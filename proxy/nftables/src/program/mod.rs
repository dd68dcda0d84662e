//! What the kernel should hold of ours, as values: the chains with their rules, and the elements.

pub(crate) mod compile;
pub(crate) mod encode;
mod item;
#[cfg(test)]
mod laws;
mod mirror;
pub(crate) mod rules;
pub(crate) mod schema;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::address::IpFamily;
use proxy_table::{ForwardingTable, FrontendKey, Place, PodDetection};

pub use compile::{LeftFlows, bound, left_to_ipvs};
pub use item::{
    Class, EndpointName, Item, Key, LONGEST_AFFINITY_SECONDS, MOST_ENDPOINTS, Masqueraded, Side,
    Slot, Value,
};
pub use mirror::{ChangedFrontend, Mirror, changed_frontends};
pub use walk::Choice;

use crate::netlink::expression::Expression;

/// The steps of a rule.
pub type Rule = Vec<Expression>;

/// Who sends the flows to their endpoints.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Forwarder {
    /// The rules.
    #[default]
    Rules,
    /// IPVS, behind the rules: these decide what is rejected, dropped and masqueraded, and [`left_to_ipvs`] what remains.
    Ipvs {
        /// The addresses that the node has of its own, whatever Services say: other ports of them are left alone.
        own: Arc<BTreeSet<IpAddr>>,
    },
}

/// The content of our tables.
///
/// Chains of classes stay when nothing uses them any more, and so do their entries in the maps of classes: they cost
/// nothing, and the next list of as many endpoints finds them. [`Self::diff`] does not miss them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Program {
    /// Families whose table exists, as whole as ours are; what else exists under our name is in `broken`.
    pub(crate) tables: BTreeSet<IpFamily>,
    /// Families whose table exists and is not as ours are: made by another version, or by somebody else.
    pub(crate) broken: BTreeSet<IpFamily>,
    pub(crate) chains: BTreeMap<(IpFamily, String), Vec<Rule>>,
    pub(crate) elements: BTreeMap<Item, Value>,
}

/// The steps from one program to another.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Change {
    /// Tables to make anew, and whether there is one to delete first.
    pub(crate) tables: Vec<(IpFamily, bool)>,
    /// Chains whose rules are replaced; those that do not exist are created.
    pub(crate) chains: Vec<ChainChange>,
    /// Elements that go, and those whose value changes.
    pub(crate) removed: Vec<(Item, Value)>,
    /// Elements that come, and those whose value changes.
    pub(crate) added: Vec<(Item, Value)>,
}

/// A chain that comes or gets other rules.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ChainChange {
    pub(crate) family: IpFamily,
    pub(crate) name: String,
    pub(crate) rules: Vec<Rule>,
    pub(crate) exists: bool,
}

impl Change {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
            && self.chains.is_empty()
            && self.removed.is_empty()
            && self.added.is_empty()
    }

    /// How many elements come and go.
    pub fn elements(&self) -> usize {
        self.removed.len() + self.added.len()
    }
}

impl Program {
    /// All of it in lines for people: the rules of each chain, and the elements.
    pub fn describe(&self) -> BTreeMap<String, Vec<String>> {
        let chains = self.chains.iter().map(|((family, chain), rules)| {
            let rules = rules.iter().map(|rule| format!("{rule:?}")).collect();
            (format!("{family} chain {chain}"), rules)
        });
        let elements = self.elements.iter().map(|(item, value)| match value {
            Value::Member => format!("{item:?}"),
            value => format!("{item:?}: {value:?}"),
        });
        let elements = ("elements".to_owned(), elements.collect());
        chains.chain([elements]).collect()
    }

    /// Translates a table. Total: every table has a program.
    pub fn compile(table: &ForwardingTable) -> Self {
        Self::compile_for(table, &Forwarder::Rules)
    }

    /// Translates a table whose flows somebody forwards.
    pub fn compile_for(table: &ForwardingTable, forwarder: &Forwarder) -> Self {
        let mut program = Self::default();
        let context = table.context();
        for family in FAMILIES {
            program.tables.insert(family);
            for (name, _, rules) in rules::base_chains(family, &context.pods, forwarder) {
                program.chains.insert((family, name.to_owned()), rules);
            }
            let classes = [Class::Reject, Class::Drop, Class::Leave];
            let by_ipvs = matches!(forwarder, Forwarder::Ipvs { .. });
            for class in classes.into_iter().take(if by_ipvs { 3 } else { 2 }) {
                for side in [Side::All, Side::Outside] {
                    program
                        .elements
                        .insert(Item::Class(family, side, class), Value::Member);
                }
            }
            if let PodDetection::Networks(networks) = &context.pods {
                for network in compile::disjoint(networks.iter(), family) {
                    program
                        .elements
                        .insert(Item::PodNetwork(network), Value::Member);
                }
            }
            for network in compile::disjoint(context.service_cidrs.iter(), family) {
                program
                    .elements
                    .insert(Item::ServiceCidr(network), Value::Member);
            }
        }
        for (address, undefined) in table.cluster_ips() {
            program
                .elements
                .insert(compile::cluster_ip(address, undefined), Value::Member);
        }
        for (key, frontend) in effective(table) {
            for endpoint in compile::hairpins(frontend) {
                program
                    .elements
                    .insert(Item::Hairpin(endpoint, key.protocol), Value::Member);
            }
            let elements = &mut program.elements;
            let mut classes = Vec::new();
            if let Some(address) = forwarder.bound(key, frontend) {
                elements.insert(Item::Bound(address), Value::Member);
            }
            compile::frontend_elements(key, frontend, forwarder, |item, value| {
                if let (Item::Frontend(side, _), Value::Class(class)) = (item, value) {
                    classes.push((side, class));
                }
                elements.insert(item, value);
            });
            for (side, class) in classes {
                program.add_class(IpFamily::of(key.address), side, class);
            }
        }
        program
    }

    fn add_class(&mut self, family: IpFamily, side: Side, class: Class) {
        self.elements
            .insert(Item::Class(family, side, class), Value::Member);
        if let Some(chain) = class.chain(side) {
            self.chains
                .entry((family, chain))
                .or_insert_with(|| rules::class_chain(family, side, class));
        }
    }

    /// The steps from `self` to `next`; none if they are equal.
    pub fn diff(&self, next: &Self) -> Option<Change> {
        let mut change = Change::default();
        let fresh: BTreeSet<IpFamily> = next.tables.difference(&self.tables).copied().collect();
        change.tables = fresh
            .iter()
            .map(|family| (*family, self.broken.contains(family)))
            .collect();
        for ((family, name), rules) in &next.chains {
            let held = self.chains.get(&(*family, name.clone()));
            let held = held.filter(|_| !fresh.contains(family));
            if held != Some(rules) {
                change.chains.push(ChainChange {
                    family: *family,
                    name: name.clone(),
                    rules: rules.clone(),
                    exists: held.is_some(),
                });
            }
        }
        for (item, value) in &self.elements {
            let stays = next.elements.get(item) == Some(value) || matches!(item, Item::Class(..));
            if !stays && !fresh.contains(&item.family()) {
                change.removed.push((*item, *value));
            }
        }
        for (item, value) in &next.elements {
            if self.elements.get(item) != Some(value) || fresh.contains(&item.family()) {
                change.added.push((*item, *value));
            }
        }
        (!change.is_empty()).then_some(change)
    }

    /// What is left after a change.
    pub fn apply(&mut self, change: &Change) {
        for (family, _) in &change.tables {
            self.broken.remove(family);
            self.tables.insert(*family);
            self.chains.retain(|(held, _), _| held != family);
            self.elements.retain(|item, _| item.family() != *family);
        }
        for chain in &change.chains {
            self.chains
                .insert((chain.family, chain.name.clone()), chain.rules.clone());
        }
        for (item, _) in &change.removed {
            self.elements.remove(item);
        }
        self.elements.extend(change.added.iter().copied());
    }

    /// The number of elements in all sets and maps.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there is nothing of ours.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.broken.is_empty()
    }
}

/// All frontends where they are reached: one of an address goes before a NodePort on it.
pub fn effective(table: &ForwardingTable) -> impl Iterator<Item = (Key, &proxy_table::Frontend)> {
    let addresses = &table.context().node_port_addresses;
    table.frontends().flat_map(move |(key, _, frontend)| {
        let is_node_port = matches!(key.place, Place::Node(_));
        compile::places(key, addresses.iter())
            .into_iter()
            .filter(move |key| !is_node_port || table.frontend(&at_address(*key)).is_none())
            .map(move |key| (key, &**frontend))
    })
}

fn at_address(key: Key) -> FrontendKey {
    FrontendKey {
        place: Place::Address(key.address),
        protocol: key.protocol,
        port: key.port,
    }
}

fn at_node(key: Key) -> FrontendKey {
    FrontendKey {
        place: Place::Node(IpFamily::of(key.address)),
        protocol: key.protocol,
        port: key.port,
    }
}

/// Every node has both tables.
pub(crate) const FAMILIES: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];
