//! The differences to kube-proxy that are meant, or known: each has its row in docs/differences.md.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use config::endpoint::EndpointSlice;
use config::service::Service;
use e2e::mode::Mode;
use proxy_table::{Arrival, Flow, Reason, Verdict};

use crate::judge::{Culprit, Fate, Source, allows};
use crate::network::NODE;
use crate::scene::Scene;

/// A known difference. It must be seen in every run that is long enough: whoever makes it go takes its row away.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Difference {
    /// `spec.externalIPs` are served only with `--allow-external-ips`.
    ExternalIps,
    /// Source ranges of one family admit nobody of the other.
    RangesOfOneFamily,
    /// An endpoint elsewhere that reaches itself over this node is masqueraded too, as in kube-proxy's iptables mode.
    HairpinOfOthers,
    /// A client keeps its endpoint for each frontend, at kube-proxy for all frontends of a Service port together.
    AffinityByFrontend,
    /// Another port of a ClusterIP is rejected, which kube-proxy's iptables mode leaves alone.
    UndefinedPort,
    /// An address of a ServiceCIDR that no Service has is dropped, which kube-proxy's iptables mode leaves alone.
    Unallocated,
    /// kube-proxy's iptables mode refuses a NodePort that has no endpoint at every address of the node.
    NodePortRefusedEverywhere,
    /// kube-proxy's iptables mode rejects for want of endpoints before it asks who may come; here others are dropped.
    NoEndpointBeforeSources,
    /// What the node itself sends to an external address without endpoints leaves it with kube-proxy's iptables mode.
    NodeNotRefused,
    /// With IPVS the node has the addresses of Services, and refuses their other ports.
    OtherPortOfIpvs,
    /// kube-proxy's IPVS mode differs from its other modes in more ways than are listed: ours does as specified.
    IpvsOfKubeProxy,
}

/// What two proxies disagree about.
pub(crate) struct Case<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) flow: &'a Flow,
    pub(crate) culprit: Culprit,
    pub(crate) verdict: &'a Verdict,
    pub(crate) reason: &'a Reason,
    /// The Service whose port is asked for, and its endpoints.
    pub(crate) service: Option<(&'a Service, &'a [Arc<EndpointSlice>])>,
    pub(crate) foghorn: &'a BTreeSet<Fate>,
    pub(crate) kube_proxy: &'a BTreeSet<Fate>,
    /// Whether the destination is an address of a Service and none of the node.
    pub(crate) at_a_service: bool,
    /// Whether each client had one fate at each twin.
    pub(crate) steady: bool,
}

impl Difference {
    pub(crate) const ALL: [Self; 11] = [
        Self::ExternalIps,
        Self::RangesOfOneFamily,
        Self::HairpinOfOthers,
        Self::AffinityByFrontend,
        Self::UndefinedPort,
        Self::Unallocated,
        Self::NodePortRefusedEverywhere,
        Self::NoEndpointBeforeSources,
        Self::NodeNotRefused,
        Self::OtherPortOfIpvs,
        Self::IpvsOfKubeProxy,
    ];

    /// The difference that explains a case. In all of them but for other ports with IPVS foghorn-proxy does what its
    /// specification says.
    pub(crate) fn that_explains(case: &Case<'_>) -> Option<Self> {
        if case.is_other_port_of_ipvs() {
            return Some(Self::OtherPortOfIpvs);
        }
        if case.culprit != Culprit::KubeProxy {
            return None;
        }
        let is_ipvs = case.scene.mode == Mode::Ipvs;
        Self::of_kube_proxy(case).or(is_ipvs.then_some(Self::IpvsOfKubeProxy))
    }

    fn of_kube_proxy(case: &Case<'_>) -> Option<Self> {
        if case.scene.mode == Mode::Iptables {
            match case.reason {
                Reason::UndefinedPort { .. } => return Some(Self::UndefinedPort),
                Reason::Unallocated => return Some(Self::Unallocated),
                _ => {}
            }
        }
        let (service, slices) = case.service?;
        let explains = |difference: &Self| match difference {
            Self::ExternalIps => case.is_external_ip(service),
            Self::RangesOfOneFamily => case.is_closed_by_the_other_family(service),
            Self::HairpinOfOthers => case.is_hairpin_of_others(slices),
            Self::AffinityByFrontend => case.is_affinity_from_elsewhere(),
            Self::UndefinedPort | Self::Unallocated => false,
            Self::NodePortRefusedEverywhere => case.is_node_port_elsewhere(service),
            Self::NoEndpointBeforeSources => case.is_rejected_before_sources(),
            Self::NodeNotRefused => case.is_let_out_by_the_node(),
            Self::OtherPortOfIpvs | Self::IpvsOfKubeProxy => false,
        };
        Self::ALL.into_iter().find(explains)
    }

    /// How many flows show it for certain; none does in a mode where it is no difference.
    pub(crate) const fn flows_that_show_it(self, mode: Mode) -> u32 {
        match self {
            Self::UndefinedPort
            | Self::Unallocated
            | Self::NodePortRefusedEverywhere
            | Self::NoEndpointBeforeSources
            | Self::NodeNotRefused => match mode {
                Mode::Nftables | Mode::Ipvs => u32::MAX,
                Mode::Iptables => 4_000,
            },
            Self::ExternalIps | Self::RangesOfOneFamily => 4_000,
            Self::HairpinOfOthers => match mode {
                Mode::Nftables => 8_000,
                Mode::Iptables | Mode::Ipvs => u32::MAX,
            },
            Self::AffinityByFrontend => 50_000,
            Self::OtherPortOfIpvs | Self::IpvsOfKubeProxy => match mode {
                Mode::Ipvs => 400,
                Mode::Nftables | Mode::Iptables => u32::MAX,
            },
        }
    }
}

impl Case<'_> {
    fn is_external_ip(&self, service: &Service) -> bool {
        !self.scene.allow_external_ips
            && service.external_ips.contains(&self.flow.destination)
            && *self.reason == Reason::NotOurs
    }

    fn is_closed_by_the_other_family(&self, service: &Service) -> bool {
        let destination = self.flow.destination;
        let of_family = |net: &ipnet::IpNet| net.addr().is_ipv4() == destination.is_ipv4();
        matches!(self.reason, Reason::SourceNotAllowed { .. })
            && !service.source_ranges.iter().any(of_family)
    }

    fn is_hairpin_of_others(&self, slices: &[Arc<EndpointSlice>]) -> bool {
        let source = self.flow.source;
        let is_kept_hairpin = |fate: &Fate| matches!(fate, Fate::Reached { endpoint, source: Source::Kept } if endpoint.ip() == source);
        let is_known_here = slices
            .iter()
            .flat_map(|slice| &slice.endpoints)
            .any(|report| {
                let node = report.node.as_ref().map(ToString::to_string);
                report.address == source && node.as_deref() == Some(NODE)
            });
        let sticky = matches!(
            self.verdict,
            Verdict::Forward {
                affinity_seconds: Some(_),
                ..
            }
        );
        let endpoints = |fates: &BTreeSet<Fate>| -> BTreeSet<SocketAddr> {
            fates.iter().filter_map(Fate::endpoint).collect()
        };
        let explained =
            |fate: &Fate| is_kept_hairpin(fate) || allows(self.verdict, self.flow, *fate);
        self.scene.mode == Mode::Nftables
            && !is_known_here
            && self.kube_proxy.iter().any(is_kept_hairpin)
            && self.kube_proxy.iter().all(explained)
            && (sticky || endpoints(self.foghorn) == endpoints(self.kube_proxy))
    }

    fn is_node_port_elsewhere(&self, service: &Service) -> bool {
        let mut ports = service.ports.iter();
        let is_refusal = |fate: &Fate| matches!(fate, Fate::Refused(_) | Fate::Silence);
        self.scene.mode == Mode::Iptables
            && *self.reason == Reason::NotOurs
            && ports.any(|port| port.node_port == Some(self.flow.port))
            && self.kube_proxy.iter().all(is_refusal)
    }

    fn is_rejected_before_sources(&self) -> bool {
        let is_rejection = |fate: &Fate| matches!(fate, Fate::Refused(_));
        self.scene.mode == Mode::Iptables
            && matches!(self.reason, Reason::SourceNotAllowed { .. })
            && self.kube_proxy.iter().all(is_rejection)
    }

    fn is_let_out_by_the_node(&self) -> bool {
        let is_untouched = |fate: &Fate| {
            matches!(
                fate,
                Fate::Passed {
                    source: Source::Kept
                }
            )
        };
        let is_refused = matches!(self.verdict, Verdict::Reject | Verdict::Drop);
        self.scene.mode == Mode::Iptables
            && self.flow.arrival == Arrival::Node
            && is_refused
            && self.kube_proxy.iter().all(is_untouched)
    }

    fn is_other_port_of_ipvs(&self) -> bool {
        let is_refusal = |fate: &Fate| matches!(fate, Fate::Refused(_));
        self.scene.mode == Mode::Ipvs
            && self.at_a_service
            && *self.reason == Reason::NotOurs
            && self.foghorn.iter().all(is_refusal)
    }

    fn is_affinity_from_elsewhere(&self) -> bool {
        let sticky = matches!(
            self.verdict,
            Verdict::Forward {
                affinity_seconds: Some(_),
                ..
            }
        );
        let allowed = |fate: &Fate| allows(self.verdict, self.flow, *fate);
        sticky && self.steady && self.kube_proxy.iter().all(allowed)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ExternalIps => "external IPs need a flag",
            Self::RangesOfOneFamily => "source ranges of one family close the other",
            Self::HairpinOfOthers => "hairpins of endpoints elsewhere are masqueraded",
            Self::AffinityByFrontend => "affinity is kept by frontend",
            Self::UndefinedPort => "another port of a ClusterIP is rejected",
            Self::Unallocated => "an address that no Service has is dropped",
            Self::NodePortRefusedEverywhere => {
                "a NodePort without endpoints is open at other addresses"
            }
            Self::NodeNotRefused => "the node is refused too where there is no endpoint",
            Self::OtherPortOfIpvs => "IPVS refuses other ports of an external address",
            Self::IpvsOfKubeProxy => "kube-proxy's IPVS mode does otherwise than its other modes",
            Self::NoEndpointBeforeSources => {
                "who may not come is dropped, with or without endpoints"
            }
        })
    }
}
