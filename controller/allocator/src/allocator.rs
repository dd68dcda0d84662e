//! Everything that is given, kept true one changed Service at a time.

mod settling;

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
use crate::rejection::Obstacle;
use crate::search::Search;

/// Gives addresses to Services and knows who has which.
///
/// Tell it what changed with [`Self::configure`], [`Self::claim`] and [`Self::withdraw`], then ask with
/// [`Self::settle`] what follows. After a settle:
///
/// - no address is held by two Services that may not share it;
/// - nobody has lost an address because another Service came;
/// - every Service that lacks something has a [`Rejection`](crate::Rejection) that is true.
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
    /// What of that it was given a moment ago, as of the last settle, and when.
    fresh: BTreeMap<IpAddr, Timestamp>,
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
        let search = entry.search(&self.context, &self.pools, &self.ledger);
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
}

impl Entry {
    fn new(claim: Claim) -> Self {
        Self {
            holdings: claim.held.clone(),
            fresh: BTreeMap::new(),
            is_known: false,
            decision: Decision::default(),
            claim,
        }
    }

    fn search<'a>(
        &'a self,
        context: &'a Context,
        pools: &'a Pools,
        ledger: &'a Ledger,
    ) -> Search<'a> {
        Search {
            context,
            pools,
            ledger,
            claim: &self.claim,
            holdings: &self.holdings,
            fresh: &self.fresh,
        }
    }

    /// Works out what was given a moment ago.
    fn refresh(&mut self, now: Timestamp) {
        let holdings = &self.holdings;
        self.fresh.retain(|address, given| {
            let age = now.duration_since(*given);
            holdings.contains(address) && age.as_secs() < FRESH_SECONDS
        });
    }

    fn turn(&self) -> Turn {
        Turn {
            created_seconds: self.claim.created_seconds,
            service: self.claim.service.clone(),
        }
    }
}

/// How long after an address was given it is exchanged for another if a machine on the LAN has it, in seconds.
///
/// Speakers probe before they announce, which takes less than a second; the record, the API server and a busy node take
/// their time.
const FRESH_SECONDS: i64 = 60;

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
