//! The modes that both our proxy and kube-proxy have.

use std::env;

use anyhow::{Context, Result};
use clap::ValueEnum;

/// By which part of the kernel a proxy forwards.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Mode {
    /// nf_tables by its own interface.
    Nftables,
    /// The programs of iptables.
    Iptables,
    /// The kernel's own load balancer, which few machines have: see `tools/in-kernel`.
    Ipvs,
}

impl Mode {
    /// Every mode, the usual one first.
    pub const ALL: [Self; 3] = [Self::Nftables, Self::Iptables, Self::Ipvs];

    /// As the arguments `--dataplane` and `--proxy-mode` take it, and the field `mode` of a configuration file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
        }
    }

    /// What `FOGHORN_MODE` says, or else nftables.
    pub fn from_environment() -> Result<Self> {
        let Some(name) = env::var_os("FOGHORN_MODE") else {
            return Ok(Self::Nftables);
        };
        Self::ALL
            .into_iter()
            .find(|mode| name == mode.name())
            .with_context(|| format!("FOGHORN_MODE is {name:?}: say nftables, iptables or ipvs"))
    }
}
