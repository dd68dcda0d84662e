//! `support`: one file for whoever helps, without secrets.
//!
//! It is a list of objects that every command reads (`--dump`), with the logs of Foghorn's programs and what speakers and
//! metrics say beside it. What goes in is on a list of what helps: nothing else of an object is taken over.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, Client};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::arguments::{self, Common};
use crate::fetch::{self, Door};

/// What is handed over.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// `v1`
    pub api_version: &'static str,
    /// `List`: what the other commands read with `--dump`.
    pub kind: &'static str,
    /// The objects, without what could be secret.
    pub items: Vec<Value>,
    /// What is no object.
    pub foghorn: Evidence,
}

/// What programs say themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Version of this command.
    pub version: &'static str,
    /// When the file was made.
    pub collected: Option<Timestamp>,
    /// Version of the API server.
    pub kubernetes: Option<String>,
    /// The last lines of each container's log, by Pod.
    pub logs: BTreeMap<String, String>,
    /// Metrics, by Pod.
    pub metrics: BTreeMap<String, String>,
    /// What each speaker knows, by Pod.
    pub speakers: BTreeMap<String, Value>,
    /// What could not be had.
    pub gaps: Vec<String>,
}

/// Asks the cluster for everything that helps.
///
/// # Errors
/// If the API server does not answer, or forbids to list Services or pools.
pub async fn bundle(common: &Common, asked: &arguments::Cluster) -> anyhow::Result<Bundle> {
    let (client, _) = fetch::connect(common).await?;
    let (objects, gaps) = fetch::objects(&client, asked, fetch::Extent::Everything).await?;
    let mut items: Vec<Value> = objects.iter().filter_map(without_secrets).collect();
    let mut evidence = Evidence {
        version: env!("CARGO_PKG_VERSION"),
        collected: Some(Timestamp::now()),
        gaps,
        ..Evidence::default()
    };
    match client.apiserver_version().await {
        Ok(version) => evidence.kubernetes = Some(version.git_version),
        Err(error) => evidence
            .gaps
            .push(format!("version of the API server: {error}")),
    }
    let pods = Api::<Pod>::all(client.clone());
    let ours = ListParams::default().labels(&asked.program_selector);
    match pods.list(&ours).await {
        Ok(pods) => {
            for pod in pods.items {
                evidence.ask(&client, &pod, asked.speaker_port).await;
                items.extend(without_secrets(&typed(&pod)?));
            }
        }
        Err(error) => evidence
            .gaps
            .push(format!("Pods cannot be listed: {error}")),
    }
    Ok(Bundle {
        api_version: "v1",
        kind: "List",
        items,
        foghorn: evidence,
    })
}

impl Evidence {
    async fn ask(&mut self, client: &Client, pod: &Pod, speaker_port: u16) {
        let (Some(namespace), Some(name)) = (&pod.metadata.namespace, &pod.metadata.name) else {
            return;
        };
        let last = LogParams {
            tail_lines: Some(LOG_LINES),
            ..LogParams::default()
        };
        let pods = Api::<Pod>::namespaced(client.clone(), namespace);
        match pods.logs(name, &last).await {
            Ok(log) => drop(self.logs.insert(name.clone(), log)),
            Err(error) => self.gaps.push(format!("log of {name}: {error}")),
        }
        let ports = pod.spec.iter().flat_map(|spec| &spec.containers);
        let mut ports = ports.flat_map(|container| container.ports.iter().flatten());
        let metrics = ports.find(|port| port.name.as_deref() == Some("metrics"));
        let Some(port) = metrics.and_then(|port| u16::try_from(port.container_port).ok()) else {
            return self.gaps.push(format!("metrics of {name} are on loopback"));
        };
        let door = Door::of(pod, port);
        match fetch::page(client, &door, "metrics").await {
            Ok(text) => drop(self.metrics.insert(name.clone(), text)),
            Err(error) => self.gaps.push(format!("metrics of {error}")),
        }
        if port != speaker_port {
            return;
        }
        let status = fetch::page(client, &door, "status").await;
        let status = status.and_then(|text| {
            serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))
        });
        match status {
            Ok(status) => drop(self.speakers.insert(name.clone(), status)),
            Err(error) => self.gaps.push(format!("status of {error}")),
        }
    }
}

fn typed(pod: &Pod) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(pod)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("apiVersion".to_owned(), "v1".into());
        fields.insert("kind".to_owned(), "Pod".into());
    }
    Ok(value)
}

/// What of an object may be shown to a stranger; nothing of an object of a kind that is not needed.
///
/// Annotations may hold anything, `kubectl apply` copies whole objects into one: only those that mean something to Foghorn
/// stay. The values of variables of Pods are left out.
pub fn without_secrets(object: &Value) -> Option<Value> {
    let kind = object.get("kind")?.as_str()?;
    let fields: &[&str] = match kind {
        "Namespace" => &[],
        "Service" | "IPAddressPool" | "L2Advertisement" | "ServiceL2Status" | "ServiceCIDR"
        | "Lease" | "Node" | "Pod" => &["spec", "status"],
        "EndpointSlice" => &["addressType", "endpoints", "ports"],
        "Event" => &[
            "involvedObject",
            "reason",
            "message",
            "type",
            "count",
            "firstTimestamp",
            "lastTimestamp",
            "eventTime",
            "source",
            "reportingComponent",
            "reportingInstance",
        ],
        _ => return None,
    };
    let mut kept = copied(object, &["apiVersion", "kind"]);
    let metadata = object.get("metadata").map(metadata).unwrap_or_default();
    kept.insert("metadata".to_owned(), metadata);
    kept.append(&mut copied(object, fields));
    if kind == "Node"
        && let Some(status) = kept.get_mut("status")
    {
        *status = copied(status, &["addresses", "conditions", "nodeInfo"]).into();
    }
    let mut kept = Value::Object(kept);
    leave_out_variables(&mut kept);
    Some(kept)
}

fn metadata(metadata: &Value) -> Value {
    let mut kept = copied(
        metadata,
        &[
            "name",
            "namespace",
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "labels",
            "ownerReferences",
        ],
    );
    let annotations = metadata.get("annotations").and_then(Value::as_object);
    let ours: Map<String, Value> = annotations
        .into_iter()
        .flatten()
        .filter(|(name, _)| OURS.iter().any(|prefix| name.starts_with(prefix)))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if !ours.is_empty() {
        kept.insert("annotations".to_owned(), ours.into());
    }
    kept.into()
}

/// Of a Pod; other objects have no containers.
fn leave_out_variables(pod: &mut Value) {
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        let containers = pod.pointer_mut(&format!("/spec/{list}"));
        for container in containers
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let variables = container.pointer_mut("/env").and_then(Value::as_array_mut);
            for variable in variables.into_iter().flatten() {
                if let Some(value) = variable.get_mut("value") {
                    *value = json!("(left out)");
                }
            }
        }
    }
}

fn copied(object: &Value, fields: &[&str]) -> Map<String, Value> {
    let found = fields.iter().filter_map(|field| {
        let value = object.get(*field)?;
        Some(((*field).to_owned(), value.clone()))
    });
    found.collect()
}

/// Annotations that mean something to Foghorn.
const OURS: [&str; 3] = ["foghorn.dev/", "metallb.io/", "metallb.universe.tf/"];
/// The last lines of a log that are taken.
const LOG_LINES: i64 = 5000;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(object: Value, expected: Option<Value>) {
        assert_eq!(without_secrets(&object), expected);
    }

    #[test]
    fn what_is_not_needed_is_not_taken() {
        for kind in [
            "Secret",
            "ConfigMap",
            "ServiceAccount",
            "Deployment",
            "Unknown",
        ] {
            check(json!({"kind": kind, "metadata": {"name": "a"}}), None);
        }
        check(json!({"metadata": {"name": "a"}}), None);
    }

    #[test]
    fn of_annotations_those_of_foghorn_stay() {
        check(
            json!({
                "apiVersion": "v1", "kind": "Service", "extra": "secret",
                "metadata": {
                    "name": "web", "managedFields": ["secret"],
                    "annotations": {
                        "foghorn.dev/address-pool": "lan",
                        "kubectl.kubernetes.io/last-applied-configuration": "secret",
                        "example.com/token": "secret",
                    },
                },
                "spec": {"type": "LoadBalancer"},
            }),
            Some(json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "web", "annotations": {"foghorn.dev/address-pool": "lan"}},
                "spec": {"type": "LoadBalancer"},
            })),
        );
    }

    #[test]
    fn values_of_variables_are_left_out() {
        check(
            json!({
                "kind": "Pod", "metadata": {},
                "spec": {"containers": [{"name": "a", "env": [
                    {"name": "TOKEN", "value": "secret"},
                    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                ]}]},
            }),
            Some(json!({
                "kind": "Pod", "metadata": {},
                "spec": {"containers": [{"name": "a", "env": [
                    {"name": "TOKEN", "value": "(left out)"},
                    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                ]}]},
            })),
        );
    }

    #[test]
    fn of_nodes_addresses_conditions_and_versions_stay() {
        check(
            json!({"kind": "Node", "metadata": {"name": "a"}, "spec": {},
                "status": {"addresses": [], "images": ["registry.example.com/secret"]}}),
            Some(
                json!({"kind": "Node", "metadata": {"name": "a"}, "spec": {}, "status": {"addresses": []}}),
            ),
        );
    }
}
