//! Where frontends are reached.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use config::address::IpFamily;
use config::name::ServiceKey;
use config::service::Protocol;
use proxy_table::{ForwardingTable, Frontend, FrontendKey, Place};

/// Where a frontend is reached.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Key {
    pub(super) address: IpAddr,
    pub(super) protocol: Protocol,
    pub(super) port: NonZeroU16,
}

/// A frontend where it is reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Reached {
    pub(super) service: ServiceKey,
    pub(super) frontend: Arc<Frontend>,
    /// Whether it is a NodePort, of which an address may have many.
    pub(super) on_node: bool,
}

impl Key {
    /// Before all others of an address.
    pub(super) fn first_of(address: IpAddr) -> Self {
        Self {
            address,
            protocol: Protocol::default(),
            port: NonZeroU16::MIN,
        }
    }

    /// The places where a frontend may be reached.
    pub(super) fn all(key: &FrontendKey, table: &ForwardingTable) -> Vec<Self> {
        let at = |address| Self {
            address,
            protocol: key.protocol,
            port: key.port,
        };
        match key.place {
            Place::Address(address) => vec![at(address)],
            Place::Node(family) => {
                let addresses = table.context().node_port_addresses.iter().copied();
                let of_family = addresses.filter(|address| IpFamily::of(*address) == family);
                of_family.map(at).collect()
            }
        }
    }
}

impl Reached {
    /// What is reached there: a frontend of an address goes before a NodePort on it.
    pub(super) fn find(table: &ForwardingTable, key: Key) -> Option<Self> {
        let find = |place, on_node| {
            let (service, frontend) = table.frontend(&FrontendKey {
                place,
                protocol: key.protocol,
                port: key.port,
            })?;
            Some(Self {
                service: service.clone(),
                frontend: Arc::clone(frontend),
                on_node,
            })
        };
        let offered = &table.context().node_port_addresses;
        let node_port = || {
            let place = Place::Node(IpFamily::of(key.address));
            let is_offered = offered.contains(&key.address);
            is_offered.then(|| find(place, true)).flatten()
        };
        find(Place::Address(key.address), false).or_else(node_port)
    }
}
