//! Laws that hold after every event, whatever came before, checked against a model that enumerates.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "only tests")]

mod event;
mod law;
mod model;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use config::name::ServiceKey;
use config::pool::OnInUse;
use controller_allocator::{Claim, Decision};
use proptest::prelude::*;

use event::*;
use law::*;
use model::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_laws_hold_after_every_event(events in prop::collection::vec(any_event(), 1..24)) {
        let mut model = Model::default();
        for event in events {
            let before = model.holdings();
            let complete = model.claims.keys().filter(|service| model.decision(service).is_complete());
            let complete: BTreeSet<ServiceKey> = complete.cloned().collect();
            let touched: BTreeSet<ServiceKey> = match &event {
                Event::Claim(claim) => asking_otherwise(&model, &before, std::slice::from_ref(claim)),
                Event::Claims(claims) => asking_otherwise(&model, &before, claims),
                Event::Contest(service) => asking_otherwise(&model, &before, &model.contest(service)),
                Event::Withdraw(service) | Event::Delete(service) => [service.clone()].into(),
                Event::Restart | Event::Pass(_) => BTreeSet::new(),
                // A pool may reassign, and a pool that was asked for may change: those who asked for nothing stay.
                Event::Configure(context) => {
                    let pools = &mut context.pools.values();
                    let reassigns = pools.any(|pool| pool.on_in_use == OnInUse::Reassign);
                    // Whoever was given something within a minute that another machine has may get something else.
                    let given_in_vain = |claim: &Claim| {
                        let mut held = before[&claim.service].iter();
                        held.any(|&address| model.is_given_in_vain(context, &claim.service, address))
                    };
                    let touched = model.claims.values();
                    touched
                        .filter(|claim| reassigns || claim.requests.pool.is_some() || given_in_vain(claim))
                        .map(|claim| claim.service.clone())
                        .collect()
                }
            };
            let mut before_gifts = before.clone();
            for claim in brought(&model, &event) {
                before_gifts.entry(claim.service).or_default().extend(claim.held);
            }
            model.apply(event);
            no_double_use(&model)?;
            nobody_moves(&model, &before, &complete, &touched)?;
            every_refusal_is_true(&model)?;
            every_gift_is_allowed(&model, &before)?;
            what_was_given_in_vain_is_exchanged(&model)?;
            usage_is_true(&model)?;
            holds_are_true(&model)?;
            no_gift_exceeds_a_quota(&model, &before_gifts)?;
            // A restart, or another replica, moves nobody, and finds nothing that was overlooked.
            let restarted = model.restarted();
            for service in model.claims.keys() {
                let addresses = |decision: &Decision| decision.addresses().collect::<Vec<_>>();
                prop_assert_eq!(
                    restarted.decision(service).map(addresses),
                    Some(addresses(model.decision(service))),
                    "{} after a restart", service
                );
            }
        }
    }
}
