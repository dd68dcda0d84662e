//! One settle: what is open is entered anew, then served, until nothing helps anybody any more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::address::IpFamily;
use config::name::ServiceKey;

use super::{Allocator, Entry, Outcome, enter, strike};
use crate::decision::{Decision, Released, Turn};
use crate::ledger::Ledger;
use crate::pools::Pools;
use crate::rejection::Rejection;

impl Allocator {
    /// Decides everything that is open, and says for which Services something is different now.
    pub fn settle(&mut self) -> Vec<Outcome> {
        let mut open = std::mem::take(&mut self.dirty);
        let mut releases = self.review(&open);
        let mut before = BTreeMap::new();
        loop {
            if std::mem::take(&mut self.is_helpful) {
                open.extend(self.lacking.iter().cloned());
            }
            if open.is_empty() {
                break;
            }
            for turn in std::mem::take(&mut open) {
                self.serve(&turn, &mut before, &mut releases);
            }
        }
        let outcomes = before.into_iter();
        let outcomes = outcomes.filter_map(|(service, before)| {
            let released = releases.remove(&service).unwrap_or_default();
            self.outcome(service, before, released)
        });
        outcomes.collect()
    }

    /// Enters anew what the open Services have: first those that were seen before, then what statuses say.
    fn review(&mut self, open: &BTreeSet<Turn>) -> BTreeMap<ServiceKey, Vec<(IpAddr, Released)>> {
        let mut known = Vec::new();
        let mut new = Vec::new();
        for turn in open {
            match self.entries.get(&turn.service) {
                Some(entry) if entry.is_known => known.push(&turn.service),
                Some(_) => new.push(&turn.service),
                None => {}
            }
        }
        for service in &known {
            for &address in self
                .entries
                .get(*service)
                .iter()
                .flat_map(|entry| &entry.holdings)
            {
                strike(&mut self.ledger, &mut self.pools, address, service);
            }
        }
        let mut releases = BTreeMap::new();
        // What new Services hold and would share may be joined by others now.
        let joinable = |service: &&ServiceKey| {
            let entry = self.entries.get(*service);
            entry.is_some_and(|entry| !entry.holdings.is_empty() && entry.claim.terms.key.is_some())
        };
        self.is_helpful |= new.iter().any(joinable);
        for service in known.into_iter().chain(new) {
            let released = self.enter_anew(service);
            if !released.is_empty() {
                self.is_helpful = true;
                releases.insert(service.clone(), released);
            }
        }
        releases
    }

    fn enter_anew(&mut self, service: &ServiceKey) -> Vec<(IpAddr, Released)> {
        let Some(entry) = self.entries.get_mut(service) else {
            return Vec::new();
        };
        let claim = &entry.claim;
        let mut released = Vec::new();
        let mut kept = Vec::new();
        for address in std::mem::take(&mut entry.holdings) {
            let family = IpFamily::of(address);
            if !claim.families.is_empty() && !claim.families.contains(&family) {
                released.push((address, Released::FamilyGone { address }));
            } else if let Some(obstacle) = self.ledger.conflict(address, service, &claim.terms) {
                released.push((address, Released::InUse(obstacle)));
            } else {
                enter(&mut self.ledger, &mut self.pools, address, claim);
                kept.push(address);
            }
        }
        entry.holdings = in_order(kept, &claim.families);
        released
    }

    fn serve(
        &mut self,
        turn: &Turn,
        before: &mut BTreeMap<ServiceKey, Before>,
        releases: &mut BTreeMap<ServiceKey, Vec<(IpAddr, Released)>>,
    ) {
        let service = &turn.service;
        let Some(entry) = self.entries.get_mut(service) else {
            return;
        };
        before.entry(service.clone()).or_insert_with(|| Before {
            was_known: entry.is_known,
            decision: entry.decision.clone(),
        });
        entry.refresh(self.now);
        let mut refusals = Vec::new();
        // Each round gives something, the last one nothing: several addresses may have to be reassigned.
        for _ in 0..entry.holdings.len() + ROUNDS {
            let search = entry.search(&self.context, &self.pools, &self.ledger);
            let plan = search.plan();
            refusals = plan.refusals;
            if plan.changes.is_empty() {
                break;
            }
            let had = entry.holdings.clone();
            let dropped = carry_out(plan.changes, entry, &mut self.ledger, &mut self.pools);
            let gained = entry.holdings.iter().filter(|held| !had.contains(held));
            entry.fresh.extend(gained.map(|&held| (held, self.now)));
            self.is_helpful |= !dropped.is_empty() || entry.claim.terms.key.is_some();
            if !dropped.is_empty() {
                let dropped = dropped.into_iter();
                let released = releases.entry(service.clone()).or_default();
                released.extend(dropped.map(|address| {
                    let search = entry.search(&self.context, &self.pools, &self.ledger);
                    (address, search.why_dropped(address))
                }));
            }
        }
        entry.is_known = true;
        self.is_helpful |= end_holds(entry, &self.ledger, &mut self.pools);
        let rejection = (!refusals.is_empty()).then_some(Rejection { refusals });
        if rejection.is_none() {
            self.lacking.remove(turn);
        } else {
            self.lacking.insert(turn.clone());
        }
        let search = entry.search(&self.context, &self.pools, &self.ledger);
        entry.decision = search.decision(rejection);
    }

    fn outcome(
        &self,
        service: ServiceKey,
        before: Before,
        mut released: Vec<(IpAddr, Released)>,
    ) -> Option<Outcome> {
        let entry = self.entries.get(&service)?;
        let decision = entry.decision.clone();
        if before.was_known && before.decision == decision && released.is_empty() {
            return None;
        }
        let had: BTreeSet<IpAddr> = if before.was_known {
            before.decision.addresses().collect()
        } else {
            entry.claim.held.iter().copied().collect()
        };
        released.retain(|&(address, _)| !entry.holdings.contains(&address));
        let (kept, gained) = decision
            .addresses()
            .partition(|address| had.contains(address));
        let although = |decision: &Decision| -> Vec<_> {
            let granted = decision.granted.iter();
            granted
                .filter_map(|granted| granted.although.clone())
                .collect()
        };
        let has_news = before.decision.rejection != decision.rejection
            || although(&before.decision) != although(&decision);
        Some(Outcome {
            service,
            has_news,
            adopted: if before.was_known { Vec::new() } else { kept },
            gained,
            released,
            decision,
        })
    }
}

/// How often a Service can get something new beside the addresses that are reassigned: a family each, and no more.
const ROUNDS: usize = 3;

/// What was decided for a Service before a settle.
struct Before {
    was_known: bool,
    decision: Decision,
}

/// The addresses of the first family first; otherwise as they came.
fn in_order(mut addresses: Vec<IpAddr>, families: &[IpFamily]) -> Vec<IpAddr> {
    addresses.sort_by_key(|&address| {
        let family = IpFamily::of(address);
        families.iter().position(|&found| found == family)
    });
    addresses
}

/// Puts all addresses of a family in place of those that the Service has of it; what it had and has no more.
fn carry_out(
    changes: Vec<(IpFamily, Vec<IpAddr>)>,
    entry: &mut Entry,
    ledger: &mut Ledger,
    pools: &mut Pools,
) -> Vec<IpAddr> {
    let claim = &entry.claim;
    let mut dropped = Vec::new();
    for (family, addresses) in changes {
        let (old, mut kept): (Vec<IpAddr>, Vec<IpAddr>) = std::mem::take(&mut entry.holdings)
            .into_iter()
            .partition(|&held| IpFamily::of(held) == family);
        for address in old.into_iter().filter(|old| !addresses.contains(old)) {
            strike(ledger, pools, address, &claim.service);
            dropped.push(address);
        }
        for &address in &addresses {
            enter(ledger, pools, address, claim);
        }
        kept.extend(addresses);
        entry.holdings = in_order(kept, &claim.families);
    }
    dropped
}

/// Ends the holds for a Service that is back and has an address of the family, or wants none; whether there were any.
fn end_holds(entry: &Entry, ledger: &Ledger, pools: &mut Pools) -> bool {
    let claim = &entry.claim;
    let held: Vec<IpAddr> = pools.holds().of(&claim.service).collect();
    let mut ended = false;
    for address in held {
        let family = IpFamily::of(address);
        let is_served = entry
            .holdings
            .iter()
            .any(|&held| IpFamily::of(held) == family);
        if is_served || !claim.families.contains(&family) {
            ended |= pools.end_hold(address, &claim.service, ledger);
        }
    }
    ended
}
