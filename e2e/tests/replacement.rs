//! kube-proxy is replaced by foghorn-proxy on a node under load, with its own configuration file, and put back: in each of its
//! modes.
//!
//! Run by `make test-replacement`, and by `make test-ipvs-moves` with its IPVS mode.

#![expect(clippy::print_stdout, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::{Protocol, Question, Target};
use e2e::holder::Holder;
use e2e::lab::{Lab, Options, ServiceProxy, with_lab};
use e2e::long::LongConnection;
use e2e::manifest::{TCP_PORT, UDP_PORT};
use e2e::mode::Mode;
use e2e::node::Node;
use e2e::program::{Program, Recipe};
use e2e::questions::{at, items_of};
use e2e::stream::{Pace, Stream};
use e2e::topology::{CLUSTER_CIDR, Family, NODES, NodeNumber};
use e2e::wait;

const PATIENCE: Duration = Duration::from_secs(30);
/// A question that has no answer for so long is what a person would call a break.
fn pace() -> Pace {
    Pace {
        interval: wait::patience(Duration::from_millis(10)),
        patience: wait::patience(Duration::from_secs(3)),
    }
}

/// kube-proxy in one of its modes, and ours in its place in one of ours.
#[derive(Clone, Copy, Debug)]
struct Case {
    theirs: Mode,
    ours: Mode,
}

/// Where the kernel has no IPVS.
const CASES: &[Case] = &[
    case(Mode::Nftables, Mode::Nftables),
    case(Mode::Iptables, Mode::Nftables),
    case(Mode::Iptables, Mode::Iptables),
];
const CASES_OF_IPVS: &[Case] = &[
    case(Mode::Ipvs, Mode::Ipvs),
    case(Mode::Ipvs, Mode::Nftables),
];

const fn case(theirs: Mode, ours: Mode) -> Case {
    Case { theirs, ours }
}

#[test]
#[ignore = "needs the lab: make test-replacement"]
fn kube_proxy_is_replaced_and_put_back_under_load() -> Result<()> {
    let (before, cases) = match Mode::from_environment()? {
        Mode::Ipvs => (Mode::Ipvs, CASES_OF_IPVS),
        Mode::Nftables | Mode::Iptables => (Mode::Nftables, CASES),
    };
    let options = Options {
        proxy: ServiceProxy::KubeProxy(before),
        ..Options::kubernetes("replacement")
    };
    with_lab(&options, |lab| {
        lab.create_web("web")?;
        lab.wait_for_endpoints("default", "web", 3, PATIENCE)?;
        // Each on a node of its own.
        for (&case, number) in cases.iter().zip(NODES) {
            replaced_and_put_back(lab, number, case).with_context(|| format!("{case:?}"))?;
        }
        Ok(())
    })
}

fn replaced_and_put_back(lab: &mut Lab, number: NodeNumber, case: Case) -> Result<()> {
    let (theirs, ours) = (case.theirs.name(), case.ours.name());
    println!("{number}: kube-proxy with {theirs}, foghorn-proxy with {ours}");
    let port = node_port(lab, Protocol::Tcp)?;
    start_kube_proxy_with(lab.node_mut(number)?, case.theirs, port)?;
    let load = Load::start(lab, number)?;

    let mut foghorn = replace(lab, number, case)?;
    let first = load.wait_for_more("foghorn-proxy in the place of kube-proxy")?;
    put_back(lab, number, &mut foghorn, case)?;
    load.wait_for_more("kube-proxy in the place of foghorn-proxy")?;
    ensure!(first > 0, "nothing was asked while foghorn-proxy was there");
    load.stop()
}

/// It removes the rules of its other modes.
fn start_kube_proxy_with(node: &mut Node, mode: Mode, port: u16) -> Result<()> {
    let proxy = node.proxy_mut()?;
    proxy.terminate(PATIENCE)?;
    let arguments = &mut proxy.recipe_mut().arguments;
    let name = arguments
        .iter()
        .position(|argument| argument == "--proxy-mode");
    let name = name.context("kube-proxy was not told its mode")? + 1;
    *arguments.get_mut(name).context("no mode")? = mode.name().into();
    proxy.start_again()?;
    let wanted = holders_of_kube_proxy(mode);
    wait_for_holders("the rules of kube-proxy alone", node, &wanted, || Ok(()))?;
    wait::until("the NodePort in its rules", PATIENCE, || {
        Ok(kube_proxy_serves(node, mode, port)?.then_some(()))
    })
}

/// The old one ends and leaves its rules; the new one takes over, and only then removes them.
fn replace(lab: &mut Lab, number: NodeNumber, case: Case) -> Result<Program> {
    let kubeconfig = lab.kubeconfig_of("foghorn-proxy")?;
    let file = lab.folder.path().join("config.conf");
    fs::write(
        &file,
        format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
bindAddress: 0.0.0.0
clientConnection:
  kubeconfig: {}
clusterCIDR: {CLUSTER_CIDR}
conntrack:
  maxPerCore: 32768
mode: {}
",
            kubeconfig.display(),
            case.ours.name()
        ),
    )?;
    let recipe = {
        let binary = lab.binaries.foghorn("foghorn-proxy")?;
        let namespace = &lab.node(number)?.namespace;
        Recipe::new("foghorn-proxy-replacing", binary, namespace)
            .arg("--config")
            .arg(&file)
            .args(["--hostname-override", &number.name()])
            .args(["--speaker-socket", "/run/foghorn-replacing/proxy.sock"])
    };
    let logs = lab.folder.logs();
    let node = lab.node_mut(number)?;
    let mut kube_proxy = node.proxy.take().context("no kube-proxy runs")?;
    kube_proxy.terminate(PATIENCE)?;
    let left = Holder::all_in(&node.namespace)?;
    ensure!(
        left == holders_of_kube_proxy(case.theirs),
        "with kube-proxy its rules went, or others were there: {left:?}"
    );
    let mut foghorn = Program::start(recipe, &logs)?;
    let ours = holders_of_foghorn(case.ours);
    let wanted: BTreeSet<Holder> = match (case.theirs, case.ours) {
        // Connections through IPVS stay there as long as they live, behind servers that are ours now if we have IPVS too.
        (Mode::Ipvs, Mode::Nftables | Mode::Iptables) => &ours | &[Holder::KubeProxyIpvs].into(),
        _ => ours,
    };
    wait_for_holders("the rules of kube-proxy to go", node, &wanted, || {
        foghorn.expect_running()
    })?;
    let said = foghorn.log_text()?;
    ensure!(
        said.contains("config.conf:8:15: conntrack.maxPerCore has no effect"),
        "the field that does nothing was not named:\n{said}"
    );
    node.proxy = Some(kube_proxy);
    Ok(foghorn)
}

/// Ours ends and leaves its rules, the other one takes over, and only then ours are removed.
fn put_back(lab: &mut Lab, number: NodeNumber, foghorn: &mut Program, case: Case) -> Result<()> {
    let port = node_port(lab, Protocol::Tcp)?;
    let logs = lab.folder.logs();
    let node = lab.node_mut(number)?;
    foghorn.terminate(PATIENCE)?;
    node.proxy_mut()?.start_again()?;
    wait::until("the rules of kube-proxy", PATIENCE, || {
        Ok(kube_proxy_serves(node, case.theirs, port)?.then_some(()))
    })?;
    let mut cleanup = foghorn.recipe().clone();
    cleanup.name.push_str("-cleanup");
    cleanup.arguments.push("--cleanup".into());
    let status = Program::start(cleanup, &logs)?.wait(PATIENCE)?;
    ensure!(status.success(), "--cleanup ended with {status}");
    let left = Holder::all_in(&node.namespace)?;
    ensure!(
        left == holders_of_kube_proxy(case.theirs),
        "after --cleanup there is: {left:?}"
    );
    Ok(())
}

fn wait_for_holders(
    what: &str,
    node: &Node,
    wanted: &BTreeSet<Holder>,
    mut look: impl FnMut() -> Result<()>,
) -> Result<()> {
    let mut held = BTreeSet::new();
    wait::until(what, PATIENCE, || {
        look()?;
        held = Holder::all_in(&node.namespace)?;
        Ok((held == *wanted).then_some(()))
    })
    .with_context(|| format!("{held:?} have rules"))
}

/// Whether both families of a NodePort are in its rules, and the syncs that wrote them are over.
fn kube_proxy_serves(node: &Node, mode: Mode, port: u16) -> Result<bool> {
    for (table, program) in [("ip", "iptables"), ("ip6", "ip6tables")] {
        let namespace = &node.namespace;
        let chains = || namespace.output(&format!("{program}-nft-save"), &["-t", "nat"]);
        let (rules, place, mark) = match mode {
            Mode::Nftables => {
                let table = ["list", "table", table, "kube-proxy"];
                // It may not be there yet.
                let rules = namespace.output("nft", &table).unwrap_or_default();
                (rules, "", format!("tcp . {port} :"))
            }
            Mode::Iptables => (chains()?, "-A KUBE-NODEPORTS", format!("--dport {port} ")),
            // The last that it writes.
            Mode::Ipvs => (
                chains()?,
                "-A KUBE-SERVICES",
                "CLUSTER-IP dst,dst".to_owned(),
            ),
        };
        let marked = |line: &str| line.starts_with(place) && line.contains(&mark);
        if !rules.lines().any(marked) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holders_of_kube_proxy(mode: Mode) -> BTreeSet<Holder> {
    match mode {
        Mode::Nftables => [Holder::KubeProxyNftables].into(),
        Mode::Iptables => [Holder::KubeProxyIptables].into(),
        Mode::Ipvs => [Holder::KubeProxyIptables, Holder::KubeProxyIpvs].into(),
    }
}

fn holders_of_foghorn(mode: Mode) -> BTreeSet<Holder> {
    match mode {
        Mode::Nftables => [Holder::FoghornNftables].into(),
        // The back end that this machine uses.
        Mode::Iptables => [Holder::FoghornIptablesNft].into(),
        Mode::Ipvs => [Holder::FoghornNftables, Holder::FoghornIpvs].into(),
    }
}

/// Clients of the node's NodePorts: new connections all the time, and two that stay.
struct Load {
    streams: Vec<(Target, Stream)>,
    long: Vec<LongConnection>,
}

impl Load {
    fn start(lab: &Lab, number: NodeNumber) -> Result<Self> {
        let ports = [
            (Protocol::Tcp, node_port(lab, Protocol::Tcp)?),
            (Protocol::Udp, node_port(lab, Protocol::Udp)?),
        ];
        let pace = pace();
        let (mut streams, mut long) = (Vec::new(), Vec::new());
        for family in Family::BOTH {
            for (protocol, port) in ports {
                let address = at(number.address(family), port);
                let target = Target { address, protocol };
                wait::until_ok("the NodePort", PATIENCE, || {
                    target.ask_from(&lab.client, Question::Hostname, pace.patience)
                })?;
                let stream = Stream::start(&lab.client, target, Question::Hostname, pace)?;
                streams.push((target, stream));
                if protocol == Protocol::Tcp {
                    let interval = pace.interval;
                    let connection =
                        LongConnection::start(&lab.client, address, interval, pace.patience)?;
                    long.push(connection);
                }
            }
        }
        Ok(Self { streams, long })
    }

    /// Waits until every connection that stays has had more answers, and every stream one to a new connection.
    fn wait_for_more(&self, title: &str) -> Result<u32> {
        for (_, stream) in &self.streams {
            stream.wait_for_answer(stream.now(), PATIENCE, |_| true)?;
        }
        for connection in &self.long {
            connection.wait_for_answers(50, PATIENCE)?;
        }
        let answers = self.long.iter().map(LongConnection::answers).sum();
        println!("{title}: {answers} answers on the connections that stay");
        Ok(answers)
    }

    fn stop(self) -> Result<()> {
        for connection in self.long {
            connection.stop()?;
        }
        for (target, stream) in self.streams {
            let record = stream.stop()?;
            let gap = record.longest_gap().length;
            println!(
                "{target}: {} answers, {} lost, the longest gap {} ms",
                record.answered(),
                record.lost().values().sum::<usize>(),
                gap.as_millis()
            );
            ensure!(
                record.lost().is_empty(),
                "{target}: {:?} were lost",
                record.lost()
            );
        }
        Ok(())
    }
}

fn node_port(lab: &Lab, protocol: Protocol) -> Result<u16> {
    let service = lab.api.get("/api/v1/namespaces/default/services/web")?;
    let port = match protocol {
        Protocol::Tcp => TCP_PORT,
        Protocol::Udp => UDP_PORT,
    };
    let spec = service.get("spec").context("no spec")?;
    let found = items_of(spec.get("ports").context("no ports")?)
        .find(|found| found.get("port").and_then(serde_json::Value::as_u64) == Some(port.into()))
        .and_then(|found| found.get("nodePort")?.as_u64());
    Ok(u16::try_from(found.context("no node port")?)?)
}
