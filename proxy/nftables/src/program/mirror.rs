//! What an incremental change has to know of what the kernel holds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::address::IpFamily;
use config::service::Protocol;
use proxy_table::{Endpoint, ForwardingTable, Frontend, FrontendKey, TableChange};

use crate::program::item::{Class, Item, Key, Side, Value};
use crate::program::{
    ChainChange, Change, Forwarder, Program, at_address, at_node, compile, effective, rules,
};

/// The little that has to be remembered so that a change costs what changed: how many frontends share an endpoint, and
/// which classes have their chain. Everything else follows from the frontends before and after.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Mirror {
    forwarder: Forwarder,
    hairpins: HashMap<(Endpoint, Protocol), u32>,
    /// How many frontends share an address that the node has only for them.
    bound: HashMap<IpAddr, u32>,
    classes: HashSet<(IpFamily, Side, Class)>,
}

impl Mirror {
    /// The mirror of a kernel that held `held` and was brought to `table`.
    pub fn new(table: &ForwardingTable, held: &Program, forwarder: &Forwarder) -> Self {
        let mut mirror = Self {
            forwarder: forwarder.clone(),
            ..Self::default()
        };
        for (key, frontend) in effective(table) {
            if let Some(address) = forwarder.bound(key, frontend) {
                *mirror.bound.entry(address).or_default() += 1;
            }
            for endpoint in compile::hairpins(frontend) {
                *mirror.hairpins.entry((endpoint, key.protocol)).or_default() += 1;
            }
        }
        let survivors = held
            .elements
            .keys()
            .filter(|item| held.tables.contains(&item.family()));
        mirror
            .classes
            .extend(survivors.filter_map(|item| match item {
                Item::Class(family, side, class) => Some((*family, *side, *class)),
                _ => None,
            }));
        mirror
    }

    /// The steps for changes that made the table what it is now, in their order; none if nothing is different.
    pub fn update(&mut self, table: &ForwardingTable, changes: &[TableChange]) -> Option<Change> {
        let before = Before::new(changes);
        let mut change = Change::default();
        let mut hairpins: BTreeMap<(Endpoint, Protocol), i64> = BTreeMap::new();
        let mut bound: BTreeMap<IpAddr, i64> = BTreeMap::new();
        for key in before.keys(table) {
            let old = before.effective(table, key);
            let new = after(table, key);
            if old == new {
                continue;
            }
            let elements = |frontend: Option<&Arc<Frontend>>| {
                let mut elements = BTreeMap::new();
                if let Some(frontend) = frontend {
                    compile::frontend_elements(key, frontend, &self.forwarder, |item, value| {
                        elements.insert(item, value);
                    });
                }
                elements
            };
            let (old_elements, new_elements) = (elements(old), elements(new));
            let gone = old_elements
                .iter()
                .filter(|(item, value)| new_elements.get(item) != Some(value));
            change
                .removed
                .extend(gone.map(|(item, value)| (*item, *value)));
            let come = new_elements
                .iter()
                .filter(|(item, value)| old_elements.get(item) != Some(value));
            for (item, value) in come {
                if let (Item::Frontend(side, _), Value::Class(class)) = (item, value) {
                    self.add_class(IpFamily::of(key.address), *side, *class, &mut change);
                }
                change.added.push((*item, *value));
            }
            for (frontend, count) in [(old, -1), (new, 1)] {
                for endpoint in frontend
                    .into_iter()
                    .flat_map(|frontend| compile::hairpins(frontend))
                {
                    *hairpins.entry((endpoint, key.protocol)).or_default() += count;
                }
                let address = frontend.and_then(|frontend| self.forwarder.bound(key, frontend));
                if let Some(address) = address {
                    *bound.entry(address).or_default() += count;
                }
            }
        }
        for ((endpoint, protocol), count) in hairpins {
            let item = Item::Hairpin(endpoint, protocol);
            let held = self.hairpins.entry((endpoint, protocol)).or_default();
            count_users(held, count, item, &mut change);
            if *held == 0 {
                self.hairpins.remove(&(endpoint, protocol));
            }
        }
        for (address, count) in bound {
            let held = self.bound.entry(address).or_default();
            count_users(held, count, Item::Bound(address), &mut change);
            if *held == 0 {
                self.bound.remove(&address);
            }
        }
        before.cluster_ips(table, &mut change);
        (!change.is_empty()).then_some(change)
    }

    fn add_class(&mut self, family: IpFamily, side: Side, class: Class, change: &mut Change) {
        if !self.classes.insert((family, side, class)) {
            return;
        }
        if let Some(name) = class.chain(side) {
            let rules = rules::class_chain(family, side, class);
            change.chains.push(ChainChange {
                family,
                name,
                rules,
                exists: false,
            });
        }
        change
            .added
            .push((Item::Class(family, side, class), Value::Member));
    }
}

/// Adds `count` frontends to those that share an element: it comes with the first and goes with the last.
fn count_users(held: &mut u32, count: i64, item: Item, change: &mut Change) {
    let now = u32::try_from(i64::from(*held) + count).unwrap_or(0);
    match (std::mem::replace(held, now), now) {
        (0, 1..) => change.added.push((item, Value::Member)),
        (1.., 0) => change.removed.push((item, Value::Member)),
        _ => {}
    }
}

/// A place where another frontend became effective.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChangedFrontend<'a> {
    /// Where it is reached.
    pub key: Key,
    /// What it was; none if it came.
    pub before: Option<&'a Frontend>,
    /// What it is in the table now; none if it went.
    pub after: Option<&'a Frontend>,
}

/// Where the changes, in their order, made another frontend effective.
pub fn changed_frontends<'a>(
    table: &'a ForwardingTable,
    changes: &'a [TableChange],
) -> Vec<ChangedFrontend<'a>> {
    let at = |key: FrontendKey| table.frontend(&key).map(|(_, frontend)| &**frontend);
    let addresses = &table.context().node_port_addresses;
    let before = Before::new(changes);
    let former = |key: FrontendKey| match before.frontends.get(&key) {
        Some(before) => before.map(|frontend| &**frontend),
        None => at(key),
    };
    let keys = before.keys(table).into_iter();
    keys.filter_map(|key| {
        let node_port = addresses.contains(&key.address).then(|| at_node(key));
        let old = former(at_address(key)).or_else(|| former(node_port?));
        let new = at(at_address(key)).or_else(|| at(node_port?));
        (old != new).then_some(ChangedFrontend {
            key,
            before: old,
            after: new,
        })
    })
    .collect()
}

/// What the frontends were that changed.
struct Before<'a> {
    frontends: BTreeMap<FrontendKey, Option<&'a Arc<Frontend>>>,
    cluster_ips: BTreeMap<IpAddr, Option<proxy_table::UndefinedPort>>,
}

impl<'a> Before<'a> {
    fn new(changes: &'a [TableChange]) -> Self {
        let mut before = Self {
            frontends: BTreeMap::new(),
            cluster_ips: BTreeMap::new(),
        };
        for change in changes {
            for frontend in &change.frontends {
                before
                    .frontends
                    .entry(frontend.key)
                    .or_insert(frontend.before.as_ref());
            }
            for address in &change.cluster_ips {
                before
                    .cluster_ips
                    .entry(address.address)
                    .or_insert(address.before);
            }
        }
        before
    }

    /// Where something may be different.
    fn keys(&self, table: &ForwardingTable) -> BTreeSet<Key> {
        let addresses = &table.context().node_port_addresses;
        self.frontends
            .keys()
            .flat_map(|key| compile::places(key, addresses.iter()))
            .collect()
    }

    fn effective<'b>(&'b self, table: &'b ForwardingTable, key: Key) -> Option<&'b Arc<Frontend>> {
        let at = |key: FrontendKey| match self.frontends.get(&key) {
            Some(before) => *before,
            None => table.frontend(&key).map(|(_, frontend)| frontend),
        };
        at(at_address(key)).or_else(|| at(node_port(table, key)?))
    }

    fn cluster_ips(&self, table: &ForwardingTable, change: &mut Change) {
        for (address, before) in &self.cluster_ips {
            let after = table.cluster_ip(*address).map(|(_, undefined)| undefined);
            if *before == after {
                continue;
            }
            let item = |undefined| (compile::cluster_ip(*address, undefined), Value::Member);
            change.removed.extend(before.map(item));
            change.added.extend(after.map(item));
        }
    }
}

fn after(table: &ForwardingTable, key: Key) -> Option<&Arc<Frontend>> {
    let at = |key: FrontendKey| table.frontend(&key).map(|(_, frontend)| frontend);
    at(at_address(key)).or_else(|| at(node_port(table, key)?))
}

/// The NodePort at an address, if it is one that NodePorts are offered on.
fn node_port(table: &ForwardingTable, key: Key) -> Option<FrontendKey> {
    let offered = table.context().node_port_addresses.contains(&key.address);
    offered.then(|| at_node(key))
}
