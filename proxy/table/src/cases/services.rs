//! Which Services are served, and what they ask for.

use std::sync::Arc;

use config::service::Service;
use serde_json::json;

use super::{both, check, context, flow, part, ready, service, table, table_in};
use crate::{ForwardingTable, NodeContext, Verdict};

const POD: &str = "10.244.1.9";

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
