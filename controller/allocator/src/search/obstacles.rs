//! What stands between a Service and an address, and between a Service and a pool.

use std::net::IpAddr;

use config::address::IpFamily;

use super::Search;
use crate::admission::{automatic_obstacle, request_obstacle, reserves};
use crate::pools::PoolEntry;
use crate::rejection::Obstacle;

impl Search<'_> {
    /// Why the quota of a pool is in the way of `address`, or of any that nobody has, beside what is `kept`.
    ///
    /// An address that another Service of the namespace has already costs nothing; nor does one in place of another.
    pub(super) fn quota_obstacle(
        &self,
        entry: &PoolEntry,
        address: Option<IpAddr>,
        family: IpFamily,
        kept: &[IpAddr],
    ) -> Option<Obstacle> {
        let limit = entry.pool.quota?.get();
        let service = &self.claim.service;
        let namespace = service.namespace();
        let is_costly = |address: &IpAddr| {
            let others = self.ledger.is_held_in(*address, namespace, Some(service));
            entry.contains(*address) && !others
        };
        if address.is_some_and(|address| !is_costly(&address)) {
            return None;
        }
        let count = |addresses: &mut dyn Iterator<Item = IpAddr>| {
            addresses
                .filter(is_costly)
                .fold(0_u32, |count, _| count + 1)
        };
        let in_use = entry.charged(family, namespace);
        let others = in_use.saturating_sub(count(&mut self.held(family)));
        let after = others + count(&mut kept.iter().copied()) + 1;
        (after > limit.max(in_use)).then(|| Obstacle::Quota {
            pool: entry.name().clone(),
            namespace: namespace.to_owned(),
            family,
            limit,
            in_use,
        })
    }

    pub(super) fn full(&self, entry: &PoolEntry, family: IpFamily, kept: &[IpAddr]) -> Obstacle {
        let pool = entry.name().clone();
        if !entry.pool.has_family(family) {
            return Obstacle::NoFamily { pool, family };
        }
        if let Some(obstacle) = self.quota_obstacle(entry, None, family, kept) {
            return obstacle;
        }
        let usage = self.pools.family_usage(entry, family, self.ledger);
        Obstacle::Full {
            pool,
            family,
            in_use: usage.total - usage.available - usage.set_aside - usage.on_hold,
            total: usage.total,
            set_aside: usage.set_aside,
            on_hold: usage.on_hold,
        }
    }

    /// Everything that stands between the Service and this very address, beside what is `kept`.
    pub(super) fn obstacles_to(&self, address: IpAddr, kept: &[IpAddr]) -> Vec<Obstacle> {
        if self.holdings.contains(&address) {
            return Vec::new();
        }
        let mut obstacles: Vec<Obstacle> = Vec::new();
        obstacles.extend(self.pool_obstacles_to(address, kept));
        // Whoever asks for the very address of another machine gets it: speakers announce it once that machine is gone.
        let of_address = self.obstacle_of_address(address);
        obstacles.extend(of_address.filter(|found| !matches!(found, Obstacle::Stranger { .. })));
        obstacles.extend(self.conflict(address));
        obstacles
    }

    /// What the pools have against giving this address; nothing if one of them would.
    pub(super) fn pool_obstacles_to(&self, address: IpAddr, kept: &[IpAddr]) -> Vec<Obstacle> {
        let mut containing = self.pools.containing(address).peekable();
        if containing.peek().is_none() {
            return vec![Obstacle::OutsidePools { address }];
        }
        let containing: Vec<&PoolEntry> = match &self.claim.requests.pool {
            None => containing.collect(),
            Some(name) => {
                let Some(pool) = self.pools.get(name) else {
                    return vec![Obstacle::UnknownPool { pool: name.clone() }];
                };
                if !pool.contains(address) {
                    let pool = name.clone();
                    return vec![Obstacle::OutsidePool { address, pool }];
                }
                vec![pool]
            }
        };
        let against = |entry: &&PoolEntry| {
            if reserves(entry, address, &self.claim.service) && !entry.pool.disabled {
                return None;
            }
            let family = IpFamily::of(address);
            let quota = || self.quota_obstacle(entry, Some(address), family, kept);
            self.request_obstacle(entry).or_else(quota)
        };
        let obstacles: Vec<Obstacle> = containing.iter().filter_map(against).collect();
        if obstacles.len() < containing.len() {
            Vec::new()
        } else {
            obstacles
        }
    }

    /// Why an address is not for this Service, whatever the pools say: somebody else has it, or it is kept for another.
    pub(super) fn obstacle_of_address(&self, address: IpAddr) -> Option<Obstacle> {
        let node = self.pools.node(address).map(|node| Obstacle::NodeAddress {
            address,
            node: node.clone(),
        });
        let other_class = || {
            let by = self.pools.other(address)?.clone();
            Some(Obstacle::OtherClass { address, by })
        };
        let stranger = || {
            let stranger = self.pools.stranger(address)?;
            Some(Obstacle::Stranger {
                address,
                mac: stranger.mac.clone(),
                heard_by: stranger.heard_by.clone(),
            })
        };
        let service = &self.claim.service;
        let reserved = || {
            let (pool, service) = self.pools.reserved_for_other(address, service)?;
            Some(Obstacle::Reserved {
                address,
                pool: pool.clone(),
                service: service.clone(),
            })
        };
        let on_hold = || {
            let hold = self.pools.holds().for_other(address, service)?;
            (!self.ledger.is_held(address)).then_some(Obstacle::OnHold {
                address,
                service: hold.service,
                until: hold.until,
            })
        };
        node.or_else(other_class)
            .or_else(reserved)
            .or_else(on_hold)
            .or_else(stranger)
    }

    pub(super) fn conflict(&self, address: IpAddr) -> Option<Obstacle> {
        let claim = self.claim;
        self.ledger.conflict(address, &claim.service, &claim.terms)
    }

    pub(super) fn request_obstacle(&self, entry: &PoolEntry) -> Option<Obstacle> {
        request_obstacle(entry, self.claim, self.context)
    }

    pub(super) fn automatic_obstacle(&self, entry: &PoolEntry) -> Option<Obstacle> {
        automatic_obstacle(entry, self.claim, self.context)
    }
}
