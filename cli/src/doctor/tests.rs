use super::*;
use crate::speaker::{AddressStatus, Candidate, Interface, NodeFinding, Peer, ProbedInterface};

const VIP: &str = "192.0.2.240";

fn mac(number: usize) -> String {
    format!("02:00:00:00:00:0{number}")
}

/// Three speakers that hear each other; the first one owns the address.
fn healthy() -> Asked {
    let names = ["node-1", "node-2", "node-3"];
    let speakers = names.iter().enumerate().map(|(at, &node)| SpeakerStatus {
        node: node.to_owned(),
        addresses: vec![AddressStatus {
            address: VIP.parse().unwrap(),
            owner: Some("node-1".to_owned()),
            owned_for_seconds: None,
            interfaces: vec![],
            candidates: vec![Candidate {
                node: "node-1".to_owned(),
                standing: "Owner".to_owned(),
                reason: "owns the address".to_owned(),
            }],
        }],
        peers: names
            .iter()
            .filter(|peer| **peer != node)
            .map(|peer| Peer {
                node: (*peer).to_owned(),
                heard: true,
            })
            .collect(),
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            mac: mac(at + 1),
        }],
    });
    let probes = names.iter().enumerate().map(|(at, &node)| Probe {
        node: node.to_owned(),
        address: VIP.parse().unwrap(),
        is_owner: at == 0,
        interfaces: vec![ProbedInterface {
            name: "eth0".to_owned(),
            answers: if at == 0 { vec![] } else { vec![mac(1)] },
            error: None,
        }],
    });
    Asked {
        speakers: speakers.collect(),
        probes: probes.collect(),
        ..Asked::default()
    }
}

fn with(change: impl FnOnce(&mut Asked)) -> String {
    let mut asked = healthy();
    change(&mut asked);
    diagnose(&asked).text()
}

fn answers(asked: &mut Asked, node: usize, macs: &[&str]) {
    asked.probes[node - 1].interfaces[0].answers =
        macs.iter().map(|mac| (*mac).to_owned()).collect();
}

#[test]
fn a_healthy_cluster_has_nothing_to_mend() {
    assert_eq!(
        with(|_| {}),
        "Asked 3 speakers about 1 address on the wire: 1 is answered by its owner alone.\n"
    );
    assert!(!diagnose(&healthy()).has_problems());
}

#[test]
fn says_what_the_wire_says_against_the_owner() {
    let (one, two, stranger) = (mac(1), mac(2), "02:bb:00:00:00:01");
    for (said, expected) in [
        (
            with(|asked| answers(asked, 3, &[])),
            "192.0.2.240 should be answered by node-1, and nobody answers to node-3: look",
        ),
        (
            with(|asked| {
                answers(asked, 2, &[stranger]);
                answers(asked, 3, &[stranger]);
            }),
            "192.0.2.240 is answered by a machine with the hardware address 02:bb:00:00:00:01 instead of node-1, as seen from \
             node-2, node-3: it is",
        ),
        (
            with(|asked| answers(asked, 3, &[&one, &two])),
            "192.0.2.240 is answered by node-1 and also by node-2 (02:00:00:00:00:02), as seen from node-3: clients",
        ),
        (
            with(|asked| answers(asked, 1, &[stranger])),
            "192.0.2.240 is answered by node-1 and also by a machine with the hardware address 02:bb:00:00:00:01, as seen from \
             node-1: clients",
        ),
        (
            with(|asked| asked.probes[1].is_owner = true),
            "192.0.2.240 has two owners, node-1 and node-2: their speakers do not hear each other",
        ),
        (
            with(|asked| {
                asked.probes[0].is_owner = false;
                for speaker in &mut asked.speakers {
                    speaker.addresses[0].owner = None;
                    speaker.addresses[0].candidates[0].reason = "the node is drained".to_owned();
                }
            }),
            "192.0.2.240 is announced by nobody: node-1: the node is drained",
        ),
        (
            with(|asked| asked.speakers[1].peers[1].heard = false),
            "node-2 does not hear the heartbeats of node-3, whose speaker runs: let UDP port 17992 through",
        ),
    ] {
        assert!(
            said.contains(&format!("\nProblems:\n  - {expected}")),
            "{said}"
        );
    }
}

#[test]
fn an_owner_that_was_not_asked_is_no_problem() {
    let said = with(|asked| {
        asked.probes.remove(0);
        asked.gaps.push("1 of 3 speakers do not answer".to_owned());
    });
    assert!(
        said.ends_with("\nNotes:\n  - 1 of 3 speakers do not answer\n")
            && !said.contains("Problems"),
        "{said}"
    );
}

#[test]
fn says_what_nodes_find_and_which_other_products_run() {
    let said = with(|asked| {
        asked.examinations.push(Examination {
            node: "node-2".to_owned(),
            findings: [("note", "eth0 is WiFi"), ("problem", "ip_forward is 0")]
                .map(|(severity, message)| NodeFinding {
                    severity: severity.to_owned(),
                    message: message.to_owned(),
                })
                .into(),
        });
        asked.daemon_sets = [
            "kube-system/kube-proxy",
            "foghorn-system/foghorn-proxy",
            "metallb-system/speaker",
            "kube-system/kube-vip-ds",
            "default/web",
        ]
        .map(str::to_owned)
        .into();
        asked.probes[1].interfaces[0].error = Some("Network is down".to_owned());
        answers(asked, 2, &[]);
    });
    let lines: Vec<_> = said
        .lines()
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert_eq!(
        lines,
        [
            "Asked 3 speakers about 1 address on the wire",
            "",
            "Problems",
            "  - node-2",
            "  - the DaemonSets kube-system/kube-proxy and foghorn-system/foghorn-proxy both run",
            "",
            "Notes",
            "  - the probe of 192.0.2.240 at node-2 on eth0 failed",
            "  - node-2",
            "  - the DaemonSet metallb-system/speaker runs in this cluster and announces addresses too",
            "  - the DaemonSet kube-system/kube-vip-ds runs in this cluster and announces addresses too",
        ]
    );
}
