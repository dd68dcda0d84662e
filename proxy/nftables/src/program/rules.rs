//! The chains and their rules.

mod phrases;

use config::address::IpFamily;
use proxy_table::PodDetection;

use crate::netlink::expression::{CtKey, Expression, MetaKey, Register, RuleVerdict};
use crate::netlink::message::Hook;
use crate::program::item::{Class, LEAVE_CHAIN, Side, UNREACHABLE_CHAIN};
use crate::program::schema::{
    AFFINITY, AFFINITY_ENDPOINTS, AFFINITY_SLOTS, BOUND, CLASSES, CLUSTER_IPS, ENDPOINTS,
    FRONTENDS, GUARDED, HAIRPINS, LEFT_ALONE, MASQUERADE_ALWAYS, MASQUERADE_HAIRPIN,
    MASQUERADE_NODE, MASQUERADE_UNLESS_POD, OUTSIDE_CLASSES, OUTSIDE_FRONTENDS, SERVICE_CIDRS,
    SOURCES,
};
use crate::program::{Forwarder, Rule};
use phrases::{FIRST, FRONTEND, Field, ITSELF, ORIGINAL, PROTOCOLS};

/// The chains that every table has, with their rules; those with a hook are entered by packets.
pub(crate) fn base_chains(
    family: IpFamily,
    pods: &PodDetection,
    forwarder: &Forwarder,
) -> Vec<(&'static str, Option<Hook>, Vec<Rule>)> {
    let rules = Rules { family, pods };
    let by_ipvs = matches!(forwarder, Forwarder::Ipvs { .. });
    let hook = |kind, number, priority| {
        Some(Hook {
            kind,
            number,
            priority,
        })
    };
    let mut chains = vec![
        (UNREACHABLE_CHAIN, None, rules.unreachable()),
        ("services", None, rules.services(by_ipvs)),
        ("sources", None, rules.sources()),
        ("out-of-window", None, rules.out_of_window()),
        (
            PREROUTING,
            hook("nat", PRE_ROUTING, -100),
            rules.prerouting(),
        ),
        (OUTPUT, hook("nat", LOCAL_OUT, -100), rules.output()),
        (
            POSTROUTING,
            hook("nat", POST_ROUTING, 100),
            if by_ipvs {
                rules.postrouting_of_ipvs()
            } else {
                rules.postrouting()
            },
        ),
        (
            "filter-prerouting",
            hook("filter", PRE_ROUTING, -110),
            rules.filter(),
        ),
        (
            "filter-output",
            hook("filter", LOCAL_OUT, -110),
            rules.filter(),
        ),
    ];
    if by_ipvs {
        chains.push((LEAVE_CHAIN, None, Rules::leave()));
    }
    chains
}

/// The hook of a base chain, if the chain has one.
pub(crate) fn hook_of(chain: &str) -> Option<Hook> {
    let chains = base_chains(IpFamily::V4, &PodDetection::None, &Forwarder::Rules);
    chains
        .into_iter()
        .find(|(name, ..)| *name == chain)
        .and_then(|(_, hook, _)| hook)
}

/// The rules of the chain of a class.
pub(crate) fn class_chain(family: IpFamily, side: Side, class: Class) -> Vec<Rule> {
    let rules = Rules {
        family,
        pods: &PodDetection::None,
    };
    match class {
        Class::Drop => Vec::new(),
        Class::Reject => rules.unreachable(),
        Class::Leave => Rules::leave(),
        Class::Pick {
            count,
            affinity_seconds: None,
        } => rules.pick(side, count),
        Class::Pick {
            count,
            affinity_seconds: Some(seconds),
        } => rules.pick_with_affinity(side, count, u64::from(seconds.get()) * 1000),
    }
}

/// What the map of classes has for a class.
pub(crate) fn class_verdict(side: Side, class: Class) -> RuleVerdict {
    class
        .chain(side)
        .map_or(RuleVerdict::Drop, RuleVerdict::Goto)
}

/// Rules of one family.
struct Rules<'a> {
    family: IpFamily,
    pods: &'a PodDetection,
}

impl Rules<'_> {
    /// Nothing more, in this hook: IPVS sees packets behind it.
    fn leave() -> Vec<Rule> {
        vec![Self::clear_priority()]
    }

    fn unreachable(&self) -> Vec<Rule> {
        let code = match self.family {
            IpFamily::V4 => 3,
            IpFamily::V6 => 4,
        };
        vec![
            Self::clear_priority(),
            vec![Expression::RejectPort { code }],
        ]
    }

    fn pick(&self, side: Side, count: u32) -> Vec<Rule> {
        let one_of = |modulus| {
            let random = Field::Random {
                modulus,
                offset: side.first_slot(),
            };
            let fields = [
                Field::Destination,
                Field::Protocol,
                Field::DestinationPort,
                random,
            ];
            self.to_endpoint(&fields, ENDPOINTS)
        };
        // The last rule serves packets that meet the list while it shrinks.
        vec![Self::clear_priority(), one_of(count), one_of(1)]
    }

    fn pick_with_affinity(&self, side: Side, count: u32, timeout_ms: u64) -> Vec<Rule> {
        const CLIENT: [Field; 4] = [
            Field::Source,
            Field::Destination,
            Field::Protocol,
            Field::DestinationPort,
        ];
        let [_, destination, protocol, port] = CLIENT;
        let to_named = self.to_endpoint(
            &[destination, protocol, port, Field::Priority],
            AFFINITY_ENDPOINTS,
        );
        let choose = |modulus| {
            let random = Field::Random {
                modulus,
                offset: side.first_slot(),
            };
            self.priority_from(&[destination, protocol, port, random], AFFINITY_SLOTS)
        };
        // Registers are taken in steps of 16 octets, as `nft` does.
        let value = Register(match self.family {
            IpFamily::V4 => 4,
            IpFamily::V6 => 12,
        });
        let client_and_name = || {
            let mut rule = self.load(&CLIENT);
            rule.push(Expression::MetaLoad {
                to: value,
                key: MetaKey::Priority,
            });
            rule
        };
        let remember = || {
            let mut rule = client_and_name();
            rule.push(Expression::Remember {
                key: FIRST,
                map: AFFINITY,
                value,
                timeout_ms,
            });
            rule
        };
        let forget = {
            let mut rule = client_and_name();
            rule.push(Expression::Forget {
                key: FIRST,
                map: AFFINITY,
                value,
            });
            rule
        };
        vec![
            [
                self.priority_from(&CLIENT, AFFINITY),
                remember(),
                to_named.clone(),
            ]
            .concat(),
            // Its endpoint is gone, or it has none.
            forget,
            [choose(count), remember(), to_named.clone()].concat(),
            // The map is full, or the list shrinks at this moment.
            [choose(1), to_named].concat(),
        ]
    }

    fn services(&self, by_ipvs: bool) -> Vec<Rule> {
        let undefined = |set, verdict| {
            [
                self.member(&[Field::Destination], set, false),
                vec![Expression::Verdict(verdict)],
            ]
            .concat()
        };
        let unreachable = || RuleVerdict::Goto(UNREACHABLE_CHAIN.to_owned());
        let mut rules = vec![
            [
                self.priority_from(&FRONTEND, FRONTENDS),
                Self::to_class(CLASSES),
            ]
            .concat(),
            undefined(CLUSTER_IPS, unreachable()),
            undefined(LEFT_ALONE, RuleVerdict::Return),
            undefined(SERVICE_CIDRS, RuleVerdict::Drop),
        ];
        if by_ipvs {
            // Echo requests are answered.
            rules.extend(PROTOCOLS.map(|protocol| {
                [Self::is_protocol(protocol), undefined(BOUND, unreachable())].concat()
            }));
        }
        rules
    }

    fn sources(&self) -> Vec<Rule> {
        let [destination, protocol, port] = FRONTEND;
        let not_admitted = [destination, protocol, port, Field::Source];
        vec![
            [
                self.member(&FRONTEND, GUARDED, false),
                self.member(&not_admitted, SOURCES, true),
                vec![Expression::Verdict(RuleVerdict::Drop)],
            ]
            .concat(),
        ]
    }

    fn prerouting(&self) -> Vec<Rule> {
        vec![
            Self::jump("sources"),
            [
                self.priority_from(&FRONTEND, OUTSIDE_FRONTENDS),
                self.unless_pod(),
                Self::to_class(OUTSIDE_CLASSES),
            ]
            .concat(),
            Self::jump("services"),
        ]
    }

    fn output(&self) -> Vec<Rule> {
        vec![Self::jump("sources"), Self::jump("services")]
    }

    fn postrouting(&self) -> Vec<Rule> {
        let not_translated = vec![
            Expression::CtLoad {
                to: FIRST,
                key: CtKey::Status,
            },
            Expression::Mask {
                register: FIRST,
                mask: STATUS_DESTINATION_NAT.to_ne_bytes(),
            },
            Expression::Compare {
                register: FIRST,
                equal: true,
                value: vec![0; 4],
            },
            Expression::Verdict(RuleVerdict::Return),
        ];
        let mut rules = vec![not_translated];
        rules.extend(self.masquerade_frontends());
        rules.push([self.member(&ITSELF, HAIRPINS, false), Self::masquerade()].concat());
        rules
    }

    /// What IPVS translates has no mark of it in conntrack: only the original destination tells.
    fn postrouting_of_ipvs(&self) -> Vec<Rule> {
        let mut rules = self.masquerade_frontends();
        for protocol in PROTOCOLS {
            for set in [MASQUERADE_UNLESS_POD, MASQUERADE_NODE, MASQUERADE_HAIRPIN] {
                rules.push(
                    [
                        Self::is_protocol(protocol),
                        self.member(&ORIGINAL, set, false),
                        self.member(&ITSELF, HAIRPINS, false),
                        Self::masquerade(),
                    ]
                    .concat(),
                );
            }
        }
        rules
    }

    fn masquerade_frontends(&self) -> Vec<Rule> {
        let of_node = vec![
            Expression::MetaLoad {
                to: FIRST,
                key: MetaKey::InputInterface,
            },
            Expression::Compare {
                register: FIRST,
                equal: true,
                value: vec![0; 4],
            },
        ];
        let mut rules = Vec::new();
        for protocol in PROTOCOLS {
            // `nft` knows what the original port is only where the protocol is known.
            let frontend = |set| {
                [
                    Self::is_protocol(protocol),
                    self.member(&ORIGINAL, set, false),
                ]
                .concat()
            };
            rules.push([frontend(MASQUERADE_ALWAYS), Self::masquerade()].concat());
            rules.push(
                [
                    frontend(MASQUERADE_UNLESS_POD),
                    self.unless_pod(),
                    Self::masquerade(),
                ]
                .concat(),
            );
            rules.push(
                [
                    of_node.clone(),
                    frontend(MASQUERADE_NODE),
                    self.unless_pod(),
                    Self::masquerade(),
                ]
                .concat(),
            );
        }
        rules
    }

    /// Packets outside the window of their connection are not translated, and what gets them unexpectedly resets it.
    fn out_of_window(&self) -> Vec<Rule> {
        let drop = || vec![Expression::Verdict(RuleVerdict::Drop)];
        let answer = [
            Field::Source,
            Field::Source,
            Field::Protocol,
            Field::SourcePort,
        ];
        vec![
            [self.priority_from(&FRONTEND, FRONTENDS), drop()].concat(),
            [self.member(&answer, HAIRPINS, false), drop()].concat(),
        ]
    }

    fn filter(&self) -> Vec<Rule> {
        vec![vec![
            Expression::CtLoad {
                to: FIRST,
                key: CtKey::State,
            },
            Expression::Mask {
                register: FIRST,
                mask: STATE_INVALID.to_ne_bytes(),
            },
            Expression::Compare {
                register: FIRST,
                equal: false,
                value: vec![0; 4],
            },
            Expression::Verdict(RuleVerdict::Jump("out-of-window".to_owned())),
        ]]
    }
}

pub(crate) const PREROUTING: &str = "prerouting";
pub(crate) const OUTPUT: &str = "output";
pub(crate) const POSTROUTING: &str = "postrouting";

/// `IPS_DST_NAT`.
const STATUS_DESTINATION_NAT: u32 = 1 << 5;
/// `NF_CT_STATE_INVALID_BIT`.
const STATE_INVALID: u32 = 1;
/// `NF_INET_*`.
const PRE_ROUTING: u32 = 0;
const LOCAL_OUT: u32 = 3;
const POST_ROUTING: u32 = 4;
