//! What an incremental change has to know of what the kernel holds.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use config::scheduler::Scheduler;
use proxy_nftables::{bound, changed_frontends, effective};
use proxy_table::{Endpoint, ForwardingTable, TableChange};

use super::{
    Change, Command, Key, Program, Refusals, Server, Surroundings, outsiders_come, source,
};

/// What the kernel holds, and how many frontends share an address.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Mirror {
    held: Program,
    surroundings: Surroundings,
    users: HashMap<IpAddr, u32>,
}

impl Mirror {
    /// The mirror of a kernel that holds `held`, as the table says.
    pub fn new(table: &ForwardingTable, held: Program, surroundings: Surroundings) -> Self {
        let mut users = HashMap::new();
        for (key, frontend) in effective(table) {
            if let Some(address) = bound(key, frontend, &surroundings.own) {
                *users.entry(address).or_default() += 1;
            }
        }
        Self {
            held,
            surroundings,
            users,
        }
    }

    /// What the kernel holds.
    pub fn held(&self) -> &Program {
        &self.held
    }

    /// What it was compiled with.
    pub fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// The kernel does not have this scheduler either; no frontend has named it so far.
    pub fn handle_missing(&mut self, scheduler: Scheduler) {
        self.surroundings.missing.insert(scheduler);
    }

    /// The steps for changes that made the table what it is now, in their order. The mirror is of the kernel before them.
    pub fn update(&mut self, table: &ForwardingTable, changes: &[TableChange]) -> Change {
        let mut change = Change::default();
        let mut users: BTreeMap<IpAddr, i64> = BTreeMap::new();
        for changed in changed_frontends(table, changes) {
            let key = changed.key;
            let next = changed.after;
            let next = next.map(|frontend| Server::of(frontend, &self.surroundings));
            let outsiders_come = changed.after.is_some_and(outsiders_come);
            change.add_server(
                key,
                self.held.servers.get(&key),
                next.as_ref(),
                outsiders_come,
            );
            for (frontend, count) in [(changed.before, -1), (changed.after, 1)] {
                let address =
                    frontend.and_then(|frontend| bound(key, frontend, &self.surroundings.own));
                if let Some(address) = address {
                    *users.entry(address).or_default() += count;
                }
            }
        }
        for (address, count) in users {
            let held = self.users.remove(&address).unwrap_or(0);
            let now = u32::try_from(i64::from(held) + count).unwrap_or(0);
            if now > 0 {
                self.users.insert(address, now);
            }
            let next = (now > 0).then(|| source(table, address, &self.surroundings));
            change.add_address(address, self.held.addresses.get(&address), next.as_ref());
        }
        change
    }

    /// The kernel did a change, but for what it refused.
    pub fn handle_done(&mut self, change: &Change, refused: &Refusals) {
        self.held.apply_all(change, refused);
    }

    /// The connections of an endpoint have ended: the step that removes it; none if flows begin there again.
    pub fn remove_drained(&mut self, key: Key, endpoint: Endpoint) -> Option<Command> {
        let weight = self.held.servers.get(&key)?.endpoints.get(&endpoint)?;
        if *weight > 0 {
            return None;
        }
        let command = Command::RemoveEndpoint(key, endpoint);
        self.held.apply(&command);
        Some(command)
    }
}
