//! Which pools may serve a Service.

use config::name::ServiceKey;
use config::selector::Labels;

use crate::claim::Claim;
use crate::context::Context;
use crate::pools::PoolEntry;
use crate::rejection::Obstacle;

/// Why a pool is not for a Service (`serviceAllocation`); none if it is.
pub(crate) fn selection_obstacle(
    entry: &PoolEntry,
    claim: &Claim,
    context: &Context,
) -> Option<Obstacle> {
    let allocation = entry.pool.allocation.as_ref()?;
    let namespace = claim.service.namespace();
    let none = Labels::new();
    let labels = context
        .namespaces
        .get(namespace)
        .map_or(&none, AsRef::as_ref);
    if !allocation.admits_namespace(namespace, labels) {
        Some(Obstacle::Namespace {
            pool: entry.name().clone(),
            namespace: namespace.to_owned(),
        })
    } else if !allocation.admits_service(&claim.labels) {
        Some(Obstacle::Labels {
            pool: entry.name().clone(),
        })
    } else {
        None
    }
}

/// Why a pool gives nothing new to a Service that asks for it or for one of its addresses.
pub(crate) fn request_obstacle(
    entry: &PoolEntry,
    claim: &Claim,
    context: &Context,
) -> Option<Obstacle> {
    if entry.pool.disabled {
        return Some(Obstacle::Disabled {
            pool: entry.name().clone(),
        });
    }
    selection_obstacle(entry, claim, context)
}

/// Why a pool gives nothing new to a Service that asks for no pool.
pub(crate) fn automatic_obstacle(
    entry: &PoolEntry,
    claim: &Claim,
    context: &Context,
) -> Option<Obstacle> {
    request_obstacle(entry, claim, context).or_else(|| {
        (!entry.pool.auto_assign).then(|| Obstacle::NotAutomatic {
            pool: entry.name().clone(),
        })
    })
}

/// Whether the pool reserves `address` for `service`, which admits it whatever the pool selects.
pub(crate) fn reserves(entry: &PoolEntry, address: std::net::IpAddr, service: &ServiceKey) -> bool {
    entry.pool.reserved_for(address) == Some(service)
}
