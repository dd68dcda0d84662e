//! A Service as the API server says it is, its status in full.

use std::net::IpAddr;

use config::service::{IpMode, Protocol, Service};
use controller_allocator::status::CONDITION;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

/// The name under which this program applies fields (server-side apply).
pub const FIELD_MANAGER: &str = "foghorn-controller";

/// A Service, and what its status says.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// What it asks for.
    pub service: Service,
    /// Version of the object; a write that names another one is refused.
    pub version: String,
    /// `status.loadBalancer.ingress`.
    pub ingress: Vec<IngressView>,
    /// Our condition, if there is one.
    pub condition: Option<ConditionView>,
    /// Who wrote `status.loadBalancer`, as far as the API server recorded it.
    pub writers: Vec<String>,
}

/// An entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IngressView {
    /// The address; none for an entry with a host name, or something that cannot be read.
    pub address: Option<IpAddr>,
    /// Who the traffic is delivered to.
    pub mode: IpMode,
    /// The ports, in order.
    pub ports: Vec<(Protocol, i32)>,
}

/// Our condition as it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConditionView {
    /// `status` is `True`.
    pub is_true: bool,
    /// The reason as one word.
    pub reason: String,
    /// The whole reason.
    pub message: String,
    /// When `status` last changed.
    pub since: Timestamp,
}

impl Observed {
    /// Reads a Service as the API server sends it; none if it has no name.
    pub fn from_api(object: &api::Service) -> Option<Self> {
        let status = object.status.clone().unwrap_or_default();
        let conditions = status.conditions.into_iter().flatten();
        let mut ours = conditions.filter(|condition| condition.type_ == CONDITION);
        let ingress = status.load_balancer.and_then(|balancer| balancer.ingress);
        let managed = object.metadata.managed_fields.iter().flatten();
        Some(Self {
            service: Service::from_api(object)?,
            version: object.metadata.resource_version.clone().unwrap_or_default(),
            ingress: ingress
                .iter()
                .flatten()
                .map(IngressView::from_api)
                .collect(),
            condition: ours.next().map(|condition| ConditionView {
                is_true: condition.status == "True",
                reason: condition.reason,
                message: condition.message,
                since: condition.last_transition_time.0,
            }),
            writers: managed.filter_map(writer_of_ingress).collect(),
        })
    }

    /// Whether this is a later version of the object than `other`, as far as versions can be compared (KEP-5504).
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let number = |observed: &Self| observed.version.parse::<u128>().ok();
        match (number(self), number(other)) {
            (Some(this), Some(other)) => this > other,
            _ => self.version != other.version,
        }
    }

    /// Somebody else who wrote `status.loadBalancer`, and we did not.
    pub fn foreign_writer(&self) -> Option<&str> {
        let ours = self.writers.iter().any(|writer| writer == FIELD_MANAGER);
        self.writers.first().filter(|_| !ours).map(String::as_str)
    }
}

impl IngressView {
    fn from_api(entry: &api::LoadBalancerIngress) -> Self {
        let ports = entry.ports.iter().flatten();
        Self {
            address: entry.ip.as_ref().and_then(|text| text.parse().ok()),
            mode: match entry.ip_mode.as_deref() {
                Some("Proxy") => IpMode::Proxy,
                _ => IpMode::Vip,
            },
            ports: ports
                .map(|port| (protocol(&port.protocol), port.port))
                .collect(),
        }
    }
}

fn protocol(text: &str) -> Protocol {
    match text {
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}

fn writer_of_ingress(entry: &ManagedFieldsEntry) -> Option<String> {
    let fields = &entry.fields_v1.as_ref()?.0;
    let ingress = fields.pointer("/f:status/f:loadBalancer/f:ingress");
    ingress.and(entry.manager.clone())
}
