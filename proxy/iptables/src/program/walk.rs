//! Packets through a program: an interpreter of its rules.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use config::address::IpFamily;
use proxy_table::{Arrival, Destination, Endpoint, Flow, Verdict};

use super::{Hook, Program, Ruleset, Table};
use crate::rule::{Probability, Recent, Rule, States, Target};

/// The lists of clients that packets write: who is in which.
pub(crate) type Clients = HashSet<(Arc<str>, IpAddr)>;

impl Program {
    /// What becomes of a flow whose client is in no list, whatever is drawn by lot.
    pub fn walk(&self, flow: &Flow) -> Verdict {
        let mut destinations = BTreeSet::new();
        let mut lots = Vec::new();
        let kept_seconds = loop {
            let seconds = match self.send(flow, &mut lots, &mut Clients::new()) {
                End::Delivered(destination, seconds) => {
                    destinations.insert(destination);
                    seconds
                }
                End::Rejected => return Verdict::Reject,
                End::Dropped => return Verdict::Drop,
                End::Untouched => return Verdict::NotOurs,
            };
            // The next of all outcomes of the lots: the last that missed hits.
            while lots.last().is_some_and(|lot: &Lot| lot.hits) {
                lots.pop();
            }
            match lots.last_mut() {
                Some(lot) => lot.hits = true,
                None => break seconds,
            }
        };
        Verdict::Forward {
            destinations: destinations.into_iter().collect(),
            affinity_seconds: kept_seconds,
        }
    }

    /// One packet. The lots that are there are drawn first, in their order; those that follow miss, and are added.
    pub(crate) fn send(&self, flow: &Flow, lots: &mut Vec<Lot>, clients: &mut Clients) -> End {
        let family = IpFamily::of(flow.destination);
        let Some(rules) = self.family(family) else {
            return End::Untouched;
        };
        let mut walk = Walk {
            rules,
            flow,
            destination: SocketAddr::new(flow.destination, flow.port.get()),
            translated: false,
            masqueraded: false,
            mark: 0,
            clients,
            seconds: HashMap::new(),
            kept_seconds: None,
            lots,
            drawn: 0,
        };
        walk.path()
    }
}

/// A lot that a packet drew.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Lot {
    pub(crate) probability: Probability,
    pub(crate) hits: bool,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    Delivered(Destination, Option<NonZeroU32>),
    Rejected,
    Dropped,
    Untouched,
}

/// Where a packet goes on after a rule or a chain.
enum Next {
    /// With the rule behind.
    On,
    /// Nowhere in this table's hook: accepted or translated.
    Done,
    End(End),
}

struct Walk<'a> {
    rules: &'a Ruleset,
    flow: &'a Flow,
    destination: SocketAddr,
    translated: bool,
    masqueraded: bool,
    mark: u32,
    clients: &'a mut Clients,
    /// For how long each list keeps clients, as far as rules have said.
    seconds: HashMap<Arc<str>, NonZeroU32>,
    kept_seconds: Option<NonZeroU32>,
    lots: &'a mut Vec<Lot>,
    drawn: usize,
}

impl Walk<'_> {
    fn path(&mut self) -> End {
        let path = match self.flow.arrival {
            Arrival::Node => [(Table::Nat, Hook::Output), (Table::Filter, Hook::Output)],
            Arrival::Interface(_) => [
                (Table::Nat, Hook::Prerouting),
                (Table::Filter, Hook::Forward),
            ],
        };
        for place in path.into_iter().chain([(Table::Nat, Hook::Postrouting)]) {
            let rules = self.rules.hooks.get(&place).map(Vec::as_slice);
            if let Next::End(end) = self.list(place.0, rules.unwrap_or_default()) {
                return end;
            }
        }
        match NonZeroU16::new(self.destination.port()) {
            Some(port) if self.translated => {
                let address = self.destination.ip();
                let destination = Destination {
                    endpoint: Endpoint { address, port },
                    masqueraded: self.masqueraded,
                };
                End::Delivered(destination, self.kept_seconds)
            }
            _ => End::Untouched,
        }
    }

    fn list(&mut self, table: Table, rules: &[Rule]) -> Next {
        for rule in rules {
            if !self.matches(rule) {
                continue;
            }
            match self.meet(table, &rule.target) {
                Some(Next::On) => {}
                Some(next) => return next,
                None => break,
            }
        }
        Next::On
    }

    /// What a target does; nothing if it returns.
    fn meet(&mut self, table: Table, target: &Target) -> Option<Next> {
        match target {
            Target::Return => return None,
            Target::Accept => return Some(Next::Done),
            Target::Drop => return Some(Next::End(End::Dropped)),
            Target::Reject => return Some(Next::End(End::Rejected)),
            Target::Jump(chain) => {
                let rules = self.rules.chain(table, chain).unwrap_or_default();
                return Some(self.list(table, rules));
            }
            Target::DestinationNat(endpoint) => {
                self.destination = *endpoint;
                self.translated = true;
                return Some(Next::Done);
            }
            Target::Masquerade { .. } => {
                self.masqueraded = true;
                return Some(Next::Done);
            }
            Target::SetMark(mark) => self.mark |= mark.0.get(),
            Target::FlipMark(mark) => self.mark ^= mark.0.get(),
            Target::Foreign(_) => {}
        }
        Some(Next::On)
    }

    fn matches(&mut self, rule: &Rule) -> bool {
        let Flow {
            source,
            source_port,
            protocol,
            arrival,
            ..
        } = self.flow;
        let input = match arrival {
            Arrival::Node => "",
            Arrival::Interface(name) => name,
        };
        let port = self.destination.port();
        // The flow is a connection's first packet.
        let state = States::NEW;
        rule.source.is_none_or(|network| network.contains(source))
            && rule
                .destination
                .is_none_or(|network| network.contains(&self.destination.ip()))
            && rule
                .input
                .as_ref()
                .is_none_or(|interface| interface.matches(input))
            && rule.protocol.is_none_or(|wanted| wanted == *protocol)
            && rule
                .source_port
                .is_none_or(|wanted| wanted.get() == *source_port)
            && rule
                .destination_ports
                .is_none_or(|(first, last)| (first.get()..=last.get()).contains(&port))
            && (rule.states.is_empty() || rule.states.contains(state))
            && (!rule.translated || self.translated)
            && rule
                .mark
                .is_none_or(|wanted| (self.mark & wanted.mark.0.get() != 0) == wanted.present)
            && rule.random.is_none_or(|probability| self.draw(probability))
            && rule
                .recent
                .as_ref()
                .is_none_or(|recent| self.look_up(recent))
    }

    fn draw(&mut self, probability: Probability) -> bool {
        if self.lots.len() == self.drawn {
            let hits = false;
            self.lots.push(Lot { probability, hits });
        }
        self.drawn += 1;
        self.lots.get(self.drawn - 1).is_some_and(|lot| lot.hits)
    }

    fn look_up(&mut self, recent: &Recent) -> bool {
        match recent {
            Recent::Update { list, seconds } => {
                self.seconds.insert(Arc::clone(list), *seconds);
                let known = self.clients.contains(&(Arc::clone(list), self.flow.source));
                if known {
                    self.kept_seconds = Some(*seconds);
                }
                known
            }
            Recent::Set { list } => {
                self.kept_seconds = self.seconds.get(list).copied();
                self.clients.insert((Arc::clone(list), self.flow.source));
                true
            }
        }
    }
}
