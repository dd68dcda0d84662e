//! Services with their endpoints, and nodes that fell silent.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use config::address::IpFamily;
use config::endpoint::{Endpoint, EndpointPort, EndpointSlice};
use config::name::{NodeName, ServiceKey, SliceName};
use config::scheduler::SCHEDULER_ANNOTATION;
use config::service::{
    FamilyPolicy, HEADLESS_LABEL, Ingress, IpMode, SERVICE_PROXY_NAME_LABEL, Service, ServiceKind,
    ServicePort, TrafficPolicy,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{
    NODES, OTHER_PROXY, ZONES, any_port, any_protocol, cluster_ips, endpoint_addresses,
    source_ranges, vips,
};

/// A Service with its endpoints.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The Service.
    pub service: Service,
    /// Slices of its endpoints.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// Nodes that fell silent.
    pub suspects: BTreeSet<NodeName>,
}

/// Any Service with this key, with any endpoints.
pub fn any_workload(key: ServiceKey) -> impl Strategy<Value = Workload> {
    let nodes = NODES.map(NodeName::from).to_vec();
    let slices = proptest::collection::vec(any_slice(key.clone()), 0..=6);
    let suspects = prop_oneof![
        3 => Just(Vec::new()).boxed(),
        1 => subsequence(nodes, 0..=2).boxed(),
    ];
    (any_service(key), slices, suspects).prop_map(|(service, slices, suspects)| Workload {
        service,
        slices: slices.into_iter().map(Arc::new).collect(),
        suspects: suspects.into_iter().collect(),
    })
}

fn any_service(key: ServiceKey) -> impl Strategy<Value = Service> {
    let families = subsequence(vec![IpFamily::V4, IpFamily::V6], 1..=2);
    let identity = (
        0_i64..3,
        select(vec![
            ServiceKind::ClusterIp,
            ServiceKind::NodePort,
            ServiceKind::LoadBalancer,
            ServiceKind::LoadBalancer,
            ServiceKind::LoadBalancer,
            ServiceKind::ExternalName,
        ]),
        (any_labels(), any_scheduler()),
        prop_oneof![15 => Just(false), 1 => Just(true)],
    );
    let addresses = families.prop_flat_map(|families| {
        let one_each = |of: fn(IpFamily) -> Vec<std::net::IpAddr>| {
            families
                .iter()
                .map(|&family| select(of(family)))
                .collect::<Vec<_>>()
        };
        let all_vips: Vec<_> = families.iter().flat_map(|&family| vips(family)).collect();
        let mode = select(vec![IpMode::Vip, IpMode::Vip, IpMode::Proxy]);
        let ingress =
            (select(all_vips.clone()), mode).prop_map(|(address, mode)| Ingress { address, mode });
        (
            one_each(cluster_ips),
            proptest::collection::vec(ingress, 0..=2),
            subsequence(all_vips, 0..=1),
            Just(families.clone()),
        )
    });
    let behaviour = (
        any_policy(),
        any_policy(),
        proptest::option::of(select(vec![10, 10_800])),
        prop_oneof![
            2 => Just(Vec::new()).boxed(),
            1 => subsequence(source_ranges(), 1..=2).boxed(),
        ],
        proptest::option::of(Just(32_000)),
    );
    let ports = proptest::collection::vec(any_service_port(), 1..=2);
    (identity, addresses, behaviour, ports).prop_map(
        move |(
            (created_seconds, kind, (labels, annotations), headless),
            (cluster_ips, ingress, external_ips, families),
            (internal_policy, external_policy, affinity, source_ranges, health_check),
            ports,
        )| Service {
            key: key.clone(),
            uid: "".into(),
            labels,
            annotations,
            kind,
            headless,
            deleting: false,
            created_seconds,
            cluster_ips,
            families,
            family_policy: FamilyPolicy::PreferDualStack,
            external_ips,
            ingress,
            ports,
            selector: BTreeMap::new(),
            affinity_seconds: affinity.and_then(NonZeroU32::new),
            internal_policy,
            external_policy,
            source_ranges,
            health_check_node_port: health_check.and_then(NonZeroU16::new),
            load_balancer_class: None,
            load_balancer_ip: None,
            assigned_by_us: false,
            complaints: Vec::new(),
        },
    )
}

fn any_labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    let label = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    prop_oneof![
        9 => Just(BTreeMap::new()),
        2 => Just(label(SERVICE_PROXY_NAME_LABEL, OTHER_PROXY)),
        1 => Just(label(HEADLESS_LABEL, "")),
    ]
}

fn any_scheduler() -> impl Strategy<Value = BTreeMap<String, String>> {
    let named = |name: &str| {
        let annotation = (SCHEDULER_ANNOTATION.to_owned(), name.to_owned());
        BTreeMap::from([annotation])
    };
    prop_oneof![
        8 => Just(BTreeMap::new()),
        1 => Just(named("wlc")),
        1 => Just(named("unknown")),
    ]
}

fn any_policy() -> impl Strategy<Value = TrafficPolicy> {
    select(vec![TrafficPolicy::Cluster, TrafficPolicy::Local])
}

fn any_service_port() -> impl Strategy<Value = ServicePort> {
    (
        any_port_name(),
        any_protocol(),
        any_port(),
        proptest::option::of(any_port()),
    )
        .prop_map(|(name, protocol, port, node_port)| ServicePort {
            name,
            protocol,
            port,
            node_port,
        })
}

fn any_port_name() -> impl Strategy<Value = Arc<str>> {
    select(vec!["", "", "", "web"]).prop_map(Arc::from)
}

fn any_slice(service: ServiceKey) -> impl Strategy<Value = EndpointSlice> {
    let families = vec![IpFamily::V4, IpFamily::V6];
    (select(families), 0..3)
        .prop_flat_map(|(family, number)| {
            let ports = proptest::collection::vec(any_endpoint_port(), 1..=4);
            let endpoints = proptest::collection::vec(any_endpoint(family), 0..=4);
            (Just(family), Just(number), ports, endpoints)
        })
        .prop_map(move |(family, number, ports, endpoints)| EndpointSlice {
            name: SliceName::new(format!("slice-{number}")),
            service: service.clone(),
            family,
            ports,
            endpoints,
            last_change_milliseconds: None,
        })
}

fn any_endpoint_port() -> impl Strategy<Value = EndpointPort> {
    let port = select(vec![8080, 8081, 80]).prop_filter_map("is not zero", NonZeroU16::new);
    (any_port_name(), any_protocol(), port).prop_map(|(name, protocol, port)| EndpointPort {
        name,
        protocol,
        port,
    })
}

fn any_endpoint(family: IpFamily) -> impl Strategy<Value = Endpoint> {
    let zones = || ZONES.map(Arc::<str>::from).to_vec();
    let nodes = || NODES.map(NodeName::from).to_vec();
    let conditions = select(vec![
        // (ready, serving, terminating), the likely ones more often.
        (true, true, false),
        (true, true, false),
        (true, true, false),
        (false, false, false),
        (false, true, true),
        (false, false, true),
    ]);
    (
        select(endpoint_addresses(family)),
        conditions,
        proptest::option::weighted(0.9, select(nodes())),
        subsequence(zones(), 0..=2),
        prop_oneof![2 => Just(Vec::new()).boxed(), 1 => subsequence(nodes(), 0..=2).boxed()],
    )
        .prop_map(
            |(address, (ready, serving, terminating), node, hint_zones, hint_nodes)| Endpoint {
                address,
                ready,
                serving,
                terminating,
                node,
                zone: None,
                hint_zones,
                hint_nodes,
            },
        )
}
