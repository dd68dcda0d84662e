//! The real `kubectl`, as a person uses it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::namespace::{feed, output};

/// `kubectl` with the administrator's kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubernetes: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
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
