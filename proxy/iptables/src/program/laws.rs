//! The laws that hold for every data plane.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use config::address::IpFamily;
use proptest::prelude::*;
use proxy_table::generate::{
    any_endpoints, any_scene, endpoint, flow_of_client, table_with_affinity,
};
use proxy_table::{Endpoint, ForwardingTable, Reason, Verdict};

use super::walk::{Clients, End};
use super::{Mirror, Program, Ruleset, Style};
use crate::rule::Mark;

const STYLE: Style = Style {
    mark: Mark(NonZeroU32::new(0x4000).unwrap()),
    random_fully: true,
};
const FAMILIES: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];

fn compile(table: &ForwardingTable) -> Program {
    Program::compile(table, STYLE, FAMILIES)
}

/// Has others lead to every so many-th chain.
fn lead_to(program: &mut Program, every: usize) {
    for rules in program.families.values_mut() {
        let chains = rules.chains.keys().step_by(every).cloned();
        rules.led_to = chains.collect();
    }
}

/// What is there once the wanted is: chains that others lead to stay, and are empty where they are not wanted.
fn beside_others(mut wanted: Program, held: &Program) -> Program {
    for (family, rules) in &held.families {
        let wanted = wanted.families.entry(*family).or_default();
        wanted.led_to.clone_from(&rules.led_to);
        for chain in rules
            .chains
            .keys()
            .filter(|chain| rules.led_to.contains(*chain))
        {
            wanted.chains.entry(chain.clone()).or_default();
        }
    }
    wanted
}

fn has_frontend(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::Endpoints { .. }
            | Reason::NoEndpoint { .. }
            | Reason::NoLocalEndpoint { .. }
            | Reason::SourceNotAllowed { .. }
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_program_means_what_the_table_says(scene in any_scene(12)) {
        let table = scene.table();
        let program = compile(&table);
        for flow in &scene.flows {
            prop_assert_eq!(program.walk(flow), table.verdict(flow), "{:?}", flow);
        }
    }

    #[test]
    fn a_difference_leads_to_the_other_and_then_there_is_none(scene in any_scene(12), back in 1_usize..12) {
        let (from, to) = (compile(&scene.earlier(back)), compile(&scene.table()));
        let mut held = from.clone();
        if let Some(change) = from.diff(&to) {
            held.apply(&change);
        }
        prop_assert_eq!(&held, &to);
        prop_assert_eq!(held.diff(&to), None);
        let nothing = Program::default();
        if let Some(change) = held.diff(&nothing) {
            held.apply(&change);
        }
        prop_assert!(held.is_empty());
    }

    #[test]
    fn what_others_lead_to_is_emptied_at_most(scene in any_scene(12), back in 1_usize..12, every in 1_usize..4) {
        let (mut from, to) = (compile(&scene.earlier(back)), compile(&scene.table()));
        lead_to(&mut from, every);
        let mut mirror = Mirror::new(&scene.earlier(back), STYLE, FAMILIES);
        mirror.heed_others(&from);
        let mut table = scene.earlier(back);
        let mut step_by_step = from.clone();
        let first = scene.steps.len().saturating_sub(back);
        for step in &scene.steps[first..] {
            let change = table.update(&step.key, step.part(&scene.context));
            if let Some(change) = mirror.update(&table, &[change]) {
                step_by_step.apply(&change);
            }
        }
        let mut at_once = from.clone();
        if let Some(change) = from.diff(&to) {
            at_once.apply(&change);
        }
        let nothing = Program::default();
        for (held, way) in [(step_by_step, "step by step"), (at_once, "at once")] {
            prop_assert_eq!(&held, &beside_others(to.clone(), &from), "{}", way);
            prop_assert_eq!(held.diff(&to), None, "{}", way);
            let mut left = held.clone();
            if let Some(change) = held.diff(&nothing) {
                left.apply(&change);
            }
            let hooks = left.families.values().map(|rules| rules.hooks.len()).sum::<usize>();
            prop_assert_eq!((left.len(), hooks), (0, 0), "{}", way);
            prop_assert_eq!(&left.families, &beside_others(nothing.clone(), &held).families, "{}", way);
            prop_assert_eq!(left.diff(&nothing), None, "{}", way);
        }
    }

    #[test]
    fn incremental_equals_full(scene in any_scene(24), together in 1_usize..4) {
        let mut table = scene.earlier(scene.steps.len());
        let mut mirror = Mirror::new(&table, STYLE, FAMILIES);
        let mut held = mirror.program().clone();
        for steps in scene.steps.chunks(together) {
            let steps = steps.iter();
            let changes: Vec<_> = steps.map(|step| table.update(&step.key, step.part(&scene.context))).collect();
            let wanted = compile(&table);
            let expected = held.diff(&wanted);
            let change = mirror.update(&table, &changes);
            prop_assert_eq!(&change, &expected);
            for ((family, table), count) in mirror.counts() {
                prop_assert_eq!(*count, wanted.families[family].count(*table), "{} {:?}", family, table);
            }
            if let Some(change) = change {
                held.apply(&change);
            }
            prop_assert_eq!(mirror.program(), &wanted);
            prop_assert_eq!(&held, &wanted);
        }
    }

    /// What a Service serves before and after meets one of both meanwhile; what comes or goes may be unserved for a moment.
    #[test]
    fn no_state_in_between_gives_a_third_verdict(
        scene in any_scene(12), back in 1_usize..12, most in 1_usize..40, every in 1_usize..4,
    ) {
        let (old, new) = (scene.earlier(back), scene.table());
        let mut held = compile(&old);
        lead_to(&mut held, every);
        let expected = beside_others(compile(&new), &held);
        let blocks = held.diff(&compile(&new)).into_iter().flat_map(|change| change.families);
        for (family, block) in blocks.flat_map(|(family, blocks)| {
            let parts = blocks.into_iter().flat_map(move |block| block.parts(most));
            parts.map(move |part| (family, part))
        }) {
            held.families.get_mut(&family).unwrap().apply(&block);
            for flow in &scene.flows {
                let met = held.walk(flow);
                let (before, after) = (old.explain(flow), new.explain(flow));
                let comes_or_goes = !has_frontend(&before.1) || !has_frontend(&after.1);
                let unserved = !matches!(met, Verdict::Forward { .. });
                prop_assert!(
                    met == before.0 || met == after.0 || (comes_or_goes && unserved),
                    "{:?} meets {:?} between {:?} and {:?}, after {}", flow, met, before, after, block.render(family)
                );
            }
        }
        prop_assert_eq!(held, expected);
    }

    #[test]
    fn what_is_written_is_read(scene in any_scene(12)) {
        for (family, rules) in compile(&scene.table()).families {
            let text = rules.render(family);
            prop_assert_eq!(Ruleset::parse(&text, family), rules, "{}", text);
        }
    }

    #[test]
    fn nobody_mistakes_our_chains_for_those_of_kube_proxy(scene in any_scene(12)) {
        for rules in compile(&scene.table()).families.values() {
            for (_, name) in rules.chains.keys() {
                prop_assert!(name.starts_with("FOGHORN-") && name.len() <= 28, "{}", name);
            }
        }
    }

    #[test]
    fn a_client_keeps_its_endpoint_while_it_is_in_the_set(
        before in any_endpoints(), after in any_endpoints(), draws in (0_usize..6, 0_usize..6), outside: bool,
    ) {
        let [before_program, after_program] = [&before, &after].map(|endpoints| compile(&table_with_affinity(endpoints, outside)));
        let flow = flow_of_client();
        let mut clients = Clients::new();
        let mut endpoint_of = |program: &Program, draw: usize| {
            let mut lots = Vec::new();
            program.send(&flow, &mut lots, &mut Clients::new());
            if let Some(lot) = lots.get_mut(draw) {
                lot.hits = true;
            }
            match program.send(&flow, &mut lots, &mut clients) {
                End::Delivered(destination, Some(_)) => destination.endpoint,
                other => panic!("{other:?}"),
            }
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

#[test]
fn endpoints_are_chosen_uniformly() {
    for count in [1, 2, 3, 7, 100] {
        let endpoints: Vec<Endpoint> = (1..=count).map(endpoint).collect();
        let program = compile(&table_with_affinity(&endpoints, false));
        let mut chances = BTreeMap::new();
        let mut lots = Vec::new();
        loop {
            let End::Delivered(destination, _) =
                program.send(&flow_of_client(), &mut lots, &mut Clients::new())
            else {
                panic!("not delivered");
            };
            let chance = lots.iter().map(|lot| {
                let hit = f64::from(lot.probability.steps()) / f64::from(1_u32 << 31);
                if lot.hits { hit } else { 1.0 - hit }
            });
            chances.insert(destination.endpoint, chance.product::<f64>());
            while lots.last().is_some_and(|lot| lot.hits) {
                lots.pop();
            }
            match lots.last_mut() {
                Some(lot) => lot.hits = true,
                None => break,
            }
        }
        assert_eq!(chances.len(), endpoints.len());
        for chance in chances.values() {
            assert!(
                (chance * f64::from(count) - 1.0).abs() < 1e-6,
                "{chance} of {count}"
            );
        }
    }
}
