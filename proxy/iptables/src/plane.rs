//! The data plane as the proxy uses it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use config::address::IpFamily;
use proxy_table::{ForwardingTable, Look, TableChange};

use crate::kernel::{Backend, Found, Kernel, KernelError, LacksIpv6, all, any};
use crate::program::{Change, Mirror, Program, Style, Table};
use crate::rule::Mark;

/// What makes iptables forward as the table says.
///
/// After any error the next call has to be [`Self::settle`].
#[derive(Debug)]
pub struct Iptables {
    kernel: Kernel,
    style: Style,
    /// What the kernel holds, if nobody else touches it; none before the first time.
    mirror: Option<Mirror>,
    look: Look,
    /// Why IPv6 is left out, looked at whenever rules are read.
    lacks_ipv6: Option<LacksIpv6>,
    /// How many rules the last change wrote.
    written: BTreeMap<(IpFamily, Table), usize>,
}

/// How many rules of ours one table of one family has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RuleCount {
    /// The family.
    pub family: IpFamily,
    /// The table.
    pub table: Table,
    /// How many there are.
    pub held: usize,
    /// How many of them the last sync wrote.
    pub written: usize,
}

impl Iptables {
    /// The iptables of this network namespace in the back end that was asked for, or else in the one that the machine
    /// uses; nothing is changed.
    ///
    /// # Errors
    /// If it is not installed.
    pub fn open(backend: Option<Backend>, mark: Mark) -> Result<Self, KernelError> {
        Ok(Self::new(Kernel::open(backend)?, mark))
    }

    /// The same with the programs that were found.
    pub fn new(kernel: Kernel, mark: Mark) -> Self {
        let style = Style {
            mark,
            random_fully: kernel.found().knows_random_fully(),
        };
        Self {
            kernel,
            style,
            mirror: None,
            look: Look::every(LOOK_INTERVAL),
            lacks_ipv6: None,
            written: BTreeMap::new(),
        }
    }

    /// The back end, and how it was found.
    pub fn found(&self) -> &Found {
        self.kernel.found()
    }

    /// Why IPv6 is left out, if the kernel has it and iptables cannot write rules for it: then IPv4 is served alone.
    pub fn lacks_ipv6(&self) -> Option<&LacksIpv6> {
        self.lacks_ipv6.as_ref()
    }

    /// Whether rules for the family of an address can be had.
    pub fn forwards(&self, address: IpAddr) -> bool {
        let family = IpFamily::of(address);
        self.families().any(|served| served == family)
    }

    fn families(&self) -> impl Iterator<Item = IpFamily> + use<> {
        let lacks_ipv6 = self.lacks_ipv6.is_some();
        let families = self.kernel.found().families();
        families.filter(move |family| *family == IpFamily::V4 || !lacks_ipv6)
    }

    /// How many rules each table has, at the cost of the last change and not of their number; none before the first sync.
    pub fn rule_counts(&self) -> impl Iterator<Item = RuleCount> {
        let counts = self.mirror.iter().flat_map(Mirror::counts);
        counts.map(|(&(family, table), &held)| RuleCount {
            family,
            table,
            held,
            written: self.written.get(&(family, table)).copied().unwrap_or(0),
        })
    }

    /// Makes the kernel hold what the table says, whatever it holds now; whether anything had to be sent.
    ///
    /// # Errors
    /// If the kernel cannot be read or iptables refuses the difference; a family keeps nobody from the other.
    pub fn settle(&mut self, table: &ForwardingTable) -> Result<bool, KernelError> {
        self.lacks_ipv6 = self.kernel.lacks_ipv6();
        let (held, read) = self.read_what_can_be();
        let mirror = Mirror::new(table, self.style, self.families());
        let mirror = self.mirror.insert(mirror);
        mirror.heed_others(&held);
        let change = self.missing(&held);
        let sent = self.send(change);
        read.and(sent)
    }

    /// Sends the changes that made the table what it is; whether anything had to be sent.
    ///
    /// # Errors
    /// If iptables refuses them.
    pub fn update(
        &mut self,
        table: &ForwardingTable,
        changes: &[TableChange],
    ) -> Result<bool, KernelError> {
        let Some(mirror) = &mut self.mirror else {
            return self.settle(table);
        };
        let change = mirror.update(table, changes);
        self.send(change)
    }

    /// What the kernel should hold for the table, as `iptables-save` would print it, family by family.
    pub fn describe(&self, table: &ForwardingTable) -> BTreeMap<String, Vec<String>> {
        let mirror = Mirror::new(table, self.style, self.families());
        let rulesets = mirror.program().families.iter();
        let lines = rulesets.map(|(family, rules)| {
            let text = rules.render(*family);
            (
                family.to_string(),
                text.lines().map(str::to_owned).collect(),
            )
        });
        lines.collect()
    }

    fn send(&mut self, change: Option<Change>) -> Result<bool, KernelError> {
        self.written = change.as_ref().map(Change::written).unwrap_or_default();
        let Some(change) = change else {
            return Ok(false);
        };
        self.kernel.lead_to(self.wanted(), &change)?;
        Ok(true)
    }

    fn wanted(&self) -> &Program {
        static NOTHING: Program = Program {
            families: BTreeMap::new(),
        };
        self.mirror.as_ref().map_or(&NOTHING, Mirror::program)
    }

    /// Whether somebody else has changed our rules since we did, as far as is known: reading them costs more the more there
    /// are, so that is done every now and then only, for a small part of the time.
    pub fn is_disturbed(&mut self) -> bool {
        // What cannot be read now is read later.
        self.look.is_due(Instant::now()) && self.is_as_left().is_ok_and(|as_left| !as_left)
    }

    /// Whether the kernel holds our rules as we left them.
    ///
    /// # Errors
    /// If a family cannot be read, and the other one is as we left it.
    pub fn is_as_left(&mut self) -> Result<bool, KernelError> {
        if self.lacks_ipv6.is_some() && self.kernel.lacks_ipv6().is_none() {
            return Ok(false);
        }
        let (held, read) = self.read_what_can_be();
        if let Some(mirror) = &mut self.mirror {
            mirror.heed_others(&held);
        }
        match self.missing(&held) {
            Some(_) => Ok(false),
            None => read.map(|()| true),
        }
    }

    /// What leads from what is held to what is wanted; what is held of a family that could not be read, nobody knows.
    fn missing(&self, held: &Program) -> Option<Change> {
        let mut change = held.diff(self.wanted())?;
        let families = &mut change.families;
        families.retain(|family, _| held.families.contains_key(family));
        (!families.is_empty()).then_some(change)
    }

    /// What the families hold that can be read, and why others cannot.
    fn read_what_can_be(&mut self) -> (Program, Result<(), KernelError>) {
        let begin = Instant::now();
        let mut held = Program::default();
        let each = self.kernel.read_each(self.families());
        let read = all(each.into_iter().map(|(family, rules)| {
            held.families.insert(family, rules?);
            Ok(())
        }));
        self.look.handle_read(begin.elapsed(), Instant::now());
        (held, read)
    }

    /// Removes everything of ours, from every back end that is installed but `spared`; whether there was anything.
    ///
    /// # Errors
    /// If a program of iptables fails: the first that does, after the others were run.
    pub fn remove(spared: Option<Backend>) -> Result<bool, KernelError> {
        let backends = [Backend::Legacy, Backend::Nft].into_iter();
        let backends = backends.filter(|backend| Some(*backend) != spared);
        any(backends.map(|backend| match Kernel::open(Some(backend)) {
            Ok(kernel) => kernel.remove(),
            // What is not installed has left nothing that could be removed.
            Err(KernelError::Backend(_)) => Ok(false),
            Err(error) => Err(error),
        }))
    }
}

/// How long a change of rules by others stays unseen, unless reading them takes long.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
