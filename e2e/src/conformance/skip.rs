//! Which specs are not run, and why.

use std::fs;

/// Specs that the lab cannot run.
pub(super) struct Skip {
    /// A regular expression that the name of each contains.
    pub pattern: &'static str,
    /// Why, for the reader of the table.
    pub reason: &'static str,
    applies: fn(Kernel) -> bool,
}

/// Whose kernel the nodes have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kernel {
    /// This machine's.
    OfTheMachine,
    /// One of Debian's, which has everything that specs ask for.
    OfDebian,
}

impl Skip {
    const fn always(pattern: &'static str, reason: &'static str) -> Self {
        Self {
            pattern,
            reason,
            applies: |_| true,
        }
    }
}

/// Those that apply to nodes with such a kernel.
pub(super) fn skips(kernel: Kernel) -> impl Iterator<Item = &'static Skip> {
    SKIPS.iter().filter(move |skip| (skip.applies)(kernel))
}

fn no_sctp(kernel: Kernel) -> bool {
    let protocols = fs::read_to_string("/proc/net/protocols").unwrap_or_default();
    let is_there = protocols.lines().any(|line| line.starts_with("SCTP"));
    kernel == Kernel::OfTheMachine && !is_there
}

static SKIPS: [Skip; 11] = [
    Skip {
        pattern: r"\[Feature:SCTPConnectivity\]",
        reason: "the kernel of this machine has no SCTP",
        applies: no_sctp,
    },
    Skip::always(
        r"Internet connection",
        "needs the internet; the lab has none",
    ),
    Skip::always(r"\[Provider:gce", "needs a cloud"),
    Skip::always(
        r"load balancer cleanup finalizer",
        "about the finalizer by which a cloud's controller frees what it made outside the cluster: Foghorn makes nothing there, \
         and no Service should have to wait for it to go",
    ),
    Skip::always(
        r"Networking IPerf2|\[Feature:PerformanceDNS\]",
        "measures, and the lab's processors are shared by all nodes",
    ),
    Skip::always(
        r"\[Feature:KubeProxyNFAcct\]|LocalhostNodePorts",
        "about node ports at 127.0.0.1, which only kube-proxy's iptables mode has",
    ),
    Skip::always(
        r"KubeProxy should set TCP CLOSE_WAIT",
        "about a limit of the whole machine, which is not the lab's to set",
    ),
    Skip::always(
        r"DNS configMap nameserver",
        "changes the configuration of the cluster's DNS and asks the internet",
    ),
    Skip::always(
        r"switch session affinity for LoadBalancer service with Local traffic policy",
        "wants the connections of one client to reach several nodes: an address that is announced on a LAN is at one node, and with \
         the policy Local only the endpoints there answer, which is often one",
    ),
    Skip::always(
        r"rejected for evicted pods",
        "needs a kubelet that measures what Pods write; those of the lab write into the machine's own files",
    ),
    Skip::always(
        r"NetworkPolic",
        "about network policies, which are for a network plugin to enforce",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_skip_has_a_reason_and_a_pattern_of_its_own() {
        for (index, skip) in SKIPS.iter().enumerate() {
            assert!(skip.reason.len() > 10, "{}", skip.pattern);
            assert!(
                !SKIPS
                    .iter()
                    .skip(index + 1)
                    .any(|other| other.pattern == skip.pattern),
                "{} is there twice",
                skip.pattern
            );
        }
    }
}
