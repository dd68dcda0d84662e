//! What the kernel should hold, and how it gets there.

mod base;
mod diff;
mod index;
#[cfg(test)]
mod laws;
mod mirror;
mod names;
mod reached;
mod save;
mod service;
mod tree;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::address::IpFamily;

use crate::rule::{Mark, Rule, Target};
pub use diff::{Block, Change, Step};
pub use mirror::Mirror;
pub(crate) use names::SERVICES;

/// Everything of ours in iptables: chains with their rules, and the rules of built-in chains that lead there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Program {
    /// What each family holds.
    pub families: BTreeMap<IpFamily, Ruleset>,
}

/// What one family holds of ours.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ruleset {
    /// Our chains, by table and name, with their rules in order.
    pub chains: BTreeMap<(Table, Arc<str>), Vec<Rule>>,
    /// The rules in built-in chains that lead to ours, sorted: where they stand among those of others is not ours to say.
    pub hooks: BTreeMap<(Table, Hook), Vec<Rule>>,
    /// Those of our chains that rules in chains of others lead to. They can be emptied and not removed, for such rules are
    /// not ours to touch.
    pub led_to: BTreeSet<(Table, Arc<str>)>,
}

/// A table of iptables.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Table {
    /// `filter`: what is rejected and dropped.
    Filter,
    /// `nat`: what is forwarded, and seen as whom.
    Nat,
}

/// A built-in chain.
#[expect(missing_docs, reason = "named as in iptables")]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// In what way the same meaning is put into rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Style {
    /// The bit of the packet mark that says until the end of postrouting that a packet's source is to be replaced.
    pub mark: Mark,
    /// Whether the iptables here knows `--random-fully` (1.6.2).
    pub random_fully: bool,
}

impl Table {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Filter, Self::Nat];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }

    /// The table of this name, if we use it.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }
}

impl Hook {
    /// The name of the built-in chain.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "PREROUTING",
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
            Self::Postrouting => "POSTROUTING",
        }
    }

    /// The built-in chain of this name.
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Prerouting,
            Self::Input,
            Self::Forward,
            Self::Output,
            Self::Postrouting,
        ];
        all.into_iter().find(|hook| hook.name() == name)
    }
}

impl Program {
    /// What a family holds.
    pub fn family(&self, family: IpFamily) -> Option<&Ruleset> {
        self.families.get(&family)
    }

    /// Whether there is nothing of ours.
    pub fn is_empty(&self) -> bool {
        self.families.values().all(Ruleset::is_empty)
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.families.values().map(Ruleset::len).sum()
    }
}

impl Ruleset {
    /// Whether there is nothing of ours.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.hooks.values().all(Vec::is_empty)
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        let chains = self.chains.values().map(Vec::len).sum::<usize>();
        chains + self.hooks.values().map(Vec::len).sum::<usize>()
    }

    /// How many rules one of the tables has.
    pub fn count(&self, table: Table) -> usize {
        let chains = self.chains.iter().filter(|((of, _), _)| *of == table);
        let hooks = self.hooks.iter().filter(|((of, _), _)| *of == table);
        let chains = chains.map(|(_, rules)| rules.len()).sum::<usize>();
        chains + hooks.map(|(_, rules)| rules.len()).sum::<usize>()
    }

    /// Takes in what another one has.
    pub(crate) fn extend(&mut self, other: Self) {
        self.chains.extend(other.chains);
        self.hooks.extend(other.hooks);
        self.led_to.extend(other.led_to);
    }

    fn chain(&self, table: Table, name: &str) -> Option<&[Rule]> {
        self.chains.get(&(table, name.into())).map(Vec::as_slice)
    }
}

/// How all names of our chains begin.
pub(crate) const PREFIX: &str = "FOGHORN-";

/// A jump to one of our chains.
fn jump(chain: &Arc<str>) -> Rule {
    Rule::to(Target::Jump(Arc::clone(chain)))
}
