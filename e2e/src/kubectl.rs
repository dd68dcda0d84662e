//! The real `kubectl`, as a person uses it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::namespace::{feed, output};
use crate::wait;

/// `kubectl` with the administrator's kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubernetes: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// Waits until the API server serves the custom resources of the manifests.
    pub fn wait_for_custom_resources(&self) -> Result<()> {
        let list = ["get", "ipaddresspools,l2advertisements,servicel2statuses"];
        wait::until_ok("custom resources", Duration::from_secs(20), || {
            self.run(&list)
        })?;
        Ok(())
    }

    /// The one in the lab's Kubernetes binary.
    pub fn new(kubernetes: &Path, kubeconfig: &Path) -> Self {
        Self {
            kubernetes: kubernetes.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
        }
    }

    /// Runs it to its end and returns what it wrote.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        output(self.command().args(arguments))
    }

    /// Applies objects written as YAML.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        feed(self.command().args(["apply", "-f", "-"]), yaml)
    }

    /// A command to which arguments can be added.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.kubernetes);
        command.arg("kubectl").env("KUBECONFIG", &self.kubeconfig);
        command
    }
}
