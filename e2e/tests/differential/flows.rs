//! Random flows to what a table has, and to what it has not.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use config::address::IpFamily;
use config::name::ServiceKey;
use config::service::Protocol;
use e2e::random::Random;
use proxy_table::{Arrival, Flow, ForwardingTable, Frontend, FrontendKey, Outcome, Place, Verdict};

use crate::network::{
    NODE_ADDRESSES, POD_GATEWAYS, interface_of, is_own, local_pods, other_nodes, outsiders,
    remote_pods,
};
use crate::packet::Probe;
use crate::wire::{Entry, INTERFACES};

/// A client that asks for something, and its neighbours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Question {
    pub(crate) flow: Flow,
    entry: Entry,
    /// How many clients with addresses from the flow's on ask; each asks the same number of times.
    pub(crate) crowd: u8,
}

/// A source, and what it has asked for.
pub(crate) type Client = (IpAddr, IpAddr, NonZeroU16, Protocol);

/// The frontends of one table, in a fixed order.
pub(crate) type Targets = Vec<(FrontendKey, ServiceKey, Frontend)>;

impl Question {
    /// A question about one of the targets, or about something beside them.
    pub(crate) fn random(random: &mut Random, targets: &Targets, spec: &ForwardingTable) -> Self {
        let (destination, port, protocol, endpoints) = destination(random, targets);
        let (source, entry) = source(random, IpFamily::of(destination), &endpoints, destination);
        let arrival = match entry {
            Entry::Node => Arrival::Node,
            Entry::Interface(index) => Arrival::Interface(INTERFACES[index].into()),
        };
        let flow = Flow {
            source,
            source_port: 40_000,
            destination,
            port,
            protocol,
            arrival,
        };
        let mut question = Self {
            flow,
            entry,
            crowd: 1,
        };
        question.gather(spec);
        question
    }

    /// Where a client keeps its endpoint, one client does not show what there is to choose from: its neighbours do, if
    /// they are all treated as it is.
    fn gather(&mut self, spec: &ForwardingTable) {
        const SMALLEST_CROWD: usize = 64;
        /// With so many for each endpoint, one endpoint of eight is missed by all of them once in three million flows.
        const CLIENTS_OF_AN_ENDPOINT: usize = 16;
        let verdict = spec.verdict(&self.flow);
        let Verdict::Forward {
            destinations,
            affinity_seconds: Some(_),
        } = &verdict
        else {
            return;
        };
        let crowd = SMALLEST_CROWD.max(CLIENTS_OF_AN_ENDPOINT * destinations.len());
        let crowd = u8::try_from(crowd).unwrap_or(u8::MAX);
        let alike = |number| spec.verdict(&self.flow_of(number)) == verdict;
        if self.entry != Entry::Node && (1..crowd).all(alike) {
            self.crowd = crowd;
        }
    }

    /// Clients that have asked at the same place already may have kept what they had there, perhaps as somebody else (an
    /// address may come from outside and from a Pod's interface): they show nothing by their number.
    pub(crate) fn leave_out_known(&mut self, clients: &mut HashSet<Client>) {
        let Flow {
            destination,
            port,
            protocol,
            ..
        } = self.flow;
        let asking = (0..self.crowd).map(|number| {
            let source = neighbour(self.flow.source, number);
            (source, destination, port, protocol)
        });
        let known = asking.filter(|client| !clients.insert(*client)).count();
        if known > 0 {
            self.crowd = 1;
        }
    }

    /// The flow of one of the crowd.
    pub(crate) fn flow_of(&self, number: u8) -> Flow {
        Flow {
            source: neighbour(self.flow.source, number),
            ..self.flow.clone()
        }
    }

    /// One packet for each of `draws` connections, spread over the crowd; source ports from `first_port` on.
    pub(crate) fn probes(
        &self,
        draws: u16,
        first_port: u16,
    ) -> impl Iterator<Item = (Entry, Probe)> {
        let crowd = u16::from(self.crowd);
        (0..draws).map(move |draw| {
            let flow = self.flow_of(u8::try_from(draw % crowd).unwrap_or(0));
            let probe = Probe {
                source: SocketAddr::new(flow.source, first_port + draw),
                destination: SocketAddr::new(flow.destination, flow.port.get()),
                protocol: flow.protocol,
                number: 0,
            };
            (self.entry, probe)
        })
    }
}

fn neighbour(address: IpAddr, number: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => (u32::from(address) + u32::from(number))
            .to_be_bytes()
            .into(),
        IpAddr::V6(address) => (u128::from(address) + u128::from(number))
            .to_be_bytes()
            .into(),
    }
}

type Destination = (IpAddr, NonZeroU16, Protocol, Vec<IpAddr>);

fn destination(random: &mut Random, targets: &Targets) -> Destination {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let family = pick(random, &[IpFamily::V4, IpFamily::V6]);
    let number = |port: u16| NonZeroU16::new(port).expect("not zero");
    let beside = random.below(10) == 0 || targets.is_empty();
    if beside && random.one_in(3) {
        let choices = match family {
            // In the network of Services, and nobody's; an endpoint; the node.
            IpFamily::V4 => [
                "10.96.240.1",
                "10.244.2.16",
                "10.244.1.16",
                "192.168.1.11",
                "10.244.1.1",
            ],
            IpFamily::V6 => [
                "fd12:3456:789a:10::f001",
                "fd12:3456:789a:f402::10",
                "fd12:3456:789a:f401::10",
                "fd12:3456:789a:1::11",
                "fd12:3456:789a:f401::1",
            ],
        };
        let address = pick(random, &choices).parse().expect("an address");
        let port = pick(random, &[80, 8080, 30_000, 1000, 443]);
        return (address, number(port), pick(random, &protocols), Vec::new());
    }
    if targets.is_empty() {
        let address = if family == IpFamily::V4 {
            "198.18.0.1"
        } else {
            "2001:db8:100::1"
        };
        return (
            address.parse().expect("an address"),
            number(80),
            Protocol::Tcp,
            Vec::new(),
        );
    }
    let at = usize::from(random.below(u16::try_from(targets.len()).unwrap_or(u16::MAX)));
    let (key, _, frontend) = &targets[at];
    let address = match key.place {
        Place::Address(address) => address,
        // Also an address where NodePorts may not be offered.
        Place::Node(family) => {
            let of_family = |address: &&IpAddr| IpFamily::of(**address) == family;
            let all = NODE_ADDRESSES.iter().chain(&POD_GATEWAYS);
            let own: Vec<IpAddr> = all.filter(of_family).copied().collect();
            pick(random, &own)
        }
    };
    let endpoints = [&frontend.inside, &frontend.outside]
        .into_iter()
        .flat_map(Outcome::endpoints)
        .map(|endpoint| endpoint.address)
        .collect();
    if beside {
        // The same address at another port or by another protocol.
        let port = if random.one_in(2) {
            key.port
        } else {
            number(999)
        };
        return (address, port, pick(random, &protocols), endpoints);
    }
    (address, key.port, key.protocol, endpoints)
}

fn source(
    random: &mut Random,
    family: IpFamily,
    endpoints: &[IpAddr],
    destination: IpAddr,
) -> (IpAddr, Entry) {
    const OUTSIDE: Entry = Entry::Interface(0);
    let local = local_pods(family);
    let own = |addresses: [IpAddr; 2]| addresses[usize::from(family == IpFamily::V6)];
    match random.below(16) {
        0..5 => (pick(random, &outsiders(family)), OUTSIDE),
        5 => (pick(random, &other_nodes(family)), OUTSIDE),
        6 => (pick(random, &remote_pods(family)).1, OUTSIDE),
        7..10 => {
            let pod = pick(random, &local);
            (pod, interface_of(pod))
        }
        // An endpoint that asks for its own Service.
        10 | 11 => {
            let here: Vec<IpAddr> = endpoints
                .iter()
                .copied()
                .filter(|one| local.contains(one))
                .collect();
            let pod = random.choose(&here).copied().unwrap_or(local[0]);
            (pod, interface_of(pod))
        }
        // An outsider behind a Pod's interface.
        12 => (
            pick(random, &outsiders(family)),
            Entry::Interface(1 + usize::from(random.below(2))),
        ),
        // The node asks for an address of its own, from that very address.
        13 if is_own(destination) => (destination, Entry::Node),
        14 => (own(POD_GATEWAYS), Entry::Node),
        _ => (own(NODE_ADDRESSES), Entry::Node),
    }
}

fn pick<T: Copy>(random: &mut Random, choices: &[T]) -> T {
    *random.choose(choices).expect("choices")
}
