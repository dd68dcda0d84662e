//! What Kubernetes promises, as sentences: a Service, its endpoints, and what becomes of flows.

use std::collections::BTreeSet;
use std::sync::Arc;

use config::endpoint::EndpointSlice;
use config::name::NodeName;
use config::service::{Protocol, Service};
use serde_json::{Value, json};

use crate::{
    Arrival, Flow, ForwardingTable, NodeContext, PodDetection, ServiceTable, Verdict,
    compile_service,
};

/// The node `here` with Pods in 10.244.0.0/16, zone `a`.
fn context() -> NodeContext {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    NodeContext {
        zone: Some("a".into()),
        addresses: vec!["192.0.2.1".parse().unwrap()],
        node_port_addresses: BTreeSet::from([
            "192.0.2.1".parse().unwrap(),
            "2001:db8:2::1".parse().unwrap(),
        ]),
        pods: PodDetection::Networks(vec!["10.244.0.0/16".parse().unwrap()]),
        service_cidrs: nets(&["10.96.0.0/16"]),
        ..NodeContext::new(NodeName::from("here"))
    }
}

/// Service `shop/web`: port 80 of 10.96.0.1, node port 30080, VIP 203.0.113.7.
fn service(changes: Value) -> Service {
    let mut object = json!({
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}},
    });
    merge(&mut object, changes);
    Service::from_api(&serde_json::from_value(object).unwrap()).unwrap()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn slices(endpoints: Value) -> Vec<Arc<EndpointSlice>> {
    let family = if endpoints.to_string().contains("::") {
        "IPv6"
    } else {
        "IPv4"
    };
    let object = json!({
        "metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": family, "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints,
    });
    vec![Arc::new(
        EndpointSlice::from_api(&serde_json::from_value(object).unwrap()).unwrap(),
    )]
}

/// A ready endpoint at `address` on `node`.
fn ready(address: &str, node: &str) -> Value {
    json!({"addresses": [address], "nodeName": node})
}

fn terminating(address: &str, node: &str) -> Value {
    let conditions = json!({"ready": false, "serving": true, "terminating": true});
    json!({"addresses": [address], "nodeName": node, "conditions": conditions})
}

fn hinted(address: &str, node: &str, hints: Value) -> Value {
    json!({"addresses": [address], "nodeName": node, "hints": hints})
}

/// One endpoint here, one elsewhere.
fn both() -> Value {
    json!([ready("10.244.1.2", "here"), ready("10.244.2.2", "there")])
}

fn part(service: &Service, endpoints: Value, context: &NodeContext) -> ServiceTable {
    compile_service(service, &slices(endpoints), context, &BTreeSet::new())
}

fn table_in(context: NodeContext, changes: Value, endpoints: Value) -> ForwardingTable {
    let service = service(changes);
    let context = Arc::new(context);
    let mut table = ForwardingTable::new(Arc::clone(&context));
    table.update(&service.key, Some(part(&service, endpoints, &context)));
    table
}

fn table(changes: Value, endpoints: Value) -> ForwardingTable {
    table_in(context(), changes, endpoints)
}

/// Reads `SOURCE to DESTINATION:PORT`, over TCP; a source on the node itself ends in `@node`.
fn flow(text: &str) -> Flow {
    let (source, destination) = text.split_once(" to ").unwrap();
    let destination: std::net::SocketAddr = destination.parse().unwrap();
    let (source, arrival) = match source.strip_suffix("@node") {
        Some(source) => (source, Arrival::Node),
        None => (source, Arrival::Interface("eth0".into())),
    };
    Flow {
        source: source.parse().unwrap(),
        source_port: 40_000,
        destination: destination.ip(),
        port: destination.port().try_into().unwrap(),
        protocol: Protocol::Tcp,
        arrival,
    }
}

/// The verdict in words: the endpoints, `*` behind those that see an address of the node.
fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Forward { destinations, .. } => {
            let destinations = destinations.iter().map(|destination| {
                let mark = if destination.masqueraded { "*" } else { "" };
                format!("{}{mark}", destination.endpoint)
            });
            destinations.collect::<Vec<_>>().join(" ")
        }
        other => format!("{other:?}"),
    }
}

#[track_caller]
fn check(table: &ForwardingTable, cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let (verdict, reason) = table.explain(&flow(text));
        assert_eq!(words(&verdict), *expected, "{text}: {reason}");
    }
}

const POD: &str = "10.244.1.9";

#[test]
fn a_cluster_ip_goes_to_every_endpoint_and_masquerades_whoever_is_no_pod() {
    check(
        &table(json!({}), both()),
        &[
            (
                "10.244.1.9 to 10.96.0.1:80",
                "10.244.1.2:8080 10.244.2.2:8080",
            ),
            (
                "192.0.2.1@node to 10.96.0.1:80",
                "10.244.1.2:8080* 10.244.2.2:8080*",
            ),
            (
                "198.51.100.1 to 10.96.0.1:80",
                "10.244.1.2:8080* 10.244.2.2:8080*",
            ),
            (
                "10.244.1.2 to 10.96.0.1:80",
                "10.244.1.2:8080* 10.244.2.2:8080",
            ),
        ],
    );
}

#[test]
fn without_pod_detection_only_the_hairpin_is_masqueraded_unless_all_are() {
    let blind = NodeContext {
        pods: PodDetection::None,
        ..context()
    };
    check(
        &table_in(blind.clone(), json!({}), both()),
        &[
            (
                "198.51.100.1 to 10.96.0.1:80",
                "10.244.1.2:8080 10.244.2.2:8080",
            ),
            (
                "10.244.1.2 to 10.96.0.1:80",
                "10.244.1.2:8080* 10.244.2.2:8080",
            ),
        ],
    );
    let all = NodeContext {
        masquerade_all: true,
        ..blind
    };
    check(
        &table_in(all, json!({}), both()),
        &[(
            "10.244.1.9 to 10.96.0.1:80",
            "10.244.1.2:8080* 10.244.2.2:8080*",
        )],
    );
}

#[test]
fn what_a_cluster_ip_has_no_port_for_is_rejected_and_what_nobody_has_is_dropped() {
    check(
        &table(json!({}), both()),
        &[
            ("10.244.1.9 to 10.96.0.1:81", "Reject"),
            ("10.244.1.9 to 10.96.0.1:30080", "Reject"),
            ("10.244.1.9 to 10.96.0.2:80", "Drop"),
            ("10.244.1.9 to 203.0.113.7:81", "NotOurs"),
            ("10.244.1.9 to 192.0.2.1:80", "NotOurs"),
            ("10.244.1.9 to 192.0.2.2:30080", "NotOurs"),
        ],
    );
}

#[test]
fn an_external_frontend_with_policy_cluster_masquerades_everybody() {
    check(
        &table(json!({}), both()),
        &[
            (
                "198.51.100.1 to 203.0.113.7:80",
                "10.244.1.2:8080* 10.244.2.2:8080*",
            ),
            (
                "10.244.1.9 to 192.0.2.1:30080",
                "10.244.1.2:8080* 10.244.2.2:8080*",
            ),
            (
                "192.0.2.1@node to 192.0.2.1:30080",
                "10.244.1.2:8080* 10.244.2.2:8080*",
            ),
        ],
    );
}

#[test]
fn an_external_frontend_with_policy_local_is_local_to_outsiders_only() {
    let local = || json!({"spec": {"externalTrafficPolicy": "Local"}});
    check(
        &table(local(), both()),
        &[
            ("198.51.100.1 to 203.0.113.7:80", "10.244.1.2:8080"),
            ("198.51.100.1 to 192.0.2.1:30080", "10.244.1.2:8080"),
            (
                "10.244.1.9 to 203.0.113.7:80",
                "10.244.1.2:8080 10.244.2.2:8080",
            ),
            (
                "192.0.2.1@node to 203.0.113.7:80",
                "10.244.1.2:8080* 10.244.2.2:8080*",
            ),
        ],
    );
    check(
        &table(local(), json!([ready("10.244.2.2", "there")])),
        &[
            ("198.51.100.1 to 203.0.113.7:80", "Drop"),
            ("10.244.1.9 to 203.0.113.7:80", "10.244.2.2:8080"),
        ],
    );
    check(
        &table(local(), json!([])),
        &[
            ("198.51.100.1 to 203.0.113.7:80", "Reject"),
            ("10.244.1.9 to 203.0.113.7:80", "Reject"),
        ],
    );
}

#[test]
fn an_internal_policy_local_drops_where_only_others_have_endpoints() {
    let local = || json!({"spec": {"internalTrafficPolicy": "Local"}});
    check(
        &table(local(), both()),
        &[
            ("10.244.1.9 to 10.96.0.1:80", "10.244.1.2:8080"),
            (
                "198.51.100.1 to 203.0.113.7:80",
                "10.244.1.2:8080* 10.244.2.2:8080*",
            ),
        ],
    );
    check(
        &table(local(), json!([ready("10.244.2.2", "there")])),
        &[("10.244.1.9 to 10.96.0.1:80", "Drop")],
    );
    check(
        &table(local(), json!([])),
        &[("10.244.1.9 to 10.96.0.1:80", "Reject")],
    );
}

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
fn source_ranges_filter_the_load_balancer_address_alone() {
    let ranges = |ranges: &[&str]| json!({"spec": {"loadBalancerSourceRanges": ranges}});
    let everybody = "10.244.1.2:8080* 10.244.2.2:8080*";
    check(
        &table(ranges(&["198.51.100.0/25"]), both()),
        &[
            ("198.51.100.1 to 203.0.113.7:80", everybody),
            ("198.51.100.200 to 203.0.113.7:80", "Drop"),
            ("10.244.1.9 to 203.0.113.7:80", "Drop"),
            ("203.0.113.7@node to 203.0.113.7:80", "Drop"),
            ("198.51.100.200 to 192.0.2.1:30080", everybody),
            (
                "10.244.1.9 to 10.96.0.1:80",
                "10.244.1.2:8080 10.244.2.2:8080",
            ),
        ],
    );
    check(
        &table(ranges(&["192.0.2.0/24"]), both()),
        &[("203.0.113.7@node to 203.0.113.7:80", everybody)],
    );
    check(
        &table(ranges(&["198.51.100.0/25"]), json!([])),
        &[
            ("198.51.100.200 to 203.0.113.7:80", "Drop"),
            ("198.51.100.1 to 203.0.113.7:80", "Reject"),
        ],
    );
    check(
        &table(ranges(&["2001:db8::/32"]), both()),
        &[("198.51.100.1 to 203.0.113.7:80", "Drop")],
    );
}

#[test]
fn external_ips_are_served_only_where_allowed() {
    let external = || json!({"spec": {"externalIPs": ["203.0.113.9"]}});
    check(
        &table(external(), both()),
        &[("198.51.100.1 to 203.0.113.9:80", "NotOurs")],
    );
    let allowed = NodeContext {
        allow_external_ips: true,
        ..context()
    };
    check(
        &table_in(allowed, external(), both()),
        &[(
            "198.51.100.1 to 203.0.113.9:80",
            "10.244.1.2:8080* 10.244.2.2:8080*",
        )],
    );
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let other =
        || json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "mesh"}}});
    let vip = "198.51.100.1 to 203.0.113.7:80";
    let cluster_ip = "10.244.1.9 to 10.96.0.1:80";
    for (changes, at_cluster_ip) in [
        (other(), "NotOurs"),
        (
            json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}}),
            "Drop",
        ),
        (json!({"spec": {"type": "ExternalName"}}), "Drop"),
        (
            json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}}),
            "Drop",
        ),
    ] {
        check(
            &table(changes, both()),
            &[(vip, "NotOurs"), (cluster_ip, at_cluster_ip)],
        );
    }
    let mesh = NodeContext {
        service_proxy_name: Some("mesh".into()),
        ..context()
    };
    check(
        &table_in(mesh.clone(), other(), both()),
        &[(vip, "10.244.1.2:8080* 10.244.2.2:8080*")],
    );
    check(&table_in(mesh, json!({}), both()), &[(vip, "NotOurs")]);
    let proxied = json!({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7", "ipMode": "Proxy"}]}}});
    check(&table(proxied, both()), &[(vip, "NotOurs")]);
    let former = json!({"spec": {"type": "ClusterIP"}});
    check(
        &table(former, both()),
        &[
            (vip, "NotOurs"),
            ("198.51.100.1 to 192.0.2.1:30080", "NotOurs"),
        ],
    );
}

#[test]
fn a_node_port_is_offered_in_the_families_of_the_service() {
    check(
        &table(json!({}), both()),
        &[("2001:db8:9::1 to [2001:db8:2::1]:30080", "NotOurs")],
    );
    let six = json!({"spec": {"clusterIP": "2001:db8:1::1", "clusterIPs": ["2001:db8:1::1"]}});
    check(
        &table(six, json!([ready("2001:db8:f::2", "there")])),
        &[
            (
                "2001:db8:9::1 to [2001:db8:2::1]:30080",
                "[2001:db8:f::2]:8080*",
            ),
            ("2001:db8:9::1 to [2001:db8:1::1]:81", "Reject"),
        ],
    );
}

#[test]
fn a_port_exists_per_protocol() {
    let table = table(json!({}), both());
    for protocol in [Protocol::Udp, Protocol::Sctp] {
        let flow = Flow {
            protocol,
            ..flow("10.244.1.9 to 10.96.0.1:80")
        };
        assert_eq!(table.verdict(&flow), Verdict::Reject);
    }
}

#[test]
fn affinity_is_told_with_its_seconds() {
    let sticky = json!({"spec": {"sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}}}});
    let table = table(sticky, both());
    for destination in ["10.96.0.1:80", "203.0.113.7:80", "192.0.2.1:30080"] {
        let verdict = table.verdict(&flow(&format!("{POD} to {destination}")));
        let Verdict::Forward {
            affinity_seconds, ..
        } = verdict
        else {
            panic!("{verdict:?}")
        };
        assert_eq!(affinity_seconds.map(std::num::NonZeroU32::get), Some(10));
    }
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

#[test]
fn of_two_services_the_older_has_the_address_and_the_other_comes_in_when_it_goes() {
    let context = Arc::new(context());
    let mut table = ForwardingTable::new(Arc::clone(&context));
    let named = |name: &str, created: &str, cluster_ip: &str| {
        service(json!({
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": {"clusterIP": cluster_ip, "clusterIPs": [cluster_ip]},
        }))
    };
    let young = named("a", "2026-01-02T00:00:00Z", "10.96.0.1");
    let old = named("b", "2026-01-01T00:00:00Z", "10.96.0.2");
    let vip = "198.51.100.1 to 203.0.113.7:80";
    let mut add = |service: &Service, endpoint: &str| {
        let endpoints = json!([ready(endpoint, "here")]);
        table.update(&service.key, Some(part(service, endpoints, &context)));
    };
    add(&young, "10.244.1.2");
    add(&old, "10.244.1.3");
    check(&table, &[(vip, "10.244.1.3:8080*")]);
    let conflicts: Vec<_> = table
        .conflicts(&young.key)
        .map(|(key, holder)| format!("{key}: {holder}"))
        .collect();
    assert_eq!(
        conflicts,
        [
            "203.0.113.7:80 TCP: shop/b",
            "node port 30080 TCP IPv4: shop/b"
        ]
    );
    let change = table.update(&old.key, None);
    check(&table, &[(vip, "10.244.1.2:8080*")]);
    assert_eq!(change.frontends.len(), 3);

    // Nobody takes a ClusterIP away, however old.
    let thief = service(json!({
        "metadata": {"name": "thief", "creationTimestamp": "2020-01-01T00:00:00Z"},
        "spec": {"clusterIP": "10.96.0.3", "clusterIPs": ["10.96.0.3"]},
        "status": {"loadBalancer": {"ingress": [{"ip": "10.96.0.1"}]}},
    }));
    table.update(
        &thief.key,
        Some(part(
            &thief,
            json!([ready("10.244.1.66", "here")]),
            &context,
        )),
    );
    check(&table, &[("10.244.1.9 to 10.96.0.1:80", "10.244.1.2:8080")]);
}
