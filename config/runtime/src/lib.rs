//! The shell that the programs of Foghorn share.
//!
//! [`source::Source`] turns watches of the API server and files into a [`config::snapshot::Snapshot`] and says what
//! each change touched; around it stand the lease of the leader, Events, health, metrics, telemetry and supervision.

pub mod arguments;
pub mod backoff;
pub mod chain;
pub mod client;
pub mod connection;
pub mod debug;
mod delivery;
pub mod events;
mod files;
pub mod lease;
pub mod server;
pub mod source;
pub mod supervision;
pub mod telemetry;
pub mod tls;
mod watch;

pub use watch::Interest;
