//! What was seen at both twins, beside what the specification says, and who is wrong where they differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use proxy_table::{Flow, ForwardingTable, Verdict};

use crate::flows::Question;
use crate::network::is_own;
use crate::packet::Refusal;
use crate::wire::Outcome;

/// Everything that was seen of one question at one twin.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Seen {
    /// By the client's number in the crowd, as `Flow::source` differs.
    by_client: BTreeMap<u8, BTreeSet<Fate>>,
}

/// What became of a connection, as its client and whoever was reached see it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Fate {
    /// It reached an endpoint that it was not addressed to.
    Reached {
        endpoint: SocketAddr,
        source: Source,
    },
    /// It came out as it came in, but for the source perhaps.
    Passed {
        source: Source,
    },
    Refused(Refusal),
    Silence,
}

/// The address that whoever is reached sees.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Source {
    /// The client's.
    Kept,
    /// This one instead.
    Replaced(IpAddr),
}

/// Who disagrees.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Culprit {
    /// Both twins and the specification agree.
    Nobody,
    /// foghorn-proxy differs from kube-proxy and from its specification.
    DataPlane,
    /// kube-proxy differs from foghorn-proxy and from the specification.
    KubeProxy,
    /// The twins agree and the specification does not.
    Specification,
    /// All three differ.
    Everybody,
}

impl Seen {
    /// Takes in what became of the probes of [`Question::probes`].
    pub(crate) fn add(&mut self, question: &Question, outcomes: &[Outcome]) {
        for (draw, outcome) in outcomes.iter().enumerate() {
            let client = u8::try_from(draw % usize::from(question.crowd)).unwrap_or(0);
            let fate = fate(&question.flow_of(client), *outcome);
            self.by_client.entry(client).or_default().insert(fate);
        }
    }

    /// Takes in what was seen at another time.
    pub(crate) fn merge(&mut self, other: Self) {
        for (client, fates) in other.by_client {
            self.by_client.entry(client).or_default().extend(fates);
        }
    }

    /// What became of all clients together.
    pub(crate) fn fates(&self) -> BTreeSet<Fate> {
        self.by_client.values().flatten().copied().collect()
    }

    /// Whether each client had the same fate whenever it asked.
    pub(crate) fn is_steady(&self) -> bool {
        self.by_client.values().all(|fates| fates.len() == 1)
    }

    /// Whether the specification allows it, and all of it was seen.
    fn fits(&self, question: &Question, spec: &ForwardingTable) -> bool {
        let flow = &question.flow;
        let verdict = spec.verdict(flow);
        let fates = self.fates();
        let allowed = |fate: &Fate| allows(&verdict, flow, *fate);
        if !fates.iter().all(allowed) {
            return false;
        }
        match &verdict {
            Verdict::Forward {
                destinations,
                affinity_seconds,
            } => {
                let endpoints: BTreeSet<SocketAddr> =
                    fates.iter().filter_map(Fate::endpoint).collect();
                // Where an endpoint is addressed as such, it is passed.
                let all =
                    endpoints.len() == destinations.len() || fates.iter().any(Fate::has_passed);
                let alone = question.crowd == 1;
                match affinity_seconds {
                    Some(_) => self.is_steady() && (alone || all),
                    None => all,
                }
            }
            _ => true,
        }
    }
}

/// Compares; equal sets of what is possible are equal, whatever the chances were.
pub(crate) fn judge(
    question: &Question,
    spec: &ForwardingTable,
    foghorn: &Seen,
    kube_proxy: &Seen,
) -> Culprit {
    let fits = [foghorn, kube_proxy].map(|seen| seen.fits(question, spec));
    let verdict = spec.verdict(&question.flow);
    let sticky = matches!(
        verdict,
        Verdict::Forward {
            affinity_seconds: Some(_),
            ..
        }
    );
    // One client that keeps its endpoint keeps another one at the other twin.
    let free_to_differ = sticky && question.crowd == 1 && fits == [true, true];
    let agree = foghorn.fates() == kube_proxy.fates() || free_to_differ;
    match (agree, fits) {
        (true, [true, true]) => Culprit::Nobody,
        (true, _) => Culprit::Specification,
        (false, [true, _]) => Culprit::KubeProxy,
        (false, [false, true]) => Culprit::DataPlane,
        (false, [false, false]) => Culprit::Everybody,
    }
}

fn fate(flow: &Flow, outcome: Outcome) -> Fate {
    match outcome {
        Outcome::Out {
            destination,
            source,
        } => {
            let source = if source == flow.source {
                Source::Kept
            } else {
                Source::Replaced(source)
            };
            if destination == SocketAddr::new(flow.destination, flow.port.get()) {
                Fate::Passed { source }
            } else {
                let endpoint = destination;
                Fate::Reached { endpoint, source }
            }
        }
        Outcome::Refused(refusal) => Fate::Refused(refusal),
        Outcome::Silence => Fate::Silence,
    }
}

/// Whether a verdict allows a fate.
pub(crate) fn allows(verdict: &Verdict, flow: &Flow, fate: Fate) -> bool {
    match (verdict, fate) {
        (Verdict::Forward { destinations, .. }, Fate::Reached { endpoint, source }) => {
            destinations.iter().any(|destination| {
                SocketAddr::new(
                    destination.endpoint.address,
                    destination.endpoint.port.get(),
                ) == endpoint
                    && may_show(source, destination.masqueraded, endpoint, flow)
            })
        }
        // The endpoint is the very address that was asked.
        (Verdict::Forward { destinations, .. }, Fate::Passed { source }) => {
            destinations.iter().any(|destination| {
                destination.endpoint.address == flow.destination
                    && destination.endpoint.port == flow.port
                    && may_show(
                        source,
                        destination.masqueraded,
                        SocketAddr::new(flow.destination, flow.port.get()),
                        flow,
                    )
            })
        }
        (Verdict::Reject, Fate::Refused(Refusal::Unreachable(code))) => {
            code == if flow.destination.is_ipv4() { 3 } else { 4 }
        }
        (Verdict::Drop, Fate::Silence) => true,
        (Verdict::NotOurs, Fate::Passed { source }) => source == Source::Kept,
        _ => false,
    }
}

/// Whether an endpoint may see this source.
fn may_show(source: Source, masqueraded: bool, endpoint: SocketAddr, flow: &Flow) -> bool {
    // What stays on the node does not pass where sources are replaced; and the node's address may be replaced by itself.
    let invisible = is_own(endpoint.ip()) || is_own(flow.source);
    match source {
        Source::Replaced(address) => masqueraded && is_own(address),
        Source::Kept => !masqueraded || invisible,
    }
}

impl Fate {
    /// What was reached, if it was not what was asked for.
    pub(crate) fn endpoint(&self) -> Option<SocketAddr> {
        match self {
            Self::Reached { endpoint, .. } => Some(*endpoint),
            _ => None,
        }
    }

    fn has_passed(&self) -> bool {
        matches!(self, Self::Passed { .. })
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reached { endpoint, source } => write!(formatter, "{endpoint} ({source})"),
            Self::Passed { source } => write!(formatter, "untouched ({source})"),
            Self::Refused(Refusal::Unreachable(code)) => {
                write!(formatter, "ICMP unreachable, code {code}")
            }
            Self::Refused(Refusal::Reset) => formatter.write_str("reset"),
            Self::Silence => formatter.write_str("silence"),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept => formatter.write_str("source kept"),
            Self::Replaced(address) => write!(formatter, "from {address}"),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fates: Vec<String> = self.fates().iter().map(ToString::to_string).collect();
        write!(
            formatter,
            "{}{}",
            fates.join(", "),
            if self.is_steady() { "" } else { " (changing)" }
        )
    }
}
