//! The nftables data plane, put to the seam.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_netfilter::NetfilterProtoFamily;
use proxy::data_plane::{DataPlane, PlaneError, Sent};
use proxy::moved::SendOn;
use proxy::netfilter::Netfilter;
use proxy::table::table_handle;
use proxy_nftables::KernelError;
use proxy_table::{ForwardingTable, TableChange};

/// The nf_tables of this network namespace.
#[derive(Debug)]
pub(crate) struct Nftables {
    plane: proxy_nftables::Nftables,
    /// The handles of our tables when they were last settled, if they could be looked at.
    settled: Option<Handles>,
}

type Handles = [Option<u64>; 2];

impl Nftables {
    /// Opens them; nothing is changed.
    pub(crate) fn open() -> Result<Self, KernelError> {
        let plane = proxy_nftables::Nftables::open()?;
        Ok(Self {
            plane,
            settled: None,
        })
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
        let sent = sent(self.plane.settle(table))?;
        self.settled = handles();
        Ok(sent)
    }

    fn update(
        &mut self,
        table: &ForwardingTable,
        changes: &[TableChange],
    ) -> Result<Sent, PlaneError> {
        sent(self.plane.update(table, changes))
    }

    fn is_intact(&mut self) -> bool {
        if self.plane.is_disturbed() {
            return false;
        }
        let found = handles();
        found.is_none() || self.settled.is_none() || found == self.settled
    }
}

fn handles() -> Option<Handles> {
    let mut netfilter = Netfilter::open().ok()?;
    let mut handle = |family| table_handle(&mut netfilter, family, TABLE).ok();
    Some([
        handle(NetfilterProtoFamily::IPv4)?,
        handle(NetfilterProtoFamily::IPv6)?,
    ])
}

fn sent(anything: Result<bool, KernelError>) -> Result<Sent, PlaneError> {
    match anything {
        Ok(anything) => Ok(Sent { anything }),
        Err(error) => Err(PlaneError(Box::new(error))),
    }
}

/// The name of our table in each family.
const TABLE: &str = "foghorn";
