//! A frontend with affinity whose endpoints come and go, and a client of it.

use std::net::{IpAddr, Ipv4Addr};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use config::name::ServiceKey;
use config::service::{Protocol, TrafficPolicy};
use proptest::prelude::*;
use proptest::sample::subsequence;

use crate::context::NodeContext;
use crate::flow::{Arrival, Flow};
use crate::frontend::{
    Endpoint, EndpointSet, Frontend, FrontendKey, FrontendKind, Masquerade, Outcome, Place,
    ServiceTable,
};
use crate::table::ForwardingTable;

/// One to six endpoints.
pub fn any_endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let all: Vec<Endpoint> = (1..=6).map(endpoint).collect();
    subsequence(all, 1..=6)
}

/// The endpoint with this number.
pub fn endpoint(number: u8) -> Endpoint {
    Endpoint {
        address: IpAddr::from([10, 244, 1, number]),
        port: NonZeroU16::MIN,
    }
}

/// A table with one frontend, whose flows from outside, or all flows, go to these endpoints, each client to one of them.
pub fn table_with_affinity(endpoints: &[Endpoint], outside: bool) -> ForwardingTable {
    let mut table = ForwardingTable::new(Arc::new(NodeContext::new("node-1".into())));
    let mut part = ServiceTable::default();
    part.frontends
        .insert(FRONTEND, Arc::new(with_affinity(endpoints, outside)));
    table.update(&ServiceKey::new("shop", "web"), Some(part));
    table
}

/// A flow of a client from outside to that frontend.
pub fn flow_of_client() -> Flow {
    Flow {
        source: IpAddr::from([198, 51, 100, 1]),
        source_port: 1024,
        destination: ADDRESS,
        port: FRONTEND.port,
        protocol: FRONTEND.protocol,
        arrival: Arrival::Interface("eth0".into()),
    }
}

fn with_affinity(endpoints: &[Endpoint], outside: bool) -> Frontend {
    let set = EndpointSet::new(endpoints.iter().copied());
    let forward = set.map_or(Outcome::Drop, Outcome::Forward);
    Frontend {
        kind: FrontendKind::LoadBalancer,
        port: "".into(),
        policy: TrafficPolicy::Local,
        inside: if outside {
            Outcome::Drop
        } else {
            forward.clone()
        },
        outside: forward,
        masquerade: Masquerade::OnlyNode,
        affinity_seconds: NonZeroU32::new(60),
        scheduler: None,
        sources: None,
    }
}

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
const FRONTEND: FrontendKey = FrontendKey {
    place: Place::Address(ADDRESS),
    protocol: Protocol::Tcp,
    port: NonZeroU16::MIN,
};
