//! What an incremental change has to know of what the kernel holds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use config::address::IpFamily;
use config::service::Protocol;
use proxy_table::{Endpoint, ForwardingTable, Frontend, FrontendKey, TableChange};

use crate::program::item::{Class, Item, Key, Side, Value};
use crate::program::{
    ChainChange, Change, Program, at_address, at_node, compile, effective, rules,
};

/// The little that has to be remembered so that a change costs what changed: how many frontends share an endpoint, and
/// which classes have their chain. Everything else follows from the frontends before and after.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Mirror {
    hairpins: HashMap<(Endpoint, Protocol), u32>,
    classes: HashSet<(IpFamily, Side, Class)>,
}

impl Mirror {
    /// The mirror of a kernel that held `held` and was brought to `table`.
    pub fn new(table: &ForwardingTable, held: &Program) -> Self {
        let mut mirror = Self::default();
        for (key, frontend) in effective(table) {
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
        for key in before.keys(table) {
            let old = before.effective(table, key);
            let new = after(table, key);
            if old == new {
                continue;
            }
            let elements = |frontend: Option<&Arc<Frontend>>| {
                let mut elements = BTreeMap::new();
                if let Some(frontend) = frontend {
                    compile::frontend_elements(key, frontend, |item, value| {
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
            }
        }
        for ((endpoint, protocol), count) in hairpins {
            self.count(endpoint, protocol, count, &mut change);
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

    fn count(&mut self, endpoint: Endpoint, protocol: Protocol, count: i64, change: &mut Change) {
        let held = self.hairpins.remove(&(endpoint, protocol)).unwrap_or(0);
        let now = u32::try_from(i64::from(held) + count).unwrap_or(0);
        if now > 0 {
            self.hairpins.insert((endpoint, protocol), now);
        }
        let item = (Item::Hairpin(endpoint, protocol), Value::Member);
        match (held, now) {
            (0, 1..) => change.added.push(item),
            (1.., 0) => change.removed.push(item),
            _ => {}
        }
    }
}

/// What the frontends were that changed.
struct Before<'a> {
    frontends: BTreeMap<FrontendKey, Option<&'a Arc<Frontend>>>,
    cluster_ips: BTreeMap<std::net::IpAddr, Option<proxy_table::UndefinedPort>>,
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
