//! Tables of a size, for benchmarks: Services that are all alike.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::sync::Arc;

use config::name::ServiceKey;
use config::service::{Protocol, TrafficPolicy};

use crate::context::{NodeContext, PodDetection};
use crate::frontend::{
    Endpoint, EndpointSet, Frontend, FrontendKey, FrontendKind, Masquerade, Outcome, Place,
    ServiceTable, UndefinedPort,
};
use crate::table::{ForwardingTable, TableChange};

/// A table of so many Services with a ClusterIP, one port and three endpoints each.
pub fn table(services: u32) -> ForwardingTable {
    let mut context = NodeContext::new("node-1".into());
    context.pods = PodDetection::Networks("10.244.0.0/16".parse().into_iter().collect());
    context.service_cidrs = BTreeSet::from_iter("10.96.0.0/12".parse());
    let mut table = ForwardingTable::new(Arc::new(context));
    for number in 0..services {
        table.update(&key(number), Some(part(number, 3)));
    }
    table
}

/// What one Service makes of the table.
pub fn part(number: u32, endpoints: u32) -> ServiceTable {
    let address = address(SERVICES, number);
    let endpoints = (0..endpoints).map(|index| Endpoint {
        address: self::address(PODS, number * 3 + index),
        port: PORT,
    });
    let outcome = EndpointSet::new(endpoints).map_or(Outcome::Reject, Outcome::Forward);
    let frontend = Frontend {
        kind: FrontendKind::ClusterIp,
        port: "web".into(),
        policy: TrafficPolicy::Cluster,
        inside: outcome.clone(),
        outside: outcome,
        masquerade: Masquerade::UnlessPod,
        affinity_seconds: None,
        scheduler: None,
        sources: None,
    };
    let place = FrontendKey {
        place: Place::Address(address),
        protocol: Protocol::Tcp,
        port: PORT,
    };
    ServiceTable {
        frontends: BTreeMap::from([(place, Arc::new(frontend))]),
        cluster_ips: BTreeMap::from([(address, UndefinedPort::Reject)]),
        ..ServiceTable::default()
    }
}

/// The name of a Service.
pub fn key(number: u32) -> ServiceKey {
    ServiceKey::new("default", format!("svc-{number}"))
}

/// One of the Services, which has two endpoints and three by turns.
#[derive(Clone, Debug)]
pub struct Toggle {
    number: u32,
    has_two: bool,
}

impl Toggle {
    /// The Service of this number, which has three endpoints now.
    pub fn new(number: u32) -> Self {
        Self {
            number,
            has_two: false,
        }
    }

    /// Its next change.
    pub fn change(&mut self, table: &mut ForwardingTable) -> TableChange {
        self.has_two = !self.has_two;
        let endpoints = if self.has_two { 2 } else { 3 };
        table.update(&key(self.number), Some(part(self.number, endpoints)))
    }
}

fn address(base: u32, number: u32) -> IpAddr {
    Ipv4Addr::from(base + number).into()
}

/// 10.96.0.0 and 10.128.0.0.
const SERVICES: u32 = 0x0a60_0000;
const PODS: u32 = 0x0a80_0000;
const PORT: NonZeroU16 = NonZeroU16::MIN;
