//! Where the programs are that the lab runs.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The programs of Foghorn and of the lab, as files.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The folder with `foghorn-controller`, `foghorn-speaker`, `foghorn-proxy` and `kubectl-foghorn`.
    pub foghorn: PathBuf,
    /// The folder with `kubernetes` and `agnhost`.
    pub lab: PathBuf,
    /// The folder for what a run leaves: logs, keys, scripts.
    pub runs: PathBuf,
}

impl Binaries {
    /// Finds them beside this program: `target/debug` or `target/release`, and `target/lab`.
    ///
    /// `FOGHORN_PROGRAMS` and `FOGHORN_LAB` name other folders.
    pub fn find() -> Result<Self> {
        let this = env::current_exe().context("where am I?")?;
        let profile = this
            .ancestors()
            .skip(1)
            .find(|folder| folder.file_name().is_some_and(|name| name != "deps"))
            .with_context(|| format!("{} is in no folder", this.display()))?;
        let target = profile.parent().unwrap_or(Path::new("/"));
        let folder =
            |variable: &str, default: PathBuf| env::var_os(variable).map_or(default, PathBuf::from);
        Ok(Self {
            foghorn: folder("FOGHORN_PROGRAMS", profile.to_owned()),
            lab: folder("FOGHORN_LAB", target.join("lab")),
            runs: target.join("lab").join("runs"),
        })
    }

    /// One of Foghorn's programs.
    pub fn foghorn(&self, name: &str) -> Result<PathBuf> {
        existing(self.foghorn.join(name), "cargo build")
    }

    /// The control plane, kube-proxy, kubectl and the node agent in one program.
    pub fn kubernetes(&self) -> Result<PathBuf> {
        existing(self.lab.join("kubernetes"), "make lab")
    }

    /// Helm, which installs the chart.
    pub fn helm(&self) -> Result<PathBuf> {
        existing(self.lab.join("helm"), "make helm")
    }

    /// What the Pods run.
    pub fn agnhost(&self) -> Result<PathBuf> {
        existing(self.lab.join("agnhost"), "make lab")
    }

    /// What stands in the lab's folder beside Kubernetes, and what builds it.
    pub fn of_lab(&self, name: &str, made_by: &str) -> Result<PathBuf> {
        existing(self.lab.join(name), made_by)
    }
}

/// A file that must be there, and the command that makes it.
pub(crate) fn existing(file: PathBuf, made_by: &str) -> Result<PathBuf> {
    ensure!(
        file.exists(),
        "{} is not there: run `{made_by}` first",
        file.display()
    );
    Ok(file)
}
