//! The data plane as the proxy uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::scheduler::Scheduler;
use proxy_nftables::{Forwarder, Key, Nftables, changed_frontends, effective};
use proxy_table::{ForwardingTable, Look, TableChange};

use crate::draining::Draining;
use crate::kernel::{Kernel, KernelError, Retired, Timeouts};
use crate::program::{Command, Mirror, Program, Refusals, Surroundings};

/// What makes IPVS forward as the table says, behind rules of nf_tables.
///
/// After any error the next call has to be [`Self::settle`].
#[derive(Debug)]
pub struct Ipvs {
    rules: Nftables,
    kernel: Kernel,
    scheduler: Scheduler,
    timeouts: Timeouts,
    mirror: Mirror,
    draining: Draining,
    look: Look,
    /// Schedulers that the kernel was asked for, and whether it has them.
    schedulers: BTreeMap<Scheduler, bool>,
    refused: Refusals,
}

impl Ipvs {
    /// Opens IPVS and nf_tables of this network namespace; nothing is changed, but the module of IPVS may be loaded.
    ///
    /// # Errors
    /// If the kernel has not both, or the process may not change them.
    pub fn open(scheduler: Scheduler, timeouts: Timeouts) -> Result<Self, KernelError> {
        Ok(Self {
            rules: Nftables::open()?,
            kernel: Kernel::open()?,
            scheduler,
            timeouts,
            mirror: Mirror::default(),
            draining: Draining::default(),
            look: Look::every(LOOK_INTERVAL),
            schedulers: BTreeMap::new(),
            refused: Refusals::default(),
        })
    }

    /// Makes the kernel hold what the table says, whatever it holds now; whether anything had to be sent. What the kernel
    /// refuses of one object is left out of it ([`Self::refused`]).
    ///
    /// # Errors
    /// If the kernel cannot be read or refuses the difference, or has no scheduler for Services that name none.
    pub fn settle(&mut self, table: &ForwardingTable, now: Instant) -> Result<bool, KernelError> {
        self.kernel.prepare(self.timeouts)?;
        let own = Arc::new(self.kernel.own_addresses()?);
        let (mut held, took) = self.kernel.read_timed()?;
        self.look.handle_read(took, now);
        let surroundings = Surroundings {
            own: Arc::clone(&own),
            scheduler: self.scheduler,
            missing: self.ask_for_schedulers(table, &held)?,
        };
        let change = held.diff(&Program::compile(table, &surroundings), table);
        let mut refused = self.apply(&change.before)?;
        self.rules.forward_by(Forwarder::Ipvs { own });
        let other_rules = self.rules.settle(table)?;
        refused.extend(self.apply(&change.after)?);
        held.apply_all(&change, &refused);
        let drained = held.drained().map(|(key, _)| key);
        self.draining.handle_drained(drained, now);
        self.mirror = Mirror::new(table, held, surroundings);
        let anything = other_rules || change.came_to_something(&refused);
        self.refused = refused;
        Ok(anything)
    }

    /// Sends the changes that made the table what it is; whether anything had to be sent.
    ///
    /// # Errors
    /// If the kernel refuses them, or somebody else changed our rules.
    pub fn update(
        &mut self,
        table: &ForwardingTable,
        changes: &[TableChange],
        now: Instant,
    ) -> Result<bool, KernelError> {
        let changed = changed_frontends(table, changes);
        let named = changed
            .iter()
            .filter_map(|changed| changed.after?.scheduler);
        for scheduler in named.collect::<BTreeSet<_>>() {
            if !self.has_scheduler(scheduler)? {
                self.mirror.handle_missing(scheduler);
            }
        }
        let changed: BTreeSet<Key> = changed.iter().map(|changed| changed.key).collect();
        let change = self.mirror.update(table, changes);
        let mut refused = self.apply(&change.before)?;
        let other_rules = self.rules.update(table, changes)?;
        refused.extend(self.apply(&change.after)?);
        self.mirror.handle_done(&change, &refused);
        for command in change.steps() {
            if let Command::SetWeight(key, _, 0) = command {
                self.draining.handle_begun(*key, now);
            }
        }
        let anything = other_rules || change.came_to_something(&refused);
        self.refused.forget(&changed);
        self.refused.extend(refused);
        Ok(anything)
    }

    /// Schedulers that Services name and the kernel does not have.
    pub fn missing_schedulers(&self) -> &BTreeSet<Scheduler> {
        &self.mirror.surroundings().missing
    }

    /// What the kernel refused of what the table says: tried again with each change of its frontend, and whenever everything is
    /// settled.
    pub fn refused(&self) -> &Refusals {
        &self.refused
    }

    /// Whether the kernel took the servers and the route of an address.
    pub fn forwards(&self, address: IpAddr) -> bool {
        !self.refused.concern(address)
    }

    /// Asks anew for those that the table names, but for those in use; the ones that are missing. The one for all other
    /// Services is not asked for: without it nothing is served anyway.
    fn ask_for_schedulers(
        &mut self,
        table: &ForwardingTable,
        held: &Program,
    ) -> Result<BTreeSet<Scheduler>, KernelError> {
        let used = held.servers.values().map(|server| server.scheduler);
        let used = used.chain([self.scheduler]);
        self.schedulers = used.map(|scheduler| (scheduler, true)).collect();
        let named = effective(table).filter_map(|(_, frontend)| frontend.scheduler);
        let mut missing = named.collect::<BTreeSet<_>>();
        for scheduler in missing.clone() {
            if self.has_scheduler(scheduler)? {
                missing.remove(&scheduler);
            }
        }
        Ok(missing)
    }

    fn has_scheduler(&mut self, scheduler: Scheduler) -> Result<bool, KernelError> {
        if let Some(known) = self.schedulers.get(&scheduler) {
            return Ok(*known);
        }
        let found = self.kernel.has_scheduler(scheduler)?;
        self.schedulers.insert(scheduler, found);
        Ok(found)
    }

    fn apply(&mut self, commands: &[Command]) -> Result<Refusals, KernelError> {
        self.kernel.apply(commands).map_err(|error| {
            // Of a scheduler that it lacks the kernel says the same as of much else.
            let lacks_it = error.is_nothing_there()
                && matches!(self.kernel.has_scheduler(self.scheduler), Ok(false));
            if lacks_it {
                KernelError::NoScheduler(self.scheduler)
            } else {
                error
            }
        })
    }

    /// What the kernel holds for the table, in lines for people: the rules before IPVS, its virtual servers, and the addresses
    /// that the node has for them.
    pub fn describe(&self, table: &ForwardingTable) -> BTreeMap<String, Vec<String>> {
        let held = self.mirror.held();
        let mut parts = self.rules.describe(table);
        let servers = held.servers.iter();
        let servers = servers.map(|(key, server)| format!("{key:?}: {server:?}"));
        parts.insert("servers".to_owned(), servers.collect());
        let addresses = held.addresses.keys().map(ToString::to_string);
        parts.insert("addresses".to_owned(), addresses.collect());
        let refused = self.refused.iter();
        let refused = refused.map(|(_, refusal)| refusal.to_string());
        parts.insert("refused".to_owned(), refused.collect());
        parts
    }

    /// Removes endpoints whose connections have ended, where it is time to look.
    ///
    /// # Errors
    /// If the kernel cannot be asked, or refuses.
    pub fn let_go(&mut self, now: Instant) -> Result<(), KernelError> {
        for key in self.draining.poll_look(now) {
            let seen = self.kernel.drained(key)?;
            let ended = self.draining.handle_seen(key, &seen, now);
            let removals = ended
                .into_iter()
                .filter_map(|endpoint| self.mirror.remove_drained(key, endpoint));
            let removals: Vec<Command> = removals.collect();
            let refused = self.kernel.apply(&removals)?;
            self.refused.extend(refused);
        }
        Ok(())
    }

    /// Whether somebody else changed our rules, our interface or our servers, as far as is known; only [`Self::settle`] ends it.
    /// The kernel tells nobody of changes of servers, so they are read, every now and then and for a small part of the time.
    pub fn is_disturbed(&mut self, now: Instant) -> bool {
        self.rules.is_disturbed() || !self.kernel.has_link() || !self.has_servers_as_left(now)
    }

    fn has_servers_as_left(&mut self, now: Instant) -> bool {
        if !self.look.is_due(now) {
            return true;
        }
        let read = self.kernel.read_timed();
        let took = read.as_ref().map_or(Duration::ZERO, |(_, took)| *took);
        self.look.handle_read(took, now);
        // What cannot be read now is read later.
        read.map_or(true, |(held, _)| {
            held.has_the_same_of_ours(self.mirror.held())
        }) && self.has_own_addresses_as_known()
    }

    /// Whether of the addresses of servers the same are the node's own as before: one that it loses needs a route.
    fn has_own_addresses_as_known(&mut self) -> bool {
        let Ok(own) = self.kernel.own_addresses() else {
            return true;
        };
        let known = &self.mirror.surroundings().own;
        let mut servers = self.mirror.held().servers.keys();
        servers.all(|key| own.contains(&key.address) == known.contains(&key.address))
    }

    /// Removes everything of ours, the rules included; whether there was anything.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn remove() -> Result<bool, KernelError> {
        let rules = Nftables::remove()?;
        Ok(Kernel::remove()? || rules)
    }

    /// Removes what IPVS has of ours, with all connections through it; whether there was anything.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn remove_servers() -> Result<bool, KernelError> {
        Kernel::remove()
    }

    /// Removes what IPVS has of ours as its connections end, once rules forward that are not behind it: to be called again
    /// while some are left.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn retire() -> Result<Retired, KernelError> {
        Kernel::retire()
    }

    /// The same with what kube-proxy's IPVS mode left, once anybody else forwards.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn retire_kube_proxy() -> Result<Retired, KernelError> {
        Kernel::retire_kube_proxy()
    }
}

/// How long a change of servers by others stays unseen, unless reading them takes long.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
