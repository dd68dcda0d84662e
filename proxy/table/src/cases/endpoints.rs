//! Which endpoints a flow may reach.

use std::collections::BTreeSet;
use std::sync::Arc;

use config::name::NodeName;
use serde_json::{Value, json};

use super::{
    both, check, context, flow, hinted, part, ready, service, slices, table, table_in, terminating,
    words,
};
use crate::{ForwardingTable, NodeContext, compile_service};

#[test]
fn endpoints_that_terminate_serve_as_long_as_nobody_else_does() {
    let leaving = || {
        json!([
            terminating("10.244.1.2", "here"),
            terminating("10.244.2.2", "there")
        ])
    };
    check(
        &table(json!({}), leaving()),
        &[(
            "10.244.1.9 to 10.96.0.1:80",
            "10.244.1.2:8080 10.244.2.2:8080",
        )],
    );
    let one_ready = json!([
        terminating("10.244.1.2", "here"),
        ready("10.244.2.2", "there")
    ]);
    check(
        &table(
            json!({"spec": {"externalTrafficPolicy": "Local"}}),
            one_ready,
        ),
        &[
            ("10.244.1.9 to 10.96.0.1:80", "10.244.2.2:8080"),
            ("198.51.100.1 to 203.0.113.7:80", "10.244.1.2:8080"),
        ],
    );
    let not_ready = json!([{"addresses": ["10.244.1.2"], "conditions": {"ready": false}}]);
    check(
        &table(json!({}), not_ready),
        &[("10.244.1.9 to 10.96.0.1:80", "Reject")],
    );
}

#[test]
fn topology_hints_narrow_only_when_everybody_has_them_and_somebody_remains() {
    let zone = |name: &str| json!({"forZones": [{"name": name}]});
    let node = |node: &str, zone: &str| json!({"forNodes": [{"name": node}], "forZones": [{"name": zone}]});
    for (endpoints, expected) in [
        (
            json!([
                hinted("10.244.1.2", "here", zone("a")),
                hinted("10.244.2.2", "there", zone("b"))
            ]),
            "10.244.1.2:8080",
        ),
        (
            json!([
                hinted("10.244.1.2", "here", zone("a")),
                ready("10.244.2.2", "there")
            ]),
            "10.244.1.2:8080 10.244.2.2:8080",
        ),
        (
            json!([
                hinted("10.244.1.2", "here", zone("b")),
                hinted("10.244.2.2", "there", zone("b"))
            ]),
            "10.244.1.2:8080 10.244.2.2:8080",
        ),
        (
            json!([
                hinted("10.244.1.2", "here", node("here", "a")),
                hinted("10.244.2.2", "there", node("there", "a"))
            ]),
            "10.244.1.2:8080",
        ),
        (
            json!([
                hinted("10.244.1.2", "far", node("far", "b")),
                hinted("10.244.2.2", "there", node("there", "a"))
            ]),
            "10.244.2.2:8080",
        ),
        (
            json!([
                hinted("10.244.1.2", "here", zone("a")),
                terminating("10.244.2.2", "there")
            ]),
            "10.244.1.2:8080",
        ),
    ] {
        check(
            &table(json!({}), endpoints),
            &[("10.244.1.9 to 10.96.0.1:80", expected)],
        );
    }
    let lost = NodeContext {
        zone: None,
        ..context()
    };
    let hints = json!([
        hinted("10.244.1.2", "here", zone("a")),
        hinted("10.244.2.2", "there", zone("b"))
    ]);
    check(
        &table_in(lost, json!({}), hints),
        &[(
            "10.244.1.9 to 10.96.0.1:80",
            "10.244.1.2:8080 10.244.2.2:8080",
        )],
    );
}

#[test]
fn an_endpoint_in_two_slices_counts_once_and_as_ready() {
    let service = service(json!({}));
    let late =
        json!([{"addresses": ["10.244.1.2"], "conditions": {"ready": false, "serving": false}}]);
    let mut slices_of_both = slices(both());
    slices_of_both.extend(slices(late));
    slices_of_both.extend(slices(both()));
    let part = compile_service(&service, &slices_of_both, &context(), &BTreeSet::new());
    assert_eq!(part, self::part(&service, both(), &context()));
}

#[test]
fn endpoints_on_silent_nodes_are_left_out_while_others_remain() {
    let service = service(json!({}));
    let spared = |silent: &[&str], endpoints: Value| {
        let silent = silent.iter().copied().map(NodeName::from).collect();
        let part = compile_service(&service, &slices(endpoints), &context(), &silent);
        let context = Arc::new(context());
        let mut table = ForwardingTable::new(context);
        table.update(&service.key, Some(part));
        words(&table.verdict(&flow("10.244.1.9 to 10.96.0.1:80")))
    };
    assert_eq!(spared(&["there"], both()), "10.244.1.2:8080");
    assert_eq!(
        spared(&["there", "here"], both()),
        "10.244.1.2:8080 10.244.2.2:8080"
    );
    // A hint for the own zone does not hold anyone to a node that is gone.
    let zone = |name: &str| json!({"forZones": [{"name": name}]});
    let hints = json!([
        hinted("10.244.1.2", "near", zone("a")),
        hinted("10.244.2.2", "there", zone("b"))
    ]);
    assert_eq!(spared(&["near"], hints), "10.244.2.2:8080");
}

#[test]
fn a_load_balancer_is_told_how_many_endpoints_are_here() {
    let asked = json!({"spec": {"externalTrafficPolicy": "Local", "healthCheckNodePort": 32000}});
    let health = |changes, endpoints| {
        let check = part(&service(changes), endpoints, &context()).health_check;
        check.map(|check| (check.port.get(), check.local_endpoints))
    };
    assert_eq!(health(asked.clone(), both()), Some((32000, 1)));
    assert_eq!(
        health(asked, json!([terminating("10.244.1.2", "here")])),
        Some((32000, 0))
    );
    assert_eq!(
        health(json!({"spec": {"healthCheckNodePort": 32000}}), both()),
        None
    );
}
