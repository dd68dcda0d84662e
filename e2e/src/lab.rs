//! The lab as a whole: three nodes, a control plane and a client, from nothing to ready in seconds.

#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value answers null for what it does not have"
)]

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::api::Api;
use crate::binaries::Binaries;
use crate::control_plane::{ControlPlane, kube_proxy, node_agent};
use crate::faults::Faults;
use crate::kubectl::Kubectl;
use crate::lan::Lan;
use crate::manifest;
use crate::namespace::Namespace;
use crate::node::Node;
use crate::program::{Program, Recipe, tail};
use crate::topology::{CLUSTER_CIDR, NODES, NodeNumber};
use crate::wait;

/// Who forwards traffic to Services on the nodes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ServiceProxy {
    /// Our proxy.
    Foghorn,
    /// The real kube-proxy in nftables mode.
    KubeProxy,
    /// Nobody.
    None,
}

/// Which lab to build.
#[derive(Clone, Debug)]
pub struct Options {
    /// A name for its folder.
    pub name: String,
    /// Whether to run our controller.
    pub controller: bool,
    /// Whether to run our speakers.
    pub speakers: bool,
    /// Which service proxy to run.
    pub proxy: ServiceProxy,
    /// How much our programs log: `info`, `debug`, ...
    pub log_level: String,
    /// Whether the controller and the speakers also read the files in the run's folder `config`.
    pub configuration_files: bool,
}

impl Options {
    /// All of Foghorn.
    pub fn foghorn(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            controller: true,
            speakers: true,
            proxy: ServiceProxy::Foghorn,
            log_level: "info".to_owned(),
            configuration_files: false,
        }
    }

    /// Kubernetes alone, with the real kube-proxy.
    pub fn kubernetes(name: &str) -> Self {
        Self {
            controller: false,
            speakers: false,
            proxy: ServiceProxy::KubeProxy,
            ..Self::foghorn(name)
        }
    }
}

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
    pub directory: PathBuf,
    /// From nothing to ready.
    pub start_time: Duration,
}

impl Lab {
    /// Builds a lab and waits until its nodes are ready.
    pub fn start(options: &Options) -> Result<Self> {
        let binaries = Binaries::find()?;
        let directory = make_directory(&binaries.runs, &options.name)?;
        Self::start_in(options, binaries, &directory).inspect_err(|_| print_tails(&directory))
    }

    fn start_in(options: &Options, binaries: Binaries, directory: &Path) -> Result<Self> {
        let begin = Instant::now();
        let logs = logs(directory);
        let lan = Lan::build()?;
        let kubernetes = binaries.kubernetes()?;
        let mut control_plane = ControlPlane::start(&kubernetes, directory, &logs)?;
        let Lan {
            mut nodes,
            client,
            faults,
            outer,
        } = lan;
        control_plane.wait_until_ready()?;

        let kubeconfig = control_plane.kubeconfig();
        for node in &mut nodes {
            let agent = node_agent(&binaries, directory, node)?;
            node.agent = Some(Program::start(agent, &logs)?);
        }
        let kubectl = Kubectl::new(&kubernetes, &kubeconfig);
        let mut lab = Self {
            controller: None,
            nodes,
            api: control_plane.api(),
            control_plane,
            faults,
            client,
            outer,
            kubectl,
            binaries,
            directory: directory.to_owned(),
            start_time: Duration::ZERO,
        };
        lab.write_scripts()?;
        if options.controller || options.speakers {
            install_custom_resources(&lab.binaries, &lab.kubectl)?;
        }
        lab.start_programs(options)?;
        wait::until_ok("ready nodes", Duration::from_secs(30), || {
            lab.expect_nodes_ready()
        })?;
        lab.start_time = begin.elapsed();
        Ok(lab)
    }

    fn start_programs(&mut self, options: &Options) -> Result<()> {
        let logs = logs(&self.directory);
        let heartbeat_key = self.directory.join("heartbeat.key");
        fs::write(
            &heartbeat_key,
            "the heartbeat key of the lab, 32 octets or more\n",
        )?;
        fs::create_dir(self.configuration())?;
        let kubeconfig = self.control_plane.kubeconfig();
        let binaries = &self.binaries;
        let configuration = self.directory.join("config");
        let program = |part: &str, suffix: &str, namespace: &Namespace| -> Result<Recipe> {
            let name = format!("foghorn-{part}");
            let recipe = Recipe::new(
                format!("{name}{suffix}"),
                binaries.foghorn(&name)?,
                namespace,
            )
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .args(["--log-level", &options.log_level]);
            Ok(if options.configuration_files && part != "proxy" {
                recipe.arg("--config").arg(&configuration)
            } else {
                recipe
            })
        };
        if options.controller {
            self.controller = Some(Program::start(
                program("controller", "", &self.outer)?,
                &logs,
            )?);
        }
        for node in &mut self.nodes {
            let name = node.number.name();
            let suffix = format!("-{name}");
            if options.speakers {
                let recipe = program("speaker", &suffix, &node.namespace)?
                    .args(["--node-name", &name])
                    .arg("--heartbeat-key-file")
                    .arg(&heartbeat_key);
                node.speaker = Some(Program::start(recipe, &logs)?);
            }
            let recipe = match options.proxy {
                ServiceProxy::Foghorn => program("proxy", &suffix, &node.namespace)?.args([
                    "--node-name",
                    &name,
                    "--cluster-cidr",
                    CLUSTER_CIDR,
                ]),
                ServiceProxy::KubeProxy => kube_proxy(binaries, &self.directory, node)?,
                ServiceProxy::None => continue,
            };
            node.proxy = Some(Program::start(recipe, &logs)?);
        }
        Ok(())
    }

    /// The folder that `--config` names, if the options say so.
    pub fn configuration(&self) -> PathBuf {
        self.directory.join("config")
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

    /// Makes three Pods, one on each node, and a dual-stack Service of type LoadBalancer before them.
    pub fn create_web(&self, name: &str) -> Result<()> {
        self.api.create(
            "/apis/apps/v1/namespaces/default/deployments",
            &manifest::deployment(name, 3),
        )?;
        self.api.create(
            "/api/v1/namespaces/default/services",
            &manifest::load_balancer(name),
        )?;
        Ok(())
    }

    /// The external addresses that a Service has, in the order of its status.
    pub fn external_addresses(&self, namespace: &str, service: &str) -> Result<Vec<IpAddr>> {
        let service = self.api.get(&format!(
            "/api/v1/namespaces/{namespace}/services/{service}"
        ))?;
        Ok(external_addresses(&service))
    }

    /// Waits until a Service has `count` external addresses.
    pub fn wait_for_external_addresses(
        &self,
        namespace: &str,
        service: &str,
        count: usize,
        patience: Duration,
    ) -> Result<Vec<IpAddr>> {
        wait::until(
            &format!("{count} external addresses of {service}"),
            patience,
            || {
                let addresses = self.external_addresses(namespace, service)?;
                Ok((addresses.len() == count).then_some(addresses))
            },
        )
    }

    /// Waits until a Service has this many ready endpoints for each family; returns the Pods' names and their nodes.
    pub fn wait_for_endpoints(
        &self,
        namespace: &str,
        service: &str,
        count: usize,
        patience: Duration,
    ) -> Result<BTreeMap<String, String>> {
        let path = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io/service-name={service}"
        );
        wait::until(&format!("{count} endpoints of {service}"), patience, || {
            let slices = self.api.get(&path)?;
            let mut families = BTreeMap::<&str, BTreeMap<String, String>>::new();
            for slice in items(&slices) {
                let pods = families
                    .entry(slice["addressType"].as_str().unwrap_or_default())
                    .or_default();
                for endpoint in items_of(&slice["endpoints"]) {
                    if endpoint["conditions"]["ready"] == true {
                        pods.insert(
                            endpoint["targetRef"]["name"]
                                .as_str()
                                .unwrap_or_default()
                                .to_owned(),
                            endpoint["nodeName"].as_str().unwrap_or_default().to_owned(),
                        );
                    }
                }
            }
            let complete =
                !families.is_empty() && families.values().all(|pods| pods.len() == count);
            Ok(complete.then(|| families.into_values().next().unwrap_or_default()))
        })
    }

    /// The network namespace of the Pod that has this address.
    pub fn pod_namespace(&self, address: IpAddr) -> Result<Namespace> {
        for entry in fs::read_dir("/run/netns")? {
            let namespace = Namespace::named(&entry?.file_name().to_string_lossy());
            // A namespace that goes away while we look belongs to another Pod.
            if namespace
                .run(|| has_address(address))
                .is_ok_and(|found| found)
            {
                return Ok(namespace);
            }
        }
        bail!("no network namespace has {address}")
    }

    fn expect_nodes_ready(&self) -> Result<()> {
        let nodes = self.api.get("/api/v1/nodes")?;
        let ready = items(&nodes)
            .filter(|node| {
                items_of(&node["status"]["conditions"])
                    .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
            })
            .count();
        if ready < NODES.len() {
            bail!("{ready} of {} nodes are ready", NODES.len());
        }
        Ok(())
    }

    fn write_scripts(&self) -> Result<()> {
        let bin = self.directory.join("bin");
        fs::create_dir_all(&bin)?;
        let path = format!("{}:{}", bin.display(), self.binaries.foghorn.display());
        let kubernetes = self.binaries.kubernetes()?;
        script(
            &bin.join("kubectl"),
            &format!("exec {} kubectl \"$@\"\n", kubernetes.display()),
        )?;
        let kubeconfig = self.control_plane.kubeconfig();
        let environment = format!(
            "export PATH=\"{path}:$PATH\" KUBECONFIG=\"{}\"\n",
            kubeconfig.display()
        );
        script(
            &bin.join("shell"),
            &format!("{environment}exec \"${{SHELL:-/bin/sh}}\"\n"),
        )?;
        let outer_pid = std::env::var("IN_NAMESPACES_OUTER_PID").unwrap_or_default();
        script(
            &self.directory.join("enter"),
            &format!(
                r#"# enter [client|node-1|node-2|node-3] [COMMAND [ARGUMENT...]]: runs a command, or a shell, inside the lab.
{environment}network=
case "${{1-}}" in
client | node-*) network="nsenter --net=/run/netns/$1 --"; shift ;;
esac
[ $# -gt 0 ] || set -- "${{SHELL:-/bin/sh}}"
read -r first _ </proc/{outer_pid}/task/{outer_pid}/children
exec nsenter --target "$first" --user --preserve-credentials --mount --net --pid -- \
    sh -c 'cd "$0" && exec "$@"' "$PWD" $network "$@"
"#
            ),
        )
    }
}

/// Runs `test` in a lab of its own; if it fails, shows the end of every log.
pub fn with_lab(options: &Options, test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    let mut lab = Lab::start(options)?;
    let outcome = guard(&mut lab, test);
    if outcome.is_ok() && std::env::var_os("FOGHORN_KEEP_LOGS").is_none() {
        let directory = lab.directory.clone();
        drop(lab);
        fs::remove_dir_all(directory)?;
    }
    outcome
}

/// Runs `test` in a lab; if it fails, or a program has ended, shows the end of every log.
pub fn guard(lab: &mut Lab, test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        test(lab)?;
        lab.expect_all_running()
    }));
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            print_tails(&lab.directory);
            Err(error)
        }
        Err(panic) => {
            print_tails(&lab.directory);
            resume_unwind(panic)
        }
    }
}

/// The external addresses in a Service's status.
pub fn external_addresses(service: &Value) -> Vec<IpAddr> {
    items_of(&service["status"]["loadBalancer"]["ingress"])
        .filter_map(|ingress| ingress["ip"].as_str()?.parse().ok())
        .collect()
}

/// The objects of a list.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    items_of(&list["items"])
}

/// The values of an array; none if it is no array.
pub fn items_of(array: &Value) -> impl Iterator<Item = &Value> {
    array.as_array().into_iter().flatten()
}

/// An address and a port.
pub fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

fn has_address(address: IpAddr) -> bool {
    // Binding to an address works only where it is.
    UdpSocket::bind((address, 0)).is_ok()
}

fn install_custom_resources(binaries: &Binaries, kubectl: &Kubectl) -> Result<()> {
    let program = binaries.foghorn("kubectl-foghorn")?;
    let yaml = crate::namespace::output(process::Command::new(program).arg("crds"))?;
    kubectl.apply(&yaml)?;
    kubectl.run(&[
        "wait",
        "--for=condition=Established",
        "--timeout=20s",
        "crd",
        "--all",
    ])?;
    Ok(())
}

fn make_directory(runs: &Path, name: &str) -> Result<PathBuf> {
    const KEPT_RUNS: usize = 10;
    fs::create_dir_all(runs)?;
    let mut earlier: Vec<(SystemTime, PathBuf)> = fs::read_dir(runs)?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
        })
        .collect();
    earlier.sort();
    let count = earlier.len();
    for (_, run) in earlier.into_iter().take(count.saturating_sub(KEPT_RUNS)) {
        // Somebody else's leftovers stay.
        let _ = fs::remove_dir_all(run);
    }
    let seconds = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs();
    let directory = runs.join(format!("{name}-{seconds}"));
    fs::create_dir(&directory)
        .with_context(|| format!("failed to make {}", directory.display()))?;
    fs::create_dir(logs(&directory))?;
    Ok(directory)
}

fn logs(directory: &Path) -> PathBuf {
    directory.join("logs")
}

fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{text}"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[expect(
    clippy::print_stderr,
    reason = "a failed test shows what the programs said"
)]
fn print_tails(directory: &Path) {
    const LINES: usize = 25;
    let mut files: Vec<PathBuf> = fs::read_dir(logs(directory))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    for file in files {
        eprintln!(
            "──── the last lines of {}\n{}",
            file.display(),
            tail(&file, LINES)
        );
    }
}
