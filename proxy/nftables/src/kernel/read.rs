//! What the kernel says in a dump, put together.

use config::address::IpFamily;

use crate::netlink::attribute::{find, find_number, find_text};
use crate::netlink::expression::Expression;
use crate::netlink::message::SetElement;
use crate::program::schema::{self, SETS, TABLE};
use crate::program::{Class, Forwarder, Program, Value, encode, rules};

/// One table while it is read.
pub(crate) struct Reading {
    pub(crate) family: IpFamily,
    /// Whether everything seen so far is as ours is.
    pub(crate) whole: bool,
    pub(crate) program: Program,
    /// Whether every set gave as many elements as it has. One that grows its hash table meanwhile gives some twice and
    /// leaves others out.
    pub(crate) complete: bool,
}

impl Reading {
    pub(crate) fn chain(&mut self, chain: &[u8]) {
        if find_text(chain, 1) != Some(TABLE) {
            return;
        }
        let name = find_text(chain, 3).unwrap_or_default();
        let hook = rules::hook_of(name);
        let base = rules::base_chains(
            self.family,
            &proxy_table::PodDetection::None,
            &Forwarder::Rules,
        );
        let known =
            base.iter().any(|(base, ..)| *base == name) || Class::from_chain(name).is_some();
        self.whole &= known
            && match hook {
                Some(hook) => hook.describes(chain),
                None => find(chain, 4).is_none(),
            };
        self.program
            .chains
            .insert((self.family, name.to_owned()), Vec::new());
    }

    pub(crate) fn rule(&mut self, rule: &[u8]) {
        if find_text(rule, 1) != Some(TABLE) {
            return;
        }
        let chain = find_text(rule, 2).unwrap_or_default();
        let expressions = Expression::read_all(find(rule, 4).unwrap_or_default(), &SETS);
        let rules = self.program.chains.entry((self.family, chain.to_owned()));
        rules.or_default().push(expressions);
    }

    /// A set or map; with how many elements it says that it has (since Linux 6.16).
    pub(crate) fn set(&mut self, set: &[u8], known: &mut Vec<(&'static str, Option<u32>)>) {
        if find_text(set, 1) != Some(TABLE) {
            return;
        }
        let name = SETS
            .into_iter()
            .find(|name| Some(*name) == find_text(set, 2));
        match name.filter(|name| schema::set_shape(name, self.family).describes(set)) {
            Some(name) => known.push((name, find_number(set, 20))),
            None => self.whole = false,
        }
    }

    pub(crate) fn elements(
        &mut self,
        set: &'static str,
        message: &[u8],
        ranges: &mut Vec<SetElement>,
    ) {
        let has_ranges =
            [schema::SOURCES, schema::POD_NETWORKS, schema::SERVICE_CIDRS].contains(&set);
        for element in SetElement::read_all(message) {
            if has_ranges {
                ranges.push(element);
                continue;
            }
            match encode::decode(set, self.family, &element) {
                Some((item, value)) => {
                    self.program.elements.insert(item, value);
                }
                None => self.whole = false,
            }
        }
    }

    pub(crate) fn ranges(&mut self, set: &'static str, ranges: &[SetElement]) {
        match encode::decode_ranges(set, self.family, ranges) {
            Some(items) => {
                let elements = items.into_iter().map(|item| (item, Value::Member));
                self.program.elements.extend(elements);
            }
            None => self.whole = ranges.is_empty() && self.whole,
        }
    }
}
