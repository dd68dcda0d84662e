//! What the laws know beside the allocator, and how they enumerate.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::address::IpFamily;
use config::name::ServiceKey;
use config::pool::Pool;
use config::service::Protocol;
use controller_allocator::{Allocator, Backend, Claim, Context, Decision};
use jiff::{SignedDuration, Timestamp};

use crate::event::*;
use crate::support::*;

/// What the tests know beside the allocator: the claims and the context.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) context: Context,
    pub(crate) claims: BTreeMap<ServiceKey, Claim>,
    /// Until when which address is held for which deleted Service.
    pub(crate) holds: BTreeMap<(IpAddr, ServiceKey), Timestamp>,
    pub(crate) now: Timestamp,
    /// When the allocator gave which address to which Service; nothing for what it found in a status.
    pub(crate) given: BTreeMap<(ServiceKey, IpAddr), Timestamp>,
    pub(crate) allocator: Allocator,
}

pub(crate) type Holdings = BTreeMap<ServiceKey, Vec<IpAddr>>;

impl Model {
    pub(crate) fn apply(&mut self, event: Event) {
        match event {
            Event::Claim(claim) => self.claim(claim),
            Event::Claims(claims) => claims.into_iter().for_each(|claim| self.claim(claim)),
            Event::Contest(service) => {
                for claim in self.contest(&service) {
                    self.claim(claim);
                }
            }
            Event::Withdraw(service) => {
                self.claims.remove(&service);
                self.allocator.withdraw(&service);
            }
            Event::Delete(service) => {
                self.hold_what_it_has(&service);
                self.claims.remove(&service);
                self.allocator.delete(&service);
            }
            Event::Pass(seconds) => {
                self.now += SignedDuration::from_secs(seconds);
                let now = self.now;
                self.holds.retain(|_, until| *until > now);
                self.allocator.advance(now);
            }
            Event::Configure(context) => {
                self.context = context.clone();
                let pools = &self.context.pools;
                self.holds.retain(|(address, _), _| {
                    let inside = || pools.values().filter(|pool| pool.contains(*address));
                    inside().next().is_none()
                        || inside().any(|pool| pool.hold_after_deletion.is_some())
                });
                self.allocator.configure(context);
            }
            Event::Restart => {
                self.given.clear();
                self.allocator = self.restarted();
            }
        }
        for outcome in self.allocator.settle() {
            let service = outcome.service;
            for address in outcome.adopted {
                self.given.remove(&(service.clone(), address));
            }
            for address in outcome.gained {
                self.given.insert((service.clone(), address), self.now);
            }
        }
        let holdings = self.holdings();
        self.given.retain(|(service, address), _| {
            holdings
                .get(service)
                .is_some_and(|held| held.contains(address))
        });
        let (claims, allocator) = (&self.claims, &self.allocator);
        self.holds.retain(|(address, service), _| {
            claims.get(service).is_none_or(|claim| {
                let family = IpFamily::of(*address);
                let mut held = allocator.decision(service).unwrap().addresses();
                claim.families.contains(&family) && !held.any(|held| IpFamily::of(held) == family)
            })
        });
    }

    /// What a Service has now is held for it, as long as the pools say.
    pub(crate) fn hold_what_it_has(&mut self, service: &ServiceKey) {
        let had: Vec<IpAddr> = self
            .allocator
            .decision(service)
            .map(|decision| decision.addresses().collect())
            .unwrap_or_default();
        for address in had {
            let pools = self.context.pools.values();
            let pools = pools.filter(|pool| pool.contains(address));
            let times = pools.filter_map(|pool| pool.hold_after_deletion);
            if let Some(time) = times.max() {
                let until = self.now + SignedDuration::from_secs(time.seconds().into());
                self.holds.insert((address, service.clone()), until);
            }
        }
    }

    pub(crate) fn claim(&mut self, claim: Claim) {
        let known = self.claims.get(&claim.service);
        if known.is_some_and(|known| known.uid != claim.uid) {
            self.hold_what_it_has(&claim.service);
        }
        self.claims.insert(claim.service.clone(), claim.clone());
        self.allocator.claim(claim);
    }

    /// What the two Services of a contest claim.
    pub(crate) fn contest(&self, service: &ServiceKey) -> Vec<Claim> {
        let Some(known) = self.claims.get(service) else {
            return Vec::new();
        };
        let mut changed = known.clone();
        let mut terms = (*changed.terms).clone();
        let port = if terms
            .ports
            .contains(&(Protocol::Tcp, 90.try_into().unwrap()))
        {
            91
        } else {
            90_u16
        };
        terms.ports = [(Protocol::Tcp, port.try_into().unwrap())].into();
        changed.terms = terms.into();
        let mut newcomer = claim("c/newcomer", DUAL);
        newcomer.uid = format!("{}", self.now.as_second() + i64::from(port)).into();
        newcomer.created_seconds = -1;
        newcomer.held = self.decision(service).addresses().collect();
        vec![changed, newcomer]
    }

    /// Another allocator that knows nothing but the statuses.
    pub(crate) fn restarted(&self) -> Allocator {
        let mut allocator = Allocator::default();
        allocator.advance(self.now);
        allocator.configure(self.context.clone());
        self.allocator
            .holds()
            .for_each(|hold| allocator.restore(hold));
        let holdings = self.holdings();
        for (service, claim) in &self.claims {
            let mut claim = claim.clone();
            claim.held = holdings[service].clone();
            allocator.claim(claim);
        }
        allocator.settle();
        allocator
    }

    pub(crate) fn decision(&self, service: &ServiceKey) -> &Decision {
        self.allocator.decision(service).unwrap()
    }

    pub(crate) fn holdings(&self) -> Holdings {
        let services = self.claims.keys();
        services
            .map(|service| {
                (
                    service.clone(),
                    self.decision(service).addresses().collect(),
                )
            })
            .collect()
    }

    /// Whether a Service may be given an address that it does not have, by the rules alone.
    pub(crate) fn may_have(
        &self,
        claim: &Claim,
        address: IpAddr,
        requested: bool,
        kept: &[IpAddr],
    ) -> bool {
        let pools: Vec<&Pool> = self.context.pools.values().map(AsRef::as_ref).collect();
        let reserved: Vec<&ServiceKey> = pools
            .iter()
            .filter_map(|pool| pool.reserved_for(address))
            .collect();
        let is_mine = reserved.contains(&&claim.service);
        let on_hold = !self.is_held(address)
            && self.holds.keys().any(|(held, _)| *held == address)
            && !self.holds.contains_key(&(address, claim.service.clone()));
        let wanted = claim.requests.pool.as_ref();
        let buggy = matches!(address, IpAddr::V4(v4) if [0, 255].contains(&v4.octets()[3]));
        let admits = |pool: &&Pool| {
            let selected = pool.allocation.as_ref().is_none_or(|allocation| {
                allocation
                    .namespaces
                    .iter()
                    .any(|name| name == claim.service.namespace())
            });
            let mine = pool.reserved_for(address) == Some(&claim.service);
            pool.contains(address)
                && !pool.disabled
                && wanted.is_none_or(|wanted| *wanted == pool.name)
                && (selected || mine && requested)
                && (mine && requested || !self.exceeds_quota(pool, claim, address, kept))
                && (requested || wanted.is_some() || pool.auto_assign)
                && (requested || !(pool.avoid_buggy_ips && buggy))
        };
        let others = self
            .claims
            .values()
            .filter(|other| other.service != claim.service);
        claim.families.contains(&IpFamily::of(address))
            && !self.context.nodes.contains_key(&address)
            && !self.context.others.contains_key(&address)
            && (requested || !self.context.strangers.contains_key(&address))
            && (reserved.is_empty() || is_mine)
            && !on_hold
            && pools.iter().any(admits)
            && others
                .filter(|other| {
                    self.decision(&other.service)
                        .addresses()
                        .any(|held| held == address)
                })
                .all(|other| may_share(claim, other))
    }

    /// Whether a Service was given this within a minute, and another machine has it.
    pub(crate) fn is_given_in_vain(
        &self,
        context: &Context,
        service: &ServiceKey,
        address: IpAddr,
    ) -> bool {
        let given = self.given.get(&(service.clone(), address));
        context.strangers.contains_key(&address)
            && given.is_some_and(|given| self.now.duration_since(*given).as_secs() < 60)
    }

    pub(crate) fn is_held(&self, address: IpAddr) -> bool {
        self.holdings()
            .into_values()
            .flatten()
            .any(|held| held == address)
    }

    /// Whether the namespace would have more of the pool than its quota, with this address beside what it keeps, in place
    /// of what the Service has.
    pub(crate) fn exceeds_quota(
        &self,
        pool: &Pool,
        claim: &Claim,
        address: IpAddr,
        kept: &[IpAddr],
    ) -> bool {
        let Some(limit) = pool.quota else {
            return false;
        };
        let inside =
            |held: &IpAddr| pool.contains(*held) && IpFamily::of(*held) == IpFamily::of(address);
        let holdings = self.holdings();
        let same = holdings
            .iter()
            .filter(|(service, _)| service.namespace() == claim.service.namespace());
        let others = same.filter(|(service, _)| **service != claim.service);
        let mut after: BTreeSet<IpAddr> = others
            .flat_map(|(_, held)| held)
            .copied()
            .filter(inside)
            .collect();
        let own = &holdings[&claim.service];
        let mut before = after.clone();
        before.extend(own.iter().copied().filter(inside));
        if after.contains(&address) {
            return false;
        }
        after.extend(kept.iter().copied().filter(inside));
        after.insert(address);
        after.len() > before.len().max(limit.get() as usize)
    }

    pub(crate) fn any_can_be_had(&self, claim: &Claim, family: IpFamily, kept: &[IpAddr]) -> bool {
        let held: Vec<IpAddr> = self.decision(&claim.service).addresses().collect();
        let of_family = ADDRESSES
            .map(ip)
            .into_iter()
            .filter(|&address| IpFamily::of(address) == family);
        let reserved = |address: &IpAddr| {
            let mut pools = self.context.pools.values();
            pools.any(|pool| pool.reserved_for(*address).is_some())
        };
        of_family
            .filter(|address| !held.contains(address) && !reserved(address))
            .any(|address| self.may_have(claim, address, false, kept))
    }
}

pub(crate) fn may_share(one: &Claim, other: &Claim) -> bool {
    let (one, other) = (&one.terms, &other.terms);
    one.key.is_some()
        && one.key == other.key
        && one.ports.is_disjoint(&other.ports)
        && match (&one.backend, &other.backend) {
            (Backend::Cluster, Backend::Cluster) => true,
            (Backend::Local(one), Backend::Local(other)) => one == other,
            _ => false,
        }
}

/// The pool that has the address, if no other has it too.
pub(crate) fn only_pool(model: &Model, address: IpAddr) -> Option<&Pool> {
    let pools = model.context.pools.values();
    let mut containing = pools.filter(|pool| pool.contains(address));
    let pool = containing.next()?;
    containing.next().is_none().then_some(pool)
}

pub(crate) fn held_in<'a>(
    pool: &'a Pool,
    family: IpFamily,
    namespace: &'a str,
    holdings: &'a Holdings,
) -> impl Iterator<Item = (&'a ServiceKey, IpAddr)> {
    let same = holdings
        .iter()
        .filter(move |(service, _)| service.namespace() == namespace);
    let held = same.flat_map(|(service, held)| held.iter().map(move |&held| (service, held)));
    held.filter(move |&(_, held)| IpFamily::of(held) == family && pool.contains(held))
}

pub(crate) fn distinct<'a>(held: impl Iterator<Item = (&'a ServiceKey, IpAddr)>) -> usize {
    held.map(|(_, address)| address)
        .collect::<BTreeSet<_>>()
        .len()
}

pub(crate) fn is_held_within(namespace: &str, address: IpAddr, holdings: &Holdings) -> bool {
    let mut same = holdings
        .iter()
        .filter(|(service, _)| service.namespace() == namespace);
    same.any(|(_, held)| held.contains(&address))
}
