//! What the figures depend on: the machine, the versions, the command.

use std::fs;
use std::process::Command;

use anyhow::Result;
use e2e::lab::Lab;
use e2e::namespace::output;
use serde::{Deserialize, Serialize};

/// Where and with what the bench ran.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Surroundings {
    pub(crate) command: String,
    pub(crate) date: String,
    pub(crate) machine: String,
    pub(crate) kernel: String,
    pub(crate) load_average: String,
    pub(crate) foghorn: String,
    pub(crate) kubernetes: String,
    pub(crate) nft: String,
}

impl Surroundings {
    pub(crate) fn look(lab: &Lab, command: &str) -> Result<Self> {
        let version = lab.api.get("/version")?;
        let text = |program: &str, arguments: &[&str]| -> Result<String> {
            Ok(output(Command::new(program).args(arguments))?
                .trim()
                .to_owned())
        };
        let processor_lines = fs::read_to_string("/proc/cpuinfo")?;
        let models: Vec<&str> = processor_lines
            .lines()
            .filter_map(|line| line.strip_prefix("model name"))
            .map(|value| value.trim_start_matches([' ', '\t', ':']))
            .collect();
        let foghorn = lab.binaries.foghorn("foghorn-proxy")?;
        let commit = text("git", &["describe", "--always", "--dirty"]).unwrap_or_default();
        Ok(Self {
            command: command.to_owned(),
            date: text("date", &["-u", "+%Y-%m-%d %H:%M UTC"])?,
            machine: format!(
                "{} x {}",
                models.len(),
                models.first().unwrap_or(&"unknown")
            ),
            kernel: text("uname", &["-r"])?,
            load_average: fs::read_to_string("/proc/loadavg")?
                .split(' ')
                .take(3)
                .collect::<Vec<_>>()
                .join(" "),
            foghorn: format!(
                "{} ({commit})",
                output(Command::new(foghorn).arg("--version"))?.trim()
            ),
            kubernetes: version
                .get("gitVersion")
                .and_then(|value| value.as_str())
                .unwrap_or_default()
                .to_owned(),
            nft: text("nft", &["--version"])?,
        })
    }

    /// As the tables begin.
    pub(crate) fn list(&self) -> String {
        let Self {
            command,
            date,
            machine,
            kernel,
            load_average,
            foghorn,
            kubernetes,
            nft,
        } = self;
        format!(
            "- Command: `{command}`, {date}
- Machine: {machine}, Linux {kernel}; load average at the beginning {load_average}
- {foghorn}; Kubernetes and kube-proxy {kubernetes}; {nft}\n"
        )
    }
}
