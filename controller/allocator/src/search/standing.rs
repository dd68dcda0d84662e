//! What a Service has: of which pool each address is, and whether it would get it today.

use std::net::IpAddr;

use config::address::IpFamily;
use config::name::PoolName;
use config::pool::OnInUse;

use super::Search;
use crate::admission::{reserves, selection_obstacle};
use crate::decision::{Decision, Granted, Released};
use crate::pools::PoolEntry;
use crate::rejection::{Obstacle, Rejection};

impl Search<'_> {
    /// Why a pool gives the Service no address of a family beside what it has; none if it would.
    pub(crate) fn verdict(&self, entry: &PoolEntry, family: IpFamily) -> Option<Obstacle> {
        let is_requested = self.claim.requests.pool.as_ref() == Some(entry.name());
        let obstacle = if is_requested {
            self.request_obstacle(entry)
        } else {
            self.automatic_obstacle(entry)
        };
        obstacle.or_else(|| {
            let held: Vec<IpAddr> = self.held(family).collect();
            let gives = self.pick(entry, family, &held).is_some();
            (!gives).then(|| self.full(entry, family, &held))
        })
    }

    /// What the Service has, address by address, and what it lacks.
    pub(crate) fn decision(&self, rejection: Option<Rejection>) -> Decision {
        let granted = self.holdings.iter().map(|&address| Granted {
            address,
            pool: self.pool_of(address),
            although: self.although(address),
        });
        Decision {
            granted: granted.collect(),
            rejection,
        }
    }

    /// Why the Service would not get an address today that it has; none if it would.
    pub(super) fn although(&self, address: IpAddr) -> Option<Obstacle> {
        let mut containing = self.pools.containing(address).peekable();
        if containing.peek().is_none() {
            return Some(Obstacle::OutsidePools { address });
        }
        if let Some(obstacle) = self.obstacle_of_address(address) {
            return Some(obstacle);
        }
        let mut first = None;
        for entry in containing {
            match self.selection_obstacle(entry, address) {
                None => return None,
                Some(obstacle) => first = first.or(Some(obstacle)),
            }
        }
        first
    }

    /// The pool that an address of the Service counts for: the requested one, one that serves it, one that has it.
    pub(super) fn pool_of(&self, address: IpAddr) -> Option<PoolName> {
        let wanted = self.claim.requests.pool.as_ref();
        let best = self.pools.containing(address).min_by_key(|entry| {
            let is_wanted = Some(entry.name()) == wanted;
            (
                !is_wanted,
                self.selection_obstacle(entry, address).is_some(),
            )
        });
        best.map(|entry| entry.name().clone())
    }

    pub(super) fn selection_obstacle(
        &self,
        entry: &PoolEntry,
        address: IpAddr,
    ) -> Option<Obstacle> {
        if reserves(entry, address, &self.claim.service) {
            return None;
        }
        selection_obstacle(entry, self.claim, self.context)
    }

    /// Whether another machine has an address that the Service was given a moment ago, so that nobody knows it yet.
    ///
    /// One that it has had for longer stays: its clients know it, and what a speaker takes for another machine may be the
    /// product that this one replaces.
    pub(super) fn is_given_in_vain(&self, address: IpAddr) -> bool {
        self.fresh.contains_key(&address)
            && self.pools.stranger(address).is_some()
            && self.reserved(IpFamily::of(address)) != Some(address)
    }

    /// Why the Service lost an address to another that it has now.
    pub(crate) fn why_dropped(&self, address: IpAddr) -> Released {
        match self.obstacle_of_address(address) {
            Some(obstacle @ Obstacle::Stranger { .. }) if self.fresh.contains_key(&address) => {
                Released::InUse(obstacle)
            }
            _ => Released::Replaced,
        }
    }

    /// Whether the pools want a held address replaced (`onInUse: Reassign`).
    ///
    /// The pools that have the address decide; where none has it any more, those that could replace it. All must
    /// agree: in doubt an address stays.
    pub(super) fn must_move(&self, address: IpAddr) -> bool {
        let reassign = |entry: &&PoolEntry| entry.pool.on_in_use == OnInUse::Reassign;
        match self.although(address) {
            None
            | Some(
                Obstacle::NodeAddress { .. }
                | Obstacle::OtherClass { .. }
                | Obstacle::Stranger { .. },
            ) => false,
            Some(Obstacle::OutsidePools { .. }) => {
                let candidates = self.candidates(&[]);
                !candidates.is_empty() && candidates.iter().all(reassign)
            }
            Some(_) => self.pools.containing(address).all(|entry| reassign(&entry)),
        }
    }
}
