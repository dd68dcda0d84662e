//! Letting go of virtual servers that no new connection meets any more: ours, once rules forward that are not behind IPVS,
//! and those that kube-proxy's IPVS mode left.
//!
//! What IPVS translates, nobody else would: a server stays as long as it has connections, and its address is routed to the
//! node as long as it stays, and no longer: what comes to other ports there would meet the node itself.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::errno::Errno;
use proxy_nftables::Key;

use super::socket::Socket;
use super::{Kernel, KernelError, LOADED, find_link};
use crate::message::rtnetlink::{self, Link};
use crate::message::{Request, destroy_set};
use crate::program::Command;

/// What became of the servers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Retired {
    /// There were none.
    Nothing,
    /// So many still have connections: look again later.
    Waiting(usize),
    /// They are gone, and everything that was there for them.
    Done,
}

impl Kernel {
    /// Removes those servers of ours that have no connections; with the last one the interface goes, and the switches are put
    /// back.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn retire() -> Result<Retired, KernelError> {
        if !Path::new(LOADED).exists() {
            return Ok(Retired::Nothing);
        }
        let mut kernel = Self::open()?;
        let ours = kernel.told()?.into_iter().filter(|told| told.ours);
        let ours: Vec<Key> = ours.map(|told| told.key).collect();
        if ours.is_empty() && kernel.find_link()?.is_none() {
            return Ok(Retired::Nothing);
        }
        let waiting = kernel.remove_idle(&ours)?;
        if waiting > 0 {
            kernel.remove_idle_routes()?;
            return Ok(Retired::Waiting(waiting));
        }
        Self::remove()?;
        Ok(Retired::Done)
    }

    /// Removes those servers of kube-proxy's that have no connections; with the last one the interface `kube-ipvs0` goes, and the
    /// sets of `ipset`. Where there is no such interface nothing is touched, nor is IPVS loaded.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn retire_kube_proxy() -> Result<Retired, KernelError> {
        let mut routes = Socket::open(NETLINK_ROUTE)?;
        let link = find_link(&mut routes, KUBE_LINK)?;
        let Some(link) = link.filter(|link| link.is_dummy) else {
            return Ok(Retired::Nothing);
        };
        if Path::new(LOADED).exists() {
            let mut kernel = Self::open()?;
            let theirs = kernel.servers_of_kube_proxy(&link)?;
            let waiting = kernel.remove_idle(&theirs)?;
            if waiting > 0 {
                kernel.remove_idle_addresses(&link)?;
                return Ok(Retired::Waiting(waiting));
            }
        }
        routes.commit(vec![(rtnetlink::delete_link(link.index), &[])])?;
        destroy_sets()?;
        Ok(Retired::Done)
    }

    /// What is not ours and is at an address of its interface, or at a NodePort of an address of the node.
    fn servers_of_kube_proxy(&mut self, link: &Link) -> Result<Vec<Key>, KernelError> {
        let (mut at_link, mut own) = (BTreeSet::<IpAddr>::new(), BTreeSet::new());
        self.routes.dump(rtnetlink::get_addresses(), |answer| {
            if let Some((index, address)) = rtnetlink::read_interface_address(answer) {
                let addresses = if index == link.index {
                    &mut at_link
                } else {
                    &mut own
                };
                addresses.insert(address);
            }
        })?;
        let is_theirs = |key: &Key| {
            at_link.contains(&key.address)
                || own.contains(&key.address) && NODE_PORTS.contains(&key.port.get())
        };
        let others = self.told()?.into_iter().filter(|told| !told.ours);
        Ok(others.map(|told| told.key).filter(is_theirs).collect())
    }

    /// Removes the routes to addresses at which no server of ours is left.
    fn remove_idle_routes(&mut self) -> Result<(), KernelError> {
        let ours = self.told()?.into_iter().filter(|told| told.ours);
        let used: BTreeSet<IpAddr> = ours.map(|told| told.key.address).collect();
        let addresses = self.addresses()?.into_keys();
        let idle = addresses.filter(|address| !used.contains(address));
        let removals: Vec<Command> = idle.map(Command::RemoveAddress).collect();
        self.link = self.find_link()?.map(|link| link.index);
        let requests = removals.iter().map(|removal| self.request(removal));
        let requests = requests.collect::<Result<_, _>>()?;
        self.routes.commit(requests)?;
        Ok(())
    }

    /// Removes the addresses of kube-proxy's interface at which no server of others is left.
    fn remove_idle_addresses(&mut self, link: &Link) -> Result<(), KernelError> {
        let others = self.told()?.into_iter().filter(|told| !told.ours);
        let used: BTreeSet<IpAddr> = others.map(|told| told.key.address).collect();
        let mut idle = Vec::new();
        self.routes.dump(rtnetlink::get_addresses(), |answer| {
            let found = rtnetlink::read_interface_address(answer);
            let at_link = found.filter(|(index, _)| *index == link.index);
            idle.extend(at_link.map(|(_, address)| address));
        })?;
        idle.retain(|address| !used.contains(address));
        let gone = &[Errno::EADDRNOTAVAIL][..];
        let removals = idle.into_iter().map(|address| {
            let removal = rtnetlink::delete_address(link.index, address);
            (removal, gone)
        });
        self.routes.commit(removals.collect())?;
        Ok(())
    }

    /// Removes those that have no connections; how many stay.
    fn remove_idle(&mut self, servers: &[Key]) -> Result<usize, KernelError> {
        let mut requests: Vec<(Request, &[Errno])> = Vec::new();
        for server in servers {
            let mut connections = 0;
            self.each_endpoint(*server, |_, _, count| connections += u64::from(count))?;
            if connections == 0 {
                requests.push((self.to_ipvs.delete_server(*server), &[Errno::ESRCH]));
            }
        }
        let waiting = servers.len() - requests.len();
        self.ipvs.commit(requests)?;
        Ok(waiting)
    }
}

/// Destroys the sets of kube-proxy; those that rules of others still use stay.
fn destroy_sets() -> Result<(), KernelError> {
    let mut netfilter = Socket::open(NETLINK_NETFILTER)?;
    for name in KUBE_SETS {
        for family in ["", "6-"] {
            // That it is not there, or in use, or that the kernel knows no sets, is no harm.
            let _ = netfilter.get(destroy_set(&format!("KUBE-{family}{name}")));
        }
    }
    Ok(())
}

/// The interface that kube-proxy gives the addresses of Services.
pub const KUBE_LINK: &str = "kube-ipvs0";
/// The ports of `--service-node-port-range`, unless the API server is told others.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;
/// The sets of its IPVS mode, behind `KUBE-` and `KUBE-6-`.
const KUBE_SETS: [&str; 17] = [
    "LOOP-BACK",
    "CLUSTER-IP",
    "EXTERNAL-IP",
    "EXTERNAL-IP-LOCAL",
    "LOAD-BALANCER",
    "LOAD-BALANCER-FW",
    "LOAD-BALANCER-LOCAL",
    "LOAD-BALANCER-SOURCE-IP",
    "LOAD-BALANCER-SOURCE-CIDR",
    "NODE-PORT-TCP",
    "NODE-PORT-LOCAL-TCP",
    "NODE-PORT-UDP",
    "NODE-PORT-LOCAL-UDP",
    "NODE-PORT-SCTP-HASH",
    "NODE-PORT-LOCAL-SCTP-HASH",
    "HEALTH-CHECK-NODE-PORT",
    "IPVS-IPS",
];
