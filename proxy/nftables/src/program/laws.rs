//! The laws that hold for every data plane.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use config::name::ServiceKey;
use config::service::{Protocol, TrafficPolicy};
use proptest::prelude::*;
use proxy_table::generate::any_scene;
use proxy_table::{
    Arrival, Endpoint, EndpointSet, Flow, ForwardingTable, Frontend, FrontendKey, FrontendKind,
    Masquerade, NodeContext, Outcome, Place, ServiceTable,
};

use super::walk::End;
use super::{Forwarder, Item, Mirror, Program};

/// What matters of a program: chains of classes may be left over.
fn in_use(program: &Program, of: &Program) -> Program {
    let mut program = program.clone();
    program
        .chains
        .retain(|chain, _| of.chains.contains_key(chain));
    program
        .elements
        .retain(|item, _| !matches!(item, Item::Class(..)) || of.elements.contains_key(item));
    program
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_program_means_what_the_table_says(scene in any_scene(12)) {
        let table = scene.table();
        let program = Program::compile(&table);
        for flow in &scene.flows {
            prop_assert_eq!(program.walk(flow), table.verdict(flow), "{:?}", flow);
        }
    }

    #[test]
    fn a_difference_leads_to_the_other_and_then_there_is_none(scene in any_scene(12), back in 1_usize..12) {
        let (from, to) = (Program::compile(&scene.earlier(back)), Program::compile(&scene.table()));
        let mut held = from.clone();
        if let Some(change) = from.diff(&to) {
            held.apply(&change);
        }
        prop_assert_eq!(in_use(&held, &to), to.clone());
        prop_assert_eq!(held.diff(&to), None);
    }

    #[test]
    fn incremental_equals_full(scene in any_scene(24), together in 1_usize..4) {
        let mut table = ForwardingTable::new(Arc::clone(&scene.context));
        let mut held = Program::default();
        if let Some(change) = held.diff(&Program::compile(&table)) {
            held.apply(&change);
        }
        let mut mirror = Mirror::new(&table, &held, &Forwarder::Rules);
        for steps in scene.steps.chunks(together) {
            let steps = steps.iter();
            let changes: Vec<_> = steps.map(|step| table.update(&step.key, step.part(&scene.context))).collect();
            if let Some(change) = mirror.update(&table, &changes) {
                for (item, value) in &change.removed {
                    prop_assert_eq!(held.elements.get(item), Some(value), "{:?} goes", item);
                }
                for (item, _) in &change.added {
                    let replaced = change.removed.iter().any(|(removed, _)| removed == item);
                    prop_assert!(replaced || !held.elements.contains_key(item), "{:?} comes", item);
                }
                held.apply(&change);
            }
            let full = Program::compile(&table);
            prop_assert_eq!(in_use(&held, &full), full);
        }
    }

    #[test]
    fn a_client_keeps_its_endpoint_while_it_is_in_the_set(
        before in endpoints(), after in endpoints(), draws in (0_u32..6, 0_u32..6), outside: bool,
    ) {
        let [before_program, after_program] = [&before, &after].map(|endpoints| {
            let mut table = ForwardingTable::new(Arc::new(NodeContext::new("node-1".into())));
            let mut part = ServiceTable::default();
            part.frontends.insert(FRONTEND, Arc::new(with_affinity(endpoints, outside)));
            table.update(&ServiceKey::new("shop", "web"), Some(part));
            Program::compile(&table)
        });
        let flow = Flow {
            source: IpAddr::from([198, 51, 100, 1]),
            source_port: 1024,
            destination: IpAddr::from([203, 0, 113, 7]),
            port: FRONTEND.port,
            protocol: FRONTEND.protocol,
            arrival: Arrival::Interface("eth0".into()),
        };
        let mut clients = HashMap::new();
        let mut endpoint_of = |program: &Program, draw| match program.send(&flow, draw, &mut clients) {
            (End::Delivered(destination, Some(_)), _) => destination.endpoint,
            other => panic!("{other:?}"),
        };
        let first = endpoint_of(&before_program, draws.0);
        let second = endpoint_of(&after_program, draws.1);
        prop_assert!(before.contains(&first) && after.contains(&second));
        if after.contains(&first) {
            prop_assert_eq!(first, second);
        }
        prop_assert_eq!(endpoint_of(&after_program, draws.0), second);
    }
}

const FRONTEND: FrontendKey = FrontendKey {
    place: Place::Address(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7))),
    protocol: Protocol::Tcp,
    port: NonZeroU16::MIN,
};

fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let all = (1..=6).map(|number| Endpoint {
        address: IpAddr::from([10, 244, 1, number]),
        port: NonZeroU16::MIN,
    });
    proptest::sample::subsequence(all.collect::<Vec<_>>(), 1..=6)
}

/// A frontend whose flows from outside, or all flows, go to these endpoints.
fn with_affinity(endpoints: &[Endpoint], outside: bool) -> Frontend {
    let set = EndpointSet::new(endpoints.iter().copied());
    let forward = set.map_or(Outcome::Drop, Outcome::Forward);
    Frontend {
        kind: FrontendKind::LoadBalancer,
        port: "".into(),
        policy: TrafficPolicy::Local,
        inside: if outside {
            Outcome::Drop
        } else {
            forward.clone()
        },
        outside: forward,
        masquerade: Masquerade::OnlyNode,
        affinity_seconds: NonZeroU32::new(60),
        scheduler: None,
        sources: None,
    }
}
