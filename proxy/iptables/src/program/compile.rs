//! From the table to chains.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

use config::address::IpFamily;
use config::name::ServiceKey;
use config::service::{Protocol, TrafficPolicy};
use ipnet::IpNet;
use proxy_table::{
    Endpoint, ForwardingTable, Frontend, FrontendKey, FrontendKind, Masquerade, NodeContext,
    Outcome, Place, PodDetection, UndefinedPort,
};

use super::names::{self, Port, Role};
use super::tree::{End, Tree};
use super::{Hook, Program, Ruleset, Style, Table, jump};
use crate::rule::{InterfaceMatch, MarkMatch, Probability, Recent, Rule, States, Target};

impl Program {
    /// What the kernel should hold for a table, in these families.
    pub fn compile(
        table: &ForwardingTable,
        style: Style,
        families: impl IntoIterator<Item = IpFamily>,
    ) -> Self {
        let reached = reached(table);
        let compile = |family| (family, Compiler::compile(table, &reached, style, family));
        Self {
            families: families.into_iter().map(compile).collect(),
        }
    }
}

/// Where a frontend is reached.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Key {
    address: IpAddr,
    protocol: Protocol,
    port: NonZeroU16,
}

/// A frontend where it is reached.
struct Reached<'a> {
    service: &'a ServiceKey,
    frontend: &'a Frontend,
    /// Whether it is a NodePort, of which an address may have many.
    on_node: bool,
}

/// All frontends where they are reached: one of an address goes before a NodePort on it.
fn reached(table: &ForwardingTable) -> BTreeMap<Key, Reached<'_>> {
    let mut reached = BTreeMap::new();
    for (key, service, frontend) in table.frontends() {
        let mut at = |address, on_node| {
            let place = Key {
                address,
                protocol: key.protocol,
                port: key.port,
            };
            let there = Reached {
                service,
                frontend,
                on_node,
            };
            reached.insert(place, there);
        };
        match key.place {
            Place::Address(address) => at(address, false),
            Place::Node(family) => {
                let addresses = table.context().node_port_addresses.iter();
                let of_family = addresses.filter(|address| IpFamily::of(**address) == family);
                for address in of_family {
                    let place = Place::Address(*address);
                    if table.frontend(&FrontendKey { place, ..*key }).is_none() {
                        at(*address, true);
                    }
                }
            }
        }
    }
    reached
}

/// Makes the chains of one family.
struct Compiler<'a> {
    family: IpFamily,
    context: &'a NodeContext,
    style: Style,
    rules: Ruleset,
    /// What becomes of flows to each address, in `nat`.
    services: BTreeMap<IpAddr, Vec<Rule>>,
    /// The same for flows of the node itself, where that is something else.
    output: BTreeMap<IpAddr, Vec<Rule>>,
    /// What becomes of flows that `nat` left alone.
    refused: BTreeMap<IpAddr, Vec<Rule>>,
    /// The same for flows from outside of the node, where that is something else.
    outside: BTreeMap<IpAddr, Vec<Rule>>,
    /// Who answers.
    answers: BTreeSet<(Endpoint, Protocol)>,
}

impl<'a> Compiler<'a> {
    fn compile(
        table: &'a ForwardingTable,
        reached: &BTreeMap<Key, Reached<'_>>,
        style: Style,
        family: IpFamily,
    ) -> Ruleset {
        let mut compiler = Self {
            family,
            context: table.context(),
            style,
            rules: Ruleset::default(),
            services: BTreeMap::new(),
            output: BTreeMap::new(),
            refused: BTreeMap::new(),
            outside: BTreeMap::new(),
            answers: BTreeSet::new(),
        };
        compiler.base();
        for (key, reached) in reached
            .iter()
            .filter(|(key, _)| IpFamily::of(key.address) == family)
        {
            compiler.frontend(*key, reached);
        }
        compiler.finish(table);
        compiler.rules
    }

    fn has(&self, address: IpAddr) -> bool {
        IpFamily::of(address) == self.family
    }

    /// The chains that are always there.
    fn base(&mut self) {
        let mark = self.style.mark;
        let marked = |present| Rule {
            mark: Some(MarkMatch { mark, present }),
            ..Rule::default()
        };
        let nat = |chain: &str, rules: Vec<Rule>, all: &mut Ruleset| {
            all.append(Table::Nat, &chain.into(), rules);
        };
        nat(
            names::MARK_MASQUERADE,
            vec![Rule::to(Target::SetMark(mark))],
            &mut self.rules,
        );
        let mut outside = self.pods(&Target::Return);
        outside.push(jump(&names::MARK_MASQUERADE.into()));
        nat(names::MARK_OUTSIDE, outside, &mut self.rules);
        let random_fully = self.style.random_fully;
        let masquerade = vec![
            marked(false),
            Rule::to(Target::FlipMark(mark)),
            Rule::to(Target::Masquerade { random_fully }),
        ];
        nat(names::POSTROUTING, masquerade, &mut self.rules);
        nat(names::SERVICES, Vec::new(), &mut self.rules);
        nat(names::OUTPUT, Vec::new(), &mut self.rules);

        let is_answer = Rule {
            states: States::INVALID,
            ..jump(&names::ANSWERS.into())
        };
        let is_translated = Rule {
            translated: true,
            ..Rule::default()
        };
        let is_answered = Rule {
            states: States::RELATED.or(States::ESTABLISHED),
            translated: true,
            ..Rule::to(Target::Accept)
        };
        let is_marked = Rule {
            target: Target::Accept,
            ..marked(true)
        };
        for (chain, rules) in [
            (names::SERVICES, vec![is_answer, is_translated]),
            (names::ANSWERS, Vec::new()),
            (names::OUTSIDE, Vec::new()),
            (names::FORWARD, vec![is_marked, is_answered]),
        ] {
            self.rules.append(Table::Filter, &chain.into(), rules);
        }
        self.hooks();
    }

    fn hooks(&mut self) {
        let services = || jump(&names::SERVICES.into());
        let refused = |chain: &str| Rule {
            states: States::INVALID.or(States::NEW),
            ..jump(&chain.into()).comment("foghorn: what no endpoint serves")
        };
        let portals = |rule: Rule| rule.comment("foghorn: Services");
        let hooks = [
            (Table::Nat, Hook::Prerouting, portals(services())),
            (
                Table::Nat,
                Hook::Output,
                portals(jump(&names::OUTPUT.into())),
            ),
            (
                Table::Nat,
                Hook::Postrouting,
                jump(&names::POSTROUTING.into()).comment("foghorn: masquerade"),
            ),
            (Table::Filter, Hook::Input, refused(names::OUTSIDE)),
            (Table::Filter, Hook::Forward, refused(names::OUTSIDE)),
            (Table::Filter, Hook::Output, refused(names::SERVICES)),
            (
                Table::Filter,
                Hook::Forward,
                jump(&names::FORWARD.into()).comment("foghorn: forwarded"),
            ),
        ];
        for (table, hook, rule) in hooks {
            let hooked = self.rules.hooks.entry((table, hook)).or_default();
            hooked.push(rule);
            hooked.sort_unstable();
        }
    }

    /// Rules that send packets of Pods to a target.
    fn pods(&self, target: &Target) -> Vec<Rule> {
        let to = || Rule::to(target.clone());
        let arriving_on = |interface: Option<InterfaceMatch>| {
            let rule = interface.map(|interface| Rule {
                input: Some(interface),
                ..to()
            });
            rule.into_iter().collect()
        };
        match &self.context.pods {
            PodDetection::None => Vec::new(),
            PodDetection::Networks(networks) => {
                let of_family = networks.iter().filter(|network| self.has(network.addr()));
                of_family.map(|network| to().source(*network)).collect()
            }
            PodDetection::Bridge(name) => arriving_on(InterfaceMatch::name(name)),
            PodDetection::InterfacePrefix(prefix) => arriving_on(InterfaceMatch::prefix(prefix)),
        }
    }

    fn frontend(&mut self, key: Key, reached: &Reached<'_>) {
        let frontend = reached.frontend;
        let port = Port::new(reached.service, &frontend.port, key.protocol);
        let comment: Arc<str> = format!("{} {}", port.text(), kind(frontend.kind)).into();
        let matching = |rule: Rule| Rule {
            protocol: Some(key.protocol),
            destination_ports: Some((key.port, key.port)),
            comment: Some(Arc::clone(&comment)),
            ..rule.destination(key.address.into())
        };
        let entries = self.entries(&port, key.protocol, frontend);
        let refusals = self.refusals(&port, frontend);
        for (tree, rules) in [
            (SERVICES, entries.all),
            (OUTPUT, entries.output),
            (REFUSED, refusals.all),
            (OUTSIDE, refusals.outside),
        ] {
            self.plant(
                tree,
                key,
                reached.on_node,
                rules.into_iter().map(matching).collect(),
            );
        }
    }

    /// Puts rules where packets to a frontend find them.
    fn plant(&mut self, tree: Tree, key: Key, on_node: bool, rules: Vec<Rule>) {
        if rules.is_empty() {
            return;
        }
        let leaves = match tree.root {
            names::OUTPUT => &mut self.output,
            names::OUTSIDE => &mut self.outside,
            _ if tree.table == Table::Nat => &mut self.services,
            _ => &mut self.refused,
        };
        let leaf = leaves.entry(key.address).or_default();
        if !on_node {
            leaf.extend(rules);
            return;
        }
        // An address may have thousands of NodePorts.
        let first = NonZeroU16::new(key.port.get() & !PORTS_TOGETHER).unwrap_or(NonZeroU16::MIN);
        let last = key.port | PORTS_TOGETHER;
        let chain = names::ports(tree.name, key.address, key.protocol, first.get());
        let to_chain = Rule {
            protocol: Some(key.protocol),
            destination_ports: Some((first, last)),
            ..jump(&chain).destination(key.address.into())
        };
        if !leaf.contains(&to_chain) {
            leaf.push(to_chain);
        }
        self.rules.append(tree.table, &chain, rules);
    }

    /// What flows to a frontend go through.
    fn entries(&mut self, port: &Port, protocol: Protocol, frontend: &Frontend) -> Entries {
        let is_local =
            frontend.kind == FrontendKind::ClusterIp && frontend.policy == TrafficPolicy::Local;
        let inside_role = if is_local { Role::Local } else { Role::Cluster };
        let splits = frontend.inside != frontend.outside;
        let outside_role = if splits || frontend.policy == TrafficPolicy::Local {
            Role::Local
        } else {
            inside_role
        };
        let mut choose = |role, outcome: &Outcome| {
            let endpoints = outcome.endpoints();
            (!endpoints.is_empty()).then(|| self.choice(port, role, protocol, endpoints, frontend))
        };
        let inside = choose(inside_role, &frontend.inside);
        let outside = choose(outside_role, &frontend.outside);
        let mark = match frontend.masquerade {
            Masquerade::Always => Some(names::MARK_MASQUERADE),
            Masquerade::UnlessPod => Some(names::MARK_OUTSIDE),
            Masquerade::OnlyNode | Masquerade::OnlyHairpin => None,
        };
        let mut all = Vec::new();
        if inside.is_some() || outside.is_some() {
            all.extend(mark.map(|mark| jump(&mark.into())));
        }
        if splits {
            all.extend(
                inside
                    .iter()
                    .flat_map(|chain| self.pods(&Target::Jump(Arc::clone(chain)))),
            );
        }
        all.extend(outside.iter().map(jump));

        let mut output = Vec::new();
        if splits || frontend.masquerade == Masquerade::OnlyNode {
            let mark = match frontend.masquerade {
                Masquerade::OnlyNode => Some(names::MARK_OUTSIDE),
                _ => mark,
            };
            if let Some(inside) = &inside {
                output.extend(mark.map(|mark| jump(&mark.into())));
                output.push(jump(inside));
            } else if outside.is_some() {
                output.push(Rule::to(Target::Accept));
            }
        }
        if frontend.kind != FrontendKind::ClusterIp {
            all = self.named(port.chain(Role::External), all);
            output = self.named(port.chain(Role::ExternalOutput), output);
        }
        if let Some(sources) = &frontend.sources {
            all = self.guarded(port.chain(Role::Firewall), sources, all);
            output = self.guarded(port.chain(Role::FirewallOutput), sources, output);
        }
        Entries { all, output }
    }

    /// Puts rules into a chain of their own, if there are any; what leads there.
    fn named(&mut self, chain: Arc<str>, rules: Vec<Rule>) -> Vec<Rule> {
        if rules.is_empty() {
            return rules;
        }
        let rule = jump(&chain);
        self.rules.chains.insert((Table::Nat, chain), rules);
        vec![rule]
    }

    /// Admits these sources only to what rules do.
    fn guarded(&mut self, chain: Arc<str>, sources: &[IpNet], rules: Vec<Rule>) -> Vec<Rule> {
        let of_family = sources.iter().filter(|source| self.has(source.addr()));
        let guarded = of_family.flat_map(|source| {
            let rules = rules.iter().cloned();
            rules.map(|rule| rule.source(*source))
        });
        let guarded = guarded.collect();
        self.named(chain, guarded)
    }

    /// What becomes of packets to a frontend that `nat` did not forward: of flows that may not be, and of what is outside of
    /// connections. No flow that is forwarded is refused here, so that a moment between two tables refuses none.
    fn refusals(&mut self, port: &Port, frontend: &Frontend) -> Refusals {
        let drop = || Rule::to(Target::Drop);
        let refuse = |outcome: &Outcome| match outcome {
            Outcome::Forward(_) => None,
            Outcome::Reject => Some(Rule::to(Target::Reject)),
            Outcome::Drop => Some(drop()),
        };
        let (inside, outside) = (refuse(&frontend.inside), refuse(&frontend.outside));
        let sources = frontend.sources.as_deref().map(|sources| {
            let sources = sources.iter().copied();
            let of_family = sources.filter(|source| self.has(source.addr()));
            of_family.collect::<Vec<IpNet>>()
        });
        let mut all = Vec::new();
        if let (Some(_), Some(refusal)) = (&inside, &outside) {
            match sources {
                None => all.push(refusal.clone()),
                Some(sources) => {
                    let admitted = sources.iter();
                    all.extend(admitted.map(|source| refusal.clone().source(*source)));
                    all.push(drop());
                }
            }
            let outside = Vec::new();
            return Refusals { all, outside };
        }
        if let Some(sources) = sources {
            let admitted = sources.iter();
            let admitted = admitted.map(|source| Rule::default().source(*source));
            let rules = admitted.chain([drop()]).collect();
            all.push(self.refusing(port, Role::Firewall, rules));
        }
        all.push(Rule {
            states: States::INVALID,
            ..drop()
        });
        let outside = outside.map(|refusal| {
            let mut rules = self.pods(&Target::Return);
            rules.push(refusal);
            self.refusing(port, Role::Outside, rules)
        });
        Refusals {
            all,
            outside: outside.into_iter().collect(),
        }
    }

    /// Puts rules that depend on their order into a chain of their own, which has another name when they are others: a chain
    /// that has some of the old ones and some of the new ones would mean a third thing.
    fn refusing(&mut self, port: &Port, role: Role, rules: Vec<Rule>) -> Rule {
        let chain = port.chain_of(role, &rules);
        let rule = jump(&chain);
        self.rules.chains.insert((Table::Filter, chain), rules);
        rule
    }

    /// The chain that chooses one of the endpoints.
    fn choice(
        &mut self,
        port: &Port,
        role: Role,
        protocol: Protocol,
        endpoints: &[Endpoint],
        frontend: &Frontend,
    ) -> Arc<str> {
        let chain = port.chain(role);
        if self
            .rules
            .chains
            .contains_key(&(Table::Nat, Arc::clone(&chain)))
        {
            return chain;
        }
        let mut kept = Vec::new();
        let mut chosen = Vec::new();
        for (left, endpoint) in (1..).zip(endpoints.iter().rev()) {
            let to_endpoint = || {
                let comment = format!("{} -> {endpoint}", port.text());
                jump(&port.endpoint(endpoint)).comment(comment)
            };
            let list = || port.clients(role, endpoint);
            kept.extend(frontend.affinity_seconds.map(|seconds| Rule {
                recent: Some(Recent::Update {
                    list: list(),
                    seconds,
                }),
                ..to_endpoint()
            }));
            chosen.push(Rule {
                random: Probability::one_of(left),
                recent: frontend
                    .affinity_seconds
                    .map(|_| Recent::Set { list: list() }),
                ..to_endpoint()
            });
            self.endpoint(port, protocol, endpoint);
        }
        kept.reverse();
        chosen.reverse();
        self.rules.append(Table::Nat, &chain, kept);
        self.rules.append(Table::Nat, &chain, chosen);
        chain
    }

    /// The chain that leads to an endpoint.
    fn endpoint(&mut self, port: &Port, protocol: Protocol, endpoint: &Endpoint) {
        let itself = jump(&names::MARK_MASQUERADE.into()).source(endpoint.address.into());
        let translate = Rule {
            protocol: Some(protocol),
            ..Rule::to(Target::DestinationNat(SocketAddr::new(
                endpoint.address,
                endpoint.port.get(),
            )))
        };
        let rules = [itself, translate].map(|rule| rule.comment(port.text()));
        let chain = (Table::Nat, port.endpoint(endpoint));
        self.rules.chains.insert(chain, rules.into());
        self.answers.insert((*endpoint, protocol));
    }

    /// What is about addresses as a whole, and the trees.
    fn finish(&mut self, table: &ForwardingTable) {
        let mut left_alone = Vec::new();
        let cluster_ips: BTreeMap<IpAddr, UndefinedPort> = table.cluster_ips().collect();
        for (address, undefined) in cluster_ips {
            if !self.has(address) {
                continue;
            }
            let to = |target| Rule::to(target).destination(address.into());
            match undefined {
                UndefinedPort::Reject => {
                    let refused = to(Target::Reject).comment("no such port");
                    self.refused.entry(address).or_default().push(refused);
                }
                UndefinedPort::Leave => {
                    left_alone.push(to(Target::Return).comment("of another proxy"));
                }
            }
        }
        SERVICES.grow(mem::take(&mut self.services), &mut self.rules);
        OUTPUT.grow(mem::take(&mut self.output), &mut self.rules);
        REFUSED.grow(mem::take(&mut self.refused), &mut self.rules);
        OUTSIDE.grow(mem::take(&mut self.outside), &mut self.rules);
        ANSWERS.grow(self.answers(), &mut self.rules);

        let services: Arc<str> = names::SERVICES.into();
        for (table, chain) in [(Table::Nat, names::OUTPUT), (Table::Filter, names::OUTSIDE)] {
            self.rules.append(table, &chain.into(), [jump(&services)]);
        }
        self.rules.append(Table::Filter, &services, left_alone);
        let cidrs = self.context.service_cidrs.iter();
        let cidrs = cidrs.filter(|network| IpFamily::of(network.addr()) == self.family);
        let unallocated = cidrs.map(|network| {
            let drop = Rule::to(Target::Drop).destination(*network);
            drop.comment("no Service has the address")
        });
        self.rules.append(Table::Filter, &services, unallocated);
    }

    /// Answers outside of connections would reset them where they arrive.
    fn answers(&mut self) -> BTreeMap<IpAddr, Vec<Rule>> {
        let mut answers: BTreeMap<IpAddr, Vec<Rule>> = BTreeMap::new();
        for (endpoint, protocol) in mem::take(&mut self.answers) {
            let rule = Rule {
                protocol: Some(protocol),
                source_port: Some(endpoint.port),
                ..Rule::to(Target::Drop).source(endpoint.address.into())
            };
            answers.entry(endpoint.address).or_default().push(rule);
        }
        answers
    }
}

/// What flows to a frontend go through: all of them, and before that those of the node itself where that is something else.
struct Entries {
    all: Vec<Rule>,
    output: Vec<Rule>,
}

/// What becomes of flows to a frontend that are not forwarded: of all, and before that of those from outside of the node where
/// that is something else.
struct Refusals {
    all: Vec<Rule>,
    outside: Vec<Rule>,
}

fn kind(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp => "cluster IP",
        FrontendKind::LoadBalancer => "loadbalancer IP",
        FrontendKind::ExternalIp => "external IP",
        FrontendKind::NodePort => "node port",
    }
}

const SERVICES: Tree = Tree {
    table: Table::Nat,
    name: "D",
    root: names::SERVICES,
    end: End::Destination,
};
const OUTPUT: Tree = Tree {
    table: Table::Nat,
    name: "O",
    root: names::OUTPUT,
    end: End::Destination,
};
const REFUSED: Tree = Tree {
    table: Table::Filter,
    name: "D",
    root: names::SERVICES,
    end: End::Destination,
};
const OUTSIDE: Tree = Tree {
    table: Table::Filter,
    name: "X",
    root: names::OUTSIDE,
    end: End::Destination,
};
const ANSWERS: Tree = Tree {
    table: Table::Filter,
    name: "S",
    root: names::ANSWERS,
    end: End::Source,
};
/// The last bits of NodePorts that share a chain.
const PORTS_TOGETHER: u16 = 63;
