//! The laws that hold for every data plane, for IPVS behind its rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::scheduler::Scheduler;
use config::service::Protocol;
use nix::errno::Errno;
use proptest::prelude::*;
use proxy_nftables::{Forwarder, Program as Rules};
use proxy_table::generate::{Scene, any_scene};
use proxy_table::{Endpoint, Flow, ForwardingTable, Origin, Verdict};

use super::{Change, Command, Mirror, Program, Refusals, Surroundings};

/// The node of a scene: its own addresses are those that its context names.
fn surroundings(scene: &Scene) -> Surroundings {
    let context = &scene.context;
    let own = context.addresses.iter().chain(&context.node_port_addresses);
    Surroundings {
        own: Arc::new(own.copied().collect()),
        missing: [Scheduler::WeightedLeastConnection].into(),
        ..Surroundings::default()
    }
}

fn rules(table: &ForwardingTable, surroundings: &Surroundings) -> Rules {
    let own = Arc::clone(&surroundings.own);
    Rules::compile_for(table, &Forwarder::Ipvs { own })
}

/// What the table says, but that an address which the node has only for Services lets nobody in at its other ports.
fn expected(table: &ForwardingTable, program: &Program, flow: &Flow) -> Verdict {
    let left_alone = table
        .cluster_ip(flow.destination)
        .is_some_and(|(_, undefined)| undefined == proxy_table::UndefinedPort::Leave);
    match table.verdict(flow) {
        Verdict::NotOurs if program.addresses.contains_key(&flow.destination) && !left_alone => {
            Verdict::Reject
        }
        verdict => verdict,
    }
}

/// Without the endpoints that only wait.
fn in_use(program: &Program) -> Program {
    let mut program = program.clone();
    for server in program.servers.values_mut() {
        server.endpoints.retain(|_, weight| *weight > 0);
    }
    program
}

fn apply(program: &mut Program, change: &Change) {
    program.apply_all(change, &Refusals::default());
}

/// A kernel that refuses some objects, as one that lacks IPv6 in IPVS, or that is to send to an address of multicast.
fn refuses(step: &Command) -> bool {
    match step {
        Command::AddServer(key, ..) => key.port.get().is_multiple_of(3),
        Command::AddEndpoint(_, endpoint) => is_refused(endpoint),
        Command::AddAddress(address, _) => address.is_ipv6(),
        _ => false,
    }
}

fn is_refused(endpoint: &Endpoint) -> bool {
    match endpoint.address {
        IpAddr::V4(address) => address.octets()[3].is_multiple_of(2),
        IpAddr::V6(address) => address.octets()[15].is_multiple_of(2),
    }
}

/// What such a kernel says to a change.
fn refused(change: &Change) -> Refusals {
    let mut refused = Refusals::default();
    for step in change.steps() {
        if !refused.forestall(step) && refuses(step) {
            refused.handle_refused(step, String::new(), Errno::EINVAL);
        }
    }
    refused
}

/// What it can hold of a program: no address without a server leads to the node.
fn without_refused(program: &Program) -> Program {
    let mut program = program.clone();
    let mut missing = BTreeSet::new();
    program.servers.retain(|key, server| {
        server.endpoints.retain(|endpoint, _| !is_refused(endpoint));
        let is_there = !refuses(&Command::AddServer(*key, server.scheduler, None));
        if !is_there {
            missing.insert(key.address);
        }
        is_there
    });
    program.addresses.retain(|address, source| {
        !refuses(&Command::AddAddress(*address, *source)) && !missing.contains(address)
    });
    program
}

fn endpoints(verdict: &Verdict) -> BTreeSet<Endpoint> {
    match verdict {
        Verdict::Forward { destinations, .. } => destinations
            .iter()
            .map(|destination| destination.endpoint)
            .collect(),
        _ => BTreeSet::new(),
    }
}

/// Endpoints that a flow may meet beside those of its verdict, whoever is let in: those of its side of the frontend, and from
/// inside also those that outsiders meet, which are on this node. All, where no rule says before or after whose it is.
fn beside(tables: [&ForwardingTable; 2], flow: &Flow) -> BTreeSet<Endpoint> {
    let is_inside = tables[0].context().origin(flow) != Origin::Outside;
    let is_ruled = tables.map(|table| table.verdict(flow) != Verdict::NotOurs) == [true; 2];
    let frontends = tables.into_iter().flat_map(proxy_nftables::effective);
    frontends
        .filter(|(key, _)| {
            (key.address, key.protocol, key.port) == (flow.destination, flow.protocol, flow.port)
        })
        .flat_map(|(_, frontend)| match (is_ruled, is_inside) {
            (true, false) => vec![&frontend.outside],
            _ => vec![&frontend.outside, &frontend.inside],
        })
        .flat_map(|outcome| outcome.endpoints().iter().copied())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn the_program_means_what_the_table_says(scene in any_scene(12)) {
        let (table, surroundings) = (scene.table(), surroundings(&scene));
        let program = Program::compile(&table, &surroundings);
        let rules = rules(&table, &surroundings);
        for flow in &scene.flows {
            let expected = expected(&table, &program, flow);
            prop_assert_eq!(program.walk(&rules, flow), expected, "{:?}", flow);
        }
    }

    #[test]
    fn a_difference_leads_to_the_other_and_then_there_is_none(scene in any_scene(12), back in 1_usize..12) {
        let surroundings = surroundings(&scene);
        let from = Program::compile(&scene.earlier(back), &surroundings);
        let to = Program::compile(&scene.table(), &surroundings);
        let mut held = from.clone();
        apply(&mut held, &from.diff(&to, &scene.table()));
        prop_assert_eq!(in_use(&held), to.clone());
        prop_assert!(held.diff(&to, &scene.table()).is_empty(), "{:?}", held.diff(&to, &scene.table()));
    }

    #[test]
    fn connections_stay_while_their_frontend_is_there(scene in any_scene(12), back in 1_usize..12) {
        let surroundings = surroundings(&scene);
        let from = Program::compile(&scene.earlier(back), &surroundings);
        let to = Program::compile(&scene.table(), &surroundings);
        let mut held = from.clone();
        apply(&mut held, &from.diff(&to, &scene.table()));
        for (key, server) in &from.servers {
            let Some(after) = held.servers.get(key) else {
                prop_assert!(!to.servers.contains_key(key));
                continue;
            };
            for endpoint in server.endpoints.keys() {
                let stays = after.endpoints.contains_key(endpoint);
                let chosen = to.servers[key].endpoints.contains_key(endpoint);
                prop_assert_eq!(stays, chosen || key.protocol == Protocol::Tcp);
            }
        }
    }

    #[test]
    fn no_flow_meets_a_third_endpoint_between_two_steps(scene in any_scene(12), back in 1_usize..12) {
        let surroundings = surroundings(&scene);
        let (before, after) = (scene.earlier(back), scene.table());
        let mut held = Program::compile(&before, &surroundings);
        let to = Program::compile(&after, &surroundings);
        let change = held.diff(&to, &scene.table());
        let former = held.clone();
        let (old_rules, new_rules) = (rules(&before, &surroundings), rules(&after, &surroundings));
        let look = |held: &Program, rules: &Rules| {
            for flow in &scene.flows {
                let verdict = held.walk(rules, flow);
                let known = [expected(&before, &former, flow), expected(&after, &to, flow)];
                let all = known.iter().flat_map(endpoints).chain(beside([&before, &after], flow)).collect();
                prop_assert!(endpoints(&verdict).is_subset(&all), "{:?} is beside {:?}", verdict, known);
                // What comes into being may be refused until it is there.
                let comes = verdict == Verdict::Reject && known.contains(&Verdict::NotOurs);
                let forwards = matches!(verdict, Verdict::Forward { .. });
                prop_assert!(forwards || comes || known.contains(&verdict), "{:?} is none of {:?}", verdict, known);
            }
            Ok(())
        };
        for command in &change.before {
            look(&held, &old_rules)?;
            held.apply(command);
        }
        look(&held, &old_rules)?;
        for command in &change.after {
            look(&held, &new_rules)?;
            held.apply(command);
        }
        look(&held, &new_rules)?;
    }

    #[test]
    fn incremental_equals_full(scene in any_scene(24), together in 1_usize..4) {
        let surroundings = surroundings(&scene);
        let mut table = ForwardingTable::new(Arc::clone(&scene.context));
        let mut mirror = Mirror::new(&table, Program::default(), surroundings.clone());
        for steps in scene.steps.chunks(together) {
            let steps = steps.iter();
            let changes: Vec<_> = steps.map(|step| table.update(&step.key, step.part(&scene.context))).collect();
            let change = mirror.update(&table, &changes);
            mirror.handle_done(&change, &Refusals::default());
            let full = Program::compile(&table, &surroundings);
            let mut schedulers = full.servers.values().map(|server| server.scheduler);
            prop_assert!(schedulers.all(|scheduler| !surroundings.missing.contains(&scheduler)));
            prop_assert_eq!(in_use(mirror.held()), full);
        }
        let drained: BTreeMap<_, _> = mirror.held().drained().map(|pair| (pair, ())).collect();
        for (key, endpoint) in drained.into_keys() {
            prop_assert!(mirror.remove_drained(key, endpoint).is_some());
            prop_assert!(mirror.remove_drained(key, endpoint).is_none());
        }
        prop_assert_eq!(in_use(mirror.held()), mirror.held().clone());
    }

    #[test]
    fn what_the_kernel_refuses_harms_nothing_else_and_is_asked_for_again(scene in any_scene(12), back in 1_usize..12) {
        let surroundings = surroundings(&scene);
        let from = without_refused(&Program::compile(&scene.earlier(back), &surroundings));
        let to = Program::compile(&scene.table(), &surroundings);
        let mut held = from.clone();
        let change = held.diff(&to, &scene.table());
        held.apply_all(&change, &refused(&change));
        let mut missing = without_refused(&to);
        // An address that was there before its first refused server stays.
        let stay = from.addresses.iter().filter(|(address, source)| to.addresses.get(address) == Some(source));
        missing.addresses.extend(stay);
        prop_assert_eq!(in_use(&held), missing);
        let again = held.diff(&to, &scene.table());
        apply(&mut held, &again);
        prop_assert_eq!(in_use(&held), to);
    }

    #[test]
    fn what_others_made_is_taken_over_where_it_is_wanted_and_left_elsewhere(scene in any_scene(12), back in 1_usize..12) {
        let surroundings = surroundings(&scene);
        let mut held = Program::compile(&scene.earlier(back), &surroundings);
        for server in held.servers.values_mut() {
            server.foreign = true;
        }
        held.addresses.clear();
        let theirs = held.clone();
        let to = Program::compile(&scene.table(), &surroundings);
        let change = held.diff(&to, &scene.table());
        apply(&mut held, &change);
        for (key, server) in &held.servers {
            prop_assert_eq!(server.foreign, !to.servers.contains_key(key));
        }
        for (key, server) in &theirs.servers {
            if !to.servers.contains_key(key) {
                prop_assert_eq!(held.servers.get(key), Some(server));
            }
        }
        prop_assert!(held.diff(&to, &scene.table()).is_empty());
    }
}
