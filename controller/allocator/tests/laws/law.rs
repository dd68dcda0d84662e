//! What must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::address::IpFamily;
use config::name::ServiceKey;
use config::service::FamilyPolicy;
use controller_allocator::status::PoolNumbers;
use controller_allocator::{Asked, Claim, Obstacle};
use proptest::prelude::*;

use crate::event::*;
use crate::model::*;

/// No address is held by two that may not share it.
pub(crate) fn no_double_use(model: &Model) -> Result<(), TestCaseError> {
    let holdings = model.holdings();
    for (one, addresses) in &holdings {
        for (other, theirs) in holdings.range(one.clone()..).skip(1) {
            let both = addresses.iter().any(|address| theirs.contains(address));
            let allowed = may_share(&model.claims[one], &model.claims[other]);
            prop_assert!(
                !both || allowed,
                "{one} and {other} both have {addresses:?}"
            );
        }
    }
    Ok(())
}

/// The Services that may lose what they have by what they say themselves: they ask for something else, or share what they
/// have on other terms. One that changes anything else, and has its addresses alone, keeps them.
pub(crate) fn asking_otherwise(
    model: &Model,
    before: &Holdings,
    claims: &[Claim],
) -> BTreeSet<ServiceKey> {
    let asks_the_same = |new: &Claim| {
        let mut same = claims.iter().filter(|claim| claim.service == new.service);
        let old = model.claims.get(&new.service);
        same.all(|new| {
            old.is_some_and(|old| {
                old.uid == new.uid
                    && old.families == new.families
                    && old.policy == new.policy
                    && old.requests.addresses == new.requests.addresses
                    && old.requests.pool == new.requests.pool
            })
        })
    };
    let is_alone = |service: &ServiceKey| {
        let mut others = before.iter().filter(|(other, _)| *other != service);
        let held = before.get(service);
        others.all(|(_, theirs)| {
            !theirs
                .iter()
                .any(|it| held.is_some_and(|held| held.contains(it)))
        })
    };
    let otherwise = claims
        .iter()
        .filter(|claim| !asks_the_same(claim) || !is_alone(&claim.service));
    otherwise.map(|claim| claim.service.clone()).collect()
}

/// Whoever has all it asked for keeps it, whatever happens to others.
pub(crate) fn nobody_moves(
    model: &Model,
    before: &Holdings,
    was_complete: &BTreeSet<ServiceKey>,
    touched: &BTreeSet<ServiceKey>,
) -> Result<(), TestCaseError> {
    for service in was_complete
        .iter()
        .filter(|service| !touched.contains(*service))
    {
        let now: Vec<IpAddr> = model.decision(service).addresses().collect();
        prop_assert_eq!(&now, &before[service], "{} moved", service);
    }
    Ok(())
}

/// The claims that an event makes.
pub(crate) fn brought(model: &Model, event: &Event) -> Vec<Claim> {
    match event {
        Event::Claim(claim) => vec![claim.clone()],
        Event::Claims(claims) => claims.clone(),
        Event::Contest(service) => model.contest(service),
        _ => Vec::new(),
    }
}

/// No gift takes a namespace over the quota of the only pool that could have made it; `before` is what all had, and what
/// they came with, which they keep, and which others of their namespace may share.
pub(crate) fn no_gift_exceeds_a_quota(
    model: &Model,
    before: &Holdings,
) -> Result<(), TestCaseError> {
    let after = model.holdings();
    for (service, addresses) in &after {
        let gifts = addresses
            .iter()
            .filter(|&&address| !is_held_within(service.namespace(), address, before));
        for &address in gifts {
            let Some(pool) = only_pool(model, address) else {
                continue;
            };
            let mut reservations = pool.reservations.iter();
            let is_reserved = reservations.any(|reserved| reserved.service == *service);
            let Some(limit) = pool.quota.filter(|_| !is_reserved) else {
                continue;
            };
            let (namespace, family) = (service.namespace(), IpFamily::of(address));
            let was = distinct(held_in(pool, family, namespace, before));
            // What the pool reserves for a Service, and what another pool may have given, counts, and is beyond the quota.
            let limited = held_in(pool, family, namespace, &after).filter(|(holder, held)| {
                only_pool(model, *held).is_some() && pool.reserved_for(*held) != Some(holder)
            });
            let is = distinct(limited);
            prop_assert!(
                is <= was.max(limit.get() as usize),
                "{service} was given {address}, by which {namespace} has {is} of {limit} of {}",
                pool.name
            );
        }
    }
    Ok(())
}

/// What is held for deleted Services is what the pools say, no longer and no less.
pub(crate) fn holds_are_true(model: &Model) -> Result<(), TestCaseError> {
    let found = model.allocator.holds();
    let found: BTreeMap<_, _> = found
        .map(|hold| ((hold.address, hold.service), hold.until))
        .collect();
    prop_assert_eq!(&found, &model.holds);
    prop_assert_eq!(
        model.allocator.poll_timeout(),
        model.holds.values().min().copied()
    );
    Ok(())
}

/// Whatever can be given is given, and what is refused cannot be given.
pub(crate) fn every_refusal_is_true(model: &Model) -> Result<(), TestCaseError> {
    for (service, claim) in &model.claims {
        let decision = model.decision(service);
        let held: Vec<IpAddr> = decision.addresses().collect();
        let Some(rejection) = &decision.rejection else {
            for family in &claim.families {
                let has = held.iter().any(|&address| IpFamily::of(address) == *family);
                prop_assert!(has, "{service} has no {family} address and no reason");
            }
            let requested = &claim.requests.addresses;
            let has_all = requested.iter().all(|address| held.contains(address));
            prop_assert!(has_all, "{service} has not what it asked for and no reason");
            continue;
        };
        for refusal in &rejection.refusals {
            let possible = match &refusal.asked {
                Asked::Address(address) | Asked::Reserved(address) => {
                    let asked = &claim.requests.addresses;
                    let earlier = asked.iter().take_while(|earlier| *earlier != address);
                    let kept = asked.iter().filter(|asked| held.contains(asked));
                    let kept: Vec<IpAddr> = earlier.chain(kept).copied().collect();
                    !held.contains(address) && model.may_have(claim, *address, true, &kept)
                }
                Asked::Any(family, _) => model.any_can_be_had(claim, *family, &[]),
                Asked::Another(address) | Asked::Free(address) => {
                    let family = IpFamily::of(*address);
                    let mut kept = held.clone();
                    kept.retain(|held| held != address && IpFamily::of(*held) == family);
                    model.any_can_be_had(claim, family, &kept)
                }
                Asked::Unreadable => false,
            };
            prop_assert!(
                !possible,
                "{service} is refused what it could have: {rejection}"
            );
        }
        if held.is_empty() && claim.policy == FamilyPolicy::RequireDualStack {
            let last = rejection.refusals[0].obstacles.last();
            let unclear = matches!(last, Some(Obstacle::WrongFamily { .. }));
            prop_assert!(unclear || last == Some(&Obstacle::OtherFamilyMissing));
        }
    }
    Ok(())
}

/// Whatever was given may be given.
pub(crate) fn every_gift_is_allowed(model: &Model, before: &Holdings) -> Result<(), TestCaseError> {
    for (service, claim) in &model.claims {
        let decision = model.decision(service);
        let had_nothing = before.get(service).is_none_or(Vec::is_empty) && claim.held.is_empty();
        if claim.policy == FamilyPolicy::RequireDualStack
            && had_nothing
            && decision.rejection.is_some()
        {
            prop_assert!(
                decision.granted.is_empty(),
                "{service} requires two families and was given one"
            );
        }
        for address in model.decision(service).addresses() {
            let had = before
                .get(service)
                .is_some_and(|had| had.contains(&address));
            if had || claim.held.contains(&address) {
                continue;
            }
            let mut pools = model.context.pools.values();
            let asked = claim.requests.addresses.contains(&address)
                || pools.any(|pool| pool.reserved_for(address) == Some(service));
            let allowed = model.may_have(claim, address, asked, &[]);
            prop_assert!(allowed, "{service} was given {address}");
        }
    }
    Ok(())
}

/// Nobody who is clear about what it wants sits on an address that another machine had before it was given, if there is
/// another one.
pub(crate) fn what_was_given_in_vain_is_exchanged(model: &Model) -> Result<(), TestCaseError> {
    let is_clear = |claim: &Claim| {
        let mut requested = claim.requests.addresses.iter();
        let possible = requested.all(|&asked| claim.families.contains(&IpFamily::of(asked)));
        possible && claim.requests.complaints.is_empty()
    };
    for (service, claim) in model.claims.iter().filter(|(_, claim)| is_clear(claim)) {
        let held: Vec<IpAddr> = model.decision(service).addresses().collect();
        for &address in &held {
            let family = IpFamily::of(address);
            let mut pools = model.context.pools.values();
            let mut requested = claim.requests.addresses.iter();
            let chose = requested.any(|&asked| IpFamily::of(asked) == family)
                || pools.any(|pool| pool.reserved_for(address) == Some(service));
            if chose || !model.is_given_in_vain(&model.context, service, address) {
                continue;
            }
            let mut kept = held.clone();
            kept.retain(|held| *held != address && IpFamily::of(*held) == family);
            prop_assert!(
                !model.any_can_be_had(claim, family, &kept),
                "{service} sits on {address}, which another machine has"
            );
        }
    }
    Ok(())
}

/// The counts are those of counting.
pub(crate) fn usage_is_true(model: &Model) -> Result<(), TestCaseError> {
    let held: BTreeSet<IpAddr> = model.holdings().into_values().flatten().collect();
    for (name, usage) in model.allocator.usage() {
        let pool = &model.context.pools[name];
        let inside = |family| {
            let held = held.iter().filter(|&&address| pool.contains(address));
            held.filter(|&&address| IpFamily::of(address) == family)
                .count() as i64
        };
        let free = |family: IpFamily| {
            let all = pool.ranges.iter().flat_map(|range| range.addresses());
            all.filter(|&address| {
                let buggy = matches!(address, IpAddr::V4(v4) if [0, 255].contains(&v4.octets()[3]));
                let mut pools = model.context.pools.values();
                let skipped = pool.avoid_buggy_ips && buggy;
                let taken = held.contains(&address)
                    || model.context.nodes.contains_key(&address)
                    || model.context.others.contains_key(&address)
                    || model.context.strangers.contains_key(&address);
                let reserved = pools.any(|pool| pool.reserved_for(address).is_some())
                    || model.holds.keys().any(|(held, _)| *held == address);
                IpFamily::of(address) == family && !taken && !skipped && !reserved
            })
            .count() as i64
        };
        let expected = PoolNumbers {
            assigned_ipv4: inside(IpFamily::V4),
            assigned_ipv6: inside(IpFamily::V6),
            available_ipv4: free(IpFamily::V4),
            available_ipv6: free(IpFamily::V6),
        };
        prop_assert_eq!(PoolNumbers::from(usage), expected, "{}", name);
    }
    Ok(())
}
