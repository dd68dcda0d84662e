//! A change as batches.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::address::IpFamily;

use crate::netlink::message::{Batch, SetElement};
use crate::program::schema::{self, SETS, TABLE, family_number};
use crate::program::{Change, Item, Key, Value, rules};

/// What one batch does.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// Everything.
    Whole(&'a Change),
    /// Tables (dormant) and chains.
    Shape(&'a Change),
    /// Elements that belong together.
    Elements(Elements),
    /// The tables are complete.
    Activate(&'a Change),
}

/// Elements that go and come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Elements {
    removed: Vec<(Item, Value)>,
    added: Vec<(Item, Value)>,
}

impl Change {
    /// How many octets it is for the kernel, as one batch of netlink messages.
    pub fn encoded_octets(&self) -> usize {
        let (octets, ..) = Step::Whole(self).encode(None).finish();
        octets.len()
    }
}

/// A change in as many batches as it takes.
///
/// Whatever is between two of them, each flow meets what it met before the change or what it will meet after it, as
/// long as the change is one of Services and not of the node's context.
pub(crate) fn steps(change: &Change, longest_batch: usize) -> Vec<Step<'_>> {
    let rules: usize = change.chains.iter().map(|chain| chain.rules.len()).sum();
    let length = change.elements() * ELEMENT_LENGTH
        + rules * RULE_LENGTH
        + change.chains.len() * RULE_LENGTH
        + change.tables.len() * TABLE_LENGTH;
    if length <= longest_batch {
        return vec![Step::Whole(change)];
    }
    let mut steps = Vec::new();
    if !change.tables.is_empty() || !change.chains.is_empty() {
        steps.push(Step::Shape(change));
    }
    let most = (longest_batch / ELEMENT_LENGTH).max(1);
    let mut current = Elements::default();
    for (stage, group) in groups(change) {
        let parts = match stage {
            Stage::Networks | Stage::Frontends(..) => vec![group],
            // What frontends share may go one by one.
            Stage::Before | Stage::After => group.split(most),
        };
        for part in parts {
            if !current.is_empty() && current.len() + part.len() > most {
                steps.push(Step::Elements(std::mem::take(&mut current)));
            }
            current.removed.extend(part.removed);
            current.added.extend(part.added);
        }
    }
    if !current.is_empty() {
        steps.push(Step::Elements(current));
    }
    if !change.tables.is_empty() {
        steps.push(Step::Activate(change));
    }
    steps
}

/// When elements go to the kernel, if not all at once.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Stage {
    /// Networks of Pods and of Services: together, for the kernel takes none that overlaps one that is still there.
    Networks,
    /// Shared by frontends, and needed by those that come.
    Before,
    /// Those of one address, or of one frontend where the address stays what it is: together, for no packet may meet half.
    Frontends(IpAddr, Option<Key>),
    /// Shared by frontends, and needed by those that go.
    After,
}

/// The elements of a change, put together as they have to be.
fn groups(change: &Change) -> BTreeMap<Stage, Elements> {
    let address_of = |item: &Item| match item {
        Item::ClusterIp(address) | Item::LeftAlone(address) => Some(*address),
        _ => None,
    };
    let both = change.removed.iter().chain(&change.added);
    let whole: BTreeSet<IpAddr> = both.filter_map(|(item, _)| address_of(item)).collect();
    let stage = |item: &Item, otherwise| match (address_of(item), item.frontend()) {
        (Some(address), _) => Stage::Frontends(address, None),
        (None, Some(key)) => {
            let alone = !whole.contains(&key.address);
            Stage::Frontends(key.address, alone.then_some(key))
        }
        (None, None) if matches!(item, Item::PodNetwork(_) | Item::ServiceCidr(_)) => {
            Stage::Networks
        }
        (None, None) => otherwise,
    };
    let mut groups: BTreeMap<Stage, Elements> = BTreeMap::new();
    for element in &change.removed {
        let group = groups.entry(stage(&element.0, Stage::After)).or_default();
        group.removed.push(*element);
    }
    for element in &change.added {
        let group = groups.entry(stage(&element.0, Stage::Before)).or_default();
        group.added.push(*element);
    }
    groups
}

impl Elements {
    fn len(&self) -> usize {
        self.removed.len() + self.added.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Parts of at most `most` elements.
    fn split(self, most: usize) -> Vec<Self> {
        let removed = self.removed.chunks(most).map(|part| Self {
            removed: part.to_vec(),
            added: Vec::new(),
        });
        let added = self.added.chunks(most).map(|part| Self {
            removed: Vec::new(),
            added: part.to_vec(),
        });
        removed.chain(added).collect()
    }
}

impl Step<'_> {
    /// Whether tables have another identity afterwards.
    pub(crate) fn changes_shape(&self) -> bool {
        match self {
            Self::Whole(change) | Self::Shape(change) => {
                !change.tables.is_empty() || !change.chains.is_empty()
            }
            Self::Elements(_) | Self::Activate(_) => false,
        }
    }

    pub(crate) fn encode(&self, generation: Option<u32>) -> Batch {
        let mut batch = Batch::new(generation);
        match self {
            Self::Whole(change) => {
                whole(&mut batch, change, TABLE, false);
            }
            Self::Shape(change) => shape(&mut batch, change, TABLE, true),
            Self::Elements(part) => elements(&mut batch, TABLE, &part.removed, &part.added),
            Self::Activate(change) => {
                for (family, _) in &change.tables {
                    batch.new_table(family_number(*family), TABLE, false);
                }
            }
        }
        batch
    }
}

/// A batch that makes everything of a change in tables of another name, which stay asleep.
pub(crate) fn whole_asleep(change: &Change, table: &'static str) -> Batch {
    let mut batch = Batch::new(None);
    whole(&mut batch, change, table, true);
    batch
}

fn whole(batch: &mut Batch, change: &Change, table: &'static str, dormant: bool) {
    shape(batch, change, table, dormant);
    elements(batch, table, &change.removed, &change.added);
}

fn shape(batch: &mut Batch, change: &Change, table: &'static str, dormant: bool) {
    for (family, exists) in &change.tables {
        let number = family_number(*family);
        if *exists {
            batch.delete_table(number, table);
        }
        batch.new_table(number, table, dormant);
        for name in SETS {
            let remarks = schema::set_remarks(name, *family);
            batch.new_set(number, table, &schema::set_shape(name, *family), &remarks);
        }
    }
    for chain in change.chains.iter().filter(|chain| !chain.exists) {
        let hook = rules::hook_of(&chain.name);
        batch.new_chain(family_number(chain.family), table, &chain.name, hook);
    }
    for chain in &change.chains {
        let number = family_number(chain.family);
        if chain.exists {
            batch.flush_chain(number, table, &chain.name);
        }
        for rule in &chain.rules {
            batch.new_rule(number, table, &chain.name, rule);
        }
    }
}

fn elements(
    batch: &mut Batch,
    table: &'static str,
    removed: &[(Item, Value)],
    added: &[(Item, Value)],
) {
    for (family, set, elements) in by_set(removed) {
        batch.delete_elements(family_number(family), table, set, elements);
    }
    for (family, set, elements) in by_set(added) {
        batch.new_elements(family_number(family), table, set, elements);
    }
}

fn by_set(
    elements: &[(Item, Value)],
) -> impl Iterator<Item = (IpFamily, &'static str, impl Iterator<Item = SetElement>)> {
    let mut sets: BTreeMap<(IpFamily, &'static str), Vec<&(Item, Value)>> = BTreeMap::new();
    for element in elements {
        sets.entry((element.0.family(), element.0.set()))
            .or_default()
            .push(element);
    }
    sets.into_iter().map(|((family, set), elements)| {
        let elements = elements
            .into_iter()
            .flat_map(|(item, value)| item.encode(*value));
        (family, set, elements)
    })
}

/// More octets than any of these takes.
const ELEMENT_LENGTH: usize = 208;
const RULE_LENGTH: usize = 1200;
const TABLE_LENGTH: usize = 18 * 400;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use proxy_table::generate::any_scene;
    use proxy_table::{ForwardingTable, NodeContext, PodDetection};

    use super::*;
    use crate::program::Program;

    #[test]
    fn no_network_comes_before_the_one_that_it_overlaps_goes() {
        let program = |pods: &str, services: &str| {
            let context = NodeContext {
                pods: PodDetection::Networks(vec![pods.parse().unwrap()]),
                service_cidrs: [services.parse().unwrap()].into(),
                ..NodeContext::new("node-1".into())
            };
            Program::compile(&ForwardingTable::new(Arc::new(context)))
        };
        let wide = program("10.244.0.0/16", "10.96.0.0/12");
        let narrow = program("10.244.1.0/24", "10.96.0.0/16");
        for (from, to) in [(&wide, &narrow), (&narrow, &wide)] {
            let change = from.diff(to).unwrap();
            let networks = |elements: &[(Item, Value)]| -> BTreeSet<Item> {
                let items = elements.iter().map(|(item, _)| *item);
                items
                    .filter(|item| matches!(item, Item::PodNetwork(_) | Item::ServiceCidr(_)))
                    .collect()
            };
            let mut left = networks(&change.removed);
            assert_eq!(left.len(), 2, "{change:?}");
            for step in steps(&change, 1) {
                if let Step::Elements(part) = step {
                    left.retain(|item| !networks(&part.removed).contains(item));
                    let come = networks(&part.added);
                    assert!(
                        come.is_empty() || left.is_empty(),
                        "{come:?} before {left:?} go"
                    );
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn between_two_batches_a_flow_meets_what_was_or_what_will_be(
            scene in any_scene(12), back in 1_usize..12, longest_batch in 1_usize..2000,
        ) {
            let mut earlier = scene.clone();
            earlier.steps.truncate(scene.steps.len().saturating_sub(back));
            let (from, to) = (earlier.table(), scene.table());
            let mut held = Program::compile(&from);
            let change = held.diff(&Program::compile(&to)).unwrap_or_default();
            for step in steps(&change, longest_batch) {
                held.apply(&match step {
                    Step::Whole(change) => change.clone(),
                    Step::Shape(change) => Change { chains: change.chains.clone(), ..Change::default() },
                    Step::Elements(part) => Change {
                        removed: part.removed,
                        added: part.added,
                        ..Change::default()
                    },
                    Step::Activate(_) => Change::default(),
                });
                for flow in &scene.flows {
                    let verdict = held.walk(flow);
                    let allowed = [from.verdict(flow), to.verdict(flow)];
                    prop_assert!(allowed.contains(&verdict), "{verdict:?} is none of {allowed:?}");
                }
            }
            prop_assert_eq!(held.diff(&Program::compile(&to)), None);
        }
    }
}
