//! What on a node stops layer 2 in practice: the findings are decided here, [`facts`] gathers what they are decided from.

pub mod facts;

use std::fmt;

use facts::{Facts, InterfaceFacts, Kind};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// Addresses are not answered, or answered twice, until this is mended.
    Problem,
    /// Works here, if something outside of this node allows it.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Problem => "problem",
            Self::Note => "note",
        })
    }
}

/// Something about this node that its operator should know; the message says what to do.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Finding {
    #[error(
        "no Ethernet interface has a carrier: plug one in, or set it up (ip link set NAME up); nothing can be announced"
    )]
    NoInterface,
    #[error(
        "net.ipv4.ip_forward is 0: requests reach this node but not Pods on others; set it to 1"
    )]
    NoForwardingIpv4,
    #[error(
        "net.ipv6.conf.all.forwarding is 0: IPv6 requests reach this node but not Pods on others; set it to 1 if Services \
         have IPv6 addresses"
    )]
    NoForwardingIpv6,
    #[error(
        "{interface} has a strict reverse path filter (rp_filter 1) and there are several interfaces: requests of clients \
         whose way back leads elsewhere are dropped; set net.ipv4.conf.{interface}.rp_filter and \
         net.ipv4.conf.all.rp_filter to 2 or 0"
    )]
    StrictReversePath { interface: String },
    #[error(
        "kube-proxy in IPVS mode has the addresses on kube-ipvs0 and the kernel answers ARP for them on {interface} \
         (arp_ignore 0): several nodes answer; set ipvs.strictARP in kube-proxy's configuration"
    )]
    KernelAnswers { interface: String },
    #[error(
        "{interface} is WiFi: access points lose and delay multicast, which heartbeats are; raise --heartbeat-interval-ms \
         to 300 or more, or announce from wired nodes (nodeSelectors in an L2Advertisement)"
    )]
    WiFi { interface: String },
    #[error(
        "{interface} is a macvlan of another interface: this machine itself does not reach the addresses, and the switch \
         or hypervisor must accept a second MAC on the port"
    )]
    Macvlan { interface: String },
    #[error(
        "{interface} is a bond: in balance-rr and balance-xor the switch must have a matching link aggregation; \
         active-backup needs nothing"
    )]
    Bond { interface: String },
    #[error(
        "{interface} is a port of {master}, so it does not answer itself: announce from {master}"
    )]
    Port { interface: String, master: String },
    #[error(
        "kube-proxy and foghorn-proxy both run: both write rules for every Service; run one of them"
    )]
    TwoProxies,
    #[error(
        "{program} runs on this node and can announce addresses too: take care that its addresses are not in a pool of \
         Foghorn, and that it leaves Services of type LoadBalancer alone"
    )]
    OtherProduct { program: &'static str },
}

impl Finding {
    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match self {
            Self::NoInterface
            | Self::NoForwardingIpv4
            | Self::StrictReversePath { .. }
            | Self::KernelAnswers { .. }
            | Self::TwoProxies => Severity::Problem,
            // A cluster without IPv6 has it off, rightly.
            Self::NoForwardingIpv6
            | Self::WiFi { .. }
            | Self::Macvlan { .. }
            | Self::Bond { .. }
            | Self::Port { .. }
            | Self::OtherProduct { .. } => Severity::Note,
        }
    }
}

/// What is to be said of a node, problems first.
pub fn diagnose(facts: &Facts) -> Vec<Finding> {
    let mut findings = of_the_node(facts);
    let links = || facts.interfaces.iter().filter(|link| link.has_carrier);
    let several = links().filter(|link| link.master.is_none()).count() > 1;
    for link in links() {
        findings.extend(of_an_interface(link, several, facts.has_ipvs));
    }
    // Stable: within a severity the order above stays.
    findings.sort_by_key(Finding::severity);
    findings
}

fn of_the_node(facts: &Facts) -> Vec<Finding> {
    let runs = |name: &str| facts.programs.contains(name);
    let mut findings = Vec::new();
    if !facts.interfaces.iter().any(|link| link.has_carrier) {
        findings.push(Finding::NoInterface);
    }
    if facts.forwards_ipv4 == Some(false) {
        findings.push(Finding::NoForwardingIpv4);
    }
    if facts.forwards_ipv6 == Some(false) {
        findings.push(Finding::NoForwardingIpv6);
    }
    if runs("kube-proxy") && runs("foghorn-proxy") {
        findings.push(Finding::TwoProxies);
    }
    let others = OTHER_PRODUCTS.iter().filter(|program| runs(program));
    findings.extend(others.map(|program| Finding::OtherProduct { program }));
    findings
}

fn of_an_interface(link: &InterfaceFacts, several: bool, has_ipvs: bool) -> Vec<Finding> {
    let interface = link.name.clone();
    if let Some(master) = link.master.clone() {
        return vec![Finding::Port { interface, master }];
    }
    let mut findings = Vec::new();
    if several && link.rp_filter == Some(STRICT) {
        findings.push(Finding::StrictReversePath {
            interface: interface.clone(),
        });
    }
    if has_ipvs && link.arp_ignore == Some(0) {
        findings.push(Finding::KernelAnswers {
            interface: interface.clone(),
        });
    }
    match link.kind {
        Kind::WiFi => findings.push(Finding::WiFi { interface }),
        Kind::Macvlan => findings.push(Finding::Macvlan { interface }),
        Kind::Bond => findings.push(Finding::Bond { interface }),
        Kind::Other => {}
    }
    findings
}

/// Value of `rp_filter` with which the way back must be the very interface (RFC 3704 section 2.2).
const STRICT: u32 = 1;
/// Programs, as the kernel names their processes, that announce addresses of their own.
const OTHER_PRODUCTS: [&str; 3] = ["keepalived", "kube-vip", "cilium-agent"];

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str) -> InterfaceFacts {
        InterfaceFacts {
            name: name.to_owned(),
            kind: Kind::Other,
            master: None,
            has_carrier: true,
            rp_filter: Some(2),
            arp_ignore: Some(0),
        }
    }

    fn healthy() -> Facts {
        Facts {
            interfaces: vec![link("eth0")],
            forwards_ipv4: Some(true),
            forwards_ipv6: Some(true),
            has_ipvs: false,
            programs: ["foghorn-proxy".to_owned()].into(),
        }
    }

    /// The findings as `severity: first words`.
    fn said(facts: &Facts) -> Vec<String> {
        diagnose(facts)
            .iter()
            .map(|finding| {
                let text = finding.to_string();
                let words: Vec<_> = text.split(' ').take(3).collect();
                format!("{}: {}", finding.severity(), words.join(" "))
            })
            .collect()
    }

    #[test]
    fn says_of_each_node_what_stops_it() {
        let strict = |name: &str| InterfaceFacts {
            rp_filter: Some(1),
            ..link(name)
        };
        let kind = |kind| InterfaceFacts {
            kind,
            ..link("eth0")
        };
        let with = |change: &dyn Fn(&mut Facts)| {
            let mut facts = healthy();
            change(&mut facts);
            said(&facts)
        };
        let runs = |programs: &[&str]| programs.iter().map(|name| (*name).to_owned()).collect();
        for (found, expected) in [
            (with(&|_| {}), &[][..]),
            (
                with(&|facts| facts.interfaces[0].has_carrier = false),
                &["problem: no Ethernet interface"],
            ),
            (
                with(&|facts| facts.forwards_ipv4 = Some(false)),
                &["problem: net.ipv4.ip_forward is 0:"],
            ),
            (
                with(&|facts| facts.forwards_ipv6 = Some(false)),
                &["note: net.ipv6.conf.all.forwarding is 0:"],
            ),
            // What could not be read is not claimed.
            (with(&|facts| facts.forwards_ipv6 = None), &[]),
            // With one interface every way back leads there.
            (with(&|facts| facts.interfaces = vec![strict("eth0")]), &[]),
            (
                with(&|facts| facts.interfaces = vec![strict("eth0"), link("eth1")]),
                &["problem: eth0 has a"],
            ),
            (
                with(&|facts| facts.has_ipvs = true),
                &["problem: kube-proxy in IPVS"],
            ),
            (
                with(&|facts| {
                    facts.has_ipvs = true;
                    facts.interfaces[0].arp_ignore = Some(1);
                }),
                &[],
            ),
            (
                with(&|facts| facts.interfaces = vec![kind(Kind::WiFi)]),
                &["note: eth0 is WiFi:"],
            ),
            (
                with(&|facts| facts.interfaces = vec![kind(Kind::Macvlan)]),
                &["note: eth0 is a"],
            ),
            (
                with(&|facts| facts.interfaces = vec![kind(Kind::Bond)]),
                &["note: eth0 is a"],
            ),
            // A port is not a second interface to the LAN.
            (
                with(&|facts| {
                    let port = InterfaceFacts {
                        master: Some("br0".to_owned()),
                        ..link("eth0")
                    };
                    facts.interfaces = vec![port, strict("br0")];
                }),
                &["note: eth0 is a"],
            ),
            // Problems come first.
            (
                with(&|facts| {
                    facts.programs = runs(&["keepalived", "kube-proxy", "foghorn-proxy"])
                }),
                &[
                    "problem: kube-proxy and foghorn-proxy",
                    "note: keepalived runs on",
                ],
            ),
            (with(&|facts| facts.programs = runs(&["kube-proxy"])), &[]),
        ] {
            assert_eq!(found, expected);
        }
    }
}
