//! One Service in, its part of the table out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::address::IpFamily;
use config::endpoint::EndpointSlice;
use config::name::NodeName;
use config::scheduler::SCHEDULER_ANNOTATION;
use config::service::{
    HEADLESS_LABEL, SERVICE_PROXY_NAME_LABEL, Service, ServiceKind, ServicePort, TrafficPolicy,
};
use ipnet::IpNet;

use crate::context::{NodeContext, PodDetection};
use crate::eligible::Eligible;
use crate::frontend::{
    EndpointSet, Frontend, FrontendKey, FrontendKind, HealthCheck, Masquerade, Outcome, Place,
    ServiceTable, UndefinedPort,
};

/// The part of the table that a Service makes, from the slices of its endpoints.
///
/// `suspects` are nodes that fell silent: endpoints there are left out as long as others remain.
pub fn compile_service<'a>(
    service: &Service,
    slices: impl IntoIterator<Item = &'a Arc<EndpointSlice>>,
    context: &NodeContext,
    suspects: &BTreeSet<NodeName>,
) -> ServiceTable {
    let slices: Vec<Arc<EndpointSlice>> = slices.into_iter().cloned().collect();
    let mut table = ServiceTable {
        created_seconds: service.created_seconds,
        ..ServiceTable::default()
    };
    if !has_cluster_ips(service) {
        return table;
    }
    let undefined = if names_our_proxy(service, context) {
        UndefinedPort::Reject
    } else {
        UndefinedPort::Leave
    };
    table.cluster_ips = service
        .cluster_ips
        .iter()
        .map(|&address| (address, undefined))
        .collect();
    if undefined == UndefinedPort::Leave {
        return table;
    }
    table.health_check = health_check(service, &slices, context);
    for family in [IpFamily::V4, IpFamily::V6] {
        let places = Places::of(service, family, context);
        if places.is_empty() {
            continue;
        }
        for port in &service.ports {
            let eligible = Eligible::of(port, family, &slices, context, suspects);
            places.add_frontends(port, &eligible, service, context, &mut table.frontends);
        }
    }
    table
}

/// Whether the proxy serves a Service: it has a ClusterIP and asks for no other proxy.
pub fn is_served(service: &Service, context: &NodeContext) -> bool {
    has_cluster_ips(service) && names_our_proxy(service, context)
}

fn has_cluster_ips(service: &Service) -> bool {
    !service.headless
        && !service.cluster_ips.is_empty()
        && service.kind != ServiceKind::ExternalName
        && !service.labels.contains_key(HEADLESS_LABEL)
}

fn names_our_proxy(service: &Service, context: &NodeContext) -> bool {
    let named = service.labels.get(SERVICE_PROXY_NAME_LABEL);
    named.map(String::as_str) == context.service_proxy_name.as_deref()
}

/// Where the ports of a Service are reached in one family.
struct Places {
    addresses: Vec<(IpAddr, FrontendKind)>,
    node: Option<IpFamily>,
    sources: Option<Arc<[IpNet]>>,
}

impl Places {
    fn of(service: &Service, family: IpFamily, context: &NodeContext) -> Self {
        let external = |yes: bool| if yes { &service.external_ips[..] } else { &[] };
        let cluster_ips = service.cluster_ips.iter().copied();
        let vips = service
            .vips()
            .filter(|_| service.kind == ServiceKind::LoadBalancer);
        let addresses = cluster_ips
            .map(|address| (address, FrontendKind::ClusterIp))
            .chain(vips.map(|address| (address, FrontendKind::LoadBalancer)))
            .chain(
                external(context.allow_external_ips)
                    .iter()
                    .map(|&address| (address, FrontendKind::ExternalIp)),
            )
            .filter(|&(address, _)| IpFamily::of(address) == family)
            .collect();
        let has_family = |address: &IpAddr| IpFamily::of(*address) == family;
        let on_node = matches!(
            service.kind,
            ServiceKind::NodePort | ServiceKind::LoadBalancer
        ) && service.cluster_ips.iter().any(has_family);
        Self {
            addresses,
            node: on_node.then_some(family),
            sources: sources(service, family, context),
        }
    }

    fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.node.is_none()
    }

    fn add_frontends(
        &self,
        port: &ServicePort,
        eligible: &Eligible,
        service: &Service,
        context: &NodeContext,
        frontends: &mut BTreeMap<FrontendKey, Arc<Frontend>>,
    ) {
        let affinity_seconds = service.affinity_seconds;
        let named = service.annotations.get(SCHEDULER_ANNOTATION);
        let scheduler = named.and_then(|name| name.parse().ok());
        let internal = Arc::new(Frontend {
            affinity_seconds,
            scheduler,
            ..internal(port, eligible, service.internal_policy, context)
        });
        let external = external(port, eligible, service.external_policy);
        let external = |kind, sources: Option<&Arc<[IpNet]>>| Frontend {
            kind,
            affinity_seconds,
            scheduler,
            sources: sources.cloned(),
            ..external.clone()
        };
        for &(address, kind) in &self.addresses {
            let key = FrontendKey {
                place: Place::Address(address),
                protocol: port.protocol,
                port: port.port,
            };
            let frontend = || match kind {
                FrontendKind::ClusterIp => Arc::clone(&internal),
                FrontendKind::LoadBalancer => Arc::new(external(kind, self.sources.as_ref())),
                FrontendKind::ExternalIp | FrontendKind::NodePort => Arc::new(external(kind, None)),
            };
            // An address that the Service has twice (VIP and externalIP, say) counts as what comes first.
            frontends.entry(key).or_insert_with(frontend);
        }
        if let Some((family, port_number)) = self.node.zip(port.node_port) {
            let key = FrontendKey {
                place: Place::Node(family),
                protocol: port.protocol,
                port: port_number,
            };
            let frontend = || Arc::new(external(FrontendKind::NodePort, None));
            frontends.entry(key).or_insert_with(frontend);
        }
    }
}

fn internal(
    port: &ServicePort,
    eligible: &Eligible,
    policy: TrafficPolicy,
    context: &NodeContext,
) -> Frontend {
    let outcome = match policy {
        TrafficPolicy::Cluster => everywhere(eligible),
        TrafficPolicy::Local => here(eligible),
    };
    let masquerade = if context.masquerade_all {
        Masquerade::Always
    } else if context.pods == PodDetection::None {
        Masquerade::OnlyHairpin
    } else {
        Masquerade::UnlessPod
    };
    Frontend {
        kind: FrontendKind::ClusterIp,
        port: Arc::clone(&port.name),
        policy,
        inside: outcome.clone(),
        outside: outcome,
        masquerade,
        affinity_seconds: None,
        scheduler: None,
        sources: None,
    }
}

fn external(port: &ServicePort, eligible: &Eligible, policy: TrafficPolicy) -> Frontend {
    let (outside, masquerade) = match policy {
        TrafficPolicy::Cluster => (everywhere(eligible), Masquerade::Always),
        TrafficPolicy::Local => (here(eligible), Masquerade::OnlyNode),
    };
    Frontend {
        kind: FrontendKind::NodePort,
        port: Arc::clone(&port.name),
        policy,
        inside: everywhere(eligible),
        outside,
        masquerade,
        affinity_seconds: None,
        scheduler: None,
        sources: None,
    }
}

fn everywhere(eligible: &Eligible) -> Outcome {
    forward(eligible.cluster.as_ref()).unwrap_or(Outcome::Reject)
}

fn here(eligible: &Eligible) -> Outcome {
    let nowhere = if eligible.cluster.is_some() {
        Outcome::Drop
    } else {
        Outcome::Reject
    };
    forward(eligible.local.as_ref()).unwrap_or(nowhere)
}

fn forward(endpoints: Option<&EndpointSet>) -> Option<Outcome> {
    endpoints.cloned().map(Outcome::Forward)
}

/// Who may use the load-balancer addresses; none if everybody.
///
/// A Service that names ranges of one family admits nobody of the other. Where a range holds the node itself, a VIP
/// may be the source too: a node that has the VIP as an address of its own reaches it from that very address.
fn sources(service: &Service, family: IpFamily, context: &NodeContext) -> Option<Arc<[IpNet]>> {
    let ranges = &service.source_ranges;
    if ranges.is_empty() {
        return None;
    }
    let of_family = |net: &IpNet| IpFamily::of(net.addr()) == family;
    let mut sources: Vec<IpNet> = ranges.iter().copied().filter(of_family).collect();
    let admits_node = context
        .addresses
        .iter()
        .any(|address| sources.iter().any(|net| net.contains(address)));
    if admits_node {
        let own = service.vips().map(IpNet::from).filter(of_family);
        sources.extend(own);
    }
    let mut sources = IpNet::aggregate(&sources);
    sources.sort_unstable();
    Some(sources.into())
}

/// What a load balancer is told: how many addresses on this node are ready for the Service.
fn health_check(
    service: &Service,
    slices: &[Arc<EndpointSlice>],
    context: &NodeContext,
) -> Option<HealthCheck> {
    let asked = service.kind == ServiceKind::LoadBalancer
        && service.external_policy == TrafficPolicy::Local;
    let port = service.health_check_node_port.filter(|_| asked)?;
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let local: BTreeSet<IpAddr> = endpoints
        .filter(|endpoint| endpoint.ready && endpoint.node.as_ref() == Some(&context.name))
        .map(|endpoint| endpoint.address)
        .collect();
    Some(HealthCheck {
        port,
        local_endpoints: local.len(),
    })
}
