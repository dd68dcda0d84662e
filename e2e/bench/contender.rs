//! Whom the bench compares, and how each is started, stopped and cleaned up after.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use e2e::lab::Lab;
use e2e::mode::Mode;
use e2e::program::{Program, Recipe};
use e2e::send_buffer;
use e2e::topology::{CLUSTER_CIDR, NODES, NodeNumber};
use serde::{Deserialize, Serialize};

use crate::usage::Usage;

/// A service proxy with its settings.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contender {
    /// Ours, nftables mode.
    Foghorn,
    /// Ours, iptables mode.
    FoghornIptables,
    /// Ours, IPVS mode.
    FoghornIpvs,
    /// The real kube-proxy, nftables mode, as it comes.
    Nftables,
    /// The same with `minSyncPeriod: 1ms`.
    NftablesFast,
    /// The real kube-proxy, iptables mode, as it comes.
    Iptables,
    /// The same with `minSyncPeriod: 1ms`.
    IptablesFast,
    /// The real kube-proxy, IPVS mode, as it comes.
    Ipvs,
    /// The same with `minSyncPeriod: 1ms`.
    IpvsFast,
}

/// Whose a contender is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Whose {
    Ours,
    KubeProxy,
    /// kube-proxy that takes a change as soon as it comes.
    KubeProxyFast,
}

impl Contender {
    /// What the tables call it, by which part of the kernel it forwards, and whose it is.
    const fn facts(self) -> (&'static str, Mode, Whose) {
        use Mode::{Iptables, Ipvs, Nftables};
        use Whose::{KubeProxy, KubeProxyFast, Ours};
        match self {
            Self::Foghorn => ("foghorn-proxy", Nftables, Ours),
            Self::FoghornIptables => ("foghorn-proxy iptables", Iptables, Ours),
            Self::FoghornIpvs => ("foghorn-proxy ipvs", Ipvs, Ours),
            Self::Nftables => ("kube-proxy nftables", Nftables, KubeProxy),
            Self::NftablesFast => (
                "kube-proxy nftables, minSyncPeriod 1 ms",
                Nftables,
                KubeProxyFast,
            ),
            Self::Iptables => ("kube-proxy iptables", Iptables, KubeProxy),
            Self::IptablesFast => (
                "kube-proxy iptables, minSyncPeriod 1 ms",
                Iptables,
                KubeProxyFast,
            ),
            Self::Ipvs => ("kube-proxy ipvs", Ipvs, KubeProxy),
            Self::IpvsFast => ("kube-proxy ipvs, minSyncPeriod 1 ms", Ipvs, KubeProxyFast),
        }
    }

    /// What the tables call it.
    pub(crate) const fn name(self) -> &'static str {
        self.facts().0
    }

    /// By which part of the kernel it forwards.
    pub(crate) const fn mode(self) -> Mode {
        self.facts().1
    }

    const fn whose(self) -> Whose {
        self.facts().2
    }

    /// Ours in a mode.
    pub(crate) const fn ours(mode: Mode) -> Self {
        match mode {
            Mode::Nftables => Self::Foghorn,
            Mode::Iptables => Self::FoghornIptables,
            Mode::Ipvs => Self::FoghornIpvs,
        }
    }

    /// Whether it is ours.
    pub(crate) fn is_ours(self) -> bool {
        self.whose() == Whose::Ours
    }

    /// Starts it on the first node.
    pub(crate) fn start(self, lab: &Lab) -> Result<Running> {
        let begin = Instant::now();
        let program = Program::start(self.recipe(lab)?, &lab.folder.logs())?;
        Ok(Running {
            contender: self,
            program,
            begin,
        })
    }

    /// Removes all rules it may have left.
    pub(crate) fn clean_up(self, lab: &Lab) -> Result<()> {
        if !self.is_ours() && self.mode() == Mode::Ipvs {
            return sweep(lab);
        }
        let mut recipe = self.recipe(lab)?;
        recipe.name.push_str("-cleanup");
        recipe.arguments.push("--cleanup".into());
        let mut program = Program::start(recipe, &lab.folder.logs())?;
        let status = program.wait(PATIENCE)?;
        ensure!(status.success(), "{} ended with {status}", program.name());
        Ok(())
    }

    /// How long the time since the last change must be, so that a change finds it idle.
    pub(crate) fn rest(self) -> Duration {
        match self.whose() {
            Whose::Ours | Whose::KubeProxyFast => Duration::from_millis(100),
            Whose::KubeProxy => Duration::from_millis(1100),
        }
    }

    /// How many Services it can load in one transaction, here.
    ///
    /// kube-proxy hands all of them to `nft`, as one message to the kernel. In a user namespace that message is limited
    /// by `net.core.wmem_max`, and it has about 4 KiB for each Service.
    pub(crate) fn most_services_at_once(self) -> u32 {
        if !self.is_ours() && self.mode() == Mode::Nftables && !is_really_root() {
            1000
        } else {
            u32::MAX
        }
    }

    fn recipe(self, lab: &Lab) -> Result<Recipe> {
        match self.whose() {
            Whose::Ours => recipe_of_ours(lab, self.mode()),
            Whose::KubeProxy => recipe_of_kube_proxy(lab, self.mode(), ""),
            Whose::KubeProxyFast => {
                let more = format!("{}: {{minSyncPeriod: 1ms}}\n", self.mode().name());
                recipe_of_kube_proxy(lab, self.mode(), &more)
            }
        }
    }
}

fn recipe_of_ours(lab: &Lab, mode: Mode) -> Result<Recipe> {
    let number = first_node()?;
    let node = lab.node(number)?;
    let kubeconfig = lab.kubeconfig_of("foghorn-proxy")?;
    let file = lab.binaries.foghorn("foghorn-proxy")?;
    let recipe = Recipe::new("foghorn-proxy", file, &node.namespace)
        .args(["--dataplane", mode.name(), "--cluster-cidr", CLUSTER_CIDR])
        .args(["--kubeconfig", &kubeconfig.display().to_string()])
        .args(["--node-name", &number.name()])
        .args(["--speaker-socket", "/run/foghorn-bench/proxy.sock"]);
    Ok(match mode {
        Mode::Nftables | Mode::Ipvs => recipe,
        // iptables-restore needs what kube-proxy's nft needs.
        Mode::Iptables => recipe.env("LD_PRELOAD", send_buffer::library(lab)?),
    })
}

/// kube-proxy with `more` in its file.
fn recipe_of_kube_proxy(lab: &Lab, mode: Mode, more: &str) -> Result<Recipe> {
    let number = first_node()?;
    let node = lab.node(number)?;
    let kubeconfig = lab.control_plane.kubeconfig();
    let kubeconfig = kubeconfig.display();
    let mode = mode.name();
    let file = lab.folder.path().join(format!("{mode}{}.yaml", more.len()));
    fs::write(
        &file,
        format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: {mode}
hostnameOverride: {number}
clusterCIDR: {CLUSTER_CIDR}
clientConnection: {{kubeconfig: {kubeconfig}}}
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
{more}"
        ),
    )?;
    let name = format!(
        "kube-proxy-{}",
        file.file_stem().unwrap_or_default().display()
    );
    let arguments = ["kube-proxy", "--config", &file.display().to_string()];
    Ok(
        Recipe::new(name, lab.binaries.kubernetes()?, &node.namespace)
            .args(arguments)
            .env("LD_PRELOAD", send_buffer::library(lab)?),
    )
}

/// A contender that runs.
#[derive(Debug)]
pub(crate) struct Running {
    /// Which one.
    pub(crate) contender: Contender,
    /// Since when.
    pub(crate) begin: Instant,
    program: Program,
}

impl Running {
    /// What it has used so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        Usage::of(self.program.process_id().context("it does not run")?)
    }

    /// Waits until it has nothing to do, and has had nothing to do for a while.
    pub(crate) fn wait_until_idle(&self) -> Result<()> {
        const STEP: Duration = Duration::from_millis(50);
        let deadline = Instant::now() + PATIENCE;
        let (mut used, mut since) = (self.usage()?.cpu_seconds, Instant::now());
        while since.elapsed() < self.contender.rest() {
            std::thread::sleep(STEP);
            let now = self.usage()?.cpu_seconds;
            // One tick is what timers and probes use.
            if now - used > 0.015 {
                (used, since) = (now, Instant::now());
            }
            ensure!(
                Instant::now() < deadline,
                "{} is never idle",
                self.program.name()
            );
        }
        Ok(())
    }

    /// Ends it and leaves its rules.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.program.terminate(PATIENCE)?;
        Ok(())
    }
}

/// Removes everything there is: `kube-proxy --cleanup` fails at a chain of its own after its IPVS mode ("Device or resource
/// busy", v1.37.2 with iptables 1.8.9).
fn sweep(lab: &Lab) -> Result<()> {
    let namespace = &lab.node(first_node()?)?.namespace;
    for (program, arguments) in [
        ("ipvsadm", &["-C"][..]),
        ("ip", &["link", "delete", "kube-ipvs0"]),
        ("nft", &["flush", "ruleset"]),
        ("ipset", &["destroy"]),
    ] {
        namespace.output(program, arguments)?;
    }
    Ok(())
}

/// The node that the contenders run on.
pub(crate) fn first_node() -> Result<NodeNumber> {
    NODES.first().copied().context("the lab has no nodes")
}

/// Whether this is the machine's root, and not only that of a user namespace.
fn is_really_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

const PATIENCE: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_has_one_of_ours_and_two_of_kube_proxy() {
        for mode in Mode::ALL {
            let ours = Contender::ours(mode);
            assert!(ours.is_ours() && ours.mode() == mode, "{ours:?}");
            let all = Contender::value_variants().iter();
            let others = all.filter(|one| one.mode() == mode && **one != ours);
            let others: Vec<_> = others.map(|one| one.whose()).collect();
            assert_eq!(others, [Whose::KubeProxy, Whose::KubeProxyFast]);
        }
    }
}
