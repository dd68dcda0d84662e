//! The real programs in a lab of network namespaces, asked as a client would ask.
//!
//! Start at [`lab::Lab`]. Nothing here links a program of ours: what is tested is what users run.

pub mod accounts;
pub mod api;
pub mod audit;
pub mod binaries;
pub mod bystander;
pub mod capture;
pub mod client;
pub mod connection;
pub mod control_plane;
pub mod document;
pub mod emulated;
pub mod environment;
pub mod failover;
pub mod faults;
pub mod folder;
pub mod frontends;
pub mod heartbeats;
pub mod holder;
pub mod http;
pub mod image;
pub mod installation;
pub mod kubectl;
pub mod lab;
pub mod lan;
pub mod long;
mod machine;
pub mod manifest;
pub mod metrics;
pub mod mode;
pub mod namespace;
pub mod node;
pub mod observer;
mod options;
pub mod program;
pub mod questions;
pub mod random;
pub mod send_buffer;
pub mod stream;
pub mod topology;
pub mod wait;
