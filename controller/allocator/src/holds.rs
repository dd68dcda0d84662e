//! Addresses of deleted Services that are held for a while for those of the same name (`holdAfterDeletion`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::name::ServiceKey;
use jiff::Timestamp;

/// An address that is held for a Service which was deleted.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Hold {
    /// The address.
    pub address: IpAddr,
    /// The Service that gets it back if it is created again.
    pub service: ServiceKey,
    /// When the hold ends.
    pub until: Timestamp,
}

/// All holds, in the orders in which they are asked for.
///
/// Invariant: each of the three has the same holds; no Service holds an address twice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holds {
    by_address: BTreeMap<IpAddr, BTreeMap<ServiceKey, Timestamp>>,
    by_service: BTreeMap<ServiceKey, BTreeSet<IpAddr>>,
    by_end: BTreeSet<(Timestamp, IpAddr, ServiceKey)>,
}

impl Holds {
    /// Holds an address; a hold of the same address for the same Service is replaced.
    pub(crate) fn insert(&mut self, hold: Hold) {
        let Hold {
            address,
            service,
            until,
        } = hold;
        self.remove(address, &service);
        let services = self.by_address.entry(address).or_default();
        services.insert(service.clone(), until);
        let addresses = self.by_service.entry(service.clone()).or_default();
        addresses.insert(address);
        self.by_end.insert((until, address, service));
    }

    /// Ends a hold; whether there was one.
    pub(crate) fn remove(&mut self, address: IpAddr, service: &ServiceKey) -> bool {
        let Some(services) = self.by_address.get_mut(&address) else {
            return false;
        };
        let Some(until) = services.remove(service) else {
            return false;
        };
        if services.is_empty() {
            self.by_address.remove(&address);
        }
        if let Some(addresses) = self.by_service.get_mut(service) {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.by_service.remove(service);
            }
        }
        self.by_end.remove(&(until, address, service.clone()));
        true
    }

    /// Whether an address is held for anybody.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.by_address.contains_key(&address)
    }

    /// The hold of an address that ends last, if it is for others than `service` alone.
    pub(crate) fn for_other(&self, address: IpAddr, service: &ServiceKey) -> Option<Hold> {
        let services = self.by_address.get(&address)?;
        if services.contains_key(service) {
            return None;
        }
        let (holder, &until) = services.iter().max_by_key(|(_, until)| **until)?;
        Some(Hold {
            address,
            service: holder.clone(),
            until,
        })
    }

    /// The addresses that are held for a Service.
    pub(crate) fn of(&self, service: &ServiceKey) -> impl Iterator<Item = IpAddr> + '_ {
        self.by_service.get(service).into_iter().flatten().copied()
    }

    /// The addresses from `first` to `last` that are held, in order.
    pub(crate) fn between(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = IpAddr> + '_ {
        let inside = self.by_address.range(first..=last);
        inside.map(|(&address, _)| address)
    }

    /// All holds, the one that ends first first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Hold> + '_ {
        self.by_end.iter().map(|(until, address, service)| Hold {
            address: *address,
            service: service.clone(),
            until: *until,
        })
    }

    /// The hold that ends first.
    pub(crate) fn first(&self) -> Option<Hold> {
        self.iter().next()
    }
}
