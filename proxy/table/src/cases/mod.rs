//! What Kubernetes promises, as sentences: a Service, its endpoints, and what becomes of flows.

mod endpoints;
mod frontends;
mod services;

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
