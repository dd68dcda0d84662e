//! Services, as far as anything of ours decides from them.

mod read;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

pub(crate) use self::read::protocol;
use crate::address::IpFamily;
use crate::name::ServiceKey;
use crate::scheduler::{SCHEDULER_ANNOTATION, UnknownScheduler};
use crate::selector::Labels;

/// A Service.
///
/// What the API server let through but means nothing to us is left out and listed in [`Self::complaints`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Namespace and name.
    pub key: ServiceKey,
    /// Identity of this very object; another one after delete and create.
    pub uid: Arc<str>,
    /// Labels of the object.
    pub labels: Labels,
    /// Annotations of the object.
    pub annotations: BTreeMap<String, String>,
    /// `spec.type`.
    pub kind: ServiceKind,
    /// `spec.clusterIP: None`.
    pub headless: bool,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `metadata.creationTimestamp` in seconds since 1970; 0 if unknown.
    pub created_seconds: i64,
    /// `spec.clusterIPs`.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.ipFamilies`, the first one is the primary.
    pub families: Vec<IpFamily>,
    /// `spec.ipFamilyPolicy`.
    pub family_policy: FamilyPolicy,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress`, the entries that have an address.
    pub ingress: Vec<Ingress>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.selector`.
    pub selector: BTreeMap<String, String>,
    /// Seconds for which a client keeps its endpoint, if `spec.sessionAffinity: ClientIP`.
    pub affinity_seconds: Option<NonZeroU32>,
    /// `spec.internalTrafficPolicy`.
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`.
    pub external_policy: TrafficPolicy,
    /// `spec.loadBalancerSourceRanges`; empty means everybody.
    pub source_ranges: Vec<IpNet>,
    /// `spec.healthCheckNodePort`.
    pub health_check_node_port: Option<NonZeroU16>,
    /// `spec.loadBalancerClass`.
    pub load_balancer_class: Option<String>,
    /// `spec.loadBalancerIP`, as written.
    pub load_balancer_ip: Option<String>,
    /// The condition [`ASSIGNED_CONDITION`] is true: the addresses in the status are from us.
    pub assigned_by_us: bool,
    /// What was left out, and why.
    #[serde(skip)]
    pub complaints: Vec<ServiceComplaint>,
}

/// `spec.type` of a Service.
#[expect(missing_docs, reason = "named as in the API")]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum ServiceKind {
    #[default]
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

/// `spec.ipFamilyPolicy` of a Service.
#[expect(missing_docs, reason = "named as in the API")]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum FamilyPolicy {
    #[default]
    SingleStack,
    PreferDualStack,
    RequireDualStack,
}

/// `internalTrafficPolicy` or `externalTrafficPolicy` of a Service.
#[expect(missing_docs, reason = "named as in the API")]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum TrafficPolicy {
    #[default]
    Cluster,
    Local,
}

/// A transport protocol that Services know.
#[expect(missing_docs, reason = "named as in the API")]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The protocol number of IANA, as in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// An address in `status.loadBalancer.ingress`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// The address.
    pub address: IpAddr,
    /// Who the traffic is delivered to.
    pub mode: IpMode,
}

/// `ipMode` of an ingress address (KEP-1860).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum IpMode {
    /// Packets arrive with the address as destination.
    #[default]
    Vip,
    /// A proxy in front delivers to the node or Pod: the address is none of ours.
    Proxy,
}

/// One of `spec.ports`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Name, empty for the unnamed port; endpoints are matched by it.
    pub name: Arc<str>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port on the Service's addresses.
    pub port: NonZeroU16,
    /// Port on the nodes' addresses, if there is one.
    pub node_port: Option<NonZeroU16>,
}

/// Something in a Service that was left out.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ServiceComplaint {
    #[error("{field} has \"{found}\", which is not an IP address: it is ignored")]
    Address { field: &'static str, found: String },
    #[error(
        "spec.loadBalancerSourceRanges has \"{0}\", which is not a prefix such as 192.0.2.0/24: it admits nobody"
    )]
    SourceRange(String),
    #[error("annotation {SCHEDULER_ANNOTATION}: {0}")]
    Scheduler(UnknownScheduler),
    #[error("{field} is {found}, which is not a port from 1 to 65535: it is ignored")]
    Port { field: &'static str, found: i32 },
    #[error(
        "spec.ports has the protocol \"{0}\", which is none of TCP, UDP, SCTP: the port is ignored"
    )]
    Protocol(String),
}

/// The label whose value names the proxy that a Service is meant for, if not the cluster's default one.
pub const SERVICE_PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// The label by which a Service with addresses asks to be left alone like a headless one.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// The condition by which a Service says that its addresses are from one of our pools.
pub const ASSIGNED_CONDITION: &str = "foghorn.dev/AddressAssigned";

impl Service {
    /// The addresses in the status that packets arrive with, in order.
    pub fn vips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.ingress
            .iter()
            .filter(|ingress| ingress.mode == IpMode::Vip)
            .map(|ingress| ingress.address)
    }
}
