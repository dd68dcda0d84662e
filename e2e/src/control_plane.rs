//! The real control plane of Kubernetes, as one program that plays every part.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::api::Api;
use crate::binaries::Binaries;
use crate::namespace::{Namespace, output};
use crate::node::Node;
use crate::program::{Program, Recipe};
use crate::topology::{CLUSTER_CIDR, ROUTER_IPV4};
use crate::wait;

/// etcd, the API server, the controllers, the scheduler, and a `kubectl proxy` to talk to the API in plain HTTP.
#[derive(Debug)]
pub struct ControlPlane {
    directory: PathBuf,
    logs: PathBuf,
    kubernetes: PathBuf,
    /// The last one to start is the first to end.
    others: Vec<Program>,
    /// The API server, to be paused, killed and started again.
    pub api_server: Program,
    etcd: Program,
}

impl ControlPlane {
    /// Makes the keys and starts etcd and the API server.
    pub fn start(kubernetes: &Path, directory: &Path, logs: &Path) -> Result<Self> {
        let outer = Namespace::outer();
        let etcd = Program::start(etcd(kubernetes, &outer), logs)?;
        output(
            Command::new(kubernetes)
                .arg("pki")
                .arg("--directory")
                .arg(pki(directory)),
        )?;
        let api_server = Program::start(api_server(kubernetes, &pki(directory), &outer), logs)?;
        Ok(Self {
            directory: directory.to_owned(),
            logs: logs.to_owned(),
            kubernetes: kubernetes.to_owned(),
            others: Vec::new(),
            api_server,
            etcd,
        })
    }

    /// Waits until the API server is ready, then starts the rest.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let outer = Namespace::outer();
        let kubeconfig = self.kubeconfig();
        let proxy = Recipe::new("kubectl-proxy", &self.kubernetes, &outer)
            .args(["kubectl", "proxy", "--reject-methods=^$"])
            .arg(format!("--port={PROXY_PORT}"))
            .arg(format!("--kubeconfig={}", kubeconfig.display()));
        self.others.push(Program::start(proxy, &self.logs)?);
        let api = self.api();
        wait::until_ok("a ready API server", PATIENCE, || {
            self.etcd.expect_running()?;
            self.api_server.expect_running()?;
            api.text("/readyz")
        })?;
        for recipe in [
            scheduler(&self.kubernetes, &kubeconfig, &outer),
            controllers(&self.kubernetes, &kubeconfig, &pki(&self.directory), &outer),
        ] {
            self.others.push(Program::start(recipe, &self.logs)?);
        }
        Ok(())
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
        pki(&self.directory).join("admin.kubeconfig")
    }

    /// The API in plain HTTP.
    pub fn api(&self) -> Api {
        Api::new(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PROXY_PORT))
    }
}

/// The node agent of a node.
pub fn node_agent(
    binaries: &Binaries,
    _directory: &Path,
    kubeconfig: &Path,
    node: &Node,
) -> Result<Recipe> {
    let number = node.number;
    Ok(Recipe::new(
        format!("node-agent-{number}"),
        binaries.kubernetes()?,
        &node.namespace,
    )
    .arg("node-agent")
    .arg(format!("--kubeconfig={}", kubeconfig.display()))
    .arg(format!("--node-name={number}"))
    .arg(format!("--image=agnhost={}", binaries.agnhost()?.display())))
}

fn etcd(kubernetes: &Path, outer: &Namespace) -> Recipe {
    // In the memory that is /run: nobody needs the data after the lab's end.
    Recipe::new("etcd", kubernetes, outer)
        .arg("etcd")
        .args([
            "--data-dir=/run/etcd",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ])
        .args([
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
        ])
        .args(["--listen-peer-urls=http://127.0.0.1:2380"])
}

fn api_server(kubernetes: &Path, pki: &Path, outer: &Namespace) -> Recipe {
    let file = |flag: &str, name: &str| format!("--{flag}={}", pki.join(name).display());
    Recipe::new("kube-apiserver", kubernetes, outer)
        .arg("kube-apiserver")
        .args([
            "--etcd-servers=http://127.0.0.1:2379",
            "--secure-port=6443",
            "--authorization-mode=Node,RBAC",
        ])
        .arg(format!("--advertise-address={ROUTER_IPV4}"))
        .arg(format!("--service-cluster-ip-range={SERVICE_CIDR}"))
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .args([
            file("client-ca-file", "ca.crt"),
            file("tls-cert-file", "apiserver.crt"),
            file("tls-private-key-file", "apiserver.key"),
            file("service-account-key-file", "service-account.key"),
            file("service-account-signing-key-file", "service-account.key"),
        ])
}

fn scheduler(kubernetes: &Path, kubeconfig: &Path, outer: &Namespace) -> Recipe {
    Recipe::new("kube-scheduler", kubernetes, outer)
        .args(["kube-scheduler", "--leader-elect=false"])
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
}

fn controllers(kubernetes: &Path, kubeconfig: &Path, pki: &Path, outer: &Namespace) -> Recipe {
    Recipe::new("kube-controller-manager", kubernetes, outer)
        .args([
            "kube-controller-manager",
            "--leader-elect=false",
            "--allocate-node-cidrs=false",
        ])
        .arg(format!("--cluster-cidr={CLUSTER_CIDR}"))
        .arg(format!("--service-cluster-ip-range={SERVICE_CIDR}"))
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg(format!("--root-ca-file={}", pki.join("ca.crt").display()))
        .arg(format!(
            "--service-account-private-key-file={}",
            pki.join("service-account.key").display()
        ))
        .arg("--use-service-account-credentials=true")
}

fn pki(directory: &Path) -> PathBuf {
    directory.join("pki")
}

const SERVICE_CIDR: &str = "10.96.0.0/16,fd12:3456:789a:10::/112";
const PROXY_PORT: u16 = 8001;
const PATIENCE: Duration = Duration::from_secs(60);
