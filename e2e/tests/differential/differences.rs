//! The differences to kube-proxy that are meant, or known: each has its row in docs/differences.md.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use config::endpoint::EndpointSlice;
use config::service::Service;
use proxy_table::{Flow, Reason, Verdict};

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
    /// An endpoint elsewhere that reaches itself over this node is masqueraded too.
    HairpinOfOthers,
    /// A client keeps its endpoint for each frontend, at kube-proxy for all frontends of a Service port together.
    AffinityByFrontend,
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
    /// Whether each client had one fate at each twin.
    pub(crate) steady: bool,
}

impl Difference {
    pub(crate) const ALL: [Self; 4] = [
        Self::ExternalIps,
        Self::RangesOfOneFamily,
        Self::HairpinOfOthers,
        Self::AffinityByFrontend,
    ];

    /// The difference that explains a case. In all of them foghorn-proxy does what its specification says.
    pub(crate) fn that_explains(case: &Case<'_>) -> Option<Self> {
        let (service, slices) = case.service?;
        if case.culprit != Culprit::KubeProxy {
            return None;
        }
        let explains = |difference: &Self| match difference {
            Self::ExternalIps => case.is_external_ip(service),
            Self::RangesOfOneFamily => case.is_closed_by_the_other_family(service),
            Self::HairpinOfOthers => case.is_hairpin_of_others(slices),
            Self::AffinityByFrontend => case.is_affinity_from_elsewhere(),
        };
        Self::ALL.into_iter().find(explains)
    }

    /// How many flows show it for certain.
    pub(crate) const fn flows_that_show_it(self) -> u32 {
        match self {
            Self::ExternalIps | Self::RangesOfOneFamily => 4_000,
            Self::HairpinOfOthers => 8_000,
            Self::AffinityByFrontend => 50_000,
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
        !is_known_here
            && self.kube_proxy.iter().any(is_kept_hairpin)
            && self.kube_proxy.iter().all(explained)
            && (sticky || endpoints(self.foghorn) == endpoints(self.kube_proxy))
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
        })
    }
}
