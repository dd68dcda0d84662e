//! Who holds which address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::address::{AddressRange, IpFamily};
use config::name::ServiceKey;

use crate::claim::{Backend, SharingTerms};
use crate::rejection::{Obstacle, SharingObstacle};

/// Who holds which address, and on which terms.
///
/// Invariant: all holders of one address may share it with each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    holders: BTreeMap<IpAddr, BTreeMap<ServiceKey, Arc<SharingTerms>>>,
    /// The addresses that Services with a sharing key hold.
    shared: BTreeMap<Arc<str>, BTreeSet<IpAddr>>,
}

impl Ledger {
    /// Why `service` may not hold `address` on these terms: somebody else does. None if it may.
    pub(crate) fn conflict(
        &self,
        address: IpAddr,
        service: &ServiceKey,
        terms: &SharingTerms,
    ) -> Option<Obstacle> {
        let holders = self.holders.get(&address)?.iter();
        let mut others = holders.filter(|(holder, _)| *holder != service);
        others.find_map(|(by, theirs)| {
            Some(Obstacle::InUse {
                address,
                by: by.clone(),
                sharing: sharing_obstacle(terms, theirs)?,
            })
        })
    }

    /// Whether anybody holds `address`.
    pub(crate) fn is_held(&self, address: IpAddr) -> bool {
        self.holders.contains_key(&address)
    }

    /// Whether `service` holds `address`.
    pub(crate) fn holds(&self, address: IpAddr, service: &ServiceKey) -> bool {
        let holders = self.holders.get(&address);
        holders.is_some_and(|holders| holders.contains_key(service))
    }

    /// Whether a Service of `namespace` other than `except` holds `address`.
    pub(crate) fn is_held_in(
        &self,
        address: IpAddr,
        namespace: &str,
        except: Option<&ServiceKey>,
    ) -> bool {
        let Some(holders) = self.holders.get(&address) else {
            return false;
        };
        let since = holders.range(ServiceKey::new(namespace, "")..);
        let mut same = since.take_while(|(holder, _)| holder.namespace() == namespace);
        same.any(|(holder, _)| Some(holder) != except)
    }

    /// The namespaces of those who hold `address`, each once.
    pub(crate) fn namespaces(&self, address: IpAddr) -> BTreeSet<&str> {
        self.holders(address).map(ServiceKey::namespace).collect()
    }

    /// Writes down that `service` holds `address`, about which there is no conflict; whether it is the first holder.
    pub(crate) fn enter(
        &mut self,
        address: IpAddr,
        service: &ServiceKey,
        terms: &Arc<SharingTerms>,
    ) -> bool {
        let holders = self.holders.entry(address).or_default();
        let is_first = holders.is_empty();
        holders.insert(service.clone(), Arc::clone(terms));
        if let Some(key) = &terms.key {
            self.shared
                .entry(Arc::clone(key))
                .or_default()
                .insert(address);
        }
        is_first
    }

    /// Strikes out that `service` holds `address`; whether nobody holds it now who did before.
    pub(crate) fn strike(&mut self, address: IpAddr, service: &ServiceKey) -> bool {
        let Some(holders) = self.holders.get_mut(&address) else {
            return false;
        };
        let Some(terms) = holders.remove(service) else {
            return false;
        };
        let is_free = holders.is_empty();
        let others_share = holders.values().any(|other| other.key == terms.key);
        if is_free {
            self.holders.remove(&address);
        }
        if let Some(key) = terms.key.as_ref().filter(|_| !others_share)
            && let Some(addresses) = self.shared.get_mut(key)
        {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.shared.remove(key);
            }
        }
        is_free
    }

    /// The addresses in `range` that Services with this sharing key hold, in order.
    pub(crate) fn shared_in(
        &self,
        key: &str,
        range: &AddressRange,
    ) -> impl Iterator<Item = IpAddr> + '_ {
        let addresses = self.shared.get(key).into_iter();
        let bounds = range.first()..=range.last();
        addresses.flat_map(move |addresses| addresses.range(bounds.clone()).copied())
    }

    /// The addresses that are held, in order.
    pub(crate) fn held(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.holders.keys().copied()
    }

    /// The number of addresses that are held, of one family.
    pub(crate) fn count(&self, family: IpFamily) -> usize {
        self.held()
            .filter(|&address| IpFamily::of(address) == family)
            .count()
    }

    /// The holders of an address.
    pub(crate) fn holders(&self, address: IpAddr) -> impl Iterator<Item = &ServiceKey> {
        self.holders
            .get(&address)
            .into_iter()
            .flat_map(BTreeMap::keys)
    }
}

/// Why two Services may not share an address; none if they may (the rules are MetalLB's).
fn sharing_obstacle(one: &SharingTerms, other: &SharingTerms) -> Option<SharingObstacle> {
    match (&one.key, &other.key) {
        (None, None) => return Some(SharingObstacle::NotAsked),
        (None, Some(_)) | (Some(_), None) => return Some(SharingObstacle::OneSided),
        (Some(one), Some(other)) if one != other => return Some(SharingObstacle::OtherKey),
        (Some(_), Some(_)) => {}
    }
    if let Some(&(protocol, port)) = one.ports.intersection(&other.ports).next() {
        let port = port.get();
        return Some(SharingObstacle::SamePort { protocol, port });
    }
    match (&one.backend, &other.backend) {
        (Backend::Cluster, Backend::Cluster) => None,
        (Backend::Local(one), Backend::Local(other)) if one == other => None,
        (Backend::Local(_), Backend::Local(_)) => Some(SharingObstacle::OtherPods),
        _ => Some(SharingObstacle::OtherPolicy),
    }
}
