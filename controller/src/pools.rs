//! What the statuses of our pools should say.

use std::collections::{BTreeMap, BTreeSet};

use config::conflict::conflicts;
use config::crd::{CONFLICTING, HeldSpec, IPAddressPoolStatus};
use config::pool::{Origin, Pool};
use config::refusal::{Kind, Refusal};
use config::snapshot::Snapshot;
use controller_allocator::status::PoolNumbers;
use controller_allocator::{Allocator, Hold};
use jiff::Timestamp;
use serde_json::Value;

use crate::conditions::{self, Wanted, accepted, conditions, refused, shorten};

/// What the status of one pool should say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// How full it is.
    pub numbers: PoolNumbers,
    /// The addresses that are held for deleted Services.
    pub held: Vec<HeldSpec>,
    /// Its conditions: type, status, reason, message.
    pub conditions: Vec<Wanted>,
}

/// The reports on all pools that are objects of ours in the cluster, by name.
pub fn reports(
    snapshot: &Snapshot,
    refusals: &BTreeSet<Refusal>,
    allocator: &Allocator,
) -> BTreeMap<String, Report> {
    let conflicts = conflicts(snapshot);
    let usage: BTreeMap<_, _> = allocator.usage().collect();
    let refused = refused(Kind::Pool, refusals);
    let pools = snapshot.pools().values();
    let in_force: BTreeMap<&str, _> = pools
        .filter(|pool| pool.origin == Origin::Cluster)
        .map(|pool| (pool.name.as_str(), pool))
        .collect();
    let names: BTreeSet<&str> = in_force.keys().chain(refused.keys()).copied().collect();
    let report = |name: &str| {
        let pool = in_force.get(name);
        let numbers = pool.and_then(|pool| usage.get(&pool.name)).copied();
        let refusal = refused.get(name).cloned();
        let mut conditions = vec![accepted(Kind::Pool, pool.is_some(), refusal)];
        if let Some(conflicts) = pool.and_then(|pool| conflicts.get(&pool.name)) {
            let texts: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
            conditions.push((CONFLICTING, true, "Overlap", shorten(texts.join("; "))));
        }
        Report {
            numbers: numbers.map(PoolNumbers::from).unwrap_or_default(),
            held: pool.map(|pool| held(pool, allocator)).unwrap_or_default(),
            conditions,
        }
    };
    names
        .into_iter()
        .map(|name| (name.to_owned(), report(name)))
        .collect()
}

/// The holds of addresses of a pool, by address; those that end last if there are too many.
fn held(pool: &Pool, allocator: &Allocator) -> Vec<HeldSpec> {
    /// `maxItems` of the schema.
    const MOST: usize = 1024;
    if pool.hold_after_deletion.is_none() {
        return Vec::new();
    }
    let holds = allocator.holds().filter(|hold| pool.contains(hold.address));
    let mut holds: Vec<Hold> = holds.collect();
    let surplus = holds.len().saturating_sub(MOST);
    holds.drain(..surplus);
    holds.sort_unstable();
    let spec = |hold: Hold| HeldSpec {
        address: hold.address.to_string(),
        service: hold.service.to_string(),
        until: hold.until.to_string(),
    };
    holds.into_iter().map(spec).collect()
}

/// The holds that the status of a pool tells of; what cannot be read is left out.
pub fn holds(status: &IPAddressPoolStatus) -> Vec<Hold> {
    let held = status.held.iter();
    let hold = |held: &HeldSpec| {
        Some(Hold {
            address: held.address.parse().ok()?,
            service: held.service.parse().ok()?,
            until: held.until.parse().ok()?,
        })
    };
    held.filter_map(hold).collect()
}

/// The body of the server-side apply that makes the status of a pool say what it should; none if it does already.
pub fn apply(
    name: &str,
    known: Option<&IPAddressPoolStatus>,
    report: &Report,
    now: Timestamp,
) -> Option<(Value, IPAddressPoolStatus)> {
    let before = known.map_or(&[][..], |known| &known.conditions);
    let status = IPAddressPoolStatus {
        assigned_ipv4: report.numbers.assigned_ipv4,
        assigned_ipv6: report.numbers.assigned_ipv6,
        available_ipv4: report.numbers.available_ipv4,
        available_ipv6: report.numbers.available_ipv6,
        held: report.held.clone(),
        conditions: conditions(before, &report.conditions, now),
    };
    conditions::apply(Kind::Pool, name, known, status)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use config::declaration::{Group, Object, read};
    use config::snapshot::{Change, Dirty};
    use controller_allocator::Context;

    use serde_json::json;

    use super::*;

    fn snapshot(pools: &[(&str, &str)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (name, range) in pools {
            let spec = json!({"addresses": [range]});
            let read = read(
                Group::Foghorn,
                Kind::Pool,
                name,
                Default::default(),
                spec,
                Origin::Cluster,
            );
            let Ok(Object::Pool(pool)) = read else {
                panic!("{read:?}")
            };
            let change = Change::Pool(pool.name.clone(), Some(Arc::clone(&pool)));
            snapshot.apply(change, &mut Dirty::default());
        }
        snapshot
    }

    #[test]
    fn holds_survive_a_restart_in_the_status_of_their_pool() {
        let snapshot = snapshot(&[("a", "192.0.2.0/24")]);
        let mut context = Context::of(&snapshot);
        for pool in context.pools.values_mut() {
            Arc::make_mut(pool).hold_after_deletion = Some("10m".parse().unwrap());
        }
        let hold = Hold {
            address: "192.0.2.7".parse().unwrap(),
            service: "shop/web".parse().unwrap(),
            until: "2026-01-02T03:04:05Z".parse().unwrap(),
        };
        let mut allocator = Allocator::default();
        allocator.configure(context.clone());
        allocator.restore(hold.clone());
        let pool = context.pools.values().next().unwrap();
        let status = IPAddressPoolStatus {
            held: held(pool, &allocator),
            ..IPAddressPoolStatus::default()
        };
        assert_eq!(status.held[0].until, "2026-01-02T03:04:05Z");
        assert_eq!(holds(&status), [hold]);
        let unreadable = IPAddressPoolStatus {
            held: vec![HeldSpec::default()],
            ..status
        };
        assert_eq!(holds(&unreadable), []);
    }

    #[test]
    fn says_how_full_a_pool_is_and_what_it_overlaps_and_then_nothing() {
        let snapshot = snapshot(&[("a", "192.0.2.0/24"), ("b", "192.0.2.255-192.0.3.0")]);
        let mut allocator = Allocator::default();
        allocator.configure(Context::of(&snapshot));
        let reports = reports(&snapshot, &BTreeSet::new(), &allocator);
        assert_eq!(reports["a"].numbers.available_ipv4, 256);
        assert_eq!(reports["a"].conditions.len(), 1);
        let (kind, is_true, _, message) = &reports["b"].conditions[1];
        assert_eq!((*kind, *is_true), (CONFLICTING, true));
        assert!(
            message.contains("overlaps 192.0.2.0-192.0.2.255 of pool a"),
            "{message}"
        );
        let (_, status) = apply("b", None, &reports["b"], Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(
            apply("b", Some(&status), &reports["b"], Timestamp::now()),
            None
        );
    }
}
