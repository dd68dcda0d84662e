//! Sockets on the interfaces: frames of ARP and Neighbor Discovery, heartbeats, groups.

pub mod filter;
pub mod groups;
pub mod heartbeat_socket;
pub mod limiter;
pub mod link_sockets;
pub mod packet_socket;
pub mod route;
