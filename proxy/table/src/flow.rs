//! A flow, and what becomes of it.

use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use config::name::ServiceKey;
use config::service::Protocol;

use crate::frontend::{Endpoint, FrontendKey};

/// The first packet of a connection, as the node meets it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Flow {
    /// Source address.
    pub source: IpAddr,
    /// Source port.
    pub source_port: u16,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// Destination port.
    pub port: NonZeroU16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Where it comes from.
    pub arrival: Arrival,
}

/// Where a flow enters.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Arrival {
    /// A process of the node itself (in the node's network namespace) sends it.
    Node,
    /// It arrives on the interface of this name.
    Interface(Arc<str>),
}

/// Whose flow it is, by [`NodeContext::origin`](crate::NodeContext::origin).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    /// Of a Pod, as [`PodDetection`](crate::PodDetection) tells. It goes before `Node`.
    Pod,
    /// Of the node itself.
    Node,
    /// Of anybody else.
    Outside,
}

/// What becomes of a flow.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Verdict {
    /// It goes to one of these, sorted, chosen uniformly.
    Forward {
        /// Where it may go; at least one.
        destinations: Vec<Destination>,
        /// Seconds for which the client keeps the endpoint, if it does.
        affinity_seconds: Option<NonZeroU32>,
    },
    /// Answered with ICMP port unreachable.
    Reject,
    /// Dropped without an answer.
    Drop,
    /// Left alone.
    NotOurs,
}

/// One of the endpoints that a flow may go to.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Destination {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Whether the endpoint sees an address of the node instead of the client's.
    pub masqueraded: bool,
}

/// Why a flow has its verdict.
#[derive(Clone, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Reason {
    #[error("{frontend} is a frontend of Service {service}")]
    Endpoints {
        service: ServiceKey,
        frontend: FrontendKey,
    },
    #[error("Service {service} has no endpoint for {frontend}")]
    NoEndpoint {
        service: ServiceKey,
        frontend: FrontendKey,
    },
    #[error(
        "Service {service} has no endpoint on this node for {frontend}, and its traffic policy is Local"
    )]
    NoLocalEndpoint {
        service: ServiceKey,
        frontend: FrontendKey,
    },
    #[error("spec.loadBalancerSourceRanges of Service {service} do not contain {source_address}")]
    SourceNotAllowed {
        service: ServiceKey,
        source_address: IpAddr,
    },
    #[error("Service {service} has the address but not the port")]
    UndefinedPort { service: ServiceKey },
    #[error("Service {service} is served by another proxy")]
    OtherProxy { service: ServiceKey },
    #[error("the address is in a ServiceCIDR and no Service has it")]
    Unallocated,
    #[error("the destination belongs to no Service")]
    NotOurs,
}
