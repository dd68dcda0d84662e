//! Generators for laws: contexts, Services with their endpoints, tables, histories and flows.
//!
//! There are few names, addresses and ports, so that they collide: Services claim the same frontends, endpoints serve
//! several of them, clients are endpoints, and addresses of nodes are among the load-balancer addresses.

mod affinity;
mod cluster;
pub mod many;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::sync::Arc;

use config::address::IpFamily;
use config::name::{NodeName, ServiceKey};
use config::service::Protocol;
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::select;

pub use affinity::{any_endpoints, endpoint, flow_of_client, table_with_affinity};
pub use cluster::{Workload, any_workload};

use crate::compile::compile_service;
use crate::context::{NodeContext, PodDetection};
use crate::flow::{Arrival, Flow};
use crate::frontend::{FrontendKey, Place, ServiceTable};
use crate::table::ForwardingTable;

/// One step in the life of a table: a Service came or changed, or it went.
#[derive(Clone, Debug)]
pub struct Step {
    /// The Service.
    pub key: ServiceKey,
    /// What it is now.
    pub workload: Option<Workload>,
}

impl Step {
    /// The part of the table that the Service makes now.
    pub fn part(&self, context: &NodeContext) -> Option<ServiceTable> {
        self.workload.as_ref().map(|workload| {
            compile_service(
                &workload.service,
                &workload.slices,
                context,
                &workload.suspects,
            )
        })
    }
}

/// A node, what happened to its table, and flows that meet it.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The node.
    pub context: Arc<NodeContext>,
    /// What happened, in order.
    pub steps: Vec<Step>,
    /// Flows, most of them to frontends of the table that the steps leave.
    pub flows: Vec<Flow>,
}

impl Scene {
    /// The table after all steps.
    pub fn table(&self) -> ForwardingTable {
        table_of(&self.context, &self.steps)
    }

    /// The table before the last `count` steps.
    pub fn earlier(&self, count: usize) -> ForwardingTable {
        let kept = self.steps.len().saturating_sub(count);
        table_of(&self.context, self.steps.get(..kept).unwrap_or_default())
    }

    /// What each Service is after all steps.
    pub fn latest(&self) -> BTreeMap<ServiceKey, Step> {
        let steps = self.steps.iter();
        steps.map(|step| (step.key.clone(), step.clone())).collect()
    }
}

/// A node whose table is made by up to `longest` steps, and a few flows.
pub fn any_scene(longest: usize) -> impl Strategy<Value = Scene> {
    let made = (any_context().prop_map(Arc::new), any_history(longest));
    made.prop_flat_map(|(context, steps)| {
        let flow = any_flow_to(&table_of(&context, &steps));
        let flows = proptest::collection::vec(flow, 1..=6);
        (Just(context), Just(steps), flows)
    })
    .prop_map(|(context, steps, flows)| Scene {
        context,
        steps,
        flows,
    })
}

/// A table of a few Services, built step by step.
pub fn any_table() -> impl Strategy<Value = ForwardingTable> {
    (any_context().prop_map(Arc::new), any_history(8))
        .prop_map(|(context, steps)| table_of(&context, &steps))
}

fn table_of(context: &Arc<NodeContext>, steps: &[Step]) -> ForwardingTable {
    let mut table = ForwardingTable::new(Arc::clone(context));
    for step in steps {
        table.update(&step.key, step.part(context));
    }
    table
}

/// Up to `longest` steps in which a few Services come, change and go.
pub fn any_history(longest: usize) -> impl Strategy<Value = Vec<Step>> {
    let step =
        (any_key(), proptest::option::weighted(0.9, any::<()>())).prop_flat_map(|(key, exists)| {
            match exists {
                Some(()) => any_workload(key.clone())
                    .prop_map(move |workload| Step {
                        key: key.clone(),
                        workload: Some(workload),
                    })
                    .boxed(),
                None => Just(Step {
                    key,
                    workload: None,
                })
                .boxed(),
            }
        });
    proptest::collection::vec(step, 1..=longest)
}

/// A node, in any of the ways in which the proxy may be asked to behave.
pub fn any_context() -> impl Strategy<Value = NodeContext> {
    let node_addresses = || node_addresses().into_iter().flatten().collect::<Vec<_>>();
    (
        proptest::option::of(select(ZONES.to_vec())),
        proptest::sample::subsequence(node_addresses(), 0..=2),
        any_detection(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            move |(zone, offered, pods, has_cidrs, masquerade_all, allow_external_ips, named)| {
                NodeContext {
                    zone: zone.map(Arc::from),
                    addresses: node_addresses().into_iter().take(2).collect(),
                    node_port_addresses: offered.into_iter().collect(),
                    pods,
                    service_cidrs: if has_cidrs {
                        service_cidrs()
                    } else {
                        BTreeSet::new()
                    },
                    masquerade_all,
                    allow_external_ips,
                    service_proxy_name: named.then(|| OTHER_PROXY.into()),
                    ..NodeContext::new(NodeName::from(NODES[0]))
                }
            },
        )
}

/// A flow to something that a table may have, from anybody.
pub fn any_flow() -> impl Strategy<Value = Flow> {
    any_family().prop_flat_map(|family| {
        let destinations = [
            cluster_ips(family),
            vips(family),
            node_addresses_of(family),
            endpoint_addresses(family),
        ];
        let destination = select(destinations.concat());
        (destination, any_port(), any_protocol())
            .prop_flat_map(|(destination, port, protocol)| any_flow_at(destination, port, protocol))
    })
}

/// A flow from anybody, most often to a frontend of this table.
pub fn any_flow_to(table: &ForwardingTable) -> BoxedStrategy<Flow> {
    let mut keys: Vec<FrontendKey> = table.frontends().map(|(key, ..)| *key).collect();
    if keys.is_empty() {
        return any_flow().boxed();
    }
    keys.sort_unstable();
    let aimed = select(keys).prop_flat_map(|key| {
        let destinations = match key.place {
            Place::Address(address) => vec![address],
            Place::Node(family) => node_addresses_of(family),
        };
        select(destinations)
            .prop_flat_map(move |destination| any_flow_at(destination, key.port, key.protocol))
    });
    prop_oneof![6 => aimed.boxed(), 1 => any_flow().boxed()].boxed()
}

fn any_flow_at(
    destination: IpAddr,
    port: NonZeroU16,
    protocol: Protocol,
) -> impl Strategy<Value = Flow> {
    let family = IpFamily::of(destination);
    let sources = [
        endpoint_addresses(family),
        node_addresses_of(family),
        outsiders(family),
        vips(family),
    ];
    let arrival = prop_oneof![
        Just(Arrival::Node),
        select(INTERFACES.to_vec()).prop_map(|name| Arrival::Interface(name.into())),
    ];
    (select(sources.concat()), arrival).prop_map(move |(source, arrival)| Flow {
        source,
        source_port: 40_000,
        destination,
        port,
        protocol,
        arrival,
    })
}

fn any_detection() -> impl Strategy<Value = PodDetection> {
    prop_oneof![
        Just(PodDetection::None),
        Just(PodDetection::Networks(pod_networks())),
        Just(PodDetection::Bridge(INTERFACES[0].into())),
        Just(PodDetection::InterfacePrefix("veth".into())),
    ]
}

fn any_key() -> impl Strategy<Value = ServiceKey> {
    select(vec!["a", "b", "c", "d"]).prop_map(|name| ServiceKey::new("shop", name))
}

fn any_family() -> impl Strategy<Value = IpFamily> {
    select(vec![IpFamily::V4, IpFamily::V6])
}

fn any_protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![
        6 => Just(Protocol::Tcp),
        2 => Just(Protocol::Udp),
        1 => Just(Protocol::Sctp),
    ]
}

/// A port of a Service; some are node ports too.
fn any_port() -> impl Strategy<Value = NonZeroU16> {
    select(vec![80, 443, 30_080, 30_443]).prop_filter_map("is not zero", NonZeroU16::new)
}

/// The node of the context comes first.
const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
const ZONES: [&str; 2] = ["zone-1", "zone-2"];
/// The bridge, a Pod's interface, and one towards the outside.
const INTERFACES: [&str; 3] = ["cbr0", "veth7", "eth0"];
const OTHER_PROXY: &str = "other";

fn v4(third: u8, last: u8, net: [u8; 2]) -> IpAddr {
    Ipv4Addr::new(net[0], net[1], third, last).into()
}

fn v6(net: u16, last: u8) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, last.into()).into()
}

fn addresses(family: IpFamily, net: ([u8; 2], u8), lasts: &[u8]) -> Vec<IpAddr> {
    let (octets, third) = net;
    let address = |&last: &u8| match family {
        IpFamily::V4 => v4(third, last, octets),
        IpFamily::V6 => v6(u16::from(octets[1]) * 16 + u16::from(third), last),
    };
    lasts.iter().map(address).collect()
}

fn cluster_ips(family: IpFamily) -> Vec<IpAddr> {
    addresses(family, ([10, 96], 0), &[1, 2, 3, 9])
}

/// The load-balancer addresses; the last one is an address of the node as well.
fn vips(family: IpFamily) -> Vec<IpAddr> {
    let mut vips = addresses(family, ([203, 0], 113), &[7, 8]);
    vips.extend(node_addresses_of(family).first());
    vips
}

fn outsiders(family: IpFamily) -> Vec<IpAddr> {
    addresses(family, ([198, 51], 100), &[1, 200])
}

fn node_addresses_of(family: IpFamily) -> Vec<IpAddr> {
    addresses(family, ([192, 0], 2), &[1, 2])
}

fn node_addresses() -> Vec<Vec<IpAddr>> {
    vec![
        node_addresses_of(IpFamily::V4),
        node_addresses_of(IpFamily::V6),
    ]
}

fn endpoint_addresses(family: IpFamily) -> Vec<IpAddr> {
    [
        addresses(family, ([10, 244], 1), &[2, 3]),
        addresses(family, ([10, 244], 2), &[2, 3]),
    ]
    .concat()
}

fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn pod_networks() -> Vec<IpNet> {
    networks(&["10.244.0.0/16", "2001:db8:f41::/48", "2001:db8:f42::/48"])
}

fn service_cidrs() -> BTreeSet<IpNet> {
    networks(&["10.96.0.0/24", "2001:db8:600::/112"])
        .into_iter()
        .collect()
}

fn source_ranges() -> Vec<IpNet> {
    networks(&[
        "198.51.100.0/25",
        "198.51.100.0/24",
        "10.244.1.0/24",
        "192.0.2.0/24",
        "2001:db8:394::1/128",
        "2001:db8:2::/48",
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefixes_hold_the_addresses_of_both_families() {
        for family in [IpFamily::V4, IpFamily::V6] {
            let in_some = |nets: Vec<IpNet>, of: Vec<IpAddr>| {
                assert!(
                    of.iter()
                        .all(|address| nets.iter().any(|net| net.contains(address))),
                    "{nets:?} do not hold {of:?}"
                );
            };
            in_some(pod_networks(), endpoint_addresses(family));
            in_some(service_cidrs().into_iter().collect(), cluster_ips(family));
            in_some(source_ranges(), node_addresses_of(family));
            in_some(source_ranges(), outsiders(family)[..1].to_vec());
        }
    }
}
