//! The data planes, put to the seam, and which of them it is to be.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Context as _;
use config_runtime::chain::Chain;
use proxy::arguments::Arguments;
use proxy::data_plane::{DataPlane, Description, PlaneError, Sent, sent};
use proxy::leftovers;
use proxy::metrics::Metrics;
use proxy::mode::{Mode, Reason, choose};
use proxy::moved::SendOn;
use proxy_nftables::{KernelError, Nftables};
use proxy_table::{ForwardingTable, TableChange};

use crate::iptables::Iptables;
use crate::ipvs::Ipvs;
use crate::others::Others;

/// The data plane of this process.
#[derive(Debug)]
pub(crate) enum Plane {
    /// nf_tables, over netlink.
    Nftables(Box<Nftables>),
    /// iptables, through its programs.
    Iptables(Box<Iptables>),
    /// IPVS, behind rules of nf_tables.
    Ipvs(Box<Ipvs>),
}

impl Plane {
    /// Opens the one that was asked for, or the one that this machine can have, and says why; nothing is changed.
    pub(crate) fn open(mode: Mode, arguments: &Arguments) -> anyhow::Result<Self> {
        let refusal = || Some(Chain(&Nftables::probe().err()?).to_string());
        let (mode, reason) = choose(mode, refusal);
        if let Reason::NftablesRefuses(_) = reason {
            tracing::warn!(mode = mode.name(), %reason, "Chose the data plane");
        } else {
            tracing::info!(mode = mode.name(), %reason, "Chose the data plane");
        }
        Ok(match mode {
            Mode::Iptables => {
                let backend = arguments.iptables_backend.into();
                let plane = Iptables::open(backend, arguments.masquerade_mark())
                    .context("failed to find iptables")?;
                let found = plane.found();
                let (backend, version, reason) = (found.backend(), found.version(), found.why());
                tracing::info!(%backend, %version, %reason, "Chose the back end of iptables");
                Self::Iptables(Box::new(plane))
            }
            Mode::Ipvs => {
                let plane = Ipvs::open(arguments).context("failed to open a socket to IPVS")?;
                Self::Ipvs(Box::new(plane))
            }
            Mode::Auto | Mode::Nftables => {
                let plane = Nftables::open().context("failed to open a socket to nftables")?;
                Self::Nftables(Box::new(plane))
            }
        })
    }

    /// Which it is.
    pub(crate) fn mode(&self) -> Mode {
        match self {
            Self::Nftables(_) => Mode::Nftables,
            Self::Iptables(_) => Mode::Iptables,
            Self::Ipvs(_) => Mode::Ipvs,
        }
    }

    /// Counts there what it alone knows.
    pub(crate) fn count_in(&mut self, metrics: &Metrics) {
        match self {
            Self::Iptables(plane) => plane.count_in(metrics),
            Self::Nftables(_) | Self::Ipvs(_) => {}
        }
    }

    /// What other data planes of ours may have left behind, which is to go once this one forwards.
    pub(crate) fn others(&self) -> Others {
        match self {
            Self::Nftables(_) => Others {
                nftables: false,
                ipvs: true,
                spared: None,
            },
            // Its rules are those of nftables.
            Self::Ipvs(_) => Others {
                nftables: false,
                ipvs: false,
                spared: None,
            },
            Self::Iptables(plane) => Others {
                nftables: true,
                ipvs: true,
                spared: Some(plane.found().backend()),
            },
        }
    }
}

/// Removes everything of ours; whether there was anything.
pub(crate) fn remove_all() -> anyhow::Result<bool> {
    let iptables =
        proxy_iptables::Iptables::remove(None).context("failed to remove the rules of iptables");
    let nftables = match Nftables::answers() {
        Ok(()) => remove_nftables().context("failed to remove the tables of nftables"),
        // Where there is no nf_tables there is nothing in it.
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "nftables was not looked at");
            Ok(false)
        }
    };
    let stays = leftovers::expect_none_of_ours();
    let ipvs = proxy_ipvs::Ipvs::remove_servers().context("failed to remove the servers of IPVS");
    let removed = iptables? | nftables? | ipvs?;
    stays?;
    Ok(removed)
}

fn remove_nftables() -> Result<bool, KernelError> {
    let forwards = Nftables::remove()?;
    Ok(proxy_nftables::SendOn::remove()? || forwards)
}

/// The table of its own for VIPs that moved, which goes with every data plane.
#[derive(Debug)]
pub(crate) struct MovedVips(proxy_nftables::SendOn);

impl MovedVips {
    /// Opens it; nothing is changed.
    pub(crate) fn open() -> Result<Self, KernelError> {
        Nftables::answers()?;
        proxy_nftables::SendOn::open().map(Self)
    }
}

impl SendOn for MovedVips {
    fn settle(&mut self, goals: &BTreeMap<IpAddr, IpAddr>) -> Result<Sent, PlaneError> {
        let pairs = goals.iter().map(|(vip, node)| (*vip, *node));
        sent(self.0.settle(&pairs.collect()))
    }
}

impl DataPlane for Plane {
    fn settle(&mut self, table: &ForwardingTable) -> Result<Sent, PlaneError> {
        match self {
            Self::Nftables(plane) => sent(plane.settle(table)),
            Self::Iptables(plane) => plane.settle(table),
            Self::Ipvs(plane) => plane.settle(table),
        }
    }

    fn update(
        &mut self,
        table: &ForwardingTable,
        changes: &[TableChange],
    ) -> Result<Sent, PlaneError> {
        match self {
            Self::Nftables(plane) => sent(plane.update(table, changes)),
            Self::Iptables(plane) => plane.update(table, changes),
            Self::Ipvs(plane) => plane.update(table, changes),
        }
    }

    fn forwards(&self, address: IpAddr) -> bool {
        match self {
            Self::Nftables(_) => true,
            Self::Iptables(plane) => plane.forwards(address),
            Self::Ipvs(plane) => plane.forwards(address),
        }
    }

    fn is_intact(&mut self) -> bool {
        match self {
            Self::Nftables(plane) => !plane.is_disturbed(),
            Self::Iptables(plane) => plane.is_intact(),
            Self::Ipvs(plane) => plane.is_intact(),
        }
    }

    fn describe(&self, table: &ForwardingTable) -> Description {
        match self {
            Self::Nftables(plane) => plane.describe(table),
            Self::Iptables(plane) => plane.describe(table),
            Self::Ipvs(plane) => plane.describe(table),
        }
    }
}
