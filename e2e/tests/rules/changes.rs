//! Random changes of Services and their endpoints.

use anyhow::Result;
use e2e::lab::Lab;
use e2e::random::Random;
use serde_json::{Value, json};

pub(crate) fn change(lab: &Lab, random: &mut Random) -> Result<()> {
    let name = format!("web-{}", random.below(SERVICES));
    match random.below(10) {
        0 => drop(lab.api.delete(&format!("{COLLECTION}/{name}"))?),
        1..4 => {
            let object = random_service(&name, random);
            lab.api.apply(&format!("{COLLECTION}/{name}"), &object)?;
            if object["spec"]["type"] == "LoadBalancer" {
                let last = random.below(100);
                let addresses =
                    json!([{"ip": format!("192.0.2.{last}")}, {"ip": format!("2001:db8::{last}")}]);
                let status = json!({"status": {"loadBalancer": {"ingress": addresses}}});
                lab.api
                    .patch(&format!("{COLLECTION}/{name}/status"), &status)?;
            }
        }
        4 => {
            let family = if random.one_in(2) { "ipv4" } else { "ipv6" };
            lab.api.delete(&format!("{SLICES}/{name}-{family}"))?;
        }
        5..7 => drop(lab.api.apply(
            &format!("{SLICES}/{name}-ipv6"),
            &random_slice(&name, "IPv6", random),
        )?),
        _ => drop(lab.api.apply(
            &format!("{SLICES}/{name}-ipv4"),
            &random_slice(&name, "IPv4", random),
        )?),
    }
    Ok(())
}

fn random_service(name: &str, random: &mut Random) -> Value {
    let mut object = service(name, &["IPv4", "IPv6"]);
    let spec = &mut object["spec"];
    let kind = random
        .choose(&["ClusterIP", "NodePort", "LoadBalancer"])
        .copied()
        .unwrap_or_default();
    spec["type"] = json!(kind);
    if random.one_in(3) {
        spec["sessionAffinity"] = json!("ClientIP");
    }
    if random.one_in(3) {
        spec["internalTrafficPolicy"] = json!("Local");
    }
    if kind != "ClusterIP" && random.one_in(3) {
        spec["externalTrafficPolicy"] = json!("Local");
    }
    if kind == "LoadBalancer" && random.one_in(3) {
        spec["loadBalancerSourceRanges"] = json!(["198.51.100.0/24", "2001:db8:1::/64"]);
    }
    if random.one_in(2) {
        let port = 1000 + random.below(3);
        let more = json!({"name": "more", "port": port, "targetPort": 8081, "protocol": "UDP"});
        if let Some(ports) = spec["ports"].as_array_mut() {
            ports.push(more);
        }
    }
    object
}

pub(crate) fn service(name: &str, families: &[&str]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "type": "ClusterIP",
            "ipFamilyPolicy": "RequireDualStack",
            "ipFamilies": families,
            "ports": [{"name": "web", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    })
}

fn random_slice(name: &str, family: &str, random: &mut Random) -> Value {
    let endpoints: Vec<Value> = (0..random.below(6))
        .map(|_| {
            let (node, last) = (1 + random.below(3), 10 + random.below(20));
            let address = match family {
                "IPv4" => format!("10.244.{node}.{last}"),
                _ => format!("fd12:3456:789a:f40{node}::{last}"),
            };
            endpoint(&address, node, !random.one_in(5))
        })
        .collect();
    slice(name, family, &endpoints)
}

pub(crate) fn endpoint(address: &str, node: u16, ready: bool) -> Value {
    let conditions = json!({"ready": ready, "serving": true, "terminating": !ready});
    json!({"addresses": [address], "nodeName": format!("node-{node}"), "conditions": conditions})
}

pub(crate) fn slice(service: &str, family: &str, endpoints: &[Value]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-{}", family.to_lowercase()),
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family,
        "ports": [
            {"name": "web", "port": 8080, "protocol": "TCP"},
            {"name": "more", "port": 8081, "protocol": "UDP"},
        ],
        "endpoints": endpoints,
    })
}

pub(crate) const SERVICES: u16 = 30;
pub(crate) const COLLECTION: &str = "/api/v1/namespaces/default/services";
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
