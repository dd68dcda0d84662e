//! What a Service lacks, and where it can be had.

mod obstacles;
mod standing;

use std::collections::BTreeMap;
use std::net::IpAddr;

use config::address::IpFamily;
use config::service::FamilyPolicy;
use jiff::Timestamp;

use crate::claim::Claim;
use crate::context::Context;
use crate::ledger::Ledger;
use crate::pools::{PoolEntry, Pools};
use crate::rejection::{Asked, Obstacle, Refusal};

/// One Service before all that is given and can be had.
#[derive(Clone, Copy)]
pub(crate) struct Search<'a> {
    pub(crate) context: &'a Context,
    pub(crate) pools: &'a Pools,
    pub(crate) ledger: &'a Ledger,
    pub(crate) claim: &'a Claim,
    /// What the Service has.
    pub(crate) holdings: &'a [IpAddr],
    /// What of that it was given a moment ago, and when.
    pub(crate) fresh: &'a BTreeMap<IpAddr, Timestamp>,
}

/// What a Service is to get, and what it cannot have.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// All addresses of a family, in place of those it has of that family.
    pub(crate) changes: Vec<(IpFamily, Vec<IpAddr>)>,
    pub(crate) refusals: Vec<Refusal>,
}

/// What a Service lacks in one family.
struct Need {
    family: IpFamily,
    wish: Wish,
}

enum Wish {
    /// Exactly these.
    These(Vec<IpAddr>),
    /// The one that is reserved or held for it.
    Reserved(IpAddr),
    /// Any, from the requested pool if there is one.
    Any,
    /// Any, in place of this one.
    InPlaceOf(IpAddr),
}

impl<'a> Search<'a> {
    /// What the Service is to get, and what it cannot have.
    pub(crate) fn plan(&self) -> Plan {
        if self.claim.deleting {
            return Plan::default();
        }
        let unclear = self.unclear();
        if !unclear.is_empty() {
            return Plan {
                changes: Vec::new(),
                refusals: unclear,
            };
        }
        let families = self.claim.families.iter();
        let needs: Vec<Need> = families.filter_map(|&family| self.need(family)).collect();
        let mut plan = self.satisfy(&needs);
        let all_or_nothing = self.claim.policy == FamilyPolicy::RequireDualStack;
        if all_or_nothing && self.holdings.is_empty() && !plan.refusals.is_empty() {
            plan.changes.clear();
            let refusals = plan.refusals.iter_mut();
            refusals.for_each(|refusal| refusal.obstacles.push(Obstacle::OtherFamilyMissing));
        }
        plan
    }

    /// What in the Service makes it unclear what it wants: it gets nothing new, for it would be something else.
    fn unclear(&self) -> Vec<Refusal> {
        let claim = self.claim;
        let mut refusals = Vec::new();
        let complaints = claim.requests.complaints.iter().cloned();
        let complaints: Vec<_> = complaints.map(Obstacle::Request).collect();
        if !complaints.is_empty() {
            refusals.push(Refusal {
                asked: Asked::Unreadable,
                obstacles: complaints,
            });
        }
        if claim.families.is_empty() {
            refusals.push(Refusal {
                asked: Asked::Unreadable,
                obstacles: vec![Obstacle::NoFamilies],
            });
            return refusals;
        }
        let requested = claim.requests.addresses.iter().copied();
        let wrong = requested.filter(|&found| !claim.families.contains(&IpFamily::of(found)));
        refusals.extend(wrong.map(|address| Refusal {
            asked: Asked::Address(address),
            obstacles: vec![Obstacle::WrongFamily { address }],
        }));
        refusals
    }

    fn need(&self, family: IpFamily) -> Option<Need> {
        let held: Vec<IpAddr> = self.held(family).collect();
        let requested: Vec<IpAddr> = self.claim.requested(family).collect();
        let wish = if !requested.is_empty() {
            let satisfied = held.len() == requested.len()
                && requested.iter().all(|address| held.contains(address));
            (!satisfied).then_some(Wish::These(requested))
        } else if held.is_empty() {
            let kept = self.reserved(family).or_else(|| self.on_hold(family));
            Some(kept.map_or(Wish::Any, Wish::Reserved))
        } else if self.is_outside_its_pool(&held) {
            Some(Wish::Any)
        } else {
            let is_stray = |&address: &IpAddr| {
                let may_choose = self.claim.requests.pool.is_none();
                self.is_given_in_vain(address) || (may_choose && self.must_move(address))
            };
            held.into_iter().find(is_stray).map(Wish::InPlaceOf)
        };
        wish.map(|wish| Need { family, wish })
    }

    /// Whether the Service asks for a pool that has none of these.
    fn is_outside_its_pool(&self, held: &[IpAddr]) -> bool {
        let Some(name) = &self.claim.requests.pool else {
            return false;
        };
        let pool = self.pools.get(name);
        let inside = |&address: &IpAddr| pool.is_some_and(|pool| pool.contains(address));
        !held.iter().any(inside)
    }

    fn held(&self, family: IpFamily) -> impl Iterator<Item = IpAddr> + use<'a> {
        let held = self.holdings.iter().copied();
        held.filter(move |&address| IpFamily::of(address) == family)
    }

    /// The first address of the family that a pool reserves for the Service.
    fn reserved(&self, family: IpFamily) -> Option<IpAddr> {
        let wanted = self.claim.requests.pool.as_ref();
        let pools = self.pools.iter();
        let mut pools = pools.filter(|entry| wanted.is_none_or(|wanted| wanted == entry.name()));
        pools.find_map(|entry| {
            let mut reservations = entry.pool.reservations.iter();
            let mine = reservations.find(|reservation| {
                reservation.service == self.claim.service
                    && IpFamily::of(reservation.address) == family
            });
            mine.map(|reservation| reservation.address)
        })
    }

    /// The first address of the family that is held for the Service, which was deleted before, and that it may have.
    fn on_hold(&self, family: IpFamily) -> Option<IpAddr> {
        let held = self.pools.holds().of(&self.claim.service);
        let mut held = held
            .filter(|&address| IpFamily::of(address) == family)
            .peekable();
        held.peek()?;
        let candidates = self.candidates(&[]);
        held.find(|&address| {
            let mut giving = candidates.iter().filter(|entry| {
                entry.contains(address)
                    && entry.may_give(address)
                    && self
                        .quota_obstacle(entry, Some(address), family, &[])
                        .is_none()
            });
            // Nobody asks for it: where another machine has taken it meanwhile, another address is as good.
            giving.next().is_some()
                && self.pools.stranger(address).is_none()
                && self.obstacles_to(address, &[]).is_empty()
        })
    }

    fn satisfy(&self, needs: &[Need]) -> Plan {
        let mut plan = Plan::default();
        for need in needs {
            let (addresses, asked): (&[IpAddr], fn(IpAddr) -> Asked) = match &need.wish {
                Wish::These(addresses) => (addresses, Asked::Address),
                Wish::Reserved(address) => (std::slice::from_ref(address), Asked::Reserved),
                Wish::Any | Wish::InPlaceOf(_) => continue,
            };
            let refusals = addresses.iter().filter_map(|&address| {
                let obstacles = self.obstacles_to(address, &self.kept_of(addresses, address));
                let asked = asked(address);
                (!obstacles.is_empty()).then_some(Refusal { asked, obstacles })
            });
            let before = plan.refusals.len();
            plan.refusals.extend(refusals);
            if plan.refusals.len() == before {
                plan.changes.push((need.family, addresses.to_vec()));
            }
        }
        let others = needs
            .iter()
            .filter(|need| matches!(need.wish, Wish::Any | Wish::InPlaceOf(_)));
        self.satisfy_any(&others.collect::<Vec<_>>(), &mut plan);
        plan
    }

    /// Any address will do: from one pool for both families if there is such a pool.
    fn satisfy_any(&self, needs: &[&Need], plan: &mut Plan) {
        let chosen = plan.changes.iter().flat_map(|(_, addresses)| addresses);
        let near: Vec<IpAddr> = self.holdings.iter().chain(chosen).copied().collect();
        let candidates = self.candidates(&near);
        if let [one, other] = needs
            && let Some((first, second)) = candidates.iter().find_map(|entry| {
                Some((
                    self.pick(entry, one.family, &self.kept(one))?,
                    self.pick(entry, other.family, &self.kept(other))?,
                ))
            })
        {
            plan.changes.push(self.change(one, first));
            plan.changes.push(self.change(other, second));
            return;
        }
        for need in needs {
            let kept = self.kept(need);
            let picked = candidates
                .iter()
                .find_map(|entry| self.pick(entry, need.family, &kept));
            match picked {
                Some(address) => plan.changes.push(self.change(need, address)),
                None => plan.refusals.push(self.refusal(need)),
            }
        }
    }

    /// What the Service has of the family and keeps if the need is met.
    fn kept(&self, need: &Need) -> Vec<IpAddr> {
        match need.wish {
            Wish::InPlaceOf(old) => self.held(need.family).filter(|&held| held != old).collect(),
            _ => Vec::new(),
        }
    }

    /// Those of the requested addresses that count before `address` does: what is held, then in the order written.
    fn kept_of(&self, requested: &[IpAddr], address: IpAddr) -> Vec<IpAddr> {
        let earlier = requested.iter().take_while(|&&earlier| earlier != address);
        let later = requested.iter().skip_while(|&&earlier| earlier != address);
        let held = later.filter(|held| **held != address && self.holdings.contains(held));
        earlier.chain(held).copied().collect()
    }

    fn change(&self, need: &Need, address: IpAddr) -> (IpFamily, Vec<IpAddr>) {
        let addresses = match need.wish {
            Wish::InPlaceOf(old) => {
                let held = self.held(need.family);
                held.map(|held| if held == old { address } else { held })
                    .collect()
            }
            _ => vec![address],
        };
        (need.family, addresses)
    }

    /// The pools that may give the Service any address, those that have one of `near` first.
    fn candidates(&self, near: &[IpAddr]) -> Vec<&'a PoolEntry> {
        let mut candidates: Vec<&PoolEntry> = match &self.claim.requests.pool {
            Some(name) => {
                let pool = self.pools.get(name).into_iter();
                let admits = |entry: &&PoolEntry| self.request_obstacle(entry).is_none();
                pool.filter(admits).collect()
            }
            None => {
                let admits = |entry: &&PoolEntry| self.automatic_obstacle(entry).is_none();
                self.pools.iter().filter(admits).collect()
            }
        };
        candidates.sort_by_key(|entry| !near.iter().any(|&address| entry.contains(address)));
        candidates
    }

    /// The address that a pool gives: one that the Service may share, or the first free one.
    fn pick(&self, entry: &PoolEntry, family: IpFamily, kept: &[IpAddr]) -> Option<IpAddr> {
        let key = self.claim.terms.key.as_deref();
        let shared = key.and_then(|key| {
            let ranges = entry.ranges(family);
            let mut shared = ranges.flat_map(|range| self.ledger.shared_in(key, range));
            shared.find(|&address| {
                !self.holdings.contains(&address)
                    && entry.may_give(address)
                    && self.obstacle_of_address(address).is_none()
                    && self.conflict(address).is_none()
                    && self
                        .quota_obstacle(entry, Some(address), family, kept)
                        .is_none()
            })
        });
        shared.or_else(|| {
            let quota = self.quota_obstacle(entry, None, family, kept);
            quota.map_or_else(|| self.pools.first_free(entry, family), |_| None)
        })
    }

    /// Why no pool gives an address of the family, pool by pool.
    fn refusal(&self, need: &Need) -> Refusal {
        let family = need.family;
        let wanted = self.claim.requests.pool.as_ref();
        let kept = self.kept(need);
        let full = |entry: &PoolEntry| self.full(entry, family, &kept);
        let obstacles: Vec<Obstacle> = match wanted {
            Some(name) => match self.pools.get(name) {
                None => vec![Obstacle::UnknownPool { pool: name.clone() }],
                Some(entry) => {
                    let obstacle = self.request_obstacle(entry);
                    vec![obstacle.unwrap_or_else(|| full(entry))]
                }
            },
            None => {
                let entries = self.pools.iter();
                let obstacle = |entry| {
                    self.automatic_obstacle(entry)
                        .unwrap_or_else(|| full(entry))
                };
                entries.map(obstacle).collect()
            }
        };
        Refusal {
            asked: match need.wish {
                Wish::InPlaceOf(address) if self.is_given_in_vain(address) => Asked::Free(address),
                Wish::InPlaceOf(address) => Asked::Another(address),
                _ => Asked::Any(family, wanted.cloned()),
            },
            obstacles: if obstacles.is_empty() {
                vec![Obstacle::NoPools]
            } else {
                obstacles
            },
        }
    }
}
