//! Endpoints of Services, as EndpointSlices (`discovery.k8s.io/v1`) report them.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1 as api;
use serde::Serialize;

use crate::address::IpFamily;
use crate::name::{NodeName, ServiceKey, SliceName};
use crate::service::{Protocol, protocol};

/// A part of the endpoints of a Service, of one family.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Name of the object.
    pub name: SliceName,
    /// The Service whose endpoints these are (label `kubernetes.io/service-name`).
    pub service: ServiceKey,
    /// Family of all its addresses.
    pub family: IpFamily,
    /// The ports that every endpoint in the slice has.
    pub ports: Vec<EndpointPort>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Annotation `endpoints.kubernetes.io/last-change-trigger-time` in milliseconds since 1970.
    pub last_change_milliseconds: Option<i64>,
}

/// A port of the endpoints in a slice.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPort {
    /// Name, matched with the name of the Service's port; empty for the unnamed one.
    pub name: Arc<str>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The port that the endpoints listen on.
    pub port: NonZeroU16,
}

/// One endpoint: an address that serves, or is about to, or no longer does.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The address, of the slice's family.
    pub address: IpAddr,
    /// `conditions.ready`, true if absent.
    pub ready: bool,
    /// `conditions.serving`, true if absent.
    pub serving: bool,
    /// `conditions.terminating`, false if absent.
    pub terminating: bool,
    /// `nodeName`.
    pub node: Option<NodeName>,
    /// `zone`.
    pub zone: Option<Arc<str>>,
    /// `hints.forZones`.
    pub hint_zones: Vec<Arc<str>>,
    /// `hints.forNodes`.
    pub hint_nodes: Vec<NodeName>,
}

/// The label that names the Service of a slice.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The label of the slices that belong to headless Services.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
const LAST_CHANGE_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

impl EndpointSlice {
    /// Reads a slice as the API server sends it; none if it belongs to no Service or has no IP addresses.
    pub fn from_api(slice: &api::EndpointSlice) -> Option<Self> {
        let metadata = &slice.metadata;
        let service = metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?.as_str();
        let family = match slice.address_type.as_str() {
            "IPv4" => IpFamily::V4,
            "IPv6" => IpFamily::V6,
            _ => return None,
        };
        Some(Self {
            name: SliceName::new(metadata.name.as_deref()?),
            service: ServiceKey::new(metadata.namespace.as_deref()?, service),
            family,
            ports: slice.ports.iter().flatten().filter_map(port).collect(),
            endpoints: slice
                .endpoints
                .iter()
                .filter_map(|endpoint| Endpoint::from_api(endpoint, family))
                .collect(),
            last_change_milliseconds: metadata
                .annotations
                .as_ref()
                .and_then(|annotations| annotations.get(LAST_CHANGE_ANNOTATION))
                .and_then(|text| text.parse::<jiff::Timestamp>().ok())
                .map(jiff::Timestamp::as_millisecond),
        })
    }
}

impl Endpoint {
    /// Reads an endpoint; its first address counts, as everywhere in Kubernetes.
    fn from_api(endpoint: &api::Endpoint, family: IpFamily) -> Option<Self> {
        let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
        if IpFamily::of(address) != family {
            return None;
        }
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        let hints = endpoint.hints.clone().unwrap_or_default();
        Some(Self {
            address,
            ready,
            serving: conditions.serving.unwrap_or(true),
            terminating: conditions.terminating.unwrap_or(false),
            node: endpoint.node_name.as_deref().map(NodeName::from),
            zone: endpoint.zone.as_deref().map(Arc::from),
            hint_zones: hints
                .for_zones
                .iter()
                .flatten()
                .map(|zone| Arc::from(zone.name.as_str()))
                .collect(),
            hint_nodes: hints
                .for_nodes
                .iter()
                .flatten()
                .map(|node| NodeName::from(node.name.as_str()))
                .collect(),
        })
    }
}

fn port(port: &api::EndpointPort) -> Option<EndpointPort> {
    Some(EndpointPort {
        name: port.name.as_deref().unwrap_or_default().into(),
        protocol: protocol(port.protocol.as_deref())?,
        port: u16::try_from(port.port?).ok().and_then(NonZeroU16::new)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(value: serde_json::Value) -> Option<EndpointSlice> {
        EndpointSlice::from_api(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn reads_what_the_api_server_sends() {
        let slice = slice(serde_json::json!({
            "metadata": {"namespace": "shop", "name": "web-x", "labels": {"kubernetes.io/service-name": "web"},
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "1970-01-01T00:00:02Z"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}, {"name": "all", "port": null}],
            "endpoints": [
                {"addresses": ["10.244.1.2"], "nodeName": "node-1"},
                {"addresses": ["10.244.1.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.244.1.4"], "conditions": {"ready": false, "terminating": true}},
                {"addresses": ["not an address"]},
            ],
        }))
        .unwrap();
        assert_eq!(slice.service.to_string(), "shop/web");
        assert_eq!(slice.last_change_milliseconds, Some(2000));
        assert_eq!(slice.ports.len(), 1);
        let seen: Vec<_> = slice
            .endpoints
            .iter()
            .map(|e| (e.address.to_string(), e.ready, e.serving, e.terminating))
            .collect();
        assert_eq!(
            seen,
            [
                ("10.244.1.2".to_owned(), true, true, false),
                ("10.244.1.3".to_owned(), false, true, true),
                // Whoever does not say whether it serves, serves.
                ("10.244.1.4".to_owned(), false, true, true),
            ]
        );
    }

    #[test]
    fn what_belongs_to_no_service_is_not_ours() {
        let without_label = serde_json::json!({"metadata": {"namespace": "a", "name": "b"},
            "addressType": "IPv4", "endpoints": []});
        assert_eq!(slice(without_label), None);
        let names = serde_json::json!({"metadata": {"namespace": "a", "name": "b",
            "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "FQDN", "endpoints": []});
        assert_eq!(slice(names), None);
    }
}
