//! A change as batches.

use std::collections::BTreeMap;

use config::address::IpFamily;

use crate::netlink::message::{Batch, SetElement};
use crate::program::schema::{self, SETS, TABLE, family_number};
use crate::program::{Change, Item, Value, rules};

/// What one batch does.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// Everything.
    Whole(&'a Change),
    /// Tables (dormant) and chains.
    Shape(&'a Change),
    /// Elements that belong together.
    Elements {
        removed: Vec<(Item, Value)>,
        added: Vec<(Item, Value)>,
    },
    /// The tables are complete.
    Activate(&'a Change),
}

/// A change in as many batches as it takes.
pub(crate) fn steps(change: &Change, longest_batch: usize) -> Vec<Step<'_>> {
    let rules: usize = change.chains.iter().map(|chain| chain.rules.len()).sum();
    let length = change.elements() * ELEMENT_LENGTH
        + rules * RULE_LENGTH
        + change.chains.len() * RULE_LENGTH
        + change.tables.len() * TABLE_LENGTH;
    if length <= longest_batch {
        return vec![Step::Whole(change)];
    }
    let mut steps = vec![Step::Shape(change)];
    let most = (longest_batch / ELEMENT_LENGTH).max(1);
    // What frontends share comes before them and goes after them; all of one frontend goes together.
    let mut groups: BTreeMap<_, (Vec<_>, Vec<_>)> = BTreeMap::new();
    for element in &change.removed {
        let group = element.0.frontend().map_or((2, None), |key| (1, Some(key)));
        groups.entry(group).or_default().0.push(*element);
    }
    for element in &change.added {
        let group = element.0.frontend().map_or((0, None), |key| (1, Some(key)));
        groups.entry(group).or_default().1.push(*element);
    }
    let mut current = (Vec::new(), Vec::new());
    let full = |steps: &mut Vec<_>, current: &mut (Vec<_>, Vec<_>)| {
        let (removed, added) = std::mem::take(current);
        if !removed.is_empty() || !added.is_empty() {
            steps.push(Step::Elements { removed, added });
        }
    };
    for ((stage, _), (removed, added)) in groups {
        let count = removed.len() + added.len();
        if current.0.len() + current.1.len() + count > most {
            full(&mut steps, &mut current);
        }
        if stage == 1 {
            current.0.extend(removed);
            current.1.extend(added);
            continue;
        }
        for element in removed {
            current.0.push(element);
            if current.0.len() >= most {
                full(&mut steps, &mut current);
            }
        }
        for element in added {
            current.1.push(element);
            if current.1.len() >= most {
                full(&mut steps, &mut current);
            }
        }
    }
    full(&mut steps, &mut current);
    if !change.tables.is_empty() {
        steps.push(Step::Activate(change));
    }
    steps
}

impl Step<'_> {
    /// Whether tables have another identity afterwards.
    pub(crate) fn changes_shape(&self) -> bool {
        match self {
            Self::Whole(change) | Self::Shape(change) => {
                !change.tables.is_empty() || !change.chains.is_empty()
            }
            Self::Elements { .. } | Self::Activate(_) => false,
        }
    }

    pub(crate) fn encode(&self, generation: Option<u32>) -> Batch {
        let mut batch = Batch::new(generation);
        match self {
            Self::Whole(change) => {
                shape(&mut batch, change, false);
                elements(&mut batch, &change.removed, &change.added);
            }
            Self::Shape(change) => shape(&mut batch, change, true),
            Self::Elements { removed, added } => elements(&mut batch, removed, added),
            Self::Activate(change) => {
                for (family, _) in &change.tables {
                    batch.new_table(family_number(*family), TABLE, false);
                }
            }
        }
        batch
    }
}

fn shape(batch: &mut Batch, change: &Change, dormant: bool) {
    for (family, exists) in &change.tables {
        let number = family_number(*family);
        if *exists {
            batch.delete_table(number, TABLE);
        }
        batch.new_table(number, TABLE, dormant);
        for name in SETS {
            let remarks = schema::set_remarks(name, *family);
            batch.new_set(number, TABLE, &schema::set_shape(name, *family), &remarks);
        }
    }
    for chain in change.chains.iter().filter(|chain| !chain.exists) {
        let hook = rules::hook_of(&chain.name);
        batch.new_chain(family_number(chain.family), TABLE, &chain.name, hook);
    }
    for chain in &change.chains {
        let number = family_number(chain.family);
        if chain.exists {
            batch.flush_chain(number, TABLE, &chain.name);
        }
        for rule in &chain.rules {
            batch.new_rule(number, TABLE, &chain.name, rule);
        }
    }
}

fn elements(batch: &mut Batch, removed: &[(Item, Value)], added: &[(Item, Value)]) {
    for (family, set, elements) in by_set(removed) {
        batch.delete_elements(family_number(family), TABLE, set, elements);
    }
    for (family, set, elements) in by_set(added) {
        batch.new_elements(family_number(family), TABLE, set, elements);
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
