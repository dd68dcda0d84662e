//! From one program to another, in as few lines as can be.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use config::address::IpFamily;

use super::{Hook, Program, Ruleset, Table, names};
use crate::rule::{Rule, Target};
use crate::text::write_rule;

/// What is to be sent, for each family.
///
/// Rules that stay are not mentioned: they keep their counters, and lists of clients that they look at keep the clients.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Change {
    /// The blocks for each family, in their order.
    pub families: BTreeMap<IpFamily, Vec<Block>>,
}

/// What the kernel does at once: steps in one table.
///
/// The two tables cannot be changed at once. What rejects and drops is there before `nat` lets go of a flow, and goes after
/// `nat` has taken it, so that no flow meets anything but what it met before or meets after.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Block {
    /// The table.
    pub table: Table,
    /// The steps, in their order.
    pub steps: Vec<Step>,
}

/// A line for `iptables-restore --noflush`.
#[expect(missing_docs, reason = "named as in iptables")]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Makes a chain.
    Create(Arc<str>),
    Append(Arc<str>, Rule),
    /// Before the rule at this place, counted from 0.
    Insert(Arc<str>, usize, Rule),
    /// The rule at this place, counted from 0.
    Delete(Arc<str>, usize),
    /// Leads from a built-in chain to one of ours: before what others have there, or behind it.
    Hook(Hook, Rule),
    Unhook(Hook, Rule),
    /// Takes all rules out of a chain that nothing of ours leads to any more.
    Empty(Arc<str>),
    /// Removes a chain that is empty.
    Remove(Arc<str>),
}

impl Change {
    /// How many rules it writes into each table; those that it leaves or removes are not counted.
    pub fn written(&self) -> BTreeMap<(IpFamily, Table), usize> {
        let mut written = BTreeMap::new();
        for (family, blocks) in &self.families {
            for block in blocks {
                let writes = |step: &&Step| {
                    matches!(step, Step::Append(..) | Step::Insert(..) | Step::Hook(..))
                };
                let count = block.steps.iter().filter(writes).count();
                *written.entry((*family, block.table)).or_default() += count;
            }
        }
        written
    }
}

impl Program {
    /// The steps to another program; none if nothing is to be done. A chain that others lead to is not removed but emptied.
    pub fn diff(&self, wanted: &Self) -> Option<Change> {
        let mut change = Change::default();
        let empty = Ruleset::default();
        let families: BTreeSet<_> = self.families.keys().chain(wanted.families.keys()).collect();
        for family in families {
            let held = self.families.get(family).unwrap_or(&empty);
            let blocks = held.diff(wanted.families.get(family).unwrap_or(&empty));
            if !blocks.is_empty() {
                change.families.insert(*family, blocks);
            }
        }
        (!change.families.is_empty()).then_some(change)
    }

    /// What is held after a change.
    pub fn apply(&mut self, change: &Change) {
        for (family, blocks) in &change.families {
            let rules = self.families.entry(*family).or_default();
            blocks.iter().for_each(|block| rules.apply(block));
        }
    }
}

impl Ruleset {
    /// The blocks that lead to another ruleset; none if nothing is to be done.
    pub(crate) fn diff(&self, wanted: &Self) -> Vec<Block> {
        let filter = self.diff_table(wanted, Table::Filter);
        let nat = self.diff_table(wanted, Table::Nat);
        let blocks = [
            (Table::Filter, filter.added),
            (Table::Nat, [nat.added, nat.removed].concat()),
            (Table::Filter, filter.removed),
        ];
        let blocks = blocks.into_iter().filter(|(_, steps)| !steps.is_empty());
        blocks
            .map(|(table, steps)| Block { table, steps })
            .collect()
    }

    fn diff_table(&self, wanted: &Self, table: Table) -> Steps {
        let mut steps = Steps::default();
        let mut appended = Vec::new();
        for (key, rules) in wanted.chains.iter().filter(|((of, _), _)| *of == table) {
            let name = &key.1;
            match self.chains.get(key) {
                Some(held) if held == rules => {}
                Some(held) => edit(name, held, rules, &mut appended, &mut steps.removed),
                None => {
                    steps.added.push(Step::Create(Arc::clone(name)));
                    let rules = rules.iter().cloned();
                    appended.extend(rules.map(|rule| Step::Append(Arc::clone(name), rule)));
                }
            }
        }
        steps.added.append(&mut appended);

        let none = Vec::new();
        let hooks = self.hooks.keys().chain(wanted.hooks.keys());
        for key in hooks
            .filter(|(of, _)| *of == table)
            .collect::<BTreeSet<_>>()
        {
            let held = self.hooks.get(key).unwrap_or(&none);
            let rules = wanted.hooks.get(key).unwrap_or(&none);
            let (gone, come) = (without(held, rules), without(rules, held));
            steps
                .added
                .extend(come.into_iter().map(|rule| Step::Hook(key.1, rule)));
            steps
                .removed
                .extend(gone.into_iter().map(|rule| Step::Unhook(key.1, rule)));
        }

        steps
            .removed
            .append(&mut self.ends_of_chains(wanted, table));
        steps
    }

    /// What takes away the chains that are not wanted, or as much of them as others let go. They may lead to each other: first
    /// all are emptied.
    fn ends_of_chains(&self, wanted: &Self, table: Table) -> Vec<Step> {
        let (mut steps, mut removed) = (Vec::new(), Vec::new());
        let chains = self.chains.iter().filter(|((of, _), _)| *of == table);
        for (key, rules) in chains.filter(|(key, _)| !wanted.chains.contains_key(*key)) {
            let stays = self.led_to.contains(key);
            if !stays || !rules.is_empty() {
                steps.push(Step::Empty(Arc::clone(&key.1)));
            }
            if !stays {
                removed.push(Step::Remove(Arc::clone(&key.1)));
            }
        }
        steps.append(&mut removed);
        steps
    }

    /// What is held after a block.
    pub(crate) fn apply(&mut self, block: &Block) {
        let chain = |name: &Arc<str>| (block.table, Arc::clone(name));
        for step in &block.steps {
            match step {
                Step::Create(name) | Step::Empty(name) => {
                    self.chains.insert(chain(name), Vec::new());
                }
                Step::Append(name, rule) => self.append(block.table, name, [rule.clone()]),
                Step::Insert(name, place, rule) => {
                    if let Some(rules) = self.chains.get_mut(&chain(name)) {
                        rules.insert((*place).min(rules.len()), rule.clone());
                    }
                }
                Step::Delete(name, place) => {
                    if let Some(rules) = self.chains.get_mut(&chain(name))
                        && *place < rules.len()
                    {
                        rules.remove(*place);
                    }
                }
                Step::Hook(hook, rule) => {
                    let hooked = self.hooks.entry((block.table, *hook)).or_default();
                    hooked.push(rule.clone());
                    hooked.sort_unstable();
                }
                Step::Unhook(hook, rule) => {
                    if let Some(hooked) = self.hooks.get_mut(&(block.table, *hook)) {
                        *hooked = without(hooked, std::slice::from_ref(rule));
                    }
                }
                Step::Remove(name) => {
                    self.chains.remove(&chain(name));
                }
            }
        }
        self.hooks.retain(|_, hooked| !hooked.is_empty());
    }
}

impl Block {
    /// The same steps in blocks of so many, where no packet sees a difference between them: chains that nothing leads to yet,
    /// or no more. What packets see stays in one.
    pub(crate) fn parts(&self, most: usize) -> Vec<Self> {
        let mut parts = Vec::new();
        let mut phase = |chunk: usize, is_in: &dyn Fn(&Step) -> bool| {
            let steps = self.steps.iter().filter(|step| is_in(step));
            let steps: Vec<Step> = steps.cloned().collect();
            parts.extend(steps.chunks(chunk.max(1)).map(|steps| Self {
                table: self.table,
                steps: steps.into(),
            }));
        };
        phase(most, &|step| matches!(step, Step::Create(_)));
        phase(most, &|step| matches!(step, Step::Append(..)));
        phase(self.steps.len(), &|step| {
            matches!(
                step,
                Step::Insert(..) | Step::Delete(..) | Step::Hook(..) | Step::Unhook(..)
            )
        });
        phase(most, &|step| matches!(step, Step::Empty(_)));
        phase(most, &|step| matches!(step, Step::Remove(_)));
        parts
    }

    /// The block for `iptables-restore --noflush`.
    pub fn render(&self, family: IpFamily) -> String {
        let mut text = format!("*{}\n", self.table.name());
        for step in &self.steps {
            let _ = match step {
                // A chain that is declared is made, or emptied if it is there.
                Step::Create(name) | Step::Empty(name) => write!(text, ":{name} - [0:0]"),
                Step::Append(name, _) => write!(text, "-A {name}"),
                Step::Insert(name, place, _) => write!(text, "-I {name} {}", place + 1),
                Step::Delete(name, place) => write!(text, "-D {name} {}", place + 1),
                Step::Hook(hook, rule) if goes_last(rule) => write!(text, "-A {}", hook.name()),
                Step::Hook(hook, _) => write!(text, "-I {}", hook.name()),
                Step::Unhook(hook, _) => write!(text, "-D {}", hook.name()),
                Step::Remove(name) => write!(text, "-X {name}"),
            };
            match step {
                Step::Append(_, rule)
                | Step::Insert(_, _, rule)
                | Step::Hook(_, rule)
                | Step::Unhook(_, rule) => write_rule(&mut text, rule, family),
                Step::Create(_) | Step::Delete(..) | Step::Empty(_) | Step::Remove(_) => {}
            }
            text.push('\n');
        }
        text.push_str("COMMIT\n");
        text
    }
}

#[derive(Default)]
struct Steps {
    added: Vec<Step>,
    removed: Vec<Step>,
}

/// What lets packets through goes behind the rules of others, so that what they drop stays dropped.
fn goes_last(rule: &Rule) -> bool {
    matches!(&rule.target, Target::Jump(chain) if &**chain == names::FORWARD)
}

/// Makes one list of rules of another: first all new ones come in, then all old ones go, each list in its order.
fn edit(
    name: &Arc<str>,
    held: &[Rule],
    wanted: &[Rule],
    added: &mut Vec<Step>,
    removed: &mut Vec<Step>,
) {
    let kept = kept(held, wanted);
    let mut gone = Vec::new();
    let mut place = 0;
    let (mut old, mut new) = (0, 0);
    for (old_kept, new_kept) in kept.into_iter().chain([(held.len(), wanted.len())]) {
        for _ in old..old_kept {
            gone.push(place);
            place += 1;
        }
        for rule in wanted.get(new..new_kept).unwrap_or_default() {
            added.push(Step::Insert(Arc::clone(name), place, rule.clone()));
            place += 1;
        }
        (old, new, place) = (old_kept + 1, new_kept + 1, place + 1);
    }
    removed.extend(
        gone.into_iter()
            .rev()
            .map(|place| Step::Delete(Arc::clone(name), place)),
    );
}

/// Which rules of both lists stay: as many as can be without changing their order.
fn kept(held: &[Rule], wanted: &[Rule]) -> Vec<(usize, usize)> {
    let mut places: HashMap<&Rule, Vec<usize>> = HashMap::new();
    for (place, rule) in wanted.iter().enumerate().rev() {
        places.entry(rule).or_default().push(place);
    }
    // The longest increasing sequence of places, by patience sorting; `ends` has the candidates of each length.
    let mut candidates: Vec<(usize, usize, Option<usize>)> = Vec::new();
    let mut ends: Vec<usize> = Vec::new();
    for (old, rule) in held.iter().enumerate() {
        let Some(new) = places.get_mut(rule).and_then(Vec::pop) else {
            continue;
        };
        let place = |candidate: &usize| candidates.get(*candidate).map_or(0, |(_, new, _)| *new);
        let length = ends.partition_point(|end| place(end) < new);
        let before = length
            .checked_sub(1)
            .and_then(|length| ends.get(length))
            .copied();
        candidates.push((old, new, before));
        let candidate = candidates.len() - 1;
        match ends.get_mut(length) {
            Some(end) => *end = candidate,
            None => ends.push(candidate),
        }
    }
    let mut kept = Vec::new();
    let mut next = ends.last().copied();
    while let Some((old, new, before)) = next.and_then(|candidate| candidates.get(candidate)) {
        kept.push((*old, *new));
        next = *before;
    }
    kept.reverse();
    kept
}

/// The first list without what is in the second, each as often as it is there.
fn without(rules: &[Rule], others: &[Rule]) -> Vec<Rule> {
    let mut others: Vec<&Rule> = others.iter().collect();
    let mut left = Vec::new();
    for rule in rules {
        match others.iter().position(|other| *other == rule) {
            Some(place) => {
                others.swap_remove(place);
            }
            None => left.push(rule.clone()),
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules as `iptables-save` prints them.
    fn parse(rules: &str) -> Ruleset {
        Ruleset::parse(rules, IpFamily::V4)
    }

    /// What takes away everything that is held, line by line.
    fn removal(held: &str) -> Vec<String> {
        let blocks = parse(held).diff(&Ruleset::default());
        let texts = blocks.iter().map(|block| block.render(IpFamily::V4));
        let lines = texts.collect::<String>();
        lines.lines().map(str::to_owned).collect()
    }

    const CHAINS: &str = "*nat
:PREROUTING ACCEPT [0:0]
:FOGHORN-SERVICES - [0:0]
:FOGHORN-SVC-X - [0:0]
:FOGHORN-SVC-Y - [0:0]
:MINE - [0:0]
-A FOGHORN-SERVICES -j FOGHORN-SVC-X
-A FOGHORN-SVC-X -j RETURN
";

    #[test]
    fn what_others_lead_to_is_emptied_and_stays() {
        for (others, expected) in [
            (
                "-A MINE -m comment --comment \"-j FOGHORN-SVC-X\" -j RETURN\n",
                &[
                    "*nat",
                    ":FOGHORN-SERVICES - [0:0]",
                    ":FOGHORN-SVC-X - [0:0]",
                    ":FOGHORN-SVC-Y - [0:0]",
                    "-X FOGHORN-SERVICES",
                    "-X FOGHORN-SVC-X",
                    "-X FOGHORN-SVC-Y",
                    "COMMIT",
                ][..],
            ),
            (
                "-A MINE -m comment --comment \"a rule of mine\" -j FOGHORN-SVC-X\n-A MINE -g FOGHORN-SVC-Y\n",
                &[
                    "*nat",
                    ":FOGHORN-SERVICES - [0:0]",
                    ":FOGHORN-SVC-X - [0:0]",
                    "-X FOGHORN-SERVICES",
                    "COMMIT",
                ],
            ),
        ] {
            assert_eq!(removal(&format!("{CHAINS}{others}")), expected, "{others}");
        }
    }

    #[test]
    fn what_had_to_stay_is_no_difference() {
        let held = "*nat\n:FOGHORN-SVC-X - [0:0]\n:MINE - [0:0]\n-A MINE -j FOGHORN-SVC-X\n";
        assert_eq!(removal(held), [""; 0]);
        let elsewhere = held.replace("*nat", "*filter")
            + ":FOGHORN-SVC-X - [0:0]\n*nat\n:FOGHORN-SVC-X - [0:0]\n";
        let expected = [
            "*nat",
            ":FOGHORN-SVC-X - [0:0]",
            "-X FOGHORN-SVC-X",
            "COMMIT",
        ];
        assert_eq!(removal(&elsewhere), expected, "only in its own table");
    }
}
