//! The chains that are there with any Services.

use std::net::IpAddr;

use config::address::IpFamily;
use proxy_table::{NodeContext, PodDetection};

use super::tree::{OUTPUT, OUTSIDE, REFUSED, SERVICES, Tree};
use super::{Hook, Ruleset, Style, Table, jump, names};
use crate::rule::{InterfaceMatch, MarkMatch, Rule, States, Target};

/// What all chains of a family depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) family: IpFamily,
    pub(super) context: &'a NodeContext,
    pub(super) style: Style,
}

impl Surroundings<'_> {
    pub(super) fn has(&self, address: IpAddr) -> bool {
        IpFamily::of(address) == self.family
    }

    /// Rules that send packets of Pods to a target.
    pub(super) fn pods(&self, target: &Target) -> Vec<Rule> {
        let to = || Rule::to(target.clone());
        let arriving_on = |interface: Option<InterfaceMatch>| {
            let rule = interface.map(|interface| Rule {
                input: Some(interface),
                ..to()
            });
            rule.into_iter().collect()
        };
        match &self.context.pods {
            PodDetection::None => Vec::new(),
            PodDetection::Networks(networks) => {
                let of_family = networks.iter().filter(|network| self.has(network.addr()));
                of_family.map(|network| to().source(*network)).collect()
            }
            PodDetection::Bridge(name) => arriving_on(InterfaceMatch::name(name)),
            PodDetection::InterfacePrefix(prefix) => arriving_on(InterfaceMatch::prefix(prefix)),
        }
    }

    /// All rules where there is no Service.
    pub(super) fn base(&self) -> Ruleset {
        let mut rules = Ruleset::default();
        let mark = self.style.mark;
        let nat = |chain: &str, content: Vec<Rule>, rules: &mut Ruleset| {
            rules.append(Table::Nat, &chain.into(), content);
        };
        let set_mark = vec![Rule::to(Target::SetMark(mark))];
        nat(names::MARK_MASQUERADE, set_mark, &mut rules);
        let mut outside = self.pods(&Target::Return);
        outside.push(jump(&names::MARK_MASQUERADE.into()));
        nat(names::MARK_OUTSIDE, outside, &mut rules);
        let random_fully = self.style.random_fully;
        let masquerade = vec![
            self.marked(false),
            Rule::to(Target::FlipMark(mark)),
            Rule::to(Target::Masquerade { random_fully }),
        ];
        nat(names::POSTROUTING, masquerade, &mut rules);

        let is_answered = Rule {
            states: States::RELATED.or(States::ESTABLISHED),
            translated: true,
            ..Rule::to(Target::Accept)
        };
        let is_marked = Rule {
            target: Target::Accept,
            ..self.marked(true)
        };
        let forward = vec![is_marked, is_answered];
        rules.append(Table::Filter, &names::FORWARD.into(), forward);
        for tree in Tree::ALL {
            let root = self.root(tree, Vec::new(), []);
            rules.append(tree.table, &tree.root.into(), root);
        }
        hook(&mut rules);
        rules
    }

    /// The chain at the root of a tree: rules that lead into the tree, and what stands before and behind them.
    pub(super) fn root(
        &self,
        tree: Tree,
        jumps: Vec<Rule>,
        left_alone: impl IntoIterator<Item = IpAddr>,
    ) -> Vec<Rule> {
        let mut rules = Vec::new();
        if tree == REFUSED {
            rules.push(Rule {
                states: States::INVALID,
                ..jump(&names::ANSWERS.into())
            });
            rules.push(Rule {
                translated: true,
                ..Rule::default()
            });
        }
        rules.extend(jumps);
        if tree == OUTPUT {
            rules.push(jump(&SERVICES.root.into()));
        }
        if tree == OUTSIDE {
            rules.push(jump(&REFUSED.root.into()));
        }
        if tree == REFUSED {
            let left_alone = left_alone.into_iter().map(|address| {
                let leave = Rule::to(Target::Return).destination(address.into());
                leave.comment("of another proxy")
            });
            rules.extend(left_alone);
            let cidrs = self.context.service_cidrs.iter();
            let cidrs = cidrs.filter(|network| self.has(network.addr()));
            rules.extend(cidrs.map(|network| {
                let drop = Rule::to(Target::Drop).destination(*network);
                drop.comment("no Service has the address")
            }));
        }
        rules
    }

    fn marked(&self, present: bool) -> Rule {
        let mark = self.style.mark;
        Rule {
            mark: Some(MarkMatch { mark, present }),
            ..Rule::default()
        }
    }
}

/// The rules of built-in chains that lead to ours.
fn hook(rules: &mut Ruleset) {
    let refused = |chain: &str| Rule {
        states: States::INVALID.or(States::NEW),
        ..jump(&chain.into()).comment("foghorn: what no endpoint serves")
    };
    let portals = |chain: &str| jump(&chain.into()).comment("foghorn: Services");
    let masquerade = jump(&names::POSTROUTING.into()).comment("foghorn: masquerade");
    let forwarded = jump(&names::FORWARD.into()).comment("foghorn: forwarded");
    for (table, hook, rule) in [
        (Table::Nat, Hook::Prerouting, portals(names::SERVICES)),
        (Table::Nat, Hook::Output, portals(names::OUTPUT)),
        (Table::Nat, Hook::Postrouting, masquerade),
        (Table::Filter, Hook::Input, refused(names::OUTSIDE)),
        (Table::Filter, Hook::Forward, refused(names::OUTSIDE)),
        (Table::Filter, Hook::Output, refused(names::SERVICES)),
        (Table::Filter, Hook::Forward, forwarded),
    ] {
        let hooked = rules.hooks.entry((table, hook)).or_default();
        hooked.push(rule);
        hooked.sort_unstable();
    }
}
