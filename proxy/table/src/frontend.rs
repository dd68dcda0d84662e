//! The parts of the table: frontends, and the endpoints behind them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::ops::Deref;
use std::sync::Arc;

use config::address::IpFamily;
use config::scheduler::Scheduler;
use config::service::{Protocol, TrafficPolicy};
use ipnet::IpNet;
use serde::{Serialize, Serializer};

/// Where a frontend is reached: what a data plane looks up.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FrontendKey {
    /// The destination of the packets.
    pub place: Place,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The destination port.
    pub port: NonZeroU16,
}

/// The destination of packets to a frontend.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Place {
    /// This address.
    Address(IpAddr),
    /// Those of the node's addresses of this family that NodePorts are offered on
    /// ([`NodeContext::node_port_addresses`](crate::NodeContext::node_port_addresses)).
    Node(IpFamily),
}

impl FrontendKey {
    /// The family of packets to the frontend, and of its endpoints.
    pub fn family(&self) -> IpFamily {
        match self.place {
            Place::Address(address) => IpFamily::of(address),
            Place::Node(family) => family,
        }
    }
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            protocol,
            port,
        } = self;
        match place {
            Place::Address(address) => {
                write!(
                    formatter,
                    "{} {protocol}",
                    SocketAddr::new(*address, port.get())
                )
            }
            Place::Node(family) => write!(formatter, "node port {port} {protocol} {family}"),
        }
    }
}

/// What a frontend comes from.
///
/// The order is that of precedence when two Services claim one address and port: nobody takes a ClusterIP away.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum FrontendKind {
    /// `spec.clusterIPs`.
    ClusterIp,
    /// `status.loadBalancer.ingress`.
    LoadBalancer,
    /// `spec.externalIPs`.
    ExternalIp,
    /// `spec.ports.nodePort`.
    NodePort,
}

/// What happens to packets of new connections to one address and port.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Frontend {
    /// What it comes from.
    pub kind: FrontendKind,
    /// The name of the Service's port (`spec.ports.name`), by which the frontends of one port know each other.
    pub port: Arc<str>,
    /// The traffic policy that it follows: which of the port's two sets of endpoints its flows go to.
    pub policy: TrafficPolicy,
    /// Where flows of Pods of this cluster and of the node itself go ([`Origin`](crate::Origin)).
    pub inside: Outcome,
    /// Where all other flows go; equal to `inside` but for `externalTrafficPolicy: Local`.
    pub outside: Outcome,
    /// Whose source address is replaced by one of the node; an endpoint that reaches itself (hairpin) always has it replaced.
    pub masquerade: Masquerade,
    /// Seconds for which a client keeps its endpoint after its last new connection.
    pub affinity_seconds: Option<NonZeroU32>,
    /// How IPVS chooses among endpoints, if the Service says so.
    pub scheduler: Option<Scheduler>,
    /// If present, flows from other sources are dropped, whatever their origin. Sorted, of the frontend's family, no two equal.
    pub sources: Option<Arc<[IpNet]>>,
}

/// Where the flows to a frontend go.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize)]
pub enum Outcome {
    /// To one of these, uniformly.
    Forward(EndpointSet),
    /// No endpoint anywhere: answered with ICMP port unreachable.
    Reject,
    /// No endpoint on this node, but some elsewhere: dropped without a word, so that a load balancer tries another node.
    Drop,
}

impl Outcome {
    /// The endpoints; none unless forwarding.
    pub fn endpoints(&self) -> &[Endpoint] {
        match self {
            Self::Forward(endpoints) => endpoints,
            Self::Reject | Self::Drop => &[],
        }
    }
}

/// Whose source address a frontend replaces.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Masquerade {
    /// Everybody's.
    Always,
    /// That of flows from anywhere but Pods ([`Origin::Pod`](crate::Origin::Pod)).
    UnlessPod,
    /// That of the node itself ([`Origin::Node`](crate::Origin::Node)) alone.
    OnlyNode,
    /// Nobody's (but the hairpin's).
    OnlyHairpin,
}

/// An address and port that serves.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Endpoint {
    /// The address, of the frontend's family.
    pub address: IpAddr,
    /// The port.
    pub port: NonZeroU16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&SocketAddr::new(self.address, self.port.get()), formatter)
    }
}

/// Endpoints to choose from: at least one, sorted, no two equal; shared by the frontends that have the same ones.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct EndpointSet(Arc<[Endpoint]>);

impl EndpointSet {
    /// The set of these endpoints; none if there are none.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Option<Self> {
        let mut endpoints: Vec<Endpoint> = endpoints.into_iter().collect();
        endpoints.sort_unstable();
        endpoints.dedup();
        (!endpoints.is_empty()).then(|| Self(endpoints.into()))
    }

    /// Whether both are the same set in memory, which is quick and enough to know that they are equal.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Serialize for EndpointSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

impl Deref for EndpointSet {
    type Target = [Endpoint];

    fn deref(&self) -> &[Endpoint] {
        &self.0
    }
}

/// What happens to packets to a ClusterIP at a port (or of a protocol) that its Service does not have.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum UndefinedPort {
    /// Rejected: the Service is ours and has no such port.
    Reject,
    /// Left alone, although in a ServiceCIDR: another proxy serves this Service.
    Leave,
}

/// The part of the table that one Service makes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServiceTable {
    /// When the Service was created, in seconds since 1970; of two Services that claim one frontend the older has it.
    pub created_seconds: i64,
    /// The frontends.
    pub frontends: BTreeMap<FrontendKey, Arc<Frontend>>,
    /// The ClusterIPs, and what becomes of other ports of them.
    pub cluster_ips: BTreeMap<IpAddr, UndefinedPort>,
    /// What a load balancer is told about this node, if it may ask.
    pub health_check: Option<HealthCheck>,
}

/// What is answered on a Service's `healthCheckNodePort`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct HealthCheck {
    /// The port to answer on.
    pub port: NonZeroU16,
    /// How many endpoints of the Service on this node are ready.
    pub local_endpoints: usize,
}
