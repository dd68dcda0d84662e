//! `kubectl foghorn doctor`: what stops layer 2, by what nodes say of themselves and what the wire says about addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::speaker::{Examination, Probe, SpeakerStatus};

/// Everything that was asked.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// What speakers know.
    pub speakers: Vec<SpeakerStatus>,
    /// What they find about their nodes.
    pub examinations: Vec<Examination>,
    /// What they hear on the wire.
    pub probes: Vec<Probe>,
    /// DaemonSets of the cluster, as `namespace/name`.
    pub daemon_sets: Vec<String>,
    /// What could not be asked, and why.
    pub gaps: Vec<String>,
}

/// How much something matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody is not served, or may be served by the wrong machine.
    Problem,
    /// Works here, if something outside allows it, or was not looked at.
    Note,
}

/// Something that an operator should know; the message says what to do.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Finding {
    #[error("{address} is announced by nobody: {}", .reasons.join("; "))]
    Unowned {
        address: IpAddr,
        reasons: Vec<String>,
    },
    #[error(
        "{address} should be answered by {owner}, and nobody answers to {}: look whether the switch or hypervisor passes ARP, \
         NDP and multicast, and whether {owner} has a filter for them",
        .seen_from.join(", ")
    )]
    Unanswered {
        address: IpAddr,
        owner: String,
        seen_from: Vec<String>,
    },
    #[error(
        "{address} is answered by {} instead of {owner}, as seen from {}: it is another machine's address; give that \
         machine another one, or take this one out of the pool",
        machines(.by), .seen_from.join(", ")
    )]
    AnsweredByOthers {
        address: IpAddr,
        owner: String,
        by: Vec<Machine>,
        seen_from: Vec<String>,
    },
    #[error(
        "{address} is answered by {owner} and also by {}, as seen from {}: clients reach the one or the other; end what \
         answers there",
        machines(.also), .seen_from.join(", ")
    )]
    AnsweredTwice {
        address: IpAddr,
        owner: String,
        also: Vec<Machine>,
        seen_from: Vec<String>,
    },
    #[error(
        "{address} has two owners, {}: their speakers do not hear each other",
        .owners.join(" and ")
    )]
    TwoOwners {
        address: IpAddr,
        owners: Vec<String>,
    },
    #[error(
        "{node} does not hear the heartbeats of {peer}, whose speaker runs: let UDP port {PORT} through between nodes, and \
         multicast on the switch (look for IGMP and MLD snooping without a querier)"
    )]
    Deaf { node: String, peer: String },
    #[error("{node}: {message}")]
    OfNode { node: String, message: String },
    #[error("the probe of {address} at {node} on {interface} failed: {error}")]
    ProbeFailed {
        address: IpAddr,
        node: String,
        interface: String,
        error: String,
    },
    #[error(
        "the DaemonSet {daemon_set} runs in this cluster and announces addresses too: end it, or keep its addresses out of \
         Foghorn's pools"
    )]
    OtherProduct { daemon_set: String },
    #[error(
        "the DaemonSets {kube_proxy} and {foghorn} both run: both write rules for every Service; remove kube-proxy, or \
         Foghorn's proxy"
    )]
    TwoProxies { kube_proxy: String, foghorn: String },
    #[error("{0}")]
    Gap(String),
}

/// A machine that answered.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Machine {
    /// Its hardware address.
    pub mac: String,
    /// The node that has it, if it is a node's.
    pub node: Option<String>,
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => write!(formatter, "{node} ({})", self.mac),
            None => write!(
                formatter,
                "a machine with the hardware address {}",
                self.mac
            ),
        }
    }
}

fn machines(machines: &[Machine]) -> String {
    let texts: Vec<_> = machines.iter().map(ToString::to_string).collect();
    texts.join(" and ")
}

/// What the doctor says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    /// How many speakers answered.
    pub speakers: usize,
    /// How many addresses were asked for on the wire.
    pub addresses: usize,
    /// How many of them are answered by their owner alone.
    pub good_addresses: usize,
    /// What was found, problems first.
    pub findings: Vec<Statement>,
}

/// A finding in words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Statement {
    /// How much it matters.
    pub severity: Severity,
    /// What it is and what to do.
    pub message: String,
}

/// Judges what was asked.
pub fn diagnose(asked: &Asked) -> Diagnosis {
    let mut findings: Vec<(Severity, Finding)> = Vec::new();
    let mut good_addresses = 0;
    let addresses = addresses(asked);
    for &address in &addresses {
        let found = of_address(asked, address);
        good_addresses += usize::from(found.is_empty());
        findings.extend(
            found
                .into_iter()
                .map(|finding| (Severity::Problem, finding)),
        );
    }
    findings.extend(deaf(asked).map(|finding| (Severity::Problem, finding)));
    findings.extend(failed_probes(asked).map(|finding| (Severity::Note, finding)));
    for examination in &asked.examinations {
        for found in &examination.findings {
            let severity = if found.severity == "problem" {
                Severity::Problem
            } else {
                Severity::Note
            };
            let finding = Finding::OfNode {
                node: examination.node.clone(),
                message: found.message.clone(),
            };
            findings.push((severity, finding));
        }
    }
    findings.extend(of_daemon_sets(&asked.daemon_sets));
    let gaps = asked.gaps.iter().cloned();
    findings.extend(gaps.map(|gap| (Severity::Note, Finding::Gap(gap))));
    // Stable: within a severity the order above stays.
    findings.sort_by_key(|(severity, _)| *severity);
    Diagnosis {
        speakers: asked.speakers.len(),
        addresses: addresses.len(),
        good_addresses,
        findings: findings
            .into_iter()
            .map(|(severity, finding)| Statement {
                severity,
                message: finding.to_string(),
            })
            .collect(),
    }
}

/// Every address that a speaker knows of.
pub fn addresses(asked: &Asked) -> BTreeSet<IpAddr> {
    let known = asked.speakers.iter().flat_map(|speaker| &speaker.addresses);
    known.map(|known| known.address).collect()
}

fn of_address(asked: &Asked, address: IpAddr) -> Vec<Finding> {
    let mut probes: Vec<_> = asked
        .probes
        .iter()
        .filter(|probe| probe.address == address)
        .collect();
    probes.sort_by(|one, other| one.node.cmp(&other.node));
    let owners: Vec<String> = probes
        .iter()
        .filter(|probe| probe.is_owner)
        .map(|probe| probe.node.clone())
        .collect();
    let owner = match owners.as_slice() {
        [] => return nobody(asked, address, &probes),
        [owner] => owner.clone(),
        _ => return vec![Finding::TwoOwners { address, owners }],
    };
    let nodes = nodes_by_mac(asked);
    let own: BTreeSet<&str> = nodes
        .iter()
        .filter(|(_, node)| **node == owner)
        .map(|(mac, _)| *mac)
        .collect();
    let mut unanswered = Vec::new();
    let mut by_others: BTreeMap<Vec<Machine>, Vec<String>> = BTreeMap::new();
    let mut by_both: BTreeMap<Vec<Machine>, Vec<String>> = BTreeMap::new();
    for probe in probes.iter().filter(|probe| probe.was_asked()) {
        let answers: BTreeSet<&str> = probe.answers().collect();
        let strangers: Vec<Machine> = answers
            .iter()
            .filter(|mac| !own.contains(*mac))
            .map(|mac| Machine {
                mac: (*mac).to_owned(),
                node: nodes.get(mac).map(|node| (*node).to_owned()),
            })
            .collect();
        let by_owner = probe.is_owner || answers.iter().any(|mac| own.contains(mac));
        match (by_owner, strangers.is_empty()) {
            (true, true) => {}
            (false, true) => unanswered.push(probe.node.clone()),
            (true, false) => by_both
                .entry(strangers)
                .or_default()
                .push(probe.node.clone()),
            (false, false) => by_others
                .entry(strangers)
                .or_default()
                .push(probe.node.clone()),
        }
    }
    let mut findings = Vec::new();
    if !unanswered.is_empty() {
        findings.push(Finding::Unanswered {
            address,
            owner: owner.clone(),
            seen_from: unanswered,
        });
    }
    findings.extend(
        by_others
            .into_iter()
            .map(|(by, seen_from)| Finding::AnsweredByOthers {
                address,
                owner: owner.clone(),
                by,
                seen_from,
            }),
    );
    findings.extend(
        by_both
            .into_iter()
            .map(|(also, seen_from)| Finding::AnsweredTwice {
                address,
                owner: owner.clone(),
                also,
                seen_from,
            }),
    );
    findings
}

/// No speaker that was asked announces the address.
fn nobody(asked: &Asked, address: IpAddr, probes: &[&Probe]) -> Vec<Finding> {
    if probes.is_empty() {
        return Vec::new();
    }
    let known = asked.speakers.iter().flat_map(|speaker| &speaker.addresses);
    let mut known = known.filter(|known| known.address == address);
    // The owner may be one that did not answer: then nothing is wrong as far as is known.
    if known.clone().any(|known| known.owner.is_some()) {
        return Vec::new();
    }
    let reasons = known.next().map(|known| {
        let candidates = known.candidates.iter();
        candidates
            .map(|candidate| format!("{}: {}", candidate.node, candidate.reason))
            .collect()
    });
    vec![Finding::Unowned {
        address,
        reasons: reasons.unwrap_or_default(),
    }]
}

/// The node of each hardware address, as speakers say of their own.
fn nodes_by_mac(asked: &Asked) -> BTreeMap<&str, &str> {
    let speakers = asked.speakers.iter();
    speakers
        .flat_map(|speaker| {
            let interfaces = speaker.interfaces.iter();
            interfaces.map(|interface| (interface.mac.as_str(), speaker.node.as_str()))
        })
        .collect()
}

/// Speakers that answered and are not heard by others that answered.
fn deaf(asked: &Asked) -> impl Iterator<Item = Finding> + '_ {
    asked.speakers.iter().flat_map(|speaker| {
        let peers = asked
            .speakers
            .iter()
            .filter(|peer| peer.node != speaker.node);
        peers.filter_map(|peer| {
            let is_heard = speaker
                .peers
                .iter()
                .any(|known| known.node == peer.node && known.heard);
            (!is_heard).then(|| Finding::Deaf {
                node: speaker.node.clone(),
                peer: peer.node.clone(),
            })
        })
    })
}

fn failed_probes(asked: &Asked) -> impl Iterator<Item = Finding> + '_ {
    asked.probes.iter().flat_map(|probe| {
        probe.interfaces.iter().filter_map(|interface| {
            Some(Finding::ProbeFailed {
                address: probe.address,
                node: probe.node.clone(),
                interface: interface.name.clone(),
                error: interface.error.clone()?,
            })
        })
    })
}

fn of_daemon_sets(daemon_sets: &[String]) -> Vec<(Severity, Finding)> {
    let named = |wanted: &str| {
        let mut found = daemon_sets.iter();
        found.find(|name| name.split_once('/').is_some_and(|(_, name)| name == wanted))
    };
    let mut findings = Vec::new();
    let ours = daemon_sets.iter().find(|name| {
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        name.ends_with("-proxy") && (name.contains("foghorn") || namespace.contains("foghorn"))
    });
    if let (Some(kube_proxy), Some(foghorn)) = (named("kube-proxy"), ours) {
        let finding = Finding::TwoProxies {
            kube_proxy: kube_proxy.clone(),
            foghorn: foghorn.clone(),
        };
        findings.push((Severity::Problem, finding));
    }
    let is_other = |name: &&String| {
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        (namespace.contains("metallb") && name.contains("speaker"))
            || OTHER_PRODUCTS
                .iter()
                .any(|product| name.starts_with(product))
    };
    findings.extend(daemon_sets.iter().filter(is_other).map(|name| {
        let daemon_set = name.clone();
        (Severity::Note, Finding::OtherProduct { daemon_set })
    }));
    findings
}

impl Diagnosis {
    /// Whether something must be mended.
    pub fn has_problems(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.severity == Severity::Problem)
    }

    /// As people read it.
    pub fn text(&self) -> String {
        let mut text = format!(
            "Asked {} about {} on the wire: {} answered by {} owner alone.\n",
            counted(self.speakers, "speaker", "speakers"),
            counted(self.addresses, "address", "addresses"),
            if self.good_addresses == self.addresses && self.addresses > 1 {
                "all are".to_owned()
            } else if self.good_addresses == 1 {
                "1 is".to_owned()
            } else {
                format!("{} are", self.good_addresses)
            },
            if self.good_addresses == 1 {
                "its"
            } else {
                "their"
            },
        );
        for (severity, title) in [(Severity::Problem, "Problems"), (Severity::Note, "Notes")] {
            let of_it = self.findings.iter();
            let mut of_it = of_it
                .filter(|finding| finding.severity == severity)
                .peekable();
            if of_it.peek().is_some() {
                text.push_str(&format!("\n{title}:\n"));
            }
            for finding in of_it {
                text.push_str(&format!("  - {}\n", finding.message));
            }
        }
        text
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// The port of heartbeats.
const PORT: u16 = 17992;
/// DaemonSets of products that announce addresses, by the beginning of their names.
const OTHER_PRODUCTS: [&str; 4] = ["kube-vip", "openelb-speaker", "lbnodeagent", "svclb-"];

#[cfg(test)]
#[path = "doctor/tests.rs"]
mod tests;
