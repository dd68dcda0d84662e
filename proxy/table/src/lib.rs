//! What traffic to a Service must meet.
//!
//! [`compile_service`] turns one Service into its part of the table; [`ForwardingTable::update`] takes that part in and
//! says which frontends are different now; [`ForwardingTable::verdict`] says for every flow what Kubernetes promises.
//! Each data plane compiles the table into its own terms and is held to that verdict by the laws.

#[cfg(test)]
mod cases;
mod compile;
mod context;
mod eligible;
mod flow;
mod frontend;
#[cfg(any(test, feature = "generate"))]
pub mod generate;
#[cfg(test)]
mod laws;
mod look;
mod table;
mod verdict;

pub use compile::{compile_service, is_served};
pub use context::{NodeContext, PodDetection};
pub use eligible::serving_endpoints;
pub use flow::{Arrival, Destination, Flow, Origin, Reason, Verdict};
pub use frontend::{
    Endpoint, EndpointSet, Frontend, FrontendKey, FrontendKind, HealthCheck, Masquerade, Outcome,
    Place, ServiceTable, UndefinedPort,
};
pub use look::Look;
pub use table::{AddressChange, ForwardingTable, FrontendChange, TableChange};
