//! A Service as the API server sends it.

use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as api;

use super::{
    ASSIGNED_CONDITION, FamilyPolicy, Ingress, IpMode, Protocol, Service, ServiceComplaint,
    ServiceKind, ServicePort, TrafficPolicy,
};
use crate::address::IpFamily;
use crate::excerpt::excerpt;
use crate::name::ServiceKey;
use crate::scheduler::{SCHEDULER_ANNOTATION, Scheduler};

impl Service {
    /// Reads a Service as the API server sends it; none if it has no name.
    pub fn from_api(service: &api::Service) -> Option<Self> {
        let metadata = &service.metadata;
        let key = ServiceKey::new(metadata.namespace.as_deref()?, metadata.name.as_deref()?);
        let spec = service.spec.clone().unwrap_or_default();
        let mut complaints = Vec::new();
        let lists = [
            ("spec.clusterIPs", &spec.cluster_ips),
            ("spec.externalIPs", &spec.external_ips),
        ];
        let [cluster_ips, external_ips] =
            lists.map(|(field, list)| addresses(field, list.iter().flatten(), &mut complaints));
        let families = families(&spec, &cluster_ips);
        let named = metadata.annotations.as_ref();
        let named = named.and_then(|all| all.get(SCHEDULER_ANNOTATION));
        if let Some(Err(unknown)) = named.map(|name| name.parse::<Scheduler>()) {
            complaints.push(ServiceComplaint::Scheduler(unknown));
        }
        Some(Self {
            key,
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            labels: metadata.labels.clone().unwrap_or_default(),
            annotations: metadata.annotations.clone().unwrap_or_default(),
            kind: kind(spec.type_.as_deref()),
            headless: spec.cluster_ip.as_deref() == Some("None"),
            deleting: metadata.deletion_timestamp.is_some(),
            created_seconds: metadata
                .creation_timestamp
                .as_ref()
                .map_or(0, |time| time.0.as_second()),
            families,
            family_policy: family_policy(spec.ip_family_policy.as_deref()),
            ingress: ingress(service, &mut complaints),
            ports: ports(&spec, &mut complaints),
            selector: spec.selector.clone().unwrap_or_default(),
            affinity_seconds: affinity_seconds(&spec),
            internal_policy: traffic_policy(spec.internal_traffic_policy.as_deref()),
            external_policy: traffic_policy(spec.external_traffic_policy.as_deref()),
            source_ranges: source_ranges(&spec, &mut complaints),
            health_check_node_port: spec
                .health_check_node_port
                .filter(|&found| found != 0)
                .and_then(|found| port("spec.healthCheckNodePort", found, &mut complaints)),
            load_balancer_class: spec.load_balancer_class.clone(),
            load_balancer_ip: spec
                .load_balancer_ip
                .clone()
                .filter(|text| !text.is_empty()),
            cluster_ips,
            external_ips,
            assigned_by_us: assigned_by_us(service),
            complaints,
        })
    }
}

fn kind(text: Option<&str>) -> ServiceKind {
    match text {
        Some("NodePort") => ServiceKind::NodePort,
        Some("LoadBalancer") => ServiceKind::LoadBalancer,
        Some("ExternalName") => ServiceKind::ExternalName,
        _ => ServiceKind::ClusterIp,
    }
}

fn family_policy(text: Option<&str>) -> FamilyPolicy {
    match text {
        Some("PreferDualStack") => FamilyPolicy::PreferDualStack,
        Some("RequireDualStack") => FamilyPolicy::RequireDualStack,
        _ => FamilyPolicy::SingleStack,
    }
}

fn traffic_policy(text: Option<&str>) -> TrafficPolicy {
    match text {
        Some("Local") => TrafficPolicy::Local,
        _ => TrafficPolicy::Cluster,
    }
}

/// `spec.ipFamilies`; where the API server left them out, the families of the addresses.
fn families(spec: &api::ServiceSpec, cluster_ips: &[IpAddr]) -> Vec<IpFamily> {
    let written: Vec<IpFamily> = spec
        .ip_families
        .iter()
        .flatten()
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some(IpFamily::V4),
            "IPv6" => Some(IpFamily::V6),
            _ => None,
        })
        .collect();
    if written.is_empty() {
        cluster_ips.iter().copied().map(IpFamily::of).collect()
    } else {
        written
    }
}

fn addresses<'a>(
    field: &'static str,
    texts: impl Iterator<Item = &'a String>,
    complaints: &mut Vec<ServiceComplaint>,
) -> Vec<IpAddr> {
    texts
        .filter(|text| !text.is_empty() && *text != "None")
        .filter_map(|text| {
            let address = text.parse().ok();
            if address.is_none() {
                complaints.push(ServiceComplaint::Address {
                    field,
                    found: excerpt(text),
                });
            }
            address
        })
        .collect()
}

fn ingress(service: &api::Service, complaints: &mut Vec<ServiceComplaint>) -> Vec<Ingress> {
    let status = service.status.as_ref();
    let entries = status
        .and_then(|status| status.load_balancer.as_ref())
        .and_then(|balancer| balancer.ingress.as_ref());
    entries
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let text = entry.ip.as_ref()?;
            let field = "status.loadBalancer.ingress";
            let address = *addresses(field, std::iter::once(text), complaints).first()?;
            let mode = match entry.ip_mode.as_deref() {
                Some("Proxy") => IpMode::Proxy,
                _ => IpMode::Vip,
            };
            Some(Ingress { address, mode })
        })
        .collect()
}

fn assigned_by_us(service: &api::Service) -> bool {
    let status = service.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == ASSIGNED_CONDITION && condition.status == "True")
}

fn ports(spec: &api::ServiceSpec, complaints: &mut Vec<ServiceComplaint>) -> Vec<ServicePort> {
    spec.ports
        .iter()
        .flatten()
        .filter_map(|entry| {
            let protocol = protocol(entry.protocol.as_deref()).or_else(|| {
                complaints.push(ServiceComplaint::Protocol(
                    entry.protocol.clone().unwrap_or_default(),
                ));
                None
            })?;
            Some(ServicePort {
                name: entry.name.as_deref().unwrap_or_default().into(),
                protocol,
                port: port("spec.ports.port", entry.port, complaints)?,
                node_port: entry
                    .node_port
                    .filter(|&found| found != 0)
                    .and_then(|found| port("spec.ports.nodePort", found, complaints)),
            })
        })
        .collect()
}

/// The protocol of this name; TCP where none is written.
pub(crate) fn protocol(text: Option<&str>) -> Option<Protocol> {
    match text {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

fn port(
    field: &'static str,
    found: i32,
    complaints: &mut Vec<ServiceComplaint>,
) -> Option<NonZeroU16> {
    let port = u16::try_from(found).ok().and_then(NonZeroU16::new);
    if port.is_none() {
        complaints.push(ServiceComplaint::Port { field, found });
    }
    port
}

fn affinity_seconds(spec: &api::ServiceSpec) -> Option<NonZeroU32> {
    /// What the API documents for an affinity without a timeout: three hours.
    const DEFAULT_SECONDS: NonZeroU32 = NonZeroU32::new(10_800).expect("is not zero");
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let written = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref())
        .and_then(|client| client.timeout_seconds);
    Some(
        written
            .and_then(|seconds| u32::try_from(seconds).ok())
            .and_then(NonZeroU32::new)
            .unwrap_or(DEFAULT_SECONDS),
    )
}

/// The source ranges; one that cannot be read admits nobody, so that a typing error never opens a Service to all.
fn source_ranges(spec: &api::ServiceSpec, complaints: &mut Vec<ServiceComplaint>) -> Vec<IpNet> {
    let texts: Vec<&String> = spec.load_balancer_source_ranges.iter().flatten().collect();
    let mut ranges = Vec::new();
    for text in &texts {
        match text.trim().parse::<IpNet>() {
            Ok(range) => ranges.push(range.trunc()),
            Err(_) => complaints.push(ServiceComplaint::SourceRange(excerpt(text))),
        }
    }
    if ranges.is_empty() && !texts.is_empty() {
        ranges.push(NOBODY);
    }
    ranges
}

/// The unspecified address, which is no packet's source.
const NOBODY: IpNet = IpNet::V4(ipnet::Ipv4Net::new_assert(
    std::net::Ipv4Addr::UNSPECIFIED,
    32,
));

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: serde_json::Value, status: serde_json::Value) -> Service {
        let object = serde_json::json!({
            "metadata": {"namespace": "shop", "name": "web", "uid": "1"},
            "spec": spec, "status": status,
        });
        Service::from_api(&serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn reads_what_the_api_server_sends() {
        let service = service(
            serde_json::json!({
                "type": "LoadBalancer", "clusterIP": "10.96.0.7",
                "clusterIPs": ["10.96.0.7", "2001:db8::7"], "ipFamilies": ["IPv4", "IPv6"],
                "ipFamilyPolicy": "PreferDualStack", "externalTrafficPolicy": "Local",
                "sessionAffinity": "ClientIP", "healthCheckNodePort": 32000,
                "ports": [{"name": "http", "port": 80, "nodePort": 30080, "targetPort": 8080}],
            }),
            serde_json::json!({"loadBalancer": {"ingress": [
                {"ip": "192.0.2.7", "ipMode": "VIP"}, {"ip": "192.0.2.8", "ipMode": "Proxy"},
                {"hostname": "web.example"},
            ]}, "conditions": [{"type": "foghorn.dev/AddressAssigned", "status": "True", "reason": "Assigned",
                "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
        );
        assert!(service.assigned_by_us);
        assert_eq!(service.key.to_string(), "shop/web");
        assert_eq!(service.kind, ServiceKind::LoadBalancer);
        assert_eq!(service.families, [IpFamily::V4, IpFamily::V6]);
        assert_eq!(service.external_policy, TrafficPolicy::Local);
        assert_eq!(service.affinity_seconds.unwrap().get(), 10_800);
        assert_eq!(
            service.vips().collect::<Vec<_>>(),
            ["192.0.2.7".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(service.ports[0].port.get(), 80);
        assert_eq!(service.ports[0].node_port.unwrap().get(), 30080);
        assert_eq!(service.complaints, []);
    }

    #[test]
    fn leaves_out_one_thing_and_says_which() {
        let service = service(
            serde_json::json!({
                "externalIPs": ["192.0.2.300"], "loadBalancerSourceRanges": ["office"],
                "ports": [{"port": 0}, {"port": 53, "protocol": "QUIC"}, {"port": 53, "protocol": "UDP"}],
            }),
            serde_json::json!({"loadBalancer": {"ingress": [{"ip": "x"}]}}),
        );
        assert!(!service.assigned_by_us);
        assert_eq!(service.ports.len(), 1);
        let complaints: Vec<_> = service.complaints.iter().map(ToString::to_string).collect();
        assert_eq!(
            complaints,
            [
                "spec.externalIPs has \"192.0.2.300\", which is not an IP address: it is ignored",
                "status.loadBalancer.ingress has \"x\", which is not an IP address: it is ignored",
                "spec.ports.port is 0, which is not a port from 1 to 65535: it is ignored",
                "spec.ports has the protocol \"QUIC\", which is none of TCP, UDP, SCTP: the port is ignored",
                "spec.loadBalancerSourceRanges has \"office\", which is not a prefix such as 192.0.2.0/24: it admits nobody",
            ]
        );
    }

    #[test]
    fn a_source_range_that_cannot_be_read_opens_nothing() {
        let service = service(
            serde_json::json!({"loadBalancerSourceRanges": ["office"]}),
            serde_json::json!({}),
        );
        assert!(!service.source_ranges.is_empty());
    }
}
