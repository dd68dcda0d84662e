//! What an incremental change has to know, so that it costs what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::address::IpFamily;
use proxy_table::{ForwardingTable, FrontendKey, TableChange};

use super::base::Surroundings;
use super::index::{Index, Patch, Touched};
use super::reached::Key;
use super::{Block, Change, Program, Ruleset, Style, Table};

/// The program of a table, and where each of its chains comes from.
///
/// A chain belongs to one Service, to the NodePorts of an address that stand together, or to a network of addresses. What a
/// change touches is compiled anew, and nothing else is looked at.
#[derive(Clone, Debug)]
pub struct Mirror {
    style: Style,
    program: Program,
    indexes: BTreeMap<IpFamily, Index>,
    counts: Counts,
}

/// How many rules each table has.
type Counts = BTreeMap<(IpFamily, Table), usize>;

impl Program {
    /// What the kernel should hold for a table, in these families.
    pub fn compile(
        table: &ForwardingTable,
        style: Style,
        families: impl IntoIterator<Item = IpFamily>,
    ) -> Self {
        Mirror::new(table, style, families).into_program()
    }
}

impl Mirror {
    /// The mirror of a table, in these families.
    pub fn new(
        table: &ForwardingTable,
        style: Style,
        families: impl IntoIterator<Item = IpFamily>,
    ) -> Self {
        let mut mirror = Self {
            style,
            program: Program::default(),
            indexes: BTreeMap::new(),
            counts: Counts::new(),
        };
        for family in families {
            let surroundings = surroundings(table, style, family);
            let rules = surroundings.base();
            mirror.program.families.insert(family, rules);
            mirror.indexes.insert(family, Index::default());
        }
        let frontends = table.frontends().map(|(key, ..)| *key).collect();
        let cluster_ips = table.cluster_ips().map(|(address, _)| address).collect();
        for (family, patch) in mirror.patches(table, &frontends, &cluster_ips) {
            let rules = mirror.program.families.entry(family).or_default();
            let chains = patch.into_iter();
            let chains = chains.filter_map(|(chain, rules)| Some((chain, rules?)));
            rules.chains.extend(chains);
        }
        for (family, rules) in &mirror.program.families {
            for table in Table::ALL {
                mirror.counts.insert((*family, table), rules.count(table));
            }
        }
        mirror
    }

    /// How many rules each table has, which is known without counting them again.
    pub fn counts(&self) -> &BTreeMap<(IpFamily, Table), usize> {
        &self.counts
    }

    /// What the kernel should hold.
    pub fn program(&self) -> &Program {
        &self.program
    }

    pub(super) fn into_program(self) -> Program {
        self.program
    }

    /// Takes over which of our chains others lead to, from what the kernel holds.
    pub fn heed_others(&mut self, held: &Program) {
        for (family, rules) in &mut self.program.families {
            let held = held.families.get(family);
            rules.led_to = held.map(|held| held.led_to.clone()).unwrap_or_default();
        }
    }

    /// The steps for changes that made the table what it is now; none if nothing is different.
    pub fn update(&mut self, table: &ForwardingTable, changes: &[TableChange]) -> Option<Change> {
        let mut frontends = BTreeSet::new();
        let mut cluster_ips = BTreeSet::new();
        for change in changes {
            frontends.extend(change.frontends.iter().map(|frontend| frontend.key));
            frontends.extend(&change.handed_over);
            cluster_ips.extend(change.cluster_ips.iter().map(|address| address.address));
        }
        let mut change = Change::default();
        for (family, patch) in self.patches(table, &frontends, &cluster_ips) {
            let held = self.program.families.entry(family).or_default();
            let (blocks, [gone, come]) = held.patch(patch);
            for (table, (gone, come)) in Table::ALL.into_iter().zip(gone.into_iter().zip(come)) {
                let count = self.counts.entry((family, table)).or_default();
                *count = (*count + come).saturating_sub(gone);
            }
            if !blocks.is_empty() {
                change.families.insert(family, blocks);
            }
        }
        (!change.families.is_empty()).then_some(change)
    }

    fn patches(
        &mut self,
        table: &ForwardingTable,
        frontends: &BTreeSet<FrontendKey>,
        cluster_ips: &BTreeSet<IpAddr>,
    ) -> Vec<(IpFamily, Patch)> {
        let style = self.style;
        let indexes = self.indexes.iter_mut();
        let patches = indexes.map(|(family, index)| {
            let mut touched = Touched::default();
            for key in frontends.iter().filter(|key| key.family() == *family) {
                for key in Key::all(key, table) {
                    index.place(table, key, &mut touched);
                }
            }
            let of_family = cluster_ips.iter().copied();
            for address in of_family.filter(|address| IpFamily::of(*address) == *family) {
                index.cluster_ip(table, address, &mut touched);
            }
            let surroundings = surroundings(table, style, *family);
            (*family, index.compile(surroundings, touched))
        });
        patches.collect()
    }
}

fn surroundings(table: &ForwardingTable, style: Style, family: IpFamily) -> Surroundings<'_> {
    let context = table.context();
    Surroundings {
        family,
        context,
        style,
    }
}

impl Ruleset {
    /// Puts other rules into some chains; the steps for it, and how many rules those chains had and have in each table.
    fn patch(&mut self, patch: Patch) -> (Vec<Block>, [[usize; 2]; 2]) {
        let (mut before, mut after) = (Self::default(), Self::default());
        for (chain, rules) in patch {
            if let Some(held) = self.chains.remove(&chain) {
                before.chains.insert(chain.clone(), held);
            }
            if let Some(rules) = rules {
                after.chains.insert(chain, rules);
            }
        }
        std::mem::swap(&mut before.led_to, &mut self.led_to);
        let blocks = before.diff(&after);
        std::mem::swap(&mut before.led_to, &mut self.led_to);
        let counts = [&before, &after].map(|rules| Table::ALL.map(|table| rules.count(table)));
        self.chains.append(&mut after.chains);
        (blocks, counts)
    }
}
