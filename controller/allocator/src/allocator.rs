//! Everything that is given, kept true one changed Service at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::address::IpFamily;
use config::name::{PoolName, ServiceKey};
use jiff::{SignedDuration, Timestamp};

use crate::claim::Claim;
use crate::context::Context;
use crate::decision::{Decision, Released, Turn};
use crate::holds::Hold;
use crate::ledger::Ledger;
use crate::pools::{PoolUsage, Pools};
use crate::rejection::{Obstacle, Rejection};
use crate::search::Search;

/// Gives addresses to Services and knows who has which.
///
/// Tell it what changed with [`Self::configure`], [`Self::claim`] and [`Self::withdraw`], then ask with
/// [`Self::settle`] what follows. After a settle:
///
/// - no address is held by two Services that may not share it;
/// - nobody has lost an address because another Service came;
/// - every Service that lacks something has a [`Rejection`] that is true.
#[derive(Clone, Debug, Default)]
pub struct Allocator {
    context: Context,
    pools: Pools,
    ledger: Ledger,
    entries: BTreeMap<ServiceKey, Entry>,
    /// Services to look at in the next settle.
    dirty: BTreeSet<Turn>,
    /// Services that lack something.
    lacking: BTreeSet<Turn>,
    /// Something changed that may help those who lack something.
    is_helpful: bool,
    /// The time, in whole seconds.
    now: Timestamp,
}

#[derive(Clone, Debug)]
struct Entry {
    claim: Claim,
    /// What the Service has; in the ledger unless the entry is new.
    holdings: Vec<IpAddr>,
    /// It was looked at before: what its status says does not matter any more.
    is_known: bool,
    decision: Decision,
}

/// What a settle changed for a Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// The Service.
    pub service: ServiceKey,
    /// What it has and lacks now.
    pub decision: Decision,
    /// What its status said it had, and which it keeps: this allocator sees it for the first time.
    pub adopted: Vec<IpAddr>,
    /// What it has and did not have before.
    pub gained: Vec<IpAddr>,
    /// Whether what it lacks, or why it has what it has, is different from before.
    pub has_news: bool,
    /// What it had and has no more.
    pub released: Vec<(IpAddr, Released)>,
}

/// What a pool says to a Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// The pool.
    pub pool: PoolName,
    /// The family of the address.
    pub family: IpFamily,
    /// Why it gives none; none if it would.
    pub obstacle: Option<Obstacle>,
}

impl Allocator {
    /// Takes in pools, namespaces and nodes. Every Service is looked at in the next settle if they changed.
    pub fn configure(&mut self, context: Context) {
        if self.context == context {
            return;
        }
        self.pools = Pools::new(&context, &self.ledger, self.pools.holds().clone());
        self.context = context;
        self.dirty = self.entries.values().map(Entry::turn).collect();
        self.is_helpful = true;
    }

    /// Takes in what a Service asks for now.
    ///
    /// What its status says it holds counts only the first time that this object is seen.
    pub fn claim(&mut self, claim: Claim) {
        let uid = self
            .entries
            .get(&claim.service)
            .map(|entry| &entry.claim.uid);
        if uid.is_some_and(|uid| *uid != claim.uid) {
            self.delete(&claim.service);
        }
        let Some(entry) = self.entries.get_mut(&claim.service) else {
            let entry = Entry::new(claim);
            self.dirty.insert(entry.turn());
            self.entries.insert(entry.claim.service.clone(), entry);
            return;
        };
        if !entry.is_known {
            entry.holdings.clone_from(&claim.held);
        } else if entry.claim.asks_the_same(&claim) {
            return;
        }
        let turn = entry.turn();
        self.dirty.remove(&turn);
        self.lacking.remove(&turn);
        self.is_helpful |= entry.claim.terms != claim.terms;
        entry.claim = claim;
        self.dirty.insert(entry.turn());
    }

    /// The Service is gone, or none of ours any more. Returns what it had.
    pub fn withdraw(&mut self, service: &ServiceKey) -> Vec<IpAddr> {
        let Some(entry) = self.entries.remove(service) else {
            return Vec::new();
        };
        let turn = entry.turn();
        self.dirty.remove(&turn);
        self.lacking.remove(&turn);
        if !entry.is_known {
            return Vec::new();
        }
        for &address in &entry.holdings {
            strike(&mut self.ledger, &mut self.pools, address, service);
        }
        self.is_helpful = true;
        entry.holdings
    }

    /// The Service was deleted. Returns what it had, which is held for one of the same name if a pool says so.
    pub fn delete(&mut self, service: &ServiceKey) -> Vec<IpAddr> {
        let had = self.withdraw(service);
        for &address in &had {
            if let Some(seconds) = self.pools.hold_seconds(address) {
                let length = SignedDuration::from_secs(i64::from(seconds));
                let until = self.now.checked_add(length).unwrap_or(Timestamp::MAX);
                let service = service.clone();
                self.pools.hold(Hold {
                    address,
                    service,
                    until,
                });
            }
        }
        had
    }

    /// Takes in a hold that was in force before a restart; configure first, and before the first settle.
    pub fn restore(&mut self, hold: Hold) {
        let is_over = hold.until <= self.now;
        if !is_over && self.pools.may_hold(hold.address) {
            self.pools.hold(hold);
        }
    }

    /// Time has come to `now`: holds end whose time is over.
    pub fn advance(&mut self, now: Timestamp) {
        self.now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        while let Some(hold) = self.pools.holds().first() {
            if hold.until > self.now {
                break;
            }
            self.pools
                .end_hold(hold.address, &hold.service, &self.ledger);
            self.is_helpful = true;
        }
    }

    /// When to call [`Self::advance`] next, if ever.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.pools.holds().first().map(|hold| hold.until)
    }

    /// The addresses that are held for deleted Services, the one whose hold ends first first.
    pub fn holds(&self) -> impl Iterator<Item = Hold> + '_ {
        self.pools.holds().iter()
    }

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

    /// What a Service has and lacks; none if it was not seen, or not in a settle yet.
    pub fn decision(&self, service: &ServiceKey) -> Option<&Decision> {
        let entry = self.entries.get(service)?;
        entry.is_known.then_some(&entry.decision)
    }

    /// What a Service asks for, as far as it is known.
    pub fn claim_of(&self, service: &ServiceKey) -> Option<&Claim> {
        self.entries.get(service).map(|entry| &entry.claim)
    }

    /// All Services that were decided, with what they have and lack.
    pub fn decisions(&self) -> impl Iterator<Item = (&ServiceKey, &Decision)> {
        let known = self.entries.iter().filter(|(_, entry)| entry.is_known);
        known.map(|(service, entry)| (service, &entry.decision))
    }

    /// The Services that lack something, the oldest first.
    pub fn lacking(&self) -> impl Iterator<Item = &ServiceKey> {
        self.lacking.iter().map(|turn| &turn.service)
    }

    /// The holders of an address, by namespace and name.
    pub fn holders(&self, address: IpAddr) -> impl Iterator<Item = &ServiceKey> {
        self.ledger.holders(address)
    }

    /// How many addresses of a family are held, in pools or not.
    pub fn held_count(&self, family: IpFamily) -> usize {
        self.ledger.count(family)
    }

    /// How full each pool is.
    pub fn usage(&self) -> impl Iterator<Item = (&PoolName, PoolUsage)> {
        let pools = self.pools.iter();
        pools.map(|entry| (entry.name(), self.pools.usage(entry, &self.ledger)))
    }

    /// What each pool says to a Service that wants one more address of each of its families.
    ///
    /// In the order in which pools serve. Whether the Service needs one, and from which pool it asks, is not looked at.
    pub fn verdicts(&self, service: &ServiceKey) -> Vec<Verdict> {
        let Some(entry) = self.entries.get(service) else {
            return Vec::new();
        };
        let search = Search {
            context: &self.context,
            pools: &self.pools,
            ledger: &self.ledger,
            claim: &entry.claim,
            holdings: &entry.holdings,
        };
        let pools = self.pools.iter();
        let verdicts = pools.flat_map(|pool| {
            let families = entry.claim.families.iter();
            families.map(move |&family| Verdict {
                pool: pool.name().clone(),
                family,
                obstacle: search.verdict(pool, family),
            })
        });
        verdicts.collect()
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
        let mut refusals = Vec::new();
        // Each round gives something, the last one nothing: several addresses may have to be reassigned.
        for _ in 0..entry.holdings.len() + ROUNDS {
            let search = Search {
                context: &self.context,
                pools: &self.pools,
                ledger: &self.ledger,
                claim: &entry.claim,
                holdings: &entry.holdings,
            };
            let plan = search.plan();
            refusals = plan.refusals;
            if plan.changes.is_empty() {
                break;
            }
            let dropped = carry_out(plan.changes, entry, &mut self.ledger, &mut self.pools);
            self.is_helpful |= !dropped.is_empty() || entry.claim.terms.key.is_some();
            if !dropped.is_empty() {
                let dropped = dropped.into_iter();
                let released = releases.entry(service.clone()).or_default();
                released.extend(dropped.map(|address| (address, Released::Replaced)));
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
        let search = Search {
            context: &self.context,
            pools: &self.pools,
            ledger: &self.ledger,
            claim: &entry.claim,
            holdings: &entry.holdings,
        };
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

impl Entry {
    fn new(claim: Claim) -> Self {
        Self {
            holdings: claim.held.clone(),
            is_known: false,
            decision: Decision::default(),
            claim,
        }
    }

    fn turn(&self) -> Turn {
        Turn {
            created_seconds: self.claim.created_seconds,
            service: self.claim.service.clone(),
        }
    }
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

fn enter(ledger: &mut Ledger, pools: &mut Pools, address: IpAddr, claim: &Claim) {
    let namespace = claim.service.namespace();
    if pools.have_quotas() && !ledger.is_held_in(address, namespace, None) {
        pools.charge(address, namespace);
    }
    if ledger.enter(address, &claim.service, &Arc::clone(&claim.terms)) {
        pools.occupy(address);
    }
}

fn strike(ledger: &mut Ledger, pools: &mut Pools, address: IpAddr, service: &ServiceKey) {
    let namespace = service.namespace();
    let was_counted = pools.have_quotas() && ledger.holds(address, service);
    if ledger.strike(address, service) {
        pools.vacate(address);
    }
    if was_counted && !ledger.is_held_in(address, namespace, None) {
        pools.discharge(address, namespace);
    }
}
