//! The laws that hold for every data plane.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;
use proxy_table::generate::{Scene, any_scene};
use proxy_table::{ForwardingTable, Verdict};

use super::walk::End;
use super::{Item, Mirror, Program};

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

/// The table before the last `count` steps.
fn earlier(scene: &Scene, count: usize) -> ForwardingTable {
    let mut scene = scene.clone();
    scene
        .steps
        .truncate(scene.steps.len().saturating_sub(count));
    scene.table()
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
        let (from, to) = (Program::compile(&earlier(&scene, back)), Program::compile(&scene.table()));
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
        let mut mirror = Mirror::new(&table, &held);
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
    fn a_client_keeps_its_endpoint_while_it_is_in_the_set(scene in any_scene(12), back in 0_usize..12) {
        let (before, after) = (earlier(&scene, back), scene.table());
        let (old, new) = (Program::compile(&before), Program::compile(&after));
        for flow in &scene.flows {
            let mut clients = HashMap::new();
            let (End::Delivered(first, Some(_)), _) = old.send(flow, 1, &mut clients) else {
                continue;
            };
            let Verdict::Forward { destinations, affinity_seconds: Some(_) } = after.verdict(flow) else {
                continue;
            };
            let (second, _) = new.send(flow, 0, &mut clients);
            let End::Delivered(second, _) = second else {
                panic!("{second:?}");
            };
            prop_assert!(destinations.contains(&second));
            if destinations.iter().any(|other| other.endpoint == first.endpoint) {
                prop_assert_eq!(first.endpoint, second.endpoint);
            }
        }
    }
}
