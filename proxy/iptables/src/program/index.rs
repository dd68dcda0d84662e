//! Which chains are touched when a frontend changes, and what they are then.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use config::name::ServiceKey;
use config::service::Protocol;
use proxy_table::{Endpoint, ForwardingTable, UndefinedPort};

use super::base::Surroundings;
use super::reached::{Key, Reached};
use super::service::Compiler;
use super::tree::{ANSWERS, REFUSED, Tree, branch, branch_network, leaf, leaf_network, span};
use super::{Table, jump, names};
use crate::rule::{Rule, Target};

/// Chains with their rules; none if the chain is gone.
pub(super) type Patch = BTreeMap<(Table, Arc<str>), Option<Vec<Rule>>>;

/// What changes touch.
#[derive(Debug, Default)]
pub(super) struct Touched {
    services: BTreeSet<ServiceKey>,
    ports: BTreeSet<Ports>,
    /// The first addresses of networks at the leaves of the trees.
    leaves: BTreeSet<IpAddr>,
    /// The same, of endpoints.
    answers: BTreeSet<IpAddr>,
    branches: BTreeSet<(Tree, IpAddr)>,
    roots: BTreeSet<Tree>,
}

/// NodePorts of an address that share a chain, by the first of them.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Ports(Key);

/// Where the chains of one family come from.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// What is reached at addresses that are a Service's.
    addresses: BTreeMap<Key, Reached>,
    node_ports: BTreeMap<Key, Reached>,
    services: BTreeMap<ServiceKey, Owned>,
    cluster_ips: BTreeMap<IpAddr, UndefinedPort>,
    left_alone: BTreeSet<IpAddr>,
    /// Who answers, for so many Services.
    answers: BTreeMap<(Endpoint, Protocol), u32>,
    /// What each tree has.
    grown: BTreeMap<Tree, Grown>,
}

/// What a Service has.
#[derive(Clone, Debug, Default)]
struct Owned {
    keys: BTreeSet<Key>,
    chains: BTreeSet<(Table, Arc<str>)>,
    answers: BTreeSet<(Endpoint, Protocol)>,
}

/// The chains of a tree.
#[derive(Clone, Debug, Default)]
struct Grown {
    branches: BTreeSet<IpAddr>,
    leaves: BTreeSet<IpAddr>,
    ports: BTreeSet<Ports>,
}

impl Index {
    /// Takes in what is reached at a place now.
    pub(super) fn place(&mut self, table: &ForwardingTable, key: Key, touched: &mut Touched) {
        let now = Reached::find(table, key);
        let held = self.addresses.remove(&key);
        let held = held.or_else(|| self.node_ports.remove(&key));
        let is_new = held != now;
        if let Some(held) = held.filter(|_| is_new) {
            if let Some(owned) = self.services.get_mut(&held.service) {
                owned.keys.remove(&key);
            }
            touched.frontend(key, &held);
        }
        let Some(now) = now else { return };
        if is_new {
            touched.frontend(key, &now);
            let owned = self.services.entry(now.service.clone()).or_default();
            owned.keys.insert(key);
        }
        let places = if now.on_node {
            &mut self.node_ports
        } else {
            &mut self.addresses
        };
        places.insert(key, now);
    }

    /// Takes in what becomes of the undefined ports of an address now.
    pub(super) fn cluster_ip(
        &mut self,
        table: &ForwardingTable,
        address: IpAddr,
        touched: &mut Touched,
    ) {
        let now = table.cluster_ip(address).map(|(_, undefined)| undefined);
        match now {
            Some(now) => self.cluster_ips.insert(address, now),
            None => self.cluster_ips.remove(&address),
        };
        let is_left_alone = now == Some(UndefinedPort::Leave);
        let changed = if is_left_alone {
            self.left_alone.insert(address)
        } else {
            self.left_alone.remove(&address)
        };
        if changed {
            touched.roots.insert(REFUSED);
        }
        touched.leaves.insert(leaf(address));
    }

    /// Compiles what is touched.
    pub(super) fn compile(
        &mut self,
        surroundings: Surroundings<'_>,
        mut touched: Touched,
    ) -> Patch {
        let mut patch = Patch::new();
        for service in mem::take(&mut touched.services) {
            self.service(surroundings, &service, &mut touched, &mut patch);
        }
        for ports in mem::take(&mut touched.ports) {
            self.ports(surroundings, ports, &mut patch);
        }
        for first in mem::take(&mut touched.leaves) {
            for (tree, rules) in self.leaf_rules(surroundings, first) {
                self.leaf(tree, first, rules, &mut touched, &mut patch);
            }
        }
        for first in mem::take(&mut touched.answers) {
            let rules = self.answer_rules(first);
            self.leaf(ANSWERS, first, rules, &mut touched, &mut patch);
        }
        for (tree, first) in mem::take(&mut touched.branches) {
            self.branch(tree, first, &mut touched, &mut patch);
        }
        for tree in touched.roots {
            let grown = self.grown.entry(tree).or_default();
            let jumps = grown.branches.iter();
            let jumps = jumps
                .map(|first| tree.jump(branch_network(*first)))
                .collect();
            let root = surroundings.root(tree, jumps, self.left_alone.iter().copied());
            patch.insert((tree.table, tree.root.into()), Some(root));
        }
        patch
    }

    /// The chains of a Service.
    fn service(
        &mut self,
        surroundings: Surroundings<'_>,
        service: &ServiceKey,
        touched: &mut Touched,
        patch: &mut Patch,
    ) {
        let mut owned = self.services.remove(service).unwrap_or_default();
        let mut compiler = Compiler::new(surroundings);
        for key in &owned.keys {
            if let Some(reached) = self.reached(*key) {
                compiler.frontend(*key, reached);
            }
        }
        let chains = mem::take(&mut compiler.rules.chains);
        let held = mem::replace(&mut owned.chains, chains.keys().cloned().collect());
        for gone in held.difference(&owned.chains) {
            patch.insert(gone.clone(), None);
        }
        patch.extend(
            chains
                .into_iter()
                .map(|(chain, rules)| (chain, Some(rules))),
        );
        for gone in owned.answers.difference(&compiler.answers) {
            let users = self.answers.entry(*gone).or_default();
            *users = users.saturating_sub(1);
            if *users == 0 {
                self.answers.remove(gone);
                touched.answers.insert(leaf(gone.0.address));
            }
        }
        for come in compiler.answers.difference(&owned.answers) {
            let users = self.answers.entry(*come).or_default();
            *users += 1;
            if *users == 1 {
                touched.answers.insert(leaf(come.0.address));
            }
        }
        owned.answers = compiler.answers;
        if !owned.keys.is_empty() {
            self.services.insert(service.clone(), owned);
        }
    }

    fn reached(&self, key: Key) -> Option<&Reached> {
        let node_port = || self.node_ports.get(&key);
        self.addresses.get(&key).or_else(node_port)
    }

    /// The chains of some NodePorts.
    fn ports(&mut self, surroundings: Surroundings<'_>, ports: Ports, patch: &mut Patch) {
        let mut compiler = Compiler::new(surroundings);
        let mut content: BTreeMap<Tree, Vec<Rule>> = BTreeMap::new();
        let all = self.node_ports.range(ports.0..=ports.last());
        for (key, reached) in all {
            for (tree, rules) in compiler.frontend(*key, reached) {
                content.entry(tree).or_default().extend(rules);
            }
        }
        for tree in Tree::DESTINATIONS {
            let rules = content.remove(&tree).filter(|rules| !rules.is_empty());
            let grown = &mut self.grown.entry(tree).or_default().ports;
            let was_there = if rules.is_some() {
                !grown.insert(ports)
            } else {
                grown.remove(&ports)
            };
            if was_there || rules.is_some() {
                patch.insert((tree.table, ports.chain(tree)), rules);
            }
        }
    }

    /// What the leaves of a network have in each tree.
    fn leaf_rules(&self, surroundings: Surroundings<'_>, first: IpAddr) -> Vec<(Tree, Vec<Rule>)> {
        let (_, last) = span(leaf_network(first));
        let mut content: BTreeMap<(Tree, IpAddr), Vec<Rule>> = BTreeMap::new();
        let mut compiler = Compiler::new(surroundings);
        let addresses = self.addresses.range(Key::first_of(first)..);
        for (key, reached) in addresses.take_while(|(key, _)| key.address <= last) {
            for (tree, rules) in compiler.frontend(*key, reached) {
                let there = content.entry((tree, key.address)).or_default();
                there.extend(rules);
            }
        }
        for (tree, grown) in &self.grown {
            let ports = grown.ports.range(Ports(Key::first_of(first))..);
            for ports in ports.take_while(|ports| ports.0.address <= last) {
                let there = content.entry((*tree, ports.0.address)).or_default();
                there.push(ports.jump(*tree));
            }
        }
        for (address, undefined) in self.cluster_ips.range(first..=last) {
            if *undefined == UndefinedPort::Reject {
                let refused = Rule::to(Target::Reject).destination((*address).into());
                let there = content.entry((REFUSED, *address)).or_default();
                there.push(refused.comment("no such port"));
            }
        }
        let of = |tree| {
            let rules = content.range((tree, first)..=(tree, last));
            rules.flat_map(|(_, rules)| rules.iter().cloned()).collect()
        };
        Tree::DESTINATIONS.map(|tree| (tree, of(tree))).into()
    }

    /// Answers outside of connections would reset them where they arrive.
    fn answer_rules(&self, first: IpAddr) -> Vec<Rule> {
        let (_, last) = span(leaf_network(first));
        let begin = Endpoint {
            address: first,
            port: NonZeroU16::MIN,
        };
        let answers = self.answers.range((begin, Protocol::default())..);
        let answers = answers.take_while(|((endpoint, _), _)| endpoint.address <= last);
        let rules = answers.map(|((endpoint, protocol), _)| Rule {
            protocol: Some(*protocol),
            source_port: Some(endpoint.port),
            ..Rule::to(Target::Drop).source(endpoint.address.into())
        });
        rules.collect()
    }

    /// Puts rules into the chain of a network.
    fn leaf(
        &mut self,
        tree: Tree,
        first: IpAddr,
        rules: Vec<Rule>,
        touched: &mut Touched,
        patch: &mut Patch,
    ) {
        let grown = &mut self.grown.entry(tree).or_default().leaves;
        let comes_or_goes = if rules.is_empty() {
            grown.remove(&first)
        } else {
            grown.insert(first)
        };
        if comes_or_goes {
            touched.branches.insert((tree, branch(first)));
        }
        if comes_or_goes || !rules.is_empty() {
            let rules = (!rules.is_empty()).then_some(rules);
            patch.insert((tree.table, tree.chain(leaf_network(first))), rules);
        }
    }

    /// The chain that leads to the leaves of a network.
    fn branch(&mut self, tree: Tree, first: IpAddr, touched: &mut Touched, patch: &mut Patch) {
        let network = branch_network(first);
        let (_, last) = span(network);
        let grown = self.grown.entry(tree).or_default();
        let leaves = grown.leaves.range(first..=last);
        let rules: Vec<Rule> = leaves
            .map(|first| tree.jump(leaf_network(*first)))
            .collect();
        let comes_or_goes = if rules.is_empty() {
            grown.branches.remove(&first)
        } else {
            grown.branches.insert(first)
        };
        if comes_or_goes {
            touched.roots.insert(tree);
        }
        let rules = (!rules.is_empty()).then_some(rules);
        patch.insert((tree.table, tree.chain(network)), rules);
    }
}

impl Touched {
    /// A frontend came, or went.
    fn frontend(&mut self, key: Key, reached: &Reached) {
        self.services.insert(reached.service.clone());
        self.leaves.insert(leaf(key.address));
        if reached.on_node {
            self.ports.insert(Ports::of(key));
        }
    }
}

impl Ports {
    fn of(key: Key) -> Self {
        let port = NonZeroU16::new(key.port.get() & !PORTS_TOGETHER);
        let port = port.unwrap_or(NonZeroU16::MIN);
        Self(Key { port, ..key })
    }

    fn last(self) -> Key {
        let port = self.0.port | PORTS_TOGETHER;
        Key { port, ..self.0 }
    }

    fn chain(self, tree: Tree) -> Arc<str> {
        let Key {
            address,
            protocol,
            port,
        } = self.0;
        names::ports(tree.name, address, protocol, port.get())
    }

    /// The rule that leads to the chain.
    fn jump(self, tree: Tree) -> Rule {
        Rule {
            protocol: Some(self.0.protocol),
            destination_ports: Some((self.0.port, self.last().port)),
            ..jump(&self.chain(tree)).destination(self.0.address.into())
        }
    }
}

/// The last bits of NodePorts that share a chain.
const PORTS_TOGETHER: u16 = 63;
