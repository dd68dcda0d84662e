//! The real control plane of Kubernetes, as one program that plays every part.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::api::Api;
use crate::audit;
use crate::binaries::Binaries;
use crate::folder::RunFolder;
use crate::mode::Mode;
use crate::namespace::{Namespace, ip, output};
use crate::node::Node;
use crate::options::Options;
use crate::program::{Program, Recipe};
use crate::topology::{CLUSTER_CIDR, ROUTER_IPV4, ROUTER_IPV6, SERVICE_NETWORK_IPV6, nodes};
use crate::wait;

/// etcd, the API server, the controllers, the scheduler, and a `kubectl proxy` to talk to the API in plain HTTP.
#[derive(Debug)]
pub struct ControlPlane {
    folder: RunFolder,
    kubernetes: PathBuf,
    service_networks: String,
    /// The last one to start is the first to end.
    others: Vec<Program>,
    /// The API server, to be paused, killed and started again.
    pub api_server: Program,
    /// None if the control plane runs outside of this machine.
    etcd: Option<Program>,
}

impl ControlPlane {
    /// Makes the keys, also for so many nodes, and starts etcd and the API server, which writes down what Foghorn's accounts
    /// ask if `audited`.
    pub fn start(
        kubernetes: &Path,
        folder: &RunFolder,
        service_network: &str,
        node_count: u8,
        audited: bool,
    ) -> Result<Self> {
        let service_networks = format!("{service_network},{SERVICE_NETWORK_IPV6}");
        if let Some(keys) = std::env::var_os(OUTSIDE) {
            return Self::relayed(kubernetes, folder, service_networks, Path::new(&keys));
        }
        let outer = Namespace::outer();
        let logs = &folder.logs();
        let etcd = Program::start(etcd(kubernetes, &outer), logs)?;
        make_keys(kubernetes, &folder.pki(), node_count)?;
        let mut recipe = api_server(kubernetes, &folder.pki(), &outer, &service_networks);
        if audited {
            recipe = audit::record(recipe, folder)?;
        }
        let api_server = Program::start(recipe, logs)?;
        Ok(Self {
            folder: folder.clone(),
            kubernetes: kubernetes.to_owned(),
            service_networks,
            others: Vec::new(),
            api_server,
            etcd: Some(etcd),
        })
    }

    /// The one that runs outside of the emulated machine that this is: connections to it are passed on.
    fn relayed(
        kubernetes: &Path,
        folder: &RunFolder,
        service_networks: String,
        keys: &Path,
    ) -> Result<Self> {
        output(Command::new("cp").arg("-r").args([keys, &folder.pki()]))?;
        let logs = folder.logs();
        let outer = Namespace::outer();
        let api_server = relay("kube-apiserver", "TCP6-LISTEN:6443", API_PORT, &outer);
        let local = format!("TCP4-LISTEN:{PROXY_PORT},bind=127.0.0.1");
        let proxy = relay("kubectl-proxy", &local, PROXY_PORT, &outer);
        Ok(Self {
            folder: folder.clone(),
            kubernetes: kubernetes.to_owned(),
            service_networks,
            others: vec![Program::start(proxy, &logs)?],
            api_server: Program::start(api_server, &logs)?,
            etcd: None,
        })
    }

    /// Starts one for nodes in a machine that is emulated, and waits until it is ready.
    pub fn start_for_emulated(
        kubernetes: &Path,
        folder: &RunFolder,
        options: &Options,
    ) -> Result<Self> {
        // Here the API server has the address that the router has there.
        ip(&["address", "add", &format!("{ROUTER_IPV4}/32"), "dev", "lo"])?;
        let mut control_plane = Self::start(
            kubernetes,
            folder,
            &options.service_network,
            options.nodes,
            options.audited,
        )?;
        control_plane.wait_until_ready(options.kubernetes_controllers)?;
        Ok(control_plane)
    }

    /// Waits until the API server is ready, then starts the controllers and the scheduler, if they are wanted.
    pub fn wait_until_ready(&mut self, with_controllers: bool) -> Result<()> {
        if self.etcd.is_none() {
            return self.wait_for_api_server();
        }
        let outer = Namespace::outer();
        let kubeconfig = self.kubeconfig();
        let proxy = Recipe::new("kubectl-proxy", &self.kubernetes, &outer)
            .args(["kubectl", "proxy", "--reject-methods=^$"])
            .arg(format!("--port={PROXY_PORT}"))
            .arg(format!("--kubeconfig={}", kubeconfig.display()));
        self.others
            .push(Program::start(proxy, &self.folder.logs())?);
        let api = self.api();
        wait::until_ok("a ready API server", PATIENCE, || {
            self.etcd.iter_mut().try_for_each(Program::expect_running)?;
            self.api_server.expect_running()?;
            api.text("/readyz")
        })?;
        if !with_controllers {
            return Ok(());
        }
        for recipe in [
            scheduler(&self.kubernetes, &self.folder.pki(), &outer),
            controllers(
                &self.kubernetes,
                &self.folder.pki(),
                &outer,
                &self.service_networks,
            ),
        ] {
            self.others
                .push(Program::start(recipe, &self.folder.logs())?);
        }
        Ok(())
    }

    /// etcd, for whoever wants to know what it costs.
    pub fn etcd(&self) -> Result<&Program> {
        self.etcd.as_ref().context(NO_ETCD)
    }

    /// Copies what etcd holds; the API server is away meanwhile.
    pub fn back_up(&mut self) -> Result<()> {
        self.with_etcd_stopped(|| copy_folder(ETCD_FOLDER, BACKUP_FOLDER))
    }

    /// Puts etcd back to what [`Self::back_up`] copied, as an operator does after a disaster.
    pub fn put_backup_in_place(&mut self) -> Result<()> {
        self.with_etcd_stopped(|| {
            fs::remove_dir_all(ETCD_FOLDER)?;
            copy_folder(BACKUP_FOLDER, ETCD_FOLDER)
        })
    }

    fn with_etcd_stopped(&mut self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let etcd = self.etcd.as_mut().context(NO_ETCD)?;
        self.api_server.kill()?;
        etcd.terminate(PATIENCE)?;
        work()?;
        etcd.start_again()?;
        self.api_server.start_again()?;
        self.wait_for_api_server()
    }

    /// Waits until the API server answers again after it was away.
    pub fn wait_for_api_server(&self) -> Result<()> {
        wait::until_ok("a ready API server", PATIENCE, || {
            self.api().text("/readyz")
        })?;
        Ok(())
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.pki().join("admin.kubeconfig")
    }

    /// The API in plain HTTP.
    pub fn api(&self) -> Api {
        Api::new(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PROXY_PORT))
    }
}

/// The API server as nodes reach it: at the router's address.
pub(crate) fn server() -> String {
    format!("https://{ROUTER_IPV4}:{API_PORT}")
}

/// Passes connections on to the machine that emulates this one.
fn relay(name: &str, listen: &str, port: u16, namespace: &Namespace) -> Recipe {
    Recipe::new(name, "socat", namespace)
        .arg(format!("{listen},fork,reuseaddr"))
        .arg(format!("TCP4:{EMULATOR}:{port}"))
}

/// The node agent of a node.
pub fn node_agent(
    binaries: &Binaries,
    folder: &RunFolder,
    node: &Node,
    images: &[String],
) -> Result<Recipe> {
    let number = node.number;
    let pki = folder.pki();
    let recipe = Recipe::new(
        format!("node-agent-{number}"),
        binaries.kubernetes()?,
        &node.namespace,
    )
    .arg("node-agent")
    .args([
        "--node-name",
        &number.name(),
        "--node-netns",
        &number.name(),
    ])
    .args([
        "--node-addresses",
        &format!("{},{}", number.ipv4(), number.ipv6()),
    ])
    .args([
        "--pod-networks",
        &format!(
            "{},{}",
            number.pod_network_ipv4(),
            number.pod_network_ipv6()
        ),
    ])
    .arg("--kubeconfig")
    .arg(pki.join(format!("node-{number}.kubeconfig")))
    .arg("--network-kubeconfig")
    .arg(pki.join("kube-proxy.kubeconfig"))
    .args(["--state-directory", &format!("/run/{number}")])
    .args([
        "--image",
        &format!("agnhost={} pause", binaries.agnhost()?.display()),
    ])
    .args(["--image", &format!("foghorn={}/", folder.image().display())]);
    let more = images.iter().flat_map(|image| ["--image", image]);
    Ok(recipe.args(more))
}

/// The real kube-proxy of a node.
pub fn kube_proxy(
    binaries: &Binaries,
    folder: &RunFolder,
    node: &Node,
    mode: Mode,
) -> Result<Recipe> {
    Ok(Recipe::new(
        format!("kube-proxy-{}", node.number),
        binaries.kubernetes()?,
        &node.namespace,
    )
    .args(["kube-proxy", "--proxy-mode", mode.name()])
    .args(["--hostname-override", &node.number.name()])
    .args(["--cluster-cidr", CLUSTER_CIDR])
    .arg("--kubeconfig")
    .arg(folder.pki().join("kube-proxy.kubeconfig"))
    // Limits of the whole machine are not the lab's to set.
    .args(["--conntrack-max-per-core", "0", "--conntrack-min", "0"])
    .args([
        "--conntrack-tcp-timeout-established",
        "0",
        "--conntrack-tcp-timeout-close-wait",
        "0",
    ]))
}

fn make_keys(kubernetes: &Path, pki: &Path, node_count: u8) -> Result<()> {
    let mut command = Command::new(kubernetes);
    command
        .args([
            "pki",
            "--server-address",
            &format!("{ROUTER_IPV4},{ROUTER_IPV6}"),
        ])
        .args(["--server-url", &server()])
        .arg("--directory")
        .arg(pki);
    for node in nodes(node_count) {
        command.args(["--node", &node.name()]);
    }
    output(&mut command)?;
    Ok(())
}

fn etcd(kubernetes: &Path, outer: &Namespace) -> Recipe {
    // In the memory that is /run: nobody needs the data after the lab's end.
    Recipe::new("etcd", kubernetes, outer)
        .args([
            "etcd",
            "--data-dir",
            ETCD_FOLDER,
            "--unsafe-no-fsync",
            "--log-level",
            "warn",
        ])
        .args([
            "--listen-client-urls",
            ETCD,
            "--advertise-client-urls",
            ETCD,
        ])
        .args([
            "--listen-peer-urls",
            ETCD_PEER,
            "--initial-advertise-peer-urls",
            ETCD_PEER,
        ])
        .args(["--initial-cluster", &format!("default={ETCD_PEER}")])
}

fn api_server(kubernetes: &Path, pki: &Path, outer: &Namespace, service_networks: &str) -> Recipe {
    let mut recipe = Recipe::new("kube-apiserver", kubernetes, outer)
        .args(["kube-apiserver", "--etcd-servers", ETCD])
        .args([
            "--advertise-address",
            &ROUTER_IPV4.to_string(),
            "--bind-address",
            "::",
        ])
        .args(["--secure-port", "6443", "--cert-dir", "/run/apiserver"])
        .args([
            "--authorization-mode",
            "Node,RBAC",
            "--enable-admission-plugins",
            "NodeRestriction",
        ])
        .args(["--service-cluster-ip-range", service_networks])
        .arg("--allow-privileged")
        .args([
            "--service-account-issuer",
            "https://kubernetes.default.svc.cluster.local",
        ])
        .args(["--kubelet-preferred-address-types", "InternalIP"])
        .args(["--requestheader-allowed-names", "front-proxy-client"])
        .args(["--requestheader-extra-headers-prefix", "X-Remote-Extra-"])
        .args(["--requestheader-group-headers", "X-Remote-Group"])
        .args(["--requestheader-username-headers", "X-Remote-User"]);
    for (flag, file) in [
        ("--tls-cert-file", "apiserver.crt"),
        ("--tls-private-key-file", "apiserver.key"),
        ("--client-ca-file", "ca.crt"),
        ("--service-account-key-file", "sa.pub"),
        ("--service-account-signing-key-file", "sa.key"),
        (
            "--kubelet-client-certificate",
            "apiserver-kubelet-client.crt",
        ),
        ("--kubelet-client-key", "apiserver-kubelet-client.key"),
        ("--requestheader-client-ca-file", "front-proxy-ca.crt"),
        ("--proxy-client-cert-file", "front-proxy-client.crt"),
        ("--proxy-client-key-file", "front-proxy-client.key"),
    ] {
        recipe = recipe.arg(flag).arg(pki.join(file));
    }
    recipe
}

fn scheduler(kubernetes: &Path, pki: &Path, outer: &Namespace) -> Recipe {
    let recipe = Recipe::new("kube-scheduler", kubernetes, outer)
        .args([
            "kube-scheduler",
            "--leader-elect=false",
            "--bind-address",
            "127.0.0.1",
        ])
        .args(["--cert-dir", "/run/scheduler"]);
    with_kubeconfig(recipe, &pki.join("scheduler.kubeconfig"))
}

fn controllers(kubernetes: &Path, pki: &Path, outer: &Namespace, service_networks: &str) -> Recipe {
    let mut recipe = Recipe::new("kube-controller-manager", kubernetes, outer)
        .args([
            "kube-controller-manager",
            "--leader-elect=false",
            "--bind-address",
            "127.0.0.1",
        ])
        .args(["--cert-dir", "/run/controller-manager"])
        .args(["--allocate-node-cidrs", "--cluster-cidr", CLUSTER_CIDR])
        .args([
            "--node-cidr-mask-size-ipv4",
            "24",
            "--node-cidr-mask-size-ipv6",
            "64",
        ])
        .args([
            "--service-cluster-ip-range",
            service_networks,
            "--use-service-account-credentials",
        ]);
    for (flag, file) in [
        ("--service-account-private-key-file", "sa.key"),
        ("--root-ca-file", "ca.crt"),
        ("--cluster-signing-cert-file", "ca.crt"),
        ("--cluster-signing-key-file", "ca.key"),
    ] {
        recipe = recipe.arg(flag).arg(pki.join(file));
    }
    // It starts dozens of controllers, each with an account of its own: with the usual limit that alone takes five seconds.
    recipe = recipe.args(["--kube-api-qps", "500", "--kube-api-burst", "1000"]);
    with_kubeconfig(recipe, &pki.join("controller-manager.kubeconfig"))
}

fn with_kubeconfig(mut recipe: Recipe, kubeconfig: &Path) -> Recipe {
    for flag in [
        "--kubeconfig",
        "--authentication-kubeconfig",
        "--authorization-kubeconfig",
    ] {
        recipe = recipe.arg(flag).arg(kubeconfig);
    }
    recipe
}

fn copy_folder(from: &str, to: &str) -> Result<()> {
    output(Command::new("cp").args(["-a", from, to]))?;
    Ok(())
}

const ETCD_FOLDER: &str = "/run/etcd";
const BACKUP_FOLDER: &str = "/run/etcd-backup";
const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEER: &str = "http://127.0.0.1:2380";
pub(crate) const PROXY_PORT: u16 = 8001;
const API_PORT: u16 = 6443;
/// The variable that names the folder with the keys of a control plane outside of this emulated machine.
pub(crate) const OUTSIDE: &str = "FOGHORN_CONTROL_PLANE";
/// The emulating machine as qemu's network for users shows it.
const EMULATOR: &str = "10.0.2.2";
const NO_ETCD: &str = "etcd runs outside of this machine";
const PATIENCE: Duration = Duration::from_secs(180);
