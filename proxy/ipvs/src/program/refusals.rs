//! What the kernel refuses of one object, which is no reason to keep anything from the others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nix::errno::Errno;

use super::{Command, Key};

/// Steps that the kernel refused, and why. They are left out of what is held, so the next difference has them again.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Refusals {
    steps: BTreeMap<Command, Refusal>,
    /// Where a server is missing: what comes to its address would meet the node itself.
    servers: BTreeSet<Key>,
    addresses: BTreeSet<IpAddr>,
}

/// What the kernel said of one step, and what to do about it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("failed to {what}: {remedy}")]
pub struct Refusal {
    what: String,
    remedy: &'static str,
    source: Errno,
}

impl Refusals {
    /// The kernel refused a step that was to do `what`.
    pub fn handle_refused(&mut self, step: &Command, what: String, source: Errno) {
        if let Command::AddServer(key, ..) = step {
            self.servers.insert(*key);
            self.addresses.insert(key.address);
        }
        let remedy = remedy(step);
        let refusal = Refusal {
            what,
            remedy,
            source,
        };
        self.steps.insert(step.clone(), refusal);
    }

    /// Whether a step is for nothing, since the server that it is for was refused.
    pub fn forestall(&self, step: &Command) -> bool {
        match step {
            Command::AddEndpoint(key, _) => self.servers.contains(key),
            Command::AddAddress(address, _) => self.addresses.contains(address),
            _ => false,
        }
    }

    /// Whether the kernel did a step.
    pub fn let_through(&self, step: &Command) -> bool {
        !self.steps.contains_key(step) && !self.forestall(step)
    }

    /// Whether an address is not served as it should be: a server of it is missing, or the route.
    pub fn concern(&self, address: IpAddr) -> bool {
        let is_its_route =
            |step: &Command| matches!(step, Command::AddAddress(route, _) if *route == address);
        self.addresses.contains(&address) || self.steps.keys().any(is_its_route)
    }

    /// Takes in those of further steps.
    pub fn extend(&mut self, further: Self) {
        self.steps.extend(further.steps);
        self.servers.extend(further.servers);
        self.addresses.extend(further.addresses);
    }

    /// Frontends at these keys changed: what was refused for them is asked for again, or not wanted any more.
    pub fn forget(&mut self, changed: &BTreeSet<Key>) {
        let addresses: BTreeSet<IpAddr> = changed.iter().map(|key| key.address).collect();
        self.steps.retain(|step, _| match step {
            Command::AddServer(key, ..)
            | Command::SetServer(key, ..)
            | Command::RemoveServer(key)
            | Command::AddEndpoint(key, _)
            | Command::SetWeight(key, ..)
            | Command::RemoveEndpoint(key, _) => !changed.contains(key),
            Command::AddAddress(address, _) | Command::RemoveAddress(address) => {
                !addresses.contains(address)
            }
        });
        self.servers.retain(|key| !changed.contains(key));
        self.addresses = self.servers.iter().map(|key| key.address).collect();
    }

    /// Each step, and why it was refused.
    pub fn iter(&self) -> impl Iterator<Item = (&Command, &Refusal)> {
        self.steps.iter()
    }
}

fn remedy(step: &Command) -> &'static str {
    match step {
        Command::AddServer(..) | Command::SetServer(..) | Command::RemoveServer(_) => {
            "IPVS of this kernel may lack IPv6 (CONFIG_IP_VS_IPV6), choose another --dataplane"
        }
        Command::AddEndpoint(..) | Command::SetWeight(..) | Command::RemoveEndpoint(..) => {
            "IPVS sends to no multicast, broadcast or link-local address, correct the EndpointSlice"
        }
        Command::AddAddress(..) | Command::RemoveAddress(_) => {
            "IPv6 may be off at foghorn0, set the sysctl net.ipv6.conf.foghorn0.disable_ipv6 to 0"
        }
    }
}
