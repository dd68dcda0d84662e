//! The objects that the lab's users write.

use std::time::Duration;

use serde_json::{Value, json};

use crate::topology::NodeNumber;
use crate::wait;

/// The image that the node agent knows: answers to HTTP on port 8080 and to UDP on port 8081.
pub const IMAGE: &str = "agnhost";

/// A pool with everything that may be given away, as a user would write it.
pub fn pool_yaml(name: &str, addresses: &[&str]) -> String {
    let addresses: String = addresses
        .iter()
        .map(|range| format!("  - {range}\n"))
        .collect();
    format!(
        "apiVersion: foghorn.dev/v1alpha1\nkind: IPAddressPool\nmetadata:\n  name: {name}\nspec:\n  addresses:\n{addresses}"
    )
}

/// A Deployment whose Pods are spread evenly over the nodes.
pub fn deployment(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "topologySpreadConstraints": [{
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "DoNotSchedule",
                        "labelSelector": {"matchLabels": {"app": name}},
                    }],
                    "containers": [{
                        "name": "web",
                        "image": IMAGE,
                        "args": ["netexec", "--http-port=8080", "--udp-port=8081"],
                        "ports": [{"containerPort": 8080}, {"containerPort": 8081, "protocol": "UDP"}],
                        "readinessProbe": {
                            "httpGet": {"path": "/hostname", "port": 8080},
                            "periodSeconds": 1,
                            // Where everything takes long, so does the answer of a Pod that is ready.
                            "timeoutSeconds": wait::patience(Duration::from_secs(1)).as_secs(),
                        },
                    }],
                },
            },
        },
    })
}

/// A dual-stack Service of type LoadBalancer for that Deployment: TCP on port 80, UDP on port 90.
pub fn load_balancer(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "type": "LoadBalancer",
            "ipFamilyPolicy": "RequireDualStack",
            "ipFamilies": ["IPv4", "IPv6"],
            "selector": {"app": name},
            "ports": [
                {"name": "tcp", "port": TCP_PORT, "targetPort": 8080},
                {"name": "udp", "port": UDP_PORT, "targetPort": 8081, "protocol": "UDP"},
            ],
        },
    })
}

/// A Node that is said to be ready, though nothing runs there, and its status.
pub fn node(number: NodeNumber) -> (Value, Value) {
    let networks = [number.pod_network_ipv4(), number.pod_network_ipv6()];
    let object = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": number.name(), "labels": {"kubernetes.io/hostname": number.name()}},
        "spec": {"podCIDR": networks[0], "podCIDRs": networks},
    });
    let status = json!({
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": number.ipv4()},
                {"type": "InternalIP", "address": number.ipv6()},
            ],
            "conditions": [{"type": "Ready", "status": "True", "reason": "Registered", "message": ""}],
        },
    });
    (object, status)
}

/// The Service port for HTTP.
pub const TCP_PORT: u16 = 80;
/// The Service port for UDP.
pub const UDP_PORT: u16 = 90;
