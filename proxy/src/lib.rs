//! The shell of the proxy: it feeds the table from the cluster and the data plane from the table.
//!
//! [`pending::Pending`] gathers what changed, [`work::Worker`] compiles it and brings the kernel along, [`sync::Sync`] is
//! the loop around them. The rest answers questions (health, metrics, health checks, the speaker) and looks after what
//! rules alone do not do (connections that outlive their endpoints, sysctls, what kube-proxy left).

pub mod arguments;
pub mod configuration;
pub mod conntrack;
pub mod data_plane;
pub mod health;
pub mod health_check;
pub mod leftovers;
pub mod liveness;
pub mod machine;
pub mod metrics;
pub mod mode;
pub mod moved;
pub mod netfilter;
pub mod pending;
pub mod programmed;
pub mod speaker_socket;
pub mod status;
pub mod surroundings;
pub mod sync;
pub mod sysctl;
pub mod table;
pub mod work;
