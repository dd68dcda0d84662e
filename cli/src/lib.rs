//! `kubectl foghorn`: check, plan, why, pools, status, doctor, import, support; move, drain and undrain.
//!
//! What the cluster says becomes a [`cluster::Cluster`], whether it comes from the API server or from a dump of it.
//! Each question is a pure function from there to a view, which is serialized for programs and written as text for
//! people. Decisions are those of the allocator itself, so that they are what the controller does.

pub mod arguments;
pub mod check;
pub mod cluster;
pub mod describe;
pub mod diagnostic;
pub mod doctor;
pub mod dump;
pub mod examine;
pub mod fetch;
pub mod files;
pub mod import;
pub mod output;
pub mod plan;
pub mod planned;
pub mod pools;
pub mod speaker;
pub mod status;
pub mod support;
pub mod table;
pub mod watch;
pub mod why;
