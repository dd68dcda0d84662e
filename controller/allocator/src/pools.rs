//! The pools in the order in which they serve, and how full they are.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use config::address::{AddressRange, IpFamily, successor};
use config::name::{NodeName, PoolName, ServiceKey};
use config::pool::Pool;

use crate::context::{Context, Stranger};
use crate::holds::{Hold, Holds};
use crate::ledger::Ledger;
use crate::runs::Runs;

/// How many addresses of a pool are held and free.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PoolUsage {
    /// Of IPv4.
    pub v4: FamilyUsage,
    /// Of IPv6.
    pub v6: FamilyUsage,
}

/// How many addresses of one family of a pool are held and free.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FamilyUsage {
    /// Addresses that the pool may give, held ones included.
    pub total: u128,
    /// Addresses that Services hold.
    pub assigned: u128,
    /// Addresses that are reserved and not held, or that nodes or Services of other classes have.
    pub set_aside: u128,
    /// Addresses that are held for deleted Services, and that nobody has.
    pub on_hold: u128,
    /// Addresses that any admitted Service can get.
    pub available: u128,
}

/// The pools, in the order in which they serve a Service that asks for none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pools {
    entries: Vec<PoolEntry>,
    position_by_name: BTreeMap<PoolName, usize>,
    set_aside: BTreeMap<IpAddr, SetAside>,
    holds: Holds,
    /// Addresses that are held, set aside or on hold: a Service for which nothing is reserved gets one of the others.
    taken: Runs,
}

/// A pool, ready to be asked.
#[derive(Clone, Debug)]
pub(crate) struct PoolEntry {
    pub(crate) pool: Arc<Pool>,
    sorted_ranges: Vec<AddressRange>,
    v4: Counts,
    v6: Counts,
    /// How many addresses of each family the Services of a namespace have; kept only for a pool with a quota.
    by_namespace: BTreeMap<(IpFamily, Arc<str>), u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// Addresses that may be given.
    total: u128,
    /// Addresses that are held.
    held: u128,
    /// Held ones among those that may be given.
    held_of_total: u128,
}

/// Why an address is not for everybody.
#[derive(Clone, Debug, Default)]
struct SetAside {
    node: Option<NodeName>,
    other: Option<ServiceKey>,
    stranger: Option<Stranger>,
    reserved: Vec<(PoolName, ServiceKey)>,
}

impl Pools {
    /// The pools of `context`, as full as `ledger` says. A hold ends if the pools that have its address hold none.
    pub(crate) fn new(context: &Context, ledger: &Ledger, holds: Holds) -> Self {
        let mut pools: Vec<&Arc<Pool>> = context.pools.values().collect();
        pools.sort_by_key(|pool| serving_order(pool));
        let mut set_aside: BTreeMap<IpAddr, SetAside> = BTreeMap::new();
        for (&address, node) in &context.nodes {
            set_aside.entry(address).or_default().node = Some(node.clone());
        }
        for (&address, service) in &context.others {
            set_aside.entry(address).or_default().other = Some(service.clone());
        }
        for (&address, stranger) in &context.strangers {
            set_aside.entry(address).or_default().stranger = Some(stranger.clone());
        }
        for pool in &pools {
            for reservation in &pool.reservations {
                let reserved = (pool.name.clone(), reservation.service.clone());
                let entry = set_aside.entry(reservation.address).or_default();
                entry.reserved.push(reserved);
            }
        }
        let mut taken = Runs::default();
        set_aside.keys().for_each(|&address| taken.insert(address));
        let names = pools.iter().map(|pool| pool.name.clone());
        let mut pools = Self {
            position_by_name: names.zip(0..).collect(),
            entries: pools.into_iter().map(PoolEntry::new).collect(),
            set_aside,
            holds: Holds::default(),
            taken,
        };
        for address in ledger.held() {
            pools.occupy(address);
            if pools.have_quotas() {
                let namespaces = ledger.namespaces(address).into_iter();
                namespaces.for_each(|namespace| pools.charge(address, namespace));
            }
        }
        for hold in holds.iter() {
            if pools.may_hold(hold.address) {
                pools.hold(hold);
            }
        }
        pools
    }

    /// All pools, in the order in which they serve.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &PoolEntry> {
        self.entries.iter()
    }

    /// The pool with this name.
    pub(crate) fn get(&self, name: &PoolName) -> Option<&PoolEntry> {
        self.entries.get(*self.position_by_name.get(name)?)
    }

    /// The pools that have `address`, in the order in which they serve.
    pub(crate) fn containing(&self, address: IpAddr) -> impl Iterator<Item = &PoolEntry> {
        self.entries
            .iter()
            .filter(move |entry| entry.contains(address))
    }

    /// `address` has its first holder now.
    pub(crate) fn occupy(&mut self, address: IpAddr) {
        self.taken.insert(address);
        for entry in &mut self.entries {
            entry.count(address, |count| *count += 1);
        }
    }

    /// `address` has no holder any more.
    pub(crate) fn vacate(&mut self, address: IpAddr) {
        self.release(address);
        for entry in &mut self.entries {
            entry.count(address, |count| *count -= 1);
        }
    }

    /// Nobody holds `address`: others may have it unless it is set aside or on hold.
    fn release(&mut self, address: IpAddr) {
        if !self.set_aside.contains_key(&address) && !self.holds.contains(address) {
            self.taken.remove(address);
        }
    }

    /// Whether any pool has a quota, and so counts by namespace.
    pub(crate) fn have_quotas(&self) -> bool {
        self.entries.iter().any(|entry| entry.pool.quota.is_some())
    }

    /// `address` has its first holder in `namespace` now.
    pub(crate) fn charge(&mut self, address: IpAddr, namespace: &str) {
        let entries = self.entries.iter_mut();
        let limited = entries.filter(|entry| entry.pool.quota.is_some() && entry.contains(address));
        for entry in limited {
            let key = (IpFamily::of(address), Arc::from(namespace));
            *entry.by_namespace.entry(key).or_default() += 1;
        }
    }

    /// `address` has no holder in `namespace` any more.
    pub(crate) fn discharge(&mut self, address: IpAddr, namespace: &str) {
        let entries = self.entries.iter_mut();
        let limited = entries.filter(|entry| entry.pool.quota.is_some() && entry.contains(address));
        for entry in limited {
            let key = (IpFamily::of(address), Arc::from(namespace));
            if let Some(count) = entry.by_namespace.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    entry.by_namespace.remove(&key);
                }
            }
        }
    }

    /// The holds of addresses of deleted Services.
    pub(crate) fn holds(&self) -> &Holds {
        &self.holds
    }

    /// Holds an address.
    pub(crate) fn hold(&mut self, hold: Hold) {
        self.taken.insert(hold.address);
        self.holds.insert(hold);
    }

    /// Ends a hold; whether there was one.
    pub(crate) fn end_hold(
        &mut self,
        address: IpAddr,
        service: &ServiceKey,
        ledger: &Ledger,
    ) -> bool {
        let ended = self.holds.remove(address, service);
        if ended && !ledger.is_held(address) {
            self.release(address);
        }
        ended
    }

    /// Whether a hold of `address` goes on: a pool wants it, or no pool has the address for now.
    pub(crate) fn may_hold(&self, address: IpAddr) -> bool {
        self.containing(address).next().is_none() || self.hold_seconds(address).is_some()
    }

    /// How long the pools that have `address` want it held after the deletion of its Service, in seconds; the longest.
    pub(crate) fn hold_seconds(&self, address: IpAddr) -> Option<u32> {
        let containing = self.containing(address);
        let times = containing.filter_map(|entry| entry.pool.hold_after_deletion);
        times.max().map(|time| time.seconds())
    }

    /// The first address of a family that a pool can give to anybody, in the order of its ranges.
    pub(crate) fn first_free(&self, entry: &PoolEntry, family: IpFamily) -> Option<IpAddr> {
        entry.ranges(family).find_map(|range| {
            let mut start = range.first();
            loop {
                let gap = self.taken.first_gap(start);
                let gap = gap.filter(|&gap| range.contains(gap))?;
                if entry.may_give(gap) {
                    return Some(gap);
                }
                start = successor(gap)?;
            }
        })
    }

    /// The node that has `address`.
    pub(crate) fn node(&self, address: IpAddr) -> Option<&NodeName> {
        self.set_aside.get(&address)?.node.as_ref()
    }

    /// The Service of another class that has `address`.
    pub(crate) fn other(&self, address: IpAddr) -> Option<&ServiceKey> {
        self.set_aside.get(&address)?.other.as_ref()
    }

    /// The machine on the LAN that has `address` although nobody gave it.
    pub(crate) fn stranger(&self, address: IpAddr) -> Option<&Stranger> {
        self.set_aside.get(&address)?.stranger.as_ref()
    }

    /// The pool and the Service that `address` is reserved in and for, if `service` is not one of those it is for.
    pub(crate) fn reserved_for_other(
        &self,
        address: IpAddr,
        service: &ServiceKey,
    ) -> Option<&(PoolName, ServiceKey)> {
        let reserved = &self.set_aside.get(&address)?.reserved;
        let mine = reserved.iter().any(|(_, other)| other == service);
        reserved.first().filter(|_| !mine)
    }

    /// How full a pool is.
    pub(crate) fn usage(&self, entry: &PoolEntry, ledger: &Ledger) -> PoolUsage {
        PoolUsage {
            v4: self.family_usage(entry, IpFamily::V4, ledger),
            v6: self.family_usage(entry, IpFamily::V6, ledger),
        }
    }

    /// How full one family of a pool is.
    pub(crate) fn family_usage(
        &self,
        entry: &PoolEntry,
        family: IpFamily,
        ledger: &Ledger,
    ) -> FamilyUsage {
        let counts = entry.counts(family);
        let set_aside = entry.ranges(family).flat_map(|range| {
            let inside = self.set_aside.range(range.first()..=range.last());
            inside.map(|(&address, _)| address)
        });
        let set_aside = set_aside
            .filter(|&address| entry.may_give(address) && !ledger.is_held(address))
            .fold(0_u128, |count, _| count + 1);
        let on_hold = entry
            .ranges(family)
            .flat_map(|range| self.holds.between(range.first(), range.last()));
        let on_hold = on_hold
            .filter(|&address| {
                entry.may_give(address)
                    && !ledger.is_held(address)
                    && !self.set_aside.contains_key(&address)
            })
            .fold(0_u128, |count, _| count + 1);
        FamilyUsage {
            total: counts.total,
            assigned: counts.held,
            set_aside,
            on_hold,
            available: counts
                .total
                .saturating_sub(counts.held_of_total)
                .saturating_sub(set_aside)
                .saturating_sub(on_hold),
        }
    }
}

/// Pools made for certain Services first, by priority, of which 0 is the last; then the others; by name.
fn serving_order(pool: &Pool) -> (bool, bool, u32, PoolName) {
    let priority = pool
        .allocation
        .as_ref()
        .map_or(0, |allocation| allocation.priority);
    let name = pool.name.clone();
    (pool.allocation.is_none(), priority == 0, priority, name)
}

impl PoolEntry {
    fn new(pool: &Arc<Pool>) -> Self {
        let mut sorted_ranges = pool.ranges.clone();
        sorted_ranges.sort_unstable();
        let mut entry = Self {
            pool: Arc::clone(pool),
            sorted_ranges,
            v4: Counts::default(),
            v6: Counts::default(),
            by_namespace: BTreeMap::new(),
        };
        for range in &pool.ranges {
            let skipped = if pool.avoid_buggy_ips {
                buggy_count(range)
            } else {
                0
            };
            let total = &mut entry.counts_mut(range.family()).total;
            *total = total.saturating_add(range.count() - skipped);
        }
        entry
    }

    /// The name of the pool.
    pub(crate) fn name(&self) -> &PoolName {
        &self.pool.name
    }

    /// Whether `address` is one of the pool's.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let after = self
            .sorted_ranges
            .partition_point(|range| range.first() <= address);
        let before = after
            .checked_sub(1)
            .and_then(|index| self.sorted_ranges.get(index));
        before.is_some_and(|range| range.contains(address))
    }

    /// The ranges of one family, in the order written.
    pub(crate) fn ranges(&self, family: IpFamily) -> impl Iterator<Item = &AddressRange> {
        let ranges = self.pool.ranges.iter();
        ranges.filter(move |range| range.family() == family)
    }

    /// Whether an address of the pool may be given without being asked for (`avoidBuggyIPs`).
    pub(crate) fn may_give(&self, address: IpAddr) -> bool {
        !(self.pool.avoid_buggy_ips && is_buggy(address))
    }

    /// How many addresses of a family the Services of a namespace have; counted only if the pool has a quota.
    pub(crate) fn charged(&self, family: IpFamily, namespace: &str) -> u32 {
        let key = (family, Arc::from(namespace));
        self.by_namespace.get(&key).copied().unwrap_or(0)
    }

    fn counts(&self, family: IpFamily) -> Counts {
        match family {
            IpFamily::V4 => self.v4,
            IpFamily::V6 => self.v6,
        }
    }

    fn counts_mut(&mut self, family: IpFamily) -> &mut Counts {
        match family {
            IpFamily::V4 => &mut self.v4,
            IpFamily::V6 => &mut self.v6,
        }
    }

    fn count(&mut self, address: IpAddr, change: fn(&mut u128)) {
        if self.contains(address) {
            let given = self.may_give(address);
            let counts = self.counts_mut(IpFamily::of(address));
            change(&mut counts.held);
            if given {
                change(&mut counts.held_of_total);
            }
        }
    }
}

/// Whether some old devices take the address for the network or the broadcast address of a /24.
fn is_buggy(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => matches!(address.octets(), [_, _, _, 0 | 255]),
        IpAddr::V6(_) => false,
    }
}

fn buggy_count(range: &AddressRange) -> u128 {
    let (IpAddr::V4(first), IpAddr::V4(last)) = (range.first(), range.last()) else {
        return 0;
    };
    /// How many of the addresses below `end` end in .0 or .255.
    fn below(end: u64) -> u64 {
        end.div_ceil(256) + end / 256
    }
    let (first, last) = (u64::from(first.to_bits()), u64::from(last.to_bits()));
    u128::from(below(last + 1) - below(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_buggy_addresses_without_enumerating() {
        for text in [
            "192.0.2.0/24",
            "192.0.2.1-192.0.2.254",
            "192.0.2.255-192.0.3.0",
            "192.0.2.0",
            "192.0.2.200-192.0.5.255",
            "255.255.255.0/24",
            "0.0.0.0/16",
        ] {
            let range: AddressRange = text.parse().unwrap();
            let looked = range
                .addresses()
                .filter(|&address| is_buggy(address))
                .count();
            assert_eq!(buggy_count(&range), looked as u128, "{text}");
        }
    }
}
