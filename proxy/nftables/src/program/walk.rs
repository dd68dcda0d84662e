//! Packets through a program: an interpreter of its rules.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};

use config::address::IpFamily;
use proxy_table::{Arrival, Destination, Endpoint, Flow, Verdict};

use crate::netlink::expression::{CtKey, Expression, MetaKey, PayloadBase, Register, RuleVerdict};
use crate::netlink::message::ElementData;
use crate::program::item::{Item, Value};
use crate::program::{Program, encode, rules, schema};

/// What somebody behind the rules may send a flow to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Choice {
    /// The endpoints to choose from; the flow is rejected if there are none.
    pub endpoints: Vec<Endpoint>,
    /// Seconds for which the client keeps its endpoint.
    pub affinity_seconds: Option<NonZeroU32>,
}

impl Program {
    /// What becomes of a flow, whatever is drawn by lot.
    pub fn walk(&self, flow: &Flow) -> Verdict {
        self.walk_with(flow, &|_| None)
    }

    /// What becomes of a flow where somebody stands behind the rules who may send on what they leave alone.
    pub fn walk_with(&self, flow: &Flow, behind: &dyn Fn(&Flow) -> Option<Choice>) -> Verdict {
        let mut destinations = BTreeSet::new();
        let mut draw = 0;
        loop {
            let (end, lots) = self.send_with(flow, draw, &mut HashMap::new(), behind);
            let affinity_seconds = match end {
                End::Delivered(destination, seconds) => {
                    destinations.insert(destination);
                    seconds
                }
                End::Rejected => return Verdict::Reject,
                End::Dropped => return Verdict::Drop,
                End::Untouched => return Verdict::NotOurs,
            };
            draw += 1;
            if draw >= lots {
                let destinations = destinations.into_iter().collect();
                return Verdict::Forward {
                    destinations,
                    affinity_seconds,
                };
            }
        }
    }

    /// One packet where nobody stands behind the rules, the lot that it draws, and what the map of clients has before and after; with how many lots there are.
    #[cfg(test)]
    pub(crate) fn send(
        &self,
        flow: &Flow,
        draw: u32,
        clients: &mut HashMap<Vec<u8>, Vec<u8>>,
    ) -> (End, u32) {
        self.send_with(flow, draw, clients, &|_| None)
    }

    fn send_with(
        &self,
        flow: &Flow,
        draw: u32,
        clients: &mut HashMap<Vec<u8>, Vec<u8>>,
        behind: &dyn Fn(&Flow) -> Option<Choice>,
    ) -> (End, u32) {
        let mut walk = Walk {
            program: self,
            family: IpFamily::of(flow.destination),
            flow,
            destination: (flow.destination, flow.port),
            translated: false,
            masqueraded: false,
            priority: [0; 4],
            clients,
            kept_seconds: None,
            draw,
            lots: 1,
        };
        let end = walk.path(behind);
        (end, walk.lots)
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    Delivered(Destination, Option<NonZeroU32>),
    Rejected,
    Dropped,
    Untouched,
}

/// Where a packet goes on after a chain or a rule.
enum Next {
    /// With what comes behind.
    On,
    /// With the chain that jumped here.
    Back,
    /// Nowhere in this hook: accepted or translated.
    Done,
    End(End),
    Chain(String),
    ChainAndBack(String),
}

struct Walk<'a> {
    program: &'a Program,
    family: IpFamily,
    flow: &'a Flow,
    destination: (IpAddr, NonZeroU16),
    translated: bool,
    masqueraded: bool,
    priority: [u8; 4],
    clients: &'a mut HashMap<Vec<u8>, Vec<u8>>,
    kept_seconds: Option<NonZeroU32>,
    draw: u32,
    lots: u32,
}

type Registers = [u8; 64];

impl Walk<'_> {
    fn path(&mut self, behind: &dyn Fn(&Flow) -> Option<Choice>) -> End {
        let (filter, nat) = match self.flow.arrival {
            Arrival::Node => ("filter-output", rules::OUTPUT),
            Arrival::Interface(_) => ("filter-prerouting", rules::PREROUTING),
        };
        for chain in [filter, nat] {
            if let Next::End(end) = self.chain(chain) {
                return end;
            }
        }
        let mut sent_on = false;
        if !self.translated
            && let Some(choice) = behind(self.flow)
        {
            let count = u32::try_from(choice.endpoints.len()).unwrap_or(u32::MAX);
            self.lots = self.lots.max(count);
            let drawn = self.draw.checked_rem(count).unwrap_or(0);
            let Some(endpoint) = usize::try_from(drawn)
                .ok()
                .and_then(|drawn| choice.endpoints.get(drawn))
            else {
                return End::Rejected;
            };
            self.destination = (endpoint.address, endpoint.port);
            self.kept_seconds = choice.affinity_seconds;
            sent_on = true;
        }
        if let Next::End(end) = self.chain(rules::POSTROUTING) {
            return end;
        }
        if !self.translated && !sent_on {
            return End::Untouched;
        }
        let (address, port) = self.destination;
        let endpoint = Endpoint { address, port };
        End::Delivered(
            Destination {
                endpoint,
                masqueraded: self.masqueraded,
            },
            self.kept_seconds,
        )
    }

    fn chain(&mut self, name: &str) -> Next {
        let program = self.program;
        let rules = program.chains.get(&(self.family, name.to_owned()));
        for rule in rules.into_iter().flatten() {
            match self.rule(rule) {
                Next::On => {}
                Next::Chain(chain) => return self.chain(&chain),
                Next::ChainAndBack(chain) => match self.chain(&chain) {
                    Next::On | Next::Back => {}
                    end => return end,
                },
                end => return end,
            }
        }
        Next::Back
    }

    fn rule(&mut self, rule: &[Expression]) -> Next {
        let mut registers = [0; 64];
        for expression in rule {
            match self.step(expression, &mut registers) {
                Some(Next::On) => {}
                // A rule that does not match ends, and the next one follows.
                None => return Next::On,
                Some(next) => return next,
            }
        }
        Next::On
    }

    fn step(&mut self, expression: &Expression, registers: &mut Registers) -> Option<Next> {
        match expression {
            Expression::Payload {
                to, base, offset, ..
            } => {
                let octets = self.payload(*base, *offset)?;
                load(registers, *to, &octets);
            }
            Expression::MetaLoad { to, key } => {
                let octets = self.meta(*key);
                load(registers, *to, &octets);
            }
            Expression::MetaSet {
                from,
                key: MetaKey::Priority,
            } => {
                self.priority = *at(registers, *from).first_chunk()?;
            }
            Expression::CtLoad { to, key } => {
                let octets = self.connection(*key);
                load(registers, *to, &octets);
            }
            Expression::Immediate { to, value } => load(registers, *to, value),
            Expression::Verdict(verdict) => return Some(next(verdict)),
            Expression::Compare {
                register,
                equal,
                value,
            } => {
                let same = at(registers, *register).starts_with(value);
                (same == *equal).then_some(())?;
            }
            Expression::Mask { register, mask } => {
                let octets: [u8; 4] = *at(registers, *register).first_chunk()?;
                let masked: Vec<u8> = octets
                    .iter()
                    .zip(mask)
                    .map(|(octet, mask)| octet & mask)
                    .collect();
                load(registers, *register, &masked);
            }
            Expression::Member {
                register,
                set,
                inverted,
            } => {
                let found = self.look_up(set, at(registers, *register)).is_some();
                (found != *inverted).then_some(())?;
            }
            Expression::Map { register, map, to } => {
                match self.look_up(map, at(registers, *register))?? {
                    ElementData::Value(octets) => load(registers, *to, &octets),
                    ElementData::Verdict(_) => return None,
                }
            }
            Expression::VerdictMap { register, map } => {
                match self.look_up(map, at(registers, *register))?? {
                    ElementData::Verdict(verdict) => return Some(next(&verdict)),
                    ElementData::Value(_) => return None,
                }
            }
            Expression::Random {
                to,
                modulus,
                offset,
            } => {
                self.lots = self.lots.max(*modulus);
                let drawn = offset + self.draw.checked_rem(*modulus)?;
                load(registers, *to, &drawn.to_ne_bytes());
            }
            Expression::DestinationNat { address, port, .. } => {
                let address = encode::decode_address(self.family, at(registers, *address))?;
                let port = u16::from_be_bytes(*at(registers, *port).first_chunk()?);
                self.destination = (address, NonZeroU16::new(port)?);
                self.translated = true;
                return Some(Next::Done);
            }
            Expression::MasqueradeFullyRandom => {
                self.masqueraded = true;
                return Some(Next::Done);
            }
            Expression::RejectPort { .. } => return Some(Next::End(End::Rejected)),
            Expression::Remember {
                key,
                map,
                value,
                timeout_ms,
            } => {
                let length = schema::set_shape(map, self.family).key_length;
                let key = at(registers, *key).get(..usize::try_from(length).ok()?)?;
                self.clients
                    .insert(key.to_vec(), at(registers, *value).get(..4)?.to_vec());
                self.kept_seconds = NonZeroU32::new(u32::try_from(timeout_ms / 1000).ok()?);
            }
            Expression::Forget { key, map, .. } => {
                let length = schema::set_shape(map, self.family).key_length;
                let key = at(registers, *key).get(..usize::try_from(length).ok()?)?;
                self.clients.remove(key);
            }
            Expression::MetaSet { .. }
            | Expression::Greater { .. }
            | Expression::Replace { .. }
            | Expression::PayloadSet { .. }
            | Expression::Duplicate { .. }
            | Expression::Foreign(_) => return None,
        }
        Some(Next::On)
    }

    fn payload(&self, base: PayloadBase, offset: u8) -> Option<Vec<u8>> {
        let port = |port: u16| Some(port.to_be_bytes().to_vec());
        match (base, offset, self.family) {
            (PayloadBase::Network, 12, IpFamily::V4) | (PayloadBase::Network, 8, IpFamily::V6) => {
                Some(octets(self.flow.source))
            }
            (PayloadBase::Network, 16, IpFamily::V4) | (PayloadBase::Network, 24, IpFamily::V6) => {
                Some(octets(self.destination.0))
            }
            (PayloadBase::Transport, 0, _) => port(self.flow.source_port),
            (PayloadBase::Transport, 2, _) => port(self.destination.1.get()),
            _ => None,
        }
    }

    fn meta(&self, key: MetaKey) -> Vec<u8> {
        match (key, &self.flow.arrival) {
            (MetaKey::Priority, _) => self.priority.to_vec(),
            (MetaKey::TransportProtocol, _) => vec![self.flow.protocol.number()],
            (MetaKey::InputInterface, Arrival::Node) => vec![0; 4],
            (MetaKey::InputInterface, Arrival::Interface(_)) => 7_u32.to_ne_bytes().to_vec(),
            (MetaKey::InputInterfaceName, arrival) => {
                let mut name = match arrival {
                    Arrival::Node => Vec::new(),
                    Arrival::Interface(name) => name.as_bytes().to_vec(),
                };
                name.resize(16, 0);
                name
            }
        }
    }

    fn connection(&self, key: CtKey) -> Vec<u8> {
        match key {
            // `NF_CT_STATE_BIT(IP_CT_NEW)`.
            CtKey::State => 8_u32.to_ne_bytes().to_vec(),
            CtKey::Status => (u32::from(self.translated) << 5).to_ne_bytes().to_vec(),
            CtKey::OriginalDestination4 | CtKey::OriginalDestination6 => {
                octets(self.flow.destination)
            }
            CtKey::OriginalDestinationPort => self.flow.port.get().to_be_bytes().to_vec(),
        }
    }

    /// The value of the element with this key; `Some(None)` in a set.
    fn look_up(&self, set: &str, key: &[u8]) -> Option<Option<ElementData>> {
        let elements = &self.program.elements;
        let names = schema::SETS;
        let known = names.into_iter().find(|known| *known == set)?;
        let length = schema::set_shape(known, self.family).key_length;
        let key = key.get(..usize::try_from(length).ok()?)?;
        let in_some = |is_in: &dyn Fn(&Item) -> bool| elements.keys().any(is_in).then_some(None);
        match set {
            schema::AFFINITY => self
                .clients
                .get(key)
                .map(|value| Some(ElementData::Value(value.clone()))),
            schema::POD_NETWORKS => {
                let address = encode::decode_address(self.family, key)?;
                in_some(
                    &|item| matches!(item, Item::PodNetwork(network) if network.contains(&address)),
                )
            }
            schema::SERVICE_CIDRS => {
                let address = encode::decode_address(self.family, key)?;
                in_some(
                    &|item| matches!(item, Item::ServiceCidr(network) if network.contains(&address)),
                )
            }
            schema::SOURCES => {
                let (key, address) = encode::decode_source(self.family, key)?;
                in_some(
                    &|item| matches!(item, Item::Source(of, network) if *of == key && network.contains(&address)),
                )
            }
            _ => {
                let item = encode::decode_key(set, self.family, key)?;
                let value: Value = *elements.get(&item)?;
                Some(item.encode(value).pop()?.data)
            }
        }
    }
}

fn next(verdict: &RuleVerdict) -> Next {
    match verdict {
        RuleVerdict::Drop => Next::End(End::Dropped),
        RuleVerdict::Return => Next::Back,
        RuleVerdict::Jump(chain) => Next::ChainAndBack(chain.clone()),
        RuleVerdict::Goto(chain) => Next::Chain(chain.clone()),
    }
}

fn at(registers: &Registers, register: Register) -> &[u8] {
    registers
        .get(usize::from(register.0) * 4..)
        .unwrap_or_default()
}

/// Puts octets into as many registers as they fill, zeros behind them.
fn load(registers: &mut Registers, register: Register, octets: &[u8]) {
    let start = usize::from(register.0) * 4;
    let end = start + octets.len().next_multiple_of(4);
    if let Some(place) = registers.get_mut(start..end) {
        place.fill(0);
        for (place, octet) in place.iter_mut().zip(octets) {
            *place = *octet;
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
