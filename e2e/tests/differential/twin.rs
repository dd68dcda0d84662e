//! A node with a service proxy on it, alone in a network of its own: one twin runs foghorn-proxy, the other kube-proxy.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::lab::{Lab, proxy_arguments};
use e2e::mode::Mode;
use e2e::namespace::Namespace;
use e2e::program::{Program, Recipe};
use e2e::send_buffer;
use e2e::topology::ROUTER_IPV4;

use crate::network::{ADDRESSES_AND_ROUTES, PARAMETERS, own_vips};
use crate::scene::Scene;
use crate::wire::Wire;

/// Which proxy.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Proxy {
    Foghorn,
    KubeProxy,
}

/// A node with a proxy.
#[derive(Debug)]
pub(crate) struct Twin {
    pub(crate) proxy: Proxy,
    pub(crate) wire: Wire,
    namespace: Namespace,
    program: Option<Program>,
}

impl Proxy {
    pub(crate) const BOTH: [Self; 2] = [Self::Foghorn, Self::KubeProxy];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Foghorn => "foghorn-proxy",
            Self::KubeProxy => "kube-proxy",
        }
    }

    fn recipe(self, lab: &Lab, namespace: &Namespace, scene: &Scene) -> Result<Recipe> {
        let kubeconfig = match self {
            Self::Foghorn => lab.kubeconfig_of("foghorn-proxy")?,
            Self::KubeProxy => lab.control_plane.kubeconfig(),
        };
        // Both read the same, each in a file of its own: kube-proxy ends when its file changes.
        let file_name = format!("{}.yaml", self.name());
        let configuration = lab.folder.path().join(file_name);
        fs::write(&configuration, scene.configuration(&kubeconfig).to_string())?;
        match self {
            Self::Foghorn => {
                let file = lab.binaries.foghorn("foghorn-proxy")?;
                let socket = "/run/foghorn-twin/proxy.sock";
                let recipe = Recipe::new(self.name(), file, namespace)
                    .arg("--config")
                    .arg(configuration)
                    .args(["--speaker-socket", socket])
                    .args(proxy_arguments());
                let recipe = match scene.mode {
                    Mode::Nftables | Mode::Ipvs => recipe,
                    // iptables-restore, which it runs then, needs what kube-proxy's nft needs.
                    Mode::Iptables => recipe.env("LD_PRELOAD", send_buffer::library(lab)?),
                };
                Ok(if scene.allow_external_ips {
                    recipe.arg("--allow-external-ips")
                } else {
                    recipe
                })
            }
            Self::KubeProxy => {
                let file = lab.binaries.kubernetes()?;
                Ok(Recipe::new(self.name(), file, namespace)
                    .args(["kube-proxy", "--config"])
                    .arg(configuration)
                    .env("LD_PRELOAD", send_buffer::library(lab)?))
            }
        }
    }
}

impl Twin {
    /// Makes the network; its only way out is the one to the API server.
    pub(crate) fn build(proxy: Proxy) -> Result<Self> {
        let (name, link, third) = match proxy {
            Proxy::Foghorn => ("twin-foghorn", "api-foghorn", 1),
            Proxy::KubeProxy => ("twin-kube", "api-kube", 2),
        };
        let namespace = Namespace::create(name)?;
        namespace.set_parameters(PARAMETERS)?;
        let wire = namespace.run(Wire::open)??;
        namespace.configure(ADDRESSES_AND_ROUTES)?;
        let own: String = own_vips()
            .map(|vip| format!("addr add {vip} dev lo\n"))
            .collect();
        namespace.configure(&own)?;
        Namespace::outer().configure(&format!(
            "link add {link} type veth peer name api netns {name}
             addr add 169.254.{third}.1/30 dev {link}
             link set {link} up"
        ))?;
        namespace.configure(&format!(
            "addr add 169.254.{third}.2/30 dev api
             link set api up
             route add {ROUTER_IPV4} via 169.254.{third}.1"
        ))?;
        Ok(Self {
            proxy,
            wire,
            namespace,
            program: None,
        })
    }

    /// Starts the proxy, or starts it again with other settings; its rules stay meanwhile.
    pub(crate) fn start(&mut self, lab: &Lab, scene: &Scene) -> Result<()> {
        if let Some(mut program) = self.program.take() {
            program.expect_running()?;
            program.terminate(PATIENCE)?;
        }
        let recipe = self.proxy.recipe(lab, &self.namespace, scene)?;
        self.program = Some(Program::start(recipe, &lab.folder.logs())?);
        Ok(())
    }

    /// Fails with the end of the log if the proxy has ended.
    pub(crate) fn expect_running(&mut self) -> Result<()> {
        let program = self.program.as_mut();
        program.context("no proxy was started")?.expect_running()
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
