//! Which lab to build.

use std::path::PathBuf;

use crate::mode::Mode;
use crate::topology::SERVICE_NETWORK_IPV4;

/// Who forwards traffic to Services on the nodes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ServiceProxy {
    /// Our proxy.
    Foghorn,
    /// The real kube-proxy.
    KubeProxy(Mode),
    /// Nobody.
    None,
}

/// Which lab to build.
#[derive(Clone, Debug)]
pub struct Options {
    /// A name for its folder.
    pub name: String,
    /// How many nodes.
    pub nodes: u8,
    /// Whether nodes can run Pods; otherwise there are only objects that say that the nodes are ready.
    pub agents: bool,
    /// Whether to run the controllers and the scheduler of Kubernetes.
    pub kubernetes_controllers: bool,
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
    /// The network of ClusterIPs, IPv4.
    pub service_network: String,
    /// Whether Foghorn comes as Pods: nodes know its image.
    pub as_pods: bool,
    /// Whether the API server writes down what Foghorn's accounts ask, so that a want of a right fails the test.
    pub audited: bool,
    /// The programs of an older version, which stand for the image `foghorn-older`.
    pub older: Option<PathBuf>,
    /// Programs that stand for images beyond agnhost: `NAME=PROGRAM [ARGUMENT ..]`.
    pub images: Vec<String>,
    /// What our proxy is told besides; by default what `FOGHORN_PROXY_ARGUMENTS` says, as another data plane.
    pub proxy_arguments: Vec<String>,
}

impl Options {
    /// All of Foghorn.
    pub fn foghorn(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            nodes: 3,
            agents: true,
            kubernetes_controllers: true,
            controller: true,
            speakers: true,
            proxy: ServiceProxy::Foghorn,
            log_level: "info".to_owned(),
            configuration_files: false,
            service_network: SERVICE_NETWORK_IPV4.to_owned(),
            images: Vec::new(),
            older: None,
            as_pods: false,
            audited: true,
            proxy_arguments: proxy_arguments(),
        }
    }

    /// Nothing of Foghorn yet; it is installed as users do, and runs as Pods.
    pub fn as_pods(name: &str) -> Self {
        Self {
            proxy: ServiceProxy::None,
            as_pods: true,
            ..Self::kubernetes(name)
        }
    }

    /// Kubernetes alone, with the real kube-proxy.
    pub fn kubernetes(name: &str) -> Self {
        Self {
            controller: false,
            speakers: false,
            proxy: ServiceProxy::KubeProxy(Mode::Nftables),
            ..Self::foghorn(name)
        }
    }
}

/// What `FOGHORN_PROXY_ARGUMENTS` tells our proxy besides, as another data plane.
pub fn proxy_arguments() -> Vec<String> {
    let given = std::env::var("FOGHORN_PROXY_ARGUMENTS").unwrap_or_default();
    given.split_whitespace().map(str::to_owned).collect()
}
