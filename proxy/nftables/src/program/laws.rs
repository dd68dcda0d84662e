//! The laws that hold for every data plane.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;
use proxy_table::ForwardingTable;
use proxy_table::generate::{any_endpoints, any_scene, flow_of_client, table_with_affinity};

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
        before in any_endpoints(), after in any_endpoints(), draws in (0_u32..6, 0_u32..6), outside: bool,
    ) {
        let [before_program, after_program] = [&before, &after].map(|endpoints| Program::compile(&table_with_affinity(endpoints, outside)));
        let flow = flow_of_client();
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
