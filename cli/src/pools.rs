//! `pools`: how full the pools are, and who has which address.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use config::address::AddressRange;
use config::conflict::conflicts;
use config::name::PoolName;
use config::pool::Pool;
use controller_allocator::{Allocator, FamilyUsage};
use ipnet::{IpSubnets, Ipv4Subnets, Ipv6Subnets};
use serde::Serialize;

use crate::cluster::Cluster;
use crate::table::Table;

/// All pools, and what is held outside of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pools {
    /// The pools by name.
    pub pools: Vec<PoolView>,
    /// Addresses that Services hold and no pool has.
    pub outside: Vec<Holding>,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolView {
    /// Its name.
    pub name: String,
    /// Where it was written.
    pub origin: String,
    /// What it consists of.
    pub addresses: Vec<String>,
    /// Whom it serves, in words.
    pub serves: String,
    /// How full it is.
    pub ipv4: Usage,
    /// How full it is.
    pub ipv6: Usage,
    /// Who has which address.
    pub holdings: Vec<Holding>,
    /// Addresses that are kept for Services that do not have them.
    pub reserved: Vec<Reserved>,
    /// What else has its addresses.
    pub conflicts: Vec<String>,
}

/// How full one family of a pool is; numbers are texts where they may be larger than programs can count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Addresses that the pool may give, held ones included; 18446744073709551615 stands for that many and more.
    pub total: u64,
    /// Addresses that Services hold.
    pub assigned: u64,
    /// Addresses that are reserved and not held, or that nodes have.
    pub set_aside: u64,
    /// Addresses that anybody can get.
    pub available: u64,
}

/// An address and who has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Holding {
    /// The address.
    pub address: IpAddr,
    /// The Services that have it.
    pub services: Vec<String>,
}

/// An address that waits for a Service.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reserved {
    /// The address.
    pub address: IpAddr,
    /// The Service.
    pub service: String,
}

impl From<FamilyUsage> for Usage {
    fn from(usage: FamilyUsage) -> Self {
        let number = |count: u128| u64::try_from(count).unwrap_or(u64::MAX);
        Self {
            total: number(usage.total),
            assigned: number(usage.assigned),
            set_aside: number(usage.set_aside),
            available: number(usage.available),
        }
    }
}

impl Usage {
    /// `3 of 11`; nothing if the pool has none of the family.
    pub fn text(self) -> String {
        if self.total == 0 && self.assigned == 0 {
            String::new()
        } else {
            format!("{} of {}", self.assigned, short(self.total))
        }
    }
}

/// A number as it fits into a table: large ones are rounded.
fn short(number: u64) -> String {
    match number {
        0..100_000_000 => number.to_string(),
        large => format!("{:.1e}", large as f64),
    }
}

/// A range as a prefix if it is one.
fn range_text(range: AddressRange) -> String {
    let mut subnets = match (range.first(), range.last()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => IpSubnets::V4(Ipv4Subnets::new(first, last, 0)),
        (IpAddr::V6(first), IpAddr::V6(last)) => IpSubnets::V6(Ipv6Subnets::new(first, last, 0)),
        // A range has one family.
        _ => return range.to_string(),
    };
    match (subnets.next(), subnets.next()) {
        (Some(network), None) if range.count() > 1 => network.to_string(),
        _ => range.to_string(),
    }
}

/// How full the pools are.
pub fn pools(cluster: &Cluster, allocator: &Allocator) -> Pools {
    let mut holders: BTreeMap<Option<PoolName>, BTreeMap<IpAddr, Vec<String>>> = BTreeMap::new();
    for (service, decision) in allocator.decisions() {
        for granted in &decision.granted {
            let held = holders.entry(granted.pool.clone()).or_default();
            held.entry(granted.address)
                .or_default()
                .push(service.to_string());
        }
    }
    let mut holdings = |pool: Option<&PoolName>| -> Vec<Holding> {
        let held = holders
            .remove(&pool.cloned())
            .unwrap_or_default()
            .into_iter();
        held.map(|(address, services)| Holding { address, services })
            .collect()
    };
    let conflicts = conflicts(&cluster.snapshot);
    let usage: BTreeMap<_, _> = allocator.usage().collect();
    let pools = cluster.snapshot.pools().iter().map(|(name, pool)| {
        let usage = usage.get(name).copied().unwrap_or_default();
        let reserved = pool.reservations.iter().filter(|reservation| {
            let mut holders = allocator.holders(reservation.address);
            !holders.any(|holder| *holder == reservation.service)
        });
        let conflicts = conflicts.get(name).into_iter().flatten();
        PoolView {
            name: name.to_string(),
            origin: pool.origin.to_string(),
            addresses: pool.ranges.iter().copied().map(range_text).collect(),
            serves: serves(pool),
            ipv4: usage.v4.into(),
            ipv6: usage.v6.into(),
            holdings: holdings(Some(name)),
            reserved: reserved
                .map(|reservation| Reserved {
                    address: reservation.address,
                    service: reservation.service.to_string(),
                })
                .collect(),
            conflicts: conflicts.map(ToString::to_string).collect(),
        }
    });
    let pools = pools.collect();
    Pools {
        pools,
        outside: holdings(None),
    }
}

/// Whom a pool serves, in words.
fn serves(pool: &Pool) -> String {
    if pool.disabled {
        return "nobody new".to_owned();
    }
    let mut words = Vec::new();
    if let Some(allocation) = &pool.allocation {
        if !allocation.namespaces.is_empty() {
            words.push(format!("namespaces {}", allocation.namespaces.join(", ")));
        }
        if !allocation.namespace_selectors.is_empty() {
            words.push("namespaces by label".to_owned());
        }
        if !allocation.service_selectors.is_empty() {
            words.push("Services by label".to_owned());
        }
    }
    if !pool.auto_assign {
        words.push("on request".to_owned());
    }
    if words.is_empty() {
        "everybody".to_owned()
    } else {
        words.join("; ")
    }
}

impl Pools {
    /// The table of the pools.
    pub fn table(&self, indent: usize) -> String {
        let headings = [
            "POOL",
            "SERVES",
            "IPV4 IN USE",
            "FREE",
            "IPV6 IN USE",
            "FREE",
            "ADDRESSES",
        ];
        let mut table = Table::new(&headings);
        for pool in &self.pools {
            let free = |usage: Usage| match usage.total {
                0 => String::new(),
                _ => short(usage.available),
            };
            table.row([
                pool.name.clone(),
                pool.serves.clone(),
                pool.ipv4.text(),
                free(pool.ipv4),
                pool.ipv6.text(),
                free(pool.ipv6),
                pool.addresses.join(", "),
            ]);
        }
        table.text(indent)
    }

    /// The whole as text.
    pub fn text(&self) -> String {
        if self.pools.is_empty() && self.outside.is_empty() {
            return "There is no pool. To do: create an IPAddressPool.\n".to_owned();
        }
        let mut text = self.table(0);
        for pool in &self.pools {
            let mut table = Table::new(&["ADDRESS", "SERVICE"]);
            for holding in &pool.holdings {
                table.row([holding.address.to_string(), holding.services.join(", ")]);
            }
            for reserved in &pool.reserved {
                let service = format!("reserved for {}", reserved.service);
                table.row([reserved.address.to_string(), service]);
            }
            if !pool.holdings.is_empty() || !pool.reserved.is_empty() {
                let _ = write!(text, "\n{} ({})\n{}", pool.name, pool.origin, table.text(2));
            }
            for conflict in &pool.conflicts {
                let _ = writeln!(text, "  ! {conflict}");
            }
        }
        if !self.outside.is_empty() {
            let mut table = Table::new(&["ADDRESS", "SERVICE"]);
            for holding in &self.outside {
                table.row([holding.address.to_string(), holding.services.join(", ")]);
            }
            let _ = write!(
                text,
                "\nIn no pool (kept until the Service goes)\n{}",
                table.text(2)
            );
        }
        text
    }
}
