//! The nftables data plane, put to the seam.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proxy::data_plane::{DataPlane, PlaneError, Sent};
use proxy::moved::SendOn;
use proxy_nftables::KernelError;
use proxy_table::{ForwardingTable, TableChange};

/// The nf_tables of this network namespace.
#[derive(Debug)]
pub(crate) struct Nftables(proxy_nftables::Nftables);

impl Nftables {
    /// Opens them; nothing is changed.
    pub(crate) fn open() -> Result<Self, KernelError> {
        proxy_nftables::Nftables::open().map(Self)
    }

    /// Removes everything of ours; whether there was anything.
    pub(crate) fn remove() -> Result<bool, KernelError> {
        let forwards = proxy_nftables::Nftables::remove()?;
        Ok(proxy_nftables::SendOn::remove()? || forwards)
    }
}

/// The table of its own for VIPs that moved.
#[derive(Debug)]
pub(crate) struct MovedVips(proxy_nftables::SendOn);

impl MovedVips {
    /// Opens it; nothing is changed.
    pub(crate) fn open() -> Result<Self, KernelError> {
        proxy_nftables::SendOn::open().map(Self)
    }
}

impl SendOn for MovedVips {
    fn settle(&mut self, goals: &BTreeMap<IpAddr, IpAddr>) -> Result<Sent, PlaneError> {
        let pairs = goals.iter().map(|(vip, node)| (*vip, *node));
        sent(self.0.settle(&pairs.collect()))
    }
}

impl DataPlane for Nftables {
    fn settle(&mut self, table: &ForwardingTable) -> Result<Sent, PlaneError> {
        sent(self.0.settle(table))
    }

    fn update(
        &mut self,
        table: &ForwardingTable,
        changes: &[TableChange],
    ) -> Result<Sent, PlaneError> {
        sent(self.0.update(table, changes))
    }

    fn is_intact(&mut self) -> bool {
        !self.0.is_disturbed()
    }
}

fn sent(anything: Result<bool, KernelError>) -> Result<Sent, PlaneError> {
    match anything {
        Ok(anything) => Ok(Sent { anything }),
        Err(error) => Err(PlaneError(Box::new(error))),
    }
}
