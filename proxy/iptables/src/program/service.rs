//! The chains of one Service: what flows to its frontends go through, and what becomes of those that are refused.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use config::service::{Protocol, TrafficPolicy};
use ipnet::IpNet;
use proxy_table::{Endpoint, Frontend, FrontendKind, Masquerade, Outcome};

use super::base::Surroundings;
use super::names::{self, Port, Role};
use super::reached::{Key, Reached};
use super::tree::{OUTPUT, OUTSIDE, REFUSED, SERVICES, Tree};
use super::{Ruleset, Table, jump};
use crate::rule::{Probability, Recent, Rule, States, Target};

/// Makes the chains of frontends.
#[derive(Debug)]
pub(super) struct Compiler<'a> {
    surroundings: Surroundings<'a>,
    /// The chains so far.
    pub(super) rules: Ruleset,
    /// Who answers.
    pub(super) answers: BTreeSet<(Endpoint, Protocol)>,
}

impl<'a> Compiler<'a> {
    pub(super) fn new(surroundings: Surroundings<'a>) -> Self {
        Self {
            surroundings,
            rules: Ruleset::default(),
            answers: BTreeSet::new(),
        }
    }

    /// Makes the chains of a frontend; the rules that lead there, for each tree in which its address is found.
    pub(super) fn frontend(&mut self, key: Key, reached: &Reached) -> [(Tree, Vec<Rule>); 4] {
        let frontend = &reached.frontend;
        let port = Port::new(&reached.service, &frontend.port, key.protocol);
        let comment: Arc<str> = format!("{} {}", port.text(), kind(frontend.kind)).into();
        let matching = |rule: Rule| Rule {
            protocol: Some(key.protocol),
            destination_ports: Some((key.port, key.port)),
            comment: Some(Arc::clone(&comment)),
            ..rule.destination(key.address.into())
        };
        let entries = self.entries(&port, key.protocol, frontend);
        let refusals = self.refusals(&port, frontend);
        [
            (SERVICES, entries.all),
            (OUTPUT, entries.output),
            (REFUSED, refusals.all),
            (OUTSIDE, refusals.outside),
        ]
        .map(|(tree, rules)| (tree, rules.into_iter().map(matching).collect()))
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
        let mut all = Vec::new();
        if inside.is_some() || outside.is_some() {
            all.extend(mark(frontend.masquerade));
        }
        if splits {
            all.extend(
                inside
                    .iter()
                    .flat_map(|chain| self.surroundings.pods(&Target::Jump(Arc::clone(chain)))),
            );
        }
        all.extend(outside.iter().map(jump));

        let mut output = Vec::new();
        if splits || frontend.masquerade == Masquerade::OnlyNode {
            if let Some(inside) = &inside {
                output.extend(mark_of_node(frontend.masquerade));
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
        let of_family = sources
            .iter()
            .filter(|source| self.surroundings.has(source.addr()));
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
            let of_family = sources.filter(|source| self.surroundings.has(source.addr()));
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
            let mut rules = self.surroundings.pods(&Target::Return);
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

/// Marks flows whose source is to be replaced.
fn mark(masquerade: Masquerade) -> Option<Rule> {
    let chain = match masquerade {
        Masquerade::Always => names::MARK_MASQUERADE,
        Masquerade::UnlessPod => names::MARK_OUTSIDE,
        Masquerade::OnlyNode | Masquerade::OnlyHairpin => return None,
    };
    Some(jump(&chain.into()))
}

/// The same for flows of the node itself.
fn mark_of_node(masquerade: Masquerade) -> Option<Rule> {
    match masquerade {
        Masquerade::OnlyNode => Some(jump(&names::MARK_OUTSIDE.into())),
        other => mark(other),
    }
}

fn kind(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp => "cluster IP",
        FrontendKind::LoadBalancer => "loadbalancer IP",
        FrontendKind::ExternalIp => "external IP",
        FrontendKind::NodePort => "node port",
    }
}
