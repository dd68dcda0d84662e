//! Proxies change their data plane while a client asks: nothing is lost, and nothing of the other one is left.
//!
//! Run by `make test-iptables`.

#![expect(clippy::indexing_slicing, reason = "a test")]

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::{Question, Target};
use e2e::lab::{Lab, Options, with_lab};
use e2e::manifest::TCP_PORT;
use e2e::node::Node;
use e2e::questions::at;
use e2e::stream::{Pace, Stream};
use e2e::wait;

const PATIENCE: Duration = Duration::from_secs(30);
const SETTLED: Duration = Duration::from_millis(500);

/// Who forwards on a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Nftables,
    IptablesNft,
    IptablesLegacy,
}

use Mode::{IptablesLegacy, IptablesNft, Nftables};

#[test]
#[ignore = "needs the lab: make test-iptables"]
fn a_change_of_the_data_plane_loses_nothing_and_leaves_nothing() -> Result<()> {
    let options = Options {
        proxy_arguments: Nftables.arguments(),
        ..Options::foghorn("modes")
    };
    with_lab(&options, |lab| {
        lab.serve_web(Duration::from_secs(60))?;
        let address = cluster_ip(lab)?;
        // In every direction.
        let path = [
            IptablesNft,
            IptablesLegacy,
            Nftables,
            IptablesLegacy,
            IptablesNft,
            Nftables,
        ];
        let mut former = Nftables;
        for mode in path {
            let node = &lab.nodes[0];
            let target = Target::tcp(at(address, TCP_PORT));
            let pace = Pace {
                patience: Duration::from_secs(2),
                ..Pace::DENSE
            };
            let stream = Stream::start(&node.namespace, target, Question::Hostname, pace)?;
            stream.wait_for_answer(SETTLED, PATIENCE, |_| true)?;
            let begun = stream.now();
            change(&mut lab.nodes[0], mode)?;
            let done = stream.now();
            stream.wait_for_answer(done + SETTLED, PATIENCE, |_| true)?;
            let record = stream.stop()?.since(SETTLED);
            println!(
                "{former:?} to {mode:?}: {record}; longest gap {:?}",
                record.longest_gap().length
            );
            let lost: Vec<_> = record.losses().collect();
            ensure!(
                lost.is_empty(),
                "requests were lost: {record}; {former:?} to {mode:?} took from {begun:?} to {done:?}: {lost:?}"
            );
            former = mode;
        }
        Ok(())
    })
}

/// Starts the node's proxy anew in another mode, and waits until only that one has rules.
fn change(node: &mut Node, mode: Mode) -> Result<()> {
    let proxy = node.proxy_mut()?;
    proxy.terminate(PATIENCE)?;
    let arguments = &mut proxy.recipe_mut().arguments;
    let kept = arguments
        .iter()
        .position(|argument| argument == "--dataplane");
    arguments.truncate(kept.context("the proxy was not told its data plane")?);
    arguments.extend(mode.arguments().into_iter().map(Into::into));
    proxy.start_again()?;
    let mut held = Vec::new();
    wait::until("the rules of one mode alone", PATIENCE, || {
        held = held_by(node)?;
        Ok((held == [mode]).then_some(()))
    })
    .with_context(|| format!("{held:?} have rules"))
}

impl Mode {
    fn arguments(self) -> Vec<String> {
        let words = match self {
            Nftables => "--dataplane nftables",
            IptablesNft => "--dataplane iptables --iptables-backend nft",
            IptablesLegacy => "--dataplane iptables --iptables-backend legacy",
        };
        words.split(' ').map(str::to_owned).collect()
    }
}

/// The modes that have anything on a node.
fn held_by(node: &Node) -> Result<Vec<Mode>> {
    let output = |program: &str, arguments: &[&str]| node.namespace.output(program, arguments);
    let mut held = Vec::new();
    let tables = output("nft", &["list", "tables"])?;
    if tables.lines().any(|line| line.ends_with(" foghorn")) {
        held.push(Nftables);
    }
    for (mode, infix) in [(IptablesNft, "nft"), (IptablesLegacy, "legacy")] {
        for family in ["iptables", "ip6tables"] {
            for table in ["nat", "filter"] {
                let text = output(&format!("{family}-{infix}-save"), &["-t", table])?;
                if text.contains("FOGHORN-") && !held.contains(&mode) {
                    held.push(mode);
                }
            }
        }
    }
    Ok(held)
}

fn cluster_ip(lab: &Lab) -> Result<IpAddr> {
    let service = lab.api.get("/api/v1/namespaces/default/services/web")?;
    let address = service["spec"]["clusterIP"].as_str();
    Ok(address.context("web has no ClusterIP")?.parse()?)
}
