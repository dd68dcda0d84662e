//! The lab as a whole: nodes (three of them, unless asked for more), a control plane and a client, from nothing to ready in seconds.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::accounts;
use crate::api::Api;
use crate::binaries::Binaries;
use crate::control_plane::{ControlPlane, OUTSIDE, kube_proxy, node_agent};
use crate::faults::Faults;
use crate::folder::RunFolder;
use crate::image::{self, PROGRAMS, PROGRAMS_WITH_IPTABLES};
use crate::installation::NAMESPACE;
use crate::kubectl::Kubectl;
use crate::lan::Lan;
use crate::manifest;
use crate::namespace::Namespace;
use crate::node::Node;
pub use crate::options::{Options, ServiceProxy, proxy_arguments};
use crate::program::{Program, Recipe};
use crate::topology::{CLUSTER_CIDR, NodeNumber};
use crate::wait;

/// A lab that runs. Dropping it ends all of it.
#[derive(Debug)]
pub struct Lab {
    /// Our controller.
    pub controller: Option<Program>,
    /// The nodes, in the order of their numbers.
    pub nodes: Vec<Node>,
    /// etcd, the API server and what stands beside it.
    pub control_plane: ControlPlane,
    /// Faults of the LAN.
    pub faults: Faults,
    /// The outside machine.
    pub client: Namespace,
    /// The router's network, where the control plane and the controller are.
    pub outer: Namespace,
    /// The API for programs.
    pub api: Api,
    /// The API for people.
    pub kubectl: Kubectl,
    /// Where the programs are.
    pub binaries: Binaries,
    /// The run's folder.
    pub folder: RunFolder,
    /// From nothing to ready.
    pub start_time: Duration,
}

impl Lab {
    /// Builds a lab and waits until its nodes are ready.
    pub fn start(options: &Options) -> Result<Self> {
        let binaries = Binaries::find()?;
        let folder = RunFolder::create(&binaries.runs, &options.name)?;
        Self::start_in(options, binaries, &folder).inspect_err(|_| folder.print_tails())
    }

    /// Starts the control plane alone, for nodes in an emulated machine, and runs the command that emulates it, which finds
    /// in its environment where the keys are; what the command's end was.
    pub fn serve_control_plane(options: &Options, command: &mut Command) -> Result<ExitStatus> {
        let binaries = Binaries::find()?;
        let folder = RunFolder::create(&binaries.runs, &options.name)?;
        let _control_plane =
            ControlPlane::start_for_emulated(&binaries.kubernetes()?, &folder, options)
                .inspect_err(|_| folder.print_tails())?;
        Ok(command.env(OUTSIDE, folder.pki()).status()?)
    }

    fn start_in(options: &Options, binaries: Binaries, folder: &RunFolder) -> Result<Self> {
        let begin = Instant::now();
        let logs = folder.logs();
        let lan = Lan::build(options.nodes)?;
        let kubernetes = binaries.kubernetes()?;
        let mut images = options.images.clone();
        if options.as_pods {
            let (programs, with_iptables) = (&binaries.foghorn, folder.iptables_image());
            image::write(programs, &PROGRAMS, &folder.image())?;
            image::write(programs, &PROGRAMS_WITH_IPTABLES, &with_iptables)?;
            images.push(format!("foghorn-iptables={}/", with_iptables.display()));
        }
        if let Some(programs) = &options.older {
            image::write(programs, &PROGRAMS, &folder.older_image())?;
            images.push(format!("foghorn-older={}/", folder.older_image().display()));
        }
        let mut control_plane = ControlPlane::start(
            &kubernetes,
            folder,
            &options.service_network,
            options.nodes,
            options.audited,
        )?;
        let Lan {
            mut nodes,
            client,
            faults,
            outer,
        } = lan;
        control_plane.wait_until_ready(options.kubernetes_controllers)?;

        let kubeconfig = control_plane.kubeconfig();
        let api = control_plane.api();
        for node in &mut nodes {
            if options.agents {
                let mut agent = node_agent(&binaries, folder, node, &images)?;
                // What runs in its Pods has no more priority than it.
                agent.urgent = options.as_pods;
                node.agent = Some(Program::start(agent, &logs)?);
            } else {
                register_node(&api, node.number)?;
            }
        }
        let kubectl = Kubectl::new(&kubernetes, &kubeconfig);
        let mut lab = Self {
            controller: None,
            nodes,
            api,
            control_plane,
            faults,
            client,
            outer,
            kubectl,
            binaries,
            folder: folder.clone(),
            start_time: Duration::ZERO,
        };
        lab.folder.write_scripts(&lab.binaries, &kubeconfig)?;
        lab.install(options)?;
        lab.start_programs(options)?;
        wait::until("ready nodes", Duration::from_secs(30), || {
            lab.expect_all_running()?;
            lab.api
                .ready_nodes()
                .map(|count| (count == lab.nodes.len()).then_some(()))
        })?;
        lab.start_time = begin.elapsed();
        Ok(lab)
    }

    /// Gives the cluster what the manifests have beside the Pods: definitions, and accounts with their rights.
    fn install(&self, options: &Options) -> Result<()> {
        let programs = programs(options);
        if programs.is_empty() {
            return Ok(());
        }
        let rights = accounts::write_rights(&self.folder)?;
        let rights = rights.display().to_string();
        if options.controller || options.speakers {
            let definitions = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crds");
            self.kubectl
                .run(&["apply", "-f", definitions, "-f", &rights])?;
            let wait = ["wait", "--for=condition=Established", "--timeout=20s", "-f"];
            self.kubectl.run(&[&wait[..], &[definitions]].concat())?;
            // The API server says so a moment before it serves them.
            let list = ["get", "ipaddresspools,l2advertisements,servicel2statuses"];
            wait::until_ok(
                "custom resources that are served",
                Duration::from_secs(20),
                || self.kubectl.run(&list),
            )?;
        } else {
            self.kubectl.run(&["apply", "-f", &rights])?;
        }
        programs
            .iter()
            .try_for_each(|program| accounts::write_kubeconfig(&self.api, &self.folder, program))
    }

    fn start_programs(&mut self, options: &Options) -> Result<()> {
        let logs = self.folder.logs();
        let binaries = &self.binaries;
        let folder = &self.folder;
        let configuration = self.folder.configuration();
        let program = |part: &str, suffix: &str, namespace: &Namespace| -> Result<Recipe> {
            let name = format!("foghorn-{part}");
            let recipe = Recipe::new(
                format!("{name}{suffix}"),
                binaries.foghorn(&name)?,
                namespace,
            )
            .arg("--kubeconfig")
            .arg(accounts::kubeconfig(folder, &name))
            .args(["--log-level", &options.log_level, "--debug-endpoints"]);
            Ok(if options.configuration_files && part != "proxy" {
                recipe.arg("--config").arg(&configuration)
            } else {
                recipe
            })
        };
        if options.controller {
            let recipe =
                program("controller", "", &self.outer)?.args(["--lease-namespace", NAMESPACE]);
            self.controller = Some(Program::start(recipe, &logs)?);
        }
        let heartbeat_interval = wait::patience(HEARTBEAT_INTERVAL).as_millis().to_string();
        for node in &mut self.nodes {
            let name = node.number.name();
            let suffix = format!("-{name}");
            // The nodes of the lab share one file system, and with it /run.
            let socket = format!("/run/foghorn-{name}/proxy.sock");
            if options.speakers {
                let heartbeat_key = folder.heartbeat_key(node.number);
                fs::write(&heartbeat_key, HEARTBEAT_KEY)?;
                let recipe = program("speaker", &suffix, &node.namespace)?
                    .args(["--node-name", &name])
                    .args(["--heartbeat-interval-ms", &heartbeat_interval])
                    .arg("--heartbeat-key-file")
                    .arg(heartbeat_key)
                    .args(["--proxy-socket", &socket])
                    .urgent();
                node.speaker = Some(Program::start(recipe, &logs)?);
            }
            let recipe = match options.proxy {
                ServiceProxy::Foghorn => program("proxy", &suffix, &node.namespace)?
                    .args(["--node-name", &name, "--cluster-cidr", CLUSTER_CIDR])
                    .args(["--speaker-socket", &socket])
                    .args(&options.proxy_arguments),
                ServiceProxy::KubeProxy(mode) => kube_proxy(binaries, &self.folder, node, mode)?,
                ServiceProxy::None => continue,
            };
            node.proxy = Some(Program::start(recipe, &logs)?);
        }
        Ok(())
    }

    /// One of the nodes.
    pub fn node(&self, number: NodeNumber) -> Result<&Node> {
        self.nodes
            .iter()
            .find(|node| node.number == number)
            .with_context(|| format!("there is no {number}"))
    }

    /// One of the nodes, to do something to its programs.
    pub fn node_mut(&mut self, number: NodeNumber) -> Result<&mut Node> {
        self.nodes
            .iter_mut()
            .find(|node| node.number == number)
            .with_context(|| format!("there is no {number}"))
    }

    /// Our controller, to do something to it.
    pub fn controller_mut(&mut self) -> Result<&mut Program> {
        self.controller.as_mut().context("no controller runs")
    }

    /// Every program that runs or ran.
    pub fn programs(&mut self) -> impl Iterator<Item = &mut Program> {
        let on_nodes = self
            .nodes
            .iter_mut()
            .flat_map(|node| [&mut node.agent, &mut node.speaker, &mut node.proxy]);
        on_nodes.chain([&mut self.controller]).flatten()
    }

    /// Fails if a program has ended that nobody ended.
    pub fn expect_all_running(&mut self) -> Result<()> {
        self.programs().try_for_each(Program::expect_running)
    }
}

/// Runs `test` in a lab of its own; if it fails, shows the end of every log.
pub fn with_lab(options: &Options, test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    let mut lab = Lab::start(options)?;
    let outcome = guard(&mut lab, test);
    if outcome.is_ok() && std::env::var_os("FOGHORN_KEEP_LOGS").is_none() {
        let folder = lab.folder.clone();
        drop(lab);
        fs::remove_dir_all(folder.path())?;
    }
    outcome
}

/// Runs `test` in a lab; if it fails, or a program has ended, shows the end of every log.
pub fn guard(lab: &mut Lab, test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        test(lab)?;
        lab.expect_all_running()?;
        lab.expect_rights_to_suffice()
    }));
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            lab.folder.print_tails();
            Err(error)
        }
        Err(panic) => {
            lab.folder.print_tails();
            resume_unwind(panic)
        }
    }
}

/// The key that all speakers begin with.
pub const HEARTBEAT_KEY: &str = "the heartbeat key of the lab, 32 octets or more\n";
/// What speakers have by themselves, on a machine that is no slower than most.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(50);

fn register_node(api: &Api, number: NodeNumber) -> Result<()> {
    let (object, status) = manifest::node(number);
    api.create("/api/v1/nodes", &object)?;
    api.patch(&format!("/api/v1/nodes/{number}/status"), &status)?;
    Ok(())
}

/// The programs of Foghorn that the lab runs itself.
fn programs(options: &Options) -> Vec<&'static str> {
    let all = [
        (options.controller, "foghorn-controller"),
        (options.speakers, "foghorn-speaker"),
        (options.proxy == ServiceProxy::Foghorn, "foghorn-proxy"),
    ];
    all.into_iter()
        .filter_map(|(runs, name)| runs.then_some(name))
        .collect()
}
