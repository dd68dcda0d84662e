//! What a run leaves on disk: logs, keys, configuration, scripts to look around.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::binaries::Binaries;
use crate::program::tail;
use crate::topology::NodeNumber;

/// The folder of one run.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes a new one among the `runs`, of which only the last few are kept.
    pub(crate) fn create(runs: &Path, name: &str) -> Result<Self> {
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
        let path = runs.join(format!("{name}-{seconds}"));
        fs::create_dir(&path).with_context(|| format!("failed to make {}", path.display()))?;
        let folder = Self { path };
        fs::create_dir(folder.logs())?;
        fs::create_dir(folder.configuration())?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The programs' logs, `NAME.log`.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// What `--config` names, if the options say so.
    pub fn configuration(&self) -> PathBuf {
        self.path.join("config")
    }

    /// The programs of Foghorn's image, for nodes that run it as Pods.
    pub fn image(&self) -> PathBuf {
        self.path.join("image")
    }

    /// The same of an older version.
    pub fn older_image(&self) -> PathBuf {
        self.path.join("image-older")
    }

    /// The same of the image that has the programs of iptables too.
    pub fn iptables_image(&self) -> PathBuf {
        self.path.join("image-iptables")
    }

    /// What the API server was asked by Foghorn's accounts, one object of JSON on each line.
    pub fn audit(&self) -> PathBuf {
        self.path.join("audit.json")
    }

    /// The accounts' rights and kubeconfigs, if the lab runs Foghorn's programs itself.
    pub(crate) fn accounts(&self) -> PathBuf {
        self.path.join("accounts")
    }

    /// The script that runs commands inside the lab.
    pub fn enter(&self) -> PathBuf {
        self.path.join("enter")
    }

    /// The script that is a shell with `kubectl`.
    pub fn shell(&self) -> PathBuf {
        self.path.join("bin/shell")
    }

    /// The keys of heartbeats of a node's speaker, which reads them again when they change.
    pub fn heartbeat_key(&self, node: NodeNumber) -> PathBuf {
        self.path.join(format!("heartbeat-{node}.key"))
    }

    /// Keys and kubeconfigs.
    pub(crate) fn pki(&self) -> PathBuf {
        self.path.join("pki")
    }

    pub(crate) fn write_scripts(&self, binaries: &Binaries, kubeconfig: &Path) -> Result<()> {
        let bin = self.path.join("bin");
        fs::create_dir_all(&bin)?;
        let path = format!("{}:{}", bin.display(), binaries.foghorn.display());
        let kubernetes = binaries.kubernetes()?;
        script(
            &bin.join("kubectl"),
            &format!("exec {} kubectl \"$@\"\n", kubernetes.display()),
        )?;
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
            &self.path.join("enter"),
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

    /// Shows the end of every log.
    #[expect(
        clippy::print_stderr,
        reason = "a failed test shows what the programs said"
    )]
    pub(crate) fn print_tails(&self) {
        let mut files: Vec<PathBuf> = fs::read_dir(self.logs())
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        // What is ours comes last, next to the error, and has more room.
        let is_ours = |file: &PathBuf| {
            file.file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"foghorn"))
        };
        files.sort_by_key(|file| (is_ours(file), file.clone()));
        for file in files {
            let lines = if is_ours(&file) { 30 } else { 5 };
            eprintln!(
                "──── the last lines of {}\n{}",
                file.display(),
                tail(&file, lines)
            );
        }
        eprintln!("──── all of it: {}", self.path.display());
    }
}

fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{text}"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
