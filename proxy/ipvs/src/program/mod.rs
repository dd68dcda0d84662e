//! What IPVS and the routes should hold of ours, as values.

#[cfg(test)]
mod laws;
mod mirror;
mod refusals;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use config::address::IpFamily;
use config::scheduler::Scheduler;
use config::service::Protocol;
use proxy_nftables::{Choice, Key, LeftFlows, bound, effective, left_to_ipvs};
use proxy_table::{Endpoint, Flow, ForwardingTable, Frontend, Verdict};

pub use mirror::Mirror;
pub use refusals::{Refusal, Refusals};

/// Virtual servers, and the addresses that the node has for them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Program {
    /// One for each frontend, also where it has no endpoint: connections to former ones live on in it.
    pub servers: BTreeMap<Key, Server>,
    /// Addresses that are routed to the node, and the source of what the node itself sends there.
    pub addresses: BTreeMap<IpAddr, Option<IpAddr>>,
}

/// A virtual server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Server {
    /// How it chooses.
    pub scheduler: Scheduler,
    /// Seconds for which a client keeps its endpoint.
    pub persistence_seconds: Option<NonZeroU32>,
    /// Real servers, and their weight: 1, or 0 where connections live on and none begins.
    pub endpoints: BTreeMap<Endpoint, u32>,
    /// Whether it was made by somebody else, or by another version: it is to be made ours.
    pub foreign: bool,
}

/// What has to be known beside the table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Surroundings {
    /// The addresses that the node has of its own, whatever Services say.
    pub own: Arc<BTreeSet<IpAddr>>,
    /// How servers choose whose Service says nothing of it.
    pub scheduler: Scheduler,
    /// Schedulers that the kernel does not have: a Service that names one is served as if it named none.
    pub missing: BTreeSet<Scheduler>,
}

/// One step towards another program.
#[expect(missing_docs, reason = "the names say it")]
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Command {
    AddServer(Key, Scheduler, Option<NonZeroU32>),
    SetServer(Key, Scheduler, Option<NonZeroU32>),
    RemoveServer(Key),
    AddEndpoint(Key, Endpoint),
    SetWeight(Key, Endpoint, u32),
    RemoveEndpoint(Key, Endpoint),
    AddAddress(IpAddr, Option<IpAddr>),
    RemoveAddress(IpAddr),
}

/// The steps from one program to another.
///
/// Whatever is between two of them, a flow meets no endpoint that it would meet neither before nor after.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Change {
    /// What comes, before the rules change, and what goes of servers that outsiders meet.
    pub before: Vec<Command>,
    /// What goes, once the rules have changed, and what comes to servers that outsiders do not meet.
    pub after: Vec<Command>,
}

impl Change {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }

    /// All of them, in their order.
    pub fn steps(&self) -> impl Iterator<Item = &Command> {
        self.before.iter().chain(&self.after)
    }

    /// Whether the kernel did any of them.
    pub fn came_to_something(&self, refused: &Refusals) -> bool {
        self.steps().any(|step| refused.let_through(step))
    }

    /// The steps from one server to another at the same place.
    ///
    /// Where Pods and outsiders have different endpoints, the flows that the rules leave may be others than before. A server that
    /// outsiders meet next has all of its endpoints and no others when the rules change; another keeps what it has until then, if anything:
    /// so no outsider meets what only Pods may, and it always has an endpoint of before or after.
    fn add_server(
        &mut self,
        key: Key,
        held: Option<&Server>,
        next: Option<&Server>,
        outsiders_come: bool,
    ) {
        let Some(next) = next else {
            if held.is_some_and(|held| !held.foreign) {
                self.after.push(Command::RemoveServer(key));
            }
            return;
        };
        let (scheduler, seconds) = (next.scheduler, next.persistence_seconds);
        match held {
            None => {
                let add = Command::AddServer(key, scheduler, seconds);
                self.before.push(add);
            }
            Some(held) if held.head() != next.head() => {
                let set = Command::SetServer(key, scheduler, seconds);
                self.before.push(set);
            }
            Some(_) => {}
        }
        let nobody = BTreeMap::new();
        let held = held.map_or(&nobody, |held| &held.endpoints);
        let was_idle = held.values().all(|weight| *weight == 0);
        let additions = next.additions(key, held);
        match outsiders_come || was_idle {
            true => self.before.extend(additions),
            false => self.after.extend(additions),
        }
        let removals = next.removals(key, held);
        match outsiders_come {
            true => self.before.extend(removals),
            false => self.after.extend(removals),
        }
    }

    fn add_address(
        &mut self,
        address: IpAddr,
        held: Option<&Option<IpAddr>>,
        next: Option<&Option<IpAddr>>,
    ) {
        match (held, next) {
            (held, Some(source)) if held != Some(source) => {
                if held.is_some() {
                    self.before.push(Command::RemoveAddress(address));
                }
                self.before.push(Command::AddAddress(address, *source));
            }
            (Some(_), None) => self.after.push(Command::RemoveAddress(address)),
            _ => {}
        }
    }
}

impl Server {
    /// The server that a frontend has.
    fn of(frontend: &Frontend, surroundings: &Surroundings) -> Self {
        let endpoints = left_to_ipvs(frontend).map(|(_, endpoints)| endpoints);
        let endpoints = endpoints.into_iter().flat_map(|set| set.iter());
        let named = frontend.scheduler;
        let named = named.filter(|scheduler| !surroundings.missing.contains(scheduler));
        Self {
            scheduler: named.unwrap_or(surroundings.scheduler),
            persistence_seconds: frontend.affinity_seconds,
            endpoints: endpoints.map(|endpoint| (*endpoint, 1)).collect(),
            foreign: false,
        }
    }

    /// The steps to endpoints that flows begin at.
    fn additions(&self, key: Key, held: &BTreeMap<Endpoint, u32>) -> impl Iterator<Item = Command> {
        self.endpoints
            .iter()
            .filter_map(move |(endpoint, weight)| match held.get(endpoint) {
                None => Some(Command::AddEndpoint(key, *endpoint)),
                Some(held) if held != weight => Some(Command::SetWeight(key, *endpoint, *weight)),
                Some(_) => None,
            })
    }

    /// The steps away from those that are held and no more of the server: where connections end by themselves they may.
    fn removals(&self, key: Key, held: &BTreeMap<Endpoint, u32>) -> impl Iterator<Item = Command> {
        let drains =
            key.protocol == Protocol::Tcp && self.scheduler != Scheduler::DestinationHashing;
        let gone = held
            .iter()
            .filter(|(endpoint, _)| !self.endpoints.contains_key(endpoint));
        gone.filter_map(move |(endpoint, weight)| match (drains, weight) {
            (false, _) => Some(Command::RemoveEndpoint(key, *endpoint)),
            (true, 0) => None,
            (true, _) => Some(Command::SetWeight(key, *endpoint, 0)),
        })
    }

    fn head(&self) -> (Scheduler, Option<NonZeroU32>, bool) {
        (self.scheduler, self.persistence_seconds, self.foreign)
    }
}

impl Program {
    /// Whether two readings have the same of ours; servers of others do not count.
    pub fn has_the_same_of_ours(&self, other: &Self) -> bool {
        let ours = |(_, server): &(&Key, &Server)| !server.foreign;
        let of_self = self.servers.iter().filter(ours);
        of_self.eq(other.servers.iter().filter(ours)) && self.addresses == other.addresses
    }

    /// Translates a table. Total: every table has a program.
    pub fn compile(table: &ForwardingTable, surroundings: &Surroundings) -> Self {
        let mut program = Self::default();
        for (key, frontend) in effective(table) {
            let server = Server::of(frontend, surroundings);
            program.servers.insert(key, server);
            if let Some(address) = bound(key, frontend, &surroundings.own) {
                let source = source(table, address, surroundings);
                program.addresses.insert(address, source);
            }
        }
        program
    }

    /// The steps from `self` to `next`. Endpoints that are only waiting for their connections to end are not missed.
    /// The table is the one that `next` is compiled from.
    pub fn diff(&self, next: &Self, table: &ForwardingTable) -> Change {
        let outsiders_come = effective(table).filter(|(_, frontend)| outsiders_come(frontend));
        let outsiders_come: BTreeSet<Key> = outsiders_come.map(|(key, _)| key).collect();
        let mut change = Change::default();
        let keys: BTreeSet<_> = self.servers.keys().chain(next.servers.keys()).collect();
        for key in keys {
            let (held, next) = (self.servers.get(key), next.servers.get(key));
            change.add_server(*key, held, next, outsiders_come.contains(key));
        }
        let addresses: BTreeSet<_> = self.addresses.keys().chain(next.addresses.keys()).collect();
        for address in addresses {
            let (held, next) = (self.addresses.get(address), next.addresses.get(address));
            change.add_address(*address, held, next);
        }
        change
    }

    /// What is left after a change of which the kernel refused some steps.
    pub fn apply_all(&mut self, change: &Change, refused: &Refusals) {
        for step in change.steps().filter(|step| refused.let_through(step)) {
            self.apply(step);
        }
    }

    /// What is left after a step.
    pub fn apply(&mut self, command: &Command) {
        match *command {
            Command::AddServer(key, scheduler, persistence_seconds)
            | Command::SetServer(key, scheduler, persistence_seconds) => {
                let server = self.servers.entry(key).or_default();
                server.scheduler = scheduler;
                server.persistence_seconds = persistence_seconds;
                server.foreign = false;
            }
            Command::RemoveServer(key) => {
                self.servers.remove(&key);
            }
            Command::AddEndpoint(key, endpoint) => self.weigh(key, endpoint, 1),
            Command::SetWeight(key, endpoint, weight) => self.weigh(key, endpoint, weight),
            Command::RemoveEndpoint(key, endpoint) => {
                if let Some(server) = self.servers.get_mut(&key) {
                    server.endpoints.remove(&endpoint);
                }
            }
            Command::AddAddress(address, source) => {
                self.addresses.insert(address, source);
            }
            Command::RemoveAddress(address) => {
                self.addresses.remove(&address);
            }
        }
    }

    fn weigh(&mut self, key: Key, endpoint: Endpoint, weight: u32) {
        if let Some(server) = self.servers.get_mut(&key) {
            server.endpoints.insert(endpoint, weight);
        }
    }

    /// What becomes of a flow behind these rules, whatever is chosen.
    pub fn walk(&self, rules: &proxy_nftables::Program, flow: &Flow) -> Verdict {
        rules.walk_with(flow, &|flow| self.choose(flow))
    }

    /// What IPVS does with a flow that the rules leave: nothing unless there is a server for it.
    fn choose(&self, flow: &Flow) -> Option<Choice> {
        let server = self.servers.get(&Key {
            address: flow.destination,
            protocol: flow.protocol,
            port: flow.port,
        })?;
        let weighty = server.endpoints.iter().filter(|(_, weight)| **weight > 0);
        Some(Choice {
            endpoints: weighty.map(|(endpoint, _)| *endpoint).collect(),
            affinity_seconds: server.persistence_seconds,
        })
    }

    /// Those whose connections are to end before they go.
    pub fn drained(&self) -> impl Iterator<Item = (Key, Endpoint)> {
        self.servers.iter().flat_map(|(key, server)| {
            let weightless = server.endpoints.iter().filter(|(_, weight)| **weight == 0);
            weightless.map(|(endpoint, _)| (*key, *endpoint))
        })
    }
}

/// Whether the rules leave flows of outsiders to IPVS.
fn outsiders_come(frontend: &Frontend) -> bool {
    left_to_ipvs(frontend).is_some_and(|(flows, _)| flows != LeftFlows::Inside)
}

/// The source of what the node itself sends to an address: its own first one of the family, as on any other way out.
fn source(table: &ForwardingTable, to: IpAddr, surroundings: &Surroundings) -> Option<IpAddr> {
    let mut addresses = table.context().addresses.iter();
    let is_possible = |address: &&IpAddr| {
        IpFamily::of(**address) == IpFamily::of(to) && surroundings.own.contains(*address)
    };
    addresses.find(is_possible).copied()
}
