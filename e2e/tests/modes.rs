//! Proxies change their data plane while a client asks: nothing is lost, and nothing of the other one is left.
//!
//! Run by `make test-iptables`, and by `make test-ipvs-moves` with IPVS among them.

#![expect(clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::{Question, Target};
use e2e::holder::Holder;
use e2e::lab::{Lab, Options, with_lab};
use e2e::manifest::TCP_PORT;
use e2e::mode::Mode;
use e2e::node::Node;
use e2e::program::{Program, Recipe};
use e2e::questions::at;
use e2e::stream::{Pace, Stream};
use e2e::wait;

const PATIENCE: Duration = Duration::from_secs(30);
const SETTLED: Duration = Duration::from_millis(500);
/// IPVS remembers a connection for two minutes after its end.
const END_OF_CONNECTIONS: Duration = Duration::from_secs(200);

/// What forwards on a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Plane {
    Nftables,
    IptablesNft,
    IptablesLegacy,
    Ipvs,
}

use Plane::{IptablesLegacy, IptablesNft, Ipvs, Nftables};

/// From each to each other one, beginning and ending with nftables.
const WITHOUT_IPVS: &[Plane] = &[
    IptablesNft,
    IptablesLegacy,
    Nftables,
    IptablesLegacy,
    IptablesNft,
    Nftables,
];
const WITH_IPVS: &[Plane] = &[
    IptablesNft,
    Nftables,
    IptablesLegacy,
    Nftables,
    Ipvs,
    IptablesNft,
    IptablesLegacy,
    IptablesNft,
    Ipvs,
    IptablesLegacy,
    Ipvs,
    Nftables,
];

#[test]
#[ignore = "needs the lab: make test-iptables"]
fn a_change_of_the_data_plane_loses_nothing_and_leaves_nothing() -> Result<()> {
    let path = match Mode::from_environment()? {
        Mode::Ipvs => WITH_IPVS,
        Mode::Nftables | Mode::Iptables => WITHOUT_IPVS,
    };
    let options = Options {
        // Only what the question needs: an emulated machine is soon too busy to answer in time.
        controller: false,
        speakers: false,
        proxy_arguments: Nftables.arguments(),
        ..Options::foghorn("modes")
    };
    with_lab(&options, |lab| {
        lab.create_web("web")?;
        lab.wait_for_endpoints("default", "web", 3, PATIENCE)?;
        let address = cluster_ip(lab)?;
        let mut former = Nftables;
        for &plane in path {
            change_under_load(&mut lab.nodes[0], address, former, plane)?;
            former = plane;
        }
        if path == WITHOUT_IPVS {
            let logs = lab.folder.logs();
            return while_the_lock_is_held(&mut lab.nodes[0], &logs);
        }
        wait::until("the last connection of IPVS", END_OF_CONNECTIONS, || {
            Ok((Holder::all_in(&lab.nodes[0].namespace)? == former.holders()).then_some(()))
        })
    })
}

fn change_under_load(node: &mut Node, address: IpAddr, from: Plane, to: Plane) -> Result<()> {
    let target = Target::tcp(at(address, TCP_PORT));
    let pace = Pace {
        // Each question costs a thread, and an emulated processor is slow.
        interval: wait::patience(Pace::DENSE.interval) * if wait::is_slow() { 4 } else { 1 },
        patience: wait::patience(Duration::from_secs(2)),
    };
    // What is asked before the first sync is over goes elsewhere for as long as its client sends it again.
    wait::until_ok("an answer before the change", PATIENCE, || {
        target.ask_from(&node.namespace, Question::Hostname, Duration::from_secs(1))
    })?;
    let stream = Stream::start(&node.namespace, target, Question::Hostname, pace)?;
    stream.wait_for_answer(SETTLED, PATIENCE, |_| true)?;
    let begun = stream.now();
    change(node, to)?;
    let done = stream.now();
    stream.wait_for_answer(done + SETTLED, PATIENCE, |_| true)?;
    let record = stream.stop()?.since(SETTLED);
    println!(
        "{from:?} to {to:?}: {record}; longest gap {:?}",
        record.longest_gap().length
    );
    let lost: Vec<_> = record.losses().collect();
    ensure!(
        lost.is_empty(),
        "requests were lost: {record}; {from:?} to {to:?} took from {begun:?} to {done:?}: {lost:?}"
    );
    Ok(())
}

/// Somebody has the lock of iptables for longer than the proxy waits for it: the former rules go once it is free.
fn while_the_lock_is_held(node: &mut Node, logs: &Path) -> Result<()> {
    change(node, IptablesLegacy)?;
    rules_are_counted(node)?;
    let recipe = Recipe::new("lock-holder", "/usr/bin/flock", &node.namespace);
    let recipe = recipe.args(["/run/xtables.lock", "sleep", "7"]);
    let mut holder = Program::start(recipe, logs)?;
    let is_held = || {
        let probe = ["-n", "/run/xtables.lock", "true"];
        let probed = node.namespace.command("flock").args(probe).status()?;
        Ok((!probed.success()).then_some(()))
    };
    wait::until("the lock of iptables", PATIENCE, is_held)?;
    change(node, Nftables)?;
    let ended = holder.wait(Duration::ZERO);
    ended.context("the rules went while somebody had the lock")?;
    Ok(())
}

/// As kube-proxy counts its own in that mode.
fn rules_are_counted(node: &Node) -> Result<()> {
    let scrape = ["--silent", "--fail", "http://127.0.0.1:10249/metrics"];
    let text = node.namespace.output("curl", &scrape)?;
    for table in ["filter", "nat"] {
        for family in ["IPv4", "IPv6"] {
            let name = format!(
                "kubeproxy_sync_proxy_rules_iptables_total{{table=\"{table}\",ip_family=\"{family}\"}} "
            );
            let count = text.lines().find_map(|line| line.strip_prefix(&name));
            let count: u32 = count.with_context(|| format!("no {name}"))?.parse()?;
            ensure!(count > 0, "no rules: {name}{count}");
        }
    }
    Ok(())
}

/// Starts the node's proxy anew with another data plane, and waits until only that one has rules; virtual servers of IPVS may
/// wait for the end of their connections.
fn change(node: &mut Node, plane: Plane) -> Result<()> {
    let proxy = node.proxy_mut()?;
    proxy.terminate(PATIENCE)?;
    let arguments = &mut proxy.recipe_mut().arguments;
    let kept = arguments
        .iter()
        .position(|argument| argument == "--dataplane");
    arguments.truncate(kept.context("the proxy was not told its data plane")?);
    arguments.extend(plane.arguments().into_iter().map(Into::into));
    proxy.start_again()?;
    let wanted = plane.holders();
    let mut held = BTreeSet::new();
    wait::until("the rules of one data plane alone", PATIENCE, || {
        held = Holder::all_in(&node.namespace)?;
        let others = held.difference(&wanted);
        let none_rules = others
            .into_iter()
            .all(|other| *other == Holder::FoghornIpvs);
        Ok((wanted.is_subset(&held) && none_rules).then_some(()))
    })
    .with_context(|| format!("{held:?} have rules"))
}

impl Plane {
    fn arguments(self) -> Vec<String> {
        let words = match self {
            Nftables => "--dataplane nftables",
            IptablesNft => "--dataplane iptables --iptables-backend nft",
            IptablesLegacy => "--dataplane iptables --iptables-backend legacy",
            Ipvs => "--dataplane ipvs",
        };
        words.split(' ').map(str::to_owned).collect()
    }

    fn holders(self) -> BTreeSet<Holder> {
        match self {
            Nftables => [Holder::FoghornNftables].into(),
            IptablesNft => [Holder::FoghornIptablesNft].into(),
            IptablesLegacy => [Holder::FoghornIptablesLegacy].into(),
            Ipvs => [Holder::FoghornNftables, Holder::FoghornIpvs].into(),
        }
    }
}

fn cluster_ip(lab: &Lab) -> Result<IpAddr> {
    let service = lab.api.get("/api/v1/namespaces/default/services/web")?;
    let address = service["spec"]["clusterIP"].as_str();
    Ok(address.context("web has no ClusterIP")?.parse()?)
}
