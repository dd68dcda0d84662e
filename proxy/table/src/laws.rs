//! Laws of the table, whatever the Services are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::name::NodeName;
use config::service::TrafficPolicy;
use proptest::prelude::*;

use crate::NodeContext;
use crate::compile::is_served;
use crate::context::PodDetection;
use crate::flow::{Arrival, Origin, Reason, Verdict};
use crate::frontend::{Endpoint, FrontendKey, FrontendKind, Masquerade, Outcome, Place};
use crate::generate::{Workload, any_scene};
use crate::table::ForwardingTable;

/// Everything that a data plane sees of a table.
fn seen(table: &ForwardingTable) -> impl PartialEq + std::fmt::Debug + use<> {
    let frontends = table.frontends();
    let frontends: BTreeMap<_, _> = frontends
        .map(|(key, service, frontend)| (*key, (service.clone(), Arc::clone(frontend))))
        .collect();
    (frontends, table.cluster_ips().collect::<BTreeMap<_, _>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn incremental_equals_full(scene in any_scene(24)) {
        let incremental = scene.table();
        let context = &scene.context;
        let mut full = ForwardingTable::new(Arc::clone(context));
        for (key, step) in scene.latest().iter().rev() {
            if let Some(part) = step.part(context) {
                full.update(key, Some(part));
            }
        }
        prop_assert_eq!(seen(&incremental), seen(&full));
        prop_assert_eq!(incremental, full);
    }

    #[test]
    fn the_changes_told_are_the_changes_seen(scene in any_scene(12)) {
        let context = &scene.context;
        let mut table = ForwardingTable::new(Arc::clone(context));
        let mut frontends = BTreeMap::new();
        let mut cluster_ips = BTreeMap::new();
        for step in &scene.steps {
            let change = table.update(&step.key, step.part(context));
            for told in change.frontends {
                prop_assert_ne!(&told.before, &told.after);
                let held = match told.after.clone() {
                    Some(after) => frontends.insert(told.key, after),
                    None => frontends.remove(&told.key),
                };
                prop_assert_eq!(held, told.before);
            }
            for told in change.cluster_ips {
                prop_assert_ne!(told.before, told.after);
                let held = match told.after {
                    Some(after) => cluster_ips.insert(told.address, after),
                    None => cluster_ips.remove(&told.address),
                };
                prop_assert_eq!(held, told.before);
            }
            let seen: BTreeMap<_, _> =
                table.frontends().map(|(key, _, frontend)| (*key, Arc::clone(frontend))).collect();
            prop_assert_eq!(&frontends, &seen);
            prop_assert_eq!(&cluster_ips, &table.cluster_ips().collect());
            prop_assert!(table.update(&step.key, step.part(context)).is_empty());
        }
    }

    #[test]
    fn a_service_that_goes_leaves_nothing(scene in any_scene(12)) {
        let mut table = scene.table();
        for key in scene.latest().keys() {
            table.update(key, None);
        }
        prop_assert_eq!(table, ForwardingTable::new(scene.context));
    }

    #[test]
    fn a_flow_reaches_endpoints_of_the_service_that_it_names_alone(scene in any_scene(8)) {
        let (table, latest) = (scene.table(), scene.latest());
        for flow in &scene.flows {
            let (verdict, reason) = table.explain(flow);
            let Verdict::Forward { destinations, .. } = verdict else { continue };
            let Reason::Endpoints { service, frontend } = reason else {
                return Err(TestCaseError::fail("forwarded without endpoints"));
            };
            let workload = latest[&service].workload.as_ref().unwrap();
            prop_assert!(is_served(&workload.service, &scene.context));
            prop_assert!(!destinations.is_empty());
            for pair in destinations.windows(2) {
                prop_assert!(pair[0].endpoint < pair[1].endpoint);
            }
            let usable = usable_endpoints(workload, frontend);
            for destination in destinations {
                prop_assert!(usable.contains(&destination.endpoint));
            }
        }
    }

    #[test]
    fn an_outsider_at_a_local_frontend_reaches_this_node_and_is_seen_as_itself(scene in any_scene(8)) {
        let (table, latest) = (scene.table(), scene.latest());
        for flow in &scene.flows {
            let (verdict, reason) = table.explain(flow);
            let (Verdict::Forward { destinations, .. }, Reason::Endpoints { service, frontend }) = (verdict, reason)
            else { continue };
            let workload = latest[&service].workload.as_ref().unwrap();
            let kind = table.frontend(&frontend).unwrap().1.kind;
            let local = workload.service.external_policy == TrafficPolicy::Local;
            let outsider = scene.context.origin(flow) == Origin::Outside;
            if kind == FrontendKind::ClusterIp || !local || !outsider {
                continue;
            }
            let here = addresses_on(workload, &scene.context.name);
            for destination in destinations {
                prop_assert!(here.contains(&destination.endpoint.address));
                prop_assert_eq!(destination.masqueraded, destination.endpoint.address == flow.source);
            }
        }
    }

    #[test]
    fn silent_nodes_never_take_the_last_endpoint_away(scene in any_scene(4)) {
        let suspicious = scene.table();
        let mut trusting = scene.clone();
        for step in &mut trusting.steps {
            step.workload.iter_mut().for_each(|workload| workload.suspects.clear());
        }
        let trusting = trusting.table();
        for flow in &scene.flows {
            let before = trusting.explain(flow);
            let after = suspicious.explain(flow);
            prop_assert_eq!(before.1, after.1);
            prop_assert_eq!(std::mem::discriminant(&before.0), std::mem::discriminant(&after.0));
        }
    }

    #[test]
    fn nobody_is_sent_to_a_silent_node_while_others_remain(scene in any_scene(4)) {
        let (table, latest) = (scene.table(), scene.latest());
        for (key, service, frontend) in table.frontends() {
            let workload = latest[service].workload.as_ref().unwrap();
            let silent: BTreeSet<_> =
                workload.suspects.iter().flat_map(|node| addresses_on(workload, node)).collect();
            let trusted = addresses_elsewhere(workload);
            let chosen = frontend.inside.endpoints();
            let goes_cluster_wide = frontend.kind != FrontendKind::ClusterIp
                || workload.service.internal_policy == TrafficPolicy::Cluster;
            let ready_elsewhere = usable_endpoints(workload, *key).into_iter().any(|endpoint| {
                trusted.contains(&endpoint.address) && !silent.contains(&endpoint.address)
                    && is_ready_everywhere(workload, endpoint)
            });
            if goes_cluster_wide && ready_elsewhere {
                prop_assert!(chosen.iter().all(|e| !silent.contains(&e.address) || trusted.contains(&e.address)));
            }
        }
    }

    #[test]
    fn whoever_masquerades_only_the_node_has_a_local_policy(scene in any_scene(8)) {
        let (table, latest) = (scene.table(), scene.latest());
        for (_, service, frontend) in table.frontends() {
            let service = &latest[service].workload.as_ref().unwrap().service;
            let external = frontend.kind != FrontendKind::ClusterIp;
            prop_assert_eq!(
                frontend.masquerade == Masquerade::OnlyNode,
                external && service.external_policy == TrafficPolicy::Local
            );
            prop_assert!(frontend.sources.is_none() || frontend.kind == FrontendKind::LoadBalancer);
            prop_assert!(!matches!(frontend.inside, Outcome::Drop) || !external);
        }
    }
}

/// The endpoints that the frontend of a workload may use on any node at all.
fn usable_endpoints(workload: &Workload, frontend: FrontendKey) -> BTreeSet<Endpoint> {
    let ports = workload.service.ports.iter().filter(|port| {
        let number = match frontend.place {
            Place::Address(_) => Some(port.port),
            Place::Node(_) => port.node_port,
        };
        port.protocol == frontend.protocol && number == Some(frontend.port)
    });
    let names: BTreeSet<_> = ports.map(|port| &port.name).collect();
    let slices = workload.slices.iter();
    slices
        .filter(|slice| slice.family == frontend.family())
        .flat_map(|slice| slice.ports.iter().map(move |port| (slice, port)))
        .filter(|(_, port)| port.protocol == frontend.protocol && names.contains(&port.name))
        .flat_map(|(slice, port)| {
            let usable = |endpoint: &&config::endpoint::Endpoint| {
                endpoint.ready || (endpoint.serving && endpoint.terminating)
            };
            slice
                .endpoints
                .iter()
                .filter(usable)
                .map(|endpoint| Endpoint {
                    address: endpoint.address,
                    port: port.port,
                })
        })
        .collect()
}

fn addresses_on(workload: &Workload, node: &NodeName) -> BTreeSet<IpAddr> {
    let endpoints = workload.slices.iter().flat_map(|slice| &slice.endpoints);
    let there = endpoints.filter(|endpoint| endpoint.node.as_ref() == Some(node));
    there.map(|endpoint| endpoint.address).collect()
}

/// Addresses that some report does not place on a silent node.
fn addresses_elsewhere(workload: &Workload) -> BTreeSet<IpAddr> {
    let endpoints = workload.slices.iter().flat_map(|slice| &slice.endpoints);
    let trusted = endpoints.filter(|endpoint| {
        let node = endpoint.node.as_ref();
        node.is_none_or(|node| !workload.suspects.contains(node))
    });
    trusted.map(|endpoint| endpoint.address).collect()
}

fn is_ready_everywhere(workload: &Workload, endpoint: Endpoint) -> bool {
    let reports = workload.slices.iter().flat_map(|slice| &slice.endpoints);
    let mut reports = reports.filter(|report| report.address == endpoint.address);
    reports.all(|report| report.ready)
}

/// Generators that collide too rarely would make the laws say nothing.
#[test]
fn the_generators_reach_every_verdict() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = any_scene(8);
    let mut reasons = BTreeMap::new();
    for _ in 0..1000 {
        let scene = strategy.new_tree(&mut runner).unwrap().current();
        let name = match scene.table().explain(&scene.flows[0]).1 {
            Reason::Endpoints { .. } => "endpoints",
            Reason::NoEndpoint { .. } => "no endpoint",
            Reason::NoLocalEndpoint { .. } => "no local endpoint",
            Reason::SourceNotAllowed { .. } => "source not allowed",
            Reason::UndefinedPort { .. } => "undefined port",
            Reason::OtherProxy { .. } => "other proxy",
            Reason::Unallocated => "unallocated",
            Reason::NotOurs => "not ours",
        };
        *reasons.entry(name).or_insert(0) += 1;
    }
    assert_eq!(reasons.len(), 8, "{reasons:?}");
    assert!(reasons.values().all(|&count| count >= 5), "{reasons:?}");
}

#[test]
fn a_pod_is_told_by_what_the_operator_chose() {
    let flow = |source: &str, arrival| crate::Flow {
        source: source.parse().unwrap(),
        source_port: 1,
        destination: "10.96.0.1".parse().unwrap(),
        port: 80.try_into().unwrap(),
        protocol: config::service::Protocol::Tcp,
        arrival,
    };
    let on = |name: &str| Arrival::Interface(name.into());
    let networks = PodDetection::Networks(vec!["10.244.0.0/16".parse().unwrap()]);
    let bridge = PodDetection::Bridge("cbr0".into());
    let prefix = PodDetection::InterfacePrefix("veth".into());
    for (pods, source, arrival, expected) in [
        (&networks, "10.244.1.2", on("eth0"), Origin::Pod),
        (&networks, "10.244.1.1", Arrival::Node, Origin::Pod),
        (&networks, "192.0.2.1", Arrival::Node, Origin::Node),
        (&networks, "192.0.2.9", on("veth7"), Origin::Outside),
        (&bridge, "192.0.2.9", on("cbr0"), Origin::Pod),
        (&bridge, "10.244.1.2", on("cbr01"), Origin::Outside),
        (&prefix, "192.0.2.9", on("veth7"), Origin::Pod),
        (&prefix, "10.244.1.2", Arrival::Node, Origin::Node),
        (
            &PodDetection::None,
            "10.244.1.2",
            on("veth7"),
            Origin::Outside,
        ),
    ] {
        let context = NodeContext {
            pods: pods.clone(),
            ..NodeContext::new(NodeName::from("node-1"))
        };
        assert_eq!(
            context.origin(&flow(source, arrival)),
            expected,
            "{pods:?} {source}"
        );
    }
}
