//! What users and the cluster say, parsed into values that cannot be wrong.
//!
//! Everything that Foghorn decides from is a value of this package: pools and advertisements that the operator
//! wrote, Services, endpoints and nodes that the API server reported, and the [`snapshot::Snapshot`] that holds
//! them together. Nothing here reads a clock, opens a socket or logs.

pub mod address;
pub mod advertisement;
pub mod annotation;
pub mod catalogue;
pub mod conflict;
#[expect(
    clippy::duplicated_attributes,
    reason = "every printer column has a name and a type"
)]
#[expect(
    unreachable_pub,
    reason = "the derive of the schema repeats the types where they cannot be reached"
)]
pub mod crd;
pub mod declaration;
pub mod endpoint;
mod excerpt;
pub mod file;
pub mod kube_proxy;
mod located;
pub mod metallb;
pub mod name;
pub mod node;
pub mod pool;
pub mod refusal;
pub mod scheduler;
mod schema;
pub mod selector;
pub mod service;
pub mod snapshot;
