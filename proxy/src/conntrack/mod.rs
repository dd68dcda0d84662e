//! Connections that go to an endpoint that is gone, found and ended.
//!
//! The kernel keeps a flow on the endpoint of its first packet. TCP ends by itself when the endpoint goes; a client that
//! goes on sending UDP from one port would send into nothing for ever. So entries are compared with what the table says,
//! for the frontends that changed at once, and for all of them from time to time.
//!
//! When a whole node falls silent nothing ends TCP either: a client whose first segment went there sends it again for two
//! minutes, and the kernel sends it to the same dead endpoint each time. So of TCP those are ended that were never
//! answered: the next segment finds an endpoint that lives.

pub mod idle;
mod kernel;
mod tuple;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use config::address::IpFamily;
use config::service::Protocol;
use proxy_table::{Endpoint, FrontendKey, Place};

pub use kernel::{Cleaner, Sweep};

/// What the flows to some frontends may go to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Expected {
    /// For each frontend the endpoints that serve it; none if there is no such frontend any more.
    pub frontends: HashMap<FrontendKey, Option<Arc<BTreeSet<Endpoint>>>>,
    /// The addresses on which NodePorts are offered.
    pub node_port_addresses: BTreeSet<IpAddr>,
}

/// A tracked connection, as far as it matters here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The transport protocol.
    pub protocol: Protocol,
    /// Where the client sent its first packet.
    pub destination: SocketAddr,
    /// Who is to answer: the endpoint if there was one, otherwise the destination itself.
    pub answers: SocketAddr,
    /// Whether an answer was ever seen.
    pub answered: bool,
}

impl Expected {
    /// Takes in what is known later.
    pub fn merge(&mut self, later: Self) {
        self.frontends.extend(later.frontends);
        self.node_port_addresses = later.node_port_addresses;
    }

    /// Whether there is nothing to compare with.
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty()
    }

    /// Whether an entry keeps its client from reaching an endpoint.
    ///
    /// Those of a frontend that went are stale too, unless they never went through it: then they are somebody else's.
    pub fn is_stale(&self, entry: &Entry) -> bool {
        if entry.protocol == Protocol::Tcp && entry.answered {
            return false;
        }
        let answers = |endpoints: &BTreeSet<Endpoint>| {
            endpoints.iter().any(|endpoint| {
                SocketAddr::new(endpoint.address, endpoint.port.get()) == entry.answers
            })
        };
        match self.frontend_of(entry) {
            Some(Some(endpoints)) => !answers(endpoints),
            Some(None) => entry.answers != entry.destination,
            None => false,
        }
    }

    fn frontend_of(&self, entry: &Entry) -> Option<Option<&BTreeSet<Endpoint>>> {
        let at = |place| {
            let key = FrontendKey {
                place,
                protocol: entry.protocol,
                port: entry.destination.port().try_into().ok()?,
            };
            self.frontends.get(&key).map(Option::as_deref)
        };
        let address = entry.destination.ip();
        at(Place::Address(address)).or_else(|| {
            let offered = self.node_port_addresses.contains(&address);
            offered
                .then(|| at(Place::Node(IpFamily::of(address))))
                .flatten()
        })
    }
}

/// Whether flows of this protocol stay on an endpoint that is gone although its node lives.
pub fn outlives_its_endpoint(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Udp | Protocol::Sctp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Expected {
        let endpoint = |text: &str| {
            let address: SocketAddr = text.parse().unwrap();
            Endpoint {
                address: address.ip(),
                port: address.port().try_into().unwrap(),
            }
        };
        let key = |place, port: u16| FrontendKey {
            place,
            protocol: Protocol::Udp,
            port: port.try_into().unwrap(),
        };
        let address = |text: &str| Place::Address(text.parse().unwrap());
        let serving = Arc::new(BTreeSet::from([
            endpoint("10.244.1.2:5353"),
            endpoint("10.244.2.2:5353"),
        ]));
        Expected {
            frontends: HashMap::from([
                (key(address("10.96.0.10"), 53), Some(Arc::clone(&serving))),
                (key(Place::Node(IpFamily::V4), 30053), Some(serving)),
                (key(address("10.96.0.11"), 53), Some(Arc::default())),
                (key(address("10.96.0.12"), 53), None),
            ]),
            node_port_addresses: BTreeSet::from(["192.0.2.1".parse().unwrap()]),
        }
    }

    #[test]
    fn an_entry_is_stale_when_no_endpoint_of_its_frontend_answers() {
        for (destination, answers, stale) in [
            ("10.96.0.10:53", "10.244.1.2:5353", false),
            ("10.96.0.10:53", "10.244.2.2:5353", false),
            ("10.96.0.10:53", "10.244.2.2:53", true),
            ("10.96.0.10:53", "10.244.3.2:5353", true),
            // Made while the frontend had no endpoint.
            ("10.96.0.10:53", "10.96.0.10:53", true),
            ("10.96.0.11:53", "10.244.1.2:5353", true),
            ("192.0.2.1:30053", "10.244.1.2:5353", false),
            ("192.0.2.1:30053", "192.0.2.1:30053", true),
            // A node port of another node that this node only routes to.
            ("192.0.2.2:30053", "192.0.2.2:30053", false),
            // The frontend is gone: what went through it ends, what never did is not ours.
            ("10.96.0.12:53", "10.244.1.2:5353", true),
            ("10.96.0.12:53", "10.96.0.12:53", false),
            ("198.51.100.1:53", "198.51.100.1:53", false),
        ] {
            let entry = Entry {
                protocol: Protocol::Udp,
                destination: destination.parse().unwrap(),
                answers: answers.parse().unwrap(),
                answered: true,
            };
            assert_eq!(
                expected().is_stale(&entry),
                stale,
                "{destination} {answers}"
            );
            let tcp = Entry {
                protocol: Protocol::Tcp,
                ..entry
            };
            assert!(!expected().is_stale(&tcp));
        }
    }

    #[test]
    fn of_tcp_only_what_was_never_answered_is_stale() {
        let mut expected = expected();
        let frontends = expected.frontends.clone().into_iter();
        expected.frontends.extend(frontends.map(|(key, endpoints)| {
            let protocol = Protocol::Tcp;
            (FrontendKey { protocol, ..key }, endpoints)
        }));
        for (answers, answered, stale) in [
            ("10.244.1.2:5353", false, false),
            ("10.244.9.2:5353", true, false),
            ("10.244.9.2:5353", false, true),
        ] {
            let entry = Entry {
                protocol: Protocol::Tcp,
                destination: "10.96.0.10:53".parse().unwrap(),
                answers: answers.parse().unwrap(),
                answered,
            };
            assert_eq!(expected.is_stale(&entry), stale, "{answers} {answered}");
        }
    }
}
